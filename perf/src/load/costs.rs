//! What a load costs: what each process used between the beginning and the end of the window.

use std::path::Path;

use pygmy_proto::message::{IoStatus, Role, Status, StatusOk};
use serde::Serialize;

use super::watch::{Moment, Watch};
use crate::ask::Asker;
use crate::error::Error;
use crate::local::Local;
use crate::target::Target;
use crate::usage::{self, Spent};

/// What one process used, or all of them. Nothing where it cannot be known.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Cost {
    /// The process.
    pub name: String,
    /// CPU time in seconds, user and system.
    pub cpu_s: Option<f64>,
    /// System calls, as the server counts its own.
    pub system_calls: Option<u64>,
    /// Those of them after which something was durable.
    pub syncs: Option<u64>,
    /// Bytes that came over sockets.
    pub received: Option<u64>,
    /// Bytes that went.
    pub sent: Option<u64>,
    /// Bytes that the kernel wrote to disks for it.
    pub written: Option<u64>,
    /// Context switches, voluntary or not.
    pub switches: Option<u64>,
}

impl Cost {
    /// What was used between two readings.
    fn between(name: &str, begin: &Reading, end: &Reading) -> Self {
        fn grown<T>(begin: Option<&T>, end: Option<&T>, of: fn(&T) -> u64) -> Option<u64> {
            Some(of(end?).saturating_sub(of(begin?)))
        }
        let spent = |of| grown(begin.spent.as_ref(), end.spent.as_ref(), of);
        let told = |of| grown(begin.told.as_ref(), end.told.as_ref(), of);
        Self {
            name: name.into(),
            cpu_s: spent(|spent: &Spent| spent.cpu_ns).map(|ns| ns as f64 / 1e9),
            system_calls: told(|io: &IoStatus| io.system_calls),
            syncs: told(|io| io.syncs),
            received: told(|io| io.received),
            sent: told(|io| io.sent),
            written: spent(|spent| spent.written),
            switches: spent(|spent| spent.switches),
        }
    }

    /// The sum of what is known.
    fn sum<'a>(name: &str, costs: impl Iterator<Item = &'a Cost>) -> Self {
        fn add<T: std::ops::Add<Output = T>>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a + b),
                (a, b) => a.or(b),
            }
        }
        costs.fold(Cost { name: name.into(), ..Cost::default() }, |sum, cost| Cost {
            name: sum.name,
            cpu_s: add(sum.cpu_s, cost.cpu_s),
            system_calls: add(sum.system_calls, cost.system_calls),
            syncs: add(sum.syncs, cost.syncs),
            received: add(sum.received, cost.received),
            sent: add(sum.sent, cost.sent),
            written: add(sum.written, cost.written),
            switches: add(sum.switches, cost.switches),
        })
    }
}

/// What a process used up to one moment.
#[derive(Debug, Clone, Default)]
struct Reading {
    /// What this machine's kernel says.
    spent: Option<Spent>,
    /// What the server says.
    told: Option<IoStatus>,
}

/// One process that is watched.
#[derive(Debug)]
struct Watched {
    name: String,
    /// None: this program.
    role: Option<Role>,
    /// Where it runs on this machine.
    pid: Option<u32>,
    /// Where it tells what it counted.
    asker: Option<Asker>,
    begin: Reading,
    end: Reading,
}

impl Watched {
    fn read(&mut self, own: IoStatus) -> Reading {
        // A process that is gone, or a connection that broke, leaves a gap in the table and does not end the run.
        let spent = self.pid.and_then(|pid| usage::spent(pid).ok());
        let told = match self.role {
            None => Some(own),
            Some(_) => self.asker.as_mut().and_then(|asker| Some(asker.ask::<_, StatusOk>(&Status {}).ok()?.io)),
        };
        Reading { spent, told }
    }
}

/// Reads what the servers and this program use, at the beginning and at the end of the window.
#[derive(Debug)]
pub struct Meter {
    watched: Vec<Watched>,
}

impl Meter {
    /// Of the servers of a cluster; of those that run on this machine by `local`, also what the kernel knows.
    pub fn new(target: &Target, local: Option<&Local>) -> Self {
        let server = |server: &crate::target::Server| Watched {
            name: server.name.clone(),
            role: Some(server.role),
            pid: local
                .and_then(|local| local.pid(&server.name).ok())
                .map(|pid| pid.as_raw_nonzero().get().unsigned_abs()),
            asker: Asker::connect(server).ok(),
            begin: Reading::default(),
            end: Reading::default(),
        };
        let mut watched: Vec<Watched> = target.servers.iter().map(server).collect();
        watched.push(Watched {
            name: "pygmy-perf".into(),
            role: None,
            pid: Some(std::process::id()),
            asker: None,
            begin: Reading::default(),
            end: Reading::default(),
        });
        Self { watched }
    }

    /// What was used.
    pub fn costs(&self) -> Costs {
        let costs = self.watched.iter().map(|of| (of.role, Cost::between(&of.name, &of.begin, &of.end)));
        let (servers, programs): (Vec<_>, Vec<_>) = costs.partition(|(role, _)| role.is_some());
        let replicas = servers.iter().filter(|(role, _)| matches!(role, Some(Role::Order | Role::Catalog))).count();
        let servers: Vec<Cost> = servers.into_iter().map(|(_, cost)| cost).collect();
        let all_servers = Cost::sum("all servers", servers.iter());
        let program = Cost::sum("pygmy-perf", programs.iter().map(|(_, cost)| cost));
        let everything = Cost::sum("with pygmy-perf", [&all_servers, &program].into_iter());
        Costs { replicas, servers, all_servers, program, everything }
    }
}

impl Watch for Meter {
    fn at(&mut self, moment: Moment, own: IoStatus) -> Result<(), Error> {
        for watched in &mut self.watched {
            let reading = watched.read(own);
            match moment {
                Moment::Begin => watched.begin = reading,
                Moment::End => watched.end = reading,
            }
        }
        Ok(())
    }
}

/// What a load cost.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Costs {
    /// Servers that keep a log.
    pub replicas: usize,
    /// What each server used.
    pub servers: Vec<Cost>,
    /// What they used together.
    pub all_servers: Cost,
    /// What this program used.
    pub program: Cost,
    /// All of it.
    pub everything: Cost,
}

impl Costs {
    /// All rows of a table: the servers, their sum, this program, the sum of all.
    pub fn rows(&self) -> impl Iterator<Item = &Cost> {
        self.servers.iter().chain([&self.all_servers, &self.program, &self.everything])
    }

    /// What is not in it, as sentences.
    pub fn gaps(&self) -> Vec<String> {
        let missing = |is_missing: fn(&Cost) -> bool| {
            let names: Vec<&str> =
                self.servers.iter().filter(|cost| is_missing(cost)).map(|cost| cost.name.as_str()).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        let kernel = missing(|cost| cost.cpu_s.is_none()).map(|names| {
            format!("CPU time, bytes written and context switches of {names} are not in it: no process of this machine is known for it.")
        });
        let told = missing(|cost| cost.system_calls.is_none()).map(|names| {
            format!("System calls, syncs and bytes over sockets of {names} are not in it: it did not tell.")
        });
        kernel.into_iter().chain(told).collect()
    }
}

/// The cluster of a directory, if its servers run on this machine.
pub fn local(program: &Path, dir: &Path) -> Option<Local> {
    dir.is_dir().then(|| Local::new(program.to_path_buf(), dir.to_path_buf()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(cpu_ns: u64, calls: Option<u64>) -> Reading {
        let told = calls.map(|system_calls| IoStatus { system_calls, syncs: 1, ..IoStatus::default() });
        Reading { spent: Some(Spent { cpu_ns, switches: 2 * cpu_ns, written: 0 }), told }
    }

    fn watched(name: &str, role: Option<Role>, begin: Reading, end: Reading) -> Watched {
        Watched { name: name.into(), role, pid: None, asker: None, begin, end }
    }

    #[test]
    fn costs_are_differences_and_sums_of_what_is_known() {
        let gone = Reading::default();
        let meter = Meter {
            watched: vec![
                watched(
                    "front-1",
                    Some(Role::Front),
                    reading(1_000_000_000, Some(10)),
                    reading(3_000_000_000, Some(25)),
                ),
                watched("order-1", Some(Role::Order), reading(5, Some(5)), gone),
                watched("pygmy-perf", None, reading(0, None), reading(500_000_000, None)),
            ],
        };
        let costs = meter.costs();
        assert_eq!((costs.servers[0].cpu_s, costs.servers[0].system_calls), (Some(2.0), Some(15)));
        assert_eq!((costs.servers[1].cpu_s, costs.servers[1].system_calls), (None, None));
        assert_eq!((costs.all_servers.cpu_s, costs.everything.cpu_s), (Some(2.0), Some(2.5)));
        assert_eq!((costs.program.system_calls, costs.everything.system_calls), (None, Some(15)));
        assert_eq!((costs.replicas, costs.rows().count()), (1, 5));
        let gaps = costs.gaps();
        assert!(
            gaps.len() == 2 && gaps.iter().all(|gap| gap.contains("order-1") && !gap.contains("front-1")),
            "{gaps:?}"
        );
    }
}

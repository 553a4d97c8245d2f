//! Who is killed, paused and brought back, and when: drawn from a seed, within what the store must stand.

use std::process::Child;
use std::time::Duration;

use pygmy_proto::message::Role;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use serde::Serialize;

use crate::error::Error;
use crate::local::Local;
use crate::span::{self, Clock};
use crate::target::Server;

/// Log replicas that are gone at the same time, at most: a majority of five voters is left.
const REPLICAS_GONE_MAX: usize = 2;
/// Fronts that are gone at the same time, at most.
const FRONTS_GONE_MAX: usize = 1;
/// Of a hundred faults, how many kill; the others pause.
const KILLS_PERCENT: u32 = 60;
/// Longest time to the next fault.
const GAP_MS_MAX: u64 = 600;
/// Longest time that a server is left dead or paused.
const GONE_MS_MAX: u64 = 3_000;
/// How often servers are looked after.
const TICK: Duration = Duration::from_millis(10);
/// Tries to start a server before that itself is the finding.
const STARTS_MAX: u32 = 3;
/// Time to bring everybody back.
const RECOVERY: Duration = Duration::from_secs(60);

/// Something that was done to a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// When, in nanoseconds of the history's clock.
    pub at_ns: u64,
    /// To whom.
    pub node: String,
    /// What.
    pub what: What,
}

/// What is done to servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// kill -9.
    Kill,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Resume,
    /// Its process was begun again.
    Start,
    /// It answers again.
    Answers,
}

#[derive(Debug)]
enum Condition {
    Up,
    Killed { until_ns: u64, starts: u32 },
    Paused { until_ns: u64 },
    Starting { child: Child, starts: u32 },
}

/// The servers of a cluster, and what is wrong with each.
#[derive(Debug)]
pub(super) struct Monkey<'a> {
    local: &'a Local,
    servers: Vec<(Server, Condition)>,
    rng: ChaCha8Rng,
    clock: Clock,
    done: Vec<Fault>,
}

impl<'a> Monkey<'a> {
    /// Draws from `seed` what happens to `servers`.
    pub(super) fn new(local: &'a Local, servers: Vec<Server>, seed: u64, clock: Clock) -> Self {
        let servers = servers.into_iter().map(|server| (server, Condition::Up)).collect();
        Self { local, servers, rng: ChaCha8Rng::seed_from_u64(seed), clock, done: Vec::new() }
    }

    /// Everything that was done so far.
    pub(super) fn take_faults(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.done)
    }

    /// Does damage for so long, then brings everybody back.
    ///
    /// # Errors
    /// When a server ended by itself, or does not come back.
    pub(super) fn run(&mut self, duration: Duration) -> Result<(), Error> {
        let end_ns = self.clock.now_ns() + span::ns(duration);
        let mut next_ns = self.clock.now_ns();
        while self.clock.now_ns() < end_ns {
            self.bring_back(false)?;
            if self.clock.now_ns() >= next_ns {
                self.damage()?;
                next_ns = self.clock.now_ns() + self.rng.random_range(1..=GAP_MS_MAX) * 1_000_000;
            }
            std::thread::sleep(TICK);
        }
        let late_ns = self.clock.now_ns() + span::ns(RECOVERY);
        while !self.servers.iter().all(|(_, condition)| matches!(condition, Condition::Up)) {
            if self.clock.now_ns() > late_ns {
                let why = format!("not all servers are back: {:?}", self.servers);
                return Err(Error::Io { what: "bring them back".into(), error: std::io::Error::other(why) });
            }
            self.bring_back(true)?;
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    fn note(&mut self, node: &str, what: What) {
        self.done.push(Fault { at_ns: self.clock.now_ns(), node: node.into(), what });
    }

    fn gone(&self, is_front: bool) -> usize {
        let gone = |(server, condition): &&(Server, Condition)| {
            !matches!(condition, Condition::Up) && (server.role == Role::Front) == is_front
        };
        self.servers.iter().filter(gone).count()
    }

    /// Kills or pauses one more, if one more may be gone.
    fn damage(&mut self) -> Result<(), Error> {
        let place = self.rng.random_range(0..self.servers.len());
        let is_kill = self.rng.random_range(0..100) < KILLS_PERCENT;
        let gone_ms = self.rng.random_range(1..=GONE_MS_MAX);
        let (server, condition) = &self.servers[place];
        let is_front = server.role == Role::Front;
        let most = if is_front { FRONTS_GONE_MAX } else { REPLICAS_GONE_MAX };
        if !matches!(condition, Condition::Up) || self.gone(is_front) >= most {
            return Ok(());
        }
        let name = server.name.clone();
        let until_ns = self.clock.now_ns() + gone_ms * 1_000_000;
        let (signal, what, condition) = if is_kill {
            (Signal::KILL, What::Kill, Condition::Killed { until_ns, starts: 0 })
        } else {
            (Signal::STOP, What::Pause, Condition::Paused { until_ns })
        };
        // A server that is not there to be signalled has ended by itself, and that is a finding.
        self.local.signal(&name, signal)?;
        self.note(&name, what);
        self.servers[place].1 = condition;
        Ok(())
    }

    /// Brings those back whose time has come, or all.
    fn bring_back(&mut self, all: bool) -> Result<(), Error> {
        let now_ns = self.clock.now_ns();
        for place in 0..self.servers.len() {
            let (server, condition) = &mut self.servers[place];
            let name = server.name.clone();
            match condition {
                Condition::Up => {}
                Condition::Paused { until_ns } if all || *until_ns <= now_ns => {
                    *condition = Condition::Up;
                    self.local.signal(&name, Signal::CONT)?;
                    self.note(&name, What::Resume);
                }
                Condition::Killed { until_ns, starts } if all || *until_ns <= now_ns => {
                    let starts = *starts + 1;
                    *condition = Condition::Starting { child: self.local.begin_start(&name)?, starts };
                    self.note(&name, What::Start);
                }
                Condition::Killed { .. } | Condition::Paused { .. } => {}
                Condition::Starting { child, starts } => {
                    let Some(status) = child.try_wait().map_err(Error::io(&name))? else { continue };
                    if status.success() {
                        *condition = Condition::Up;
                        self.note(&name, What::Answers);
                    } else if *starts < STARTS_MAX {
                        *condition = Condition::Killed { until_ns: now_ns, starts: *starts };
                    } else {
                        let why = format!("`pygmy-node start` failed {starts} times");
                        return Err(Error::Io { what: name, error: std::io::Error::other(why) });
                    }
                }
            }
        }
        Ok(())
    }
}

impl Drop for Monkey<'_> {
    fn drop(&mut self) {
        for (server, condition) in &mut self.servers {
            match condition {
                // Who is paused could not be stopped in order.
                Condition::Paused { .. } => drop(self.local.signal(&server.name, Signal::CONT)),
                // It ends by itself; nobody else waits for it.
                Condition::Starting { child, .. } => drop(child.wait()),
                Condition::Up | Condition::Killed { .. } => {}
            }
        }
    }
}

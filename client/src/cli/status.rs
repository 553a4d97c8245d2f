//! Asks every node how it is, and says what that makes of the cluster.

use std::time::Duration;

use pygmy_client::{Client, Error};
use pygmy_proto::message::{FrontStatus, StatusOk};
use serde::Serialize;

use super::args::Global;
use super::failure::Failure;
use super::links;
use super::output::{Grid, Output};
use super::target::Target;
use super::voters::Voters;

/// A node that is there answers this at once; longer waits would only delay the table for those that are not.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whom to ask, and what is known beforehand.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Its slot; 0: it was named by its address.
    pub(super) number: u16,
    pub(super) name: String,
    pub(super) role: &'static str,
    address: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Object<'a> {
    Up {
        address: &'a str,
        up: bool,
        #[serde(flatten)]
        status: &'a StatusOk,
    },
    Down {
        node: u16,
        name: &'a str,
        role: &'a str,
        address: &'a str,
        up: bool,
        error: String,
    },
}

/// The cluster as a whole, in the last line.
#[derive(Serialize)]
struct Whole<'a> {
    voters: Voters<'a>,
}

pub(super) fn run(show_links: bool, global: &Global, target: &Target, output: &mut Output) -> Result<(), Failure> {
    let asked = whom(global, target);
    let answers = ask(&asked, global, target);
    // Who was asked alone speaks for itself.
    let all = target.cluster.is_some() && global.node.is_none();
    let voters = Voters::of(answers.iter().flatten().filter(|_| all));
    if output.is_json() {
        for (asked, answer) in asked.iter().zip(&answers) {
            output.object(&object(asked, answer))?;
        }
        if let Some(voters) = voters {
            output.object(&Whole { voters })?;
        }
    } else {
        if show_links {
            output.line(links::table(answers.iter().flatten(), target))?;
            output.line(format!("\n{}", links::system(answers.iter().flatten(), target)))?;
        } else {
            output.line(table(&asked, &answers, target))?;
        }
        for (asked, answer) in asked.iter().zip(&answers) {
            if let Err(error) = answer {
                output.line(format!("{}: {}", asked.name, why(error)))?;
            }
        }
        if let Some(caches) = caches(answers.iter().flatten(), target).filter(|_| !show_links) {
            output.line(format!("\n{caches}"))?;
        }
        for status in answers.iter().flatten() {
            if let Some(waiting) = status.front.as_ref().map(|front| front.waiting).filter(|waiting| *waiting > 0) {
                let name = target.node_name(status.node);
                output.line(format!(
                    "{name}: {waiting} of its jobs wait for their turn: the servers behind it are busy"
                ))?;
            }
        }
        if let Some(voters) = voters {
            output.line(format!("\n{}", voters.text(target)))?;
        }
    }
    verdict(answers)
}

/// A failure when nobody answered.
pub(super) fn verdict(answers: Vec<Result<StatusOk, Error>>) -> Result<(), Failure> {
    if answers.iter().any(Result::is_ok) {
        return Ok(());
    }
    match <[_; 1]>::try_from(answers) {
        Ok([Err(error)]) => Err(error.into()),
        _ => Err(Failure::Nobody),
    }
}

/// The nodes that the arguments mean.
pub(super) fn whom(global: &Global, target: &Target) -> Vec<Asked> {
    let Some(cluster) = &target.cluster else {
        let asked = |address: &String| Asked { number: 0, name: address.clone(), role: "-", address: address.clone() };
        return target.addresses.iter().map(asked).collect();
    };
    let wanted = cluster.nodes.iter().filter(|node| global.node.as_ref().is_none_or(|name| *name == node.name));
    wanted
        .map(|node| Asked {
            number: node.number,
            name: node.name.clone(),
            role: node.role.name(),
            address: node.address.clone(),
        })
        .collect()
}

/// Asks all at once, so that one that does not answer costs its own time alone.
pub(super) fn ask(asked: &[Asked], global: &Global, target: &Target) -> Vec<Result<StatusOk, Error>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = asked
            .iter()
            .map(|node| {
                let mut options = target.options(std::slice::from_ref(&node.address));
                options.connect_rounds = Some(1);
                scope.spawn(move || {
                    let mut client = Client::new(options);
                    client.set_timeout(global.timeout().min(PATIENCE));
                    client.status()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(Error::Closed))).collect()
    })
}

fn object<'a>(asked: &'a Asked, answer: &'a Result<StatusOk, Error>) -> Object<'a> {
    let Asked { number, name, role, address } = asked;
    match answer {
        Ok(status) => Object::Up { address, up: true, status },
        Err(error) => Object::Down { node: *number, name, role, address, up: false, error: why(error) },
    }
}

/// Why the one node that was asked did not answer.
fn why(error: &Error) -> String {
    match error {
        Error::Unreachable { causes, .. } => causes.0.first().map_or(String::new(), |(_, cause)| cause.to_string()),
        other => other.to_string(),
    }
}

fn table(asked: &[Asked], answers: &[Result<StatusOk, Error>], target: &Target) -> Grid {
    let mut grid = Grid::new(&[
        "node",
        "role",
        "address",
        "up",
        ">epoch",
        "holder",
        ">last",
        ">durable",
        ">committed",
        ">applied",
        "state hash",
        "voter",
        ">clients",
        ">jobs",
    ]);
    for (asked, answer) in asked.iter().zip(answers) {
        let mut cells = vec![asked.name.clone(), asked.role.to_owned(), asked.address.clone()];
        match answer {
            Ok(status) => {
                if asked.number > 0 {
                    cells[0] = target.node_name(status.node);
                }
                cells.extend(status_cells(status, target));
            }
            Err(_) => cells.push("no".to_owned()),
        }
        if let (Ok(status), 0) = (answer, asked.number) {
            cells[0] = status.name.to_string();
            cells[1] = status.role.name().to_owned();
        }
        grid.row(cells);
    }
    grid
}

/// What the fronts keep.
fn caches<'a>(answers: impl Iterator<Item = &'a StatusOk>, target: &Target) -> Option<Grid> {
    let mut grid = Grid::new(&[
        "cache of",
        ">hits",
        ">share",
        ">late",
        ">misses",
        ">shared",
        ">entries",
        ">MiB",
        ">of",
        ">changed",
        ">refused",
        ">emptied",
        "fed by",
        ">up to",
        ">barrier ms ago",
    ]);
    let mut some = false;
    for (status, front) in answers.filter_map(|status| Some((status, status.front.as_ref()?))) {
        let name = if status.node == 0 { status.name.to_string() } else { target.node_name(status.node) };
        grid.row(cache_cells(name, front, target));
        some = true;
    }
    some.then_some(grid)
}

fn cache_cells(name: String, front: &FrontStatus, target: &Target) -> Vec<String> {
    if front.bytes_max == 0 {
        return vec![name, "none".to_owned()];
    }
    let asked = front.hits + front.misses;
    let share = if asked == 0 { "-".to_owned() } else { format!("{:.1} %", front.hits as f64 * 100.0 / asked as f64) };
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    vec![
        name,
        front.hits.to_string(),
        share,
        front.delayed.to_string(),
        front.misses.to_string(),
        front.coalesced.to_string(),
        front.entries.to_string(),
        mib(front.bytes),
        mib(front.bytes_max),
        front.invalidations.to_string(),
        front.refused.to_string(),
        front.emptied.to_string(),
        if front.feed == 0 { "nobody".to_owned() } else { target.node_name(front.feed) },
        front.processed.to_string(),
        front.fresh_age_ms.map_or("never".to_owned(), |ms| ms.to_string()),
    ]
}

fn status_cells(status: &StatusOk, target: &Target) -> Vec<String> {
    let mut cells = vec!["yes".to_owned()];
    match &status.replica {
        Some(replica) => cells.extend([
            format!("{}.{}", replica.epoch.counter, replica.epoch.node),
            if replica.holder == 0 { "-".to_owned() } else { target.node_name(replica.holder) },
            replica.last_seq.to_string(),
            replica.durable.to_string(),
            replica.committed.to_string(),
            replica.applied.to_string(),
            format!("{:016x}", replica.state_hash),
            if replica.voter { "yes" } else { "no" }.to_owned(),
        ]),
        None => cells.extend(std::iter::repeat_n("-".to_owned(), 8)),
    }
    cells.extend([status.clients.to_string(), status.jobs.to_string()]);
    cells
}

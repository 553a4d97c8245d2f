//! `down`, `kill`, `start` and `pid`.

use std::time::{Duration, Instant};

use pygmy_proto::message::StatusOk;
use rustix::process::Signal;

use super::process::{self, LOOK_EVERY};
use super::{ClusterDir, LocalError, pidfile};
use crate::settings::{ClusterSettings, NodeSettings};

/// Longest wait for a node that was started to answer.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for a process that may have been killed just now.
const DEATH_PATIENCE: Duration = Duration::from_millis(500);
/// Longest wait for the `up` that watches over a cluster to stop it.
const UP_PATIENCE: Duration = Duration::from_secs(30);

/// Stops the cluster in `dir`. A sentence about what was done.
///
/// # Errors
/// There is no cluster, or the system refused.
pub fn down(dir: &ClusterDir) -> Result<String, LocalError> {
    // Nodes that run are stopped whether or not there still is a usable file.
    let settings = dir.settings();
    let before = process::running(dir)?.len();
    let up = dir.up_pid();
    let what = || LocalError::system(format!("cannot signal the `up` in {}", dir.path().display()));
    if pidfile::signal(&up, Signal::TERM).map_err(what())?.is_some() {
        let end = Instant::now() + UP_PATIENCE;
        while pidfile::holder(&up).map_err(what())?.is_some() && Instant::now() < end {
            std::thread::sleep(LOOK_EVERY);
        }
    }
    // Nodes that were started one by one, or whose `up` is gone, have nobody else to stop them.
    let killed = process::stop_all(dir, settings.as_ref().ok(), || ())?;
    let path = dir.path().display();
    let nodes = if before == 1 { "node" } else { "nodes" };
    match (before, killed.as_slice()) {
        (0, _) => settings.map(|_| format!("no node of the cluster in {path} was running")),
        (count, []) => Ok(format!("stopped {count} {nodes} of the cluster in {path}")),
        (count, names) => Ok(format!(
            "stopped {count} {nodes} of the cluster in {path}; {} did not leave in time and had to be killed",
            names.join(", ")
        )),
    }
}

/// Sends `signal` to the node called `name`; its process.
///
/// # Errors
/// There is no such node, or it does not run.
pub fn kill(dir: &ClusterDir, name: &str, signal: Signal) -> Result<i32, LocalError> {
    let settings = dir.settings()?;
    let own = dir.find(&settings, name)?.dir_name();
    let pid = process::signal(dir, &own, signal)?.ok_or_else(|| not_running(name))?;
    if signal == Signal::KILL {
        // Whoever asks for its death may rely on it afterwards, as with a `start` right behind.
        process::wait_gone(dir, vec![&own], Duration::from_secs(5), &mut || ())?;
    }
    Ok(pid)
}

/// The process of the node called `name`.
///
/// # Errors
/// There is no such node, or it does not run.
pub fn pid(dir: &ClusterDir, name: &str) -> Result<i32, LocalError> {
    let settings = dir.settings()?;
    let own = dir.find(&settings, name)?.dir_name();
    process::pid_of(dir, &own)?.ok_or_else(|| not_running(name))
}

fn not_running(name: &str) -> LocalError {
    LocalError::Unreachable(format!("{name} does not run; `pygmy-node start {name}` starts it"))
}

/// Starts the node called `name` and waits until it answers; its process and how it is.
///
/// # Errors
/// It runs already, or could not start; the text has its last words.
pub fn start(dir: &ClusterDir, name: &str) -> Result<(i32, StatusOk), LocalError> {
    let settings = dir.settings()?;
    start_node(dir, &settings, dir.find(&settings, name)?)
}

/// As [`start`], for a node that need not be in `cluster.toml` as it is.
pub(super) fn start_node(
    dir: &ClusterDir,
    settings: &ClusterSettings,
    node: &NodeSettings,
) -> Result<(i32, StatusOk), LocalError> {
    let name = &*node.dir_name();
    // One that was killed a moment ago by other means may not be quite gone yet.
    process::wait_gone(dir, vec![name], DEATH_PATIENCE, &mut || ())?;
    if let Some(pid) = process::pid_of(dir, name)? {
        return Err(LocalError::Refused(format!("{name} runs already, as process {pid}")));
    }
    let started = Instant::now();
    let mut child = process::spawn(dir, node, false)?;
    let end = started + START_PATIENCE;
    loop {
        // Who has been there for longer is another process, which has the address.
        if let Ok(status) = process::status(settings, node)
            && u128::from(status.uptime_ms) <= started.elapsed().as_millis()
        {
            return Ok((child.id() as i32, status));
        }
        let ended = child.try_wait().map_err(LocalError::system(format!("cannot watch {name}")))?;
        if let Some(status) = ended {
            return Err(failed(dir, node, &format!("ended at once ({status})")));
        }
        if Instant::now() >= end {
            return Err(failed(dir, node, "does not answer"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What happened to `node`, with its last words.
pub(super) fn failed(dir: &ClusterDir, node: &NodeSettings, what: &str) -> LocalError {
    const LINES: usize = 5;
    let log = dir.node(&node.dir_name()).log();
    let last = process::last_lines(&log, LINES);
    LocalError::Unreachable(format!("{} {what}; the end of {}:\n{last}", node.dir_name(), log.display()))
}

//! The processes of a cluster, seen from outside.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pygmy_proto::message::{Role, Status, StatusOk};
use rustix::process::{Pid, Signal, kill_process};

use super::caller::{CallError, Caller};
use super::{ClusterDir, LocalError, pidfile};
use crate::settings::{ClusterSettings, NodeSettings, incarnation_of};

/// How often something awaited is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Time that a node gets to leave in order. It gives up by itself a little earlier and says why in its log.
const LEAVE_PATIENCE: Duration = Duration::from_secs(6);
/// Time that a killed process gets to disappear.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Starts the process of `node`. It gets a process group of its own, so that a Ctrl-C in the terminal reaches only
/// whoever started the cluster, who then stops the nodes in order.
///
/// # Errors
/// The system refused.
pub(super) fn spawn(dir: &ClusterDir, node: &NodeSettings, fresh_log: bool) -> Result<Child, LocalError> {
    let node_dir = dir.node(&node.dir_name());
    node_dir.create()?;
    let path = node_dir.log();
    let log = open_log(&path, fresh_log).map_err(LocalError::system(format!("cannot write {}", path.display())))?;
    let program = own_program()?;
    Command::new(&program)
        .args(["run", "--node", &node.name, "--incarnation", &incarnation_of(node.number).to_string(), "--config"])
        .arg(dir.config())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(LocalError::system(format!("cannot start {}", program.display())))
}

fn open_log(path: &Path, fresh: bool) -> io::Result<File> {
    if fresh {
        // Emptied first and then appended to, like one that is kept: two writers never overwrite each other.
        File::create(path)?;
    }
    OpenOptions::new().append(true).create(true).open(path)
}

/// This very program.
pub(super) fn own_program() -> Result<PathBuf, LocalError> {
    std::env::current_exe().map_err(LocalError::system("cannot find this program itself"))
}

/// The process that works in the directory called `name`, when it runs.
///
/// # Errors
/// The system refused to look.
pub(super) fn pid_of(dir: &ClusterDir, name: &str) -> Result<Option<i32>, LocalError> {
    let path = dir.node(name).pid();
    pidfile::holder(&path).map_err(LocalError::system(format!("cannot look at {}", path.display())))
}

/// Signals the process of the node called `name`; its id, or none when it does not run.
///
/// # Errors
/// The system refused.
pub(super) fn signal(dir: &ClusterDir, name: &str, signal: Signal) -> Result<Option<i32>, LocalError> {
    pidfile::signal(&dir.node(name).pid(), signal).map_err(LocalError::system(format!("cannot signal {name}")))
}

/// The nodes that run in `dir`, whatever its `cluster.toml` says, with their processes; by name.
///
/// # Errors
/// The system refused to look.
pub(super) fn running(dir: &ClusterDir) -> Result<Vec<(String, i32)>, LocalError> {
    let what = || LocalError::system(format!("cannot look into {}", dir.path().display()));
    let mut running = Vec::new();
    let entries = match std::fs::read_dir(dir.path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(running),
        entries => entries.map_err(what())?,
    };
    for entry in entries {
        let entry = entry.map_err(what())?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if entry.path().is_dir()
            && let Some(pid) = pid_of(dir, &name)?
        {
            running.push((name, pid));
        }
    }
    running.sort();
    Ok(running)
}

/// Stops every node that runs in `dir`: fronts first and catalogs last, so that each can still answer what it has in
/// work. Who does not leave in time is killed. The names of those. Without `settings`, names tell the roles.
///
/// # Errors
/// The system refused.
pub(super) fn stop_all(
    dir: &ClusterDir,
    settings: Option<&ClusterSettings>,
    mut reap: impl FnMut(),
) -> Result<Vec<String>, LocalError> {
    let mut killed = Vec::new();
    let names: Vec<String> = running(dir)?.into_iter().map(|(name, _)| name).collect();
    for role in [Role::Front, Role::Order, Role::Catalog] {
        let tier: Vec<&str> = names.iter().map(String::as_str).filter(|name| role_of(name, settings) == role).collect();
        for name in &tier {
            signal(dir, name, Signal::TERM)?;
        }
        for name in wait_gone(dir, tier, LEAVE_PATIENCE, &mut reap)? {
            if signal(dir, name, Signal::KILL)?.is_some() {
                killed.push(name.to_owned());
            }
            if !wait_gone(dir, vec![name], KILL_PATIENCE, &mut reap)?.is_empty() {
                return Err(LocalError::Refused(format!("{name} was killed and is still there")));
            }
        }
    }
    Ok(killed)
}

fn role_of(name: &str, settings: Option<&ClusterSettings>) -> Role {
    // The process of a node that was replaced bears its incarnation behind its name.
    let base = name.rsplit_once('.').map_or(name, |(base, _)| base);
    let by_name = |settings: &'_ ClusterSettings| {
        let node = settings.node_named(name).or_else(|| settings.node_named(base));
        node.map(|node| node.role)
    };
    let known = settings.and_then(by_name);
    let named = || [Role::Front, Role::Order].into_iter().find(|role| name.starts_with(role.name()));
    known.or_else(named).unwrap_or(Role::Catalog)
}

/// Stops these processes and no others.
pub(super) fn stop_children(children: &mut [(String, Child)]) {
    for (_, child) in children.iter() {
        // One that has ended is still there until it is waited for, so that this can reach no stranger.
        let _ = kill_process(Pid::from_child(child), Signal::TERM);
    }
    let end = Instant::now() + LEAVE_PATIENCE;
    for (_, child) in children {
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(LOOK_EVERY);
        }
        // It has ended, or does now.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Waits until none of the nodes called `names` runs; those that still do after `patience`.
pub(super) fn wait_gone<'a>(
    dir: &ClusterDir,
    mut names: Vec<&'a str>,
    patience: Duration,
    reap: &mut impl FnMut(),
) -> Result<Vec<&'a str>, LocalError> {
    let end = Instant::now() + patience;
    loop {
        reap();
        let mut left = Vec::new();
        for name in names {
            if pid_of(dir, name)?.is_some() {
                left.push(name);
            }
        }
        if left.is_empty() || Instant::now() >= end {
            return Ok(left);
        }
        names = left;
        std::thread::sleep(LOOK_EVERY);
    }
}

/// How `node` is, by its own word.
pub(super) fn status(settings: &ClusterSettings, node: &NodeSettings) -> Result<StatusOk, CallError> {
    Caller::connect(&node.address, settings.id)?.call(&Status {})
}

/// The last `count` lines of the file at `path`, each indented; what can be read of them.
pub(super) fn last_lines(path: &Path, count: usize) -> String {
    const TAIL: u64 = 8 * 1024;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_else(|error| format!("{}: {error}", path.display()).into_bytes());
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    lines[from..].iter().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_long_file_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.log");
        let text: String = (0..5_000).map(|line| format!("line {line}\n")).collect();
        std::fs::write(&path, text).unwrap();
        assert_eq!(last_lines(&path, 2), "    line 4998\n    line 4999\n");
        assert!(last_lines(&dir.path().join("none"), 2).contains("none"));
    }
}

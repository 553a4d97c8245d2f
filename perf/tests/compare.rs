//! `compare` against whatever is installed here, with real servers: what is missing must be said, and nothing may stay.

#![cfg(feature = "peers")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::{node_program, perf};

/// Longest wait for processes to come or go.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory on the disk that the build is on: the one for temporary files may be memory.
fn disk() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

fn text(path: &Path) -> String {
    path.to_str().expect("a plain path").into()
}

/// What a short comparison is told.
fn short(dir: &Path, duration: &str, more: &[&str]) -> Vec<String> {
    let node = text(&node_program());
    let dir = text(dir);
    let fixed =
        ["compare", "--repeat", "1", "--duration", duration, "--warmup", "50ms", "--books", "50", "--allow-debug"];
    let place = ["--dir", &dir, "--node-program", &node];
    fixed.iter().chain(&place).chain(more).map(|word| word.to_string()).collect()
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).expect("the directory").next().is_none()
}

/// Processes that have a path in `dir` on their command line, except the comparison itself.
fn processes(dir: &Path) -> Vec<i32> {
    let wanted = format!("{}/pygmy-compare-", text(dir));
    let pids = fs::read_dir("/proc").expect("processes").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&wanted)
    })
    .collect()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        sleep(Duration::from_millis(20));
    }
}

/// What was kept of a comparison.
fn kept(output: &Output, out: &Path) -> serde_json::Value {
    let warned = String::from_utf8_lossy(&output.stderr);
    let kept = fs::read(out.join("run.json")).unwrap_or_else(|error| panic!("{error}: {warned}"));
    serde_json::from_slice(&kept).expect("a run")
}

fn notes(run: &serde_json::Value) -> Vec<&str> {
    run["notes"].as_array().expect("notes").iter().filter_map(serde_json::Value::as_str).collect()
}

/// Whether a system has a row in the table of what was measured, however little it did in so short a time.
fn is_measured(run: &serde_json::Value, name: &str) -> bool {
    let panels = run["panels"].as_array().expect("panels");
    let table = panels.iter().find(|panel| panel["title"] == "Measured").expect("a table");
    table["rows"].as_array().expect("rows").iter().any(|row| row[0] == name)
}

#[test]
fn whatever_is_installed_is_measured_and_whatever_is_not_is_named() {
    let (disk, out) = (disk(), disk());
    let out_dir = text(out.path());
    let args = short(disk.path(), "200ms", &["--only", "lookups,one", "--out", &out_dir]);
    let output = perf(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let warned = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{warned}");
    let run = kept(&output, out.path());
    assert!(is_measured(&run, "pygmy"), "{run}");
    for (program, names) in
        [("redis-server", &["redis"][..]), ("etcd", &["etcd"]), ("postgres", &["postgres", "postgres-any"])]
    {
        let is_skipped = notes(&run)
            .iter()
            .any(|note| note.starts_with("skipped: ") && note.contains(program) && note.contains("apt-get install"));
        for name in names {
            assert_ne!(is_skipped, is_measured(&run, name), "{name} is either skipped or measured: {run}");
        }
        if is_skipped {
            assert!(warned.contains("skipped"), "{warned}");
            println!("{program} is not installed here and was not compared");
        }
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("What is promised") && printed.contains("durable when answered"), "{printed}");
    assert!(is_empty(disk.path()) && processes(disk.path()).is_empty(), "something stays");
}

#[test]
fn pygmy_alone_is_measured_where_nothing_is_installed() {
    let (disk, out, path) = (disk(), disk(), disk());
    let dirs = std::env::var_os("PATH").expect("a PATH");
    let setpriv = std::env::split_paths(&dirs).map(|dir| dir.join("setpriv")).find(|path| path.exists());
    let setpriv = setpriv.expect("setpriv, of util-linux");
    symlink(setpriv, path.path().join("setpriv")).expect("a link");
    let out_dir = text(out.path());
    let args = short(disk.path(), "200ms", &["--only", "one", "--peers", "redis,etcd", "--out", &out_dir]);
    let output = Command::new(env!("CARGO_BIN_EXE_pygmy-perf")).args(args).env("PATH", path.path()).output();
    let output = output.expect("the program starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let run = kept(&output, out.path());
    for packages in ["redis-server redis-tools", "etcd-server"] {
        let line = format!("apt-get install {packages}");
        assert!(notes(&run).iter().any(|note| note.contains(&line)), "{line}: {run}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(&line));
    }
    assert!(is_measured(&run, "pygmy") && !is_measured(&run, "redis") && !is_measured(&run, "etcd"), "{run}");
}

/// A comparison that would go on for an hour, once its first system stands.
fn endless(disk: &Path) -> std::process::Child {
    let args = short(disk, "1h", &["--only", "lookups"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_pygmy-perf"));
    let child = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    // The program that watches over them, and six servers.
    wait_until("the servers start", || processes(disk).len() >= 7);
    child
}

fn signal(child: &std::process::Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("it runs");
}

#[test]
fn nothing_stays_of_a_comparison_that_is_interrupted() {
    let disk = disk();
    let mut child = endless(disk.path());
    signal(&child, Signal::INT);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(processes(disk.path()).is_empty() && is_empty(disk.path()), "something stays");
}

#[test]
fn no_server_outlives_a_comparison_that_is_killed() {
    let disk = disk();
    let mut child = endless(disk.path());
    signal(&child, Signal::KILL);
    child.wait().expect("it ends");
    wait_until("every server ends", || processes(disk.path()).is_empty());
}

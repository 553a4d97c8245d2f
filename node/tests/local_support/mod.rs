//! Clusters of processes, by the commands of `pygmy-node`.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use pygmy_node::config;
use pygmy_node::local::ClusterDir;
use pygmy_node::local::caller::Caller;
use pygmy_node::settings::ClusterSettings;
use pygmy_proto::message::{ReplicaStatus, Status, StatusOk};

/// A process that has not ended by itself after this does not.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster's directory. Whatever a failed test leaves running there is stopped.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("cluster")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pygmy-node"));
        command.args(args).arg("--dir").arg(self.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program starts")
    }

    /// Runs a command that must succeed; what it printed.
    pub fn done(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command that must end with `code`; what it complained of.
    pub fn fails(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        stderr(&output)
    }

    pub fn settings(&self) -> ClusterSettings {
        config::read(&ClusterDir::new(self.path()).config()).expect("a good file")
    }

    /// What a node says of itself, if it answers.
    pub fn ask(&self, name: &str) -> Option<StatusOk> {
        let settings = self.settings();
        let node = settings.node_named(name).expect("a node");
        Caller::connect(&node.address, settings.id).ok()?.call(&Status {}).ok()
    }

    pub fn status(&self, name: &str) -> StatusOk {
        self.ask(name).expect("it answers")
    }

    pub fn replica(&self, name: &str) -> ReplicaStatus {
        self.status(name).replica.expect("a log replica")
    }

    /// Runs the process of a node in the foreground; it must end by itself.
    pub fn process(&self, node: &str, incarnation: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pygmy-node"));
        command.args(["run", "--node", node, "--incarnation", incarnation, "--config"]);
        command.arg(self.path().join("cluster.toml"));
        ended(&mut command)
    }

    pub fn pid(&self, name: &str) -> String {
        self.done(&["pid", name]).trim().to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.path().exists() {
            self.run(&["down"]);
        }
    }
}

/// Runs a program that must end by itself.
pub fn ended(command: &mut Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let child = child.expect("the program starts");
    let (pid, (ended, watch)) = (child.id(), mpsc::channel::<()>());
    let watchdog = std::thread::spawn(move || {
        // One that has not ended by itself shows it by its exit status.
        if watch.recv_timeout(PATIENCE).is_err() {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    });
    let output = child.wait_with_output().expect("it was started");
    let _ = ended.send(());
    watchdog.join().expect("it only waits");
    output
}

/// What a program complained of.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

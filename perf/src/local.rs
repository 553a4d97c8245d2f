//! A cluster on this machine, through the commands of `pygmy-node`: started, killed, paused and started again.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::Error;
use crate::target::{Target, TargetArgs};

/// How to find the program that runs servers.
#[derive(Debug, Clone, clap::Args)]
pub struct ProgramArgs {
    /// The program `pygmy-node` [default: the one beside this program, else the one on the PATH]
    #[arg(long, value_name = "PATH")]
    node_program: Option<PathBuf>,
}

impl ProgramArgs {
    /// The program.
    pub fn find(&self) -> PathBuf {
        const NAME: &str = "pygmy-node";
        let beside = || Some(std::env::current_exe().ok()?.with_file_name(NAME)).filter(|path| path.exists());
        self.node_program.clone().or_else(beside).unwrap_or_else(|| NAME.into())
    }
}

/// A cluster in a directory.
#[derive(Debug, Clone)]
pub struct Local {
    program: PathBuf,
    dir: PathBuf,
}

impl Local {
    /// The cluster in `dir`, which need not be there yet.
    pub fn new(program: PathBuf, dir: PathBuf) -> Self {
        Self { program, dir }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).arg("--dir").arg(&self.dir).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Result<Output, Error> {
        let output = self.command(args).output().map_err(Error::io(self.program.display().to_string()))?;
        if output.status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let why = format!("`pygmy-node {}` failed: {}", args.join(" "), said.trim());
        Err(Error::Io { what: self.dir.display().to_string(), error: io::Error::other(why) })
    }

    /// Makes the cluster on free ports and waits until it is ready.
    ///
    /// # Errors
    /// What `pygmy-node` says.
    pub fn up(&self) -> Result<(), Error> {
        self.up_with(&[])
    }

    /// The same, with more options of `pygmy-node up`.
    ///
    /// # Errors
    /// What `pygmy-node` says.
    pub fn up_with(&self, options: &[&str]) -> Result<(), Error> {
        self.run(&[&["up", "--detach", "--base-port", "0"], options].concat()).map(|_| ())
    }

    /// Starts the cluster that was stopped here, with all it knows, and waits until it is ready.
    ///
    /// # Errors
    /// What `pygmy-node` says.
    pub fn up_again(&self) -> Result<(), Error> {
        self.run(&["up", "--detach"]).map(|_| ())
    }

    /// Stops every server.
    ///
    /// # Errors
    /// What `pygmy-node` says.
    pub fn down(&self) -> Result<(), Error> {
        self.run(&["down"]).map(|_| ())
    }

    /// Its servers.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn target(&self) -> Result<Target, Error> {
        Target::find(&TargetArgs { cluster: Some(self.dir.clone()), front: Vec::new() })
    }

    /// The process of a server, to be signalled without delay.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self, node: &str) -> Result<Pid, Error> {
        let output = self.run(&["pid", node])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        pid.ok_or_else(|| Error::Io { what: node.into(), error: io::Error::other(format!("{text:?} is no process")) })
    }

    /// Signals a server.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, node: &str, signal: Signal) -> Result<(), Error> {
        send(node, self.pid(node)?, signal)
    }

    /// Begins to start a server that does not run; the child ends when the server answers.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn begin_start(&self, node: &str) -> Result<Child, Error> {
        self.begin(&["start", node])
    }

    /// Begins to put a new process in a server's place; the child ends when that is done.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn begin_replace(&self, node: &str) -> Result<Child, Error> {
        self.begin(&["replace", node])
    }

    fn begin(&self, args: &[&str]) -> Result<Child, Error> {
        let mut command = self.command(args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map_err(Error::io(self.program.display().to_string()))
    }

    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// What `pygmy-node` says.
    pub fn start(&self, node: &str) -> Result<(), Error> {
        self.run(&["start", node]).map(|_| ())
    }
}

/// A cluster that is stopped whatever happens.
#[derive(Debug)]
pub struct Running(pub Local);

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.0.down() {
            // Whoever closed standard error does not want to know.
            let _ = writeln!(io::stderr(), "the cluster could not be stopped: {error}");
        }
    }
}

/// Signals a process.
///
/// # Errors
/// When it is not there any more.
pub fn send(node: &str, pid: Pid, signal: Signal) -> Result<(), Error> {
    kill_process(pid, signal).map_err(|errno| Error::Io { what: format!("signal {node}"), error: errno.into() })
}

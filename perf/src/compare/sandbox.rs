//! Where the systems run: a directory that goes when the run ends, and processes that end with it, however it ends.
//!
//! Three things see to that. Dropping a [`Place`] ends its processes and removes its files, when the run goes on, fails
//! or panics. A thread that listens for signals does the same when somebody presses Ctrl-C. And should this process be
//! killed outright, the kernel sends every process that it started a signal, as `setpriv` arranged.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::account::Account;
use super::cpu;
use crate::error::Error;

/// How often something awaited is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Longest wait for a server to be ready, or a tool to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time that a process gets to leave in order.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);
/// Mode of a directory that servers which run as somebody else must be able to pass through.
const PASSABLE: u32 = 0o711;
/// Mode of a server's own directory.
const PRIVATE: u32 = 0o700;
/// File systems in memory, where an fsync costs nothing.
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// Bytes of a log's end that an error shows.
const LAST_WORDS: usize = 600;

/// A process that was started here.
#[derive(Debug)]
struct Proc {
    name: String,
    child: Child,
    farewell: Farewell,
}

impl Proc {
    fn signal(&self, signal: Signal) {
        // It may have ended meanwhile, which is what is wanted.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

/// What is to be ended and removed.
#[derive(Debug, Default)]
struct Held {
    procs: Vec<Proc>,
    dir: PathBuf,
    /// Set when the whole program is about to end: nothing may be started any more.
    is_over: bool,
}

impl Held {
    /// Asks everybody to leave, and after a while no longer asks. The youngest leave first, so that a standby does not
    /// see its primary go.
    fn stop_all(&mut self) {
        for proc in self.procs.iter().rev() {
            proc.signal(proc.farewell.signal());
        }
        let until = Instant::now() + LEAVE_PATIENCE;
        while Instant::now() < until && !self.procs.iter_mut().all(Proc::has_ended) {
            sleep(LOOK_EVERY);
        }
        for mut proc in self.procs.drain(..) {
            proc.signal(Signal::KILL);
            // Reaped here; that it cannot be waited for means that it is gone.
            let _ = proc.child.wait();
        }
    }
}

/// The directory of a run, and whatever runs in it.
#[derive(Debug)]
pub(super) struct Sandbox {
    held: Arc<Mutex<Held>>,
    dir: PathBuf,
    signals: Handle,
}

impl Sandbox {
    /// A new directory in `parent`, or in the system's place for temporary files.
    ///
    /// # Errors
    /// When it cannot be made, or lies in memory, where durability is not to be had.
    pub(super) fn new(parent: Option<&Path>) -> Result<Self, Error> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        check_disk(&parent)?;
        let made = tempfile::Builder::new().prefix("pygmy-compare-").tempdir_in(&parent);
        let dir = made.map_err(Error::io(parent.display().to_string()))?.keep();
        fs::set_permissions(&dir, fs::Permissions::from_mode(PASSABLE))
            .map_err(Error::io(dir.display().to_string()))?;
        let held = Arc::new(Mutex::new(Held { dir: dir.clone(), ..Held::default() }));
        let signals = end_on_signals(held.clone()).map_err(Error::io("listening to signals"))?;
        Ok(Self { held, dir, signals })
    }

    /// An empty place in it for one system.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub(super) fn place(&self, name: &str) -> Result<Place, Error> {
        let place = Place { held: self.held.clone(), dir: self.dir.join(name) };
        make_dir(&place.dir, PASSABLE, None)?;
        Ok(place)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.signals.close();
        lock(&self.held).stop_all();
        remove(&self.dir);
    }
}

/// A directory in which one system runs. When it is dropped the system ends and its files go, so that nobody's files and
/// dirty pages outlive its turn.
#[derive(Debug)]
pub(super) struct Place {
    held: Arc<Mutex<Held>>,
    dir: PathBuf,
}

impl Place {
    /// Its directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new directory in it, that of `account` if one is named.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn new_dir(&self, name: &str, account: Option<&Account>) -> Result<PathBuf, Error> {
        let dir = self.dir.join(name);
        make_dir(&dir, PRIVATE, account).map(|()| dir)
    }

    /// Starts a server, as `account` if one is named; `farewell` asks it to leave.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(&self, server: Server<'_>) -> Result<(), Error> {
        let name = server.name.to_string();
        let log = self.log_path(&name);
        let io = |error| Error::Io { what: format!("start {}", server.program.display()), error };
        let out = fs::File::create(&log).map_err(io)?;
        let mut command = server.command();
        // A group of its own: a Ctrl-C in the terminal reaches this program alone, which then ends the others.
        command.current_dir(&self.dir).process_group(0).stdin(Stdio::null());
        command.stdout(out.try_clone().map_err(io)?).stderr(out);
        let mut held = lock(&self.held);
        if held.is_over {
            return Err(Error::Usage("the run was ended".into()));
        }
        let child = command.spawn().map_err(io)?;
        held.procs.push(Proc { name, child, farewell: server.farewell });
        Ok(())
    }

    /// Runs a tool to its end; what it printed.
    ///
    /// # Errors
    /// When it cannot be started, fails, or takes too long.
    pub(super) fn run(&self, tool: Server<'_>) -> Result<String, Error> {
        let name = tool.name;
        self.start(tool)?;
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.take_ended(name)? {
                break status;
            }
            if Instant::now() >= until {
                return Err(self.failed(name, "does not end"));
            }
            sleep(LOOK_EVERY);
        };
        if status.success() {
            return fs::read_to_string(self.log_path(name)).map_err(Error::io(name));
        }
        Err(self.failed(name, &format!("failed ({status})")))
    }

    /// Forgets a process that has ended; how it ended.
    fn take_ended(&self, name: &str) -> Result<Option<ExitStatus>, Error> {
        let mut held = lock(&self.held);
        let Some(place) = held.procs.iter().position(|proc| proc.name == name) else {
            return Err(Error::Usage("the run was ended".into()));
        };
        let status = held.procs[place].child.try_wait().map_err(Error::io(name))?;
        if status.is_some() {
            held.procs.remove(place);
        }
        Ok(status)
    }

    /// Waits for what `look` looks for, while every server runs.
    ///
    /// # Errors
    /// When a server ends, or it takes too long; with the server's last words.
    pub(super) fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, Error> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            let (ended, last) = {
                let mut held = lock(&self.held);
                let ended = held.procs.iter_mut().find_map(|proc| proc.has_ended().then(|| proc.name.clone()));
                (ended, held.procs.last().map(|proc| proc.name.clone()))
            };
            if let Some(name) = ended {
                return Err(self.failed(&name, "ended"));
            }
            if Instant::now() >= until {
                return Err(self.failed(&last.unwrap_or_default(), &format!("is not ready: no {what}")));
            }
            sleep(LOOK_EVERY);
        }
    }

    /// Seconds of processor time that its processes have used so far.
    pub(super) fn cpu_s(&self) -> f64 {
        let roots: Vec<u32> = lock(&self.held).procs.iter().map(|proc| proc.child.id()).collect();
        cpu::of_families(&roots)
    }

    /// The file that a process's output goes to.
    pub(super) fn log_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    fn failed(&self, name: &str, how: &str) -> Error {
        let text = fs::read(self.log_path(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(LAST_WORDS)..]).trim().replace('\n', "\n  ");
        let why = format!("{how}; its last words:\n  {text}");
        Error::Io { what: name.into(), error: io::Error::other(why) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.held).stop_all();
        remove(&self.dir);
        // What the removal left to be written is written before the next system has its turn. A disk that cannot be
        // synced will be noticed by whoever runs on it.
        if let Some(Ok(parent)) = self.dir.parent().map(fs::File::open) {
            let _ = rustix::fs::syncfs(parent);
        }
    }
}

/// A program to be started.
#[derive(Debug, Clone)]
pub(super) struct Server<'a> {
    /// Its name in errors, and that of its log.
    pub(super) name: &'a str,
    /// What to run.
    pub(super) program: &'a Path,
    /// With which arguments.
    pub(super) args: Vec<String>,
    /// As whom, if not as whoever runs this.
    pub(super) account: Option<&'a Account>,
    /// What asks it to leave; the kernel sends it, too, when this process dies.
    pub(super) farewell: Farewell,
}

/// What asks a process to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Nothing: it is killed, and its files are removed anyway.
    Kill,
    /// SIGQUIT, on which PostgreSQL ends all its processes at once and gives their shared memory back.
    Quit,
    /// SIGTERM.
    Term,
}

impl Farewell {
    fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Quit => Signal::QUIT,
            Self::Term => Signal::TERM,
        }
    }

    /// The signal as `setpriv` calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Quit => "QUIT",
            Self::Term => "TERM",
        }
    }
}

impl Server<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", self.farewell.name()]);
        if let Some(account) = self.account {
            let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
            command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups"]);
        }
        command.arg("--").arg(self.program).args(&self.args);
        command
    }
}

/// Ports of this machine's loopback that are free, all different, and not those that the kernel gives to connections.
///
/// # Errors
/// When hardly any are free.
pub(super) fn free_ports(count: usize) -> Result<Vec<u16>, Error> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first_given = range.split_whitespace().next().and_then(|port| port.parse().ok()).unwrap_or(32_768_u16);
    let mut ports = Vec::with_capacity(count);
    for _ in 0..10_000 {
        if ports.len() == count {
            return Ok(ports);
        }
        let port = rand::random_range(10_000..first_given.max(10_100));
        if !ports.contains(&port) && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            ports.push(port);
        }
    }
    Err(Error::Io { what: "free ports".into(), error: io::ErrorKind::AddrInUse.into() })
}

/// Ends everything and then this program when it is told to end.
fn end_on_signals(held: Arc<Mutex<Held>>) -> io::Result<Handle> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let handle = signals.handle();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let mut held = lock(&held);
            held.is_over = true;
            held.stop_all();
            remove(&held.dir);
            // The shell's word for a program that a signal ended.
            std::process::exit(128 + signal);
        }
    })?;
    Ok(handle)
}

/// A thread that panicked while it held the lock has left a list of processes that are still to be ended.
fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make_dir(dir: &Path, mode: u32, account: Option<&Account>) -> Result<(), Error> {
    let make = || {
        fs::create_dir(dir)?;
        if let Some(account) = account {
            chown(dir, Some(account.uid), Some(account.gid))?;
        }
        fs::set_permissions(dir, fs::Permissions::from_mode(mode))
    };
    make().map_err(Error::io(dir.display().to_string()))
}

/// Removes a directory; that it cannot be is said, and no reason to fail a run that is over.
fn remove(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            eprintln!("pygmy-perf: {} is left behind: {error}", dir.display());
        }
        _ => {}
    }
}

fn check_disk(dir: &Path) -> Result<(), Error> {
    let stat = rustix::fs::statfs(dir).map_err(|errno| Error::io(dir.display().to_string())(errno.into()))?;
    if stat.f_type as i64 == TMPFS_MAGIC {
        let why = format!("{} lies in memory, where nothing is durable: name a disk with --dir", dir.display());
        return Err(Error::Usage(why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> Sandbox {
        Sandbox::new(Some(Path::new(env!("CARGO_MANIFEST_DIR")))).unwrap()
    }

    fn shell<'a>(name: &'a str, script: &str) -> Server<'a> {
        let args = vec!["-c".into(), script.into()];
        Server { name, program: Path::new("/bin/sh"), args, account: None, farewell: Farewell::Term }
    }

    fn is_gone(pid: u32) -> bool {
        !Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn processes_and_files_go_with_their_place() {
        let sandbox = sandbox();
        let place = sandbox.place("one").unwrap();
        place.start(shell("sleeps", "exec sleep 1000")).unwrap();
        let pid = place.held.lock().unwrap().procs[0].child.id();
        assert!(!is_gone(pid) && place.log_path("sleeps").exists());
        let (dir, root) = (place.dir().to_path_buf(), sandbox.dir.clone());
        drop(place);
        assert!(is_gone(pid) && !dir.exists() && root.exists());
        drop(sandbox);
        assert!(!root.exists());
    }

    #[test]
    fn they_go_when_the_run_panics() {
        let sandbox = sandbox();
        let root = sandbox.dir.clone();
        let pid = Mutex::new(0);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let place = sandbox.place("one").unwrap();
            place.start(shell("sleeps", "exec sleep 1000")).unwrap();
            *pid.lock().unwrap() = place.held.lock().unwrap().procs[0].child.id();
            panic!("on purpose");
        }));
        assert!(panicked.is_err() && is_gone(*pid.lock().unwrap()));
        drop(sandbox);
        assert!(!root.exists());
    }

    #[test]
    fn a_server_that_ends_is_quoted() {
        let sandbox = sandbox();
        let place = sandbox.place("one").unwrap();
        place.start(shell("talks", "echo no room for me; exit 3")).unwrap();
        let error = place.wait("answer", || None::<()>).unwrap_err().to_string();
        assert!(error.contains("talks") && error.contains("no room for me"), "{error}");
    }

    #[test]
    fn tools_are_run_to_their_end() {
        let sandbox = sandbox();
        let place = sandbox.place("one").unwrap();
        assert_eq!(place.run(shell("says", "echo word")).unwrap(), "word\n");
        let error = place.run(shell("fails", "echo why; exit 3")).unwrap_err().to_string();
        assert!(error.contains("fails") && error.contains("why"), "{error}");
    }

    #[test]
    fn memory_is_no_disk() {
        let error = Sandbox::new(Some(Path::new("/dev/shm"))).unwrap_err().to_string();
        assert!(error.contains("--dir"), "{error}");
    }

    #[test]
    fn ports_are_different() {
        let mut ports = free_ports(20).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}

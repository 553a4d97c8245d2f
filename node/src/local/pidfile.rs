//! Who runs: a file with a process id, locked by that process.
//!
//! The lock ends with the process, however it ends, so an id is believed only while somebody holds the lock. A stale
//! file never leads to a signal for a stranger who was given the same number.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

/// Tries before a lock counts as held by a process: somebody who only looks holds it for a moment too.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// The held file. Dropping it, or dying, lets it go.
#[derive(Debug)]
pub struct Held {
    _file: File,
}

/// Why a file could not be held.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Somebody else does.
    #[error("process {0} runs here already")]
    Taken(i32),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Takes the file at `path` and writes this process's id to it.
///
/// # Errors
/// Another process holds it, or the system refused.
pub fn hold(path: &Path) -> Result<Held, HoldError> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "{}", std::process::id())?;
                return Ok(Held { _file: file });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    Err(HoldError::Taken(holder(path)?.unwrap_or_default()))
}

/// The process that holds the file at `path`.
///
/// # Errors
/// The system refused.
pub fn holder(path: &Path) -> io::Result<Option<i32>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for _ in 0..TRIES {
        match file.try_lock_shared() {
            Ok(()) => return Ok(None),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        // Between taking the lock and writing the id lies a moment; the last line feed says that it has passed.
        if let Some(pid) = text.strip_suffix('\n').and_then(|digits| digits.parse().ok()) {
            return Ok(Some(pid));
        }
        std::thread::sleep(PAUSE);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is locked but holds no process id", path.display())))
}

/// Sends `signal` to the process that holds the file at `path`; its id, or none when nobody holds it.
///
/// # Errors
/// The system refused.
pub fn signal(path: &Path, signal: Signal) -> io::Result<Option<i32>> {
    let Some(number) = holder(path)? else { return Ok(None) };
    let Some(pid) = Pid::from_raw(number) else { return Ok(None) };
    let sent = match pidfd_open(pid, PidfdFlags::empty()) {
        // The descriptor is bound to one process. If the lock is still held by that number now, it is the right one.
        Ok(descriptor) if holder(path)? == Some(number) => pidfd_send_signal(descriptor, signal),
        Ok(_) => return Ok(None),
        Err(Errno::NOSYS) => kill_process(pid, signal),
        Err(error) => Err(error),
    };
    match sent {
        Ok(()) => Ok(Some(number)),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_held_file_names_a_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.pid");
        assert_eq!(holder(&path).unwrap(), None);
        let own = std::process::id() as i32;
        let held = hold(&path).unwrap();
        assert_eq!(holder(&path).unwrap(), Some(own));
        assert!(matches!(hold(&path), Err(HoldError::Taken(pid)) if pid == own));
        drop(held);
        assert_eq!(holder(&path).unwrap(), None, "what is written in it does not count");
        drop(hold(&path).unwrap());
    }

    #[test]
    fn a_process_that_got_a_stale_number_is_not_signalled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.pid");
        let mut stranger = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        std::fs::write(&path, format!("{}\n", stranger.id())).unwrap();
        assert_eq!(signal(&path, Signal::KILL).unwrap(), None);
        assert!(stranger.try_wait().unwrap().is_none(), "it lives");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn a_holder_that_was_killed_no_longer_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.pid");
        let script = "exec 9>>\"$0\"; flock 9; echo $$ > \"$0\"; exec sleep 600";
        let mut other = std::process::Command::new("sh").args(["-c", script]).arg(&path).spawn().unwrap();
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while holder(&path).unwrap() != Some(other.id() as i32) {
            assert!(std::time::Instant::now() < end);
        }
        assert_eq!(signal(&path, Signal::KILL).unwrap(), Some(other.id() as i32));
        other.wait().unwrap();
        assert_eq!(holder(&path).unwrap(), None);
        assert_eq!(signal(&path, Signal::KILL).unwrap(), None);
    }
}

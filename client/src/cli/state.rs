//! Files of the user's state directory, replaced as a whole or not at all.
//!
//! A session's counters must never be given out twice, and a file can come back: restored from a backup, copied to
//! another machine, cloned with a whole disk. So every state carries a [seal](Lock::seal) that is bound to the lock
//! file beside it as it is on this machine since it was started. Whatever writes, copies or restores that lock file
//! gives it another time of change, which nobody can set; a state that comes back alone carries an old seal. A state
//! whose seal does not fit is not used for numbering. What no file can tell is a machine that was itself set back, with
//! its memory.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Changes with every start of a machine and differs between machines. Where there is none, the rest of a seal must do.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// A cluster that was not used for so long is taken to be gone.
const UNUSED_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// What is remembered of a cluster between two commands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// What [`Lock::renew`] said when the counters were last changed.
    pub(super) seal: String,
    /// The session; 0 while there is none.
    pub(super) session: u64,
    /// Its next counter. Every lower one may have been used, whatever became of the process that took it.
    pub(super) next_counter: u64,
    /// Writes without a final answer, of this session and of earlier ones, oldest first.
    pub(super) unsettled: Vec<Unsettled>,
    /// The highest log position seen.
    pub(super) floor: u64,
}

/// A write without a final answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unsettled {
    /// Its session.
    pub(super) session: u64,
    /// Its number there.
    pub(super) counter: u64,
    /// The command line that made it.
    pub(super) command: Vec<String>,
}

impl State {
    /// Counters of the present session that have no final answer.
    pub(super) fn pending(&self) -> impl Iterator<Item = u64> + '_ {
        self.unsettled.iter().filter(|write| write.session == self.session).map(|write| write.counter)
    }
}

/// The directory of the session files.
pub(super) fn directory() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
    Some(state.join("pygmy/sessions"))
}

/// Reads a state. A file that is not there or makes no sense is none: the worst that follows is a new session.
pub(super) fn load(path: &Path) -> State {
    fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Replaces a state. With `durable`, it survives the loss of power from here on.
pub(super) fn save(path: &Path, state: &State, durable: bool) -> io::Result<()> {
    let mut text = serde_json::to_vec(state)?;
    text.push(b'\n');
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(&text)?;
        if durable { file.sync_data() } else { Ok(()) }
    });
    let renamed = written.and_then(|()| fs::rename(&temporary, path));
    if renamed.is_err() {
        drop(fs::remove_file(&temporary));
    } else if durable && let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    renamed
}

/// The lock that belongs to a state. It goes with the process.
///
/// It is a file of its own, for the state's file is another one after every change.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes the lock of the state at `path`; `None` when another process has it or it cannot be had.
    pub(super) fn take(path: &Path) -> Option<Self> {
        fs::create_dir_all(path.parent()?).ok()?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(lock_path(path)).ok()?;
        file.try_lock().ok()?;
        Some(Self(file))
    }

    /// What the lock file is now: on which start of which machine, which file, when changed last, and what is in it.
    /// `None` when that cannot be told.
    pub(super) fn seal(&self) -> Option<String> {
        let mut token = String::new();
        let mut file = &self.0;
        file.rewind().ok()?;
        file.read_to_string(&mut token).ok()?;
        let known = self.0.metadata().ok()?;
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let changed = format!("{}.{:09}", known.ctime(), known.ctime_nsec());
        Some(format!("{} {} {} {changed} {}", boot.trim(), known.dev(), known.ino(), token.trim()))
    }

    /// Changes the lock file, so that every seal until now fits no more; the new seal. The time of change alone would
    /// not do: it moves in steps of milliseconds.
    pub(super) fn renew(&self) -> Option<String> {
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mut file = &self.0;
        file.rewind().ok()?;
        self.0.set_len(0).ok()?;
        writeln!(file, "{}-{now_ns}", std::process::id()).ok()?;
        self.seal()
    }
}

fn lock_path(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

/// Removes the files of clusters that have not been used for long. Those with unsettled writes stay.
pub(super) fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let is_state = path.extension().is_some_and(|extension| extension == "json");
        if !is_state || !is_old(&path) || !load(&path).unsettled.is_empty() {
            continue;
        }
        // While it is held, nobody begins to use the state. Whoever waits with the old lock file open finds that no
        // state fits it.
        if let Some(_lock) = Lock::take(&path) {
            // One that cannot be removed is tried again another time.
            drop(fs::remove_file(&path).and_then(|()| fs::remove_file(lock_path(&path))));
        }
    }
}

fn is_old(path: &Path) -> bool {
    let changed = fs::metadata(path).and_then(|known| known.modified());
    changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > UNUSED_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_fits_until_the_lock_file_is_renewed_copied_or_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let lock = Lock::take(&path).unwrap();
        assert!(Lock::take(&path).is_none());
        let first = lock.renew().unwrap();
        drop(lock);
        let lock = Lock::take(&path).unwrap();
        assert_eq!(lock.seal(), Some(first.clone()), "looking changes nothing");
        let second = lock.renew().unwrap();
        assert_ne!(first, second);
        drop(lock);
        // A backup of both files that is copied over them in place keeps the inode and the contents.
        let bytes = fs::read(lock_path(&path)).unwrap();
        let before = fs::metadata(lock_path(&path)).unwrap();
        loop {
            fs::write(lock_path(&path), &bytes).unwrap();
            let after = fs::metadata(lock_path(&path)).unwrap();
            assert_eq!(before.ino(), after.ino());
            if (before.ctime(), before.ctime_nsec()) != (after.ctime(), after.ctime_nsec()) {
                break;
            }
        }
        assert_ne!(Lock::take(&path).unwrap().seal(), Some(second));
    }

    #[test]
    fn files_of_clusters_long_unused_go_but_not_with_an_unsettled_write() {
        let dir = tempfile::tempdir().unwrap();
        let write = Unsettled { session: 3, counter: 1, command: vec!["pygmy".to_owned()] };
        let old = SystemTime::now() - UNUSED_MAX - Duration::from_secs(60);
        for (name, unsettled, time) in [
            ("old", vec![], old),
            ("new", vec![], SystemTime::now()),
            ("open", vec![write], old),
            ("busy", vec![], old),
        ] {
            let path = dir.path().join(format!("{name}.json"));
            drop(Lock::take(&path).unwrap());
            save(&path, &State { unsettled, ..State::default() }, false).unwrap();
            File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
        }
        let _busy = Lock::take(&dir.path().join("busy.json")).unwrap();
        sweep(dir.path());
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["busy.json", "busy.lock", "new.json", "new.lock", "open.json", "open.lock"]);
    }
}

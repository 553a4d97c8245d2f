//! Files of the user's state directory, replaced as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What is remembered of a cluster between two commands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// The session; 0 while there is none.
    pub(super) session: u64,
    /// Its next counter. Every lower one may have been used, whatever became of the process that took it.
    pub(super) next_counter: u64,
    /// Counters without a final answer.
    pub(super) pending: Vec<u64>,
    /// The highest log position seen.
    pub(super) floor: u64,
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

/// Takes the lock that belongs to a state; `None` when another process has it or it cannot be had.
///
/// It is a file of its own, for the state's file is another one after every change. It goes with the process.
pub(super) fn lock(path: &Path) -> Option<File> {
    fs::create_dir_all(path.parent()?).ok()?;
    let file = OpenOptions::new().create(true).append(true).open(path.with_extension("lock")).ok()?;
    file.try_lock().ok()?;
    Some(file)
}

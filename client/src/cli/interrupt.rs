//! What Ctrl-C means while a write is on its way: the command ends and says which write it leaves behind.

use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// The write that is on its way, by session and counter.
type Current = Arc<Mutex<Option<(u64, u64)>>>;

/// Watches for signals that end the command.
#[derive(Debug)]
pub(super) struct Interrupts(Current);

impl Interrupts {
    /// Begins to watch. `report` tells the user of the write that is left behind, and gives the exit code.
    pub(super) fn start(report: impl Fn((u64, u64)) -> u8 + Send + 'static) -> Self {
        let current = Current::default();
        let shared = Arc::clone(&current);
        // Without it the session's file still shows the write, and the next command says so.
        if let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) {
            std::thread::spawn(move || {
                for signal in signals.forever() {
                    // Kept until the end of the process, so that the command cannot go on meanwhile.
                    let current = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    match *current {
                        Some(id) => process::exit(report(id).into()),
                        // What ends by a signal should look like that. A signal that cannot is as good as ignored.
                        None => drop(emulate_default_handler(signal)),
                    }
                }
            });
        }
        Self(current)
    }

    /// From now on, this write is on its way.
    pub(super) fn watch(&self, id: Option<(u64, u64)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = id;
    }
}

//! Waiting for what must come.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part.

use std::time::{Duration, Instant};

/// Nothing in these tests takes this long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Tries until `attempt` gives something, or fails.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until `done`, or fails.
pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    until(what, || done().then_some(()));
}

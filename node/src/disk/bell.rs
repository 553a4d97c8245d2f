//! How one thread sleeps until another one has something for it, so that the system calls of both are known.
//!
//! A channel does this by itself, but does not say what it costs; and of what a log asks of the system for many small
//! groups, sleeping and waking are a good part.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Times that the sleeper lets others have its processor before it sleeps: who comes soon then need not wake it.
const YIELDS: u32 = 4;

/// Shared by the one that sleeps and the one that rings.
#[derive(Debug, Default)]
pub(super) struct Bell {
    /// Whether the sleeper sleeps, or is about to.
    asleep: AtomicBool,
    calls: AtomicU64,
}

impl Bell {
    /// Sleeps until `look` finds something, at most for `wait`. It is looked again whenever the bell rings.
    pub(super) fn sleep<T>(&self, wait: Option<Duration>, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        for _ in 0..YIELDS {
            if let Some(found) = look() {
                return Some(found);
            }
            self.count();
            thread::yield_now();
        }
        let until = wait.map(|wait| Instant::now() + wait);
        loop {
            self.asleep.store(true, Ordering::SeqCst);
            // Either this look finds what came, or whoever brought it finds this thread asleep.
            fence(Ordering::SeqCst);
            let found = look();
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if found.is_some() || left == Some(Duration::ZERO) {
                self.asleep.store(false, Ordering::SeqCst);
                return found;
            }
            self.count();
            match left {
                None => thread::park(),
                Some(left) => thread::park_timeout(left),
            }
        }
    }

    /// Wakes `sleeper`, which is the thread that sleeps on this bell, if it does. To be called behind whatever it is to find.
    pub(super) fn ring(&self, sleeper: &Thread) {
        fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.count();
            sleeper.unpark();
        }
    }

    /// System calls that sleeping and waking made so far.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    /// Nobody is this slow; a test that waits longer has lost its answer.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Ten thousand things brought one at a time, with the sleeper asleep in between or not: a wake-up that
    /// is lost would let both wait for ever.
    #[test]
    fn whatever_is_brought_is_found() {
        let bell = Arc::new(Bell::default());
        let (bring, brought) = channel();
        let (answer, answers) = channel();
        let own = Arc::clone(&bell);
        let sleeper = thread::spawn(move || {
            while let Some(Ok(thing)) = own.sleep(None, || match brought.try_recv() {
                Ok(thing) => Some(Ok(thing)),
                Err(std::sync::mpsc::TryRecvError::Empty) => None,
                Err(gone) => Some(Err(gone)),
            }) {
                answer.send(thing).unwrap();
            }
        });
        for thing in 0..10_000 {
            // Every other one comes when it is just going to sleep, or does.
            while thing % 2 == 0 && !bell.asleep.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            bring.send(thing).unwrap();
            bell.ring(sleeper.thread());
            assert_eq!(answers.recv_timeout(PATIENCE), Ok(thing), "it sleeps on");
        }
        drop(bring);
        bell.ring(sleeper.thread());
        sleeper.join().unwrap();
        assert!(bell.calls() > 0);
    }

    #[test]
    fn what_never_comes_is_waited_for_only_so_long() {
        let bell = Bell::default();
        assert_eq!(bell.sleep(Some(Duration::from_millis(1)), || None::<()>), None);
        bell.ring(&thread::current());
        let calls = bell.calls();
        bell.ring(&thread::current());
        assert_eq!(bell.calls(), calls, "nobody sleeps, so nobody is woken");
    }
}

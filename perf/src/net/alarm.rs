//! Waking at a moment, finer than the milliseconds that `epoll_wait` counts in.

use std::io;
use std::time::Duration;

use mio::{Registry, Token};

/// A timer of the kernel in the poll's own set. Requests that are due between two milliseconds leave on time, and the
/// generator need not spin on a processor that the servers could use.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(super) struct Alarm {
    timer: std::os::fd::OwnedFd,
    /// The moment it is set to.
    set_to_ns: Option<u64>,
    /// System calls that setting it took since these were taken away.
    pub(super) calls: u64,
}

#[cfg(target_os = "linux")]
impl Alarm {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use std::os::fd::AsRawFd;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut mio::unix::SourceFd(&timer.as_raw_fd()), token, mio::Interest::READABLE)?;
        Ok(Self { timer, set_to_ns: None, calls: 0 })
    }

    /// Makes the poll wake at `at_ns`; what the poll itself must be given as its longest wait.
    ///
    /// The timer is never read: setting it again clears it, and its next end is a new edge.
    pub(super) fn wait(&mut self, now_ns: u64, at_ns: Option<u64>) -> io::Result<Option<Duration>> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let Some(at_ns) = at_ns else { return Ok(None) };
        if at_ns <= now_ns {
            return Ok(Some(Duration::ZERO));
        }
        if self.set_to_ns != Some(at_ns) {
            let wait = Duration::from_nanos(at_ns - now_ns);
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
            timerfd_settime(
                &self.timer,
                TimerfdTimerFlags::empty(),
                &Itimerspec { it_interval: zero, it_value: value },
            )?;
            self.calls += 1;
            self.set_to_ns = Some(at_ns);
        }
        Ok(None)
    }
}

/// Elsewhere the poll's own time-out has to do, to the millisecond.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(super) struct Alarm {
    /// None.
    pub(super) calls: u64,
}

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub(super) fn new(_: &Registry, _: Token) -> io::Result<Self> {
        Ok(Self { calls: 0 })
    }

    pub(super) fn wait(&mut self, now_ns: u64, at_ns: Option<u64>) -> io::Result<Option<Duration>> {
        Ok(at_ns.map(|at_ns| Duration::from_nanos(at_ns.saturating_sub(now_ns))))
    }
}

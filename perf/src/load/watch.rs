//! What somebody sees who watches a load while it runs.

use pygmy_proto::message::IoStatus;

use super::series::Series;
use super::worker::Window;
use crate::error::Error;

/// A moment of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// From here on it counts.
    Begin,
    /// Up to here.
    End,
}

/// How a run stands.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The moment, on the run's clock.
    pub now_ns: u64,
    /// The moments of the run, on the same clock.
    pub window: Window,
    /// What was counted so far.
    pub series: &'a Series,
}

/// Somebody who watches, on a thread that does nothing else.
pub trait Watch {
    /// A moment has come; `own` is what the load's own threads have asked of the system up to then.
    ///
    /// # Errors
    /// What ends the run, once it is over, as failed.
    fn at(&mut self, _: Moment, _own: IoStatus) -> Result<(), Error> {
        Ok(())
    }

    /// Some ten times a second.
    fn look(&mut self, _: &View<'_>) {}
}

/// Nobody.
impl Watch for () {}

/// Two of them.
impl<A: Watch, B: Watch> Watch for (A, B) {
    fn at(&mut self, moment: Moment, own: IoStatus) -> Result<(), Error> {
        self.0.at(moment, own).and(self.1.at(moment, own))
    }

    fn look(&mut self, view: &View<'_>) {
        self.0.look(view);
        self.1.look(view);
    }
}

//! What every system that is compared has in common: how it is started, what it promises, what it is asked.

use std::fmt;
use std::time::Duration;

use super::sandbox::Place;
use super::shelf::Shelf;
use super::tally::Measured;
use crate::error::Error;

/// What is measured together, while a system stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(super) enum Group {
    /// Lookups of books that are there, from 50 clients
    Lookups,
    /// Buys of one copy each, from as many clients as serve the system best
    Buys,
    /// One buy at a time on an idle system
    One,
    /// 256 clients buy: spread over all books, and all the same one
    Flash,
}

impl Group {
    /// The word in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lookups => "lookups",
            Self::Buys => "buys",
            Self::One => "one buy",
            Self::Flash => "flash sale",
        }
    }

    /// Whether systems are compared by how long an answer takes, and not by how many come.
    pub(super) fn is_about_latency(self) -> bool {
        self == Self::One
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Generator {
    /// This program.
    Own,
    /// The tool that comes with Redis.
    RedisBenchmark,
}

/// How a system is asked: one workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Shape {
    /// What is asked.
    pub(super) group: Group,
    /// Connections, or where many share one, clients.
    pub(super) clients: usize,
    /// Requests that each keeps in flight.
    pub(super) depth: usize,
    /// Buys of a client that are acknowledged together; with more than one, the next go when all are.
    pub(super) batch: usize,
    /// Whether all ask for the same book.
    pub(super) is_one_book: bool,
    /// Who asks.
    pub(super) generator: Generator,
}

impl Shape {
    /// So many clients with so many requests in flight each, over all books.
    pub(super) fn new(group: Group, clients: usize, depth: usize) -> Self {
        Self { group, clients, depth, batch: 1, is_one_book: false, generator: Generator::Own }
    }

    /// The same with `batch` buys to an acknowledgement.
    pub(super) fn batched(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// The two halves of a flash sale.
    pub(super) fn flash() -> Vec<Self> {
        let spread = Self::new(Group::Flash, 256, 1);
        vec![spread, Self { is_one_book: true, ..spread }]
    }

    /// Requests in flight in all.
    pub(super) fn in_flight(&self) -> usize {
        self.clients * self.depth * self.batch
    }

    /// Whether another system is asked in the same way, whoever asks.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        Self { generator: Generator::Own, ..*self } == Self { generator: Generator::Own, ..*other }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clients, depth, batch, is_one_book, generator, .. } = self;
        write!(f, "{clients} x {}", depth * batch)?;
        if *batch > 1 {
            write!(f, " together")?;
        }
        if *is_one_book {
            write!(f, ", one book")?;
        }
        match generator {
            Generator::Own => Ok(()),
            Generator::RedisBenchmark => write!(f, ", redis-benchmark"),
        }
    }
}

/// How long a workload takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spans {
    /// Before anything counts.
    pub(super) warmup: Duration,
    /// What counts.
    pub(super) duration: Duration,
}

/// What a system promises as it is set up here, in words. Without them a ratio means little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Guarantees {
    /// On how many disks a buy is when it is answered.
    pub(super) durable: &'static str,
    /// What becomes of a buy that is sent again because no answer came.
    pub(super) resend: &'static str,
    /// What the loss of a server may cost.
    pub(super) failover: &'static str,
    /// How the copy is taken only if it is there, and the order recorded.
    pub(super) buy: &'static str,
    /// What a lookup may show.
    pub(super) lookup: &'static str,
}

impl Guarantees {
    /// Heads and texts, in the order of reports.
    pub(super) fn rows(&self) -> [(&'static str, &'static str); 5] {
        [
            ("durable when answered", self.durable),
            ("sent again", self.resend),
            ("a server is lost", self.failover),
            ("how a buy is done", self.buy),
            ("what a lookup shows", self.lookup),
        ]
    }
}

/// Why a system is left out, and what brings it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    /// What was looked for.
    pub(super) program: &'static str,
    /// The packages that bring it in, by Debian's names.
    pub(super) packages: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, packages } = self;
        write!(f, "{program} is not installed: `apt-get install {packages}` brings it, or perf/peers/install")
    }
}

/// A system that is installed here.
pub(super) trait Peer {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// What it is: version and servers.
    fn describe(&self) -> String;

    /// What it promises as it is set up here.
    fn guarantees(&self) -> Guarantees;

    /// The workloads of a group that suit it.
    fn shapes(&self, group: Group) -> Vec<Shape>;

    /// Starts all its servers in an empty place, fills them and waits until all of them take part. They end with the
    /// place.
    ///
    /// # Errors
    /// When a server does not come up.
    fn start(&self, place: &Place, shelf: &Shelf) -> Result<Box<dyn Standing>, Error>;
}

/// A system whose servers stand.
pub(super) trait Standing {
    /// Loads it.
    ///
    /// # Errors
    /// When it stops answering.
    fn load(&mut self, place: &Place, shape: &Shape, spans: Spans) -> Result<Measured, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_told_apart_by_their_names() {
        let plain = Shape::new(Group::Buys, 16, 1);
        let names = [
            plain,
            plain.batched(32),
            Shape { is_one_book: true, ..plain },
            Shape { generator: Generator::RedisBenchmark, ..plain },
        ]
        .map(|shape| shape.to_string());
        assert_eq!(names, ["16 x 1", "16 x 32 together", "16 x 1, one book", "16 x 1, redis-benchmark"]);
        assert_eq!(plain.batched(32).in_flight(), 512);
    }

    #[test]
    fn the_same_load_by_another_generator_is_alike() {
        let plain = Shape::new(Group::Lookups, 50, 16);
        assert!(plain.is_like(&Shape { generator: Generator::RedisBenchmark, ..plain }));
        assert!(!plain.is_like(&plain.batched(2)));
    }
}

//! I12: what a front promises with every answer to a read, held against it at the moment at which it sends it.
//!
//! Time is the simulation's own. A front counts by its own clock, which may run slow or fast: an answer that leaves while
//! that clock says `m` may rest on a barrier that was sent when it said `m - STALENESS` or later. The simulation knows the
//! first moment at which it said so, and whatever was acknowledged anywhere before that moment must be in the answer. So a
//! clock that runs slow by some part may let an answer be older by that part, and no more.

use std::collections::BTreeMap;

use pygmy_node::machine::ConnId;
use pygmy_proto::frame::Frame;
use pygmy_proto::header::{FLAG_FRESH, Header};
use pygmy_proto::limits::STALENESS_MS_MAX;
use pygmy_proto::{Kind, codec};

use super::{Check, ensure};
use crate::host::Clocks;
use crate::plan::MS;
use crate::rare::Rare;
use crate::reads::Read;

/// By the clock of the front that answers, what was acknowledged longer ago than this is in the answer.
const STALENESS: u64 = STALENESS_MS_MAX as u64 * MS;

/// A front that says something.
#[derive(Debug, Clone, Copy)]
pub struct Speaker<'a> {
    /// Its node.
    pub name: &'a str,
    /// Tells the process from all others.
    pub boot: u64,
    /// Its clocks.
    pub clocks: Clocks,
    /// When, in the simulation's time.
    pub at: u64,
}

/// A read that a front has not answered yet, and how far its answer must reach for what had happened when it came.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// What is asked.
    pub read: Read,
    /// Its session has seen this.
    floor: u64,
    /// The front had acknowledged this.
    acknowledged: u64,
    /// Anybody had been answered this, if the read is to be fresh.
    answered: u64,
}

impl Question {
    fn least(&self) -> u64 {
        self.floor.max(self.acknowledged).max(self.answered)
    }
}

/// What a front has said and been asked.
#[derive(Debug, Default)]
struct Book {
    /// Highest position of a write that it has acknowledged to anybody.
    acknowledged: u64,
    open: BTreeMap<(ConnId, u64), Question>,
}

/// All that fronts have said, as far as promises hang on it.
#[derive(Debug, Default)]
pub struct Promises {
    /// When a write at a higher position than all before was acknowledged, and its position. Both rise.
    acknowledged: Vec<(u64, u64)>,
    /// Highest position of any answer to anybody.
    answered: u64,
    /// By process.
    fronts: BTreeMap<u64, Book>,
}

impl Promises {
    /// A front takes in a request.
    pub fn on_asked(&mut self, front: u64, conn: ConnId, frame: &Frame<'_>) {
        let Some(read) = Read::decode(frame) else { return };
        let is_fresh = frame.header.flags & FLAG_FRESH != 0;
        let answered = if is_fresh { self.answered } else { 0 };
        let book = self.fronts.entry(front).or_default();
        let question = Question { read, floor: read.floor(), acknowledged: book.acknowledged, answered };
        book.open.insert((conn, frame.header.request_id), question);
    }

    /// A front acknowledges a write.
    pub fn on_acknowledged(&mut self, front: u64, at: u64, body: &[u8]) {
        let Some(seq) = position(body) else { return };
        let book = self.fronts.entry(front).or_default();
        book.acknowledged = book.acknowledged.max(seq);
        self.answered = self.answered.max(seq);
        if self.acknowledged.last().is_none_or(|(_, highest)| *highest < seq) {
            self.acknowledged.push((at, seq));
        }
    }

    /// The read that a front answers with this frame, if it does.
    pub fn take(&mut self, front: u64, conn: ConnId, header: &Header) -> Option<Question> {
        self.fronts.get_mut(&front)?.open.remove(&(conn, header.request_id))
    }

    /// A front answers a read with how the store was at `seq`.
    pub fn on_answer(&mut self, by: Speaker<'_>, asked: &Question, seq: u64, rare: &mut Rare) -> Check {
        let Speaker { name, clocks, at, .. } = by;
        let Question { read, floor, acknowledged, answered } = asked;
        ensure(seq >= *floor, "I12", || format!("{name} answers {read:?} at seq {seq}, its floor is {floor}"))?;
        ensure(seq >= *acknowledged, "I12", || {
            format!("{name} answers {read:?} at seq {seq}, and had acknowledged {acknowledged} when it came")
        })?;
        ensure(seq >= *answered, "I11", || {
            format!("{name} answers a fresh {read:?} at seq {seq}, {answered} had been answered when it came")
        })?;
        let since = clocks.when(clocks.at(at).mono_ns.saturating_sub(STALENESS));
        let old = self.acknowledged.partition_point(|(at, _)| *at < since);
        if let Some((then, old)) = old.checked_sub(1).and_then(|last| self.acknowledged.get(last)) {
            rare.reads_of_others_writes += u64::from(*old > asked.least());
            ensure(seq >= *old, "I12", || {
                let ago = (at - then) / MS;
                format!("{name} answers {read:?} at seq {seq}, and {old} was acknowledged {ago} ms before")
            })?;
        }
        self.answered = self.answered.max(seq);
        Ok(())
    }
}

/// The first field of a body.
fn position(body: &[u8]) -> Option<u64> {
    codec::decode_prefix::<u64>(body).ok().map(|(seq, _)| seq)
}

/// Whether a front says this to clients alone, and the promises hang on it.
pub fn counts(kind: Option<Kind>) -> bool {
    use Kind::{BooksOk, Error, LookupOk, OrderOk, OrdersOk, SearchOk, TopicsOk, WriteOk};
    matches!(kind, Some(LookupOk | SearchOk | TopicsOk | BooksOk | OrderOk | OrdersOk | WriteOk | Error))
}

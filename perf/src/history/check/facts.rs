//! What a history says beyond doubt, and what it leaves open: all askings of one write become one write.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use pygmy_proto::ErrorCode;
use pygmy_proto::message::OrderRecord;

use super::violation::Violation;
use super::{Cart, cart};
use crate::history::{Action, Answer, History, Operation};

/// What became of a write, all its askings taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate<'a> {
    /// Done, and so answered.
    Done(&'a Answer),
    /// Refused by the store, and so answered: no effect.
    Refused(&'a Answer),
    /// Never delivered: no effect.
    NotDone,
    /// It may have had its effect or not.
    Unknown,
}

/// A write, however often it was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Write<'a> {
    pub(crate) action: &'a Action,
    /// When it was first sent.
    pub(crate) start_ns: u64,
    /// When its fate was first told; never, while it is unknown.
    pub(crate) end_ns: u64,
    pub(crate) fate: Fate<'a>,
}

impl Write<'_> {
    /// Its place in the log, where it is known to have one.
    pub(crate) fn seq(&self) -> Option<u64> {
        match self.fate {
            Fate::Done(Answer::Bought { order }) => Some(order.number),
            Fate::Done(Answer::Restocked { seq, .. } | Answer::Repriced { seq, .. }) => Some(*seq),
            _ => None,
        }
    }
}

/// What can be said of one asking alone.
fn fate(operation: &Operation) -> Fate<'_> {
    match &operation.answer {
        answer @ (Answer::Bought { .. } | Answer::Restocked { .. } | Answer::Repriced { .. }) => Fate::Done(answer),
        // An expired session says nothing of what was done before it expired.
        Answer::Refused { code, .. } if *code == ErrorCode::SessionExpired as u16 => Fate::Unknown,
        answer @ Answer::Refused { .. } => Fate::Refused(answer),
        Answer::NotDone { .. } => Fate::NotDone,
        Answer::Found { .. } | Answer::Unknown { .. } => Fate::Unknown,
    }
}

/// Every write of a history once.
pub(crate) fn writes<'a>(history: &'a History, found: &mut Vec<Violation>) -> Vec<Write<'a>> {
    let mut by_identity: HashMap<(u64, u64), usize> = HashMap::new();
    let mut writes: Vec<Write<'a>> = Vec::new();
    for operation in history.operations.iter().filter(|operation| !operation.action.is_read()) {
        let identity @ (session, counter) = (operation.session, operation.counter);
        let fate = fate(operation);
        let end_ns = if fate == Fate::Unknown { u64::MAX } else { operation.end_ns };
        let asked = Write { action: &operation.action, start_ns: operation.start_ns, end_ns, fate };
        // Without a session nothing was ever sent under an identity.
        let known = if session == 0 { None } else { by_identity.get(&identity) };
        match known {
            Some(place) if writes[*place].action != &operation.action => {
                found.push(Violation::IdentityConfused { session, counter });
            }
            Some(place) => {
                if !merge(&mut writes[*place], asked) {
                    found.push(Violation::AnswersDiffer { session, counter });
                }
            }
            None => {
                by_identity.insert(identity, writes.len());
                writes.push(asked);
            }
        }
    }
    writes
}

/// Adds an asking to what is known of a write; false when the two contradict each other.
fn merge<'a>(known: &mut Write<'a>, asked: Write<'a>) -> bool {
    known.start_ns = known.start_ns.min(asked.start_ns);
    let (fate, is_one) = match (known.fate, asked.fate) {
        (Fate::Done(a), Fate::Done(b)) => (known.fate, a == b),
        (Fate::Refused(a), Fate::Refused(b)) => (known.fate, a == b),
        (Fate::Done(_), Fate::Refused(_)) => (known.fate, false),
        (Fate::Refused(_), Fate::Done(_)) => (asked.fate, false),
        // An asking that came to nothing says nothing of the others.
        (Fate::Done(_) | Fate::Refused(_), _) => (known.fate, true),
        (_, Fate::Done(_) | Fate::Refused(_)) => (asked.fate, true),
        (Fate::NotDone, Fate::NotDone) => (Fate::NotDone, true),
        (Fate::Unknown, _) | (_, Fate::Unknown) => (Fate::Unknown, true),
    };
    // Where one asking was told, the effect had happened by then, or never will.
    known.end_ns = match (told(known.fate), told(asked.fate)) {
        (true, true) => known.end_ns.min(asked.end_ns),
        (true, false) => known.end_ns,
        (false, true) => asked.end_ns,
        (false, false) if fate == Fate::Unknown => u64::MAX,
        (false, false) => known.end_ns.max(asked.end_ns),
    };
    known.fate = fate;
    is_one
}

fn told(fate: Fate<'_>) -> bool {
    matches!(fate, Fate::Done(_) | Fate::Refused(_))
}

/// The orders that were acknowledged, and the carts that may have become orders without anybody being told.
#[derive(Debug)]
pub(super) struct Orders<'a> {
    pub(super) acknowledged: BTreeMap<u64, &'a OrderRecord>,
    /// Carts whose outcome is unknown, and how many of each.
    pub(super) unknown_carts: HashMap<Cart, usize>,
}

impl<'a> Orders<'a> {
    pub(super) fn new(writes: &[Write<'a>]) -> Self {
        let mut orders = Self { acknowledged: BTreeMap::new(), unknown_carts: HashMap::new() };
        for write in writes {
            match (write.action, write.fate) {
                (_, Fate::Done(Answer::Bought { order })) => {
                    orders.acknowledged.insert(order.number, order);
                }
                (Action::Buy { lines }, Fate::Unknown) => {
                    let cart = cart(lines.iter().map(|line| (line.book, line.copies)));
                    *orders.unknown_carts.entry(cart).or_default() += 1;
                }
                _ => {}
            }
        }
        orders
    }
}

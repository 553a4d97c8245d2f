//! What must always hold, and what must be reached.

use super::log::{Epoch, Kind, Log, Slot};
use super::protocol::{Protocol, true_majority};
use super::state::{Replica, State};
use stateright::Property;

/// Harm that a step can do. It is noted in the state, so that a check sees the step and not only what it leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Harm {
    /// I1: two entries were committed at one seq.
    CommittedTwice,
    /// I2: an epoch began without an entry that an older one has committed, and that a client may have been told of.
    AnsweredLost,
    /// I5: two entries were ordered at one (epoch, seq).
    OrderedTwice,
    /// I5: two replicas hold the token of one epoch.
    TwoTokens,
    /// I6: a disk has answered for an epoch, and no longer knows it.
    PromiseBack,
    /// I6: the last epoch of a log on the platter fell, and no cut says so.
    FellWithoutCut,
    /// A replica truncated an entry that it knew to be committed.
    CommittedTruncated,
    /// I8: an entry was committed that is not on the platters of a majority.
    BeyondMajority,
    /// The rule for the common prefix kept an entry that the chosen log does not have.
    KeptTooMuch,
}

impl Harm {
    /// A client was told of a write that is not in the history, or histories differ: what the others lead to.
    pub(crate) const LOSS: [Harm; 2] = [Harm::CommittedTwice, Harm::AnsweredLost];

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The bits of several kinds of harm.
pub(crate) fn bits(harms: &[Harm]) -> u16 {
    harms.iter().fold(0, |bits, harm| bits | harm.bit())
}

impl State {
    pub(crate) fn note(&mut self, harm: Harm) {
        self.harm |= harm.bit();
    }

    pub(crate) fn has_suffered(&self, harm: Harm) -> bool {
        self.harm & harm.bit() != 0
    }

    /// Somebody takes `log` for committed.
    pub(crate) fn note_committed(&mut self, log: Log) {
        if !log.agrees_with(self.history) {
            self.note(Harm::CommittedTwice);
        } else if log.len() > self.history.len() {
            self.history = log;
        }
    }

    /// `slot` counted acknowledgements of its epoch, and found all of `log` committed.
    pub(crate) fn check_counted(&mut self, protocol: &Protocol, slot: Slot, log: Log) {
        let counter = self.replicas[slot];
        let voters = protocol.voters(counter.log);
        let holds = |slot: &usize| {
            let disk = &self.replicas[*slot];
            // A disk that was lost had it: the protocol stands that, and I8 is about what was true when it was said.
            voters & 1 << slot != 0 && (disk.wiped || log.is_prefix_of(disk.platter))
        };
        let holders = (0..protocol.slots()).filter(holds).count() as u32;
        if holders < true_majority(voters) {
            self.note(Harm::BeyondMajority);
        }
        let lost = self.data.iter().any(|sent| starts_without(*sent, counter.promised, log));
        if lost {
            self.note(Harm::AnsweredLost);
        }
        self.note_committed(log);
    }

    /// `chosen` becomes the log that the promised epoch of `slot` begins with.
    pub(crate) fn check_chosen(&mut self, slot: Slot, chosen: Log) {
        let committed = self.committed_before(self.replicas[slot].promised);
        if chosen.common(self.history) < committed {
            self.note(Harm::AnsweredLost);
        }
    }

    /// `slot` keeps `keep` entries of its log, and `chosen` is what it installs.
    pub(crate) fn check_truncated(&mut self, slot: Slot, keep: u8, chosen: Log) {
        let replica = self.replicas[slot];
        if !replica.log.prefix(keep).is_prefix_of(chosen) {
            self.note(Harm::KeptTooMuch);
        }
        if keep < replica.committed {
            self.note(Harm::CommittedTruncated);
        }
    }

    /// `slot` is about to have its log on the platter.
    pub(crate) fn check_synced(&mut self, slot: Slot) {
        let Replica { platter, log, cut, .. } = self.replicas[slot];
        if log.last_epoch() < platter.last_epoch() && cut <= platter.last_epoch() {
            self.note(Harm::FellWithoutCut);
        }
    }

    /// `slot` has just ordered the last entry of `log`.
    pub(crate) fn check_ordered(&mut self, log: Log) {
        let seq = log.len();
        let twice = self.data.iter().filter_map(|sent| sent.get(seq)).any(|other| {
            log.get(seq).is_some_and(|entry| entry.epoch() == other.epoch() && entry.kind() != other.kind())
        });
        if twice {
            self.note(Harm::OrderedTwice);
        }
    }

    /// Somebody has just got a token.
    pub(crate) fn check_tokens(&mut self) {
        let twice = self.replicas.iter().enumerate().any(|(index, one)| {
            let others = &self.replicas[index + 1..];
            one.token.is_some() && others.iter().any(|other| other.token.is_some() && other.promised == one.promised)
        });
        if twice {
            self.note(Harm::TwoTokens);
        }
    }

    pub(crate) fn check_promises(&mut self) {
        if self.replicas.iter().any(|replica| replica.promised < replica.answered) {
            self.note(Harm::PromiseBack);
        }
    }
}

/// Whether `sent` begins an epoch above `epoch`, without all of `committed` below that beginning.
fn starts_without(sent: Log, epoch: Epoch, committed: Log) -> bool {
    let later = (1..=sent.len())
        .find(|&seq| sent.get(seq).is_some_and(|entry| entry.kind() == Kind::NewEpoch && entry.epoch() > epoch));
    later.is_some_and(|start| !committed.is_prefix_of(sent.prefix(start - 1)))
}

/// The one property of a hunt for a planted mistake. Alone, because the search ends at once only when every property
/// has its answer, and what it finds first is what needs the fewest steps.
pub(crate) fn hunted() -> Vec<Property<Protocol>> {
    vec![Property::<Protocol>::always("no harm", |protocol, s| s.harm & protocol.hunted == 0)]
}

/// What must hold in every state.
pub(crate) fn always() -> Vec<Property<Protocol>> {
    vec![
        Property::<Protocol>::always("I1 one entry per committed seq", |_, s| !s.has_suffered(Harm::CommittedTwice)),
        Property::<Protocol>::always("I2 no answered write missing", |_, s| !s.has_suffered(Harm::AnsweredLost)),
        Property::<Protocol>::always("I5 one entry per (epoch, seq)", |_, s| !s.has_suffered(Harm::OrderedTwice)),
        Property::<Protocol>::always("I5 one token per epoch", |_, s| !s.has_suffered(Harm::TwoTokens)),
        Property::<Protocol>::always("I6 a promise never goes back", |_, s| !s.has_suffered(Harm::PromiseBack)),
        Property::<Protocol>::always("I6 a log falls only below its cut", |_, s| !s.has_suffered(Harm::FellWithoutCut)),
        Property::<Protocol>::always("I8 committed is on a majority", |_, s| !s.has_suffered(Harm::BeyondMajority)),
        Property::<Protocol>::always("nothing known as committed is truncated", |_, s| {
            !s.has_suffered(Harm::CommittedTruncated)
        }),
        Property::<Protocol>::always("an install keeps only what was chosen", |_, s| {
            !s.has_suffered(Harm::KeptTooMuch)
        }),
    ]
}

/// What must be reached, as far as the bounds have room for it: a model that never gets there proves nothing.
pub(crate) fn sometimes(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let bounds = protocol.bounds;
    let mut reached = Vec::new();
    if bounds.writes > 0 {
        reached.push(Property::<Protocol>::sometimes("a write is committed", |_, s| {
            s.history.find(Kind::Write(0)).is_some()
        }));
    }
    if bounds.writes > 0 && !bounds.asks.is_empty() {
        reached.push(Property::<Protocol>::sometimes("a write is committed by a later epoch", |_, s| {
            let Some(seq) = s.history.find(Kind::Write(0)) else { return false };
            let of_first_epoch = s.history.get(seq).is_some_and(|entry| entry.epoch().counter() == 1);
            of_first_epoch && s.committed_before(Epoch::new(2, 0)) < seq
        }));
    }
    if !bounds.asks.is_empty() {
        reached.push(Property::<Protocol>::sometimes("an epoch change commits its first entry", |_, s| {
            s.rounds.iter().any(|round| round.epoch.counter() > 1 && round.committed > 0)
        }));
        reached.push(Property::<Protocol>::sometimes("a log on a platter is about to be truncated", |_, s| {
            s.replicas.iter().any(|replica| replica.log.common(replica.platter) < replica.platter.len())
        }));
    }
    if bounds.asks.len() > 1 {
        reached.push(Property::<Protocol>::sometimes("a second epoch change commits its first entry", |_, s| {
            s.rounds.iter().any(|round| {
                round.committed > 0
                    && s.history
                        .prefix(round.committed)
                        .entries()
                        .filter(|entry| entry.kind() == Kind::NewEpoch)
                        .count()
                        > 2
            })
        }));
    }
    if bounds.crashes > 0 && bounds.passes == 0 {
        reached.push(Property::<Protocol>::sometimes("a crash loses an append", |_, s| {
            s.data.iter().any(|sent| {
                // Without passes the coordinator itself ordered, and so had appended, all of its epoch.
                let origin = &s.replicas[sent.last_epoch().coordinator()];
                let lost = origin.log != *sent && origin.log.is_prefix_of(*sent);
                origin.boot > 0 && lost && origin.log.last_epoch() == sent.last_epoch()
            })
        }));
    }
    if bounds.passes > 0 {
        reached.push(Property::<Protocol>::sometimes("a token is passed and taken", |_, s| {
            s.replicas.iter().any(|replica| replica.token.is_some_and(|token| token.hop > 0))
        }));
    }
    if bounds.resends > 0 {
        reached.push(Property::<Protocol>::sometimes("a token is sent again and taken", |_, s| {
            s.replicas.iter().any(|replica| replica.token.is_some_and(|token| token.by_resend))
        }));
    }
    if bounds.wipes > 0 {
        reached.push(Property::<Protocol>::sometimes("a lost disk is filled again", |_, s| {
            s.replicas.iter().any(|replica| replica.wiped && s.history.len() > 1 && s.history == replica.platter)
        }));
    }
    if bounds.swap.is_some() {
        reached.push(Property::<Protocol>::sometimes("a swap is finished", |_, s| {
            s.history.find(Kind::SwapSecond).is_some()
        }));
    }
    reached
}

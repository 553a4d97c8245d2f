//! The state of the model: replicas with their disks, and what was ever sent and may still arrive.

use super::log::{Epoch, Log, SLOTS, Slot};

/// A token as its holder has it: the right to order behind `base`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Holding {
    pub(crate) hop: u8,
    /// Next seq and hash before, as the log that they stand for.
    pub(crate) base: Log,
    /// It came by a re-send. Only so that the checker can show that such a token is used.
    pub(crate) by_resend: bool,
}

/// The passer's copy of a token that it claims until it sees it taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Copied {
    pub(crate) hop: u8,
    pub(crate) base: Log,
    pub(crate) to: Slot,
    pub(crate) boot: u8,
}

/// A token on its way. It is for one process, not for one slot: frames die with the connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Token {
    pub(crate) epoch: Epoch,
    pub(crate) hop: u8,
    pub(crate) base: Log,
    pub(crate) to: Slot,
    pub(crate) boot: u8,
    pub(crate) resent: bool,
}

/// A replica. A crash is a restart at once: one that is down and one that does nothing cannot be told apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Replica {
    // On the disk.
    /// What a sync has put on the platter.
    pub(crate) platter: Log,
    /// The promise in the vote file.
    pub(crate) vote: Epoch,
    /// The highest epoch for which the vote file allows the log's last epoch to fall.
    pub(crate) cut: Epoch,

    // In the process.
    /// The log with appends that are under way.
    pub(crate) log: Log,
    /// The highest epoch answered for, or about to be: above `vote` while the vote file is written.
    pub(crate) promised: Epoch,
    /// The process that is answered once the vote file is written.
    pub(crate) answer_to: Option<u8>,
    /// It asks for promises of its promised epoch.
    pub(crate) asking: bool,
    /// The log that it has chosen to start with, while it is fetched.
    pub(crate) choice: Option<Log>,
    /// The prefix that this process knows to be committed.
    pub(crate) committed: u8,
    pub(crate) token: Option<Holding>,
    pub(crate) copy: Option<Copied>,
    /// The highest hop received in the promised epoch by this process.
    pub(crate) received: u8,

    // Beside both.
    /// Which process of this slot it is.
    pub(crate) boot: u8,
    /// The disk was lost: the slot has a new UUID, which is in no configuration.
    pub(crate) wiped: bool,
    /// The highest epoch that this UUID ever promised or acknowledged in. Only for the checker.
    pub(crate) answered: Epoch,
}

impl Replica {
    /// My log contains the `NewEpoch` of my promised epoch.
    pub(crate) fn installed(&self) -> bool {
        self.log.start_of(self.promised).is_some()
    }

    /// The vote file says that the install of the promised epoch has begun, and the log is not complete.
    pub(crate) fn installing(&self) -> bool {
        self.cut == self.promised && !self.installed()
    }

    /// After a restart the larger of vote file and log counts.
    pub(crate) fn durable_promise(&self) -> Epoch {
        self.vote.max(self.platter.last_epoch())
    }

    /// Raises the promise: whatever belonged to an older epoch ends.
    pub(crate) fn promise(&mut self, epoch: Epoch) {
        if epoch > self.promised {
            self.promised = epoch;
            self.answer_to = None;
            self.asking = false;
            self.choice = None;
            self.token = None;
            self.copy = None;
            self.received = 0;
        }
    }

    /// Loses the process with all that was not synced, and starts another.
    pub(crate) fn restart(&mut self) {
        self.log = self.platter;
        self.promised = self.durable_promise();
        self.vote = self.promised;
        self.answer_to = None;
        self.asking = false;
        self.choice = None;
        self.committed = 0;
        self.token = None;
        self.copy = None;
        self.received = 0;
        self.boot += 1;
    }
}

/// What was sent in one epoch and may still arrive. Messages are never taken out: one that is lost is one that is never
/// delivered, and one that is delivered late, twice or out of order is covered as well.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Round {
    pub(crate) epoch: Epoch,
    /// The process that asked for promises.
    pub(crate) asked: Option<u8>,
    /// The logs that came with promises.
    pub(crate) promises: [Option<Log>; SLOTS],
    /// The longest log acknowledged by each disk.
    pub(crate) acks: [Log; SLOTS],
    /// The highest committed seq that any frame of the epoch tells.
    pub(crate) committed: u8,
}

impl Round {
    fn new(epoch: Epoch) -> Self {
        Self { epoch, asked: None, promises: [None; SLOTS], acks: [Log::default(); SLOTS], committed: 0 }
    }
}

/// How much of each bounded thing has happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Used {
    pub(crate) writes: u8,
    pub(crate) asks: u8,
    pub(crate) crashes: u8,
    pub(crate) wipes: u8,
    pub(crate) passes: u8,
    pub(crate) resends: u8,
}

/// The state of the whole cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    pub(crate) replicas: [Replica; SLOTS],
    /// Sorted by epoch.
    pub(crate) rounds: Vec<Round>,
    /// Every `Data` that may still arrive, as the log up to its end. Only the longest are kept, for a log holds the
    /// entries of its prefixes. Sorted.
    pub(crate) data: Vec<Log>,
    /// Sorted.
    pub(crate) tokens: Vec<Token>,
    pub(crate) used: Used,
    /// The longest log that anybody ever committed. Only for the checker, as what follows.
    pub(crate) history: Log,
    /// Committed in epochs whose round is forgotten, because every replica is beyond them.
    pub(crate) forgotten: u8,
    /// The [`Harm`](super::checks::Harm) done so far, as bits.
    pub(crate) harm: u16,
}

impl State {
    pub(crate) fn round(&self, epoch: Epoch) -> Option<&Round> {
        self.rounds.iter().find(|round| round.epoch == epoch)
    }

    pub(crate) fn round_mut(&mut self, epoch: Epoch) -> &mut Round {
        let index = match self.rounds.binary_search_by_key(&epoch, |round| round.epoch) {
            Ok(index) => index,
            Err(index) => {
                self.rounds.insert(index, Round::new(epoch));
                index
            }
        };
        &mut self.rounds[index]
    }

    pub(crate) fn send_data(&mut self, log: Log) {
        if self.data.iter().any(|sent| log.is_prefix_of(*sent)) {
            return;
        }
        self.data.retain(|sent| !sent.is_prefix_of(log));
        self.data.push(log);
        self.data.sort_unstable();
    }

    pub(crate) fn send_token(&mut self, token: Token) {
        self.tokens.push(token);
        self.tokens.sort_unstable();
    }

    /// The longest prefix committed in an epoch below `epoch`.
    pub(crate) fn committed_before(&self, epoch: Epoch) -> u8 {
        let rounds = self.rounds.iter().filter(|round| round.epoch < epoch);
        rounds.map(|round| round.committed).max().unwrap_or(0).max(self.forgotten)
    }

    /// Forgets what can have no effect any more, so that states which differ only in it are one. A planted mistake may
    /// use copies of tokens that the protocol would not, and says so with `keep_copies`.
    pub(crate) fn forget_the_dead(&mut self, slots: usize, keep_copies: bool) {
        let replicas = self.replicas;
        let replicas = &replicas[..slots];
        let lowest_vote = replicas.iter().map(Replica::durable_promise).min().unwrap_or_default();
        for round in &mut self.rounds {
            if lowest_vote >= round.epoch {
                round.asked = None;
            }
            let asker = &replicas[round.epoch.coordinator()];
            if !asker.asking || asker.promised != round.epoch {
                round.promises = [None; SLOTS];
            }
            if lowest_vote > round.epoch {
                self.forgotten = self.forgotten.max(round.committed);
                *round = Round::new(round.epoch);
            }
        }
        self.rounds.retain(|round| *round != Round::new(round.epoch));
        self.data.retain(|log| log.last_epoch() >= lowest_vote);
        self.tokens.retain(|token| {
            let to = &replicas[token.to];
            let taken = to.promised == token.epoch && to.received >= token.hop;
            to.boot == token.boot && to.durable_promise() <= token.epoch && !taken
        });
        if !keep_copies {
            for replica in &mut self.replicas[..slots] {
                let epoch = replica.promised;
                replica.copy = replica.copy.filter(|copy| {
                    let to = &replicas[copy.to];
                    let taken = to.promised == epoch && to.received >= copy.hop;
                    to.boot == copy.boot && to.durable_promise() <= epoch && !taken
                });
            }
        }
    }
}

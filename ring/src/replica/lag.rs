//! Who lags: who has so much to apply before it is where the others are that nobody should wait for it (RING §4).
//!
//! A replica that comes back, or a new one, may have a million entries to fetch and to apply. If it had the token
//! meanwhile, everybody's writes would stand still until it can number behind them; if it were given writes, those would.
//! So it does not ask for the token, no holder gives it away to it, servers that share writes out leave it out, and reads
//! that are passed to it are sent elsewhere.
//!
//! All that is an opinion, like suspicion, and nothing hangs on it for good. Catching up needs no token. Whoever has the
//! token keeps it and goes on ordering, whatever it still has to apply: it is the others that are spared, not the holder.
//! Where the token is lost, any catalog may begin an epoch, and has fetched the whole log before it has the token. Where
//! nobody knows more than anybody else, as after a start of all, nobody lags.

use super::Replica;
use crate::StateMachine;
use crate::config::Limits;

/// What a replica knows of its own lag.
#[derive(Debug)]
pub(super) struct Lag {
    /// Known to be committed, whatever epoch it was heard in: what is committed stays so.
    committed: u64,
    /// Whether this replica lags. One that was just started does not know what it has missed.
    lags: bool,
}

impl Default for Lag {
    fn default() -> Self {
        Self { committed: 0, lags: true }
    }
}

/// Whether whoever has so many entries left to apply lags. Who does is content with nothing but nearly all.
fn judge(limits: &Limits, lagged: bool, left: u64) -> bool {
    left > if lagged { limits.lag_over } else { limits.lag_max }
}

impl<S: StateMachine> Replica<S> {
    /// Bounds other than those it was opened with, before it is given its first input.
    pub fn limit(&mut self, limits: Limits) {
        self.config.limits = limits;
    }

    /// Whether this replica has so much to apply that others should do its work.
    pub fn lags(&self) -> bool {
        self.lag.lags
    }

    /// Whether `node` has, as far as is known here. Who is not known does not.
    pub fn is_lagging(&self, node: u16) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.lags)
    }

    /// Learns that the log is committed up to `seq`, in whatever epoch.
    pub(super) fn hear_committed(&mut self, seq: u64) {
        self.lag.committed = self.lag.committed.max(seq);
    }

    /// Known to be committed by anybody.
    fn committed_anywhere(&self) -> u64 {
        self.lag.committed.max(self.known_committed).max(self.committed)
    }

    /// `node` says how far it has applied the log. On a new link it does not: what it knows to be committed stands for it,
    /// which a process that was just started knows of little, until its first heartbeat.
    pub(super) fn hear_applied(&mut self, node: u16, applied: u64, is_new: bool) {
        let left = self.committed_anywhere().saturating_sub(applied);
        let limits = self.config.limits;
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.lags = judge(&limits, peer.lags || is_new, left);
    }

    /// At the end of a turn: how far this replica is itself. One that hears no majority learns nothing about that.
    pub(super) fn judge_lag(&mut self) {
        if !self.hears_majority() {
            return;
        }
        let left = self.committed_anywhere() - self.applied;
        let lags = judge(&self.config.limits, self.lag.lags, left);
        if lags && !self.lag.lags {
            self.counters.lagged += 1;
            log::info!("{left} committed entries are still to be applied here: others take the writes meanwhile");
        } else if !lags && self.lag.lags {
            log::info!("this replica keeps up: {left} committed entries are still to be applied");
        }
        self.lag.lags = lags;
    }
}

//! When another server took the victims of a fault for gone, and when it no longer did.

use pygmy_proto::message::{PeerState, Role, Status, StatusOk};

use crate::ask::Asker;
use crate::target::{Server, Target};

/// The eyes of one server that does not fail.
pub(super) struct Sight {
    /// Nobody looks any more when it stopped answering.
    asker: Option<Asker>,
    opinion: Opinion,
}

/// What is thought of the victims, and since when.
#[derive(Debug, Default, PartialEq, Eq)]
struct Opinion {
    victims: Vec<u16>,
    suspected_ns: Option<u64>,
    trusted_ns: Option<u64>,
}

impl Opinion {
    /// At a moment, those of `gone` were taken for gone.
    fn note(&mut self, now_ns: u64, gone: &[u16]) {
        let is_suspected = self.victims.iter().any(|victim| gone.contains(victim));
        match (self.suspected_ns, self.trusted_ns) {
            (None, _) if is_suspected => self.suspected_ns = Some(now_ns),
            (Some(_), None) if !is_suspected => self.trusted_ns = Some(now_ns),
            // A server that went again after it had come back is no longer this fault's doing.
            _ => {}
        }
    }
}

impl Sight {
    /// Looks through a server that is none of these: a log replica if there is one.
    pub(super) fn new(target: &Target, victims: &[String]) -> Self {
        let is_victim = |server: &Server| victims.contains(&server.name);
        let others = || target.servers.iter().filter(|server| !is_victim(server));
        let replica = others().find(|server| server.role != Role::Front);
        let asker = replica.or_else(|| others().next()).and_then(|server| Asker::connect(server).ok());
        let victims = target.servers.iter().filter(|server| is_victim(server)).map(|server| server.number).collect();
        Self { asker, opinion: Opinion { victims, ..Opinion::default() } }
    }

    /// Looks once.
    pub(super) fn look(&mut self, now_ns: u64) {
        let Some(asker) = &mut self.asker else { return };
        let Ok(status) = asker.ask::<_, StatusOk>(&Status {}) else {
            self.asker = None;
            return;
        };
        let gone = status.peers.iter().filter(|peer| peer.state == PeerState::Red).map(|peer| peer.node);
        self.opinion.note(now_ns, &gone.collect::<Vec<_>>());
    }

    /// When they were first seen to be taken for gone.
    pub(super) fn suspected_ns(&self) -> Option<u64> {
        self.opinion.suspected_ns
    }

    /// When they were no longer, behind that.
    pub(super) fn trusted_ns(&self) -> Option<u64> {
        self.opinion.trusted_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_suspicion_counts_and_the_first_trust_behind_it() {
        let mut opinion = Opinion { victims: vec![3, 5], ..Opinion::default() };
        for (now_ns, gone) in
            [(1, &[][..]), (2, &[4]), (3, &[5]), (4, &[3, 5]), (5, &[3]), (6, &[4]), (7, &[3]), (8, &[])]
        {
            opinion.note(now_ns, gone);
        }
        assert_eq!((opinion.suspected_ns, opinion.trusted_ns), (Some(3), Some(6)));
    }

    #[test]
    fn who_was_never_suspected_is_not_trusted_again() {
        let mut opinion = Opinion { victims: vec![3], ..Opinion::default() };
        (1..5).for_each(|now_ns| opinion.note(now_ns, &[]));
        assert_eq!((opinion.suspected_ns, opinion.trusted_ns), (None, None));
    }
}

//! The connections that this node opens and keeps open.

use std::net::SocketAddr;

use super::resolve::{Purpose, Resolver};
use crate::machine::ms;

/// Failures in a row after which a link that stays down is worth a line in the log: one at an outage, not one a second.
const LOUD_AFTER: usize = 8;

/// Where a link leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkConfig {
    /// Number of the node.
    pub node: u16,
    /// Its `host:port`; a name is resolved at every attempt.
    pub address: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next attempt is due then.
    Waiting { due_ns: u64 },
    /// Its name is being resolved.
    Resolving,
    /// A connection stands or is being made.
    Busy,
}

/// One link.
#[derive(Debug)]
struct Link {
    config: LinkConfig,
    state: State,
    /// Wait before the attempt after the next failure.
    backoff_ns: u64,
    /// Failures since the last handshake: which of several addresses comes next.
    failures: usize,
}

/// All links of a node.
///
/// The wait doubles with every attempt and starts anew only when a handshake was finished: a peer that accepts and
/// then refuses is not hammered. It has no random part, since a handful of nodes cannot stampede.
#[derive(Debug)]
pub(super) struct Links {
    links: Vec<Link>,
    backoff_min_ns: u64,
    backoff_max_ns: u64,
}

impl Links {
    /// Links that all want their first attempt at once.
    pub(super) fn new(configs: Vec<LinkConfig>, backoff_ms_min: u32, backoff_ms_max: u32) -> Self {
        let backoff_min_ns = ms(backoff_ms_min.into());
        let links = configs
            .into_iter()
            .map(|config| Link { config, state: State::Waiting { due_ns: 0 }, backoff_ns: backoff_min_ns, failures: 0 })
            .collect();
        Self { links, backoff_min_ns, backoff_max_ns: ms(backoff_ms_max.into()) }
    }

    /// Keeps a connection to one more node, or to one that has moved: the first attempt is due at once.
    pub(super) fn add(&mut self, config: LinkConfig) {
        let fresh = Link { config, state: State::Waiting { due_ns: 0 }, backoff_ns: self.backoff_min_ns, failures: 0 };
        match self.find(fresh.config.node) {
            None => self.links.push(fresh),
            Some(link) if link.config == fresh.config => {}
            // A connection that stands, or an answer under way, is dealt with as before; the next attempt goes there.
            Some(link) => link.config = fresh.config,
        }
    }

    /// Opens no connection to `node` any more.
    pub(super) fn remove(&mut self, node: u16) {
        self.links.retain(|link| link.config.node != node);
    }

    /// When the next attempt is due.
    pub(super) fn next_due(&self) -> Option<u64> {
        let due = |link: &Link| match link.state {
            State::Waiting { due_ns } => Some(due_ns),
            State::Resolving | State::Busy => None,
        };
        self.links.iter().filter_map(due).min()
    }

    /// Asks for the address of every link whose attempt is due.
    pub(super) fn ask_due(&mut self, now_ns: u64, resolver: &Resolver) {
        for link in &mut self.links {
            if matches!(link.state, State::Waiting { due_ns } if due_ns <= now_ns) {
                link.state = State::Resolving;
                resolver.ask(link.config.node, Purpose::Connection, &link.config.address);
            }
        }
    }

    /// Which of a name's addresses to try now: another one after each failure.
    pub(super) fn choose(&self, node: u16, addresses: &[SocketAddr]) -> Option<SocketAddr> {
        let failures = self.links.iter().find(|link| link.config.node == node)?.failures;
        addresses.get(failures.checked_rem(addresses.len())?).copied()
    }

    /// Notes the connection under way.
    pub(super) fn on_connecting(&mut self, node: u16) {
        if let Some(link) = self.find(node) {
            link.state = State::Busy;
        }
    }

    /// The link's handshake is done: the next wait is a short one again.
    pub(super) fn on_handshake(&mut self, node: u16) {
        let backoff_min_ns = self.backoff_min_ns;
        if let Some(link) = self.find(node) {
            link.backoff_ns = backoff_min_ns;
            link.failures = 0;
        }
    }

    /// The attempt failed or the connection ended: waits, longer each time.
    pub(super) fn on_down(&mut self, node: u16, now_ns: u64) {
        let backoff_max_ns = self.backoff_max_ns;
        let Some(link) = self.find(node) else { return };
        let wait = link.backoff_ns;
        link.state = State::Waiting { due_ns: now_ns.saturating_add(wait) };
        link.backoff_ns = wait.saturating_mul(2).min(backoff_max_ns);
        link.failures = link.failures.wrapping_add(1);
        if link.failures == LOUD_AFTER {
            let LinkConfig { node, address } = &link.config;
            log::warn!("node {node} at {address} was not reached {LOUD_AFTER} times in a row; attempts go on");
        }
    }

    /// Opens nothing any more.
    pub(super) fn stop(&mut self) {
        self.links.clear();
    }

    fn find(&mut self, node: u16) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.config.node == node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links::new(vec![LinkConfig { node: 3, address: "127.0.0.1:1".into() }], 10, 1_000)
    }

    #[test]
    fn the_wait_doubles_to_its_bound_and_a_handshake_resets_it() {
        let mut links = links();
        assert_eq!(links.next_due(), Some(0));
        let mut wait = || {
            links.on_down(3, 0);
            links.next_due().map(|due_ns| due_ns / ms(1))
        };
        let waits: Vec<u64> = (0..9).filter_map(|_| wait()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000]);
        links.on_connecting(3);
        assert_eq!(links.next_due(), None);
        links.on_handshake(3);
        links.on_down(3, ms(500));
        assert_eq!(links.next_due(), Some(ms(510)));
    }

    #[test]
    fn nodes_that_come_are_connected_to_at_once_and_those_that_go_no_more() {
        let mut links = links();
        links.on_connecting(3);
        links.add(LinkConfig { node: 4, address: "127.0.0.1:2".into() });
        assert_eq!(links.next_due(), Some(0));
        links.on_connecting(4);
        let moved = LinkConfig { node: 4, address: "127.0.0.1:3".into() };
        links.add(moved.clone());
        assert_eq!(links.next_due(), None, "the connection that stands is left alone");
        assert_eq!(links.find(4).map(|link| link.config.clone()), Some(moved));
        links.remove(4);
        links.on_down(4, 0);
        assert_eq!(links.next_due(), None);
    }

    #[test]
    fn each_failure_moves_to_the_next_address_of_a_name() {
        let mut links = links();
        let addresses: Vec<SocketAddr> = vec!["[::1]:1".parse().unwrap(), "127.0.0.1:1".parse().unwrap()];
        assert_eq!(links.choose(3, &addresses), Some(addresses[0]));
        links.on_down(3, 0);
        assert_eq!(links.choose(3, &addresses), Some(addresses[1]));
        links.on_down(3, 0);
        assert_eq!(links.choose(3, &addresses), Some(addresses[0]));
        assert_eq!(links.choose(3, &[]), None);
    }
}

//! Who the other servers are: those that `cluster.toml` names, and those that have taken a place since.
//!
//! The latest configuration that is known to be committed says who has a slot now. Log replicas have it in their log and
//! tell it to every server ([`Members`]), so that all of them connect to newcomers, and forget those whose places these
//! have taken.

use std::collections::{BTreeMap, BTreeSet};

use pygmy_proto::message::{Members, Voter};
use pygmy_proto::types::{Bounded, Text};

use super::{Duty, Node};
use crate::machine::{ConnId, Outbox, Output};
use crate::settings::{Settings, slot_of};

/// The other servers that a node knows.
#[derive(Debug)]
pub(super) struct Directory {
    /// Id of the latest configuration that was taken into account.
    config_id: u64,
    /// Id of the latest configuration that this node's log has told the others of.
    told: u64,
    /// By number: whether its link is up.
    servers: BTreeMap<u16, bool>,
    /// Those whose places others have taken, for ever: a link with one of them may stand still, or come once more from an
    /// attempt that was under way.
    replaced: BTreeSet<u16>,
}

/// Id of the configuration that a cluster is born with, which everybody knows from `cluster.toml`.
const BIRTH: u64 = 1;

impl Directory {
    /// Those that `cluster.toml` names. Fronts have nothing to tell each other.
    pub(super) fn new(settings: &Settings) -> Self {
        let is_front = !settings.own().is_replica();
        let others = settings.cluster.nodes.iter().filter(|node| node.number != settings.me);
        let known = others.filter(|node| !is_front || node.is_replica());
        Self {
            config_id: BIRTH,
            told: BIRTH,
            servers: known.map(|node| (node.number, false)).collect(),
            replaced: BTreeSet::new(),
        }
    }

    /// Every server, and whether its link is up.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, bool)> {
        self.servers.iter().map(|(node, up)| (*node, *up))
    }

    /// Notes whether the link with a server is up. Whether the server is new.
    pub(super) fn set_up(&mut self, node: u16, up: bool) -> bool {
        self.servers.insert(node, up).is_none()
    }
}

impl Node {
    /// Where the process with this number listens, as far as `cluster.toml` says.
    fn configured_address(&self, node: u16) -> Option<&str> {
        let known = self.settings.cluster.node(node).filter(|known| known.number == node);
        known.map(|known| &*known.address)
    }

    /// A link stands: if it is with a replica that nobody had named, there are heartbeats for it from now on.
    pub(super) fn meet(&mut self, node: u16, address: &str, out: &mut Outbox) {
        self.watch(node);
        if self.directory.set_up(node, true) {
            out.push(Output::Meet { node, address: address.to_owned(), dial: self.is_dialed(node) });
        }
    }

    fn is_dialed(&self, node: u16) -> bool {
        self.settings.cluster.is_dialed(self.settings.me, node)
    }

    /// A link is gone. Whoever was replaced, or came without being named by anyone, is forgotten with it.
    pub(super) fn part(&mut self, node: u16, out: &mut Outbox) {
        self.directory.set_up(node, false);
        let replaced = self.directory.replaced.contains(&node);
        let votes = self.duty.replica().is_none_or(|replica| replica.has_voter(node));
        if replaced || !(votes || self.configured_address(node).is_some()) {
            self.forget_server(node, out);
        }
    }

    /// A replica has said who the voters are.
    pub(super) fn on_members(&mut self, members: &Members, out: &mut Outbox) {
        if members.config_id > self.directory.config_id {
            self.directory.config_id = members.config_id;
            self.learn_members(&members.voters, out);
        }
    }

    /// Tells the server at the other end of `conn` who the voters are, if these are not the first.
    pub(super) fn tell_members(&self, conn: ConnId, out: &mut Outbox) {
        if let Some(members) = self.members().filter(|members| members.config_id > BIRTH) {
            out.send(conn, 0, 0, 0, &members);
        }
    }

    fn members(&self) -> Option<Members> {
        let settled = self.duty.replica()?.settled_membership();
        // The configuration names no address of those that have been there from the beginning.
        let whole = |voter: &Voter| match self.configured_address(voter.node) {
            Some(address) if voter.address.is_empty() => Voter { address: Text::truncated(address), ..voter.clone() },
            _ => voter.clone(),
        };
        let voters = Bounded::truncated(settled.voters.iter().map(whole).collect());
        Some(Members { config_id: settled.id, voters })
    }

    /// Takes account of the configuration in this node's own log, and tells all others of it when it is a new one.
    pub(super) fn follow_membership(&mut self, out: &mut Outbox) {
        let settled = self.duty.replica().map_or(0, |replica| replica.settled_membership().id);
        if settled <= self.directory.told {
            return;
        }
        self.directory.told = settled;
        let Some(members) = self.members() else { return };
        for conn in self.links.all() {
            out.send(conn, 0, 0, 0, &members);
        }
        self.on_members(&members, out);
    }

    fn learn_members(&mut self, voters: &[Voter], out: &mut Outbox) {
        let me = self.settings.me;
        for voter in voters.iter().filter(|voter| voter.node != me) {
            self.expect(voter, out);
        }
        // Between the two changes that replace a living voter both vote, and must hear each other.
        let votes = |node: u16| voters.iter().any(|voter| voter.node == node);
        let has_heir = |node: u16| voters.iter().any(|voter| slot_of(voter.node) == slot_of(node) && voter.node > node);
        let replaced = |node: u16| has_heir(node) && !votes(node);
        let gone: Vec<u16> = self.directory.iter().map(|(node, _)| node).filter(|node| replaced(*node)).collect();
        for node in gone {
            self.retire_server(node, out);
        }
    }

    /// Makes a voter known that is new, and passes requests on to it.
    fn expect(&mut self, voter: &Voter, out: &mut Outbox) {
        let node = voter.node;
        let is_new = !self.directory.servers.contains_key(&node);
        if is_new && !voter.address.is_empty() {
            log::info!("{} at {} has taken a place", self.settings.cluster.name_of(node), &*voter.address);
            self.directory.set_up(node, false);
            self.watch(node);
            out.push(Output::Meet { node, address: voter.address.to_string(), dial: self.is_dialed(node) });
        }
        let up = self.links.get(node).is_some();
        // It may have been silent since before it was known what its link is for.
        let suspected = self.is_suspected(node);
        let role = self.settings.cluster.node(node).map(|known| known.role);
        match (&mut self.duty, role) {
            (Duty::Front(front), Some(role)) => front.add_server(node, role, up, suspected),
            (Duty::Order(order, ..), Some(role)) => order.add_server(node, role, up, suspected),
            _ => {}
        }
    }

    /// Another one has taken the place of `node`. It gets nothing new to do; its link stands until it has finished what
    /// it has and leaves, or a token that it holds would be lost with the link.
    fn retire_server(&mut self, node: u16, out: &mut Outbox) {
        log::info!("{} was replaced", self.settings.cluster.name_of(node));
        match &mut self.duty {
            Duty::Front(front) => front.remove_server(node),
            Duty::Order(order, ..) => order.remove_server(node),
            Duty::Catalog(..) => {}
        }
        self.directory.replaced.insert(node);
        if self.links.get(node).is_none() {
            self.forget_server(node, out);
        }
    }

    fn forget_server(&mut self, node: u16, out: &mut Outbox) {
        self.directory.servers.remove(&node);
        self.beats.detector.forget(node);
        out.push(Output::Forget { node });
    }
}

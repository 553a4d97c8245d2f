//! Heartbeats as datagrams: written, authenticated, and read again.

use pygmy_proto::datagram::{self, Arrival, DatagramKey, Header, Heartbeat, ReplayGuard};
use pygmy_proto::message::ReplicaBeat;
use pygmy_proto::types::Bounded;

use super::Node;
use crate::machine::{Now, Outbox};
use crate::settings::{NodeSettings, Settings};

/// What a node knows for its heartbeats.
#[derive(Debug)]
pub(super) struct Beats {
    key: DatagramKey,
    /// Heartbeats sent by this process.
    sent: u64,
    guard: ReplayGuard,
}

impl Beats {
    pub(super) fn new(settings: &Settings) -> Self {
        let key = DatagramKey::new(&settings.cluster.id, &settings.cluster.key);
        Self { key, sent: 0, guard: ReplayGuard::new() }
    }

    /// A handshake has shown which process `node` is: no other one is heard under its number.
    pub(super) fn pin(&mut self, node: u16, boot_nonce: u64) {
        self.guard.pin(node, boot_nonce);
    }

    /// The next heartbeat of this process.
    fn header(&mut self, settings: &Settings) -> Header {
        self.sent += 1;
        Header { node: settings.me, boot_nonce: settings.boot_nonce, counter: self.sent }
    }
}

impl Node {
    /// Sends the heartbeat that the ring has made in this turn, if it has, to all other replicas.
    pub(super) fn send_beat(&mut self, out: &mut Outbox) {
        let Some(beat) = self.duty.replica_mut().and_then(|replica| replica.take_beat()) else { return };
        let header = self.beats.header(&self.settings);
        let heartbeat = heartbeat(beat);
        let cluster = &self.settings.cluster;
        let is_replica = |number: &u16| cluster.node(*number).is_some_and(NodeSettings::is_replica);
        let others = self.directory.iter().map(|(number, _)| number).filter(is_replica);
        let key = &self.beats.key;
        out.send_datagram(others, |out| datagram::write(out, key, &header, &heartbeat));
    }

    /// A datagram came from wherever.
    pub(super) fn on_datagram(&mut self, now: Now, bytes: &[u8]) {
        let (header, heartbeat) = match datagram::read(bytes, &self.beats.key) {
            Ok(read) => read,
            Err(error) => return log::debug!("a datagram is dropped: {error}"),
        };
        let arrival = match self.beats.guard.check(&header) {
            Ok(arrival) => arrival,
            Err(why) => return log::debug!("a heartbeat of {} is dropped: {why}", self.name_of(header.node)),
        };
        // One that was overtaken says what is no longer so.
        if let Some(beat) = heartbeat.replica.filter(|_| arrival == Arrival::Newest) {
            self.ring(now, pygmy_ring::Input::Beat { node: header.node, beat });
        }
    }
}

fn heartbeat(beat: ReplicaBeat) -> Heartbeat {
    Heartbeat { late_us: beat.late_us, hears: Bounded::truncated(beat.hears.to_vec()), replica: Some(beat) }
}

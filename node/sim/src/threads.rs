//! The mistake of heartbeats that come from a thread of their own: a process says that it lives, and its loop does not run.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use pygmy_proto::datagram::{self, DatagramKey, Header, Heartbeat};
use pygmy_ring::detector::BEAT_NS;

use crate::events::Event;
use crate::mistake::Mistake;
use crate::world::World;

/// What such a thread knows of its process.
#[derive(Debug, Default)]
pub struct Thread {
    last: Option<(Header, Heartbeat)>,
    told: BTreeSet<u16>,
    /// Heartbeats that it has sent by itself: the loop's own are counted behind them.
    ahead: u64,
}

impl Thread {
    /// What the loop has to say goes out with the numbers of the thread.
    fn pass_on(&mut self, key: &DatagramKey, node: u16, bytes: &Bytes) -> Bytes {
        let Ok((mut header, mut heartbeat)) = datagram::read(bytes, key) else { return bytes.clone() };
        header.counter += self.ahead;
        heartbeat.number += self.ahead;
        self.told.insert(node);
        let bytes = written(key, &header, &heartbeat);
        self.last = Some((header, heartbeat));
        bytes
    }

    /// What was said last, once more.
    fn beat(&mut self, key: &DatagramKey) -> Option<Bytes> {
        let (header, heartbeat) = self.last.as_mut()?;
        self.ahead += 1;
        header.counter += 1;
        heartbeat.number += 1;
        heartbeat.asks = false;
        Some(written(key, header, heartbeat))
    }
}

fn written(key: &DatagramKey, header: &Header, heartbeat: &Heartbeat) -> Bytes {
    let mut out = BytesMut::new();
    datagram::write(&mut out, key, header, heartbeat);
    out.freeze()
}

impl World {
    /// A datagram of a process as it goes out.
    pub(crate) fn through_thread(&mut self, host: usize, boot: u64, node: u16, bytes: &Bytes) -> Bytes {
        let key = self.key.clone();
        match (self.mistake, self.process(host, boot)) {
            (Some(Mistake::BeatsFromAThread), Some(process)) => process.thread.pass_on(&key, node, bytes),
            _ => bytes.clone(),
        }
    }

    /// A process is stopped: its thread, if it has one, goes on.
    pub(crate) fn begin_thread(&mut self, host: usize) {
        let boot = self.hosts[host].process.as_ref().map(|process| process.boot);
        if let (Some(Mistake::BeatsFromAThread), Some(boot)) = (self.mistake, boot) {
            self.agenda.plan(self.at + BEAT_NS, Event::Beat { host, boot });
        }
    }

    /// The thread of a process that is stopped sends a heartbeat.
    pub(crate) fn on_thread(&mut self, host: usize, boot: u64) {
        let (at, key) = (self.at, self.key.clone());
        let Some(process) = self.process(host, boot).filter(|process| process.paused_until > at) else { return };
        let (bytes, told) = (process.thread.beat(&key), process.thread.told.clone());
        for node in told {
            let (Some(to), Some(bytes)) = (self.host_of(node), &bytes) else { continue };
            self.net.send_datagram(at, (host, to), bytes, &self.plan, &mut self.chance, &mut self.agenda);
        }
        self.agenda.plan(at + BEAT_NS, Event::Beat { host, boot });
    }
}

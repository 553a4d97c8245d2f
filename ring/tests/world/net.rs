//! Links and heartbeats of the simulated cluster.

use pygmy_proto::codec;
use pygmy_proto::message::{ReplicaBeat, ReplicaHello};
use pygmy_ring::{Input, PeerMessage, Replica};

use super::checker::{Check, ensure};
use super::{Event, LINKS_FROM_NS, Link, MS, Mix, World, pair};

impl World {
    pub(super) fn link(&mut self, a: u16, b: u16) -> &mut Link {
        self.links.entry(pair(a, b)).or_default()
    }

    pub(super) fn sees(&mut self, node: u16, peer: u16, conn: u64) -> bool {
        let side = usize::from(node > peer);
        self.boot(node).is_some() && self.link(node, peer).seen[side] == Some(conn)
    }

    pub(super) fn send(&mut self, from: u16, to: u16, message: PeerMessage) -> Check {
        self.check_sent(from, &message)?;
        self.count_sent(from, &message);
        let side = usize::from(from > to);
        let Some(conn) = self.link(from, to).seen[side] else { return Ok(()) };
        self.summary.frames += 1;
        if self.link(from, to).broken {
            return Ok(());
        }
        let message = over_the_wire(message);
        self.deliver(from, to, Event::Message { from, to, conn, message });
        Ok(())
    }

    /// I6, I7: what is answered for is on the platter.
    fn check_sent(&mut self, from: u16, message: &PeerMessage) -> Check {
        let disk = &self.nodes[&from].disk;
        let promised = disk.vote.promised.max(disk.end().epoch);
        match message {
            PeerMessage::Prepare(prepare) => {
                ensure!(promised >= prepare.epoch, "I6: node {from} asks for {:?} before it promised", prepare.epoch);
                Ok(())
            }
            PeerMessage::Promise(promise) => {
                let (epoch, last) = (promise.epoch, promise.last);
                ensure!(promised >= epoch, "I6: node {from} answers for {epoch:?} before it is written down");
                let held = last.seq == 0 || disk.holds(last.seq, promise.last_hash);
                ensure!(held, "I7: node {from} promises {epoch:?} with {last:?}, which it has not got");
                self.checker.on_promise(disk.uuid, epoch)
            }
            PeerMessage::Ack(ack) => {
                let held = ack.durable == 0 || disk.holds(ack.durable, ack.hash);
                ensure!(held, "I7: node {from} acknowledges {} and has not got it", ack.durable);
                ensure!(promised >= ack.epoch, "I6: node {from} acknowledges in {:?} before it promised", ack.epoch);
                self.checker.on_ack(disk.uuid, ack.epoch)
            }
            _ => Ok(()),
        }
    }

    /// Heartbeats keep no order and get lost.
    pub(super) fn send_beats(&mut self, from: u16, beat: &ReplicaBeat) {
        if self.plan.mix == Mix::Links && self.now >= LINKS_FROM_NS {
            return;
        }
        let beat: ReplicaBeat = codec::decode(&codec::encode(beat)).expect("what was encoded can be decoded");
        let Some(state) = self.nodes.get_mut(&from) else { return };
        state.beats += 1;
        let number = state.beats;
        let others: Vec<u16> = self.nodes.keys().copied().filter(|other| *other != from).collect();
        for to in others {
            self.send_beat(Event::Beat { from, to, number, asks: false, beat: beat.clone() });
        }
    }

    /// A heartbeat that asks for one, or answers such a one.
    pub(super) fn send_beat_out_of_turn(&mut self, from: u16, to: u16, asks: bool) {
        let Some(state) = self.nodes.get(&from) else { return };
        let (number, beat) = (state.beats, state.replica.as_ref().map(Replica::beat_now));
        if let Some(beat) = beat.filter(|_| self.plan.mix != Mix::Links || self.now < LINKS_FROM_NS) {
            self.send_beat(Event::Beat { from, to, number, asks, beat });
        }
    }

    fn send_beat(&mut self, event: Event) {
        let Event::Beat { from, to, .. } = event else { return };
        let lost = self.upto(100) < self.pace.loss && self.now < self.faults_end;
        let deaf = self.link(from, to).deaf[usize::from(to > from)];
        if !(lost || deaf || self.boot(to).is_none()) {
            let takes = self.upto(self.pace.frame_ns);
            self.schedule(takes, event);
        }
    }

    /// Schedules what goes over a connection, behind what went before in that direction.
    fn deliver(&mut self, from: u16, to: u16, event: Event) {
        let (now, takes) = (self.now, self.upto(self.pace.frame_ns));
        let side = usize::from(to > from);
        let link = self.link(from, to);
        let at = (now + takes).max(link.last_arrival[side] + 1);
        link.last_arrival[side] = at;
        self.schedule(at - now, event);
    }

    pub(super) fn connect(&mut self, dialer: u16, acceptor: u16) {
        if self.boot(dialer).is_none() || self.boot(acceptor).is_none() {
            return;
        }
        let link = self.link(dialer, acceptor);
        if link.blocked {
            self.schedule(5 * MS, Event::Connect { dialer, acceptor });
            return;
        }
        if link.seen[1].is_some() {
            if link.broken {
                self.schedule(MS, Event::Connect { dialer, acceptor });
            }
            return;
        }
        link.conn += 1;
        link.broken = false;
        let conn = link.conn;
        let old = self.link(dialer, acceptor).old_hello.take().filter(|old| Some(old.boot_nonce) == self.boot(dialer));
        let stale = self.upto(2) == 0;
        let Some(hello) = old.filter(|_| stale).or_else(|| self.hello(dialer, acceptor)) else { return };
        self.deliver(dialer, acceptor, Event::Hello { from: dialer, to: acceptor, conn, hello });
    }

    /// The two have a link at once.
    pub(super) fn meet(&mut self, a: u16, b: u16) -> Check {
        let (acceptor, dialer) = pair(a, b);
        if self.link(a, b).seen.iter().any(Option::is_some) {
            for (node, peer) in [(acceptor, dialer), (dialer, acceptor)] {
                if self.link(a, b).seen[usize::from(node > peer)].is_some() {
                    self.down(node, peer)?;
                }
            }
        }
        let link = self.link(a, b);
        link.conn += 1;
        link.broken = false;
        link.seen = [Some(link.conn); 2];
        let (Some(from_dialer), Some(from_acceptor)) = (self.hello(dialer, acceptor), self.hello(acceptor, dialer))
        else {
            return Ok(());
        };
        self.up(acceptor, dialer, from_dialer)?;
        self.up(dialer, acceptor, from_acceptor)
    }

    fn hello(&self, node: u16, to: u16) -> Option<ReplicaHello> {
        self.nodes[&node].replica.as_ref().map(|replica| replica.hello(to))
    }

    pub(super) fn on_hello(&mut self, from: u16, to: u16, conn: u64, hello: ReplicaHello) -> Check {
        let link = self.link(from, to);
        if link.conn != conn || link.broken || self.boot(from).is_none() || self.boot(to).is_none() {
            return Ok(());
        }
        if self.refuses(to, &hello) || self.hello(from, to).is_some_and(|own| self.refuses(to, &own)) {
            return Ok(());
        }
        if self.link(from, to).seen[0].is_some() {
            // The dialer noticed the break first: its new connection takes the place of the old one.
            self.down(to, from)?;
        }
        let Some(own) = self.hello(to, from) else { return Ok(()) };
        self.link(from, to).seen[0] = Some(conn);
        self.deliver(to, from, Event::HelloOk { from: to, to: from, conn, hello: own });
        self.up(to, from, hello)
    }

    /// A log that was removed is not let in.
    fn refuses(&self, node: u16, hello: &ReplicaHello) -> bool {
        self.nodes[&node].replica.as_ref().is_some_and(|replica| replica.is_removed(hello.log_uuid))
    }

    pub(super) fn on_hello_ok(&mut self, from: u16, to: u16, conn: u64, hello: ReplicaHello) -> Check {
        let link = self.link(from, to);
        if link.conn != conn || link.broken || self.boot(to).is_none() {
            return Ok(());
        }
        self.link(from, to).seen[1] = Some(conn);
        self.up(to, from, hello)
    }

    fn up(&mut self, node: u16, peer: u16, hello: ReplicaHello) -> Check {
        self.trace(|| format!("{node} sees {peer} come: {hello:?}"));
        self.drain(node)?;
        self.input(node, Input::PeerUp { node: peer, hello });
        self.drain(node)
    }

    pub(super) fn down(&mut self, node: u16, peer: u16) -> Check {
        self.trace(|| format!("{node} sees {peer} go"));
        self.drain(node)?;
        self.link(node, peer).seen[usize::from(node > peer)] = None;
        self.input(node, Input::PeerDown { node: peer });
        self.drain(node)
    }

    pub(super) fn break_link(&mut self, a: u16, b: u16, again_ns: Option<u64>) {
        let link = self.link(a, b);
        if link.broken {
            return;
        }
        link.broken = true;
        let (conn, seen) = (link.conn, link.seen);
        let old_hello = self.hello(a.max(b), a.min(b));
        self.link(a, b).old_hello = old_hello;
        self.summary.breaks += 1;
        self.trace(|| format!("{a} - {b} breaks"));
        let (acceptor, dialer) = pair(a, b);
        for (side, node, peer) in [(0, acceptor, dialer), (1, dialer, acceptor)] {
            if seen[side] == Some(conn) {
                let after = self.upto(3 * MS);
                self.schedule(after, Event::Down { node, peer, conn });
            }
        }
        if let Some(after) = again_ns {
            self.schedule(after, Event::Connect { dialer, acceptor });
        }
    }

    pub(super) fn replica(&self, node: u16) -> Option<&Replica<super::Journal>> {
        self.nodes[&node].replica.as_ref()
    }
}

/// Encodes and decodes a frame's body, as between two processes.
fn over_the_wire(message: PeerMessage) -> PeerMessage {
    macro_rules! again {
        ($($kind:ident)*) => {
            match message {
                $(PeerMessage::$kind(body) => {
                    PeerMessage::$kind(codec::decode(&codec::encode(&body)).expect("what was encoded can be decoded"))
                })*
            }
        };
    }
    again!(Data Token Want Ack Commit Fetch FetchRefused PreVote PreVoteAnswer Prepare Promise Install Reject Barrier
        BarrierAnswer)
}

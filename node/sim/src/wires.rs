//! What connects nodes and clients: connections, datagrams, and the clients at their ends.

use bytes::Bytes;
use pygmy_node::machine::{CloseReason, ConnId};

use crate::check::Check;
use crate::client::{Act, Client, Lent};
use crate::events::Event;
use crate::host::{Effects, Item, frames};
use crate::net::Owner;
use crate::plan::{MS, SEC, US};
use crate::world::World;

impl World {
    pub(crate) fn send_out(&mut self, host: usize, boot: u64, effects: &Effects) {
        let dialed = effects.greeted.clone();
        if let Some(process) = self.process(host, boot) {
            for node in dialed {
                process.attempts.remove(&node);
            }
        }
        if let Some(process) = self.process(host, boot) {
            process.forgotten.extend(effects.forgotten.iter().copied());
            process.forgotten.retain(|node| !effects.met.contains(node));
        }
        for node in &effects.met {
            self.agenda.plan(self.at, Event::Dial { host, boot, node: *node });
        }
        for node in &effects.lost {
            self.dial_later(host, boot, *node);
        }
        for (conn, bytes) in &effects.writes {
            self.send(place_of(*conn), bytes.clone());
        }
        for (conn, reason) in &effects.closes {
            let (index, end) = place_of(*conn);
            self.close(index, end);
            self.give(host, boot, Item::Gone(*conn, *reason));
        }
        for (node, bytes) in &effects.datagrams {
            self.activity.datagrams += 1;
            let Some(to) = self.host_of(*node) else { continue };
            let bytes = self.through_thread(host, boot, *node, bytes);
            self.net.send_datagram(self.at, (host, to), &bytes, &self.plan, &mut self.chance, &mut self.agenda);
        }
    }

    pub(crate) fn on_datagram(&mut self, from: usize, host: usize, bytes: Bytes) {
        let boot = self.hosts[host].process.as_ref().map(|process| process.boot);
        if let Some(boot) = boot.filter(|_| !self.net.is_cut(from, host)) {
            self.give(host, boot, Item::Datagram(bytes));
        }
    }

    /// A cut heals, if it is the one that there is: what it held back arrives.
    pub(crate) fn heal(&mut self, number: u64) -> Check {
        if self.net.cut.as_ref().is_none_or(|cut| cut.number != number) {
            return Ok(());
        }
        self.trace.note(self.at, 610, &number.to_le_bytes(), || format!("cut {number} heals"));
        for event in self.net.heal(self.at) {
            self.on_arrival(event)?;
        }
        Ok(())
    }

    pub(crate) fn send(&mut self, (conn, end): (usize, usize), bytes: Bytes) {
        if self.net.conn(conn).ends[end].open {
            self.activity.pieces += 1;
            self.net.send(self.at, (conn, end), bytes, &self.plan, &mut self.chance, &mut self.agenda);
        }
    }

    /// An end is closed by its owner.
    pub(crate) fn close(&mut self, conn: usize, end: usize) {
        if self.net.close_end(conn, end) {
            self.net.finish(self.at, (conn, end), &self.plan, &mut self.chance, &mut self.agenda);
        }
    }

    /// Tries to connect again after a while.
    fn dial_later(&mut self, host: usize, boot: u64, node: u16) {
        let at = self.at;
        let Some(process) = self.process(host, boot).filter(|process| !process.forgotten.contains(&node)) else {
            return;
        };
        let attempts = process.attempts.entry(node).or_insert(0);
        *attempts += 1;
        let back_off = ((10 * MS) << (*attempts).min(7)).min(SEC);
        self.agenda.plan(at + back_off, Event::Dial { host, boot, node });
    }

    /// Open ends of an owner.
    pub(crate) fn ends_of(&self, owner: Owner) -> Vec<(usize, usize)> {
        let of = |end: usize| {
            let conns = self.net.find(|conn| conn.ends[end].owner == owner && conn.ends[end].open);
            conns.into_iter().map(move |conn| (conn, end))
        };
        of(0).chain(of(1)).collect()
    }

    /// Something reaches an end of a connection, unless a cut holds it back.
    pub(crate) fn on_stream(&mut self, conn: usize, to: usize, event: Event) -> Check {
        match self.net.hold(conn, to, event) {
            None => Ok(()),
            Some(event) => self.on_arrival(event),
        }
    }

    fn on_arrival(&mut self, event: Event) -> Check {
        match event {
            Event::Bytes { conn, to, bytes } => self.on_bytes(conn, to, bytes),
            Event::Ended { conn, to } => {
                self.on_gone(conn, to, CloseReason::Ended);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_bytes(&mut self, conn: usize, to: usize, bytes: Bytes) -> Check {
        if !self.net.arrives(self.at, conn, to) {
            return Ok(());
        }
        match self.net.conn(conn).ends[to].owner {
            Owner::Host { index, boot } => {
                self.give(index, boot, Item::Bytes(conn_id(conn, to), bytes));
                Ok(())
            }
            Owner::Client { index } => {
                self.trace.note(self.at, 300 + index as u64, &bytes, || {
                    let kinds: Vec<String> = frames(&bytes).map(|frame| format!("{:?}", frame.kind())).collect();
                    format!("client-{index} receives {}", kinds.join(" "))
                });
                self.with_client(index, |client, lent| client.on_bytes(lent, conn, &bytes))
            }
            Owner::Operator => self.on_operator_bytes(conn, &bytes),
        }
    }

    pub(crate) fn on_gone(&mut self, conn: usize, to: usize, reason: CloseReason) {
        if !self.net.close_end(conn, to) {
            return;
        }
        // Whoever learns of the end closes its own side as well.
        self.net.finish(self.at, (conn, to), &self.plan, &mut self.chance, &mut self.agenda);
        match self.net.conn(conn).ends[to].owner {
            Owner::Host { index, boot } => {
                self.give(index, boot, Item::Gone(conn_id(conn, to), reason));
            }
            Owner::Client { index } => {
                // Nothing is checked when a connection goes.
                let _ = self.with_client(index, |client, lent| {
                    client.on_gone(lent, conn);
                    Ok(())
                });
            }
            Owner::Operator => self.on_operator_gone(conn),
        }
    }

    pub(crate) fn connect_fails(&mut self) -> bool {
        !self.calm && self.chance.permille(self.plan.faults.connect_fail_permille)
    }

    pub(crate) fn on_dial(&mut self, host: usize, boot: u64, node: u16) {
        if self.process(host, boot).is_none_or(|process| process.dialed(node)) {
            return;
        }
        let takes = 2 * self.chance.between(self.plan.latency.0, self.plan.latency.1);
        self.agenda.plan(self.at + takes, Event::Arrive { host, boot, node });
    }

    pub(crate) fn on_arrive(&mut self, host: usize, boot: u64, node: u16) {
        let fails = self.connect_fails();
        if self.process(host, boot).is_none() {
            return;
        }
        let target = self.host_of(node).filter(|target| !fails && !self.net.parts(host, *target));
        let there = target.and_then(|target| Some((target, self.hosts[target].process.as_ref()?.boot)));
        let Some((target, there)) = there else { return self.dial_later(host, boot, node) };
        let conn = self.net.connect(Owner::Host { index: host, boot }, Owner::Host { index: target, boot: there });
        let (from, to) = (&self.hosts[host].name, &self.hosts[target].name);
        self.trace.note(self.at, 400, &conn.to_le_bytes(), || format!("{from} connects to {to} ({conn})"));
        self.give(host, boot, Item::Opened(conn_id(conn, 0), node));
        self.give(target, there, Item::Accepted(conn_id(conn, 1)));
    }

    fn with_client(&mut self, index: usize, act: impl FnOnce(&mut Client, &mut Lent<'_>) -> Check) -> Check {
        let mut lent = Lent {
            at: self.at,
            plan: &self.plan,
            calm: self.calm,
            chance: &mut self.chance,
            checker: &mut self.checker,
            rare: &mut self.rare,
            workload: &self.workload,
            mistake: self.mistake,
        };
        let client = &mut self.clients[index];
        act(client, &mut lent)?;
        for act in client.take_acts() {
            self.carry_out(index, act);
        }
        if let Some(at) = self.clients[index].next_timeout() {
            self.wake_client(index, at);
        }
        Ok(())
    }

    pub(crate) fn wake_client(&mut self, index: usize, at: u64) {
        let at = at.max(self.at + US);
        let client = &mut self.clients[index];
        if client.wakes_at.is_none_or(|planned| planned > at) {
            client.wakes_at = Some(at);
            self.agenda.plan(at, Event::Client { client: index });
        }
    }

    pub(crate) fn on_client(&mut self, index: usize) {
        if self.clients[index].wakes_at != Some(self.at) {
            return;
        }
        self.clients[index].wakes_at = None;
        let _ = self.with_client(index, |client, lent| {
            client.on_time(lent);
            Ok(())
        });
    }

    fn carry_out(&mut self, index: usize, act: Act) {
        match act {
            Act::Connect { front } => {
                let takes = 2 * self.chance.between(self.plan.latency.0, self.plan.latency.1);
                self.agenda.plan(self.at + takes, Event::ClientArrive { client: index, front });
            }
            Act::Send { conn, bytes } => {
                self.trace.note(self.at, 500 + index as u64, &bytes, || {
                    let asks: Vec<String> =
                        frames(&bytes).map(|f| format!("{:?} #{}", f.kind(), f.header.request_id)).collect();
                    format!("client-{index} sends {} on {conn}", asks.join(" "))
                });
                self.send((conn, 0), bytes);
            }
            Act::Close { conn } => self.on_gone(conn, 0, CloseReason::Ended),
        }
    }

    pub(crate) fn on_client_arrive(&mut self, index: usize, front: usize) {
        let fails = self.connect_fails();
        let there = self.hosts[front].process.as_ref().map(|process| process.boot).filter(|_| !fails);
        let conn = there.map(|boot| {
            let conn = self.net.connect(Owner::Client { index }, Owner::Host { index: front, boot });
            self.give(front, boot, Item::Accepted(conn_id(conn, 1)));
            (conn, boot)
        });
        let _ = self.with_client(index, |client, lent| {
            client.on_connected(lent.at, front, conn);
            Ok(())
        });
    }
}

/// A connection's end as a node knows it.
pub(crate) fn conn_id(conn: usize, end: usize) -> ConnId {
    ConnId((conn * 2 + end) as u64)
}

/// The connection and the end that a node's name for it means.
pub(crate) fn place_of(conn: ConnId) -> (usize, usize) {
    ((conn.0 / 2) as usize, (conn.0 % 2) as usize)
}

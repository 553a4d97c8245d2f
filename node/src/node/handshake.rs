//! Handshakes: who connects, and whether it may.

use bytes::Bytes;
use pygmy_proto::frame::Frame;
use pygmy_proto::limits::{CLIENT_BODY_MAX, PEER_BODY_MAX, REQUESTS_IN_FLIGHT_MAX, VERSION};
use pygmy_proto::message::{Hello, HelloOk, ReplicaHello, Role};
use pygmy_proto::types::{Blob, Name};
use pygmy_proto::{ErrorBody, ErrorCode, Kind};

use super::{Conn, Duty, Node};
use crate::machine::{CloseReason, ConnClass, ConnId, Now, Outbox, Output};
use crate::settings::slot_of;

/// Request id of the `Hello` that a server sends.
const HELLO_ID: u64 = 1;

impl Node {
    /// Says `Hello` on a connection that this node opened.
    pub(super) fn greet(&mut self, conn: ConnId, node: u16, out: &mut Outbox) {
        let own = self.settings.own();
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            role: own.role,
            cluster: self.settings.cluster.id,
            settings: self.settings_hash,
            credentials: Blob::new(Bytes::copy_from_slice(&self.settings.cluster.key)).unwrap_or_default(),
            name: Name::truncated(&own.name),
            replica: self.duty.replica().map(|replica| replica.hello(node)),
        };
        out.send(conn, HELLO_ID, 0, 0, &hello);
        self.conns.insert(conn, Conn::Greeting { node });
    }

    /// The first frame on a connection that somebody opened to this node.
    pub(super) fn on_hello(&mut self, now: Now, conn: ConnId, frame: &Frame<'_>, out: &mut Outbox) {
        let request_id = frame.header.request_id;
        match self.judge_hello(frame) {
            Err(error) => {
                log::warn!("a connection was refused: {error}");
                out.send_error(conn, request_id, self.settings.me, &error);
                self.close(out, conn, CloseReason::Refused);
            }
            Ok((hello, Role::Client)) => {
                log::debug!("client {:?} connected", hello.name.as_str());
                self.answer_hello(conn, request_id, CLIENT_BODY_MAX, 0, out);
                let trusted = equal_in_constant_time(&hello.credentials, &self.settings.cluster.key);
                self.conns.insert(conn, Conn::Client { trusted });
                self.clients += 1;
                out.push(Output::Class { conn, class: ConnClass::Client });
                if let Duty::Front(front) = &mut self.duty {
                    front.on_client(conn);
                }
            }
            Ok((hello, _)) => {
                let number = self.number_of(&hello).unwrap_or(0);
                self.answer_hello(conn, request_id, PEER_BODY_MAX, number, out);
                self.link_up(now, conn, number, hello.replica, out);
            }
        }
    }

    fn answer_hello(&self, conn: ConnId, request_id: u64, body_max: usize, node: u16, out: &mut Outbox) {
        let own = self.settings.own();
        let answer = HelloOk {
            version: VERSION,
            role: own.role,
            node: self.settings.me,
            name: Name::truncated(&own.name),
            cluster: self.settings.cluster.id,
            body_max: body_max as u32,
            in_flight_max: REQUESTS_IN_FLIGHT_MAX as u32,
            replica: self.duty.replica().map(|replica| replica.hello(node)),
        };
        out.send(conn, request_id, self.settings.me.into(), 0, &answer);
    }

    /// Checks a `Hello`, in this order: kind, form, version, cluster, and for servers credentials, settings, identity.
    fn judge_hello(&self, frame: &Frame<'_>) -> Result<(Hello, Role), ErrorBody> {
        if frame.kind() != Some(Kind::Hello) {
            let detail = "the first frame of a connection must be a Hello";
            return Err(ErrorBody::new(ErrorCode::HelloExpected).limit(0, frame.header.kind.into()).detail(detail));
        }
        let hello: Hello = frame
            .decode()
            .map_err(|error| ErrorBody::new(ErrorCode::Malformed).subject("Hello").detail(&error.to_string()))?;
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            let (min, max) = (hello.version_min, hello.version_max);
            let detail = format!("you speak versions {min} to {max}, this server speaks {VERSION}: upgrade the older");
            let error = ErrorBody::new(ErrorCode::VersionUnsupported).limit(VERSION.into(), max.into());
            return Err(error.detail(&detail));
        }
        self.judge_cluster(&hello)?;
        let role = hello.role;
        if role != Role::Client {
            self.judge_server(&hello)?;
        }
        Ok((hello, role))
    }

    fn judge_cluster(&self, hello: &Hello) -> Result<(), ErrorBody> {
        let own = self.settings.cluster.id;
        let any = hello.role == Role::Client && hello.cluster == [0; 16];
        if any || hello.cluster == own {
            return Ok(());
        }
        let detail = format!("you want cluster {}, this is {}: check the address", hex(&hello.cluster), hex(&own));
        Err(ErrorBody::new(ErrorCode::WrongCluster).subject(&hex(&own)).detail(&detail))
    }

    fn judge_server(&self, hello: &Hello) -> Result<(), ErrorBody> {
        if !equal_in_constant_time(&hello.credentials, &self.settings.cluster.key) {
            let detail = "the key is not this cluster's: every node must have the same `key` in its cluster.toml";
            return Err(ErrorBody::new(ErrorCode::BadCredentials).subject(&hello.name).detail(detail));
        }
        if hello.settings != self.settings_hash {
            let (theirs, own) = (hello.settings, self.settings_hash);
            let detail = format!(
                "your settings hash to {theirs:016x}, ours to {own:016x}: give every node the same cluster.toml"
            );
            let error = ErrorBody::new(ErrorCode::WrongSettings).subject(&hello.name).limit(own, theirs);
            return Err(error.detail(&detail));
        }
        let known = self.number_of(hello).is_some_and(|number| number != self.settings.me);
        let own = self.duty.replica();
        let removed = hello.replica.as_ref().filter(|theirs| own.is_some_and(|own| own.is_removed(theirs.log_uuid)));
        if let Some(theirs) = removed {
            let detail = format!(
                "the log {} of {} was replaced and never counts again: its process need not be started any more",
                hex(&theirs.log_uuid),
                hello.name
            );
            return Err(ErrorBody::new(ErrorCode::Removed).subject(&hello.name).detail(&detail));
        }
        if known {
            return Ok(());
        }
        let detail = format!("there is no other {} called {:?} in this cluster", hello.role.name(), hello.name);
        Err(ErrorBody::new(ErrorCode::NotAMember).subject(&hello.name).detail(&detail))
    }

    /// The number of the server that says this, when it fits the slot that its name has.
    fn number_of(&self, hello: &Hello) -> Option<u16> {
        let node = self.settings.cluster.node_named(&hello.name).filter(|node| node.role == hello.role)?;
        match &hello.replica {
            Some(replica) => (node.is_replica() && slot_of(replica.node) == node.slot()).then_some(replica.node),
            None => (!node.is_replica()).then_some(node.number),
        }
    }

    /// The answer to this node's own `Hello`.
    pub(super) fn on_hello_answer(&mut self, now: Now, conn: ConnId, node: u16, frame: &Frame<'_>, out: &mut Outbox) {
        match self.judge_answer(node, frame) {
            Ok(replica) => self.link_up(now, conn, node, Some(replica), out),
            Err(why) => {
                if removes(frame) {
                    // Nobody will ever say anything else: to go on knocking would be noise.
                    let name = self.settings.name();
                    out.push(Output::Removed { why: format!("{} answered {name}: {why}", self.name_of(node)) });
                } else {
                    log::error!("{} refused this node or is another one: {why}", self.name_of(node));
                }
                self.close(out, conn, CloseReason::Refused);
            }
        }
    }

    /// What the answering replica says of itself, if it is the node that was meant. Why not is told in one line,
    /// whatever a stranger at its address says.
    pub(super) fn judge_answer(&self, node: u16, frame: &Frame<'_>) -> Result<ReplicaHello, String> {
        match frame.kind() {
            Some(Kind::HelloOk) => {
                let answer: HelloOk = frame.decode().map_err(|error| error.to_string())?;
                if answer.version != VERSION || answer.cluster != self.settings.cluster.id || answer.node != node {
                    return Err(format!("at its address answers node {} called {:?}", answer.node, answer.name));
                }
                let replica = answer.replica.filter(|replica| replica.node == node);
                replica.ok_or_else(|| format!("{:?} says nothing of its log", answer.name))
            }
            Some(Kind::Error) => {
                Err(frame.decode::<ErrorBody>().map_or_else(|e| e.to_string(), |e| one_line(&e.to_string())))
            }
            _ => Err(format!("frame kind {:#06x} instead of an answer", frame.header.kind)),
        }
    }
}

/// Whether an answer says that this log was replaced for ever.
fn removes(frame: &Frame<'_>) -> bool {
    let error = (frame.kind() == Some(Kind::Error)).then(|| frame.decode::<ErrorBody>().ok()).flatten();
    error.is_some_and(|error| error.known_code() == Some(ErrorCode::Removed))
}

/// `text` with its control characters escaped.
fn one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_default())
        } else {
            line.push(c)
        }
        line
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares without telling by its duration where the first difference is.
fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y))) == 0
}

//! The operator, who replaces voters: one at a time, as `pygmy-node replace` does it, and again until it is done.
//!
//! The voter that is to go is dead for good, or alive, or has lost its log and runs with an empty one. In place of the
//! first two comes a process with a number and a disk of its own; the third keeps its process, whose new log gets the
//! vote. A catalog is asked to order the change; when it does not answer, breaks off or cannot, another one is.

use std::collections::VecDeque;

use bytes::Bytes;
use pygmy_node::settings::{INCARNATION_MAX, NodeSettings, number_of, slot_of};
use pygmy_proto::frame::{self, Deframer, Flow};
use pygmy_proto::limits::{CLIENT_BODY_MAX, VERSION};
use pygmy_proto::message::{Hello, Replace, ReplicaStatus, Role};
use pygmy_proto::types::{Blob, Name, Text};
use pygmy_proto::{ErrorBody, ErrorCode, Kind};
use pygmy_ring::LogUuid;

use crate::check::{Check, Violation};
use crate::disk::{Disk, End};
use crate::events::Event;
use crate::host::Item;
use crate::net::Owner;
use crate::plan::{MS, SEC};
use crate::wires::conn_id;
use crate::world::{Host, World};

/// Between two looks at how far things are.
const PACE: u64 = 100 * MS;
/// A catalog that does not answer within this is given up.
const ANSWER_MAX: u64 = 2 * SEC;
/// Time that the old process gets to find out that it was replaced, and to leave by itself.
const OLD_PATIENCE: u64 = 3 * SEC;
/// Request id of the `Hello`, and of what is asked behind it.
const HELLO_ID: u64 = 1;
const REPLACE_ID: u64 = 2;

/// What is wrong with the voter that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// It is dead for good.
    Dead,
    /// Nothing: it is alive.
    Living,
    /// Its log is lost, and its process runs with a new one.
    Lost,
}

/// A replacement under way.
#[derive(Debug, Clone, Copy)]
struct Work {
    reason: Reason,
    /// The log that goes, and where it is or was.
    old: (LogUuid, usize),
    /// The log that comes, and where it is.
    new: (LogUuid, usize),
    /// When the command saw that the new log votes and the old one does not.
    done_at: Option<u64>,
}

/// A request to a catalog.
#[derive(Debug)]
struct Ask {
    conn: usize,
    since: u64,
    deframer: Deframer,
}

/// Whoever replaces voters.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    work: Option<Work>,
    ask: Option<Ask>,
    /// Catalogs that are to be asked in this round if those before them fail.
    round: VecDeque<usize>,
    /// Processes that came so far.
    incarnation: u16,
}

impl World {
    /// Whether a replacement is under way: the voters change, or who was replaced may still be there.
    pub(crate) fn replaces(&self) -> bool {
        self.operator.work.is_some()
    }

    /// Whether it has a part in a replacement that is under way or done: the change names the logs that go and come, and
    /// whoever was replaced is not there to start anew, under a name that nobody knows.
    pub(crate) fn is_named_by_a_replacement(&self, index: usize) -> bool {
        let named = self.operator.work.is_some_and(|work| work.new.1 == index || work.old.1 == index);
        named || self.is_removed(index)
    }

    /// What there is to say of the replacement under way.
    pub(crate) fn replacement(&self) -> String {
        format!("{:?}; committed are {:?}", self.operator.work, self.checker.settled())
    }

    /// Whether a process whose log was removed is not started again: nobody does so in the end, nor where it would find
    /// nobody to tell it.
    pub(crate) fn is_done_with(&self, index: usize) -> bool {
        self.is_removed(index) && (self.calm || !self.finds_anybody(index))
    }

    /// Whether a process, by what it read last, connects to anybody who votes and does not stay dead.
    fn finds_anybody(&self, index: usize) -> bool {
        let tells = |other: usize| self.votes(other) && !self.hosts[other].gone;
        let finds = |number: &u16| self.host_of(*number).is_some_and(tells);
        self.hosts[index].dials().iter().any(finds)
    }

    /// Ends the processes of removed logs that nobody can tell of it any more: whom they knew was replaced as well, or
    /// stays dead.
    pub(crate) fn kill_the_forgotten(&mut self) {
        for index in 0..self.hosts.len() {
            if self.hosts[index].process.is_some() && self.is_removed(index) && !self.finds_anybody(index) {
                self.rare.replaced_killed += 1;
                self.kill(index, End::Killed);
                self.hosts[index].gone = true;
            }
        }
    }

    /// A process has left: it may have done so because its log was removed.
    pub(crate) fn count_removed(&mut self, index: usize, refused: bool) {
        let asked = self.hosts[index].process.as_ref().is_some_and(|process| process.leaving);
        self.rare.replaced_left += u64::from(self.is_removed(index) && !asked);
        self.rare.removed_refused += u64::from(refused);
    }

    /// A voter is replaced, unless another one is or too few would be there meanwhile.
    pub(crate) fn replace_somebody(&mut self) {
        if self.replaces() || self.operator.incarnation == INCARNATION_MAX {
            return;
        }
        let able: Vec<Work> = (0..self.hosts.len()).filter_map(|index| self.replaceable(index)).collect();
        let Some(work) = self.chance.pick(&able) else { return };
        let dies = work.reason == Reason::Living && self.can_lose(work.old.1) && self.chance.permille(500);
        let mut work = if dies { Work { reason: Reason::Dead, ..work } } else { work };
        let name = self.hosts[work.old.1].name.clone();
        self.trace.note(self.at, 616, &[work.old.1 as u8], || format!("{name} is to be replaced: {:?}", work.reason));
        match work.reason {
            Reason::Dead => {
                self.rare.dead_replacements_begun += 1;
                self.crash(work.old.1);
                self.hosts[work.old.1].gone = true;
            }
            Reason::Living => self.rare.living_replacements_begun += 1,
            Reason::Lost => self.rare.lost_replacements_begun += 1,
        }
        if work.reason != Reason::Lost {
            work.new = self.add_newcomer(work.old.1);
        }
        self.operator.work = Some(work);
        self.look_later(PACE);
    }

    /// How the log of the slot that a process is in can be replaced, if it can.
    fn replaceable(&self, index: usize) -> Option<Work> {
        let host = &self.hosts[index];
        if !host.is_replica() || host.gone || self.is_removed(index) {
            return None;
        }
        let voters = &self.checker.settled().voters;
        let own = host.disk.uuid();
        let (reason, old) = if self.votes(index) {
            (Reason::Living, own)
        } else {
            (Reason::Lost, voters.iter().find(|voter| voter.node == host.number)?.log_uuid)
        };
        // A front that knew none of those who are left would have to be started again.
        let stays = |number: &u16| self.host_of(*number).is_some_and(|other| other != index && self.votes(other));
        let fronts = || self.hosts.iter().filter(|host| host.process.is_some() && !host.is_replica());
        if !fronts().all(|front| front.dials().iter().any(stays)) {
            return None;
        }
        // Those that are left must be a majority of the voters as they are, and so of those that there will be; but of
        // two voters each is needed.
        let others = (0..self.hosts.len()).filter(|other| *other != index && self.is_whole(*other)).count();
        let needed =
            if self.is_whole(index) { self.checker.majority().min(voters.len() - 1) } else { self.checker.majority() };
        (others >= needed).then_some(Work { reason, old: (old, index), new: (own, index), done_at: None })
    }

    /// Whether the others are a majority, and one of them has the same role.
    fn can_lose(&self, index: usize) -> bool {
        let others = || (0..self.hosts.len()).filter(|other| *other != index && self.is_whole(*other));
        let role = self.hosts[index].role;
        others().count() >= self.checker.majority() && others().any(|other| self.hosts[other].role == role)
    }

    /// A process with a new number and an empty disk begins, in the slot of another one.
    fn add_newcomer(&mut self, old: usize) -> (LogUuid, usize) {
        self.operator.incarnation += 1;
        let slot = slot_of(self.hosts[old].number);
        let number = number_of(slot, self.operator.incarnation);
        let (uuid, index) = (self.chance.uuid(), self.hosts.len());
        let name = self.cluster.name_of(number).into_owned();
        let node = NodeSettings {
            number,
            name: name.clone(),
            role: self.hosts[old].role,
            address: format!("{name}:1"),
            log_uuid: uuid,
        };
        self.hosts.push(Host::new(&node, name, Disk::format(uuid, self.mistake), self.cluster.clone()));
        let at = self.at + self.chance.below(200 * MS);
        self.agenda.plan(at, Event::Start { host: index });
        (uuid, index)
    }

    fn look_later(&mut self, after: u64) {
        let at = self.at + after + self.chance.below(PACE);
        self.agenda.plan(at, Event::Operator);
    }

    /// How the cluster is, by the word of the replica that knows most.
    fn look(&self) -> Option<ReplicaStatus> {
        let answering = self.running().filter(|(_, process)| process.paused_until <= self.at);
        let heard = answering.filter_map(|(_, process)| process.node.status(process.clock(self.at)).replica);
        heard.max_by_key(|replica| (replica.config_id, replica.committed))
    }

    /// One step of the command.
    pub(crate) fn on_operator(&mut self) {
        let Some(work) = self.operator.work else { return };
        if let Some(ask) = &self.operator.ask {
            if self.at < ask.since + ANSWER_MAX {
                return self.look_later(PACE);
            }
            let conn = ask.conn;
            self.on_operator_gone(conn);
            self.close(conn, 0);
            return self.look_later(PACE);
        }
        if let Some(since) = work.done_at {
            return self.see_off(work, since);
        }
        let Some(view) = self.look() else { return self.look_later(PACE) };
        let votes = view.members.iter().any(|member| member.voter && member.log_uuid == work.new.0);
        match &view.swap {
            None if votes => return self.write_down_who_came(work),
            Some(swap) if swap.new.log_uuid == work.new.0 => {}
            _ if self.operator.round.is_empty() => self.begin_round(work, &view),
            _ => {}
        }
        self.ask_next(work);
        self.look_later(PACE);
    }

    /// The catalogs that are heard, the token's holder first, and whoever is to go last.
    fn begin_round(&mut self, work: Work, view: &ReplicaStatus) {
        let is_catalog =
            |number: u16| self.host_of(number).is_some_and(|index| self.hosts[index].role == Role::Catalog);
        let voters = view.members.iter().filter(|member| member.voter && member.heard && is_catalog(member.node));
        let mut catalogs: Vec<_> = voters.collect();
        catalogs.sort_by_key(|voter| (voter.log_uuid == work.old.0, voter.node != view.holder));
        self.operator.round = catalogs.iter().filter_map(|voter| self.host_of(voter.node)).collect();
    }

    /// Asks the next catalog of the round that can be reached.
    fn ask_next(&mut self, work: Work) {
        while let Some(index) = self.operator.round.pop_front() {
            let Some(boot) = self.hosts[index].process.as_ref().map(|process| process.boot) else { continue };
            if self.connect_fails() {
                continue;
            }
            let conn = self.net.connect(Owner::Operator, Owner::Host { index, boot });
            self.give(index, boot, Item::Accepted(conn_id(conn, 1)));
            let name = self.hosts[index].name.clone();
            self.trace.note(self.at, 617, &conn.to_le_bytes(), || format!("the operator asks {name} ({conn})"));
            self.send((conn, 0), self.request(work));
            let deframer = Deframer::new(CLIENT_BODY_MAX);
            self.operator.ask = Some(Ask { conn, since: self.at, deframer });
            return;
        }
    }

    fn request(&self, work: Work) -> Bytes {
        let new = &self.hosts[work.new.1];
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            role: Role::Client,
            cluster: self.cluster.id,
            settings: 0,
            credentials: Blob::new(Bytes::copy_from_slice(&self.cluster.key)).unwrap_or_default(),
            name: Name::truncated("operator"),
            replica: None,
        };
        let address = Text::truncated(&format!("{}:1", new.name));
        let replace = Replace { old: work.old.0, new: work.new.0, node: new.number, address };
        let mut bytes = frame::to_bytes(HELLO_ID, 0, 0, &hello).to_vec();
        bytes.extend_from_slice(&frame::to_bytes(REPLACE_ID, 0, 0, &replace));
        bytes.into()
    }

    /// What a catalog answers.
    pub(crate) fn on_operator_bytes(&mut self, conn: usize, bytes: &[u8]) -> Check {
        let Some(ask) = self.operator.ask.as_mut().filter(|ask| ask.conn == conn) else { return Ok(()) };
        let mut answer: Option<Result<(), ErrorBody>> = None;
        let fed = ask.deframer.feed(bytes, |_, frame| {
            answer = match (frame.kind(), frame.header.request_id) {
                (Some(Kind::HelloOk), HELLO_ID) => return Flow::Continue,
                (Some(Kind::ReplaceOk), REPLACE_ID) => Some(Ok(())),
                _ => Some(Err(frame
                    .decode()
                    .unwrap_or_else(|error| ErrorBody::new(ErrorCode::Malformed).detail(&error.to_string())))),
            };
            Flow::Stop
        });
        fed.map_err(|error| Violation { invariant: "framing", detail: format!("the operator reads {error}") })?;
        let Some(answer) = answer else { return Ok(()) };
        self.operator.ask = None;
        self.close(conn, 0);
        self.trace.note(self.at, 618, &conn.to_le_bytes(), || format!("the operator is answered {answer:?}"));
        match answer.map_err(|error| error.known_code()) {
            Ok(()) => self.operator.round.clear(),
            Err(Some(ErrorCode::ChangeRefused)) => {
                // The command ends with this unless it was given too early; then it is given again.
                self.rare.replacements_refused += 1;
                self.operator.round.clear();
            }
            Err(Some(ErrorCode::BadCredentials | ErrorCode::Malformed | ErrorCode::Unsupported)) | Err(None) => {
                let detail = "the operator is not understood".to_owned();
                return Err(Violation { invariant: "handshake", detail });
            }
            Err(Some(_)) => self.rare.replacements_reasked += 1,
        }
        Ok(())
    }

    /// The connection with a catalog is gone: the next one is asked, as after no answer.
    pub(crate) fn on_operator_gone(&mut self, conn: usize) {
        if self.operator.ask.as_ref().is_some_and(|ask| ask.conn == conn) {
            self.operator.ask = None;
            self.rare.replacements_reasked += 1;
        }
    }

    /// The new log votes and the old one does not: the file says from now on whose the slot is.
    fn write_down_who_came(&mut self, mut work: Work) {
        let number = self.hosts[work.new.1].number;
        for node in self.cluster.nodes.iter_mut().filter(|node| node.slot() == slot_of(number)) {
            node.number = number;
            node.address = format!("{}:1", self.hosts[work.new.1].name);
        }
        work.done_at = Some(self.at);
        self.operator.work = Some(work);
        let name = &self.hosts[work.new.1].name;
        self.trace.note(self.at, 619, &[work.new.1 as u8], || format!("{name} has taken the place"));
        self.look_later(PACE);
    }

    /// Waits for the old process to leave by itself, and then kills it: one that is cut off does not find out.
    fn see_off(&mut self, work: Work, since: u64) {
        let old = work.old.1;
        let remains = old != work.new.1 && self.hosts[old].process.is_some();
        if remains && self.at >= since + OLD_PATIENCE {
            self.rare.replaced_killed += 1;
            self.kill(old, End::Killed);
            self.plan_return(old);
        }
        // What the command saw may have been in one log alone.
        let settled = self.checker.is_voter(work.new.0) && self.checker.is_removed(work.old.0);
        if remains || !settled {
            return self.look_later(PACE);
        }
        match work.reason {
            Reason::Dead => self.rare.dead_replacements_done += 1,
            Reason::Living => self.rare.living_replacements_done += 1,
            Reason::Lost => self.rare.lost_replacements_done += 1,
        }
        self.operator.work = None;
        self.kill_the_forgotten();
    }
}

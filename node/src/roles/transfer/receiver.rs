//! Gets a snapshot for this replica.
//!
//! Nothing that a peer says or fails to say does harm: a part that was not asked for is dropped, one that cannot be
//! ends the transfer, and what is wrong with the whole is found when it is verified. Each of these gives the peer a rest,
//! longer every time, and the next one its turn. There is no retry of its own: the ring says again and again that it
//! needs a snapshot for as long as it does.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use pygmy_proto::limits::SNAPSHOT_PART_BYTES_MAX;
use pygmy_proto::message::{Epoch, SnapshotFetch, SnapshotHead, SnapshotPart, SnapshotRefusal, SnapshotRefused};

use super::sender::PARTS_PER_PEER;
use crate::disk::record::Mark;
use crate::machine::ms;
use crate::snapshot::transfer::{Failure, Job};
use crate::snapshot::{FileRange, SnapshotInfo};

/// A need that was not renewed for this long is over: the log came from somewhere after all.
const NEED_NS: u64 = ms(2_000);
/// An unanswered question is asked again after this: its answer is lost, or the peer has much to do.
const ASK_AGAIN_NS: u64 = ms(1_000);
/// A peer that was busy is asked again after this.
const BUSY_NS: u64 = ms(50);
/// A peer that has given nothing for this long, whether its link stands or not, is left for another one.
const PATIENCE_NS: u64 = ms(3_000);
/// How long a peer is passed over that did not give what was asked; doubles up to the maximum.
const REST_MIN_NS: u64 = ms(500);
const REST_MAX_NS: u64 = ms(30_000);

/// How often one is begun again with the same peer because it has a newer one.
const RESTARTS_MAX: u32 = 4;

/// What the receiver must know of this replica.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The time.
    pub now_ns: u64,
    /// End of the own log.
    pub last_seq: u64,
    /// The epoch promised: a snapshot that ends in a later one cannot be installed yet.
    pub promised: Epoch,
    /// Who holds the token, as far as is known; 0: unknown.
    pub holder: u16,
    /// Replicas whose links are up.
    pub peers: &'a [u16],
}

/// What is to be done, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask a peer.
    Ask {
        /// Which.
        node: u16,
        /// For what.
        fetch: SnapshotFetch,
    },
    /// Give the thread something to do.
    Do(Job),
}

/// A part that was asked for, or is about to be.
#[derive(Debug)]
struct Part {
    file: u32,
    offset: u64,
    len: u32,
    /// When to ask (again).
    ask_ns: u64,
    /// It has come. Parts are written in their order.
    bytes: Option<Bytes>,
}

/// Bytes of a file that are still to be asked for.
#[derive(Debug)]
struct Rest {
    file: u32,
    from: u64,
    end: u64,
}

#[derive(Debug)]
enum Stage {
    /// The peer is asked for its newest snapshot.
    Asking { ask_ns: u64 },
    /// The thread looks which of its files are here already. The first part has come with its description.
    Beginning { info: SnapshotInfo, first: Bytes },
    /// Parts are coming.
    Fetching { info: SnapshotInfo, rest: VecDeque<Rest>, parts: VecDeque<Part>, writing: bool },
    /// The thread makes it durable, verifies and loads it.
    Finishing,
}

#[derive(Debug)]
struct Transfer {
    number: u64,
    node: u16,
    /// How often it was begun again because the peer had a newer one.
    restarts: u32,
    /// When the peer has given something last, or there was nothing to be had from it.
    heard_ns: u64,
    stage: Stage,
}

/// A snapshot is needed.
#[derive(Debug, Clone, Copy)]
struct Need {
    /// When that was said.
    at_ns: u64,
    /// Who has what follows one.
    node: u16,
    /// Where the log here ended.
    last_seq: u64,
}

/// How a peer has done so far.
#[derive(Debug, Default, Clone, Copy)]
struct Record {
    rest_ns: u64,
    until_ns: u64,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Receiver {
    transfer: Option<Transfer>,
    /// What the ring said last of a snapshot that it needs.
    needed: Option<Need>,
    records: BTreeMap<u16, Record>,
    /// The peer asked last; the next one has its turn.
    last: u16,
    /// Transfers begun.
    number: u64,
    /// Bytes received.
    received: u64,
    wake_ns: Option<u64>,
    actions: Vec<Action>,
}

impl Receiver {
    /// The ring needs a snapshot, for its log ends at `last_seq`; `node` has what follows one.
    pub fn need(&mut self, now_ns: u64, node: u16, last_seq: u64) {
        self.needed = Some(Need { at_ns: now_ns, node, last_seq });
    }

    /// Bytes received so far: rises as long as there is progress.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// From whom a snapshot is coming.
    pub fn source(&self) -> Option<u16> {
        self.transfer.as_ref().map(|transfer| transfer.node)
    }

    /// Whether there is nothing to drive: no snapshot is needed, and nothing is left to be done.
    pub fn is_idle(&self) -> bool {
        self.transfer.is_none() && self.needed.is_none() && self.actions.is_empty() && self.wake_ns.is_none()
    }

    /// What is to be done.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// When [`Self::drive`] must be called next.
    pub fn next_timeout(&self) -> Option<u64> {
        self.wake_ns
    }

    /// A link to `node` is up: what was asked over an older one is not answered any more.
    pub fn on_link_up(&mut self, node: u16) {
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| transfer.node == node) else { return };
        match &mut transfer.stage {
            Stage::Asking { ask_ns } => *ask_ns = 0,
            Stage::Fetching { parts, .. } => parts.iter_mut().for_each(|part| part.ask_ns = 0),
            Stage::Beginning { .. } | Stage::Finishing => {}
        }
    }

    /// A part came from `node`.
    pub fn on_part(&mut self, now_ns: u64, node: u16, part: SnapshotPart) {
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| transfer.node == node) else { return };
        let len = part.bytes.len() as u64;
        match &mut transfer.stage {
            Stage::Asking { .. } => {
                let Some(head) = part.head.as_ref() else { return };
                let Some(info) = described(part.seq, head).filter(|info| is_first(info, &part)) else {
                    return self.leave(now_ns, "its description of a snapshot makes none");
                };
                let number = transfer.number;
                transfer.stage = Stage::Beginning { info: info.clone(), first: part.bytes.into_bytes() };
                self.actions.push(Action::Do(Job::Begin { number, info }));
            }
            Stage::Fetching { info, parts, .. } => {
                // Every question may have been asked twice, and of a snapshot that was given up since.
                let asked = parts.iter_mut().find(|p| (p.file, p.offset) == (part.file, part.offset));
                let Some(asked) = asked.filter(|p| info.seq() == part.seq && p.bytes.is_none()) else { return };
                if len != u64::from(asked.len) {
                    return self.leave(now_ns, "it gave less than was asked for");
                }
                asked.bytes = Some(part.bytes.into_bytes());
            }
            Stage::Beginning { .. } | Stage::Finishing => return,
        }
        transfer.heard_ns = now_ns;
        self.received += len;
    }

    /// `node` does not give what was asked for.
    pub fn on_refused(&mut self, now_ns: u64, node: u16, refused: SnapshotRefused) {
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| transfer.node == node) else { return };
        let again = now_ns + BUSY_NS;
        let busy = refused.why == SnapshotRefusal::Busy;
        match &mut transfer.stage {
            Stage::Asking { ask_ns } if refused.seq == 0 => {
                if busy {
                    *ask_ns = again;
                } else {
                    self.leave(now_ns, "it has no snapshot to give");
                }
            }
            Stage::Fetching { info, parts, .. } if refused.seq == info.seq() => {
                let place = (refused.file, refused.offset);
                let asked = parts.iter_mut().find(|p| (p.file, p.offset) == place && p.bytes.is_none());
                let Some(asked) = asked else { return };
                if busy {
                    asked.ask_ns = again;
                } else if refused.newest > refused.seq && transfer.restarts < RESTARTS_MAX {
                    log::info!("node {node} no longer has the snapshot of seq {}, but a newer one", refused.seq);
                    let restarts = transfer.restarts + 1;
                    self.begin_with(now_ns, node, restarts);
                } else {
                    self.leave(now_ns, "it cannot read the snapshot that it was giving");
                }
            }
            _ => {}
        }
    }

    /// The thread has begun the transfer with this number: `wanted` says which files are to come, and from where on.
    pub fn on_begun(&mut self, number: u64, wanted: &[(usize, u64)]) {
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| transfer.number == number) else { return };
        let stage = std::mem::replace(&mut transfer.stage, Stage::Finishing);
        let Stage::Beginning { info, first } = stage else {
            transfer.stage = stage;
            return;
        };
        let end = |file: usize| info.files.get(file).map_or(0, |range| range.len);
        let rest = wanted.iter().map(|&(file, from)| Rest { file: file as u32, from, end: end(file) });
        let mut rest: VecDeque<Rest> = rest.filter(|rest| rest.from < rest.end).collect();
        let mut parts = VecDeque::new();
        if let Some(part) = next_part(&mut rest) {
            // What came with the description need not be asked for.
            let bytes = ((part.file, part.offset) == (0, 0)).then_some(first);
            parts.push_back(Part { bytes, ..part });
        }
        transfer.stage = Stage::Fetching { info, rest, parts, writing: false };
    }

    /// The part written last is written.
    pub fn on_written(&mut self, number: u64) {
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| transfer.number == number) else { return };
        if let Stage::Fetching { parts, writing, .. } = &mut transfer.stage {
            *writing = false;
            parts.pop_front();
        }
    }

    /// The transfer with this number is complete: its snapshot is on the disk and loaded. Whether it is the one wanted.
    pub fn on_loaded(&mut self, number: u64) -> bool {
        if self.transfer.as_ref().is_none_or(|transfer| transfer.number != number) {
            return false;
        }
        self.transfer = None;
        self.needed = None;
        self.records.clear();
        true
    }

    /// The thread could not go on with the transfer with this number.
    pub fn on_failed(&mut self, now_ns: u64, number: u64, failure: &Failure) {
        if self.transfer.as_ref().is_none_or(|transfer| transfer.number != number) {
            return;
        }
        match failure {
            // Another peer's would be no shorter: all of them have to wait for room here.
            Failure::Full => {
                log::error!("there is no room for the snapshot that this replica needs");
                self.needed = None;
                self.leave(now_ns, "this disk is full");
            }
            Failure::Unusable(why) | Failure::Fatal(why) => self.leave(now_ns, why),
        }
    }

    /// Does what is due. To be called at the end of every turn.
    pub fn drive(&mut self, view: &View<'_>) {
        self.wake_ns = None;
        self.give_up_if_due(view);
        if self.transfer.is_none() {
            self.choose(view);
        }
        let Some(transfer) = self.transfer.as_mut() else { return };
        let up = view.peers.contains(&transfer.node);
        if let Some(due_ns) = transfer.advance(view, up, &mut self.actions) {
            let patience = transfer.heard_ns + PATIENCE_NS;
            // Over a link that is down nothing can be asked: it comes back, or patience ends.
            self.wake_ns = Some(if up { due_ns.min(patience) } else { patience });
        }
    }

    /// Ends a transfer that is no longer of use, or that does not get on.
    fn give_up_if_due(&mut self, view: &View<'_>) {
        let Some(transfer) = &self.transfer else { return };
        if transfer.info().is_some_and(|info| info.seq() <= view.last_seq) {
            self.leave(view.now_ns, "it is not newer than the log here");
        } else if transfer.waits() && view.now_ns >= transfer.heard_ns + PATIENCE_NS {
            self.leave(view.now_ns, "it has given nothing for too long");
        }
    }

    /// Chooses whom to ask: the peer that the ring named or the next one round the table, and the token's holder, which
    /// has other things to do, only when there is nobody else.
    fn choose(&mut self, view: &View<'_>) {
        let Some(Need { at_ns, node: named, last_seq }) = self.needed else { return };
        // A log that goes on after all has found what it lacked elsewhere.
        if !is_fresh(at_ns, view.now_ns) || view.last_seq > last_seq {
            self.needed = None;
            return;
        }
        let rested = |node: &u16| self.records.get(node).is_none_or(|record| record.until_ns <= view.now_ns);
        let able: Vec<u16> = view.peers.iter().copied().filter(rested).collect();
        let others: Vec<u16> = able.iter().copied().filter(|node| *node != view.holder).collect();
        let from = if others.is_empty() { able } else { others };
        let next = from.iter().copied().find(|node| *node > self.last).or(from.first().copied());
        let fresh = from.contains(&named) && !self.records.contains_key(&named);
        if let Some(node) = if fresh { Some(named) } else { next } {
            self.begin_with(view.now_ns, node, 0);
        }
    }

    fn begin_with(&mut self, now_ns: u64, node: u16, restarts: u32) {
        self.drop_transfer();
        self.number += 1;
        self.last = node;
        let stage = Stage::Asking { ask_ns: now_ns };
        self.transfer = Some(Transfer { number: self.number, node, restarts, heard_ns: now_ns, stage });
    }

    /// Leaves the peer for another one.
    fn leave(&mut self, now_ns: u64, why: &str) {
        let Some(transfer) = &self.transfer else { return };
        let node = transfer.node;
        log::warn!("no snapshot from node {node}: {why}");
        let record = self.records.entry(node).or_default();
        record.rest_ns = (record.rest_ns * 2).clamp(REST_MIN_NS, REST_MAX_NS);
        record.until_ns = now_ns + record.rest_ns;
        self.drop_transfer();
    }

    /// Forgets the transfer; the thread does so too, if it has heard of it.
    fn drop_transfer(&mut self) {
        let Some(transfer) = self.transfer.take() else { return };
        if !matches!(transfer.stage, Stage::Asking { .. }) {
            self.actions.push(Action::Do(Job::Drop { number: transfer.number }));
        }
    }
}

impl Transfer {
    fn info(&self) -> Option<&SnapshotInfo> {
        match &self.stage {
            Stage::Beginning { info, .. } | Stage::Fetching { info, .. } => Some(info),
            Stage::Asking { .. } | Stage::Finishing => None,
        }
    }

    /// Whether something is to come from the peer, rather than from this replica's own disk.
    fn waits(&self) -> bool {
        match &self.stage {
            Stage::Asking { .. } => true,
            Stage::Fetching { parts, .. } => parts.iter().any(|part| part.bytes.is_none()),
            Stage::Beginning { .. } | Stage::Finishing => false,
        }
    }

    /// Asks, writes or finishes, as far as it has got. When to come back, if something is to come from the peer.
    fn advance(&mut self, view: &View<'_>, up: bool, actions: &mut Vec<Action>) -> Option<u64> {
        let (number, node) = (self.number, self.node);
        let waited = self.waits();
        match &mut self.stage {
            Stage::Asking { ask_ns } => {
                let fetch = SnapshotFetch { seq: 0, file: 0, offset: 0, len: SNAPSHOT_PART_BYTES_MAX as u32 };
                ask(actions, view.now_ns, up, ask_ns, node, fetch);
                return Some(*ask_ns);
            }
            Stage::Beginning { .. } | Stage::Finishing => return None,
            Stage::Fetching { info, rest, parts, writing } => {
                while parts.len() < PARTS_PER_PEER
                    && let Some(part) = next_part(rest)
                {
                    parts.push_back(part);
                }
                for part in parts.iter_mut().filter(|part| part.bytes.is_none()) {
                    let fetch = SnapshotFetch { seq: info.seq(), file: part.file, offset: part.offset, len: part.len };
                    ask(actions, view.now_ns, up, &mut part.ask_ns, node, fetch);
                }
                write_first(actions, number, parts, writing);
                // One that ends in an epoch that was not promised here is installed once that was explained.
                if parts.is_empty() && info.mark.epoch <= view.promised {
                    actions.push(Action::Do(Job::Finish { number }));
                    self.stage = Stage::Finishing;
                    return None;
                }
            }
        }
        if !waited {
            // It was this replica that took its time.
            self.heard_ns = view.now_ns;
        }
        self.next_ask()
    }

    /// When the first unanswered question is to be asked again.
    fn next_ask(&self) -> Option<u64> {
        let Stage::Fetching { parts, .. } = &self.stage else { return None };
        parts.iter().filter(|part| part.bytes.is_none()).map(|part| part.ask_ns).min()
    }
}

fn is_fresh(at_ns: u64, now_ns: u64) -> bool {
    now_ns.saturating_sub(at_ns) < NEED_NS
}

/// Asks if it is time to.
fn ask(actions: &mut Vec<Action>, now_ns: u64, up: bool, ask_ns: &mut u64, node: u16, fetch: SnapshotFetch) {
    if up && *ask_ns <= now_ns {
        *ask_ns = now_ns + ASK_AGAIN_NS;
        actions.push(Action::Ask { node, fetch });
    }
}

/// Has the first part written, if it has come and none is being written.
fn write_first(actions: &mut Vec<Action>, number: u64, parts: &VecDeque<Part>, writing: &mut bool) {
    if *writing {
        return;
    }
    let Some((part, bytes)) = parts.front().and_then(|part| Some((part, part.bytes.clone()?))) else { return };
    *writing = true;
    actions.push(Action::Do(Job::Write { number, file: part.file, offset: part.offset, bytes }));
}

/// Takes the next part off what is still to be asked for.
fn next_part(rest: &mut VecDeque<Rest>) -> Option<Part> {
    let first = rest.front_mut()?;
    let len = (first.end - first.from).min(SNAPSHOT_PART_BYTES_MAX as u64);
    let part = Part { file: first.file, offset: first.from, len: len as u32, ask_ns: 0, bytes: None };
    first.from += len;
    if first.from == first.end {
        rest.pop_front();
    }
    Some(part)
}

/// The snapshot that a peer describes, if it can be one: it has a file with something in it.
fn described(seq: u64, head: &SnapshotHead) -> Option<SnapshotInfo> {
    let files = head.files.iter();
    let files = files.map(|file| FileRange { name: file.name.to_string(), len: file.len, hash: file.hash });
    let mark = Mark { epoch: head.epoch, seq, hash: head.entry_hash };
    let info = SnapshotInfo { mark, files: files.collect() };
    (seq > 0 && info.bytes() > 0).then_some(info)
}

/// Whether `part` is the first of the snapshot that it describes.
fn is_first(info: &SnapshotInfo, part: &SnapshotPart) -> bool {
    let whole = info.bytes().min(SNAPSHOT_PART_BYTES_MAX as u64);
    (part.file, part.offset) == (0, 0) && part.bytes.len() as u64 == whole
}

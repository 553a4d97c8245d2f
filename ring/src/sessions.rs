//! Exactly-once execution (RIFL, SOSP '15): a table of sessions and their results, part of the replicated state.
//!
//! Everything here is decided when an entry is *applied*, from replicated data alone, so every replica keeps and
//! forgets the same results at the same position of the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use pygmy_proto::limits;
use slab::Slab;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::recency::Recency;

/// Bytes of a command's body that hold its identity: session, counter and first incomplete counter.
pub const REQUEST_ID_LEN: usize = 24;

/// What an outcome counts beside the bytes of its answer.
pub const OUTCOME_COST: usize = 64;

/// Bytes of a block of answers: of a session that has few, and of one that has many.
const BLOCK_BYTES_MIN: usize = 256;
const BLOCK_BYTES_MAX: usize = 4_096;

/// Identity of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    /// The session: position of its registration in the log.
    pub session: u64,
    /// Number of the write in its session, from 1.
    pub counter: u64,
    /// Lowest counter whose answer the client still wants.
    pub first_incomplete: u64,
}

impl RequestId {
    /// Splits a command's body into its identity and the payload; `None` when it is too short.
    pub fn split(body: &[u8]) -> Option<(Self, &[u8])> {
        let (head, payload) = body.split_first_chunk::<REQUEST_ID_LEN>()?;
        let word = |index: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[index * 8..index * 8 + 8]);
            u64::from_le_bytes(bytes)
        };
        Some((Self { session: word(0), counter: word(1), first_incomplete: word(2) }, payload))
    }
}

/// Why a write was not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The session is not known (any more), or the counter lies below the first incomplete one declared.
    #[error("the session has expired")]
    Expired,
    /// The same counter was used with another payload.
    #[error("the counter was used for another write")]
    IdReused,
    /// The counter is too far above the first incomplete one.
    #[error("the counter is {ahead} above the first incomplete one, the window is {}", limits::SESSION_WINDOW)]
    WindowFull {
        /// How far above.
        ahead: u64,
    },
    /// The session holds too many bytes of results that its client has not let go.
    #[error("the session holds {held} bytes of results, the limit is {}", limits::SESSION_RESULT_BYTES_MAX)]
    ResultsFull {
        /// How many.
        held: usize,
    },
    /// The body is too short for an identity, or the counter is 0.
    #[error("the command names no session and counter")]
    NoIdentity,
}

/// What is to be done with a write that is being applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission<'a> {
    /// Execute it, then [`Sessions::record`] its answer.
    Execute,
    /// It was executed before: this is its answer.
    Answered(&'a [u8]),
    /// It has no effect.
    Refused(SessionError),
}

/// Bounds of the table; part of the replicated behaviour, so equal on all replicas of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sessions kept.
    pub count_max: usize,
    /// Entries of the log after which an unused session goes.
    pub distance_max: u64,
    /// Bytes of results of one session, [`OUTCOME_COST`] included.
    pub session_bytes_max: usize,
    /// Bytes of results of all sessions.
    pub bytes_max: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            count_max: limits::SESSIONS_MAX,
            distance_max: limits::SESSION_DISTANCE_MAX,
            session_bytes_max: limits::SESSION_RESULT_BYTES_MAX,
            bytes_max: limits::RESULT_BYTES_MAX,
        }
    }
}

/// What became of a write, as its session remembers it.
#[derive(Debug, Clone)]
pub struct Outcome {
    counter: u64,
    payload_hash: u64,
    /// What it adds to the table's hash. Kept, for the answer is no longer in the cache when it goes.
    hash: u64,
    /// Shares its block with other answers of the session.
    answer: Bytes,
}

impl Outcome {
    fn new(session: u64, counter: u64, payload_hash: u64, answer: Bytes) -> Self {
        let mut words = [0; 32];
        words[0..8].copy_from_slice(&session.to_le_bytes());
        words[8..16].copy_from_slice(&counter.to_le_bytes());
        words[16..24].copy_from_slice(&payload_hash.to_le_bytes());
        words[24..32].copy_from_slice(&xxh3_64(&answer).to_le_bytes());
        Self { counter, payload_hash, hash: xxh3_64(&words), answer }
    }

    /// Number of the write in its session.
    pub fn counter(&self) -> u64 {
        self.counter
    }
    /// Hash of what was asked.
    pub fn payload_hash(&self) -> u64 {
        self.payload_hash
    }
    /// What was answered.
    pub fn answer(&self) -> &[u8] {
        &self.answer
    }

    /// What it costs to keep: many short answers take more room than their bytes.
    fn cost(&self) -> usize {
        OUTCOME_COST + self.answer.len()
    }
}

/// A session and what it remembers.
#[derive(Debug, Clone)]
pub struct Session {
    id: u64,
    first_incomplete: u64,
    used_seq: u64,
    bytes: usize,
    /// Invariant: ascending by counter, none below `first_incomplete`.
    outcomes: VecDeque<Outcome>,
    /// What is left of the block into which answers are put.
    block: BytesMut,
}

impl Session {
    fn new(id: u64, first_incomplete: u64, used_seq: u64) -> Self {
        Self { id, first_incomplete, used_seq, bytes: 0, outcomes: VecDeque::new(), block: BytesMut::new() }
    }

    /// Adds an outcome in its place, which is nearly always the last.
    fn push(&mut self, outcome: Outcome) {
        self.bytes += outcome.cost();
        match self.outcomes.back() {
            Some(newest) if newest.counter > outcome.counter => {
                let index = self.outcomes.partition_point(|o| o.counter < outcome.counter);
                self.outcomes.insert(index, outcome);
            }
            _ => self.outcomes.push_back(outcome),
        }
    }

    /// Its id: the position at which it was registered.
    pub fn id(&self) -> u64 {
        self.id
    }
    /// Lowest counter whose answer the client still wants.
    pub fn first_incomplete(&self) -> u64 {
        self.first_incomplete
    }
    /// Position at which it was used last.
    pub fn used_seq(&self) -> u64 {
        self.used_seq
    }
    /// What it remembers, ascending by counter.
    pub fn outcomes(&self) -> impl ExactSizeIterator<Item = &Outcome> {
        self.outcomes.iter()
    }

    /// Puts an answer into the session's block. A block for each would be given back long after it was used last, one by
    /// one; and as answers go in about the order in which they came, none holds a block for long that others have left.
    fn keep(&mut self, answer: &[u8]) -> Bytes {
        if self.block.capacity() < answer.len() {
            let usual = self.bytes.clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
            self.block = BytesMut::with_capacity(usual.max(answer.len()));
        }
        self.block.extend_from_slice(answer);
        self.block.split().freeze()
    }

    fn hash(&self) -> u64 {
        let mut words = [0; 24];
        words[0..8].copy_from_slice(&self.id.to_le_bytes());
        words[8..16].copy_from_slice(&self.first_incomplete.to_le_bytes());
        words[16..24].copy_from_slice(&self.used_seq.to_le_bytes());
        xxh3_64_with_seed(&words, 1)
    }
}

/// A write that was executed, as its session remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptOutcome {
    /// Its number in the session.
    pub counter: u64,
    /// Hash of what was asked.
    pub payload_hash: u64,
    /// What was answered.
    pub answer: Box<[u8]>,
}

/// A session with all that is remembered of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSession {
    /// Its id.
    pub id: u64,
    /// Lowest counter whose answer the client still wants.
    pub first_incomplete: u64,
    /// Position at which it was used last.
    pub used_seq: u64,
    /// Its answers, ascending by counter.
    pub outcomes: Vec<KeptOutcome>,
}

/// All sessions as they were at a moment.
#[derive(Debug, Clone)]
pub struct SessionsImage {
    sessions: Vec<Arc<Session>>,
}

impl SessionsImage {
    /// How many.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Hash of the table that they were.
    pub fn state_hash(&self) -> u64 {
        let hashes =
            |session: &Session| session.outcomes.iter().fold(session.hash(), |sum, o| sum.wrapping_add(o.hash));
        self.sessions.iter().fold(0, |sum: u64, session| sum.wrapping_add(hashes(session)))
    }
    /// They, ascending by id.
    pub fn sorted(&self) -> Vec<&Session> {
        let mut sessions: Vec<&Session> = self.sessions.iter().map(|session| &**session).collect();
        sessions.sort_unstable_by_key(|session| session.id);
        sessions
    }
}

/// Why a session cannot be part of a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("session {id} cannot be: {why}")]
pub struct RestoreError {
    /// The session.
    pub id: u64,
    /// What is wrong with it.
    pub why: &'static str,
}

/// The table.
#[derive(Debug, Clone)]
pub struct Sessions {
    limits: SessionLimits,
    /// Where each session is, by its id.
    table: HashMap<u64, usize>,
    /// Shared with images of the table; the first use behind an image copies the session.
    slots: Slab<Arc<Session>>,
    /// The sessions in the order of their `used_seq`. A view of the table, so that replicas with equal tables evict the
    /// same sessions whatever way they came by them.
    by_use: Recency,
    /// Sessions that were put back and have no place in `by_use` yet, by the position at which they were used last, which
    /// no two share.
    restored: BTreeMap<u64, usize>,
    bytes: usize,
    /// Sum of the hashes of all sessions and outcomes: changes in O(1), independent of order.
    hash: u64,
    evicted: u64,
}

impl Sessions {
    /// An empty table.
    pub fn new(limits: SessionLimits) -> Self {
        Self {
            limits,
            table: HashMap::new(),
            slots: Slab::new(),
            by_use: Recency::new(),
            restored: BTreeMap::new(),
            bytes: 0,
            hash: 0,
            evicted: 0,
        }
    }

    /// Sessions kept.
    pub fn len(&self) -> usize {
        self.table.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
    /// Hash of the table.
    pub fn state_hash(&self) -> u64 {
        self.hash
    }
    /// Sessions evicted so far.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The ids of all sessions, ascending.
    pub fn ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.table.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// All that is remembered of a session.
    pub fn get(&self, id: u64) -> Option<KeptSession> {
        let session = &self.slots[*self.table.get(&id)?];
        let kept = |o: &Outcome| KeptOutcome {
            counter: o.counter,
            payload_hash: o.payload_hash,
            answer: o.answer.to_vec().into(),
        };
        Some(KeptSession {
            id,
            first_incomplete: session.first_incomplete,
            used_seq: session.used_seq,
            outcomes: session.outcomes.iter().map(kept).collect(),
        })
    }

    /// All sessions as they are now.
    pub fn image(&self) -> SessionsImage {
        SessionsImage { sessions: self.slots.iter().map(|(_, session)| session.clone()).collect() }
    }

    /// Puts a session back that [`Self::get`] gave, into a table that was not used yet. Nothing is evicted: what was in
    /// one table has room in another.
    ///
    /// # Errors
    /// It breaks what holds for every session of a table.
    pub fn restore(&mut self, kept: KeptSession) -> Result<(), RestoreError> {
        let KeptSession { id, first_incomplete, used_seq, outcomes } = kept;
        let wrong = |why| Err(RestoreError { id, why });
        if self.by_use.oldest().is_some() {
            return wrong("the table is in use");
        }
        if used_seq < id || first_incomplete == 0 {
            return wrong("it was used before it was registered");
        }
        if self.table.contains_key(&id) || self.restored.contains_key(&used_seq) {
            return wrong("it stands twice, or was used by the same entry as another one");
        }
        let counters = std::iter::once(first_incomplete.checked_sub(1)).chain(outcomes.iter().map(|o| Some(o.counter)));
        if !counters.is_sorted_by(|a, b| a < b) {
            return wrong("its answers do not ascend from the first that the client wants");
        }
        let mut session = Session::new(id, first_incomplete, used_seq);
        for KeptOutcome { counter, payload_hash, answer } in outcomes {
            let answer = session.keep(&answer);
            session.push(Outcome::new(id, counter, payload_hash, answer));
        }
        for outcome in &session.outcomes {
            self.hash = self.hash.wrapping_add(outcome.hash);
        }
        self.bytes += session.bytes;
        let slot = self.insert(session);
        self.restored.insert(used_seq, slot);
        Ok(())
    }

    fn insert(&mut self, session: Session) -> usize {
        self.hash = self.hash.wrapping_add(session.hash());
        let id = session.id;
        let slot = self.slots.insert(Arc::new(session));
        self.table.insert(id, slot);
        slot
    }

    /// Gives those that were put back their places before the first is used.
    fn settle(&mut self) {
        for (_, slot) in std::mem::take(&mut self.restored) {
            self.by_use.add(slot);
        }
    }

    /// Registers the session whose registration stands at `seq`.
    pub fn register(&mut self, seq: u64) {
        self.settle();
        let slot = self.insert(Session::new(seq, 1, seq));
        self.by_use.add(slot);
        self.evict(seq);
    }

    /// Decides what becomes of a write that is applied at `seq`.
    pub fn admit(&mut self, seq: u64, id: RequestId, payload: &[u8]) -> Admission<'_> {
        if id.counter == 0 {
            return Admission::Refused(SessionError::NoIdentity);
        }
        self.settle();
        let Some(&slot) = self.table.get(&id.session) else {
            return Admission::Refused(SessionError::Expired);
        };
        self.by_use.touch(slot);
        let session = Arc::make_mut(&mut self.slots[slot]);
        self.hash = self.hash.wrapping_sub(session.hash());
        session.used_seq = seq;
        // A first incomplete counter above the write's own would declare the write itself done.
        let declared = id.first_incomplete.min(id.counter);
        while session.first_incomplete < declared {
            match session.outcomes.front() {
                Some(oldest) if oldest.counter < declared => {
                    self.hash = self.hash.wrapping_sub(oldest.hash);
                    session.bytes -= oldest.cost();
                    self.bytes -= oldest.cost();
                    session.outcomes.pop_front();
                }
                _ => session.first_incomplete = declared,
            }
        }
        self.hash = self.hash.wrapping_add(session.hash());
        Self::judge(session, &self.limits, id, payload)
    }

    fn judge<'a>(session: &'a Session, limits: &SessionLimits, id: RequestId, payload: &[u8]) -> Admission<'a> {
        if id.counter < session.first_incomplete {
            return Admission::Refused(SessionError::Expired);
        }
        // Nearly every write is the newest of its session.
        let is_newest = session.outcomes.back().is_none_or(|newest| newest.counter < id.counter);
        if !is_newest && let Ok(index) = session.outcomes.binary_search_by_key(&id.counter, |o| o.counter) {
            let outcome = &session.outcomes[index];
            return if outcome.payload_hash == xxh3_64(payload) {
                Admission::Answered(&outcome.answer)
            } else {
                Admission::Refused(SessionError::IdReused)
            };
        }
        let ahead = id.counter - session.first_incomplete;
        if ahead >= limits::SESSION_WINDOW {
            return Admission::Refused(SessionError::WindowFull { ahead });
        }
        if session.bytes >= limits.session_bytes_max {
            return Admission::Refused(SessionError::ResultsFull { held: session.bytes });
        }
        Admission::Execute
    }

    /// Keeps the answer of a write that was executed at `seq`.
    pub fn record(&mut self, seq: u64, id: RequestId, payload: &[u8], answer: &[u8]) {
        let Some(&slot) = self.table.get(&id.session) else { return };
        let session = Arc::make_mut(&mut self.slots[slot]);
        let answer = session.keep(answer);
        let outcome = Outcome::new(id.session, id.counter, xxh3_64(payload), answer);
        self.hash = self.hash.wrapping_add(outcome.hash);
        self.bytes += outcome.cost();
        session.push(outcome);
        self.evict(seq);
    }

    /// Evicts what is over a bound: by count, by bytes, by distance in the log; never by a clock.
    fn evict(&mut self, seq: u64) {
        while let Some(slot) = self.by_use.oldest() {
            let crowded = self.table.len() > self.limits.count_max || self.bytes > self.limits.bytes_max;
            let far = self.slots[slot].used_seq.saturating_add(self.limits.distance_max) < seq;
            if !crowded && !far {
                return;
            }
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: usize) {
        self.by_use.remove(slot);
        let session = self.slots.remove(slot);
        self.table.remove(&session.id);
        self.hash = self.hash.wrapping_sub(session.hash());
        for outcome in &session.outcomes {
            self.hash = self.hash.wrapping_sub(outcome.hash);
        }
        self.bytes -= session.bytes;
        self.evicted += 1;
    }
}

//! What is replicated: the state machine and the sessions, and how an entry of the log changes them.
//!
//! A replica applies what is committed to its own; whoever builds a copy of the state from the log does so by the same
//! code, so the two cannot drift apart.

use bytes::BytesMut;
use pygmy_proto::batch::{Entry, EntryKind};

use crate::StateMachine;
use crate::config::Mistake;
use crate::sessions::{Admission, RequestId, SessionError, SessionLimits, Sessions};

/// A state machine and its sessions.
#[derive(Debug)]
pub struct State<S> {
    machine: S,
    sessions: Sessions,
    mistake: Option<Mistake>,
    duplicates: u64,
    answer: BytesMut,
}

impl<S: StateMachine> State<S> {
    /// Around what was there before.
    pub fn new(machine: S, sessions: Sessions) -> Self {
        Self { machine, sessions, mistake: None, duplicates: 0, answer: BytesMut::new() }
    }

    /// A fresh machine without sessions: what there is before the first entry of a log.
    pub fn fresh(machine: S) -> Self {
        Self::new(machine, Sessions::new(SessionLimits::default()))
    }

    /// One that makes a known mistake; obeyed only in builds with the feature `mistakes`.
    #[must_use]
    pub(crate) fn with_mistake(self, mistake: Option<Mistake>) -> Self {
        Self { mistake, ..self }
    }

    /// The same with another machine and other sessions in place of what it held.
    pub(crate) fn replace(&mut self, machine: S, sessions: Sessions) {
        (self.machine, self.sessions) = (machine, sessions);
    }

    /// The state machine.
    pub fn machine(&self) -> &S {
        &self.machine
    }

    /// The state machine, for what it keeps beside the replicated state.
    pub fn machine_mut(&mut self) -> &mut S {
        &mut self.machine
    }

    /// The session table.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The machine and the sessions.
    pub fn into_parts(self) -> (S, Sessions) {
        (self.machine, self.sessions)
    }

    /// Hash over all of it.
    pub fn state_hash(&self) -> u64 {
        self.machine.state_hash().wrapping_add(self.sessions.state_hash())
    }

    /// Resent writes answered from their stored result so far.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Applies one entry, ordered in a batch of `time_us`: a command at most once per (session, counter). Its answer is
    /// lent until the next one is applied.
    ///
    /// # Errors
    /// The command has no effect, and the session says why.
    pub fn apply(&mut self, time_us: u64, entry: Entry<'_>) -> Result<&[u8], SessionError> {
        match entry.kind {
            EntryKind::Register => {
                self.sessions.register(entry.seq);
                Ok(&[])
            }
            // The ring's own: they have had their effect when they were appended.
            EntryKind::NewEpoch | EntryKind::Config => Ok(&[]),
            EntryKind::Command => self.apply_command(time_us, entry),
        }
    }

    fn apply_command(&mut self, time_us: u64, entry: Entry<'_>) -> Result<&[u8], SessionError> {
        let Some((mut id, payload)) = RequestId::split(entry.body) else {
            return Err(SessionError::NoIdentity);
        };
        if self.makes(Mistake::DropFirstIncomplete) {
            id.first_incomplete += 1;
        }
        let deduplicates = !self.makes(Mistake::NoDeduplication);
        let forgets = self.makes(Mistake::ForgetResult);
        self.answer.clear();
        match self.sessions.admit(entry.seq, id, payload) {
            Admission::Refused(error) => return Err(error),
            Admission::Answered(answer) if deduplicates => {
                self.duplicates += 1;
                self.answer.extend_from_slice(answer);
            }
            Admission::Execute | Admission::Answered(_) => {
                self.machine.apply(entry.seq, time_us, payload, &mut self.answer);
                if !forgets {
                    self.sessions.record(entry.seq, id, payload, &self.answer);
                }
            }
        }
        Ok(&self.answer)
    }

    fn makes(&self, mistake: Mistake) -> bool {
        cfg!(feature = "mistakes") && self.mistake == Some(mistake)
    }
}

//! Keeps the session of this user and cluster from one command to the next, so that a lone write is one request.
//!
//! A counter is taken in the file before it is used, so that no crash can use it for two writes. A write stays in the
//! file until its result was printed, so that the store keeps its answer, and the next command says so if it never
//! was. A command that cannot have the file, because another one is using it or it cannot be written, registers a
//! session of its own; what becomes of its write, only that command itself can say.

use std::path::{Path, PathBuf};

use pygmy_client::{Client, Command, Error, ErrorCode, Session, Written};
use pygmy_proto::limits::SESSION_WINDOW;

use super::args::Identity;
use super::failure::Failure;
use super::interrupt::Interrupts;
use super::state::{self, Lock, State, Unsettled};
use super::unsettled;

/// A session whose oldest unsettled write is so far back takes no more writes, for the store keeps all later results
/// until that one is settled. Half the window, so that the store never has to refuse one.
const SPREAD_MAX: u64 = SESSION_WINDOW / 2;
/// Unsettled writes that are kept. With so many, further writes get sessions of their own, for none is dropped.
const UNSETTLED_MAX: usize = 1_000;

/// The session file of one cluster, as far as it can be used.
#[derive(Debug)]
pub(super) struct Keeper {
    cluster: [u8; 16],
    path: Option<PathBuf>,
    is_json: bool,
}

/// A session file that this process alone uses.
#[derive(Debug)]
struct Held {
    path: PathBuf,
    state: State,
    lock: Lock,
}

/// A write that has been sent. Unless it is finished, it stays among the unsettled ones.
#[derive(Debug)]
pub(super) struct Attempt {
    /// What came of it.
    pub(super) result: Result<Written, Error>,
    held: Option<Held>,
    id: (u64, u64),
}

impl Keeper {
    /// The keeper for a cluster in the user's state directory, or, if not wanted, one that keeps nothing.
    pub(super) fn new(cluster: [u8; 16], is_wanted: bool, is_json: bool) -> Self {
        let name = format!("{:032x}.json", u128::from_be_bytes(cluster));
        Self { cluster, path: state::directory().filter(|_| is_wanted).map(|directory| directory.join(name)), is_json }
    }

    /// Makes the client's reads as new as all that this user has seen.
    pub(super) fn before_reads(&self, client: &mut Client) {
        let Some(path) = &self.path else { return };
        let state = state::load(path);
        client.raise_floor(state.floor);
        // While another command has the file, its own write is among these.
        if !state.unsettled.is_empty()
            && let Some(held) = Held::take(path)
        {
            self.remind(&held.state.unsettled);
        }
    }

    /// Remembers what the client has seen, unless another command is busy with the file.
    pub(super) fn after_reads(&self, client: &Client) {
        let Some(path) = &self.path else { return };
        if client.floor() <= state::load(path).floor {
            return;
        }
        if let Some(mut held) = Held::take(path) {
            held.state.floor = held.state.floor.max(client.floor());
            held.save(false);
        }
    }

    /// Does a write under the kept session, or under one of its own. `words` is the command line that it came by.
    pub(super) fn write(
        &self,
        client: &mut Client,
        command: Command,
        words: &[String],
        interrupts: &Interrupts,
    ) -> Result<Attempt, Error> {
        let mut held = self.path.as_deref().and_then(Held::take);
        if let Some(held) = &held {
            self.remind(&held.state.unsettled);
            client.raise_floor(held.state.floor);
        }
        let floor = client.floor();
        let id = number(&mut held, client, words, false)?;
        let result = send(client, id, command.clone(), interrupts);
        if !was_reused(&result, floor) {
            return Ok(Attempt { result, held, id });
        }
        // Another write bears this identity, or its session is gone. Either way the store has not executed this one
        // under it, and never will: it takes one command for an identity, and none for what it has forgotten.
        if let Some(held) = &mut held {
            held.forget(id);
        }
        let again = number(&mut held, client, words, true)?;
        if result.is_ok() && again.0 <= floor {
            // A session is numbered by its position, so the log itself has been set back, and the answer is no older
            // than the write.
            if let Some(held) = &mut held {
                held.forget(again);
            }
            return Ok(Attempt { result, held, id });
        }
        let result = send(client, again, command, interrupts);
        Ok(Attempt { result, held, id: again })
    }

    /// Settles a write that was sent before.
    pub(super) fn settle(
        &self,
        client: &mut Client,
        id: Identity,
        command: Command,
        interrupts: &Interrupts,
    ) -> Result<Attempt, Failure> {
        if id.cluster != self.cluster {
            let own = Identity { cluster: self.cluster, ..id };
            return Err(Failure::Identity(format!(
                "{id} is a write of another cluster than this one, whose identities begin with {}",
                own.cluster_text()
            )));
        }
        let held = self.path.as_deref().and_then(Held::take);
        if let Some(held) = held.as_ref().filter(|held| held.state.session == id.session) {
            if id.counter >= held.state.next_counter {
                return Err(Failure::Identity(format!(
                    "{id} is no write: {} is the last that this session has begun",
                    Identity { counter: held.state.next_counter - 1, ..id }
                )));
            }
            client.resume_session(held.session());
        }
        if let Some(held) = &held {
            let is_other = |write: &&Unsettled| (write.session, write.counter) != (id.session, id.counter);
            self.remind(&held.state.unsettled.iter().filter(is_other).cloned().collect::<Vec<_>>());
        }
        let key = (id.session, id.counter);
        interrupts.watch(Some(key));
        let result = client.settle(id.session, id.counter, command);
        interrupts.watch(None);
        Ok(Attempt { result, held, id: key })
    }

    /// The unsettled writes, which others may be at work on.
    pub(super) fn unsettled(&self) -> Vec<Unsettled> {
        self.path.as_deref().map(state::load).unwrap_or_default().unsettled
    }

    /// Forgets an unsettled write; false when there is none of that identity, `None` when the file cannot be had.
    pub(super) fn forget(&self, id: Identity) -> Option<bool> {
        let mut held = self.path.as_deref().and_then(Held::take)?;
        let is_known = id.cluster == self.cluster && held.forget((id.session, id.counter));
        (!is_known || held.save(true)).then_some(is_known)
    }

    fn remind(&self, writes: &[Unsettled]) {
        unsettled::remind(writes, self.cluster, self.is_json);
    }
}

impl Attempt {
    /// The user has been told the outcome, or that nobody will ever know it.
    pub(super) fn finish(&mut self, client: &Client) {
        let id = self.id;
        let Some(held) = &mut self.held else { return };
        held.forget(id);
        held.state.floor = held.state.floor.max(client.floor());
        if matches!(&self.result, Err(error) if voids_session(error)) && held.state.session == id.0 {
            held.state.session = 0;
        }
        held.save(false);
    }
}

/// Has a counter for the next write: the next one of the kept session, or the first one of a new session.
fn number(
    held: &mut Option<Held>,
    client: &mut Client,
    words: &[String],
    is_new_wanted: bool,
) -> Result<(u64, u64), Error> {
    if let Some(own) = held {
        if is_new_wanted || !own.is_usable() {
            own.register(client)?;
        } else {
            client.resume_session(own.session());
        }
        if let Some(counter) = own.reserve(words) {
            return Ok((own.state.session, counter));
        }
        // A counter that the file does not show as taken must not be used.
        *held = None;
    }
    Ok((client.open_session()?, 1))
}

/// Sends a write that the client is going to number as `id`.
fn send(client: &mut Client, id: (u64, u64), command: Command, interrupts: &Interrupts) -> Result<Written, Error> {
    interrupts.watch(Some(id));
    let result = client.write(command);
    interrupts.watch(None);
    result
}

/// Whether an answer shows that the identity was not this write's alone. `floor` is a position that the log had before
/// the write was sent: unless the log was set back since, what lies at or below it was somebody else's.
fn was_reused(result: &Result<Written, Error>, floor: u64) -> bool {
    match result {
        Ok(done) => done.seq <= floor,
        Err(error) => voids_session(error),
    }
}

/// Whether the store has not done a write because of its session.
fn voids_session(error: &Error) -> bool {
    let Error::Refused(refusal) = error else { return false };
    matches!(refusal.known_code(), Some(ErrorCode::SessionExpired | ErrorCode::IdReused))
}

impl Held {
    /// The file with its lock. Of one that was copied or restored only what is true of every copy is used.
    fn take(path: &Path) -> Option<Self> {
        let lock = Lock::take(path)?;
        let mut state = state::load(path);
        if state.session != 0 && lock.seal().is_none_or(|seal| seal != state.seal) {
            state.session = 0;
        }
        Some(Self { path: path.to_owned(), state, lock })
    }

    fn session(&self) -> Session {
        Session::new(self.state.session, self.state.next_counter, self.state.pending())
    }

    /// Whether there is a session that takes another write.
    fn is_usable(&self) -> bool {
        let oldest = self.state.pending().min().unwrap_or(self.state.next_counter);
        self.state.session != 0 && self.state.next_counter.saturating_sub(oldest) < SPREAD_MAX
    }

    fn save(&self, durable: bool) -> bool {
        let saved = state::save(&self.path, &self.state, durable);
        if let Err(error) = &saved {
            log::warn!("cannot write {}: {error}", self.path.display());
        }
        saved.is_ok()
    }

    /// Begins a new session. What is unsettled in earlier ones stays so.
    fn register(&mut self, client: &mut Client) -> Result<(), Error> {
        self.state.session = client.open_session()?;
        self.state.next_counter = 1;
        self.state.floor = self.state.floor.max(client.floor());
        if let Some(directory) = self.path.parent() {
            state::sweep(directory);
        }
        Ok(())
    }

    /// Takes the next counter in the file; `None` when that cannot be written there.
    fn reserve(&mut self, words: &[String]) -> Option<u64> {
        if self.state.unsettled.len() >= UNSETTLED_MAX {
            return None;
        }
        let counter = self.state.next_counter;
        self.state.seal = self.lock.renew()?;
        self.state.next_counter += 1;
        self.state.unsettled.push(Unsettled { session: self.state.session, counter, command: words.to_vec() });
        self.save(true).then_some(counter)
    }

    /// Takes a write off the unsettled ones; whether it was one.
    fn forget(&mut self, (session, counter): (u64, u64)) -> bool {
        let before = self.state.unsettled.len();
        self.state.unsettled.retain(|write| (write.session, write.counter) != (session, counter));
        self.state.unsettled.len() < before
    }
}

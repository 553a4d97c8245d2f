//! Keeps the session of this user and cluster from one command to the next, so that a lone write is one request.
//!
//! A counter is taken in the file before it is used, so that no crash can use it for two writes. A counter without a
//! final answer stays in the file, so that the store keeps its answer until somebody settles it. A command that cannot
//! have the file, because another one is using it or it cannot be written, registers a session of its own.

use std::fs::File;
use std::path::{Path, PathBuf};

use pygmy_client::{Client, Command, Error, ErrorCode, Session, Written};

use super::args::Identity;
use super::state::{self, State};

/// The session file of one cluster, as far as it can be used.
#[derive(Debug)]
pub(super) struct Keeper {
    path: Option<PathBuf>,
}

/// A session file that this process alone uses.
#[derive(Debug)]
struct Held {
    path: PathBuf,
    state: State,
    /// Held, not used: the lock goes when this is dropped.
    _lock: File,
}

impl Keeper {
    /// The keeper for a cluster in the user's state directory, or, if not wanted, one that keeps nothing.
    pub(super) fn new(cluster: [u8; 16], is_wanted: bool) -> Self {
        let name = format!("{:032x}.json", u128::from_be_bytes(cluster));
        Self { path: state::directory().filter(|_| is_wanted).map(|directory| directory.join(name)) }
    }

    /// Makes the client's reads as new as all that this user has seen.
    pub(super) fn before_reads(&self, client: &mut Client) {
        if let Some(path) = &self.path {
            client.raise_floor(state::load(path).floor);
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

    /// Does a write under the kept session, or under one of its own.
    pub(super) fn write(&self, client: &mut Client, command: Command) -> Result<Written, Error> {
        let Some(mut held) = self.path.as_deref().and_then(Held::take) else { return client.write(command) };
        client.raise_floor(held.state.floor);
        if held.state.session == 0 {
            held.register(client)?;
        } else {
            client.resume_session(held.session());
        }
        if !held.reserve() {
            // A counter that the file does not show as taken must not be used.
            client.open_session()?;
            return client.write(command);
        }
        let result = match client.write(command.clone()) {
            Err(Error::Refused(error)) if error.known_code() == Some(ErrorCode::SessionExpired) => {
                // Sent for the first time and refused for its session: under that identity it can never be executed.
                held.register(client)?;
                held.reserve();
                client.write(command)
            }
            other => other,
        };
        held.note(client);
        result
    }

    /// Settles a write that was sent before.
    pub(super) fn settle(&self, client: &mut Client, id: Identity, command: Command) -> Result<Written, Error> {
        let held = self.path.as_deref().and_then(Held::take).filter(|held| held.state.session == id.session);
        if let Some(held) = &held {
            client.resume_session(held.session());
        }
        let result = client.settle(id.session, id.counter, command);
        if let Some(mut held) = held {
            held.note(client);
        }
        result
    }
}

impl Held {
    fn take(path: &Path) -> Option<Self> {
        let lock = state::lock(path)?;
        Some(Self { path: path.to_owned(), state: state::load(path), _lock: lock })
    }

    fn session(&self) -> Session {
        Session::new(self.state.session, self.state.next_counter, self.state.pending.iter().copied())
    }

    fn save(&self, durable: bool) -> bool {
        let saved = state::save(&self.path, &self.state, durable);
        if let Err(error) = &saved {
            log::warn!("cannot write {}: {error}", self.path.display());
        }
        saved.is_ok()
    }

    /// Begins a new session.
    fn register(&mut self, client: &mut Client) -> Result<(), Error> {
        let session = client.open_session()?;
        self.state = State { session, next_counter: 1, pending: Vec::new(), floor: client.floor() };
        Ok(())
    }

    /// Takes the next counter in the file. False when the file cannot be written.
    fn reserve(&mut self) -> bool {
        let mut taken = self.state.clone();
        taken.pending.push(taken.next_counter);
        taken.next_counter += 1;
        let before = std::mem::replace(&mut self.state, taken);
        let saved = self.save(true);
        if !saved {
            self.state = before;
        }
        saved
    }

    /// Writes down how the client's session stands now. Losing this costs nothing but a pending counter.
    fn note(&mut self, client: &Client) {
        let floor = self.state.floor.max(client.floor());
        self.state = match client.session() {
            Some(session) => State {
                session: session.id(),
                next_counter: session.next_counter(),
                pending: session.unsettled().collect(),
                floor,
            },
            None => State { floor, ..State::default() },
        };
        self.save(false);
    }
}

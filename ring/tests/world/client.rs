//! Clients: each has a session, some writes in flight, and sends again what was not answered.

use std::collections::BTreeMap;

use bytes::Bytes;
use pygmy_ring::SessionError;

use super::checker::{Check, Checker, ensure};
use super::machine::{body, payload};

#[derive(Debug)]
struct Outstanding {
    len: usize,
    again_ns: u64,
}

#[derive(Debug)]
pub struct Client {
    number: u64,
    /// How long it waits before it sends a write again, at another catalog.
    patience_ns: u64,
    session: Option<u64>,
    register_again_ns: u64,
    /// Highest first incomplete counter that it has declared.
    declared: u64,
    next_counter: u64,
    left: u64,
    outstanding: BTreeMap<u64, Outstanding>,
}

/// What a client wants proposed.
#[derive(Debug, Clone)]
pub enum Wish {
    Register,
    Write { counter: u64, body: Bytes },
}

impl Client {
    pub fn new(number: u64, writes: u64, patience_ns: u64) -> Self {
        Self {
            number,
            patience_ns,
            session: None,
            register_again_ns: 0,
            declared: 1,
            next_counter: 1,
            left: writes,
            outstanding: BTreeMap::new(),
        }
    }

    pub fn is_done(&self) -> bool {
        self.left == 0 && self.outstanding.is_empty()
    }

    /// What it wants now; `len` is the size of a new write, `window` how many it keeps in flight.
    pub fn wishes(&mut self, now_ns: u64, len: usize, window: usize) -> Vec<Wish> {
        let Some(session) = self.session else {
            if now_ns < self.register_again_ns || self.left == 0 {
                return Vec::new();
            }
            self.register_again_ns = now_ns + self.patience_ns;
            return vec![Wish::Register];
        };
        if self.left > 0 && self.outstanding.len() < window {
            self.left -= 1;
            self.outstanding.insert(self.next_counter, Outstanding { len, again_ns: now_ns });
            self.next_counter += 1;
        }
        let first_incomplete = self.outstanding.keys().next().copied().unwrap_or(self.next_counter);
        let mut wishes = Vec::new();
        for (counter, write) in self.outstanding.iter_mut().filter(|(_, write)| write.again_ns <= now_ns) {
            write.again_ns = now_ns + self.patience_ns;
            self.declared = first_incomplete;
            let payload = payload((self.number, *counter), write.len);
            wishes.push(Wish::Write { counter: *counter, body: body(session, *counter, first_incomplete, &payload) });
        }
        wishes
    }

    pub fn on_registered(&mut self, seq: u64) {
        self.session.get_or_insert(seq);
    }

    pub fn on_handed_back(&mut self, counter: Option<u64>, again_ns: u64) {
        match counter {
            None => self.register_again_ns = again_ns,
            Some(counter) => {
                if let Some(write) = self.outstanding.get_mut(&counter) {
                    write.again_ns = write.again_ns.min(again_ns);
                }
            }
        }
    }

    pub fn on_answer(&mut self, counter: u64, result: Result<Bytes, SessionError>, checker: &mut Checker) -> Check {
        match result {
            Ok(answer) => {
                self.outstanding.remove(&counter);
                checker.on_answer((self.number, counter), answer)
            }
            Err(SessionError::Expired) => {
                ensure!(
                    counter < self.declared && !self.outstanding.contains_key(&counter),
                    "client {} is told that its session has expired for counter {counter}, it has let go below {}",
                    self.number,
                    self.declared
                );
                Ok(())
            }
            Err(error) => Err(format!("client {}, counter {counter}: {error}", self.number)),
        }
    }
}

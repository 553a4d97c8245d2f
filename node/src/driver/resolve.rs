//! Host names to addresses without stopping the loop.
//!
//! A literal address is parsed in place. A name goes to a thread that lives for that one question, because the system's
//! resolver blocks and has no other interface; the thread leaves its answer in a channel and wakes the loop. Nodes
//! connect rarely and to few peers, so threads are never many: a link asks again only when it has its answer.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::Waker;

/// What an address is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A connection is to be opened.
    Connection,
    /// Heartbeats are to be sent.
    Heartbeats,
}

/// The answer for one link.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Number of the node whose address was asked for.
    pub(super) node: u16,
    /// What for.
    pub(super) purpose: Purpose,
    /// Its addresses.
    pub(super) addresses: io::Result<Vec<SocketAddr>>,
}

/// Answers questions for addresses.
#[derive(Debug)]
pub(super) struct Resolver {
    waker: Arc<Waker>,
    sender: Sender<Resolved>,
    receiver: Receiver<Resolved>,
}

impl Resolver {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let (sender, receiver) = channel();
        Self { waker, sender, receiver }
    }

    /// Asks for `address` (`host:port`). The answer comes by [`Self::poll`], for a literal address at once.
    pub(super) fn ask(&self, node: u16, purpose: Purpose, address: &str) {
        if let Ok(literal) = address.parse::<SocketAddr>() {
            self.answer(Resolved { node, purpose, addresses: Ok(vec![literal]) });
            return;
        }
        let (waker, sender, name) = (Arc::clone(&self.waker), self.sender.clone(), address.to_owned());
        let spawned = std::thread::Builder::new().name("resolve".into()).spawn(move || {
            let addresses = name.to_socket_addrs().map(Iterator::collect);
            // Either fails only when the loop has ended, and then nobody waits for this answer.
            let _ = sender.send(Resolved { node, purpose, addresses });
            let _ = waker.wake();
        });
        if let Err(error) = spawned {
            self.answer(Resolved { node, purpose, addresses: Err(error) });
        }
    }

    /// The next answer, if one is there.
    pub(super) fn poll(&self) -> Option<Resolved> {
        self.receiver.try_recv().ok()
    }

    /// Leaves an answer for the next poll. The receiver lives as long as `self`, so sending cannot fail.
    fn answer(&self, resolved: Resolved) {
        let _ = self.sender.send(resolved);
    }
}

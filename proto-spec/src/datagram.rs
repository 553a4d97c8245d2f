//! Heartbeats between nodes, one to a datagram. `SPEC.md` §15.
//!
//! Anyone can send a datagram under any address, so each bears a keyed hash over all its bytes: before that has been
//! verified nothing is believed, nothing is decoded and nothing is allocated. What was recorded and is sent again is for
//! [`ReplayGuard`] to refuse.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use bincode::{Decode, Encode};
use bytes::BytesMut;

use crate::codec::{self, BodyError};
use crate::limits::{DATAGRAM_LEN_MAX, NODES_MAX, REPLICAS_MAX};
use crate::message::ReplicaBeat;
use crate::types::Bounded;

/// First bytes of every datagram.
pub const MAGIC: [u8; 4] = *b"PgHb";
/// Version of the datagrams that this crate writes and reads.
pub const VERSION: u8 = 1;
/// Length of the header in bytes.
pub const HEADER_LEN: usize = 25;
/// Length of the keyed hash in bytes, the last of every datagram.
pub const MAC_LEN: usize = 32;

/// What the key is for; whatever else is ever derived from the cluster's key names another purpose.
const KEY_CONTEXT: &str = "pygmy heartbeat datagrams, version 1";

// The largest heartbeat there is fits.
const REPLICA_BEAT_BYTES_MAX: usize = 132 + 8 + REPLICAS_MAX * 2;
const HEARTBEAT_BYTES_MAX: usize = 4 + 8 + 1 + 8 + NODES_MAX * 2 + 1 + REPLICA_BEAT_BYTES_MAX;
const _: () = assert!(HEADER_LEN + HEARTBEAT_BYTES_MAX + MAC_LEN <= DATAGRAM_LEN_MAX);

/// The key under which the nodes of one cluster write their datagrams.
#[derive(Clone)]
pub struct DatagramKey([u8; blake3::KEY_LEN]);

impl DatagramKey {
    /// Derives it from the cluster's id and its key: nodes of two clusters do not hear each other, even with one key.
    pub fn new(cluster: &[u8; 16], key: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(KEY_CONTEXT);
        // The id has one length, so no two pairs give the same bytes.
        hasher.update(cluster).update(key);
        Self(*hasher.finalize().as_bytes())
    }

    fn mac(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, bytes)
    }
}

impl fmt::Debug for DatagramKey {
    /// Keys do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatagramKey")
    }
}

/// Who sent a datagram, and which of its datagrams it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Node number of the sender, from 1.
    pub node: u16,
    /// Boot nonce of the sender's process.
    pub boot_nonce: u64,
    /// Rises with every datagram of this process, whomever it is for; from 1.
    pub counter: u64,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Heartbeat {
    /// By how many microseconds its loop has been late at most since the last heartbeat.
    pub late_us: u32,
    /// How many heartbeats its process has sent so far, counting as one what goes to all others at once, and not counting
    /// what is sent out of turn.
    pub number: u64,
    /// The receiver is to send one at once.
    pub asks: bool,
    /// Nodes of every role whose datagrams it has received lately.
    pub hears: Bounded<u16, NODES_MAX>,
    /// From log replicas.
    pub replica: Option<ReplicaBeat>,
}

/// Why bytes are not a datagram of this cluster. Nothing is answered, for who sent them is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// Fewer bytes than a header and a keyed hash.
    #[error("{len} bytes are fewer than any datagram has")]
    Short {
        /// How many.
        len: usize,
    },
    /// More bytes than any datagram may have.
    #[error("{len} bytes are more than a datagram may have, {DATAGRAM_LEN_MAX}")]
    TooLong {
        /// How many.
        len: usize,
    },
    /// Something else than a datagram of ours.
    #[error("the bytes do not begin as a datagram does")]
    Magic,
    /// Another version.
    #[error("datagrams of version {theirs} are not read here, those of version {VERSION} are")]
    Version {
        /// The version byte found.
        theirs: u8,
    },
    /// The length named in the header is not that of the body.
    #[error("the header names {named} bytes of body, there are {found}")]
    Length {
        /// As in the header.
        named: u16,
        /// As received.
        found: usize,
    },
    /// It was not written under this cluster's key, or was changed on its way.
    #[error("the keyed hash does not verify: another cluster, another key, or changed on its way")]
    Mac,
    /// No node has the number of its sender.
    #[error("no node has the number 0")]
    Node,
    /// The header and the replica's part name different processes.
    #[error("the header has boot nonce {header:016x}, the replica's part {replica:016x}")]
    BootNonce {
        /// As in the header.
        header: u64,
        /// As in the replica's part.
        replica: u64,
    },
    /// A member wrote it, and its body is no heartbeat.
    #[error("the body is no heartbeat: {0}")]
    Body(BodyError),
}

/// Appends a datagram to `out`. A replica's part must bear the boot nonce of `header`.
pub fn write(out: &mut BytesMut, key: &DatagramKey, header: &Header, heartbeat: &Heartbeat) {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, 0, 0]);
    out.extend_from_slice(&header.node.to_le_bytes());
    out.extend_from_slice(&header.boot_nonce.to_le_bytes());
    out.extend_from_slice(&header.counter.to_le_bytes());
    codec::encode_to(heartbeat, out);
    // It fits: the bounds of a heartbeat's lists see to it, as asserted above.
    let body_len = (out.len() - start - HEADER_LEN) as u16;
    out[start + 5..start + 7].copy_from_slice(&body_len.to_le_bytes());
    let mac = key.mac(&out[start..]);
    out.extend_from_slice(mac.as_bytes());
}

/// Reads the datagram that `bytes` are.
///
/// # Errors
/// The first check that fails: length, magic, version, the length in the header, the keyed hash, and only then the rest.
pub fn read(bytes: &[u8], key: &DatagramKey) -> Result<(Header, Heartbeat), DatagramError> {
    if bytes.len() > DATAGRAM_LEN_MAX {
        return Err(DatagramError::TooLong { len: bytes.len() });
    }
    let short = DatagramError::Short { len: bytes.len() };
    let Some((signed, mac)) = bytes.split_last_chunk::<MAC_LEN>() else { return Err(short) };
    let Some((head, body)) = signed.split_first_chunk::<HEADER_LEN>() else { return Err(short) };
    if head[..4] != MAGIC {
        return Err(DatagramError::Magic);
    }
    if head[4] != VERSION {
        return Err(DatagramError::Version { theirs: head[4] });
    }
    let named = u16::from_le_bytes(field(head, 5));
    if usize::from(named) != body.len() {
        return Err(DatagramError::Length { named, found: body.len() });
    }
    // Hashes compare in constant time.
    if key.mac(signed) != blake3::Hash::from_bytes(*mac) {
        return Err(DatagramError::Mac);
    }
    open(head, body)
}

/// Takes a datagram apart that was written by a member.
fn open(head: &[u8; HEADER_LEN], body: &[u8]) -> Result<(Header, Heartbeat), DatagramError> {
    let header = Header {
        node: u16::from_le_bytes(field(head, 7)),
        boot_nonce: u64::from_le_bytes(field(head, 9)),
        counter: u64::from_le_bytes(field(head, 17)),
    };
    if header.node == 0 {
        return Err(DatagramError::Node);
    }
    let heartbeat: Heartbeat = codec::decode(body).map_err(DatagramError::Body)?;
    match &heartbeat.replica {
        Some(replica) if replica.boot_nonce != header.boot_nonce => {
            Err(DatagramError::BootNonce { header: header.boot_nonce, replica: replica.boot_nonce })
        }
        _ => Ok((header, heartbeat)),
    }
}

fn field<const N: usize>(head: &[u8; HEADER_LEN], from: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&head[from..from + N]);
    out
}

/// Counters below the highest that may still come: the width of the window.
pub const WINDOW: u64 = 64;
/// Boot nonces of one node that are remembered as replaced; the one replaced first is forgotten first.
pub const REPLACED_MAX: usize = 64;

/// What a datagram that is no repetition is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is the latest of its sender.
    Newest,
    /// A later one has come before it: it proves that it was sent, but what it says is out of date.
    Late,
}

/// Why a datagram is refused although its keyed hash verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Replay {
    /// It has come before.
    #[error("a datagram came twice")]
    Repeated,
    /// It is so old that it is not known whether it has come before.
    #[error("a datagram is {WINDOW} or more behind the latest of its sender")]
    TooOld,
    /// Its process has been replaced by a later one.
    #[error("a datagram comes from a process that was replaced")]
    Replaced,
}

/// Refuses datagrams that have been seen before, and those of processes that are gone.
///
/// A boot nonce that is new to the guard is taken for that of a new process, for nothing in it says which of two
/// processes is the later one. One that was taken for replaced is heard again when it sends what it had not sent before.
/// Someone who has recorded a datagram of a process that this guard never heard could so pass it off as the latest for a moment. Where a node is connected as well, [`ReplayGuard::pin`] says which process it is and ends
/// that: of a pinned node no other process is heard.
#[derive(Debug, Default)]
pub struct ReplayGuard {
    senders: BTreeMap<u16, Sender>,
}

#[derive(Debug)]
struct Sender {
    process: Process,
    pinned: bool,
    /// Processes that came before, the latest last.
    replaced: VecDeque<Process>,
}

/// What was seen of one process.
#[derive(Debug, Clone, Copy)]
struct Process {
    boot_nonce: u64,
    /// Highest counter seen.
    highest: u64,
    /// Bit i: the counter `highest - i` was seen. 0 only before the first.
    seen: u64,
}

impl Sender {
    fn new(boot_nonce: u64) -> Self {
        Self { process: Process::new(boot_nonce), pinned: false, replaced: VecDeque::new() }
    }

    /// Takes out what is known of a process that came before.
    fn take_replaced(&mut self, boot_nonce: u64) -> Option<Process> {
        let at = self.replaced.iter().position(|process| process.boot_nonce == boot_nonce)?;
        self.replaced.remove(at)
    }

    /// The process that a datagram shows to be there in place of the one that was taken for the latest, if it may.
    fn successor(&mut self, header: &Header) -> Option<Process> {
        if self.pinned {
            return None;
        }
        let known = self.replaced.iter().find(|process| process.boot_nonce == header.boot_nonce);
        match known {
            // A datagram of a process that is gone may come late, to one who never heard that process, and take the
            // place of the one that lives: which goes on counting.
            Some(process) if header.counter <= process.highest => None,
            Some(_) => self.take_replaced(header.boot_nonce),
            None => Some(Process::new(header.boot_nonce)),
        }
    }

    fn replace(&mut self, process: Process) {
        if self.replaced.len() == REPLACED_MAX {
            self.replaced.pop_front();
        }
        self.replaced.push_back(std::mem::replace(&mut self.process, process));
    }
}

impl Process {
    fn new(boot_nonce: u64) -> Self {
        Self { boot_nonce, highest: 0, seen: 0 }
    }

    fn take(&mut self, counter: u64) -> Result<Arrival, Replay> {
        if self.seen == 0 || counter > self.highest {
            let ahead = counter.saturating_sub(self.highest);
            self.seen = if ahead < WINDOW { self.seen << ahead | 1 } else { 1 };
            self.highest = counter;
            return Ok(Arrival::Newest);
        }
        let behind = self.highest - counter;
        if behind >= WINDOW {
            return Err(Replay::TooOld);
        }
        if self.seen & 1 << behind != 0 {
            return Err(Replay::Repeated);
        }
        self.seen |= 1 << behind;
        Ok(Arrival::Late)
    }
}

impl ReplayGuard {
    /// A guard that has heard nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes account of a datagram whose keyed hash was verified.
    ///
    /// # Errors
    /// Why it must be dropped unread.
    pub fn check(&mut self, header: &Header) -> Result<Arrival, Replay> {
        let nonce = header.boot_nonce;
        let sender = self.senders.entry(header.node).or_insert_with(|| Sender::new(nonce));
        if sender.process.boot_nonce != nonce {
            let process = sender.successor(header).ok_or(Replay::Replaced)?;
            sender.replace(process);
        }
        sender.process.take(header.counter)
    }

    /// Takes it from a handshake which process `node` is: from now on only that one is heard, also if it was taken for
    /// replaced, until another is pinned.
    pub fn pin(&mut self, node: u16, boot_nonce: u64) {
        let sender = self.senders.entry(node).or_insert_with(|| Sender::new(boot_nonce));
        sender.pinned = true;
        if sender.process.boot_nonce == boot_nonce {
            return;
        }
        // What was seen of it before stays seen.
        let known = sender.take_replaced(boot_nonce);
        sender.replace(known.unwrap_or(Process::new(boot_nonce)));
    }
}

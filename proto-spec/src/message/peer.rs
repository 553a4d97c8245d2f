//! What servers tell each other. Part two of `SPEC.md`.

use bincode::{Decode, Encode};

use super::epoch::Voter;
use super::handshake::Epoch;
use crate::limits::{BATCH_BYTES_MAX, CLIENT_BODY_MAX, REPLICAS_MAX, SUBMIT_JOBS_MAX};
use crate::types::{Blob, Bounded, Lent};

/// The body of a write or of its answer, lent from the frame that it came in or the table that it is kept in.
pub type LentBody<'a> = Lent<'a, CLIENT_BODY_MAX>;

/// One write on its way to be ordered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SubmitJob<B = Blob<CLIENT_BODY_MAX>> {
    /// The sender's number for it.
    pub job: u64,
    /// Milliseconds the sender will wait.
    pub deadline_ms: u32,
    /// Whether a trace is wanted.
    pub trace: bool,
    /// Kind of the entry, as in [`crate::batch::EntryKind`].
    pub kind: u8,
    /// Body of the entry: the body of the client's `Write`, byte for byte, or nothing for `OpenSession`.
    pub body: B,
}

/// Order to catalog: writes to be ordered, as many as came in one turn.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Submit<B = Blob<CLIENT_BODY_MAX>> {
    /// The writes.
    pub jobs: Bounded<SubmitJob<B>, SUBMIT_JOBS_MAX>,
}

/// What became of one write.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct JobResult<B = Blob<CLIENT_BODY_MAX>> {
    /// The number from [`SubmitJob::job`].
    pub job: u64,
    /// Kind of the answer: `WriteOk`, `SessionOpened` or `Error`.
    pub kind: u16,
    /// Flags of the answer.
    pub flags: u8,
    /// Body of the answer.
    pub body: B,
}

/// Catalog to order: what became of writes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Results<B = Blob<CLIENT_BODY_MAX>> {
    /// The results.
    pub results: Bounded<JobResult<B>, SUBMIT_JOBS_MAX>,
}

/// Log replica to every server: the voters of the latest configuration that it knows to be committed. Sent when a
/// connection stands, and when that configuration changes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Members {
    /// Id of the configuration.
    pub config_id: u64,
    /// Its voters.
    pub voters: Bounded<Voter, REPLICAS_MAX>,
}

/// A batch of the log. The same bytes go to every replica.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Data {
    /// Epoch of the sender.
    pub epoch: Epoch,
    /// Hop of the token under which the batch was ordered; 0 when it is a part of the log that was asked for.
    pub hop: u64,
    /// What the sender knows to be committed.
    pub committed: u64,
    /// The batch; layout in [`crate::batch`].
    pub batch: Blob<{ BATCH_BYTES_MAX + CLIENT_BODY_MAX + 1024 }>,
}

/// One member's part of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct TokenMember {
    /// Node number.
    pub node: u16,
    /// Boot nonce of the process whose wants these are: numbers of another boot do not compare.
    pub boot_nonce: u64,
    /// Latest want known to the token.
    pub want: u64,
    /// Latest want served.
    pub served: u64,
}

/// What the token knows of one voter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct TokenDurable {
    /// The voter.
    pub log_uuid: [u8; 16],
    /// Durable up to.
    pub durable: u64,
}

/// The right to order writes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Token {
    /// Epoch it belongs to.
    pub epoch: Epoch,
    /// Configuration it belongs to.
    pub config_id: u64,
    /// Passings so far.
    pub hop: u64,
    /// Position of the next entry.
    pub next_seq: u64,
    /// Hash of the entry before.
    pub hash_before: u128,
    /// What is known to be committed.
    pub committed: u64,
    /// Catalogs in ring order.
    pub members: Bounded<TokenMember, REPLICAS_MAX>,
    /// Durable positions of the voters.
    pub durable: Bounded<TokenDurable, REPLICAS_MAX>,
}

/// "I have writes and want the token." Sent to all when a member turns from idle to busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Want {
    /// Epoch of the sender.
    pub epoch: Epoch,
    /// The sender's boot nonce.
    pub boot_nonce: u64,
    /// Rises with every want of this boot.
    pub number: u64,
}

/// "Durable here up to." One for each group that was synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Ack {
    /// Epoch of the log that was submitted to the sync.
    pub epoch: Epoch,
    /// Durable up to.
    pub durable: u64,
    /// Hash of the entry there.
    pub hash: u128,
    /// What the sender knows to be committed.
    pub committed: u64,
    /// Last multiple of 1,024 that the sender has applied; 0 for none.
    pub checked_seq: u64,
    /// Hash of its state there. A replica that has another one must stop.
    pub checked_hash: u64,
}

/// "Committed up to", when nothing else goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Commit {
    /// Epoch of the sender.
    pub epoch: Epoch,
    /// Committed up to.
    pub committed: u64,
}

/// Asks for the log from a place on; answered with `Data`, at most about 1 MiB at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Fetch {
    /// Epoch of the sender.
    pub epoch: Epoch,
    /// First position wanted.
    pub from_seq: u64,
    /// Hash of the entry before it, at the asker.
    pub hash_before: u128,
}

/// The answer to [`Fetch`] when that part is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct FetchRefused {
    /// Epoch of the sender.
    pub epoch: Epoch,
    /// First position held.
    pub first_seq: u64,
    /// Last position held.
    pub last_seq: u64,
}

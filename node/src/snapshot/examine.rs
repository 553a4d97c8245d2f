//! Looks into a snapshot and into a ledger's file, whole or damaged, for people.

use pygmy_proto::message::{Epoch, OrderRecord};
use serde::Serialize;

use super::chunks::{ChunkReader, FileError};
use super::dir::{MAGIC, VERSION};
use super::head::Head;
use super::{FileRange, ledger, state};
use crate::disk::fs::FsFile;

/// First bytes of a snapshot.
pub const SNAPSHOT_MAGIC: [u8; 4] = MAGIC;
/// First bytes of a file of the ledger.
pub const LEDGER_MAGIC: [u8; 4] = ledger::MAGIC;

/// What a snapshot says of itself.
#[derive(Debug, Serialize)]
pub struct SnapshotView {
    /// The last position that it contains.
    pub seq: u64,
    /// Epoch of the entry there.
    pub epoch: Epoch,
    /// Hash of the entry there.
    pub hash: String,
    /// Hash of the whole state.
    pub state_hash: String,
    /// Books in it.
    pub books: u64,
    /// Sessions in it.
    pub sessions: u64,
    /// Orders in the files of the ledger that it names.
    pub orders: u64,
    /// The configuration's id, and the numbers of the voters.
    pub configuration: (u64, Vec<u16>),
    /// The files of the ledger: name and length.
    pub ledger: Vec<(String, u64)>,
}

/// What a file of the ledger holds.
#[derive(Debug, Default, Serialize)]
pub struct LedgerView {
    /// Orders in it.
    pub orders: u64,
    /// Number of the first.
    pub first: Option<u64>,
    /// Number of the last.
    pub last: Option<u64>,
    /// The orders, when they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<OrderRecord>,
}

/// What a snapshot says of itself, and what is wrong with the rest of it.
///
/// # Errors
/// Not even its head can be read.
pub fn snapshot<File: FsFile>(name: &str, file: File) -> Result<(SnapshotView, Option<FileError>), FileError> {
    let (mut reader, head) = ChunkReader::new(name, file, MAGIC, VERSION)?;
    let head = Head::decode(&head).map_err(|error| reader.damaged(error.to_string()))?;
    let broken = state::read(&mut reader, &head).and_then(|_| reader.finish()).err();
    let mark = head.mark();
    let membership = &head.at.membership;
    let view = SnapshotView {
        seq: mark.seq,
        epoch: mark.epoch,
        hash: format!("{:032x}", mark.hash),
        state_hash: format!("{:016x}", head.state_hash),
        books: head.books,
        sessions: head.sessions,
        orders: head.orders,
        configuration: (membership.id, membership.voters.iter().map(|voter| voter.node).collect()),
        ledger: head.ledger.iter().map(|FileRange { name, len, .. }| (name.clone(), *len)).collect(),
    };
    Ok((view, broken))
}

/// What a file of the ledger holds up to the first place at which it is damaged.
pub fn ledger(name: &str, bytes: &[u8], with_orders: bool) -> (LedgerView, Option<FileError>) {
    let mut view = LedgerView::default();
    let broken = ledger::each(name, bytes, |order| {
        view.orders += 1;
        view.first.get_or_insert(order.number);
        view.last = Some(order.number);
        if with_orders {
            view.items.push(order);
        }
        Ok(())
    });
    (view, broken.err())
}

//! What the tests of snapshots share: a log of real commands, and the state that the loop would have.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::sync::atomic::AtomicBool;

use bytes::{BufMut, BytesMut};
use pygmy_node::disk::chain::end_of;
use pygmy_node::disk::fs::Fs;
use pygmy_node::disk::log::LogFiles;
use pygmy_node::disk::record::Mark;
use pygmy_node::snapshot::open::{OpenOptions, Opened, open};
use pygmy_node::snapshot::{self, BuildError, Image, SnapshotOptions, SnapshotOrder, Snapshots, Taken};
use pygmy_node::store::Store;
use pygmy_proto::batch::{Batch, BatchBuilder, EntryKind};
use pygmy_proto::codec;
use pygmy_proto::message::{Boundary, Command, Epoch, LogEnd, Membership, NewBook};
use pygmy_proto::types::{Bounded, title, topic};
use pygmy_proto::{BookId, message};
use pygmy_ring::{Base, Checkpoint, Recovered, State};

pub const UUID: [u8; 16] = [7; 16];
pub const EPOCH: Epoch = Epoch { counter: 3, node: 1 };
/// Small files, so that tests have several of each.
pub const OPTIONS: OpenOptions =
    OpenOptions { segment_bytes: 16 * 1024, snapshots: SnapshotOptions { ledger_file_bytes: 600 } };

/// A replica without its ring: what it has logged it has applied.
pub struct Twin {
    pub state: State<Store>,
    pub base: Base,
    /// Counter of the next write of each session.
    counters: Vec<(u64, u64)>,
}

impl Twin {
    pub fn new() -> Self {
        Self { state: State::fresh(Store::new()), base: Base::default(), counters: Vec::new() }
    }

    /// One over what was found on a disk.
    pub fn of(recovered: Recovered<Store>) -> Self {
        let mut twin = Self {
            state: State::new(recovered.machine, recovered.sessions),
            base: recovered.base,
            counters: Vec::new(),
        };
        for batch in &recovered.batches {
            twin.apply(batch);
        }
        twin
    }

    pub fn mark(&self) -> Mark {
        Mark { epoch: self.base.end.epoch, seq: self.base.end.seq, hash: self.base.hash }
    }

    pub fn seq(&self) -> u64 {
        self.base.end.seq
    }

    pub fn hash(&self) -> u64 {
        self.state.state_hash()
    }

    /// What the loop would order a snapshot of.
    pub fn order(&self) -> SnapshotOrder {
        let boundaries = vec![Boundary { epoch: EPOCH, first_seq: 1 }];
        let membership = Membership { id: 4, ..Membership::default() };
        let image = Image::of(self.state.machine(), self.state.sessions());
        SnapshotOrder { at: Checkpoint { base: self.base, boundaries, membership }, state_hash: self.hash(), image }
    }

    /// Writes from now on are of the session registered at `seq`.
    pub fn begin_session(&mut self, seq: u64) {
        self.counters.push((seq, 1));
    }

    /// A batch of these entries behind what was applied.
    pub fn batch(&self, entries: &[(EntryKind, Vec<u8>)]) -> Batch {
        let seq = self.seq();
        let mut builder = BatchBuilder::new(EPOCH, EPOCH.node, seq + 1, 1_000 + seq, self.base.hash);
        for (kind, body) in entries {
            builder.push(*kind, body);
        }
        builder.finish().expect("entries")
    }

    pub fn apply(&mut self, batch: &Batch) {
        let header = batch.header();
        assert_eq!((header.first_seq, header.hash_before), (self.seq() + 1, self.base.hash), "a gap");
        for entry in batch.entries() {
            let _ = self.state.apply(header.time_us, entry);
        }
        let end = end_of(batch);
        self.base = Base { end: LogEnd { epoch: end.epoch, seq: end.seq }, hash: end.hash, time_us: header.time_us };
    }

    /// Logs and applies entries.
    pub fn log<F: Fs>(&mut self, log: &mut LogFiles<F>, entries: &[(EntryKind, Vec<u8>)]) {
        let batch = self.batch(entries);
        log.write(&[(EPOCH, batch.clone())]).expect("room");
        log.sync().expect("a good disk");
        self.apply(&batch);
    }

    /// Logs and applies some mixed work, another one for another `salt`: sessions, books, sales, refusals.
    pub fn work<F: Fs>(&mut self, log: &mut LogFiles<F>, salt: u64) {
        let session = self.seq() + 1;
        self.log(log, &[(EntryKind::Register, Vec::new())]);
        self.begin_session(session);
        let books = [format!("b{}", salt % 7), format!("c{salt}"), "always".to_owned()];
        let mut entries = Vec::new();
        for (index, id) in books.iter().enumerate() {
            entries
                .push(self.write(&Command::Put { books: Bounded::truncated(vec![book(id, index as u64 + salt % 3)]) }));
        }
        for copies in [1, 2, 500] {
            let line = message::Line { book: BookId::new(&books[salt as usize % 3]).expect("an id"), copies };
            entries.push(self.write(&Command::Buy { lines: Bounded::truncated(vec![line]) }));
        }
        self.log(log, &entries);
    }

    /// An entry with the next write of the last session.
    pub fn write(&mut self, command: &Command) -> (EntryKind, Vec<u8>) {
        let (session, counter) = self.counters.last_mut().expect("a session");
        let mut body = BytesMut::new();
        body.put_u64_le(*session);
        body.put_u64_le(*counter);
        body.put_u64_le(1);
        *counter += 1;
        codec::encode_to(command, &mut body);
        (EntryKind::Command, body.to_vec())
    }
}

pub fn book(id: &str, salt: u64) -> NewBook {
    NewBook {
        id: BookId::new(id).expect("an id"),
        title: title(&format!("The book {id}, edition {salt}")).expect("a title"),
        topic: topic(["maps", "trees", "ägypten"][salt as usize % 3]).expect("a topic"),
        cost_cents: 100 + salt,
        stock: 100,
    }
}

pub fn opened<F: Fs>(fs: &F) -> Opened<F> {
    open(fs.clone(), UUID, OPTIONS).unwrap_or_else(|error| panic!("the files open: {error}"))
}

pub fn build<F: Fs>(snapshots: &Snapshots<F>, order: &SnapshotOrder) -> Result<Taken, BuildError> {
    snapshot::build::build(snapshots, order, &AtomicBool::new(false))
}

//! Epochs, entries and logs, packed so that a state of the model stays small: an entry is a byte, a log a word.

use std::fmt;

/// The place of a replica, 0 to 3. Slot 3 is the newcomer of a swap.
pub(crate) type Slot = usize;

/// Replicas that a state has room for.
pub(crate) const SLOTS: usize = 4;

/// The name of a slot in traces.
pub(crate) fn slot_name(slot: Slot) -> char {
    ['a', 'b', 'c', 'd'][slot]
}

/// A fencing number: the counter first, then the coordinator's slot. The default stands before all epochs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Epoch(u8);

impl Epoch {
    /// The highest counter that an entry has room for.
    pub(crate) const COUNTER_MAX: u8 = 7;

    pub(crate) fn new(counter: u8, slot: Slot) -> Self {
        assert!(counter <= Self::COUNTER_MAX, "epoch counter {counter} does not fit an entry");
        Self(counter << 2 | slot as u8)
    }

    pub(crate) fn counter(self) -> u8 {
        self.0 >> 2
    }

    pub(crate) fn coordinator(self) -> Slot {
        usize::from(self.0 & 3)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.counter(), slot_name(self.coordinator()))
    }
}

/// What an entry does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first entry of an epoch.
    NewEpoch,
    /// A client's write; each has a number of its own, so that two different ones at one seq are told apart.
    Write(u8),
    /// The first of the two single changes that swap a voter.
    SwapFirst,
    /// The second of them.
    SwapSecond,
    /// Both changes in one entry: a planted mistake.
    SwapDirect,
}

impl Kind {
    /// Writes that are told apart.
    pub(crate) const WRITES: u8 = 3;

    fn code(self) -> u8 {
        match self {
            Kind::NewEpoch => 1,
            Kind::Write(number) => {
                assert!(number < Self::WRITES, "the bounds of the model keep writes within {}", Self::WRITES);
                2 + number
            }
            Kind::SwapFirst => 5,
            Kind::SwapSecond => 6,
            Kind::SwapDirect => 7,
        }
    }
}

/// One entry: its epoch and its kind. Never zero, so that a log knows its own length.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry(u8);

impl Entry {
    pub(crate) fn new(epoch: Epoch, kind: Kind) -> Self {
        Self(epoch.0 << 3 | kind.code())
    }

    pub(crate) fn epoch(self) -> Epoch {
        Epoch(self.0 >> 3)
    }

    pub(crate) fn kind(self) -> Kind {
        match self.0 & 7 {
            1 => Kind::NewEpoch,
            5 => Kind::SwapFirst,
            6 => Kind::SwapSecond,
            7 => Kind::SwapDirect,
            write => Kind::Write(write - 2),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epoch = self.epoch();
        match self.kind() {
            Kind::NewEpoch => write!(f, "NewEpoch@{epoch}"),
            Kind::Write(number) => write!(f, "w{}@{epoch}", number + 1),
            Kind::SwapFirst => write!(f, "first-change@{epoch}"),
            Kind::SwapSecond => write!(f, "second-change@{epoch}"),
            Kind::SwapDirect => write!(f, "direct-swap@{epoch}"),
        }
    }
}

/// A log of at most eight entries; seq 1 is the lowest byte. It stands for the hash chain too: two logs have the same
/// hash at a seq exactly if their prefixes up to it are equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Log(u64);

impl Log {
    /// Entries that fit.
    pub(crate) const LEN_MAX: u8 = 8;

    pub(crate) fn len(self) -> u8 {
        (64 - self.0.leading_zeros()).div_ceil(8) as u8
    }

    pub(crate) fn is_full(self) -> bool {
        self.len() == Self::LEN_MAX
    }

    /// The entry at `seq`, from 1.
    pub(crate) fn get(self, seq: u8) -> Option<Entry> {
        if seq == 0 || seq > Self::LEN_MAX {
            return None;
        }
        let byte = (self.0 >> (8 * (seq - 1))) as u8;
        (byte != 0).then_some(Entry(byte))
    }

    #[must_use]
    pub(crate) fn push(self, entry: Entry) -> Self {
        assert!(!self.is_full(), "the bounds of the model keep logs within {} entries", Self::LEN_MAX);
        Self(self.0 | u64::from(entry.0) << (8 * self.len()))
    }

    #[must_use]
    pub(crate) fn prefix(self, len: u8) -> Self {
        match len {
            0 => Self(0),
            len if len >= Self::LEN_MAX => self,
            len => Self(self.0 & ((1 << (8 * len)) - 1)),
        }
    }

    /// How many entries both logs begin with.
    pub(crate) fn common(self, other: Self) -> u8 {
        let same = ((self.0 ^ other.0).trailing_zeros() / 8) as u8;
        same.min(self.len()).min(other.len())
    }

    pub(crate) fn is_prefix_of(self, other: Self) -> bool {
        self.common(other) == self.len()
    }

    /// Whether one of the two is a prefix of the other: no seq holds two different entries.
    pub(crate) fn agrees_with(self, other: Self) -> bool {
        self.is_prefix_of(other) || other.is_prefix_of(self)
    }

    pub(crate) fn entries(self) -> impl Iterator<Item = Entry> {
        (1..=self.len()).filter_map(move |seq| self.get(seq))
    }

    /// The epoch of the last entry.
    pub(crate) fn last_epoch(self) -> Epoch {
        self.get(self.len()).map_or(Epoch::default(), Entry::epoch)
    }

    /// The last seq with an entry of `epoch`, 0 without one.
    pub(crate) fn last_seq_of(self, epoch: Epoch) -> u8 {
        (1..=self.len()).rev().find(|&seq| self.get(seq).is_some_and(|entry| entry.epoch() == epoch)).unwrap_or(0)
    }

    /// The first seq with an entry of this kind.
    pub(crate) fn find(self, kind: Kind) -> Option<u8> {
        (1..=self.len()).find(|&seq| self.get(seq).is_some_and(|entry| entry.kind() == kind))
    }

    /// Where `epoch` begins in this log.
    pub(crate) fn start_of(self, epoch: Epoch) -> Option<u8> {
        let first = Entry::new(epoch, Kind::NewEpoch);
        (1..=self.len()).find(|&seq| self.get(seq) == Some(first))
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, entry) in self.entries().enumerate() {
            let gap = if index == 0 { "" } else { " " };
            write!(f, "{gap}{entry}")?;
        }
        f.write_str("]")
    }
}

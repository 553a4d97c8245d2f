//! The catalog's side of the feed: what it has applied, as changes of books, told to the fronts that keep answers.
//!
//! The changes of a turn are encoded once, for all fronts. The latest are kept, so that a front that comes from another
//! catalog is told what it has missed and can keep what it has. A front that does not read costs nothing but its place in
//! the table: it is sent a bounded amount more than it has said to have read, and when it goes on it is told what is still
//! kept, or that it must begin anew.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use pygmy_proto::header::HEADER_LEN;
use pygmy_proto::limits::FEED_CHANGES_MAX;
use pygmy_proto::message::{Feed, FeedChange, FeedOk, FeedOpen, FeedRead};
use pygmy_proto::types::{Bounded, Topic};
use pygmy_proto::{BookId, frame};

use super::Ctx;
use crate::machine::{ConnId, Output};
use crate::mistake::{Mistake, Planted};
use crate::store::{Catalog, Part, Store, Touch, Touched};

/// Bytes of turns that are kept, so that a front can go on here: some seconds of a busy cluster.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a turn costs beside its bytes.
const TURN_BYTES: usize = size_of::<Turn>() + 64;
/// Bytes that a front may be sent beyond what it has said to have read.
const UNREAD_BYTES_MAX: u64 = 1024 * 1024;

/// The changes of a turn, encoded.
#[derive(Debug)]
struct Turn {
    after: u64,
    upto: u64,
    /// One frame or more.
    frames: Bytes,
    /// Whether the front may be told of it from the middle on: it is then in one frame, and what of it is old is skipped.
    whole: bool,
}

/// A front that is told.
#[derive(Debug)]
struct Follower {
    /// The request id of its `FeedOpen`.
    number: u64,
    /// What it asked for, until it is answered.
    asked: Option<FeedOpen>,
    /// It has been told everything up to here.
    told: u64,
    /// Bytes sent and read.
    sent: u64,
    read: u64,
}

/// What a catalog tells, and whom.
#[derive(Debug, Default)]
pub struct FeedSource {
    /// Told up to: what was applied at the end of the last turn.
    upto: u64,
    /// Invariant: contiguous, and the last ends at `upto`.
    turns: VecDeque<Turn>,
    kept_bytes: usize,
    followers: BTreeMap<ConnId, Follower>,
    pub(super) planted: Planted,
}

impl FeedSource {
    /// Makes a known mistake from now on.
    #[cfg(feature = "mistakes")]
    pub fn plant(&mut self, mistake: Mistake) {
        self.planted = Planted(Some(mistake));
    }

    /// A front asks for the feed; it is answered at the end of the turn, or when as much is applied as it knows.
    pub fn on_open(&mut self, conn: ConnId, number: u64, open: FeedOpen) {
        self.followers.insert(conn, Follower { number, asked: Some(open), told: 0, sent: 0, read: 0 });
    }

    /// A front says how much it has read.
    pub fn on_read(&mut self, conn: ConnId, read: FeedRead) {
        if let Some(follower) = self.followers.get_mut(&conn) {
            follower.read = read.bytes.clamp(follower.read, follower.sent);
        }
    }

    /// A front is gone.
    pub fn on_closed(&mut self, conn: ConnId) {
        self.followers.remove(&conn);
    }

    /// Ends a turn: the store is applied up to `applied`, and `touched` is what has changed since the turn before.
    pub fn on_turn(&mut self, ctx: &mut Ctx<'_>, applied: u64, touched: Option<Touched>, store: &Store) {
        if applied != self.upto {
            match touched.filter(|touched| !touched.has_gap() && applied > self.upto) {
                Some(touched) => self.keep(store, &touched, applied),
                None => self.begin_anew(applied),
            }
        }
        for (conn, follower) in &mut self.followers {
            if follower.answer(ctx, *conn, self.upto, &self.turns, self.planted) {
                follower.tell(ctx, *conn, self.upto, &self.turns);
            }
        }
    }

    /// What came before cannot be told.
    fn begin_anew(&mut self, applied: u64) {
        self.turns.clear();
        self.kept_bytes = 0;
        self.upto = applied;
    }

    fn keep(&mut self, store: &Store, touched: &Touched, applied: u64) {
        let turn = encode(self.upto, applied, changes(store, touched));
        self.upto = applied;
        self.kept_bytes += turn.frames.len() + TURN_BYTES;
        self.turns.push_back(turn);
        while self.kept_bytes > KEPT_BYTES_MAX
            && self.turns.len() > 1
            && let Some(old) = self.turns.pop_front()
        {
            self.kept_bytes -= old.frames.len() + TURN_BYTES;
        }
    }
}

impl Follower {
    /// Answers what it has asked for. False while it must wait.
    fn answer(&mut self, ctx: &mut Ctx<'_>, conn: ConnId, upto: u64, turns: &VecDeque<Turn>, planted: Planted) -> bool {
        let Some(open) = self.asked else { return true };
        self.told = match open.after {
            Some(after) if planted.makes(Mistake::FeedResumedBackwards) => {
                self.send_ok(ctx, conn, after);
                self.told = after.min(upto);
                self.asked = None;
                return true;
            }
            Some(after) if after > upto => return false,
            Some(after) if next(turns, after).is_some() || after == upto => after,
            _ => upto,
        };
        self.send_ok(ctx, conn, self.told);
        self.asked = None;
        true
    }

    fn send_ok(&self, ctx: &mut Ctx<'_>, conn: ConnId, after: u64) {
        ctx.out.send(conn, self.number, ctx.me.into(), 0, &FeedOk { after });
    }

    /// Tells what it has not been told, as far as it reads.
    fn tell(&mut self, ctx: &mut Ctx<'_>, conn: ConnId, upto: u64, turns: &VecDeque<Turn>) {
        while self.told != upto && self.sent - self.read < UNREAD_BYTES_MAX {
            let Some(at) = next(turns, self.told) else {
                self.told = upto;
                return self.send_ok(ctx, conn, upto);
            };
            for turn in turns.range(at..) {
                if self.sent - self.read >= UNREAD_BYTES_MAX {
                    return;
                }
                ctx.out.push(Output::Shared { conn, bytes: turn.frames.clone() });
                self.sent += turn.frames.len() as u64;
                self.told = turn.upto;
            }
        }
    }
}

/// The index of the turn that follows `after` or has it in its midst.
fn next(turns: &VecDeque<Turn>, after: u64) -> Option<usize> {
    let at = turns.partition_point(|turn| turn.upto <= after);
    turns.get(at).filter(|turn| turn.after == after || (turn.after < after && turn.whole)).map(|_| at)
}

/// What was touched, as it is now.
fn changes(store: &Store, touched: &Touched) -> Vec<FeedChange> {
    let catalog = store.catalog();
    let listings = touched.topics().iter().map(|(topic, seq)| {
        let topic = Topic::truncated(topic);
        FeedChange::Listing { topic, seq: *seq }
    });
    let books = touched.books().iter().filter_map(|touch| change_of(catalog, touch));
    listings.chain(books).collect()
}

/// A turn as frames. More changes than fit one are told in several, of which only the last says that all are told.
fn encode(after: u64, upto: u64, changes: Vec<FeedChange>) -> Turn {
    let mut out = BytesMut::with_capacity(HEADER_LEN + 32 + 64 * changes.len());
    let whole = changes.len() <= FEED_CHANGES_MAX;
    let mut rest = changes;
    while rest.len() > FEED_CHANGES_MAX {
        let later = rest.split_off(FEED_CHANGES_MAX);
        frame::write(&mut out, 0, 0, 0, &Feed { after, upto: after, changes: Bounded::truncated(rest) });
        rest = later;
    }
    frame::write(&mut out, 0, 0, 0, &Feed { after, upto, changes: Bounded::truncated(rest) });
    Turn { after, upto, frames: out.freeze(), whole }
}

/// What became of a book that was touched.
fn change_of(catalog: &Catalog, touch: &Touch) -> Option<FeedChange> {
    // Every id that is stored was made from a valid one.
    let book = BookId::new(&touch.id).ok()?;
    Some(match (catalog.get(&book), touch.part) {
        (None, _) => FeedChange::Gone { book, seq: touch.seq },
        (Some(now), Part::Stock) => FeedChange::Stock { book, seq: now.changed_seq, stock: now.stock },
        (Some(now), Part::Cost) => FeedChange::Cost { book, seq: now.changed_seq, cost_cents: now.cost_cents },
        (Some(now), Part::Whole) => FeedChange::Book { book: now },
    })
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use pygmy_proto::frame::{Deframer, Flow};
    use pygmy_proto::limits::PEER_BODY_MAX;
    use pygmy_proto::message::{Command, NewBook};
    use pygmy_proto::{Kind, codec, types};
    use pygmy_ring::StateMachine;

    use super::*;
    use crate::machine::{Now, Outbox};
    use crate::roles::Links;

    const FRONT: ConnId = ConnId(1);

    /// What a front is sent.
    #[derive(Debug, PartialEq)]
    enum Told {
        Ok(u64),
        /// After, up to, changes, and bytes of the frame.
        Feed(u64, u64, usize, u64),
    }

    struct Bench {
        source: FeedSource,
        store: Store,
        seq: u64,
        links: Links,
        out: Outbox,
    }

    impl Bench {
        fn new() -> Self {
            let mut store = Store::new();
            store.track_changes();
            Self { source: FeedSource::default(), store, seq: 0, links: Links::default(), out: Outbox::new() }
        }

        fn apply(&mut self, command: &Command) {
            self.seq += 1;
            self.store.apply(self.seq, 0, &codec::encode(command), &mut BytesMut::new());
        }

        fn put(&mut self, first: usize, count: usize) {
            let title = types::title(&"x".repeat(400)).expect("a valid title");
            let topic = types::topic("x").expect("a valid topic");
            let book = |n| NewBook {
                id: BookId::new(&format!("book-{n}")).expect("a valid id"),
                title: title.clone(),
                topic,
                cost_cents: 1,
                stock: self.seq as u32,
            };
            let books = Bounded::truncated((first..first + count).map(book).collect());
            self.apply(&Command::Put { books });
        }

        fn open(&mut self, after: Option<u64>) {
            self.source.on_open(FRONT, 77, FeedOpen { after });
        }

        fn turn(&mut self) -> Vec<Told> {
            let now = Now { mono_ns: 0, wall_us: 0 };
            let touched = self.store.take_changes();
            let mut ctx = Ctx { now, me: 5, name: "catalog", links: &self.links, out: &mut self.out };
            self.source.on_turn(&mut ctx, self.seq, touched, &self.store);
            let mut told = Vec::new();
            for output in self.out.take_outputs() {
                let bytes = match output {
                    Output::Frame { range, .. } => self.out.bytes()[range].to_vec(),
                    Output::Shared { bytes, .. } => bytes.to_vec(),
                    other => panic!("{other:?}"),
                };
                let fed = Deframer::new(PEER_BODY_MAX).feed(&bytes, |_, frame| {
                    told.push(match frame.kind() {
                        Some(Kind::FeedOk) => {
                            assert_eq!(frame.header.request_id, 77);
                            Told::Ok(frame.decode::<FeedOk>().expect("a FeedOk").after)
                        }
                        _ => {
                            let feed: Feed = frame.decode().expect("a Feed");
                            let bytes = (HEADER_LEN + frame.body.len()) as u64;
                            Told::Feed(feed.after, feed.upto, feed.changes.len(), bytes)
                        }
                    });
                    Flow::Continue
                });
                fed.expect("whole frames");
            }
            self.out.recycle(Vec::new());
            told
        }
    }

    #[test]
    fn a_front_goes_on_where_it_is_as_long_as_that_is_kept() {
        let mut bench = Bench::new();
        for n in 0..3 {
            bench.put(n, 1);
            assert_eq!(bench.turn(), [], "nobody listens");
        }
        bench.open(Some(1));
        let told = bench.turn();
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(told[0], Told::Ok(1));
        assert!(matches!(told[1..], [Told::Feed(1, 2, 2, _), Told::Feed(2, 3, 2, _)]), "{told:?}");
        // In the midst of a turn it is told of the whole.
        bench.put(3, 1);
        bench.put(4, 1);
        bench.turn();
        bench.open(Some(4));
        assert!(matches!(bench.turn()[..], [Told::Ok(4), Told::Feed(3, 5, 3, _)]));
        bench.open(None);
        assert_eq!(bench.turn(), [Told::Ok(5)], "one that keeps nothing needs nothing of what was");
        for n in 0..10_000 {
            bench.put(n, 1);
            bench.turn();
        }
        assert!(bench.source.kept_bytes <= KEPT_BYTES_MAX);
        bench.open(Some(5));
        assert_eq!(bench.turn(), [Told::Ok(10_005)], "what was after 5 is forgotten");
    }

    #[test]
    fn a_front_that_is_ahead_is_answered_when_as_much_is_applied() {
        let mut bench = Bench::new();
        bench.put(0, 1);
        bench.open(Some(3));
        assert_eq!(bench.turn(), []);
        bench.put(1, 1);
        assert_eq!(bench.turn(), []);
        bench.put(2, 1);
        assert_eq!(bench.turn(), [Told::Ok(3)]);
        bench.put(3, 1);
        assert!(matches!(bench.turn()[..], [Told::Feed(3, 4, 2, _)]));
    }

    /// It is told what it has missed when it goes on, or that it must begin anew.
    #[test]
    fn a_front_that_does_not_read_is_sent_a_bounded_amount() {
        let mut bench = Bench::new();
        bench.open(None);
        bench.turn();
        let (mut sent, mut upto) = (0, 0);
        for n in 0..1_000 {
            bench.put(10 * n, 10);
            for told in bench.turn() {
                let Told::Feed(_, last, _, bytes) = told else { panic!("{told:?}") };
                (sent, upto) = (sent + bytes, last);
            }
        }
        assert!((UNREAD_BYTES_MAX..UNREAD_BYTES_MAX + 10_000).contains(&sent), "{sent} bytes");
        bench.source.on_read(FRONT, FeedRead { bytes: sent });
        let told = bench.turn();
        assert!(matches!(told[0], Told::Feed(after, ..) if after == upto), "it goes on: {:?}", told[0]);
        for n in 0..2_000 {
            bench.put(10 * n, 10);
            assert_eq!(bench.turn(), []);
        }
        bench.source.on_read(FRONT, FeedRead { bytes: u64::MAX });
        assert_eq!(bench.turn(), [Told::Ok(3_000)], "too much was missed");
        bench.put(0, 1);
        assert!(matches!(bench.turn()[..], [Told::Feed(3_000, 3_001, ..)]));
    }

    #[test]
    fn a_turn_of_many_changes_is_told_in_several_frames_and_of_too_many_not_at_all() {
        let mut bench = Bench::new();
        bench.open(None);
        bench.turn();
        (0..20).for_each(|n| bench.put(256 * n, 256));
        let told = bench.turn();
        assert!(matches!(told[..], [Told::Feed(0, 0, FEED_CHANGES_MAX, _), Told::Feed(0, 20, ..)]), "{}", told.len());
        bench.source.on_read(FRONT, FeedRead { bytes: u64::MAX });
        (0..300).for_each(|n| bench.put(256 * n, 256));
        assert_eq!(bench.turn(), [Told::Ok(320)]);
    }
}

//! A front that keeps answers, among catalogs that the test plays.

use pygmy_proto::header::{FLAG_FRESH, FLAG_NO_CACHE};
use pygmy_proto::limits::STALENESS_MS_MAX;

use super::*;

/// A front with a cache, two catalogs and a client; the first catalog has been asked for its feed.
struct Cached {
    bench: Bench,
    catalogs: [ConnId; 2],
    client: ConnId,
    feed: u64,
    requests: u64,
}

fn book(id: &str, stock: u32, changed_seq: u64) -> Book {
    let title = pygmy_proto::types::title("a title").expect("a valid title");
    let topic = pygmy_proto::types::topic("x").expect("a valid topic");
    Book { id: BookId::new(id).expect("a valid id"), title, topic, cost_cents: 1, stock, changed_seq }
}

fn ask(id: &str, floor: u64) -> Lookup {
    Lookup { floor, book: BookId::new(id).expect("a valid id") }
}

fn stock(id: &str, seq: u64, stock: u32) -> FeedChange {
    FeedChange::Stock { book: BookId::new(id).expect("a valid id"), seq, stock }
}

impl Cached {
    /// With the feed open behind position 10, and barriers that say 10.
    fn new() -> Self {
        let mut bench = Bench::new(FRONT);
        bench.node.keep_cache(1 << 20);
        bench.floor = Some(10);
        let (first, asked) = bench.server_and_frames(CATALOGS[0]);
        let (second, _) = bench.server_and_frames(CATALOGS[1]);
        let opens: Vec<&Seen> = asked.iter().filter(|seen| seen.header.kind == Kind::FeedOpen as u16).collect();
        assert_eq!((opens.len(), opens[0].conn, opens[0].decode::<FeedOpen>().after), (1, first, None));
        let feed = opens[0].header.request_id;
        let client = bench.client();
        let mut cached = Self { bench, catalogs: [first, second], client, feed, requests: 0 };
        assert!(cached.say(0, feed, &FeedOk { after: 10 }).is_empty());
        cached
    }

    fn say<M: Message>(&mut self, catalog: usize, id: u64, message: &M) -> Vec<Seen> {
        self.bench.send(self.catalogs[catalog], id, CATALOGS[catalog].into(), 0, message)
    }

    /// A request of the client under a new id.
    fn ask(&mut self, flags: u8, message: &impl Message) -> Vec<Seen> {
        self.requests += 1;
        self.bench.send(self.client, self.requests, 1_000, flags, message)
    }

    fn tell(&mut self, after: u64, upto: u64, changes: Vec<FeedChange>) -> Vec<Seen> {
        self.say(0, 0, &Feed { after, upto, changes: Bounded::truncated(changes) })
    }

    /// Asks for a book that is not kept and answers for the catalog.
    fn fill(&mut self, id: &str, seq: u64, stock: u32) {
        let sent = self.ask(0, &ask(id, 0));
        let [sent] = &sent[..] else { panic!("it is passed on: {sent:?}") };
        let answer = LookupOk { seq, book: book(id, stock, 1) };
        let told = self.bench.send(sent.conn, sent.header.request_id, 4, 0, &answer);
        assert_eq!((told[0].conn, told[0].decode::<LookupOk>()), (self.client, answer));
    }

    fn status(&self) -> FrontStatus {
        self.bench.node.status(self.bench.now).front.expect("it is a front")
    }
}

impl Bench {
    fn server_and_frames(&mut self, node: u16) -> (ConnId, Vec<Seen>) {
        let conn = self.conn();
        self.input(Input::Opened { conn, node });
        self.turn();
        let place = usize::from(node % 256) - 1;
        let answer = HelloOk {
            version: VERSION,
            role: ROLES[place],
            node,
            name: Name::truncated(&cluster().nodes[place].name),
            cluster: [7; 16],
            body_max: 1,
            in_flight_max: 1,
            replica: Some(replica_hello(node)),
        };
        (conn, self.send(conn, 1, 0, 0, &answer))
    }
}

#[test]
fn what_was_asked_once_is_answered_from_the_cache_and_follows_the_feed() {
    let mut front = Cached::new();
    front.fill("a", 10, 5);
    let told = front.ask(0, &ask("a", 0));
    assert_eq!((told[0].conn, told[0].header.aux), (front.client, u32::from(FRONT)));
    assert_eq!(told[0].decode::<LookupOk>(), LookupOk { seq: 10, book: book("a", 5, 1) });
    assert!(front.tell(10, 12, vec![stock("a", 11, 4)]).is_empty());
    let told = front.ask(0, &ask("a", 12));
    assert_eq!(told[0].decode::<LookupOk>(), LookupOk { seq: 12, book: book("a", 4, 11) });
    let status = front.status();
    assert_eq!((status.hits, status.misses, status.invalidations, status.entries), (2, 1, 1, 1));
    assert_eq!((status.processed, status.feed), (12, CATALOGS[0]));
}

#[test]
fn a_book_that_is_not_there_is_an_answer_until_it_is_added() {
    let mut front = Cached::new();
    let sent = front.ask(0, &ask("a", 0));
    let unknown = crate::store::unknown_book(&ask("a", 0).book).at(10);
    front.bench.send(sent[0].conn, sent[0].header.request_id, 4, 0, &unknown);
    front.tell(10, 11, vec![]);
    let told = front.ask(0, &ask("a", 11));
    assert_eq!((told[0].conn, told[0].decode::<ErrorBody>()), (front.client, unknown.at(11)));
    front.tell(11, 12, vec![FeedChange::Book { book: book("a", 7, 12) }]);
    assert_eq!(front.ask(0, &ask("a", 0))[0].decode::<LookupOk>(), LookupOk { seq: 12, book: book("a", 7, 12) });
}

/// The stale-set race: the answer left before a change and comes after it was told.
#[test]
fn an_answer_that_a_change_has_overtaken_is_passed_on_but_not_kept() {
    let mut front = Cached::new();
    let sent = front.ask(0, &ask("a", 0));
    front.tell(10, 11, vec![stock("a", 11, 4)]);
    let answer = LookupOk { seq: 10, book: book("a", 5, 1) };
    let told = front.bench.send(sent[0].conn, sent[0].header.request_id, 4, 0, &answer);
    assert_eq!(told[0].decode::<LookupOk>(), answer, "it reaches the floor that it was asked for with");
    assert_eq!((front.status().refused, front.status().entries), (1, 0));
    assert_eq!(front.ask(0, &ask("a", 0))[0].header.kind, Kind::Lookup as u16, "it is asked for again");
}

#[test]
fn reads_that_ask_the_same_go_once_and_each_has_its_own_floor() {
    let mut front = Cached::new();
    let sent = front.ask(0, &ask("a", 0));
    assert_eq!(sent.len(), 1);
    assert!(front.ask(0, &ask("a", 3)).is_empty());
    assert!(front.ask(0, &ask("a", 20)).is_empty());
    assert_eq!(front.ask(0, &ask("b", 0)).len(), 1, "another question");
    let told = front.say(0, sent[0].header.request_id, &LookupOk { seq: 15, book: book("a", 5, 1) });
    let answered: Vec<u64> =
        told.iter().filter(|seen| seen.conn == front.client).map(|seen| seen.header.request_id).collect();
    assert_eq!(answered, [1, 2]);
    // The third one waits for the feed, and then is asked for again.
    let again = &front.bench.pass(5)[0];
    assert_eq!(again.decode::<Lookup>().floor, 20);
    let told =
        front.bench.send(again.conn, again.header.request_id, 5, 0, &LookupOk { seq: 20, book: book("a", 5, 1) });
    assert_eq!((told[0].header.request_id, told[0].decode::<LookupOk>().seq), (3, 20));
    let status = front.status();
    assert_eq!((status.misses, status.coalesced, front.bench.node.status(front.bench.now).jobs), (4, 2, 1));
}

#[test]
fn those_that_wait_for_an_answer_go_on_by_themselves_when_there_is_none() {
    for gone in [true, false] {
        let mut front = Cached::new();
        let sent = front.ask(0, &ask("a", 0));
        let other = front.bench.client();
        assert!(front.bench.send(other, 1, 1_000, 0, &ask("a", 0)).is_empty());
        let told = if gone {
            front.bench.lose(front.client)
        } else {
            let error = ErrorBody::new(ErrorCode::DeadlineExceeded);
            front.bench.send(sent[0].conn, sent[0].header.request_id, 4, 0, &error)
        };
        let again = told.iter().find(|seen| seen.header.kind == Kind::Lookup as u16).expect("asked for again");
        let answer = LookupOk { seq: 10, book: book("a", 5, 1) };
        let told = front.bench.send(again.conn, again.header.request_id, 4, 0, &answer);
        assert_eq!((told[0].conn, told[0].decode::<LookupOk>()), (other, answer), "gone: {gone}");
    }
}

/// Without a barrier nobody knows how old an answer may be, and one counts from when it was sent.
#[test]
fn a_read_waits_for_a_barrier_that_was_sent_lately() {
    let mut front = Cached::new();
    front.fill("a", 10, 5);
    front.bench.floor = None;
    front.bench.pass(u64::from(STALENESS_MS_MAX));
    let asked = front.ask(0, &ask("a", 0));
    assert!(asked.iter().any(|seen| seen.header.kind == Kind::LookupOk as u16), "it holds to the end");
    let floor = asked.iter().find(|seen| seen.header.kind == Kind::Floor as u16).expect("a question").clone();
    front.bench.pass(1);
    assert!(front.ask(0, &ask("a", 0)).is_empty(), "now it does not");
    assert_eq!(floor.conn, front.catalogs[0], "the one that feeds is asked first");
    // It says nothing, so the next one is asked. Its answer counts from when it was asked.
    let asked = front.bench.pass(83);
    assert_eq!((asked[0].header.kind, asked[0].conn), (Kind::Floor as u16, front.catalogs[1]));
    let told = front.say(1, asked[0].header.request_id, &FloorOk { seq: 10 });
    assert_eq!((told[0].conn, told[0].decode::<LookupOk>().seq), (front.client, 10));
    front.bench.pass(u64::from(STALENESS_MS_MAX) - 1);
    front.say(0, floor.header.request_id, &FloorOk { seq: 10 });
    assert_eq!(front.status().fresh_age_ms, Some(u64::from(STALENESS_MS_MAX) - 1), "a late answer to an old question");
}

#[test]
fn without_a_catalog_nobody_waits_for_a_barrier() {
    let mut front = Cached::new();
    front.bench.floor = None;
    front.bench.pass(300);
    assert_eq!(front.ask(0, &ask("a", 0))[0].header.kind, Kind::Floor as u16);
    let asked = front.bench.lose(front.catalogs[0]);
    assert!(asked.iter().any(|seen| (seen.conn, seen.header.kind) == (front.catalogs[1], Kind::Floor as u16)));
    let told = front.bench.lose(front.catalogs[1]);
    assert_eq!((told[0].conn, told[0].error()), (front.client, ErrorCode::Unavailable));
    assert_eq!(front.ask(0, &ask("a", 0))[0].error(), ErrorCode::Unavailable);
}

/// The answer took so long that the floor it was asked for with says nothing any more.
#[test]
fn an_answer_that_comes_too_late_is_asked_for_again() {
    let mut front = Cached::new();
    let sent = front.ask(0, &ask("a", 0));
    front.bench.floor = Some(20);
    front.bench.pass(u64::from(STALENESS_MS_MAX) + 1);
    let answer = LookupOk { seq: 10, book: book("a", 5, 1) };
    assert!(front.bench.send(sent[0].conn, sent[0].header.request_id, 4, 0, &answer).is_empty());
    // Not even the feed has come as far.
    let again = front.bench.pass(5);
    assert_eq!((again[0].header.kind, again[0].decode::<Lookup>().floor), (Kind::Lookup as u16, 20));
    let answer = LookupOk { seq: 20, book: book("a", 5, 1) };
    let told = front.bench.send(again[0].conn, again[0].header.request_id, 4, 0, &answer);
    assert_eq!((told[0].conn, told[0].decode::<LookupOk>()), (front.client, answer));
}

/// The own writes of a front are in every answer, also while its feed has not told of them.
#[test]
fn a_read_behind_an_acknowledged_write_waits_for_the_feed_a_little() {
    let mut front = Cached::new();
    front.fill("a", 10, 5);
    let order = front.bench.server(ORDERS[0]);
    let sent = front.ask(0, &write(1));
    front.bench.send(order, sent[0].header.request_id, 2, 0, &write_ok(11));
    assert!(front.ask(0, &ask("a", 0)).is_empty());
    let told = front.tell(10, 11, vec![stock("a", 11, 4)]);
    assert_eq!(told[0].decode::<LookupOk>(), LookupOk { seq: 11, book: book("a", 4, 11) });
    assert_eq!((front.status().hits, front.status().delayed), (1, 1));
    // The feed that does not come is not waited for.
    let sent = front.ask(0, &write(2));
    front.bench.send(order, sent[0].header.request_id, 2, 0, &write_ok(12));
    assert!(front.ask(0, &ask("a", 0)).is_empty());
    let passed_on = front.bench.pass(5);
    assert_eq!(passed_on[0].decode::<Lookup>().floor, 12);
}

#[test]
fn fresh_reads_and_those_without_the_cache_go_past_it() {
    let mut front = Cached::new();
    front.fill("a", 10, 5);
    for flags in [FLAG_FRESH, FLAG_NO_CACHE] {
        let sent = front.ask(flags, &ask("a", 0));
        assert_eq!((sent[0].header.kind, sent[0].header.flags), (Kind::Lookup as u16, flags));
        assert_eq!(front.ask(flags, &ask("a", 0)).len(), 1, "and wait for no other");
    }
    let sent = front.ask(FLAG_NO_CACHE, &ask("a", 0));
    assert_eq!(sent[0].decode::<Lookup>().floor, 10, "the floor is the same");
    let status = front.status();
    assert_eq!((status.hits, status.misses, status.coalesced), (0, 1, 0));
}

#[test]
fn the_feed_goes_on_at_another_catalog_and_what_is_kept_stays() {
    let mut front = Cached::new();
    front.fill("a", 10, 5);
    front.tell(10, 12, vec![]);
    let asked = front.bench.lose(front.catalogs[0]);
    let open = asked.iter().find(|seen| seen.header.kind == Kind::FeedOpen as u16).expect("another one is asked");
    assert_eq!((open.conn, open.decode::<FeedOpen>().after), (front.catalogs[1], Some(12)));
    let number = open.header.request_id;
    front.say(1, number, &FeedOk { after: 12 });
    front.say(1, 0, &Feed { after: 11, upto: 13, changes: Bounded::truncated(vec![stock("a", 13, 4)]) });
    assert_eq!(front.ask(0, &ask("a", 13))[0].decode::<LookupOk>().book.stock, 4);
    assert_eq!((front.status().emptied, front.status().feed), (0, CATALOGS[1]));
    // One that begins elsewhere has not told what lies between.
    front.say(1, number, &FeedOk { after: 20 });
    assert_eq!((front.status().emptied, front.status().entries, front.status().processed), (1, 0, 20));
}

#[test]
fn in_doubt_the_cache_is_emptied_and_the_feed_begun_anew() {
    let doubtful: [fn(&mut Cached) -> Vec<Seen>; 4] = [
        |front| front.tell(11, 12, vec![]),
        |front| front.tell(8, 9, vec![]),
        |front| {
            let mut bytes = BytesMut::new();
            frame::write_raw(&mut bytes, Kind::Feed as u16, 0, 0, 0, b"no feed");
            front.bench.send_bytes(front.catalogs[0], &bytes)
        },
        |front| {
            let lost = front.bench.lose(front.catalogs[0]);
            assert_eq!(lost.iter().filter(|seen| seen.header.kind == Kind::FeedOpen as u16).count(), 1);
            front.catalogs[0] = front.bench.server(CATALOGS[0]);
            // The second one never says that it has applied as much.
            front.bench.pass(100)
        },
    ];
    for (case, doubt) in doubtful.into_iter().enumerate() {
        let mut front = Cached::new();
        front.fill("a", 10, 5);
        let asked = doubt(&mut front);
        let open = asked.iter().find(|seen| seen.header.kind == Kind::FeedOpen as u16);
        let open = open.unwrap_or_else(|| panic!("case {case}: the feed is begun anew"));
        assert_eq!(open.decode::<FeedOpen>().after, None, "case {case}");
        assert_eq!((front.status().entries, front.status().emptied), (0, 1), "case {case}");
    }
}

/// What one says who was given up is not listened to.
#[test]
fn a_feed_that_was_left_is_not_heard_any_more() {
    let mut front = Cached::new();
    front.fill("a", 10, 5);
    let asked = front.tell(11, 12, vec![]);
    let open = asked.iter().find(|seen| seen.header.kind == Kind::FeedOpen as u16).expect("another one is asked");
    assert_eq!(open.conn, front.catalogs[1]);
    let number = open.header.request_id;
    let feed = front.feed;
    front.say(0, feed, &FeedOk { after: 50 });
    front.tell(50, 51, vec![]);
    assert_eq!((front.status().processed, front.status().feed), (10, 0));
    front.say(1, number, &FeedOk { after: 30 });
    assert_eq!((front.status().processed, front.status().feed), (30, CATALOGS[1]));
}

#[test]
fn a_feed_that_stays_behind_what_barriers_tell_is_left() {
    let mut front = Cached::new();
    front.bench.floor = Some(11);
    let mut moved = Vec::new();
    for number in 1..=4 {
        let mut sent = front.bench.pass(84);
        for catalog in CATALOGS {
            sent.extend(front.bench.beat(catalog, number, false, &[FRONT]));
        }
        sent.extend(front.ask(0, &ask("a", 0)));
        moved.extend(sent.into_iter().filter(|seen| seen.header.kind == Kind::FeedOpen as u16));
    }
    assert_eq!((moved.len(), moved[0].conn), (1, front.catalogs[1]));
}

#[test]
fn what_was_read_of_the_feed_is_told() {
    let mut front = Cached::new();
    let mut told = Vec::new();
    let mut bytes = 0;
    for seq in 10..40 {
        let title = pygmy_proto::types::title(&"x".repeat(500)).expect("a valid title");
        let books = (0..10).map(|_| FeedChange::Book { book: Book { title: title.clone(), ..book("a", 1, seq + 1) } });
        let feed = Feed { after: seq, upto: seq + 1, changes: Bounded::truncated(books.collect()) };
        bytes += frame::to_bytes(0, 0, 0, &feed).len() as u64;
        told.extend(front.say(0, 0, &feed));
    }
    let read: Vec<FeedRead> = told.iter().map(Seen::decode).collect();
    assert!(!read.is_empty() && read.len() as u64 <= bytes / (64 * 1024), "{read:?} of {bytes}");
}

//! The experiments of the course system that this store redoes, on whole clusters of processes: caches that never show
//! what was sold, the death and return of an order and a catalog server, and the death of a front.

mod local_support;
mod patience;

use std::collections::BTreeSet;
use std::process::Command as Program;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use pygmy_client::{Asks, BookId, Client, Command, Completion, Options, Pipelined, Request};
use pygmy_node::settings::ClusterSettings;
use pygmy_proto::inventory;
use pygmy_proto::message::{Lookup, Stage};
use pygmy_proto::types::Topic;

use local_support::Place;
use patience::{until, wait};

const UP: &[&str] = &["up", "--detach", "--base-port", "0"];
/// A read sent this long after a write was acknowledged shows it, whoever asks and through whichever front.
const STALENESS_MAX: Duration = Duration::from_millis(250);
/// A call that lasts longer than this has failed.
const CALL: Duration = Duration::from_secs(20);
const PLENTY: u32 = 100_000;
const FRONTS: [&str; 2] = ["front-1", "front-2"];

/// A cluster, and who talks to it.
struct Shop {
    place: Place,
    settings: ClusterSettings,
    book: BookId,
    topic: Topic,
    /// Stock of the book at the beginning.
    initial: u32,
}

impl Shop {
    fn open() -> Self {
        let place = Place::new();
        place.done(UP);
        let settings = place.settings();
        let first = &inventory::builtin()[0];
        let (book, topic) = (first.id, first.topic);
        let shop = Self { place, settings, book, topic, initial: first.stock + PLENTY };
        shop.client(&FRONTS).restock(book, PLENTY).expect("a book that is there");
        shop
    }

    fn options(&self, fronts: &[&str]) -> Options {
        let address = |name: &&str| self.settings.node_named(name).expect("a front").address.clone();
        Options::new(fronts.iter().map(address))
    }

    fn client(&self, fronts: &[&str]) -> Client {
        let mut client = Client::new(self.options(fronts));
        client.set_timeout(CALL);
        client.set_trace(true);
        client
    }

    fn stock(&self, client: &mut Client) -> u32 {
        client.lookup(self.book).expect("it is answered").book.stock
    }

    /// Buys a copy; how many are left by the position of the sale, and that position.
    fn sell(&self, buyer: &mut Client) -> u64 {
        buyer.buy(&[(self.book, 1)]).expect("there are plenty").seq
    }

    fn signal(&self, name: &str, signal: &str) {
        let pid = self.place.pid(name);
        assert!(Program::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    /// Name of the catalog that tells `front` what changes.
    fn feed_of(&self, front: &str) -> Option<String> {
        let feed = self.place.ask(front)?.front?.feed;
        Some(self.settings.node(feed)?.name.clone())
    }

    fn hits(&self, front: &str) -> u64 {
        self.place.status(front).front.expect("a front").hits
    }

    /// Names of the servers of `stage` that the latest answer of `client` names.
    fn served_by(&self, client: &Client, stage: Stage) -> BTreeSet<String> {
        let spans = client.last().trace.iter().filter(|span| span.stage == stage);
        spans.map(|span| self.settings.node(span.node).expect("a node").name.clone()).collect()
    }
}

/// Whatever was stopped goes on, also when a test fails: only then can it be taken down in order.
struct Paused<'a> {
    shop: &'a Shop,
    name: String,
}

impl<'a> Paused<'a> {
    fn new(shop: &'a Shop, name: &str) -> Self {
        shop.signal(name, "-STOP");
        Self { shop, name: name.to_owned() }
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.shop.signal(&self.name, "-CONT");
    }
}

/// Looks through `reader` until the bound of staleness has passed since now; from then on it is never old.
fn watch_others(shop: &Shop, reader: &mut Client, sold: u32) {
    let acknowledged = Instant::now();
    loop {
        let is_due = acknowledged.elapsed() > STALENESS_MAX;
        let stock = shop.stock(reader);
        assert!(stock == sold || (!is_due && stock == sold + 1), "{stock} left, it should be {sold}");
        if is_due {
            return;
        }
    }
}

#[test]
fn no_cache_shows_what_was_sold_beyond_its_bound_and_never_to_the_buyer() {
    let shop = Shop::open();
    let (mut reader, mut buyer) = (shop.client(&FRONTS[..1]), shop.client(&FRONTS[1..]));
    let mut stranger = shop.client(&FRONTS[1..]);
    let mut sold = shop.stock(&mut buyer);
    reader.raise_floor(buyer.floor());
    for _ in 0..10 {
        assert_eq!(shop.stock(&mut reader), sold);
        shop.sell(&mut buyer);
        sold -= 1;
        assert_eq!(shop.stock(&mut stranger), sold, "the front has acknowledged it itself");
        watch_others(&shop, &mut reader, sold);
    }
    for _ in 0..100 {
        let mut moved = shop.client(&FRONTS[..1]);
        moved.raise_floor(buyer.floor());
        assert_eq!(shop.stock(&mut moved), sold);
        moved.raise_floor(shop.sell(&mut buyer));
        sold -= 1;
        assert_eq!(shop.stock(&mut moved), sold, "who has seen it sees it through any front");
        assert_eq!(shop.stock(&mut buyer), sold, "who has done it sees it");
    }
    let front = shop.place.status("front-1").front.expect("a front");
    assert!(front.hits > 200 && front.invalidations >= 10, "hardly anything was cached: {front:?}");
}

#[test]
fn a_cache_whose_feed_has_stopped_does_not_show_what_was_sold_either() {
    let shop = Shop::open();
    let mut buyer = shop.client(&FRONTS[1..]);
    let mut sold = shop.stock(&mut buyer);
    for front in FRONTS {
        let mut reader = shop.client(&[front]);
        reader.raise_floor(buyer.floor());
        let feed = until("a feed", || shop.feed_of(front));
        wait("the book to be kept", || {
            let hits = shop.hits(front);
            assert_eq!(shop.stock(&mut reader), sold);
            shop.hits(front) > hits
        });
        let _paused = Paused::new(&shop, &feed);
        // A sale takes until the others have noticed, if it was the token's turn there; else it is done at once.
        shop.sell(&mut buyer);
        sold -= 1;
        if front == FRONTS[1] {
            assert_eq!(shop.stock(&mut reader), sold, "the front has acknowledged it itself");
        }
        watch_others(&shop, &mut reader, sold);
    }
}

/// Everything a client can ask for, each of which must be answered; copies of the book sold by it.
fn ask_for_everything(shop: &Shop, client: &mut Client) -> i64 {
    let other = inventory::builtin()[1].id;
    client.lookup(shop.book).expect("a book");
    assert!(!client.search(shop.topic, 10, None).expect("a list").books.is_empty());
    assert!(client.topics(10, None).expect("a list").total > 0);
    let done = client.buy(&[(shop.book, 1)]).expect("there are plenty");
    client.buy(&[(shop.book, 2), (other, 1)]).expect("there are plenty");
    client.restock(shop.book, 1).expect("a book");
    client.restock(other, 1).expect("a book");
    client.reprice(shop.book, 1_000 + done.counter).expect("a book");
    assert!(!client.orders(None, 10, None).expect("a list").orders.is_empty());
    2
}

#[test]
fn with_one_order_and_one_catalog_dead_everything_is_answered_and_both_serve_again() {
    let shop = Shop::open();
    let mut client = shop.client(&FRONTS);
    client.set_no_cache(true);
    let stocked = i64::from(shop.stock(&mut client));
    let mut sold = ask_for_everything(&shop, &mut client);
    for (order, catalog) in [("order-1", "catalog-2"), ("order-2", "catalog-1")] {
        shop.place.done(&["kill", order]);
        shop.place.done(&["kill", catalog]);
        for _ in 0..10 {
            sold += ask_for_everything(&shop, &mut client);
        }
        for name in [order, catalog] {
            shop.place.done(&["start", name]);
        }
        wait("a lookup to be answered by the catalog again", || {
            shop.stock(&mut client);
            shop.served_by(&client, Stage::Catalog).contains(catalog)
        });
        wait("a list of orders to be answered by the order server again", || {
            client.orders(None, 1, None).expect("a list");
            shop.served_by(&client, Stage::Order).contains(order)
        });
        let (mut through_order, mut through_catalog) = (false, false);
        wait("writes to go through both again", || {
            shop.sell(&mut client);
            sold += 1;
            let has = |stage, name| shop.served_by(&client, stage).contains(name);
            through_order |= has(Stage::Order, order);
            through_catalog |= has(Stage::Catalog, catalog);
            through_order && through_catalog
        });
    }
    assert_eq!(i64::from(shop.stock(&mut client)), stocked - sold, "each took effect once");
}

/// The end of a call of [`Traffic`].
struct End {
    at: Instant,
    is_write: bool,
    completion: Completion,
}

/// Lookups and restocks at a steady pace through one pipelined client, none of which may fail.
struct Traffic<'a> {
    shop: &'a Shop,
    ends: mpsc::Receiver<End>,
    /// Front that made or passed on the latest answer.
    front: String,
    restocked: u32,
    /// Calls that were sent more than once.
    resent: usize,
    acknowledged: Instant,
    gap_max: Duration,
}

impl<'a> Traffic<'a> {
    fn new(shop: &'a Shop, ends: mpsc::Receiver<End>) -> Self {
        let (acknowledged, gap_max) = (Instant::now(), Duration::ZERO);
        Self { shop, ends, front: String::new(), restocked: 0, resent: 0, acknowledged, gap_max }
    }

    fn take(&mut self, End { at, is_write, completion }: End) {
        assert!(completion.result.is_ok(), "{completion:?}");
        self.resent += usize::from(completion.sends > 1);
        if let Some(span) = completion.trace.iter().find(|span| span.stage == Stage::Front) {
            self.front.clone_from(&self.shop.settings.node(span.node).expect("a node").name);
        }
        if is_write {
            self.restocked += 1;
            self.gap_max = self.gap_max.max(at.duration_since(self.acknowledged));
            self.acknowledged = at;
        }
    }

    /// Waits until answers come through `front`; then on until writes do.
    fn await_front(&mut self, front: &str) {
        wait("answers through the other front", || {
            self.ends.try_iter().collect::<Vec<_>>().into_iter().for_each(|end| self.take(end));
            self.front == front
        });
        let known = self.restocked;
        wait("a write through it", || {
            self.ends.try_iter().collect::<Vec<_>>().into_iter().for_each(|end| self.take(end));
            self.restocked > known + 10
        });
    }
}

/// Submits until told to stop, and tells every end.
fn submit_steadily(shop: &Shop, client: &Pipelined, is_over: &AtomicBool, ends: &mpsc::Sender<End>) {
    let asks = Asks { trace: true, ..Asks::default() };
    while !is_over.load(Ordering::SeqCst) {
        let restock = Command::Restock { book: shop.book, copies: 1 };
        let lookup = Lookup { floor: 0, book: shop.book };
        for (is_write, request) in [(true, Request::Write(restock)), (false, Request::Lookup(lookup))] {
            let ends = ends.clone();
            let tell = move |completion| drop(ends.send(End { at: Instant::now(), is_write, completion }));
            client.try_submit(request, CALL, asks, tell).expect("it has room");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// `PYGMY_FAILOVER_ROUNDS` makes it go on for longer; the gaps between acknowledged writes are on standard output.
#[test]
fn no_call_fails_while_fronts_are_killed_and_paused() {
    let shop = Shop::open();
    let rounds = std::env::var("PYGMY_FAILOVER_ROUNDS").map_or(1, |rounds| rounds.parse().expect("a number"));
    let client = Pipelined::start(shop.options(&FRONTS), 100_000).expect("a thread");
    let (is_over, (sender, ends)) = (AtomicBool::new(false), mpsc::channel());
    let mut traffic = Traffic::new(&shop, ends);
    thread::scope(|scope| {
        let stop = StopAtEnd(&is_over);
        scope.spawn(|| submit_steadily(&shop, &client, &is_over, &sender));
        traffic.await_front("front-1");
        for round in 0..2 * rounds {
            let (present, other) = (FRONTS[round % 2], FRONTS[(round + 1) % 2]);
            traffic.gap_max = Duration::ZERO;
            shop.signal(present, "-KILL");
            traffic.await_front(other);
            println!("killed {present}: {:?}", traffic.gap_max);
            shop.place.done(&["start", present]);
        }
        for round in 0..2 * rounds {
            let (present, other) = (FRONTS[round % 2], FRONTS[(round + 1) % 2]);
            traffic.gap_max = Duration::ZERO;
            let _paused = Paused::new(&shop, present);
            traffic.await_front(other);
            println!("paused {present}: {:?}", traffic.gap_max);
        }
        drop(stop);
    });
    client.close(CALL);
    drop(sender);
    while let Ok(end) = traffic.ends.try_recv() {
        traffic.take(end);
    }
    assert!(traffic.resent > 0, "something was in flight on each of them");
    assert_eq!(shop.stock(&mut shop.client(&FRONTS)), shop.initial + traffic.restocked, "each took effect once");
}

/// Ends the submitting, also when a check fails meanwhile.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

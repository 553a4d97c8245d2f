//! Servers come, go, fall silent, return, refuse and answer late, in any order: held against a model that knows of each
//! request only where it was sent last.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use proptest::prelude::*;
use pygmy_proto::frame::{Deframer, Flow};
use pygmy_proto::header::{FLAG_FRESH, FLAG_NO_CACHE};
use pygmy_proto::limits::{PEER_BODY_MAX, REQUESTS_IN_FLIGHT_MAX};
use pygmy_proto::message::Lookup;
use pygmy_proto::{BookId, Header, codec};

use super::*;
use crate::machine::{Now, Outbox, Output};
use crate::roles::Links;
use crate::settings::{NodeSettings, TokenMode};

const ORDERS: [u16; 3] = [2, 3, 4];
const CATALOGS: [u16; 3] = [5, 6, 7];
const CLIENTS: u64 = 3;
/// Connections with servers are numbered from here.
const LINKS: u64 = 100;

#[derive(Debug, Clone, Copy)]
enum Act {
    Ask { client: u64, write: bool },
    Answer { server: u16, which: usize, how: How },
    Down(u16),
    Up(u16),
    Suspect(u16),
    Trust(u16),
    Wait(u64),
    Hangs(u64),
}

#[derive(Debug, Clone, Copy)]
enum How {
    Done,
    Busy,
    /// For reads: it is older than what was acknowledged.
    Stale,
    /// An error that is an answer.
    Refused,
}

fn acts() -> impl Strategy<Value = Act> {
    let server = 2..8_u16;
    let how = prop_oneof![6 => Just(How::Done), 2 => Just(How::Busy), 1 => Just(How::Stale), 1 => Just(How::Refused)];
    prop_oneof![
        8 => (0..CLIENTS, any::<bool>()).prop_map(|(client, write)| Act::Ask { client, write }),
        6 => (server.clone(), 0..8_usize, how).prop_map(|(server, which, how)| Act::Answer { server, which, how }),
        1 => server.clone().prop_map(Act::Down),
        2 => server.clone().prop_map(Act::Up),
        2 => server.clone().prop_map(Act::Suspect),
        2 => server.prop_map(Act::Trust),
        1 => prop_oneof![5 => 1..100_u64, 1 => 1_000..20_000_u64].prop_map(Act::Wait),
        1 => (0..CLIENTS).prop_map(Act::Hangs),
    ]
}

/// A request as it came to a server.
#[derive(Debug, Clone)]
struct Given {
    key: u64,
    request: u64,
}

#[derive(Debug, Default)]
struct Server {
    up: bool,
    suspected: bool,
    /// What came over its link.
    given: Vec<Given>,
}

struct World {
    front: Front,
    window: usize,
    links: Links,
    out: Outbox,
    now: Now,
    servers: BTreeMap<u16, Server>,
    /// Requests without an answer: whose, which server had it last (0: it waits for its turn), and what had been acknowledged
    /// before.
    open: BTreeMap<u64, (ConnId, u16, u64)>,
    gone: BTreeSet<u64>,
    asked: u64,
    acknowledged: u64,
    writes: BTreeSet<u64>,
    /// The barrier that a catalog was asked for last.
    floor: Option<(u16, u64)>,
    /// Answers to requests that no server had.
    refused: usize,
}

fn is_order(node: u16) -> bool {
    ORDERS.contains(&node)
}

/// A request's body names it, and is never the same twice.
fn body_of(request: u64, write: bool) -> Vec<u8> {
    if write {
        return [7, request, 1, 0].iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
    }
    let mut out = BytesMut::new();
    codec::encode_to(&Lookup { floor: 0, book: BookId::new(&request.to_string()).unwrap() }, &mut out);
    out.to_vec()
}

fn header_of(kind: Kind, flags: u8, aux: u32, request_id: u64) -> Header {
    Header { body_len: 0, crc: 0, version: 0, flags, kind: kind as u16, aux, request_id }
}

impl World {
    fn new() -> Self {
        Self::with_window(WINDOW as usize)
    }

    fn with_window(window: usize) -> Self {
        Self::build(window, 0)
    }

    fn build(window: usize, cache_bytes: u64) -> Self {
        let roles = std::iter::once((1, Role::Front)).chain(ORDERS.map(|node| (node, Role::Order)));
        let nodes = roles.chain(CATALOGS.map(|node| (node, Role::Catalog))).map(|(number, role)| NodeSettings {
            number,
            name: format!("{}-{number}", role.name()),
            role,
            address: String::new(),
            log_uuid: [0; 16],
        });
        let cluster = ClusterSettings {
            id: [0; 16],
            key: Vec::new(),
            token: TokenMode::Demand,
            cache_bytes,
            nodes: nodes.collect(),
        };
        let mut world = Self {
            front: Front::new(&cluster, 1),
            window,
            links: Links::default(),
            out: Outbox::new(),
            now: Now { mono_ns: ms(1), wall_us: 0 },
            servers: ORDERS.iter().chain(&CATALOGS).map(|node| (*node, Server::default())).collect(),
            open: BTreeMap::new(),
            gone: BTreeSet::new(),
            asked: 0,
            acknowledged: 0,
            refused: 0,
            writes: BTreeSet::new(),
            floor: None,
        };
        world.front.limit_window(window as u64);
        (0..CLIENTS).for_each(|client| world.front.on_client(ConnId(client)));
        (2..8).for_each(|node| world.act(Act::Up(node)));
        world
    }

    /// Lends the front its surroundings.
    fn turn(&mut self, act: impl FnOnce(&mut Front, &mut Ctx<'_>)) {
        let mut ctx = Ctx { now: self.now, me: 1, name: "front-1", links: &self.links, out: &mut self.out };
        act(&mut self.front, &mut ctx);
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Ask { client, write } => self.ask(client, write),
            Act::Answer { server, which, how } => self.answer(server, which, how),
            Act::Down(node) => {
                let server = self.servers.get_mut(&node).unwrap();
                if std::mem::take(server).up {
                    self.links.remove(node);
                    self.turn(|front, ctx| front.on_server_down(ctx, node));
                }
            }
            Act::Up(node) => {
                let server = self.servers.get_mut(&node).unwrap();
                if !std::mem::replace(&mut server.up, true) {
                    self.links.insert(node, ConnId(LINKS + u64::from(node)), true);
                    self.turn(|front, ctx| front.on_server_up(ctx, node));
                }
            }
            Act::Suspect(node) => {
                let server = self.servers.get_mut(&node).unwrap();
                if server.up {
                    server.suspected = true;
                    self.turn(|front, ctx| front.on_suspect(ctx, node));
                }
            }
            Act::Trust(node) => {
                let server = self.servers.get_mut(&node).unwrap();
                if server.up {
                    server.suspected = false;
                    self.turn(|front, ctx| front.on_trust(ctx, node));
                }
            }
            Act::Wait(milliseconds) => {
                self.now.mono_ns += ms(milliseconds);
                self.turn(|front, ctx| front.on_timeout(ctx));
            }
            Act::Hangs(client) => {
                let (gone, stay) =
                    std::mem::take(&mut self.open).into_iter().partition(|(_, (conn, ..))| *conn == ConnId(client));
                self.open = stay;
                self.gone.extend(BTreeMap::into_keys(gone));
                self.turn(|front, ctx| front.on_client_gone(ctx, ConnId(client)));
                self.front.on_client(ConnId(client));
            }
        }
        self.turn(|front, ctx| front.end_turn(ctx));
        self.take_outputs();
        self.check();
    }

    fn ask(&mut self, client: u64, write: bool) {
        self.asked += 1;
        let request = self.asked;
        self.open.insert(request, (ConnId(client), 0, self.acknowledged));
        if write {
            self.writes.insert(request);
        }
        let body = body_of(request, write);
        let kind = if write { Kind::Write } else { Kind::Lookup };
        let flags = if write { 0 } else { FLAG_FRESH | FLAG_NO_CACHE };
        let header = header_of(kind, flags, 10_000, request);
        let frame = Frame { header, body: &body };
        self.turn(|front, ctx| front.on_request(ctx, ConnId(client), kind, &frame));
    }

    /// A server answers something that it was given, be it its own still or not.
    fn answer(&mut self, node: u16, which: usize, how: How) {
        let server = self.servers.get_mut(&node).unwrap();
        if server.given.is_empty() {
            return;
        }
        let Given { key, .. } = server.given.remove(which % server.given.len());
        let seq = self.acknowledged + 1;
        let mut body = BytesMut::new();
        let kind = match how {
            How::Busy | How::Refused => {
                let code = if matches!(how, How::Busy) { ErrorCode::Busy } else { ErrorCode::InvalidArgument };
                codec::encode_to(&ErrorBody::new(code), &mut body);
                Kind::Error
            }
            How::Done | How::Stale if is_order(node) => {
                body.extend_from_slice(&seq.to_le_bytes());
                Kind::WriteOk
            }
            How::Done | How::Stale => {
                let seq = if matches!(how, How::Stale) { self.acknowledged.saturating_sub(1) } else { seq };
                body.extend_from_slice(&seq.to_le_bytes());
                Kind::LookupOk
            }
        };
        let header = header_of(kind, 0, node.into(), key);
        let frame = Frame { header, body: &body };
        self.turn(|front, ctx| front.on_answer(ctx, node, &frame));
    }

    fn take_outputs(&mut self) {
        let outputs = self.out.take_outputs();
        for output in &outputs {
            let Output::Frame { conn, range } = output else { panic!("{output:?}") };
            let mut deframer = Deframer::new(PEER_BODY_MAX);
            let mut frames: Vec<(Header, Vec<u8>)> = Vec::new();
            deframer
                .feed(&self.out.bytes()[range.clone()], |_, frame| {
                    frames.push((frame.header, frame.body.to_vec()));
                    Flow::Continue
                })
                .unwrap();
            for (header, body) in frames {
                self.on_frame(*conn, &header, &body);
            }
        }
        self.out.recycle(outputs);
    }

    fn on_frame(&mut self, conn: ConnId, header: &Header, body: &[u8]) {
        let kind = Kind::from_u16(header.kind).unwrap();
        if conn.0 < LINKS {
            let (whose, holder, floor) = self.open.remove(&header.request_id).expect("one answer to each request");
            assert_eq!(whose, conn);
            if holder == 0 {
                let error: ErrorBody = codec::decode(body).unwrap();
                assert!(was_not_taken(&error), "it was passed to nobody: {error}");
                self.refused += 1;
            }
            if kind == Kind::WriteOk {
                let seq = u64::from_le_bytes(*body.first_chunk().unwrap());
                self.acknowledged = self.acknowledged.max(seq);
            } else if kind == Kind::LookupOk {
                let seq = u64::from_le_bytes(*body.first_chunk().unwrap());
                assert!(seq >= floor, "{seq} of {floor}");
            }
            return;
        }
        let node = (conn.0 - LINKS) as u16;
        if kind == Kind::Floor {
            self.floor = Some((node, header.request_id));
        }
        if !matches!(kind, Kind::Write | Kind::Lookup) {
            return;
        }
        let server = self.servers.get_mut(&node).unwrap();
        assert!(server.up && is_order(node) == (kind == Kind::Write));
        let request = match kind {
            Kind::Write => u64::from_le_bytes(*body[8..].first_chunk().unwrap()),
            _ => codec::decode::<Lookup>(body).unwrap().book.parse().unwrap(),
        };
        assert_eq!(body[8..], body_of(request, kind == Kind::Write)[8..], "it is what it was");
        assert!(kind == Kind::Lookup || body[..8] == 7_u64.to_le_bytes(), "and of the same session");
        server.given.push(Given { key: header.request_id, request });
        self.open.get_mut(&request).expect("nobody waits for it").1 = node;
    }

    fn check(&self) {
        assert_eq!(self.front.in_flight(), self.open.len(), "no request is lost");
        for (node, server) in &self.servers {
            let has = self.open.values().filter(|(_, holder, _)| holder == node).count();
            assert_eq!(self.front.link_status(*node, true, 0).unwrap().in_flight as usize, has, "in flight at {node}");
            assert!(server.up || has == 0, "{has} wait for {node}, which is gone");
            let role = self.servers.iter().filter(|(other, _)| is_order(**other) == is_order(*node));
            let others = role.filter(|(_, other)| other.up && !other.suspected).count();
            assert!(!server.suspected || others == 0 || has == 0, "{has} wait for {node}, which is suspected");
        }
        assert!(self.front.clients.values().map(|client| client.ids.len()).sum::<usize>() == self.open.len());
        for write in [false, true] {
            self.check_turns(write);
        }
    }

    /// What waits for its turn does so with reason, and behind what the same client asked before.
    fn check_turns(&self, write: bool) {
        let same = || self.open.iter().filter(|(request, _)| self.writes.contains(*request) == write);
        let (waiting, in_work): (Vec<_>, Vec<_>) = same().partition(|(_, (_, holder, _))| *holder == 0);
        let lane = if write { &self.front.to_orders } else { &self.front.to_catalogs };
        assert_eq!(lane.waiting(), waiting.len(), "every request is somewhere");
        assert_eq!(lane.in_work(), in_work.len() as u64);
        assert!(in_work.len() <= self.window, "{} in work", in_work.len());
        assert!(waiting.is_empty() || in_work.len() == self.window, "there is room for {}", waiting.len());
        for (request, (client, ..)) in waiting {
            let mut own = in_work.iter().filter(|(_, (other, ..))| other == client);
            assert!(own.all(|(other, _)| *other < request), "{request} was overtaken");
        }
    }

    /// A client looks up a book, and the barrier that the front may ask for is answered. How the request stands then.
    fn look_up(&mut self, client: u64, request_id: u64, book: u64) -> Stand {
        let body = body_of(book, false);
        let frame = Frame { header: header_of(Kind::Lookup, 0, 10_000, request_id), body: &body };
        self.open.insert(request_id, (ConnId(client), 0, 0));
        self.turn(|front, ctx| front.on_request(ctx, ConnId(client), Kind::Lookup, &frame));
        self.take_outputs();
        if let Some((node, number)) = self.floor.take() {
            let frame = Frame { header: header_of(Kind::FloorOk, 0, 0, number), body: &[0; 8] };
            self.turn(|front, ctx| front.on_answer(ctx, node, &frame));
            self.take_outputs();
        }
        let key = self.front.clients[&ConnId(client)].ids[&request_id];
        self.front.jobs.get_mut(key).unwrap().stand
    }

    /// A moment later, the server that has most answers what it has had longest.
    fn answer_one(&mut self, write: bool) {
        self.act(Act::Wait(1));
        let those = self.servers.iter().filter(|(node, server)| is_order(**node) == write && !server.given.is_empty());
        let most = those.max_by_key(|(node, server)| (server.given.len(), std::cmp::Reverse(**node)));
        let server = *most.expect("somebody has something").0;
        self.act(Act::Answer { server, which: 0, how: How::Done });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_request_is_lost_doubled_or_changed(
        window in prop_oneof![1..8_usize, Just(WINDOW as usize)],
        script in proptest::collection::vec(acts(), 1..200),
    ) {
        let mut world = World::with_window(window);
        for act in script {
            world.act(act);
        }
        world.act(Act::Wait(60_000));
        prop_assert_eq!(world.front.in_flight(), 0);
        prop_assert_eq!(world.front.bytes, 0);
        prop_assert!(world.front.jobs.next_timeout().is_none(), "nothing is left to wake up for");
    }
}

#[test]
fn a_former_server_that_answers_first_saves_the_wait() {
    let mut world = World::new();
    world.act(Act::Ask { client: 0, write: true });
    let (_, first, _) = world.open[&1];
    world.act(Act::Suspect(first));
    let (_, second, _) = world.open[&1];
    assert!(first != second);
    world.act(Act::Answer { server: first, which: 0, how: How::Refused });
    assert_eq!(world.open.len(), 1, "its errors are not: the other one may do better");
    world.act(Act::Ask { client: 0, write: true });
    let (_, third, _) = world.open[&2];
    world.act(Act::Suspect(third));
    world.act(Act::Answer { server: third, which: 0, how: How::Done });
    assert!(!world.open.contains_key(&2));
    assert_eq!(world.servers[&second].given.iter().filter(|given| given.request == 1).count(), 1);
}

#[test]
fn among_the_suspected_requests_stay_until_somebody_is_heard() {
    let mut world = World::new();
    for node in ORDERS {
        world.act(Act::Suspect(node));
    }
    world.act(Act::Ask { client: 0, write: true });
    let (_, holder, _) = world.open[&1];
    let other = ORDERS.into_iter().find(|node| *node != holder).unwrap();
    world.act(Act::Trust(other));
    assert_eq!(world.open[&1].1, other);
}

#[test]
fn a_client_with_one_request_waits_for_a_window_and_no_more() {
    for write in [false, true] {
        let mut world = World::with_window(8);
        for client in [0, 1] {
            (0..100).for_each(|_| world.act(Act::Ask { client, write }));
        }
        (0..50).for_each(|_| world.answer_one(write));
        world.act(Act::Ask { client: 2, write });
        let own = world.asked;
        let answers = (1..).find(|_| {
            world.answer_one(write);
            !world.open.contains_key(&own)
        });
        // Those in work, and its own.
        assert!(answers.unwrap() <= 8 + 1, "{answers:?} answers");
        let left = |client| world.open.values().filter(|(conn, ..)| *conn == ConnId(client)).count();
        // Each has had as much as the other, but for a window and a round.
        assert!(left(0).abs_diff(left(1)) <= 8 + 16, "{} and {}", left(0), left(1));
    }
}

#[test]
fn a_read_does_not_wait_for_the_answer_to_one_that_waits_behind_others() {
    let mut world = World::build(2, 1 << 20);
    let stands: Vec<_> = (1..=4).map(|request| world.look_up(0, request, request)).collect();
    assert_eq!(stands, [Stand::InWork, Stand::InWork, Stand::Queued, Stand::Queued]);
    assert_eq!(world.look_up(1, 5, 2), Stand::Aside, "that one is on its way");
    assert_eq!(world.look_up(0, 6, 4), Stand::Aside, "it would wait as long by itself");
    assert_eq!(world.look_up(1, 7, 4), Stand::Queued, "its own turn comes sooner");
}

#[test]
fn a_client_that_goes_leaves_nothing_that_waits() {
    let mut world = World::build(1, 1 << 20);
    let stands = [(0, 1, 1), (1, 2, 2), (0, 3, 1)].map(|(client, request, book)| world.look_up(client, request, book));
    assert_eq!(stands, [Stand::InWork, Stand::Queued, Stand::Aside], "the last waits for the answer to the first");
    world.turn(|front, ctx| {
        front.on_client_gone(ctx, ConnId(0));
        front.end_turn(ctx);
    });
    assert_eq!((world.front.waiting(), world.front.to_catalogs.in_work()), (0, 1), "the other one's is in work");
}

#[test]
fn a_full_table_refuses_those_who_have_much_and_nobody_else() {
    let mut world = World::new();
    let ask = |world: &mut World, client| {
        let before = world.refused;
        world.ask(client, client % 2 == 0);
        world.take_outputs();
        world.refused == before
    };
    let mut taken = [0; 20];
    for _ in 0..REQUESTS_IN_FLIGHT_MAX {
        for client in 0..20 {
            taken[client as usize] += usize::from(ask(&mut world, client));
        }
    }
    assert_eq!(world.front.in_flight(), taken.iter().sum::<usize>());
    let (least, most) = (taken.iter().min(), taken.iter().max());
    assert!(most <= least.map(|least| least + 1).as_ref() && least > Some(&5_000), "{taken:?}");
    assert!((20..90).all(|client| ask(&mut world, client)), "one of each client is always taken");
    assert!((0..20).all(|client| !ask(&mut world, client)), "and no more of those who have much");
    world.check();
    // Nothing was lost: everything is answered in the end.
    world.now.mono_ns += ms(60_000);
    world.turn(|front, ctx| front.on_timeout(ctx));
    world.take_outputs();
    assert_eq!((world.front.in_flight(), world.open.len()), (0, 0));
}

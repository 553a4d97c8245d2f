//! A front end without sockets, with a catalog that feeds it and a client, each spoken for by hand.
#![allow(dead_code, unreachable_pub, reason = "each program uses its part")]

use pygmy_node::machine::{ConnId, Input, Machine, Now, Outbox, Output};
use pygmy_node::node::Node;
use pygmy_node::settings::{ClusterSettings, NodeSettings, Settings, TokenMode};
use pygmy_proto::frame::{self, Deframer, Flow};
use pygmy_proto::header::HeaderView;
use pygmy_proto::limits::{PEER_BODY_MAX, VERSION};
use pygmy_proto::message::*;
use pygmy_proto::types::{self, Blob, Name, Text};
use pygmy_proto::{BookId, Kind};

const ROLES: [Role; 3] = [Role::Front, Role::Order, Role::Catalog];
pub const CATALOG: u16 = 3;
pub const SERVER: ConnId = ConnId(1);
pub const CLIENT: ConnId = ConnId(2);

/// A front with its outbox.
pub struct Front {
    node: Node,
    pub out: Outbox,
}

impl Front {
    pub fn new() -> Self {
        let node = |(index, role): (usize, &Role)| NodeSettings {
            number: index as u16 + 1,
            name: role.name().to_owned(),
            role: *role,
            address: String::new(),
            log_uuid: [index as u8; 16],
        };
        let nodes = ROLES.iter().enumerate().map(node).collect();
        let cluster =
            ClusterSettings { id: [7; 16], key: vec![9; 32], token: TokenMode::Demand, cache_bytes: 1 << 20, nodes };
        let settings = Settings { cluster, me: 1, address: String::new(), log_uuid: [0; 16], boot_nonce: 1 };
        Self { node: Node::new(settings, NOW).expect("a front"), out: Outbox::new() }
    }

    pub fn input(&mut self, input: Input<'_>) {
        self.node.handle(NOW, input, &mut self.out);
    }

    /// Takes a frame in and ends the turn, as the driver does.
    pub fn take(&mut self, conn: ConnId, bytes: &[u8]) {
        let (node, out) = (&mut self.node, &mut self.out);
        let fed = Deframer::new(PEER_BODY_MAX).feed(bytes, |_, frame| {
            node.handle(NOW, Input::Frame { conn, frame }, out);
            Flow::Continue
        });
        fed.expect("whole frames");
        node.end_turn(NOW, out);
    }

    /// The frames that it has sent: where to, which kind, under which id.
    pub fn sent(&mut self) -> Vec<(ConnId, Kind, u64)> {
        let outputs = self.out.take_outputs();
        let sent = outputs.iter().filter_map(|output| {
            let Output::Frame { conn, range } = output else { return None };
            let header = HeaderView::new(&self.out.bytes()[range.clone()])?.header();
            Some((*conn, Kind::from_u16(header.kind)?, header.request_id))
        });
        let sent = sent.collect();
        self.out.recycle(outputs);
        sent
    }

    /// Answers for the catalog.
    pub fn answer<M: Message>(&mut self, id: u64, message: &M) -> Vec<(ConnId, Kind, u64)> {
        self.take(SERVER, &frame::to_bytes(id, CATALOG.into(), 0, message));
        self.sent()
    }

    pub fn connect(&mut self) {
        self.input(Input::Opened { conn: SERVER, node: CATALOG });
        let replica = ReplicaHello {
            node: CATALOG,
            address: Text::default(),
            log_uuid: [2; 16],
            boot_nonce: 5,
            config_id: 1,
            promised: Epoch::default(),
            last: LogEnd::default(),
            committed: 0,
            token_hop: 0,
            want: 0,
            acked: Acked::default(),
        };
        let hello = HelloOk {
            version: VERSION,
            role: Role::Catalog,
            node: CATALOG,
            name: Name::truncated("catalog"),
            cluster: [7; 16],
            body_max: 1,
            in_flight_max: 1,
            replica: Some(replica),
        };
        self.sent();
        let asked = self.answer(1, &hello);
        let (_, _, feed) = *asked.iter().find(|(_, kind, _)| *kind == Kind::FeedOpen).expect("it wants to be fed");
        self.answer(feed, &FeedOk { after: 10 });
        self.input(Input::Accepted { conn: CLIENT });
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            role: Role::Client,
            cluster: [0; 16],
            settings: 0,
            credentials: Blob::default(),
            name: Name::truncated("test"),
            replica: None,
        };
        self.take(CLIENT, &frame::to_bytes(1, 0, 0, &hello));
        self.sent();
    }

    /// Asks once, so that the answer is kept.
    pub fn warm<M: Message, A: Message>(&mut self, question: &M, answer: &A) {
        self.take(CLIENT, &frame::to_bytes(1, 0, 0, question));
        let mut sent = self.sent();
        if let Some((_, _, id)) = sent.iter().find(|(_, kind, _)| *kind == Kind::Floor).copied() {
            sent = self.answer(id, &FloorOk { seq: 10 });
        }
        let (conn, kind, id) = sent[0];
        assert_eq!((conn, kind), (SERVER, M::KIND));
        assert_eq!(self.answer(id, answer)[0].0, CLIENT);
    }
}

pub const NOW: Now = Now { mono_ns: 1_000_000_000, wall_us: 1 };

pub fn id(text: &str) -> BookId {
    BookId::new(text).expect("a valid id")
}

pub fn book(name: &str) -> Book {
    let title = types::title("A title").expect("a valid title");
    Book { id: id(name), title, topic: types::topic("x").expect("valid"), cost_cents: 1, stock: 5, changed_seq: 3 }
}

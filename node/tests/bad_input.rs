//! Bad input over real sockets: each gets its typed error or a closed connection, and nobody else is disturbed.
#![allow(missing_docs)]

mod common;
mod patience;

use std::io::ErrorKind;
use std::time::Instant;

use bytes::BytesMut;
use common::{Client, Cluster, hello, raw_frame};
use patience::{PATIENCE, until};
use pygmy_node::driver::{Exit, Limits};
use pygmy_proto::limits::{CLIENT_BODY_MAX, HELLO_BODY_MAX, VERSION};
use pygmy_proto::message::*;
use pygmy_proto::types::{Bounded, Topic};
use pygmy_proto::{BookId, ErrorBody, ErrorCode, Kind, frame};

fn id(text: &str) -> BookId {
    BookId::new(text).expect("a valid id")
}

fn lookup(book: &str) -> Lookup {
    Lookup { floor: 0, book: id(book) }
}

/// A client that goes on with its own business while another one misbehaves.
struct Bystander(Client);

impl Bystander {
    fn new(cluster: &Cluster) -> Self {
        Self(Client::connect(cluster.front()))
    }
    fn is_undisturbed(&mut self) {
        let found: LookupOk = self.0.ask(&lookup("pioneer")).expect("the book is there");
        assert_eq!(found.book.id, id("pioneer"));
    }
}

struct Buyer {
    client: Client,
    session: u64,
    counter: u64,
}

impl Buyer {
    fn new(cluster: &Cluster) -> Self {
        let mut client = Client::connect(cluster.front());
        let session = client.ask::<_, SessionOpened>(&OpenSession {}).expect("a session").session;
        Self { client, session, counter: 0 }
    }
    fn write(&mut self, command: Command) -> Result<WriteOk, ErrorBody> {
        self.counter += 1;
        let (session, counter) = (self.session, self.counter);
        self.client.ask(&Write { session, counter, first_incomplete: counter, command })
    }
    fn buy(&mut self, book: &str, copies: u32) -> Result<WriteOk, ErrorBody> {
        self.write(Command::Buy { lines: Bounded::truncated(vec![Line { book: id(book), copies }]) })
    }
}

#[test]
fn requests_that_cannot_be_done_are_refused_with_the_reason() {
    let cluster = Cluster::small(Limits::default());
    let mut buyer = Buyer::new(&cluster);
    let unknown = buyer.client.ask::<_, LookupOk>(&lookup("nosuchbook")).expect_err("no such book");
    assert_eq!((unknown.known_code(), unknown.subject.as_str()), (Some(ErrorCode::UnknownBook), "nosuchbook"));
    let search = Search { floor: 0, topic: Topic::truncated("nosuchtopic"), limit: 10, after: None };
    let unknown = buyer.client.ask::<_, SearchOk>(&search).expect_err("no such topic");
    assert_eq!(unknown.known_code(), Some(ErrorCode::UnknownTopic));
    let page = Search { limit: 257, ..search };
    let wide = buyer.client.ask::<_, SearchOk>(&page).expect_err("too wide a page");
    assert_eq!((wide.known_code(), wide.limit, wide.actual), (Some(ErrorCode::InvalidArgument), 256, 257));
    for copies in [0, 1_000_001] {
        let refused = buyer.buy("pioneer", copies).expect_err("no such quantity");
        assert_eq!((refused.known_code(), refused.limit), (Some(ErrorCode::InvalidArgument), 1_000_000));
        assert_eq!(refused.actual, u64::from(copies));
    }
    let stock = buyer.client.ask::<_, LookupOk>(&lookup("pioneer")).expect("it is there").book.stock;
    let refused = buyer.buy("pioneer", stock + 1).expect_err("not that many");
    assert_eq!((refused.known_code(), refused.limit), (Some(ErrorCode::NotEnoughStock), stock.into()));
    assert_eq!(buyer.client.ask::<_, LookupOk>(&lookup("pioneer")).expect("it is there").book.stock, stock);
}

#[test]
fn streams_that_are_not_frames_are_told_why_and_closed() {
    let cluster = Cluster::small(Limits::default());
    let mut bystander = Bystander::new(&cluster);
    let mut bad_crc = frame::to_bytes(5, 0, 0, &lookup("pioneer")).to_vec();
    bad_crc[30] ^= 1;
    let mut long = frame::to_bytes(5, 0, 0, &lookup("pioneer")).to_vec();
    long[0..4].copy_from_slice(&(CLIENT_BODY_MAX as u32 + 1).to_le_bytes());
    let cases = [
        (bad_crc, ErrorCode::BadChecksum),
        (long, ErrorCode::FrameTooLong),
        (raw_frame(Kind::Lookup as u16, VERSION + 1, b""), ErrorCode::VersionUnsupported),
        (b"GET / HTTP/1.1\r\nHost: pygmy\r\n\r\n".to_vec(), ErrorCode::VersionUnsupported),
    ];
    for (bytes, code) in cases {
        for shaken in [true, false] {
            let mut client = if shaken { Client::connect(cluster.front()) } else { Client::silent(cluster.front()) };
            client.send_bytes(&bytes);
            let told = client.next().expect("an error before the close");
            assert_eq!((told.header.request_id, told.code()), (0, code), "handshake done: {shaken}");
            assert!(client.next().is_none(), "the connection must be closed");
            bystander.is_undisturbed();
        }
    }
    let mut early = Client::silent(cluster.front());
    early.send_bytes(&raw_frame(Kind::Hello as u16, VERSION, &vec![0; HELLO_BODY_MAX + 1]));
    let told = early.next().expect("an error before the close");
    assert_eq!((told.code(), told.error().limit), (ErrorCode::FrameTooLong, HELLO_BODY_MAX as u64));
    bystander.is_undisturbed();
}

#[test]
fn bodies_and_kinds_that_are_not_understood_leave_the_connection_usable() {
    let cluster = Cluster::small(Limits::default());
    let mut client = Client::connect(cluster.front());
    let short = raw_frame(Kind::Lookup as u16, VERSION, &[1, 2, 3]);
    let long = raw_frame(Kind::Lookup as u16, VERSION, &[0xff; 300]);
    let cases = [
        (short, ErrorCode::Malformed),
        (long, ErrorCode::Malformed),
        (raw_frame(Kind::Write as u16, VERSION, &[9; 40]), ErrorCode::Malformed),
        (raw_frame(0x7777, VERSION, b"?"), ErrorCode::Unsupported),
        (raw_frame(Kind::Token as u16, VERSION, b""), ErrorCode::Unsupported),
        (raw_frame(Kind::LookupOk as u16, VERSION, b""), ErrorCode::Unsupported),
        (raw_frame(Kind::HelloOk as u16, VERSION, b""), ErrorCode::Unsupported),
    ];
    for (bytes, code) in cases {
        client.send_bytes(&bytes);
        let told = client.next().expect("an answer");
        assert_eq!((told.header.request_id, told.code()), (5, code));
    }
    let found: LookupOk = client.ask(&lookup("pioneer")).expect("the connection still works");
    assert_eq!(found.book.id, id("pioneer"));
}

#[test]
fn another_cluster_and_another_role_are_refused() {
    let cluster = Cluster::small(Limits::default());
    let mut client = Client::silent(cluster.front());
    client.send(1, &hello([1; 16]));
    assert_eq!(client.next().expect("an answer").code(), ErrorCode::WrongCluster);
    assert!(client.next().is_none());
    let mut pretender = Client::silent(cluster.addresses[2]);
    let server =
        Hello { role: Role::Catalog, name: pygmy_proto::types::Name::truncated("catalog-3"), ..hello([7; 16]) };
    pretender.send(1, &server);
    assert_eq!(pretender.next().expect("an answer").code(), ErrorCode::BadCredentials);
    assert!(pretender.next().is_none());
    let mut hasty = Client::silent(cluster.front());
    hasty.send(1, &lookup("pioneer"));
    assert_eq!(hasty.next().expect("an answer").code(), ErrorCode::HelloExpected);
    assert!(hasty.next().is_none());
}

/// A lookup that stays in flight: the log does not reach its position.
fn endless_lookup(request_id: u64) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame::write(&mut bytes, request_id, 60_000, 0, &Lookup { floor: u64::MAX, book: id("pioneer") });
    bytes
}

#[test]
fn a_request_id_used_twice_in_flight_closes_that_connection_only() {
    let cluster = Cluster::small(Limits::default());
    let mut bystander = Bystander::new(&cluster);
    let again = [
        frame::to_bytes(5, 0, 0, &lookup("xenart177")).to_vec(),
        frame::to_bytes(5, 0, 0, &Ping {}).to_vec(),
        frame::to_bytes(5, 0, 0, &Status {}).to_vec(),
        raw_frame(Kind::OpenSession as u16, VERSION, b"no such body"),
        raw_frame(Kind::HelloOk as u16, VERSION, b""),
        raw_frame(Kind::Token as u16, VERSION, b""),
        raw_frame(0x7777, VERSION, b"?"),
    ];
    for address in &cluster.addresses {
        for (index, second) in again.iter().enumerate() {
            let mut client = Client::connect(*address);
            let mut twice = endless_lookup(5);
            twice.extend_from_slice(second);
            client.send_bytes(&twice);
            let told = client.next().expect("an error before the close");
            assert_eq!((told.header.request_id, told.code()), (0, ErrorCode::RequestIdInUse), "{address}, {index}");
            assert_eq!(told.error().subject.as_str(), "5");
            assert!(client.next().is_none());
            bystander.is_undisturbed();
        }
    }
}

#[test]
fn a_request_id_is_free_again_once_it_is_answered() {
    let cluster = Cluster::small(Limits::default());
    for address in &cluster.addresses {
        let mut client = Client::connect(*address);
        let late = Lookup { floor: u64::MAX, book: id("pioneer") };
        for _ in 0..3 {
            client.send_bytes(&frame::to_bytes(5, 1, 0, &late));
            assert_eq!(client.next().expect("an answer").code(), ErrorCode::DeadlineExceeded);
            client.send_bytes(&frame::to_bytes(5, 0, 0, &lookup("pioneer")));
            assert_eq!(client.next().expect("an answer").header.kind, Kind::LookupOk as u16);
        }
    }
}

#[test]
fn a_request_without_an_id_is_told_which_and_closed() {
    let cluster = Cluster::small(Limits::default());
    for (kind, name) in [(Kind::Lookup as u16, "Lookup"), (Kind::Ping as u16, "Ping"), (0x7777, "kind 0x7777")] {
        let mut client = Client::connect(cluster.front());
        let mut bytes = BytesMut::new();
        frame::write_raw(&mut bytes, kind, 0, 0, 0, b"");
        client.send_bytes(&bytes);
        let told = client.next().expect("an error before the close");
        assert_eq!((told.header.request_id, told.code()), (0, ErrorCode::Malformed));
        assert_eq!(told.error().subject.as_str(), name);
        assert!(client.next().is_none());
    }
}

#[test]
fn a_second_hello_closes_the_connection_whatever_its_id() {
    let cluster = Cluster::small(Limits::default());
    for request_id in [0, 5] {
        let mut client = Client::connect(cluster.front());
        client.send_bytes(&endless_lookup(5));
        client.send(request_id, &hello([0; 16]));
        let told = client.next().expect("an error before the close");
        assert_eq!((told.header.request_id, told.code()), (0, ErrorCode::HelloExpected));
        assert_eq!(told.error().actual, Kind::Hello as u64);
        assert!(client.next().is_none());
    }
}

#[test]
fn requests_without_fields_have_no_body() {
    let cluster = Cluster::small(Limits::default());
    for address in &cluster.addresses {
        let mut client = Client::connect(*address);
        for kind in [Kind::Ping, Kind::Status] {
            client.send_bytes(&raw_frame(kind as u16, VERSION, &[0]));
            let told = client.next().expect("an answer");
            assert_eq!((told.header.request_id, told.code()), (5, ErrorCode::Malformed), "{kind:?} at {address}");
            assert_eq!(told.error().subject.as_str(), format!("{kind:?}"));
        }
        let Pong {} = client.ask(&Ping {}).expect("the connection still works");
        let _: StatusOk = client.ask(&Status {}).expect("the connection still works");
    }
}

#[test]
fn a_frame_cut_short_by_the_end_of_its_connection_is_forgotten() {
    let cluster = Cluster::small(Limits::default());
    let mut bystander = Bystander::new(&cluster);
    let whole = frame::to_bytes(5, 0, 0, &lookup("pioneer"));
    for cut in 1..whole.len() {
        let mut client = Client::connect(cluster.front());
        client.send_bytes(&whole[..cut]);
        client.socket.shutdown(std::net::Shutdown::Write).expect("it is open");
        assert!(client.next().is_none(), "cut after {cut} bytes");
    }
    bystander.is_undisturbed();
    let status: StatusOk = bystander.0.ask(&Status {}).expect("a status");
    assert_eq!(status.jobs, 0);
}

#[test]
fn who_says_nothing_is_told_and_closed() {
    let cluster = Cluster::small(Limits { handshake_ms_max: 100, ..Limits::default() });
    let mut bystander = Bystander::new(&cluster);
    let mut silent = Client::silent(cluster.front());
    assert_eq!(silent.next().expect("an error before the close").code(), ErrorCode::HandshakeTimeout);
    assert!(silent.next().is_none());
    bystander.is_undisturbed();
}

#[test]
fn who_never_reads_is_cut_off_and_costs_no_more_than_its_limit() {
    let limits = Limits { client_stall_ms_max: 300, ..Limits::default() };
    let cluster = Cluster::small(limits);
    let mut bystander = Bystander::new(&cluster);
    let greedy = Client::connect(cluster.front());
    greedy.socket.set_nonblocking(true).expect("a socket");
    let search = Search { floor: 0, topic: Topic::truncated("distributed-systems"), limit: 256, after: None };
    let mut requests = 1..;
    let mut burst = BytesMut::new();
    // Asks for ever and reads nothing: the server stops reading, then cuts the connection.
    let deadline = Instant::now() + PATIENCE;
    let mut socket = &greedy.socket;
    loop {
        if burst.is_empty() {
            requests.by_ref().take(500).for_each(|request| frame::write(&mut burst, request, 0, 0, &search));
        }
        match std::io::Write::write(&mut socket, &burst) {
            Ok(count) => drop(burst.split_to(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(_) => break,
        }
        assert!(Instant::now() < deadline, "it was never cut off");
    }
    bystander.is_undisturbed();
    let status = until("the front has forgotten it", || {
        let status: StatusOk = bystander.0.ask(&Status {}).expect("a status");
        (status.clients == 1).then_some(status)
    });
    assert_eq!(status.jobs, 0);
    assert!(status.answered > 1_000, "it was cut off before it could leave anything unread");
}

#[test]
fn a_front_asked_to_leave_answers_everything_that_takes_effect() {
    const BUYS: u64 = 20_000;
    let mut cluster = Cluster::small(Limits::default());
    let mut buyer = Buyer::new(&cluster);
    let before = buyer.client.ask::<_, LookupOk>(&lookup("pioneer")).expect("it is there").book.stock;
    let mut burst = BytesMut::new();
    for counter in 1..=BUYS {
        let lines = Bounded::truncated(vec![Line { book: id("pioneer"), copies: 1 }]);
        let command = Command::Buy { lines };
        let write = Write { session: buyer.session, counter, first_incomplete: counter, command };
        frame::write(&mut burst, counter, 0, 0, &write);
    }
    let mut writer = buyer.client.socket.try_clone().expect("a socket");
    // The front stops reading when it leaves, so the end of the burst may find the connection closed.
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &burst).is_ok());
    let mut sold = 0;
    let mut stopper = None;
    while let Some(answer) = buyer.client.next() {
        sold += u32::from(answer.header.kind == Kind::WriteOk as u16);
        if sold == 100 {
            stopper.get_or_insert_with(|| cluster.ask_to_leave(1));
        }
    }
    sender.join().expect("no panic");
    assert_eq!(cluster.wait_for(1), Exit::Left);
    let mut catalog = Client::connect(cluster.addresses[2]);
    let after = catalog.ask::<_, LookupOk>(&lookup("pioneer")).expect("it is there").book.stock;
    assert_eq!(before - after, sold, "a buy took effect and was not answered");
    assert!(cluster.stop().iter().all(|exit| *exit == Exit::Left));
}

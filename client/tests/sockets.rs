//! Both clients over real sockets, against servers that live in the test.

// A helper that fails in a test is the test failing.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use bytes::BytesMut;
use pygmy_client::{Asks, BookId, Client, Command, Error, Options, Pipelined, Reply, Request};
use pygmy_proto::Kind;
use pygmy_proto::frame::{self, Deframer, Flow};
use pygmy_proto::limits::{CLIENT_BODY_MAX, VERSION};
use pygmy_proto::message::{Book, HelloOk, LookupOk, Message, Outcome, Pong, Role, SessionOpened, Write, WriteOk};
use pygmy_proto::types::{self, Bounded, Name};

const LONG: Duration = Duration::from_secs(60);

/// A server that executes every (session, counter) it sees and closes a connection after `answers_max` answers to
/// writes. What it saw of each write, in order, goes to the channel.
struct Server {
    address: String,
    seen: mpsc::Receiver<(u64, u64)>,
}

impl Server {
    fn start(answers_max: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, seen) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let sender = sender.clone();
                std::thread::spawn(move || serve(stream.unwrap(), &sender, answers_max));
            }
        });
        Self { address, seen }
    }

    fn options(&self) -> Options {
        Options::new([&self.address])
    }
}

fn serve(mut stream: TcpStream, seen: &mpsc::Sender<(u64, u64)>, answers_max: usize) {
    let mut deframer = Deframer::new(CLIENT_BODY_MAX);
    let mut buffer = vec![0; 4096];
    let mut answers = 0;
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        let mut out = BytesMut::new();
        deframer
            .feed(&buffer[..count], |_, frame| {
                let id = frame.header.request_id;
                match frame.kind() {
                    Some(Kind::Hello) => put(&mut out, id, &hello_ok()),
                    Some(Kind::OpenSession) => put(&mut out, id, &SessionOpened { session: 5 }),
                    Some(Kind::Lookup) => put(&mut out, id, &LookupOk { seq: 9, book: book() }),
                    Some(Kind::Write) => {
                        let write: Write = frame.decode().unwrap();
                        seen.send((write.session, write.counter)).unwrap();
                        answers += 1;
                        if answers <= answers_max {
                            let outcome = Outcome::Restocked { book: book() };
                            put(&mut out, id, &WriteOk { seq: 10 + write.counter, outcome });
                        }
                    }
                    Some(Kind::Ping) => put(&mut out, id, &Pong {}),
                    other => panic!("{other:?} was not expected"),
                }
                Flow::Continue
            })
            .unwrap();
        if stream.write_all(&out).is_err() || (answers > answers_max && answers_max > 0) {
            return;
        }
    }
}

fn put<M: Message>(out: &mut BytesMut, id: u64, message: &M) {
    frame::write(out, id, 1, 0, message);
}

fn book() -> Book {
    Book {
        id: BookId::new("b").unwrap(),
        title: types::title("B").unwrap(),
        topic: types::topic("t").unwrap(),
        cost_cents: 1,
        stock: 1,
        changed_seq: 1,
    }
}

fn hello_ok() -> HelloOk {
    HelloOk {
        version: VERSION,
        role: Role::Front,
        node: 1,
        name: Name::truncated("front-1"),
        cluster: [1; 16],
        body_max: CLIENT_BODY_MAX as u32,
        in_flight_max: 1_000,
        replica: None,
    }
}

fn restock() -> Request {
    Request::Write(Command::Restock { book: BookId::new("b").unwrap(), copies: 1 })
}

#[test]
fn a_blocking_client_survives_connections_that_break() {
    let server = Server::start(3);
    let mut client = Client::new(server.options());
    client.set_timeout(LONG);
    assert_eq!(client.lookup(BookId::new("b").unwrap()).unwrap().seq, 9);
    for counter in 1..=10 {
        let done = client.restock(BookId::new("b").unwrap(), 1).unwrap();
        assert_eq!((done.session, done.counter, done.seq), (5, counter, 10 + counter));
    }
    let seen: Vec<(u64, u64)> = server.seen.try_iter().collect();
    assert!(seen.len() > 10, "some were sent twice, each under its own identity: {seen:?}");
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(client.floor(), 20);
}

#[test]
fn a_blocking_client_moves_from_an_address_where_nobody_is() {
    let server = Server::start(usize::MAX);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut client = Client::new(Options::new([free.as_str(), &server.address]));
    client.set_timeout(LONG);
    client.restock(BookId::new("b").unwrap(), 1).unwrap();
    assert_eq!(client.last().sends, 1);
}

#[test]
fn a_name_that_cannot_be_resolved_is_a_cause() {
    let mut options = Options::new(["nowhere.invalid:1"]);
    options.connect_rounds = Some(1);
    let mut client = Client::new(options);
    client.set_timeout(LONG);
    let Err(Error::Unreachable { causes, .. }) = client.status() else { panic!("unreachable") };
    assert!(causes.to_string().contains("cannot resolve"), "{causes}");
}

#[test]
fn a_write_that_is_never_answered_is_of_unknown_outcome() {
    let server = Server::start(0);
    let mut client = Client::new(server.options());
    client.set_timeout(Duration::from_millis(150));
    let result = client.restock(BookId::new("b").unwrap(), 1);
    assert!(matches!(result, Err(Error::OutcomeUnknown { session: 5, counter: 1, .. })), "{result:?}");
    let too_many = vec![(BookId::new("b").unwrap(), 1); 65];
    assert!(matches!(client.buy(&too_many), Err(Error::InvalidInput(_))));
}

#[test]
fn a_pipelined_client_answers_everything_once_through_breaking_connections() {
    let server = Server::start(700);
    let client = Pipelined::start(server.options(), 100).unwrap();
    let (ended, ends) = crossbeam_channel::unbounded();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (client, ended) = (&client, &ended);
            scope.spawn(move || {
                for call in 0..1_000 {
                    client.submit_to(restock(), LONG, thread * 1_000 + call, ended).unwrap();
                }
            });
        }
    });
    drop(ended);
    let mut tags = Vec::new();
    let mut counters = Vec::new();
    for (tag, completion) in ends {
        let Ok(Reply::Written(done)) = completion.result else { panic!("{completion:?}") };
        tags.push(tag);
        counters.push(done.counter);
    }
    tags.sort_unstable();
    counters.sort_unstable();
    assert_eq!(tags, (0..4_000).collect::<Vec<u64>>());
    assert_eq!(counters, (1..=4_000).collect::<Vec<u64>>());
    client.close(LONG);
    let seen = server.seen.try_iter().count();
    assert!(seen > 4_000, "some were sent again");
}

#[test]
fn closing_waits_and_dropping_does_not() {
    let server = Server::start(usize::MAX);
    let client = Pipelined::start(server.options(), 10).unwrap();
    let (sender, ends) = mpsc::channel();
    let ended = sender.clone();
    client.submit(restock(), LONG, move |completion| ended.send(completion.result).unwrap()).unwrap();
    client.close(LONG);
    assert!(matches!(ends.try_recv(), Ok(Ok(Reply::Written(_)))));

    let silent = Server::start(0);
    let client = Pipelined::start(silent.options(), 10).unwrap();
    client.submit(restock(), LONG, move |completion| sender.send(completion.result).unwrap()).unwrap();
    silent.seen.recv().unwrap();
    drop(client);
    assert!(matches!(ends.try_recv(), Ok(Err(Error::OutcomeUnknown { session: 5, counter: 1, .. }))));
}

#[test]
fn a_full_queue_says_so() {
    let server = Server::start(0);
    let mut options = server.options();
    options.in_flight_max = 1;
    let client = Pipelined::start(options, 2).unwrap();
    let (sender, ends) = mpsc::channel();
    let submit = || {
        let sender = sender.clone();
        client.try_submit(restock(), LONG, Asks::default(), move |completion| sender.send(completion.result).unwrap())
    };
    submit().unwrap();
    server.seen.recv().unwrap();
    submit().unwrap();
    submit().unwrap();
    assert_eq!(submit(), Err(Error::QueueFull { limit: 2 }));
    drop(client);
    let results: Vec<_> = ends.try_iter().collect();
    assert!(matches!(results[0], Err(Error::OutcomeUnknown { .. })), "{results:?}");
    assert_eq!(results[1..], [Err(Error::Closed), Err(Error::Closed)], "they were not sent");
}

#[test]
fn a_put_takes_no_more_than_its_limit() {
    let mut client = Client::new(Options::new(["127.0.0.1:1"]));
    let book = pygmy_proto::message::NewBook {
        id: BookId::new("b").unwrap(),
        title: types::title("B").unwrap(),
        topic: types::topic("t").unwrap(),
        cost_cents: 1,
        stock: 1,
    };
    assert!(matches!(client.put(vec![book.clone(); 257]), Err(Error::InvalidInput(_))));
    let twice = Command::Put { books: Bounded::truncated(vec![book; 2]) };
    assert!(matches!(client.write(twice), Err(Error::InvalidInput(_))));
}

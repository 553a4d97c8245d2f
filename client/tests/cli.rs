//! The binary against a server that lives in the test: exit codes, JSON, pipes, and the session that is kept.

// A helper that fails in a test is the test failing.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::BytesMut;
use pygmy_proto::frame::{self, Deframer, Flow, Frame};
use pygmy_proto::limits::{CLIENT_BODY_MAX, VERSION};
use pygmy_proto::message::{
    Book, BooksOk, Command as Change, FrontStatus, HelloOk, IoStatus, LinkStatus, LookupOk, OrderLine, OrderRecord,
    Orders, OrdersOk, Outcome, PeerReason, PeerState, PeerStatus, Pong, ReplicaStatus, Role, SearchOk, SessionOpened,
    Share, Status, StatusOk, Write, WriteOk,
};
use pygmy_proto::message::{Epoch, Line, Lookup, Message};
use pygmy_proto::types::{self, Bounded, Name};
use pygmy_proto::{BookId, ErrorBody, ErrorCode, Kind};
use serde_json::Value;

const CLUSTER: [u8; 16] = [0xab; 16];

/// What the server should do with writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Answer,
    /// Execute, but do not answer.
    Swallow,
    /// Say that nothing can be done now.
    Unavailable,
}

#[derive(Debug)]
struct Store {
    seq: u64,
    books: BTreeMap<String, Book>,
    sessions: Vec<u64>,
    /// Milliseconds given to the server for the latest write.
    deadline_ms: u32,
    /// Every write as it was received.
    writes: Vec<(u64, u64)>,
    answers: BTreeMap<(u64, u64), (Change, Result<WriteOk, ErrorBody>)>,
    mood: Mood,
    cluster: [u8; 16],
}

struct Server {
    store: Arc<Mutex<Store>>,
    address: String,
    ends: Arc<AtomicBool>,
    home: tempfile::TempDir,
}

fn book(id: &str, stock: u32) -> Book {
    Book {
        id: BookId::new(id).unwrap(),
        title: types::title(&format!("About {id}, \"quoted\"")).unwrap(),
        topic: types::topic("things").unwrap(),
        cost_cents: 1550,
        stock,
        changed_seq: 1,
    }
}

impl Server {
    fn start(books: usize) -> Self {
        Self::start_as(CLUSTER, books)
    }

    fn start_as(cluster: [u8; 16], books: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let books = (0..books).map(|n| book(&format!("b{n:05}"), 10)).map(|book| (book.id.to_string(), book)).collect();
        let store = Store {
            seq: 100,
            books,
            sessions: Vec::new(),
            deadline_ms: 0,
            writes: Vec::new(),
            answers: BTreeMap::new(),
            mood: Mood::Answer,
            cluster,
        };
        let store = Arc::new(Mutex::new(store));
        let ends = Arc::new(AtomicBool::new(false));
        let (shared, stop) = (Arc::clone(&store), Arc::clone(&ends));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { store, address, ends, home: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = pygmy(self.home.path());
        command.args(["--front", &self.address]).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn state_file(&self) -> PathBuf {
        self.home.path().join("state/pygmy/sessions").join(format!("{}.json", "ab".repeat(16)))
    }

    fn state(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.state_file()).unwrap()).unwrap()
    }

    /// Counters of the unsettled writes.
    fn unsettled(&self) -> Vec<u64> {
        let state = self.state();
        state["unsettled"].as_array().unwrap().iter().map(|write| write["counter"].as_u64().unwrap()).collect()
    }

    fn stock(&self) -> u32 {
        self.store().books["b00000"].stock
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Wakes the listener, so that its thread ends.
        drop(TcpStream::connect(&self.address));
    }
}

fn pygmy(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pygmy"));
    command
        .env_remove("PYGMY_CLUSTER")
        .env("XDG_STATE_HOME", home.join("state"))
        .env("XDG_DATA_HOME", home.join("data"));
    command
}

fn serve(mut stream: TcpStream, store: &Mutex<Store>) {
    let mut deframer = Deframer::new(CLIENT_BODY_MAX);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let mut out = BytesMut::new();
        let fed = deframer.feed(&buffer[..count], |_, frame| {
            answer(&mut store.lock().unwrap(), &frame, &mut out);
            Flow::Continue
        });
        if fed.is_err() || stream.write_all(&out).is_err() {
            return;
        }
    }
}

fn answer(store: &mut Store, frame: &Frame<'_>, out: &mut BytesMut) {
    let id = frame.header.request_id;
    match frame.kind() {
        Some(Kind::Hello) => put(out, id, &hello_ok(store.cluster)),
        Some(Kind::Status) => {
            let Status {} = frame.decode().unwrap();
            put(out, id, &status_ok());
        }
        Some(Kind::OpenSession) => {
            store.seq += 1;
            store.sessions.push(store.seq);
            put(out, id, &SessionOpened { session: store.seq });
        }
        Some(Kind::Lookup) => {
            let ask: Lookup = frame.decode().unwrap();
            match store.books.get(ask.book.as_str()) {
                Some(book) => put(out, id, &LookupOk { seq: store.seq, book: book.clone() }),
                None => put(out, id, &ErrorBody::new(ErrorCode::UnknownBook).subject(&ask.book).detail("no such book")),
            }
        }
        Some(Kind::Search) => {
            let books: Vec<Book> = store.books.values().take(3).cloned().collect();
            put(out, id, &SearchOk { seq: store.seq, total: 3, books: Bounded::truncated(books), next: None });
        }
        Some(Kind::Books) => {
            let ask: pygmy_proto::message::Books = frame.decode().unwrap();
            put(out, id, &page(store, &ask));
        }
        Some(Kind::Orders) => {
            let Orders { .. } = frame.decode().unwrap();
            put(out, id, &OrdersOk { seq: store.seq, total: 0, orders: Bounded::default(), next: None });
        }
        Some(Kind::Write) => {
            store.deadline_ms = frame.header.aux;
            write(store, id, frame.decode().unwrap(), out);
        }
        Some(Kind::Ping) => put(out, id, &Pong {}),
        other => panic!("{other:?} was not expected"),
    }
}

fn put<M: Message>(out: &mut BytesMut, id: u64, message: &M) {
    frame::write(out, id, 1, 0, message);
}

fn page(store: &Store, ask: &pygmy_proto::message::Books) -> BooksOk {
    let after = ask.after.map_or(String::new(), |cursor| cursor.id.to_string());
    let mut rest = store.books.range(after.clone()..).filter(|(id, _)| **id != after).map(|(_, book)| book.clone());
    let books: Vec<Book> = rest.by_ref().take(ask.limit as usize).collect();
    let last = books.last().map(|book| pygmy_proto::message::BooksCursor { topic: book.topic, id: book.id });
    let next = if rest.next().is_some() { last } else { None };
    BooksOk { seq: store.seq, total: store.books.len() as u64, books: Bounded::truncated(books), next }
}

fn write(store: &mut Store, id: u64, write: Write, out: &mut BytesMut) {
    let identity = (write.session, write.counter);
    if store.mood == Mood::Unavailable {
        return put(out, id, &ErrorBody::new(ErrorCode::Unavailable).detail("no order server is connected"));
    }
    store.writes.push(identity);
    let answer = match store.answers.get(&identity) {
        Some((command, answer)) if *command == write.command => answer.clone(),
        Some(_) => Err(ErrorBody::new(ErrorCode::IdReused).detail("it was another command")),
        None if store.sessions.contains(&write.session) => {
            let answer = execute(store, write.command.clone());
            store.answers.insert(identity, (write.command, answer.clone()));
            answer
        }
        None => Err(ErrorBody::new(ErrorCode::SessionExpired).detail("the session is forgotten")),
    };
    match answer {
        _ if store.mood == Mood::Swallow => {}
        Ok(ok) => put(out, id, &ok),
        Err(error) => put(out, id, &error),
    }
}

fn execute(store: &mut Store, command: Change) -> Result<WriteOk, ErrorBody> {
    store.seq += 1;
    let seq = store.seq;
    let outcome = match command {
        Change::Buy { lines } => {
            let line = lines[0];
            let book = store.books.get_mut(line.book.as_str()).ok_or(ErrorBody::new(ErrorCode::UnknownBook))?;
            if book.stock < line.copies {
                let error = ErrorBody::new(ErrorCode::NotEnoughStock).subject(&line.book);
                return Err(error.limit(book.stock.into(), line.copies.into()).detail("too few copies"));
            }
            book.stock -= line.copies;
            let sold = OrderLine { book: line.book, copies: line.copies, cost_cents: 1550, left: book.stock };
            let total_cents = 1550 * u64::from(line.copies);
            let lines = Bounded::truncated(vec![sold]);
            Outcome::Bought { order: OrderRecord { number: seq, time_us: 0, total_cents, lines } }
        }
        Change::Put { books } => {
            let (mut added, mut unchanged) = (0, 0);
            for new in &books {
                let known = store.books.insert(new.id.to_string(), book(&new.id, new.stock));
                if known.is_some() { unchanged += 1 } else { added += 1 }
            }
            Outcome::Put { added, changed: 0, unchanged }
        }
        other => panic!("{other:?} was not expected"),
    };
    Ok(WriteOk { seq, outcome })
}

fn hello_ok(cluster: [u8; 16]) -> HelloOk {
    HelloOk {
        version: VERSION,
        role: Role::Front,
        node: 1,
        name: Name::truncated("front-1"),
        cluster,
        body_max: CLIENT_BODY_MAX as u32,
        in_flight_max: 100,
        replica: None,
    }
}

fn status_ok() -> StatusOk {
    StatusOk {
        node: 1,
        name: Name::truncated("front-1"),
        role: Role::Front,
        uptime_ms: 1,
        clients: 1,
        jobs: 0,
        answered: 0,
        links: Bounded::truncated(vec![LinkStatus { node: 9, up: true, in_flight: 4, share: Share::Full, moved: 2 }]),
        peers: Bounded::truncated(vec![PeerStatus {
            node: 2,
            state: PeerState::Red,
            reason: PeerReason::OneWay,
            heard_ms: Some(17),
            limit_ms: 345,
            suspicions: 1,
            returns: 0,
        }]),
        replica: Some(replica()),
        front: Some(FrontStatus { hits: 7, fresh_age_ms: Some(80), bytes_max: 1_024, ..FrontStatus::default() }),
        io: IoStatus { system_calls: 90, syncs: 3, received: 1 << 20, sent: 3 << 20, written: 8_192 },
    }
}

fn replica() -> ReplicaStatus {
    ReplicaStatus {
        voter: true,
        voters: 1,
        config_id: 1,
        swap: None,
        epoch: Epoch { counter: 1, node: 1 },
        holder: 1,
        hop: 0,
        last_seq: 1,
        durable: 1,
        committed: 1,
        applied: 1,
        state_hash: u64::MAX - 1,
        books: 1,
        orders: 0,
        sessions: 0,
        members: Bounded::default(),
    }
}

#[track_caller]
fn check(output: &Output, code: i32) -> (String, String) {
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "stdout: {stdout}\nstderr: {stderr}");
    (stdout, stderr)
}

#[track_caller]
fn error_of(output: &Output, code: i32) -> Value {
    let (stdout, stderr) = check(output, code);
    assert_eq!(stdout, "");
    serde_json::from_str(&stderr).expect("one JSON object")
}

#[test]
fn a_lone_buy_is_one_write_under_the_kept_session() {
    let server = Server::start(1);
    let (text, _) = check(&server.run(&["buy", "b00000:2"]), 0);
    assert!(text.contains("total 31.00") && !text.contains('\x1b'), "{text}");
    let (json, _) = check(&server.run(&["--json", "buy", "b00000"]), 0);
    let done: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&done["outcome"], &done["counter"]), (&"bought".into(), &2.into()));
    assert_eq!(done["order"]["lines"][0]["left"], 7);
    let store = server.store();
    assert_eq!(store.sessions.len(), 1);
    assert_eq!(store.writes, [(store.sessions[0], 1), (store.sessions[0], 2)]);
    assert_eq!(server.unsettled(), [0u64; 0]);
}

#[test]
fn refusals_and_wrong_usage_have_their_own_exit_codes() {
    let server = Server::start(1);
    let error = error_of(&server.run(&["--json", "buy", "b00000:11"]), 1);
    assert_eq!((&error["code"], &error["name"], &error["limit"]), (&23.into(), &"not_enough_stock".into(), &10.into()));
    assert_eq!((&error["retry"], &error["detail"]), (&"never".into(), &"too few copies".into()));
    let (_, text) = check(&server.run(&["lookup", "nosuch"]), 1);
    assert!(text.starts_with("pygmy: no such book"), "{text}");
    assert_eq!(error_of(&server.run(&["--json", "buy", "b00000:0"]), 2)["name"], "invalid_argument");
    assert_eq!(server.store().writes.len(), 1, "what breaks a limit is not sent");
    check(&server.run(&["lookup", "a/b"]), 2);
    check(&server.run(&["buy"]), 2);
    check(&server.run(&["export", "--format", "original"]), 2);
    for wrong in [
        vec!["--json", "--front", "127.0.0.1", "topics"],
        vec!["--json", "--front", "127.0.0.1:99999", "topics"],
        vec!["--json", "restock", "b00000", "0"],
        vec!["--json", "orders", "--last", "0"],
        vec!["--json", "frobnicate"],
    ] {
        let output = pygmy(server.home.path()).args(&wrong).output().unwrap();
        assert_eq!(error_of(&output, 2)["name"], "usage", "{wrong:?}");
    }
    assert_eq!(error_of(&server.run(&["--json", "orders", "--book", "nosuch"]), 1)["name"], "unknown_book");
    check(&server.run(&["orders", "--book", "b00000"]), 0);
}

#[test]
fn nobody_there_is_unreachable_with_every_address_and_its_cause() {
    let home = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = pygmy(home.path()).args(["--json", "--front", &free, "lookup", "a"]).output().unwrap();
    let error = error_of(&output, 3);
    assert_eq!(error["causes"][0]["address"], free);
    assert!(error["causes"][0]["cause"].as_str().unwrap().contains("refused"), "{error}");
    let output = pygmy(home.path()).args(["topics"]).output().unwrap();
    assert!(check(&output, 3).1.contains("pygmy-node up"));
    let output = pygmy(home.path()).args(["status", "--front", &free]).output().unwrap();
    assert!(check(&output, 3).1.contains(&free));
    let cluster = home.path().join("cluster.toml");
    let node =
        |name: &str, role: &str| format!("[[node]]\nname = \"{name}\"\nrole = \"{role}\"\naddress = \"{free}\"\n");
    let id = "ab".repeat(16);
    let text = format!("[cluster]\nid = \"{id}\"\n{}{}", node("front-1", "front"), node("order-1", "order"));
    std::fs::write(&cluster, text).unwrap();
    let output = pygmy(home.path()).env("PYGMY_CLUSTER", home.path()).arg("status").output().unwrap();
    let (table, text) = check(&output, 3);
    assert!(table.contains("front-1: no connection") && text.contains("no node answered"), "{table}{text}");
    let output = pygmy(home.path()).env("PYGMY_CLUSTER", "").arg("status").output().unwrap();
    assert!(check(&output, 3).1.contains("pygmy/default"), "a variable that is empty is none");
}

#[test]
fn a_store_without_servers_behind_its_front_is_unreachable() {
    let server = Server::start(1);
    check(&server.run(&["buy", "b00000"]), 0);
    server.store().mood = Mood::Unavailable;
    // Tries are 250 ms apart at most: a machine that is busy for less makes none of them last until the deadline.
    let error = error_of(&server.run(&["--json", "--timeout", "1s", "buy", "b00000"]), 3);
    assert!(error["causes"][0]["cause"].as_str().unwrap().contains("no order server"), "{error}");
    assert_eq!(server.unsettled(), [0u64; 0], "nothing was done, and that is known");
}

#[test]
fn an_unknown_outcome_is_settled_by_the_printed_command() {
    let server = Server::start(1);
    check(&server.run(&["buy", "b00000"]), 0);
    server.store().mood = Mood::Swallow;
    let error = error_of(&server.run(&["--json", "--timeout", "200ms", "buy", "b00000:3"]), 4);
    let identity = format!("{}:{}:{}", "ab".repeat(16), error["session"], error["counter"]);
    assert_eq!(error["identity"], identity.as_str());
    assert_eq!((&error["retry"], &error["counter"]), (&"settle".into(), &2.into()));
    assert!(error["settle"].as_str().unwrap().ends_with(&format!("buy b00000:3 --settle {identity}")), "{error}");
    assert_eq!(server.unsettled(), [2]);
    server.store().mood = Mood::Answer;
    let (_, text) = check(&server.run(&["buy", "b00000"]), 0);
    assert!(text.contains(&format!("buy b00000:3 --settle {identity}\n")), "the next command reminds: {text}");
    assert_eq!(server.unsettled(), [2], "still to be settled");
    let (text, _) = check(&server.run(&["buy", "b00000:3", "--settle", &identity]), 0);
    assert!(text.contains("total 46.50"), "{text}");
    assert_eq!(server.unsettled(), [0u64; 0]);
    assert_eq!(server.store().books["b00000"].stock, 10 - 1 - 3 - 1, "it was done once");
}

#[test]
fn a_forgotten_session_is_replaced_and_the_write_done() {
    let server = Server::start(1);
    check(&server.run(&["buy", "b00000"]), 0);
    server.store().sessions.clear();
    check(&server.run(&["buy", "b00000"]), 0);
    let store = server.store();
    assert_eq!((store.sessions.len(), store.books["b00000"].stock), (1, 8));
    assert_eq!(server.state()["session"], store.sessions[0]);
    let old = store.writes[0].0;
    drop(store);
    let output = server.run(&["buy", "b00000", "--settle", &format!("{}:{old}:9", "ab".repeat(16))]);
    let (_, text) = check(&output, 4);
    assert!(text.contains("never execute it any more") && !text.contains("--settle"), "{text}");
}

#[test]
fn no_counter_is_used_twice_whatever_becomes_of_the_process() {
    let server = Server::start(1);
    check(&server.run(&["buy", "b00000"]), 0);
    server.store().mood = Mood::Swallow;
    let mut killed = server.command(&["buy", "b00000"]).stderr(Stdio::null()).spawn().unwrap();
    while server.store().writes.len() < 2 {
        std::thread::yield_now();
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    server.store().mood = Mood::Answer;
    check(&server.run(&["buy", "b00000"]), 0);
    let store = server.store();
    assert_eq!(store.writes.iter().map(|write| write.1).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(server.unsettled(), [2]);
}

#[test]
fn an_identity_of_another_cluster_or_of_no_write_settles_nothing() {
    let (server, other) = (Server::start(1), Server::start_as([0xcd; 16], 1));
    check(&server.run(&["buy", "b00000"]), 0);
    check(&other.run(&["buy", "b00000"]), 0);
    let session = server.store().sessions[0];
    assert_eq!(session, other.store().sessions[0], "sessions are numbered anew in every cluster");
    let foreign = format!("{}:{session}:8", "cd".repeat(16));
    let error = error_of(&server.run(&["--json", "buy", "b00000", "--settle", &foreign]), 1);
    assert!(error["detail"].as_str().unwrap().contains("another cluster"), "{error}");
    let unborn = format!("{}:{session}:2", "ab".repeat(16));
    let (_, text) = check(&server.run(&["buy", "b00000", "--settle", &unborn]), 1);
    assert!(text.contains("is no write") && text.contains(":1 is the last"), "{text}");
    check(&server.run(&["buy", "b00000", "--settle", "17:3"]), 2);
    assert_eq!(server.store().writes, [(session, 1)], "nothing was sent");
    let first = format!("{}:{session}:1", "ab".repeat(16));
    check(&server.run(&["buy", "b00000", "--settle", &first]), 0);
    assert_eq!(server.stock(), 9);
}

/// Three ways for a session's files to come back: the state alone, both put over the present ones, and both as new
/// files.
#[test]
fn a_session_that_was_restored_numbers_nothing() {
    for (with_lock, in_place) in [(false, true), (true, true), (true, false)] {
        let server = Server::start(1);
        let files = [server.state_file(), server.state_file().with_extension("lock")];
        check(&server.run(&["buy", "b00000"]), 0);
        let saved: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        check(&server.run(&["buy", "b00000"]), 0);
        for (file, bytes) in files.iter().zip(&saved).take(1 + usize::from(with_lock)) {
            if !in_place {
                std::fs::remove_file(file).unwrap();
            }
            // The clock of files moves in steps; a copy that takes none of them is no later one.
            let changed = |file| std::fs::metadata(file).map_or((0, 0), |known| (known.ctime(), known.ctime_nsec()));
            let before = changed(file);
            while changed(file) == before {
                std::fs::write(file, bytes).unwrap();
            }
        }
        check(&server.run(&["buy", "b00000"]), 0);
        assert_eq!((server.stock(), server.store().sessions.len()), (7, 2), "{with_lock} {in_place}");
        check(&server.run(&["buy", "b00000"]), 0);
        assert_eq!((server.stock(), server.store().sessions.len()), (6, 2), "and the new session is kept");
    }
}

#[test]
fn a_write_whose_identity_another_one_has_is_done_under_a_new_one() {
    let server = Server::start(2);
    check(&server.run(&["buy", "b00000"]), 0);
    let session = server.store().sessions[0];
    // What a clone of the whole machine would do: the next counter is used already, for the same or another write.
    for book in ["b00000", "b00001"] {
        let next = server.state()["next_counter"].as_u64().unwrap();
        let session = server.state()["session"].as_u64().unwrap_or(session);
        let lines = Bounded::truncated(vec![Line { book: BookId::new("b00000").unwrap(), copies: 1 }]);
        let command = Change::Buy { lines };
        let mut store = server.store();
        let first = store.answers.values().next().unwrap().1.clone();
        store.answers.insert((session, next), (command, first));
        let before = store.books[book].stock;
        drop(store);
        check(&server.run(&["buy", book]), 0);
        assert_eq!(server.store().books[book].stock, before - 1, "{book}");
        assert_eq!(server.unsettled(), [0u64; 0]);
    }
    assert_eq!(server.store().sessions.len(), 3);
}

#[test]
fn a_store_that_was_set_back_does_a_write_once() {
    let server = Server::start(1);
    check(&server.run(&["buy", "b00000"]), 0);
    server.store().seq = 50;
    check(&server.run(&["buy", "b00000"]), 0);
    assert_eq!((server.stock(), server.unsettled()), (8, vec![]));
}

#[test]
fn a_result_that_cannot_be_printed_goes_to_standard_error_and_can_be_had_again() {
    let server = Server::start(1);
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = server.command(&["buy", "b00000:2"]).stdout(full()).output().unwrap();
    let (_, text) = check(&output, 4);
    assert!(text.contains("is done") && text.contains("bought: order") && text.contains("--settle"), "{text}");
    let output = server.command(&["--json", "buy", "b00000"]).stdout(full()).output().unwrap();
    let (_, text) = check(&output, 4);
    let error: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&error["name"], &error["done"]["order"]["lines"][0]["left"]), (&"unprinted".into(), &7.into()));
    assert_eq!(server.unsettled(), [1, 2]);
    let (text, _) = check(&server.run(&["buy", "b00000", "--settle", error["identity"].as_str().unwrap()]), 0);
    assert!(text.contains("bought: order"), "{text}");
    assert_eq!((server.stock(), server.unsettled()), (7, vec![1]));
}

#[test]
fn an_interrupt_names_the_write_it_leaves_behind() {
    let server = Server::start(1);
    for session_kept in [true, false] {
        server.store().mood = Mood::Swallow;
        let sent = server.store().writes.len();
        let mut command = server.command(&["--timeout", "600s", "buy", "b00000"]);
        if !session_kept {
            command.arg("--no-session");
        }
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while server.store().writes.len() == sent {
            std::thread::yield_now();
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let (_, text) = check(&child.wait_with_output().unwrap(), 4);
        let (session, counter) = *server.store().writes.last().unwrap();
        assert!(text.contains(&format!("--settle {}:{session}:{counter}\n", "ab".repeat(16))), "{text}");
        server.store().mood = Mood::Answer;
    }
}

#[test]
fn unsettled_writes_are_listed_reminded_of_and_forgotten_only_when_told() {
    let server = Server::start(1);
    check(&server.run(&["buy", "b00000"]), 0);
    server.store().mood = Mood::Swallow;
    check(&server.run(&["--timeout", "100ms", "buy", "b00000:2"]), 4);
    server.store().mood = Mood::Answer;
    let (_, text) = check(&server.run(&["lookup", "b00000"]), 0);
    assert!(text.contains("buy b00000:2 --settle "), "reads remind as well: {text}");
    let (json, _) = check(&server.run(&["--json", "unsettled"]), 0);
    let listed: Value = serde_json::from_str(&json).unwrap();
    let identity = listed["identity"].as_str().unwrap();
    assert!(listed["settle"].as_str().unwrap().ends_with(&format!("b00000:2 --settle {identity}")), "{listed}");
    // Half a window later the session is left, and the write is not.
    let mut state = server.state();
    let old = state["session"].clone();
    state["next_counter"] = 514.into();
    std::fs::write(server.state_file(), serde_json::to_vec(&state).unwrap()).unwrap();
    check(&server.run(&["buy", "b00000"]), 0);
    assert_ne!(server.state()["session"], old);
    assert_eq!(server.state()["unsettled"][0]["session"], old);
    check(&server.run(&["unsettled", "--forget", &identity.replace("ab", "cd")]), 1);
    check(&server.run(&["unsettled", "--forget", identity]), 0);
    let (text, _) = check(&server.run(&["unsettled"]), 0);
    assert_eq!(text, "0 unsettled writes\n");
    assert_eq!(check(&server.run(&["lookup", "b00000"]), 0).1, "");
}

#[test]
fn a_full_list_of_unsettled_writes_loses_none_and_hinders_none() {
    let server = Server::start(1);
    check(&server.run(&["buy", "b00000"]), 0);
    let mut state = server.state();
    let write = serde_json::json!({"session": 7, "counter": 1, "command": ["pygmy"]});
    state["unsettled"] = std::iter::repeat_n(write, 1_000).collect();
    std::fs::write(server.state_file(), serde_json::to_vec(&state).unwrap()).unwrap();
    let (_, text) = check(&server.run(&["buy", "b00000"]), 0);
    assert!(text.contains("and 997 more"), "{text}");
    assert_eq!((server.stock(), server.unsettled().len(), server.store().sessions.len()), (8, 1_000, 2));
}

#[test]
fn commands_spread_over_all_fronts() {
    let (first, second) = (Server::start(1), Server::start(1));
    for _ in 0..64 {
        let mut command = pygmy(first.home.path());
        command.args(["--no-session", "--front", &first.address, "--front", &second.address, "buy", "b00000"]);
        check(&command.output().unwrap(), 0);
        if !first.store().writes.is_empty() && !second.store().writes.is_empty() {
            return;
        }
        first.store().books.get_mut("b00000").unwrap().stock = 10;
        second.store().books.get_mut("b00000").unwrap().stock = 10;
    }
    panic!("only one of them was asked");
}

#[test]
fn commands_at_the_same_time_neither_wait_nor_collide() {
    let server = Server::start(1);
    check(&server.run(&["buy", "b00000"]), 0);
    server.store().mood = Mood::Swallow;
    let mut waiting = server.command(&["buy", "b00000"]).stderr(Stdio::null()).spawn().unwrap();
    while server.store().writes.len() < 2 {
        std::thread::yield_now();
    }
    server.store().mood = Mood::Answer;
    check(&server.run(&["buy", "b00000"]), 0);
    let store = server.store();
    assert_eq!(store.sessions.len(), 2, "the second registered a session of its own");
    assert_eq!(store.writes[2], (store.sessions[1], 1));
    drop(store);
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}

#[test]
fn without_a_place_for_its_state_a_write_is_done_all_the_same() {
    let server = Server::start(1);
    let blocked = server.home.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let output = server.command(&["buy", "b00000"]).env("XDG_STATE_HOME", &blocked).output().unwrap();
    check(&output, 0);
    check(&server.run(&["--no-session", "buy", "b00000"]), 0);
    assert!(!server.state_file().exists());
    assert_eq!(server.store().sessions.len(), 2);
}

#[test]
fn lists_are_one_object_a_line() {
    let server = Server::start(3);
    let (json, _) = check(&server.run(&["--json", "search", "things"]), 0);
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1]["id"], "b00001");
    assert_eq!((&lines[1]["cost_cents"], &lines[1]["stock"]), (&1550.into(), &10.into()));
    let (text, _) = check(&server.run(&["search", "things"]), 0);
    assert!(text.contains("15.50") && text.ends_with("3 books on things\n"), "{text}");
    let (json, _) = check(&server.run(&["--json", "status"]), 0);
    let status: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&status["up"], &status["role"]), (&true.into(), &"front".into()));
    assert_eq!((&status["peers"][0]["reason"], &status["peers"][0]["limit_ms"]), (&"one_way".into(), &345.into()));
    assert_eq!(status["replica"]["state_hash"], "fffffffffffffffe", "no number, which many would round");
}

#[test]
fn an_export_can_be_imported_and_cut_off() {
    let server = Server::start(4_000);
    let file = server.home.path().join("books.jsonl");
    let (text, _) = check(&server.run(&["export", file.to_str().unwrap()]), 0);
    assert!(text.starts_with("4000 books written"), "{text}");
    let (json, _) = check(&server.run(&["--json", "export", file.to_str().unwrap()]), 0);
    let written: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&written["books"], &written["file"]), (&4000.into(), &file.to_str().into()));
    server.store().books.retain(|id, _| id.as_str() < "b00400");
    let (json, _) = check(&server.run(&["--json", "import", file.to_str().unwrap()]), 0);
    let tally: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(tally, serde_json::json!({"books": 4000, "added": 3600, "changed": 0, "unchanged": 400}));

    let mut cut = server.command(&["export"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 10];
    cut.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = cut.wait_with_output().unwrap();
    assert_eq!(&first, b"id,title,t");
    assert_eq!(check(&output, 0).1, "", "a closed pipe is no error");
}

#[test]
fn a_wrong_list_is_refused_whole_with_line_and_column() {
    let server = Server::start(0);
    let file = server.home.path().join("books.csv");
    std::fs::write(&file, "id,title,topic,cost,stock\na,A,t,1,1\nb,B,t,-1,1\n").unwrap();
    let error = error_of(&server.run(&["--json", "import", file.to_str().unwrap()]), 1);
    assert_eq!((&error["line"], &error["column"], &error["name"]), (&3.into(), &7.into(), &"invalid_inventory".into()));
    assert!(error["detail"].as_str().unwrap().contains("negative"), "{error}");
    assert_eq!(server.store().writes.len(), 0);
    let mut piped = server.command(&["import", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(b"1\nT\nt\nid\n20\n5\n").unwrap();
    let (text, _) = check(&piped.wait_with_output().unwrap(), 0);
    assert_eq!(text, "1 book: 1 added, 0 changed, 0 unchanged\n");
    check(&server.run(&["import", "/nowhere/books.csv"]), 2);
    let (_, text) = check(&server.run(&["import", "/dev/zero"]), 1);
    assert!(text.contains("line 1,") && text.contains("longer than"), "{text}");
}

#[test]
fn an_import_gives_up_when_it_was_told_to() {
    let server = Server::start(0);
    let file = server.home.path().join("books.csv");
    std::fs::write(&file, "id,title,topic,cost,stock\na,A,t,1,1\n").unwrap();
    server.store().mood = Mood::Swallow;
    let (_, text) = check(&server.run(&["--timeout", "200ms", "import", file.to_str().unwrap()]), 4);
    assert!(text.contains("repeat the import"), "{text}");
    assert!(server.store().deadline_ms <= 200, "{}", server.store().deadline_ms);
}

/// Of a front that answers and a catalog that does not.
#[track_caller]
fn check_metrics(server: &Server) {
    let metrics = |args: &[&str], code| {
        let output = pygmy(server.home.path()).arg("metrics").args(args).output().unwrap();
        check(&output, code).0
    };
    let all = metrics(&[], 0);
    for line in [
        "# TYPE pygmy_up gauge",
        r#"pygmy_up{node="front-1",role="front"} 1"#,
        r#"pygmy_up{node="catalog-1",role="catalog"} 0"#,
        "# UNIT pygmy_uptime_seconds seconds",
        r#"pygmy_uptime_seconds{node="front-1",role="front"} 0.001"#,
        r#"pygmy_peer_silence_seconds{node="front-1",role="front",peer="catalog-1"} 0.017"#,
        r#"pygmy_peer_suspected{node="front-1",role="front",peer="catalog-1"} 1"#,
        r#"pygmy_peer_suspicions_total{node="front-1",role="front",peer="catalog-1"} 1"#,
        r#"pygmy_link_jobs{node="front-1",role="front",peer="node 9"} 4"#,
        r#"pygmy_log_durable_seq{node="front-1",role="front"} 1"#,
        r#"pygmy_system_calls_total{node="front-1",role="front"} 90"#,
        r#"pygmy_syncs_total{node="front-1",role="front"} 3"#,
        r#"pygmy_written_bytes_total{node="front-1",role="front"} 8192"#,
        "# TYPE pygmy_cache_hits counter",
        r#"pygmy_cache_hits_total{node="front-1",role="front"} 7"#,
        r#"pygmy_cache_fresh_age_seconds{node="front-1",role="front"} 0.08"#,
        r#"pygmy_cache_limit_bytes{node="front-1",role="front"} 1024"#,
    ] {
        assert!(all.lines().any(|told| told == line), "{line} is not in {all}");
    }
    assert!(all.ends_with("\n# EOF\n"), "{all}");
    assert_eq!(all.lines().filter(|line| line.contains("catalog-1\",role")).count(), 1, "{all}");
    assert_eq!(
        metrics(&["--node", "front-1"], 0),
        all.replace("pygmy_up{node=\"catalog-1\",role=\"catalog\"} 0\n", "")
    );
    assert_eq!(metrics(&["--node", "catalog-1"], 3).lines().count(), 4);
    assert_eq!(metrics(&["--json"], 2), "");
    let by_address = metrics(&["--front", &server.address], 0);
    assert!(by_address.contains(r#"pygmy_up{node="front-1",role="front"} 1"#), "{by_address}");
}

#[test]
fn a_cluster_file_names_the_nodes() {
    let server = Server::start(1);
    let directory = server.home.path().join("data/pygmy/default");
    std::fs::create_dir_all(&directory).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let text = format!(
        "[cluster]\nid = \"{}\"\nkey = \"\"\n[[node]]\nname = \"front-1\"\nrole = \"front\"\naddress = \"{}\"\n\
         [[node]]\nname = \"catalog-1\"\nrole = \"catalog\"\naddress = \"{free}\"\n",
        "ab".repeat(16),
        server.address
    );
    std::fs::write(directory.join("cluster.toml"), &text).unwrap();
    check(&pygmy(server.home.path()).args(["buy", "b00000"]).output().unwrap(), 0);
    let (table, _) = check(&pygmy(server.home.path()).arg("status").output().unwrap(), 0);
    assert!(table.contains("front-1") && table.contains("catalog-1: no connection"), "{table}");
    let (table, _) = check(&pygmy(server.home.path()).args(["status", "--links"]).output().unwrap(), 0);
    let row: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(row.join(" "), "front-1 catalog-1 - red does not hear it 17 345 1 0 - - -", "{table}");
    check_metrics(&server);
    let other = server.home.path().join("other.toml");
    std::fs::write(&other, text.replace(&"ab".repeat(16), &"cd".repeat(16))).unwrap();
    let output = pygmy(server.home.path()).env("PYGMY_CLUSTER", &other).args(["--json", "topics"]).output().unwrap();
    assert!(error_of(&output, 3)["causes"][0]["cause"].as_str().unwrap().contains("wrong_cluster"));
    let output = pygmy(server.home.path()).args(["--node", "order-9", "topics"]).output().unwrap();
    assert!(check(&output, 2).1.contains("front-1, catalog-1"));
}

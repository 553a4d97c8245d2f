//! Replicas that no log can help any more get a snapshot from the others: real threads, sockets and files.

mod common;
mod patience;

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;

use common::{CLUSTER, Client};
use mio::Waker;
use patience::until;
use pygmy_node::disk::direct::LogWrites;
use pygmy_node::disk::fs::RealFs;
use pygmy_node::disk::record::Mark;
use pygmy_node::driver::{
    DiskLog, Driver, DriverConfig, Exit, Handle, Limits, LinkConfig, LogError, LogEvent, LogWriter, MemoryLog, now,
};
use pygmy_node::node::Node;
use pygmy_node::settings::{ClusterSettings, NodeSettings, Settings, SnapshotPolicy, TokenMode};
use pygmy_node::snapshot::SnapshotOptions;
use pygmy_node::snapshot::SnapshotOrder;
use pygmy_node::snapshot::open::{OpenOptions, open};
use pygmy_node::snapshot::transfer::{Done, Job};
use pygmy_proto::batch::Batch;
use pygmy_proto::message::*;
use pygmy_proto::types::{self, BookId, Bounded};
use pygmy_ring::Vote;

/// Books in one write, and writes of one round. Two rounds make several snapshots, so that the log is cut.
const BOOKS: usize = 50;
const WRITES: u64 = 80;

/// Counts the parts that go through a node, and holds up those that it would write.
#[derive(Debug)]
struct Gate {
    /// Parts that may still be written.
    room: AtomicI64,
    written: AtomicU64,
    read: AtomicU64,
}

impl Default for Gate {
    fn default() -> Self {
        Self { room: AtomicI64::new(i64::MAX), written: AtomicU64::default(), read: AtomicU64::default() }
    }
}

/// A log behind a gate.
struct Gated {
    log: DiskLog,
    gate: Arc<Gate>,
    held: VecDeque<Job>,
}

impl Gated {
    fn release(&mut self) {
        while let Some(job) = self.held.pop_front() {
            match &job {
                Job::Write { .. } if self.gate.room.load(Ordering::Relaxed) <= 0 => return self.held.push_front(job),
                Job::Write { .. } => {
                    self.gate.room.fetch_sub(1, Ordering::Relaxed);
                    self.gate.written.fetch_add(1, Ordering::Relaxed);
                }
                Job::Read { .. } => {
                    self.gate.read.fetch_add(1, Ordering::Relaxed);
                }
                Job::Begin { .. } | Job::Finish { .. } | Job::Drop { .. } => {}
            }
            self.log.transfer(job);
        }
    }
}

impl LogWriter for Gated {
    fn attach(&mut self, waker: Arc<Waker>) {
        self.log.attach(waker);
    }
    fn submit(&mut self, epoch: Epoch, batch: Batch) {
        self.log.submit(epoch, batch);
    }
    fn submit_vote(&mut self, vote: Vote) {
        self.log.submit_vote(vote);
    }
    fn read(&mut self, node: u16, from_seq: u64, upto: u64) {
        self.log.read(node, from_seq, upto);
    }
    fn take_snapshot(&mut self, order: Box<SnapshotOrder>) {
        self.log.take_snapshot(order);
    }
    fn cut_below(&mut self, seq: u64) {
        self.log.cut_below(seq);
    }
    fn restart(&mut self, epoch: Epoch, mark: Mark) {
        self.log.restart(epoch, mark);
    }
    fn transfer(&mut self, job: Job) {
        self.held.push_back(job);
        self.release();
    }
    fn poll_transfer(&mut self) -> Option<Done> {
        self.release();
        self.log.poll_transfer()
    }
    fn flush(&mut self) -> Result<(), LogError> {
        self.log.flush()
    }
    fn poll(&mut self) -> Result<Option<LogEvent>, LogError> {
        self.log.poll()
    }
}

/// A running node.
struct Running {
    handle: Handle,
    thread: JoinHandle<Exit>,
}

/// A front, two orders and three catalogs, whose logs are cut early.
struct Site {
    dir: tempfile::TempDir,
    cluster: ClusterSettings,
    nodes: BTreeMap<u16, Running>,
    gates: BTreeMap<u16, Arc<Gate>>,
    /// Identities of the logs that are there now.
    uuids: BTreeMap<u16, [u8; 16]>,
    boots: u64,
    client: Option<Client>,
    session: u64,
    counter: u64,
}

/// Nodes 2 to 6.
const REPLICAS: [u16; 5] = [2, 3, 4, 5, 6];

impl Site {
    fn start() -> Self {
        let roles = [Role::Front, Role::Order, Role::Order, Role::Catalog, Role::Catalog, Role::Catalog];
        let node = |(number, role): (u16, &Role)| NodeSettings {
            number,
            name: format!("{}-{number}", role.name()),
            role: *role,
            address: free_address().to_string(),
            log_uuid: [number as u8; 16],
        };
        let nodes: Vec<NodeSettings> = (1..).zip(&roles).map(node).collect();
        let uuids = nodes.iter().map(|node| (node.number, node.log_uuid)).collect();
        let mut site = Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
            cluster: ClusterSettings { id: CLUSTER, key: vec![9; 32], token: TokenMode::Demand, cache_bytes: 0, nodes },
            nodes: BTreeMap::new(),
            gates: BTreeMap::new(),
            uuids,
            boots: 0,
            client: None,
            session: 0,
            counter: 0,
        };
        for node in 1..=6 {
            site.run(node);
        }
        let mut client = Client::connect(site.address(1));
        site.session = until("a session", || client.ask::<_, SessionOpened>(&OpenSession {}).ok()).session;
        site.client = Some(client);
        site
    }

    fn address(&self, node: u16) -> SocketAddr {
        self.cluster.node(node).expect("it is configured").address.parse().expect("a literal address")
    }

    /// Starts a node over what is in its directory.
    fn run(&mut self, node: u16) {
        self.boots += 1;
        let address = self.address(node);
        let link = |node: u16| LinkConfig { node, address: self.address(node).to_string() };
        let config = DriverConfig {
            node,
            listener: until("its port is free", || TcpListener::bind(address).ok()),
            datagrams: until("its port is free", || UdpSocket::bind(address).ok()),
            links: self.cluster.dials(node).into_iter().map(link).collect(),
            neighbours: (1..=6).filter(|other| *other != node).map(link).collect(),
            limits: Limits::default(),
            signals: false,
        };
        let settings = Settings {
            cluster: self.cluster.clone(),
            me: node,
            address: String::new(),
            log_uuid: self.uuids[&node],
            boot_nonce: self.boots,
        };
        let (handle, thread) = if node == 1 {
            begin(config, MemoryLog::default(), Node::new(settings, now()).expect("the settings make a ring"))
        } else {
            let gate = Arc::clone(self.gates.entry(node).or_default());
            let (log, machine) = replica(&self.dir.path().join(node.to_string()), settings);
            begin(config, Gated { log, gate, held: VecDeque::new() }, machine)
        };
        self.nodes.insert(node, Running { handle, thread });
    }

    /// Stops a node, and waits for that.
    fn stop(&mut self, node: u16) {
        let running = self.nodes.remove(&node).expect("it runs");
        running.handle.leave().expect("the loop can be woken");
        let exit = running.thread.join().expect("no panic in a node");
        assert!(!matches!(exit, Exit::Fatal(_)), "node {node}: {exit:?}");
    }

    /// Stops a node and takes its disk away: it comes back as a learner.
    fn wipe(&mut self, node: u16) {
        self.stop(node);
        std::fs::remove_dir_all(self.dir.path().join(node.to_string())).expect("it had files");
        self.uuids.insert(node, [0x80 + node as u8; 16]);
        self.gates.remove(&node);
    }

    fn status(&self, node: u16) -> Option<ReplicaStatus> {
        self.nodes.get(&node)?;
        Client::connect(self.address(node)).ask::<_, StatusOk>(&Status {}).ok()?.replica
    }

    /// Puts books whose texts are long, and buys one of each write.
    fn write(&mut self, writes: u64) {
        for _ in 0..writes {
            let at = self.counter * BOOKS as u64;
            let books = (at..at + BOOKS as u64).map(|number| NewBook {
                id: book_id(number),
                title: types::title(&"t".repeat(500)).expect("a title"),
                topic: types::topic("transfers").expect("a topic"),
                cost_cents: number,
                stock: 5,
            });
            self.command(Command::Put { books: Bounded::truncated(books.collect()) });
            self.command(Command::Buy { lines: Bounded::truncated(vec![Line { book: book_id(at), copies: 1 }]) });
        }
    }

    /// Has one command executed, however often it must be asked for.
    fn command(&mut self, command: Command) {
        self.counter += 1;
        let (session, counter) = (self.session, self.counter);
        let write = Write { session, counter, first_incomplete: counter, command };
        let client = self.client.as_mut().expect("it is connected");
        let _: WriteOk = until("a write", || client.ask(&write).ok());
    }

    /// Writes until logs are cut, then has every node forget what it still has of them in memory.
    fn make_old_logs_vanish(&mut self, except: &[u16]) {
        self.write(WRITES);
        for node in REPLICAS.into_iter().filter(|node| !except.contains(node)) {
            self.stop(node);
            self.run(node);
            self.converge(&[node]);
        }
    }

    /// Waits until these nodes have applied what the cluster has committed, and are in the same state as all others.
    fn converge(&self, nodes: &[u16]) {
        for node in nodes {
            let other = REPLICAS.into_iter().find(|other| !nodes.contains(other) && self.nodes.contains_key(other));
            let other = other.or(REPLICAS.into_iter().find(|other| other != node)).expect("there are five");
            until(&format!("node {node} and node {other} agree"), || {
                let (one, two) = (self.status(*node)?, self.status(other)?);
                let ended = one.applied == two.last_seq && two.applied == two.last_seq && one.last_seq == two.last_seq;
                ended.then(|| assert_eq!(one.state_hash, two.state_hash, "at seq {}", one.applied))
            });
        }
    }

    fn written(&self, node: u16) -> u64 {
        self.gates[&node].written.load(Ordering::Relaxed)
    }

    fn read(&self, node: u16) -> u64 {
        self.gates[&node].read.load(Ordering::Relaxed)
    }

    /// No part of a snapshot is written at `node` beyond the next `parts`.
    fn hold_up(&mut self, node: u16, parts: i64) {
        self.gates.entry(node).or_default().room.store(parts, Ordering::Relaxed);
    }

    /// The files of the transfer under way.
    fn incoming(&self, node: u16) -> usize {
        let names = std::fs::read_dir(self.dir.path().join(node.to_string())).expect("it has a directory");
        names
            .filter(|name| name.as_ref().is_ok_and(|n| n.file_name().to_string_lossy().starts_with("incoming-")))
            .count()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let nodes: Vec<u16> = self.nodes.keys().rev().copied().collect();
            nodes.into_iter().for_each(|node| self.stop(node));
        }
    }
}

fn book_id(number: u64) -> BookId {
    BookId::new(&format!("book-{number}")).expect("a valid id")
}

/// An address for connections and datagrams that was free a moment ago.
fn free_address() -> SocketAddr {
    until("a free port", || {
        let listener = TcpListener::bind("127.0.0.1:0").ok()?;
        let address = listener.local_addr().ok()?;
        UdpSocket::bind(address).ok().map(|_| address)
    })
}

/// A replica over the files in `path`, that takes snapshots soon.
fn replica(path: &std::path::Path, settings: Settings) -> (DiskLog, Node) {
    let fs = RealFs::open(path, LogWrites::default()).expect("the directory is free");
    let options = OpenOptions { segment_bytes: 1 << 20, snapshots: SnapshotOptions { ledger_file_bytes: 4_096 } };
    let opened = open(fs.clone(), settings.log_uuid, options).expect("good files");
    let newest_bytes = opened.snapshots.newest().map_or(0, |newest| newest.bytes());
    let mut node = Node::open(settings, now(), opened.recovered).expect("the settings make a ring");
    node.keep_snapshots(SnapshotPolicy { log_bytes_min: 300_000, newest_bytes, ..SnapshotPolicy::default() });
    (DiskLog::new(opened.log, opened.votes, opened.snapshots, &fs), node)
}

fn begin(config: DriverConfig, log: impl LogWriter + Send + 'static, node: Node) -> (Handle, JoinHandle<Exit>) {
    let mut driver = Driver::new(config, log, |_| node).expect("descriptors");
    let handle = driver.handle();
    (handle, std::thread::spawn(move || driver.run().expect("the event queue works")))
}

#[test]
fn two_wiped_replicas_get_snapshots_at_once_and_a_voter_that_was_away_keeps_its_vote() {
    let mut site = Site::start();
    site.write(WRITES);
    site.wipe(6);
    site.wipe(2);
    site.make_old_logs_vanish(&[2, 6]);
    site.run(2);
    site.run(6);
    // What is written while they come goes behind what they get.
    site.write(5);
    site.converge(&[2, 6]);
    assert!(site.written(2) > 2 && site.written(6) > 2, "they came by a snapshot, and not by the log");
    assert!(site.status(2).is_some_and(|status| !status.voter), "a learner");
    site.write(5);
    site.converge(&[2, 6]);
    for node in [2, 6] {
        site.stop(node);
        site.run(node);
    }
    site.converge(&[2, 6]);
}

#[test]
fn a_voter_that_was_away_too_long_gets_a_snapshot_and_votes() {
    let mut site = Site::start();
    site.write(10);
    site.stop(6);
    site.write(WRITES);
    site.make_old_logs_vanish(&[6]);
    site.run(6);
    site.converge(&[6]);
    assert!(site.written(6) > 2, "it came by a snapshot");
    assert!(site.status(6).is_some_and(|status| status.voter));
    // Three of five are a majority only with it.
    site.stop(2);
    site.stop(4);
    site.write(2);
    site.converge(&[6]);
    site.stop(6);
    site.run(6);
    site.write(2);
    site.converge(&[6]);
}

#[test]
fn a_transfer_survives_the_death_of_either_end() {
    let mut site = Site::start();
    site.write(WRITES);
    site.wipe(6);
    site.make_old_logs_vanish(&[6]);
    site.hold_up(6, 3);
    site.run(6);
    until("the transfer is under way", || (site.written(6) == 3).then_some(()));
    assert!(site.incoming(6) > 0);
    site.stop(6);
    assert!(site.incoming(6) > 0, "what had come is still there, and of no use");
    let reads = |site: &Site| -> BTreeMap<u16, u64> { [2, 3, 4, 5].map(|node| (node, site.read(node))).into() };
    let first = reads(&site);
    site.hold_up(6, 3);
    site.run(6);
    until("it begins again", || (site.written(6) == 6).then_some(()));
    // Whoever gives the snapshot dies; there is still a majority.
    let before = reads(&site);
    let donor = *before.iter().find(|(node, reads)| **reads > first[node]).expect("somebody gives it").0;
    site.stop(donor);
    site.hold_up(6, i64::MAX);
    site.write(2);
    site.converge(&[6]);
    let after = reads(&site);
    assert!(after.iter().any(|(node, reads)| *node != donor && *reads > before[node]), "{before:?}, then {after:?}");
    assert_eq!(site.incoming(6), 0);
    site.run(donor);
    site.converge(&[donor]);
}

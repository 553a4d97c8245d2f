//! A whole cluster in one process: real drivers, real sockets, one thread a node.
#![allow(dead_code)] // Each test file uses its part.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::JoinHandle;

use pygmy_node::driver::{Driver, DriverConfig, Exit, Handle, Limits, LinkConfig, MemoryLog};
use pygmy_node::node::Node;
use pygmy_node::settings::{ClusterSettings, NodeSettings, Settings, TokenMode};
use pygmy_proto::frame::{self, Deframer, Flow};
use pygmy_proto::limits::{CLIENT_BODY_MAX, VERSION};
use pygmy_proto::message::*;
use pygmy_proto::types::{Blob, Bounded, Name};
use pygmy_proto::{ErrorBody, ErrorCode, HEADER_LEN, Header, Kind, codec, inventory};

use crate::patience::{PATIENCE, until};

pub(crate) const CLUSTER: [u8; 16] = [7; 16];

/// A running cluster; its nodes leave when it is dropped.
pub(crate) struct Cluster {
    pub(crate) addresses: Vec<SocketAddr>,
    nodes: Vec<(Handle, Option<JoinHandle<Exit>>)>,
}

impl Cluster {
    /// Starts one node for each role, in this order, and loads the original books.
    pub(crate) fn start(roles: &[Role], limits: Limits) -> Self {
        let listeners: Vec<TcpListener> =
            roles.iter().map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let addresses: Vec<SocketAddr> = listeners.iter().map(|l| l.local_addr().expect("bound")).collect();
        let node = |(index, role): (usize, &Role)| NodeSettings {
            number: index as u16 + 1,
            name: format!("{}-{}", role.name(), index + 1),
            role: *role,
            address: addresses[index].to_string(),
            log_uuid: [index as u8 + 1; 16],
        };
        let nodes = roles.iter().enumerate().map(node).collect();
        let cluster =
            ClusterSettings { id: CLUSTER, key: vec![9; 32], token: TokenMode::Demand, cache_bytes: 1 << 20, nodes };
        let bind = || UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let datagrams: Vec<UdpSocket> = roles.iter().map(|_| bind()).collect();
        let heartbeats: Vec<SocketAddr> = datagrams.iter().map(|s| s.local_addr().expect("bound")).collect();
        let started = listeners.into_iter().zip(datagrams).enumerate().map(|(index, sockets)| {
            let neighbours = (1..).zip(&heartbeats).filter(|(node, _)| *node != index as u16 + 1);
            let neighbours = neighbours.map(|(node, address)| LinkConfig { node, address: address.to_string() });
            start_node(&cluster, index, sockets, neighbours.collect(), limits)
        });
        let nodes = started.collect();
        let cluster = Self { addresses, nodes };
        cluster.load_books();
        cluster
    }

    /// One of each role.
    pub(crate) fn small(limits: Limits) -> Self {
        Self::start(&[Role::Front, Role::Order, Role::Catalog], limits)
    }

    pub(crate) fn front(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Waits until a write goes through; the original's books are there then.
    fn load_books(&self) {
        let mut client = Client::connect(self.front());
        let session = until("a session", || client.ask::<_, SessionOpened>(&OpenSession {}).ok()).session;
        let books = Bounded::truncated(inventory::builtin());
        let put = Write { session, counter: 1, first_incomplete: 1, command: Command::Put { books } };
        let done: WriteOk = client.ask(&put).expect("the books are put");
        assert!(matches!(done.outcome, Outcome::Put { added: 7, .. }), "{done:?}");
    }

    /// Asks every node to leave; how each ended.
    pub(crate) fn stop(&mut self) -> Vec<Exit> {
        for (handle, thread) in &self.nodes {
            if thread.is_some() {
                handle.leave().expect("the loop can be woken");
            }
        }
        let threads = self.nodes.iter_mut().filter_map(|(_, thread)| thread.take());
        threads.map(|thread| thread.join().expect("no panic in a node")).collect()
    }

    /// Asks one node to leave.
    pub(crate) fn ask_to_leave(&self, number: usize) {
        self.nodes[number - 1].0.leave().expect("the loop can be woken");
    }

    /// Waits until a node has ended; how it did.
    pub(crate) fn wait_for(&mut self, number: usize) -> Exit {
        let thread = self.nodes[number - 1].1.take().expect("it was not waited for");
        thread.join().expect("no panic in a node")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

fn start_node(
    cluster: &ClusterSettings,
    index: usize,
    (listener, datagrams): (TcpListener, UdpSocket),
    neighbours: Vec<LinkConfig>,
    limits: Limits,
) -> (Handle, Option<JoinHandle<Exit>>) {
    let me = index as u16 + 1;
    let address = |node: u16| cluster.node(node).map(|n| n.address.clone()).unwrap_or_default();
    let links = cluster.dials(me).into_iter().map(|node| LinkConfig { node, address: address(node) }).collect();
    let config = DriverConfig { node: me, listener, datagrams, links, neighbours, limits, signals: false };
    let log_uuid = cluster.nodes[index].log_uuid;
    let settings = Settings { cluster: cluster.clone(), me, address: address(me), log_uuid, boot_nonce: u64::from(me) };
    let make = |now| Node::new(settings, now).expect("the settings make a ring");
    let mut driver = Driver::new(config, MemoryLog::default(), make).expect("descriptors");
    let handle = driver.handle();
    (handle, Some(std::thread::spawn(move || driver.run().expect("the event queue works"))))
}

/// A frame that came.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) header: Header,
    pub(crate) body: Vec<u8>,
}

impl Got {
    pub(crate) fn error(&self) -> ErrorBody {
        assert_eq!(self.header.kind, Kind::Error as u16, "{self:?}");
        codec::decode(&self.body).expect("a whole error")
    }
    pub(crate) fn code(&self) -> ErrorCode {
        self.error().known_code().expect("a known code")
    }
}

/// A client that can also do what clients must not.
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    deframer: Deframer,
    frames: Vec<Got>,
    next_id: u64,
}

impl Client {
    /// Connects and says nothing yet.
    pub(crate) fn silent(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("the node listens");
        socket.set_nodelay(true).expect("a TCP socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        Self { socket, deframer: Deframer::new(CLIENT_BODY_MAX), frames: Vec::new(), next_id: 100 }
    }

    /// Connects and shakes hands.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let mut client = Self::silent(address);
        client.send(1, &hello(CLUSTER));
        let answer = client.next().expect("an answer to Hello");
        assert_eq!(answer.header.kind, Kind::HelloOk as u16, "{answer:?}");
        client
    }

    pub(crate) fn send<M: Message>(&mut self, id: u64, message: &M) {
        self.send_bytes(&frame::to_bytes(id, 0, 0, message));
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        // A server that has closed already is seen when reading.
        let _ = self.socket.write_all(bytes);
    }

    /// The next frame, or `None` when the server has closed.
    pub(crate) fn next(&mut self) -> Option<Got> {
        let mut buffer = [0; 64 * 1024];
        while self.frames.is_empty() {
            let count = match self.socket.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no frame in {PATIENCE:?}: {error}"),
            };
            let frames = &mut self.frames;
            let fed = self.deframer.feed(&buffer[..count], |_, frame| {
                frames.push(Got { header: frame.header, body: frame.body.to_vec() });
                Flow::Continue
            });
            fed.expect("a node sends whole frames");
        }
        Some(self.frames.remove(0))
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask<M: Message, A: Message>(&mut self, message: &M) -> Result<A, ErrorBody> {
        self.next_id += 1;
        self.send(self.next_id, message);
        let got = self.next().expect("the server answers");
        assert_eq!(got.header.request_id, self.next_id);
        if got.header.kind == A::KIND as u16 {
            return Ok(codec::decode(&got.body).expect("a whole answer"));
        }
        Err(got.error())
    }
}

pub(crate) fn hello(cluster: [u8; 16]) -> Hello {
    Hello {
        version_min: VERSION,
        version_max: VERSION,
        role: Role::Client,
        cluster,
        settings: 0,
        credentials: Blob::default(),
        name: Name::truncated("test"),
        replica: None,
    }
}

/// A frame with any header, its checksum right.
pub(crate) fn raw_frame(kind: u16, version: u8, body: &[u8]) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    frame::write_raw(&mut out, kind, 5, 0, 0, body);
    out[8] = version;
    let crc = pygmy_proto::header::checksum(&out);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    assert!(out.len() == HEADER_LEN + body.len());
    out.to_vec()
}

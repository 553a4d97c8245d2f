//! etcd: three members. A buy is a transaction that holds only if nobody else has changed the book since it was read.

mod rpc;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prost::bytes::Bytes;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use self::rpc::{Compare, Kv, RangeRequest, RequestOp, TxnRequest, TxnResponse};
use super::account;
use super::lanes::{self, Lane};
use super::peer::{Group, Guarantees, Missing, Peer, Shape, Spans, Standing};
use super::sandbox::{Farewell, Place, Server, free_ports};
use super::shelf::{self, STOCK, Shelf, VALUE_BYTES};
use super::tally::Measured;
use crate::error::Error;

/// Members.
const MEMBERS: usize = 3;
/// Clients that share a connection.
const CLIENTS_PER_CONNECTION: usize = 32;
/// Books that a buyer has for himself, at most: each must be read once before it can be bought.
const OWN_BOOKS_MAX: usize = 8;
/// Longest time in which the books must be there.
const FILL_PATIENCE: Duration = Duration::from_secs(60);
/// Before a request is sent again that found no leader.
const REST: Duration = Duration::from_millis(10);
/// Keys that one transaction may write at most, by etcd's default.
const OPS_MAX: usize = 128;

/// What this setting of it promises.
pub(super) const GUARANTEES: Guarantees = Guarantees {
    durable: "on two of three disks: committed by Raft, synced by a majority",
    resend: "refused: the transaction asks that the order's key is not there yet",
    failover: "a new leader within about a second, by agreement; no acknowledged buy is lost",
    buy: "Txn: if the book's revision is still the one last seen, put stock - 1 and the order; else read it and try \
          again. A client must know the revision, so that buyers of one book undo each other's tries",
    lookup: "the latest commit (linearizable), at the leader",
};

/// etcd as it is installed here.
#[derive(Debug)]
pub(super) struct Etcd {
    server: PathBuf,
    version: String,
}

impl Etcd {
    /// Looks for it.
    ///
    /// # Errors
    /// When it is not installed.
    pub(super) fn find() -> Result<Self, Missing> {
        let missing = || Missing { program: "etcd", packages: "etcd-server" };
        let server = account::program("etcd").ok_or_else(missing)?;
        let printed = account::first_line(&server, &["--version"]);
        let version = printed.rsplit(' ').next().unwrap_or("?").to_string();
        Ok(Self { server, version })
    }

    fn start_one(&self, place: &Place, number: usize, clients: &[u16], peers: &[u16]) -> Result<(), Error> {
        let name = member(number);
        let dir = place.new_dir(&name, None)?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let all: Vec<String> =
            peers.iter().enumerate().map(|(number, port)| format!("{}={}", member(number), url(*port))).collect();
        let settings = [
            ("--name", name.clone()),
            ("--data-dir", dir.join("data").display().to_string()),
            ("--listen-client-urls", url(clients[number])),
            ("--advertise-client-urls", url(clients[number])),
            ("--listen-peer-urls", url(peers[number])),
            ("--initial-advertise-peer-urls", url(peers[number])),
            ("--initial-cluster", all.join(",")),
            ("--initial-cluster-state", "new".into()),
            ("--logger", "zap".into()),
            ("--log-level", "error".into()),
        ];
        let args = settings.into_iter().flat_map(|(setting, value)| [setting.into(), value]).collect();
        let program = self.server.as_path();
        place.start(Server { name: &name, program, args, account: None, farewell: Farewell::Kill })
    }
}

fn member(number: usize) -> String {
    format!("member-{}", number + 1)
}

impl Peer for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn describe(&self) -> String {
        format!("etcd {}, {MEMBERS} members", self.version)
    }

    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    fn shapes(&self, group: Group) -> Vec<Shape> {
        let own = |clients, depth| Shape::new(group, clients, depth);
        match group {
            Group::Lookups => vec![own(50, 1), own(50, 16)],
            Group::Buys => vec![own(16, 1), own(64, 1), own(256, 1)],
            Group::One => vec![own(1, 1)],
            Group::Flash => Shape::flash(),
        }
    }

    fn start(&self, place: &Place, shelf: &Shelf) -> Result<Box<dyn Standing>, Error> {
        let ports = free_ports(2 * MEMBERS)?;
        let (clients, peers) = ports.split_at(MEMBERS);
        (0..MEMBERS).try_for_each(|number| self.start_one(place, number, clients, peers))?;
        let runtime = lanes::runtime()?;
        let leader = place.wait("leader that all agree on", || runtime.block_on(find_leader(clients)))?;
        let address = format!("http://127.0.0.1:{leader}");
        let filled = runtime.block_on(async { timeout(FILL_PATIENCE, fill(&address, shelf)).await });
        let late = || Error::Unreachable { address: "etcd".into(), why: "it has no leader for long".into() };
        filled.map_err(|_| late())??;
        Ok(Box::new(Running { runtime, address, shelf: *shelf, orders: Arc::default() }))
    }
}

async fn connect(address: &str) -> Result<Kv, Status> {
    let endpoint = Endpoint::from_shared(address.to_string()).map_err(|error| Status::internal(error.to_string()))?;
    let channel = endpoint.tcp_nodelay(true).connect().await;
    channel.map(Kv::new).map_err(|error| Status::unavailable(error.to_string()))
}

/// The port of the leader, once all members know the same one.
async fn find_leader(ports: &[u16]) -> Option<u16> {
    let mut members = Vec::with_capacity(ports.len());
    for port in ports {
        let mut kv = connect(&format!("http://127.0.0.1:{port}")).await.ok()?;
        let status = kv.status().await.ok()?;
        members.push((*port, status.header?.member_id, status.leader));
    }
    let (_, _, leader) = *members.first()?;
    let is_agreed = leader != 0 && members.iter().all(|(_, _, other)| *other == leader);
    let (port, _, _) = members.into_iter().find(|(_, id, _)| *id == leader)?;
    is_agreed.then_some(port)
}

fn book_key(number: u32) -> Bytes {
    format!("book/{}", shelf::id(number)).into()
}

fn stock_key(number: u32) -> Bytes {
    format!("stock/{}", shelf::id(number)).into()
}

async fn fill(address: &str, shelf: &Shelf) -> Result<(), Error> {
    let mut kv = connect(address).await.map_err(|status| lost(&status))?;
    let puts: Vec<RequestOp> = shelf
        .numbers()
        .flat_map(|number| {
            [(book_key(number), shelf::value(number)), (stock_key(number), STOCK.to_string())]
                .map(|(key, value)| RequestOp::put(key, value.into()))
        })
        .collect();
    for chunk in puts.chunks(OPS_MAX) {
        let request = TxnRequest { compare: Vec::new(), success: chunk.to_vec(), failure: Vec::new() };
        // What is put twice is there once.
        while let Err(status) = kv.txn(request.clone()).await {
            rest_after(&status).await?;
        }
    }
    Ok(())
}

fn lost(status: &Status) -> Error {
    Error::Unreachable { address: "etcd".into(), why: format!("{}: {}", status.code(), status.message()) }
}

/// Waits a moment where etcd has no leader just now, which passes.
async fn rest_after(status: &Status) -> Result<(), Error> {
    if !matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) {
        return Err(lost(status));
    }
    tokio::time::sleep(REST).await;
    Ok(())
}

/// etcd while it runs.
struct Running {
    runtime: Runtime,
    address: String,
    shelf: Shelf,
    /// Number of the next order.
    orders: Arc<AtomicU64>,
}

impl Standing for Running {
    fn load(&mut self, _: &Place, shape: &Shape, spans: Spans) -> Result<Measured, Error> {
        let count = shape.in_flight();
        let connections = self.runtime.block_on(async {
            let mut connections = Vec::new();
            for _ in 0..count.div_ceil(CLIENTS_PER_CONNECTION) {
                connections.push(connect(&self.address).await?);
            }
            Ok(connections)
        });
        let connections: Vec<Kv> = connections.map_err(|status: Status| lost(&status))?;
        let kv = |number: usize| connections[number % connections.len()].clone();
        let rng = |number: usize| ChaCha8Rng::seed_from_u64(number as u64);
        let tally = if shape.group == Group::Lookups {
            let lane = |number| Reader { kv: kv(number), shelf: self.shelf, rng: rng(number) };
            lanes::run(&self.runtime, spans, (0..count).map(lane).collect())?
        } else {
            let lane = |number: usize| Buyer {
                kv: kv(number),
                books: own_books(self.shelf, number, count, shape.is_one_book),
                turn: 0,
                orders: self.orders.clone(),
            };
            lanes::run(&self.runtime, spans, (0..count).map(lane).collect())?
        };
        Ok(tally.measured())
    }
}

/// Looks books up.
struct Reader {
    kv: Kv,
    shelf: Shelf,
    rng: ChaCha8Rng,
}

impl Lane for Reader {
    async fn ask(&mut self) -> Result<bool, Error> {
        let key = book_key(self.shelf.pick(&mut self.rng, false));
        loop {
            match self.kv.range(RangeRequest { key: key.clone(), serializable: false }).await {
                Ok(found) => return Ok(found.kvs.first().is_some_and(|kv| kv.value.len() == VALUE_BYTES)),
                Err(status) => rest_after(&status).await?,
            }
        }
    }
}

/// The books that buyer `number` of `count` has for himself, as far as there are enough: nobody else changes them, which
/// is the best case of conditions on revisions. In a flash sale it is the same one for all.
fn own_books(shelf: Shelf, number: usize, count: usize, is_one_book: bool) -> Vec<Seen> {
    let seen = |number: u32| Seen { number, revision: 0, stock: 0 };
    if is_one_book {
        return vec![seen(0)];
    }
    let own: Vec<Seen> = shelf.numbers().skip(number).step_by(count).take(OWN_BOOKS_MAX).map(seen).collect();
    // More buyers than books: some share one.
    if own.is_empty() { vec![seen(number as u32 % shelf.count)] } else { own }
}

/// A book as a buyer last saw it; with revision 0, not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    number: u32,
    revision: i64,
    stock: u32,
}

impl Seen {
    /// Takes a copy and records the order, if nothing has changed since, and else reads the book.
    fn buy(&self, order: u64) -> TxnRequest {
        let (stock, order) = (stock_key(self.number), Bytes::from(format!("order/{order}")));
        let taken = Bytes::from(self.stock.saturating_sub(1).to_string());
        TxnRequest {
            compare: vec![Compare::changed_at(stock.clone(), self.revision), Compare::is_absent(order.clone())],
            success: vec![RequestOp::put(stock.clone(), taken), RequestOp::put(order, book_key(self.number))],
            failure: vec![RequestOp::range(stock)],
        }
    }

    /// What the answer shows; whether the buy is done.
    fn learn(&mut self, answer: &TxnResponse) -> Option<bool> {
        if answer.succeeded {
            self.revision = answer.header.as_ref()?.revision;
            self.stock -= 1;
            return Some(true);
        }
        let kv = answer.responses.first()?.range.as_ref()?.kvs.first()?;
        self.revision = kv.mod_revision;
        self.stock = std::str::from_utf8(&kv.value).ok()?.parse().ok()?;
        Some(false)
    }
}

/// Buys books, one after the other of its own.
struct Buyer {
    kv: Kv,
    books: Vec<Seen>,
    turn: usize,
    orders: Arc<AtomicU64>,
}

impl Lane for Buyer {
    async fn ask(&mut self) -> Result<bool, Error> {
        let order = self.orders.fetch_add(1, Ordering::Relaxed);
        self.turn = (self.turn + 1) % self.books.len();
        let book = &mut self.books[self.turn];
        // A transaction that broke off may have been done. It is sent again as it was, and holds only once.
        let mut is_unsure = false;
        loop {
            let answer = match self.kv.txn(book.buy(order)).await {
                Ok(answer) => answer,
                Err(status) => {
                    is_unsure = true;
                    rest_after(&status).await?;
                    continue;
                }
            };
            let strange = || Error::Unreachable { address: "etcd".into(), why: "it answers a Txn strangely".into() };
            let before = book.revision;
            match book.learn(&answer).ok_or_else(strange)? {
                true => return Ok(true),
                // Nobody has changed the book meanwhile: then it was the order that is there already.
                false if book.revision == before => return Ok(is_unsure),
                false if book.stock == 0 => return Ok(false),
                false => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rpc::{Header, KeyValue, RangeResponse, ResponseOp};
    use super::*;

    #[test]
    fn buyers_have_books_of_their_own_while_there_are_enough() {
        let numbers = |number, count, is_one_book| -> Vec<u32> {
            own_books(Shelf { count: 10 }, number, count, is_one_book).iter().map(|seen| seen.number).collect()
        };
        assert_eq!((numbers(0, 4, false), numbers(3, 4, false)), (vec![0, 4, 8], vec![3, 7]));
        assert_eq!((numbers(12, 64, false), numbers(12, 64, true)), (vec![2], vec![0]));
    }

    #[test]
    fn a_buyer_learns_from_every_answer() {
        let mut seen = Seen { number: 3, revision: 0, stock: 0 };
        let kv = KeyValue { mod_revision: 40, value: Bytes::from_static(b"17") };
        let range = RangeResponse { header: None, kvs: vec![kv] };
        let refused =
            TxnResponse { header: None, succeeded: false, responses: vec![ResponseOp { range: Some(range) }] };
        assert_eq!(seen.learn(&refused), Some(false));
        assert_eq!(seen, Seen { number: 3, revision: 40, stock: 17 });
        let header = Some(Header { member_id: 1, revision: 41 });
        let done = TxnResponse { header, succeeded: true, responses: Vec::new() };
        assert_eq!(seen.learn(&done), Some(true));
        assert_eq!(seen, Seen { number: 3, revision: 41, stock: 16 });
        assert_eq!(seen.learn(&TxnResponse::default()), None);
    }
}

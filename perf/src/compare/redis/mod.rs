//! Redis: a primary and two replicas, every write in their append-only files before it is answered.

mod admin;
mod benchmark;
mod pipeline;
mod resp;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use self::admin::Admin;
use self::pipeline::{Orders, Script};
use self::resp::Reply;
use super::account;
use super::peer::{Generator, Group, Guarantees, Missing, Peer, Shape, Spans, Standing};
use super::sandbox::{Farewell, Place, Server, free_ports};
use super::shelf::{self, STOCK, Shelf, VALUE_BYTES};
use super::tally::Measured;
use crate::error::Error;

/// Replicas beside the primary.
const REPLICAS: usize = 2;
/// Milliseconds that `WAIT` waits for them.
const WAIT_MS: &str = "1000";
/// The lookups of `redis-benchmark` by which is found out how many last as long as wanted.
const TRIAL_REQUESTS_PER_SLOT: u64 = 100;

/// One buy: the order is recorded under its id, and the copy taken, if the order is new and a copy is there. Answers
/// the copies left, -1 when there was none, -2 when the order was there.
const BUY: &str = "\
if redis.call('HSETNX', KEYS[1], ARGV[1], KEYS[2]) == 0 then return -2 end
local left = redis.call('DECR', KEYS[2])
if left >= 0 then return left end
redis.call('INCR', KEYS[2])
redis.call('HDEL', KEYS[1], ARGV[1])
return -1";

/// What this setting of it promises.
pub(super) const GUARANTEES: Guarantees = Guarantees {
    durable: "on three disks: appendfsync always everywhere, and WAIT 2 behind the buy. WAIT itself promises only that \
              the replicas have the bytes; that 7.0 syncs before it acknowledges is its present way, not its word",
    resend: "not done twice by the same primary, which knows the order's id",
    failover: "nobody takes over by himself here; a replica that is promoted (by a person or Sentinel) may lack buys \
               whose WAIT was not over, and a primary that was only cut off goes on selling: there is no fencing. A WAIT \
               that times out leaves the buy done",
    buy: "a Lua script on the one primary: HSETNX of the order, DECR of the stock, taken back below zero",
    lookup: "the latest, at the primary, durable or not",
};

/// Redis as it is installed here.
#[derive(Debug)]
pub(super) struct Redis {
    server: PathBuf,
    /// The tool, where it is installed.
    benchmark: Option<PathBuf>,
    version: String,
}

impl Redis {
    /// Looks for it.
    ///
    /// # Errors
    /// When it is not installed.
    pub(super) fn find() -> Result<Self, Missing> {
        let missing = || Missing { program: "redis-server", packages: "redis-server redis-tools" };
        let server = account::program("redis-server").ok_or_else(missing)?;
        let printed = account::first_line(&server, &["--version"]);
        let version = printed.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("?").to_string();
        Ok(Self { server, benchmark: account::program("redis-benchmark"), version })
    }

    fn start_one(&self, place: &Place, number: usize, ports: &[u16]) -> Result<(), Error> {
        let name = if number == 0 { "primary".into() } else { format!("replica-{number}") };
        let dir = place.new_dir(&name, None)?;
        let mut args: Vec<String> = [
            ["--bind", "127.0.0.1"],
            ["--protected-mode", "no"],
            ["--appendonly", "yes"],
            ["--appendfsync", "always"],
            ["--save", ""],
            // No rewriting of the file while it is measured.
            ["--auto-aof-rewrite-percentage", "0"],
            ["--repl-diskless-sync-delay", "0"],
            ["--loglevel", "warning"],
        ]
        .concat()
        .into_iter()
        .map(String::from)
        .collect();
        args.extend(["--port".into(), ports[number].to_string(), "--dir".into(), dir.display().to_string()]);
        if number > 0 {
            args.extend(["--replicaof".into(), "127.0.0.1".into(), ports[0].to_string()]);
        }
        let (program, account) = (self.server.as_path(), None);
        place.start(Server { name: &name, program, args, account, farewell: Farewell::Kill })
    }
}

impl Peer for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn describe(&self) -> String {
        format!("Redis {}, a primary and {REPLICAS} replicas, appendfsync always, WAIT {REPLICAS}", self.version)
    }

    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    fn shapes(&self, group: Group) -> Vec<Shape> {
        let own = |clients, depth| Shape::new(group, clients, depth);
        match group {
            Group::Lookups => {
                let own = [1, 16, 64, 128].map(|depth| own(50, depth));
                let tool = own.map(|shape| Shape { generator: Generator::RedisBenchmark, ..shape });
                own.into_iter().chain(tool.into_iter().filter(|_| self.benchmark.is_some())).collect()
            }
            Group::Buys => {
                vec![own(64, 1), own(256, 1), own(16, 1).batched(32), own(64, 1).batched(32)]
            }
            Group::One => vec![own(1, 1)],
            Group::Flash => Shape::flash(),
        }
    }

    fn start(&self, place: &Place, shelf: &Shelf) -> Result<Box<dyn Standing>, Error> {
        let ports = free_ports(1 + REPLICAS)?;
        (0..ports.len()).try_for_each(|number| self.start_one(place, number, &ports))?;
        let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut primary = place.wait("answer of the primary", || Admin::connect(address(ports[0])))?;
        fill(&mut primary, shelf)?;
        let script = primary.ask(&["SCRIPT", "LOAD", BUY])?;
        for port in &ports[1..] {
            let mut replica = place.wait("answer of a replica", || Admin::connect(address(*port)))?;
            let mut is = |name: &str, value: &str| replica.info(name).is_ok_and(|found| found == value);
            // A replica that has the data still writes its own file anew.
            place.wait("replica in step", || {
                let is_ready = is("master_link_status", "up")
                    && is("aof_rewrite_in_progress", "0")
                    && is("aof_rewrite_scheduled", "0");
                is_ready.then_some(())
            })?;
        }
        place.wait("replicas that are online", || {
            (primary.ask(&["WAIT", "2", WAIT_MS]).ok()? == REPLICAS.to_string()).then_some(())
        })?;
        let benchmark = self.benchmark.clone();
        Ok(Box::new(Running { address: address(ports[0]), primary, script, shelf: *shelf, benchmark, orders: 0 }))
    }
}

fn fill(primary: &mut Admin, shelf: &Shelf) -> Result<(), Error> {
    let words = |words: [&str; 3]| words.map(String::from).to_vec();
    primary.ask_all(shelf.numbers().flat_map(|number| {
        let (book, stock) = (format!("book:{}", shelf::id(number)), format!("stock:{}", shelf::id(number)));
        [words(["SET", &book, &shelf::value(number)]), words(["SET", &stock, &STOCK.to_string()])]
    }))?;
    Ok(())
}

/// Redis while it runs.
struct Running {
    address: SocketAddr,
    primary: Admin,
    /// Name of the script that buys.
    script: String,
    shelf: Shelf,
    benchmark: Option<PathBuf>,
    /// Orders that were given a number so far.
    orders: u64,
}

impl Standing for Running {
    fn load(&mut self, place: &Place, shape: &Shape, spans: Spans) -> Result<Measured, Error> {
        if let (Generator::RedisBenchmark, Some(program)) = (shape.generator, self.benchmark.clone()) {
            return self.benchmark(place, &program, shape, spans);
        }
        let Shape { clients: connections, depth, .. } = *shape;
        let orders = Orders { address: self.address, connections, depth, spans };
        let rng = ChaCha8Rng::seed_from_u64(self.orders);
        let tally = match shape.group {
            Group::Lookups => pipeline::run(orders, &mut Gets::new(self.shelf, rng))?,
            Group::Buys | Group::One | Group::Flash => {
                let is_one_book = shape.is_one_book;
                let mut buys = Buys {
                    script: self.script.clone(),
                    shelf: self.shelf,
                    rng,
                    is_one_book,
                    batch: shape.batch,
                    order: self.orders,
                };
                let tally = pipeline::run(orders, &mut buys)?;
                self.orders = buys.order;
                tally
            }
        };
        Ok(tally.measured())
    }
}

impl Running {
    /// Has the tool ask, first a little, to know how many requests last as long as is wanted.
    fn benchmark(&mut self, place: &Place, program: &Path, shape: &Shape, spans: Spans) -> Result<Measured, Error> {
        let port = self.address.port();
        let run = |requests: u64| {
            let args = benchmark::args(port, shape, self.shelf.count, requests);
            let name = "redis-benchmark";
            place
                .run(Server { name, program, args, account: None, farewell: Farewell::Kill })
                .and_then(|printed| benchmark::parse(&printed))
        };
        let misses_before = self.primary.info("keyspace_misses")?;
        let trial = run(shape.in_flight() as u64 * TRIAL_REQUESTS_PER_SLOT)?;
        let warm = run(benchmark::requests(trial.per_s, spans.warmup, shape))?;
        let measured = run(benchmark::requests(warm.per_s, spans.duration, shape))?;
        let misses = |text: &str| text.parse::<u64>().unwrap_or_default();
        let failed = misses(&self.primary.info("keyspace_misses")?) - misses(&misses_before);
        Ok(Measured { failed, ..measured })
    }
}

/// Lookups of books that are there.
struct Gets {
    shelf: Shelf,
    rng: ChaCha8Rng,
    /// The command for each book: written out before, so that asking costs no more than it does the tool.
    commands: Vec<Bytes>,
}

impl Gets {
    fn new(shelf: Shelf, rng: ChaCha8Rng) -> Self {
        let command = |number| {
            let mut out = BytesMut::new();
            resp::put(&mut out, &[b"GET", format!("book:{}", shelf::id(number)).as_bytes()]);
            out.freeze()
        };
        Self { shelf, rng, commands: shelf.numbers().map(command).collect() }
    }
}

impl Script for Gets {
    fn requests(&self) -> u64 {
        1
    }

    fn replies(&self) -> usize {
        1
    }

    fn put(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(&self.commands[self.shelf.pick(&mut self.rng, false) as usize]);
    }

    fn judge(&self, _: usize, reply: Reply<'_>, _: u64) -> Result<u64, String> {
        match reply {
            Reply::Bulk(value) if value.len() == VALUE_BYTES => Ok(1),
            Reply::Nil => Ok(0),
            other => Err(format!("GET is answered {:?}", other.text())),
        }
    }
}

/// Buys, some of them under one `WAIT`.
struct Buys {
    script: String,
    shelf: Shelf,
    rng: ChaCha8Rng,
    is_one_book: bool,
    batch: usize,
    /// Number of the next order.
    order: u64,
}

impl Script for Buys {
    fn requests(&self) -> u64 {
        self.batch as u64
    }

    fn replies(&self) -> usize {
        self.batch + 1
    }

    fn put(&mut self, out: &mut BytesMut) {
        for _ in 0..self.batch {
            let stock = format!("stock:{}", shelf::id(self.shelf.pick(&mut self.rng, self.is_one_book)));
            let order = self.order.to_string();
            self.order += 1;
            resp::put(out, &[b"EVALSHA", self.script.as_bytes(), b"2", b"orders", stock.as_bytes(), order.as_bytes()]);
        }
        resp::put(out, &[b"WAIT", b"2", WAIT_MS.as_bytes()]);
    }

    fn judge(&self, place: usize, reply: Reply<'_>, done: u64) -> Result<u64, String> {
        match reply {
            Reply::Int(left) if place < self.batch => Ok(done + u64::from(left >= 0)),
            // What too few replicas have is not durable where it was promised.
            Reply::Int(replicas) => Ok(if replicas >= REPLICAS as i64 { done } else { 0 }),
            other => Err(format!("a buy is answered {:?}", other.text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buys(batch: usize) -> Buys {
        let (shelf, rng) = (Shelf { count: 10 }, ChaCha8Rng::seed_from_u64(1));
        Buys { script: "abc".into(), shelf, rng, is_one_book: true, batch, order: 7 }
    }

    #[test]
    fn buys_are_followed_by_their_wait() {
        let mut out = BytesMut::new();
        buys(2).put(&mut out);
        let text = String::from_utf8(out.to_vec()).unwrap();
        let words: Vec<&str> =
            text.split("\r\n").filter(|word| !word.is_empty() && !"*$".contains(&word[..1])).collect();
        let expected =
            "EVALSHA abc 2 orders stock:000000000000 7 EVALSHA abc 2 orders stock:000000000000 8 WAIT 2 1000";
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn a_buy_counts_when_two_replicas_have_it() {
        let buys = buys(2);
        let judge = |replies: [i64; 3]| {
            let all = replies.into_iter().enumerate();
            all.fold(0, |done, (place, number)| buys.judge(place, Reply::Int(number), done).unwrap())
        };
        assert_eq!(judge([5, 4, 2]), 2);
        assert_eq!(judge([0, -1, 2]), 1);
        assert_eq!(judge([5, -2, 2]), 1);
        assert_eq!(judge([5, 4, 1]), 0);
        assert!(buys.judge(0, Reply::Error(b"NOSCRIPT"), 0).is_err());
    }

    #[test]
    fn a_lookup_counts_when_the_book_is_there() {
        let gets = Gets::new(Shelf { count: 10 }, ChaCha8Rng::seed_from_u64(1));
        assert_eq!(gets.judge(0, Reply::Bulk(shelf::value(3).as_bytes()), 0), Ok(1));
        assert_eq!(gets.judge(0, Reply::Nil, 0), Ok(0));
        assert!(gets.judge(0, Reply::Bulk(b"short"), 0).is_err());
    }
}

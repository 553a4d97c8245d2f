//! `pygmy-perf audit`: buys as fast as it can, then asks every replica whether the store kept its promises.

mod buyers;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pygmy_proto::{BookId, ErrorCode};
use serde::Serialize;

use crate::ask::Asker;
use crate::error::Error;
use crate::history::check::{Violation, check};
use crate::history::judge::Findings;
use crate::history::{Answer, BookState, History, Operation, ReplicaView, Shelf, file};
use crate::net::{Engine, Plan};
use crate::replicas::Replicas;
use crate::shelf;
use crate::span::{self, Clock};
use crate::target::{Target, TargetArgs};
use buyers::{Buyers, BuyersPlan};

/// Buys from many clients at once, then compares every replica with what was answered.
///
/// Nobody else may write to the store meanwhile: their orders would look like inventions.
#[derive(Debug, Clone, clap::Args)]
pub struct AuditArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Clients, each with its own session and connection
    #[arg(long, default_value_t = 20)]
    clients: usize,
    /// Orders that each client must get
    #[arg(long, default_value_t = 5_000)]
    buys: u64,
    /// Writes that each client has in flight
    #[arg(long, default_value_t = 8)]
    in_flight: usize,
    /// What the carts are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Longest time for the buying
    #[arg(long, default_value = "10m", value_parser = span::parse)]
    time_limit: Duration,
    /// Longest time for the replicas to reach the same position afterwards
    #[arg(long, default_value = "30s", value_parser = span::parse)]
    converge_within: Duration,
    /// Write history.jsonl and verdict.json into this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the verdict as JSON
    #[arg(long)]
    pub json: bool,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// True when no promise was found broken and the audit came to its end.
    pub ok: bool,
    /// Clients.
    pub clients: usize,
    /// Orders that were acknowledged.
    pub orders: u64,
    /// Restocks that were acknowledged.
    pub restocks: u64,
    /// Writes that were refused for good.
    pub refused: u64,
    /// Writes whose outcome is unknown.
    pub unknown: u64,
    /// Writes that were sent more than once.
    pub repeated: u64,
    /// Every error answered, by the name of its code, those included after which the write was repeated.
    pub errors: BTreeMap<String, u64>,
    /// Connections that were lost and made again.
    pub connections_lost: u64,
    /// Time of the buying, in seconds.
    pub buying_s: f64,
    /// Replicas that were compared.
    pub replicas: Vec<ReplicaSummary>,
    /// What was found broken.
    #[serde(flatten)]
    pub findings: Findings,
}

/// One replica, as compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaSummary {
    /// Its name.
    pub name: String,
    /// Applied up to.
    pub applied: u64,
    /// Hash of its state, in hexadecimal.
    pub state_hash: String,
    /// Orders since the audit began.
    pub orders: usize,
}

/// What the buying brought, before the replicas were asked.
struct Bought {
    history: Vec<Operation>,
    unfinished: Option<String>,
    errors: BTreeMap<String, u64>,
    connections_lost: u64,
    buying_s: f64,
}

/// Does what `audit` says.
///
/// # Errors
/// When a server cannot be reached, so that nothing can be said.
pub fn run(args: &AuditArgs) -> Result<Verdict, Error> {
    if args.clients == 0 || args.in_flight == 0 {
        return Err(Error::Usage("an audit needs clients, and each a write in flight".into()));
    }
    let target = Target::find(&args.target)?;
    let (initial, after) = read_initial(&target, &mut Replicas::connect(&target.replicas())?, args.converge_within)?;
    let bought = buy(args, &target, initial.keys().copied().collect())?;
    // Connected anew: a replica may have been killed and started again meanwhile.
    let mut replicas = Replicas::connect(&target.replicas())?;
    let numbers: Vec<u64> = bought.history.iter().filter_map(acknowledged_number).collect();
    let last = bought.history.iter().filter_map(Operation::seq).max().unwrap_or(after);
    // Whether they have is judged by what they say themselves, below.
    replicas.converge(last, args.converge_within)?;
    let views = replicas.view(after, &numbers)?;
    let history = History { initial, operations: bought.history, replicas: views };
    let mut violations = check(&history);
    violations.extend(bought.unfinished.clone().map(|why| Violation::NotFinished { why }));
    let findings = Findings::new(violations);
    let verdict = Verdict::new(args, &history, findings, bought.errors, bought.connections_lost, bought.buying_s);
    if let Some(dir) = &args.out {
        keep(dir, &history, &verdict)?;
    }
    Ok(verdict)
}

fn acknowledged_number(operation: &Operation) -> Option<u64> {
    match &operation.answer {
        Answer::Bought { order } => Some(order.number),
        _ => None,
    }
}

/// The stock before the first write, and the position it is of.
fn read_initial(target: &Target, replicas: &mut Replicas, within: Duration) -> Result<(Shelf, u64), Error> {
    let busy = || Error::Usage("the store is being written to: an audit needs it for itself".into());
    if !replicas.converge(0, within)? {
        return Err(busy());
    }
    let server = *target.replicas().first().ok_or_else(|| Error::Usage("the cluster has no log replica".into()))?;
    let shelf = shelf::read(&mut Asker::connect(server)?, 0)?;
    if !shelf.is_consistent {
        return Err(busy());
    }
    if shelf.books.is_empty() {
        return Err(Error::Usage("the store has no books: `pygmy import` brings some in".into()));
    }
    Ok((shelf.books.iter().map(|book| (book.id, BookState::from(book))).collect(), shelf.seq))
}

fn buy(args: &AuditArgs, target: &Target, books: Vec<BookId>) -> Result<Bought, Error> {
    let clock = Clock::start();
    let plan = BuyersPlan {
        clients: args.clients,
        buys: args.buys,
        in_flight: args.in_flight,
        seed: args.seed,
        until_ns: span::ns(args.time_limit),
    };
    let mut buyers = Buyers::new(plan, books);
    let links = Plan { addresses: target.front_addresses()?, count: args.clients, first: 0 };
    let mut engine = Engine::new(clock, links).map_err(Error::io("a poll"))?;
    engine.run(&mut buyers).map_err(Error::io("the event loop"))?;
    let now_ns = clock.now_ns();
    let name = |code: u16| ErrorCode::from_u16(code).map_or(format!("error {code}"), |code| code.name().into());
    Ok(Bought {
        unfinished: buyers.unfinished(),
        errors: buyers.refusals().iter().map(|(code, count)| (name(*code), *count)).collect(),
        connections_lost: buyers.losses(),
        buying_s: now_ns as f64 / 1e9,
        history: buyers.into_history(now_ns),
    })
}

fn keep(dir: &Path, history: &History, verdict: &Verdict) -> Result<(), Error> {
    let in_dir = |name: &str| dir.join(name);
    let create = |name: &str| File::create(in_dir(name)).map(BufWriter::new).map_err(Error::io(name));
    std::fs::create_dir_all(dir).map_err(Error::io(dir.display().to_string()))?;
    file::write(history, create("history.jsonl")?).map_err(Error::io("history.jsonl"))?;
    let mut out = create("verdict.json")?;
    let written = serde_json::to_writer_pretty(&mut out, verdict).map_err(io::Error::from);
    written.and_then(|()| writeln!(out)).and_then(|()| out.flush()).map_err(Error::io("verdict.json"))
}

impl Verdict {
    fn new(
        args: &AuditArgs,
        history: &History,
        findings: Findings,
        errors: BTreeMap<String, u64>,
        connections_lost: u64,
        buying_s: f64,
    ) -> Self {
        let count = |is: fn(&Operation) -> bool| history.operations.iter().filter(|op| is(op)).count() as u64;
        let summary = |view: &ReplicaView| ReplicaSummary {
            name: view.name.clone(),
            applied: view.applied,
            state_hash: format!("{:016x}", view.state_hash),
            orders: view.ledger.len(),
        };
        Self {
            ok: findings.is_empty(),
            clients: args.clients,
            orders: count(|op| matches!(op.answer, Answer::Bought { .. })),
            restocks: count(|op| matches!(op.answer, Answer::Restocked { .. })),
            refused: count(|op| matches!(op.answer, Answer::Refused { .. })),
            unknown: count(|op| matches!(op.answer, Answer::Unknown { .. })),
            repeated: count(|op| op.sends > 1),
            errors,
            connections_lost,
            buying_s,
            replicas: history.replicas.iter().map(summary).collect(),
            findings,
        }
    }

    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { clients, orders, restocks, refused, unknown, repeated, buying_s, connections_lost, .. } = self;
        let rate = *orders as f64 / buying_s.max(1e-9);
        writeln!(out, "{clients} clients got {orders} orders in {buying_s:.1} s ({rate:.0} /s), {restocks} restocks,")?;
        writeln!(
            out,
            "{refused} refused, {unknown} of unknown outcome, {repeated} sent again, {connections_lost} connections lost"
        )?;
        for (name, count) in &self.errors {
            writeln!(out, "  {count:>8} x {name}")?;
        }
        for replica in &self.replicas {
            let ReplicaSummary { name, applied, state_hash, orders } = replica;
            writeln!(out, "{name:<12} applied {applied}, state {state_hash}, {orders} orders")?;
        }
        if self.ok {
            return writeln!(
                out,
                "ok: every acknowledged order is in every ledger as it was acknowledged and none twice, no number was\n\
                 given twice, stock is initial + restocked - sold on every replica, and their states are the same"
            );
        }
        self.findings.print(out)
    }
}

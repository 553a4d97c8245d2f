//! `pygmy-perf load`: requests at a given rate or depth, counted by kind and result.

pub mod mix;
pub mod record;
pub mod report;
pub mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use pygmy_proto::header::FLAG_NO_CACHE;
use pygmy_proto::limits::{REQUESTS_IN_FLIGHT_MAX, SESSION_WINDOW};

use crate::ask::Asker;
use crate::error::Error;
use crate::idle::allow_descriptors;
use crate::net::{Engine, Plan};
use crate::shelf;
use crate::span::{self, Clock};
use crate::target::{Target, TargetArgs};
use mix::{Books, Chooser, Mix};
use record::Record;
use report::{Latency, LoadReport};
use worker::{Orders, Pace, Window, Worker};

/// Longest time for all connections to be made and their sessions opened.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Between the last thread's being ready and the first request.
const START_AFTER: Duration = Duration::from_millis(20);
/// Longest wait for answers after the window.
const DRAIN: Duration = Duration::from_secs(5);

/// Loads the store and measures it.
#[derive(Debug, Clone, clap::Args)]
pub struct LoadArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Connections, spread over the front ends
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Requests in flight on each connection; with --rate, at most
    #[arg(long, default_value_t = 16)]
    depth: usize,
    /// Threads of this program
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = span::parse)]
    duration: Duration,
    /// How long to load before that
    #[arg(long, default_value = "1s", value_parser = span::parse)]
    warmup: Duration,
    /// What to ask, with weights: lookup, search, buy, cart
    #[arg(long, default_value = "lookup=80,buy=20")]
    mix: String,
    /// Which books: uniform, zipf:THETA, hot:BOOK or csv:PATH:COLUMN
    #[arg(long, default_value = "uniform")]
    books: String,
    /// Open loop: requests per second in all; without it, a closed loop
    #[arg(long)]
    rate: Option<f64>,
    /// Before the load, restock every book to at least so many copies
    #[arg(long, value_name = "COPIES", default_value_t = 0)]
    stock: u32,
    /// Let reads go past what the front ends keep themselves
    #[arg(long)]
    no_cache: bool,
    /// Deadline of each request
    #[arg(long, default_value = "5s", value_parser = span::parse)]
    deadline: Duration,
    /// What the requests are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Run although this is a debug build, and mark the figures
    #[arg(long)]
    pub allow_debug: bool,
}

impl LoadArgs {
    fn check(&self) -> Result<(), Error> {
        let usage = |why: String| Err(Error::Usage(why));
        if self.connections == 0 || self.threads == 0 || self.threads > self.connections {
            return usage(format!("{} threads for {} connections: each needs one", self.threads, self.connections));
        }
        // The session window bounds writes, the connection's limit everything.
        let depth_max = if self.mix.contains("buy") || self.mix.contains("cart") {
            SESSION_WINDOW as usize
        } else {
            REQUESTS_IN_FLIGHT_MAX
        };
        if !(1..=depth_max).contains(&self.depth) {
            return usage(format!("--depth {}: 1 to {depth_max} with this mix", self.depth));
        }
        if self.duration.is_zero() {
            return usage("--duration must be longer than nothing".into());
        }
        match self.rate {
            Some(rate) if !(rate.is_finite() && rate > 0.0) => usage(format!("--rate {rate}: more than 0")),
            _ => Ok(()),
        }
    }

    fn window(&self, start_ns: u64) -> Window {
        let from_ns = start_ns + span::ns(self.warmup);
        let to_ns = from_ns + span::ns(self.duration);
        Window { start_ns, from_ns, to_ns, drain_ns: to_ns + span::ns(DRAIN) }
    }

    /// When the requests of thread `index` are due.
    fn pace(&self, index: usize) -> Pace {
        self.rate.map_or(Pace::Closed, |rate| {
            let between_ns = 1e9 / rate;
            Pace::Open { interval_ns: between_ns * self.threads as f64, offset_ns: between_ns * index as f64 }
        })
    }

    fn report(&self, books_count: usize, record: &Record) -> LoadReport {
        let none = Latency { p50_us: 0.0, p90_us: 0.0, p99_us: 0.0, p999_us: 0.0, max_us: 0.0 };
        let report = LoadReport {
            debug_build: cfg!(debug_assertions),
            open_loop: self.rate.is_some(),
            connections: self.connections,
            depth: self.depth,
            threads: self.threads,
            mix: self.mix.clone(),
            books: self.books.clone(),
            books_count,
            window_s: self.duration.as_secs_f64(),
            offered_per_s: 0.0,
            answered_per_s: 0.0,
            done_per_s: 0.0,
            unsent: 0,
            lateness: none,
            rows: Vec::new(),
        };
        report.count(record)
    }
}

/// Refuses a debug build, whose figures would be believed by somebody.
///
/// # Errors
/// When this is one and it is not allowed.
pub fn check_build(allow_debug: bool) -> Result<(), Error> {
    if cfg!(debug_assertions) && !allow_debug {
        let why = "this is a debug build: measure with `cargo run --release`, or mark the figures with --allow-debug";
        return Err(Error::Usage(why.into()));
    }
    Ok(())
}

/// One thread's work, and how it hears when to begin.
#[derive(Debug)]
struct Thread {
    clock: Clock,
    plan: Plan,
    worker: Worker,
    ready: Sender<Result<(), Error>>,
    start: Receiver<Window>,
}

impl Thread {
    /// Makes the connections, says so, and loads when told to. Without a word to begin it ends.
    fn run(mut self) -> Result<Option<Record>, Error> {
        let mut engine = Engine::new(self.clock, self.plan).map_err(Error::io("a poll"))?;
        let prepared = engine
            .run(&mut self.worker)
            .map_err(Error::io("the event loop"))
            .and_then(|()| self.worker.readiness().map_err(|why| Error::Unreachable { address: "load".into(), why }));
        // Whoever started this thread waits for the word.
        let _ = self.ready.send(prepared);
        let Ok(window) = self.start.recv() else { return Ok(None) };
        self.worker.begin(window);
        engine.run(&mut self.worker).map_err(Error::io("the event loop"))?;
        Ok(Some(self.worker.into_record()))
    }
}

/// Does what `load` says.
///
/// # Errors
/// When the store cannot be reached, or this machine refuses something.
pub fn run(args: &LoadArgs) -> Result<LoadReport, Error> {
    check_build(args.allow_debug)?;
    args.check()?;
    let mix: Mix = args.mix.parse().map_err(|why| Error::Usage(format!("--mix: {why}")))?;
    let popularity = args.books.parse().map_err(|why| Error::Usage(format!("--books: {why}")))?;
    let target = Target::find(&args.target)?;
    allow_descriptors(args.connections as u64 + 64)?;
    let front = target.fronts().into_iter().find_map(|front| Asker::connect(front).ok());
    let mut asker = match (front, target.fronts().first()) {
        (Some(asker), _) => asker,
        (None, Some(front)) => Asker::connect(front)?,
        (None, None) => return Err(Error::Usage("the cluster has no front end".into())),
    };
    let shelf = shelf::read(&mut asker, 0)?;
    shelf::restock(&mut asker, &shelf.books, args.stock)?;
    let books = Arc::new(Books::new(&shelf.books, &popularity, args.seed).map_err(Error::Usage)?);
    let record = drive(args, &mix, &books, &target.front_addresses()?)?;
    Ok(args.report(books.len(), &record))
}

/// Runs the threads from their start to their end.
fn drive(args: &LoadArgs, mix: &Mix, books: &Arc<Books>, addresses: &[SocketAddr]) -> Result<Record, Error> {
    let clock = Clock::start();
    let mut total = new_record()?;
    let (ready_in, ready) = channel();
    std::thread::scope(|scope| {
        let (mut starts, mut threads, mut first) = (Vec::new(), Vec::new(), 0);
        for index in 0..args.threads {
            let count = args.connections / args.threads + usize::from(index < args.connections % args.threads);
            let orders = Orders {
                pace: args.pace(index),
                depth: args.depth,
                connections: count,
                deadline_ms: u32::try_from(args.deadline.as_millis()).unwrap_or(u32::MAX),
                read_flags: if args.no_cache { FLAG_NO_CACHE } else { 0 },
                wants_sessions: mix.has_writes(),
                ready_by_ns: span::ns(READY_WITHIN),
            };
            let chooser = Chooser::new(mix.clone(), books.clone(), args.seed ^ ((index as u64 + 1) << 32));
            let (start_in, start) = channel();
            let thread = Thread {
                clock,
                plan: Plan { addresses: addresses.to_vec(), count, first },
                worker: Worker::new(&orders, chooser, new_record()?),
                ready: ready_in.clone(),
                start,
            };
            first += count;
            starts.push(start_in);
            threads.push(scope.spawn(move || thread.run()));
        }
        drop(ready_in);
        // A thread that cannot even begin drops its end, and its error comes from joining it.
        let prepared: Result<Vec<()>, Error> = ready.iter().take(args.threads).collect();
        if prepared.as_ref().is_ok_and(|all| all.len() == args.threads) {
            let window = args.window(clock.now_ns() + span::ns(START_AFTER));
            starts.iter().for_each(|start| {
                // A thread that is gone says why when it is joined.
                let _ = start.send(window);
            });
        }
        drop(starts);
        for thread in threads {
            let panicked = || Error::Usage("a thread of this program panicked: please report it".into());
            if let Some(record) = thread.join().map_err(|_| panicked())?? {
                total.merge(&record);
            }
        }
        prepared.map(|_| total)
    })
}

fn new_record() -> Result<Record, Error> {
    Record::new().map_err(|error| Error::Usage(error.to_string()))
}

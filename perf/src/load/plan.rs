//! A load as other experiments ask for one: what is asked of whom, how fast and how long, and the threads that do it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use pygmy_proto::header::FLAG_NO_CACHE;
use pygmy_proto::limits::{REQUESTS_IN_FLIGHT_MAX, SESSION_WINDOW};
use pygmy_proto::message::IoStatus;

use super::mix::{Books, Chooser, Mix, Popularity};
use super::pace::{Arrivals, Schedule};
use super::record::Record;
use super::series::{INTERVAL_NS, Slice, Slicer};
use super::watch::{Moment, View, Watch};
use super::worker::{Orders, Window, Worker};
use crate::ask::Asker;
use crate::error::Error;
use crate::idle::allow_descriptors;
use crate::net::{Engine, Plan, Traffic};
use crate::shelf;
use crate::span::{self, Clock};
use crate::target::Target;

/// Longest time for all connections to be made and their sessions opened.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Between the last thread's being ready and the first request.
const START_AFTER: Duration = Duration::from_millis(20);
/// Longest wait for answers after the window.
const DRAIN: Duration = Duration::from_secs(5);
/// Descriptors beside those of connections.
const DESCRIPTORS_BESIDE: u64 = 64;

/// A load. [`LoadPlan::new`] has what `pygmy-perf load` does when it is told nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadPlan {
    /// What is asked.
    pub mix: Mix,
    /// Connections, spread over the front ends and over the threads.
    pub connections: usize,
    /// Requests in flight on each connection; in an open loop, at most.
    pub depth: usize,
    /// Threads, each an event loop.
    pub threads: usize,
    /// Open loop: requests a second in all. Without it each waits for one before it.
    pub rate: Option<f64>,
    /// How those of an open loop spread over time.
    pub arrivals: Arrivals,
    /// How long is loaded before anything counts.
    pub warmup: Duration,
    /// How long it counts.
    pub duration: Duration,
    /// Deadline of each request.
    pub deadline: Duration,
    /// Whether reads go past what front ends keep themselves.
    pub no_cache: bool,
    /// One in so many requests asks where its time goes; 0: none does.
    pub trace_every: u64,
    /// What requests, and the moments of independent arrivals, are drawn from.
    pub seed: u64,
}

impl LoadPlan {
    /// A closed loop over 50 connections for 10 s.
    pub fn new(mix: Mix) -> Self {
        Self {
            mix,
            connections: 50,
            depth: 16,
            threads: 1,
            rate: None,
            arrivals: Arrivals::Fixed,
            warmup: Duration::from_secs(1),
            duration: Duration::from_secs(10),
            deadline: Duration::from_secs(5),
            no_cache: false,
            trace_every: 0,
            seed: 1,
        }
    }

    /// Whether it can be done.
    ///
    /// # Errors
    /// A sentence about what cannot.
    pub fn check(&self) -> Result<(), Error> {
        let usage = |why: String| Err(Error::Usage(why));
        if self.connections == 0 || self.threads == 0 || self.threads > self.connections {
            return usage(format!("{} threads for {} connections: each needs one", self.threads, self.connections));
        }
        // The session window bounds writes, the connection's limit everything.
        let depth_max = if self.mix.has_writes() { SESSION_WINDOW as usize } else { REQUESTS_IN_FLIGHT_MAX };
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

    /// Loads the front ends at `addresses` with requests for `books`, and tells what was counted.
    ///
    /// # Errors
    /// When the plan cannot be done, connections cannot be made, or this machine refuses something.
    pub fn run(&self, books: &Arc<Books>, addresses: &[SocketAddr]) -> Result<Record, Error> {
        self.run_watched(books, addresses, &mut ())
    }

    /// The same, and lets somebody watch.
    ///
    /// # Errors
    /// As [`Self::run`], and what the one who watches says.
    pub fn run_watched(
        &self,
        books: &Arc<Books>,
        addresses: &[SocketAddr],
        watch: &mut impl Watch,
    ) -> Result<Record, Error> {
        self.check()?;
        allow_descriptors(self.connections as u64 + DESCRIPTORS_BESIDE)?;
        let clock = Clock::start();
        let mut total = Record::new()?;
        let (ready_in, ready) = channel();
        let (slices_in, slices) = channel();
        let traffic: Vec<Arc<Traffic>> = (0..self.threads).map(|_| Arc::default()).collect();
        std::thread::scope(|scope| {
            let (mut starts, mut threads) = (Vec::new(), Vec::new());
            for (index, traffic) in traffic.iter().enumerate() {
                let (start_in, start) = channel();
                let plan = self.connections_of(index, addresses);
                let worker = self.worker(index, plan.count, books, slices_in.clone())?;
                let traffic = Arc::clone(traffic);
                let thread = Thread { clock, plan, worker, traffic, ready: ready_in.clone(), start };
                starts.push(start_in);
                threads.push(scope.spawn(move || thread.run()));
            }
            drop((ready_in, slices_in));
            // A thread that cannot even begin drops its end, and its error comes from joining it.
            let prepared: Result<Vec<()>, Error> = ready.iter().take(self.threads).collect();
            let mut watched = Ok(());
            if prepared.as_ref().is_ok_and(|all| all.len() == self.threads) {
                let window = self.window(clock.now_ns() + span::ns(START_AFTER));
                starts.iter().for_each(|start| {
                    // A thread that is gone says why when it is joined.
                    let _ = start.send(window);
                });
                watched = collect(clock, window, &slices, &traffic, &mut total, watch);
            }
            drop(starts);
            for thread in threads {
                let panicked = || Error::Usage("a thread of this program panicked: please report it".into());
                if let Some(record) = thread.join().map_err(|_| panicked())?? {
                    total.merge(&record);
                }
            }
            prepared.and(watched).map(|()| total)
        })
    }

    fn window(&self, start_ns: u64) -> Window {
        let from_ns = start_ns + span::ns(self.warmup);
        let to_ns = from_ns + span::ns(self.duration);
        Window { start_ns, from_ns, to_ns, drain_ns: to_ns + span::ns(DRAIN) }
    }

    /// The connections of thread `index`; all threads' are numbered through.
    fn connections_of(&self, index: usize, addresses: &[SocketAddr]) -> Plan {
        let (each, more) = (self.connections / self.threads, self.connections % self.threads);
        Plan {
            addresses: addresses.to_vec(),
            count: each + usize::from(index < more),
            first: each * index + index.min(more),
        }
    }

    fn worker(
        &self,
        index: usize,
        connections: usize,
        books: &Arc<Books>,
        slices: Sender<Slice>,
    ) -> Result<Worker, Error> {
        // Requests and their moments come from streams of their own.
        let seed = |stream: u64| self.seed ^ ((2 * index as u64 + stream) << 32);
        let schedule = |rate| Schedule::new(self.arrivals, rate, index, self.threads, seed(2));
        let orders = Orders {
            schedule: self.rate.map(schedule),
            depth: self.depth,
            connections,
            deadline_ms: u32::try_from(self.deadline.as_millis()).unwrap_or(u32::MAX),
            read_flags: if self.no_cache { FLAG_NO_CACHE } else { 0 },
            wants_sessions: self.mix.has_writes(),
            ready_by_ns: span::ns(READY_WITHIN),
            trace_every: self.trace_every,
        };
        let chooser = Chooser::new(self.mix.clone(), books.clone(), seed(1));
        Ok(Worker::new(orders, chooser, Record::new()?, Slicer::new(slices)?))
    }
}

/// Takes what the threads counted until all of them are done, and lets somebody watch.
fn collect(
    clock: Clock,
    window: Window,
    slices: &Receiver<Slice>,
    traffic: &[Arc<Traffic>],
    total: &mut Record,
    watch: &mut impl Watch,
) -> Result<(), Error> {
    let mut moments = [(window.from_ns, Moment::Begin), (window.to_ns, Moment::End)].into_iter().peekable();
    let mut result = Ok(());
    let mut next_look_ns = 0;
    loop {
        let now_ns = clock.now_ns();
        if let Some((_, moment)) = moments.next_if(|(at_ns, _)| *at_ns <= now_ns)
            && result.is_ok()
        {
            // The threads go on to their end all the same.
            result = watch.at(moment, sum(traffic));
        }
        if now_ns >= next_look_ns {
            next_look_ns = now_ns + INTERVAL_NS;
            watch.look(&View { now_ns, window, series: &total.series });
        }
        let wake_ns = moments.peek().map_or(next_look_ns, |(at_ns, _)| next_look_ns.min(*at_ns));
        match slices.recv_timeout(Duration::from_nanos(wake_ns.saturating_sub(clock.now_ns()))) {
            Ok(slice) => total.add_slice(&slice),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                // The threads may be done before this one has looked at the clock again.
                return moments
                    .fold(result, |result, (_, moment)| result.and_then(|()| watch.at(moment, sum(traffic))));
            }
        }
    }
}

/// What all threads have asked of the system.
fn sum(traffic: &[Arc<Traffic>]) -> IoStatus {
    traffic.iter().map(|traffic| traffic.get()).fold(IoStatus::default(), |sum, own| IoStatus {
        system_calls: sum.system_calls + own.system_calls,
        received: sum.received + own.received,
        sent: sum.sent + own.sent,
        ..sum
    })
}

/// The books of a store under a popularity, each restocked to at least `stock` copies first.
///
/// # Errors
/// When no front end can be reached, or the store has no such books.
pub fn read_books(target: &Target, popularity: &Popularity, stock: u32, seed: u64) -> Result<Arc<Books>, Error> {
    let mut asker = ask_any(target)?;
    let shelf = shelf::read(&mut asker, 0)?;
    shelf::restock(&mut asker, &shelf.books, stock)?;
    Ok(Arc::new(Books::new(&shelf.books, popularity, seed).map_err(Error::Usage)?))
}

/// A connection to the first front end that takes one; else why the first does not.
fn ask_any(target: &Target) -> Result<Asker, Error> {
    let mut first_error = None;
    for front in target.fronts() {
        match Asker::connect(front) {
            Ok(asker) => return Ok(asker),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| Error::Usage("the cluster has no front end".into())))
}

/// One thread's work, and how it hears when to begin.
#[derive(Debug)]
struct Thread {
    clock: Clock,
    plan: Plan,
    worker: Worker,
    traffic: Arc<Traffic>,
    ready: Sender<Result<(), Error>>,
    start: Receiver<Window>,
}

impl Thread {
    /// Makes the connections, says so, and loads when told to. Without a word to begin it ends.
    fn run(mut self) -> Result<Option<Record>, Error> {
        let mut engine = Engine::new(self.clock, self.plan).map_err(Error::io("a poll"))?;
        engine.show_in(self.traffic);
        let prepared = engine
            .run(&mut self.worker)
            .map_err(Error::io("the event loop"))
            .and_then(|()| self.worker.readiness().map_err(|why| Error::Unreachable { address: "load".into(), why }));
        // Whoever started this thread waits for the word.
        let _ = self.ready.send(prepared);
        let Ok(window) = self.start.recv() else { return Ok(None) };
        self.worker.begin(window);
        engine.run(&mut self.worker).map_err(Error::io("the event loop"))?;
        let record = self.worker.into_record();
        // It stays until everything was read: what a thread used is gone with it. No second word comes, only the end.
        let _ = self.start.recv();
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(mix: &str) -> LoadPlan {
        LoadPlan::new(mix.parse().unwrap())
    }

    #[test]
    fn a_plan_that_cannot_be_done_says_why() {
        let why = |plan: LoadPlan| plan.check().unwrap_err().to_string();
        assert!(plan("lookup=1").check().is_ok());
        assert!(why(LoadPlan { threads: 51, ..plan("lookup=1") }).contains("51 threads"));
        assert!(why(LoadPlan { duration: Duration::ZERO, ..plan("lookup=1") }).contains("--duration"));
        assert!(why(LoadPlan { rate: Some(0.0), ..plan("lookup=1") }).contains("--rate"));
        let depth = SESSION_WINDOW as usize + 1;
        assert!(LoadPlan { depth, ..plan("lookup=1") }.check().is_ok(), "only writes have a window");
        for writes in ["lookup=9,restock=1", "buy=1"] {
            assert!(why(LoadPlan { depth, ..plan(writes) }).contains("--depth"), "{writes}");
        }
    }

    #[test]
    fn threads_share_all_connections_and_number_them_through() {
        let plan = LoadPlan { connections: 11, threads: 4, ..plan("lookup=1") };
        let parts = (0..4).map(|index| plan.connections_of(index, &[])).map(|part| (part.first, part.count));
        assert_eq!(parts.collect::<Vec<_>>(), [(0, 3), (3, 3), (6, 3), (9, 2)]);
    }
}

//! `pygmy-perf idle-connections`: what clients cost that are connected and say nothing.

use std::time::Duration;

use pygmy_proto::frame::{Flow, Frame};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use crate::error::Error;
use crate::net::{Engine, Links, Next, Plan, Task};
use crate::span::{self, Clock};
use crate::target::{Target, TargetArgs};
use crate::usage::{self, Usage};

/// Descriptors this program needs beside its connections.
const DESCRIPTORS_SPARE: u64 = 64;

/// Opens connections, holds them in silence, and says what that costs.
#[derive(Debug, Clone, clap::Args)]
pub struct IdleArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Connections to hold; 0 only watches the processes
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// For how long
    #[arg(long, default_value = "10s", value_parser = span::parse)]
    hold: Duration,
    /// A process to watch; may be repeated (Linux)
    #[arg(long)]
    pid: Vec<u32>,
    /// Longest time for all connections to be made; less when the servers take none at all
    #[arg(long, default_value = "60s", value_parser = span::parse)]
    open_within: Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What one process used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Watched {
    /// Before the first connection.
    pub before: Usage,
    /// With all of them made.
    pub opened: Usage,
    /// After they were held.
    pub held: Usage,
    /// CPU time while they were held, in percent of one core.
    pub cpu_percent: f64,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IdleReport {
    /// Connections made.
    pub connections: usize,
    /// Time to make all of them, in milliseconds.
    pub open_ms: u64,
    /// Connections that were lost while they were held.
    pub lost: usize,
    /// Time for which they were held, in milliseconds.
    pub held_ms: u64,
    /// The processes that were watched.
    pub processes: Vec<Watched>,
}

/// Losses for each connection that is tried at once, after which a server that took none is taken to be away.
const ROUNDS_MAX: usize = 3;
/// Connections that are counted for that, however many are wanted.
const TRIED_MAX: usize = 100;

/// Waits until all connections stand, or until a moment.
#[derive(Debug)]
struct Silence {
    until_ns: u64,
    /// Whether to end as soon as all stand, or as it shows that nobody takes any.
    opening: bool,
    lost: usize,
    last_loss: String,
}

impl Task for Silence {
    fn on_open(&mut self, _: u64, _: usize, _: &mut Links) {}

    fn on_frame(&mut self, _: u64, _: usize, _: &Frame<'_>, _: &mut Links) -> Flow {
        Flow::Continue
    }

    fn on_lost(&mut self, _: u64, _: usize, why: &str, _: &mut Links) {
        self.lost += 1;
        self.last_loss = why.to_string();
    }

    fn on_turn(&mut self, now_ns: u64, links: &mut Links) -> Next {
        let (standing, wanted) = (links.open_count(), links.len());
        let is_vain = standing == 0 && self.lost > ROUNDS_MAX * wanted.min(TRIED_MAX);
        let is_done = now_ns >= self.until_ns || (self.opening && (standing == wanted || is_vain));
        if is_done { Next::Done } else { Next::At(self.until_ns) }
    }
}

/// Does what `idle-connections` says.
///
/// # Errors
/// When the connections cannot all be made, or a process cannot be watched.
pub fn run(args: &IdleArgs) -> Result<IdleReport, Error> {
    let addresses = if args.count == 0 { Vec::new() } else { Target::find(&args.target)?.front_addresses()? };
    allow_descriptors(args.count as u64 + DESCRIPTORS_SPARE)?;
    let clock = Clock::start();
    let before = watch(&args.pid)?;
    let plan = Plan { addresses, count: args.count, first: 0 };
    let mut engine = Engine::new(clock, plan).map_err(Error::io("a poll"))?;
    let mut silence =
        Silence { until_ns: span::ns(args.open_within), opening: true, lost: 0, last_loss: String::new() };
    engine.run(&mut silence).map_err(Error::io("the event loop"))?;
    let open_ms = clock.now_ns() / 1_000_000;
    let standing = engine.links().open_count();
    if standing < args.count {
        let Silence { lost, last_loss, .. } = silence;
        let why =
            format!("{standing} of {} connections stand after {open_ms} ms; {lost} lost, last {last_loss}", args.count);
        return Err(Error::Unreachable { address: "idle-connections".into(), why });
    }
    let (opened, from_ns) = (watch(&args.pid)?, clock.now_ns());
    silence = Silence { until_ns: from_ns + span::ns(args.hold), opening: false, lost: 0, last_loss: String::new() };
    engine.run(&mut silence).map_err(Error::io("the event loop"))?;
    let held_ms = (clock.now_ns() - from_ns) / 1_000_000;
    let held = watch(&args.pid)?;
    let processes = before.into_iter().zip(opened).zip(held).map(|((before, opened), held)| Watched {
        cpu_percent: (held.cpu_ms - opened.cpu_ms) as f64 * 100.0 / held_ms.max(1) as f64,
        before,
        opened,
        held,
    });
    Ok(IdleReport { connections: args.count, open_ms, lost: silence.lost, held_ms, processes: processes.collect() })
}

fn watch(pids: &[u32]) -> Result<Vec<Usage>, Error> {
    pids.iter().map(|pid| usage::of(*pid)).collect()
}

/// Raises this process's limit of open descriptors to `wanted`.
///
/// # Errors
/// When the hard limit is below it.
pub fn allow_descriptors(wanted: u64) -> Result<(), Error> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        let maximum = limit.maximum.unwrap_or_default();
        let why = format!("{wanted} descriptors are needed, the hard limit is {maximum}: raise it with `ulimit -Hn`");
        return Err(Error::Usage(why));
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })
        .map_err(|error| Error::Io { what: format!("{wanted} descriptors"), error: error.into() })
}

impl IdleReport {
    /// For a person.
    pub fn print(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        let Self { connections, open_ms, lost, held_ms, processes } = self;
        writeln!(out, "{connections} connections made in {open_ms} ms, held for {held_ms} ms, {lost} lost meanwhile")?;
        for watched in processes {
            let Watched { before, opened, held, cpu_percent } = watched;
            writeln!(out, "before  {before}\nopened  {opened}\nheld    {held}")?;
            let grown = opened.rss_kib.saturating_sub(before.rss_kib);
            if *connections > 0 {
                let each = grown as f64 * 1024.0 / *connections as f64;
                writeln!(out, "        {grown} KiB for the connections, {each:.0} bytes each")?;
            }
            writeln!(out, "        {cpu_percent:.2} % of one core while they were held")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_that_nobody_listens_on_is_given_up_early() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let hour = Duration::from_secs(3_600);
        let args = IdleArgs {
            target: TargetArgs { cluster: None, front: vec![free] },
            count: 2,
            hold: hour,
            pid: Vec::new(),
            open_within: hour,
            json: false,
        };
        let Err(Error::Unreachable { why, .. }) = run(&args) else { panic!("nobody is there") };
        assert!(why.contains("0 of 2") && why.contains("refused"), "{why}");
    }
}

//! What is varied, and over which values.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use pygmy_proto::limits::{CART_LINES_MAX, SESSION_WINDOW};
use serde::Serialize;

use crate::error::Error;
use crate::load::mix::Mix;
use crate::load::plan::LoadPlan;
use crate::local::ProgramArgs;
use crate::span;

/// Books that `pygmy-node up` brings in.
pub(super) const BOOKS_BORN: u64 = 7;
/// The most books that are brought in: a store keeps all of them in memory.
const BOOKS_MAX: u64 = 10_000_000;
/// Catalogs of a cluster, at most.
const CATALOGS_MAX: u64 = 16;
/// Connections, at most: each server has room for so many.
const CONNECTIONS_MAX: u64 = 10_000;

/// What is varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// Catalog servers
    Catalogs,
    /// Connections, with as many requests in flight over all of them
    Connections,
    /// Books in the store
    Books,
    /// Lines of a cart
    Command,
}

impl Over {
    /// What a value counts.
    pub fn noun(self) -> &'static str {
        match self {
            Over::Catalogs => "catalogs",
            Over::Connections => "connections",
            Over::Books => "books",
            Over::Command => "lines in a cart",
        }
    }

    /// Values that are measured where none are given.
    fn values(self) -> &'static [u64] {
        match self {
            Over::Catalogs => &[1, 2, 3, 4, 5],
            Over::Connections => &[1, 10, 50, 200, 1_000],
            Over::Books => &[BOOKS_BORN, 1_000, 10_000, 100_000, 1_000_000],
            Over::Command => &[1, 2, 4, 8, 16, 32, 64],
        }
    }

    fn range(self) -> (u64, u64) {
        match self {
            Over::Catalogs => (1, CATALOGS_MAX),
            Over::Connections => (1, CONNECTIONS_MAX),
            Over::Books => (BOOKS_BORN, BOOKS_MAX),
            Over::Command => (1, CART_LINES_MAX as u64),
        }
    }

    /// Whether each value needs a cluster of its own.
    pub(super) fn needs_clusters(self) -> bool {
        matches!(self, Over::Catalogs | Over::Books)
    }
}

/// Measures what clusters of its own do with more catalogs, connections or books, or larger commands, each value in
/// turn, and shows throughput and latency at each, and their ratio to the first
#[derive(Debug, Clone, clap::Args)]
pub struct ScaleArgs {
    #[command(flatten)]
    pub(super) program: ProgramArgs,
    /// What is varied
    #[arg(long, value_enum)]
    pub(super) over: Over,
    /// Its values [default: 1 to 5 catalogs; 1 to 1,000 connections; 7 to 1,000,000 books; carts of 1 to 64 lines]
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    pub(super) values: Vec<u64>,
    /// What to ask, with weights: lookup, search, buy, cart, restock; with command it is carts
    #[arg(long, default_value = "buy=1")]
    pub(super) mix: String,
    /// Rounds, in each of which every value has its turn; the medians count
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) repeat: u32,
    /// Requests in flight over all connections
    #[arg(long, default_value_t = 1_000)]
    in_flight: usize,
    /// Connections, where they are not varied
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Books, where they are not varied
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    books: u64,
    /// Threads of this program
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Open loop: requests per second in all. Without it as many as the store does
    #[arg(long)]
    rate: Option<f64>,
    /// How long to measure each time
    #[arg(long, default_value = "5s", value_parser = span::parse)]
    duration: Duration,
    /// How long to load before that
    #[arg(long, default_value = "1s", value_parser = span::parse)]
    warmup: Duration,
    /// Let reads go past what the front ends keep themselves
    #[arg(long)]
    no_cache: bool,
    /// What the requests are drawn from
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Where the clusters' files are meanwhile [default: a directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Keep the run in this directory
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Run although this is a debug build, and mark the figures
    #[arg(long)]
    pub(super) allow_debug: bool,
}

impl ScaleArgs {
    /// The values, in the order in which they have their turns.
    pub(super) fn values(&self) -> Result<Vec<u64>, Error> {
        let values = if self.values.is_empty() { self.over.values().into() } else { self.values.clone() };
        let (least, most) = self.over.range();
        if let Some(value) = values.iter().find(|value| !(least..=most).contains(*value)) {
            let noun = self.over.noun();
            return Err(Error::Usage(format!("--values {value}: {noun} are {least} to {most}")));
        }
        Ok(values)
    }

    /// What is asked at a value.
    pub(super) fn plan(&self, value: u64) -> Result<LoadPlan, Error> {
        let value = usize::try_from(value).unwrap_or(usize::MAX);
        let mix: Mix = self.mix.parse().map_err(|why| Error::Usage(format!("--mix: {why}")))?;
        let (connections, mix) = match self.over {
            Over::Connections => (value, mix),
            Over::Command => (self.connections, Mix::carts(value)),
            Over::Catalogs | Over::Books => (self.connections, mix),
        };
        let depth_max = if mix.has_writes() { SESSION_WINDOW as usize } else { self.in_flight };
        let plan = LoadPlan {
            connections,
            depth: (self.in_flight / connections.max(1)).clamp(1, depth_max.max(1)),
            threads: self.threads.min(connections),
            rate: self.rate,
            warmup: self.warmup,
            duration: self.duration,
            no_cache: self.no_cache,
            seed: self.seed,
            ..LoadPlan::new(mix)
        };
        plan.check()?;
        Ok(plan)
    }

    /// Whether requests go at a rate.
    pub(super) fn is_open(&self) -> bool {
        self.rate.is_some()
    }

    /// Books of the store at a value.
    pub(super) fn books_at(&self, value: u64) -> u64 {
        let own = if self.over == Over::Books { value } else { self.books };
        own.max(BOOKS_BORN)
    }

    /// More options of `pygmy-node up` at a value.
    pub(super) fn shape_at(&self, value: u64) -> Vec<String> {
        if self.over == Over::Catalogs { vec!["--catalogs".into(), value.to_string()] } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: ScaleArgs,
    }

    fn args(words: &[&str]) -> ScaleArgs {
        Cli::parse_from([&["scale"], words].concat()).args
    }

    #[test]
    fn every_value_by_default_is_one_that_can_be_measured() {
        for over in ["catalogs", "connections", "books", "command"] {
            let args = args(&["--over", over]);
            for value in args.values().unwrap() {
                args.plan(value).unwrap();
            }
        }
        assert!(args(&["--over", "command", "--values", "1,65"]).values().is_err());
        assert!(args(&["--over", "books", "--values", "6"]).values().is_err());
        assert!(args(&["--over", "catalogs", "--values", "0"]).values().is_err());
    }

    #[test]
    fn connections_share_the_requests_in_flight() {
        let args = args(&["--over", "connections", "--threads", "2"]);
        let shape = |value| args.plan(value).map(|plan| (plan.connections, plan.depth, plan.threads)).unwrap();
        assert_eq!([1, 50, 1_000].map(shape), [(1, 1_000, 1), (50, 20, 2), (1_000, 1, 2)]);
        assert_eq!((args.books_at(50), args.shape_at(50)), (1_000, Vec::new()));
    }

    #[test]
    fn only_what_is_varied_changes() {
        let books = args(&["--over", "books"]);
        assert_eq!((books.books_at(1_000_000), books.plan(7).unwrap().connections), (1_000_000, 50));
        let catalogs = args(&["--over", "catalogs"]);
        assert_eq!(catalogs.shape_at(5), ["--catalogs", "5"]);
        assert_eq!(catalogs.plan(5).unwrap(), catalogs.plan(1).unwrap());
        let command = args(&["--over", "command"]);
        assert_eq!(command.plan(3).unwrap().mix, Mix::carts(3));
    }
}

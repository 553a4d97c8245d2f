//! Where the time of requests went: traces of some of them, by stage.

use pygmy_proto::message::{Span, Stage};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::mix::RequestKind;

/// Traces that a thread keeps; of more, each has the same chance to be among them.
const KEPT_MAX: usize = 100_000;

/// A stretch of a request's way, without the stretches inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// From when it was due to its answer, but for the time in the front end: this program, and the network.
    Client,
    /// In the front end, and between it and the next server.
    Front,
    /// In the order server, and between it and the catalog.
    Order,
    /// In the catalog.
    Catalog,
    /// Waiting for the token.
    Token,
    /// From numbering to commit, while this catalog's own log was not durable: the sync, or its queue.
    Sync,
    /// From then to commit: the other replicas.
    Replicate,
    /// From commit to applied; of a read, the wait for the position that it needs.
    Apply,
}

impl Tier {
    /// All of them, from the outside inwards.
    pub const ALL: [Tier; 8] =
        [Self::Client, Self::Front, Self::Order, Self::Catalog, Self::Token, Self::Sync, Self::Replicate, Self::Apply];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client, network",
            Self::Front => "front",
            Self::Order => "order",
            Self::Catalog => "catalog",
            Self::Token => "token wait",
            Self::Sync => "sync",
            Self::Replicate => "replicate",
            Self::Apply => "apply",
        }
    }
}

/// The times of one request, which add up to all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// What was asked.
    pub kind: RequestKind,
    /// From when it was due to its answer.
    pub total_ns: u64,
    /// Of that in each of [`Tier::ALL`].
    pub tiers_ns: [u64; Tier::ALL.len()],
}

impl Sample {
    /// Takes the spans apart: servers contain each other in the order in which they are told, the other stages are parts
    /// of the server before. Clocks of two machines are never compared: each span is a difference on one.
    pub fn new(kind: RequestKind, total_ns: u64, spans: &[Span]) -> Self {
        let mut own = [0_u64; Tier::ALL.len()];
        own[Tier::Client as usize] = total_ns;
        let mut parent = Tier::Client as usize;
        let mut sync_ns = 0;
        for Span { stage, ns, .. } in spans.iter().copied() {
            let tier = match stage {
                Stage::Front => Tier::Front,
                Stage::Order => Tier::Order,
                Stage::Catalog => Tier::Catalog,
                Stage::Token => Tier::Token,
                Stage::Replicate => Tier::Replicate,
                Stage::Apply => Tier::Apply,
                Stage::Sync => {
                    sync_ns = ns;
                    continue;
                }
            } as usize;
            // What is inside cannot have taken longer; where it says so nevertheless, the sum must stay right.
            let ns = ns.min(own[parent]);
            own[parent] -= ns;
            own[tier] += ns;
            if matches!(stage, Stage::Front | Stage::Order | Stage::Catalog) {
                parent = tier;
            }
        }
        // Both run from numbering: until its own log was durable, that is what commit waited for as well.
        let sync_ns = sync_ns.min(own[Tier::Replicate as usize]);
        own[Tier::Replicate as usize] -= sync_ns;
        own[Tier::Sync as usize] = sync_ns;
        Self { kind, total_ns, tiers_ns: own }
    }
}

/// Traces of requests that were done.
#[derive(Debug, Clone)]
pub struct Traces {
    samples: Vec<Sample>,
    /// How many there were.
    count: u64,
    rng: ChaCha8Rng,
}

impl Default for Traces {
    fn default() -> Self {
        Self { samples: Vec::new(), count: 0, rng: ChaCha8Rng::seed_from_u64(0) }
    }
}

impl Traces {
    /// Notes one.
    pub fn add(&mut self, sample: Sample) {
        self.count += 1;
        if self.samples.len() < KEPT_MAX {
            self.samples.push(sample);
        } else if let Ok(place) = usize::try_from(self.rng.random_range(0..self.count))
            && let Some(kept) = self.samples.get_mut(place)
        {
            *kept = sample;
        }
    }

    /// Adds those of another thread.
    pub fn merge(&mut self, other: &Traces) {
        self.samples.extend_from_slice(&other.samples);
        self.count += other.count;
    }

    /// Of each kind that was traced, where its time went.
    pub fn breakdowns(&self) -> Vec<Breakdown> {
        let of_kind = |kind| {
            let mut samples: Vec<Sample> = self.samples.iter().copied().filter(|sample| sample.kind == kind).collect();
            samples.sort_unstable_by_key(|sample| sample.total_ns);
            Breakdown::of(kind, &samples)
        };
        RequestKind::ALL.into_iter().filter_map(of_kind).collect()
    }
}

/// Where the time of requests of one kind went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Breakdown {
    /// The kind.
    pub kind: RequestKind,
    /// Traces it is made of.
    pub count: usize,
    /// Mean times of some of them, from the fast to the slow.
    pub bands: Vec<Band>,
    /// 99th percentile of each of [`Tier::ALL`] by itself, in seconds; these do not add up.
    #[serde(serialize_with = "by_tier")]
    pub p99_s: [f64; Tier::ALL.len()],
    /// The 99th percentile of all of it.
    pub total_p99_s: f64,
}

/// The mean of some requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Band {
    /// Which ones.
    pub name: &'static str,
    /// Seconds in each of [`Tier::ALL`].
    #[serde(serialize_with = "by_tier")]
    pub tiers_s: [f64; Tier::ALL.len()],
}

fn by_tier<S: serde::Serializer>(times: &[f64; Tier::ALL.len()], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(Tier::ALL.into_iter().map(Tier::name).zip(times))
}

impl Band {
    /// All of it.
    pub fn total_s(&self) -> f64 {
        self.tiers_s.iter().sum()
    }
}

/// Shares of the samples, sorted by their whole time, over which means are taken.
const BANDS: [(&str, f64, f64); 4] =
    [("all", 0.0, 1.0), ("around the median", 0.45, 0.55), ("slowest 10 %", 0.9, 1.0), ("slowest 1 %", 0.99, 1.0)];

impl Breakdown {
    /// The stages in which any time was spent at all.
    pub fn tiers(&self) -> impl Iterator<Item = Tier> {
        Tier::ALL.into_iter().filter(|tier| self.bands.iter().any(|band| band.tiers_s[*tier as usize] > 0.0))
    }

    fn of(kind: RequestKind, sorted: &[Sample]) -> Option<Self> {
        let total_p99_s = seconds(at_p99(sorted.iter().map(|sample| sample.total_ns))?);
        let band = |(name, from, to): (&'static str, f64, f64)| {
            let place = |share: f64| share * sorted.len() as f64;
            let first = (place(from).floor() as usize).min(sorted.len() - 1);
            let end = (place(to).ceil() as usize).clamp(first + 1, sorted.len());
            Band { name, tiers_s: mean_s(&sorted[first..end]) }
        };
        let p99_s = std::array::from_fn(|tier| {
            let of_tier = sorted.iter().map(|sample| sample.tiers_ns[tier]);
            at_p99(of_tier).map_or(0.0, seconds)
        });
        Some(Self { kind, count: sorted.len(), bands: BANDS.into_iter().map(band).collect(), p99_s, total_p99_s })
    }
}

fn mean_s(samples: &[Sample]) -> [f64; Tier::ALL.len()] {
    std::array::from_fn(|tier| {
        let sum: f64 = samples.iter().map(|sample| seconds(sample.tiers_ns[tier])).sum();
        sum / samples.len() as f64
    })
}

/// The 99th percentile; none of nothing.
fn at_p99(values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut values: Vec<u64> = values.collect();
    let place = (values.len() * 99).div_ceil(100).checked_sub(1)?;
    let (_, at, _) = values.select_nth_unstable(place);
    Some(*at)
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(stage: Stage, ns: u64) -> Span {
        Span { stage, node: 1, ns }
    }

    fn write(total_ns: u64) -> Sample {
        let spans = [
            span(Stage::Front, 900),
            span(Stage::Order, 700),
            span(Stage::Catalog, 500),
            span(Stage::Token, 50),
            span(Stage::Replicate, 300),
            span(Stage::Sync, 180),
            span(Stage::Apply, 20),
        ];
        Sample::new(RequestKind::Buy, total_ns, &spans)
    }

    #[test]
    fn the_stretches_add_up_to_the_whole() {
        let sample = write(1_000);
        assert_eq!(sample.tiers_ns, [100, 200, 200, 130, 50, 180, 120, 20]);
        assert_eq!(sample.tiers_ns.iter().sum::<u64>(), 1_000);
    }

    #[test]
    fn a_sync_that_ends_behind_the_commit_counts_up_to_the_commit() {
        let spans = [span(Stage::Catalog, 500), span(Stage::Sync, 400), span(Stage::Replicate, 300)];
        let sample = Sample::new(RequestKind::Buy, 600, &spans);
        assert_eq!((sample.tiers_ns[Tier::Sync as usize], sample.tiers_ns[Tier::Replicate as usize]), (300, 0));
        assert_eq!(sample.tiers_ns.iter().sum::<u64>(), 600);
    }

    #[test]
    fn spans_that_cannot_be_do_not_spoil_the_sum() {
        let spans = [span(Stage::Front, 2_000), span(Stage::Catalog, 9_000), span(Stage::Apply, 10_000)];
        let sample = Sample::new(RequestKind::Lookup, 1_000, &spans);
        assert_eq!(sample.tiers_ns.iter().sum::<u64>(), 1_000);
    }

    #[test]
    fn bands_are_means_of_the_fast_and_the_slow() {
        let mut traces = Traces::default();
        (1..=1_000_u64).rev().for_each(|n| traces.add(write(1_000 + n * 1_000)));
        traces.add(Sample::new(RequestKind::Lookup, 5, &[]));
        let [lookups, buys] = &traces.breakdowns()[..] else { panic!("two kinds were traced") };
        assert_eq!(
            (lookups.kind, lookups.count, buys.kind, buys.count),
            (RequestKind::Lookup, 1, RequestKind::Buy, 1_000)
        );
        let total_us: Vec<f64> = buys.bands.iter().map(|band| (band.total_s() * 1e7).round() / 10.0).collect();
        assert_eq!(total_us, [501.5, 501.5, 951.5, 996.5]);
        assert_eq!(buys.total_p99_s, 991e-6);
        assert_eq!(lookups.tiers().collect::<Vec<_>>(), [Tier::Client]);
        assert_eq!(buys.tiers().count(), Tier::ALL.len());
        assert_eq!(buys.p99_s[Tier::Order as usize], 200e-9);
        assert_eq!(lookups.bands[3].total_s(), 5e-9, "one trace is every band");
    }

    #[test]
    fn of_too_many_a_fair_sample_is_kept() {
        let mut traces = Traces::default();
        let count = 4 * KEPT_MAX as u64;
        (0..count).for_each(|n| traces.add(Sample::new(RequestKind::Buy, n, &[])));
        assert_eq!(traces.samples.len(), KEPT_MAX);
        let mean = traces.samples.iter().map(|sample| sample.total_ns as f64).sum::<f64>() / KEPT_MAX as f64;
        assert!((mean / (count as f64 / 2.0) - 1.0).abs() < 0.02, "{mean}");
    }
}

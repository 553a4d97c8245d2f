//! What every node counts, in the text format that Prometheus reads.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use pygmy_client::Error;
use pygmy_proto::message::{FrontStatus, PeerState, ReplicaStatus, StatusOk};

use super::args::Global;
use super::failure::Failure;
use super::output::Output;
use super::status::{self, Asked};
use super::target::Target;

const PREFIX: &str = "pygmy";

/// A value of a node, or of a node about another one.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    /// Number of the other node.
    peer: Option<u16>,
    value: Number,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Number {
    Whole(u64),
    Seconds(f64),
}

/// Where the samples of a metric come from.
#[derive(Clone, Copy)]
enum Source {
    /// Of every node.
    Node(fn(&StatusOk) -> Number),
    /// Of every node about each other that it judges.
    Peers(fn(&StatusOk) -> Vec<Sample>),
    /// Of log replicas.
    Replica(fn(&ReplicaStatus) -> u64),
    /// Of fronts that keep something.
    Cache(fn(&FrontStatus) -> Option<Number>),
}

struct Metric {
    /// Without the prefix, and without the suffix that kind and unit add.
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    source: Source,
}

const fn gauge(name: &'static str, help: &'static str, source: Source) -> Metric {
    Metric { name, help, kind: MetricType::Gauge, source }
}

const fn counter(name: &'static str, help: &'static str, source: Source) -> Metric {
    Metric { name, help, kind: MetricType::Counter, source }
}

/// Whether a node answered; the only metric of those that did not.
const UP: (&str, &str) = ("up", "Whether the node answered");

const NODE: &[Metric] = &[
    gauge("uptime_seconds", "Time since the process started", Source::Node(|s| seconds(s.uptime_ms))),
    gauge("client_connections", "Client connections", Source::Node(|s| Number::Whole(s.clients.into()))),
    gauge("jobs", "Requests in work", Source::Node(|s| Number::Whole(s.jobs.into()))),
    counter("answered", "Requests answered", Source::Node(|s| Number::Whole(s.answered))),
    counter(
        "system_calls",
        "System calls that the node made for its sockets and files",
        Source::Node(|s| Number::Whole(s.io.system_calls)),
    ),
    counter("syncs", "System calls after which something was durable", Source::Node(|s| Number::Whole(s.io.syncs))),
    counter("received_bytes", "Bytes that came over sockets", Source::Node(|s| Number::Whole(s.io.received))),
    counter("sent_bytes", "Bytes that went over sockets", Source::Node(|s| Number::Whole(s.io.sent))),
    counter("written_bytes", "Bytes that were written into files", Source::Node(|s| Number::Whole(s.io.written))),
    gauge("link_up", "Whether the link to the peer stands", Source::Peers(|s| links(s, |link| link.up.into()))),
    gauge(
        "link_jobs",
        "Requests passed to the peer and not answered",
        Source::Peers(|s| links(s, |link| link.in_flight.into())),
    ),
    counter(
        "link_moved",
        "Requests that were taken from the peer and given to another",
        Source::Peers(|s| links(s, |link| link.moved)),
    ),
    gauge(
        "peer_suspected",
        "Whether the peer is taken for gone",
        Source::Peers(|s| peers(s, |peer| Some(Number::Whole((peer.state == PeerState::Red).into())))),
    ),
    gauge(
        "peer_silence_seconds",
        "Time since the peer was heard last",
        Source::Peers(|s| peers(s, |peer| peer.heard_ms.map(|ms| seconds(ms.into())))),
    ),
    gauge(
        "peer_silence_limit_seconds",
        "Silence that makes the peer suspected",
        Source::Peers(|s| peers(s, |peer| Some(seconds(peer.limit_ms.into())))),
    ),
    counter(
        "peer_suspicions",
        "Times that the peer was suspected although its connection stood",
        Source::Peers(|s| peers(s, |peer| Some(Number::Whole(peer.suspicions)))),
    ),
    counter(
        "peer_returns",
        "Times that the peer came back from that",
        Source::Peers(|s| peers(s, |peer| Some(Number::Whole(peer.returns)))),
    ),
];

const REPLICA: &[Metric] = &[
    gauge("replica_voter", "Whether the replica counts in majorities", Source::Replica(|r| r.voter.into())),
    gauge("replica_voters", "Voters in its configuration", Source::Replica(|r| r.voters.into())),
    gauge("replica_epoch", "Counter of its epoch", Source::Replica(|r| r.epoch.counter)),
    gauge("replica_token_hops", "Passings of the token as far as it knows", Source::Replica(|r| r.hop)),
    gauge("log_last_seq", "End of the log", Source::Replica(|r| r.last_seq)),
    gauge("log_durable_seq", "Position up to which the log is on disk", Source::Replica(|r| r.durable)),
    gauge("log_committed_seq", "Position up to which it is committed", Source::Replica(|r| r.committed)),
    gauge("log_applied_seq", "Position up to which it is applied", Source::Replica(|r| r.applied)),
    gauge("books", "Books in the store", Source::Replica(|r| r.books)),
    gauge("orders", "Orders in the ledger", Source::Replica(|r| r.orders)),
    gauge("sessions", "Sessions kept", Source::Replica(|r| r.sessions)),
];

const CACHE: &[Metric] = &[
    gauge(
        "waiting_requests",
        "Requests that wait for their turn among the clients",
        Source::Cache(|c| whole(c.waiting.into())),
    ),
    counter("cache_hits", "Reads answered from the cache", Source::Cache(|c| whole(c.hits))),
    counter("cache_delayed", "Hits that waited for the feed before", Source::Cache(|c| whole(c.delayed))),
    counter("cache_misses", "Reads that were passed on for want of an entry", Source::Cache(|c| whole(c.misses))),
    counter("cache_coalesced", "Misses that waited for another's answer", Source::Cache(|c| whole(c.coalesced))),
    counter(
        "cache_invalidations",
        "Entries changed or taken out by the feed",
        Source::Cache(|c| whole(c.invalidations)),
    ),
    counter("cache_stale_fills", "Answers not kept, as they may be old", Source::Cache(|c| whole(c.refused))),
    counter("cache_emptied", "Times that the whole cache was emptied", Source::Cache(|c| whole(c.emptied))),
    gauge(
        "cache_fresh_age_seconds",
        "Time since the latest answered barrier was sent",
        Source::Cache(|c| c.fresh_age_ms.map(seconds)),
    ),
    gauge("cache_feed_seq", "Position up to which the feed was taken in", Source::Cache(|c| whole(c.processed))),
    gauge("cache_fed", "Whether a catalog feeds the cache", Source::Cache(|c| whole((c.feed != 0).into()))),
    gauge("cache_entries", "Entries kept", Source::Cache(|c| whole(c.entries))),
    gauge("cache_bytes", "Bytes that they take", Source::Cache(|c| whole(c.bytes))),
    gauge("cache_limit_bytes", "Bytes that they may take", Source::Cache(|c| whole(c.bytes_max))),
];

fn whole(value: u64) -> Option<Number> {
    Some(Number::Whole(value))
}

fn seconds(ms: u64) -> Number {
    Number::Seconds(ms as f64 / 1e3)
}

fn links(status: &StatusOk, value: fn(&pygmy_proto::message::LinkStatus) -> u64) -> Vec<Sample> {
    status.links.iter().map(|link| Sample { peer: Some(link.node), value: Number::Whole(value(link)) }).collect()
}

fn peers(status: &StatusOk, value: fn(&pygmy_proto::message::PeerStatus) -> Option<Number>) -> Vec<Sample> {
    let samples = status.peers.iter().map(|peer| Some(Sample { peer: Some(peer.node), value: value(peer)? }));
    samples.flatten().collect()
}

impl Source {
    fn samples(self, status: &StatusOk) -> Vec<Sample> {
        let own = |value| Sample { peer: None, value };
        match self {
            Source::Node(read) => vec![own(read(status))],
            Source::Peers(read) => read(status),
            Source::Replica(read) => status.replica.iter().map(|replica| own(Number::Whole(read(replica)))).collect(),
            Source::Cache(read) => {
                status.front.iter().filter(|cache| cache.bytes_max > 0).filter_map(read).map(own).collect()
            }
        }
    }
}

/// The answers of all nodes, and what they are called.
#[derive(Debug)]
struct Nodes {
    nodes: Vec<Node>,
    /// Names of nodes by number, as far as they are in the cluster's file.
    names: Vec<(u16, String)>,
}

#[derive(Debug)]
struct Node {
    name: String,
    role: &'static str,
    status: Option<StatusOk>,
}

type Labels = Vec<(&'static str, String)>;

impl Nodes {
    /// The labels of a node's metrics: those of a later process in the same place are the same, so that its curves go on.
    fn labels(&self, node: &Node, peer: Option<u16>) -> Labels {
        let mut labels = vec![("node", node.name.clone()), ("role", node.role.to_owned())];
        labels.extend(peer.map(|peer| ("peer", self.name_of(peer))));
        labels
    }

    fn name_of(&self, number: u16) -> String {
        let slot = number % 256;
        let known = self.names.iter().find(|(known, _)| *known == slot);
        known.map_or_else(|| format!("node {slot}"), |(_, name)| name.clone())
    }
}

fn encode(kind: MetricType, value: Number, encoder: MetricEncoder<'_>) -> fmt::Result {
    match (kind, value) {
        (MetricType::Counter, Number::Whole(value)) => ConstCounter::new(value).encode(encoder),
        (MetricType::Counter, Number::Seconds(value)) => ConstCounter::new(value).encode(encoder),
        (_, Number::Whole(value)) => ConstGauge::new(value).encode(encoder),
        (_, Number::Seconds(value)) => ConstGauge::new(value).encode(encoder),
    }
}

impl Collector for Nodes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut up = encoder.encode_descriptor(UP.0, UP.1, None, MetricType::Gauge)?;
        for node in &self.nodes {
            let value = Number::Whole(node.status.is_some().into());
            encode(MetricType::Gauge, value, up.encode_family(&self.labels(node, None))?)?;
        }
        for metric in [NODE, REPLICA, CACHE].into_iter().flatten() {
            let samples: Vec<(Labels, Number)> = self
                .nodes
                .iter()
                .filter_map(|node| Some((node, node.status.as_ref()?)))
                .flat_map(|(node, status)| metric.source.samples(status).into_iter().map(move |sample| (node, sample)))
                .map(|(node, sample)| (self.labels(node, sample.peer), sample.value))
                .collect();
            if samples.is_empty() {
                continue;
            }
            let (name, unit) = metric.name_and_unit();
            let mut family = encoder.encode_descriptor(name, metric.help, unit.as_ref(), metric.kind)?;
            for (labels, value) in &samples {
                encode(metric.kind, *value, family.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

impl Metric {
    /// The unit is a part of the name, to which the encoder adds it.
    fn name_and_unit(&self) -> (&'static str, Option<Unit>) {
        for (suffix, unit) in [("_seconds", Unit::Seconds), ("_bytes", Unit::Bytes)] {
            if let Some(name) = self.name.strip_suffix(suffix) {
                return (name, Some(unit));
            }
        }
        (self.name, None)
    }
}

/// Prints the metrics of all nodes that are asked.
pub(super) fn run(global: &Global, target: &Target, output: &mut Output) -> Result<(), Failure> {
    if output.is_json() {
        return Err(Failure::Usage(
            "metrics have a format of their own; `pygmy --json status` has the same".to_owned(),
        ));
    }
    let asked = status::whom(global, target);
    let answers = status::ask(&asked, global, target);
    output.line(encode_all(nodes(&asked, &answers, target))?.trim_end())?;
    status::verdict(answers)
}

fn nodes(asked: &[Asked], answers: &[Result<StatusOk, Error>], target: &Target) -> Nodes {
    let nodes = asked.iter().zip(answers).map(|(asked, answer)| {
        let status = answer.as_ref().ok().cloned();
        let told = status.as_ref().filter(|_| asked.number == 0);
        Node {
            name: told.map_or_else(|| asked.name.clone(), |status| status.name.to_string()),
            role: told.map_or(asked.role, |status| status.role.name()),
            status,
        }
    });
    let known = target.cluster.iter().flat_map(|cluster| &cluster.nodes);
    Nodes { nodes: nodes.collect(), names: known.map(|node| (node.number, node.name.clone())).collect() }
}

fn encode_all(nodes: Nodes) -> Result<String, Failure> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(nodes));
    let mut out = String::new();
    text::encode(&mut out, &registry)
        .map_err(|error| Failure::writing("metrics", std::io::Error::other(error.to_string())))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_in_the_document_and_nothing_else_is() {
        let document = include_str!("../../README.md");
        let begins = document.find("\n## Metrics\n").expect("it has a section of that name") + 1;
        let section = &document[begins..];
        let section = &section[..section.find("\n## ").unwrap_or(section.len())];
        let told: Vec<&str> =
            section.lines().filter_map(|line| line.strip_prefix("| `pygmy_")?.split('`').next()).collect();
        let name = |metric: &Metric| match metric.kind {
            MetricType::Counter => format!("{}_total", metric.name),
            _ => metric.name.to_owned(),
        };
        let mut made = vec![UP.0.to_owned()];
        made.extend([NODE, REPLICA, CACHE].into_iter().flatten().map(name));
        assert_eq!(told, made);
    }
}

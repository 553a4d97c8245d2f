//! Where the time of a request went, tier by tier.

use std::io::Write;

use pygmy_client::Report;
use pygmy_proto::message::{Span, Stage};
use serde::Serialize;

use super::output::Grid;
use super::target::Target;

/// A span in its place: how deep, and what of it is its own.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Tier {
    #[serde(skip)]
    depth: usize,
    stage: &'static str,
    node: u16,
    ns: u64,
    exclusive_ns: u64,
}

#[derive(Serialize)]
struct Object {
    trace: Vec<Tier>,
    sends: u32,
}

/// Prints the trace of the latest call to standard error.
pub(super) fn print(report: &Report, target: &Target, json: bool) {
    let tiers = tiers(report);
    let text = if json {
        serde_json::to_string(&Object { trace: tiers, sends: report.sends }).unwrap_or_default()
    } else {
        tree(&tiers, target)
    };
    // A trace is an extra: a closed standard error must not undo the command.
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

fn tree(tiers: &[Tier], target: &Target) -> String {
    let mut grid = Grid::new(&["tier", "node", ">inclusive ms", ">exclusive ms"]);
    for tier in tiers {
        let indent = "  ".repeat(tier.depth);
        let node = if tier.node == 0 { "-".to_owned() } else { target.node_name(tier.node) };
        grid.row([format!("{indent}{}", tier.stage), node, ms(tier.ns), ms(tier.exclusive_ns)]);
    }
    grid.to_string()
}

fn ms(ns: u64) -> String {
    format!("{:.3}", ns as f64 / 1e6)
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Front => "front",
        Stage::Order => "order",
        Stage::Catalog => "catalog",
        Stage::Token => "token",
        Stage::Replicate => "replicate",
        Stage::Sync => "sync (overlaps)",
        Stage::Apply => "apply",
    }
}

/// Servers contain each other in the order in which they are told; the other stages are parts of the server before.
fn is_server(stage: Stage) -> bool {
    matches!(stage, Stage::Front | Stage::Order | Stage::Catalog)
}

fn tiers(report: &Report) -> Vec<Tier> {
    let total = report.elapsed_ns;
    let mut tiers = vec![Tier { depth: 0, stage: "client", node: 0, ns: total, exclusive_ns: total }];
    let mut parent = 0;
    for Span { stage, node, ns } in report.trace.iter().copied() {
        let depth = tiers[parent].depth + 1;
        if stage != Stage::Sync {
            tiers[parent].exclusive_ns = tiers[parent].exclusive_ns.saturating_sub(ns);
        }
        tiers.push(Tier { depth, stage: name(stage), node, ns, exclusive_ns: ns });
        if is_server(stage) {
            parent = tiers.len() - 1;
        }
    }
    tiers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusive_times_add_up_to_the_whole() {
        let span = |stage, node, ns| Span { stage, node, ns };
        let trace = vec![
            span(Stage::Front, 1, 900),
            span(Stage::Order, 3, 700),
            span(Stage::Catalog, 5, 500),
            span(Stage::Token, 5, 50),
            span(Stage::Replicate, 5, 300),
            span(Stage::Sync, 5, 290),
            span(Stage::Apply, 5, 20),
        ];
        let report = Report { trace, node: 1, elapsed_ns: 1_000, sends: 1 };
        let tiers = tiers(&report);
        let shape: Vec<_> = tiers.iter().map(|tier| (tier.depth, tier.stage, tier.exclusive_ns)).collect();
        assert_eq!(
            shape,
            [
                (0, "client", 100),
                (1, "front", 200),
                (2, "order", 200),
                (3, "catalog", 130),
                (4, "token", 50),
                (4, "replicate", 300),
                (4, "sync (overlaps)", 290),
                (4, "apply", 20)
            ]
        );
        let overlap = 290;
        assert_eq!(tiers.iter().map(|tier| tier.exclusive_ns).sum::<u64>() - overlap, 1_000);
    }
}

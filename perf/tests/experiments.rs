//! Each experiment once, for a moment, on a real cluster: that it runs, says what it found, and keeps it.

#[path = "support/cluster.rs"]
mod cluster;
mod support;

use std::path::Path;

use cluster::{Cluster, text};
use pygmy_perf::run::{Panel, Run};
use serde_json::Value;
use support::{node_program, perf};

/// Runs it to a good end; what it printed.
fn good(args: &[&str]) -> Value {
    let output = perf(&[args, &["--json", "--allow-debug"]].concat());
    let (told, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}{warned}");
    serde_json::from_str(&told).expect("one object")
}

/// The run that was kept there: every number is one, and every table is whole.
fn kept(dir: &Path) -> Run {
    let run = Run::load(dir).expect("a run");
    assert!(!run.numbers.is_empty() && run.numbers.iter().all(|number| number.value.is_finite()), "{run:?}");
    for panel in &run.panels {
        if let Panel::Table(table) = panel {
            assert!(table.rows.iter().all(|row| row.len() == table.columns.len()), "{table:?}");
        }
    }
    run
}

fn numbers(values: &Value, name: &str) -> Vec<f64> {
    values.as_array().expect("rows").iter().map(|row| row[name].as_f64().expect("a number")).collect()
}

#[test]
fn answers_of_a_second_front_are_no_older_than_promised() {
    let cluster = Cluster::up();
    let (dir, out) = (text(cluster.dir.path()), cluster.dir.path().join("out"));
    let mut args = vec!["consistency", "--cluster", dir, "--duration", "400ms", "--rate", "200", "--lookups", "500"];
    args.extend(["--books", "hot:rpcdummies", "--out", text(&out)]);
    let report = good(&args);
    assert_eq!(report["is_kept"], true, "{report}");
    assert!(report["bought"].as_u64() > Some(100), "{report}");
    let rows = &report["rows"];
    assert_eq!(rows.as_array().map(Vec::len), Some(6), "three ways to ask, two fronts");
    assert!(numbers(rows, "answers").iter().all(|count| *count >= 100.0), "{report}");
    assert_eq!(numbers(rows, "promised_ms"), [250.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let run = kept(&out);
    assert!(run.panels.iter().any(|panel| matches!(panel, Panel::Percentiles(_))));
}

#[test]
fn a_cache_is_measured_with_books_that_a_file_names() {
    let cluster = Cluster::up();
    let (dir, out) = (text(cluster.dir.path()), cluster.dir.path().join("out"));
    let weights = cluster.dir.path().join("weights.csv");
    std::fs::write(&weights, "id,sold\nnew-1,5\nnew-2,1\n").expect("a file");
    let books = format!("csv:{}:sold", text(&weights));
    let report = good(&["cache", "--cluster", dir, "--lookups", "100", "--books", &books, "--out", text(&out)]);
    assert_eq!(report["books_count"], 2, "the two that were brought in: {report}");
    assert!(report["hit_ratio"].as_f64() > Some(0.9), "two books, a hundred lookups: {report}");
    let with: f64 = numbers(&report["rows"], "count").iter().sum();
    assert_eq!(with, 300.0, "a hundred in each of three ways: {report}");
    let run = kept(&out);
    let Some(Panel::Percentiles(percentiles)) = run.panels.first() else { panic!("{run:?}") };
    assert!(percentiles.lines.iter().any(|line| line.name == "with the cache: hit"), "{percentiles:?}");
}

#[test]
fn a_sweep_says_up_to_which_rate_answers_come_in_time() {
    let cluster = Cluster::up();
    let (dir, out) = (text(cluster.dir.path()), cluster.dir.path().join("out"));
    let mut args = vec!["sweep", "--cluster", dir, "--duration", "500ms", "--warmup", "50ms", "--connections", "4"];
    // Whatever this machine is busy with, something comes within a second.
    args.extend(["--bound", "1s", "--precision", "80", "--mix", "lookup=1", "--out", text(&out)]);
    let report = good(&args);
    let knee = report["knee_per_s"].as_f64().expect("a knee");
    let steps = report["steps"].as_array().expect("steps");
    let borne = steps.iter().filter(|step| step["is_borne"] == true).map(|step| step["rate"].as_f64());
    assert_eq!(borne.max_by(|a, b| a.partial_cmp(b).expect("rates")), Some(Some(knee)), "{report}");
    assert!(numbers(&report["steps"], "rate").is_sorted(), "{report}");
    let run = kept(&out);
    let Some(Panel::Curve(curve)) = run.panels.first() else { panic!("{run:?}") };
    assert_eq!((curve.lines.len(), curve.marks.len()), (3, 2), "{curve:?}");
}

#[test]
fn clusters_that_are_compared_are_gone_afterwards() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (clusters, out, node) = (dir.path().join("clusters"), dir.path().join("out"), node_program());
    let mut args =
        vec!["scale", "--over", "books", "--values", "7,600", "--repeat", "2", "--node-program", text(&node)];
    args.extend(["--duration", "200ms", "--warmup", "50ms", "--in-flight", "64", "--connections", "4"]);
    args.extend(["--dir", text(&clusters), "--out", text(&out)]);
    let report = good(&args);
    assert_eq!(numbers(&report["steps"], "value"), [7.0, 600.0]);
    assert!(numbers(&report["steps"], "done_per_s").iter().all(|done| *done > 0.0), "{report}");
    assert_eq!(numbers(&report["brought_in"], "books"), [7.0, 600.0], "each once, though there were two rounds");
    assert!(!clusters.exists(), "their files are removed");
    assert_eq!(kept(&out).panels.len(), 3);
}

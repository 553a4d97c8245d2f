//! A real cluster whose servers are killed in turn under a load, and what `failover` makes of it.

#[path = "support/cluster.rs"]
mod cluster;
mod support;

use cluster::{Cluster, text};
use support::perf;

#[test]
fn everything_asked_while_servers_are_killed_in_turn_is_kept_and_judged() {
    let cluster = Cluster::up();
    let (dir, node) = (text(cluster.dir.path()), text(&cluster.program));
    let weights = cluster.dir.path().join("weights.csv");
    std::fs::write(&weights, "id,title,sold\nrpcdummies,RPC,2\nnew-1,One,5\nnew-2,\"Two, or more\",0\n")
        .expect("a file");
    let (books, out) = (format!("csv:{}:sold", text(&weights)), cluster.dir.path().join("out"));
    let mut args = vec!["failover", "--cluster", dir, "--node-program", node, "--fault", "in-turn", "--json"];
    args.extend(["--duration", "3s", "--rate", "100", "--lookups", "300", "--books", &books, "--out", text(&out)]);
    let output = perf(&args);
    let (told, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {warned}"));
    let judgement = &report["judgement"];
    assert_eq!(judgement["ok"], true, "{report}");
    assert_eq!(judgement["replicas"], 5, "{report}");
    let count = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
    assert!(count(&judgement["orders"]) > 50 && count(&judgement["reads"]) > 150, "hardly anything was done: {report}");
    assert!(report["turns"].as_array().is_some_and(|turns| turns[0]["node"] == "catalog-1"), "{report}");
    let failed = count(&report["buys"]["failed"]) + count(&report["lookups"]["failed"]) + count(&report["unsent"]);
    assert_eq!(output.status.code(), Some(i32::from(failed > 0)), "{report}");
    // The book that was brought in is bought, the one that weighs nothing is not.
    let history = std::fs::read_to_string(out.join("history.jsonl")).expect("a history");
    let bought = |book: &str| {
        let line = format!(r#""lines":[{{"book":"{book}","#);
        history.lines().filter(|op| op.contains(&line)).count()
    };
    assert!(bought("new-1") > bought("rpcdummies") && bought("rpcdummies") > 0 && bought("new-2") == 0);
    let checked = perf(&["check", text(&out.join("history.jsonl"))]);
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn a_file_without_usable_weights_is_a_usage_error_that_names_what_is_wrong() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("weights.csv");
    let cases = [
        ("id,sold\na,1\n", "ratings", "there is no column \"ratings\"; there are id, sold"),
        ("id,sold\na,1\nb,-3\n", "sold", "line 3, column sold: -3 is no weight"),
        ("id,sold\n", "sold", "\"sold\" has no weight above 0"),
    ];
    for (content, column, expected) in cases {
        std::fs::write(&path, content).expect("a file");
        let books = format!("csv:{}:{column}", text(&path));
        // Nobody need be reached to say so.
        let output = perf(&["failover", "--cluster", text(dir.path()), "--fault", "in-turn", "--books", &books]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn one_server_is_killed_by_name_and_nothing_is_lost_or_doubled() {
    let cluster = Cluster::up();
    let (dir, node) = (text(cluster.dir.path()), text(&cluster.program));
    let out = cluster.dir.path().join("out");
    let mut args =
        vec!["failover", "--cluster", dir, "--node-program", node, "--node", "catalog-2", "--action", "kill"];
    args.extend(["--rounds", "1", "--rate", "100", "--lookups", "300", "--out", text(&out), "--json"]);
    let output = perf(&args);
    let (told, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}{warned}");
    let report: serde_json::Value = serde_json::from_str(&told).expect("a report");
    assert_eq!((&report["fault"], &report["rounds"]), (&"kill catalog-2".into(), &1.into()), "{report}");
    assert_eq!(report["failures"][0]["nodes"][0], "catalog-2", "{report}");
    assert!(report["failures"][0]["suspected_ms"].is_number(), "it was dead for more than a second: {report}");
    assert_eq!((&report["judgement"]["ok"], &report["judgement"]["replicas"]), (&true.into(), &5.into()), "{report}");
    assert!(report["judgement"]["orders"].as_u64() > Some(100), "hardly anything was bought: {report}");

    let run = pygmy_perf::run::Run::load(&out).expect("a run");
    let timelines = run.panels.iter().filter_map(|panel| match panel {
        pygmy_perf::run::Panel::Timeline(timeline) => Some(timeline),
        _ => None,
    });
    let marks: Vec<&str> = timelines.flat_map(|timeline| &timeline.marks).map(|mark| mark.label.as_str()).collect();
    assert!(marks.contains(&"kill catalog-2") && marks.contains(&"suspected"), "{marks:?}");
    let checked = perf(&["check", text(&out.join("history.jsonl"))]);
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn who_is_not_there_cannot_fail() {
    let cluster = Cluster::up();
    let dir = text(cluster.dir.path());
    let said = |args: &[&str]| {
        let output = perf(&[&["failover", "--cluster", dir], args].concat());
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(&["--node", "catalog-9", "--action", "kill"]).contains("no such server"));
    assert!(said(&["--node", "catalog-1"]).contains("--action"));
    assert!(said(&[]).contains("--fault"));
}

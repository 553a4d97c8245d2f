//! Whole reports: of runs with every form of panel, of what is odd, and of what is no run.

use proptest::prelude::*;

use super::*;
use crate::run::{
    Axis, Better, Cell, Curve, Distribution, Line, Mark, Panel, Percentiles, RunError, Stack, Table, Timeline, Track,
    Unit,
};

const EVIL: &str = "<script>alert('x')</script>\"&\u{1b}[31m\u{202e}";

fn axis(label: &str, unit: Unit, is_log: bool) -> Axis {
    Axis { label: label.into(), unit, is_log }
}

fn line(name: &str, points: &[(f64, f64)]) -> Line {
    Line { name: name.into(), points: points.to_vec() }
}

/// Every form of panel, in which every text begins with `text` and every value is a multiple of `value`.
fn panels(text: &str, value: f64) -> Vec<Panel> {
    let named = |name: &str| format!("{text}{name}");
    let points = [(0.0, value), (1.0, 0.0), (2.0, 3.0 * value), (40.0, value)];
    let mark = |at_s, until_s| Mark { at_s, until_s, label: named("kill catalog-2") };
    let distribution =
        Distribution { name: named("buy"), count: 1_000, points: vec![(0.5, value), (1.0, 9.0 * value)] };
    let x = axis(&named("offered"), Unit::PerSecond, false);
    let track = |is_log| Track {
        axis: axis(&named("done"), Unit::PerSecond, is_log),
        lines: vec![line(&named("buys"), &points), line(&named("none"), &[])],
    };
    let curve = |is_scatter: bool| {
        let y = axis(&named("latency"), Unit::Seconds, !is_scatter);
        let (lines, marks) = (vec![line(&named("p99"), &points)], vec![mark(1.5, None)]);
        Panel::Curve(Curve { title: named("curve"), x: x.clone(), y, lines, is_scatter, marks })
    };
    vec![
        Panel::Percentiles(Percentiles { title: named("latency"), lines: vec![distribution] }),
        Panel::Timeline(Timeline {
            title: named("faults"),
            tracks: vec![track(true), track(false)],
            marks: vec![mark(1.0, Some(2.0)), mark(1.0, None)],
        }),
        curve(false),
        curve(true),
        Panel::Stack(Stack {
            title: named("tiers"),
            axis: axis(&named("time"), Unit::Seconds, false),
            parts: vec![named("sync"), named("apply")],
            bars: vec![(named("half"), vec![value, 3.0 * value]), (named("none"), vec![0.0, 0.0])],
        }),
        Panel::Table(Table {
            title: named("processes"),
            columns: vec![named("who"), named("CPU")],
            rows: vec![vec![Cell::Text(named("front-1")), Cell::Value { value, unit: Unit::Seconds }]],
        }),
    ]
}

fn a_run(text: &str, value: f64) -> Run {
    let mut run = Run::begin("load", format!("{text}title"));
    run.started_unix_ms = 1_795_435_200_123;
    run.notes.push(format!("{text}note"));
    run.command.push(format!("{text}word"));
    run.number(format!("{text}done"), value, Unit::PerSecond, Better::Higher);
    run.panels = panels(text, value);
    run
}

fn args(dir: &Path, runs: &[&str], baseline: Option<&str>) -> ReportArgs {
    ReportArgs {
        runs: runs.iter().map(|name| dir.join(name)).collect(),
        out: dir.join("report.html"),
        baseline: baseline.map(|name| dir.join(name)),
        plots: Some(dir.join("plots")),
        json: false,
    }
}

fn page(args: &ReportArgs) -> String {
    run(args).unwrap();
    std::fs::read_to_string(&args.out).unwrap()
}

#[test]
fn the_same_runs_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    a_run("", 100.0).save(&dir.path().join("before")).unwrap();
    a_run("", 120.0).save(&dir.path().join("after")).unwrap();
    let args = args(dir.path(), &["after"], Some("before"));
    let all = || -> Vec<(PathBuf, Vec<u8>)> {
        let report = run(&args).unwrap();
        let files = report.plots.into_iter().chain([report.page]);
        files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    };
    let first = all();
    assert!(first == all());
    // Timelines are two pictures, one each; everything else shares one; a table is none.
    assert_eq!(first.len(), 2 * 6 + 1);
    let is_png = |bytes: &[u8]| bytes.starts_with(b"\x89PNG");
    assert!(first.iter().all(|(path, bytes)| (path.extension().unwrap() == "png") == is_png(bytes)));
}

#[test]
fn words_of_runs_are_only_words() {
    let dir = tempfile::tempdir().unwrap();
    let mut evil = a_run(EVIL, 1.0);
    evil.experiment = EVIL.into();
    evil.machine.cpu = EVIL.into();
    evil.machine.kernel = EVIL.into();
    evil.machine.load_average = EVIL.into();
    let label = "<b>'x'&";
    evil.save(&dir.path().join(label)).unwrap();
    a_run("", 1.0).save(&dir.path().join("b")).unwrap();
    let args = args(dir.path(), &[label, "b"], None);
    let report = run(&args).unwrap();
    let svgs = report.plots.iter().filter(|path| path.extension().is_some_and(|end| end == "svg"));
    for path in svgs.chain([&report.page]) {
        let text = std::fs::read_to_string(path).unwrap();
        for bad in ["<script", "<b>", "alert('", "\u{1b}", "\u{202e}"] {
            assert!(!text.contains(bad), "{}: {bad:?}", path.display());
        }
    }
    let page = std::fs::read_to_string(&report.page).unwrap();
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;\u{fffd}[31m\u{fffd}title"));
    let mut text = Vec::new();
    report.print(&mut text).unwrap();
    assert!(!text.contains(&0x1b));
}

#[test]
fn a_page_needs_nothing_from_elsewhere_and_names_its_pictures() {
    let dir = tempfile::tempdir().unwrap();
    a_run("", 1.0).save(&dir.path().join("a")).unwrap();
    let page = page(&args(dir.path(), &["a"], None));
    for bad in ["<script", "<link", "<img", "src=", "@import", "url(", "http://", "https://"] {
        assert!(!page.contains(bad), "{bad}");
    }
    assert_eq!(page.matches("<svg ").count(), 5);
    for at in 1..=5 {
        for part in ["title", "desc"] {
            assert_eq!(page.matches(&format!("id=\"figure-{at}-1-{part}\"")).count(), 1);
        }
    }
    assert_eq!(page.matches("<details>").count(), 5, "every picture's numbers are there, too");
}

#[test]
fn what_is_no_run_is_named() {
    let dir = tempfile::tempdir().unwrap();
    a_run("", 1.0).save(&dir.path().join("good")).unwrap();
    std::fs::create_dir(dir.path().join("newer")).unwrap();
    std::fs::write(dir.path().join("newer/run.json"), r#"{"format":"pygmy-run","version":9}"#).unwrap();
    let error = run(&args(dir.path(), &["good", "newer"], None)).unwrap_err();
    assert!(
        matches!(&error, Error::Run { path, why: RunError::Version { found: 9 } } if path.ends_with("newer/run.json"))
    );
    let error = run(&args(dir.path(), &["good", "missing"], None)).unwrap_err();
    assert!(matches!(&error, Error::Io { what, .. } if what.ends_with("missing")), "{error}");
    assert!(!dir.path().join("report.html").exists(), "nothing is drawn of half of what was asked for");
}

#[test]
fn a_run_is_not_compared_with_itself() {
    let dir = tempfile::tempdir().unwrap();
    a_run("", 1.0).save(&dir.path().join("a")).unwrap();
    a_run("", 2.0).save(&dir.path().join("b")).unwrap();
    assert!(matches!(run(&args(dir.path(), &["a"], Some("a"))), Err(Error::Usage(_))));
    let report = run(&args(dir.path(), &["b", "a", "b"], Some("a"))).unwrap();
    assert_eq!(
        (report.comparison.baseline.as_deref(), report.comparison.runs.as_slice()),
        (Some("a"), &["b".into()][..])
    );
    let page = std::fs::read_to_string(&report.page).unwrap();
    assert!(page.contains("<td class=\"n better\">2.00× better</td>"));
}

#[test]
fn runs_are_called_by_what_tells_them_apart() {
    let paths = |paths: &[&str]| labels(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
    assert_eq!(paths(&["/r/a/run.json", "/r/b/run.json", "/r/other.json"]), ["a", "b", "other"]);
    assert_eq!(paths(&["/r/1/a/run.json", "/r/2/a/run.json"]), ["1/a", "2/a"]);
    assert_eq!(paths(&["/r/a/run.json"]), ["a"]);
}

#[test]
fn files_are_named_after_titles() {
    assert_eq!(slug("Where the time of a buy goes (p99 %)"), "where-the-time-of-a-buy-goes-p99");
    assert_eq!(slug("../../etc/passwd"), "etc-passwd");
    assert_eq!(slug("§"), "");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_the_values_every_place_is_on_the_picture(
        value in prop::num::f64::NORMAL | prop::num::f64::ZERO | prop::num::f64::SUBNORMAL,
        text in "\\PC{0,80}",
    ) {
        for panel in panels(&text, value) {
            let group = group::Group { experiment: "x", title: group::title(&panel), members: vec![("a", &panel), ("b", &panel)] };
            for scene in panels::figure(&group).scenes {
                prop_assert!(scene.height.is_finite() && scene.height < 5_000.0, "{}", scene.height);
                let text = svg::file(&scene);
                for bad in ["NaN", "inf"] {
                    // Words may say so; numbers of shapes must not.
                    prop_assert!(!text.contains(&format!("=\"{bad}")) && !text.contains(&format!("L{bad}")), "{text}");
                }
            }
        }
    }
}

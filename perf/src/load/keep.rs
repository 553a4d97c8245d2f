//! What a load found, kept in a directory: for the report, for HdrHistogram's tools, for spreadsheets and programs.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag};

use super::panels;
use super::record::Record;
use super::report::LoadReport;
use super::series::{INTERVAL_NS, Key, Series, Sparse};
use crate::error::Error;
use crate::run::Run;

/// Nanoseconds in the unit that HdrHistogram's own tools show: milliseconds.
const NS_PER_MS: f64 = 1e6;

/// Keeps all of it in `dir`, which is made if need be. `run` was begun when the load was.
///
/// # Errors
/// When a file cannot be written.
pub fn save(dir: &Path, mut run: Run, report: &LoadReport, record: &Record) -> Result<(), Error> {
    panels::fill(&mut run, report, record);
    run.save(dir)?;
    let write = |name: &str, write: &dyn Fn(&mut dyn Write) -> io::Result<()>| {
        let path = dir.join(name);
        let written = File::create(&path).and_then(|file| {
            let mut out = BufWriter::new(file);
            write(&mut out)?;
            out.flush()
        });
        written.map_err(Error::io(path.display().to_string()))
    };
    write("report.json", &|out| serde_json::to_writer_pretty(out, report).map_err(io::Error::from))?;
    write("latencies.csv", &|out| latencies_csv(out, report))?;
    write("timeline.csv", &|out| timeline_csv(out, &record.series))?;
    let began = Duration::from_millis(run.started_unix_ms);
    write("latencies.hlog", &|out| interval_log(out, began, record))?;
    for (key, times) in record.latencies.iter() {
        write(&format!("{}.hgrm", tag(key)), &|out| percentiles(out, times))?;
    }
    Ok(())
}

/// The name of a kind and result in files: letters, digits, `_` and `-` alone.
pub(super) fn tag((kind, outcome): Key) -> String {
    format!("{}-{}", kind.name(), outcome.name().replace(' ', "_"))
}

fn latencies_csv(out: &mut dyn Write, report: &LoadReport) -> io::Result<()> {
    writeln!(out, "request,result,count,p50_us,p90_us,p99_us,p99_9_us,max_us")?;
    report.rows.iter().try_for_each(|row| {
        let latency = row.latency;
        let times = [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us];
        let times = times.map(|us| format!(",{us:.3}")).concat();
        writeln!(out, "{},{},{}{times}", row.request.name(), row.result, row.count)
    })
}

/// One line for each kind and result in each interval in which some of them came.
fn timeline_csv(out: &mut dyn Write, series: &Series) -> io::Result<()> {
    writeln!(out, "from_s,to_s,request,result,count,p50_us,p99_us,max_us")?;
    for (number, interval) in series.intervals().iter().enumerate() {
        let (from_s, to_s) = (seconds(number), seconds(number + 1));
        for ((kind, outcome), times) in interval {
            let us = |quantile| times.at_quantile(quantile) as f64 / 1e3;
            let (p50, p99, max) = (us(0.5), us(0.99), us(1.0));
            let (name, result) = (kind.name(), outcome.name());
            writeln!(out, "{from_s:.1},{to_s:.1},{name},{result},{},{p50:.3},{p99:.3},{max:.3}", times.count())?;
        }
    }
    Ok(())
}

/// Start of an interval, in seconds since the start of the window.
pub(super) fn seconds(number: usize) -> f64 {
    number as f64 * (INTERVAL_NS as f64 / 1e9)
}

/// HdrHistogram's log of intervals, in nanoseconds, one tag for each kind and result.
fn interval_log(out: &mut dyn Write, began: Duration, record: &Record) -> io::Result<()> {
    let mut out = out;
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("[Latencies in nanoseconds, by when the answer came; times since the start of the window]")
        .with_start_time(UNIX_EPOCH + began)
        .with_max_value_divisor(NS_PER_MS);
    let mut log = builder.begin_log_with(&mut out, &mut serializer)?;
    let mut histogram = record.latencies.empty().clone();
    for (number, interval) in record.series.intervals().iter().enumerate() {
        for (key, times) in interval {
            histogram.reset();
            times.add_to(&mut histogram);
            let name = tag(*key);
            let start = Duration::from_nanos(number as u64 * INTERVAL_NS);
            let written = log.write_histogram(&histogram, start, Duration::from_nanos(INTERVAL_NS), Tag::new(&name));
            written.map_err(|error| match error {
                IntervalLogWriterError::IoError(error) => error,
                IntervalLogWriterError::SerializeError(error) => io::Error::other(error.to_string()),
            })?;
        }
    }
    Ok(())
}

/// The text form of HdrHistogram's percentile distribution, in milliseconds.
fn percentiles(out: &mut dyn Write, times: &Histogram<u64>) -> io::Result<()> {
    writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let mut total = 0;
    for step in times.iter_quantiles(5) {
        total += step.count_since_last_iteration();
        let (ms, quantile) = (step.value_iterated_to() as f64 / NS_PER_MS, step.quantile_iterated_to());
        if quantile < 1.0 {
            writeln!(out, "{ms:>12.3} {quantile:>14.12} {total:>10} {:>14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out, "{ms:>12.3} {quantile:>14.12} {total:>10}")?;
        }
    }
    let (mean, deviation) = (times.mean() / NS_PER_MS, times.stdev() / NS_PER_MS);
    writeln!(out, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]")?;
    writeln!(out, "#[Max     = {:>12.3}, Total count    = {:>12}]", times.max() as f64 / NS_PER_MS, times.len())?;
    writeln!(out, "#[Buckets = {:>12}, SubBuckets     = {:>12}]", times.buckets(), SUB_BUCKETS)
}

/// Buckets of three digits, each of which is half a power of two.
const SUB_BUCKETS: u32 = 2_048;

/// How much came in an interval and how fast, as a line of the timeline needs it.
pub(super) fn points(series: &Series, key: Key, of: impl Fn(&Sparse) -> f64) -> Vec<(f64, f64)> {
    let at = |(number, interval): (usize, &std::collections::BTreeMap<Key, Sparse>)| {
        Some((seconds(number), of(interval.get(&key)?)))
    };
    series.intervals().iter().enumerate().filter_map(at).collect()
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::load::mix::{Popularity, RequestKind};
    use crate::load::plan::LoadPlan;
    use crate::load::record::Outcome;
    use crate::load::series::{Latencies, Slice};

    const BUY: Key = (RequestKind::Buy, Outcome::Ok);

    /// Three intervals with answers, of which the second has none.
    fn record() -> Record {
        let mut record = Record::new().unwrap();
        for number in [0, 2] {
            let mut latencies = Latencies::new().unwrap();
            (1..=100_u64).for_each(|n| latencies.add(BUY, n * 1_000_000));
            latencies.add((RequestKind::Lookup, Outcome::Refused(9_999)), 5_000);
            record.add_slice(&Slice { number, latencies });
        }
        record
    }

    fn saved() -> (tempfile::TempDir, Record) {
        let record = record();
        let plan = LoadPlan::new("buy=1".parse().unwrap());
        let report = LoadReport::new(&plan, &Popularity::Uniform, 7, &record);
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), Run::begin("load", "buys"), &report, &record).unwrap();
        (dir, record)
    }

    #[test]
    fn the_interval_log_holds_every_latency() {
        let (dir, record) = saved();
        let text = std::fs::read(dir.path().join("latencies.hlog")).unwrap();
        let mut total = record.latencies.empty().clone();
        let mut starts = Vec::new();
        for entry in IntervalLogIterator::new(&text) {
            let LogEntry::Interval(interval) = entry.unwrap() else { continue };
            if interval.tag().unwrap().as_str() != "buy-ok" {
                assert_eq!(interval.tag().unwrap().as_str(), "lookup-error_9999");
                continue;
            }
            starts.push(interval.start_timestamp().as_millis());
            let bytes =
                base64::Engine::decode(&base64::engine::general_purpose::STANDARD, interval.encoded_histogram());
            let part: Histogram<u64> = Deserializer::new().deserialize(&mut io::Cursor::new(bytes.unwrap())).unwrap();
            total.add(&part).unwrap();
        }
        assert_eq!(starts, [0, 200]);
        assert_eq!(Some(&total), record.latencies.get(BUY));
    }

    #[test]
    fn percentile_files_have_the_form_that_plotters_read() {
        let (dir, _) = saved();
        let text = std::fs::read_to_string(dir.path().join("buy-ok.hgrm")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>(),
            ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
        );
        let median: Vec<&str> =
            lines.iter().find(|line| line.contains("0.500000000000")).unwrap().split_whitespace().collect();
        assert_eq!(median[1..], ["0.500000000000", "100", "2.00"]);
        assert!((median[0].parse::<f64>().unwrap() - 50.0).abs() < 0.1, "{median:?}");
        assert!(lines[lines.len() - 4].contains("1.000000000000") && lines[lines.len() - 4].ends_with(" 200"));
        assert!(text.contains("#[Max     =") && text.contains("Total count    =          200]"), "{text}");
    }

    #[test]
    fn tables_have_a_line_for_each_kind_and_result() {
        let (dir, _) = saved();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("latencies.csv").lines().count(), 3);
        let timeline = read("timeline.csv");
        assert_eq!(timeline.lines().count(), 5);
        assert!(timeline.contains("\n0.2,0.3,buy,ok,100,"), "{timeline}");
        let report: serde_json::Value = serde_json::from_str(&read("report.json")).unwrap();
        assert_eq!(report["rows"][1]["count"], 200);
        assert_eq!(Run::load(dir.path()).unwrap().title, "buys");
    }
}

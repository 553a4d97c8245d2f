//! `redis-benchmark`, the tool by whose figures Redis is known, and what it prints.

use std::time::Duration;

use crate::compare::peer::Shape;
use crate::compare::shelf;
use crate::compare::tally::Measured;
use crate::error::Error;

/// The arguments that make it ask for books: `requests` in all.
pub(super) fn args(port: u16, shape: &Shape, books: u32, requests: u64) -> Vec<String> {
    let mut args: Vec<String> = ["-h", "127.0.0.1", "--csv", "-p"].map(String::from).into();
    args.push(port.to_string());
    args.extend(["-c".into(), shape.clients.to_string(), "-P".into(), shape.depth.to_string()]);
    args.extend(["-n".into(), requests.to_string(), "-r".into(), books.to_string()]);
    args.extend(["GET".into(), "book:__rand_int__".into()]);
    debug_assert_eq!(shelf::id(0).len(), 12, "the tool writes numbers of 12 digits");
    args
}

/// Requests that take about `span` at a rate; it is told how many, not how long.
pub(super) fn requests(per_s: f64, span: Duration, shape: &Shape) -> u64 {
    ((per_s * span.as_secs_f64()) as u64).max(shape.in_flight() as u64 * 10)
}

/// Reads the table that it prints with `--csv`: milliseconds, by the names of its columns.
///
/// # Errors
/// When a column is missing or holds no number.
pub(super) fn parse(text: &str) -> Result<Measured, Error> {
    let wrong = |why: &str| Error::Usage(format!("redis-benchmark printed something unexpected: {why}: {text}"));
    // Warnings of the tool may stand before the table.
    let table = text.find("\"test\"").map(|at| &text[at..]).ok_or_else(|| wrong("no table"))?;
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let heads = reader.headers().map_err(|error| wrong(&error.to_string()))?.clone();
    let row = reader.records().next().and_then(Result::ok).ok_or_else(|| wrong("no row"))?;
    let value = |name: &str| {
        let place = heads.iter().position(|head| head == name);
        let found = place.and_then(|place| row.get(place)?.parse::<f64>().ok());
        found.ok_or_else(|| wrong(&format!("no number under {name:?}")))
    };
    let seconds = |name: &str| value(name).map(|ms| ms / 1e3);
    Ok(Measured {
        per_s: value("rps")?,
        failed: 0,
        p50_s: seconds("p50_latency_ms")?,
        p99_s: seconds("p99_latency_ms")?,
        max_s: seconds("max_latency_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::peer::Group;

    const PRINTED: &str = concat!(
        "WARNING: Could not fetch server CONFIG\n",
        r#""test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms""#,
        "\n",
        r#""GET book:__rand_int__","1290322.50","0.487","0.088","0.463","0.815","1.095","3.551""#,
        "\n"
    );

    #[test]
    fn its_table_is_read_by_the_names_of_its_columns() {
        let measured = parse(PRINTED).unwrap();
        let expected = Measured { per_s: 1_290_322.5, failed: 0, p50_s: 463e-6, p99_s: 1_095e-6, max_s: 3_551e-6 };
        assert!((measured.p99_s - expected.p99_s).abs() < 1e-9 && (measured.max_s - expected.max_s).abs() < 1e-9);
        assert_eq!((measured.per_s, measured.failed), (expected.per_s, 0));
        assert!((measured.p50_s - expected.p50_s).abs() < 1e-9);
    }

    #[test]
    fn a_table_of_another_form_is_refused() {
        for bad in [
            "",
            "Error: refused",
            "\"test\",\"rps\"\n",
            &PRINTED.replace("p99_", "p98_"),
            &PRINTED.replace("1.095", "-"),
        ] {
            assert!(parse(bad).unwrap_err().to_string().contains("redis-benchmark"), "{bad}");
        }
    }

    #[test]
    fn it_is_told_how_many_requests_last_so_long() {
        let shape = Shape::new(Group::Lookups, 50, 16);
        assert_eq!(requests(1e6, Duration::from_secs(5), &shape), 5_000_000);
        assert_eq!(requests(1.0, Duration::from_secs(5), &shape), 8_000);
        let args = args(6_000, &shape, 1_000, 77).join(" ");
        assert_eq!(args, "-h 127.0.0.1 --csv -p 6000 -c 50 -P 16 -n 77 -r 1000 GET book:__rand_int__");
    }
}

//! What happened, as a hash that two runs of one seed must share, and as lines for people.

use std::collections::VecDeque;
use std::io::Write;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What becomes of the lines.
#[derive(Debug)]
enum Lines {
    None,
    Last(VecDeque<String>),
    Print,
}

/// The trace of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: Lines,
}

/// Lines that are kept for a failure.
const LAST_LINES: usize = 60;

impl Trace {
    /// Only the hash.
    pub fn silent() -> Self {
        Self { hash: 0, events: 0, lines: Lines::None }
    }
    /// The hash and the last lines.
    pub fn last_lines() -> Self {
        Self { lines: Lines::Last(VecDeque::new()), ..Self::silent() }
    }
    /// The hash; every line goes to standard output.
    pub fn printed() -> Self {
        Self { lines: Lines::Print, ..Self::silent() }
    }

    /// Hash over all events so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }
    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }
    /// The last lines, if they were kept.
    pub fn take_lines(&mut self) -> Vec<String> {
        match &mut self.lines {
            Lines::Last(lines) => lines.drain(..).collect(),
            _ => Vec::new(),
        }
    }

    /// Notes an event: a number for its kind and place, and bytes that must be the same in every run.
    pub fn note(&mut self, at: u64, what: u64, bytes: &[u8], line: impl FnOnce() -> String) {
        self.events += 1;
        let mut words = [0; 24];
        words[..8].copy_from_slice(&at.to_le_bytes());
        words[8..16].copy_from_slice(&what.to_le_bytes());
        words[16..].copy_from_slice(&xxh3_64_with_seed(bytes, self.hash).to_le_bytes());
        self.hash = xxh3_64_with_seed(&words, self.hash);
        match &mut self.lines {
            Lines::None => {}
            Lines::Last(lines) => {
                if lines.len() == LAST_LINES {
                    lines.pop_front();
                }
                lines.push_back(format_line(at, &line()));
            }
            Lines::Print => {
                // Whoever closed the pipe has read enough; the run goes on, for its end is told by the exit code.
                let _ = writeln!(std::io::stdout(), "{}", format_line(at, &line()));
            }
        }
    }
}

fn format_line(at: u64, line: &str) -> String {
    format!("{:>12.3} {line}", at as f64 / 1e6)
}

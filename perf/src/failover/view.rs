//! What clients see of a fault: how long nobody was answered, how long the unluckiest of them was not, what failed, and
//! what was slowest. No I/O.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::timeline::Sample;

/// Requests that ended so long before a moment cannot have been waiting for what happened then, nor bound a gap around it.
const BEFORE_NS: u64 = 2_000_000_000;

/// The end of a request, however often it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// The client that asked.
    pub(super) client: usize,
    /// When it was to be asked.
    pub(super) due_ns: u64,
    /// When its call ended.
    pub(super) end_ns: u64,
    /// Whether it got what it asked for.
    pub(super) is_ok: bool,
    /// Whether it had to be sent again.
    pub(super) is_repeated: bool,
}

/// Requests of one kind.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Asked so far.
    pub(super) asked: u64,
    /// Due, and not even asked: there was no room.
    pub(super) unsent: u64,
    /// The number of the latest.
    number: u64,
    /// When those were due that have not ended, by their number, which rises with it.
    open: BTreeMap<u64, u64>,
    /// In the order in which they ended, nearly.
    ended: Vec<Ended>,
}

/// What clients saw of one kind of requests in one span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct View {
    /// Longest time without an answer to anyone, in milliseconds.
    pub gap_ms: f64,
    /// Longest time without an answer to one client.
    pub client_gap_ms: f64,
    /// The slowest request, from the moment at which it was due.
    pub slowest_ms: f64,
    /// Requests that ended.
    pub ended: u64,
    /// Of these, those that were sent more than once.
    pub repeated: u64,
    /// And those that failed.
    pub failed: u64,
}

impl Requests {
    /// One is asked; its number.
    pub(super) fn ask(&mut self, due_ns: u64) -> u64 {
        self.asked += 1;
        self.number += 1;
        self.open.insert(self.number, due_ns);
        self.number
    }

    /// One could not be asked after all.
    pub(super) fn take_back(&mut self, number: u64) {
        self.open.remove(&number);
        self.asked -= 1;
        self.unsent += 1;
    }

    /// One has ended.
    pub(super) fn end(&mut self, number: u64, ended: Ended) {
        self.open.remove(&number);
        self.ended.push(ended);
    }

    /// Whether one that was due before this has not ended.
    pub(super) fn is_open_before(&self, until_ns: u64) -> bool {
        self.open.first_key_value().is_some_and(|(_, due_ns)| *due_ns < until_ns)
    }

    /// Those that failed.
    pub(super) fn failed(&self) -> u64 {
        self.ended.iter().filter(|one| !one.is_ok).count() as u64
    }

    /// Each that has ended.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let sample = |one: &Ended| Sample { due_ns: one.due_ns, end_ns: one.end_ns, is_ok: one.is_ok };
        self.ended.iter().map(sample).collect()
    }

    /// What was seen between two moments: of what was due before the second and had not ended at the first.
    pub(super) fn view(&self, from_ns: u64, until_ns: u64) -> View {
        let recent = self.ended.iter().rev().take_while(|one| one.end_ns + BEFORE_NS > from_ns);
        let recent: Vec<Ended> = recent.filter(|one| one.due_ns < until_ns).copied().collect();
        let mut answered: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for one in recent.iter().filter(|one| one.is_ok) {
            answered.entry(one.client).or_default().push(one.end_ns);
        }
        let all = answered.values().flatten().copied().collect();
        let client_gap_ns = answered.into_values().map(|ends| longest_gap(ends, from_ns)).max().unwrap_or_default();
        let within = || recent.iter().filter(|one| one.end_ns >= from_ns);
        let count = |is: fn(&Ended) -> bool| within().filter(|one| is(one)).count() as u64;
        let slowest_ns = within().map(|one| one.end_ns.saturating_sub(one.due_ns)).max().unwrap_or_default();
        View {
            gap_ms: longest_gap(all, from_ns) as f64 / 1e6,
            client_gap_ms: client_gap_ns as f64 / 1e6,
            slowest_ms: slowest_ns as f64 / 1e6,
            ended: count(|_| true),
            repeated: count(|one| one.is_repeated),
            failed: count(|one| !one.is_ok),
        }
    }
}

/// What clients saw of one fault, for a person.
pub(super) fn print_view(what: &str, view: &View, out: &mut impl Write) -> io::Result<()> {
    let View { gap_ms, client_gap_ms, slowest_ms, repeated, failed, .. } = view;
    writeln!(
        out,
        "    {what}: {gap_ms:.1} ms without an answer, {client_gap_ms:.1} ms to one client, slowest {slowest_ms:.1} ms, \
         {repeated} sent again, {failed} failed"
    )
}

/// The longest distance between two moments of which the later one does not lie before `from_ns`.
fn longest_gap(mut moments_ns: Vec<u64>, from_ns: u64) -> u64 {
    moments_ns.sort_unstable();
    let reaching = moments_ns.windows(2).filter(|pair| pair[1] >= from_ns);
    reaching.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn end(requests: &mut Requests, client: usize, (due, end): (u64, u64), is_ok: bool) {
        let number = requests.ask(due * MS);
        let is_repeated = !is_ok || end - due > 20;
        requests.end(number, Ended { client, due_ns: due * MS, end_ns: end * MS, is_ok, is_repeated });
    }

    #[test]
    fn the_longest_gap_of_all_and_that_of_the_unluckiest_client() {
        let mut requests = Requests::default();
        for at in [100, 110, 120, 130, 140, 150, 160] {
            end(&mut requests, 0, (at, at + 1), true);
        }
        for (due, at) in [(90, 91), (105, 106), (115, 155), (125, 156)] {
            end(&mut requests, 1, (due, at), true);
        }
        end(&mut requests, 1, (135, 157), false);
        let found = requests.view(112 * MS, 200 * MS);
        let View { gap_ms, client_gap_ms, slowest_ms, .. } = found;
        assert_eq!((gap_ms, client_gap_ms, slowest_ms), (10.0, 49.0, 40.0));
        assert_eq!((found.ended, found.repeated, found.failed, requests.failed()), (8, 3, 1, 1));
        // What was over before and what was due behind is somebody else's.
        assert_eq!(requests.view(158 * MS, 200 * MS).slowest_ms, 1.0);
        let before = requests.view(80 * MS, 112 * MS);
        assert_eq!((before.ended, before.slowest_ms), (4, 1.0));
        assert_eq!(Requests::default().view(0, MS), View::default());
    }

    #[test]
    fn what_fails_is_no_answer() {
        let mut requests = Requests::default();
        for (at, is_ok) in [(10, true), (20, false), (30, false), (40, true)] {
            end(&mut requests, 0, (at, at), is_ok);
        }
        assert_eq!(requests.view(15 * MS, 50 * MS).gap_ms, 30.0);
    }

    #[test]
    fn what_has_not_ended_is_waited_for_and_what_was_not_asked_is_not() {
        let mut requests = Requests::default();
        let first = requests.ask(10);
        let second = requests.ask(20);
        assert!(requests.is_open_before(11) && !requests.is_open_before(10));
        requests.take_back(first);
        assert!(!requests.is_open_before(20) && requests.is_open_before(21));
        assert_eq!((requests.asked, requests.unsent), (1, 1));
        let ended = Ended { client: 0, due_ns: 20, end_ns: 30, is_ok: true, is_repeated: false };
        requests.end(second, ended);
        assert!(!requests.is_open_before(u64::MAX));
    }
}

//! The log's threads: what they tell, in which order, and what is on disk then.

mod disk_support;
mod patience;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use disk_support::*;
use patience::PATIENCE;
use pygmy_node::disk::chain::end_of;
use pygmy_node::disk::direct::LogWrites;
use pygmy_node::disk::fs::{Fs, FsFile, RealFs};
use pygmy_node::disk::log::{LogError, LogFiles, Options};
use pygmy_node::disk::record::Mark;
use pygmy_node::disk::sim::SimFs;
use pygmy_node::disk::vote::{Found, Vote, VoteFile};
use pygmy_node::disk::writer::{Error, Event, LogThread};
use pygmy_proto::batch::Batch;

struct Loop {
    thread: LogThread,
    woken: Receiver<()>,
    end: Mark,
}

impl Loop {
    fn start<F>(fs: F, options: Options) -> Self
    where
        F: Fs + Send + 'static,
        F::File: FsFile + Send + 'static,
    {
        let (log, found) = LogFiles::open(fs.clone(), UUID, options).expect("the log opens");
        let (vote, _) = VoteFile::open(fs, UUID).expect("the vote opens");
        let (wake, woken) = channel();
        let wake = Arc::new(move || wake.send(()).unwrap_or_default());
        Self { thread: LogThread::start(log, vote, wake).expect("threads"), woken, end: found.end }
    }

    fn submit(&mut self, len: usize) -> Batch {
        let next = batch(epoch(1), self.end, 2, len, self.end.seq);
        self.end = end_of(&next);
        self.thread.submit(epoch(1), next.clone());
        next
    }

    /// The next event, for which it waits to be woken.
    fn next(&mut self) -> Result<Event, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(event) = self.thread.poll()? {
                return Ok(event);
            }
            self.woken.recv_timeout(deadline.saturating_duration_since(Instant::now())).expect("it wakes the loop");
        }
    }

    fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut seen = Vec::new();
        while !seen.last().is_some_and(&wanted) {
            seen.push(self.next().expect("a good disk"));
        }
        seen
    }
}

fn durable(mark: Mark) -> Event {
    Event::Durable { epoch: epoch(1), seq: mark.seq, hash: mark.hash }
}

fn vote(counter: u64) -> Vote {
    Vote { promised: epoch(counter), cut: epoch(0) }
}

/// Whichever way they were written, and whichever way the process before wrote.
#[test]
fn batches_and_votes_become_durable_in_order_and_are_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 1024 * 1024, ..SMALL };
    let ways = [LogWrites::Direct, LogWrites::Buffered, LogWrites::Direct];
    for (round, writes) in (1..).zip(ways) {
        let given = [vote(round * 2), vote(round * 2 + 1)];
        let mut served = Loop::start(RealFs::open(dir.path(), writes).unwrap(), options);
        let before = served.end.seq;
        let mut batches = vec![served.submit(100), served.submit(100)];
        let first = served.end;
        given.iter().for_each(|vote| served.thread.submit_vote(*vote));
        // More than the memory that a group begins with.
        batches.extend((0..40).map(|_| served.submit(4_000)));
        let last = served.end;
        assert!(served.thread.poll().unwrap().is_none(), "the turn is not closed");
        served.thread.flush();
        let expected = [durable(first), Event::Vote(given[0]), Event::Vote(given[1]), durable(last)];
        assert_eq!(served.until(|event| *event == durable(last)), expected);
        assert!(served.thread.read(3, before + 1, last.seq));
        let read = served.until(|event| matches!(event, Event::Read { .. })).pop();
        assert_eq!(read, Some(Event::Read { node: 3, batches }), "readers see what goes around their cache");
        drop(served);
        let fs = RealFs::open(dir.path(), writes).unwrap();
        let (_, found) = LogFiles::open(fs.clone(), UUID, options).unwrap();
        check_chain(&found);
        assert_eq!((found.end, found.clean, found.copied), (last, true, 0), "it was ended in order");
        assert_eq!(VoteFile::open(fs, UUID).unwrap().1, Found::Vote(given[1]));
    }
}

#[test]
fn what_was_told_to_be_durable_survives_the_power() {
    let fs = SimFs::new();
    let mut served = Loop::start(fs.clone(), SMALL);
    for seed in 0..20 {
        served.submit(700);
        served.thread.flush();
        let end = served.end;
        served.until(|event| *event == durable(end));
        let (_, found) = LogFiles::open(fs.copy_after_crash(seed), UUID, SMALL).unwrap();
        assert_eq!(found.end, end);
    }
}

#[test]
fn more_turns_than_the_channel_holds_all_arrive() {
    let mut served = Loop::start(SimFs::new(), Options { segment_bytes: 4 * 1024 * 1024, ..SMALL });
    for _ in 0..1_000 {
        served.submit(50);
        served.thread.flush();
    }
    let end = served.end;
    let groups = served.until(|event| *event == durable(end));
    assert!(groups.len() <= 1_000);
    let told = groups.iter().filter_map(|event| if let Event::Durable { seq, .. } = event { Some(seq) } else { None });
    assert!(told.is_sorted_by(|one, next| one < next));
}

#[test]
fn an_idle_log_is_closed() {
    let fs = SimFs::new();
    let mut served = Loop::start(fs.clone(), SMALL);
    served.submit(50);
    served.thread.flush();
    let end = served.end;
    served.until(|event| *event == durable(end));
    let deadline = Instant::now() + PATIENCE;
    while !LogFiles::open(fs.copy(), UUID, SMALL).is_ok_and(|(_, found)| found.end == end && found.clean) {
        assert!(Instant::now() < deadline, "it is never closed");
        std::thread::yield_now();
    }
}

#[test]
fn reads_are_answered_beside_the_writes() {
    let mut served = Loop::start(SimFs::new(), SMALL);
    let batches: Vec<Batch> = (0..10).map(|_| served.submit(200)).collect();
    served.thread.flush();
    let end = served.end;
    served.until(|event| *event == durable(end));
    assert!(served.thread.read(3, 6, 9));
    assert!(served.thread.read(4, 100, 120));
    let is_read = |event: &Event| matches!(event, Event::Read { .. });
    let first = served.until(is_read).pop();
    assert_eq!(first, Some(Event::Read { node: 3, batches: batches[2..5].to_vec() }));
    assert_eq!(served.until(is_read).pop(), Some(Event::Read { node: 4, batches: Vec::new() }));
}

#[test]
fn a_failed_sync_is_told_once_and_nothing_after_it() {
    let fs = SimFs::new();
    let mut served = Loop::start(fs.clone(), SMALL);
    served.submit(50);
    served.thread.flush();
    let end = served.end;
    served.until(|event| *event == durable(end));
    // Whichever sync comes next: that of the group, or one made while idle.
    fs.fail_sync_after(0);
    served.submit(50);
    served.thread.flush();
    let failed = loop {
        match served.next() {
            Ok(event) => assert_ne!(event, durable(served.end), "it was not synced"),
            Err(error) => break error,
        }
    };
    assert!(matches!(failed, Error::Log(LogError::Io(_))), "{failed}");
    drop(served.submit(50));
    served.thread.flush();
    let deadline = Instant::now() + PATIENCE;
    while !matches!(served.thread.poll(), Err(Error::Ended)) {
        assert!(Instant::now() < deadline, "it goes on");
    }
}

#[test]
fn a_full_disk_is_told_and_what_waits_is_written_when_there_is_room() {
    let fs = SimFs::new();
    let mut served = Loop::start(fs.clone(), SMALL);
    fs.set_budget(Some(4 * 64 * 1024));
    // More than fits: the last of it waits.
    for _ in 0..60 {
        served.submit(2_500);
        served.thread.flush();
    }
    let told = served.until(|event| *event == Event::Full(true));
    let last =
        told.iter().rev().find_map(|event| if let Event::Durable { seq, .. } = event { Some(*seq) } else { None });
    served.thread.submit_cut(last.expect("something fitted"));
    for _ in 0..60 {
        served.submit(2_500);
        served.thread.flush();
    }
    let end = served.end;
    let mut seen = Vec::new();
    while seen.last() != Some(&durable(end)) {
        let event = served.next().expect("a good disk");
        if let Event::Durable { seq, .. } = event {
            // What is durable is in a snapshot now.
            served.thread.submit_cut(seq);
            served.thread.flush();
        }
        seen.push(event);
    }
    if !seen.contains(&Event::Full(false)) {
        served.until(|event| *event == Event::Full(false));
    }
}

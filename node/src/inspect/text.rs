//! Reports for people.

use std::fmt::{self, Display, Formatter};

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use pygmy_proto::message::Epoch;

use super::directory::Directory;
use super::segment::{Record, Segment};
use super::vote::VoteCopies;
use super::{Contents, Finding, Report, Severity};
use crate::snapshot::examine::{LedgerView, SnapshotView};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.path, self.headline())?;
        match &self.contents {
            Contents::LogSegment(segment) => write_segment(f, segment)?,
            Contents::Vote(vote) => write_vote(f, vote)?,
            Contents::Snapshot(view) => write_snapshot(f, view)?,
            Contents::Ledger(view) => write_orders(f, view)?,
            Contents::Directory(directory) => write_directory(f, directory)?,
            _ => {}
        }
        write_findings(f, "", &self.findings)
    }
}

impl Report {
    /// What it is, in a line.
    fn headline(&self) -> String {
        match &self.contents {
            Contents::LogSegment(segment) => segment_line(segment),
            Contents::Spare => format!("a segment to be used, {}", size(self.bytes)),
            Contents::Vote(vote) => match vote.promised {
                Some(promised) => format!("vote file: promised epoch {}", epoch(promised)),
                None => "vote file that cannot be read".to_owned(),
            },
            Contents::Snapshot(view) => format!(
                "snapshot of seq {}: {} books, {} sessions, {} orders in the ledger, {}",
                view.seq,
                view.books,
                view.sessions,
                view.orders,
                size(self.bytes)
            ),
            Contents::Ledger(view) => match (view.first, view.last) {
                (Some(first), Some(last)) => format!("ledger: {} orders, {first} to {last}", view.orders),
                _ => "ledger without orders".to_owned(),
            },
            Contents::Unfinished => "a snapshot that was never whole".to_owned(),
            Contents::Meta(meta) => {
                format!("directory of {} (node {}), log {}, cluster {}", meta.name, meta.node, meta.log, meta.cluster)
            }
            Contents::Cluster { id, settings, nodes } => {
                format!("cluster {id} with settings {settings}: {}", nodes.join(", "))
            }
            Contents::Lock => "locked by the process that uses the directory".to_owned(),
            Contents::Pid => "id of the process that runs, or ran".to_owned(),
            Contents::Messages => format!("what the process said, {}", size(self.bytes)),
            Contents::Directory(directory) => {
                let used = directory.used_by.map(|pid| format!(", used by process {pid}")).unwrap_or_default();
                format!("{} files, {}{used}", directory.files.len(), size(self.bytes))
            }
            Contents::Unknown => format!("unknown, {}", size(self.bytes)),
        }
    }
}

fn segment_line(segment: &Segment) -> String {
    let generation = segment.generation.map_or_else(|| "?".to_owned(), |generation| generation.to_string());
    let seqs = match (segment.first_seq, segment.last_seq) {
        (Some(first), Some(last)) => format!("seq {first} to {last} in {} batches", segment.batches),
        _ => "no batches".to_owned(),
    };
    format!("log segment {generation}: {seqs}, {} used, {} free", size(segment.used_bytes), size(segment.free_bytes))
}

fn write_segment(f: &mut Formatter<'_>, segment: &Segment) -> fmt::Result {
    if let Some(log) = &segment.log {
        let stable = segment.stable.as_deref().unwrap_or("nothing");
        let closed = if segment.closed { "closed" } else { "not closed" };
        let (records, entries) = (segment.records, segment.entries);
        writeln!(f, "  log {log}, {records} records, {entries} entries, synced before {stable}, {closed}")?;
    }
    if segment.items.is_empty() {
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(["at", "type", "bytes", "submitted", "stable", "behind", "seqs", "epoch", "origin", "says"]);
    for record in &segment.items {
        add_record(&mut table, record);
    }
    writeln!(f, "{table}")
}

fn add_record(table: &mut Table, record: &Record) {
    let owed = record.owed.map(|(at, seq)| format!("owes seq {seq} of {}", epoch(at))).unwrap_or_default();
    let mut row = vec![
        record.at.to_string(),
        record.kind.to_owned(),
        record.bytes.to_string(),
        epoch(record.submitted_in),
        record.stable.clone(),
        record.behind.to_string(),
    ];
    match &record.batch {
        None => row.extend([String::new(), String::new(), String::new(), owed]),
        Some(batch) => {
            let hash = format!("hash {}", &batch.hash);
            row.extend([
                format!("{}..{}", batch.first_seq, batch.last_seq),
                epoch(batch.epoch),
                batch.origin.to_string(),
                hash,
            ]);
        }
    }
    table.add_row(row);
    for entry in record.batch.iter().flat_map(|batch| &batch.entries) {
        let request = entry.request.map(|(session, counter)| format!("{session}:{counter} ")).unwrap_or_default();
        let says = format!("{request}{}", entry.says);
        let blank = String::new;
        table.add_row([
            blank(),
            entry.kind.to_owned(),
            blank(),
            blank(),
            blank(),
            blank(),
            entry.seq.to_string(),
            blank(),
            blank(),
            says,
        ]);
    }
}

fn write_vote(f: &mut Formatter<'_>, vote: &VoteCopies) -> fmt::Result {
    if let (Some(log), Some(cut)) = (&vote.log, vote.cut) {
        writeln!(f, "  log {log}, last cut at the installation of epoch {}", epoch(cut))?;
    }
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(["slot", "generation", "promised", "state"]);
    for copy in &vote.copies {
        let generation = copy.generation.map(|generation| generation.to_string()).unwrap_or_default();
        let promised = copy.promised.map(epoch).unwrap_or_default();
        let state = copy.error.clone().unwrap_or_else(|| "whole".to_owned());
        table.add_row([copy.slot.to_string(), generation, promised, state]);
    }
    writeln!(f, "{table}")
}

fn write_snapshot(f: &mut Formatter<'_>, view: &SnapshotView) -> fmt::Result {
    let (id, voters) = &view.configuration;
    let voters: Vec<String> = voters.iter().map(u16::to_string).collect();
    writeln!(f, "  epoch {}, hash {}, state {}", epoch(view.epoch), view.hash, view.state_hash)?;
    writeln!(f, "  configuration {id}: voters {}", voters.join(", "))?;
    for (name, len) in &view.ledger {
        writeln!(f, "  orders in {name}, up to byte {len}")?;
    }
    Ok(())
}

fn write_orders(f: &mut Formatter<'_>, view: &LedgerView) -> fmt::Result {
    for order in &view.items {
        let lines: Vec<String> = order.lines.iter().map(|line| format!("{}:{}", line.book, line.copies)).collect();
        writeln!(f, "  order {}: {}, total {}c", order.number, lines.join(" "), order.total_cents)?;
    }
    Ok(())
}

fn write_directory(f: &mut Formatter<'_>, directory: &Directory) -> fmt::Result {
    for file in &directory.files {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        writeln!(f, "  {name}: {}", file.headline())?;
        if let Contents::Directory(inner) = &file.contents {
            write_log(f, "    ", inner)?;
            for file in &inner.files {
                let name = file.path.rsplit('/').next().unwrap_or(&file.path);
                writeln!(f, "    {name}: {}", file.headline())?;
                write_findings(f, "    ", &file.findings)?;
            }
        }
        write_findings(f, "  ", &file.findings)?;
    }
    write_log(f, "  ", directory)
}

fn write_log(f: &mut Formatter<'_>, indent: &str, directory: &Directory) -> fmt::Result {
    let Some(log) = &directory.log else { return Ok(()) };
    let ended = if log.closed { "ended in order" } else { "not ended in order" };
    let last = epoch(log.epoch);
    writeln!(f, "{indent}the log: seq {} to {} of epoch {last}, {ended}", log.behind + 1, log.last_seq)
}

fn write_findings(f: &mut Formatter<'_>, indent: &str, findings: &[Finding]) -> fmt::Result {
    for finding in findings {
        let severity = match finding.severity {
            Severity::Note => "note",
            Severity::Damage => "DAMAGE",
        };
        writeln!(f, "{indent}  {severity}: {}", finding.what)?;
    }
    Ok(())
}

fn epoch(epoch: Epoch) -> String {
    format!("{}.{}", epoch.counter, epoch.node)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=9_999_999 => format!("{} KiB", bytes / 1_024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

//! Book lists into the store and out of it.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::Receiver;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use pygmy_client::{Command, Completion, Error, Pipelined, Reply, Request};
use pygmy_proto::inventory::{self, Format, ReadError, Writer};
use pygmy_proto::limits::PUT_BOOKS_MAX;
use pygmy_proto::message::{NewBook, Outcome};
use pygmy_proto::types::Bounded;
use serde::Serialize;

use super::args::{Export, Global, Import};
use super::failure::Failure;
use super::keeper::Keeper;
use super::output::Output;
use super::reads::plural;
use super::target::Target;

/// Batches of books on their way at once: enough to keep the store busy, and some 4 MB.
const PUTS_IN_FLIGHT_MAX: usize = 64;
/// Batches wait for those before them, so that unless the user says otherwise each has more time than a lone request.
const PUT_TIMEOUT: Duration = Duration::from_secs(60);
/// Books from which on an import is long enough for a progress bar.
const PROGRESS_BOOKS_MIN: usize = 10_000;

/// What an import has done so far.
#[derive(Debug, Default, Serialize)]
struct Tally {
    books: u64,
    added: u64,
    changed: u64,
    unchanged: u64,
}

/// What an export to a file has done.
#[derive(Debug, Serialize)]
struct Written {
    books: u64,
    file: String,
}

pub(super) fn import(import: &Import, global: &Global, target: &Target, output: &mut Output) -> Result<(), Failure> {
    let books = read_list(import)?;
    let of = books.len() as u64;
    let progress = progress(books.len(), global.json);
    let mut tally = Tally::default();
    let result = put_all(books, global, target, &mut tally, &progress);
    progress.finish_and_clear();
    result.map_err(|error| Failure::Import { done: tally.books, of, error: Box::new(error) })?;
    if output.is_json() {
        return output.object(&tally);
    }
    let Tally { books, added, changed, unchanged } = tally;
    let noun = plural(books, "book", "books");
    output.line(format!("{books} {noun}: {added} added, {changed} changed, {unchanged} unchanged"))
}

/// Reads and checks the whole list.
fn read_list(import: &Import) -> Result<Vec<NewBook>, Failure> {
    let is_stdin = import.file.as_os_str() == "-";
    let file = if is_stdin { PathBuf::from("standard input") } else { import.file.clone() };
    let read = if is_stdin {
        inventory::read(io::stdin().lock(), import.format)
    } else {
        let format = import.format.or_else(|| Format::of_path(&import.file));
        File::open(&import.file).map_err(ReadError::from).and_then(|opened| inventory::read(opened, format))
    };
    read.map_err(|error| match error {
        ReadError::Io(error) => Failure::File { what: format!("cannot read {}", file.display()), error },
        ReadError::Inventory(error) => Failure::Inventory { file, error },
    })
}

fn progress(books: usize, is_json: bool) -> ProgressBar {
    if books < PROGRESS_BOOKS_MIN || is_json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} books, {rate}, {eta} left");
    let bar = ProgressBar::new(books as u64);
    let Ok(style) = style else { return bar };
    bar.with_style(style.with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
        // The bar is an ornament: what cannot be drawn is left out.
        let _ = write!(out, "{:.0} a second", state.per_sec());
    }))
}

/// Writes all books, many batches at a time. Books are put as they should be, so that repeating it is harmless.
fn put_all(
    books: Vec<NewBook>,
    global: &Global,
    target: &Target,
    tally: &mut Tally,
    progress: &ProgressBar,
) -> Result<(), Error> {
    let mut options = target.options(&target.addresses_in_turn());
    options.in_flight_max = PUTS_IN_FLIGHT_MAX;
    let client = Pipelined::start(options, 1).map_err(|_| Error::Closed)?;
    let timeout = global.timeout.unwrap_or(PUT_TIMEOUT);
    let (ended, ends) = crossbeam_channel::unbounded();
    let mut sent = 0;
    let mut ended_count = 0;
    let mut books = books.into_iter();
    let result = loop {
        let batch: Vec<NewBook> = books.by_ref().take(PUT_BOOKS_MAX).collect();
        if batch.is_empty() {
            break collect(&ends, sent - ended_count, tally, progress);
        }
        let command = Command::Put { books: Bounded::truncated(batch) };
        if let Err(error) = client.submit_to(Request::Write(command), timeout, sent, &ended) {
            break Err(error);
        }
        sent += 1;
        let now = ends.len() as u64;
        ended_count += now;
        if let Err(error) = collect(&ends, now, tally, progress) {
            break Err(error);
        }
    };
    // After a failure what is on its way still counts.
    client.close(if result.is_ok() { timeout } else { global.timeout() });
    for (_, completion) in ends.try_iter() {
        drop(count(completion, tally, progress));
    }
    result
}

/// Takes `count` ends; the first that is no success ends it.
fn collect(
    ends: &Receiver<(u64, Completion)>,
    ends_count: u64,
    tally: &mut Tally,
    progress: &ProgressBar,
) -> Result<(), Error> {
    for _ in 0..ends_count {
        let (_, completion) = ends.recv().map_err(|_| Error::Closed)?;
        count(completion, tally, progress)?;
    }
    Ok(())
}

fn count(completion: Completion, tally: &mut Tally, progress: &ProgressBar) -> Result<(), Error> {
    if let Reply::Written(done) = completion.result?
        && let Outcome::Put { added, changed, unchanged } = done.outcome
    {
        tally.added += u64::from(added);
        tally.changed += u64::from(changed);
        tally.unchanged += u64::from(unchanged);
        tally.books = tally.added + tally.changed + tally.unchanged;
        progress.set_position(tally.books);
    }
    Ok(())
}

pub(super) fn export(export: &Export, global: &Global, target: &Target, output: &mut Output) -> Result<(), Failure> {
    let by_name = export.file.as_deref().and_then(Format::of_path);
    let format = export.format.or(by_name).unwrap_or(if global.json { Format::JsonLines } else { Format::Csv });
    if format == Format::Original {
        return Err(Failure::Usage("the original format has no cents; export csv or jsonl".to_owned()));
    }
    match &export.file {
        None => write_list(output.stream(), "standard output", format, global, target).map(|_| ()),
        Some(path) => {
            let books = to_file(path, format, global, target)?;
            if output.is_json() {
                return output.object(&Written { books, file: path.display().to_string() });
            }
            let noun = plural(books, "book", "books");
            output.line(format!("{books} {noun} written to {}", path.display()))
        }
    }
}

/// Writes all books; how many.
fn write_list(out: impl Write, what: &str, format: Format, global: &Global, target: &Target) -> Result<u64, Failure> {
    let writing = |error| Failure::writing(what, error);
    let mut client = target.client(global);
    let keeper = Keeper::new(target.cluster_id(&mut client)?, !global.no_session, global.json);
    keeper.before_reads(&mut client);
    let mut writer = Writer::new(out, format).map_err(writing)?;
    let mut books = 0;
    for book in client.books_all() {
        writer.write(&book?).map_err(writing)?;
        books += 1;
    }
    writer.finish().map_err(writing)?;
    keeper.after_reads(&client);
    Ok(books)
}

/// Writes all books to a file, which is replaced only by a complete list. What is no file, such as a pipe, is written
/// to as it is.
fn to_file(path: &Path, format: Format, global: &Global, target: &Target) -> Result<u64, Failure> {
    let what = path.display().to_string();
    let creating = |error| Failure::writing(&what, error);
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let file = File::options().write(true).open(path).map_err(creating)?;
        return write_list(BufWriter::new(file), &what, format, global, target);
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let file = File::create(&temporary).map_err(creating)?;
    let written = write_list(BufWriter::new(&file), &what, format, global, target);
    let written = written.and_then(|books| {
        file.sync_all().and_then(|()| fs::rename(&temporary, path)).map(|()| books).map_err(creating)
    });
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
    written
}

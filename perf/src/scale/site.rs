//! Clusters that are measured in turn: each has its files, and only one of them runs at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use pygmy_proto::message::NewBook;
use pygmy_proto::{BookId, Title, Topic};

use super::args::ScaleArgs;
use crate::ask::Asker;
use crate::error::Error;
use crate::load::mix::{Books, Popularity};
use crate::local::{Local, Running};
use crate::shelf;
use crate::target::Target;

/// Copies of each book, so that no buy is refused.
const STOCK: u32 = 1_000_000_000;
/// Price of a book that is brought in.
const COST_CENTS: u64 = 1_000;
/// Books of a topic.
const BOOKS_PER_TOPIC: u64 = 1_000;

/// A cluster for one value, or for all of them.
struct Site {
    local: Local,
    shape: Vec<String>,
    books_wanted: u64,
    /// What is in its store, once it was started.
    books: Option<Arc<Books>>,
}

/// All clusters.
pub(super) struct Sites {
    all: Vec<Site>,
    /// The one that runs.
    running: Option<(usize, Running)>,
    seed: u64,
    /// Books that were brought in and the seconds that took, for each cluster.
    pub(super) brought_in: Vec<(u64, f64)>,
}

/// What is measured.
pub(super) struct Store {
    pub(super) target: Target,
    pub(super) books: Arc<Books>,
}

impl Sites {
    /// A cluster for each value where each needs its own, else one; none of them is made yet.
    pub(super) fn new(args: &ScaleArgs, dir: &std::path::Path, values: &[u64]) -> Self {
        let site = |(place, value): (usize, &u64)| Site {
            local: Local::new(args.program.find(), dir.join(format!("cluster-{place}"))),
            shape: args.shape_at(*value),
            books_wanted: args.books_at(*value),
            books: None,
        };
        let count = if args.over.needs_clusters() { values.len() } else { 1 };
        let all = values.iter().enumerate().take(count).map(site).collect();
        Self { all, running: None, seed: args.seed, brought_in: Vec::new() }
    }

    /// The cluster of the value at a place, running and filled. Another one that ran is stopped.
    ///
    /// # Errors
    /// When it does not start, or its books cannot be brought in.
    pub(super) fn open(&mut self, place: usize) -> Result<Store, Error> {
        let place = place.min(self.all.len().saturating_sub(1));
        let site = self.all.get_mut(place).ok_or_else(|| Error::Usage("there is no value to measure".into()))?;
        if self.running.as_ref().is_none_or(|(running, _)| *running != place) {
            // Before the other begins: two would be measured together.
            self.running = None;
            // Whatever comes of the start, it is stopped: some of its servers may run.
            self.running = Some((place, Running(site.local.clone())));
            match site.books {
                None => site.local.up_with(&site.shape.iter().map(String::as_str).collect::<Vec<_>>())?,
                Some(_) => site.local.up_again()?,
            }
        }
        let target = site.local.target()?;
        let books = match &site.books {
            Some(books) => books.clone(),
            None => {
                let mut asker = Asker::connect(target.fronts()[0])?;
                let begun = Instant::now();
                fill(&mut asker, site.books_wanted)?;
                self.brought_in.push((site.books_wanted, begun.elapsed().as_secs_f64()));
                let shelf = shelf::read(&mut asker, 0)?.books;
                let books = Books::new(&shelf, &Popularity::Uniform, self.seed).map_err(Error::Usage)?;
                site.books.insert(Arc::new(books)).clone()
            }
        };
        Ok(Store { target, books })
    }
}

/// Brings in what is missing to so many books, and fills the shelves.
fn fill(asker: &mut Asker, wanted: u64) -> Result<(), Error> {
    let born = shelf::read(asker, 0)?.books;
    shelf::fill(asker, &born, STOCK)?;
    let count = wanted.saturating_sub(born.len() as u64);
    // Not all at once: a million of them take half a gigabyte.
    const AT_ONCE: u64 = 50_000;
    for first in (0..count).step_by(AT_ONCE as usize) {
        let books = (first..count.min(first + AT_ONCE)).map(book).collect::<Result<Vec<_>, _>>()?;
        shelf::put(asker, &books)?;
    }
    Ok(())
}

/// The book with a number, as long as books are.
fn book(number: u64) -> Result<NewBook, Error> {
    let id = BookId::new(&format!("scale-{number:07}")).map_err(|error| Error::Usage(error.to_string()))?;
    let topic = Topic::truncated(&format!("shelf {}", number / BOOKS_PER_TOPIC));
    let title = Title::truncated(&format!("The book that stands at place {number} of a long shelf"));
    Ok(NewBook { id, title, topic, cost_cents: COST_CENTS, stock: STOCK })
}

/// A directory that is removed whatever happens.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    /// The directory that was asked for, or one of its own.
    ///
    /// # Errors
    /// When it is there already: nobody's files are removed.
    pub(super) fn new(wanted: Option<&PathBuf>) -> Result<Self, Error> {
        let own = || std::env::temp_dir().join(format!("pygmy-scale-{}", std::process::id()));
        let dir = wanted.cloned().unwrap_or_else(own);
        std::fs::create_dir(&dir).map_err(Error::io(dir.display().to_string()))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is in the directory for temporary files, or where it was wanted.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_differ_and_may_be_brought_in() {
        let books: Vec<NewBook> = [0, 1, 999_999, 9_999_999].map(|number| book(number).unwrap()).into();
        assert_eq!(books[2].id.to_string(), "scale-0999999");
        let ids: std::collections::BTreeSet<_> = books.iter().map(|book| book.id).collect();
        assert_eq!(ids.len(), books.len());
        assert_ne!(books[0].topic, books[2].topic);
    }

    #[test]
    fn a_scratch_directory_is_gone_afterwards_and_never_somebody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        let scratch = Scratch::new(Some(&own)).unwrap();
        std::fs::write(own.join("file"), "x").unwrap();
        assert!(Scratch::new(Some(&own)).is_err());
        drop(scratch);
        assert!(!own.exists());
    }
}

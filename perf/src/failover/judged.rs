//! Work on a cluster under a load of which everything that was asked and answered is kept, and judged afterwards.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::clients::Shared;
use super::cluster::Watched;
use super::{poisoned, under};
use crate::error::Error;
use crate::history::judge::Judgement;
use crate::history::{History, file};
use crate::replicas;

/// What was kept, and what the checkers say of it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) judgement: Judgement,
    /// Where it is kept.
    pub(super) history: Option<PathBuf>,
}

/// Does the work while the load runs, and judges what the load saw. The history is kept in `out` whatever happens.
///
/// # Errors
/// When the work fails, or a replica cannot be asked what it holds.
pub(super) fn judged<'a, R>(
    out: Option<&Path>,
    watched: &mut Watched<'a>,
    shared: &Shared,
    load: impl FnOnce(&AtomicBool) + Send,
    work: impl FnOnce(&mut Watched<'a>) -> Result<R, Error>,
) -> Result<(R, Judged), Error> {
    watched.wait_health()?;
    // All of it before: nobody else may write while a history is kept.
    watched.stock_for_long()?;
    let (initial, after) = replicas::read_initial(&watched.target)?;
    shared.seen.lock().map_err(|_| poisoned())?.history = Some(Vec::new());
    let (done, ()) = under(load, || work(watched))?;
    let operations = shared.seen.lock().map_err(|_| poisoned())?.history.take().unwrap_or_default();
    let mut history = History { initial, operations, replicas: Vec::new() };
    let look = |done| {
        // Who came back last may still be reading its files.
        watched.wait_health()?;
        Ok((done, replicas::look(&watched.target, after, &history.operations)?))
    };
    // Kept even where something went wrong: it may be what tells why.
    let looked: Result<_, Error> = done.and_then(look);
    let (done, kept) = match looked {
        Ok((done, replicas)) => {
            history.replicas = replicas;
            (Ok(done), keep(out, &history))
        }
        Err(error) => (Err(error), keep(out, &history)),
    };
    Ok((done?, Judged { history: kept?, judgement: Judgement::new(&history) }))
}

/// Writes the history where it is wanted.
fn keep(out: Option<&Path>, history: &History) -> Result<Option<PathBuf>, Error> {
    let Some(dir) = out else { return Ok(None) };
    let path = dir.join("history.jsonl");
    let io = || Error::io(path.display().to_string());
    std::fs::create_dir_all(dir).map_err(io())?;
    file::write(history, BufWriter::new(File::create(&path).map_err(io())?)).map_err(io())?;
    Ok(Some(path))
}

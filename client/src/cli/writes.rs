//! Commands that change the store.

use pygmy_client::{Cause, Causes, Error, ErrorBody, ErrorCode, Written};
use pygmy_proto::message::Outcome;

use super::args::{Global, Identity, Write};
use super::failure::Failure;
use super::interrupt::Interrupts;
use super::keeper::{Attempt, Keeper};
use super::output::{Output, money};
use super::reads::{receipt, sheet};
use super::target::Target;
use super::trace;
use super::unsettled::{again, words};

pub(super) fn run(write: &Write, global: &Global, target: &Target, output: &mut Output) -> Result<(), Failure> {
    let (command, settle) = write.command().map_err(Failure::Usage)?;
    // What no store would take is refused before a session is registered or a counter taken for it.
    command.check().map_err(Error::InvalidInput)?;
    let mut client = target.client(global);
    let cluster = target.cluster_id(&mut client)?;
    let keeper = Keeper::new(cluster, !global.no_session, global.json);
    let (words, is_json) = (words(), global.json);
    let interrupts = {
        let words = words.clone();
        Interrupts::start(move |(session, counter)| {
            let error = Error::OutcomeUnknown { session, counter, causes: Causes::default() };
            let failure = unknown(error, Identity { cluster, session, counter }, &words);
            failure.print(is_json);
            failure.exit_code()
        })
    };
    let mut attempt = match settle {
        Some(id) => keeper.settle(&mut client, id, command, &interrupts)?,
        None => keeper.write(&mut client, command, &words, &interrupts)?,
    };
    if global.trace {
        trace::print(client.last(), target, global.json);
    }
    let told = tell(&attempt, cluster, &words, output);
    if is_settled(&attempt, &told, settle.is_some()) {
        attempt.finish(&client);
    }
    told
}

/// Prints what came of a write.
fn tell(attempt: &Attempt, cluster: [u8; 16], words: &[String], output: &mut Output) -> Result<(), Failure> {
    let done = match &attempt.result {
        Ok(done) => done,
        Err(error) => {
            return Err(match *error {
                Error::OutcomeUnknown { session, counter, .. } => {
                    unknown(error.clone(), Identity { cluster, session, counter }, words)
                }
                _ => error.clone().into(),
            });
        }
    };
    let printed = if output.is_json() { output.object(done) } else { output.line(text(done, output.width())) };
    match printed.and_then(|()| output.flush()) {
        Err(Failure::File { error, .. }) => {
            let id = Identity { cluster, session: done.session, counter: done.counter };
            let settle = again(words, id);
            Err(Failure::Unprinted {
                done: Box::new(done.clone()),
                text: text(done, None),
                identity: id,
                settle,
                error,
            })
        }
        other => other,
    }
}

/// Whether a write needs no more attention: its outcome has been told, or nobody will ever know it.
fn is_settled(attempt: &Attempt, told: &Result<(), Failure>, is_repeated: bool) -> bool {
    match (&attempt.result, told) {
        (_, Err(Failure::Unknown { settle, .. })) => settle.is_none(),
        (_, Err(Failure::Unprinted { .. })) => false,
        // It was another command that bears the identity, and its outcome is as unknown as before.
        (Err(Error::Refused(refusal)), _) if is_repeated => refusal.known_code() != Some(ErrorCode::IdReused),
        // Not even sent again.
        (Err(Error::Unreachable { .. }), _) => !is_repeated,
        _ => true,
    }
}

fn unknown(error: Error, id: Identity, words: &[String]) -> Failure {
    let is_forgotten = matches!(&error, Error::OutcomeUnknown { causes, .. } if is_forgotten(causes));
    let settle = (!is_forgotten).then(|| again(words, id));
    Failure::Unknown { error: Box::new(error), identity: id, settle }
}

fn text(done: &Written, width: Option<u16>) -> String {
    match &done.outcome {
        Outcome::Bought { order } => format!("bought: {}", receipt(order, width)),
        Outcome::Restocked { book } => format!("restocked\n{}", sheet(book, width)),
        Outcome::Repriced { book, old_cost_cents } => {
            format!("repriced from {} to {}\n{}", money(*old_cost_cents), money(book.cost_cents), sheet(book, width))
        }
        Outcome::Added { book } => format!("added\n{}", sheet(book, width)),
        Outcome::Retired { book } => format!("retired\n{}", sheet(book, width)),
        Outcome::Put { added, changed, unchanged } => {
            format!("{added} added, {changed} changed, {unchanged} unchanged")
        }
    }
}

/// Whether asking again would only be told that nobody knows.
fn is_forgotten(causes: &Causes) -> bool {
    let is_expired = |error: &ErrorBody| error.known_code() == Some(ErrorCode::SessionExpired);
    causes.0.iter().any(|(_, cause)| matches!(cause, Cause::Refused(error) if is_expired(error)))
}

//! Commands that change the store.

use pygmy_client::{Cause, Causes, Error, ErrorBody, ErrorCode, Written};
use pygmy_proto::message::Outcome;

use super::args::{Global, Write};
use super::failure::Failure;
use super::keeper::Keeper;
use super::output::{Output, money};
use super::reads::{receipt, sheet};
use super::target::Target;
use super::trace;

pub(super) fn run(write: &Write, global: &Global, target: &Target, output: &mut Output) -> Result<(), Failure> {
    let (command, settle) = write.command().map_err(Failure::Usage)?;
    // What no store would take is refused before a session is registered or a counter taken for it.
    command.check().map_err(Error::InvalidInput)?;
    let mut client = target.client(global);
    let keeper = Keeper::new(target.cluster_id(&mut client)?, !global.no_session);
    let result = match settle {
        Some(id) => keeper.settle(&mut client, id, command),
        None => keeper.write(&mut client, command),
    };
    if global.trace {
        trace::print(client.last(), target, global.json);
    }
    let done = result.map_err(|error| match error {
        Error::OutcomeUnknown { session, counter, ref causes } => {
            let settle = (!is_forgotten(causes)).then(|| again(std::env::args(), session, counter));
            Failure::Unknown { error: Box::new(error), settle }
        }
        other => other.into(),
    })?;
    if output.is_json() { output.object(&done) } else { output.line(text(&done)) }
}

fn text(done: &Written) -> String {
    match &done.outcome {
        Outcome::Bought { order } => format!("bought: {}", receipt(order)),
        Outcome::Restocked { book } => format!("restocked\n{}", sheet(book)),
        Outcome::Repriced { book, old_cost_cents } => {
            format!("repriced from {}\n{}", money(*old_cost_cents), sheet(book))
        }
        Outcome::Added { book } => format!("added\n{}", sheet(book)),
        Outcome::Retired { book } => format!("retired\n{}", sheet(book)),
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

/// The command line that repeats this one under the identity of its write, ready to be pasted into a shell.
fn again(args: impl Iterator<Item = String>, session: u64, counter: u64) -> String {
    let mut words = Vec::new();
    let mut is_old_identity = false;
    for arg in args {
        if std::mem::take(&mut is_old_identity) || arg.starts_with("--settle=") {
            continue;
        }
        is_old_identity = arg == "--settle";
        if !is_old_identity {
            words.push(quoted(arg));
        }
    }
    words.push(format!("--settle {session}:{counter}"));
    words.join(" ")
}

fn quoted(word: String) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_settles_can_be_pasted() {
        let line = |args: &[&str]| again(args.iter().map(|arg| (*arg).to_owned()), 17, 3);
        assert_eq!(line(&["pygmy", "buy", "a:2"]), "pygmy buy a:2 --settle 17:3");
        assert_eq!(line(&["pygmy", "buy", "a", "--settle", "17:3"]), "pygmy buy a --settle 17:3");
        assert_eq!(line(&["pygmy", "buy", "--settle=17:3", "a"]), "pygmy buy a --settle 17:3");
        assert_eq!(
            line(&["pygmy", "add", "--title", "Don't; rm $HOME", ""]),
            r"pygmy add --title 'Don'\''t; rm $HOME' '' --settle 17:3"
        );
    }
}

//! Writes whose outcome nobody has been told.

use std::io::{self, Write as _};

use serde::Serialize;

use super::args::{Global, Identity};
use super::failure::Failure;
use super::keeper::Keeper;
use super::output::Output;
use super::reads::plural;
use super::state::Unsettled;
use super::target::Target;

/// Writes that a command reminds of; the rest is counted.
const REMINDED_MAX: usize = 3;

/// An unsettled write as JSON.
#[derive(Serialize)]
struct Object {
    notice: &'static str,
    identity: String,
    session: u64,
    counter: u64,
    settle: String,
}

impl Object {
    fn new(write: &Unsettled, cluster: [u8; 16]) -> Self {
        let id = identity(write, cluster);
        let settle = again(&write.command, id);
        Self { notice: "unsettled", identity: id.to_string(), session: id.session, counter: id.counter, settle }
    }
}

pub(super) fn run(
    forget: Option<Identity>,
    global: &Global,
    target: &Target,
    output: &mut Output,
) -> Result<(), Failure> {
    let cluster = target.cluster_id(&mut target.client(global))?;
    let keeper = Keeper::new(cluster, !global.no_session, global.json);
    if let Some(id) = forget {
        return match keeper.forget(id) {
            Some(true) if output.is_json() => Ok(()),
            Some(true) => output.line(format!("{id} is forgotten; if it was not done yet, it never will be")),
            Some(false) => Err(Failure::Identity(format!("{id} is not unsettled"))),
            None => Err(Failure::Identity("another command is using the session's file; try again".to_owned())),
        };
    }
    let writes = keeper.unsettled();
    for write in &writes {
        let object = Object::new(write, cluster);
        if output.is_json() {
            output.object(&object)?;
        } else {
            output.line(format!("{}\n  {}", object.identity, object.settle))?;
        }
    }
    let count = writes.len();
    let noun = plural(count as u64, "write", "writes");
    if output.is_json() { Ok(()) } else { output.line(format!("{count} unsettled {noun}")) }
}

/// Says on standard error that there are unsettled writes, and how to settle them.
pub(super) fn remind(writes: &[Unsettled], cluster: [u8; 16], is_json: bool) {
    let mut text = String::new();
    for write in writes.iter().take(REMINDED_MAX) {
        let object = Object::new(write, cluster);
        text += &if is_json {
            serde_json::to_string(&object).unwrap_or_default() + "\n"
        } else {
            format!("pygmy: the outcome of an earlier write is unknown; settle it with:\n  {}\n", object.settle)
        };
    }
    if writes.len() > REMINDED_MAX && !is_json {
        text += &format!("pygmy: and {} more; `pygmy unsettled` lists them\n", writes.len() - REMINDED_MAX);
    }
    // A reminder is an extra: a closed standard error must not keep the command from being done.
    drop(io::stderr().lock().write_all(text.as_bytes()));
}

fn identity(write: &Unsettled, cluster: [u8; 16]) -> Identity {
    Identity { cluster, session: write.session, counter: write.counter }
}

/// The words of this process's command line.
pub(super) fn words() -> Vec<String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The command line that repeats `words` under the identity of their write, ready to be pasted into a shell.
pub(super) fn again(words: &[String], id: Identity) -> String {
    let mut line = Vec::new();
    let mut is_old_identity = false;
    for word in words {
        if std::mem::take(&mut is_old_identity) || word.starts_with("--settle=") {
            continue;
        }
        is_old_identity = word == "--settle";
        if !is_old_identity {
            line.push(quoted(word));
        }
    }
    line.push(format!("--settle {id}"));
    line.join(" ")
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_settles_can_be_pasted() {
        let id = Identity { cluster: [0xab; 16], session: 17, counter: 3 };
        let line = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            again(&words, id).replace(&"ab".repeat(16), "C")
        };
        assert_eq!(line(&["pygmy", "buy", "a:2"]), "pygmy buy a:2 --settle C:17:3");
        assert_eq!(line(&["pygmy", "buy", "a", "--settle", "C:17:3"]), "pygmy buy a --settle C:17:3");
        assert_eq!(line(&["pygmy", "buy", "--settle=C:17:3", "a"]), "pygmy buy a --settle C:17:3");
        assert_eq!(
            line(&["pygmy", "add", "--title", "Don't; rm $HOME", ""]),
            r"pygmy add --title 'Don'\''t; rm $HOME' '' --settle C:17:3"
        );
    }
}

//! How a command fails: what is printed, and the exit code.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use pygmy_client::cluster::ClusterError;
use pygmy_client::{Cause, Causes, Error, ErrorBody, ErrorCode, Retry, Written};
use pygmy_proto::inventory::InventoryError;
use serde::Serialize;

use super::args::Identity;

const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;
const UNKNOWN: u8 = 4;

const TO_SETTLE: &str = "settle it, as often as need be, with:";
const FORGOTTEN: &str =
    "the store has forgotten this identity and will never execute it any more; `pygmy orders` shows what was bought";

/// Why a command was not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// The call failed.
    Call(Box<Error>),
    /// A write's outcome is unknown. The text is the command that settles it, unless the store has forgotten it.
    Unknown { error: Box<Error>, identity: Identity, settle: Option<String> },
    /// A write was done, and its result cannot be printed where it should.
    Unprinted { done: Box<Written>, text: String, identity: Identity, settle: String, error: io::Error },
    /// An identity that is none of a write that could be settled.
    Identity(String),
    /// Of several nodes none answered; each was listed with its cause.
    Nobody,
    /// The arguments make no sense together.
    Usage(String),
    /// The servers are not known.
    Cluster(ClusterError),
    /// A book list is wrong.
    Inventory { file: PathBuf, error: InventoryError },
    /// A file or stream does not do what it should.
    File { what: String, error: io::Error },
    /// An import stopped half-way.
    Import { done: u64, of: u64, error: Box<Error> },
    /// Whoever reads standard output has seen enough.
    BrokenPipe,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Call(Box::new(error))
    }
}

impl Failure {
    /// A failure to write `what`; a closed pipe is none.
    pub(super) fn writing(what: &str, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
            _ => Failure::File { what: format!("cannot write {what}"), error },
        }
    }

    /// Prints the failure to standard error; the exit code that goes with it.
    pub(super) fn report(&self, json: bool) -> ExitCode {
        if !matches!(self, Failure::BrokenPipe) {
            self.print(json);
        }
        ExitCode::from(self.exit_code())
    }

    /// Prints the failure to standard error.
    pub(super) fn print(&self, json: bool) {
        let text = if json {
            serde_json::to_string(&self.body()).unwrap_or_else(|_| r#"{"name":"unprintable"}"#.to_owned())
        } else {
            self.text()
        };
        // When even standard error is closed, the exit code alone must tell.
        drop(writeln!(io::stderr().lock(), "{text}"));
    }

    /// The exit code that goes with it.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Failure::BrokenPipe => 0,
            Failure::Call(error) | Failure::Unknown { error, .. } | Failure::Import { error, .. } => match **error {
                Error::Refused(_) => REFUSED,
                Error::InvalidInput(_) => USAGE,
                Error::OutcomeUnknown { .. } => UNKNOWN,
                Error::Unreachable { .. } | Error::QueueFull { .. } | Error::Closed => UNREACHABLE,
            },
            Failure::Unprinted { .. } => UNKNOWN,
            Failure::Cluster(ClusterError::Missing(_)) | Failure::Nobody => UNREACHABLE,
            Failure::Inventory { .. } | Failure::Identity(_) => REFUSED,
            Failure::Usage(_) | Failure::Cluster(_) | Failure::File { .. } => USAGE,
        }
    }

    fn text(&self) -> String {
        match self {
            Failure::Call(error) => text_of(error),
            Failure::Unknown { error, identity, settle } => {
                let causes =
                    if let Error::OutcomeUnknown { causes, .. } = &**error { lines(causes) } else { String::new() };
                let next = settle.as_ref().map_or(FORGOTTEN.to_owned(), |line| format!("{TO_SETTLE}\n  {line}"));
                format!("pygmy: the outcome of write {identity} is unknown; it may be done or not{causes}\n  {next}")
            }
            Failure::Unprinted { text, settle, .. } => {
                format!(
                    "pygmy: {}\n{text}\n  to have it printed again, which does not do it again:\n  {settle}",
                    self.detail()
                )
            }
            Failure::Import { done, of, error } => {
                format!("{}\n  {done} of {of} books were written; repeat the import to complete it", text_of(error))
            }
            _ => format!("pygmy: {}", self.detail()),
        }
    }

    fn detail(&self) -> String {
        match self {
            Failure::Call(error) | Failure::Unknown { error, .. } | Failure::Import { error, .. } => error.to_string(),
            Failure::Usage(text) | Failure::Identity(text) => text.clone(),
            Failure::Nobody => "no node answered; `pygmy-node up` starts a cluster".to_owned(),
            Failure::Unprinted { identity, error, .. } => {
                format!("write {identity} is done, but its result cannot be written to standard output: {error}")
            }
            Failure::Cluster(error) => error.to_string(),
            Failure::Inventory { file, error } => format!("{}, {error}; nothing was written", file.display()),
            Failure::File { what, error } => format!("{what}: {error}"),
            Failure::BrokenPipe => "standard output was closed".to_owned(),
        }
    }

    fn body(&self) -> Body {
        let mut body = match self {
            Failure::Call(error) | Failure::Unknown { error, .. } | Failure::Import { error, .. } => Body::of(error),
            Failure::Cluster(ClusterError::Missing(_)) | Failure::Nobody => Body::named("unreachable", Retry::Later),
            Failure::Unprinted { done, .. } => Body {
                session: Some(done.session),
                counter: Some(done.counter),
                done: Some(done.clone()),
                ..Body::named("unprinted", Retry::Settle)
            },
            Failure::Identity(_) => Body::named("wrong_identity", Retry::Never),
            Failure::Inventory { .. } => Body::named("invalid_inventory", Retry::Never),
            _ => Body::named("usage", Retry::Never),
        };
        if body.detail.is_empty() {
            body.detail = self.detail();
        }
        match self {
            Failure::Inventory { error, .. } => {
                body.line = Some(error.line);
                body.column = Some(error.column);
            }
            Failure::Unknown { identity, settle, .. } => {
                body.retry = if settle.is_some() { Retry::Settle } else { Retry::Never };
                body.identity = Some(identity.to_string());
                body.settle = settle.clone();
            }
            Failure::Unprinted { identity, settle, .. } => {
                body.identity = Some(identity.to_string());
                body.settle = Some(settle.clone());
            }
            Failure::Import { done, .. } => body.books_done = Some(*done),
            _ => {}
        }
        body
    }
}

/// A failure as JSON. Codes are those of the protocol; 0 where the protocol has none.
#[derive(Debug, Serialize)]
struct Body {
    code: u16,
    name: &'static str,
    retry: Retry,
    retry_after_ms: u32,
    limit: u64,
    actual: u64,
    subject: String,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    causes: Vec<BodyCause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counter: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<Box<Written>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    books_done: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
}

#[derive(Debug, Serialize)]
struct BodyCause {
    address: String,
    cause: String,
}

impl Body {
    fn named(name: &'static str, retry: Retry) -> Self {
        Self {
            code: 0,
            name,
            retry,
            retry_after_ms: 0,
            limit: 0,
            actual: 0,
            subject: String::new(),
            detail: String::new(),
            causes: Vec::new(),
            session: None,
            counter: None,
            identity: None,
            settle: None,
            done: None,
            books_done: None,
            line: None,
            column: None,
        }
    }

    fn of(error: &Error) -> Self {
        match error {
            Error::Refused(refusal) | Error::InvalidInput(refusal) => Self::of_refusal(refusal),
            Error::OutcomeUnknown { session, counter, causes } => Self {
                code: ErrorCode::OutcomeUnknown as u16,
                session: Some(*session),
                counter: Some(*counter),
                causes: causes_of(causes),
                ..Self::named(ErrorCode::OutcomeUnknown.name(), Retry::Settle)
            },
            Error::Unreachable { causes, .. } => {
                Self { causes: causes_of(causes), ..Self::named("unreachable", Retry::Later) }
            }
            Error::QueueFull { .. } | Error::Closed => Self::named("unreachable", Retry::Later),
        }
    }

    fn of_refusal(refusal: &ErrorBody) -> Self {
        Self {
            code: refusal.code,
            retry_after_ms: refusal.retry_after_ms,
            limit: refusal.limit,
            actual: refusal.actual,
            subject: refusal.subject.to_string(),
            detail: refusal.detail.to_string(),
            ..Self::named(refusal.known_code().map_or("unknown_code", ErrorCode::name), refusal.retry)
        }
    }
}

fn causes_of(causes: &Causes) -> Vec<BodyCause> {
    let cause = |(address, cause): &(String, Cause)| BodyCause { address: address.clone(), cause: cause.to_string() };
    causes.0.iter().map(cause).collect()
}

fn text_of(error: &Error) -> String {
    match error {
        Error::Refused(refusal) | Error::InvalidInput(refusal) if !refusal.detail.is_empty() => {
            format!("pygmy: {}{}", refusal.detail, hint(refusal))
        }
        Error::Unreachable { waited_ms, causes } => {
            let causes = lines(causes);
            format!(
                "pygmy: no server answered within {waited_ms} ms; nothing was done{causes}\n  \
                 `pygmy-node up` starts a cluster"
            )
        }
        Error::OutcomeUnknown { causes, .. } => {
            format!("pygmy: the outcome is unknown; it may be done or not{}", lines(causes))
        }
        other => format!("pygmy: {other}"),
    }
}

fn lines(causes: &Causes) -> String {
    causes.0.iter().map(|(address, cause)| format!("\n  {address}: {cause}")).collect()
}

/// The next step where the server's own sentence cannot know it: it has never heard of this program's commands.
fn hint(refusal: &ErrorBody) -> &'static str {
    match refusal.known_code() {
        Some(ErrorCode::Unsupported) => "\n  ask a front end: leave out --node",
        Some(ErrorCode::IdReused) => "\n  repeat exactly the command that the identity was reported for",
        Some(ErrorCode::Busy | ErrorCode::WindowFull) => {
            "\n  nothing was done; try again later, or with more --timeout"
        }
        _ => "",
    }
}

//! Why a run could not be done, and the exit code that says so.

use pygmy_proto::ErrorBody;

use crate::run::RunError;

/// Why a run could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for cannot be asked for.
    #[error("{0}")]
    Usage(String),
    /// A server could not be reached or stopped answering.
    #[error("{address}: {why}")]
    Unreachable {
        /// Whom it is about.
        address: String,
        /// What happened.
        why: String,
    },
    /// A server said no to something the run cannot do without.
    #[error("{address} refused: {error}")]
    Refused {
        /// Who said no.
        address: String,
        /// What it said.
        error: Box<ErrorBody>,
    },
    /// A file that was given is no run that this program can read.
    #[error("{path}: {why}")]
    Run {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: RunError,
    },
    /// This machine would not do something.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// How it failed.
        error: std::io::Error,
    },
}

impl Error {
    /// A failure of this machine, with what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        |error| Error::Io { what: what.into(), error }
    }

    /// The process's exit code: 1 refused or failed, 2 usage, 3 unreachable.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Refused { .. } | Error::Io { .. } => 1,
            Error::Usage(_) | Error::Run { .. } => 2,
            Error::Unreachable { .. } => 3,
        }
    }
}

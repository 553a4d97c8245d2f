//! What is done to whom.

use clap::ValueEnum;
use pygmy_proto::message::Role;
use serde::Serialize;

/// What fails, or comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// A catalog is killed; rounds in which the token was lost with it do not count
    KillCatalog,
    /// An order server is killed
    KillOrder,
    /// A front is killed
    KillFront,
    /// A catalog is killed; only rounds in which the token was lost with it count
    KillHolder,
    /// A catalog and an order server are killed at once
    KillCatalogAndOrder,
    /// A catalog is paused; only rounds in which the token stood still with it count
    StopHolder,
    /// A catalog, an order server and a front are killed and started again in turn for `--duration`; everything that was
    /// asked and answered is kept and judged
    InTurn,
    /// A catalog or an order server that was dead for `--behind` buys is started again
    Rejoin,
    /// One that is dead and whose files are gone is replaced, `--behind` buys later
    Replace,
    /// One that lives is replaced
    ReplaceLiving,
}

impl FaultKind {
    pub(super) fn roles(self) -> &'static [Role] {
        match self {
            FaultKind::KillOrder => &[Role::Order],
            FaultKind::KillFront => &[Role::Front],
            FaultKind::InTurn => &[Role::Catalog, Role::Order, Role::Front],
            FaultKind::KillCatalogAndOrder => &[Role::Catalog, Role::Order],
            FaultKind::KillCatalog | FaultKind::KillHolder | FaultKind::StopHolder => &[Role::Catalog],
            // One of these in each round.
            FaultKind::Rejoin | FaultKind::Replace | FaultKind::ReplaceLiving => &[Role::Catalog, Role::Order],
        }
    }

    /// Whether it is the coming back that is watched.
    pub(super) fn is_return(self) -> bool {
        matches!(self, FaultKind::Rejoin | FaultKind::Replace | FaultKind::ReplaceLiving)
    }
}

/// What is done to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is killed, and started again when that has been watched
    Kill,
    /// It is paused, and goes on when that has been watched
    Pause,
    /// It is asked to end, and started again at once
    Restart,
    /// A new process takes its place while it lives
    Replace,
}

impl Action {
    /// In a sentence with a server's name behind it.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Action::Kill => "kill",
            Action::Pause => "pause",
            Action::Restart => "restart",
            Action::Replace => "replace",
        }
    }
}

/// What is done to whom, in every round of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// To servers of its roles, in turn.
    Kind(FaultKind),
    /// To one server.
    Node(String, Action),
}

impl Fault {
    /// As on the command line.
    pub(super) fn name(&self) -> String {
        match self {
            Fault::Kind(kind) => kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned()),
            Fault::Node(node, action) => format!("{} {node}", action.verb()),
        }
    }

    pub(super) fn action(&self) -> Action {
        match self {
            Fault::Kind(FaultKind::StopHolder) => Action::Pause,
            Fault::Kind(_) => Action::Kill,
            Fault::Node(_, action) => *action,
        }
    }

    /// Whether a round counts in which the token was lost, or was not.
    pub(super) fn counts(&self, token_lost: bool) -> bool {
        match self {
            Fault::Kind(FaultKind::KillCatalog) => !token_lost,
            Fault::Kind(FaultKind::KillHolder | FaultKind::StopHolder) => token_lost,
            _ => true,
        }
    }

    /// Whether it is meant for whoever has the token.
    pub(super) fn wants_holder(&self) -> bool {
        matches!(self, Fault::Kind(FaultKind::KillHolder | FaultKind::StopHolder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rounds_of_the_kind_asked_for_count() {
        let counts = |kind: FaultKind, token_lost: bool| Fault::Kind(kind).counts(token_lost);
        assert!(counts(FaultKind::KillCatalog, false) && !counts(FaultKind::KillCatalog, true));
        assert!(counts(FaultKind::KillHolder, true) && !counts(FaultKind::StopHolder, false));
        assert!(counts(FaultKind::KillFront, false) && counts(FaultKind::KillCatalogAndOrder, true));
        let node = Fault::Node("catalog-2".into(), Action::Pause);
        assert!(node.counts(true) && node.counts(false) && !node.wants_holder());
        assert_eq!((node.name(), node.action()), ("pause catalog-2".into(), Action::Pause));
        assert_eq!(Fault::Kind(FaultKind::StopHolder).action(), Action::Pause);
        assert_eq!(Fault::Kind(FaultKind::KillCatalogAndOrder).name(), "kill-catalog-and-order");
    }
}

//! What each node thinks of each other one, its link and what its failure detector says; and what it asks of its system.

use pygmy_proto::message::{IoStatus, LinkStatus, PeerReason, PeerState, PeerStatus, Share, StatusOk};

use super::output::Grid;
use super::target::Target;

/// One row for each pair that somebody who answered belongs to.
pub(super) fn table<'a>(answers: impl Iterator<Item = &'a StatusOk>, target: &Target) -> Grid {
    let mut grid = Grid::new(&[
        "node",
        "other",
        "link",
        "state",
        "why",
        ">heard ms ago",
        ">limit ms",
        ">suspected",
        ">returned",
        "share",
        ">jobs",
        ">moved",
    ]);
    for status in answers {
        let name = if target.cluster.is_some() { target.node_name(status.node) } else { status.name.to_string() };
        for peer in status.peers.iter() {
            let link = status.links.iter().find(|link| link.node == peer.node);
            grid.row([name.clone(), target.node_name(peer.node)].into_iter().chain(cells(peer, link)));
        }
    }
    grid
}

fn cells(peer: &PeerStatus, link: Option<&LinkStatus>) -> [String; 10] {
    [
        link.map_or("-", |link| if link.up { "up" } else { "down" }).to_owned(),
        state(peer.state).to_owned(),
        reason(peer.reason).to_owned(),
        peer.heard_ms.map_or("-".to_owned(), |ms| ms.to_string()),
        peer.limit_ms.to_string(),
        peer.suspicions.to_string(),
        peer.returns.to_string(),
        link.map_or("-", |link| share(link.share)).to_owned(),
        link.map_or("-".to_owned(), |link| link.in_flight.to_string()),
        link.map_or("-".to_owned(), |link| link.moved.to_string()),
    ]
}

/// What each node has asked of its system.
pub(super) fn system<'a>(answers: impl Iterator<Item = &'a StatusOk>, target: &Target) -> Grid {
    let mut grid = Grid::new(&["node", ">system calls", ">syncs", ">received MiB", ">sent MiB", ">written MiB"]);
    for status in answers {
        let name = if target.cluster.is_some() { target.node_name(status.node) } else { status.name.to_string() };
        let IoStatus { system_calls, syncs, received, sent, written } = status.io;
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        grid.row([name, system_calls.to_string(), syncs.to_string(), mib(received), mib(sent), mib(written)]);
    }
    grid
}

/// What the one that answered passes to it; a column of its own, for a server may be given less though it is heard.
fn share(share: Share) -> &'static str {
    match share {
        Share::None => "-",
        Share::Full => "full",
        Share::Starting => "starting",
        Share::Spared => "spared",
        Share::Suspected => "suspected",
    }
}

fn state(state: PeerState) -> &'static str {
    match state {
        PeerState::Green => "green",
        PeerState::Yellow => "yellow",
        PeerState::Red => "red",
    }
}

fn reason(reason: PeerReason) -> &'static str {
    match reason {
        PeerReason::Heard => "heard",
        PeerReason::NeverHeard => "never heard",
        PeerReason::Silent => "silent",
        PeerReason::OneWay => "does not hear it",
        PeerReason::Reset => "no connection",
        PeerReason::OwnLoopLate => "own loop late",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_and_reason_is_named() {
        let peer = |state, reason, heard_ms| PeerStatus {
            node: 3,
            state,
            reason,
            heard_ms,
            limit_ms: 200,
            suspicions: 2,
            returns: 1,
        };
        let link = LinkStatus { node: 3, up: true, in_flight: 7, share: Share::Starting, moved: 9 };
        let of = |peer: PeerStatus, link| cells(&peer, link).join(" | ");
        assert_eq!(
            of(peer(PeerState::Green, PeerReason::Heard, Some(12)), Some(&link)),
            "up | green | heard | 12 | 200 | 2 | 1 | starting | 7 | 9"
        );
        assert_eq!(
            of(peer(PeerState::Red, PeerReason::NeverHeard, None), None),
            "- | red | never heard | - | 200 | 2 | 1 | - | - | -"
        );
    }
}

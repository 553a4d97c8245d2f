//! Who votes, who learns, and how many failures the cluster stands now.

use pygmy_proto::message::{MemberStatus, ReplicaStatus, StatusOk};
use serde::Serialize;

use super::output::Grid;
use super::target::Target;

/// The cluster as the replica sees it that knows most: the one with the latest configuration and the longest log.
#[derive(Debug, Serialize)]
pub(super) struct Voters<'a> {
    /// Who says so.
    pub(super) seen_by: u16,
    pub(super) config_id: u64,
    pub(super) epoch: pygmy_proto::message::Epoch,
    /// Number of the token's holder; 0: unknown.
    pub(super) holder: u16,
    pub(super) committed: u64,
    pub(super) majority: usize,
    /// Voters that are there and count.
    pub(super) present: usize,
    /// How many of them may fail; below 0: so many are missing for anything to be written.
    pub(super) stands: i64,
    pub(super) swap: &'a Option<pygmy_proto::message::Swap>,
    pub(super) members: Vec<Member<'a>>,
}

/// What a log replica is for the majority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    /// It counts.
    Votes,
    /// It is a voter and does not count before it has what it lost.
    Withheld,
    /// It is a voter and is not heard.
    Silent,
    /// It follows and has no vote.
    Learns,
    /// It has no vote and is not heard.
    Gone,
}

#[derive(Debug, Serialize)]
pub(super) struct Member<'a> {
    pub(super) standing: Standing,
    /// Entries that are committed and not in its log, as last heard.
    pub(super) behind: u64,
    #[serde(flatten)]
    pub(super) status: &'a MemberStatus,
}

impl<'a> Voters<'a> {
    /// What the answers together say, if a replica is among them.
    pub(super) fn of(answers: impl Iterator<Item = &'a StatusOk>) -> Option<Self> {
        let replicas = answers.filter_map(|status| Some((status.node, status.replica.as_ref()?)));
        let (seen_by, replica) = replicas.max_by_key(|(_, replica)| (replica.config_id, replica.committed))?;
        let members: Vec<Member<'a>> = replica.members.iter().map(|status| Member::new(status, replica)).collect();
        let voters = members.iter().filter(|member| member.status.voter).count();
        let present = members.iter().filter(|member| member.standing == Standing::Votes).count();
        let majority = voters / 2 + 1;
        Some(Self {
            seen_by,
            config_id: replica.config_id,
            epoch: replica.epoch,
            holder: replica.holder,
            committed: replica.committed,
            majority,
            present,
            stands: present as i64 - majority as i64,
            swap: &replica.swap,
            members,
        })
    }

    /// For people.
    pub(super) fn text(&self, target: &Target) -> String {
        let name = |number| if number == 0 { "nobody that is known".to_owned() } else { target.node_name(number) };
        let voters = self.members.iter().filter(|member| member.status.voter).count();
        let mut text = format!(
            "{}\n\nepoch {}.{}, the token is with {}, committed up to {}\n{} of {voters} voters are there, {} are a \
             majority: {}",
            self.grid(target),
            self.epoch.counter,
            self.epoch.node,
            name(self.holder),
            self.committed,
            self.present,
            self.majority,
            self.failures(),
        );
        if let Some(swap) = self.swap {
            let name = target.node_name(swap.new.node);
            text.push_str(&format!("\n{name} is taking a place among the voters; the replacement is half done"));
        }
        text
    }

    fn failures(&self) -> String {
        match self.stands {
            stands @ ..0 => format!("nothing can be written before {} more are there", -stands),
            0 => "stands no more failures now".to_owned(),
            1 => "stands 1 more failure now".to_owned(),
            stands => format!("stands {stands} more failures now"),
        }
    }

    fn grid(&self, target: &Target) -> Grid {
        let mut grid = Grid::new(&["replica", "standing", ">log end", ">behind", "identity"]);
        for Member { standing, behind, status } in &self.members {
            let known = status.last_seq > 0 || *standing == Standing::Votes;
            let number = |number: u64| if known { number.to_string() } else { "-".to_owned() };
            let uuid = u128::from_be_bytes(status.log_uuid);
            let cells = [target.node_name(status.node), standing.name().to_owned(), number(status.last_seq)];
            grid.row(cells.into_iter().chain([number(*behind), format!("{uuid:032x}")]));
        }
        grid
    }
}

impl<'a> Member<'a> {
    fn new(status: &'a MemberStatus, seen_by: &ReplicaStatus) -> Self {
        let standing = match (status.voter, status.heard, status.withheld) {
            (true, true, false) => Standing::Votes,
            (true, true, true) => Standing::Withheld,
            (true, false, _) => Standing::Silent,
            (false, true, _) => Standing::Learns,
            (false, false, _) => Standing::Gone,
        };
        Self { standing, behind: seen_by.committed.saturating_sub(status.last_seq), status }
    }
}

impl Standing {
    fn name(self) -> &'static str {
        match self {
            Standing::Votes => "votes",
            Standing::Withheld => "vote withheld",
            Standing::Silent => "not heard",
            Standing::Learns => "learns",
            Standing::Gone => "gone",
        }
    }
}

#[cfg(test)]
mod tests {
    use pygmy_proto::message::{Epoch, IoStatus, Role};
    use pygmy_proto::types::{Bounded, Name};

    use super::*;

    fn member(node: u16, voter: bool, heard: bool, withheld: bool) -> MemberStatus {
        MemberStatus { node, voter, heard, withheld, last_seq: 90, ..MemberStatus::default() }
    }

    fn status(node: u16, config_id: u64, members: Vec<MemberStatus>) -> StatusOk {
        let replica = ReplicaStatus {
            voter: true,
            voters: 0,
            config_id,
            swap: None,
            epoch: Epoch { counter: 2, node: 5 },
            holder: 5,
            hop: 1,
            last_seq: 100,
            durable: 100,
            committed: 100,
            applied: 100,
            state_hash: 0,
            books: 0,
            orders: 0,
            sessions: 0,
            members: Bounded::truncated(members),
        };
        let (name, links, peers) = (Name::truncated("x"), Bounded::default(), Bounded::default());
        let replica = Some(replica);
        StatusOk {
            node,
            name,
            role: Role::Catalog,
            uptime_ms: 1,
            clients: 0,
            jobs: 0,
            answered: 0,
            links,
            peers,
            replica,
            front: None,
            io: IoStatus::default(),
        }
    }

    fn target() -> Target {
        Target { cluster: None, addresses: Vec::new() }
    }

    #[test]
    fn only_voters_that_are_there_and_count_are_counted() {
        let members = vec![
            member(1, true, true, false),
            member(2, true, true, false),
            member(3, true, true, false),
            member(4, true, true, true),
            member(5, true, false, false),
            member(6, false, true, false),
        ];
        let answers = [status(9, 1, Vec::new()), status(1, 3, members), status(8, 2, Vec::new())];
        let voters = Voters::of(answers.iter()).expect("replicas answered");
        assert_eq!((voters.seen_by, voters.majority, voters.present, voters.stands), (1, 3, 3, 0));
        let text = voters.text(&target());
        assert!(text.contains("3 of 5 voters are there, 3 are a majority: stands no more failures now"), "{text}");
        let standings: Vec<Standing> = voters.members.iter().map(|member| member.standing).collect();
        use Standing::*;
        assert_eq!(standings, [Votes, Votes, Votes, Withheld, Silent, Learns]);
        assert_eq!(voters.members[5].behind, 10);
    }

    #[test]
    fn too_few_voters_are_said_to_be_too_few() {
        let members = vec![member(1, true, true, false), member(2, true, false, false), member(3, true, false, false)];
        let answers = [status(1, 1, members)];
        let text = Voters::of(answers.iter()).expect("a replica answered").text(&target());
        assert!(text.ends_with("nothing can be written before 1 more are there"), "{text}");
        assert!(Voters::of(std::iter::empty()).is_none());
    }
}

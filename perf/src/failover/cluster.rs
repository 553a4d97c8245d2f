//! A cluster that is watched while its servers come and go.

use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use pygmy_proto::ErrorCode;
use pygmy_proto::message::{Epoch, ReplicaStatus, Role, Status, StatusOk};

use super::stream::Orders;
use super::{failed, poisoned};
use crate::ask::Asker;
use crate::error::Error;
use crate::local::Local;
use crate::shelf;
use crate::span::Clock;
use crate::target::{Server, Target};

/// Quiet time between two faults, once everybody is well.
pub(super) const REST: Duration = Duration::from_millis(1_500);
/// Time for everybody to be well.
pub(super) const HEALTH_WITHIN: Duration = Duration::from_secs(90);
/// Between two looks at how things are.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A replica that is so many positions behind another is still catching up.
pub(super) const BEHIND_MAX: u64 = 2_000;
/// Copies of each book before each fault.
pub(super) const STOCK: u32 = 1_000_000;
/// Copies of each book before a run of which a history is kept.
const STOCK_FOR_LONG: u32 = 1_000_000_000;
/// A book of which this much is left is not restocked yet.
const STOCK_ENOUGH: u32 = STOCK / 4 * 3;

/// Refuses to buy more than there is before a round.
///
/// # Errors
/// The books would not last.
pub(super) fn check_behind(behind: u64, books: usize) -> Result<(), Error> {
    // A quarter may be sold already, and one is for the time in which it is watched.
    let most = u64::from(STOCK) / 2 * books as u64;
    if behind <= most {
        return Ok(());
    }
    Err(Error::Usage(format!("--behind {behind}: with {books} books in the store {most} can be bought in a round")))
}

/// The cluster, and what is bought in it.
pub(super) struct Watched<'a> {
    pub(super) local: &'a Local,
    pub(super) target: Target,
    pub(super) orders: &'a Mutex<Orders>,
    pub(super) clock: Clock,
}

/// Servers of some roles in turn: one of each role after the other.
pub(super) fn in_turn(target: &Target, roles: &[Role], turn: usize) -> Result<String, Error> {
    let of = |role: &Role| target.servers.iter().filter(|server| server.role == *role).collect();
    let all: Vec<Vec<&Server>> = roles.iter().map(of).filter(|servers: &Vec<_>| !servers.is_empty()).collect();
    let none = || Error::Usage("the cluster has no server of the roles that fail".into());
    let servers = all.get(turn % all.len().max(1)).ok_or_else(none)?;
    Ok(servers[turn / all.len() % servers.len()].name.clone())
}

impl Watched<'_> {
    /// Waits until everybody is well, fills the shelves, and gives it a rest.
    pub(super) fn prepare(&self) -> Result<(), Error> {
        self.wait_health()?;
        self.stock_up()?;
        sleep(REST);
        Ok(())
    }

    /// When the store was seen to go on, from a moment on.
    pub(super) fn commits(&self, from_ns: u64) -> Result<Vec<u64>, Error> {
        let orders = self.orders.lock().map_err(|_| poisoned())?;
        let first = orders.commits_ns.partition_point(|at| *at < from_ns);
        Ok(orders.commits_ns[first..].to_vec())
    }

    /// Buys so many copies as fast as the store takes them.
    pub(super) fn flood(&self, buys: u64) -> Result<(), Error> {
        let goal = {
            let mut orders = self.orders.lock().map_err(|_| poisoned())?;
            orders.flood_until = orders.seq + buys;
            orders.flood_until
        };
        let mut reached = (0, Instant::now());
        loop {
            let seq = self.orders.lock().map_err(|_| poisoned())?.seq;
            if seq >= goal {
                return Ok(());
            }
            if seq > reached.0 {
                reached = (seq, Instant::now());
            } else if reached.1.elapsed() > HEALTH_WITHIN {
                return Err(failed(format!("nothing is committed behind seq {seq}")));
            }
            sleep(LOOK_EVERY);
        }
    }

    /// Committed up to.
    pub(super) fn committed(&self) -> Result<u64, Error> {
        self.orders.lock().map(|orders| orders.seq).map_err(|_| poisoned())
    }

    /// How one server is, or `None` where it does not answer.
    pub(super) fn status_of(&self, name: &str) -> Option<StatusOk> {
        let server = self.target.servers.iter().find(|server| server.name == name)?;
        Asker::connect(server).ok()?.ask(&Status {}).ok()
    }

    fn statuses(&self) -> Result<Vec<StatusOk>, Error> {
        self.target.servers.iter().map(|server| Asker::connect(server)?.ask(&Status {})).collect()
    }

    fn replicas(&self) -> Result<Vec<ReplicaStatus>, Error> {
        Ok(self.statuses()?.into_iter().filter_map(|status| status.replica).collect())
    }

    /// The highest epoch that anybody but the victims is in.
    pub(super) fn epoch(&self, victims: &[String]) -> Option<Epoch> {
        let others = self.target.servers.iter().filter(|server| !victims.contains(&server.name));
        let status = |server: &Server| Asker::connect(server)?.ask::<_, StatusOk>(&Status {});
        others.filter_map(|server| status(server).ok()?.replica).map(|replica| replica.epoch).max()
    }

    pub(super) fn holder(&self) -> Result<Option<u16>, Error> {
        let latest = self.replicas()?.into_iter().max_by_key(|replica| (replica.epoch, replica.hop));
        Ok(latest.map(|replica| replica.holder).filter(|holder| *holder != 0))
    }

    /// Waits until every server answers, has all its links, and no replica is behind.
    pub(super) fn wait_health(&self) -> Result<(), Error> {
        let late = Instant::now() + HEALTH_WITHIN;
        loop {
            let statuses = self.statuses();
            if statuses.as_ref().is_ok_and(|statuses| is_well(statuses)) {
                return Ok(());
            }
            if Instant::now() > late {
                let why = format!("the cluster is not well within {HEALTH_WITHIN:?}: {statuses:?}");
                return Err(failed(why));
            }
            sleep(LOOK_EVERY);
        }
    }

    /// A load that buys must not become one of refusals.
    pub(super) fn stock_up(&self) -> Result<(), Error> {
        let late = Instant::now() + HEALTH_WITHIN;
        loop {
            match self.restock() {
                // The epoch may have changed since everybody was well.
                Err(Error::Refused { error, .. })
                    if error.known_code() == Some(ErrorCode::Busy) && Instant::now() < late =>
                {
                    sleep(LOOK_EVERY);
                }
                done => return done,
            }
        }
    }

    /// Puts up more of every book than any run buys: whoever keeps a history must not restock meanwhile.
    pub(super) fn stock_for_long(&self) -> Result<(), Error> {
        let mut asker = Asker::connect(self.target.fronts()[0])?;
        let books = shelf::read(&mut asker, 0)?.books;
        shelf::fill(&mut asker, &books, STOCK_FOR_LONG)
    }

    fn restock(&self) -> Result<(), Error> {
        let mut asker = Asker::connect(self.target.fronts()[0])?;
        let mut books = shelf::read(&mut asker, 0)?.books;
        books.retain(|book| book.stock < STOCK_ENOUGH);
        shelf::restock(&mut asker, &books, STOCK)
    }
}

fn is_well(statuses: &[StatusOk]) -> bool {
    let replicas: Vec<&ReplicaStatus> = statuses.iter().filter_map(|status| status.replica.as_ref()).collect();
    let applied = |replica: &&ReplicaStatus| replica.applied;
    let (low, high) = (replicas.iter().map(applied).min(), replicas.iter().map(applied).max());
    let is_linked = statuses.iter().all(|status| status.links.iter().all(|link| link.up));
    let is_one = replicas.windows(2).all(|pair| pair[0].epoch == pair[1].epoch);
    let can_order = replicas.iter().all(|replica| replica.voter && replica.holder != 0);
    is_linked && is_one && can_order && high.zip(low).is_some_and(|(high, low)| high - low <= BEHIND_MAX)
}

/// The longest distance, in milliseconds, between two commits of which the later lies behind `at_ns`, and the longest
/// before it.
pub(super) fn longest_gaps(commits_ns: &[u64], at_ns: u64) -> (f64, f64) {
    let (mut behind, mut before) = (0, 0);
    for pair in commits_ns.windows(2) {
        let longest = if pair[1] >= at_ns { &mut behind } else { &mut before };
        *longest = (pair[1] - pair[0]).max(*longest);
    }
    (behind as f64 / 1e6, before as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_belongs_to_the_fault_that_it_reaches_behind() {
        let ms = |at: u64| at * 1_000_000;
        let commits: Vec<u64> = [0, 5, 6, 7, 27, 28, 38].map(ms).into();
        assert_eq!(longest_gaps(&commits, ms(8)), (20.0, 5.0));
        assert_eq!(longest_gaps(&commits, ms(28)), (10.0, 20.0));
        assert_eq!(longest_gaps(&commits, ms(0)), (20.0, 0.0));
        assert_eq!(longest_gaps(&[], 0), (0.0, 0.0));
    }

    #[test]
    fn roles_and_the_servers_of_each_take_turns() {
        let server = |(name, role): (&str, Role)| Server { number: 0, name: name.into(), role, address: String::new() };
        let roles = [
            ("f1", Role::Front),
            ("f2", Role::Front),
            ("o1", Role::Order),
            ("c1", Role::Catalog),
            ("c2", Role::Catalog),
        ];
        let target = Target { servers: roles.map(server).into() };
        let order =
            |roles: &[Role]| (0..7).map(|turn| in_turn(&target, roles, turn).unwrap()).collect::<Vec<_>>().join(" ");
        assert_eq!(order(&[Role::Catalog, Role::Order, Role::Front]), "c1 o1 f1 c2 o1 f2 c1");
        assert_eq!(order(&[Role::Catalog, Role::Front]), "c1 f1 c2 f2 c1 f1 c2");
        assert_eq!(order(&[Role::Order]), "o1 o1 o1 o1 o1 o1 o1");
        let none = Target { servers: Vec::new() };
        assert!(in_turn(&none, &[Role::Order], 0).is_err());
    }

    #[test]
    fn no_more_is_bought_in_a_round_than_there_is() {
        assert!(check_behind(1_000_000, 7).is_ok());
        let refused = check_behind(4_000_000, 7).unwrap_err().to_string();
        assert!(refused.contains("7 books") && refused.contains("3500000"), "{refused}");
    }
}

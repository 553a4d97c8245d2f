//! Round-robin over the servers of a role.
//!
//! A server is *down* (no link), *up*, *suspected* (its link stands, but it is not heard), *starting* (up, but since
//! lately) or *removed* (it finishes what it has). Under steady health each has its turn, and so as many requests as the
//! others. There are four reasons why one has less:
//!
//! * It is suspected, or to be *spared* for a while. It is picked only where there is no other: one that is to be spared
//!   before one that is suspected, and that before nobody, for a slow answer is better than none.
//! * It is starting: of as many turns as a warm server takes, it takes one at first, and one more for each request that it
//!   has answered, until it is warm itself. Its steps are answers, not time, so that one that answers nothing gets little.
//! * It is slow: it passes its turn while it has more than twice as many requests as the least busy one, and some more. It
//!   is measured both at the moment and over the last thousand requests, since answers come in swarms; and it passes only so
//!   many turns in a row, since otherwise nobody would find out that it is well again.
//!
//! A turn is of one request, or of a *run*: of all that one asker has come with at once, up to a bound. What goes together
//! comes back together, in one frame and one call of the system where there would be one for each: with 16 connections of 64
//! writes, 289,000 writes a second instead of 233,000.

use pygmy_proto::message::{LinkStatus, Share};

/// Answers after which a server has its whole share.
const WARM: u32 = 16;
/// A server that is slow has this many requests more than twice those of the least busy one.
const SLACK: u32 = 64;
/// Turns that a slow server passes in a row at most.
const PASSES_MAX: u32 = 8;
/// Requests of a run at most.
const RUN_MAX: u32 = 64;
/// Requests over which the load of a server is averaged.
const SPAN: u32 = 1_024;

/// The servers of one role, how each is, and how many requests each has.
#[derive(Debug)]
pub struct Dispatcher {
    /// Those that were removed stay until they have answered what they have.
    servers: Vec<Server>,
    next: usize,
    run: Option<Run>,
}

/// Requests that an asker has come with at once, and that go to one server.
#[derive(Debug, Clone, Copy)]
struct Run {
    asker: u64,
    /// When they came.
    at_ns: u64,
    node: u16,
    /// How many more there may be.
    left: u32,
}

/// Whom to take first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Well,
    Spared,
    Suspected,
}

#[derive(Debug)]
struct Server {
    node: u16,
    up: bool,
    suspected: bool,
    removed: bool,
    /// Picked only where there is no other, before this.
    spared_until_ns: u64,
    in_flight: u32,
    /// Requests that were taken from it for another one.
    moved: u64,
    /// Requests in flight over the last [`SPAN`] requests of the role, times that.
    load: u64,
    /// Answers since it started, up to [`WARM`].
    warmth: u32,
    /// Parts of a turn that it has saved while it starts.
    saved: u32,
    /// Turns passed in a row because it is slow.
    passed: u32,
}

/// The most warm and the least busy of the servers among which one is picked.
#[derive(Debug, Clone, Copy)]
struct Best {
    warmth: u32,
    in_flight: u32,
    load: u64,
}

impl Server {
    fn new(node: u16, up: bool) -> Self {
        Self {
            node,
            up,
            suspected: false,
            removed: false,
            spared_until_ns: 0,
            in_flight: 0,
            moved: 0,
            load: 0,
            warmth: 0,
            saved: 0,
            passed: 0,
        }
    }

    /// Its link came or went: either way nothing that was known of it counts any more.
    fn set_up(&mut self, up: bool) {
        self.up = up;
        self.suspected = false;
        self.start();
    }

    fn start(&mut self) {
        (self.warmth, self.saved, self.passed) = (0, 0, 0);
    }

    fn share(&self, now_ns: u64) -> Share {
        match self.grade(now_ns) {
            None => Share::None,
            Some(Grade::Suspected) => Share::Suspected,
            Some(Grade::Spared) => Share::Spared,
            Some(Grade::Well) if self.warmth < WARM => Share::Starting,
            Some(Grade::Well) => Share::Full,
        }
    }

    fn grade(&self, now_ns: u64) -> Option<Grade> {
        match self {
            _ if !self.up || self.removed => None,
            _ if self.suspected => Some(Grade::Suspected),
            _ if self.spared_until_ns > now_ns => Some(Grade::Spared),
            _ => Some(Grade::Well),
        }
    }

    /// Whether it takes the turn that it has now.
    fn takes_turn(&mut self, best: Best) -> bool {
        let is_slow = self.in_flight > best.in_flight.saturating_mul(2).saturating_add(SLACK)
            && self.load > 2 * best.load + u64::from(SLACK * SPAN);
        if is_slow && self.passed < PASSES_MAX {
            self.passed += 1;
            return false;
        }
        self.passed = 0;
        // Where nobody is warm all are cold alike: whoever answers first would else have all the turns.
        if self.warmth >= best.warmth || best.warmth < WARM {
            return true;
        }
        self.saved += self.warmth + 1;
        let whole = best.warmth + 1;
        if self.saved < whole {
            return false;
        }
        self.saved -= whole;
        true
    }
}

impl Dispatcher {
    /// A dispatcher over `nodes`, none of them up.
    pub fn new(nodes: impl IntoIterator<Item = u16>) -> Self {
        let servers = nodes.into_iter().map(|node| Server::new(node, false)).collect();
        Self { servers, next: 0, run: None }
    }

    /// How many servers the role has.
    pub fn len(&self) -> usize {
        self.nodes().count()
    }
    /// Whether the role has no servers at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a server that may be up already. Of one that is there nothing is forgotten unless its link came or went.
    pub fn insert(&mut self, node: u16, up: bool) {
        match self.server(node) {
            Some(server) => {
                if std::mem::take(&mut server.removed) || server.up != up {
                    server.set_up(up);
                }
            }
            None => self.servers.push(Server::new(node, up)),
        }
    }

    /// Takes a server out: it is picked no more.
    pub fn remove(&mut self, node: u16) {
        if let Some(server) = self.server(node) {
            server.removed = true;
        }
        self.drop_removed();
    }

    fn drop_removed(&mut self) {
        while let Some(index) = self.servers.iter().position(|server| server.removed && server.in_flight == 0) {
            self.servers.remove(index);
            self.next -= usize::from(index < self.next);
        }
    }

    /// Notes that a server came or went. One of another role is ignored.
    pub fn set_up(&mut self, node: u16, up: bool) {
        if let Some(server) = self.server(node) {
            server.set_up(up);
        }
    }

    /// Notes that a server is not heard though its link stands. One of another role is ignored.
    pub fn suspect(&mut self, node: u16) {
        if let Some(server) = self.server(node) {
            server.suspected = true;
        }
    }

    /// Notes that a server is heard again: it starts. One of another role is ignored.
    pub fn trust(&mut self, node: u16) {
        if let Some(server) = self.server(node).filter(|server| server.suspected) {
            server.suspected = false;
            server.start();
        }
    }

    /// Spares a server until then: it is behind, and what it is given would wait.
    pub fn spare(&mut self, node: u16, until_ns: u64) {
        if let Some(server) = self.server(node) {
            server.spared_until_ns = until_ns;
        }
    }

    /// Spares each server until what is said of it.
    pub fn spare_each(&mut self, until_ns: impl Fn(u16) -> u64) {
        for server in &mut self.servers {
            server.spared_until_ns = until_ns(server.node);
        }
    }

    /// Suspected servers that have requests which another one could take.
    pub fn stranded(&self) -> impl Iterator<Item = u16> {
        let others = self.servers.iter().any(|server| server.up && !server.removed && !server.suspected);
        let stranded = self.servers.iter().filter(move |server| others && server.suspected && server.in_flight > 0);
        stranded.map(|server| server.node)
    }

    /// Whether a server has a link and its share of what is new.
    pub fn serves(&self, node: u16) -> bool {
        self.servers.iter().any(|server| server.node == node && server.up && !server.removed)
    }

    /// Whether a server that is up is suspected.
    pub fn is_suspected(&self, node: u16) -> bool {
        self.servers.iter().any(|server| server.node == node && server.suspected)
    }

    /// The next server in turn, and counts one more request for it.
    pub fn pick(&mut self, now_ns: u64) -> Option<u16> {
        let node = self.next(now_ns)?;
        self.add(node, 1);
        Some(node)
    }

    /// The server for a request of `asker`: that of the request before, if this was of the same asker and moment, and else
    /// the next in turn. What it gets is still to be counted.
    pub fn next_for(&mut self, asker: u64, now_ns: u64) -> Option<u16> {
        if let Some(run) = self.run.filter(|run| run.asker == asker && run.at_ns == now_ns && run.left > 0)
            && self.may_go_on(run.node, now_ns)
        {
            self.run = Some(Run { left: run.left - 1, ..run });
            return Some(run.node);
        }
        let node = self.next(now_ns)?;
        self.run = Some(Run { asker, at_ns: now_ns, node, left: RUN_MAX - 1 });
        Some(node)
    }

    /// Whether a server may have more than one request in a turn: when none is better, and none is starting, which would
    /// have its turns, and by their answers grow, the more seldom.
    fn may_go_on(&self, node: u16, now_ns: u64) -> bool {
        let mut well = self.servers.iter().filter(|server| server.grade(now_ns) == Some(Grade::Well));
        well.clone().any(|server| server.node == node) && well.all(|server| server.warmth == WARM)
    }

    /// The next server in turn; what it gets is still to be counted.
    pub fn next(&mut self, now_ns: u64) -> Option<u16> {
        let count = self.servers.len();
        let grade = self.servers.iter().filter_map(|server| server.grade(now_ns)).min()?;
        let same = || self.servers.iter().filter(|server| server.grade(now_ns) == Some(grade));
        let best = Best {
            warmth: same().map(|server| server.warmth).max()?,
            in_flight: same().map(|server| server.in_flight).min()?,
            load: same().map(|server| server.load).min()?,
        };
        let (mut first, mut taken) = (None, None);
        for index in (0..count).map(|step| (self.next + step) % count) {
            let server = &mut self.servers[index];
            if server.grade(now_ns) != Some(grade) {
                continue;
            }
            first = first.or(Some(index));
            if server.takes_turn(best) {
                taken = Some(index);
                break;
            }
        }
        // It may be that the warm are busy and the others start.
        let index = taken.or(first)?;
        self.next = (index + 1) % count;
        Some(self.servers[index].node)
    }

    /// The servers' numbers.
    pub fn nodes(&self) -> impl Iterator<Item = u16> {
        self.servers.iter().filter(|server| !server.removed).map(|server| server.node)
    }

    /// Counts requests that a server was given.
    pub fn add(&mut self, node: u16, count: u32) {
        if let Some(server) = self.server(node) {
            server.in_flight += count;
        }
        let weight = u64::from(count.min(SPAN));
        for server in &mut self.servers {
            let kept = server.load * (u64::from(SPAN) - weight) / u64::from(SPAN);
            server.load = kept + u64::from(server.in_flight) * weight;
        }
    }

    /// A server has answered a request, be it its own still or not.
    pub fn warm(&mut self, node: u16) {
        if let Some(server) = self.server(node) {
            server.warmth = (server.warmth + 1).min(WARM);
        }
    }

    /// Counts one request less: it was answered, given up or moved.
    pub fn done(&mut self, node: u16) {
        let Some(server) = self.server(node) else { return };
        server.in_flight = server.in_flight.saturating_sub(1);
        if server.removed {
            self.drop_removed();
        }
    }

    /// Counts one request less: it goes to another server.
    pub fn moved(&mut self, node: u16) {
        self.server(node).into_iter().for_each(|server| server.moved += 1);
        self.done(node);
    }

    /// How a server is, if it is one of this role.
    pub fn link_status(&self, node: u16, up: bool, now_ns: u64) -> Option<LinkStatus> {
        let server = self.servers.iter().find(|server| server.node == node)?;
        let (share, moved) = (server.share(now_ns), server.moved);
        Some(LinkStatus { node, up, in_flight: server.in_flight, share, moved })
    }

    /// Requests in flight at a server.
    pub fn in_flight(&self, node: u16) -> u32 {
        self.servers.iter().find(|server| server.node == node).map_or(0, |server| server.in_flight)
    }

    fn server(&mut self, node: u16) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.node == node)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn picks_in_turn_and_skips_those_that_are_down() {
        let mut dispatcher = Dispatcher::new([5, 6, 7]);
        assert_eq!(dispatcher.pick(0), None);
        for node in [5, 6, 7] {
            dispatcher.set_up(node, true);
        }
        let picked: Vec<_> = (0..6).filter_map(|_| dispatcher.pick(0)).collect();
        assert_eq!(picked, [5, 6, 7, 5, 6, 7]);
        dispatcher.set_up(6, false);
        let picked: Vec<_> = (0..4).filter_map(|_| dispatcher.pick(0)).collect();
        assert_eq!(picked, [5, 7, 5, 7]);
        assert_eq!(dispatcher.in_flight(5), 4);
        dispatcher.done(5);
        assert_eq!(dispatcher.in_flight(5), 3);
    }

    #[test]
    fn those_that_start_together_have_turns_alike() {
        let mut dispatcher = Dispatcher::new([5, 6]);
        for node in [5, 6] {
            dispatcher.set_up(node, true);
        }
        let picked: Vec<_> = (0..6)
            .filter_map(|_| {
                dispatcher.warm(5);
                dispatcher.pick(0)
            })
            .collect();
        assert_eq!(picked, [5, 6, 5, 6, 5, 6]);
    }

    #[test]
    fn servers_come_and_go() {
        let mut dispatcher = Dispatcher::new([5, 6]);
        dispatcher.set_up(5, true);
        dispatcher.set_up(6, true);
        dispatcher.insert(7, true);
        dispatcher.insert(7, true);
        let picked: Vec<_> = (0..5).filter_map(|_| dispatcher.pick(0)).collect();
        assert_eq!((picked, dispatcher.len()), (vec![5, 6, 7, 5, 6], 3));
        dispatcher.remove(5);
        let picked: Vec<_> = (0..3).filter_map(|_| dispatcher.pick(0)).collect();
        assert_eq!((picked, dispatcher.len()), (vec![7, 6, 7], 2));
        assert_eq!(dispatcher.in_flight(5), 2, "it finishes what it has");
        for _ in 0..3 {
            dispatcher.done(5);
        }
        assert_eq!((dispatcher.servers.len(), dispatcher.pick(0)), (2, Some(6)), "and is forgotten then");
    }

    #[test]
    fn who_is_spared_is_picked_only_where_there_is_no_other() {
        let mut dispatcher = Dispatcher::new([5, 6, 7]);
        for node in [5, 6, 7] {
            dispatcher.set_up(node, true);
        }
        dispatcher.spare(6, 100);
        let picked = |dispatcher: &mut Dispatcher, now_ns| -> Vec<_> {
            (0..4).filter_map(|_| dispatcher.pick(now_ns)).collect()
        };
        assert_eq!(picked(&mut dispatcher, 99), [5, 7, 5, 7]);
        assert_eq!(picked(&mut dispatcher, 100), [5, 6, 7, 5]);
        dispatcher.set_up(5, false);
        dispatcher.spare(6, 200);
        dispatcher.spare(7, 200);
        assert_eq!(picked(&mut dispatcher, 199), [6, 7, 6, 7], "there is no other");
    }

    #[test]
    fn nodes_of_other_roles_are_ignored() {
        let mut dispatcher = Dispatcher::new([5]);
        dispatcher.set_up(9, true);
        dispatcher.done(9);
        assert_eq!((dispatcher.pick(0), dispatcher.in_flight(9)), (None, 0));
    }

    /// Servers that are up and warm.
    fn warm(nodes: &[u16]) -> Dispatcher {
        let mut dispatcher = Dispatcher::new(nodes.iter().copied());
        for node in nodes {
            dispatcher.set_up(*node, true);
            (0..WARM).for_each(|_| dispatcher.warm(*node));
        }
        dispatcher
    }

    #[test]
    fn who_is_named_again_is_what_it_was() {
        let mut dispatcher = warm(&[5, 6, 7]);
        dispatcher.suspect(6);
        for node in [5, 6, 7] {
            dispatcher.insert(node, true);
        }
        assert!(dispatcher.is_suspected(6), "that it votes does not say that it lives");
        assert_eq!(shares(&mut dispatcher, 10, [5, 6, 7]), [5, 0, 5]);
        dispatcher.set_up(5, false);
        dispatcher.set_up(5, true);
        dispatcher.insert(7, true);
        assert_eq!(shares(&mut dispatcher, 18, [5, 6, 7]), [1, 0, 17], "7 need not start anew");
        dispatcher.insert(6, false);
        dispatcher.insert(6, true);
        assert!(!dispatcher.is_suspected(6), "its link is another one");
    }

    fn shares(dispatcher: &mut Dispatcher, turns: usize, nodes: [u16; 3]) -> [usize; 3] {
        let picked: Vec<_> = (0..turns).filter_map(|_| dispatcher.next(0)).collect();
        nodes.map(|node| picked.iter().filter(|other| **other == node).count())
    }

    #[test]
    fn what_one_asker_has_come_with_at_once_goes_to_one_server() {
        let mut dispatcher = warm(&[5, 6, 7]);
        let mut next = |asker, at_ns| dispatcher.next_for(asker, at_ns).expect("all are up");
        let first = next(1, 10);
        let run: Vec<u16> = (1..RUN_MAX).map(|_| next(1, 10)).collect();
        assert!(run.iter().all(|node| *node == first), "{first} and {run:?}");
        let second = next(1, 10);
        assert_ne!(second, first, "a run is bounded");
        let third = next(2, 10);
        assert!(third != first && third != second, "another asker has the next one");
        assert_eq!((next(1, 10), next(1, 11), next(1, 12)), (first, second, third), "and so has another moment");
    }

    #[test]
    fn a_run_ends_when_its_server_is_not_the_best_any_more() {
        for harm in 0..4 {
            let mut dispatcher = warm(&[5, 6, 7]);
            let first = dispatcher.next_for(1, 10).expect("all are up");
            assert_eq!(dispatcher.next_for(1, 10), Some(first));
            match harm {
                0 => dispatcher.set_up(first, false),
                1 => dispatcher.suspect(first),
                2 => dispatcher.spare(first, 100),
                _ => dispatcher.remove(first),
            }
            let second = dispatcher.next_for(1, 10).expect("two are left");
            assert_ne!(second, first, "{harm}");
            assert_eq!(dispatcher.next_for(1, 10), Some(second), "{harm}: a new run");
        }
    }

    #[test]
    fn there_are_no_runs_while_a_server_starts() {
        let starting = || {
            let mut dispatcher = warm(&[5, 6]);
            dispatcher.set_up(6, false);
            dispatcher.set_up(6, true);
            dispatcher
        };
        let (mut with_runs, mut without) = (starting(), starting());
        for _ in 0..20 * WARM {
            assert_eq!(with_runs.next_for(1, 10), without.next(10));
        }
        // It has started: the next run is one.
        (0..WARM).for_each(|_| with_runs.warm(6));
        let first = with_runs.next_for(1, 10);
        assert_eq!(with_runs.next_for(1, 10), first);
    }

    #[test]
    fn the_suspected_are_picked_only_where_there_is_no_other() {
        let mut dispatcher = warm(&[5, 6, 7]);
        dispatcher.suspect(6);
        assert_eq!(shares(&mut dispatcher, 10, [5, 6, 7]), [5, 0, 5]);
        dispatcher.spare(5, 100);
        dispatcher.set_up(7, false);
        assert_eq!(shares(&mut dispatcher, 10, [5, 6, 7]), [10, 0, 0], "one that is behind is better");
        dispatcher.set_up(5, false);
        assert_eq!(dispatcher.pick(0), Some(6), "a slow answer is better than none");
        assert_eq!(dispatcher.stranded().count(), 0, "nobody else can take it");
        dispatcher.set_up(5, true);
        assert_eq!(dispatcher.stranded().collect::<Vec<_>>(), [6]);
        dispatcher.set_up(6, false);
        dispatcher.set_up(6, true);
        assert!(!dispatcher.is_suspected(6), "its handshake shows that it lives");
    }

    #[test]
    fn a_server_that_starts_grows_by_what_it_answers_and_not_by_waiting() {
        let mut dispatcher = warm(&[5, 6, 7]);
        dispatcher.suspect(6);
        dispatcher.trust(6);
        let whole = WARM as usize + 1;
        assert_eq!(shares(&mut dispatcher, (2 * whole + 1) * 10, [5, 6, 7]), [170, 10, 170]);
        let mut last = 10;
        for _ in 0..WARM {
            dispatcher.warm(6);
            let [_, share, _] = shares(&mut dispatcher, 510, [5, 6, 7]);
            assert!(share > last, "{share} after {last}");
            last = share;
        }
        assert_eq!(shares(&mut dispatcher, 300, [5, 6, 7]), [100, 100, 100]);
        dispatcher.trust(6);
        assert_eq!(shares(&mut dispatcher, 300, [5, 6, 7]), [100, 100, 100], "it was not suspected");
    }

    #[test]
    fn who_is_slow_has_less_and_never_nothing() {
        let mut dispatcher = warm(&[5, 6, 7]);
        let mut given = [0_u32; 3];
        for _ in 0..20_000 {
            // All but 6 answer at once.
            let node = dispatcher.pick(0).unwrap();
            given[usize::from(node) - 5] += 1;
            if node != 6 {
                dispatcher.done(node);
            }
        }
        assert_eq!(dispatcher.in_flight(6), given[1]);
        assert!((20_000 / (2 * PASSES_MAX + 1)..1_500).contains(&given[1]), "{given:?}");
        assert!(given[0].abs_diff(given[2]) <= PASSES_MAX, "{given:?}");
        for _ in 0..given[1] {
            dispatcher.done(6);
        }
        assert_eq!(shares(&mut dispatcher, 300, [5, 6, 7]), [100, 100, 100], "it has caught up");
    }

    #[test]
    fn answers_that_come_in_swarms_change_nothing() {
        let mut dispatcher = warm(&[5, 6, 7]);
        let mut given = [0_i32; 3];
        for turn in 0..300 {
            for _ in 0..300 {
                given[usize::from(dispatcher.pick(0).unwrap()) - 5] += 1;
            }
            // One server at a time answers all that it has.
            let node = 5 + turn % 3;
            while dispatcher.in_flight(node) > 0 {
                dispatcher.done(node);
            }
        }
        assert!(given.iter().all(|count| *count == 30_000), "{given:?}");
    }

    #[test]
    fn its_status_says_what_a_server_is_given_and_what_was_taken_from_it() {
        let mut dispatcher = warm(&[5, 6]);
        let share = |dispatcher: &Dispatcher, now_ns| dispatcher.link_status(5, true, now_ns).unwrap().share;
        assert_eq!(share(&dispatcher, 0), Share::Full);
        dispatcher.pick(0);
        dispatcher.spare(5, 100);
        assert_eq!((share(&dispatcher, 99), share(&dispatcher, 100)), (Share::Spared, Share::Full));
        dispatcher.suspect(5);
        assert_eq!(share(&dispatcher, 0), Share::Suspected);
        dispatcher.moved(5);
        dispatcher.trust(5);
        let status = LinkStatus { node: 5, up: true, in_flight: 0, share: Share::Starting, moved: 1 };
        assert_eq!(dispatcher.link_status(5, true, 100), Some(status));
        dispatcher.set_up(5, false);
        assert_eq!(share(&dispatcher, 0), Share::None);
        assert_eq!(dispatcher.link_status(7, true, 0), None);
    }

    #[derive(Debug, Clone, Copy)]
    enum Act {
        Pick,
        Batch(u32),
        Answer(u16),
        Refuse(u16),
        SetUp(u16, bool),
        Suspect(u16),
        Trust(u16),
        Spare(u16, u64),
        Insert(u16, bool),
        Remove(u16),
    }

    fn acts() -> impl Strategy<Value = Act> {
        let node = || 1..6_u16;
        prop_oneof![
            8 => Just(Act::Pick),
            2 => (1..200_u32).prop_map(Act::Batch),
            6 => node().prop_map(Act::Answer),
            2 => node().prop_map(Act::Refuse),
            2 => (node(), any::<bool>()).prop_map(|(node, up)| Act::SetUp(node, up)),
            1 => node().prop_map(Act::Suspect),
            1 => node().prop_map(Act::Trust),
            1 => (node(), 0..100_u64).prop_map(|(node, until)| Act::Spare(node, until)),
            1 => (node(), any::<bool>()).prop_map(|(node, up)| Act::Insert(node, up)),
            1 => node().prop_map(Act::Remove),
        ]
    }

    /// What is known of a server that is there: whether it is up, whether suspected, until when spared.
    type Known = BTreeMap<u16, (bool, bool, u64)>;

    /// Does the same to both, and holds what is picked against what is known.
    fn act(dispatcher: &mut Dispatcher, known: &mut Known, given: &mut BTreeMap<u16, u32>, now_ns: u64, act: Act) {
        // Of those that are suspected none is better for not being spared.
        let worth =
            |(up, suspected, until): &(bool, bool, u64)| up.then_some((*suspected, !suspected && *until > now_ns));
        let best = known.values().filter_map(worth).min();
        let mut check = |node: Option<u16>, count| {
            assert_eq!(node.and_then(|node| worth(&known[&node])), best, "{node:?} of {known:?}");
            node.into_iter().for_each(|node| *given.entry(node).or_default() += count);
        };
        match act {
            Act::Pick => check(dispatcher.pick(now_ns), 1),
            Act::Batch(count) => {
                let node = dispatcher.next(now_ns);
                node.into_iter().for_each(|node| dispatcher.add(node, count));
                check(node, count);
            }
            Act::Answer(node) | Act::Refuse(node) => {
                if let Some(count) = given.get_mut(&node).filter(|count| **count > 0) {
                    *count -= 1;
                    dispatcher.done(node);
                    if matches!(act, Act::Answer(_)) {
                        dispatcher.warm(node);
                    }
                }
            }
            Act::SetUp(node, up) => {
                dispatcher.set_up(node, up);
                known.entry(node).and_modify(|known| (known.0, known.1) = (up, false));
            }
            Act::Suspect(node) => {
                dispatcher.suspect(node);
                known.entry(node).and_modify(|known| known.1 = true);
            }
            Act::Trust(node) => {
                dispatcher.trust(node);
                known.entry(node).and_modify(|known| known.1 = false);
            }
            Act::Spare(node, until_ns) => {
                dispatcher.spare(node, until_ns);
                known.entry(node).and_modify(|known| known.2 = until_ns);
            }
            Act::Insert(node, up) => {
                dispatcher.insert(node, up);
                dispatcher.spare(node, 0);
                let suspected = known.get(&node).is_some_and(|(was_up, suspected, _)| *was_up == up && *suspected);
                known.insert(node, (up, suspected, 0));
            }
            Act::Remove(node) => {
                dispatcher.remove(node);
                known.remove(&node);
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_has_been_the_count_is_exact_and_in_the_end_all_have_the_same(
            script in proptest::collection::vec(acts(), 1..300)
        ) {
            let mut dispatcher = Dispatcher::new([1, 2, 3]);
            let mut known: Known = [1, 2, 3].map(|node| (node, (false, false, 0))).into();
            let mut given = BTreeMap::new();
            for (now_ns, next) in script.into_iter().enumerate() {
                act(&mut dispatcher, &mut known, &mut given, now_ns as u64, next);
                for node in 1..6 {
                    let count = given.get(&node).copied().unwrap_or(0);
                    prop_assert_eq!(dispatcher.in_flight(node), count, "at {}", node);
                }
                prop_assert_eq!(dispatcher.len(), known.len());
                prop_assert!(dispatcher.servers.len() <= 5);
            }
            for (node, count) in given {
                (0..count).for_each(|_| dispatcher.done(node));
            }
            prop_assert_eq!(dispatcher.servers.len(), known.len(), "the removed are forgotten");
            for node in known.keys() {
                dispatcher.set_up(*node, true);
                dispatcher.spare(*node, 0);
                (0..WARM).for_each(|_| dispatcher.warm(*node));
            }
            let mut shares: BTreeMap<u16, u32> = known.keys().map(|node| (*node, 0)).collect();
            for _ in 0..100 {
                if let Some(node) = dispatcher.pick(0) {
                    *shares.entry(node).or_default() += 1;
                    dispatcher.done(node);
                }
                let (least, most) = (shares.values().min(), shares.values().max());
                prop_assert!(most <= least.map(|least| least + 1).as_ref(), "{:?}", shares);
            }
        }
    }
}

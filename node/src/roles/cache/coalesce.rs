//! Reads that ask the same while one of them is on its way: one goes, the others wait for its answer.

use std::hash::BuildHasherDefault;

use hashbrown::HashMap;
use pygmy_proto::Kind;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::recent::AsItIs;
use crate::roles::jobs::JobKey;

/// Reads that wait for one; any more go by themselves.
const FOLLOWERS_MAX: usize = 8_192;

/// What a read asks for, as a number.
pub type Question = u64;

#[derive(Debug)]
struct Fetch {
    leader: JobKey,
    followers: Vec<JobKey>,
}

/// The reads that lead, and those that follow them.
#[derive(Debug)]
pub struct Fetches {
    fetches: HashMap<Question, Fetch, BuildHasherDefault<AsItIs>>,
    seed: u64,
}

impl Fetches {
    /// Whose questions are numbered by `seed`.
    pub fn new(seed: u64) -> Self {
        Self { fetches: HashMap::default(), seed }
    }

    /// The number of a read: of its kind, and of its body behind the floor.
    pub fn question(&self, kind: Kind, asks: &[u8]) -> Question {
        xxh3_64_with_seed(asks, self.seed.wrapping_add(kind as u64))
    }

    /// Who leads the reads that ask this.
    pub fn leader(&self, question: Question) -> Option<JobKey> {
        self.fetches.get(&question).map(|fetch| fetch.leader)
    }

    /// A read goes first, if nobody has before.
    pub fn lead(&mut self, question: Question, leader: JobKey) -> bool {
        let is_new = !self.fetches.contains_key(&question);
        if is_new {
            self.fetches.insert(question, Fetch { leader, followers: Vec::new() });
        }
        is_new
    }

    /// A read waits for the one that leads. False when too many do.
    pub fn follow(&mut self, question: Question, follower: JobKey) -> bool {
        let Some(fetch) = self.fetches.get_mut(&question) else { return false };
        let has_room = fetch.followers.len() < FOLLOWERS_MAX;
        if has_room {
            fetch.followers.push(follower);
        }
        has_room
    }

    /// The one that leads has its answer, or will have none: who has waited for it.
    pub fn end(&mut self, question: Question) -> Vec<JobKey> {
        self.fetches.remove(&question).map(|fetch| fetch.followers).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leads_and_the_others_follow_until_it_ends() {
        let mut fetches = Fetches::new(7);
        let question = fetches.question(Kind::Lookup, b"book");
        assert_ne!(question, fetches.question(Kind::Search, b"book"));
        assert_eq!(fetches.leader(question), None);
        assert!(!fetches.follow(question, 2));
        assert!(fetches.lead(question, 1) && !fetches.lead(question, 2));
        assert!(fetches.follow(question, 2) && fetches.follow(question, 3));
        assert_eq!(fetches.leader(question), Some(1));
        assert_eq!(fetches.end(question), [2, 3]);
        assert_eq!((fetches.leader(question), fetches.end(question)), (None, vec![]));
    }

    #[test]
    fn followers_are_bounded() {
        let mut fetches = Fetches::new(7);
        fetches.lead(1, 0);
        let followed = (0..FOLLOWERS_MAX as u64 + 10).filter(|key| fetches.follow(1, *key)).count();
        assert_eq!(followed, FOLLOWERS_MAX);
    }
}

//! Whether a history is linearizable, book by book, without believing any log position in it: is there one order of
//! everything that respects real time and in which a plain counter of copies and a price give these very answers?
//!
//! The search is that of Wing and Gong, which takes one operation after another that no other one must precede, with
//! Lowe's memory of the sets and states it has been to. Each line of a cart is an operation on its own book; what is
//! told of a book is judged with that book alone, as linearizability allows. Reads that may be old are left out. What
//! has no answer may take effect at any time after it was asked, or never.

use std::collections::BTreeMap;

use hashbrown::HashSet;
use pygmy_proto::BookId;
use serde::Serialize;

use super::check::{Fate, Write, writes};
use super::{Action, Answer, BookState, History};

/// Sets and states remembered for one book before the search gives up.
const MEMORY_MAX: usize = 2_000_000;

/// What was done to, or seen of, one book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// Copies were sold at a price; what was left.
    Buy { copies: u32, told: Option<(u32, u64)> },
    /// Copies were added; how many there were then.
    Restock { copies: u32, told: Option<u32> },
    /// The price was changed; the one before, and the copies there were.
    Reprice { cost_cents: u64, told: Option<(u64, u32)> },
    /// It was looked at.
    See { stock: u32, cost_cents: Option<u64> },
}

/// Copies and price of one book.
pub(crate) type State = (u32, u64);

impl Effect {
    /// What the book is afterwards; none: it cannot have happened to a book in this state.
    pub(crate) fn apply(self, (stock, cost): State) -> Option<State> {
        match self {
            Effect::Buy { copies, told } => {
                let left = stock.checked_sub(copies)?;
                told.is_none_or(|told| told == (left, cost)).then_some((left, cost))
            }
            Effect::Restock { copies, told } => {
                let sum = stock.checked_add(copies)?;
                told.is_none_or(|told| told == sum).then_some((sum, cost))
            }
            Effect::Reprice { cost_cents, told } => {
                told.is_none_or(|told| told == (cost, stock)).then_some((stock, cost_cents))
            }
            Effect::See { stock: seen, cost_cents } => {
                (seen == stock && cost_cents.is_none_or(|cents| cents == cost)).then_some((stock, cost))
            }
        }
    }
}

/// One effect and the time in which it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) start_ns: u64,
    /// `u64::MAX` for what may have happened at any time, or never.
    pub(crate) end_ns: u64,
    pub(crate) effect: Effect,
}

/// What the search found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Linear {
    /// There is such an order.
    Yes,
    /// There is none.
    No {
        /// How many operations the longest attempt explains.
        explained: usize,
        /// Of so many.
        of: usize,
        /// The end of the first operation that it cannot explain, in nanoseconds of the history's clock.
        stuck_before_ns: u64,
    },
    /// The search was given up: too many ways.
    Undecided,
}

/// Every book of a history with its verdict.
pub fn check(history: &History) -> BTreeMap<BookId, Linear> {
    let steps = steps(history);
    let judge = |(book, steps): (&BookId, &Vec<Step>)| {
        let initial = history.initial.get(book).map_or((0, 0), |state| (state.stock, state.cost_cents));
        (*book, judge(initial, steps))
    };
    steps.iter().map(judge).collect()
}

/// What happened to each book.
pub(crate) fn steps(history: &History) -> BTreeMap<BookId, Vec<Step>> {
    // What is wrong with identities is told by the other checker.
    let writes = writes(history, &mut Vec::new());
    let mut steps: BTreeMap<BookId, Vec<Step>> = history.initial.keys().map(|book| (*book, Vec::new())).collect();
    let mut note = |book: BookId, start_ns, end_ns, effect| {
        steps.entry(book).or_default().push(Step { start_ns, end_ns, effect });
    };
    for write in &writes {
        for (book, effect) in effects(write) {
            note(book, write.start_ns, write.end_ns, effect);
        }
    }
    for operation in &history.operations {
        if let (Action::Lookup { book, fresh: true }, Answer::Found { book: state, .. }) =
            (&operation.action, &operation.answer)
        {
            note(*book, operation.start_ns, operation.end_ns, see(state));
        }
    }
    let end_ns = history.operations.iter().map(|operation| operation.end_ns).max().unwrap_or_default() + 1;
    for (book, state) in history.replicas.iter().take(1).flat_map(|replica| &replica.books) {
        note(*book, end_ns, end_ns, see(state));
    }
    steps
}

fn see(state: &BookState) -> Effect {
    Effect::See { stock: state.stock, cost_cents: Some(state.cost_cents) }
}

/// What a write did to each of its books, or may have done.
fn effects(write: &Write<'_>) -> Vec<(BookId, Effect)> {
    match (write.action, write.fate) {
        (_, Fate::NotDone) => Vec::new(),
        (_, Fate::Refused(Answer::Refused { short: Some(short), .. })) => {
            vec![(short.book, Effect::See { stock: short.stock, cost_cents: None })]
        }
        (_, Fate::Refused(_)) => Vec::new(),
        (_, Fate::Done(Answer::Bought { order })) => {
            let told = |left, cost_cents| Some((left, cost_cents));
            let lines = order.lines.iter();
            lines
                .map(|line| (line.book, Effect::Buy { copies: line.copies, told: told(line.left, line.cost_cents) }))
                .collect()
        }
        (Action::Buy { lines }, _) => {
            lines.iter().map(|line| (line.book, Effect::Buy { copies: line.copies, told: None })).collect()
        }
        (Action::Restock { book, copies }, fate) => {
            let told = if let Fate::Done(Answer::Restocked { stock, .. }) = fate { Some(*stock) } else { None };
            vec![(*book, Effect::Restock { copies: *copies, told })]
        }
        (Action::Reprice { book, cost_cents }, fate) => {
            let told = match fate {
                Fate::Done(Answer::Repriced { old_cost_cents, stock, .. }) => Some((*old_cost_cents, *stock)),
                _ => None,
            };
            vec![(*book, Effect::Reprice { cost_cents: *cost_cents, told })]
        }
        (Action::Lookup { .. }, _) => Vec::new(),
    }
}

/// Looks for an order of the steps of one book.
pub(crate) fn judge(initial: State, steps: &[Step]) -> Linear {
    let (mut told, mut maybe): (Vec<Step>, Vec<Step>) = steps.iter().partition(|step| step.end_ns != u64::MAX);
    told.sort_unstable_by_key(|step| (step.start_ns, step.end_ns));
    maybe.sort_unstable_by_key(|step| step.start_ns);
    Search::new(initial, told, maybe).run()
}

/// An operation that could be next: its place among those that were told, or among those that may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Told(usize),
    Maybe(usize),
}

/// Where the search has been: the first place not taken, which behind it are, which of the others, and the state.
type Key = (usize, Vec<u64>, Vec<u64>, State);

/// A choice that was made and those that remain to be tried instead of the next one.
#[derive(Debug)]
struct Level {
    made: Option<Choice>,
    before: State,
    untried: Vec<Choice>,
}

#[derive(Debug)]
struct Search {
    told: Vec<Step>,
    maybe: Vec<Step>,
    is_taken: Vec<bool>,
    maybe_taken: Vec<bool>,
    /// The first place of `told` not taken.
    base: usize,
    /// No place from here on was ever taken.
    reach: usize,
    taken: usize,
    state: State,
    been: HashSet<Key>,
    /// The most taken at any time, and the end of what was then the first not taken.
    best: (usize, u64),
}

impl Search {
    fn new(initial: State, told: Vec<Step>, maybe: Vec<Step>) -> Self {
        Self {
            is_taken: vec![false; told.len()],
            maybe_taken: vec![false; maybe.len()],
            told,
            maybe,
            base: 0,
            reach: 0,
            taken: 0,
            state: initial,
            been: HashSet::new(),
            best: (0, 0),
        }
    }

    fn run(mut self) -> Linear {
        let mut levels = vec![Level { made: None, before: self.state, untried: self.choices() }];
        while let Some(level) = levels.last_mut() {
            if self.taken == self.told.len() {
                return Linear::Yes;
            }
            if self.been.len() > MEMORY_MAX {
                return Linear::Undecided;
            }
            let Some(choice) = level.untried.pop() else {
                let (made, before) = (level.made, level.before);
                levels.pop();
                if let Some(choice) = made {
                    self.put_back(choice, before);
                }
                continue;
            };
            let before = self.state;
            let Some(state) = self.step(choice).effect.apply(before) else { continue };
            self.take(choice, state);
            let key = self.key();
            if self.been.insert(key) {
                let untried = self.choices();
                levels.push(Level { made: Some(choice), before, untried });
            } else {
                self.put_back(choice, before);
            }
        }
        let (explained, stuck_before_ns) = self.best;
        Linear::No { explained, of: self.told.len(), stuck_before_ns }
    }

    fn step(&self, choice: Choice) -> Step {
        match choice {
            Choice::Told(place) => self.told[place],
            Choice::Maybe(place) => self.maybe[place],
        }
    }

    fn take(&mut self, choice: Choice, state: State) {
        self.state = state;
        match choice {
            Choice::Told(place) => {
                self.is_taken[place] = true;
                self.taken += 1;
                self.reach = self.reach.max(place + 1);
                while self.is_taken.get(self.base) == Some(&true) {
                    self.base += 1;
                }
            }
            Choice::Maybe(place) => self.maybe_taken[place] = true,
        }
    }

    fn put_back(&mut self, choice: Choice, before: State) {
        self.state = before;
        match choice {
            Choice::Told(place) => {
                self.is_taken[place] = false;
                self.taken -= 1;
                self.base = self.base.min(place);
            }
            Choice::Maybe(place) => self.maybe_taken[place] = false,
        }
    }

    /// Everything that can be next; the last is tried first.
    fn choices(&mut self) -> Vec<Choice> {
        let (mut choices, mut end_ns) = (Vec::new(), u64::MAX);
        for place in self.base..self.told.len() {
            let step = self.told[place];
            if self.is_taken[place] {
                continue;
            }
            if step.start_ns > end_ns {
                break;
            }
            end_ns = end_ns.min(step.end_ns);
            // What only looks, and sees what there is, spoils nothing by being next: nothing else need be tried.
            if matches!(step.effect, Effect::See { .. }) && step.effect.apply(self.state).is_some() {
                return vec![Choice::Told(place)];
            }
            choices.push(Choice::Told(place));
        }
        if self.taken >= self.best.0 {
            self.best = (self.taken, end_ns);
        }
        let maybe = self.maybe.iter().enumerate().take_while(|(_, step)| step.start_ns <= end_ns);
        let untaken = maybe.filter(|(place, _)| !self.maybe_taken[*place]).map(|(place, _)| Choice::Maybe(place));
        let mut all: Vec<Choice> = untaken.collect();
        choices.reverse();
        all.extend(choices);
        all
    }

    fn key(&self) -> Key {
        let behind = &self.is_taken[self.base..self.reach.max(self.base)];
        let taken = behind.iter().rposition(|taken| *taken).map_or(0, |place| place + 1);
        let behind = &behind[..taken];
        (self.base, bits(behind), bits(&self.maybe_taken), self.state)
    }
}

fn bits(flags: &[bool]) -> Vec<u64> {
    let word = |chunk: &[bool]| chunk.iter().rev().fold(0, |word, flag| (word << 1) | u64::from(*flag));
    flags.chunks(64).map(word).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

    use super::*;
    use crate::history::check::check as by_positions;
    use crate::history::model::{book, of_size, valid};

    /// The same book for another searcher: whether an effect fits is the answer that is compared.
    #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
    struct Twin(State);

    impl SequentialSpec for Twin {
        type Op = Effect;
        type Ret = bool;

        fn invoke(&mut self, effect: &Effect) -> bool {
            let next = effect.apply(self.0);
            self.0 = next.unwrap_or(self.0);
            next.is_some()
        }
    }

    fn by_twin(initial: State, steps: &[Step]) -> bool {
        let mut tester = LinearizabilityTester::new(Twin(initial));
        // At the same moment, what starts does so before the other one ends.
        let starts = steps.iter().enumerate().map(|(thread, step)| (step.start_ns, false, thread));
        let ends = steps.iter().enumerate().filter(|(_, step)| step.end_ns != u64::MAX);
        let mut events: Vec<_> = starts.chain(ends.map(|(thread, step)| (step.end_ns, true, thread))).collect();
        events.sort_unstable();
        for (_, is_end, thread) in events {
            let done = if is_end {
                tester.on_return(thread, true).map(|_| ())
            } else {
                tester.on_invoke(thread, steps[thread].effect).map(|_| ())
            };
            done.unwrap();
        }
        tester.is_consistent()
    }

    const FULL: State = (10, 250);

    fn step(start_ns: u64, end_ns: u64, effect: Effect) -> Step {
        Step { start_ns, end_ns, effect }
    }

    fn buy(copies: u32, left: u32) -> Effect {
        Effect::Buy { copies, told: Some((left, 250)) }
    }

    fn is_linear(steps: &[Step]) -> bool {
        let verdict = judge(FULL, steps);
        assert_eq!(verdict == Linear::Yes, by_twin(FULL, steps), "{steps:?}");
        verdict == Linear::Yes
    }

    #[test]
    fn what_overlaps_may_be_in_any_order_and_what_does_not_may_not() {
        assert!(is_linear(&[step(0, 10, buy(1, 8)), step(5, 15, buy(1, 9))]));
        assert!(!is_linear(&[step(0, 4, buy(1, 8)), step(5, 15, buy(1, 9))]));
        assert!(is_linear(&[step(0, 5, buy(1, 8)), step(5, 15, buy(1, 9))]), "at the same moment they overlap");
    }

    #[test]
    fn a_lost_update_and_a_stale_stock_are_found() {
        assert!(!is_linear(&[step(0, 10, buy(1, 9)), step(5, 15, buy(1, 9))]), "one of the two sales is lost");
        assert!(!is_linear(&[step(0, 1, buy(4, 6)), step(2, 3, buy(4, 6))]));
        assert!(!is_linear(&[step(0, 1, Effect::Buy { copies: 11, told: None })]), "more than there were");
    }

    #[test]
    fn a_read_from_the_past_is_found() {
        let see = |stock| Effect::See { stock, cost_cents: Some(250) };
        assert!(is_linear(&[step(0, 10, buy(1, 9)), step(5, 6, see(10)), step(7, 8, see(9))]));
        assert!(!is_linear(&[step(0, 10, buy(1, 9)), step(5, 6, see(9)), step(7, 8, see(10))]), "it went back");
        assert!(!is_linear(&[step(0, 1, buy(1, 9)), step(2, 3, see(10))]));
        assert!(!is_linear(&[step(0, 1, Effect::See { stock: 10, cost_cents: Some(251) })]));
    }

    #[test]
    fn what_has_no_answer_may_happen_late_or_never_but_once() {
        let lost = step(0, u64::MAX, Effect::Restock { copies: 5, told: None });
        let see = |stock| Effect::See { stock, cost_cents: None };
        assert!(is_linear(&[lost, step(1, 2, see(10)), step(3, 4, see(15))]));
        assert!(is_linear(&[lost, step(1, 2, see(10)), step(3, 4, see(10))]));
        assert!(!is_linear(&[lost, step(1, 2, see(20))]), "it cannot happen twice");
        assert!(!is_linear(&[lost, step(1, 2, see(15)), step(3, 4, see(10))]), "nor be undone");
        let later = Step { start_ns: 3, ..lost };
        assert!(!is_linear(&[later, step(1, 2, see(15))]), "nor happen before it was asked for");
    }

    #[test]
    fn a_long_history_is_searched_without_being_lost_in_it() {
        // Ten at a time, all alike to look at: with reads taken one by one, this would take for ever.
        let mut steps = Vec::new();
        for round in 0..500 {
            let at = |more: u64| round * 100 + more;
            steps.extend((0..9).map(|n| step(at(n), at(50 + n), Effect::See { stock: 10, cost_cents: None })));
            steps.push(step(at(9), at(60), Effect::Restock { copies: 1, told: Some(11) }));
            steps.push(step(at(70), at(80), buy(1, 10)));
        }
        assert_eq!(judge(FULL, &steps), Linear::Yes);
        steps.last_mut().unwrap().effect = buy(1, 9);
        assert!(matches!(judge(FULL, &steps), Linear::No { explained, of, .. } if explained == of - 1));
    }

    #[test]
    fn ways_to_the_same_state_are_gone_once() {
        // Fourteen that may have happened, in any order: so many sets are searched quickly, so many orders are not.
        let lost = step(0, u64::MAX, Effect::Restock { copies: 1, told: None });
        let mut steps = vec![lost; 14];
        steps.push(step(1, 2, Effect::See { stock: 25, cost_cents: None }));
        assert!(matches!(judge(FULL, &steps), Linear::No { explained: 0, of: 1, .. }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn valid_histories_are_linearizable_for_both(seed: u64) {
            let history = valid(seed);
            prop_assert_eq!(by_positions(&history), []);
            for (book, verdict) in check(&history) {
                prop_assert_eq!(verdict, Linear::Yes, "{}", book);
            }
        }

        /// Whatever number is spoilt in whatever small history: the two searchers agree on every book, and a history in
        /// which the checker of positions finds nothing is linearizable.
        #[test]
        fn spoilt_histories_are_judged_alike(seed: u64, place: prop::sample::Index, by in -3_i64..=3, late: bool) {
            let mut history = of_size(seed, 3, 60);
            prop_assume!(!history.operations.is_empty());
            let own = place.index(history.operations.len());
            // What names no position can be at fault without the other checker's seeing it: refusals, missing answers.
            let is_placed = history.operations[own].seq().is_some();
            spoil(&mut history, own, by, late);
            let initial = history.initial[&book("a")];
            let mut is_linear = true;
            for (book, steps) in steps(&history) {
                let verdict = judge((initial.stock, initial.cost_cents), &steps);
                prop_assert_eq!(verdict == Linear::Yes, by_twin((initial.stock, initial.cost_cents), &steps), "{}", book);
                is_linear &= verdict == Linear::Yes;
            }
            let found = by_positions(&history);
            prop_assert!(is_linear || !found.is_empty() || !is_placed, "not linearizable, and nothing found by position");
        }
    }

    /// Makes one answer say another number of copies, or puts it at another time.
    fn spoil(history: &mut History, place: usize, by: i64, late: bool) {
        let end_ns = history.operations.iter().map(|operation| operation.end_ns).max().unwrap_or_default();
        let own = &mut history.operations[place];
        if late {
            (own.start_ns, own.end_ns) = (end_ns + 1, end_ns + 2);
            return;
        }
        let change = |stock: &mut u32| *stock = stock.saturating_add_signed(by as i32);
        match &mut own.answer {
            Answer::Restocked { stock, .. } | Answer::Repriced { stock, .. } => change(stock),
            Answer::Found { book, .. } => change(&mut book.stock),
            Answer::Bought { order } => {
                let mut lines = order.lines.clone().into_vec();
                lines.iter_mut().for_each(|line| change(&mut line.left));
                order.lines = pygmy_proto::types::Bounded::truncated(lines);
            }
            Answer::Refused { short: Some(short), .. } => change(&mut short.stock),
            _ => {}
        }
    }
}

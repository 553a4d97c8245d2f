//! Whether what was answered and what the replicas hold fit together, by the log positions that answers name. No I/O:
//! a history in, violations out; O(n log n).

mod facts;
mod replay;
#[cfg(test)]
mod tests;
mod time;
mod violation;

use std::collections::BTreeSet;

use hashbrown::{HashMap, HashSet};
use pygmy_proto::BookId;
use pygmy_proto::message::OrderRecord;

pub(crate) use facts::{Fate, Write, writes};
pub use violation::Violation;

use super::{Action, Answer, History, ReplicaView};
use facts::Orders;

/// Above this many possible sums of copies that may have been added, only their range is held against a stock.
const SUMS_MAX: usize = 65_536;

/// Every promise that the history shows broken; none: it shows none.
pub fn check(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    let writes = writes(history, &mut found);
    let orders = Orders::new(&writes);
    check_numbers(&writes, &mut found);
    check_states(&history.replicas, &mut found);
    check_as_asked(&writes, &mut found);
    time::check(&writes, &history.operations, &mut found);
    time::check_committed(&history.operations, &history.replicas, &mut found);
    let restocks = Restocks::new(&writes);
    for replica in &history.replicas {
        check_ledger(replica, &orders, &mut found);
        check_by_number(replica, &orders, &mut found);
        check_stock(replica, history, &restocks, &mut found);
    }
    replay::check(history, &writes, &mut found);
    found
}

/// The lines of a cart, to compare carts by.
type Cart = Vec<(BookId, u32)>;

/// Copies that were added to each book, and those that may have been.
struct Restocks {
    done: HashMap<BookId, u64>,
    maybe: HashMap<BookId, Vec<u64>>,
}

impl Restocks {
    fn new(writes: &[Write<'_>]) -> Self {
        let mut restocks = Self { done: HashMap::new(), maybe: HashMap::new() };
        for write in writes {
            let Action::Restock { book, copies } = write.action else { continue };
            match write.fate {
                Fate::Done(_) => *restocks.done.entry(*book).or_default() += u64::from(*copies),
                Fate::Unknown => restocks.maybe.entry(*book).or_default().push(u64::from(*copies)),
                Fate::Refused(_) | Fate::NotDone => {}
            }
        }
        restocks
    }
}

/// No position of the log was given to two writes.
fn check_numbers(writes: &[Write<'_>], found: &mut Vec<Violation>) {
    let mut seen = HashSet::new();
    let twice = writes.iter().filter_map(Write::seq).filter(|seq| !seen.insert(*seq));
    found.extend(twice.map(|number| Violation::NumberUsedTwice { number }));
}

fn cart(lines: impl Iterator<Item = (BookId, u32)>) -> Cart {
    let mut cart: Cart = lines.collect();
    cart.sort_unstable();
    cart
}

fn cart_of(order: &OrderRecord) -> Cart {
    cart(order.lines.iter().map(|line| (line.book, line.copies)))
}

fn check_states(replicas: &[ReplicaView], found: &mut Vec<Violation>) {
    let of = |value: fn(&ReplicaView) -> u64| {
        let all: Vec<(String, u64)> = replicas.iter().map(|replica| (replica.name.clone(), value(replica))).collect();
        let distinct: BTreeSet<u64> = all.iter().map(|(_, value)| *value).collect();
        (distinct.len() > 1).then_some(all)
    };
    if let Some(applied) = of(|replica| replica.applied) {
        found.push(Violation::NotConverged { applied });
    } else if let Some(hashes) = of(|replica| replica.state_hash) {
        found.push(Violation::StateHashDiffers { hashes });
    }
}

/// Each acknowledged order has the lines of its cart, and their sum; every other answer is to what was asked.
fn check_as_asked(writes: &[Write<'_>], found: &mut Vec<Violation>) {
    for write in writes {
        let (Fate::Done(answer), Some(number)) = (write.fate, write.seq()) else { continue };
        let is_as_asked = match (write.action, answer) {
            (Action::Buy { lines }, Answer::Bought { order }) => {
                let sum: u64 = order.lines.iter().map(|line| line.cost_cents * u64::from(line.copies)).sum();
                let asked = cart(lines.iter().map(|line| (line.book, line.copies)));
                asked == cart_of(order) && sum == order.total_cents
            }
            (Action::Restock { .. }, Answer::Restocked { .. }) | (Action::Reprice { .. }, Answer::Repriced { .. }) => {
                true
            }
            _ => false,
        };
        if !is_as_asked {
            found.push(Violation::OrderNotAsAsked { number });
        }
    }
}

/// The ledger holds every acknowledged order as it was acknowledged, and no other that nothing explains.
fn check_ledger(replica: &ReplicaView, orders: &Orders<'_>, found: &mut Vec<Violation>) {
    const WAY: &str = "list of orders";
    let name = || replica.name.clone();
    let mut unknown = orders.unknown_carts.clone();
    let mut seen = HashSet::new();
    let mut last = 0;
    for order in &replica.ledger {
        let number = order.number;
        if number <= last {
            found.push(Violation::LedgerOutOfOrder { replica: name(), number });
        }
        last = last.max(number);
        seen.insert(number);
        match orders.acknowledged.get(&number) {
            Some(acknowledged) if **acknowledged == **order => {}
            Some(_) => found.push(Violation::OrderDiffers { replica: name(), way: WAY, number }),
            None => match unknown.get_mut(&cart_of(order)) {
                Some(left) if *left > 0 => *left -= 1,
                _ => found.push(Violation::OrderUnexplained { replica: name(), number }),
            },
        }
    }
    let lost = orders.acknowledged.keys().filter(|number| !seen.contains(*number));
    found.extend(lost.map(|number| Violation::OrderLost { replica: name(), way: WAY, number: *number }));
}

/// Every acknowledged order is found by its number too.
fn check_by_number(replica: &ReplicaView, orders: &Orders<'_>, found: &mut Vec<Violation>) {
    const WAY: &str = "by number";
    let Some(by_number) = &replica.by_number else { return };
    let name = || replica.name.clone();
    for (number, acknowledged) in &orders.acknowledged {
        match by_number.get(number) {
            Some(Some(order)) if **order == **acknowledged => {}
            Some(Some(_)) => found.push(Violation::OrderDiffers { replica: name(), way: WAY, number: *number }),
            Some(None) | None => found.push(Violation::OrderLost { replica: name(), way: WAY, number: *number }),
        }
    }
}

impl Restocks {
    /// Every sum of those that may have been, if there are not too many of them.
    fn sums(&self, book: &BookId) -> Option<BTreeSet<u64>> {
        let mut sums = BTreeSet::from([0]);
        for copies in self.maybe.get(book).into_iter().flatten() {
            sums.extend(sums.clone().into_iter().map(|sum| sum + copies));
            if sums.len() > SUMS_MAX {
                return None;
            }
        }
        Some(sums)
    }
}

/// Stock = initial + restocked − sold, where sold is what this replica's own ledger says.
fn check_stock(replica: &ReplicaView, history: &History, restocks: &Restocks, found: &mut Vec<Violation>) {
    let mut sold: HashMap<BookId, u64> = HashMap::new();
    for line in replica.ledger.iter().flat_map(|order| order.lines.iter()) {
        *sold.entry(line.book).or_default() += u64::from(line.copies);
    }
    let books: BTreeSet<BookId> = history.initial.keys().chain(replica.books.keys()).copied().collect();
    for book in books {
        let of = |map: &HashMap<BookId, u64>| map.get(&book).copied().unwrap_or_default();
        let initial = history.initial.get(&book).map_or(0, |state| u64::from(state.stock));
        let (sold, came) = (of(&sold), initial + of(&restocks.done));
        let came_most = came + restocks.maybe.get(&book).map_or(0, |maybe| maybe.iter().sum());
        let stock = replica.books.get(&book).map(|state| state.stock);
        // What is there and what was sold has come from somewhere.
        let is_right = |stock: u64| match restocks.sums(&book) {
            Some(sums) => (stock + sold).checked_sub(came).is_some_and(|more| sums.contains(&more)),
            None => (came..=came_most).contains(&(stock + sold)),
        };
        if !stock.is_some_and(|stock| is_right(stock.into())) {
            found.push(Violation::StockWrong {
                replica: replica.name.clone(),
                book,
                expected: (came.saturating_sub(sold), came_most.saturating_sub(sold)),
                found: stock,
            });
        }
    }
}

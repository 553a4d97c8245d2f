//! Whether what was answered and what the replicas hold fit together. No I/O: evidence in, violations out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use pygmy_proto::BookId;
use pygmy_proto::message::OrderRecord;
use serde::Serialize;

use super::history::{Action, Answer, Operation};

/// What one replica holds after the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaView {
    /// Its name.
    pub name: String,
    /// Applied up to.
    pub applied: u64,
    /// Hash of its state there.
    pub state_hash: u64,
    /// Copies of each book.
    pub stock: BTreeMap<BookId, u32>,
    /// Orders done since the audit began, in ascending order of number.
    pub ledger: Vec<Arc<OrderRecord>>,
    /// On order servers: each acknowledged order, asked for by its number. `None`: it was not found.
    pub by_number: Option<HashMap<u64, Option<Arc<OrderRecord>>>>,
}

/// Everything the checker judges by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Copies of each book before the first write.
    pub initial: BTreeMap<BookId, u32>,
    /// Every write, answered or not.
    pub history: Vec<Operation>,
    /// Every log replica.
    pub replicas: Vec<ReplicaView>,
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "violation")]
pub enum Violation {
    /// The audit did not come to its end, so that it proves nothing.
    NotFinished {
        /// What is missing.
        why: String,
    },
    /// Replicas stand at different positions although nothing is written any more.
    NotConverged {
        /// Each replica's name and position.
        applied: Vec<(String, u64)>,
    },
    /// Replicas have different states at the same position.
    StateHashDiffers {
        /// Each replica's name and hash.
        hashes: Vec<(String, u64)>,
    },
    /// Two acknowledgements bear the same order number.
    NumberUsedTwice {
        /// The number.
        number: u64,
    },
    /// An acknowledged order is not in a replica's ledger.
    OrderLost {
        /// The replica.
        replica: String,
        /// How it was looked for.
        way: &'static str,
        /// The order.
        number: u64,
    },
    /// An acknowledged order is there with other contents.
    OrderDiffers {
        /// The replica.
        replica: String,
        /// How it was looked for.
        way: &'static str,
        /// The order.
        number: u64,
    },
    /// A ledger holds an order that nobody was told of and no unanswered write explains: done twice, or invented.
    OrderUnexplained {
        /// The replica.
        replica: String,
        /// The order.
        number: u64,
    },
    /// An order is not what its client asked for, or its sum is wrong.
    OrderNotAsAsked {
        /// The order.
        number: u64,
    },
    /// A replica's stock is not initial + restocked − sold.
    StockWrong {
        /// The replica.
        replica: String,
        /// The book.
        book: BookId,
        /// What it should be; a range where restocks have an unknown outcome.
        expected: (u64, u64),
        /// What is there; `None`: the book is not.
        found: Option<u32>,
    },
    /// The copies left that an answer names are not those of the writes before it, in the order of their numbers.
    LeftWrong {
        /// The write's place in the log.
        seq: u64,
        /// The book.
        book: BookId,
        /// What should have been left; negative: more were sold than there were.
        expected: i64,
        /// What the answer says.
        found: u32,
    },
    /// A write was answered before another one was sent, and yet has the higher number.
    RealTimeOrderBroken {
        /// The later one.
        seq: u64,
        /// The higher number that was answered before it was sent.
        answered_before: u64,
    },
    /// An order's number was given a second time, or went back, in one ledger.
    LedgerOutOfOrder {
        /// The replica.
        replica: String,
        /// The number.
        number: u64,
    },
}

impl Violation {
    /// Its name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotFinished { .. } => "not_finished",
            Self::NotConverged { .. } => "not_converged",
            Self::StateHashDiffers { .. } => "state_hash_differs",
            Self::NumberUsedTwice { .. } => "number_used_twice",
            Self::OrderLost { .. } => "order_lost",
            Self::OrderDiffers { .. } => "order_differs",
            Self::OrderUnexplained { .. } => "order_unexplained",
            Self::OrderNotAsAsked { .. } => "order_not_as_asked",
            Self::StockWrong { .. } => "stock_wrong",
            Self::LeftWrong { .. } => "left_wrong",
            Self::RealTimeOrderBroken { .. } => "real_time_order_broken",
            Self::LedgerOutOfOrder { .. } => "ledger_out_of_order",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinished { why } => write!(f, "not finished: {why}"),
            Self::NotConverged { applied } => write!(f, "the replicas do not converge: {applied:?}"),
            Self::StateHashDiffers { hashes } => write!(f, "the replicas' states differ: {hashes:x?}"),
            Self::NumberUsedTwice { number } => write!(f, "order number {number} was given to two orders"),
            Self::OrderLost { replica, way, number } => {
                write!(f, "order {number} was acknowledged and is lost: {replica} has no trace of it ({way})")
            }
            Self::OrderDiffers { replica, way, number } => {
                write!(f, "order {number} is another one at {replica} than was acknowledged ({way})")
            }
            Self::OrderUnexplained { replica, number } => {
                write!(f, "order {number} at {replica} was never asked for, or was done twice")
            }
            Self::OrderNotAsAsked { number } => write!(f, "order {number} is not what its client asked for"),
            Self::StockWrong { replica, book, expected: (low, high), found } => {
                let found = found.map_or("is not there".into(), |stock| format!("has {stock} copies"));
                write!(f, "{book} at {replica} {found}; initial + restocked - sold is {low}")?;
                if high > low { write!(f, " to {high}") } else { Ok(()) }
            }
            Self::LeftWrong { seq, book, expected, found } => {
                write!(f, "write {seq} left {found} copies of {book} by its answer, {expected} by those before it")
            }
            Self::RealTimeOrderBroken { seq, answered_before } => {
                write!(f, "write {seq} was sent after {answered_before} was answered, and has the lower number")
            }
            Self::LedgerOutOfOrder { replica, number } => {
                write!(f, "the ledger of {replica} has number {number} twice or in the wrong place")
            }
        }
    }
}

/// Every promise that the evidence shows broken; none: it shows none.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    let facts = Facts::new(evidence, &mut found);
    check_states(&evidence.replicas, &mut found);
    check_as_asked(&evidence.history, &mut found);
    check_real_time(&evidence.history, &mut found);
    for replica in &evidence.replicas {
        check_ledger(replica, &facts, &mut found);
        check_by_number(replica, &facts, &mut found);
        check_stock(replica, evidence, &facts, &mut found);
    }
    check_left(evidence, &facts, &mut found);
    found
}

/// The lines of a cart, to compare carts by.
type Cart = Vec<(BookId, u32)>;

/// What the history says beyond doubt, and what it leaves open.
struct Facts<'a> {
    acknowledged: BTreeMap<u64, &'a OrderRecord>,
    /// Carts whose outcome is unknown, and how many of each.
    unknown_carts: HashMap<Cart, usize>,
    restocked: HashMap<BookId, u64>,
    /// Copies that may or may not have been added.
    maybe_restocked: HashMap<BookId, u64>,
}

impl<'a> Facts<'a> {
    fn new(evidence: &'a Evidence, found: &mut Vec<Violation>) -> Self {
        let mut facts = Self {
            acknowledged: BTreeMap::new(),
            unknown_carts: HashMap::new(),
            restocked: HashMap::new(),
            maybe_restocked: HashMap::new(),
        };
        for operation in &evidence.history {
            match (&operation.action, &operation.answer) {
                (_, Answer::Bought { order }) => {
                    if facts.acknowledged.insert(order.number, order).is_some() {
                        found.push(Violation::NumberUsedTwice { number: order.number });
                    }
                }
                (Action::Restock { book, copies }, Answer::Restocked { .. }) => {
                    *facts.restocked.entry(*book).or_default() += u64::from(*copies);
                }
                (Action::Restock { book, copies }, Answer::Unknown { .. }) => {
                    *facts.maybe_restocked.entry(*book).or_default() += u64::from(*copies);
                }
                (Action::Buy { lines }, Answer::Unknown { .. }) => {
                    let cart = cart(lines.iter().map(|line| (line.book, line.copies)));
                    *facts.unknown_carts.entry(cart).or_default() += 1;
                }
                (_, Answer::Restocked { .. } | Answer::Refused { .. }) => {}
            }
        }
        facts
    }
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

/// Each acknowledged order has the lines of its cart, and their sum.
fn check_as_asked(history: &[Operation], found: &mut Vec<Violation>) {
    for operation in history {
        let Answer::Bought { order } = &operation.answer else { continue };
        let sum: u64 = order.lines.iter().map(|line| line.cost_cents * u64::from(line.copies)).sum();
        let is_as_asked = match &operation.action {
            Action::Buy { lines } => cart(lines.iter().map(|line| (line.book, line.copies))) == cart_of(order),
            Action::Restock { .. } => false,
        };
        if !is_as_asked || sum != order.total_cents {
            found.push(Violation::OrderNotAsAsked { number: order.number });
        }
    }
}

/// What was answered before something else was asked comes before it in the log.
fn check_real_time(history: &[Operation], found: &mut Vec<Violation>) {
    let placed: Vec<(u64, u64, u64)> =
        history.iter().filter_map(|op| op.seq().map(|seq| (op.start_ns, op.end_ns, seq))).collect();
    let (mut by_start, mut by_end) = (placed.clone(), placed);
    by_start.sort_unstable_by_key(|(start_ns, ..)| *start_ns);
    by_end.sort_unstable_by_key(|(_, end_ns, _)| *end_ns);
    let (mut ended, mut highest) = (by_end.iter().peekable(), 0);
    for (start_ns, _, seq) in by_start {
        while let Some((_, _, before)) = ended.next_if(|(_, end_ns, _)| *end_ns < start_ns) {
            highest = highest.max(*before);
        }
        if highest > seq {
            found.push(Violation::RealTimeOrderBroken { seq, answered_before: highest });
        }
    }
}

/// The ledger holds every acknowledged order as it was acknowledged, and no other that nothing explains.
fn check_ledger(replica: &ReplicaView, facts: &Facts<'_>, found: &mut Vec<Violation>) {
    const WAY: &str = "list of orders";
    let name = || replica.name.clone();
    let mut unknown = facts.unknown_carts.clone();
    let mut seen = HashSet::new();
    let mut last = 0;
    for order in &replica.ledger {
        let number = order.number;
        if number <= last {
            found.push(Violation::LedgerOutOfOrder { replica: name(), number });
        }
        last = last.max(number);
        seen.insert(number);
        match facts.acknowledged.get(&number) {
            Some(acknowledged) if **acknowledged == **order => {}
            Some(_) => found.push(Violation::OrderDiffers { replica: name(), way: WAY, number }),
            None => match unknown.get_mut(&cart_of(order)) {
                Some(left) if *left > 0 => *left -= 1,
                _ => found.push(Violation::OrderUnexplained { replica: name(), number }),
            },
        }
    }
    let lost = facts.acknowledged.keys().filter(|number| !seen.contains(*number));
    found.extend(lost.map(|number| Violation::OrderLost { replica: name(), way: WAY, number: *number }));
}

/// Every acknowledged order is found by its number too.
fn check_by_number(replica: &ReplicaView, facts: &Facts<'_>, found: &mut Vec<Violation>) {
    const WAY: &str = "by number";
    let Some(by_number) = &replica.by_number else { return };
    let name = || replica.name.clone();
    for (number, acknowledged) in &facts.acknowledged {
        match by_number.get(number) {
            Some(Some(order)) if **order == **acknowledged => {}
            Some(Some(_)) => found.push(Violation::OrderDiffers { replica: name(), way: WAY, number: *number }),
            Some(None) | None => found.push(Violation::OrderLost { replica: name(), way: WAY, number: *number }),
        }
    }
}

/// Stock = initial + restocked − sold, where sold is what this replica's own ledger says.
fn check_stock(replica: &ReplicaView, evidence: &Evidence, facts: &Facts<'_>, found: &mut Vec<Violation>) {
    let mut sold: HashMap<BookId, u64> = HashMap::new();
    for line in replica.ledger.iter().flat_map(|order| order.lines.iter()) {
        *sold.entry(line.book).or_default() += u64::from(line.copies);
    }
    let books: BTreeSet<BookId> = evidence.initial.keys().chain(replica.stock.keys()).copied().collect();
    for book in books {
        let of = |map: &HashMap<BookId, u64>| map.get(&book).copied().unwrap_or_default();
        let initial = evidence.initial.get(&book).copied().unwrap_or_default();
        // Sold beyond what there was leaves nothing that could be right; it is told as oversold by `LeftWrong`.
        let low = (u64::from(initial) + of(&facts.restocked)).saturating_sub(of(&sold));
        let high = (u64::from(initial) + of(&facts.restocked) + of(&facts.maybe_restocked)).saturating_sub(of(&sold));
        let stock = replica.stock.get(&book).copied();
        if !stock.is_some_and(|stock| (low..=high).contains(&u64::from(stock))) {
            found.push(Violation::StockWrong {
                replica: replica.name.clone(),
                book,
                expected: (low, high),
                found: stock,
            });
        }
    }
}

/// Does everything again, one write after the other in the order of their numbers, and compares what was left.
fn check_left(evidence: &Evidence, facts: &Facts<'_>, found: &mut Vec<Violation>) {
    let mut events: Vec<(u64, BookId, i64, u32)> = Vec::new();
    for operation in &evidence.history {
        if let (Action::Restock { book, copies }, Answer::Restocked { seq, stock }) =
            (&operation.action, &operation.answer)
        {
            events.push((*seq, *book, i64::from(*copies), *stock));
        }
    }
    // The first ledger stands for all: that they are the same is another check.
    for order in evidence.replicas.iter().take(1).flat_map(|replica| &replica.ledger) {
        events.extend(order.lines.iter().map(|line| (order.number, line.book, -i64::from(line.copies), line.left)));
    }
    events.sort_unstable_by_key(|(seq, book, ..)| (*seq, *book));
    let mut stock: HashMap<BookId, i64> =
        evidence.initial.iter().map(|(book, copies)| (*book, i64::from(*copies))).collect();
    for (seq, book, change, left) in events {
        if facts.maybe_restocked.contains_key(&book) {
            continue;
        }
        let own = stock.entry(book).or_default();
        *own += change;
        if *own != i64::from(left) {
            found.push(Violation::LeftWrong { seq, book, expected: *own, found: left });
            // One wrong number must not make all those behind it wrong.
            *own = i64::from(left);
        }
    }
}

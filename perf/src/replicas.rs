//! What every log replica holds, asked of each directly.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use pygmy_proto::limits::ORDERS_PAGE_MAX;
use pygmy_proto::message::{Order, OrderOk, OrderRecord, Orders, OrdersOk, ReplicaStatus, Role, Status, StatusOk};

use crate::ask::Asker;
use crate::error::Error;
use crate::history::{Answer, BookState, Operation, ReplicaView, Shelf};
use crate::shelf;
use crate::target::{Server, Target};

/// Between two looks at replicas that have not converged yet.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Time for the replicas to reach the same position, before a run and behind it.
const CONVERGE_WITHIN: Duration = Duration::from_secs(60);

/// What is in the store before a run of which a history is kept, and the position it is of.
///
/// # Errors
/// When a replica cannot be reached.
pub(crate) fn read_initial(target: &Target) -> Result<(Shelf, u64), Error> {
    let mut replicas = Replicas::connect(&target.replicas())?;
    replicas.converge(0, CONVERGE_WITHIN)?;
    let server = *target.replicas().first().ok_or_else(|| Error::Usage("the cluster has no log replica".into()))?;
    let shelf = shelf::read(&mut Asker::connect(server)?, 0)?;
    Ok((shelf.books.iter().map(|book| (book.id, BookState::from(book))).collect(), shelf.seq))
}

/// What every replica has behind a run that began at `after`.
///
/// # Errors
/// When a replica cannot be reached.
pub(crate) fn look(target: &Target, after: u64, operations: &[Operation]) -> Result<Vec<ReplicaView>, Error> {
    let mut numbers: Vec<u64> = operations
        .iter()
        .filter_map(|operation| match &operation.answer {
            Answer::Bought { order } => Some(order.number),
            _ => None,
        })
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    let last = operations.iter().filter_map(Operation::seq).max().unwrap_or(after);
    let mut replicas = Replicas::connect(&target.replicas())?;
    // Whether they have is judged by what they say themselves.
    replicas.converge(last, CONVERGE_WITHIN)?;
    replicas.view(after, &numbers)
}

/// The log replicas of a cluster, each over its own connection.
#[derive(Debug)]
pub(crate) struct Replicas {
    all: Vec<(Server, Asker)>,
    /// Orders seen so far: ledgers that agree share them.
    seen: HashMap<u64, Arc<OrderRecord>>,
}

impl Replicas {
    /// Connects to each.
    ///
    /// # Errors
    /// When one cannot be reached: all of them are audited or none.
    pub(crate) fn connect(servers: &[&Server]) -> Result<Self, Error> {
        if servers.is_empty() {
            let why = "the audit asks every order and catalog server directly: name the cluster's file with --cluster";
            return Err(Error::Usage(why.into()));
        }
        let all = servers.iter().map(|server| Ok(((*server).clone(), Asker::connect(server)?)));
        Ok(Self { all: all.collect::<Result<_, Error>>()?, seen: HashMap::new() })
    }

    fn statuses(&mut self) -> Result<Vec<ReplicaStatus>, Error> {
        let status = |(server, asker): &mut (Server, Asker)| {
            let status: StatusOk = asker.ask(&Status {})?;
            let why = || format!("{} says that it holds no log: is its role right in the file?", status.name);
            status.replica.clone().ok_or_else(|| Error::Unreachable { address: server.address.clone(), why: why() })
        };
        self.all.iter_mut().map(status).collect()
    }

    /// Waits until all stand at one position at or above `floor`, twice in a row; whether they did in time.
    ///
    /// # Errors
    /// When one stops answering.
    pub(crate) fn converge(&mut self, floor: u64, within: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + within;
        let mut before = None;
        loop {
            let statuses = self.statuses()?;
            let applied = statuses[0].applied;
            let is_one = applied >= floor && statuses.iter().all(|status| status.applied == applied);
            if is_one && before == Some(applied) {
                return Ok(true);
            }
            before = is_one.then_some(applied);
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What each holds: its state, its orders above `after`, and on order servers `numbers` one by one.
    ///
    /// # Errors
    /// When one stops answering.
    pub(crate) fn view(&mut self, after: u64, numbers: &[u64]) -> Result<Vec<ReplicaView>, Error> {
        let statuses = self.statuses()?;
        let mut views = Vec::with_capacity(self.all.len());
        for ((server, asker), status) in self.all.iter_mut().zip(statuses) {
            let books = shelf::read(asker, 0)?.books;
            let ledger = read_ledger(asker, after, &mut self.seen)?;
            let by_number = match server.role {
                Role::Order => Some(read_by_number(asker, numbers, &mut self.seen)?),
                _ => None,
            };
            views.push(ReplicaView {
                name: server.name.clone(),
                applied: status.applied,
                state_hash: status.state_hash,
                books: books.iter().map(|book| (book.id, BookState::from(book))).collect(),
                ledger,
                by_number,
            });
        }
        Ok(views)
    }
}

/// The orders above `after`, in the order in which the ledger gives them, turned round.
fn read_ledger(
    asker: &mut Asker,
    after: u64,
    seen: &mut HashMap<u64, Arc<OrderRecord>>,
) -> Result<Vec<Arc<OrderRecord>>, Error> {
    let (mut ledger, mut before) = (Vec::new(), None);
    loop {
        let page: OrdersOk = asker.ask(&Orders { floor: 0, book: None, limit: ORDERS_PAGE_MAX, before })?;
        let orders = page.orders.into_vec();
        let is_last = page.next.is_none() || orders.iter().any(|order| order.number <= after);
        ledger.extend(orders.into_iter().filter(|order| order.number > after).map(|order| share(order, seen)));
        before = page.next;
        if is_last {
            ledger.reverse();
            return Ok(ledger);
        }
    }
}

fn read_by_number(
    asker: &mut Asker,
    numbers: &[u64],
    seen: &mut HashMap<u64, Arc<OrderRecord>>,
) -> Result<HashMap<u64, Option<Arc<OrderRecord>>>, Error> {
    let questions = numbers.iter().map(|number| Order { floor: 0, number: *number });
    let answers = asker.ask_each::<_, OrderOk>(questions)?;
    Ok(numbers
        .iter()
        .zip(answers)
        .map(|(number, answer)| (*number, answer.ok().map(|ok| share(ok.order, seen))))
        .collect())
}

/// The same order in one place, if it is the same.
fn share(order: OrderRecord, seen: &mut HashMap<u64, Arc<OrderRecord>>) -> Arc<OrderRecord> {
    match seen.get(&order.number) {
        Some(known) if **known == order => known.clone(),
        Some(_) => Arc::new(order),
        None => {
            let order = Arc::new(order);
            seen.insert(order.number, order.clone());
            order
        }
    }
}

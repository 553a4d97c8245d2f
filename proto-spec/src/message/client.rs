//! What clients ask and are answered. In every read, `floor` is a log position the answer must not lie before (0: any),
//! and in every answer `seq` is the position it reflects.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::epoch::Swap;
use super::handshake::{Epoch, Role};
use crate::error::{ErrorBody, ErrorCode};
use crate::limits::{
    ADDRESS_LEN_MAX, CART_LINES_MAX, COPIES_MAX, COST_CENTS_MAX, NODES_MAX, ORDERS_PAGE_MAX, PAGE_MAX, PUT_BOOKS_MAX,
    REPLICAS_MAX,
};
use crate::types::{BookId, Bounded, Name, Text, Title, Topic};

/// A book as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Book {
    /// Its id.
    pub id: BookId,
    /// Its title.
    pub title: Title,
    /// Its topic.
    pub topic: Topic,
    /// Price of a copy, in cents.
    pub cost_cents: u64,
    /// Copies that can be bought.
    pub stock: u32,
    /// Position in the log of its last change.
    pub changed_seq: u64,
}

/// A book as it is brought in.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct NewBook {
    /// Its id.
    pub id: BookId,
    /// Its title.
    pub title: Title,
    /// Its topic.
    pub topic: Topic,
    /// Price of a copy, in cents.
    pub cost_cents: u64,
    /// Copies that can be bought.
    pub stock: u32,
}

/// One line of a cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Line {
    /// The book.
    pub book: BookId,
    /// Copies wanted, 1 to 1,000,000.
    pub copies: u32,
}

/// The lines of a cart, each book once.
pub type Lines = Bounded<Line, CART_LINES_MAX>;

/// Registers a session. Its id is the log position of the registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct OpenSession {}

/// The answer to [`OpenSession`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct SessionOpened {
    /// The session's id.
    pub session: u64,
}

/// One book by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Lookup {
    /// Not older than this.
    pub floor: u64,
    /// The book.
    pub book: BookId,
}

/// The answer to [`Lookup`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct LookupOk {
    /// As of.
    pub seq: u64,
    /// The book.
    pub book: Book,
}

/// Books of a topic in ascending order of id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Search {
    /// Not older than this.
    pub floor: u64,
    /// The topic, exactly.
    pub topic: Topic,
    /// Books wanted on this page, 1 to 256.
    pub limit: u32,
    /// Only ids above this one: the `next` of the page before.
    pub after: Option<BookId>,
}

/// The answer to [`Search`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct SearchOk {
    /// As of.
    pub seq: u64,
    /// Books of the topic in all.
    pub total: u64,
    /// This page.
    pub books: Bounded<Book, { PAGE_MAX as usize }>,
    /// Cursor of the next page; none on the last.
    pub next: Option<BookId>,
}

/// The topics in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Topics {
    /// Not older than this.
    pub floor: u64,
    /// Topics wanted on this page, 1 to 256.
    pub limit: u32,
    /// Only topics above this one.
    pub after: Option<Topic>,
}

/// A topic and how many books it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct TopicCount {
    /// The topic.
    pub topic: Topic,
    /// Its books.
    pub books: u64,
}

/// The answer to [`Topics`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct TopicsOk {
    /// As of.
    pub seq: u64,
    /// Topics in all.
    pub total: u64,
    /// This page.
    pub topics: Bounded<TopicCount, { PAGE_MAX as usize }>,
    /// Cursor of the next page; none on the last.
    pub next: Option<Topic>,
}

/// Place in the list of all books: by topic, then by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct BooksCursor {
    /// Topic of the last book seen.
    pub topic: Topic,
    /// Its id.
    pub id: BookId,
}

/// All books by topic and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Books {
    /// Not older than this.
    pub floor: u64,
    /// Books wanted on this page, 1 to 256.
    pub limit: u32,
    /// Only books after this one.
    pub after: Option<BooksCursor>,
}

/// The answer to [`Books`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct BooksOk {
    /// As of.
    pub seq: u64,
    /// Books in all.
    pub total: u64,
    /// This page.
    pub books: Bounded<Book, { PAGE_MAX as usize }>,
    /// Cursor of the next page; none on the last.
    pub next: Option<BooksCursor>,
}

/// One order by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Order {
    /// Not older than this.
    pub floor: u64,
    /// The order's number.
    pub number: u64,
}

/// One line of an order that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct OrderLine {
    /// The book.
    pub book: BookId,
    /// Copies sold.
    pub copies: u32,
    /// Price of a copy when it was sold, in cents.
    pub cost_cents: u64,
    /// Copies left right after this order.
    pub left: u32,
}

/// An order that was done.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct OrderRecord {
    /// Its number: its position in the log.
    pub number: u64,
    /// When it was ordered, in microseconds since 1970-01-01 UTC, by the ordering server's clock; rises with the number.
    pub time_us: u64,
    /// Sum over the lines, in cents.
    pub total_cents: u64,
    /// Its lines.
    pub lines: Bounded<OrderLine, CART_LINES_MAX>,
}

/// The answer to [`Order`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct OrderOk {
    /// As of.
    pub seq: u64,
    /// The order.
    pub order: OrderRecord,
}

/// The latest orders, newest first, of one book or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Orders {
    /// Not older than this.
    pub floor: u64,
    /// Only orders with this book.
    pub book: Option<BookId>,
    /// Orders wanted on this page, 1 to 40.
    pub limit: u32,
    /// Only orders with a number below this one.
    pub before: Option<u64>,
}

/// The answer to [`Orders`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct OrdersOk {
    /// As of.
    pub seq: u64,
    /// Orders in all (of the book, when one was named).
    pub total: u64,
    /// This page.
    pub orders: Bounded<OrderRecord, { ORDERS_PAGE_MAX as usize }>,
    /// `before` of the next page; none on the last.
    pub next: Option<u64>,
}

/// What a write does.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// Buys all lines or none.
    Buy {
        /// What to buy.
        lines: Lines,
    },
    /// Adds copies to a book's stock.
    Restock {
        /// The book.
        book: BookId,
        /// Copies to add, 1 to 1,000,000.
        copies: u32,
    },
    /// Changes a book's price.
    Reprice {
        /// The book.
        book: BookId,
        /// The new price of a copy, in cents.
        cost_cents: u64,
    },
    /// Adds a book that is not there yet.
    Add {
        /// The book.
        book: NewBook,
    },
    /// Takes a book out of the store. Orders keep naming it.
    Retire {
        /// The book.
        book: BookId,
    },
    /// Makes books be as given, whether they were there or not; each id once. Repeating it changes nothing.
    Put {
        /// The books.
        books: Bounded<NewBook, PUT_BOOKS_MAX>,
    },
}

fn invalid(subject: &str, limit: u64, actual: u64, detail: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidArgument).subject(subject).limit(limit, actual).detail(detail)
}

fn check_copies(book: &BookId, copies: u32) -> Result<(), ErrorBody> {
    if (1..=COPIES_MAX).contains(&copies) {
        return Ok(());
    }
    let detail = format!("{copies} copies of {book}: it must be 1 to {COPIES_MAX}");
    Err(invalid(book, COPIES_MAX.into(), copies.into(), &detail))
}

fn check_cost(book: &BookId, cents: u64) -> Result<(), ErrorBody> {
    if cents <= COST_CENTS_MAX {
        return Ok(());
    }
    let detail = format!("{book} would cost {cents} cents: the most is {COST_CENTS_MAX}");
    Err(invalid(book, COST_CENTS_MAX, cents, &detail))
}

fn check_new_book(book: &NewBook) -> Result<(), ErrorBody> {
    crate::types::title(&book.title).map_err(|e| invalid(&book.id, 0, 0, &e.to_string()))?;
    crate::types::topic(&book.topic).map_err(|e| invalid(&book.id, 0, 0, &e.to_string()))?;
    check_cost(&book.id, book.cost_cents)
}

/// Refuses an empty list in `field` and one that names a book twice.
fn check_distinct(mut ids: Vec<&BookId>, field: &str, what: &str) -> Result<(), ErrorBody> {
    if ids.is_empty() {
        return Err(invalid(field, 1, 0, &format!("{what} must have at least one line")));
    }
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(invalid(pair[0], 1, 2, &format!("{what} names {} twice", pair[0]))),
        None => Ok(()),
    }
}

impl Command {
    /// Checks everything that can be checked without the store's state.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the book and the limit.
    pub fn check(&self) -> Result<(), ErrorBody> {
        match self {
            Command::Buy { lines } => {
                if let [line] = &lines[..] {
                    return check_copies(&line.book, line.copies);
                }
                check_distinct(lines.iter().map(|line| &line.book).collect(), "lines", "a cart")?;
                lines.iter().try_for_each(|line| check_copies(&line.book, line.copies))
            }
            Command::Restock { book, copies } => check_copies(book, *copies),
            Command::Reprice { book, cost_cents } => check_cost(book, *cost_cents),
            Command::Add { book } => check_new_book(book),
            Command::Retire { .. } => Ok(()),
            Command::Put { books } => {
                check_distinct(books.iter().map(|book| &book.id).collect(), "books", "a put")?;
                books.iter().try_for_each(check_new_book)
            }
        }
    }
}

/// A write. (session, counter) is its identity: however often it is sent, it takes effect once.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Write {
    /// The session, as given by [`SessionOpened`].
    pub session: u64,
    /// Number of this write in the session, from 1.
    pub counter: u64,
    /// Lowest counter whose answer the client still wants; results below are forgotten.
    pub first_incomplete: u64,
    /// What to do.
    pub command: Command,
}

/// What a write did.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// The order as done.
    Bought {
        /// The order.
        order: OrderRecord,
    },
    /// The stock after the restock.
    Restocked {
        /// The book as it is now.
        book: Book,
    },
    /// The price was changed.
    Repriced {
        /// The book as it is now.
        book: Book,
        /// The price before, in cents.
        old_cost_cents: u64,
    },
    /// The book is in the store.
    Added {
        /// The book as it is now.
        book: Book,
    },
    /// The book is no longer in the store.
    Retired {
        /// The book as it was.
        book: Book,
    },
    /// The books are as given.
    Put {
        /// Books that are new.
        added: u32,
        /// Books that were changed.
        changed: u32,
        /// Books that were so already.
        unchanged: u32,
    },
}

/// The answer to [`Write`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct WriteOk {
    /// Position of the write in the log.
    pub seq: u64,
    /// What it did.
    pub outcome: Outcome,
}

/// How the answering server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Status {}

/// What a server is given of the requests that go to the servers of its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    /// Nothing: its link is down, or this node passes nothing to servers of its role.
    None,
    /// As much as the others.
    Full,
    /// Less, growing with each answer: it has come or come back lately.
    Starting,
    /// Only what nobody else takes, for a moment: it has handed something back, or lags.
    Spared,
    /// Only what nobody else takes: it is not heard.
    Suspected,
}

/// One link to another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct LinkStatus {
    /// Number of the other node.
    pub node: u16,
    /// Whether the link is up.
    pub up: bool,
    /// Requests passed to it and not answered.
    pub in_flight: u32,
    /// What it is given.
    pub share: Share,
    /// Requests that were taken from it and passed to another server, for it was gone or not heard.
    pub moved: u64,
}

/// How a node's failure detector judges another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// It is heard.
    Green,
    /// It has been silent for a while, or it cannot be told.
    Yellow,
    /// It is taken for gone.
    Red,
}

/// Why it is judged so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerReason {
    /// It was heard lately.
    Heard,
    /// It never was.
    NeverHeard,
    /// It has said nothing since.
    Silent,
    /// It is heard, and says that it does not hear.
    OneWay,
    /// Its connection is gone.
    Reset,
    /// The judging node's own loop was late: it accuses nobody.
    OwnLoopLate,
}

/// Another node as a node's failure detector sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct PeerStatus {
    /// Number of the other node.
    pub node: u16,
    /// What is thought of it.
    pub state: PeerState,
    /// Why.
    pub reason: PeerReason,
    /// Milliseconds since it was heard last, if it ever was.
    pub heard_ms: Option<u32>,
    /// How many milliseconds of silence make it suspected.
    pub limit_ms: u32,
    /// How often it was suspected although its connection stood.
    pub suspicions: u64,
    /// How often it came back from that.
    pub returns: u64,
}

/// The answer to [`Status`]. Counters are since the process started.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct StatusOk {
    /// Its number.
    pub node: u16,
    /// Its name.
    pub name: Name,
    /// What it is.
    pub role: Role,
    /// Milliseconds since its start.
    pub uptime_ms: u64,
    /// Client connections.
    pub clients: u32,
    /// Requests in work.
    pub jobs: u32,
    /// Requests answered.
    pub answered: u64,
    /// Links to other servers.
    pub links: Bounded<LinkStatus, NODES_MAX>,
    /// The other nodes of every role, by number, as its failure detector sees them.
    pub peers: Bounded<PeerStatus, NODES_MAX>,
    /// For log replicas.
    pub replica: Option<ReplicaStatus>,
    /// For fronts.
    pub front: Option<FrontStatus>,
    /// What it has asked of the system.
    pub io: IoStatus,
}

/// What a server has asked of the system since its start. It counts its own calls; those that its memory makes are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, Serialize)]
pub struct IoStatus {
    /// System calls.
    pub system_calls: u64,
    /// Those of them after which something was durable: syncs, and writes that sync themselves.
    pub syncs: u64,
    /// Bytes that came over sockets, headers of TCP and UDP not counted.
    pub received: u64,
    /// Bytes that went.
    pub sent: u64,
    /// Bytes that were written into files.
    pub written: u64,
}

/// How a front's cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, Serialize)]
pub struct FrontStatus {
    /// Reads answered from the cache.
    pub hits: u64,
    /// Reads that waited for the feed before they were.
    pub delayed: u64,
    /// Reads that could have been answered from the cache and were not.
    pub misses: u64,
    /// Misses that waited for another one's answer.
    pub coalesced: u64,
    /// Values that the feed changed or took out.
    pub invalidations: u64,
    /// Answers of catalogs that were not kept, for what they say might have changed since.
    pub refused: u64,
    /// Times that the whole cache was emptied.
    pub emptied: u64,
    /// Milliseconds since the latest answered barrier was sent; none: no barrier was answered yet.
    pub fresh_age_ms: Option<u64>,
    /// Position up to which the feed has been taken in.
    pub processed: u64,
    /// Number of the catalog that feeds it; 0: none does.
    pub feed: u16,
    /// Values kept.
    pub entries: u64,
    /// What they take, in bytes.
    pub bytes: u64,
    /// The most that they may take; 0: there is no cache.
    pub bytes_max: u64,
    /// Requests that wait for their turn, since as many as may be are in work.
    pub waiting: u32,
}

/// How a log replica is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct ReplicaStatus {
    /// Whether it counts in majorities.
    pub voter: bool,
    /// Voters in the configuration.
    pub voters: u32,
    /// Id of the latest configuration in its log.
    pub config_id: u64,
    /// The replacement that is half done in that configuration.
    pub swap: Option<Swap>,
    /// Its epoch.
    pub epoch: Epoch,
    /// Node number of the token's holder as far as it knows; 0: unknown.
    pub holder: u16,
    /// Passings of the token as far as it knows.
    pub hop: u64,
    /// End of its log.
    pub last_seq: u64,
    /// Durable up to.
    pub durable: u64,
    /// Committed up to, as far as it knows.
    pub committed: u64,
    /// Applied up to.
    pub applied: u64,
    /// Hash of the whole state at `applied`; equal at equal `applied` on every replica. In JSON 16 hex digits, for many
    /// readers of JSON round numbers above 2^53.
    #[serde(serialize_with = "as_hex")]
    pub state_hash: u64,
    /// Books in the store.
    pub books: u64,
    /// Orders in the ledger.
    pub orders: u64,
    /// Sessions kept.
    pub sessions: u64,
    /// The voters of that configuration, and after them the log replicas that only follow, as this one sees them.
    pub members: Bounded<MemberStatus, REPLICAS_MAX>,
}

fn as_hex<S: serde::Serializer>(hash: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{hash:016x}"))
}

/// One log replica, as another one sees it or as it sees itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize)]
pub struct MemberStatus {
    /// Its node number.
    pub node: u16,
    /// Identity of its log.
    #[serde(serialize_with = "as_hex_digits")]
    pub log_uuid: [u8; 16],
    /// `host:port` on which it listens; empty: as in `cluster.toml`.
    pub address: Text<ADDRESS_LEN_MAX>,
    /// Whether the configuration names its log as a voter.
    pub voter: bool,
    /// Whether its vote does not count for the time being, by its own word.
    pub withheld: bool,
    /// Whether both hear each other.
    pub heard: bool,
    /// End of its log, as last heard.
    pub last_seq: u64,
    /// Durable there in the current epoch, as last heard.
    pub durable: u64,
}

/// Serializes an identity as hexadecimal digits.
pub(super) fn as_hex_digits<S: serde::Serializer>(id: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:032x}", u128::from_be_bytes(*id)))
}

/// Puts one log in the place of another among the voters. To a catalog, by a client that has shown the cluster's key.
/// Asked again it goes on where it stands, so that it may be repeated after any failure.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Replace {
    /// Identity of the log that goes.
    pub old: [u8; 16],
    /// Identity of the log that comes.
    pub new: [u8; 16],
    /// Node number of the process that keeps it.
    pub node: u16,
    /// `host:port` on which that process listens.
    pub address: Text<ADDRESS_LEN_MAX>,
}

/// The answer to [`Replace`]: the first of its changes is committed. The second follows by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct ReplaceOk {
    /// Position of that change in the log.
    pub seq: u64,
}

//! The client that works on its caller's thread: one call at a time, with the least latency.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use pygmy_proto::limits::{ORDERS_PAGE_MAX, PAGE_MAX};
use pygmy_proto::message::{
    Book, Books, BooksCursor, BooksOk, Command, HelloOk, Line, Lookup, LookupOk, NewBook, Order, OrderOk, OrderRecord,
    Orders, OrdersOk, Search, SearchOk, Span, StatusOk, TopicCount, Topics, TopicsOk,
};
use pygmy_proto::types::Bounded;
use pygmy_proto::{BookId, ErrorBody, ErrorCode, Topic};

use crate::engine::{Action, Engine, Options, Session, Token, ms};
use crate::error::{Cause, Error};
use crate::net::{self, Clock, nanos};
use crate::pages::Pages;
use crate::request::{Asks, Completion, Reply, Request, Written};

/// Longest a read on the socket blocks; a shorter one is set only where a timer is nearer, to spare a system call each.
const TICK: Duration = Duration::from_millis(50);
/// Longest a write on the socket blocks.
const WRITE_PATIENCE: Duration = Duration::from_secs(1);
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 64 * 1024;
/// Deadline of a call unless [`Client::set_timeout`] says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// How a call went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Where the time went in the servers, if [`Client::set_trace`] asked for that.
    pub trace: Vec<Span>,
    /// Number of the node that made the answer; 0 when there is none.
    pub node: u16,
    /// Nanoseconds from the call to its end.
    pub elapsed_ns: u64,
    /// How often it was sent.
    pub sends: u32,
}

/// A client whose calls block their caller. It connects at its first call.
///
/// ```no_run
/// use pygmy_client::{Client, Error, Options};
///
/// let mut client = Client::new(Options::new(["127.0.0.1:7401", "127.0.0.1:7402"]));
/// match client.buy(&[("rpcdummies".parse()?, 2)]) {
///     Ok(done) => println!("done at {}", done.seq),
///     Err(Error::Refused(why)) => println!("the store said no: {why}"),
///     Err(Error::OutcomeUnknown { session, counter, .. }) => println!("to be settled: {session}:{counter}"),
///     Err(error) => println!("not done: {error}"),
/// }
/// # Ok::<(), pygmy_proto::types::ValueError>(())
/// ```
#[derive(Debug)]
pub struct Client {
    engine: Engine,
    fronts: Vec<String>,
    socket: Option<Socket>,
    clock: Clock,
    timeout: Duration,
    asks: Asks,
    last: Report,
    buffer: Box<[u8]>,
}

#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    read_timeout: Duration,
}

impl Client {
    /// A client for these front ends.
    pub fn new(options: Options) -> Self {
        Self {
            fronts: options.fronts.clone(),
            engine: Engine::new(options),
            socket: None,
            clock: Clock::start(),
            timeout: TIMEOUT_DEFAULT,
            asks: Asks::default(),
            last: Report::default(),
            buffer: vec![0; READ_BYTES].into(),
        }
    }

    /// Gives every further call this long.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Asks the servers to tell, in [`Self::last`], where the time of every further call goes.
    pub fn set_trace(&mut self, trace: bool) {
        self.asks.trace = trace;
    }

    /// Asks that every further read reflects whatever was answered to anybody before it: see [`Asks::fresh`].
    pub fn set_fresh(&mut self, fresh: bool) {
        self.asks.fresh = fresh;
    }

    /// Asks that every further read goes past what a front end keeps itself: see [`Asks::no_cache`].
    pub fn set_no_cache(&mut self, no_cache: bool) {
        self.asks.no_cache = no_cache;
    }

    /// How the latest call went.
    pub fn last(&self) -> &Report {
        &self.last
    }

    /// The highest log position seen; no read is answered from an earlier one.
    pub fn floor(&self) -> u64 {
        self.engine.floor()
    }

    /// Asks all further reads not to be answered from before `seq`.
    pub fn raise_floor(&mut self, seq: u64) {
        self.engine.raise_floor(seq);
    }

    /// The session in use.
    pub fn session(&self) -> Option<&Session> {
        self.engine.session()
    }

    /// Goes on with a session that was registered earlier.
    pub fn resume_session(&mut self, session: Session) {
        self.engine.resume_session(session);
    }

    /// Connects, if that has not been done, and says who is at the other end.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub fn connect(&mut self) -> Result<HelloOk, Error> {
        if self.engine.server().is_none() {
            self.status()?;
        }
        self.engine.server().cloned().ok_or(Error::Closed)
    }

    /// Who is at the other end, while there is a connection.
    pub fn server(&self) -> Option<&HelloOk> {
        self.engine.server()
    }

    /// Makes any call. The other methods are this one with their types spelled out.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn call(&mut self, request: Request) -> Result<Reply, Error> {
        let now_ns = self.clock.now_ns();
        let token = self.engine.submit(now_ns, request, now_ns.saturating_add(nanos(self.timeout)), self.asks);
        let Completion { result, trace, node, elapsed_ns, sends, .. } = self.drive(token);
        self.last = Report { trace, node, elapsed_ns, sends };
        result
    }

    /// Does what the engine wants until the call has ended, as it does at its deadline at the latest.
    fn drive(&mut self, token: Token) -> Completion {
        loop {
            while let Some(action) = self.engine.poll_action() {
                self.perform(action);
            }
            if let Some((ended, completion)) = self.engine.poll_completion() {
                if ended == token {
                    return completion;
                }
            } else if self.flush() {
                self.wait();
            }
        }
    }

    fn perform(&mut self, action: Action) {
        self.socket = None;
        let Action::Connect { front } = action else { return };
        let address = self.fronts.get(front).map_or("", String::as_str);
        let left_ns = self.engine.next_timeout().map_or(u64::MAX, |at| at.saturating_sub(self.clock.now_ns()));
        let opened = net::connect(address, CONNECT_PATIENCE.min(Duration::from_nanos(left_ns))).and_then(Socket::new);
        let now_ns = self.clock.now_ns();
        match opened {
            Ok(socket) => {
                self.socket = Some(socket);
                self.engine.on_connected(now_ns);
            }
            Err(cause) => self.engine.on_disconnected(now_ns, cause),
        }
    }

    /// Writes all there is. False when the connection was lost over it.
    fn flush(&mut self) -> bool {
        let bytes = self.engine.output();
        let Some(socket) = &mut self.socket else { return true };
        if bytes.is_empty() {
            return true;
        }
        let (count, written) = (bytes.len(), socket.stream.write_all(bytes));
        match written {
            Ok(()) => self.engine.consume_output(self.clock.now_ns(), count),
            Err(error) => self.lose(net::lost(&error)),
        }
        self.socket.is_some()
    }

    fn lose(&mut self, cause: Cause) {
        self.socket = None;
        self.engine.on_disconnected(self.clock.now_ns(), cause);
    }

    /// Waits for bytes or for the engine's next timer, whichever comes first.
    fn wait(&mut self) {
        let now_ns = self.clock.now_ns();
        let left_ns = self.engine.next_timeout().map_or(ms(1), |at| at.saturating_sub(now_ns));
        // What came while nobody read, between two calls, is read before a server is taken for silent.
        let left = Duration::from_nanos(left_ns);
        let Some(socket) = &mut self.socket else {
            std::thread::sleep(left);
            return self.engine.on_timeout(self.clock.now_ns());
        };
        match socket.read(&mut self.buffer, left) {
            Ok(0) => self.lose(net::ended()),
            Ok(count) => {
                self.engine.on_bytes(self.clock.now_ns(), &self.buffer[..count]);
                // Whoever never stops talking keeps no call beyond its deadline.
                if left_ns == 0 {
                    self.engine.on_timeout(self.clock.now_ns());
                }
            }
            Err(error) if is_timeout(&error) => self.engine.on_timeout(self.clock.now_ns()),
            Err(error) => self.lose(net::lost(&error)),
        }
    }
}

impl Socket {
    fn new(stream: TcpStream) -> Result<Self, Cause> {
        stream.set_write_timeout(Some(WRITE_PATIENCE)).map_err(|error| net::lost(&error))?;
        stream.set_read_timeout(Some(TICK)).map_err(|error| net::lost(&error))?;
        Ok(Self { stream, read_timeout: TICK })
    }

    fn read(&mut self, buffer: &mut [u8], left: Duration) -> io::Result<usize> {
        // Below a microsecond the system would take the timeout for none at all.
        let wanted = left.clamp(Duration::from_micros(1), TICK);
        if wanted != self.read_timeout {
            self.stream.set_read_timeout(Some(wanted))?;
            self.read_timeout = wanted;
        }
        self.stream.read(buffer)
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// Takes the reply of the kind that was asked for. The engine lets no other kind pass.
macro_rules! expect {
    ($reply:expr, $kind:ident) => {
        match $reply? {
            Reply::$kind(ok) => Ok(ok),
            other => Err(mismatch(&other)),
        }
    };
}

fn mismatch(reply: &Reply) -> Error {
    Error::Refused(ErrorBody::new(ErrorCode::Malformed).detail(&format!("an answer of another kind came: {reply:?}")))
}

fn too_many(field: &str, what: &str, limit: usize, actual: usize) -> Error {
    let detail = format!("{what} has {actual} lines, the limit is {limit}");
    let error = ErrorBody::new(ErrorCode::InvalidArgument).subject(field);
    Error::InvalidInput(error.limit(limit as u64, actual as u64).detail(&detail))
}

/// The lines of a cart as a command.
///
/// # Errors
/// [`Error::InvalidInput`] when there are too many.
pub(crate) fn cart(lines: &[(BookId, u32)]) -> Result<Command, Error> {
    let limit = pygmy_proto::limits::CART_LINES_MAX;
    let lines: Vec<Line> = lines.iter().map(|(book, copies)| Line { book: *book, copies: *copies }).collect();
    let lines = Bounded::new(lines).map_err(|lines| too_many("lines", "a cart", limit, lines.len()))?;
    Ok(Command::Buy { lines })
}

/// Books to be put as a command.
///
/// # Errors
/// [`Error::InvalidInput`] when there are too many.
pub(crate) fn put(books: Vec<NewBook>) -> Result<Command, Error> {
    let limit = pygmy_proto::limits::PUT_BOOKS_MAX;
    Ok(Command::Put { books: Bounded::new(books).map_err(|books| too_many("books", "a put", limit, books.len()))? })
}

/// Reads. Each fails as [`Error`] says.
#[allow(clippy::missing_errors_doc)]
impl Client {
    /// One book by its id.
    pub fn lookup(&mut self, book: BookId) -> Result<LookupOk, Error> {
        expect!(self.call(Request::Lookup(Lookup { floor: 0, book })), Lookup)
    }

    /// One page of the books of a topic; `after` is `next` of the page before.
    pub fn search(&mut self, topic: Topic, limit: u32, after: Option<BookId>) -> Result<SearchOk, Error> {
        expect!(self.call(Request::Search(Search { floor: 0, topic, limit, after })), Search)
    }

    /// All books of a topic, fetched page by page as they are taken.
    ///
    /// ```no_run
    /// # use pygmy_client::{Client, Options};
    /// # let mut client = Client::new(Options::new(["127.0.0.1:7401"]));
    /// let topic = pygmy_proto::types::topic("distributed-systems")?;
    /// for book in client.search_all(topic) {
    ///     let book = book?;
    ///     println!("{} {}", book.id, book.stock);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn search_all(&mut self, topic: Topic) -> impl Iterator<Item = Result<Book, Error>> + '_ {
        Pages::new(self, move |client, after| {
            let page = client.search(topic, PAGE_MAX, after)?;
            Ok((page.books.into_vec(), page.next))
        })
    }

    /// One page of the topics.
    pub fn topics(&mut self, limit: u32, after: Option<Topic>) -> Result<TopicsOk, Error> {
        expect!(self.call(Request::Topics(Topics { floor: 0, limit, after })), Topics)
    }

    /// All topics.
    pub fn topics_all(&mut self) -> impl Iterator<Item = Result<TopicCount, Error>> + '_ {
        Pages::new(self, |client, after| {
            let page = client.topics(PAGE_MAX, after)?;
            Ok((page.topics.into_vec(), page.next))
        })
    }

    /// One page of all books.
    pub fn books(&mut self, limit: u32, after: Option<BooksCursor>) -> Result<BooksOk, Error> {
        expect!(self.call(Request::Books(Books { floor: 0, limit, after })), Books)
    }

    /// All books, by topic and id. Each page reflects a position of its own, never an earlier one than the page before.
    pub fn books_all(&mut self) -> impl Iterator<Item = Result<Book, Error>> + '_ {
        Pages::new(self, |client, after| {
            let page = client.books(PAGE_MAX, after)?;
            Ok((page.books.into_vec(), page.next))
        })
    }

    /// One order by its number.
    pub fn order(&mut self, number: u64) -> Result<OrderOk, Error> {
        expect!(self.call(Request::Order(Order { floor: 0, number })), Order)
    }

    /// One page of the latest orders, newest first.
    pub fn orders(&mut self, book: Option<BookId>, limit: u32, before: Option<u64>) -> Result<OrdersOk, Error> {
        expect!(self.call(Request::Orders(Orders { floor: 0, book, limit, before })), Orders)
    }

    /// All orders, newest first.
    pub fn orders_all(&mut self, book: Option<BookId>) -> impl Iterator<Item = Result<OrderRecord, Error>> + '_ {
        Pages::new(self, move |client, before| {
            let page = client.orders(book, ORDERS_PAGE_MAX, before)?;
            Ok((page.orders.into_vec(), page.next))
        })
    }

    /// How the server at the other end is.
    pub fn status(&mut self) -> Result<StatusOk, Error> {
        expect!(self.call(Request::Status), Status).map(|status| *status)
    }
}

/// Writes. Each is done exactly once however often it has to be sent, and fails as [`Error`] says.
#[allow(clippy::missing_errors_doc)]
impl Client {
    /// Registers a session, which further writes then use. Without it, the first write does it.
    pub fn open_session(&mut self) -> Result<u64, Error> {
        expect!(self.call(Request::OpenSession), Session)
    }

    /// Any command.
    pub fn write(&mut self, command: Command) -> Result<Written, Error> {
        expect!(self.call(Request::Write(command)), Written)
    }

    /// Learns what became of a write whose outcome is unknown; does it if it was not done.
    ///
    /// ```no_run
    /// # use pygmy_client::{Client, Error, Options, Command};
    /// # let mut client = Client::new(Options::new(["127.0.0.1:7401"]));
    /// let command = Command::Restock { book: "pioneer".parse()?, copies: 10 };
    /// let mut outcome = client.write(command.clone());
    /// while let Err(Error::OutcomeUnknown { session, counter, .. }) = outcome {
    ///     outcome = client.settle(session, counter, command.clone());
    /// }
    /// # Ok::<(), pygmy_proto::types::ValueError>(())
    /// ```
    pub fn settle(&mut self, session: u64, counter: u64, command: Command) -> Result<Written, Error> {
        expect!(self.call(Request::Settle { session, counter, command }), Written)
    }

    /// Buys all lines of a cart, or none.
    pub fn buy(&mut self, lines: &[(BookId, u32)]) -> Result<Written, Error> {
        self.write(cart(lines)?)
    }

    /// Adds copies to a book's stock.
    pub fn restock(&mut self, book: BookId, copies: u32) -> Result<Written, Error> {
        self.write(Command::Restock { book, copies })
    }

    /// Changes a book's price.
    pub fn reprice(&mut self, book: BookId, cost_cents: u64) -> Result<Written, Error> {
        self.write(Command::Reprice { book, cost_cents })
    }

    /// Adds a book that is not there yet.
    pub fn add(&mut self, book: NewBook) -> Result<Written, Error> {
        self.write(Command::Add { book })
    }

    /// Takes a book out of the store.
    pub fn retire(&mut self, book: BookId) -> Result<Written, Error> {
        self.write(Command::Retire { book })
    }

    /// Makes up to 256 books be as given, whether they were there or not.
    pub fn put(&mut self, books: Vec<NewBook>) -> Result<Written, Error> {
        self.write(put(books)?)
    }
}

//! The client for many calls at once: a thread of its own does the I/O, submitting returns at once.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Waker};

use crate::engine::{Action, Engine, Options, Session, Token};
use crate::error::{Cause, Error};
use crate::net::{self, Clock, nanos};
use crate::request::{Asks, Completion, Request};

const WAKE: mio::Token = mio::Token(0);
const READ_BYTES: usize = 256 * 1024;
/// Reads from the socket before what came is answered to; the rest waits for the next turn.
const READS_PER_TURN: usize = 8;
/// `Shared::stop_ns` of a client that goes on.
const NEVER: u64 = u64::MAX;

/// Where the end of a call is told.
enum Sink {
    Callback(Box<dyn FnOnce(Completion) + Send>),
    Channel(Sender<(u64, Completion)>, u64),
}

impl Sink {
    fn tell(self, completion: Completion) {
        match self {
            Sink::Callback(callback) => callback(completion),
            // Whoever dropped the receiver does not want to know.
            Sink::Channel(sender, tag) => drop(sender.send((tag, completion))),
        }
    }
}

struct Submission {
    request: Request,
    since_ns: u64,
    deadline_ns: u64,
    asks: Asks,
    sink: Sink,
}

/// What both sides see.
struct Shared {
    waker: Waker,
    /// Whether the thread may be asleep and must be woken.
    asleep: AtomicBool,
    /// When the thread must end at the latest; it ends before when it has nothing left to do.
    stop_ns: AtomicU64,
}

impl Shared {
    fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // A waker fails only when its poll is gone, and then nobody sleeps.
            drop(self.waker.wake());
        }
    }
}

/// A client with many calls in flight. Calls may be submitted from any number of threads.
///
/// Calls in flight together may be carried out in any order, whatever the order in which they were submitted: whoever
/// needs one after another waits for the end of the first.
///
/// ```no_run
/// use pygmy_client::{Command, Options, Pipelined, Request};
/// use std::time::Duration;
///
/// let client = Pipelined::start(Options::new(["127.0.0.1:7401"]), 10_000)?;
/// let (ended, ends) = crossbeam_channel::unbounded();
/// for tag in 0..1_000 {
///     let command = Command::Restock { book: "pioneer".parse()?, copies: 1 };
///     client.submit_to(Request::Write(command), Duration::from_secs(5), tag, &ended)?;
/// }
/// drop(ended);
/// for (tag, completion) in ends {
///     println!("{tag}: {:?}", completion.result);
/// }
/// client.close(Duration::from_secs(5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Dropping it ends every call at once, each as at its deadline: a write that was sent is of unknown outcome.
/// [`Pipelined::close`] waits for the answers before.
pub struct Pipelined {
    queue: Option<Sender<Submission>>,
    queue_max: usize,
    shared: Arc<Shared>,
    clock: Clock,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Pipelined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipelined").field("queue_max", &self.queue_max).finish_non_exhaustive()
    }
}

impl Pipelined {
    /// Starts the thread. `queue_max` calls can wait beyond those in flight ([`Options::in_flight_max`]).
    ///
    /// # Errors
    /// When the system has no poll or thread to give.
    pub fn start(options: Options, queue_max: usize) -> io::Result<Self> {
        Self::start_in_session(options, queue_max, None)
    }

    /// As [`Self::start`], going on with a session that was registered earlier.
    ///
    /// # Errors
    /// When the system has no poll or thread to give.
    pub fn start_in_session(options: Options, queue_max: usize, session: Option<Session>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let shared = Arc::new(Shared { waker, asleep: AtomicBool::new(false), stop_ns: AtomicU64::new(NEVER) });
        let (queue, submissions) = crossbeam_channel::bounded(queue_max.max(1));
        let clock = Clock::start();
        let (in_flight_max, fronts) = (options.in_flight_max, options.fronts.clone());
        let mut engine = Engine::new(options);
        if let Some(session) = session {
            engine.resume_session(session);
        }
        let worker = Worker {
            engine,
            fronts,
            in_flight_max,
            submissions,
            sinks: HashMap::new(),
            poll,
            socket: None,
            next_socket: WAKE.0 + 1,
            shared: Arc::clone(&shared),
            clock,
            buffer: vec![0; READ_BYTES].into(),
        };
        let thread = std::thread::Builder::new().name("pygmy-client".to_owned()).spawn(move || worker.run())?;
        Ok(Self { queue: Some(queue), queue_max, shared, clock, thread: Some(thread) })
    }

    /// Submits a call, waiting while the queue is full. `ended` runs on the client's own thread and must not block it.
    ///
    /// # Errors
    /// [`Error::Closed`] when the thread is gone.
    pub fn submit(
        &self,
        request: Request,
        timeout: Duration,
        ended: impl FnOnce(Completion) + Send + 'static,
    ) -> Result<(), Error> {
        self.push(self.submission(request, timeout, Asks::default(), Sink::Callback(Box::new(ended))))
    }

    /// As [`Self::submit`], with the end sent to a channel, together with `tag`. The channel must have room: an
    /// unbounded one, or one for as many as are submitted.
    ///
    /// # Errors
    /// [`Error::Closed`] when the thread is gone.
    pub fn submit_to(
        &self,
        request: Request,
        timeout: Duration,
        tag: u64,
        ended: &Sender<(u64, Completion)>,
    ) -> Result<(), Error> {
        self.push(self.submission(request, timeout, Asks::default(), Sink::Channel(ended.clone(), tag)))
    }

    /// As [`Self::submit`], but never waits, and with what is asked for beside the answer.
    ///
    /// # Errors
    /// [`Error::QueueFull`], and [`Error::Closed`] when the thread is gone. `ended` is then not called.
    pub fn try_submit(
        &self,
        request: Request,
        timeout: Duration,
        asks: Asks,
        ended: impl FnOnce(Completion) + Send + 'static,
    ) -> Result<(), Error> {
        let queue = self.queue.as_ref().ok_or(Error::Closed)?;
        let submission = self.submission(request, timeout, asks, Sink::Callback(Box::new(ended)));
        queue.try_send(submission).map_err(|error| match error {
            TrySendError::Full(_) => Error::QueueFull { limit: self.queue_max },
            TrySendError::Disconnected(_) => Error::Closed,
        })?;
        self.shared.wake();
        Ok(())
    }

    fn submission(&self, request: Request, timeout: Duration, asks: Asks, sink: Sink) -> Submission {
        let since_ns = self.clock.now_ns();
        Submission { request, since_ns, deadline_ns: since_ns.saturating_add(nanos(timeout)), asks, sink }
    }

    fn push(&self, submission: Submission) -> Result<(), Error> {
        let queue = self.queue.as_ref().ok_or(Error::Closed)?;
        queue.send(submission).map_err(|_| Error::Closed)?;
        self.shared.wake();
        Ok(())
    }

    /// Waits until every call has ended, `patience` at the most; then ends those that are left.
    pub fn close(mut self, patience: Duration) {
        self.stop(patience);
    }

    fn stop(&mut self, patience: Duration) {
        let stop_ns = self.clock.now_ns().saturating_add(nanos(patience)).min(NEVER - 1);
        self.shared.stop_ns.store(stop_ns, Ordering::SeqCst);
        self.queue = None;
        drop(self.shared.waker.wake());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the client's thread ended in a panic of a callback");
        }
    }
}

impl Drop for Pipelined {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop(Duration::ZERO);
        }
    }
}

/// The connection as the thread sees it.
struct Socket {
    stream: TcpStream,
    token: mio::Token,
    is_connected: bool,
    /// Addresses to be tried if this one does not let itself be connected to.
    others: VecDeque<SocketAddr>,
    can_read: bool,
    can_write: bool,
}

/// The thread's side.
struct Worker {
    engine: Engine,
    fronts: Vec<String>,
    in_flight_max: usize,
    submissions: Receiver<Submission>,
    sinks: HashMap<Token, (Sink, u64)>,
    poll: Poll,
    socket: Option<Socket>,
    next_socket: usize,
    shared: Arc<Shared>,
    clock: Clock,
    buffer: Box<[u8]>,
}

impl Worker {
    fn run(mut self) {
        let mut events = Events::with_capacity(16);
        while !self.is_over() {
            self.take_submissions();
            self.act();
            self.flush();
            self.tell();
            let timeout = self.sleep_time();
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("the client's poll failed: {error}");
                break;
            }
            self.shared.asleep.store(false, Ordering::SeqCst);
            self.note_readiness(&events);
            self.receive();
            let now_ns = self.clock.now_ns();
            if self.engine.next_timeout().is_some_and(|at| at <= now_ns) {
                self.engine.on_timeout(now_ns);
            }
        }
        self.end();
    }

    fn is_over(&self) -> bool {
        let stop_ns = self.shared.stop_ns.load(Ordering::SeqCst);
        let is_idle = self.engine.pending() == 0 && self.submissions.is_empty();
        stop_ns != NEVER && (is_idle || stop_ns <= self.clock.now_ns())
    }

    /// Ends what has not ended; every sink is told.
    fn end(mut self) {
        self.engine.abort(self.clock.now_ns());
        self.tell();
        let now_ns = self.clock.now_ns();
        for Submission { sink, since_ns, .. } in self.submissions.try_iter() {
            let elapsed_ns = now_ns.saturating_sub(since_ns);
            let result = Err(Error::Closed);
            sink.tell(Completion { result, trace: Vec::new(), node: 0, front: 0, elapsed_ns, sends: 0 });
        }
    }

    fn take_submissions(&mut self) {
        while self.engine.pending() < self.in_flight_max {
            match self.submissions.try_recv() {
                Ok(Submission { request, since_ns, deadline_ns, asks, sink }) => {
                    let token = self.engine.submit(self.clock.now_ns(), request, deadline_ns, asks);
                    self.sinks.insert(token, (sink, since_ns));
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    /// Tells the ends, counted from when each call was submitted to this client.
    fn tell(&mut self) {
        while let Some((token, mut completion)) = self.engine.poll_completion() {
            if let Some((sink, since_ns)) = self.sinks.remove(&token) {
                completion.elapsed_ns = self.clock.now_ns().saturating_sub(since_ns);
                sink.tell(completion);
            }
        }
    }

    /// How long to sleep. After `asleep` is set, a submission either is seen here or wakes the poll.
    fn sleep_time(&mut self) -> Option<Duration> {
        self.shared.asleep.store(true, Ordering::SeqCst);
        let has_room = self.engine.pending() < self.in_flight_max && !self.submissions.is_empty();
        if has_room || self.is_over() || self.socket.as_ref().is_some_and(|socket| socket.can_read) {
            return Some(Duration::ZERO);
        }
        let stop_ns = self.shared.stop_ns.load(Ordering::SeqCst);
        let next_ns = self.engine.next_timeout().unwrap_or(NEVER).min(stop_ns);
        (next_ns != NEVER).then(|| Duration::from_nanos(next_ns.saturating_sub(self.clock.now_ns())))
    }

    fn act(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            self.socket = None;
            if let Action::Connect { front } = action {
                match net::resolve(self.fronts.get(front).map_or("", String::as_str)) {
                    Ok(addresses) => self.connect(addresses.into(), Cause::NotTried),
                    Err(cause) => self.engine.on_disconnected(self.clock.now_ns(), cause),
                }
            }
        }
    }

    /// Begins to connect to the first of `addresses` that does not fail at once.
    fn connect(&mut self, mut addresses: VecDeque<SocketAddr>, mut cause: Cause) {
        while let Some(address) = addresses.pop_front() {
            let token = mio::Token(self.next_socket);
            self.next_socket += 1;
            let opened = TcpStream::connect(address).and_then(|mut stream| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut stream, token, interest).map(|()| stream)
            });
            match opened {
                Ok(stream) => {
                    let (is_connected, can_read, can_write) = (false, false, false);
                    self.socket = Some(Socket { stream, token, is_connected, others: addresses, can_read, can_write });
                    return;
                }
                Err(error) => cause = net::not_reached(&error),
            }
        }
        self.socket = None;
        self.engine.on_disconnected(self.clock.now_ns(), cause);
    }

    fn note_readiness(&mut self, events: &Events) {
        for event in events {
            let Some(socket) = self.socket.as_mut().filter(|socket| socket.token == event.token()) else { continue };
            socket.can_read |= event.is_readable() || event.is_read_closed() || event.is_error();
            socket.can_write |= event.is_writable() || event.is_write_closed() || event.is_error();
        }
        if self.socket.as_ref().is_some_and(|socket| !socket.is_connected && socket.can_write) {
            self.finish_connect();
        }
    }

    /// The attempt to connect has come to an end, one way or the other.
    fn finish_connect(&mut self) {
        let Some(socket) = &mut self.socket else { return };
        let result = match socket.stream.take_error() {
            Ok(None) => socket.stream.peer_addr().and_then(|_| socket.stream.set_nodelay(true)),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                socket.is_connected = true;
                self.engine.on_connected(self.clock.now_ns());
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => socket.can_write = false,
            Err(error) => {
                let others = std::mem::take(&mut socket.others);
                self.connect(others, net::not_reached(&error));
            }
        }
    }

    fn lose(&mut self, cause: Cause) {
        self.socket = None;
        self.engine.on_disconnected(self.clock.now_ns(), cause);
    }

    /// Writes until all is written or the socket takes no more.
    fn flush(&mut self) {
        while let Some(socket) = self.socket.as_mut().filter(|socket| socket.is_connected && socket.can_write) {
            let bytes = self.engine.output();
            if bytes.is_empty() {
                return;
            }
            match socket.stream.write(bytes) {
                Ok(count) => self.engine.consume_output(self.clock.now_ns(), count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.can_write = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.lose(net::lost(&error)),
            }
        }
    }

    /// Reads what there is, within a turn's bound. An action that the engine wants meanwhile ends it: the connection
    /// may be no longer the one that is read from.
    fn receive(&mut self) {
        for _ in 0..READS_PER_TURN {
            let Some(socket) = self.socket.as_mut().filter(|socket| socket.is_connected && socket.can_read) else {
                return;
            };
            match socket.stream.read(&mut self.buffer) {
                Ok(0) => self.lose(net::ended()),
                Ok(count) => self.engine.on_bytes(self.clock.now_ns(), &self.buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.can_read = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.lose(net::lost(&error)),
            }
            self.act();
        }
    }
}

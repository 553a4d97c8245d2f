//! The generator for Redis: many connections, a number of units of commands in flight on each, one write a turn, as the
//! generator for Pygmy does it, so that neither system is asked by a slower one.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::resp::{self, Reply};
use crate::compare::peer::Spans;
use crate::compare::tally::{Tally, Window};
use crate::error::Error;
use crate::span::Clock;

/// Bytes read at once.
const SCRATCH: usize = 256 * 1024;

/// What is said on the connections.
pub(super) trait Script {
    /// Requests in a unit, which are done together.
    fn requests(&self) -> u64;
    /// Replies to a unit.
    fn replies(&self) -> usize;
    /// Appends the commands of the next unit.
    fn put(&mut self, out: &mut BytesMut);
    /// Looks at a unit's reply number `place`: how many of the unit's requests are done so far.
    ///
    /// # Errors
    /// When it is no answer to what was asked: then nothing that is measured here means anything.
    fn judge(&self, place: usize, reply: Reply<'_>, done: u64) -> Result<u64, String>;
}

/// How it is loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Orders {
    /// The server.
    pub(super) address: SocketAddr,
    /// Connections.
    pub(super) connections: usize,
    /// Units in flight on each.
    pub(super) depth: usize,
    /// How long.
    pub(super) spans: Spans,
}

/// A unit in flight.
#[derive(Debug)]
struct Unit {
    sent_ns: u64,
    /// Replies that have come.
    replies: usize,
    /// Requests done so far.
    done: u64,
}

#[derive(Debug)]
struct Conn {
    stream: TcpStream,
    out: BytesMut,
    /// The start of a reply whose end is still to come.
    rest: Vec<u8>,
    units: VecDeque<Unit>,
    is_dirty: bool,
}

/// The event loop.
struct Pipeline<'a, S> {
    script: &'a mut S,
    address: SocketAddr,
    depth: usize,
    conns: Vec<Conn>,
    /// Connections with bytes to be written.
    dirty: Vec<usize>,
    in_flight: usize,
    window: Window,
    tally: Tally,
}

/// Loads the server and counts.
///
/// # Errors
/// When it cannot be reached, hangs up or answers something else.
pub(super) fn run(orders: Orders, script: &mut impl Script) -> Result<Tally, Error> {
    let mut poll = Poll::new().map_err(Error::io("a poll"))?;
    let conns = (0..orders.connections).map(|number| connect(&poll, orders.address, number));
    let conns = conns.collect::<io::Result<Vec<Conn>>>();
    let conns = conns.map_err(|error| unreachable(orders.address, error.to_string()))?;
    let clock = Clock::start();
    let window = Window::from_now(clock.now_ns(), orders.spans);
    let tally = Tally::new(window)?;
    let Orders { address, depth, .. } = orders;
    let mut pipeline = Pipeline { script, address, depth, conns, dirty: Vec::new(), in_flight: 0, window, tally };
    let mut events = Events::with_capacity(1_024);
    let mut scratch = vec![0; SCRATCH];
    (0..pipeline.conns.len()).for_each(|conn| pipeline.fill(clock.now_ns(), conn));
    loop {
        pipeline.flush()?;
        let now_ns = clock.now_ns();
        if now_ns >= window.drain_ns || (now_ns >= window.to_ns && pipeline.in_flight == 0) {
            return Ok(pipeline.close(now_ns));
        }
        let until_ns = if now_ns < window.to_ns { window.to_ns } else { window.drain_ns };
        match poll.poll(&mut events, Some(Duration::from_nanos(until_ns - now_ns))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other.map_err(Error::io("a poll"))?,
        }
        for event in &events {
            let conn = event.token().0;
            if event.is_writable() {
                pipeline.mark_dirty(conn);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                pipeline.read(conn, &mut scratch, clock)?;
            }
        }
    }
}

fn connect(poll: &Poll, address: SocketAddr, number: usize) -> io::Result<Conn> {
    let stream = std::net::TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let mut stream = TcpStream::from_std(stream);
    poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
    Ok(Conn { stream, out: BytesMut::new(), rest: Vec::new(), units: VecDeque::new(), is_dirty: false })
}

fn unreachable(address: SocketAddr, why: String) -> Error {
    Error::Unreachable { address: address.to_string(), why }
}

impl<S: Script> Pipeline<'_, S> {
    fn mark_dirty(&mut self, conn: usize) {
        let own = &mut self.conns[conn];
        if !own.is_dirty {
            own.is_dirty = true;
            self.dirty.push(conn);
        }
    }

    /// Fills a connection up to its depth, while the window lasts.
    fn fill(&mut self, now_ns: u64, conn: usize) {
        if now_ns >= self.window.to_ns {
            return;
        }
        let own = &mut self.conns[conn];
        while own.units.len() < self.depth {
            self.script.put(&mut own.out);
            own.units.push_back(Unit { sent_ns: now_ns, replies: 0, done: 0 });
            self.in_flight += 1;
        }
        self.mark_dirty(conn);
    }

    /// Writes what waits, once for each connection; what a socket does not take waits for its next edge.
    fn flush(&mut self) -> Result<(), Error> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for conn in dirty.drain(..) {
            let own = &mut self.conns[conn];
            own.is_dirty = false;
            write(&mut own.stream, &mut own.out).map_err(|error| unreachable(self.address, error.to_string()))?;
        }
        self.dirty = dirty;
        Ok(())
    }

    /// Reads a connection until it has nothing more, and asks anew for whatever is done.
    fn read(&mut self, conn: usize, scratch: &mut [u8], clock: Clock) -> Result<(), Error> {
        loop {
            let len = match self.conns[conn].stream.read(scratch) {
                Ok(0) => return Err(unreachable(self.address, "it closed a connection".into())),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreachable(self.address, error.to_string())),
            };
            let now_ns = clock.now_ns();
            self.feed(now_ns, conn, &scratch[..len]).map_err(|why| unreachable(self.address, why))?;
            self.fill(now_ns, conn);
            // Less than asked for: the socket is empty, and the next bytes, or its end, are a new edge.
            if len < scratch.len() {
                return Ok(());
            }
        }
    }

    /// Takes the replies in what was read.
    fn feed(&mut self, now_ns: u64, conn: usize, read: &[u8]) -> Result<(), String> {
        let mut joined = std::mem::take(&mut self.conns[conn].rest);
        let bytes = if joined.is_empty() {
            read
        } else {
            joined.extend_from_slice(read);
            &joined[..]
        };
        let mut at = 0;
        while let Some((reply, len)) = resp::parse(&bytes[at..])? {
            self.take(now_ns, conn, reply)?;
            at += len;
        }
        self.conns[conn].rest = bytes[at..].to_vec();
        Ok(())
    }

    /// A reply belongs to the oldest unit, which the last of its replies ends.
    fn take(&mut self, now_ns: u64, conn: usize, reply: Reply<'_>) -> Result<(), String> {
        let own = &mut self.conns[conn];
        let unit = own.units.front_mut().ok_or("it answers what was not asked")?;
        unit.done = self.script.judge(unit.replies, reply, unit.done)?;
        unit.replies += 1;
        if unit.replies == self.script.replies() {
            let Unit { sent_ns, done, .. } = *unit;
            own.units.pop_front();
            self.in_flight -= 1;
            self.tally.count(sent_ns, now_ns, done, self.script.requests() - done);
        }
        Ok(())
    }

    /// Counts what was never answered.
    fn close(mut self, now_ns: u64) -> Tally {
        for unit in self.conns.iter().flat_map(|conn| &conn.units) {
            self.tally.count(unit.sent_ns, now_ns, 0, self.script.requests());
        }
        self.tally
    }
}

fn write(stream: &mut TcpStream, out: &mut BytesMut) -> io::Result<()> {
    while !out.is_empty() {
        match stream.write(out) {
            Ok(len) => out.advance(len),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Asks for `x` and wants two replies: a word and a number, which is how many of three are done.
    struct Pairs;

    impl Script for Pairs {
        fn requests(&self) -> u64 {
            3
        }
        fn replies(&self) -> usize {
            2
        }
        fn put(&mut self, out: &mut BytesMut) {
            out.extend_from_slice(b"x");
        }
        fn judge(&self, place: usize, reply: Reply<'_>, done: u64) -> Result<u64, String> {
            match (place, reply) {
                (0, Reply::Simple(b"OK")) => Ok(done),
                (1, Reply::Int(number)) => Ok(number as u64),
                (place, other) => Err(format!("{} at {place}", other.text())),
            }
        }
    }

    /// A server that answers every byte with `answer`, cut in two.
    fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut asked = [0; 64];
                    while let Ok(len @ 1..) = stream.read(&mut asked) {
                        let all = answer.repeat(len);
                        let (head, tail) = all.split_at(all.len() / 2);
                        if stream.write_all(head).and_then(|()| stream.write_all(tail)).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    fn load(address: SocketAddr) -> Result<Tally, Error> {
        let spans = Spans { warmup: Duration::from_millis(5), duration: Duration::from_millis(100) };
        run(Orders { address, connections: 3, depth: 4, spans }, &mut Pairs)
    }

    #[test]
    fn replies_end_the_units_they_belong_to() {
        let measured = load(server(b"+OK\r\n:2\r\n")).unwrap().measured();
        assert!(measured.per_s > 0.0 && measured.failed > 0, "two of three are done, one is not: {measured:?}");
        let none = load(server(b"+OK\r\n:0\r\n")).unwrap().measured();
        assert!(none.per_s == 0.0 && none.failed > 0, "{none:?}");
    }

    #[test]
    fn an_answer_to_something_else_ends_the_run() {
        let error = load(server(b":1\r\n")).unwrap_err().to_string();
        assert!(error.contains("1 at 0"), "{error}");
    }
}

//! An event loop over many connections to servers: connects, shakes hands, frames, writes once a turn, and connects
//! again where a connection is lost. What is said on them is the business of a [`Task`].

mod alarm;
mod links;
mod traffic;

use std::io;
use std::sync::Arc;

use mio::{Events, Poll, Token};
use pygmy_proto::frame::{Flow, Frame};

pub use links::{Links, Plan};
pub use traffic::Traffic;

use crate::span::Clock;
use alarm::Alarm;

/// What is done on the connections of an [`Engine`].
pub trait Task {
    /// A connection stands and its handshake is done, for the first time or again.
    fn on_open(&mut self, now_ns: u64, link: usize, links: &mut Links);
    /// A frame came.
    fn on_frame(&mut self, now_ns: u64, link: usize, frame: &Frame<'_>, links: &mut Links) -> Flow;
    /// A connection is gone, or could not be made.
    fn on_lost(&mut self, now_ns: u64, link: usize, why: &str, links: &mut Links);
    /// All that was ready has been handled.
    fn on_turn(&mut self, now_ns: u64, links: &mut Links) -> Next;
}

/// What a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Only for what comes on the connections.
    Frames,
    /// Or for this moment.
    At(u64),
    /// Nothing more: the run ends.
    Done,
}

/// Events taken from the kernel at once.
const EVENTS: usize = 1_024;
/// Bytes read at once.
const SCRATCH: usize = 256 * 1024;
const ALARM: Token = Token(usize::MAX);

/// The event loop.
#[derive(Debug)]
pub struct Engine {
    poll: Poll,
    events: Events,
    alarm: Alarm,
    clock: Clock,
    scratch: Vec<u8>,
    links: Links,
    traffic: Arc<Traffic>,
}

impl Engine {
    /// A loop that will connect as `plan` says.
    ///
    /// # Errors
    /// When the kernel gives no poll or timer.
    pub fn new(clock: Clock, plan: Plan) -> io::Result<Self> {
        let poll = Poll::new()?;
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let links = Links::new(poll.registry().try_clone()?, plan);
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            alarm,
            clock,
            scratch: vec![0; SCRATCH],
            links,
            traffic: Arc::default(),
        })
    }

    /// Shows what it asks of the system there, once a turn.
    pub fn show_in(&mut self, traffic: Arc<Traffic>) {
        self.traffic = traffic;
    }

    /// The connections.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Turns until the task is done. May be called again: the connections stay.
    ///
    /// # Errors
    /// When the poll itself fails.
    pub fn run(&mut self, task: &mut impl Task) -> io::Result<()> {
        loop {
            let now_ns = self.clock.now_ns();
            self.links.connect_due(now_ns);
            let next = task.on_turn(now_ns, &mut self.links);
            self.links.flush();
            self.tell_lost(task);
            let wake_ns = match next {
                Next::Done => return Ok(()),
                Next::Frames => self.links.next_due(),
                Next::At(at_ns) => Some(self.links.next_due().map_or(at_ns, |due_ns| due_ns.min(at_ns))),
            };
            let wait = self.alarm.wait(self.clock.now_ns(), wake_ns)?;
            // One for the poll; the links count theirs.
            self.links.counts.calls += 1 + std::mem::take(&mut self.alarm.calls);
            self.traffic.show(self.links.counts);
            match self.poll.poll(&mut self.events, wait) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            self.handle_events(task);
        }
    }

    fn handle_events(&mut self, task: &mut impl Task) {
        for event in &self.events {
            if event.token() == ALARM {
                continue;
            }
            let link = event.token().0;
            if event.is_writable() {
                self.links.mark_dirty(link);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                read(&mut self.links, link, &mut self.scratch, self.clock, task);
            }
        }
        self.tell_lost(task);
    }

    fn tell_lost(&mut self, task: &mut impl Task) {
        while let Some((link, why)) = self.links.take_lost() {
            task.on_lost(self.clock.now_ns(), link, &why, &mut self.links);
        }
    }
}

/// Reads a connection until it has nothing more, handing every frame to the task.
fn read(links: &mut Links, link: usize, scratch: &mut [u8], clock: Clock, task: &mut impl Task) {
    loop {
        let len = match links.read(link, scratch) {
            Ok(Some(0)) => return links.lose(link, "the server closed the connection"),
            Ok(Some(len)) => len,
            Ok(None) => return,
            Err(error) => return links.lose(link, &error.to_string()),
        };
        let now_ns = clock.now_ns();
        let mut deframer = links.take_deframer(link);
        let fed = deframer.feed(&scratch[..len], |_, frame| {
            if links.is_open(link) {
                return task.on_frame(now_ns, link, &frame, links);
            }
            match links.greeted(link, &frame) {
                Ok(()) => {
                    task.on_open(now_ns, link, links);
                    Flow::Continue
                }
                Err(why) => {
                    links.lose(link, &why);
                    Flow::Stop
                }
            }
        });
        links.give_deframer(link, deframer);
        if let Err(error) = fed {
            return links.lose(link, &error.to_string());
        }
        // Less than asked for: the socket is empty, and the next bytes, or its end, are a new edge.
        if len < scratch.len() {
            return;
        }
    }
}

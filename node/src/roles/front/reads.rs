//! How a front answers reads: from its cache where it may, else by passing them on.
//!
//! A read is answered in the turn in which it came when the cache has its answer and that reaches the read's floor. Else it
//! becomes a job, and waits for one of four things: a barrier, when there is no floor; the feed, when the cache has an
//! answer that is a little behind; the answer to another read that asks the same; or the answer of the server to which it is
//! passed on. Whatever the answer comes from, it is held against the floor when it leaves.

use std::collections::{BTreeMap, VecDeque};

use pygmy_proto::frame::Frame;
use pygmy_proto::header::{FLAG_FRESH, FLAG_NO_CACHE, FLAG_TRACE, HEADER_LEN};
use pygmy_proto::limits::BOOK_ID_LEN_MAX;
use pygmy_proto::message::{Feed, FeedOk, FeedOpen, FeedRead, Floor, FloorOk, FrontStatus, Role, Stage, Trace};
use pygmy_proto::types::Lent;
use pygmy_proto::{ErrorBody, ErrorCode, Kind, codec};

use super::work::Stand;
use super::{Ask, Front, Job};
use crate::machine::{ConnId, ms};
#[cfg(feature = "mistakes")]
use crate::mistake::{Mistake, Planted};
use crate::roles::cache::coalesce::{Fetches, Question};
use crate::roles::cache::floors::{Bound, EVERY_NS, Floors};
use crate::roles::cache::link::FeedLink;
use crate::roles::cache::{self, Answer, Cache, Found, SEQ_LEN};
use crate::roles::jobs::JobKey;
use crate::roles::reads::Read;
use crate::roles::{Ctx, malformed, span, trace_of};

/// How long a read waits for the feed before it is passed on: longer than news takes from one catalog to the next.
const FEED_WAIT_NS: u64 = ms(5);
/// Keys of jobs that are done that may lie in a queue beside as many as there are jobs.
const STALE_KEYS_MAX: usize = 4_096;
/// Request ids of what a front asks for itself; those of jobs lie below for as long as a process lives.
const OWN_REQUESTS: u64 = 1 << 63;

/// What a job that is a read knows beside what every job does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// The position that its answer must not lie before.
    floor: u64,
    /// When the barrier was sent that is in the floor, if one is.
    sent_ns: Option<u64>,
    /// Others wait for its answer.
    leads: Option<Question>,
    /// It has been counted as a miss.
    missed: bool,
    /// It has waited for the feed.
    delayed: bool,
}

/// Whether a catalog can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Down,
    /// Its link stands, but it is not heard: asked only where there is no other.
    Suspected,
    Up,
}

impl Source {
    fn of(up: bool) -> Self {
        if up { Self::Up } else { Self::Down }
    }
}

/// What a front knows for its reads.
#[derive(Debug)]
pub(super) struct ReadPath {
    cache: Cache,
    floors: Floors,
    feed: FeedLink,
    fetches: Fetches,
    /// The catalogs.
    sources: BTreeMap<u16, Source>,
    /// Jobs that wait for a floor.
    for_floor: Vec<JobKey>,
    /// Jobs that wait for the feed, and until when, the earliest first.
    for_feed: VecDeque<(u64, JobKey)>,
    /// The feed has told something in this turn.
    fed: bool,
    requests: u64,
    hits: u64,
    delayed: u64,
    misses: u64,
    coalesced: u64,
}

impl ReadPath {
    pub(super) fn new(bytes_max: u64, seed: u64, catalogs: impl Iterator<Item = u16>) -> Self {
        Self {
            cache: Cache::new(bytes_max, seed),
            floors: Floors::default(),
            feed: FeedLink::default(),
            fetches: Fetches::new(seed),
            sources: catalogs.map(|node| (node, Source::Down)).collect(),
            for_floor: Vec::new(),
            for_feed: VecDeque::new(),
            fed: false,
            requests: OWN_REQUESTS,
            hits: 0,
            delayed: 0,
            misses: 0,
            coalesced: 0,
        }
    }

    #[cfg(feature = "mistakes")]
    pub(super) fn plant(&mut self, mistake: Mistake) {
        let planted = Planted(Some(mistake));
        self.cache.plant(planted);
        self.floors.plant(planted);
    }

    pub(super) fn status(&self, now_ns: u64) -> FrontStatus {
        let counters = self.cache.counters();
        FrontStatus {
            hits: self.hits,
            delayed: self.delayed,
            misses: self.misses,
            coalesced: self.coalesced,
            invalidations: counters.invalidations,
            refused: counters.refused,
            emptied: counters.emptied,
            fresh_age_ms: self.floors.age_ms(now_ns),
            processed: self.cache.processed(),
            feed: self.feed.feeding().unwrap_or(0),
            entries: self.cache.entries(),
            bytes: self.cache.bytes(),
            bytes_max: self.cache.bytes_max(),
            waiting: 0,
        }
    }

    /// Whether any catalog can be asked.
    fn has_source(&self) -> bool {
        self.sources.values().any(|source| *source != Source::Down)
    }

    /// A catalog that can be asked: the one behind `avoid` in the circle, and `avoid` itself only when there is no other.
    fn source_behind(&self, avoid: u16) -> Option<u16> {
        let behind = |wanted| {
            let is = move |(node, source): (&u16, &Source)| (*source == wanted).then_some(*node);
            self.sources.range(avoid.saturating_add(1)..).find_map(is).or_else(|| self.sources.iter().find_map(is))
        };
        behind(Source::Up).or_else(|| behind(Source::Suspected))
    }

    fn next_request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    /// What is kept of an answer: whatever its read's flags, it is one of a catalog at a position.
    fn fill(&mut self, job: &Job, kind: Kind, seq: u64, body: &[u8]) {
        if job.flags & FLAG_NO_CACHE == 0
            && let Some(Ok(read)) = Read::decode(job.kind, &job.body)
        {
            self.cache.fill(&read, kind, seq, &body[SEQ_LEN..]);
        }
    }
}

/// Whether the cache may answer a read with these flags.
fn is_plain(flags: u8) -> bool {
    flags & (FLAG_FRESH | FLAG_NO_CACHE) == 0
}

fn is_kept(kind: Kind) -> bool {
    matches!(kind, Kind::Lookup | Kind::Search | Kind::Topics)
}

/// The message in an answer's body, behind its trace.
fn untraced(flags: u8, body: &[u8]) -> &[u8] {
    if flags & FLAG_TRACE == 0 {
        return body;
    }
    let used = codec::decode_prefix::<Trace>(body).map_or(body.len(), |(_, used)| used);
    body.get(used..).unwrap_or_default()
}

impl Front {
    /// A read of a client, under an id that is not in flight.
    pub(super) fn on_read(&mut self, ctx: &mut Ctx<'_>, conn: ConnId, kind: Kind, frame: &Frame<'_>) {
        let header = &frame.header;
        if kind == Kind::Lookup && self.answer_lookup(ctx, conn, frame) {
            return;
        }
        let read = match Read::parse(frame) {
            Some(Ok(read)) => read,
            Some(Err(error)) => return ctx.out.send_error(conn, header.request_id, ctx.me, &error),
            None => {
                let error = malformed(header.kind, "it is no read");
                return ctx.out.send_error(conn, header.request_id, ctx.me, &error);
            }
        };
        self.ask_for_floor(ctx);
        let flags = header.flags & (FLAG_TRACE | FLAG_FRESH | FLAG_NO_CACHE);
        let floor = read.floor().max(self.acknowledged);
        if is_plain(flags)
            && let Some(bound) = self.reads.floors.current(ctx.now.mono_ns)
            && let Found::Answer(answer) = self.reads.cache.find(&read, floor.max(bound.seq))
        {
            send_kept(ctx, conn, header.request_id, flags, 0, &answer);
            self.reads.hits += 1;
            self.answered += 1;
            return;
        }
        let reading = Reading { floor, sent_ns: None, leads: None, missed: false, delayed: false };
        let ask = Ask { kind, flags, reading: Some(reading) };
        if let Some(key) = self.insert(ctx, conn, frame, ask) {
            self.proceed(ctx, key);
        }
    }

    /// Answers a lookup whose answer is in the cache; false when it is not, or the lookup is none, and nothing was done.
    /// What most requests are is not taken apart further than this needs.
    fn answer_lookup(&mut self, ctx: &mut Ctx<'_>, conn: ConnId, frame: &Frame<'_>) -> bool {
        let header = &frame.header;
        let flags = header.flags & (FLAG_TRACE | FLAG_FRESH | FLAG_NO_CACHE);
        if !is_plain(flags) {
            return false;
        }
        let Ok((floor, id)) = codec::decode_lent::<(u64, Lent<'_, BOOK_ID_LEN_MAX>)>(frame.body) else { return false };
        self.ask_for_floor(ctx);
        let Some(bound) = self.reads.floors.current(ctx.now.mono_ns) else { return false };
        let floor = floor.max(self.acknowledged).max(bound.seq);
        let Found::Answer(answer) = self.reads.cache.find_book(id.bytes(), floor) else { return false };
        send_kept(ctx, conn, header.request_id, flags, 0, &answer);
        self.reads.hits += 1;
        self.answered += 1;
        true
    }

    /// Does what can be done for a read now: answers it, lets it wait, or passes it on.
    pub(super) fn proceed(&mut self, ctx: &mut Ctx<'_>, key: JobKey) {
        let now_ns = ctx.now.mono_ns;
        let current = self.reads.floors.current(now_ns);
        let Some(job) = self.jobs.get_mut(key) else { return };
        let (kind, flags) = (job.kind, job.flags);
        let Some(reading) = &mut job.reading else { return };
        match current {
            // The server that it goes to asks for a barrier of its own, later than now.
            _ if flags & FLAG_FRESH != 0 => reading.sent_ns = Some(now_ns),
            Some(bound) => {
                reading.floor = reading.floor.max(bound.seq);
                reading.sent_ns = Some(bound.sent_ns);
            }
            None => return self.wait_for_floor(ctx, key),
        }
        if is_plain(flags) && is_kept(kind) && self.reads.cache.is_on() {
            return self.ask_cache(ctx, key);
        }
        self.pass_on(ctx, key);
    }

    /// A read that the cache may answer, and that has its floor.
    fn ask_cache(&mut self, ctx: &mut Ctx<'_>, key: JobKey) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let Some(reading) = job.reading else { return };
        let Some(Ok(read)) = Read::decode(job.kind, &job.body) else { return };
        match self.reads.cache.find(&read, reading.floor) {
            Found::Answer(answer) => {
                let waited_ns = ctx.now.mono_ns.saturating_sub(job.arrived_ns);
                send_kept(ctx, job.conn, job.request_id, job.flags, waited_ns, &answer);
                self.reads.hits += u64::from(!reading.missed);
                self.reads.delayed += u64::from(!reading.missed && reading.delayed);
                self.end(ctx, key);
            }
            Found::Behind if !reading.delayed && self.reads.feed.feeding().is_some() => {
                if let Some(reading) = &mut job.reading {
                    reading.delayed = true;
                }
                let until_ns = ctx.now.mono_ns + FEED_WAIT_NS;
                self.reads.for_feed.push_back((until_ns, key));
                self.step_aside(key);
            }
            Found::Behind | Found::Nothing => self.miss(ctx, key),
        }
    }

    /// A read that must be passed on, unless one that asks the same has been.
    fn miss(&mut self, ctx: &mut Ctx<'_>, key: JobKey) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let Some(reading) = &mut job.reading else { return };
        if !std::mem::replace(&mut reading.missed, true) {
            self.reads.misses += 1;
        }
        // A trace tells of one request's own way.
        let alone = job.flags & FLAG_TRACE != 0 || reading.leads.is_some();
        let (conn, kind, body) = (job.conn, job.kind, job.body.clone());
        let question = self.reads.fetches.question(kind, &body[SEQ_LEN..]);
        if !alone {
            if self.reads.fetches.lead(question, key) {
                self.lead(key, question);
            } else if self.may_follow(question, conn, kind, &body) && self.reads.fetches.follow(question, key) {
                self.reads.coalesced += 1;
                return self.step_aside(key);
            }
        }
        self.pass_on(ctx, key);
    }

    fn lead(&mut self, key: JobKey, question: Question) {
        if let Some(reading) = self.jobs.get_mut(key).and_then(|job| job.reading.as_mut()) {
            reading.leads = Some(question);
        }
    }

    /// Whether a read can wait for the answer to the one that leads: that asks the same, and not only has the same number by
    /// chance, and it does not itself wait for its turn behind what another client has.
    fn may_follow(&mut self, question: Question, conn: ConnId, kind: Kind, body: &[u8]) -> bool {
        let Some(leader) = self.reads.fetches.leader(question) else { return false };
        let Some(job) = self.jobs.get_mut(leader) else { return false };
        (job.stand == Stand::InWork || job.conn == conn) && job.kind == kind && job.body[SEQ_LEN..] == body[SEQ_LEN..]
    }

    /// The body of a read as it is passed on: its first field is its floor.
    pub(super) fn put_read(job: &Job, out: &mut bytes::BytesMut) {
        match &job.reading {
            Some(reading) => {
                out.extend_from_slice(&reading.floor.to_le_bytes());
                out.extend_from_slice(&job.body[SEQ_LEN..]);
            }
            None => out.extend_from_slice(&job.body),
        }
    }

    /// A server has answered a read that was passed on.
    pub(super) fn on_read_answer(&mut self, ctx: &mut Ctx<'_>, key: JobKey, frame: &Frame<'_>) {
        let Some(kind) = frame.kind() else { return self.finish(ctx, key, frame) };
        let message = untraced(frame.header.flags, frame.body);
        let Some(seq) = cache::position(kind, message) else {
            // It says nothing of the store: whoever waited for this answer asks for itself.
            return self.finish(ctx, key, frame);
        };
        let Some(job) = self.jobs.get_mut(key) else { return };
        self.reads.fill(job, kind, seq, message);
        let followers = self.take_followers(key);
        if self.may_leave(ctx, key, seq) {
            self.finish(ctx, key, frame);
        } else {
            self.ask_again(ctx, key);
        }
        for follower in followers {
            if self.may_leave(ctx, follower, seq) {
                self.share(ctx, follower, frame, message);
            } else {
                self.proceed(ctx, follower);
            }
        }
    }

    /// Whether an answer at `seq` keeps what was promised to a read, at this moment.
    fn may_leave(&mut self, ctx: &Ctx<'_>, key: JobKey, seq: u64) -> bool {
        let now_ns = ctx.now.mono_ns;
        let current = self.reads.floors.current(now_ns);
        let Some(reading) = self.jobs.get_mut(key).and_then(|job| job.reading) else { return false };
        let holds = reading.sent_ns.is_some_and(|sent_ns| Bound { seq: reading.floor, sent_ns }.holds(now_ns));
        seq >= reading.floor && (holds || current.is_some_and(|bound| seq >= bound.seq))
    }

    /// The answer came too late for what it says: another one is needed, and none of those that are under way.
    fn ask_again(&mut self, ctx: &mut Ctx<'_>, key: JobKey) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let (conn, request_id, deadline_ns) = (job.conn, job.request_id, job.deadline_ns);
        let (kind, server) = (job.kind, std::mem::take(&mut job.server));
        self.forget(kind, server);
        let Some(key) = self.jobs.renew(Some(deadline_ns), key) else { return };
        self.clients.entry(conn).or_default().ids.insert(request_id, key);
        self.proceed(ctx, key);
    }

    /// Gives another read's answer to one that waited for it.
    fn share(&mut self, ctx: &mut Ctx<'_>, key: JobKey, frame: &Frame<'_>, message: &[u8]) {
        let Some(job) = self.take(key) else { return };
        let header = &frame.header;
        let flags = header.flags & !FLAG_TRACE;
        ctx.out
            .send_kind(job.conn, header.kind, job.request_id, header.aux, flags, |out| out.extend_from_slice(message));
    }

    /// A read was answered from the cache after it had become a job.
    fn end(&mut self, ctx: &mut Ctx<'_>, key: JobKey) {
        if let Some(job) = self.take(key) {
            self.release(ctx, &job);
        }
    }

    fn take_followers(&mut self, key: JobKey) -> Vec<JobKey> {
        let reading = self.jobs.get_mut(key).and_then(|job| job.reading.as_mut());
        let question = reading.and_then(|reading| reading.leads.take());
        question.map(|question| self.reads.fetches.end(question)).unwrap_or_default()
    }

    /// A job is over. Those that waited for its answer go on by themselves.
    pub(super) fn release(&mut self, ctx: &mut Ctx<'_>, job: &Job) {
        let Some(question) = job.reading.and_then(|reading| reading.leads) else { return };
        for follower in self.reads.fetches.end(question) {
            self.proceed(ctx, follower);
        }
    }

    // ---- floors ----

    fn wait_for_floor(&mut self, ctx: &mut Ctx<'_>, key: JobKey) {
        if !self.reads.has_source() {
            let detail = "no catalog server is connected, and without one nobody knows how old an answer may be";
            let error = ErrorBody::new(ErrorCode::Unavailable).subject(Role::Catalog.name()).detail(detail);
            return self.finish_with_error(ctx, key, &error);
        }
        self.step_aside(key);
        self.reads.for_floor.push(key);
        if self.reads.for_floor.len() > 2 * self.jobs.len() + STALE_KEYS_MAX {
            let jobs = &mut self.jobs;
            self.reads.for_floor.retain(|key| jobs.get_mut(*key).is_some());
        }
        self.ask_for_floor(ctx);
    }

    /// Asks a catalog for a barrier, if it is time: the one that feeds, for its answer comes behind the changes that it is
    /// about; the next one when that has not answered the last time.
    fn ask_for_floor(&mut self, ctx: &mut Ctx<'_>) {
        let now_ns = ctx.now.mono_ns;
        if !self.reads.floors.is_due(now_ns) {
            return;
        }
        let node = match self.reads.floors.silent() {
            Some(silent) => self.reads.source_behind(silent),
            None => self.reads.feed.feeding().or_else(|| self.reads.source_behind(0)),
        };
        let Some((node, conn)) = node.and_then(|node| Some((node, ctx.links.get(node)?))) else { return };
        let number = self.reads.next_request();
        self.reads.floors.on_asked(number, node, now_ns);
        let patience = u32::try_from(EVERY_NS / ms(1)).unwrap_or(u32::MAX);
        ctx.out.send(conn, number, patience, 0, &Floor {});
    }

    fn on_floor(&mut self, ctx: &mut Ctx<'_>, node: u16, number: u64, floor: FloorOk) {
        let now_ns = ctx.now.mono_ns;
        if !self.reads.floors.on_answer(number, node, floor.seq, now_ns) {
            return;
        }
        if self.reads.feed.on_floor(floor.seq, self.reads.cache.processed(), now_ns) {
            log::info!("{} does not keep up as a feed: another catalog is asked", ctx.name);
            self.open_feed(ctx);
        }
        for key in std::mem::take(&mut self.reads.for_floor) {
            self.proceed(ctx, key);
        }
    }

    // ---- the feed ----

    /// Asks the next catalog to feed, from where the last one ended.
    fn open_feed(&mut self, ctx: &mut Ctx<'_>) {
        if !self.reads.cache.is_on() {
            return;
        }
        let last = self.reads.feed.node().unwrap_or(0);
        let found = self.reads.source_behind(last).and_then(|node| Some((node, ctx.links.get(node)?)));
        let Some((node, conn)) = found else { return self.reads.feed.on_nobody() };
        let number = self.reads.next_request();
        self.reads.feed.on_asked(node, number, ctx.now.mono_ns);
        ctx.out.send(conn, number, 0, 0, &FeedOpen { after: self.reads.cache.place() });
    }

    /// What the feed has told cannot be all: everything is forgotten.
    fn doubt(&mut self, ctx: &mut Ctx<'_>, why: &str) {
        log::warn!("{}: the cache is emptied: {why}", ctx.name);
        self.reads.cache.empty(None);
        self.open_feed(ctx);
    }

    fn on_feed(&mut self, ctx: &mut Ctx<'_>, node: u16, frame: &Frame<'_>) {
        let bytes = (HEADER_LEN + frame.body.len()) as u64;
        if !self.reads.feed.on_feed(node, bytes) {
            return;
        }
        let applied = match frame.decode::<Feed>() {
            Err(error) => return self.doubt(ctx, &error.to_string()),
            Ok(feed) => self.reads.cache.apply(&feed),
        };
        if let Err(doubt) = applied {
            return self.doubt(ctx, &format!("{doubt:?} in its feed"));
        }
        self.reads.fed = true;
        if let Some((node, bytes)) = self.reads.feed.take_read()
            && let Some(conn) = ctx.links.get(node)
        {
            ctx.out.send(conn, 0, 0, 0, &FeedRead { bytes });
        }
    }

    /// A frame of a catalog about the cache. False when it is about something else.
    pub(super) fn on_cache_frame(&mut self, ctx: &mut Ctx<'_>, node: u16, frame: &Frame<'_>) -> bool {
        let number = frame.header.request_id;
        match frame.kind() {
            Some(Kind::Feed) => self.on_feed(ctx, node, frame),
            Some(Kind::FeedOk) => match frame.decode::<FeedOk>() {
                Ok(ok) if self.reads.feed.on_ok(node, number) => self.reads.cache.resume(ok.after),
                Ok(_) => {}
                Err(error) => self.doubt(ctx, &error.to_string()),
            },
            Some(Kind::FloorOk) => {
                if let Ok(floor) = frame.decode::<FloorOk>() {
                    self.on_floor(ctx, node, number, floor);
                }
            }
            Some(Kind::Error) if self.reads.floors.on_refused(number, node) => self.ask_if_awaited(ctx),
            _ => return false,
        }
        true
    }

    /// Asks for a barrier if reads wait for one.
    fn ask_if_awaited(&mut self, ctx: &mut Ctx<'_>) {
        if self.reads.for_floor.is_empty() {
            return;
        }
        self.ask_for_floor(ctx);
        if !self.reads.has_source() {
            for key in std::mem::take(&mut self.reads.for_floor) {
                self.proceed(ctx, key);
            }
        }
    }

    // ---- catalogs that come and go ----

    /// A catalog can be asked from now on.
    pub(super) fn on_source_up(&mut self, ctx: &mut Ctx<'_>, node: u16) {
        let Some(source) = self.reads.sources.get_mut(&node) else { return };
        *source = Source::Up;
        if self.reads.feed.node().is_none() {
            self.open_feed(ctx);
        }
        self.ask_if_awaited(ctx);
    }

    /// A catalog cannot be asked any more.
    pub(super) fn on_source_down(&mut self, ctx: &mut Ctx<'_>, node: u16) {
        self.on_source_lost(ctx, node, Source::Down);
    }

    /// A catalog is not heard though its link stands: another one is asked, and feeds, if there is one.
    pub(super) fn on_source_suspected(&mut self, ctx: &mut Ctx<'_>, node: u16) {
        self.on_source_lost(ctx, node, Source::Suspected);
    }

    fn on_source_lost(&mut self, ctx: &mut Ctx<'_>, node: u16, now: Source) {
        let Some(source) = self.reads.sources.get_mut(&node) else { return };
        *source = now;
        self.reads.floors.on_lost(node);
        if self.reads.feed.node() == Some(node) && (now == Source::Down || self.reads.source_behind(node) != Some(node))
        {
            self.open_feed(ctx);
        }
        self.ask_if_awaited(ctx);
    }

    /// A catalog is heard again.
    pub(super) fn on_source_trusted(&mut self, ctx: &mut Ctx<'_>, node: u16) {
        if self.reads.sources.get(&node) == Some(&Source::Suspected) {
            self.on_source_up(ctx, node);
        }
    }

    /// A catalog has taken a place.
    pub(super) fn add_source(&mut self, node: u16, up: bool, suspected: bool) {
        let source = if up && suspected { Source::Suspected } else { Source::of(up) };
        self.reads.sources.insert(node, source);
    }

    /// A catalog was replaced; its link goes later.
    pub(super) fn remove_source(&mut self, node: u16) {
        self.reads.sources.remove(&node);
    }

    // ---- turns and timers ----

    /// Ends a turn of reads: what the feed has told may answer those that waited for it.
    pub(super) fn end_read_turn(&mut self, ctx: &mut Ctx<'_>) {
        let feeds = self.reads.feed.node().is_some_and(|node| self.reads.sources.contains_key(&node));
        if !feeds && self.reads.has_source() && self.reads.cache.is_on() {
            self.open_feed(ctx);
        }
        if !std::mem::take(&mut self.reads.fed) {
            return;
        }
        let reached = self.reads.cache.processed();
        for (until_ns, key) in std::mem::take(&mut self.reads.for_feed) {
            let floor = self.jobs.get_mut(key).and_then(|job| job.reading).map(|reading| reading.floor);
            match floor {
                None => {}
                Some(floor) if floor <= reached => self.proceed(ctx, key),
                Some(_) => self.reads.for_feed.push_back((until_ns, key)),
            }
        }
    }

    /// When [`Self::on_read_timeout`] must be called next.
    pub(super) fn next_read_timeout(&self) -> Option<u64> {
        let reads = &self.reads;
        let floor = (!reads.for_floor.is_empty()).then(|| reads.floors.due_ns());
        let waiting = reads.for_feed.front().map(|(until_ns, _)| *until_ns);
        [floor, waiting, reads.feed.gives_up_ns()].into_iter().flatten().min()
    }

    /// Fires the timers of reads that are due.
    pub(super) fn on_read_timeout(&mut self, ctx: &mut Ctx<'_>) {
        let now_ns = ctx.now.mono_ns;
        if self.reads.feed.gives_up_ns().is_some_and(|at| at <= now_ns) {
            self.doubt(ctx, "no catalog says that it can go on with the feed");
        }
        while self.reads.for_feed.front().is_some_and(|(until_ns, _)| *until_ns <= now_ns) {
            if let Some((_, key)) = self.reads.for_feed.pop_front() {
                self.proceed(ctx, key);
            }
        }
        self.ask_if_awaited(ctx);
    }

    /// The position of a write is the first field of its answer.
    pub(super) fn note_acknowledged(&mut self, flags: u8, body: &[u8]) {
        if let Some((seq, _)) = untraced(flags, body).split_first_chunk::<SEQ_LEN>() {
            self.acknowledged = self.acknowledged.max(u64::from_le_bytes(*seq));
        }
    }

    /// How the cache is, and how many wait for their turn.
    pub fn status(&self, now_ns: u64) -> FrontStatus {
        FrontStatus { waiting: self.waiting() as u32, ..self.reads.status(now_ns) }
    }
}

/// Sends an answer from the cache.
fn send_kept(ctx: &mut Ctx<'_>, conn: ConnId, request_id: u64, flags: u8, waited_ns: u64, answer: &Answer<'_>) {
    let (me, traced) = (ctx.me, flags & FLAG_TRACE);
    ctx.out.send_with(conn, answer.kind, request_id, me.into(), traced, |out| {
        if traced != 0 {
            codec::encode_to(&trace_of(vec![span(Stage::Front, me, waited_ns)]), out);
        }
        answer.write(out);
    });
}

const _: () = assert!(EVERY_NS >= ms(1) && FEED_WAIT_NS < EVERY_NS);

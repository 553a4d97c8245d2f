//! Arbitrary values of every message, within the bounds of their types and beyond those of good sense.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use pygmy_proto::datagram::{Header, Heartbeat};
use pygmy_proto::error::{ErrorBody, Retry};
use pygmy_proto::message::*;
use pygmy_proto::types::{Blob, BookId, Bounded, InlineStr, Text};
use pygmy_proto::{Kind, Message, codec};

pub fn book_id() -> impl Strategy<Value = BookId> + Clone {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    vec(proptest::sample::select(ALPHABET), 1..=64)
        .prop_map(|bytes| BookId::new(std::str::from_utf8(&bytes).expect("ASCII")).expect("a valid id"))
}

fn inline<const N: usize>() -> impl Strategy<Value = InlineStr<N>> + Clone {
    vec(any::<char>(), 0..=N).prop_map(|chars| InlineStr::truncated(&chars.into_iter().collect::<String>()))
}

fn text<const N: usize>() -> impl Strategy<Value = Text<N>> + Clone {
    let len = prop_oneof![3 => 0..20_usize, 1 => N / 2..=N];
    len.prop_flat_map(|len| vec(any::<char>(), len))
        .prop_map(|chars| Text::truncated(&chars.into_iter().collect::<String>()))
}

fn blob<const N: usize>() -> impl Strategy<Value = Blob<N>> + Clone {
    vec(any::<u8>(), 0..=N.min(300)).prop_map(|bytes| Blob::new(bytes.into()).expect("within the bound"))
}

fn list<T: std::fmt::Debug, const N: usize>(
    item: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = Bounded<T, N>> + Clone {
    vec(item, 0..=N.min(6)).prop_map(|items| Bounded::new(items).expect("within the bound"))
}

fn role() -> impl Strategy<Value = Role> + Clone {
    proptest::sample::select(&[Role::Client, Role::Front, Role::Order, Role::Catalog][..])
}

fn epoch() -> impl Strategy<Value = Epoch> + Clone {
    any::<(u64, u16)>().prop_map(|(counter, node)| Epoch { counter, node })
}

fn replica_hello() -> impl Strategy<Value = ReplicaHello> + Clone {
    let acked = (any::<[u8; 16]>(), log_end()).prop_map(|(log_uuid, end)| Acked { log_uuid, end });
    let head = any::<([u8; 16], u64, u64, u16)>();
    (head, text(), epoch(), log_end(), any::<(u64, u64, u64)>(), acked).prop_map(
        |(a, address, promised, last, b, acked)| ReplicaHello {
            node: a.3,
            address,
            log_uuid: a.0,
            boot_nonce: a.1,
            config_id: a.2,
            promised,
            last,
            committed: b.0,
            token_hop: b.1,
            want: b.2,
            acked,
        },
    )
}

fn log_end() -> impl Strategy<Value = LogEnd> + Clone {
    (epoch(), any::<u64>()).prop_map(|(epoch, seq)| LogEnd { epoch, seq })
}

fn boundaries() -> impl Strategy<Value = Boundaries> + Clone {
    list((epoch(), any::<u64>()).prop_map(|(epoch, first_seq)| Boundary { epoch, first_seq }))
}

fn voter() -> impl Strategy<Value = Voter> + Clone {
    (any::<(u16, [u8; 16], bool)>(), text()).prop_map(|((node, log_uuid, holds_token), address)| Voter {
        node,
        log_uuid,
        holds_token,
        address,
    })
}

fn swap() -> impl Strategy<Value = Swap> + Clone {
    (any::<[u8; 16]>(), voter()).prop_map(|(old, new)| Swap { old, new })
}

pub fn membership() -> impl Strategy<Value = Membership> + Clone {
    (any::<u64>(), list(voter()), option::of(swap()), list(any::<[u8; 16]>()))
        .prop_map(|(id, voters, swap, removed)| Membership { id, voters, swap, removed })
}

pub fn hello() -> impl Strategy<Value = Hello> + Clone {
    (any::<(u8, u8, [u8; 16], u64)>(), role(), blob(), inline(), option::of(replica_hello())).prop_map(
        |((version_min, version_max, cluster, settings), role, credentials, name, replica)| Hello {
            version_min,
            version_max,
            role,
            cluster,
            settings,
            credentials,
            name,
            replica,
        },
    )
}

pub fn hello_ok() -> impl Strategy<Value = HelloOk> + Clone {
    (any::<(u8, u16, [u8; 16], u32, u32)>(), role(), inline(), option::of(replica_hello())).prop_map(
        |((version, node, cluster, body_max, in_flight_max), role, name, replica)| HelloOk {
            version,
            role,
            node,
            name,
            cluster,
            body_max,
            in_flight_max,
            replica,
        },
    )
}

pub fn error() -> impl Strategy<Value = ErrorBody> + Clone {
    let retry = proptest::sample::select(&[Retry::Never, Retry::Later, Retry::Elsewhere, Retry::Settle][..]);
    (any::<(u64, u16, u32, u64, u64)>(), retry, inline(), text()).prop_map(|(numbers, retry, subject, detail)| {
        ErrorBody {
            seq: numbers.0,
            code: numbers.1,
            retry,
            retry_after_ms: numbers.2,
            limit: numbers.3,
            actual: numbers.4,
            subject,
            detail,
        }
    })
}

fn book() -> impl Strategy<Value = Book> + Clone {
    (book_id(), text(), inline(), any::<(u64, u32, u64)>()).prop_map(
        |(id, title, topic, (cost_cents, stock, changed_seq))| Book {
            id,
            title,
            topic,
            cost_cents,
            stock,
            changed_seq,
        },
    )
}

fn new_book() -> impl Strategy<Value = NewBook> + Clone {
    (book_id(), text(), inline(), any::<(u64, u32)>()).prop_map(|(id, title, topic, (cost_cents, stock))| NewBook {
        id,
        title,
        topic,
        cost_cents,
        stock,
    })
}

fn cursor() -> impl Strategy<Value = BooksCursor> + Clone {
    (inline(), book_id()).prop_map(|(topic, id)| BooksCursor { topic, id })
}

fn order_record() -> impl Strategy<Value = OrderRecord> + Clone {
    let line = (book_id(), any::<(u32, u64, u32)>()).prop_map(|(book, (copies, cost_cents, left))| OrderLine {
        book,
        copies,
        cost_cents,
        left,
    });
    (any::<(u64, u64, u64)>(), list(line)).prop_map(|((number, time_us, total_cents), lines)| OrderRecord {
        number,
        time_us,
        total_cents,
        lines,
    })
}

pub fn lookup() -> impl Strategy<Value = Lookup> + Clone {
    (any::<u64>(), book_id()).prop_map(|(floor, book)| Lookup { floor, book })
}
pub fn search() -> impl Strategy<Value = Search> + Clone {
    (any::<(u64, u32)>(), inline(), option::of(book_id())).prop_map(|((floor, limit), topic, after)| Search {
        floor,
        topic,
        limit,
        after,
    })
}
pub fn topics() -> impl Strategy<Value = Topics> + Clone {
    (any::<(u64, u32)>(), option::of(inline())).prop_map(|((floor, limit), after)| Topics { floor, limit, after })
}
pub fn books() -> impl Strategy<Value = Books> + Clone {
    (any::<(u64, u32)>(), option::of(cursor())).prop_map(|((floor, limit), after)| Books { floor, limit, after })
}
pub fn order() -> impl Strategy<Value = Order> + Clone {
    any::<(u64, u64)>().prop_map(|(floor, number)| Order { floor, number })
}
pub fn orders() -> impl Strategy<Value = Orders> + Clone {
    (any::<(u64, u32, Option<u64>)>(), option::of(book_id())).prop_map(|((floor, limit, before), book)| Orders {
        floor,
        book,
        limit,
        before,
    })
}

pub fn write() -> impl Strategy<Value = Write> + Clone {
    let line = (book_id(), any::<u32>()).prop_map(|(book, copies)| Line { book, copies });
    let command = prop_oneof![
        list(line).prop_map(|lines| Command::Buy { lines }),
        (book_id(), any::<u32>()).prop_map(|(book, copies)| Command::Restock { book, copies }),
        (book_id(), any::<u64>()).prop_map(|(book, cost_cents)| Command::Reprice { book, cost_cents }),
        new_book().prop_map(|book| Command::Add { book }),
        book_id().prop_map(|book| Command::Retire { book }),
        list(new_book()).prop_map(|books| Command::Put { books }),
    ];
    (any::<(u64, u64, u64)>(), command).prop_map(|((session, counter, first_incomplete), command)| Write {
        session,
        counter,
        first_incomplete,
        command,
    })
}

pub fn write_ok() -> impl Strategy<Value = WriteOk> + Clone {
    let outcome = prop_oneof![
        order_record().prop_map(|order| Outcome::Bought { order }),
        book().prop_map(|book| Outcome::Restocked { book }),
        (book(), any::<u64>()).prop_map(|(book, old_cost_cents)| Outcome::Repriced { book, old_cost_cents }),
        book().prop_map(|book| Outcome::Added { book }),
        book().prop_map(|book| Outcome::Retired { book }),
        any::<(u32, u32, u32)>().prop_map(|(added, changed, unchanged)| Outcome::Put { added, changed, unchanged }),
    ];
    (any::<u64>(), outcome).prop_map(|(seq, outcome)| WriteOk { seq, outcome })
}

pub fn session_opened() -> impl Strategy<Value = SessionOpened> + Clone {
    any::<u64>().prop_map(|session| SessionOpened { session })
}
pub fn lookup_ok() -> impl Strategy<Value = LookupOk> + Clone {
    (any::<u64>(), book()).prop_map(|(seq, book)| LookupOk { seq, book })
}
pub fn search_ok() -> impl Strategy<Value = SearchOk> + Clone {
    (any::<(u64, u64)>(), list(book()), option::of(book_id())).prop_map(|((seq, total), books, next)| SearchOk {
        seq,
        total,
        books,
        next,
    })
}
pub fn topics_ok() -> impl Strategy<Value = TopicsOk> + Clone {
    let count = (inline(), any::<u64>()).prop_map(|(topic, books)| TopicCount { topic, books });
    (any::<(u64, u64)>(), list(count), option::of(inline())).prop_map(|((seq, total), topics, next)| TopicsOk {
        seq,
        total,
        topics,
        next,
    })
}
pub fn books_ok() -> impl Strategy<Value = BooksOk> + Clone {
    (any::<(u64, u64)>(), list(book()), option::of(cursor())).prop_map(|((seq, total), books, next)| BooksOk {
        seq,
        total,
        books,
        next,
    })
}
pub fn order_ok() -> impl Strategy<Value = OrderOk> + Clone {
    (any::<u64>(), order_record()).prop_map(|(seq, order)| OrderOk { seq, order })
}
pub fn orders_ok() -> impl Strategy<Value = OrdersOk> + Clone {
    (any::<(u64, u64, Option<u64>)>(), list(order_record())).prop_map(|((seq, total, next), orders)| OrdersOk {
        seq,
        total,
        orders,
        next,
    })
}

fn member_status() -> impl Strategy<Value = MemberStatus> + Clone {
    (any::<(u16, [u8; 16], bool, bool, bool, u64, u64)>(), text()).prop_map(|(a, address)| MemberStatus {
        node: a.0,
        log_uuid: a.1,
        address,
        voter: a.2,
        withheld: a.3,
        heard: a.4,
        last_seq: a.5,
        durable: a.6,
    })
}

fn replica_status() -> impl Strategy<Value = ReplicaStatus> + Clone {
    let head = any::<(bool, u32, u16, u64, u64, u64, u64, u64)>();
    let tail = any::<(u64, u64, u64, u64, u64)>();
    (head, epoch(), tail, option::of(swap()), list(member_status())).prop_map(|(a, epoch, b, swap, members)| {
        ReplicaStatus {
            voter: a.0,
            voters: a.1,
            config_id: b.4,
            swap,
            epoch,
            holder: a.2,
            hop: a.3,
            last_seq: a.4,
            durable: a.5,
            committed: a.6,
            applied: a.7,
            state_hash: b.0,
            books: b.1,
            orders: b.2,
            sessions: b.3,
            members,
        }
    })
}

pub fn replace() -> impl Strategy<Value = Replace> + Clone {
    let ids = any::<([u8; 16], [u8; 16], u16)>();
    (ids, text()).prop_map(|((old, new, node), address)| Replace { old, new, node, address })
}
pub fn replace_ok() -> impl Strategy<Value = ReplaceOk> + Clone {
    any::<u64>().prop_map(|seq| ReplaceOk { seq })
}
pub fn members() -> impl Strategy<Value = Members> + Clone {
    (any::<u64>(), list(voter())).prop_map(|(config_id, voters)| Members { config_id, voters })
}

fn peer_status() -> impl Strategy<Value = PeerStatus> + Clone {
    let state = prop_oneof![Just(PeerState::Green), Just(PeerState::Yellow), Just(PeerState::Red)];
    let reason = prop_oneof![
        Just(PeerReason::Heard),
        Just(PeerReason::NeverHeard),
        Just(PeerReason::Silent),
        Just(PeerReason::OneWay),
        Just(PeerReason::Reset),
        Just(PeerReason::OwnLoopLate),
    ];
    (any::<(u16, Option<u32>, u32, u64, u64)>(), state, reason).prop_map(
        |((node, heard_ms, limit_ms, suspicions, returns), state, reason)| PeerStatus {
            node,
            state,
            reason,
            heard_ms,
            limit_ms,
            suspicions,
            returns,
        },
    )
}

pub fn status_ok() -> impl Strategy<Value = StatusOk> + Clone {
    let shares = [Share::None, Share::Full, Share::Starting, Share::Spared, Share::Suspected];
    let link = (any::<(u16, bool, u32, u64)>(), proptest::sample::select(shares.to_vec()));
    let link = link.prop_map(|((node, up, in_flight, moved), share)| LinkStatus { node, up, in_flight, share, moved });
    let statuses = (option::of(replica_status()), option::of(front_status()));
    let lists = (list(link), list(peer_status()));
    let io = any::<(u64, u64, u64, u64, u64)>().prop_map(|(system_calls, syncs, received, sent, written)| IoStatus {
        system_calls,
        syncs,
        received,
        sent,
        written,
    });
    (any::<(u16, u64, u32, u32, u64)>(), inline(), role(), lists, statuses, io).prop_map(
        |((node, uptime_ms, clients, jobs, answered), name, role, (links, peers), (replica, front), io)| StatusOk {
            node,
            name,
            role,
            uptime_ms,
            clients,
            jobs,
            answered,
            links,
            peers,
            replica,
            front,
            io,
        },
    )
}

pub fn floor_ok() -> impl Strategy<Value = FloorOk> + Clone {
    any::<u64>().prop_map(|seq| FloorOk { seq })
}

pub fn feed_open() -> impl Strategy<Value = FeedOpen> + Clone {
    any::<Option<u64>>().prop_map(|after| FeedOpen { after })
}

pub fn feed_ok() -> impl Strategy<Value = FeedOk> + Clone {
    any::<u64>().prop_map(|after| FeedOk { after })
}

pub fn feed_read() -> impl Strategy<Value = FeedRead> + Clone {
    any::<u64>().prop_map(|bytes| FeedRead { bytes })
}

pub fn feed() -> impl Strategy<Value = Feed> + Clone {
    let change = prop_oneof![
        (book_id(), any::<(u64, u32)>()).prop_map(|(book, (seq, stock))| FeedChange::Stock { book, seq, stock }),
        (book_id(), any::<(u64, u64)>()).prop_map(|(book, (seq, cost_cents))| FeedChange::Cost {
            book,
            seq,
            cost_cents
        }),
        book().prop_map(|book| FeedChange::Book { book }),
        (book_id(), any::<u64>()).prop_map(|(book, seq)| FeedChange::Gone { book, seq }),
        (inline(), any::<u64>()).prop_map(|(topic, seq)| FeedChange::Listing { topic, seq }),
    ];
    (any::<(u64, u64)>(), list(change)).prop_map(|((after, upto), changes)| Feed { after, upto, changes })
}

pub fn front_status() -> impl Strategy<Value = FrontStatus> + Clone {
    let reads = any::<(u64, u64, u64, u64, u64, u64, u64)>();
    (reads, any::<(Option<u64>, u64, u16)>(), any::<(u64, u64, u64, u32)>()).prop_map(|(reads, feed, sizes)| {
        let (hits, delayed, misses, coalesced, invalidations, refused, emptied) = reads;
        let ((fresh_age_ms, processed, feed), (entries, bytes, bytes_max, waiting)) = (feed, sizes);
        FrontStatus {
            hits,
            delayed,
            misses,
            coalesced,
            invalidations,
            refused,
            emptied,
            fresh_age_ms,
            processed,
            feed,
            entries,
            bytes,
            bytes_max,
            waiting,
        }
    })
}

pub fn trace() -> impl Strategy<Value = Trace> + Clone {
    use Stage::*;
    let stage = proptest::sample::select(&[Front, Order, Catalog, Token, Replicate, Sync, Apply][..]);
    list((stage, any::<(u16, u64)>()).prop_map(|(stage, (node, ns))| Span { stage, node, ns }))
}

pub fn submit() -> impl Strategy<Value = Submit> + Clone {
    let job = (any::<(u64, u32, bool, u8)>(), blob()).prop_map(|((job, deadline_ms, trace, kind), body)| SubmitJob {
        job,
        deadline_ms,
        trace,
        kind,
        body,
    });
    list(job).prop_map(|jobs| Submit { jobs })
}
pub fn results() -> impl Strategy<Value = Results> + Clone {
    let result =
        (any::<(u64, u16, u8)>(), blob()).prop_map(|((job, kind, flags), body)| JobResult { job, kind, flags, body });
    list(result).prop_map(|results| Results { results })
}
pub fn data() -> impl Strategy<Value = Data> + Clone {
    (epoch(), any::<(u64, u64)>(), blob()).prop_map(|(epoch, (hop, committed), batch)| Data {
        epoch,
        hop,
        committed,
        batch,
    })
}
pub fn token() -> impl Strategy<Value = Token> + Clone {
    let member = any::<(u16, u64, u64, u64)>().prop_map(|(node, boot_nonce, want, served)| TokenMember {
        node,
        boot_nonce,
        want,
        served,
    });
    let durable = any::<([u8; 16], u64)>().prop_map(|(log_uuid, durable)| TokenDurable { log_uuid, durable });
    (epoch(), any::<(u64, u64, u64, u128, u64)>(), list(member), list(durable)).prop_map(
        |(epoch, (config_id, hop, next_seq, hash_before, committed), members, durable)| Token {
            epoch,
            config_id,
            hop,
            next_seq,
            hash_before,
            committed,
            members,
            durable,
        },
    )
}
pub fn want() -> impl Strategy<Value = Want> + Clone {
    (epoch(), any::<(u64, u64)>()).prop_map(|(epoch, (boot_nonce, number))| Want { epoch, boot_nonce, number })
}
pub fn ack() -> impl Strategy<Value = Ack> + Clone {
    (epoch(), any::<(u64, u128, u64, u64, u64)>()).prop_map(
        |(epoch, (durable, hash, committed, checked_seq, checked_hash))| Ack {
            epoch,
            durable,
            hash,
            committed,
            checked_seq,
            checked_hash,
        },
    )
}
pub fn commit() -> impl Strategy<Value = Commit> + Clone {
    (epoch(), any::<u64>()).prop_map(|(epoch, committed)| Commit { epoch, committed })
}
pub fn fetch() -> impl Strategy<Value = Fetch> + Clone {
    (epoch(), any::<(u64, u128)>()).prop_map(|(epoch, (from_seq, hash_before))| Fetch { epoch, from_seq, hash_before })
}
pub fn fetch_refused() -> impl Strategy<Value = FetchRefused> + Clone {
    (epoch(), any::<(u64, u64)>()).prop_map(|(epoch, (first_seq, last_seq))| FetchRefused {
        epoch,
        first_seq,
        last_seq,
    })
}

pub fn pre_vote() -> impl Strategy<Value = PreVote> + Clone {
    (epoch(), any::<u64>(), log_end()).prop_map(|(epoch, attempt, last)| PreVote { epoch, attempt, last })
}
pub fn pre_vote_answer() -> impl Strategy<Value = PreVoteAnswer> + Clone {
    (epoch(), any::<(u64, bool)>()).prop_map(|(epoch, (attempt, yes))| PreVoteAnswer { epoch, attempt, yes })
}
pub fn prepare() -> impl Strategy<Value = Prepare> + Clone {
    (epoch(), any::<u64>(), list(any::<[u8; 16]>())).prop_map(|(epoch, boot_nonce, voters)| Prepare {
        epoch,
        boot_nonce,
        voters,
    })
}
pub fn promise() -> impl Strategy<Value = Promise> + Clone {
    (epoch(), log_end(), any::<(u64, u128, u64)>(), boundaries(), membership()).prop_map(
        |(epoch, last, (boot_nonce, last_hash, committed), boundaries, membership)| Promise {
            epoch,
            boot_nonce,
            last,
            last_hash,
            committed,
            boundaries,
            membership,
        },
    )
}
pub fn install() -> impl Strategy<Value = Install> + Clone {
    (epoch(), any::<u64>(), boundaries()).prop_map(|(epoch, first_seq, boundaries)| Install {
        epoch,
        first_seq,
        boundaries,
    })
}
pub fn reject() -> impl Strategy<Value = Reject> + Clone {
    epoch().prop_map(|epoch| Reject { epoch })
}
pub fn barrier() -> impl Strategy<Value = Barrier> + Clone {
    (epoch(), any::<(u64, u64)>()).prop_map(|(epoch, (boot_nonce, round))| Barrier { epoch, boot_nonce, round })
}
pub fn barrier_answer() -> impl Strategy<Value = BarrierAnswer> + Clone {
    (epoch(), any::<(u64, u64, u64, u64)>()).prop_map(|(epoch, (boot_nonce, round, config_id, durable))| {
        BarrierAnswer { epoch, boot_nonce, round, config_id, durable }
    })
}

pub fn snapshot_fetch() -> impl Strategy<Value = SnapshotFetch> + Clone {
    any::<(u64, u32, u64, u32)>().prop_map(|(seq, file, offset, len)| SnapshotFetch { seq, file, offset, len })
}
pub fn snapshot_part() -> impl Strategy<Value = SnapshotPart> + Clone {
    let file = (text(), any::<(u64, u128)>()).prop_map(|(name, (len, hash))| SnapshotFile { name, len, hash });
    let head = (epoch(), any::<u128>(), list(file));
    let head = head.prop_map(|(epoch, entry_hash, files)| SnapshotHead { epoch, entry_hash, files });
    (any::<(u64, u32, u64)>(), option::of(head), blob()).prop_map(|((seq, file, offset), head, bytes)| SnapshotPart {
        seq,
        head,
        file,
        offset,
        bytes,
    })
}
pub fn snapshot_refused() -> impl Strategy<Value = SnapshotRefused> + Clone {
    let why =
        proptest::sample::select(&[SnapshotRefusal::Gone, SnapshotRefusal::Busy, SnapshotRefusal::Unreadable][..]);
    (any::<(u64, u32, u64, u64)>(), why).prop_map(|((seq, file, offset, newest), why)| SnapshotRefused {
        seq,
        file,
        offset,
        why,
        newest,
    })
}

fn replica_beat() -> impl Strategy<Value = ReplicaBeat> + Clone {
    let head = any::<([u8; 16], u64, u64, u64, u16, bool, u64)>();
    let tail = any::<(u64, u128, u64, u64, bool, u64, u32)>();
    (head, epoch(), log_end(), tail, list(any::<u16>())).prop_map(|(a, promised, last, b, hears)| ReplicaBeat {
        log_uuid: a.0,
        boot_nonce: a.1,
        promised,
        config_id: a.2,
        hop: a.3,
        holder: a.4,
        claims: a.5,
        want: a.6,
        last,
        durable: b.0,
        durable_hash: b.1,
        committed: b.2,
        applied: b.3,
        withheld: b.4,
        fetched: b.5,
        hears,
        late_us: b.6,
    })
}

/// A heartbeat and the header that it may be sent under.
pub fn heartbeat() -> impl Strategy<Value = (Header, Heartbeat)> + Clone {
    let header = (1..=u16::MAX, any::<(u64, u64)>());
    (header, any::<(u32, u64, bool)>(), list(any::<u16>()), option::of(replica_beat())).prop_map(
        |((node, (nonce, counter)), (late_us, number, asks), hears, replica)| {
            let boot_nonce = replica.as_ref().map_or(nonce, |beat| beat.boot_nonce);
            (Header { node, boot_nonce, counter }, Heartbeat { late_us, number, asks, hears, replica })
        },
    )
}

/// The kind and the bytes of an arbitrary message of any kind.
pub fn body() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    fn encoded<M: Message + std::fmt::Debug>(message: M) -> (Kind, Vec<u8>) {
        (M::KIND, codec::encode(&message).to_vec())
    }
    proptest::strategy::Union::new([
        hello().prop_map(encoded).boxed(),
        hello_ok().prop_map(encoded).boxed(),
        error().prop_map(encoded).boxed(),
        Just(Ping {}).prop_map(encoded).boxed(),
        Just(Pong {}).prop_map(encoded).boxed(),
        Just(OpenSession {}).prop_map(encoded).boxed(),
        lookup().prop_map(encoded).boxed(),
        search().prop_map(encoded).boxed(),
        topics().prop_map(encoded).boxed(),
        books().prop_map(encoded).boxed(),
        order().prop_map(encoded).boxed(),
        orders().prop_map(encoded).boxed(),
        write().prop_map(encoded).boxed(),
        Just(Status {}).prop_map(encoded).boxed(),
        replace().prop_map(encoded).boxed(),
        session_opened().prop_map(encoded).boxed(),
        lookup_ok().prop_map(encoded).boxed(),
        search_ok().prop_map(encoded).boxed(),
        topics_ok().prop_map(encoded).boxed(),
        books_ok().prop_map(encoded).boxed(),
        order_ok().prop_map(encoded).boxed(),
        orders_ok().prop_map(encoded).boxed(),
        write_ok().prop_map(encoded).boxed(),
        status_ok().prop_map(encoded).boxed(),
        replace_ok().prop_map(encoded).boxed(),
        submit().prop_map(encoded).boxed(),
        results().prop_map(encoded).boxed(),
        members().prop_map(encoded).boxed(),
        Just(Floor {}).prop_map(encoded).boxed(),
        floor_ok().prop_map(encoded).boxed(),
        feed_open().prop_map(encoded).boxed(),
        feed_ok().prop_map(encoded).boxed(),
        feed().prop_map(encoded).boxed(),
        feed_read().prop_map(encoded).boxed(),
        data().prop_map(encoded).boxed(),
        token().prop_map(encoded).boxed(),
        want().prop_map(encoded).boxed(),
        ack().prop_map(encoded).boxed(),
        commit().prop_map(encoded).boxed(),
        fetch().prop_map(encoded).boxed(),
        fetch_refused().prop_map(encoded).boxed(),
        pre_vote().prop_map(encoded).boxed(),
        pre_vote_answer().prop_map(encoded).boxed(),
        prepare().prop_map(encoded).boxed(),
        promise().prop_map(encoded).boxed(),
        install().prop_map(encoded).boxed(),
        reject().prop_map(encoded).boxed(),
        barrier().prop_map(encoded).boxed(),
        barrier_answer().prop_map(encoded).boxed(),
        snapshot_fetch().prop_map(encoded).boxed(),
        snapshot_part().prop_map(encoded).boxed(),
        snapshot_refused().prop_map(encoded).boxed(),
    ])
}

//! Every bound of the protocol, with what it costs. `SPEC.md` §9 repeats them; a test compares the two.

/// Version of the protocol spoken by this crate; byte 8 of every frame.
pub const VERSION: u8 = 1;

/// Longest body of a frame before the handshake is done. A stranger can make us hold this much, no more.
pub const HELLO_BODY_MAX: usize = 4 * 1024;
/// Longest body of a frame between a client and a server, either way.
pub const CLIENT_BODY_MAX: usize = 256 * 1024;
/// Longest body of a frame between two servers.
pub const PEER_BODY_MAX: usize = 4 * 1024 * 1024;

/// Longest book id, in bytes; only `[A-Za-z0-9._-]`.
pub const BOOK_ID_LEN_MAX: usize = 64;
/// Longest title, in bytes of UTF-8.
pub const TITLE_LEN_MAX: usize = 512;
/// Longest topic, in bytes of UTF-8.
pub const TOPIC_LEN_MAX: usize = 64;
/// Longest name of a node or of a client's program, in bytes of UTF-8.
pub const NAME_LEN_MAX: usize = 64;
/// Longest explanation in an error, in bytes of UTF-8.
pub const DETAIL_LEN_MAX: usize = 512;
/// Longest credentials in a `Hello`, in bytes.
pub const CREDENTIALS_LEN_MAX: usize = 64;

/// Lines in one cart.
pub const CART_LINES_MAX: usize = 64;
/// Copies of one book in a cart line or a restock; the least is 1.
pub const COPIES_MAX: u32 = 1_000_000;
/// Highest price of a copy, in cents. With full carts of the dearest books a total still fits a `u64`.
pub const COST_CENTS_MAX: u64 = 100_000_000_000;
/// Books in one `Put`.
pub const PUT_BOOKS_MAX: usize = 256;
/// Records on one page of `Search`, `Topics` or `Books`.
pub const PAGE_MAX: u32 = 256;
/// Orders on one page of `Orders`; an order of a full cart is the largest record there is.
pub const ORDERS_PAGE_MAX: u32 = 40;
/// Spans in one trace.
pub const TRACE_SPANS_MAX: usize = 32;

/// Requests in flight on one client connection; one more gets `Busy`.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 8_192;
/// Client connections of one front; one more is told `Busy` and closed.
pub const CONNECTIONS_MAX: usize = 20_000;
/// Jobs (requests passed on and not yet answered) of one front or order server: about 300 bytes each.
pub const JOBS_MAX: usize = 131_072;
/// Bytes of the bodies of a front's jobs.
pub const JOB_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Longest deadline a request may ask for, in milliseconds; a larger one is taken as this.
pub const DEADLINE_MS_MAX: u32 = 600_000;
/// Deadline of a request that asks for none (0), in milliseconds.
pub const DEADLINE_MS_DEFAULT: u32 = 5_000;
/// Time from accept to a complete `Hello`, in milliseconds; then the connection is closed.
pub const HANDSHAKE_MS_MAX: u32 = 5_000;

/// Unsent answers after which a client's further requests are not read until it has read some.
pub const CLIENT_OUTPUT_HIGH: usize = 1024 * 1024;
/// Unsent answers at which a client is cut off.
pub const CLIENT_OUTPUT_MAX: usize = 16 * 1024 * 1024;
/// Time for which a client may leave unsent answers untouched, in milliseconds; then it is cut off.
pub const CLIENT_STALL_MS_MAX: u32 = 10_000;
/// Unsent bytes at which a link between servers is cut; the peer catches up from the log on its return.
pub const PEER_OUTPUT_MAX: usize = 64 * 1024 * 1024;

/// Sessions kept; the one unused for longest is evicted first. About 200 bytes each when idle.
pub const SESSIONS_MAX: usize = 100_000;
/// Entries of the log after which an unused session is evicted.
pub const SESSION_DISTANCE_MAX: u64 = 100_000_000;
/// Counters a session may be ahead of the first incomplete one that it declared.
pub const SESSION_WINDOW: u64 = 1_024;
/// Bytes of kept results of one session; a write that comes when there are more is refused without effect.
pub const SESSION_RESULT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of kept results of all sessions; the one unused for longest is evicted first.
pub const RESULT_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Entries in one batch of the log.
pub const BATCH_ENTRIES_MAX: usize = 8_192;
/// Bytes of entries in one batch of the log.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Jobs in one `Submit` or `Results`.
pub const SUBMIT_JOBS_MAX: usize = 8_192;
/// Bytes of bodies at which one `Submit` or `Results` is closed and the next begun.
pub const SUBMIT_BYTES_SOFT: usize = 1024 * 1024;
/// Log replicas in one cluster: one byte-sized table per token.
pub const REPLICAS_MAX: usize = 32;
/// Longest address of a node in a configuration, in bytes.
pub const ADDRESS_LEN_MAX: usize = 255;
/// Logs that were removed and are remembered by name: 16 bytes each in every configuration.
pub const REMOVED_MAX: usize = 1_024;
/// Boundaries of epochs that a log names, the latest ones: 18 bytes each.
pub const BOUNDARIES_MAX: usize = 256;
/// Bytes in one part of a snapshot: what a link between servers is busy with at most before it can carry a batch.
pub const SNAPSHOT_PART_BYTES_MAX: usize = 256 * 1024;
/// Files of one snapshot.
pub const SNAPSHOT_FILES_MAX: usize = 4_096;
/// Longest name of a snapshot's file, in bytes.
pub const SNAPSHOT_FILE_NAME_LEN_MAX: usize = 64;
/// Changes in one `Feed`; more of one turn are told in several.
pub const FEED_CHANGES_MAX: usize = 4_096;
/// How far behind an answer may be, in milliseconds: whatever was answered to anybody longer ago is in it.
pub const STALENESS_MS_MAX: u32 = 250;
/// Nodes in one cluster, of all roles.
pub const NODES_MAX: usize = 255;
/// Longest datagram between two nodes, in bytes: it fits the smallest packet that IPv6 carries whole.
pub const DATAGRAM_LEN_MAX: usize = 1_200;

// A front has room for one request of each client, and for as many more as a few clients may have.
const _: () = assert!(CONNECTIONS_MAX + 8 * REQUESTS_IN_FLIGHT_MAX < JOBS_MAX);
const _: () = assert!(HELLO_BODY_MAX < CLIENT_BODY_MAX && CLIENT_BODY_MAX < PEER_BODY_MAX);
// A full Put fits a client's frame, and so do a full page and a full page of full orders, with a full trace before them.
const TRACE_BYTES_MAX: usize = 8 + TRACE_SPANS_MAX * (4 + 2 + 8);
const BOOK_BYTES_MAX: usize = 3 * 8 + BOOK_ID_LEN_MAX + TITLE_LEN_MAX + TOPIC_LEN_MAX + 8 + 4 + 8;
const _: () = assert!(16 + PUT_BOOKS_MAX * BOOK_BYTES_MAX + 64 <= CLIENT_BODY_MAX);
const _: () = assert!(PAGE_MAX as usize * BOOK_BYTES_MAX + TRACE_BYTES_MAX + 256 <= CLIENT_BODY_MAX);
const ORDER_BYTES_MAX: usize = 32 + CART_LINES_MAX * (8 + BOOK_ID_LEN_MAX + 4 + 8 + 4);
const _: () = assert!(ORDERS_PAGE_MAX as usize * ORDER_BYTES_MAX + TRACE_BYTES_MAX + 256 <= CLIENT_BODY_MAX);
// A feed of the longest books fits a frame between servers.
const _: () = assert!(FEED_CHANGES_MAX * (4 + BOOK_BYTES_MAX) + 64 <= PEER_BODY_MAX);
// A Submit that is closed at the soft limit, plus one largest write, fits a frame between servers.
const _: () = assert!(SUBMIT_BYTES_SOFT + CLIENT_BODY_MAX + SUBMIT_JOBS_MAX * 32 <= PEER_BODY_MAX);
const _: () = assert!(BATCH_BYTES_MAX + CLIENT_BODY_MAX + 4096 <= PEER_BODY_MAX);
// The dearest possible cart has a total that fits.
const _: () = assert!((CART_LINES_MAX as u128) * (COPIES_MAX as u128) * (COST_CENTS_MAX as u128) <= u64::MAX as u128);
// A promise with the fullest configuration fits a frame between servers, and a configuration fits an entry.
const VOTER_BYTES_MAX: usize = 2 + 16 + 1 + 8 + ADDRESS_LEN_MAX;
const MEMBERSHIP_BYTES_MAX: usize =
    8 + 8 + REPLICAS_MAX * VOTER_BYTES_MAX + 1 + 16 + VOTER_BYTES_MAX + 8 + REMOVED_MAX * 16;
const _: () = assert!(MEMBERSHIP_BYTES_MAX <= CLIENT_BODY_MAX);
const _: () = assert!(MEMBERSHIP_BYTES_MAX + BOUNDARIES_MAX * 18 + 256 <= PEER_BODY_MAX);
// A part of a snapshot that names as many files as there may be fits a frame between servers.
const SNAPSHOT_FILE_BYTES_MAX: usize = 8 + SNAPSHOT_FILE_NAME_LEN_MAX + 8 + 16;
const _: () = assert!(SNAPSHOT_FILES_MAX * SNAPSHOT_FILE_BYTES_MAX + SNAPSHOT_PART_BYTES_MAX + 64 <= PEER_BODY_MAX);

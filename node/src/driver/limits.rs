//! The driver's bounds, as values so that tests can reach them quickly.

use pygmy_proto::limits;

/// Datagrams read in one turn.
pub(super) const DATAGRAM_BUDGET: usize = 256;

/// Bounds of one loop. The default is what the protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time from accept, or from the attempt to connect, to a finished handshake.
    pub handshake_ms_max: u32,
    /// Unsent answers after which a client is not read from.
    pub client_output_high: usize,
    /// Unsent answers at which a client is cut off.
    pub client_output_max: usize,
    /// Time without progress after which a client with unsent answers is cut off.
    pub client_stall_ms_max: u32,
    /// Unsent bytes at which a link between servers is cut.
    pub peer_output_max: usize,
    /// Clients; one more is told `Busy`.
    pub connections_max: usize,
    /// First wait before connecting again.
    pub reconnect_ms_min: u32,
    /// Longest wait before connecting again.
    pub reconnect_ms_max: u32,
    /// Time for which a closing connection may still take its output and drain its input.
    pub linger_ms_max: u32,
    /// Time from the request to leave to the end of the process, whatever is still open.
    pub leave_ms_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_ms_max: limits::HANDSHAKE_MS_MAX,
            client_output_high: limits::CLIENT_OUTPUT_HIGH,
            client_output_max: limits::CLIENT_OUTPUT_MAX,
            client_stall_ms_max: limits::CLIENT_STALL_MS_MAX,
            peer_output_max: limits::PEER_OUTPUT_MAX,
            connections_max: limits::CONNECTIONS_MAX,
            reconnect_ms_min: 10,
            reconnect_ms_max: 1_000,
            linger_ms_max: 500,
            leave_ms_max: 5_000,
        }
    }
}

/// Connections above `connections_max` that are still accepted, so that a crowd of clients cannot shut servers out.
pub(super) const PEER_RESERVE: usize = 128;
/// Size of the one buffer that all connections are read into.
pub(super) const READ_BUFFER: usize = 256 * 1024;
/// Bytes read from a connection without a handshake in one turn.
pub(super) const NEW_READ_BUDGET: usize = 8 * 1024;
/// Bytes read from a client in one turn: at most this many bytes of small requests before others have theirs.
pub(super) const CLIENT_READ_BUDGET: usize = 64 * 1024;
/// Bytes read from another server in one turn. Replication must not fall behind because clients are many.
pub(super) const PEER_READ_BUDGET: usize = 1024 * 1024;
/// Connections accepted in one turn.
pub(super) const ACCEPT_BUDGET: usize = 256;
/// Bytes that a closing connection may still send us to be dropped.
pub(super) const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// Wait before accepting again when descriptors or memory ran out.
pub(super) const ACCEPT_PAUSE_MS: u64 = 100;
/// Rounds of "durable, therefore new batches" in one turn before sockets are looked at again.
pub(super) const DURABLE_ROUNDS_MAX: usize = 4;
/// Time that connections have to take the last bytes and close from their side once everything was answered.
pub(super) const GRACE_MS: u64 = 100;

const _: () = assert!(NEW_READ_BUDGET > limits::HELLO_BODY_MAX + pygmy_proto::HEADER_LEN);
const _: () = assert!(CLIENT_READ_BUDGET <= READ_BUFFER && READ_BUFFER <= PEER_READ_BUDGET);
const _: () = assert!(limits::CONNECTIONS_MAX + PEER_RESERVE < super::conns::SLOTS_MAX);

//! What one seed draws before it begins: the size of the cluster, its hardware, its faults and its clients.

use crate::chance::Chance;

/// A microsecond in the simulator's nanoseconds.
pub const US: u64 = 1_000;
/// A millisecond.
pub const MS: u64 = 1_000_000;
/// A second.
pub const SEC: u64 = 1_000_000_000;

/// How often each fault comes, as the mean time between two of its kind; `None`: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// A connection breaks.
    pub reset_every: Option<u64>,
    /// A node is stopped for a while.
    pub pause_every: Option<u64>,
    /// A node's wall clock jumps.
    pub clock_every: Option<u64>,
    /// A node dies, and comes back without its memory.
    pub crash_every: Option<u64>,
    /// A node is asked to leave, and comes back without its memory.
    pub leave_every: Option<u64>,
    /// Attempts to connect that fail, in a thousand.
    pub connect_fail_permille: u64,
    /// Writes to a connection that are held up, in a thousand.
    pub hiccup_permille: u64,
    /// Syncs that take long, in a thousand.
    pub stall_permille: u64,
}

/// What one seed is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Fronts.
    pub fronts: u16,
    /// Order servers.
    pub orders: u16,
    /// Catalogs.
    pub catalogs: u16,
    /// Whether the token circles without being wanted.
    pub rotate: bool,
    /// Clients.
    pub clients: u64,
    /// Requests that each client makes.
    pub ops: u64,
    /// Requests that a client has open at once.
    pub pipeline: u64,
    /// Mean time between two requests of a client.
    pub think: u64,
    /// Books in the store.
    pub books: u64,
    /// Least and longest time of a byte under way.
    pub latency: (u64, u64),
    /// Least and longest time of a sync.
    pub sync: (u64, u64),
    /// Longest time from an input to the turn that takes it: several inputs then share a turn.
    pub turn_delay: u64,
    /// Faults while the clients work.
    pub faults: Faults,
    /// When the faults end, if the clients are not done before.
    pub chaos: u64,
}

fn maybe(chance: &mut Chance, permille: u64, low: u64, high: u64) -> Option<u64> {
    let mean = chance.between(low, high);
    chance.permille(permille).then_some(mean)
}

impl Faults {
    fn draw(chance: &mut Chance) -> Self {
        if chance.permille(150) {
            return Self::default();
        }
        Self {
            reset_every: maybe(chance, 650, 10 * MS, 300 * MS),
            pause_every: maybe(chance, 500, 50 * MS, 500 * MS),
            clock_every: maybe(chance, 500, 20 * MS, 500 * MS),
            crash_every: maybe(chance, 500, 60 * MS, 600 * MS),
            leave_every: maybe(chance, 500, 60 * MS, 600 * MS),
            connect_fail_permille: maybe(chance, 400, 20, 400).unwrap_or(0),
            hiccup_permille: maybe(chance, 500, 5, 100).unwrap_or(0),
            stall_permille: maybe(chance, 500, 5, 100).unwrap_or(0),
        }
    }
}

impl Plan {
    /// What the seed of `chance` is.
    pub fn draw(chance: &mut Chance) -> Self {
        let (fronts, orders, catalogs) = match chance.below(10) {
            0 | 1 => (1, 2, 2),
            2 => (2, 2, 5),
            _ => (2, 2, 3),
        };
        let fast = chance.permille(700);
        let latency = if fast { (20 * US, 300 * US) } else { (100 * US, 8 * MS) };
        let sync = if chance.permille(700) { (30 * US, 800 * US) } else { (500 * US, 15 * MS) };
        Self {
            fronts,
            orders,
            catalogs,
            rotate: chance.permille(120),
            clients: chance.between(2, 5),
            ops: chance.between(10, 40),
            pipeline: chance.between(1, 6),
            think: chance.between(MS, 25 * MS),
            books: chance.between(3, 7),
            latency,
            sync,
            turn_delay: chance.pick(&[5 * US, 50 * US, 2 * MS]).unwrap_or(US),
            faults: Faults::draw(chance),
            chaos: 4 * SEC,
        }
    }

    /// Nodes in all.
    pub fn nodes(&self) -> u16 {
        self.fronts + self.orders + self.catalogs
    }

    /// Log replicas that count.
    pub fn voters(&self) -> usize {
        usize::from(self.orders + self.catalogs)
    }

    /// Log replicas that must have an entry.
    pub fn majority(&self) -> usize {
        self.voters() / 2 + 1
    }
}

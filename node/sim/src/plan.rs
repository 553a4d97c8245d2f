//! What one seed draws before it begins: the size of the cluster, its hardware, its faults and its clients.

use crate::chance::Chance;
use crate::events::Fault;

/// A microsecond in the simulator's nanoseconds.
pub const US: u64 = 1_000;
/// A millisecond.
pub const MS: u64 = 1_000_000;
/// A second.
pub const SEC: u64 = 1_000_000_000;

/// By so many millionths a clock may run too fast or too slow.
pub const SKEW_MAX_PPM: u64 = 20_000;

/// The faults end after this at the latest.
pub const CHAOS_MAX: u64 = 5 * SEC;

/// How often each fault comes, as the mean time between two of its kind; `None`: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// A connection breaks.
    pub reset_every: Option<u64>,
    /// A node is stopped for a while.
    pub pause_every: Option<u64>,
    /// A node's wall clock jumps.
    pub clock_every: Option<u64>,
    /// A node dies, and comes back with its disk.
    pub crash_every: Option<u64>,
    /// All nodes die.
    pub crash_all_every: Option<u64>,
    /// The disk of a dead log replica is lost.
    pub wipe_every: Option<u64>,
    /// A node is asked to leave, and comes back with its disk.
    pub leave_every: Option<u64>,
    /// Some nodes are cut off from others for a while.
    pub cut_every: Option<u64>,
    /// A disk has no room for a while.
    pub full_every: Option<u64>,
    /// A disk is slow for a while.
    pub slow_every: Option<u64>,
    /// A write or a sync fails.
    pub error_every: Option<u64>,
    /// A bit flips.
    pub flip_every: Option<u64>,
    /// A voter is replaced.
    pub replace_every: Option<u64>,
    /// A front and the catalog that feeds it are parted, or one of them stops or dies.
    pub feed_every: Option<u64>,
    /// One node is not heard by another one for a while, though their connection stands.
    pub deaf_every: Option<u64>,
    /// Crashes that are power failures, in a thousand.
    pub power_permille: u64,
    /// Starts in which the power fails, in a thousand.
    pub power_at_start_permille: u64,
    /// Starts at which a sector cannot be read, in a thousand.
    pub unreadable_permille: u64,
    /// How often the disk of whoever begins to receive a snapshot is full before it has it.
    pub full_transfers_permille: u64,
    /// Runs at whose end many links break at once, in a thousand.
    pub last_resets_permille: u64,
    /// Runs at whose end some die for good, in a thousand.
    pub graves_permille: u64,
    /// Longest time for which a node is stopped.
    pub pause_max: u64,
    /// Longest time before a dead node comes back.
    pub down_max: u64,
    /// Attempts to connect that fail, in a thousand.
    pub connect_fail_permille: u64,
    /// Writes to a connection that are held up, in a thousand.
    pub hiccup_permille: u64,
    /// Syncs that take long, in a thousand.
    pub stall_permille: u64,
    /// Datagrams that are lost, in a thousand.
    pub loss_permille: u64,
    /// Datagrams that come twice or late, in a thousand.
    pub stray_permille: u64,
}

/// What the clients of a run are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits {
    /// Of a thousand requests, reads.
    pub reads_permille: u64,
    /// Of a thousand requests, those that look for a few hot books many times soon after.
    pub rush_permille: u64,
    /// Of a thousand requests, those that go to whatever front comes to mind, with the session that there is.
    pub roam_permille: u64,
    /// Of a thousand reads, those that go past the cache.
    pub no_cache_permille: u64,
    /// Of a thousand writes, those that change what there is and what it costs rather than how much there is of it.
    pub churn_permille: u64,
}

impl Habits {
    fn draw(chance: &mut Chance) -> Self {
        Self {
            reads_permille: chance.pick(&[350, 350, 600, 850]).unwrap_or(0),
            rush_permille: maybe(chance, 400, 50, 500).unwrap_or(0),
            roam_permille: maybe(chance, 500, 20, 600).unwrap_or(0),
            no_cache_permille: maybe(chance, 300, 20, 400).unwrap_or(0),
            churn_permille: maybe(chance, 500, 50, 800).unwrap_or(0),
        }
    }
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
    /// Of a thousand reads, those that ask to be fresh.
    pub fresh_permille: u64,
    /// What clients are like.
    pub habits: Habits,
    /// Books in the store.
    pub books: u64,
    /// Bytes of a front's cache; 0: there is none.
    pub cache_bytes: u64,
    /// What a front lets be in work at once; `None`: so much as never comes together here.
    pub window: Option<u64>,
    /// Bytes of the log between two snapshots at least; `None`: none are taken.
    pub snapshot_bytes: Option<u64>,
    /// Committed entries that a replica may have left to apply before it lags, those at which it no longer does, and those
    /// that it applies in a turn; `None`: so many as never come together here.
    pub lag: Option<(u64, u64, u64)>,
    /// Least and longest time of a byte under way.
    pub latency: (u64, u64),
    /// Least and longest time of a sync.
    pub sync: (u64, u64),
    /// Longest time from an input to the turn that takes it: several inputs then share a turn.
    pub turn_delay: u64,
    /// How much faster or slower a node's clock may run, in millionths.
    pub skew_ppm: u64,
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
    /// The mean time between two of a kind; `None`: there are none.
    pub(crate) fn mean_time_between(&self, fault: Fault) -> Option<u64> {
        match fault {
            Fault::Reset => self.reset_every,
            Fault::Pause => self.pause_every,
            Fault::Clock => self.clock_every,
            Fault::Crash => self.crash_every,
            Fault::CrashAll => self.crash_all_every,
            Fault::Wipe => self.wipe_every,
            Fault::Leave => self.leave_every,
            Fault::Cut => self.cut_every,
            Fault::Full => self.full_every,
            Fault::Slow => self.slow_every,
            Fault::Error => self.error_every,
            Fault::Flip => self.flip_every,
            Fault::Replace => self.replace_every,
            Fault::Feed => self.feed_every,
            Fault::Deaf => self.deaf_every,
        }
    }

    fn draw(chance: &mut Chance) -> Self {
        if chance.permille(100) {
            return Self::default();
        }
        let mut faults = Self {
            reset_every: maybe(chance, 600, 10 * MS, 300 * MS),
            pause_every: maybe(chance, 500, 50 * MS, 500 * MS),
            clock_every: maybe(chance, 400, 20 * MS, 500 * MS),
            crash_every: maybe(chance, 600, 60 * MS, 900 * MS),
            crash_all_every: maybe(chance, 250, 300 * MS, 3 * SEC),
            wipe_every: maybe(chance, 350, 100 * MS, SEC),
            leave_every: maybe(chance, 350, 60 * MS, 900 * MS),
            cut_every: maybe(chance, 450, 100 * MS, 1_500 * MS),
            full_every: maybe(chance, 250, 100 * MS, SEC),
            slow_every: maybe(chance, 300, 100 * MS, SEC),
            error_every: maybe(chance, 300, 200 * MS, 2 * SEC),
            flip_every: maybe(chance, 400, 50 * MS, SEC),
            replace_every: None,
            feed_every: None,
            deaf_every: None,
            power_permille: chance.pick(&[0, 300, 700, 1_000]).unwrap_or(0),
            power_at_start_permille: maybe(chance, 300, 20, 300).unwrap_or(0),
            unreadable_permille: maybe(chance, 300, 20, 400).unwrap_or(0),
            full_transfers_permille: 0,
            last_resets_permille: 0,
            graves_permille: 0,
            pause_max: chance.pick(&[20 * MS, 400 * MS, 2 * SEC]).unwrap_or(MS),
            down_max: chance.pick(&[20 * MS, 300 * MS, 3 * SEC]).unwrap_or(MS),
            connect_fail_permille: maybe(chance, 400, 20, 400).unwrap_or(0),
            hiccup_permille: maybe(chance, 500, 5, 100).unwrap_or(0),
            stall_permille: maybe(chance, 500, 5, 100).unwrap_or(0),
            loss_permille: maybe(chance, 600, 5, 300).unwrap_or(0),
            stray_permille: maybe(chance, 500, 5, 100).unwrap_or(0),
        };
        faults.full_transfers_permille = if faults.full_every.is_some() { 1_000 } else { 50 };
        faults.last_resets_permille = if faults.reset_every.is_some() { 400 } else { 0 };
        faults.graves_permille = if faults.crash_every.is_some() { 600 } else { 0 };
        if chance.permille(200) {
            // One epoch after the other, hardly any of which lasts.
            faults.crash_every = Some(chance.between(20 * MS, 200 * MS));
            faults.cut_every = maybe(chance, 500, 50 * MS, 400 * MS);
            faults.down_max = 100 * MS;
        }
        faults
    }
}

impl Plan {
    /// What the seed of `chance` is.
    pub fn draw(chance: &mut Chance) -> Self {
        // From a source of its own: what a seed without fresh reads or replacements does depends on nothing that they do.
        let mut aside = Chance::new(chance.clone().word());
        let fresh_permille = maybe(&mut aside, 600, 50, 950).unwrap_or(0);
        // From another one: what a seed does in which nobody lags depends on nothing of that.
        let mut slow = Chance::new(aside.clone().word());
        let lag = slow.permille(300).then(|| (slow.between(4, 60), slow.between(0, 4), slow.between(1, 30)));
        let mut own = Chance::new(slow.clone().word());
        let habits = Habits::draw(&mut own);
        let (feed_every, deaf_every) = (maybe(&mut own, 450, 40 * MS, 600 * MS), maybe(&mut own, 300, 100 * MS, SEC));
        let mut snapshot_bytes = maybe(&mut aside, 800, 300, 5_000);
        let replace_every = maybe(&mut aside, 400, 50 * MS, SEC);
        let (fronts, orders, catalogs) = match chance.below(12) {
            0 => (1, 1, 1),
            1 => (2, 1, 2),
            2 | 3 => (1, 2, 2),
            4 => (2, 2, 5),
            _ => (2, 2, 3),
        };
        let fast = chance.permille(700);
        let latency = if fast { (20 * US, 300 * US) } else { (100 * US, 8 * MS) };
        let sync = if chance.permille(700) { (30 * US, 800 * US) } else { (500 * US, 15 * MS) };
        let mut faults = Faults::draw(chance);
        if faults.crash_every.is_some() && aside.permille(300) {
            // Logs begin behind snapshots everywhere, and there is always somebody who needs one.
            snapshot_bytes = Some(aside.between(300, 900));
            faults.crash_all_every = Some(aside.between(200 * MS, 900 * MS));
            faults.wipe_every = Some(aside.between(50 * MS, 400 * MS));
        }
        Self {
            fronts,
            orders,
            catalogs,
            rotate: chance.permille(120),
            clients: chance.between(2, 5),
            ops: chance.between(10, 60),
            pipeline: chance.between(1, 6),
            think: chance.between(MS, 60 * MS),
            fresh_permille,
            habits,
            books: chance.between(3, 7),
            cache_bytes: aside.pick(&[0, 2_000, 1 << 20, 1 << 20]).unwrap_or(0),
            window: aside.pick(&[None, None, Some(1), Some(3)]).flatten(),
            snapshot_bytes,
            lag,
            latency,
            sync,
            turn_delay: chance.pick(&[5 * US, 50 * US, 2 * MS]).unwrap_or(US),
            skew_ppm: chance.pick(&[0, 200, SKEW_MAX_PPM]).unwrap_or(0),
            faults: Faults { replace_every, feed_every, deaf_every, ..faults },
            chaos: chance.between(SEC, CHAOS_MAX),
        }
    }

    /// Nodes in all.
    pub fn nodes(&self) -> u16 {
        self.fronts + self.orders + self.catalogs
    }

    /// Log replicas, which all vote until they lose their disks.
    pub fn voters(&self) -> usize {
        usize::from(self.orders + self.catalogs)
    }

    /// Voters that must have an entry.
    pub fn majority(&self) -> usize {
        self.voters() / 2 + 1
    }
}

//! Counts of the rare states that a run reached: a simulation that never gets there proves nothing about them.

use pygmy_proto::frame::Frame;
use pygmy_proto::message::{FeedOpen, FrontStatus};
use pygmy_proto::{ErrorBody, ErrorCode, Kind};
use pygmy_ring::replica::Counters;

macro_rules! rare {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// The counts.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Rare { $($(#[$doc])* pub $name: u64,)* }
        impl Rare {
            /// Each state in words, and its count.
            pub fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$(($text, self.$name),)*]
            }
            /// Adds the counts of another run.
            pub fn add(&mut self, other: &Rare) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

rare! {
    /// Connections broken.
    resets = "links reset";
    /// Nodes stopped.
    pauses = "nodes paused";
    /// Wall clocks moved.
    clock_jumps = "wall clocks jumped";
    /// Fronts killed.
    front_crashes = "fronts killed";
    /// Order servers killed.
    order_crashes = "order servers killed";
    /// Catalogs killed.
    catalog_crashes = "catalogs killed";
    /// Of these, holders of the token.
    holder_crashes = "holders of the token killed";
    /// Those who had just asked for promises killed.
    coordinator_crashes = "coordinators killed";
    /// Everybody killed.
    all_crashes = "all killed";
    /// Writes that were lost with a process.
    lost_writes = "unsynced writes lost";
    /// Writes that reached the platter though nobody was told.
    survived_writes = "unsynced writes on the platter all the same";
    /// Power failures.
    power_failures = "power failures";
    /// Power failures in the middle of an opening.
    power_failures_at_start = "power failures while files are opened";
    /// Tails cut.
    torn_tails = "torn tails cut";
    /// Batches copied.
    batches_copied = "batches copied at opening";
    /// Logs that had been ended in order.
    clean_openings = "logs found ended in order";
    /// Bits flipped.
    flips = "bits flipped in logs";
    /// Bits flipped in votes.
    vote_flips = "bits flipped in votes";
    /// Sectors that could not be read.
    unreadable = "sectors unreadable";
    /// Openings that failed.
    starts_refused = "starts refused by a disk";
    /// Openings that found damage.
    damaged_logs = "damaged logs found";
    /// Disks that got back what they had lost.
    disks_healed = "damaged logs repaired";
    /// Votes found though a copy was bad.
    votes_from_a_copy = "votes found with a bad copy";
    /// Failed writes and syncs.
    disk_errors = "processes ended by their disks";
    /// Segments used again.
    recycled = "segments recycled";
    /// Full disks noticed.
    full_disks_told = "full disks noticed";
    /// Full disks with room again.
    full_disks_recovered = "full disks recovered";
    /// Answers compared with what a crash would leave.
    probes = "answers compared with a crashed disk";
    /// Snapshots taken.
    snapshots_taken = "snapshots taken";
    /// Snapshots not taken, for lack of room or of a whole one to begin with.
    snapshots_put_off = "snapshots put off";
    /// Snapshots under way when the process ended.
    snapshots_interrupted = "snapshots interrupted";
    /// Logs cut.
    logs_cut = "logs cut behind snapshots";
    /// Openings that found one.
    snapshots_found = "starts from a snapshot";
    /// Damaged snapshots at openings.
    snapshots_passed_over = "snapshots passed over as damaged";
    /// Bits flipped.
    snapshot_flips = "bits flipped in snapshots";
    /// Snapshots of peers.
    snapshots_received = "snapshots received";
    /// Transfers that failed.
    transfers_failed = "transfers of snapshots failed";
    /// Transfers under way when the process ended.
    transfers_interrupted = "transfers of snapshots interrupted";
    /// Logs begun anew.
    logs_restarted = "logs begun anew behind a snapshot";
    /// Disks lost.
    wipes = "disks lost";
    /// Nodes dead for good.
    graves = "nodes dead for good";
    /// Replacements of dead voters.
    dead_replacements_begun = "replacements of dead voters begun";
    /// That ended well.
    dead_replacements_done = "replacements of dead voters done";
    /// Replacements of living voters.
    living_replacements_begun = "replacements of living voters begun";
    /// That ended well.
    living_replacements_done = "replacements of living voters done";
    /// New logs given the votes of lost ones.
    lost_replacements_begun = "replacements of lost logs begun";
    /// That ended well.
    lost_replacements_done = "replacements of lost logs done";
    /// Refused for a while.
    replacements_refused = "replacements refused";
    /// Asked for again.
    replacements_reasked = "replacements asked for again";
    /// Replaced processes that found out.
    replaced_left = "replaced processes that left by themselves";
    /// Replaced processes that did not.
    replaced_killed = "replaced processes killed";
    /// Replaced processes that were started again.
    removed_started = "removed processes started again";
    /// Of these, those that were told.
    removed_refused = "removed processes refused";
    /// Nodes cut off.
    cuts = "partitions";
    /// In one direction.
    one_way_cuts = "partitions in one direction";
    /// Without a reset.
    silent_cuts = "partitions without a reset";
    /// With somebody on both sides.
    bridged_cuts = "partitions with a bridge";
    /// Disks full.
    full_disks = "disks full";
    /// Disks slow.
    slow_disks = "disks slow";
    /// Nodes that left.
    leaves = "orderly leaves";
    /// Of these, holders of the token.
    holder_leaves = "orderly leaves of the token's holder";
    /// Leaves that took too long.
    forced = "leaves that took too long";
    /// Replicas without memory that caught up.
    learners_caught_up = "learners caught up";
    /// Replicas that began to lag while they ran.
    lagged = "replicas that began to lag";
    /// Tokens that were on their way when they did.
    tokens_lagging = "tokens that came to one that lags";
    /// Learners that held the token.
    learners_held_token = "learners held the token";
    /// Epochs begun.
    epochs_started = "epochs begun";
    /// Epochs begun by a learner.
    epochs_by_learners = "epochs begun by learners";
    /// Epochs installed.
    epochs_installed = "epochs installed";
    /// Pre-votes.
    prevotes_asked = "epoch changes asked for";
    /// Promises refused.
    promises_refused = "old epochs refused";
    /// Truncations.
    truncations = "logs truncated";
    /// Unknown to the ring.
    unknown = "numbered writes given up";
    /// Deaf holders.
    deaf_holders = "holders that hear no majority";
    /// Tokens sent again.
    tokens_resent = "tokens sent again after a reset";
    /// Batches early.
    batches_early = "batches early";
    /// Fetches.
    fetches_sent = "gaps fetched";
    /// Writes handed back.
    handed_back = "writes handed back un-numbered";
    /// Duplicates.
    duplicates_answered = "duplicates answered from the table";
    /// Groups of more than one batch.
    shared_turns = "turns with several inputs";
    /// Sessions.
    sessions = "sessions opened";
    /// Client changes of front.
    client_failovers = "fail-overs by clients";
    /// Attempts given up.
    client_timeouts = "time-outs of clients";
    /// Resends of what was answered.
    resent_after_answer = "writes resent after their answer";
    /// Writes given up.
    abandoned = "writes given up when handed back";
    /// Ids used twice.
    ids_reused = "ids used for another write";
    /// Expired.
    expired = "writes refused as expired";
    /// Refused for lack of stock.
    sold_out = "carts refused for lack of stock";
    /// Busy or unavailable.
    busy = "requests handed back to clients";
    /// Outcome unknown.
    outcome_unknown = "outcomes unknown";
    /// Shutting down.
    shutting_down = "requests refused by a leaving node";
    /// Fresh reads.
    fresh_reads = "fresh reads answered";
    /// Rounds.
    barriers_answered = "barriers answered";
    /// Rounds made again.
    barriers_repeated = "barriers repeated in another epoch";
    /// Late reads.
    late_reads = "reads not answered in time";
    /// Requests under the same session at another front.
    roams = "sessions at a front that comes to mind";
    /// Of I12: what was acknowledged elsewhere and long enough ago was more than the session and the front knew.
    reads_of_others_writes = "reads that had to show what other fronts acknowledged";
    /// Hits.
    cache_hits = "reads answered from a cache";
    /// Hits that waited.
    cache_hits_delayed = "reads answered from a cache after waiting for its feed";
    /// Misses.
    cache_misses = "reads that a cache had no answer for";
    /// Misses that waited for another one's answer.
    cache_coalesced = "reads that waited for another one's answer";
    /// Changes.
    cache_invalidations = "values changed by a feed";
    /// Stale fills.
    fills_refused = "stale answers not kept";
    /// Caches emptied.
    caches_emptied = "caches emptied";
    /// A front asks for a feed, and has nothing yet.
    feeds_begun = "feeds asked for anew";
    /// A front asks another catalog to go on.
    feeds_moved = "feeds asked to go on elsewhere";
    /// Barriers told to fronts.
    floors_told = "barriers answered to fronts";
    /// Catalogs that fed a front killed.
    feeds_killed = "feeding catalogs killed";
    /// Stopped.
    feeds_paused = "feeding catalogs paused";
    /// Cut off.
    feeds_cut = "feeding catalogs cut off from their front";
    /// Fronts that are fed stopped.
    fed_paused = "fronts stopped when they asked for a barrier";
    /// All that goes to a front comes late, and what it sends at once.
    answers_held_back = "fronts to which all came late";
    /// Feeds that move to one that is behind.
    left_behind = "other catalogs left behind before a feed moves";
    /// One-way losses.
    deafened = "pairs whose datagrams got lost one way";
    /// Those who run looked at those who did not, after the longest limit.
    silences_known = "turns that had to know who does not run";
    /// Suspected servers beside others.
    suspects_spared = "turns in which a suspect was to have no requests";
}

impl Rare {
    /// Adds what a replica has counted.
    pub fn add_ring(&mut self, counters: Counters) {
        self.tokens_resent += counters.tokens_resent;
        self.batches_early += counters.batches_early;
        self.fetches_sent += counters.fetches_sent;
        self.handed_back += counters.handed_back;
        self.duplicates_answered += counters.duplicates_answered;
        self.epochs_started += counters.epochs_started;
        self.epochs_installed += counters.epochs_installed;
        self.prevotes_asked += counters.prevotes_asked;
        self.truncations += counters.truncations;
        self.unknown += counters.unknown;
        self.barriers_answered += counters.barriers_answered;
        self.lagged += counters.lagged;
        self.tokens_lagging += counters.tokens_lagging;
        self.barriers_repeated += counters.barriers_repeated;
    }

    /// Adds what a front has counted.
    pub fn add_front(&mut self, front: &FrontStatus) {
        self.cache_hits += front.hits;
        self.cache_hits_delayed += front.delayed;
        self.cache_misses += front.misses;
        self.cache_coalesced += front.coalesced;
        self.cache_invalidations += front.invalidations;
        self.fills_refused += front.refused;
        self.caches_emptied += front.emptied;
    }

    /// Counts what goes between fronts and catalogs.
    pub fn count_peer_frame(&mut self, frame: &Frame<'_>) {
        match frame.kind() {
            Some(Kind::FeedOpen) => match frame.decode::<FeedOpen>() {
                Ok(FeedOpen { after: Some(_) }) => self.feeds_moved += 1,
                _ => self.feeds_begun += 1,
            },
            Some(Kind::FloorOk) => self.floors_told += 1,
            _ => {}
        }
    }

    /// Counts a final answer.
    pub fn count_answer(&mut self, frame: &Frame<'_>) {
        if frame.kind() != Some(Kind::Error) {
            return;
        }
        match frame.decode::<ErrorBody>().ok().and_then(|error| error.known_code()) {
            Some(ErrorCode::NotEnoughStock) => self.sold_out += 1,
            Some(ErrorCode::SessionExpired) => self.expired += 1,
            _ => {}
        }
    }
}

//! What a node knows of its cluster and of itself, as values; `config.rs` reads them from `cluster.toml`.

use std::borrow::Cow;

use pygmy_proto::message::Role;
use xxhash_rust::xxh3::Xxh3;

/// How the token moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenMode {
    /// It goes to who wants it and rests otherwise.
    #[default]
    Demand,
    /// It circles whether it is wanted or not; for tests.
    Rotate,
}

/// One node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSettings {
    /// Number of the process that is this node at present: its slot, and 256 times its incarnation.
    pub number: u16,
    /// Its name, such as `catalog-2`.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// `host:port`; the name is resolved at every connect.
    pub address: String,
    /// For log replicas: the identity with which its log was born. It votes only under this one.
    pub log_uuid: [u8; 16],
}

impl NodeSettings {
    /// Whether it holds a copy of the log.
    pub fn is_replica(&self) -> bool {
        matches!(self.role, Role::Order | Role::Catalog)
    }

    /// What its process is called, and the directory in which that works.
    pub fn dir_name(&self) -> String {
        match incarnation_of(self.number) {
            0 => self.name.clone(),
            incarnation => format!("{}.{incarnation}", self.name),
        }
    }

    /// Its place in `cluster.toml`, from 1. It stays what it is when the process that has it is replaced.
    pub fn slot(&self) -> u16 {
        slot_of(self.number)
    }
}

/// Numbers of the processes in one slot lie this far apart.
const INCARNATION: u16 = 256;
/// The highest incarnation: so many voters of a cluster can be replaced in its life.
pub const INCARNATION_MAX: u16 = u16::MAX / INCARNATION;

/// The slot of the process with this number.
pub fn slot_of(number: u16) -> u16 {
    number % INCARNATION
}

/// Which process of its slot has this number: 0 is the one that was born with the cluster. Every process that takes
/// another's place has a higher one than any before in the whole cluster, so that it is the newest whom nobody knows
/// yet, and connects to all others.
pub fn incarnation_of(number: u16) -> u16 {
    number / INCARNATION
}

/// The number of a process in a slot.
pub fn number_of(slot: u16, incarnation: u16) -> u16 {
    slot + INCARNATION * incarnation
}

/// Bytes that a front's cache may take when nothing is said: some 150,000 books.
pub const CACHE_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// Settings that all nodes of a cluster must share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Drawn when the cluster was made.
    pub id: [u8; 16],
    /// What servers show each other to be let in.
    pub key: Vec<u8>,
    /// How the token moves.
    pub token: TokenMode,
    /// Bytes that the cache of each front may take; 0: fronts have none.
    pub cache_bytes: u64,
    /// The nodes; slot `n` stands at index `n - 1`.
    pub nodes: Vec<NodeSettings>,
}

impl ClusterSettings {
    /// Hash over what must be equal on every node: names, roles, the log identities at birth, token mode. Addresses and
    /// sizes of caches may differ, and who is in a slot is for the log to say.
    pub fn hash(&self) -> u64 {
        let mut hasher = Xxh3::new();
        hasher.update(&self.id);
        hasher.update(&[self.token as u8]);
        for node in &self.nodes {
            hasher.update(&node.slot().to_le_bytes());
            hasher.update(node.name.as_bytes());
            hasher.update(&[0, node.role as u8]);
            hasher.update(&node.log_uuid);
        }
        hasher.digest()
    }

    /// The node in whose slot the process with this number is or was.
    pub fn node(&self, number: u16) -> Option<&NodeSettings> {
        self.nodes.get(usize::from(slot_of(number)).checked_sub(1)?)
    }

    /// What the process with this number is called.
    pub fn name_of(&self, number: u16) -> Cow<'_, str> {
        match (self.node(number), incarnation_of(number)) {
            (None, _) => "an unknown node".into(),
            (Some(node), 0) => (&*node.name).into(),
            (Some(node), _) => NodeSettings { number, ..node.clone() }.dir_name().into(),
        }
    }

    /// The node with this name.
    pub fn node_named(&self, name: &str) -> Option<&NodeSettings> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The nodes that hold a copy of the log.
    pub fn replicas(&self) -> impl Iterator<Item = &NodeSettings> {
        self.nodes.iter().filter(|node| node.is_replica())
    }

    /// Numbers of the nodes that `me` opens connections to.
    pub fn dials(&self, me: u16) -> Vec<u16> {
        let others = self.replicas().map(|other| other.number);
        others.filter(|other| self.is_dialed(me, *other)).collect()
    }

    /// Whether it is for `me` to open the connection to the replica `other`, so that each pair has exactly one: fronts
    /// open them to every replica, and of two replicas the one with the higher number to the other.
    pub fn is_dialed(&self, me: u16, other: u16) -> bool {
        self.node(me).is_some_and(|own| own.role == Role::Front || me > other)
    }
}

/// When a replica takes a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// Bytes of the log that are applied between two snapshots at least. At least as many as the last snapshot had are
    /// in any case, so that what is written for snapshots is never more than what is written for the log.
    pub log_bytes_min: u64,
    /// Bytes of the newest snapshot at the start; 0: there is none.
    pub newest_bytes: u64,
    /// Segments that the log had at the start.
    pub segments: usize,
    /// With so many, the first snapshot is taken at once: every process that was killed leaves a segment that is never
    /// filled, and only snapshots let go of it.
    pub segments_max: usize,
    /// This replica's place among the replicas, from 0, and how many there are: the first snapshot of a process comes
    /// that part of the way later, and so do those behind it. Replicas that apply the same would otherwise take theirs all
    /// at once, and no majority of disks would be free of it.
    pub turn: (u16, u16),
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self { log_bytes_min: 64 * 1024 * 1024, newest_bytes: 0, segments: 0, segments_max: 8, turn: (0, 1) }
    }
}

/// Settings of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Those of the cluster.
    pub cluster: ClusterSettings,
    /// This process's number.
    pub me: u16,
    /// `host:port` on which this process listens.
    pub address: String,
    /// Identity of this process's log, as its directory says: the configured one, or another when that log was lost.
    pub log_uuid: [u8; 16],
    /// Drawn at process start.
    pub boot_nonce: u64,
}

impl Settings {
    /// The entry of this node's slot.
    ///
    /// # Panics
    /// When `me` is not a node of the cluster, which whoever made the settings has checked.
    pub fn own(&self) -> &NodeSettings {
        &self.cluster.nodes[usize::from(slot_of(self.me)) - 1]
    }

    /// What this process is called.
    pub fn name(&self) -> Cow<'_, str> {
        self.cluster.name_of(self.me)
    }
}

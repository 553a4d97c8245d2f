//! What a node knows of its cluster and of itself, as values; `config.rs` reads them from `cluster.toml`.

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
    /// Its number, from 1 in the order of `cluster.toml`.
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
}

/// Settings that all nodes of a cluster must share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Drawn when the cluster was made.
    pub id: [u8; 16],
    /// What servers show each other to be let in.
    pub key: Vec<u8>,
    /// How the token moves.
    pub token: TokenMode,
    /// The nodes; number `n` stands at index `n - 1`.
    pub nodes: Vec<NodeSettings>,
}

impl ClusterSettings {
    /// Hash over what must be equal on every node: names, roles, log identities, token mode. Addresses may differ.
    pub fn hash(&self) -> u64 {
        let mut hasher = Xxh3::new();
        hasher.update(&self.id);
        hasher.update(&[self.token as u8]);
        for node in &self.nodes {
            hasher.update(&node.number.to_le_bytes());
            hasher.update(node.name.as_bytes());
            hasher.update(&[0, node.role as u8]);
            hasher.update(&node.log_uuid);
        }
        hasher.digest()
    }

    /// The node with this number.
    pub fn node(&self, number: u16) -> Option<&NodeSettings> {
        self.nodes.get(usize::from(number).checked_sub(1)?)
    }

    /// The node with this name.
    pub fn node_named(&self, name: &str) -> Option<&NodeSettings> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The nodes that hold a copy of the log.
    pub fn replicas(&self) -> impl Iterator<Item = &NodeSettings> {
        self.nodes.iter().filter(|node| node.is_replica())
    }

    /// Numbers of the nodes that `me` opens connections to, so that each pair has exactly one:
    /// fronts to every replica, and of two replicas the one with the higher number to the other.
    pub fn dials(&self, me: u16) -> Vec<u16> {
        let Some(own) = self.node(me) else { return Vec::new() };
        self.replicas()
            .filter(|other| other.number != me && (own.role == Role::Front || (own.is_replica() && me > other.number)))
            .map(|other| other.number)
            .collect()
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
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self { log_bytes_min: 64 * 1024 * 1024, newest_bytes: 0 }
    }
}

/// Settings of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Those of the cluster.
    pub cluster: ClusterSettings,
    /// This node's number.
    pub me: u16,
    /// Identity of this process's log, as its directory says: the configured one, or another when that log was lost.
    pub log_uuid: [u8; 16],
    /// Drawn at process start.
    pub boot_nonce: u64,
}

impl Settings {
    /// This node's own entry.
    ///
    /// # Panics
    /// When `me` is not a node of the cluster, which whoever made the settings has checked.
    pub fn own(&self) -> &NodeSettings {
        &self.cluster.nodes[usize::from(self.me) - 1]
    }
}

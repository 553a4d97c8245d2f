//! Which servers a command goes to.

use pygmy_client::cluster::{Cluster, ClusterError, Node};
use pygmy_client::{Client, Options};
use pygmy_proto::types::Name;

use super::args::Global;
use super::failure::Failure;

/// Tries of every address before a command says that none is there; their pauses add up to less than a second.
const CONNECT_ROUNDS: u32 = 3;

/// The servers of a command.
#[derive(Debug)]
pub(super) struct Target {
    /// The cluster file, unless front ends were named instead.
    pub(super) cluster: Option<Cluster>,
    /// Addresses to ask.
    pub(super) addresses: Vec<String>,
}

impl Target {
    /// Finds them as the arguments say.
    pub(super) fn find(global: &Global) -> Result<Self, Failure> {
        if !global.front.is_empty() {
            return Ok(Self { cluster: None, addresses: global.front.clone() });
        }
        let path = global.cluster().map_or_else(Cluster::default_path, Ok).map_err(Failure::Cluster)?;
        let cluster = Cluster::load(&path).map_err(Failure::Cluster)?;
        let addresses = match &global.node {
            Some(name) => vec![named(&cluster, name)?.address.clone()],
            None => cluster.fronts(),
        };
        if addresses.is_empty() {
            let why = "it names no node of the role front".to_owned();
            return Err(Failure::Cluster(ClusterError::Malformed { path, why }));
        }
        Ok(Self { cluster: Some(cluster), addresses })
    }

    /// How to reach `addresses` of this target.
    pub(super) fn options(&self, addresses: &[String]) -> Options {
        let mut options = Options::new(addresses);
        options.cluster = self.cluster.as_ref().map_or([0; 16], |cluster| cluster.id);
        options.name = Name::truncated("pygmy");
        options.connect_rounds = Some(CONNECT_ROUNDS);
        options
    }

    /// The addresses, from another one on in each process: the load of many commands is spread over all of them.
    pub(super) fn addresses_in_turn(&self) -> Vec<String> {
        let first = std::process::id() as usize;
        let mut addresses = self.addresses.clone();
        addresses.rotate_left(first % self.addresses.len().max(1));
        addresses
    }

    /// A client that is set up as the arguments say.
    pub(super) fn client(&self, global: &Global) -> Client {
        let mut client = Client::new(self.options(&self.addresses_in_turn()));
        client.set_timeout(global.timeout());
        client.set_trace(global.trace);
        client.set_fresh(global.fresh);
        client.set_no_cache(global.no_cache);
        client
    }

    /// The cluster's id: from its file, else asked for.
    pub(super) fn cluster_id(&self, client: &mut Client) -> Result<[u8; 16], Failure> {
        match &self.cluster {
            Some(cluster) => Ok(cluster.id),
            None => Ok(client.connect()?.cluster),
        }
    }

    /// What a person calls node `number`. Numbers of processes are their slots, and 256 times their incarnations.
    pub(super) fn node_name(&self, number: u16) -> String {
        let (slot, incarnation) = (number % 256, number / 256);
        let nodes = self.cluster.iter().flat_map(|cluster| &cluster.nodes);
        let found = nodes.into_iter().find(|node| node.number == slot);
        match (found, incarnation) {
            (None, _) => format!("node {number}"),
            (Some(node), 0) => node.name.clone(),
            (Some(node), _) => format!("{}.{incarnation}", node.name),
        }
    }
}

fn named<'a>(cluster: &'a Cluster, name: &str) -> Result<&'a Node, Failure> {
    cluster.node_named(name).ok_or_else(|| {
        let names: Vec<&str> = cluster.nodes.iter().map(|node| node.name.as_str()).collect();
        Failure::Usage(format!("there is no node {name:?}; the cluster file names {}", names.join(", ")))
    })
}

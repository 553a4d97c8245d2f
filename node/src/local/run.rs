//! One node in this process.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use super::identity::{self, Identity};
use super::pidfile::{self, HoldError};
use super::{ClusterDir, LocalError, NodeDir};
use crate::config::hex;
use crate::driver::{Driver, DriverConfig, Exit, Limits, LinkConfig, MemoryLog, now, raise_open_files_limit};
use crate::node::Node;
use crate::settings::{ClusterSettings, NodeSettings, Settings};

/// Runs the node called `name` of the cluster described at `config` until it has left. Its directory lies beside that
/// file.
///
/// # Errors
/// It could not start.
pub fn run(config: &Path, name: &str) -> Result<Exit, LocalError> {
    let dir = ClusterDir::new(config.parent().unwrap_or(Path::new("")));
    let cluster =
        crate::config::read(config).map_err(|source| LocalError::Config { path: config.to_owned(), source })?;
    let own = dir.find(&cluster, name)?.clone();
    let node_dir = dir.node(name);
    node_dir.create()?;
    let held = hold(&node_dir, &own)?;
    if let Some(files) = raise_open_files_limit() {
        log::debug!("up to {files} open files");
    }
    let what = format!("{name} cannot listen on {}; is another process there?", own.address);
    let listener = TcpListener::bind(&own.address).map_err(LocalError::system(what))?;
    let what = format!("{name} cannot receive heartbeats on {}; is another process there?", own.address);
    let datagrams = UdpSocket::bind(&own.address).map_err(LocalError::system(what))?;
    // The last step before the node speaks: a start that failed above has cost no vote.
    let settings = settle(cluster, &own, &node_dir)?;
    let exit = drive(settings, listener, datagrams)?;
    drop(held);
    Ok(exit)
}

fn hold(node_dir: &NodeDir, own: &NodeSettings) -> Result<pidfile::Held, LocalError> {
    let path = node_dir.pid();
    pidfile::hold(&path).map_err(|error| match error {
        HoldError::Taken(pid) => {
            let dir = node_dir.path().display();
            LocalError::Refused(format!("{} runs already, as process {pid}, in {dir}", own.name))
        }
        HoldError::Io(source) => LocalError::System { what: format!("cannot hold {}", path.display()), source },
    })
}

/// Settles under which identity this process keeps its log.
fn settle(cluster: ClusterSettings, own: &NodeSettings, node_dir: &NodeDir) -> Result<Settings, LocalError> {
    let boot_nonce = u64::from_le_bytes(draw()?);
    let mut log_uuid = own.log_uuid;
    if own.is_replica() {
        let path = node_dir.identity();
        let what = format!("cannot settle the log's identity in {}", path.display());
        let identity = identity::claim(&path, own.log_uuid, draw()?).map_err(LocalError::system(what))?;
        if let Identity::Learner(fresh) = identity {
            log::warn!(
                "the log {} was kept in the memory of an earlier process and is lost; this one follows as {} \
                 and has no vote",
                hex(&own.log_uuid),
                hex(&fresh)
            );
        }
        log_uuid = identity.log_uuid();
    }
    Ok(Settings { cluster, me: own.number, log_uuid, boot_nonce })
}

fn drive(settings: Settings, listener: TcpListener, datagrams: UdpSocket) -> Result<Exit, LocalError> {
    let links = links(&settings);
    let own = settings.own();
    log::info!(
        "{} ({}, node {} of {}) listens on {}",
        own.name,
        own.role.name(),
        own.number,
        settings.cluster.nodes.len(),
        own.address
    );
    let neighbours = neighbours(&settings);
    let (node, limits) = (settings.me, Limits::default());
    let config = DriverConfig { node, listener, datagrams, links, neighbours, limits, signals: true };
    let node = Node::new(settings, now()).map_err(|error| LocalError::Refused(error.to_string()))?;
    let mut driver = Driver::new(config, MemoryLog::default(), |_| node)
        .map_err(LocalError::system("cannot set up the event loop"))?;
    driver.run().map_err(LocalError::system("the event loop failed"))
}

fn links(settings: &Settings) -> Vec<LinkConfig> {
    let others = settings.cluster.dials(settings.me);
    let known = others.into_iter().filter_map(|number| settings.cluster.node(number));
    known.map(|node| LinkConfig { node: node.number, address: node.address.clone() }).collect()
}

/// All other nodes: heartbeats need no connection.
fn neighbours(settings: &Settings) -> Vec<LinkConfig> {
    let others = settings.cluster.nodes.iter().filter(|node| node.number != settings.me);
    others.map(|node| LinkConfig { node: node.number, address: node.address.clone() }).collect()
}

/// Random bytes of the system.
pub(super) fn draw<const N: usize>() -> Result<[u8; N], LocalError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| LocalError::Refused(format!("the system gives no random bytes: {error}")))?;
    Ok(bytes)
}

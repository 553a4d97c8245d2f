//! One node in this process.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use pygmy_ring::Recovered;

use super::meta::{Meta, MetaError};
use super::pidfile::{self, HoldError};
use super::{ClusterDir, LocalError, NodeDir};
use crate::config::hex;
use crate::disk::fs::RealFs;
use crate::driver::{
    DiskLog, Driver, DriverConfig, Exit, Limits, LinkConfig, LogWriter, MemoryLog, now, raise_open_files_limit,
};
use crate::node::Node;
use crate::settings::{ClusterSettings, NodeSettings, Settings, SnapshotPolicy};
use crate::snapshot::open::OpenOptions;
use crate::snapshot::{self, Opened};
use crate::store::Store;

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
    let settings = settle(cluster, &own, &node_dir)?;
    let exit = if own.is_replica() {
        let Files { log, recovered, policy } = open(&settings, &node_dir)?;
        let mut node = start(settings.clone(), recovered)?;
        node.keep_snapshots(policy);
        drive(&settings, listener, datagrams, log, node)?
    } else {
        let node = start(settings.clone(), Recovered::empty(Store::new()))?;
        drive(&settings, listener, datagrams, MemoryLog::default(), node)?
    };
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

/// The directory and files of a log replica.
struct Files {
    log: DiskLog,
    recovered: Recovered<Store>,
    policy: SnapshotPolicy,
}

/// Makes the directory of a log replica, with a log of this identity in it. A cluster's creation gives the identity that
/// its configuration names, and only that makes a voter.
///
/// # Errors
/// The system refused, or there is a log already.
pub fn format(cluster: &ClusterSettings, node: &NodeSettings, dir: &NodeDir, uuid: [u8; 16]) -> Result<(), LocalError> {
    dir.create()?;
    let data = dir.data();
    let what = format!("cannot format {}", data.display());
    // The log itself is made when it is opened first.
    std::fs::create_dir_all(&data).map_err(LocalError::system(&what))?;
    Meta::new(cluster, node, uuid).create(&dir.meta()).map_err(LocalError::system(what))
}

/// Settles under which identity this process keeps its log: that of its directory, or a fresh one.
fn settle(cluster: ClusterSettings, own: &NodeSettings, node_dir: &NodeDir) -> Result<Settings, LocalError> {
    let boot_nonce = u64::from_le_bytes(draw()?);
    let mut settings = Settings { cluster, me: own.number, log_uuid: own.log_uuid, boot_nonce };
    if !own.is_replica() {
        return Ok(settings);
    }
    let path = node_dir.meta();
    let refused = |error: MetaError| LocalError::Refused(format!("{}: {error}", path.display()));
    let meta = match Meta::read(&path).map_err(refused)? {
        Some(meta) => meta,
        None => {
            let fresh = draw()?;
            format(&settings.cluster, own, node_dir, fresh)?;
            log::warn!(
                "{} is empty: this log starts anew as {}, follows the others and has no vote until it replaces the \
                 one that was here",
                node_dir.data().display(),
                hex(&fresh)
            );
            Meta::new(&settings.cluster, own, fresh)
        }
    };
    meta.belongs_to(&settings).map_err(refused)?;
    settings.log_uuid = meta.log_uuid;
    Ok(settings)
}

/// Opens the files of this process.
fn open(settings: &Settings, node_dir: &NodeDir) -> Result<Files, LocalError> {
    let data = node_dir.data();
    let fs = RealFs::open(&data).map_err(|error| LocalError::Refused(error.to_string()))?;
    let opened = snapshot::open::open(fs, settings.log_uuid, OpenOptions::default());
    let Opened { log, votes, snapshots, recovered } =
        opened.map_err(|error| LocalError::Refused(format!("{}: {error}", data.display())))?;
    let newest_bytes = snapshots.newest().map_or(0, |newest| newest.bytes());
    let policy = SnapshotPolicy { newest_bytes, ..SnapshotPolicy::default() };
    Ok(Files { log: DiskLog::new(log, votes, snapshots), recovered, policy })
}

fn start(settings: Settings, recovered: Recovered<Store>) -> Result<Node, LocalError> {
    Node::open(settings, now(), recovered).map_err(|error| LocalError::Refused(error.to_string()))
}

fn drive(
    settings: &Settings,
    listener: TcpListener,
    datagrams: UdpSocket,
    log: impl LogWriter,
    node: Node,
) -> Result<Exit, LocalError> {
    let links = links(settings);
    let own = settings.own();
    log::info!(
        "{} ({}, node {} of {}) listens on {}",
        own.name,
        own.role.name(),
        own.number,
        settings.cluster.nodes.len(),
        own.address
    );
    let neighbours = neighbours(settings);
    let (me, limits) = (settings.me, Limits::default());
    let config = DriverConfig { node: me, listener, datagrams, links, neighbours, limits, signals: true };
    let mut driver = Driver::new(config, log, |_| node).map_err(LocalError::system("cannot set up the event loop"))?;
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

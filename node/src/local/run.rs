//! One node in this process.

use std::cmp::Ordering;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use pygmy_ring::Recovered;

use super::meta::{Meta, MetaError};
use super::pidfile::{self, HoldError};
use super::{ClusterDir, LocalError, NodeDir};
use crate::config::hex;
use crate::disk::direct::LogWrites;
use crate::disk::fs::RealFs;
use crate::driver::{
    DiskLog, Driver, DriverConfig, Exit, Limits, LinkConfig, LogWriter, MemoryLog, now, raise_open_files_limit,
};
use crate::node::Node;
use crate::settings::{ClusterSettings, NodeSettings, Settings, SnapshotPolicy, incarnation_of, number_of};
use crate::snapshot::open::OpenOptions;
use crate::snapshot::{self, Opened};
use crate::store::Store;

/// Runs the node called `name` of the cluster described at `config` until it has left. Its directory lies beside that
/// file. `incarnation` names a process that is to take the place of the node's present one, or did so once.
///
/// # Errors
/// It could not start.
pub fn run(config: &Path, name: &str, incarnation: Option<u16>, writes: LogWrites) -> Result<Exit, LocalError> {
    let dir = ClusterDir::new(config.parent().unwrap_or(Path::new("")));
    let cluster =
        crate::config::read(config).map_err(|source| LocalError::Config { path: config.to_owned(), source })?;
    let own = process_of(&dir, dir.find(&cluster, name)?, incarnation)?;
    let name = own.dir_name();
    let node_dir = dir.node(&name);
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
        let Files { log, recovered, policy } = open(&settings, &node_dir, writes)?;
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

/// The node as the process is that has this incarnation of it.
fn process_of(dir: &ClusterDir, node: &NodeSettings, incarnation: Option<u16>) -> Result<NodeSettings, LocalError> {
    let number = incarnation.map_or(node.number, |incarnation| number_of(node.slot(), incarnation));
    match number.cmp(&node.number) {
        Ordering::Equal => Ok(node.clone()),
        Ordering::Less => {
            let old = NodeSettings { number, ..node.clone() }.dir_name();
            let new = node.dir_name();
            Err(LocalError::Removed(format!("{old} was replaced by {new}: it need not be started any more")))
        }
        Ordering::Greater => {
            let newcomer = NodeSettings { number, ..node.clone() };
            let address = dir.node(&newcomer.dir_name()).read_address()?;
            Ok(NodeSettings { address, ..newcomer })
        }
    }
}

fn hold(node_dir: &NodeDir, own: &NodeSettings) -> Result<pidfile::Held, LocalError> {
    let path = node_dir.pid();
    pidfile::hold(&path).map_err(|error| match error {
        HoldError::Taken(pid) => {
            let dir = node_dir.path().display();
            LocalError::Refused(format!("{} runs already, as process {pid}, in {dir}", own.dir_name()))
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
    std::fs::create_dir_all(&data).map_err(LocalError::system(&what))?;
    // The log itself is made when it is opened first. One without its name may be anybody's.
    let found = std::fs::read_dir(&data).map_err(LocalError::system(&what))?.flatten();
    let mut names = found.map(|entry| entry.file_name().to_string_lossy().into_owned());
    if let Some(name) = names.find(|name| name != "meta.new") {
        let (data, remedy) = (data.display(), "move it away to start anew");
        return Err(LocalError::Refused(format!("there is a log in {data} already, with the file {name}: {remedy}")));
    }
    Meta::new(cluster, node, uuid).create(&dir.meta()).map_err(LocalError::system(what))
}

/// Makes the directory of a log replica by hand. With `initial` its log is born a voter, under the identity that the
/// configuration names. That identity.
///
/// # Errors
/// As [`format()`], or the node has no log that could be born.
pub fn format_for(
    cluster: &ClusterSettings,
    node: &NodeSettings,
    dir: &NodeDir,
    initial: bool,
) -> Result<[u8; 16], LocalError> {
    if !node.is_replica() {
        return Err(LocalError::Usage(format!("{} keeps no log: there is nothing to format", node.name)));
    }
    if initial && incarnation_of(node.number) > 0 {
        let text =
            format!("{} was replaced once: the log that was born with the cluster never counts again", node.name);
        return Err(LocalError::Refused(text));
    }
    let log_uuid = if initial { node.log_uuid } else { draw()? };
    format(cluster, node, dir, log_uuid)?;
    Ok(log_uuid)
}

/// Settles under which identity this process keeps its log: that of its directory, or a fresh one.
fn settle(cluster: ClusterSettings, own: &NodeSettings, node_dir: &NodeDir) -> Result<Settings, LocalError> {
    let boot_nonce = u64::from_le_bytes(draw()?);
    let mut settings =
        Settings { cluster, me: own.number, address: own.address.clone(), log_uuid: [0; 16], boot_nonce };
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
fn open(settings: &Settings, node_dir: &NodeDir, writes: LogWrites) -> Result<Files, LocalError> {
    let data = node_dir.data();
    let fs = RealFs::open(&data, writes).map_err(|error| LocalError::Refused(error.to_string()))?;
    let opened = snapshot::open::open(fs.clone(), settings.log_uuid, OpenOptions::default());
    let Opened { log, votes, snapshots, recovered, .. } =
        opened.map_err(|error| LocalError::Refused(format!("{}: {error}", data.display())))?;
    let newest_bytes = snapshots.newest().map_or(0, |newest| newest.bytes());
    let segments = log.segments();
    let policy = SnapshotPolicy { newest_bytes, segments, turn: turn(settings), ..SnapshotPolicy::default() };
    Ok(Files { log: DiskLog::new(log, votes, snapshots, &fs), recovered, policy })
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
        settings.name(),
        own.role.name(),
        own.slot(),
        settings.cluster.nodes.len(),
        settings.address
    );
    let neighbours = neighbours(settings);
    let (me, limits) = (settings.me, Limits::default());
    let config = DriverConfig { node: me, listener, datagrams, links, neighbours, limits, signals: true };
    let mut driver = Driver::new(config, log, |_| node).map_err(LocalError::system("cannot set up the event loop"))?;
    let exit = driver.run().map_err(LocalError::system("the event loop failed"))?;
    driver.end();
    Ok(exit)
}

/// This replica's place among all, and how many there are.
fn turn(settings: &Settings) -> (u16, u16) {
    let own = settings.own();
    let place = settings.cluster.replicas().take_while(|node| node.number != own.number).count();
    (place as u16, settings.cluster.replicas().count() as u16)
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

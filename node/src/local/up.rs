//! `up`: makes a cluster, starts it, fills it and watches over it.

use std::net::Ipv4Addr;
use std::process::Child;
use std::time::{Duration, Instant};

use pygmy_proto::Retry;
use pygmy_proto::inventory;
use pygmy_proto::limits::PUT_BOOKS_MAX;
use pygmy_proto::message::{Command, OpenSession, Role, SessionOpened, StatusOk, Write, WriteOk};
use pygmy_proto::types::Bounded;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::caller::{CallError, Caller};
use super::pidfile::{self, HoldError};
use super::process::{self, LOOK_EVERY};
use super::run::{self, draw};
use super::{ClusterDir, LocalError, control, ports};
use crate::config;
use crate::settings::{CACHE_BYTES_DEFAULT, ClusterSettings, NodeSettings, TokenMode};

/// Longest wait for all nodes to answer and to be linked with each other.
const READY_PATIENCE: Duration = Duration::from_secs(15);
/// A process that was killed a moment ago may still be seen: it ends when its disk has answered.
const DYING_PATIENCE: Duration = Duration::from_secs(1);
/// Longest wait for the first books to be in the store.
const LOAD_PATIENCE: Duration = Duration::from_secs(10);
/// How often is looked whether nodes that others have started still run, when no child of this process does.
const STRANGERS_EVERY: Duration = Duration::from_millis(500);

/// What kind of cluster is wanted; what is left out is as usual, or as it is in the cluster that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// Front servers; usually 2.
    pub fronts: Option<usize>,
    /// Order servers; usually 2.
    pub orders: Option<usize>,
    /// Catalog servers; usually 3.
    pub catalogs: Option<usize>,
    /// First port; usually 7401; 0 picks free ones.
    pub base_port: Option<u16>,
    /// How the token moves.
    pub token: Option<TokenMode>,
    /// Bytes of each front's cache.
    pub cache_bytes: Option<u64>,
    /// A new cluster, even where there is one: that one's books and orders are removed.
    pub fresh: bool,
}

const FRONTS: usize = 2;
const ORDERS: usize = 2;
const CATALOGS: usize = 3;
const BASE_PORT: u16 = 7401;

/// Where a cluster came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was made in an empty directory.
    New,
    /// It was there and has been started again, with all it knows.
    Resumed,
    /// It took the place of one that was removed.
    Replaced,
}

/// A running cluster and the processes started for it.
#[derive(Debug)]
pub struct Cluster {
    dir: ClusterDir,
    settings: ClusterSettings,
    children: Vec<(String, Child)>,
    signals: Signals,
    /// Where it came from.
    pub origin: Origin,
    /// Says to others that this process watches over the cluster.
    _held: pidfile::Held,
}

/// Why waiting stopped early.
enum Interrupted {
    /// Somebody wants the cluster to end.
    Asked,
    /// It cannot be had.
    Failed(LocalError),
}

impl From<LocalError> for Interrupted {
    fn from(error: LocalError) -> Self {
        Interrupted::Failed(error)
    }
}

impl Cluster {
    /// Makes a cluster in `dir`, starts it and waits until it is ready and filled. None when a signal asked for its end
    /// before; what was started is stopped then, as it is after any error.
    ///
    /// # Errors
    /// A cluster runs there, a port is in use, or a node failed; the text has its last words.
    pub fn up(dir: &ClusterDir, shape: Shape) -> Result<Option<Self>, LocalError> {
        let what = format!("cannot make the directory {}", dir.path().display());
        let is_new = !dir.path().exists();
        std::fs::create_dir_all(dir.path()).map_err(LocalError::system(what))?;
        let held = hold(dir)?;
        let prepared = prepare(dir, shape);
        if prepared.is_err() && is_new {
            // What was made for nothing goes again; what somebody else has put there meanwhile stays.
            let _ = std::fs::remove_file(dir.up_pid());
            let _ = std::fs::remove_dir(dir.path());
        }
        let (settings, origin) = prepared?;
        // From here on a signal must not end this process and leave its children behind.
        let signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCHLD]).map_err(LocalError::system("cannot listen to signals"))?;
        let mut cluster = Self { dir: dir.clone(), settings, children: Vec::new(), signals, origin, _held: held };
        match cluster.bring_up() {
            Ok(()) => Ok(Some(cluster)),
            Err(interrupted) => {
                process::stop_children(&mut cluster.children);
                match interrupted {
                    Interrupted::Asked => Ok(None),
                    Interrupted::Failed(error) => Err(error),
                }
            }
        }
    }

    fn bring_up(&mut self) -> Result<(), Interrupted> {
        for node in self.settings.nodes.clone() {
            let child = process::spawn(&self.dir, &node, true)?;
            self.children.push((node.dir_name(), child));
        }
        self.wait_ready()?;
        match self.origin {
            Origin::New | Origin::Replaced => self.load(),
            Origin::Resumed => Ok(()),
        }
    }

    /// Waits until every node answers and has all its links.
    fn wait_ready(&mut self) -> Result<(), Interrupted> {
        let end = Instant::now() + READY_PATIENCE;
        let mut waiting = self.settings.nodes.clone();
        loop {
            waiting.retain(|node| !is_ready(&self.settings, node));
            let Some(first) = waiting.first() else { return Ok(()) };
            self.check_signals()?;
            self.check_children()?;
            if Instant::now() >= end {
                return Err(control::failed(&self.dir, first, "is not ready").into());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn check_signals(&mut self) -> Result<(), Interrupted> {
        let asked = self.signals.pending().any(|signal| signal != SIGCHLD);
        if asked { Err(Interrupted::Asked) } else { Ok(()) }
    }

    fn check_children(&mut self) -> Result<(), Interrupted> {
        for (name, child) in &mut self.children {
            let ended = child.try_wait().map_err(LocalError::system(format!("cannot watch {name}")))?;
            if let Some(status) = ended {
                let node = self.settings.nodes.iter().find(|node| node.dir_name() == *name);
                let node = node.map_or_else(|| self.dir.find(&self.settings, name), Ok)?;
                return Err(control::failed(&self.dir, node, &format!("ended at once ({status})")).into());
            }
        }
        Ok(())
    }

    /// Puts the books of the original store in.
    fn load(&mut self) -> Result<(), Interrupted> {
        let end = Instant::now() + LOAD_PATIENCE;
        loop {
            let Err(error) = load_once(&self.settings) else { return Ok(()) };
            self.check_signals()?;
            // A store that already has the books takes them again without a change, so that trying anew is harmless.
            let again = match &error {
                CallError::Refused(body) => body.retry != Retry::Never,
                CallError::Io(_) => true,
                _ => false,
            };
            if !again || Instant::now() >= end {
                return Err(LocalError::Unreachable(format!("the first books could not be put in: {error}")).into());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Its settings.
    pub fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    /// Every node and its process.
    pub fn processes(&self) -> impl Iterator<Item = (&NodeSettings, u32)> {
        self.settings.nodes.iter().zip(self.children.iter().map(|(_, child)| child.id()))
    }

    /// How many failures it stands: with more, there is no majority of voters.
    pub fn stands(&self) -> usize {
        self.voters().saturating_sub(1) / 2
    }

    /// Nodes that count in majorities.
    pub fn voters(&self) -> usize {
        self.settings.replicas().count()
    }

    /// Watches until a signal asks for the end or no node runs any more, and tells `report` of nodes that died
    /// meanwhile. Whether it was a signal.
    pub fn watch(&mut self, mut report: impl FnMut(&str)) -> bool {
        loop {
            let signals: Vec<i32> = if self.children.is_empty() {
                // Those that others have started again send no signal when they end.
                std::thread::sleep(STRANGERS_EVERY);
                self.signals.pending().collect()
            } else {
                self.signals.wait().collect()
            };
            for (name, child) in reap(&mut self.children) {
                report(&self.obituary(&name, &child));
            }
            if signals.iter().any(|signal| *signal != SIGCHLD) {
                return true;
            }
            if self.children.is_empty() && process::running(&self.dir).is_ok_and(|running| running.is_empty()) {
                return false;
            }
        }
    }

    fn obituary(&self, name: &str, status: &str) -> String {
        const LINES: usize = 5;
        let last = process::last_lines(&self.dir.node(name).log(), LINES);
        let node = name.split_once('.').map_or(name, |(node, _)| node);
        let next = match self.dir.incarnations(node) {
            Ok(incarnations) if incarnations.iter().any(|incarnation| format!("{node}.{incarnation}") != name) => {
                format!("`pygmy-node replace {node}` finishes what was begun, if it is not done.")
            }
            _ => format!("`pygmy-node start {node}` starts it again."),
        };
        format!("{name} ended ({status}); the others go on. {next} Its last words:\n{last}")
    }

    /// Stops every node, in order. The names of those that had to be killed.
    ///
    /// # Errors
    /// The system refused.
    pub fn stop(&mut self) -> Result<Vec<String>, LocalError> {
        let children = &mut self.children;
        let killed = process::stop_all(&self.dir, Some(&self.settings), || {
            reap(children);
        })?;
        // One whose file is gone is known only as a child.
        process::stop_children(&mut self.children);
        Ok(killed)
    }
}

/// Takes the children that have ended out of `children`; their names and how they ended.
fn reap(children: &mut Vec<(String, Child)>) -> Vec<(String, String)> {
    let mut ended = Vec::new();
    children.retain_mut(|(name, child)| match child.try_wait() {
        Ok(Some(status)) => {
            ended.push((name.clone(), status.to_string()));
            false
        }
        _ => true,
    });
    ended
}

fn hold(dir: &ClusterDir) -> Result<pidfile::Held, LocalError> {
    let path = dir.up_pid();
    pidfile::hold(&path).map_err(|error| match error {
        HoldError::Taken(pid) => LocalError::Refused(format!(
            "process {pid} watches over a cluster in {}; {} stops it",
            dir.path().display(),
            down_command(dir)
        )),
        HoldError::Io(source) => LocalError::System { what: format!("cannot hold {}", path.display()), source },
    })
}

/// The settings of the cluster that is there, or of a new one, written down and with its logs born.
fn prepare(dir: &ClusterDir, shape: Shape) -> Result<(ClusterSettings, Origin), LocalError> {
    refuse_running(dir)?;
    let before = if dir.config().exists() { Some(dir.settings()?) } else { None };
    if let Some(before) = before.as_ref().filter(|_| !shape.fresh) {
        refuse_other_shape(dir, before, shape)?;
        return Ok((before.clone(), Origin::Resumed));
    }
    let settings = make_settings(shape)?;
    for node in before.iter().flat_map(|before| &before.nodes) {
        dir.node(&node.name).clear()?;
        for incarnation in dir.incarnations(&node.name)? {
            dir.node(&format!("{}.{incarnation}", node.name)).clear()?;
        }
    }
    for node in settings.replicas() {
        // The birth of a voter: nothing but this gives a log the identity that the configuration names.
        run::format(&settings, node, &dir.node(&node.name), node.log_uuid)?;
    }
    // Last, so that a cluster that is only half made is none.
    let path = dir.config();
    config::write(&path, &settings).map_err(|source| LocalError::Config { path, source })?;
    Ok((settings, if before.is_some() { Origin::Replaced } else { Origin::New }))
}

/// Refuses when what was asked for is not what is there.
fn refuse_other_shape(dir: &ClusterDir, settings: &ClusterSettings, shape: Shape) -> Result<(), LocalError> {
    let count = |role| settings.nodes.iter().filter(|node| node.role == role).count();
    let counts = [("front", Role::Front, shape.fronts), ("order", Role::Order, shape.orders)];
    let counts = counts.into_iter().chain([("catalog", Role::Catalog, shape.catalogs)]);
    let mut differences: Vec<String> = counts
        .filter(|(_, role, wanted)| wanted.is_some_and(|wanted| wanted != count(*role)))
        .map(|(name, role, _)| format!("{} {name} servers", count(role)))
        .collect();
    if shape.token.is_some_and(|token| token != settings.token) {
        differences.push(format!("its token on {}", config::token_name(settings.token)));
    }
    if shape.cache_bytes.is_some_and(|bytes| bytes != settings.cache_bytes) {
        differences.push(format!("caches of {} bytes", settings.cache_bytes));
    }
    let first = settings.nodes.first().map(|node| node.address.clone()).unwrap_or_default();
    let port = first.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    if shape.base_port.is_some_and(|wanted| wanted != 0 && Some(wanted) != port) {
        differences.push(format!("its first node at {first}"));
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(LocalError::Refused(format!(
        "the cluster in {} has {}; leave the option out to start it again, name another --dir, or say --fresh to remove \
         it with all its books and orders and make a new one",
        dir.path().display(),
        differences.join(", ")
    )))
}

/// Refuses when a node runs in `dir`, even one that no file there knows.
fn refuse_running(dir: &ClusterDir) -> Result<(), LocalError> {
    let end = Instant::now() + DYING_PATIENCE;
    let running = loop {
        let running = process::running(dir)?;
        if running.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            break running;
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let names: Vec<String> = running.iter().map(|(name, pid)| format!("{name} ({pid})")).collect();
    Err(LocalError::Refused(format!(
        "a cluster runs in {}: {}; {} stops it, --dir makes another one",
        dir.path().display(),
        names.join(", "),
        down_command(dir)
    )))
}

fn down_command(dir: &ClusterDir) -> String {
    format!("`pygmy-node down --dir {}`", dir.quoted())
}

fn make_settings(shape: Shape) -> Result<ClusterSettings, LocalError> {
    let roles = [
        (Role::Front, shape.fronts.unwrap_or(FRONTS)),
        (Role::Order, shape.orders.unwrap_or(ORDERS)),
        (Role::Catalog, shape.catalogs.unwrap_or(CATALOGS)),
    ];
    let count = roles.iter().map(|(_, count)| count).sum();
    let ports = ports::choose(shape.base_port.unwrap_or(BASE_PORT), count, u64::from_le_bytes(draw()?))?;
    let names = roles.into_iter().flat_map(|(role, count)| (1..=count).map(move |index| (role, index)));
    let nodes = names
        .zip(ports)
        .enumerate()
        .map(|(place, ((role, index), port))| {
            let log_uuid = if role == Role::Front { [0; 16] } else { draw()? };
            Ok(NodeSettings {
                number: place as u16 + 1,
                name: format!("{}-{index}", role.name()),
                role,
                address: format!("{}:{port}", Ipv4Addr::LOCALHOST),
                log_uuid,
            })
        })
        .collect::<Result<_, LocalError>>()?;
    let key = draw::<{ config::KEY_LEN }>()?.to_vec();
    let cache_bytes = shape.cache_bytes.unwrap_or(CACHE_BYTES_DEFAULT);
    Ok(ClusterSettings { id: draw()?, key, token: shape.token.unwrap_or_default(), cache_bytes, nodes })
}

fn is_ready(settings: &ClusterSettings, node: &NodeSettings) -> bool {
    let linked = |status: &StatusOk| status.links.iter().all(|link| link.up);
    // Somebody must hold the token, or nothing can be written.
    let ordered = |status: &StatusOk| status.replica.as_ref().is_none_or(|replica| replica.holder != 0);
    process::status(settings, node).is_ok_and(|status| linked(&status) && ordered(&status))
}

fn load_once(settings: &ClusterSettings) -> Result<(), CallError> {
    let Some(front) = settings.nodes.iter().find(|node| node.role == Role::Front) else { return Ok(()) };
    let mut caller = Caller::connect(&front.address, settings.id)?;
    let SessionOpened { session } = caller.call(&OpenSession {})?;
    for (index, books) in inventory::builtin().chunks(PUT_BOOKS_MAX).enumerate() {
        let counter = index as u64 + 1;
        let command = Command::Put { books: Bounded::truncated(books.to_vec()) };
        caller.call::<_, WriteOk>(&Write { session, counter, first_incomplete: counter, command })?;
    }
    Ok(())
}

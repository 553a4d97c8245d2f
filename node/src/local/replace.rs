//! `replace`: a new process, with a new log, takes the place of one among the voters.
//!
//! What is done stands in two places: the directory `NAME.INCARNATION` of the new process, and the configuration in the
//! cluster's log. Every step is found again there, so that the command may be killed at any moment and repeated: it goes
//! on where it stood. `cluster.toml` names the new process when it votes and the old log has gone, not before.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pygmy_proto::ErrorCode;
use pygmy_proto::message::{MemberStatus, Replace, ReplaceOk, ReplicaStatus, Role};
use pygmy_proto::types::Text;
use rustix::process::Signal;

use super::caller::{CallError, Caller};
use super::meta::{Meta, MetaError};
use super::pidfile::{self, HoldError};
use super::process;
use super::run::{self, draw};
use super::{ClusterDir, LocalError, NodeDir, control, ports};
use crate::config;
use crate::settings::{ClusterSettings, INCARNATION_MAX, NodeSettings, incarnation_of, number_of, slot_of};

/// Between two looks at how far things are.
const PACE: Duration = Duration::from_millis(100);
/// Longest stretch without any progress; then it is given up, to be repeated.
const STANDSTILL: Duration = Duration::from_secs(30);
/// Between two lines about the same thing.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Time that the old process gets to find out that it was replaced, and to leave by itself.
const OLD_PATIENCE: Duration = Duration::from_secs(10);

/// What has been done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// What the new process is called.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Directory of the old process, which nothing needs any more; none when the old process goes on with a new log.
    pub left_behind: Option<PathBuf>,
}

/// The process that comes.
#[derive(Debug, Clone)]
struct Newcomer {
    node: NodeSettings,
    log_uuid: [u8; 16],
}

/// How a cluster is, by the word of the replica that knows most.
#[derive(Debug)]
struct View {
    replica: ReplicaStatus,
}

/// Puts a new process in the place of the node called `name` and waits until it votes and the old log does not.
/// `tell` is given a line now and then.
///
/// # Errors
/// It would take the majority away, something else is wrong with it, or there is no progress.
pub fn replace(
    dir: &ClusterDir,
    name: &str,
    address: Option<&str>,
    mut tell: impl FnMut(&str),
) -> Result<Replaced, LocalError> {
    let _held = hold(dir)?;
    let settings = dir.settings()?;
    let node = dir.find(&settings, name)?;
    if !node.is_replica() {
        let text = format!("{name} keeps no log: start it again, or change its address in {}", dir.config().display());
        return Err(LocalError::Usage(text));
    }
    let newcomer = match begun(dir, &settings, node)? {
        Some(newcomer) => newcomer,
        None => begin(dir, &settings, node, address, &look(&settings, None)?)?,
    };
    refuse_other_address(&newcomer, address)?;
    start(dir, &settings, &newcomer, &mut tell)?;
    Work { settings: &settings, node, newcomer: &newcomer, told: None }.wait_until_it_votes(&mut tell)?;
    finish(dir, node, &newcomer, &mut tell)
}

fn hold(dir: &ClusterDir) -> Result<pidfile::Held, LocalError> {
    // Reading the settings first: without a cluster there is no directory to put the file in.
    dir.settings()?;
    let path = dir.path().join("replace.pid");
    pidfile::hold(&path).map_err(|error| match error {
        HoldError::Taken(pid) => {
            LocalError::Refused(format!("process {pid} replaces a node of this cluster: wait for it"))
        }
        HoldError::Io(source) => LocalError::System { what: format!("cannot hold {}", path.display()), source },
    })
}

/// The replacement of `node` that was begun before and is not finished.
fn begun(dir: &ClusterDir, settings: &ClusterSettings, node: &NodeSettings) -> Result<Option<Newcomer>, LocalError> {
    let incarnations = dir.incarnations(&node.name)?;
    for incarnation in incarnations.into_iter().rev().filter(|number| *number > incarnation_of(node.number)) {
        let number = number_of(node.slot(), incarnation);
        let place = dir.node(&settings.name_of(number));
        let Some(meta) = read_meta(&place)? else { continue };
        let node = NodeSettings { number, address: place.read_address()?, ..node.clone() };
        return Ok(Some(Newcomer { node, log_uuid: meta.log_uuid }));
    }
    Ok(None)
}

fn read_meta(place: &NodeDir) -> Result<Option<Meta>, LocalError> {
    let refused = |error: MetaError| LocalError::Refused(format!("{}: {error}", place.meta().display()));
    Meta::read(&place.meta()).map_err(refused)
}

/// Makes the directory of the process that is to come, unless the node already runs with a log that does not vote.
fn begin(
    dir: &ClusterDir,
    settings: &ClusterSettings,
    node: &NodeSettings,
    address: Option<&str>,
    view: &View,
) -> Result<Newcomer, LocalError> {
    let old = view.old_of(node)?;
    view.refuse_without_majority(settings, node, &old)?;
    let place = dir.node(&node.dir_name());
    let elsewhere = address.is_some_and(|address| address != node.address);
    if let Some(meta) = read_meta(&place)?.filter(|meta| meta.log_uuid != old.log_uuid && !elsewhere) {
        // It was started on an empty directory: its log follows the others, and only lacks the vote.
        return Ok(Newcomer { node: node.clone(), log_uuid: meta.log_uuid });
    }
    let latest = settings.nodes.iter().map(|node| incarnation_of(node.number)).chain(dir.incarnations("")?).max();
    let incarnation = latest.unwrap_or(0) + 1;
    if incarnation > INCARNATION_MAX {
        let text = format!("{INCARNATION_MAX} voters of this cluster were replaced, which is as many as there can be");
        return Err(LocalError::Refused(text));
    }
    let runs = process::pid_of(dir, &node.dir_name())?.is_some();
    let address = choose_address(node, address, runs || old.heard)?;
    let node = NodeSettings { number: number_of(node.slot(), incarnation), address, ..node.clone() };
    let place = dir.node(&node.dir_name());
    place.create()?;
    // Before the directory is formatted: one that has a log also says where its process listens.
    place.write_address(&node.address)?;
    let log_uuid = draw()?;
    run::format(settings, &node, &place, log_uuid)?;
    Ok(Newcomer { node, log_uuid })
}

/// The address as asked for; or the old one if nobody can be there; or another port of this machine.
fn choose_address(node: &NodeSettings, wanted: Option<&str>, is_taken: bool) -> Result<String, LocalError> {
    match wanted {
        Some(address) if !config::is_address(address) => {
            Err(LocalError::Usage(format!("{address:?} is no address; allowed is {}", config::ADDRESS_FORM)))
        }
        Some(address) if is_taken && address == node.address => {
            Err(LocalError::Usage(format!("{} still listens on {address}: name another address", node.name)))
        }
        Some(address) => Ok(address.to_owned()),
        None if !is_taken => Ok(node.address.clone()),
        None if node.address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback()) => {
            let port = ports::choose(0, 1, u64::from_le_bytes(draw()?))?;
            Ok(format!("{}:{}", Ipv4Addr::LOCALHOST, port[0]))
        }
        None => Err(LocalError::Usage(format!(
            "{} still listens on {}: say with --address where the new process shall listen",
            node.name, node.address
        ))),
    }
}

fn refuse_other_address(newcomer: &Newcomer, address: Option<&str>) -> Result<(), LocalError> {
    let node = &newcomer.node;
    match address.filter(|address| *address != node.address) {
        None => Ok(()),
        Some(_) => Err(LocalError::Refused(format!(
            "a replacement of {} was begun at {}; repeat the command without --address to finish it first",
            node.name, node.address
        ))),
    }
}

/// Starts the new process, if it does not run.
fn start(
    dir: &ClusterDir,
    settings: &ClusterSettings,
    newcomer: &Newcomer,
    tell: &mut impl FnMut(&str),
) -> Result<(), LocalError> {
    let node = &newcomer.node;
    if process::pid_of(dir, &node.dir_name())?.is_some() {
        return Ok(());
    }
    let (pid, _) = control::start_node(dir, settings, node)?;
    tell(&format!("{} runs at {}, process {pid}, and learns", node.dir_name(), node.address));
    Ok(())
}

/// Asks every log replica how it is, and takes the word of the one that knows most.
fn look(settings: &ClusterSettings, newcomer: Option<&Newcomer>) -> Result<View, LocalError> {
    let nodes = settings.replicas().chain(newcomer.map(|newcomer| &newcomer.node));
    let heard = nodes.filter_map(|node| process::status(settings, node).ok()?.replica);
    let most = heard.max_by_key(|replica| (replica.config_id, replica.committed));
    let nobody = || LocalError::Unreachable("no log replica of the cluster answers; `pygmy-node up` starts it".into());
    most.map(|replica| View { replica }).ok_or_else(nobody)
}

impl View {
    fn voters(&self) -> impl Iterator<Item = &MemberStatus> {
        self.replica.members.iter().filter(|member| member.voter)
    }

    fn votes(&self, log_uuid: [u8; 16]) -> bool {
        self.voters().any(|voter| voter.log_uuid == log_uuid)
    }

    /// The log that is to go: that of the slot's voter, or the one whose replacement was begun.
    fn old_of(&self, node: &NodeSettings) -> Result<MemberStatus, LocalError> {
        if let Some(swap) = &self.replica.swap {
            if slot_of(swap.new.node) == node.slot() {
                let known = self.voters().find(|voter| voter.log_uuid == swap.old).cloned();
                return Ok(known.unwrap_or(MemberStatus { log_uuid: swap.old, ..MemberStatus::default() }));
            }
            let text = format!("the replacement of another node (number {}) is under way", swap.new.node);
            return Err(LocalError::Refused(text));
        }
        let voter = self.voters().find(|voter| slot_of(voter.node) == node.slot());
        voter.cloned().ok_or_else(|| LocalError::Refused(format!("{} is none of the voters", node.name)))
    }

    /// Refuses what would leave too few voters to go on, before anything is made for it.
    fn refuse_without_majority(
        &self,
        settings: &ClusterSettings,
        node: &NodeSettings,
        old: &MemberStatus,
    ) -> Result<(), LocalError> {
        let present = self.voters().filter(|voter| voter.heard && !voter.withheld && voter.log_uuid != old.log_uuid);
        let (all, present) = (self.voters().count(), present.count());
        // A living voter stays until the new one votes, a dead one goes first.
        let (voters, present) = if old.heard { (all + 1, present + 2) } else { (all.saturating_sub(1), present) };
        if present > voters / 2 || self.replica.swap.is_some() {
            return Ok(());
        }
        let missing = self.voters().filter(|voter| !voter.heard || voter.withheld);
        let names: Vec<String> = missing.map(|voter| settings.name_of(voter.node).into_owned()).collect();
        Err(LocalError::Refused(format!(
            "{} cannot be replaced now: {present} of {voters} voters would be there, and that is no majority; not there \
             are {}; `pygmy-node start NODE` starts one",
            node.name,
            names.join(", ")
        )))
    }
}

/// A replacement under way.
struct Work<'a> {
    settings: &'a ClusterSettings,
    node: &'a NodeSettings,
    newcomer: &'a Newcomer,
    /// The last line told, and when.
    told: Option<(String, Instant)>,
}

/// What a look at the cluster asks for.
enum Next {
    /// The new log votes, the old one is gone.
    Done,
    /// To wait, and what for.
    Wait(String),
    /// To try again what was not possible, for this reason.
    Again(String),
}

impl Work<'_> {
    fn wait_until_it_votes(&mut self, tell: &mut impl FnMut(&str)) -> Result<(), LocalError> {
        let (mut furthest, mut since) = ((0, 0), Instant::now());
        loop {
            let view = look(self.settings, Some(self.newcomer))?;
            let line = match self.step(&view)? {
                Next::Done => return Ok(()),
                Next::Wait(line) | Next::Again(line) => line,
            };
            let reached = (view.replica.config_id, self.reached(&view));
            if reached > furthest {
                (furthest, since) = (reached, Instant::now());
            }
            if since.elapsed() >= STANDSTILL {
                return Err(LocalError::Unreachable(format!(
                    "there was no progress for {} s: {line}; repeat the command to go on",
                    STANDSTILL.as_secs()
                )));
            }
            self.tell(&line, tell);
            std::thread::sleep(PACE);
        }
    }

    /// End of the new log.
    fn reached(&self, view: &View) -> u64 {
        let own = view.replica.members.iter().find(|member| member.log_uuid == self.newcomer.log_uuid);
        own.map_or(0, |member| member.last_seq)
    }

    fn step(&self, view: &View) -> Result<Next, LocalError> {
        let new = self.newcomer.log_uuid;
        let name = self.newcomer.node.dir_name();
        match &view.replica.swap {
            None if view.votes(new) => return Ok(Next::Done),
            Some(swap) if swap.new.log_uuid == new && view.votes(new) => {
                return Ok(Next::Wait(format!("{name} votes; the old log is being removed")));
            }
            Some(swap) if swap.new.log_uuid == new => {
                let behind = view.replica.committed.saturating_sub(self.reached(view));
                return Ok(Next::Wait(format!("the old log is removed; {name} learns, {behind} entries behind")));
            }
            _ => {}
        }
        let old = view.old_of(self.node)?;
        let behind = view.replica.committed.saturating_sub(self.reached(view));
        match self.propose(view, old.log_uuid) {
            Ok(()) => Ok(Next::Wait(format!("{name} takes the place"))),
            Err(CallError::Refused(error)) if is_learning(&error) => {
                Ok(Next::Wait(format!("{name} learns, {behind} entries behind")))
            }
            Err(CallError::Refused(error)) if error.known_code() == Some(ErrorCode::ChangeRefused) => {
                // What was true a moment ago may have been done meanwhile.
                let again = look(self.settings, Some(self.newcomer))?;
                if again.replica.config_id > view.replica.config_id {
                    return Ok(Next::Again(error.detail.to_string()));
                }
                Err(LocalError::Refused(format!("{} cannot be replaced now: {}", self.node.name, &*error.detail)))
            }
            Err(CallError::Refused(error)) if error.known_code() == Some(ErrorCode::BadCredentials) => {
                Err(LocalError::Refused(error.to_string()))
            }
            Err(error) => Ok(Next::Again(format!("{name} learns, {behind} entries behind; {error}"))),
        }
    }

    /// Asks the catalogs that are heard, the token's holder first, until one takes the change.
    fn propose(&self, view: &View, old: [u8; 16]) -> Result<(), CallError> {
        let Newcomer { node, log_uuid } = self.newcomer;
        let ask = Replace { old, new: *log_uuid, node: node.number, address: Text::truncated(&node.address) };
        let is_catalog = |number: u16| self.settings.node(number).is_some_and(|node| node.role == Role::Catalog);
        let mut catalogs: Vec<&MemberStatus> =
            view.voters().filter(|voter| voter.heard && is_catalog(voter.node)).collect();
        // Whoever is to go should not be in the middle of it, if that can be avoided.
        catalogs.sort_by_key(|voter| (voter.log_uuid == old, voter.node != view.replica.holder));
        let mut last = CallError::Kind(0);
        for catalog in catalogs {
            let known = self.settings.node(catalog.node).map(|node| node.address.as_str()).unwrap_or_default();
            let address = if catalog.address.is_empty() { known } else { &catalog.address };
            let asked = Caller::connect_as_member(address, self.settings)
                .and_then(|mut caller| caller.call::<_, ReplaceOk>(&ask));
            match asked {
                Ok(_) => return Ok(()),
                Err(CallError::Refused(error)) if error.known_code() == Some(ErrorCode::ChangeRefused) => {
                    return Err(CallError::Refused(error));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn tell(&mut self, line: &str, tell: &mut impl FnMut(&str)) {
        let is_new = self.told.as_ref().is_none_or(|(told, at)| told != line && at.elapsed() >= TELL_EVERY);
        if is_new {
            tell(line);
            self.told = Some((line.to_owned(), Instant::now()));
        }
    }
}

/// The newcomer is there and not near enough to the end of the log yet.
fn is_learning(error: &pygmy_proto::ErrorBody) -> bool {
    error.known_code() == Some(ErrorCode::ChangeRefused) && error.detail.ends_with("is still learning")
}

/// Writes down who has the place now, and sees to it that the old process has ended.
fn finish(
    dir: &ClusterDir,
    old: &NodeSettings,
    newcomer: &Newcomer,
    tell: &mut impl FnMut(&str),
) -> Result<Replaced, LocalError> {
    let Newcomer { node, .. } = newcomer;
    let (name, address) = (node.dir_name(), node.address.clone());
    if node.number == old.number {
        return Ok(Replaced { name, address, left_behind: None });
    }
    // Read again: the file may have been edited while the new process was learning.
    let mut settings = dir.settings()?;
    for known in settings.nodes.iter_mut().filter(|known| known.slot() == node.slot()) {
        (known.number, known.address) = (node.number, node.address.clone());
    }
    let path = dir.config();
    config::write(&path, &settings).map_err(|source| LocalError::Config { path, source })?;
    let gone = old.dir_name();
    if process::pid_of(dir, &gone)?.is_some() {
        tell(&format!("{name} votes; waiting for {gone} to leave"));
        end_process(dir, &gone)?;
    }
    Ok(Replaced { name, address, left_behind: Some(dir.node(&gone).path().to_owned()) })
}

/// Waits for the old process to leave by itself, and then makes it: one that is cut off or paused does not find out.
fn end_process(dir: &ClusterDir, name: &str) -> Result<(), LocalError> {
    for signal in [None, Some(Signal::TERM), Some(Signal::KILL)] {
        if let Some(signal) = signal {
            process::signal(dir, name, signal)?;
        }
        if process::wait_gone(dir, vec![name], OLD_PATIENCE, &mut || ())?.is_empty() {
            return Ok(());
        }
    }
    Err(LocalError::Refused(format!("{name} was replaced and killed, and is still there")))
}

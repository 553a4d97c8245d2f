//! The command line of `pygmy-node`.
//!
//! Exit codes are a contract: 0 done, 1 refused, 2 usage, 3 unreachable, and [`EXIT_FATAL`] for a server that stopped
//! because going on would have broken a promise, and [`EXIT_REMOVED`] for one that was replaced.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use rustix::process::Signal;
use serde_json::json;

use crate::config;
use crate::disk::direct::LogWrites;
use crate::driver::Exit;
use crate::inspect::{self, Detail};
use crate::local::up::{Cluster, Origin, Shape};
use crate::local::{ClusterDir, LocalError, control, replace, run};
use crate::settings::{ClusterSettings, TokenMode, incarnation_of};

const EXIT_REFUSED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_UNREACHABLE: u8 = 3;
/// A server found that a promise would be broken by going on.
pub const EXIT_FATAL: u8 = 70;
/// A server's log was replaced: the process need not be started any more.
pub const EXIT_REMOVED: u8 = 71;

const CLUSTER_VARIABLE: &str = "PYGMY_CLUSTER";
const AFTER_HELP: &str = "Exit codes: 0 done, 1 refused, 2 usage, 3 not running or not answering, 70 a server that had \
                          to stop because going on would have broken a promise, 71 a server whose place another one has.";

#[derive(Debug, Parser)]
#[command(name = "pygmy-node", version, about = "The servers of Pygmy, a replicated book store", after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Debug, Subcommand)]
enum Cmd {
    /// Make a cluster on this machine, or start the one that is there again, and watch over it until Ctrl-C
    Up(UpArgs),
    /// Stop the cluster
    Down {
        #[command(flatten)]
        place: Place,
    },
    /// Run one node of a cluster in this process, until SIGTERM; its directory lies beside the file
    Run {
        /// The cluster's file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Name of the node, as in the file
        #[arg(long, value_name = "NAME")]
        node: String,
        /// Which process of the node, if it was or is being replaced [default: the one in the file]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=255))]
        incarnation: Option<u16>,
        /// How the log and the vote get to the disk
        #[arg(long, value_enum, value_name = "WAY", env = "PYGMY_LOG_WRITES", default_value_t)]
        log_writes: LogWrites,
    },
    /// Make the directory of an order or catalog server, with a new and empty log in it
    Format {
        /// Name of the node, such as catalog-2
        node: String,
        /// The log is born with the cluster and votes under the identity in cluster.toml; without this it gets another
        /// one and has no vote. Only for a cluster that has never run: a voter that has lost its log is replaced
        #[arg(long)]
        initial: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Put a new process, with a new log, in the place of an order or catalog server, dead or alive, and wait until it
    /// votes. Repeated after a failure, it goes on
    Replace {
        /// Name of the node, such as catalog-2
        node: String,
        /// Where the new process listens [default: where the old one did, if that does not run, else a free port of
        /// this machine]
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<String>,
        /// Print what was done as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Kill a node, or send it another signal
    Kill {
        /// Name of the node, such as catalog-2
        node: String,
        /// What to send
        #[arg(long, value_enum, ignore_case = true, default_value_t = SignalName::Kill)]
        signal: SignalName,
        #[command(flatten)]
        place: Place,
    },
    /// Start a node that does not run, and wait until it answers
    Start {
        /// Name of the node, such as catalog-2
        node: String,
        #[command(flatten)]
        place: Place,
    },
    /// Print the process id of a node
    Pid {
        /// Name of the node, such as catalog-2
        node: String,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Look at a cluster's file
    #[command(subcommand)]
    Config(ConfigCmd),
    /// Show what is in a node's files, whole or damaged, and change nothing
    Inspect(InspectArgs),
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// Files, or directories whose files are looked at together
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Every record of the log, too
    #[arg(long)]
    records: bool,
    /// And every entry in them
    #[arg(long)]
    entries: bool,
    /// Print it as JSON, one path a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ConfigCmd {
    /// Check it
    Check {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print it, each key explained; the cluster's key is left out
    Show {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        file: ConfigFile,
    },
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The file [default: cluster.toml in the cluster's directory]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dir", "cluster"])]
    config: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct Place {
    /// Directory of the cluster [default: $PYGMY_CLUSTER, else $XDG_DATA_HOME/pygmy/default, else
    /// ~/.local/share/pygmy/default]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The same, or the cluster.toml in it, as pygmy takes it
    #[arg(long, value_name = "PATH", conflicts_with = "dir")]
    cluster: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct UpArgs {
    /// Front servers, which take the clients [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    fronts: Option<u16>,
    /// Order servers [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    orders: Option<u16>,
    /// Catalog servers [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    catalogs: Option<u16>,
    /// First port; the nodes take this one and those after it. 0 picks free ones [default: 7401]
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
    /// How the right to order writes moves [default: demand]
    #[arg(long, value_enum)]
    token: Option<TokenName>,
    /// What each front server may keep of answers, in bytes; 0: nothing [default: 67108864]
    #[arg(long, value_name = "BYTES")]
    cache_bytes: Option<u64>,
    /// Make a new cluster even where there is one, whose books and orders are removed
    #[arg(long)]
    fresh: bool,
    /// Return when the cluster is ready, and leave it running
    #[arg(long)]
    detach: bool,
    /// Print the nodes as JSON, one a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TokenName {
    /// To who has writes
    Demand,
    /// Round and round, for tests
    Rotate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SignalName {
    /// It is gone at once
    Kill,
    /// It stands still until CONT
    Stop,
    /// It goes on
    Cont,
    /// It answers what is in work and leaves
    Term,
}

impl SignalName {
    fn signal(self) -> Signal {
        match self {
            SignalName::Kill => Signal::KILL,
            SignalName::Stop => Signal::STOP,
            SignalName::Cont => Signal::CONT,
            SignalName::Term => Signal::TERM,
        }
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = if matches!(cli.command, Cmd::Run { .. }) { "info" } else { "warn" };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(error) => {
            // Nothing is left to be done when not even this can be said.
            let _ = writeln!(io::stderr(), "pygmy-node: {error}");
            exit_code(&error)
        }
    }
}

fn exit_code(error: &LocalError) -> ExitCode {
    match error {
        LocalError::Usage(_) => ExitCode::from(EXIT_USAGE),
        LocalError::Unreachable(_) => ExitCode::from(EXIT_UNREACHABLE),
        LocalError::Removed(_) => ExitCode::from(EXIT_REMOVED),
        LocalError::Refused(_) | LocalError::Config { .. } | LocalError::System { .. } => ExitCode::from(EXIT_REFUSED),
    }
}

fn dispatch(command: Cmd) -> Result<ExitCode, LocalError> {
    match command {
        Cmd::Up(args) => return up(&args),
        Cmd::Run { config, node, incarnation, log_writes } => {
            return Ok(run_node(run::run(&config, &node, incarnation, log_writes)?));
        }
        Cmd::Format { node, initial, place } => say(&format_node(&place.dir()?, &node, initial)?),
        Cmd::Replace { node, address, json, place } => replace_node(&place.dir()?, &node, address.as_deref(), json)?,
        Cmd::Down { place } => say(&control::down(&place.dir()?)?),
        Cmd::Kill { node, signal, place } => {
            let pid = control::kill(&place.dir()?, &node, signal.signal())?;
            let name = format!("{signal:?}").to_uppercase();
            say(&format!("sent {name} to {node}, process {pid}"));
        }
        Cmd::Start { node, place } => start(&place.dir()?, &node)?,
        Cmd::Pid { node, json, place } => {
            let pid = control::pid(&place.dir()?, &node)?;
            say(&if json { json!({ "node": node, "pid": pid }).to_string() } else { pid.to_string() });
        }
        Cmd::Config(ConfigCmd::Check { file }) => {
            let (path, settings) = file.read()?;
            let (nodes, replicas) = (settings.nodes.len(), settings.replicas().count());
            say(&format!("{} is good: {nodes} nodes, {replicas} of them voters", path.display()));
        }
        Cmd::Config(ConfigCmd::Show { json, file }) => show(&file.read()?.1, json),
        Cmd::Inspect(args) => return look_into(&args),
    }
    Ok(ExitCode::SUCCESS)
}

fn run_node(exit: Exit) -> ExitCode {
    match exit {
        Exit::Left => ExitCode::SUCCESS,
        Exit::Forced(why) => {
            log::warn!("ends without having finished: {why}");
            ExitCode::from(EXIT_REFUSED)
        }
        Exit::Removed(why) => {
            log::error!("ends, and need not be started any more: {why}");
            ExitCode::from(EXIT_REMOVED)
        }
        Exit::Fatal(why) => {
            log::error!("ends because going on would break a promise: {why}");
            ExitCode::from(EXIT_FATAL)
        }
    }
}

impl Place {
    fn dir(&self) -> Result<ClusterDir, LocalError> {
        let variable = || std::env::var_os(CLUSTER_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = self.dir.clone().or_else(|| self.cluster.clone()).or_else(variable);
        named.map_or_else(ClusterDir::by_default, |path| ClusterDir::named(&path))
    }
}

impl ConfigFile {
    fn read(&self) -> Result<(PathBuf, ClusterSettings), LocalError> {
        match &self.config {
            Some(path) => {
                let settings =
                    config::read(path).map_err(|source| LocalError::Config { path: path.clone(), source })?;
                Ok((path.clone(), settings))
            }
            None => {
                let dir = self.place.dir()?;
                Ok((dir.config(), dir.settings()?))
            }
        }
    }
}

fn show(settings: &ClusterSettings, json: bool) {
    if !json {
        let text = config::render(settings);
        return say_raw(&text.replace(&config::hex(&settings.key), "(left out)"));
    }
    let nodes: Vec<_> = settings
        .nodes
        .iter()
        .map(|node| {
            let log = node.is_replica().then(|| config::hex(&node.log_uuid));
            json!({
                "number": node.slot(),
                "incarnation": incarnation_of(node.number),
                "name": node.name,
                "role": node.role.name(),
                "address": node.address,
                "log": log,
            })
        })
        .collect();
    let token = config::token_name(settings.token);
    say(&json!({ "id": config::hex(&settings.id), "token": token, "cache_bytes": settings.cache_bytes, "nodes": nodes }).to_string());
}

/// Exit code 1 when something is damaged.
fn look_into(args: &InspectArgs) -> Result<ExitCode, LocalError> {
    let detail = match (args.entries, args.records) {
        (true, _) => Detail::Entries,
        (false, true) => Detail::Records,
        (false, false) => Detail::Summary,
    };
    let mut whole = true;
    for path in &args.paths {
        let cannot = LocalError::system(format!("{} cannot be read", path.display()));
        let report = inspect::inspect(path, detail).map_err(cannot)?;
        whole &= report.is_whole();
        if args.json {
            let line = serde_json::to_string(&report).map_err(io::Error::other);
            say(&line.map_err(LocalError::system("the report cannot be written as JSON"))?);
        } else {
            say_raw(&report.to_string());
        }
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(EXIT_REFUSED) })
}

fn start(dir: &ClusterDir, name: &str) -> Result<(), LocalError> {
    let (pid, status) = control::start(dir, name)?;
    say(&format!("{name} runs, process {pid}"));
    if status.replica.is_some_and(|replica| !replica.voter) {
        say("It has no vote: its directory was empty, or a part of its log is lost. It follows the others.");
    }
    Ok(())
}

fn format_node(dir: &ClusterDir, name: &str, initial: bool) -> Result<String, LocalError> {
    let settings = dir.settings()?;
    let node = dir.find(&settings, name)?;
    let log_uuid = run::format_for(&settings, node, &dir.node(&node.dir_name()), initial)?;
    let vote = if initial { "votes" } else { "has no vote until it replaces the one that has this place" };
    Ok(format!("{} is empty and {vote}; its log is {}", node.dir_name(), config::hex(&log_uuid)))
}

fn replace_node(dir: &ClusterDir, name: &str, address: Option<&str>, json: bool) -> Result<(), LocalError> {
    let done = replace::replace(dir, name, address, |line| {
        // The replacement goes on whether or not somebody listens.
        let _ = writeln!(io::stderr(), "{line}");
    })?;
    if json {
        let left_behind = done.left_behind.as_ref().map(|path| path.display().to_string());
        say(&json!({ "node": name, "process": done.name, "address": done.address, "left_behind": left_behind })
            .to_string());
        return Ok(());
    }
    say(&format!("{} at {} votes in the place of {name}", done.name, done.address));
    if let Some(path) = done.left_behind {
        say(&format!("nothing needs {} any more", path.display()));
    }
    Ok(())
}

fn up(args: &UpArgs) -> Result<ExitCode, LocalError> {
    let dir = args.place.dir()?;
    let shape = Shape {
        fronts: args.fronts.map(usize::from),
        orders: args.orders.map(usize::from),
        catalogs: args.catalogs.map(usize::from),
        base_port: args.base_port,
        token: args.token.map(|token| match token {
            TokenName::Demand => TokenMode::Demand,
            TokenName::Rotate => TokenMode::Rotate,
        }),
        cache_bytes: args.cache_bytes,
        fresh: args.fresh,
    };
    let Some(mut cluster) = Cluster::up(&dir, shape)? else {
        return Err(LocalError::Refused("asked to stop before the cluster was ready; it is stopped".into()));
    };
    if args.json {
        print_json(&cluster)
    } else {
        print_table(&dir, &cluster, args.detach)
    }
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let was_asked = cluster.watch(|text| {
        // The cluster goes on whether or not somebody listens.
        let _ = write!(io::stderr(), "{text}");
    });
    if !was_asked {
        let text = "every node has ended; `pygmy-node up` starts them again".to_owned();
        return Err(LocalError::Unreachable(text));
    }
    let killed = cluster.stop()?;
    if !args.json {
        say("\nstopped");
    }
    if !killed.is_empty() {
        log::warn!("{} did not leave in time and had to be killed", killed.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_json(cluster: &Cluster) {
    for (node, pid) in cluster.processes() {
        let (name, role, address) = (&node.name, node.role.name(), &node.address);
        say(&json!({ "name": name, "role": role, "pid": pid, "address": address }).to_string());
    }
}

fn print_table(dir: &ClusterDir, cluster: &Cluster, detached: bool) {
    match cluster.origin {
        Origin::New => {}
        Origin::Resumed => say("The cluster that was here goes on, with all its books and orders."),
        Origin::Replaced => say("The cluster that was here is removed, and a new one made."),
    }
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(["name", "role", "pid", "address"]);
    for (node, pid) in cluster.processes() {
        table.add_row([node.dir_name(), node.role.name().to_owned(), pid.to_string(), node.address.clone()]);
    }
    let (voters, stands) = (cluster.voters(), cluster.stands());
    let failures = match stands {
        0 => "no failure".to_owned(),
        1 => "the failure of any one".to_owned(),
        _ => format!("the failure of any {stands}"),
    };
    say(&format!("{table}\nin {}", dir.path().display()));
    say(&format!(
        "{voters} voters (orders and catalogs): with a majority of them the store goes on, so it stands {failures}."
    ));
    let (program, suffix) = (client_command(), cluster_option(dir));
    say("\nTry:");
    for example in ["buy rpcdummies:2", "search distributed-systems", "orders --last 10"] {
        say(&format!("  {program}{suffix} {example}"));
    }
    let stop = if detached { format!("pygmy-node down --dir {}", dir.quoted()) } else { "Ctrl-C".to_owned() };
    say(&format!("\n{stop} stops it."));
}

/// How to call the client from where this program was built, or its plain name when it was installed.
fn client_command() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let folder = |name: &str| program.components().any(|part| part.as_os_str() == name);
    match (folder("target"), folder("release")) {
        (true, true) => "cargo run --release --bin pygmy --".to_owned(),
        (true, false) => "cargo run --bin pygmy --".to_owned(),
        (false, _) => "pygmy".to_owned(),
    }
}

/// What a client needs to find a cluster that is not in the default place.
fn cluster_option(dir: &ClusterDir) -> String {
    match ClusterDir::by_default() {
        Ok(default) if default == *dir => String::new(),
        _ => format!(" --cluster {}", dir.quoted()),
    }
}

fn say(line: &str) {
    say_raw(&format!("{line}\n"));
}

/// Whoever closed the pipe has read enough.
fn say_raw(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn signals_may_be_written_in_capitals() {
        let cli = Cli::parse_from(["pygmy-node", "kill", "order-1", "--signal", "STOP"]);
        assert!(matches!(cli.command, Cmd::Kill { signal: SignalName::Stop, .. }));
    }

    #[test]
    fn clusters_without_a_role_or_with_too_many_of_one_are_a_usage_error() {
        for wrong in [["--fronts", "0"], ["--catalogs", "17"], ["--base-port", "70000"], ["--token", "never"]] {
            let error = Cli::try_parse_from(["pygmy-node", "up"].iter().chain(&wrong)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong:?}");
        }
    }
}

//! Whole clusters of processes on loopback, by the commands of `pygmy-node`.

mod local_support;
mod patience;

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use pygmy_node::config;
use pygmy_node::local::ClusterDir;
use pygmy_node::local::caller::Caller;
use pygmy_proto::inventory;
use pygmy_proto::message::{Books, BooksOk, Status, StatusOk};

use local_support::{Place, stderr};
use patience::wait;

const UP: &[&str] = &["up", "--detach", "--base-port", "0"];

#[test]
fn a_detached_cluster_is_ready_filled_and_stopped_by_down() {
    let place = Place::new();
    let table = place.done(UP);
    assert!(table.contains("catalog-3") && table.contains("the failure of any 2"), "{table}");
    let settings = place.settings();
    assert_eq!(settings.nodes.len(), 7);
    for node in &settings.nodes {
        let status = place.status(&node.name);
        assert!(!status.links.is_empty() && status.links.iter().all(|link| link.up), "{status:?}");
        assert_eq!(status.replica.is_some_and(|replica| replica.voter), node.is_replica());
    }
    let mut caller = Caller::connect(&settings.nodes[0].address, settings.id).expect("it answers");
    let page: BooksOk = caller.call(&Books { floor: 0, limit: 100, after: None }).expect("it answers");
    assert_eq!(page.total, inventory::builtin().len() as u64);

    let again = place.fails(UP, 1);
    assert!(again.contains(&place.pid("order-2")) && again.contains("pygmy-node down"), "{again}");

    assert!(place.done(&["down"]).contains("stopped 7 nodes"));
    place.fails(&["pid", "front-1"], 3);
    assert!(place.done(&["down"]).contains("no node"));
    let log = std::fs::read_to_string(place.path().join("catalog-1/node.log")).expect("a log");
    assert!(log.contains("Left: "), "it left in order: {log}");
}

#[test]
fn a_stopped_cluster_goes_on_with_all_it_knows_and_only_fresh_makes_a_new_one() {
    let place = Place::new();
    place.done(UP);
    let first = place.settings();
    let known = place.status("catalog-1").replica.expect("a replica");
    // Not asked to leave: killed, all at once.
    for node in &first.nodes {
        place.done(&["kill", &node.name]);
    }
    let table = place.done(UP);
    assert!(table.contains("goes on"), "{table}");
    assert_eq!(place.settings(), first);
    // The epoch's own first entry is not committed yet when somebody holds the token.
    wait("the new epoch to commit something", || {
        let now = place.status("catalog-1").replica.expect("a replica");
        now.voter && now.epoch > known.epoch && now.committed > known.committed
    });
    let now = place.status("catalog-1").replica.expect("a replica");
    assert_eq!((now.books, now.orders), (known.books, known.orders));

    place.done(&["down"]);
    let complaint = place.fails(&["up", "--detach", "--base-port", "0", "--catalogs", "2"], 1);
    assert!(complaint.contains("3 catalog servers") && complaint.contains("--fresh"), "{complaint}");
    let table = place.done(&["up", "--detach", "--base-port", "0", "--catalogs", "2", "--fresh"]);
    assert!(table.contains("is removed"), "{table}");
    assert_ne!(place.settings().id, first.id);
    assert!(place.status("catalog-1").replica.expect("a replica").voter, "its log is a new one, born here and now");
}

#[test]
fn a_killed_node_comes_back_with_its_vote_whoever_killed_it() {
    let place = Place::new();
    place.done(UP);
    let gone = place.pid("catalog-2");
    place.done(&["kill", "catalog-2"]);
    let complaint = place.fails(&["pid", "catalog-2"], 3);
    assert!(complaint.contains("pygmy-node start catalog-2"), "{complaint}");
    place.fails(&["kill", "catalog-2"], 3);
    assert!(!place.done(&["start", "catalog-2"]).contains("no vote"));
    assert_ne!(place.pid("catalog-2"), gone);
    assert!(place.status("catalog-2").replica.expect("a replica").voter);
    assert!(place.fails(&["start", "catalog-2"], 1).contains("runs already"));

    let pid = place.pid("order-1");
    assert!(Command::new("kill").args(["-9", &pid]).status().expect("kill runs").success());
    assert!(!place.done(&["start", "order-1"]).contains("no vote"));
    assert!(place.fails(&["kill", "nobody"], 2).contains("catalog-3"));
}

#[test]
fn an_empty_disk_never_votes_under_the_old_name() {
    let place = Place::new();
    place.done(UP);
    place.done(&["kill", "order-2"]);
    std::fs::remove_dir_all(place.path().join("order-2/data")).expect("it was there");
    assert!(place.done(&["start", "order-2"]).contains("no vote"));
    assert!(!place.status("order-2").replica.expect("a replica").voter);
    wait("the log to be there again", || {
        let [own, other] = ["order-2", "order-1"].map(|name| place.status(name).replica.expect("a replica"));
        own.applied == other.applied && own.state_hash == other.state_hash
    });
    // It stays another log when it is started once more.
    place.done(&["kill", "order-2"]);
    assert!(place.done(&["start", "order-2"]).contains("no vote"));
}

#[test]
fn a_foreign_directory_is_refused_with_both_values() {
    let place = Place::new();
    place.done(UP);
    place.done(&["down"]);
    let [own, other] = ["order-2", "catalog-1"].map(|name| place.path().join(name).join("data"));
    std::fs::remove_dir_all(&own).expect("it was there");
    std::fs::rename(&other, &own).expect("moved");
    let complaint = place.fails(&["start", "order-2"], 3);
    assert!(complaint.contains("catalog-1 (number 5)") && complaint.contains("order-2 (number 4)"), "{complaint}");
}

#[test]
fn the_death_of_the_tokens_holder_is_survived() {
    let place = Place::new();
    place.done(UP);
    let settings = place.settings();
    let before = place.status("order-1").replica.expect("a replica");
    let holder = settings.node(before.holder).expect("a catalog").name.clone();
    place.done(&["kill", &holder]);
    wait("another epoch", || {
        let now = place.status("order-1").replica.expect("a replica");
        now.epoch > before.epoch && now.holder != 0 && now.holder != before.holder
    });
    assert!(!place.done(&["start", &holder]).contains("no vote"));
}

#[test]
fn a_paused_node_does_not_keep_the_cluster_from_being_stopped() {
    let place = Place::new();
    place.done(&["up", "--detach", "--base-port", "0", "--fronts", "1", "--orders", "1", "--catalogs", "1"]);
    place.done(&["kill", "front-1", "--signal", "STOP"]);
    let text = place.done(&["down"]);
    assert!(text.contains("front-1 did not leave in time"), "{text}");
    place.fails(&["pid", "front-1"], 3);
}

#[test]
fn a_port_in_use_is_named_before_anything_starts() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let complaint = place.fails(&["up", "--detach", "--base-port", &port], 1);
    assert!(complaint.contains(&port) && complaint.contains("--base-port"), "{complaint}");
    assert!(!place.path().exists(), "nothing is left of what was made for nothing");
    place.fails(&["down"], 1);
    place.fails(&["up", "--detach", "--base-port", "65533"], 2);
}

const SMALL: &[&str] = &["up", "--detach", "--base-port", "0", "--fronts", "1", "--orders", "1", "--catalogs", "1"];

#[test]
fn a_refused_up_harms_no_node_and_down_needs_no_file() {
    let place = Place::new();
    place.done(SMALL);
    let pids: Vec<String> = ["front-1", "order-1", "catalog-1"].map(|name| place.pid(name)).into();
    let (file, away) = (place.path().join("cluster.toml"), place.path().join("away.toml"));
    std::fs::rename(&file, &away).expect("moved");
    let complaint = place.fails(SMALL, 1);
    assert!(complaint.contains("a cluster runs in") && complaint.contains(&pids[1]), "{complaint}");
    assert!(!file.exists(), "and no other cluster was made");
    std::fs::rename(&away, &file).expect("moved back");
    for (name, pid) in ["front-1", "order-1", "catalog-1"].iter().zip(&pids) {
        assert_eq!(&place.pid(name), pid);
    }
    std::fs::remove_file(&file).expect("removed");
    assert!(place.done(&["down"]).contains("stopped 3 nodes"));
    assert!(place.fails(&["down"], 1).contains("no cluster was made"));
}

#[test]
fn an_up_that_fails_half_way_stops_what_it_started() {
    let place = Place::new();
    std::fs::create_dir_all(place.path().join("catalog-1/node.log")).expect("made where a file should be");
    let complaint = place.fails(SMALL, 1);
    assert!(complaint.contains("catalog-1"), "{complaint}");
    assert!(place.path().join("order-1/node.log").exists(), "it was started");
    assert_eq!(processes_of(&place), Vec::<String>::new());
}

/// Command lines of the processes that run a node of `place`, even those that have not said so yet.
fn processes_of(place: &Place) -> Vec<String> {
    let config = place.path().join("cluster.toml").display().to_string();
    let entries = std::fs::read_dir("/proc").expect("it is there").filter_map(Result::ok);
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).into_owned()).filter(|line| line.contains(&config)).collect()
}

#[test]
fn a_start_is_not_taken_in_by_another_process_at_the_address() {
    let place = Place::new();
    place.done(SMALL);
    let old = place.pid("order-1");
    std::fs::remove_file(place.path().join("order-1/node.pid")).expect("removed");
    let complaint = place.fails(&["start", "order-1"], 3);
    assert!(complaint.contains("cannot listen on"), "{complaint}");
    assert!(place.status("order-1").replica.expect("a replica").voter, "the old one goes on");
    assert!(Command::new("kill").args(["-9", &old]).status().expect("kill runs").success());
}

#[test]
fn what_an_earlier_cluster_of_another_shape_left_is_removed() {
    let place = Place::new();
    place.done(UP);
    place.done(&["down"]);
    std::fs::write(place.path().join("catalog-3/notes"), "mine").expect("written");
    let mut fresh = SMALL.to_vec();
    fresh.push("--fresh");
    place.done(&fresh);
    assert!(!place.path().join("catalog-2").exists());
    let left: Vec<_> = std::fs::read_dir(place.path().join("catalog-3")).expect("it is there").collect();
    assert_eq!(left.len(), 1, "what is not ours stays: {left:?}");
}

#[test]
fn a_cluster_is_named_alike_by_directory_file_and_variable() {
    let place = Place::new();
    place.done(SMALL);
    let (dir, file) = (place.path(), place.path().join("cluster.toml"));
    let pid = place.pid("front-1");
    for path in [&dir, &file] {
        let run = |env: &Path, args: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pygmy-node"));
            command.env("PYGMY_CLUSTER", env).env("XDG_DATA_HOME", dir.join("none")).args(args);
            command.output().expect("the program starts")
        };
        let output = run(path, &["pid", "front-1"]);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), pid, "{}", stderr(&output));
        let output = run(Path::new(""), &["pid", "front-1", "--cluster", &file_name(path)]);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), pid, "{}", stderr(&output));
        let output = run(Path::new(""), &["pid", "front-1"]);
        assert!(stderr(&output).contains("none/pygmy/default"), "a variable that is empty is none");
        let output = run(&dir.join("front-1/node.log"), &["pid", "front-1"]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    }
}

#[test]
fn a_node_that_cannot_start_says_why_and_begins_no_log() {
    let place = Place::new();
    place.done(&["up", "--detach", "--base-port", "0", "--fronts", "1", "--orders", "1", "--catalogs", "1"]);
    place.done(&["down"]);
    let settings = place.settings();
    let order = settings.node_named("order-1").expect("a node");
    let data = place.path().join("order-1/data");
    std::fs::remove_dir_all(&data).expect("it was there");
    let _taken = TcpListener::bind(&order.address).expect("it is free again");
    let complaint = place.fails(&["start", "order-1"], 3);
    assert!(complaint.contains("cannot listen on") && complaint.contains(&order.address), "{complaint}");
    assert!(!data.exists(), "no log was begun");
}

#[test]
fn a_second_process_on_one_directory_is_refused() {
    let place = Place::new();
    place.done(&["up", "--detach", "--base-port", "0", "--fronts", "1", "--orders", "1", "--catalogs", "1"]);
    let config = place.path().join("cluster.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_pygmy-node"))
        .args(["run", "--node", "order-1", "--config"])
        .arg(&config)
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&place.pid("order-1")), "{}", stderr(&output));
}

#[test]
fn a_server_without_descriptors_pauses_accepting_and_recovers() {
    let place = Place::new();
    place.done(&["up", "--detach", "--base-port", "0", "--fronts", "1", "--orders", "1", "--catalogs", "1"]);
    place.done(&["down"]);
    let settings = place.settings();
    let front = settings.node_named("front-1").expect("a node");
    let mut server = Command::new("sh")
        .args(["-c", "ulimit -n 40 && exec \"$0\" run --node front-1 --config \"$1\""])
        .args([env!("CARGO_BIN_EXE_pygmy-node").as_ref(), ClusterDir::new(place.path()).config().as_os_str()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("sh runs");
    let log = BufReader::new(server.stderr.take().expect("piped"));
    let mut crowd = Vec::new();
    wait("the listener", || {
        crowd.extend(TcpStream::connect(&front.address).ok());
        !crowd.is_empty()
    });
    crowd.extend((0..80).map(|_| TcpStream::connect(&front.address).expect("the backlog takes it")));
    let pauses = |line: &std::io::Result<String>| line.as_ref().expect("text").contains("accepting pauses");
    let mut lines = log.lines();
    assert!(lines.any(|line| pauses(&line)), "it ran out of descriptors");
    drop(crowd);
    // The crowd is gone: whoever comes now is served.
    let mut caller = Caller::connect(&front.address, settings.id).expect("it answers");
    caller.call::<_, StatusOk>(&Status {}).expect("it answers");
    assert!(Command::new("kill").arg(server.id().to_string()).status().expect("kill runs").success());
    let rest = lines.filter(pauses).count();
    assert!(rest <= 2, "a crowd of 80 is at most three fillings of 40, each complained of once: {rest}");
    assert_eq!(server.wait().expect("a child").code(), Some(0));
}

/// An `up` that stays in the foreground, ready.
fn foreground(place: &Place) -> Child {
    let args = ["up", "--base-port", "0", "--fronts", "1", "--orders", "1", "--catalogs", "2"];
    let mut up = place.command(&args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let up = up.as_mut().expect("the program starts");
    let mut lines = BufReader::new(up.stdout.take().expect("piped")).lines();
    assert!(lines.any(|line| line.expect("text").contains("Ctrl-C")), "it ended early");
    std::mem::replace(up, Command::new("true").spawn().expect("true runs"))
}

#[test]
fn the_foreground_reports_a_death_goes_on_and_stops_all_when_asked() {
    let place = Place::new();
    let mut up = foreground(&place);
    let mut words = BufReader::new(up.stderr.take().expect("piped"));
    place.done(&["kill", "catalog-2"]);
    let mut line = String::new();
    words.read_line(&mut line).expect("text");
    assert!(line.contains("catalog-2 ended") && line.contains("signal: 9"), "{line}");
    place.pid("catalog-1");
    // Started by somebody else, and stopped with the rest.
    place.done(&["start", "catalog-2"]);
    assert!(Command::new("kill").args(["-INT", &up.id().to_string()]).status().expect("kill runs").success());
    assert_eq!(up.wait().expect("it ends").code(), Some(0));
    for node in &place.settings().nodes {
        place.fails(&["pid", &node.name], 3);
    }
    let mut rest = String::new();
    words.read_to_string(&mut rest).expect("text");
}

#[test]
fn the_foreground_ends_with_the_last_node() {
    let place = Place::new();
    let mut up = foreground(&place);
    for name in ["front-1", "order-1", "catalog-1", "catalog-2"] {
        place.done(&["kill", name]);
    }
    wait("the end of up", || up.try_wait().expect("a child").is_some());
    assert_eq!(up.wait().expect("a child").code(), Some(3));
    let mut words = String::new();
    up.stderr.take().expect("piped").read_to_string(&mut words).expect("text");
    assert!(words.contains("every node has ended"), "{words}");
}

#[test]
fn down_ends_the_foreground_too() {
    let place = Place::new();
    let mut up = foreground(&place);
    let complaint = place.fails(UP, 1);
    assert!(complaint.contains(&up.id().to_string()), "{complaint}");
    assert!(place.done(&["down"]).contains("stopped 4 nodes"));
    wait("the end of up", || up.try_wait().expect("a child").is_some());
    assert_eq!(up.wait().expect("a child").code(), Some(0));
}

#[test]
fn nodes_outlive_an_up_that_was_killed_and_down_still_finds_them() {
    let place = Place::new();
    let mut up = foreground(&place);
    up.kill().expect("it runs");
    up.wait().expect("a child");
    place.pid("front-1");
    assert!(place.done(&["down"]).contains("stopped 4 nodes"));
}

#[test]
fn a_configuration_can_be_checked_and_shown_without_its_key() {
    let place = Place::new();
    place.done(&["up", "--detach", "--base-port", "0", "--fronts", "1", "--orders", "1", "--catalogs", "1"]);
    place.done(&["down"]);
    assert!(place.done(&["config", "check"]).contains("3 nodes, 2 of them voters"));
    let settings = place.settings();
    let key = config::hex(&settings.key);
    for shown in [place.done(&["config", "show"]), place.done(&["config", "show", "--json"])] {
        assert!(shown.contains(&settings.nodes[1].address) && !shown.contains(&key), "{shown}");
    }
    let path = place.path().join("cluster.toml");
    let text = std::fs::read_to_string(&path).expect("a file");
    std::fs::write(&path, text.replace("role = \"order\"", "role = \"ordre\"")).expect("written");
    let complaint = place.fails(&["config", "check"], 1);
    assert!(complaint.contains("node[2].role = \"ordre\"") && complaint.contains(&file_name(&path)), "{complaint}");
    let output = Command::new(env!("CARGO_BIN_EXE_pygmy-node"))
        .args(["run", "--node", "order-1", "--config", "nowhere.toml"])
        .output()
        .expect("the program starts");
    assert_eq!(stderr(&output).matches("nowhere.toml").count(), 1, "{}", stderr(&output));
}

fn file_name(path: &Path) -> String {
    path.display().to_string()
}

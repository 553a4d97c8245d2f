//! Voters are replaced while real processes run: dead and living ones, on their old address and on another.

mod local_support;
mod patience;

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pygmy_node::config;
use pygmy_node::local::caller::Caller;
use pygmy_node::settings::{ClusterSettings, number_of};
use pygmy_proto::message::{Command as Change, *};
use pygmy_proto::types::Text;
use pygmy_proto::{BookId, ErrorBody, ErrorCode, Retry};

use local_support::{Place, stderr};
use patience::wait;

impl Place {
    /// A running cluster: two fronts, two orders, three catalogs.
    fn up() -> Self {
        let place = Self::new();
        place.done(&["up", "--detach", "--base-port", "0"]);
        place
    }

    /// Names of the voters, as a node sees them, whether each is heard.
    fn voters(&self, at: &str) -> Vec<(String, bool)> {
        let settings = self.settings();
        let members = self.replica(at).members;
        let voters = members.iter().filter(|member| member.voter);
        voters.map(|voter| (settings.name_of(voter.node).into_owned(), voter.heard)).collect()
    }

    /// Waits until all voters of five are heard, and `name` is the process that has its slot.
    fn wait_whole(&self, at: &str, name: &str) {
        wait(&format!("{name} votes and all are heard by {at}"), || {
            let voters = self.voters(at);
            voters.len() == 5 && voters.iter().all(|(_, heard)| *heard) && voters.iter().any(|(voter, _)| voter == name)
        });
    }

    /// The catalog that holds the token.
    fn holder(&self) -> String {
        let settings = self.settings();
        let number = self.replica("order-1").holder;
        settings.node(number).expect("somebody holds it").name.clone()
    }
}

/// Puts copies in stock one by one through one front, each until it is acknowledged, until told to stop; counts them.
fn writer(settings: ClusterSettings, address: String, stop: Arc<AtomicBool>, written: Arc<AtomicU64>) {
    let book = BookId::new("rpcdummies").expect("a valid id");
    let connect = || Caller::connect(&address, settings.id);
    let mut caller = connect().expect("the front lives");
    let session = loop {
        match caller.call::<_, SessionOpened>(&OpenSession {}) {
            Ok(opened) => break opened.session,
            Err(_) => caller = connect().expect("the front lives"),
        }
    };
    let mut counter = 0;
    while !stop.load(Ordering::Relaxed) {
        counter += 1;
        let restock =
            Write { session, counter, first_incomplete: counter, command: Change::Restock { book, copies: 1 } };
        while let Err(error) = caller.call::<_, WriteOk>(&restock) {
            // Under the same id it takes effect once, however often it is asked for.
            let refused: Option<&ErrorBody> = match &error {
                pygmy_node::local::caller::CallError::Refused(body) => Some(body),
                _ => None,
            };
            assert!(refused.is_none_or(|body| body.retry != Retry::Never), "{error}");
            caller = connect().expect("the front lives");
        }
        written.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes through both fronts while `act` runs; all that was acknowledged is there afterwards, once.
fn under_load(place: &Place, act: impl FnOnce()) {
    let settings = place.settings();
    let stock = |address: &str| -> u32 {
        let book = BookId::new("rpcdummies").expect("a valid id");
        let mut caller = Caller::connect(address, settings.id).expect("the front lives");
        caller.call::<_, LookupOk>(&Lookup { floor: 0, book }).expect("the book is there").book.stock
    };
    let fronts: Vec<String> = settings.nodes.iter().take(2).map(|node| node.address.clone()).collect();
    let before = stock(&fronts[0]);
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = fronts
        .iter()
        .map(|address| {
            let (settings, address, stop) = (settings.clone(), address.clone(), Arc::clone(&stop));
            let written = Arc::new(AtomicU64::new(0));
            let count = Arc::clone(&written);
            (std::thread::spawn(move || writer(settings, address, stop, count)), written)
        })
        .collect();
    let written = || -> Vec<u64> { writers.iter().map(|(_, written)| written.load(Ordering::Relaxed)).collect() };
    wait("writes to be under way", || written().iter().all(|count| *count > 0));
    act();
    stop.store(true, Ordering::Relaxed);
    wait("every write to be acknowledged", || writers.iter().all(|(writer, _)| writer.is_finished()));
    let written: u64 = written().iter().sum();
    for (writer, _) in writers {
        writer.join().expect("no refusal that is final");
    }
    // A read without a floor may be of any replica, and one may be behind the others for a moment.
    for front in &fronts {
        wait("every write is there once", || u64::from(stock(front) - before) == written);
    }
}

#[test]
fn a_dead_holder_is_replaced_under_load_and_nothing_that_was_acknowledged_is_lost() {
    let place = Place::up();
    let gone = place.holder();
    let old_address = place.settings().node_named(&gone).expect("a node").address.clone();
    under_load(&place, || {
        place.done(&["kill", &gone]);
        let text = place.done(&["replace", &gone]);
        assert!(text.contains(&format!("{gone}.1 at {old_address} votes in the place of {gone}")), "{text}");
    });
    let new = format!("{gone}.1");
    place.wait_whole("order-1", &new);
    assert!(place.replica(&gone).voter, "the name stands for the new process");
    assert_eq!(place.settings().node_named(&gone).expect("a node").address, old_address);

    // The old one is refused for ever, and says why.
    let old = place.process(&gone, "0");
    assert_eq!(old.status.code(), Some(71), "{}", stderr(&old));
    assert!(stderr(&old).contains(&format!("{gone} was replaced by {new}")), "{}", stderr(&old));

    // The new one comes back with its vote, and so does the whole cluster.
    place.done(&["kill", &gone]);
    assert!(!place.done(&["start", &gone]).contains("no vote"));
    place.wait_whole("order-1", &new);
    place.done(&["down"]);
    place.done(&["up", "--detach"]);
    place.wait_whole("order-1", &new);
}

#[test]
fn a_living_voter_gives_way_to_one_on_another_address_and_leaves_by_itself() {
    let place = Place::up();
    let gone = place.holder();
    let old_address = place.settings().node_named(&gone).expect("a node").address.clone();
    let old_pid = place.pid(&gone);
    under_load(&place, || {
        let text = place.done(&["replace", &gone, "--json"]);
        assert!(text.contains(&format!("\"process\":\"{gone}.1\"")), "{text}");
    });
    let settings = place.settings();
    assert_ne!(settings.node_named(&gone).expect("a node").address, old_address);
    assert_ne!(place.pid(&gone), old_pid);
    place.wait_whole("order-2", &format!("{gone}.1"));
    let log = std::fs::read_to_string(place.path().join(&gone).join("node.log")).expect("a log");
    assert!(log.contains("Left: "), "nobody had to kill it: {log}");
    // Fronts have found the new one: with the other catalogs gone they still have one to ask.
    wait("a front is linked with the new process and no longer with the old one", || {
        let links = place.ask("front-1").expect("it answers").links;
        let number = settings.node_named(&gone).expect("a node").number;
        links.iter().any(|link| link.node == number && link.up) && links.iter().all(|link| link.node != number % 256)
    });
}

#[test]
fn an_order_server_is_replaced_twice_and_the_others_meet_it_each_time() {
    let place = Place::up();
    place.done(&["kill", "order-1"]);
    place.done(&["replace", "order-1"]);
    place.wait_whole("catalog-1", "order-1.1");
    // Living, and on an address that is named.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    place.done(&["replace", "order-1", "--address", &free.to_string()]);
    place.wait_whole("catalog-1", "order-1.2");
    let node = place.settings().node_named("order-1").expect("a node").clone();
    assert_eq!((node.number, node.address), (number_of(3, 2), free.to_string()));
    // A number is never used twice, by whichever node.
    place.done(&["kill", "catalog-3"]);
    place.done(&["replace", "catalog-3"]);
    place.wait_whole("order-1", "catalog-3.3");
    under_load(&place, || {
        // Orders of the old processes are out of the game: writes go through the new ones.
        place.done(&["kill", "order-2"]);
        place.done(&["start", "order-2"]);
    });
}

#[test]
fn a_voter_that_lost_its_disk_and_runs_gets_its_vote_back_under_its_new_identity() {
    let place = Place::up();
    place.done(&["kill", "order-2"]);
    std::fs::remove_dir_all(place.path().join("order-2/data")).expect("it was there");
    assert!(place.done(&["start", "order-2"]).contains("no vote"));
    let pid = place.pid("order-2");
    let text = place.done(&["replace", "order-2"]);
    assert!(text.contains("order-2 at") && !text.contains("nothing needs"), "{text}");
    assert_eq!(place.pid("order-2"), pid, "the same process");
    assert!(place.replica("order-2").voter);
    place.wait_whole("catalog-1", "order-2");
}

/// Kills the command as soon as `moment` has come.
fn killed_at(place: &Place, args: &[&str], mut moment: impl FnMut() -> bool) {
    let mut command = place.command(args);
    let mut child: Child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    wait("the moment at which the command is killed", &mut moment);
    let _ = child.kill();
    child.wait().expect("it was started");
}

#[test]
fn a_command_that_was_killed_is_repeated_and_goes_on() {
    let place = Place::up();
    place.done(&["kill", "catalog-2"]);
    let meta = place.path().join("catalog-2.1/data/meta");
    killed_at(&place, &["replace", "catalog-2"], || meta.exists());
    let identity = std::fs::read(&meta).expect("formatted");
    let pid_file = place.path().join("catalog-2.1/node.pid");
    killed_at(&place, &["replace", "catalog-2"], || pid_file.exists());
    place.done(&["replace", "catalog-2"]);
    assert_eq!(std::fs::read(&meta).expect("there"), identity, "the one that was begun");
    place.wait_whole("order-1", "catalog-2.1");
    assert!(!place.path().join("catalog-2.2").exists());
    let complaint = place.fails(&["replace", "catalog-2", "--address", "nonsense"], 2);
    assert!(complaint.contains("no address"), "{complaint}");
}

#[test]
fn nothing_is_made_when_the_majority_would_be_lost_or_there_is_nothing_to_replace() {
    let place = Place::up();
    for node in ["order-1", "order-2", "catalog-1"] {
        place.done(&["kill", node]);
    }
    wait("the others miss them", || place.voters("catalog-2").iter().filter(|(_, heard)| *heard).count() == 2);
    let complaint = place.fails(&["replace", "order-1"], 1);
    assert!(complaint.contains("2 of 4 voters") && complaint.contains("order-2, catalog-1"), "{complaint}");
    assert!(!place.path().join("order-1.1").exists(), "nothing was made");
    let complaint = place.fails(&["replace", "front-1"], 2);
    assert!(complaint.contains("keeps no log"), "{complaint}");
    place.fails(&["replace", "order-9"], 2);
}

#[test]
fn only_who_has_the_key_changes_the_voters_and_reasons_are_given() {
    let place = Place::up();
    let settings = place.settings();
    let catalog = settings.node_named("catalog-1").expect("a node");
    let order = settings.node_named("order-1").expect("a node");
    let address = Text::truncated("127.0.0.1:1");
    let ask = |old, node, address: &Text<255>| Replace { old, new: [9; 16], node, address: address.clone() };
    let refusal = |caller: &mut Caller, replace: Replace| match caller.call::<_, ReplaceOk>(&replace) {
        Err(pygmy_node::local::caller::CallError::Refused(body)) => (body.known_code(), body.detail.to_string()),
        other => panic!("refused, not {other:?}"),
    };
    let mut stranger = Caller::connect(&catalog.address, settings.id).expect("it answers");
    let (code, _) = refusal(&mut stranger, ask(order.log_uuid, number_of(3, 1), &address));
    assert_eq!(code, Some(ErrorCode::BadCredentials));

    let mut member = Caller::connect_as_member(&catalog.address, &settings).expect("it answers");
    let (code, why) = refusal(&mut member, ask(order.log_uuid, number_of(3, 1), &address));
    assert_eq!(code, Some(ErrorCode::ChangeRefused));
    assert!(why.contains("still learning"), "{why}");
    let (_, why) = refusal(&mut member, ask(order.log_uuid, number_of(5, 1), &address));
    assert!(why.contains("order-1") && why.contains("catalog-1"), "{why}");
    let (code, _) = refusal(&mut member, ask(order.log_uuid, 1, &address));
    assert_eq!(code, Some(ErrorCode::InvalidArgument), "a front votes in nothing");
    let (_, why) = refusal(&mut member, ask([1; 16], number_of(3, 1), &address));
    assert!(why.contains("none of the voters"), "{why}");
    let mut elsewhere = Caller::connect_as_member(&order.address, &settings).expect("it answers");
    let (code, _) = refusal(&mut elsewhere, ask(order.log_uuid, number_of(3, 1), &address));
    assert_eq!(code, Some(ErrorCode::Unsupported));
}

#[test]
fn a_process_whose_log_was_removed_ends_when_the_others_tell_it() {
    let place = Place::up();
    place.done(&["kill", "catalog-3"]);
    place.done(&["replace", "catalog-3"]);
    // A file that still names the old process: it starts, knocks, is told why not, and ends.
    let mut settings = place.settings();
    for node in settings.nodes.iter_mut().filter(|node| node.name == "catalog-3") {
        node.number = node.slot();
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
        node.address = free.to_string();
    }
    config::write(&place.path().join("cluster.toml"), &settings).expect("written");
    let old = place.process("catalog-3", "0");
    assert_eq!(old.status.code(), Some(71), "{}", stderr(&old));
    assert!(stderr(&old).contains("was replaced and never counts again"), "{}", stderr(&old));
}

#[test]
fn two_processes_never_work_in_one_directory() {
    let place = Place::up();
    let second = place.process("order-2", "0");
    assert_eq!(second.status.code(), Some(1), "{}", stderr(&second));
    assert!(stderr(&second).contains(&format!("as process {}", place.pid("order-2"))), "{}", stderr(&second));
    assert!(place.replica("order-2").voter, "the first one goes on");
}

#[test]
fn directories_are_formatted_once_and_voters_are_born_only_by_asking_for_it() {
    let place = Place::up();
    place.done(&["down"]);
    let complaint = place.fails(&["format", "order-2", "--initial"], 1);
    assert!(complaint.contains("there is a log"), "{complaint}");
    std::fs::remove_dir_all(place.path().join("order-2")).expect("it was there");
    assert!(place.done(&["format", "order-2"]).contains("no vote"));
    place.done(&["up", "--detach"]);
    assert!(!place.replica("order-2").voter);
    place.done(&["replace", "order-2"]);
    assert!(place.replica("order-2").voter);
    place.fails(&["format", "front-1"], 2);
}

//! What can happen to the directory of a real process: it cannot be written, is full, damaged, or another's. The process
//! ends with a word about it or mends itself from the others, it never serves anything wrong, and nobody else notices.

mod local_support;
mod patience;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pygmy_node::config;
use pygmy_node::disk::record::{BLOCK, HEADER_LEN, Header};
use pygmy_node::local::caller::{CallError, Caller};
use pygmy_node::settings::{ClusterSettings, SnapshotPolicy};
use pygmy_proto::message::{Command as Change, *};
use pygmy_proto::types::Bounded;
use pygmy_proto::{BookId, ErrorBody, ErrorCode};

use local_support::{Place, ended, stderr};
use patience::{until, wait};

/// Four voters: any one may be out of order.
const UP: &[&str] = &["up", "--detach", "--base-port", "0", "--fronts", "1", "--orders", "2", "--catalogs", "2"];

/// Makes the node's `data` something else, for that process alone, and becomes the node.
const BECOME: &str = "exec \"$PROGRAM\" run --node \"$NODE\" --config \"$CONFIG\"";

impl Place {
    fn up() -> Self {
        let place = Self::new();
        place.done(UP);
        place
    }

    fn data(&self, node: &str) -> PathBuf {
        self.path().join(node).join("data")
    }

    /// The node's process where `script` has changed what it sees of the file system.
    fn elsewhere(&self, node: &str, script: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-ec", &format!("{script}\n{BECOME}")]);
        command.env("PROGRAM", env!("CARGO_BIN_EXE_pygmy-node")).env("NODE", node);
        command.env("CONFIG", self.path().join("cluster.toml")).env("DATA", self.data(node));
        command.env("HOME_DIR", self.path().join(node)).stdin(Stdio::null());
        command
    }

    /// What the node has said.
    fn words(&self, node: &str) -> String {
        fs::read_to_string(self.path().join(node).join("node.log")).expect("a log")
    }

    /// Whether `node` is without its vote, as another one has heard.
    fn is_withheld(&self, node: &str) -> bool {
        let number = self.settings().node_named(node).expect("a node").number;
        self.replica(other_than(node)).members.iter().find(|member| member.node == number).expect("a member").withheld
    }

    /// Waits until `node` has all that the others have, and nothing else.
    fn wait_whole(&self, node: &str) {
        let other = other_than(node);
        wait(&format!("{node} agrees with {other}"), || {
            let (Some(own), Some(other)) = (self.ask(node), self.ask(other)) else { return false };
            let (own, other) = (own.replica.expect("a replica"), other.replica.expect("a replica"));
            let same = own.applied == other.applied && own.applied == other.last_seq;
            assert!(!same || own.state_hash == other.state_hash, "at seq {}", own.applied);
            same
        });
    }
}

/// A replica to ask about `node`.
fn other_than(node: &str) -> &'static str {
    if node == "order-1" { "order-2" } else { "order-1" }
}

/// Whether a process may have a file system of its own here; says so if not.
fn may_mount() -> bool {
    let tried = Command::new("unshare").args(["-m", "sh", "-c", "mount -t tmpfs none /mnt"]).output();
    let may = tried.is_ok_and(|tried| tried.status.success());
    if !may {
        println!("skipped: no process may mount anything here");
    }
    may
}

/// Somebody who buys, through the front.
struct Shopper {
    settings: ClusterSettings,
    caller: Caller,
    session: u64,
    counter: u64,
}

impl Shopper {
    fn new(place: &Place) -> Self {
        let settings = place.settings();
        let mut caller = connect(&settings, "front-1");
        let opened = until("a session", || caller.call::<_, SessionOpened>(&OpenSession {}).ok());
        Self { settings, caller, session: opened.session, counter: 0 }
    }

    fn try_to(&mut self, command: Change) -> Result<WriteOk, CallError> {
        let (session, counter) = (self.session, self.counter);
        self.caller.call(&Write { session, counter, first_incomplete: counter, command })
    }

    /// Has it done, once, however often it must be asked for.
    fn has(&mut self, command: Change) {
        self.counter += 1;
        until("a write", || match self.try_to(command.clone()) {
            Ok(done) => Some(done),
            Err(CallError::Refused(_)) => None,
            Err(_) => {
                self.caller = connect(&self.settings, "front-1");
                None
            }
        });
    }

    fn buys(&mut self, times: u32) {
        for _ in 0..times {
            self.has(buy());
        }
    }
}

fn connect(settings: &ClusterSettings, node: &str) -> Caller {
    let address = &settings.node_named(node).expect("a node").address;
    until("a connection", || Caller::connect(address, settings.id).ok())
}

fn book() -> BookId {
    BookId::new("rpcdummies").expect("a valid id")
}

fn buy() -> Change {
    Change::Buy { lines: Bounded::truncated(vec![Line { book: book(), copies: 1 }]) }
}

/// Stops it when the test is over, whatever came of it.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Read-only for everybody: root, too, though permissions do not keep it from writing.
const READ_ONLY: &str = "mount --bind \"$DIR\" \"$DIR\"\nmount -o remount,bind,ro \"$DIR\"";

#[test]
fn on_a_read_only_place_no_process_starts_and_the_others_go_on() {
    if !may_mount() {
        return;
    }
    let place = Place::up();
    let mut shopper = Shopper::new(&place);
    shopper.buys(1);
    place.done(&["kill", "order-2"]);
    let before = files(&place.data("order-2"));
    for dir in ["$DATA", "$HOME_DIR"] {
        let refused = ended(&mut place.elsewhere("order-2", &format!("DIR={dir}\n{READ_ONLY}")));
        let text = stderr(&refused);
        assert_eq!(refused.status.code(), Some(1), "{dir}: {text}");
        assert!(text.contains("Read-only file system") && text.contains("order-2"), "{text}");
        assert!(files(&place.data("order-2")) == before, "nothing was touched");
        shopper.buys(1);
    }
    place.done(&["start", "order-2"]);
    place.wait_whole("order-2");
    assert!(place.replica("order-2").voter);
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
    let read = |entry: fs::DirEntry| {
        let bytes = fs::read(entry.path()).expect("a file");
        // Of long files it is enough to know that they are as they were.
        (entry.file_name().into_string().expect("text"), crc32c::crc32c(&bytes).to_le_bytes().to_vec())
    };
    let mut files: Vec<_> = entries.map(read).collect();
    files.sort();
    files
}

/// The log on a small disk of its own: room for one segment, a spare, and not for the other spare until the ballast goes.
const SMALL_DISK: &str = "\
mkdir -p \"$HOME_DIR/disk\"
mount -t tmpfs -o size=256m none \"$HOME_DIR/disk\"
cp \"$DATA\"/meta \"$DATA\"/vote \"$DATA\"/log-* \"$HOME_DIR/disk/\"
head -c 100m /dev/zero > \"$HOME_DIR/disk/ballast\"
mount --bind \"$HOME_DIR/disk\" \"$DATA\"";

/// Starts a node, which has left in order, over what it had, on a disk that is nearly full.
fn on_a_small_disk(place: &Place, node: &str) -> Guest {
    let log = File::options().append(true).open(place.path().join(node).join("node.log")).expect("a log");
    let guest = Guest(place.elsewhere(node, SMALL_DISK).stdout(Stdio::null()).stderr(log).spawn().expect("it starts"));
    wait("its disk to be full", || place.words(node).contains("the disk of the log is full"));
    wait("it to answer", || place.ask(node).is_some());
    guest
}

/// Makes space on that disk, which only the process itself sees.
fn make_space(guest: &Guest, place: &Place, node: &str) {
    let root = PathBuf::from(format!("/proc/{}/root", guest.0.id()));
    let ballast = place.data(node).join("ballast");
    fs::remove_file(root.join(ballast.strip_prefix("/").expect("an absolute path"))).expect("it was there");
}

#[test]
fn a_catalog_whose_disk_is_full_serves_reads_gives_way_and_recovers_by_itself() {
    if !may_mount() {
        return;
    }
    let place = Place::up();
    let mut shopper = Shopper::new(&place);
    shopper.buys(1);
    let holder = place.settings().node(place.replica("order-1").holder).expect("a catalog").name.clone();
    stop(&place, &holder);
    let guest = on_a_small_disk(&place, &holder);
    shopper.buys(20);
    place.wait_whole(&holder);
    let settings = place.settings();
    let number = settings.node_named(&holder).expect("a node").number;
    assert_ne!(place.replica("order-1").holder, number, "it does not want the token");
    assert!(place.replica(&holder).voter && !place.is_withheld(&holder), "its vote is as good as ever");
    let found: LookupOk = connect(&settings, &holder).call(&Lookup { floor: 0, book: book() }).expect("a read");
    assert_eq!(found.seq, place.replica("order-1").applied, "as fresh as anybody's");

    make_space(&guest, &place, &holder);
    wait("it to see that there is room", || place.words(&holder).contains("has room again"));
    // With the other one gone it is the only one who can order anything.
    let other = if holder == "catalog-1" { "catalog-2" } else { "catalog-1" };
    place.done(&["kill", other]);
    shopper.buys(3);
    assert_eq!(place.replica("order-1").holder, number);
    place.done(&["start", other]);
    place.wait_whole(other);
}

#[test]
fn when_no_disk_has_room_who_buys_is_told_so_and_nothing_is_done_until_there_is() {
    if !may_mount() {
        return;
    }
    let place = Place::new();
    place.done(&["up", "--detach", "--base-port", "0", "--fronts", "1", "--orders", "1", "--catalogs", "1"]);
    let mut shopper = Shopper::new(&place);
    shopper.buys(1);
    stop(&place, "catalog-1");
    let guest = on_a_small_disk(&place, "catalog-1");
    wait("it to know what was bought", || place.replica("catalog-1").orders == 1);
    shopper.counter += 1;
    let told = until("a word about it", || match shopper.try_to(buy()) {
        Err(CallError::Refused(error)) => is_full(&error).then_some(error),
        Ok(_) => panic!("it was bought"),
        Err(error) => panic!("{error}"),
    });
    assert_eq!(told.known_code(), Some(ErrorCode::Busy));
    assert_eq!(place.replica("catalog-1").orders, 1, "nothing was done");
    make_space(&guest, &place, "catalog-1");
    until("the same to be done", || shopper.try_to(buy()).ok());
    assert_eq!(place.replica("catalog-1").orders, 2, "once");
}

fn is_full(error: &ErrorBody) -> bool {
    error.detail.contains("the disk of this catalog's log is full")
}

/// Asks a node to leave in order, and waits until it has.
fn stop(place: &Place, node: &str) {
    place.done(&["kill", node, "--signal", "TERM"]);
    wait(&format!("{node} to leave"), || place.run(&["pid", node]).status.code() == Some(3));
}

/// The files in the node's directory whose names begin so, oldest first.
fn named(place: &Place, node: &str, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.data(node)).expect("a directory").map(|entry| entry.expect("an entry").path());
    let fits = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    let mut found: Vec<PathBuf> = entries.filter(fits).collect();
    found.sort();
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] ^= 4;
    fs::write(path, bytes).expect("written");
}

fn cut(path: &Path, len: u64) {
    File::options().write(true).open(path).expect("a file").set_len(len).expect("cut");
}

/// Where the batches of a segment stand that were written one by one.
fn batches(segment: &Path) -> Vec<usize> {
    let bytes = fs::read(segment).expect("a file");
    let is_batch = |at: &usize| Header::decode(&bytes[*at..]).is_ok_and(|header| header.count > 0);
    (0..bytes.len()).step_by(BLOCK).filter(is_batch).collect()
}

const NODE: &str = "order-2";

/// What is done to a node or a file.
type Damage<'a, To> = &'a dyn Fn(&To);

/// Kills a node, damages its files, starts it, and waits until it is as good as before. It must have said `said`.
fn survives(place: &Place, shopper: &mut Shopper, (node, what, said): (&str, &str, &str), damage: impl FnOnce()) {
    println!("{node}: {what}");
    shopper.buys(2);
    place.wait_whole(node);
    place.done(&["kill", node]);
    let before = place.words(node).len();
    damage();
    // Others go on meanwhile.
    shopper.buys(1);
    place.done(&["start", node]);
    place.wait_whole(node);
    wait("its vote to count again", || place.replica(node).voter && !place.is_withheld(node));
    let words = place.words(node)[before..].to_owned();
    assert!(words.contains(said), "{what}: {words}");
}

#[test]
fn a_damaged_log_is_told_of_and_mended_from_the_others() {
    let place = Place::up();
    let mut shopper = Shopper::new(&place);
    shopper.buys(5);
    let logs = |node: &str| named(&place, node, "log-");
    let first = |node: &str| logs(node).remove(0);
    let middle = |node: &str| {
        let batches = batches(&first(node));
        batches[batches.len() / 2]
    };
    let flip_middle = |node: &str| flip(&first(node), middle(node) + HEADER_LEN);
    let flip_start = |node: &str| flip(&first(node), batches(&first(node))[0]);
    let cut_middle = |node: &str| cut(&first(node), middle(node) as u64 + 100);
    let cut_all = |node: &str| logs(node).iter().for_each(|path| cut(path, 0));
    let flip_vote = |node: &str| flip(&place.data(node).join("vote"), 20);
    // What is cut away is not there to be seen: the others remember it.
    let (damaged, forgotten) = ("the log is damaged", "this log once acknowledged");
    // A node each, so that what is damaged is not what an earlier repair has made useless.
    let damages: [(&str, &str, &str, Damage<'_, str>); 5] = [
        ("catalog-1", "a flipped byte in its middle", damaged, &flip_middle),
        ("catalog-2", "a flipped byte at its start", damaged, &flip_start),
        ("order-1", "cut in its middle", forgotten, &cut_middle),
        ("order-2", "cut to nothing", forgotten, &cut_all),
        ("order-1", "one copy of the vote flipped", "", &flip_vote),
    ];
    for (node, what, said, damage) in damages {
        survives(&place, &mut shopper, (node, what, said), || damage(node));
    }
}

#[test]
fn a_log_whose_vote_is_lost_votes_no_more_until_it_is_replaced() {
    let place = Place::up();
    let mut shopper = Shopper::new(&place);
    shopper.buys(5);
    let vote = |place: &Place| place.data(NODE).join("vote");
    let flip_all = |place: &Place| (0..4).for_each(|copy| flip(&vote(place), copy * 4096 + 20));
    let damages: [(&str, Damage<'_, Place>); 2] =
        [("every copy flipped", &flip_all), ("cut to nothing", &|place| cut(&vote(place), 0))];
    for (what, damage) in damages {
        println!("{what}");
        place.done(&["kill", NODE]);
        damage(&place);
        place.done(&["start", NODE]);
        assert!(place.words(NODE).contains("the vote file is damaged"), "{}", place.words(NODE));
        shopper.buys(1);
        place.wait_whole(NODE);
        wait("its vote not to count", || place.is_withheld(NODE));
        // It is not forgotten over another start.
        place.done(&["kill", NODE]);
        place.done(&["start", NODE]);
        place.wait_whole(NODE);
        wait("its vote not to count", || place.is_withheld(NODE));
    }
    place.done(&["replace", NODE]);
    wait("the new one to vote", || place.replica(NODE).voter && !place.is_withheld(NODE));
}

/// Words that a process must say as it refuses a file, and what is done to that file.
type Refusal<'a> = (&'a str, &'a [&'a str], Damage<'a, Path>);

/// No process starts over a changed file; it says why, and goes on from where it was with the right one.
fn refuses(place: &Place, shopper: &mut Shopper, file: &Path, refusals: &[Refusal<'_>]) {
    let whole = fs::read(file).expect("a file");
    place.done(&["kill", NODE]);
    for (what, words, change) in refusals {
        change(file);
        let refused = place.process(NODE, "0");
        fs::write(file, &whole).expect("written");
        let text = stderr(&refused);
        assert_eq!(refused.status.code(), Some(1), "{what}: {text}");
        assert!(words.iter().all(|word| text.contains(word)), "{what}: {text}");
        shopper.buys(1);
    }
    place.done(&["start", NODE]);
    place.wait_whole(NODE);
    assert!(place.replica(NODE).voter);
}

fn replace(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).expect("text");
    assert!(text.contains(from), "{from}: {text}");
    fs::write(file, text.replacen(from, to, 1)).expect("written");
}

#[test]
fn a_directory_whose_owner_cannot_be_read_is_refused() {
    let place = Place::up();
    let mut shopper = Shopper::new(&place);
    let refusals: [Refusal<'_>; 4] = [
        ("a flipped byte", &["checksum", "damaged", "move the directory away"], &|file| flip(file, 40)),
        ("a flipped byte at the start", &["does not belong in a meta file"], &|file| flip(file, 0)),
        ("cut", &["damaged"], &|file| cut(file, 100)),
        ("cut to nothing", &["damaged"], &|file| cut(file, 0)),
    ];
    refuses(&place, &mut shopper, &place.data(NODE).join("meta"), &refusals);
}

#[test]
fn a_cluster_file_that_is_damaged_or_another_ones_is_refused() {
    let place = Place::up();
    let mut shopper = Shopper::new(&place);
    let id = config::hex(&place.settings().id);
    let other = "1".repeat(32);
    let hash = |text: &str| format!("{:016x}", config::parse(text).expect("a cluster").hash());
    let file = place.path().join("cluster.toml");
    let text = fs::read_to_string(&file).expect("text");
    let (ours, theirs) = (hash(&text), hash(&text.replacen("\"demand\"", "\"rotate\"", 1)));
    let meta = place.data(NODE).join("meta").display().to_string();
    let cut_at = text.find("order-2").expect("it is named") as u64;
    let in_a_key = text.find("token = ").expect("a key");
    let refusals: [Refusal<'_>; 5] = [
        ("a flipped byte", &["is not a key of this file"], &|file| flip(file, in_a_key)),
        ("cut", &["this is not TOML"], &|file| cut(file, cut_at)),
        ("cut to nothing", &["cluster is missing"], &|file| cut(file, 0)),
        ("another cluster", &[&meta, &id, &other], &|file| replace(file, &id, &other)),
        ("other settings", &[&meta, &ours, &theirs], &|file| replace(file, "token = \"demand\"", "token = \"rotate\"")),
    ];
    refuses(&place, &mut shopper, &file, &refusals);
}

/// Processes die until there are two snapshots and what they make needless of the log is gone. Each death leaves a
/// segment that is never filled.
fn wear_out(place: &Place, shopper: &mut Shopper) {
    let segments_max = SnapshotPolicy::default().segments_max;
    for deaths in 1.. {
        place.wait_whole(NODE);
        // Soon, for a log that has fallen idle was ended in order.
        shopper.buys(2);
        place.done(&["kill", NODE]);
        let before = named(place, NODE, "snapshot-");
        place.done(&["start", NODE]);
        let segments = named(place, NODE, "log-").len();
        assert!(segments <= segments_max + 1, "{segments} segments after {deaths} deaths");
        if segments >= segments_max {
            wait("a snapshot", || named(place, NODE, "snapshot-") != before);
            if !before.is_empty() {
                return wait("the log to be cut", || named(place, NODE, "log-").len() < segments_max / 2);
            }
        }
    }
}

#[test]
fn damaged_snapshots_and_ledgers_are_told_of_and_mended_from_the_log_or_the_others() {
    let place = Place::up();
    let mut shopper = Shopper::new(&place);
    wear_out(&place, &mut shopper);
    let snapshots = named(&place, NODE, "snapshot-");
    let [older, newest] = snapshots.as_slice() else { panic!("{snapshots:?}") };
    let ledger = named(&place, NODE, "ledger-").remove(0);
    let kept: Vec<(&PathBuf, Vec<u8>)> =
        [older, newest, &ledger].map(|path| (path, fs::read(path).expect("a file"))).into();
    let middle = |path: &Path| fs::metadata(path).expect("a file").len() as usize / 2;
    // What the ledger takes with it comes back from the others as a log from its first entry on, which then does.
    let (unused, lost) = ("cannot be used", "no vote");
    let damages: [(&str, &str, &dyn Fn()); 7] = [
        ("the newest flipped in its middle", unused, &|| flip(newest, middle(newest))),
        ("the newest flipped at its start", unused, &|| flip(newest, 0)),
        ("the newest cut", unused, &|| cut(newest, middle(newest) as u64)),
        ("the newest cut to nothing", unused, &|| cut(newest, 0)),
        ("the ledger flipped", lost, &|| flip(&ledger, middle(&ledger))),
        ("the ledger cut", unused, &|| cut(&ledger, middle(&ledger) as u64)),
        ("both flipped", unused, &|| [older, newest].into_iter().for_each(|path| flip(path, middle(path)))),
    ];
    for (what, said, damage) in damages {
        survives(&place, &mut shopper, (NODE, what, said), || {
            for (path, bytes) in &kept {
                fs::write(path, bytes).expect("written");
            }
            damage();
        });
    }
}

//! Records the trace of a loaded machine that `detector.rs` judges by: processes that send each other heartbeats from loops
//! of their own while every processor has more to do than it can.
//!
//! ```text
//! RECORD_SECONDS=300 cargo test -p pygmy-ring --release --test detector_record -- --ignored --nocapture
//! ```
//!
//! writes `tests/traces/loaded.txt`. See there for the format.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BEAT: Duration = Duration::from_millis(50);
/// Processes that send heartbeats.
const NODES: usize = 6;
/// Processes that do nothing but keep processors busy, for each processor.
const BURNERS: usize = 3;
/// Of each process: base port, own index, seconds.
const ROLE: &str = "PYGMY_RECORD_ROLE";

#[test]
#[ignore = "saturates the machine for minutes and writes a file"]
fn record() {
    if let Ok(role) = std::env::var(ROLE) {
        return play(&role);
    }
    let seconds: u64 = std::env::var("RECORD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let sockets: Vec<UdpSocket> = (0..NODES).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<String> = sockets.iter().map(|socket| socket.local_addr().unwrap().port().to_string()).collect();
    drop(sockets);
    let cores = std::thread::available_parallelism().unwrap().get();
    let mut children: Vec<Child> = (0..cores * BURNERS).map(|_| spawn(&format!("burn {seconds}"))).collect();
    let nodes: Vec<Child> = (0..NODES).map(|me| spawn(&format!("node {seconds} {me} {}", ports.join(",")))).collect();
    let mut text = format!(
        "# Heartbeats between {NODES} processes while {} others kept {cores} processors busy for {seconds} s.\n\
         # One line for each pair, in the order of arrival: milliseconds since the one before; `+n`: n heartbeats more\n\
         # were sent than the last one that came; `/n`: the receiver's own loop was n ms late at that moment;\n\
         # `50x7`: seven times in a row.\n",
        cores * BURNERS
    );
    for node in nodes {
        let output = node.wait_with_output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        for line in stdout.lines().filter_map(|line| line.split_once("TRACE ")) {
            writeln!(text, "{}", line.1).unwrap();
        }
    }
    children.iter_mut().for_each(|child| drop(child.wait()));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces/loaded.txt");
    std::fs::write(path, text).unwrap();
}

fn spawn(role: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--nocapture", "--exact", "record"]).env(ROLE, role);
    command.stdout(Stdio::piped()).spawn().unwrap()
}

fn play(role: &str) {
    let words: Vec<&str> = role.split(' ').collect();
    let until = Instant::now() + Duration::from_secs(words[1].parse().unwrap());
    match words[..] {
        ["node", _, me, ports] => node(until, me.parse().unwrap(), ports),
        _ => burn(until),
    }
}

fn burn(until: Instant) {
    let mut sum = 0_u64;
    while Instant::now() < until {
        for number in 0..100_000_u64 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(number));
        }
    }
}

/// What was heard of one peer.
#[derive(Default)]
struct Heard {
    at: Option<Instant>,
    number: u64,
    tokens: Vec<String>,
}

fn node(until: Instant, me: usize, ports: &str) {
    let ports: Vec<u16> = ports.split(',').map(|port| port.parse().unwrap()).collect();
    let socket = UdpSocket::bind(("127.0.0.1", ports[me])).unwrap();
    let mut peers: Vec<Heard> = ports.iter().map(|_| Heard::default()).collect();
    let (mut due, mut number) = (Instant::now(), 0_u64);
    while Instant::now() < until {
        let wait = due.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(wait.max(Duration::from_micros(1)))).unwrap();
        let mut buffer = [0; 16];
        let received = socket.recv_from(&mut buffer).is_ok();
        // As the event loop: the time of a turn is taken once, and what has come is read before timers fire.
        let now = Instant::now();
        let late = now.saturating_duration_since(due);
        socket.set_nonblocking(true).unwrap();
        let mut more = received;
        while more {
            hear(&mut peers, &buffer, now, late);
            more = socket.recv_from(&mut buffer).is_ok();
        }
        socket.set_nonblocking(false).unwrap();
        if now >= due {
            due = now + BEAT;
            number += 1;
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&(me as u64).to_le_bytes());
            bytes[8..].copy_from_slice(&number.to_le_bytes());
            for (_, port) in ports.iter().enumerate().filter(|(index, _)| *index != me) {
                drop(socket.send_to(&bytes, ("127.0.0.1", *port)));
            }
        }
    }
    // One peer for each is enough: what is recorded is how loops are delayed.
    println!("TRACE {}", compact(&peers[(me + 1) % ports.len()].tokens));
}

fn hear(peers: &mut [Heard], bytes: &[u8; 16], now: Instant, late: Duration) {
    let from = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let number = u64::from_le_bytes(bytes[8..].try_into().unwrap());
    let heard = &mut peers[from];
    if let Some(at) = heard.at {
        let mut token = now.duration_since(at).as_millis().to_string();
        if number != heard.number + 1 {
            write!(token, "+{}", number - heard.number - 1).unwrap();
        }
        if late > Duration::from_millis(10) {
            write!(token, "/{}", late.as_millis()).unwrap();
        }
        heard.tokens.push(token);
    }
    (heard.at, heard.number) = (Some(now), number);
}

fn compact(tokens: &[String]) -> String {
    let runs = tokens.chunk_by(|a, b| a == b);
    let texts = runs.map(|run| if run.len() == 1 { run[0].clone() } else { format!("{}x{}", run[0], run.len()) });
    texts.collect::<Vec<_>>().join(" ")
}

//! The driver over real sockets, with a machine that does little.

mod driver_support;
mod patience;

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::time::Duration;

use driver_support::*;
use patience::{PATIENCE, wait};
use pygmy_node::driver::{Exit, Limits, LinkConfig, raise_open_files_limit};
use pygmy_node::machine::CloseReason;
use pygmy_proto::ErrorCode;
use pygmy_proto::limits::{CLIENT_BODY_MAX, DATAGRAM_LEN_MAX, HELLO_BODY_MAX};

#[test]
fn frames_may_come_byte_by_byte() {
    let server = start(Limits::default());
    let mut client = Client::connect(server.address);
    for byte in [frame(HELLO, 1, b""), frame(ECHO, 2, b"a body")].concat() {
        client.send(&[byte]);
    }
    assert_eq!(client.answer().header.request_id, 1);
    assert_eq!(client.answer().body, &b"a body"[..]);
    let (exit, counters) = server.leave();
    assert_eq!(exit, Exit::Left);
    assert_eq!(counters.frames_in, 2);
}

#[test]
fn the_handshakes_limits_end_with_the_frame_that_ends_the_handshake() {
    let server = start(Limits::default());
    let mut client = Client::connect(server.address);
    let large = vec![b'x'; CLIENT_BODY_MAX];
    client.send(&[frame(HELLO, 1, b""), frame(ECHO, 2, &large)].concat());
    assert_eq!(client.answer().header.request_id, 1);
    assert!(client.answer().body == large);
    server.leave();
}

#[test]
fn many_frames_in_one_segment_are_answered_in_few_writes() {
    let server = start(Limits::default());
    let mut client = Client::greeted(server.address);
    let all: Vec<u8> = (0..1_000_u64).flat_map(|id| frame(ECHO, id, &id.to_le_bytes())).collect();
    client.send(&all);
    for id in 0..1_000_u64 {
        let answer = client.answer();
        assert_eq!((answer.header.request_id, &answer.body[..]), (id, &id.to_le_bytes()[..]));
    }
    let seen = server.seen.clone();
    let (_, counters) = server.leave();
    let io = seen.lock().unwrap().io;
    assert_eq!((io.received, io.sent), (counters.bytes_in, counters.bytes_out), "as the machine was told last");
    assert!(io.system_calls >= counters.reads + counters.writes, "{io:?} of {counters}");
    assert_eq!((counters.frames_in, counters.frames_out), (1_001, 1_001));
    assert!(counters.writes < 200, "one flush per connection and turn: {counters}");
}

#[test]
fn partial_writes_keep_every_byte_in_order() {
    let server = start(Limits::default());
    let mut client = Client::greeted(server.address);
    client.send(&frame(FLOOD, 9, &flood_body(120, 100_000)));
    for index in 0..120_u32 {
        let answer = client.try_answer(7_919).expect("all answers come");
        assert_eq!((answer.header.aux, answer.body.len()), (index, 100_000));
        assert!(answer.body.iter().all(|byte| *byte == index as u8));
    }
    let (_, counters) = server.leave();
    assert!(counters.writes > 2, "12 MB do not fit a socket at once: {counters}");
    assert_eq!(counters.closed(CloseReason::SlowReader), 0);
}

#[test]
fn a_client_with_too_much_unread_is_cut_off_and_others_are_not() {
    // Without a limit on time, so that only the one on bytes can be what ends it.
    let limits = Limits { client_output_max: 4 * 1024 * 1024, client_stall_ms_max: u32::MAX, ..Limits::default() };
    let server = start(limits);
    let mut other = Client::greeted(server.address);
    let mut greedy = Client::greeted(server.address);
    greedy.send(&frame(FLOOD, 9, &flood_body(200, 100_000)));
    server.wait("the cut", |seen| seen.closed.iter().any(|(_, reason)| *reason == CloseReason::SlowReader));
    other.send(&frame(ECHO, 2, b"still here"));
    assert_eq!(other.answer().body, &b"still here"[..]);
    let (_, counters) = server.leave();
    assert_eq!(counters.closed(CloseReason::SlowReader), 1);
}

#[test]
fn a_client_that_takes_nothing_for_too_long_is_cut_off() {
    let limits = Limits { client_stall_ms_max: 50, ..Limits::default() };
    let server = start(limits);
    let mut lazy = Client::greeted(server.address);
    // More than any socket buffer, less than the output limit.
    lazy.send(&frame(FLOOD, 9, &flood_body(150, 100_000)));
    server.wait("the cut", |seen| seen.closed.iter().any(|(_, reason)| *reason == CloseReason::SlowReader));
    server.leave();
}

#[test]
fn a_client_that_does_not_read_is_not_read_from_until_it_does() {
    let limits = Limits { client_output_high: 64 * 1024, ..Limits::default() };
    let server = start(limits);
    let mut client = Client::greeted(server.address);
    let one = frame(ECHO, 5, &[b'e'; 10_000]);
    client.socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    // Without back-pressure the server reads on and on, up to where it cuts the client off: a reset, not a time-out.
    let rest = loop {
        let mut at = 0;
        while at < one.len() {
            match client.socket.write(&one[at..]) {
                Ok(count) => at += count,
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
                    break;
                }
            }
        }
        if at < one.len() {
            break one[at..].to_vec();
        }
        sent += 1;
    };
    let read_early = server.seen.lock().unwrap().frames;
    assert!(read_early <= sent, "{read_early} of {sent}");
    client.socket.set_write_timeout(None).unwrap();
    let mut writer = client.socket.try_clone().unwrap();
    let finish = std::thread::spawn(move || writer.write_all(&rest).unwrap());
    for _ in 0..=sent {
        assert_eq!(client.answer().body.len(), 10_000);
    }
    finish.join().unwrap();
    let (_, counters) = server.leave();
    assert_eq!(counters.closed(CloseReason::SlowReader), 0);
}

#[test]
fn a_silent_client_is_told_and_closed() {
    let server = start(Limits { handshake_ms_max: 30, ..Limits::default() });
    let mut silent = Client::connect(server.address);
    let answer = silent.answer();
    assert_eq!(answer.code(), ErrorCode::HandshakeTimeout);
    assert_eq!((answer.header.request_id, answer.header.aux, answer.error().limit), (0, 7, 30));
    silent.assert_ended();
    let seen = server.seen.clone();
    let (_, counters) = server.leave();
    assert_eq!(counters.closed(CloseReason::HandshakeTimeout), 1);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.closed, [(seen.accepted[0], CloseReason::HandshakeTimeout)]);
}

#[test]
fn a_greeted_client_may_be_silent_for_longer_than_a_handshake() {
    let server = start(Limits { handshake_ms_max: 100, ..Limits::default() });
    let mut client = Client::greeted(server.address);
    let mut silent = Client::connect(server.address);
    assert_eq!(silent.answer().code(), ErrorCode::HandshakeTimeout);
    client.send(&frame(ECHO, 2, b"later"));
    assert_eq!(client.answer().body, &b"later"[..]);
    server.leave();
}

/// Sends `bytes` on a connection and gives the error that comes back before its end.
fn refused(bytes: &[u8], greeted: bool) -> ErrorCode {
    let server = start(Limits::default());
    let mut client = if greeted { Client::greeted(server.address) } else { Client::connect(server.address) };
    client.send(bytes);
    let code = client.answer().code();
    client.assert_ended();
    drop(client);
    let (_, counters) = server.leave();
    assert_eq!(counters.closed(CloseReason::BadFrame), 1);
    code
}

#[test]
fn bodies_above_the_limit_of_the_class_are_refused() {
    assert_eq!(refused(&frame(HELLO, 1, &[0; HELLO_BODY_MAX + 1]), false), ErrorCode::FrameTooLong);
    assert_eq!(refused(&frame(ECHO, 1, &vec![0; CLIENT_BODY_MAX + 1]), true), ErrorCode::FrameTooLong);
}

#[test]
fn damaged_and_foreign_frames_are_refused() {
    let mut damaged = frame(ECHO, 1, b"body");
    damaged[25] ^= 1;
    assert_eq!(refused(&damaged, true), ErrorCode::BadChecksum);
    let mut foreign = frame(ECHO, 1, b"body");
    foreign[8] = 99;
    assert_eq!(refused(&foreign, true), ErrorCode::VersionUnsupported);
    assert_eq!(refused(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", false), ErrorCode::VersionUnsupported);
}

#[test]
fn an_error_reaches_a_client_that_goes_on_sending() {
    let server = start(Limits { linger_ms_max: 60_000, ..Limits::default() });
    let mut client = Client::greeted(server.address);
    let mut bytes = frame(ECHO, 1, b"body");
    bytes[25] ^= 1;
    client.send(&bytes);
    server.wait("the refusal", |seen| seen.closed.iter().any(|(_, reason)| *reason == CloseReason::BadFrame));
    // A socket that was closed at once would answer this with a reset, which fails the next write.
    for _ in 0..5 {
        client.send(&vec![b'y'; 100_000]);
    }
    assert_eq!(client.answer().code(), ErrorCode::BadChecksum);
    client.assert_ended();
    drop(client);
    server.leave();
}

#[test]
fn answers_to_what_came_before_the_end_are_written() {
    // Reading never pauses here, so that the end is seen early.
    let server = start(Limits { linger_ms_max: 60_000, client_output_high: usize::MAX, ..Limits::default() });
    let mut client = Client::greeted(server.address);
    client.send(&frame(FLOOD, 9, &flood_body(120, 100_000)));
    client.socket.shutdown(Shutdown::Write).unwrap();
    // The end has been seen while far more than a socket takes was still to be written.
    server.wait("the end", |seen| seen.closed.iter().any(|(_, reason)| *reason == CloseReason::Ended));
    for index in 0..120_u32 {
        assert_eq!(client.answer().header.aux, index);
    }
    client.assert_ended();
    server.leave();
}

#[test]
fn a_thousand_connections_are_served_and_cost_nothing_when_idle() {
    raise_open_files_limit();
    let server = start(Limits { handshake_ms_max: 60_000, ..Limits::default() });
    let mut clients: Vec<Client> = (0..1_000).map(|_| Client::greeted(server.address)).collect();
    for (id, client) in clients.iter_mut().enumerate() {
        client.send(&frame(ECHO, id as u64, b"all at once"));
    }
    for (id, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.answer().header.request_id, id as u64);
    }
    let turns = || server.seen.lock().unwrap().turns;
    let mut before = turns();
    let mut still = 0;
    wait("a loop at rest", || {
        let now = turns();
        still = if now == before { still + 1 } else { 0 };
        before = now;
        still >= 100
    });
    drop(clients);
    server.wait("a thousand ends", |seen| seen.closed.len() == 1_000);
    let seen = server.seen.clone();
    let (exit, counters) = server.leave();
    assert_eq!((exit, counters.accepts), (Exit::Left, 1_000));
    let mut ids: Vec<_> = seen.lock().unwrap().accepted.clone();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 1_000, "no id comes twice");
}

#[test]
fn one_client_too_many_is_told_so() {
    let server = start(Limits { connections_max: 2, ..Limits::default() });
    let mut first = Client::greeted(server.address);
    let second = Client::greeted(server.address);
    let mut third = Client::connect(server.address);
    third.send(&frame(HELLO, 1, b""));
    let error = third.answer();
    assert_eq!((error.code(), error.error().limit), (ErrorCode::Busy, 2));
    third.assert_ended();
    drop(second);
    server.wait("room", |seen| seen.closed.len() == 2);
    let mut fourth = Client::greeted(server.address);
    for client in [&mut first, &mut fourth] {
        client.send(&frame(ECHO, 4, b"in"));
        assert_eq!(client.answer().body, &b"in"[..]);
    }
    server.leave();
}

#[test]
fn what_is_appended_is_answered_when_it_is_durable() {
    let server = start(Limits::default());
    let mut client = Client::greeted(server.address);
    client.send(&[frame(APPEND, 10, b"one"), frame(APPEND, 11, b"two")].concat());
    assert_eq!(client.answer().header.request_id, 10);
    assert_eq!(client.answer().header.request_id, 11);
    client.send(&frame(APPEND, 12, b"three"));
    assert_eq!(client.answer().header.request_id, 12);
    assert_eq!(server.seen.lock().unwrap().durable.last(), Some(&3));
    server.leave();
}

/// A port of loopback on which nobody listens.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    listener.local_addr().expect("it is bound").port()
}

#[test]
fn a_link_is_tried_until_the_peer_appears_and_again_when_it_went_away() {
    let port = free_port();
    // A name, so that it takes the way through the system's resolver; which address comes first does not matter.
    let links = vec![LinkConfig { node: 3, address: format!("localhost:{port}") }];
    let limits = Limits { reconnect_ms_max: 40, ..Limits::default() };
    let server = start_with(limits, links, OnLeave::Left);
    server.wait("some attempts", |seen| seen.turns >= 12);
    assert!(server.seen.lock().unwrap().opened.is_empty());
    let late = TcpListener::bind(("127.0.0.1", port)).unwrap();
    for round in 1..=2 {
        let (peer, _) = late.accept().unwrap();
        server.wait("the link", |seen| seen.opened.len() == round);
        assert_eq!(server.seen.lock().unwrap().opened[round - 1].1, 3);
        drop(peer);
        server.wait("the end of the link", |seen| seen.closed.len() == round);
    }
    let (_, counters) = server.leave();
    assert!(counters.closed(CloseReason::NotReached) >= 2, "{counters}");
}

#[test]
fn a_peer_that_accepts_and_never_answers_is_given_up_and_tried_again() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let links = vec![LinkConfig { node: 2, address: mute.local_addr().unwrap().to_string() }];
    let server = start_with(Limits { handshake_ms_max: 20, ..Limits::default() }, links, OnLeave::Left);
    server.wait("three attempts", |seen| seen.opened.len() >= 3);
    let seen = server.seen.clone();
    server.leave();
    let seen = seen.lock().unwrap();
    assert!(seen.closed.iter().filter(|(_, reason)| *reason == CloseReason::HandshakeTimeout).count() >= 2);
    assert_eq!(seen.closed.len(), seen.opened.len(), "each is closed once");
}

#[test]
fn leaving_writes_what_is_owed_first() {
    let server = start(Limits::default());
    let mut client = Client::greeted(server.address);
    client.send(&frame(FLOOD, 9, &flood_body(100, 100_000)));
    server.wait("the request", |seen| seen.frames == 2);
    server.handle.leave().unwrap();
    for _ in 0..100 {
        client.answer();
    }
    client.assert_ended();
    assert_eq!(server.join().0, Exit::Left);
}

#[test]
fn leaving_ends_even_if_the_machine_does_not_finish() {
    let server = start_with(Limits { leave_ms_max: 20, ..Limits::default() }, Vec::new(), OnLeave::Ignore);
    let _client = Client::greeted(server.address);
    assert!(matches!(server.leave().0, Exit::Forced(_)));
}

#[test]
fn a_second_request_to_leave_ends_it_at_once() {
    let server = start_with(Limits { leave_ms_max: u32::MAX, ..Limits::default() }, Vec::new(), OnLeave::Ignore);
    server.handle.leave().unwrap();
    let seen = server.seen.clone();
    // The first must have been taken up, or both are one.
    wait("the first", || seen.lock().unwrap().turns >= 1);
    assert!(matches!(server.leave().0, Exit::Forced(_)));
}

#[test]
fn nothing_is_sent_in_the_turn_of_a_fatal_finding() {
    let server = start(Limits::default());
    let mut client = Client::greeted(server.address);
    client.send(&frame(FAIL, 2, b""));
    client.assert_ended();
    assert_eq!(server.join().0, Exit::Fatal("asked to".into()));
}

#[test]
fn datagrams_of_any_length_come_and_go_and_neighbours_that_are_not_there_do_no_harm() {
    let neighbour = UdpSocket::bind("127.0.0.1:0").unwrap();
    neighbour.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = |socket: &UdpSocket| socket.local_addr().unwrap().to_string();
    let gone = address(&UdpSocket::bind("127.0.0.1:0").unwrap());
    let links = vec![
        LinkConfig { node: NEIGHBOUR, address: address(&neighbour) },
        LinkConfig { node: NEIGHBOUR + 1, address: gone },
        LinkConfig { node: NEIGHBOUR + 2, address: "no address".into() },
    ];
    let server = start_among(Limits::default(), Vec::new(), links, OnLeave::Left);
    let mut buffer = [0; DATAGRAM_LEN_MAX];
    for len in [0, 1, 300, DATAGRAM_LEN_MAX] {
        neighbour.send_to(&vec![len as u8; len], server.heartbeats).unwrap();
        let (count, from) = neighbour.recv_from(&mut buffer).expect("it comes back");
        assert_eq!((&buffer[..count], from), (&*vec![len as u8; len], server.heartbeats));
    }
    server.leave();
}

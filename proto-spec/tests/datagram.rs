//! Heartbeat datagrams: what is read, what is refused and why, and what the guard lets through.

mod common;

use std::collections::BTreeSet;

use common::kinds::dirty;
use common::samples::{datagram, datagram_key, datagrams, heartbeat_of_front, heartbeat_of_replica, list};
use common::strategies;
use proptest::prelude::*;
use pygmy_proto::codec::{self, BodyError};
use pygmy_proto::datagram::{
    Arrival, DatagramError, DatagramKey, HEADER_LEN, Header, MAC_LEN, REPLACED_MAX, Replay, ReplayGuard, WINDOW, read,
    write,
};
use pygmy_proto::limits::{DATAGRAM_LEN_MAX, NODES_MAX, REPLICAS_MAX};

const CLUSTER: [u8; 16] = [1; 16];

/// The sample of a replica as bytes.
fn sample() -> Vec<u8> {
    let (header, heartbeat) = heartbeat_of_replica();
    datagram(&header, &heartbeat).to_vec()
}

/// `bytes` with the right keyed hash at their end: what a member would have written that means no good.
fn mended(mut bytes: Vec<u8>) -> Vec<u8> {
    // The derivation of the specification, by hand.
    let cluster: [u8; 16] = std::array::from_fn(|i| 0xa0 + i as u8);
    let key = blake3::derive_key("pygmy heartbeat datagrams, version 1", &[&cluster[..], &[7; 32]].concat());
    let signed = bytes.len() - MAC_LEN;
    let mac = blake3::keyed_hash(&key, &bytes[..signed]);
    bytes[signed..].copy_from_slice(mac.as_bytes());
    bytes
}

/// A datagram with the header of the sample and any bytes as its body, valid but for these.
fn with_body(body: &[u8]) -> Vec<u8> {
    let mut bytes = sample()[..HEADER_LEN].to_vec();
    bytes[5..7].copy_from_slice(&(body.len() as u16).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(&[0; MAC_LEN]);
    mended(bytes)
}

fn refusal(bytes: &[u8]) -> DatagramError {
    read(bytes, &datagram_key()).expect_err("a datagram that must be refused")
}

fn changed(at: usize, value: u8) -> Vec<u8> {
    let mut bytes = sample();
    bytes[at] = value;
    bytes
}

#[test]
fn each_refusal_has_its_reason() {
    assert!(read(&sample(), &datagram_key()).is_ok());
    for len in [0, 1, HEADER_LEN + MAC_LEN - 1] {
        assert_eq!(refusal(&sample()[..len]), DatagramError::Short { len });
    }
    let long = vec![0; DATAGRAM_LEN_MAX + 1];
    assert_eq!(refusal(&long), DatagramError::TooLong { len: DATAGRAM_LEN_MAX + 1 });
    for at in 0..4 {
        assert_eq!(refusal(&changed(at, 0)), DatagramError::Magic);
    }
    assert_eq!(refusal(&changed(4, 2)), DatagramError::Version { theirs: 2 });
    let found = sample().len() - HEADER_LEN - MAC_LEN;
    assert_eq!(refusal(&changed(5, 0)), DatagramError::Length { named: 0, found });
    assert_eq!(
        refusal(&[&sample()[..], &[0]].concat()),
        DatagramError::Length { named: found as u16, found: found + 1 }
    );
    assert_eq!(refusal(&changed(7, 5)), DatagramError::Mac);
}

/// What only a member can have written is refused as well, once its keyed hash has been verified.
#[test]
fn members_are_not_believed_everything() {
    let mut nobody = changed(7, 0);
    nobody[8] = 0;
    assert_eq!(refusal(&nobody), DatagramError::Mac);
    assert_eq!(refusal(&mended(nobody)), DatagramError::Node);

    let (header, _) = heartbeat_of_replica();
    let other = mended(changed(9, 0));
    let expected = DatagramError::BootNonce { header: header.boot_nonce & !0xff, replica: header.boot_nonce };
    assert_eq!(refusal(&other), expected);

    let body = codec::encode(&heartbeat_of_front().1);
    assert!(read(&with_body(&body), &datagram_key()).is_ok());
    let short = BodyError::Short { missing: 1 };
    assert_eq!(refusal(&with_body(&body[..body.len() - 1])), DatagramError::Body(short));
    let trailing = BodyError::Trailing { extra: 2 };
    assert_eq!(refusal(&with_body(&[&body[..], &[0, 0]].concat())), DatagramError::Body(trailing));
    let mut crowd = body.to_vec();
    crowd[13..21].copy_from_slice(&(NODES_MAX as u64 + 1).to_le_bytes());
    assert!(matches!(refusal(&with_body(&crowd)), DatagramError::Body(BodyError::Value(_))));
}

/// The checks go from the cheapest to the dearest: of two faults the first is told.
#[test]
fn checks_are_made_in_their_order() {
    let mut bytes = sample();
    bytes[HEADER_LEN] ^= 1;
    assert_eq!(refusal(&bytes), DatagramError::Mac);
    bytes[6] = 1;
    assert!(matches!(refusal(&bytes), DatagramError::Length { .. }));
    bytes[4] = 9;
    assert!(matches!(refusal(&bytes), DatagramError::Version { .. }));
    bytes[0] = 0;
    assert_eq!(refusal(&bytes), DatagramError::Magic);
    assert!(matches!(refusal(&bytes[..HEADER_LEN]), DatagramError::Short { .. }));
}

#[test]
fn no_changed_bit_goes_unnoticed() {
    for (name, good) in datagrams() {
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.to_vec();
                bytes[at] ^= 1 << bit;
                assert!(read(&bytes, &datagram_key()).is_err(), "{name}, bit {bit} of byte {at}");
            }
            assert!(read(&good[..at], &datagram_key()).is_err(), "{name} cut to {at} bytes");
        }
    }
}

#[test]
fn clusters_do_not_hear_each_other() {
    let (header, heartbeat) = heartbeat_of_front();
    let mut out = dirty();
    let key = DatagramKey::new(&CLUSTER, b"key");
    write(&mut out, &key, &header, &heartbeat);
    assert_eq!(read(&out[2..], &DatagramKey::new(&CLUSTER, b"key")), Ok((header, heartbeat)));
    for other in
        [DatagramKey::new(&[2; 16], b"key"), DatagramKey::new(&CLUSTER, b"yek"), DatagramKey::new(&CLUSTER, b"")]
    {
        assert_eq!(read(&out[2..], &other), Err(DatagramError::Mac));
    }
    assert_eq!(format!("{key:?}"), "DatagramKey", "a key must not get into a log");
}

/// The largest heartbeat is as long as `SPEC.md` §15 says, and fits.
#[test]
fn the_largest_heartbeat_fits() {
    let (header, mut heartbeat) = heartbeat_of_replica();
    heartbeat.hears = list(vec![u16::MAX; NODES_MAX]);
    let beat = heartbeat.replica.as_mut().expect("a replica's");
    beat.hears = list(vec![u16::MAX; REPLICAS_MAX]);
    let bytes = datagram(&header, &heartbeat);
    assert_eq!(read(&bytes, &datagram_key()), Ok((header, heartbeat)));
    assert!(bytes.len() <= DATAGRAM_LEN_MAX);
    assert!(common::spec().contains(&format!("The largest has {} bytes", bytes.len())), "it has {}", bytes.len());
}

proptest! {
    #[test]
    fn heartbeats_return((header, heartbeat) in strategies::heartbeat()) {
        let mut out = dirty();
        write(&mut out, &datagram_key(), &header, &heartbeat);
        prop_assert_eq!(&out[..2], &[0xa5, 0xa5]);
        prop_assert_eq!(read(&out[2..], &datagram_key()), Ok((header, heartbeat)));
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert!(read(&bytes, &datagram_key()).is_err());
    }

    /// Whatever a member can have written is refused, or it is the one encoding of what is read.
    #[test]
    fn any_signed_body_is_canonical(
        body in prop::collection::vec(prop_oneof![4 => Just(0_u8), 1 => 1_u8..4, 1 => any::<u8>()], 0..300),
    ) {
        let bytes = with_body(&body);
        if let Ok((header, heartbeat)) = read(&bytes, &datagram_key()) {
            prop_assert_eq!(&datagram(&header, &heartbeat)[..], &bytes[..]);
        }
    }
}

fn from(boot_nonce: u64, counter: u64) -> Header {
    Header { node: 1, boot_nonce, counter }
}

/// What the guard says to counters of one process.
fn verdicts(counters: &[u64]) -> Vec<Result<Arrival, Replay>> {
    let mut guard = ReplayGuard::new();
    counters.iter().map(|counter| guard.check(&from(1, *counter))).collect()
}

#[test]
fn a_datagram_counts_once() {
    use Arrival::{Late, Newest};
    assert_eq!(verdicts(&[1, 2, 4]), [Ok(Newest); 3]);
    assert_eq!(verdicts(&[1, 1]), [Ok(Newest), Err(Replay::Repeated)]);
    assert_eq!(verdicts(&[0, 0]), [Ok(Newest), Err(Replay::Repeated)]);
    assert_eq!(verdicts(&[5, 3, 3, 5]), [Ok(Newest), Ok(Late), Err(Replay::Repeated), Err(Replay::Repeated)]);
    assert_eq!(verdicts(&[u64::MAX, 1, u64::MAX]), [Ok(Newest), Err(Replay::TooOld), Err(Replay::Repeated)]);
    assert_eq!(verdicts(&[1, u64::MAX, 1]), [Ok(Newest), Ok(Newest), Err(Replay::TooOld)]);
}

#[test]
fn the_window_has_its_width() {
    use Arrival::{Late, Newest};
    let top = 1_000;
    assert_eq!(verdicts(&[top, top - WINDOW + 1, top - WINDOW]), [Ok(Newest), Ok(Late), Err(Replay::TooOld)]);
    // What leaves the window is too old; what stays in it is remembered, up to its last place.
    let last = top + WINDOW - 1;
    assert_eq!(verdicts(&[top, last, top]), [Ok(Newest), Ok(Newest), Err(Replay::Repeated)]);
    assert_eq!(verdicts(&[top, last + 1, top]), [Ok(Newest), Ok(Newest), Err(Replay::TooOld)]);
    assert_eq!(verdicts(&[top, last + 1, top + 1]), [Ok(Newest), Ok(Newest), Ok(Late)]);
}

#[test]
fn what_a_process_that_was_replaced_had_sent_is_heard_no_more() {
    let mut guard = ReplayGuard::new();
    assert_eq!(guard.check(&from(1, 500)), Ok(Arrival::Newest));
    assert_eq!(guard.check(&from(2, 1)), Ok(Arrival::Newest), "a new process counts from 1");
    for counter in [500, 499, 1] {
        assert_eq!(guard.check(&from(1, counter)), Err(Replay::Replaced), "{counter}");
    }
    assert_eq!(guard.check(&from(3, 1)), Ok(Arrival::Newest));
    for (gone, counter) in [(1, 500), (2, 1)] {
        assert_eq!(guard.check(&from(gone, counter)), Err(Replay::Replaced));
    }
    assert_eq!(guard.check(&from(3, 2)), Ok(Arrival::Newest), "refusals change nothing");
    assert_eq!(guard.check(&Header { node: 2, ..from(1, 1) }), Ok(Arrival::Newest), "nodes are apart");
}

/// A datagram of a process that is gone comes late, to one who never heard that process: the one that lives goes on counting.
#[test]
fn a_process_that_lives_takes_its_place_again() {
    let mut guard = ReplayGuard::new();
    assert_eq!(guard.check(&from(2, 7)), Ok(Arrival::Newest));
    assert_eq!(guard.check(&from(1, 900)), Ok(Arrival::Newest), "which of them came first cannot be told");
    assert_eq!(guard.check(&from(2, 7)), Err(Replay::Replaced), "a repetition is one all the same");
    assert_eq!(guard.check(&from(2, 8)), Ok(Arrival::Newest));
    assert_eq!(guard.check(&from(2, 6)), Ok(Arrival::Late), "what was seen of it is known");
    assert_eq!(guard.check(&from(1, 900)), Err(Replay::Replaced));
}

#[test]
fn the_memory_of_processes_is_bounded() {
    let mut guard = ReplayGuard::new();
    let last = REPLACED_MAX as u64 + 1;
    for nonce in 0..=last {
        assert_eq!(guard.check(&from(nonce, 1)), Ok(Arrival::Newest));
    }
    for nonce in 1..last {
        assert_eq!(guard.check(&from(nonce, 1)), Err(Replay::Replaced), "process {nonce}");
    }
    assert_eq!(guard.check(&from(0, 1)), Ok(Arrival::Newest), "the one replaced first is forgotten");
}

/// Where a handshake has told which process a node is, a recording of another one changes nothing.
#[test]
fn a_pinned_process_is_not_replaced_by_recordings() {
    let mut guard = ReplayGuard::new();
    guard.pin(1, 7);
    assert_eq!(guard.check(&from(6, 1)), Err(Replay::Replaced), "a recording from before this guard began");
    assert_eq!(guard.check(&from(7, 1)), Ok(Arrival::Newest));
    guard.pin(1, 7);
    assert_eq!(guard.check(&from(7, 1)), Err(Replay::Repeated), "to pin it again forgets nothing");
    guard.pin(1, 8);
    assert_eq!(guard.check(&from(7, 2)), Err(Replay::Replaced));
    assert_eq!(guard.check(&from(8, 1)), Ok(Arrival::Newest));
}

#[test]
fn a_handshake_puts_right_what_a_recording_has_done() {
    let mut guard = ReplayGuard::new();
    assert_eq!(guard.check(&from(7, 10)), Ok(Arrival::Newest));
    assert_eq!(guard.check(&from(6, 1)), Ok(Arrival::Newest), "the recording of a process that was never heard");
    assert_eq!(guard.check(&from(7, 10)), Err(Replay::Replaced));
    guard.pin(1, 7);
    assert_eq!(guard.check(&from(7, 10)), Err(Replay::Repeated), "what was seen of it stays seen");
    assert_eq!(guard.check(&from(7, 11)), Ok(Arrival::Newest));
    assert_eq!(guard.check(&from(6, 2)), Err(Replay::Replaced));
}

/// The guard for one process, as plainly as it can be said.
#[derive(Default)]
struct Twin(BTreeSet<u64>);

impl Twin {
    fn check(&mut self, counter: u64) -> Result<Arrival, Replay> {
        let highest = self.0.last().copied();
        if highest.is_some_and(|highest| counter.saturating_add(WINDOW) <= highest) {
            return Err(Replay::TooOld);
        }
        if !self.0.insert(counter) {
            return Err(Replay::Repeated);
        }
        Ok(if highest.is_none_or(|highest| counter > highest) { Arrival::Newest } else { Arrival::Late })
    }
}

proptest! {
    #[test]
    fn the_guard_does_as_its_twin(
        base in prop_oneof![Just(0), Just(u64::MAX - 300), any::<u64>().prop_map(|base| base.min(u64::MAX - 300))],
        steps in prop::collection::vec((1..4_u16, prop_oneof![3 => 0..20_u64, 1 => 0..300_u64]), 0..200),
    ) {
        let mut guard = ReplayGuard::new();
        let mut twins: [Twin; 4] = Default::default();
        for (node, step) in steps {
            let counter = base + step;
            let found = guard.check(&Header { node, boot_nonce: 9, counter });
            prop_assert_eq!(found, twins[usize::from(node)].check(counter), "node {}, counter {}", node, counter);
        }
    }
}

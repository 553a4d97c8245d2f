//! Datagrams: what is taken is what is written of what is read. The key is that of the vectors.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pygmy_proto::datagram::{DatagramError, DatagramKey, Header, MAC_LEN, ReplayGuard, read, write};

const CREDENTIALS: [u8; 32] = [7; 32];

fn cluster() -> [u8; 16] {
    std::array::from_fn(|i| 0xa0 + i as u8)
}

fuzz_target!(|input: &[u8]| {
    let key = DatagramKey::new(&cluster(), &CREDENTIALS);
    let mut bytes = input.to_vec();
    let taken = match read(&bytes, &key) {
        // The fuzzer cannot guess a keyed hash; with the right one it gets further.
        Err(DatagramError::Mac) => {
            mend(&mut bytes);
            let again = read(&bytes, &key);
            assert_ne!(again, Err(DatagramError::Mac));
            again
        }
        other => other,
    };
    let Ok((header, heartbeat)) = taken else { return };
    let mut out = BytesMut::new();
    write(&mut out, &key, &header, &heartbeat);
    assert_eq!(out[..], bytes[..], "a heartbeat has two encodings");
    guard(&header);
});

/// Signs what stands before the last bytes, as the specification says.
fn mend(bytes: &mut [u8]) {
    let key = blake3::derive_key("pygmy heartbeat datagrams, version 1", &[&cluster()[..], &CREDENTIALS].concat());
    let signed = bytes.len() - MAC_LEN;
    let mac = blake3::keyed_hash(&key, &bytes[..signed]);
    bytes[signed..].copy_from_slice(mac.as_bytes());
}

/// Whatever its numbers are, a datagram is taken once.
fn guard(header: &Header) {
    let mut guard = ReplayGuard::new();
    assert!(guard.check(header).is_ok());
    assert!(guard.check(header).is_err());
    let next = Header { counter: header.counter.wrapping_add(1), ..*header };
    assert_eq!(guard.check(&next).is_ok(), header.counter != u64::MAX);
}

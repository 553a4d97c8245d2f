//! The golden vectors in `vectors/`: the bytes of the protocol, kept from change. See `vectors/README.md`.

mod common;

use std::collections::BTreeMap;

use common::samples::samples;
use common::{hex, kinds};
use pygmy_proto::frame::{self, Deframer, Flow};
use pygmy_proto::header::HEADER_LEN;
use pygmy_proto::limits::PEER_BODY_MAX;
use pygmy_proto::{ErrorCode, Kind};

/// The files, by name without the ending.
fn files() -> BTreeMap<String, Vec<u8>> {
    let directory = std::fs::read_dir(common::path("vectors")).expect("vectors/ stands beside Cargo.toml");
    directory
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "hex"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, hex::parse(&std::fs::read_to_string(&path).expect("a text file")))
        })
        .collect()
}

#[test]
#[ignore = "rewrites the vectors: see vectors/README.md"]
fn bless() {
    for name in files().keys() {
        std::fs::remove_file(common::path(&format!("vectors/{name}.hex"))).expect("an old vector is removed");
    }
    for sample in samples() {
        let text = hex::format(&sample.frame, HEADER_LEN);
        std::fs::write(common::path(&format!("vectors/{}.hex", sample.name)), text).expect("a vector is written");
    }
}

#[test]
fn samples_encode_to_the_vectors() {
    let mut files = files();
    for sample in samples() {
        let golden = files.remove(&sample.name).unwrap_or_else(|| panic!("vectors/{}.hex is missing", sample.name));
        assert_eq!(sample.frame[..], golden[..], "{} is not encoded as it was", sample.name);
    }
    assert!(files.is_empty(), "vectors without a sample: {:?}", files.keys());
}

#[test]
fn vectors_decode_and_encode_to_themselves() {
    for (name, golden) in files() {
        let mut count = 0;
        let mut deframer = Deframer::new(PEER_BODY_MAX);
        deframer
            .feed(&golden, |_, frame| {
                count += 1;
                let kind = frame.kind().expect("a known kind");
                let header = frame.header;
                let seen = kinds::see(kind, header.flags, frame.body).unwrap_or_else(|e| panic!("{name}: {e}"));
                let mut again = kinds::dirty();
                frame::write_raw(&mut again, header.kind, header.request_id, header.aux, header.flags, &seen.bytes);
                assert_eq!(again[2..], golden[..], "{name}");
                Flow::Continue
            })
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((count, deframer.buffered()), (1, 0), "{name} is one whole frame");
    }
}

#[test]
fn every_kind_and_code_has_a_vector() {
    let vectors = files();
    let kinds: Vec<u16> = vectors.values().map(|frame| u16::from_le_bytes([frame[10], frame[11]])).collect();
    for kind in Kind::ALL {
        assert!(kinds.contains(&(*kind as u16)), "no vector of {kind:?}");
    }
    for code in ErrorCode::ALL {
        let name = format!("error-{}", code.name().replace('_', "-"));
        assert!(vectors.contains_key(&name), "no vector {name}");
    }
}

/// Every prefix of every body is refused, and so is every body with something behind it.
#[test]
fn cut_and_prolonged_bodies_are_malformed() {
    for (name, frame) in files() {
        let kind = Kind::from_u16(u16::from_le_bytes([frame[10], frame[11]])).expect("a known kind");
        let body = &frame[HEADER_LEN..];
        for len in 0..body.len() {
            assert!(kinds::see(kind, frame[9], &body[..len]).is_err(), "{name} cut to {len} bytes");
        }
        let prolonged = [body, &[0]].concat();
        assert!(kinds::see(kind, frame[9], &prolonged).is_err(), "{name} with a byte more");
    }
}

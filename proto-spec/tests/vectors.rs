//! The golden vectors in `vectors/`: the bytes of the protocol, kept from change. See `vectors/README.md`.

mod common;

use std::collections::BTreeMap;

use common::samples::{self, Sample, samples};
use common::{hex, kinds};
use pygmy_proto::datagram;
use pygmy_proto::frame::{self, Deframer, Flow};
use pygmy_proto::header::HEADER_LEN;
use pygmy_proto::limits::PEER_BODY_MAX;
use pygmy_proto::{ErrorCode, Kind};

/// The frames among the files, by name without the ending.
fn files() -> BTreeMap<String, Vec<u8>> {
    files_in("vectors")
}

fn files_in(directory: &str) -> BTreeMap<String, Vec<u8>> {
    let directory = std::fs::read_dir(common::path(directory)).expect("vectors/ stands beside Cargo.toml");
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
    for (name, bytes) in samples::datagrams() {
        let text = hex::format(&bytes, datagram::HEADER_LEN);
        std::fs::write(common::path(&format!("vectors/datagrams/{name}.hex")), text).expect("a vector is written");
    }
    for (name, bytes) in seeds() {
        let path = common::path(&format!("fuzz/seeds/{name}"));
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory is made");
        std::fs::write(path, bytes).expect("a seed is written");
    }
}

/// Inputs from which the fuzz targets start, by file: what stands in each is said in the target.
fn seeds() -> BTreeMap<String, Vec<u8>> {
    let mut seeds = BTreeMap::new();
    let mut stream = vec![3, 0, 1, 30, 100];
    for Sample { name, frame } in samples() {
        if name.starts_with("error-") && name != "error-busy" {
            continue;
        }
        let number = u16::from_le_bytes([frame[10], frame[11]]);
        let (target, family) = match number {
            0x0001..=0x000f => ("hello", 0x0001..=0x000f),
            0x0010..=0x008f => ("requests", 0x0010..=0x008f),
            0x0090..=0x00ff => ("answers", 0x0090..=0x00ff),
            _ => ("peer", 0x0100..=0xffff),
        };
        let family = Kind::ALL.iter().map(|kind| *kind as u16).filter(|kind| family.contains(kind));
        let choice = family.into_iter().position(|kind| kind == number).expect("a known kind") as u8;
        seeds.insert(format!("{target}/{name}"), [&[choice, frame[9]], &frame[HEADER_LEN..]].concat());
        if ["lookup", "ping", "write-ok-bought"].contains(&name.as_str()) {
            seeds.insert(format!("header/{name}"), frame.to_vec());
            stream.extend_from_slice(&frame);
        }
    }
    seeds.insert("framing/three".to_owned(), stream);
    seeds.insert("batch/two".to_owned(), samples::batch().bytes().to_vec());
    let [start, config] = samples::special_batches();
    seeds.insert("batch/new-epoch".to_owned(), start.bytes().to_vec());
    seeds.insert("batch/config".to_owned(), config.bytes().to_vec());
    for (name, bytes) in samples::datagrams() {
        seeds.insert(format!("datagram/{name}"), bytes.to_vec());
    }
    seeds
}

#[test]
fn the_seeds_of_the_fuzz_targets_are_the_vectors() {
    for (name, expected) in seeds() {
        let found = std::fs::read(common::path(&format!("fuzz/seeds/{name}"))).unwrap_or_default();
        assert_eq!(found, expected, "fuzz/seeds/{name}: run the test `bless`");
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
fn heartbeats_are_written_as_the_vectors_and_read_from_them() {
    let mut files = files_in("vectors/datagrams");
    for (name, (header, heartbeat)) in
        [("heartbeat-front", samples::heartbeat_of_front()), ("heartbeat-replica", samples::heartbeat_of_replica())]
    {
        let golden = files.remove(name).unwrap_or_else(|| panic!("vectors/datagrams/{name}.hex is missing"));
        assert_eq!(datagram::read(&golden, &samples::datagram_key()).as_ref(), Ok(&(header, heartbeat.clone())));
        let mut again = kinds::dirty();
        datagram::write(&mut again, &samples::datagram_key(), &header, &heartbeat);
        assert_eq!(again[2..], golden[..], "{name} is not written as it was");
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

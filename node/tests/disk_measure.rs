//! What a durable group costs on the disk under the temporary directory (`TMPDIR` names another).

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

const SEGMENT: usize = 64 * 1024 * 1024;
const BLOCK: usize = 4096;
/// Groups of a size that are measured; those of the segment's end begin at its start again.
const GROUPS: usize = 400;

/// Bytes at an address that direct writes accept.
fn aligned(len: usize) -> (Vec<u8>, usize) {
    let bytes = vec![0x5a; len + BLOCK];
    let start = bytes.as_ptr().align_offset(BLOCK);
    (bytes, start)
}

fn prewritten(path: &Path) {
    let file = File::create(path).expect("a directory to write in");
    file.write_all_at(&vec![0; SEGMENT], 0).expect("room");
    file.sync_all().expect("a good disk");
}

/// The times of all groups, sorted.
fn measure(file: &File, len: usize, sync: bool) -> Vec<Duration> {
    let (bytes, start) = aligned(len);
    let mut times = Vec::with_capacity(GROUPS);
    for group in 0..GROUPS {
        let at = group * len % (SEGMENT - len);
        let began = Instant::now();
        file.write_all_at(&bytes[start..start + len], (at - at % BLOCK) as u64).expect("a write");
        if sync {
            file.sync_data().expect("a sync");
        }
        times.push(began.elapsed());
    }
    times.sort();
    times
}

#[test]
#[ignore = "measures this machine's disk; run with --release -- --ignored --nocapture"]
fn buffered_with_fdatasync_against_direct_with_dsync() {
    let dir = tempfile::tempdir().expect("a directory");
    let direct = (OFlags::DIRECT | OFlags::DSYNC).bits() as i32;
    println!("| group | way | median | p99 | max |");
    println!("|---|---|---|---|---|");
    for len in [4 * 1024, 64 * 1024, 1024 * 1024] {
        for (way, flags, sync) in [("buffered, fdatasync", 0, true), ("O_DIRECT, O_DSYNC", direct, false)] {
            let path = dir.path().join("segment");
            prewritten(&path);
            let file = OpenOptions::new().write(true).custom_flags(flags).open(&path).expect("the file system has it");
            let times = measure(&file, len, sync);
            let [median, p99, max] = [GROUPS / 2, GROUPS * 99 / 100, GROUPS - 1].map(|index| times[index]);
            println!("| {} KiB | {way} | {median:.0?} | {p99:.0?} | {max:.0?} |", len / 1024);
        }
    }
}

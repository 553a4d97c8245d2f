//! The ledger on disk: all orders ever done, in files that only grow.
//!
//! `ledger-<number>` begins with 16 bytes (magic `PYLR`, version, zeros, and their CRC-32C). Then come orders in ascending order of their
//! number: the length of the body (4 bytes), the CRC-32C of the length and the body, the body as on the wire. A file that
//! has reached its size is not added to, and the next number goes on. So which bytes a file has depends on nothing but
//! the orders: replicas with equal orders have equal files, whenever they took their snapshots, and one that receives a
//! snapshot needs only what is new to it.
//!
//! A snapshot names the files, and how long each was; what lies beyond is not trusted and written again. A file is never
//! changed in its place, for a block that is torn while it is rewritten would take acknowledged orders with it: the last
//! file is written anew beside the old one, whole, and takes its name.

use bytes::{BufMut, BytesMut};
use pygmy_proto::codec;
use pygmy_proto::crc::crc32c;
use pygmy_proto::message::OrderRecord;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::FileRange;
use super::chunks::{Appender, FileError, PREAMBLE_LEN, check_preamble, preamble};
use crate::disk::fs::{Fs, FsFile};
use crate::store::{Ledger, Orders};

/// Bytes at which a file is not added to any more.
pub const LEDGER_FILE_BYTES: u64 = 16 * 1024 * 1024;

pub(super) const MAGIC: [u8; 4] = *b"PYLR";
const VERSION: u8 = 1;
const LEDGER: &str = "ledger-";
/// Bytes before an order's body.
const ORDER_HEADER_LEN: usize = 8;
/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 256 * 1024;

/// The name of the ledger's file with this number, from 1.
pub fn ledger_name(number: u32) -> String {
    format!("{LEDGER}{number:08x}")
}

/// The number in the name of a ledger's file.
pub fn ledger_number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(LEDGER)?;
    u32::from_str_radix(digits, 16).ok().filter(|&number| number > 0 && ledger_name(number) == name)
}

/// Reads the named part of a file and adds its orders to `ledger`.
pub(super) fn read_file<F: Fs>(fs: &F, range: &FileRange, as_name: &str, ledger: &mut Ledger) -> Result<(), FileError> {
    let bytes = read_range(fs, range, as_name)?;
    each(as_name, &bytes, |order| {
        if order.number <= ledger.last_number() {
            return Err("orders that do not ascend");
        }
        ledger.push(&order);
        Ok(())
    })
}

/// Gives every order in `bytes`, the first part of a file, to `take`, which may find it wrong.
pub(super) fn each(
    name: &str,
    bytes: &[u8],
    mut take: impl FnMut(OrderRecord) -> Result<(), &'static str>,
) -> Result<(), FileError> {
    check_preamble(name, bytes.get(..PREAMBLE_LEN).unwrap_or(bytes), MAGIC, VERSION)?;
    let mut at = PREAMBLE_LEN;
    while at < bytes.len() {
        let broken = |why: &str| FileError::damaged(name, at as u64, why);
        let (order, used) = decode_order(&bytes[at..]).map_err(|why| broken(&why))?;
        take(order).map_err(broken)?;
        at += used;
    }
    Ok(())
}

/// The bytes of the named part of a file, if they are what was written.
fn read_range<F: Fs>(fs: &F, range: &FileRange, as_name: &str) -> Result<Vec<u8>, FileError> {
    let file = fs.open(as_name).map_err(FileError::io(as_name))?;
    let len = file.len().map_err(FileError::io(as_name))?;
    if len < range.len {
        return Err(FileError::damaged(as_name, len, format!("the file ends, it should have {} bytes", range.len)));
    }
    // No longer than the file, so it cannot be more than what was written once.
    let mut bytes = vec![0; range.len as usize];
    file.read_at(&mut bytes, 0).map_err(FileError::io(as_name))?;
    if xxh3_128(&bytes) != range.hash {
        let at = first_damage(&bytes);
        return Err(FileError::damaged(as_name, at, "the bytes up to where a snapshot was taken are others"));
    }
    Ok(bytes)
}

/// Where in a file whose hash is wrong the first order is wrong; its end when all are right and it is another file.
fn first_damage(bytes: &[u8]) -> u64 {
    let mut at = PREAMBLE_LEN.min(bytes.len());
    while let Some((_, used)) = bytes.get(at..).filter(|rest| !rest.is_empty()).and_then(|rest| decode_order(rest).ok())
    {
        at += used;
    }
    at as u64
}

/// Whether a file is at least as long as the named part.
pub(super) fn has_len<F: Fs>(fs: &F, range: &FileRange) -> bool {
    fs.open(&range.name).and_then(|file| file.len()).is_ok_and(|len| len >= range.len)
}

/// Whether a file has the named part already.
pub(super) fn has_range<F: Fs>(fs: &F, range: &FileRange) -> bool {
    read_range(fs, range, &range.name).is_ok()
}

fn encode_order(orders: &Orders, at: usize, out: &mut BytesMut) {
    let start = out.len();
    out.put_bytes(0, ORDER_HEADER_LEN);
    orders.encode(at, out);
    let record = &mut out[start..];
    let len = (record.len() - ORDER_HEADER_LEN) as u32;
    record[0..4].copy_from_slice(&len.to_le_bytes());
    let crc = checksum(record);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(record: &[u8]) -> u32 {
    crc32c(&record[0..4], &record[ORDER_HEADER_LEN..])
}

fn decode_order(bytes: &[u8]) -> Result<(OrderRecord, usize), String> {
    let (head, rest) = bytes.split_first_chunk::<ORDER_HEADER_LEN>().ok_or("the file ends within an order")?;
    let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    let body = rest.get(..len).ok_or("the file ends within an order")?;
    let used = ORDER_HEADER_LEN + len;
    if checksum(&bytes[..used]) != crc {
        return Err("the checksum of an order is another".to_owned());
    }
    let order = codec::decode(body).map_err(|error| format!("an order that is none: {error}"))?;
    Ok((order, used))
}

/// Files of a ledger under temporary names, and what they are to be called.
#[derive(Debug)]
pub(super) struct Written {
    /// All files of the ledger, oldest first.
    pub(super) files: Vec<FileRange>,
    /// Temporary name and name of those that are new.
    pub(super) renames: Vec<(String, String)>,
}

/// Writes `orders` from the `at`th on behind `files`, which hold those before it. Durable under their
/// temporary names when this returns.
pub(super) fn write<F: Fs>(
    fs: &F,
    orders: &Orders,
    (mut files, mut at): (Vec<FileRange>, usize),
    file_bytes: u64,
    temporary: impl Fn(&str) -> String,
) -> Result<Written, FileError> {
    let mut renames = Vec::new();
    while at < orders.len() {
        let open = files.pop_if(|last| last.len < file_bytes);
        let name = open.as_ref().map_or_else(|| next_name(&files), |last| last.name.clone());
        let start = match &open {
            Some(last) => read_range(fs, last, &last.name)?,
            None => preamble(MAGIC, VERSION).to_vec(),
        };
        let temp = temporary(&name);
        let file = fs.create(&temp).map_err(FileError::io(&temp))?;
        let mut out = OrderWriter { out: Appender::new(file), hash: Xxh3::new(), buffer: BytesMut::from(&start[..]) };
        while out.len() < file_bytes && at < orders.len() {
            out.push(orders, at).map_err(FileError::io(&temp))?;
            at += 1;
        }
        files.push(out.finish(name.clone()).map_err(FileError::io(&temp))?);
        renames.push((temp, name));
    }
    Ok(Written { files, renames })
}

fn next_name(files: &[FileRange]) -> String {
    let last = files.last().and_then(|file| ledger_number(&file.name)).unwrap_or(0);
    ledger_name(last + 1)
}

struct OrderWriter<File> {
    out: Appender<File>,
    hash: Xxh3,
    buffer: BytesMut,
}

impl<File: FsFile> OrderWriter<File> {
    fn len(&self) -> u64 {
        self.out.len() + self.buffer.len() as u64
    }

    fn push(&mut self, orders: &Orders, at: usize) -> std::io::Result<()> {
        encode_order(orders, at, &mut self.buffer);
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.hash.update(&self.buffer);
        self.out.append(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self, name: String) -> std::io::Result<FileRange> {
        self.flush()?;
        self.out.sync()?;
        Ok(FileRange { name, len: self.out.len(), hash: self.hash.digest128() })
    }
}

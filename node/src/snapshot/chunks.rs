//! A file of chunks: what a snapshot is made of.
//!
//! All numbers are little-endian. The file begins with 16 bytes: magic, version (1 byte), zeros, and the CRC-32C of these in
//! the last 4. Then come chunks, each a
//! header of 16 bytes and a body of at most [`CHUNK_MAX`]:
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | length of the body |
//! | 4..8 | number of the chunk in the file, from 0: one in another's place is noticed |
//! | 8 | kind: 1 head, 2 a part of the stream, 3 end |
//! | 9..12 | 0 |
//! | 12..16 | CRC-32C of bytes 0..12 and the body |
//!
//! The first chunk is the head. The bodies of kind 2, one behind the other, are one stream of bytes that knows nothing of
//! chunks. The last chunk is the end; its body is the number of all chunks before it (8 bytes), and nothing follows it.

use std::io;

use crate::disk::fs::FsFile;

/// Bytes of a chunk's body at most.
pub const CHUNK_MAX: usize = 256 * 1024;
/// Bytes of what comes before a chunk's body.
pub const CHUNK_HEADER_LEN: usize = 16;
/// Bytes before the first chunk.
pub const PREAMBLE_LEN: usize = 16;
/// Bytes between syncs while a file is written: one sync of everything at the end would hold up the log's own for long.
pub const SYNC_STEP: u64 = 8 * 1024 * 1024;

/// What a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ChunkKind {
    /// What the file is about.
    Head = 1,
    /// A part of the stream.
    Part = 2,
    /// There is no more.
    End = 3,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{name}: {source}")]
    Io {
        /// The file.
        name: String,
        /// What it said.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{name} is damaged at byte {at}: {why}")]
    Damaged {
        /// The file.
        name: String,
        /// Where.
        at: u64,
        /// What is wrong there.
        why: String,
    },
    /// It is of another version.
    #[error("{name} is of version {found}, this program knows {known}: use the program that wrote it")]
    Version {
        /// The file.
        name: String,
        /// The version.
        found: u8,
        /// What this build reads.
        known: u8,
    },
}

impl FileError {
    pub(super) fn io(name: &str) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::Io { name: name.to_owned(), source }
    }

    pub(super) fn damaged(name: &str, at: u64, why: impl Into<String>) -> Self {
        Self::Damaged { name: name.to_owned(), at, why: why.into() }
    }
}

/// The 16 bytes at the start of a file.
pub(super) fn preamble(magic: [u8; 4], version: u8) -> [u8; PREAMBLE_LEN] {
    let mut bytes = [0; PREAMBLE_LEN];
    bytes[..4].copy_from_slice(&magic);
    bytes[4] = version;
    let crc = crc32c::crc32c(&bytes[..12]);
    bytes[12..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Whether the start of a file is as it should be.
pub(super) fn check_preamble(name: &str, found: &[u8], magic: [u8; 4], version: u8) -> Result<(), FileError> {
    match found {
        [start @ .., a, b, c, d] if start.len() == 12 && crc32c::crc32c(start).to_le_bytes() == [*a, *b, *c, *d] => {
            if found == preamble(magic, version) {
                return Ok(());
            }
            if start[..4] == magic {
                return Err(FileError::Version { name: name.to_owned(), found: start[4], known: version });
            }
        }
        _ => {}
    }
    Err(FileError::damaged(name, 0, "the file does not begin as such a file does"))
}

/// Appends to a file, and syncs it now and then.
pub(super) struct Appender<File> {
    file: File,
    len: u64,
    synced: u64,
}

impl<File: FsFile> Appender<File> {
    pub(super) fn new(file: File) -> Self {
        Self { file, len: 0, synced: 0 }
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        if self.len - self.synced >= SYNC_STEP { self.sync() } else { Ok(()) }
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        self.synced = self.len;
        Ok(())
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }
}

/// Writes a file of chunks.
pub(super) struct ChunkWriter<File> {
    out: Appender<File>,
    /// Header and body of the chunk that is being filled.
    chunk: Vec<u8>,
    count: u32,
}

impl<File: FsFile> ChunkWriter<File> {
    /// Begins the file with its head.
    pub(super) fn new(file: File, magic: [u8; 4], version: u8, head: &[u8]) -> io::Result<Self> {
        if head.len() > CHUNK_MAX {
            return Err(io::Error::other(format!("a head of {} bytes, the limit is {CHUNK_MAX}", head.len())));
        }
        let mut writer = Self { out: Appender::new(file), chunk: vec![0; CHUNK_HEADER_LEN], count: 0 };
        writer.out.append(&preamble(magic, version))?;
        writer.chunk.extend_from_slice(head);
        writer.close(ChunkKind::Head)?;
        Ok(writer)
    }

    /// Adds to the stream.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = CHUNK_HEADER_LEN + CHUNK_MAX - self.chunk.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() == CHUNK_HEADER_LEN + CHUNK_MAX {
                self.close(ChunkKind::Part)?;
            }
        }
        Ok(())
    }

    /// Ends the file and makes it durable. Its length.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        if self.chunk.len() > CHUNK_HEADER_LEN {
            self.close(ChunkKind::Part)?;
        }
        self.chunk.extend_from_slice(&u64::from(self.count).to_le_bytes());
        self.close(ChunkKind::End)?;
        self.out.sync()?;
        Ok(self.out.len())
    }

    fn close(&mut self, kind: ChunkKind) -> io::Result<()> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let len = (chunk.len() - CHUNK_HEADER_LEN) as u32;
        chunk[0..4].copy_from_slice(&len.to_le_bytes());
        chunk[4..8].copy_from_slice(&self.count.to_le_bytes());
        chunk[8..12].copy_from_slice(&[kind as u8, 0, 0, 0]);
        let crc = checksum(&chunk);
        chunk[12..16].copy_from_slice(&crc.to_le_bytes());
        self.out.append(&chunk)?;
        chunk.truncate(CHUNK_HEADER_LEN);
        self.chunk = chunk;
        self.count += 1;
        Ok(())
    }
}

fn checksum(chunk: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&chunk[..12]), &chunk[CHUNK_HEADER_LEN..])
}

/// Reads a file of chunks, one after the other.
pub(super) struct ChunkReader<File> {
    name: String,
    file: File,
    len: u64,
    at: u64,
    count: u32,
    /// What of the stream was read and not used.
    stream: Vec<u8>,
    used: usize,
    ended: bool,
}

impl<File: FsFile> ChunkReader<File> {
    /// Opens the file, and gives its head.
    pub(super) fn new(name: &str, file: File, magic: [u8; 4], version: u8) -> Result<(Self, Vec<u8>), FileError> {
        let len = file.len().map_err(FileError::io(name))?;
        let (stream, name) = (Vec::new(), name.to_owned());
        let mut reader = Self { name, file, len, at: 0, count: 0, stream, used: 0, ended: false };
        let start = reader.bytes(PREAMBLE_LEN)?;
        check_preamble(&reader.name, &start, magic, version)?;
        match reader.chunk()? {
            (ChunkKind::Head, head) => Ok((reader, head)),
            (kind, _) => Err(reader.damaged(format!("it begins with a chunk of kind {kind:?}"))),
        }
    }

    /// The next `len` bytes of the stream.
    pub(super) fn take(&mut self, len: usize) -> Result<&[u8], FileError> {
        while self.stream.len() - self.used < len {
            self.stream.drain(..self.used);
            self.used = 0;
            if !self.more()? {
                return Err(self.damaged("it ends where more must come".to_owned()));
            }
        }
        let from = self.used;
        self.used += len;
        Ok(&self.stream[from..self.used])
    }

    /// To be called behind the last of the stream: there must be no more.
    pub(super) fn finish(mut self) -> Result<(), FileError> {
        if self.used < self.stream.len() || self.more()? {
            return Err(self.damaged("more comes where it must end".to_owned()));
        }
        Ok(())
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// What is wrong where the reading has come to.
    pub(super) fn damaged(&self, why: String) -> FileError {
        FileError::damaged(&self.name, self.at, why)
    }

    /// Reads on; false at the end.
    fn more(&mut self) -> Result<bool, FileError> {
        if self.ended {
            return Ok(false);
        }
        let before = u64::from(self.count);
        match self.chunk()? {
            (ChunkKind::Part, body) => {
                self.stream.extend_from_slice(&body);
                Ok(true)
            }
            (ChunkKind::End, body) if body == before.to_le_bytes() && self.at == self.len => {
                self.ended = true;
                Ok(false)
            }
            (kind, _) => Err(self.damaged(format!("a chunk of kind {kind:?} does not belong there"))),
        }
    }

    fn chunk(&mut self) -> Result<(ChunkKind, Vec<u8>), FileError> {
        let mut chunk = self.bytes(CHUNK_HEADER_LEN)?;
        let word = |at: usize| u32::from_le_bytes([chunk[at], chunk[at + 1], chunk[at + 2], chunk[at + 3]]);
        let (len, number, kind, crc) = (word(0) as usize, word(4), chunk[8], word(12));
        if len > CHUNK_MAX {
            return Err(self.damaged(format!("a chunk of {len} bytes, the limit is {CHUNK_MAX}")));
        }
        let body = self.bytes(len)?;
        chunk.extend_from_slice(&body);
        let kind = match kind {
            1 => ChunkKind::Head,
            2 => ChunkKind::Part,
            3 => ChunkKind::End,
            other => return Err(self.damaged(format!("a chunk of kind {other}"))),
        };
        if checksum(&chunk) != crc {
            return Err(self.damaged("the checksum is another".to_owned()));
        }
        if number != self.count {
            return Err(self.damaged(format!("chunk {number} stands in the place of chunk {}", self.count)));
        }
        self.count += 1;
        Ok((kind, body))
    }

    fn bytes(&mut self, len: usize) -> Result<Vec<u8>, FileError> {
        if self.len - self.at < len as u64 {
            return Err(self.damaged(format!("the file ends, {len} bytes are missing")));
        }
        let mut bytes = vec![0; len];
        self.file.read_at(&mut bytes, self.at).map_err(FileError::io(&self.name))?;
        self.at += len as u64;
        Ok(bytes)
    }
}

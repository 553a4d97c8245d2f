//! The files of the log: segments in use, spares, and the one that is being filled with zeros.
//!
//! `log-<generation>` is a segment in use, `spare-<number>` one that is ready to be used, `filling` one that is not
//! ready. A file is filled with zeros once, so that writing to it later changes nothing but its bytes, and is given a
//! higher generation, by its name, each time it is used again.
//!
//! Two spares are wanted. The log never takes the last one: an opening may need a segment to bring what it found to
//! safety, and must not fail because the disk is full.

use std::collections::BTreeMap;
use std::io;

use super::fs::{Fs, FsFile, is_full};

/// Spares that are kept ready.
const SPARES: usize = 2;
/// Bytes filled in one step. A step is synced, so it must not take long beside the groups.
pub(super) const FILL_STEP: usize = 1024 * 1024;
const FILLING: &str = "filling";
const SEGMENT: &str = "log-";
const SPARE: &str = "spare-";

/// Why there is no segment to be had.
#[derive(Debug)]
pub(super) enum SegmentError {
    /// The disk is full. Nothing was changed.
    Full,
    /// The system refused.
    Io(io::Error),
}

impl From<io::Error> for SegmentError {
    fn from(error: io::Error) -> Self {
        if is_full(&error) { Self::Full } else { Self::Io(error) }
    }
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Segments<F: Fs> {
    fs: F,
    size: u32,
    used: BTreeMap<u32, F::File>,
    spares: Vec<u64>,
    filling: Option<(F::File, u32)>,
    /// The highest generation and spare number that were ever used here.
    last: (u32, u64),
    full: bool,
}

/// The name of a segment in use.
pub fn segment_name(generation: u32) -> String {
    format!("{SEGMENT}{generation:08x}")
}

/// The generation in the name of a segment in use.
pub fn segment_generation(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(SEGMENT)?;
    u32::from_str_radix(digits, 16).ok().filter(|&generation| segment_name(generation) == name)
}

/// Whether a file of this name is, or is being made, a segment that is ready to be used.
pub fn is_spare(name: &str) -> bool {
    name == FILLING || spare_number(name).is_some()
}

fn spare_name(number: u64) -> String {
    format!("{SPARE}{number:016x}")
}

fn spare_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(SPARE)?;
    u64::from_str_radix(digits, 16).ok().filter(|&number| spare_name(number) == name)
}

impl<F: Fs> Segments<F> {
    /// Finds the files. New ones get `size` bytes; a spare of another size is of no use.
    pub(super) fn open(fs: F, size: u32) -> io::Result<Self> {
        let mut found =
            Self { fs, size, used: BTreeMap::new(), spares: Vec::new(), filling: None, last: (0, 0), full: false };
        for name in found.fs.list()? {
            if let Some(generation) = segment_generation(&name) {
                found.used.insert(generation, found.fs.open(&name)?);
                found.last.0 = found.last.0.max(generation);
            } else if let Some(number) = spare_number(&name) {
                found.last.1 = found.last.1.max(number);
                if found.fs.open(&name)?.len()? == u64::from(size) {
                    found.spares.push(number);
                } else {
                    found.fs.remove(&name)?;
                }
            } else if name == FILLING {
                found.fs.remove(&name)?;
            }
        }
        Ok(found)
    }

    /// A segment in use, to be written.
    pub(super) fn writable(&self, generation: u32) -> io::Result<F::File> {
        self.fs.open_durable(&segment_name(generation))
    }

    /// The segments in use by generation.
    pub(super) fn used(&self) -> &BTreeMap<u32, F::File> {
        &self.used
    }

    /// Bytes of a new segment.
    pub(super) fn size(&self) -> usize {
        self.size as usize
    }

    /// Whether the disk was full when a spare was to be made.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Whether there are fewer spares than there should be.
    pub(super) fn wants_spare(&self) -> bool {
        self.spares.len() < SPARES
    }

    /// Takes a spare into use, of which `keep` others must be left. Its generation. Its name is durable then.
    pub(super) fn begin(&mut self, keep: usize) -> Result<u32, SegmentError> {
        while self.spares.len() <= keep {
            self.fill()?;
        }
        let (Some(generation), Some(spare)) = (self.last.0.checked_add(1), self.spares.last().copied()) else {
            return Err(SegmentError::Io(io::Error::other("all generations of segments are used up")));
        };
        let name = segment_name(generation);
        self.fs.rename(&spare_name(spare), &name)?;
        self.spares.pop();
        self.fs.sync_dir().map_err(SegmentError::Io)?;
        let file = self.fs.open(&name).map_err(SegmentError::Io)?;
        self.last.0 = generation;
        self.used.insert(generation, file);
        Ok(generation)
    }

    /// Puts a segment out of use. What it holds must no longer be needed, even if the power fails now.
    pub(super) fn free(&mut self, generation: u32) -> io::Result<()> {
        let Some(file) = self.used.remove(&generation) else { return Ok(()) };
        let name = segment_name(generation);
        if self.wants_spare() && file.len()? == u64::from(self.size) {
            self.last.1 += 1;
            self.fs.rename(&name, &spare_name(self.last.1))?;
            self.spares.push(self.last.1);
        } else {
            self.fs.remove(&name)?;
        }
        // There may be space again; the next step finds out.
        self.full &= self.wants_spare();
        Ok(())
    }

    /// One step towards a further spare, if one is wanted.
    pub(super) fn fill(&mut self) -> Result<(), SegmentError> {
        let done = self.fill_step();
        self.full = matches!(done, Err(SegmentError::Full));
        if self.full && self.filling.take().is_some() {
            // Others may have more use for the space that was not enough.
            self.fs.remove(FILLING)?;
        }
        done
    }

    fn fill_step(&mut self) -> Result<(), SegmentError> {
        let (file, from) = match self.filling.take() {
            Some(filling) => filling,
            None => (self.fs.create(FILLING)?, 0),
        };
        let len = FILL_STEP.min((self.size - from) as usize);
        self.filling = Some((file.clone(), from + len as u32));
        file.write_at(&vec![0; len], from.into())?;
        file.sync()?;
        if from + len as u32 == self.size {
            self.filling = None;
            self.last.1 += 1;
            self.fs.rename(FILLING, &spare_name(self.last.1))?;
            self.fs.sync_dir()?;
            self.spares.push(self.last.1);
        }
        Ok(())
    }
}

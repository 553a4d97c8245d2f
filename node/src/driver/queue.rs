//! What waits to be written on one connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::{Buf, Bytes, BytesMut};

/// Pieces given to one vectored write.
const PIECES_MAX: usize = 64;
/// A shared frame below this is copied: a piece of its own costs the kernel more than the copy costs us.
const SHARE_MIN: usize = 512;
/// Places for pieces that an emptied queue may keep.
const KEEP_PIECES: usize = 16;

/// Emptied tail buffers, so that a busy connection allocates nothing and an idle one keeps nothing.
#[derive(Debug, Default)]
pub(super) struct Spares(Vec<BytesMut>);

impl Spares {
    const COUNT_MAX: usize = 64;
    const CAPACITY_MIN: usize = 1024;
    const CAPACITY_MAX: usize = 256 * 1024;

    fn take(&mut self) -> BytesMut {
        self.0.pop().unwrap_or_default()
    }

    fn give(&mut self, mut buffer: BytesMut) {
        let useful = (Self::CAPACITY_MIN..=Self::CAPACITY_MAX).contains(&buffer.capacity());
        if useful && self.0.len() < Self::COUNT_MAX {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

/// What one vectored write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// Bytes the socket took.
    pub(super) taken: usize,
    /// Bytes it was given, perhaps not all there are.
    pub(super) offered: usize,
}

/// Output of one connection, in order: `pieces`, then `tail`.
#[derive(Debug, Default)]
pub(super) struct OutQueue {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl OutQueue {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Queues what `fill` appends.
    pub(super) fn push_with(&mut self, spares: &mut Spares, fill: impl FnOnce(&mut BytesMut)) {
        if self.tail.capacity() == 0 {
            self.tail = spares.take();
        }
        let before = self.tail.len();
        fill(&mut self.tail);
        self.len += self.tail.len() - before;
    }

    /// Queues a frame that other connections share.
    pub(super) fn push_shared(&mut self, spares: &mut Spares, bytes: Bytes) {
        if bytes.len() < SHARE_MIN {
            return self.push_with(spares, |tail| tail.extend_from_slice(&bytes));
        }
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
        self.len += bytes.len();
        self.pieces.push_back(bytes);
    }

    /// Writes once, and forgets what was taken.
    pub(super) fn write_to(&mut self, socket: &mut impl Write, spares: &mut Spares) -> io::Result<Written> {
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let mut count = 0;
        let mut offered = 0;
        for piece in self.pieces.iter().map(|piece| &piece[..]).chain([&self.tail[..]]).take(PIECES_MAX) {
            slices[count] = IoSlice::new(piece);
            count += 1;
            offered += piece.len();
        }
        let taken = socket.write_vectored(&slices[..count])?;
        self.forget(taken, spares);
        Ok(Written { taken, offered })
    }

    /// Drops the first `written` bytes.
    fn forget(&mut self, written: usize, spares: &mut Spares) {
        self.len -= written;
        let mut left = written;
        while let Some(front) = self.pieces.front_mut() {
            if left < front.len() {
                front.advance(left);
                return;
            }
            left -= front.len();
            self.pieces.pop_front();
        }
        if left < self.tail.len() {
            self.tail.advance(left);
            return;
        }
        // Clearing, unlike advancing, keeps the whole buffer for its next use.
        self.tail.clear();
        if self.is_empty() {
            spares.give(std::mem::take(&mut self.tail));
            if self.pieces.capacity() > KEEP_PIECES {
                self.pieces = VecDeque::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes at most `step` bytes a call.
    struct Narrow {
        step: usize,
        taken: Vec<u8>,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }
        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let before = self.taken.len();
            for slice in slices {
                let room = self.step - (self.taken.len() - before);
                self.taken.extend_from_slice(&slice[..slice.len().min(room)]);
            }
            Ok(self.taken.len() - before)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn pattern(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 + seed) as u8).collect()
    }

    #[test]
    fn order_is_kept_however_little_the_socket_takes() {
        for step in [1, 7, 511, 512, 513, 4_000, 1_000_000] {
            let mut spares = Spares::default();
            let mut queue = OutQueue::default();
            let mut socket = Narrow { step, taken: Vec::new() };
            let mut expected = Vec::new();
            for round in 0..200 {
                let small = pattern(round % 90 + 1, round);
                queue.push_with(&mut spares, |tail| tail.extend_from_slice(&small));
                expected.extend_from_slice(&small);
                let shared = pattern(if round % 3 == 0 { 2_000 } else { 40 }, round + 1);
                queue.push_shared(&mut spares, Bytes::from(shared.clone()));
                expected.extend_from_slice(&shared);
                if round % 5 == 0 {
                    queue.write_to(&mut socket, &mut spares).unwrap();
                }
                assert_eq!(queue.len(), expected.len() - socket.taken.len());
            }
            while !queue.is_empty() {
                queue.write_to(&mut socket, &mut spares).unwrap();
            }
            assert!(socket.taken == expected, "step {step}");
        }
    }

    #[test]
    fn an_empty_queue_keeps_no_buffer_and_a_spare_is_used_again() {
        let mut spares = Spares::default();
        let mut queue = OutQueue::default();
        let mut socket = Narrow { step: 1_000_000, taken: Vec::new() };
        queue.push_with(&mut spares, |tail| tail.extend_from_slice(&pattern(5_000, 1)));
        let place = queue.tail.as_ptr();
        queue.write_to(&mut socket, &mut spares).unwrap();
        assert_eq!(queue.tail.capacity(), 0);
        queue.push_with(&mut spares, |tail| tail.extend_from_slice(b"again"));
        assert_eq!(queue.tail.as_ptr(), place);
    }
}

//! CRC-32C of what is short, as most frames and records are.

/// CRC-32C of `head` and, behind it, `tail`.
pub fn crc32c(head: &[u8], tail: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if head.len() + tail.len() <= short::LEN_MAX && std::arch::is_x86_feature_detected!("sse4.2") {
        #[allow(unsafe_code, reason = "only the processor can be asked whether it has an instruction")]
        // SAFETY: the processor has just said that it has the instructions of SSE 4.2, which is all that is asked for.
        return unsafe { short::crc32c(head, tail) };
    }
    crc32c::crc32c_append(crc32c::crc32c(head), tail)
}

/// A word at a time, wherever it lies. The library goes byte by byte up to the next aligned word, and again behind the last
/// one: with the 40 to 200 bytes that frames usually have that takes more than twice as long. It is ahead where it can run
/// three sums at once, from about a thousand bytes on.
#[cfg(target_arch = "x86_64")]
mod short {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};

    /// Longer ones are left to the library.
    pub(super) const LEN_MAX: usize = 1_024;

    #[target_feature(enable = "sse4.2")]
    pub(super) fn crc32c(head: &[u8], tail: &[u8]) -> u32 {
        !add(add(!0, head), tail)
    }

    #[target_feature(enable = "sse4.2")]
    fn add(mut sum: u32, bytes: &[u8]) -> u32 {
        let (words, mut rest) = bytes.as_chunks::<8>();
        for word in words {
            // The upper half of this result is always zero.
            sum = _mm_crc32_u64(sum.into(), u64::from_le_bytes(*word)) as u32;
        }
        if let Some((half, behind)) = rest.split_first_chunk::<4>() {
            sum = _mm_crc32_u32(sum, u32::from_le_bytes(*half));
            rest = behind;
        }
        rest.iter().fold(sum, |sum, byte| _mm_crc32_u8(sum, *byte))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn it_is_crc_32c() {
        // The check value of the catalogue of CRC algorithms, and of the standard of iSCSI (RFC 3720, B.4).
        assert_eq!(super::crc32c(b"", b"123456789"), 0xE306_9283);
        assert_eq!(super::crc32c(&[0; 16], &[0; 16]), 0x8A91_36AA);
        assert_eq!(super::crc32c(&[0xFF; 31], &[0xFF]), 0x62A8_AB43);
    }

    proptest! {
        #[test]
        fn it_is_the_librarys(bytes in prop::collection::vec(any::<u8>(), 0..1_500), skip in 0..16_usize, at in any::<prop::sample::Index>()) {
            let bytes = bytes.get(skip..).unwrap_or_default();
            let (head, tail) = bytes.split_at(at.index(bytes.len() + 1));
            prop_assert_eq!(super::crc32c(head, tail), crc32c::crc32c(bytes));
        }
    }
}

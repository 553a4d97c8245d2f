//! Bodies to bytes and back. The only module that names the library which does it.
//!
//! The layout: integers little-endian at their fixed width, an enum's variant as a `u32`, a list or text as a `u64`
//! count and its items, an `Option` as one byte 0 or 1, structs and tuples as their fields in order with nothing between.

use bincode::config::{Configuration, Fixint, LittleEndian};
use bincode::error::DecodeError;
use bincode::{BorrowDecode, Decode, Encode};
use bytes::BytesMut;

const CONFIG: Configuration<LittleEndian, Fixint> =
    bincode::config::standard().with_little_endian().with_fixed_int_encoding();

/// Why a body is not the message its kind says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The body ends within a field.
    #[error("the body ends {missing} bytes too early")]
    Short {
        /// Bytes still wanted by the field, at least.
        missing: usize,
    },
    /// The message was complete before the body's end.
    #[error("{extra} bytes follow the message in its body")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// A field has a value it may not have; the text names the limit.
    #[error("{0}")]
    Value(String),
}

/// Appends `value` to `out`.
pub fn encode_to<T: Encode>(value: &T, out: &mut BytesMut) {
    struct Writer<'a>(&'a mut BytesMut);
    impl bincode::enc::write::Writer for Writer<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }
    // The writer never fails and no type of ours refuses to be encoded.
    let done = bincode::encode_into_writer(value, Writer(out), CONFIG);
    debug_assert!(done.is_ok(), "encoding cannot fail: {done:?}");
}

/// `value` as bytes.
pub fn encode<T: Encode>(value: &T) -> bytes::Bytes {
    let mut out = BytesMut::new();
    encode_to(value, &mut out);
    out.freeze()
}

/// Reads a value that fills `body` exactly.
pub fn decode<T: Decode<()>>(body: &[u8]) -> Result<T, BodyError> {
    let (value, used) = decode_prefix(body)?;
    match body.len() - used {
        0 => Ok(value),
        extra => Err(BodyError::Trailing { extra }),
    }
}

/// Reads a value that fills `body` exactly and borrows from it.
///
/// # Errors
/// As [`decode`].
pub fn decode_lent<'a, T: BorrowDecode<'a, ()>>(body: &'a [u8]) -> Result<T, BodyError> {
    let (value, used) = bincode::borrow_decode_from_slice(body, CONFIG).map_err(body_error)?;
    match body.len() - used {
        0 => Ok(value),
        extra => Err(BodyError::Trailing { extra }),
    }
}

/// Reads a value from the start of `body` and says how many bytes it took.
pub fn decode_prefix<T: Decode<()>>(body: &[u8]) -> Result<(T, usize), BodyError> {
    bincode::decode_from_slice(body, CONFIG).map_err(body_error)
}

fn body_error(error: DecodeError) -> BodyError {
    match error {
        DecodeError::UnexpectedEnd { additional } => BodyError::Short { missing: additional },
        other => BodyError::Value(describe(other)),
    }
}

/// The library's errors in words for a person who knows the protocol and not the library.
fn describe(error: DecodeError) -> String {
    match error {
        DecodeError::OtherString(text) => text,
        DecodeError::InvalidBooleanValue(found) => format!("a bool is 0 or 1, not {found}"),
        DecodeError::UnexpectedVariant { found, .. } => {
            format!("{found} is not a tag of the enum or option it stands for")
        }
        DecodeError::Utf8 { inner } => format!("a text is not UTF-8: {inner}"),
        other => other.to_string(),
    }
}

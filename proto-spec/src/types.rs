//! Values with a bound in their type: decoding checks the bound before anything is allocated.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bincode::de::read::{BorrowReader, Reader};
use bincode::de::{BorrowDecode, BorrowDecoder, Decode, Decoder};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};

use crate::limits::{BOOK_ID_LEN_MAX, DETAIL_LEN_MAX, TITLE_LEN_MAX, TOPIC_LEN_MAX};

/// Why a text is not the value it should be. The message names the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// No bytes at all.
    #[error("{0} must not be empty")]
    Empty(&'static str),
    /// More bytes than allowed.
    #[error("{what} has {len} bytes, the limit is {max}")]
    TooLong {
        /// What was too long.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// A byte outside the allowed alphabet.
    #[error("{what} has the character {found:?} at position {at}; allowed are A-Z a-z 0-9 . _ -")]
    BadCharacter {
        /// What holds it.
        what: &'static str,
        /// The character.
        found: char,
        /// Its byte offset, from 0.
        at: usize,
    },
    /// Control characters would spoil terminals and line-based formats.
    #[error("{0} must not hold control characters")]
    Control(&'static str),
}

/// A UTF-8 text of at most `N` bytes, kept inline: decoding it allocates nothing.
#[derive(Clone, Copy)]
pub struct InlineStr<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> InlineStr<N> {
    const FITS: () = assert!(N <= u8::MAX as usize);

    /// The empty text.
    pub const EMPTY: Self = Self { len: 0, bytes: [0; N] };

    /// Takes `text`, or `None` when it is longer than `N` bytes.
    pub fn new(text: &str) -> Option<Self> {
        let () = Self::FITS;
        if text.len() > N {
            return None;
        }
        let mut bytes = [0; N];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Some(Self { len: text.len() as u8, bytes })
    }

    /// Takes as much of `text` as fits, cut at a character.
    pub fn truncated(text: &str) -> Self {
        Self::new(cut(text, N)).unwrap_or(Self::EMPTY)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Checked when the value was made.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The text's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The longest prefix of `text` of at most `max` bytes that ends between two characters.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl<const N: usize> Default for InlineStr<N> {
    fn default() -> Self {
        Self::EMPTY
    }
}
impl<const N: usize> Deref for InlineStr<N> {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}
impl<const N: usize> PartialEq for InlineStr<N> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes[..usize::from(self.len)] == other.bytes[..usize::from(other.len)]
    }
}
impl<const N: usize> Eq for InlineStr<N> {}
impl<const N: usize> PartialOrd for InlineStr<N> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<const N: usize> Ord for InlineStr<N> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}
impl<const N: usize> Hash for InlineStr<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}
impl<const N: usize> fmt::Debug for InlineStr<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
impl<const N: usize> fmt::Display for InlineStr<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
impl<const N: usize> serde::Serialize for InlineStr<N> {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}
impl<const N: usize> Encode for InlineStr<N> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_str().encode(encoder)
    }
}
impl<const N: usize, C> Decode<C> for InlineStr<N> {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let () = Self::FITS;
        let len = decode_len(decoder, N)?;
        let mut bytes = [0; N];
        decoder.reader().read(&mut bytes[..len])?;
        check_utf8(&bytes[..len])?;
        Ok(Self { len: len as u8, bytes })
    }
}
impl<'de, const N: usize, C> BorrowDecode<'de, C> for InlineStr<N> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Decode::decode(decoder)
    }
}

/// Reads a length and refuses it when it is above `max`, before anything is allocated for it.
fn decode_len<D: Decoder>(decoder: &mut D, max: usize) -> Result<usize, DecodeError> {
    let len = u64::decode(decoder)?;
    match usize::try_from(len) {
        Ok(len) if len <= max => Ok(len),
        _ => Err(DecodeError::OtherString(format!("a length of {len} is above its limit of {max}"))),
    }
}

fn check_utf8(bytes: &[u8]) -> Result<(), DecodeError> {
    std::str::from_utf8(bytes).map(|_| ()).map_err(|inner| DecodeError::Utf8 { inner })
}

/// A UTF-8 text of at most `N` bytes on the heap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
#[serde(transparent)]
pub struct Text<const N: usize>(Box<str>);

impl<const N: usize> Text<N> {
    /// Takes `text`, or `None` when it is longer than `N` bytes.
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= N).then(|| Self(text.into()))
    }
    /// Takes as much of `text` as fits, cut at a character.
    pub fn truncated(text: &str) -> Self {
        Self(cut(text, N).into())
    }
}
impl<const N: usize> Deref for Text<N> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}
impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl<const N: usize> Encode for Text<N> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.encode(encoder)
    }
}
impl<const N: usize, C> Decode<C> for Text<N> {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = decode_len(decoder, N)?;
        let mut bytes = vec![0; len];
        decoder.reader().read(&mut bytes)?;
        let text = String::from_utf8(bytes).map_err(|e| DecodeError::Utf8 { inner: e.utf8_error() })?;
        Ok(Self(text.into_boxed_str()))
    }
}
impl<'de, const N: usize, C> BorrowDecode<'de, C> for Text<N> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Decode::decode(decoder)
    }
}

/// A title; see [`title`] for what makes one valid.
pub type Title = Text<TITLE_LEN_MAX>;
/// A topic; see [`topic`] for what makes one valid.
pub type Topic = InlineStr<TOPIC_LEN_MAX>;
/// The explanation in an error.
pub type Detail = Text<DETAIL_LEN_MAX>;
/// The name of a node or of a client's program.
pub type Name = InlineStr<{ crate::limits::NAME_LEN_MAX }>;

/// Checks and takes a title: 1 to 512 bytes, no control characters.
pub fn title(text: &str) -> Result<Title, ValueError> {
    check_text("a title", text, TITLE_LEN_MAX)?;
    Ok(Title::truncated(text))
}

/// Checks and takes a topic: 1 to 64 bytes, no control characters.
pub fn topic(text: &str) -> Result<Topic, ValueError> {
    check_text("a topic", text, TOPIC_LEN_MAX)?;
    Ok(Topic::truncated(text))
}

fn check_text(what: &'static str, text: &str, max: usize) -> Result<(), ValueError> {
    if text.is_empty() {
        Err(ValueError::Empty(what))
    } else if text.len() > max {
        Err(ValueError::TooLong { what, len: text.len(), max })
    } else if text.chars().any(char::is_control) {
        Err(ValueError::Control(what))
    } else {
        Ok(())
    }
}

/// The id of a book: 1 to 64 bytes of `[A-Za-z0-9._-]`. Every value of this type is valid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BookId(InlineStr<BOOK_ID_LEN_MAX>);

impl BookId {
    /// Checks and takes `text`.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        const WHAT: &str = "a book id";
        match InlineStr::new(text) {
            Some(inline) if Self::are_valid(text.as_bytes()) => return Ok(Self(inline)),
            None => return Err(ValueError::TooLong { what: WHAT, len: text.len(), max: BOOK_ID_LEN_MAX }),
            Some(_) => {}
        }
        let wrong = text.char_indices().find(|(_, c)| !c.is_ascii() || !is_id_byte(*c as u8));
        Err(wrong.map_or(ValueError::Empty(WHAT), |(at, found)| ValueError::BadCharacter { what: WHAT, found, at }))
    }

    /// Whether these bytes, which are not longer than an id may be, are an id's.
    fn are_valid(bytes: &[u8]) -> bool {
        !bytes.is_empty() && bytes.iter().all(|byte| is_id_byte(*byte))
    }
    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
    /// The id's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

impl Deref for BookId {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}
impl Borrow<str> for BookId {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}
impl fmt::Debug for BookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
impl fmt::Display for BookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
impl std::str::FromStr for BookId {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::new(text)
    }
}
impl serde::Serialize for BookId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}
impl<'de> serde::Deserialize<'de> for BookId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}
impl Encode for BookId {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.encode(encoder)
    }
}
impl<C> Decode<C> for BookId {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = decode_len(decoder, BOOK_ID_LEN_MAX)?;
        let mut bytes = [0; BOOK_ID_LEN_MAX];
        decoder.reader().read(&mut bytes[..len])?;
        if Self::are_valid(&bytes[..len]) {
            // What an id is made of is UTF-8.
            return Ok(Self(InlineStr { len: len as u8, bytes }));
        }
        let text = std::str::from_utf8(&bytes[..len]).map_err(|inner| DecodeError::Utf8 { inner })?;
        Self::new(text).map_err(|e| DecodeError::OtherString(e.to_string()))
    }
}
impl<'de, C> BorrowDecode<'de, C> for BookId {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Decode::decode(decoder)
    }
}

/// A list of at most `N` values. The count is checked before the first is read, and room is made only as they come.
#[derive(Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Bounded<T, const N: usize>(Vec<T>);

impl<T, const N: usize> Bounded<T, N> {
    /// Takes `items`, or gives them back when there are more than `N`.
    pub fn new(items: Vec<T>) -> Result<Self, Vec<T>> {
        if items.len() <= N { Ok(Self(items)) } else { Err(items) }
    }
    /// Takes the first `N` of `items`.
    pub fn truncated(mut items: Vec<T>) -> Self {
        items.truncate(N);
        Self(items)
    }
    /// The values.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}
impl<T: fmt::Debug, const N: usize> fmt::Debug for Bounded<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl<T, const N: usize> Default for Bounded<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}
impl<T, const N: usize> Deref for Bounded<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}
impl<'a, T, const N: usize> IntoIterator for &'a Bounded<T, N> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
impl<'de, T: serde::Deserialize<'de>, const N: usize> serde::Deserialize<'de> for Bounded<T, N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let too_many = |items: Vec<T>| format!("a list of {} is above its limit of {N}", items.len());
        Self::new(Vec::deserialize(deserializer)?).map_err(|items| serde::de::Error::custom(too_many(items)))
    }
}
impl<T: Encode, const N: usize> Encode for Bounded<T, N> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.encode(encoder)
    }
}
/// Values reserved ahead of their bytes; a longer list grows as it is read.
const RESERVE_MAX: usize = 64;

impl<T: Decode<C>, const N: usize, C> Decode<C> for Bounded<T, N> {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = decode_len(decoder, N)?;
        let mut items = Vec::with_capacity(len.min(RESERVE_MAX));
        for _ in 0..len {
            items.push(T::decode(decoder)?);
        }
        Ok(Self(items))
    }
}
impl<'de, T: BorrowDecode<'de, C>, const N: usize, C> BorrowDecode<'de, C> for Bounded<T, N> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = decode_len(decoder, N)?;
        let mut items = Vec::with_capacity(len.min(RESERVE_MAX));
        for _ in 0..len {
            items.push(T::borrow_decode(decoder)?);
        }
        Ok(Self(items))
    }
}

/// At most `N` opaque bytes.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Blob<const N: usize>(bytes::Bytes);

impl<const N: usize> Blob<N> {
    /// Takes `bytes`, or `None` when there are more than `N`.
    pub fn new(bytes: bytes::Bytes) -> Option<Self> {
        (bytes.len() <= N).then_some(Self(bytes))
    }
    /// The bytes, shared.
    pub fn bytes(&self) -> &bytes::Bytes {
        &self.0
    }
    /// The bytes, taken.
    pub fn into_bytes(self) -> bytes::Bytes {
        self.0
    }
}
impl<const N: usize> fmt::Debug for Blob<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
impl<const N: usize> Deref for Blob<N> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}
impl<const N: usize> Encode for Blob<N> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.as_ref().encode(encoder)
    }
}
impl<const N: usize, C> Decode<C> for Blob<N> {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = decode_len(decoder, N)?;
        // A body never claims more than its own frame holds: peek before making room.
        if decoder.reader().peek_read(len).is_none() && len > 0 {
            return Err(DecodeError::UnexpectedEnd { additional: len });
        }
        let mut bytes = vec![0; len];
        decoder.reader().read(&mut bytes)?;
        Ok(Self(bytes.into()))
    }
}
impl<'de, const N: usize, C> BorrowDecode<'de, C> for Blob<N> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Decode::decode(decoder)
    }
}

/// At most `N` opaque bytes, lent: in bytes it is a [`Blob`].
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Lent<'a, const N: usize>(&'a [u8]);

impl<'a, const N: usize> Lent<'a, N> {
    /// Takes `bytes`, or `None` when there are more than `N`.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() <= N).then_some(Self(bytes))
    }
    /// The bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }
}
impl<const N: usize> fmt::Debug for Lent<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
impl<const N: usize> Encode for Lent<'_, N> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.encode(encoder)
    }
}
impl<'de, const N: usize, C> BorrowDecode<'de, C> for Lent<'de, N> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = decode_len(decoder, N)?;
        decoder.borrow_reader().take_bytes(len).map(Self)
    }
}

//! The protocol of Redis, as far as it is spoken here: commands, and the replies that are no lists.

use bytes::BytesMut;

/// A reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// A word, such as `OK`.
    Simple(&'a [u8]),
    /// A refusal.
    Error(&'a [u8]),
    /// A number.
    Int(i64),
    /// Bytes.
    Bulk(&'a [u8]),
    /// Nothing there.
    Nil,
}

impl Reply<'_> {
    /// For an error's text.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Simple(bytes) | Self::Error(bytes) | Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Int(number) => number.to_string(),
            Self::Nil => "nothing".into(),
        }
    }
}

/// Appends a command.
pub(super) fn put(out: &mut BytesMut, words: &[&[u8]]) {
    put_head(out, b'*', words.len());
    for word in words {
        put_head(out, b'$', word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

fn put_head(out: &mut BytesMut, kind: u8, number: usize) {
    out.extend_from_slice(&[kind]);
    out.extend_from_slice(number.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The reply at the start of `bytes` and its length; `None` while its end is still to come.
///
/// # Errors
/// When the bytes are no reply.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, String> {
    let Some(line_len) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let after_line = line_len + 1;
    let line = bytes[..line_len].strip_suffix(b"\r").ok_or("a line without its carriage return")?;
    let (kind, rest) = line.split_first().ok_or("an empty line")?;
    let reply = match kind {
        b'+' => Reply::Simple(rest),
        b'-' => Reply::Error(rest),
        b':' => Reply::Int(number(rest)?),
        b'$' => match number(rest)? {
            -1 => Reply::Nil,
            len => {
                let len = usize::try_from(len).map_err(|_| "a value of negative length")?;
                let end = after_line + len;
                return match bytes.get(end..end + 2) {
                    None => Ok(None),
                    Some(b"\r\n") => Ok(Some((Reply::Bulk(&bytes[after_line..end]), end + 2))),
                    Some(_) => Err("a value that is longer than it says".into()),
                };
            }
        },
        other => return Err(format!("a reply of kind {:?}", char::from(*other))),
    };
    Ok(Some((reply, after_line)))
}

fn number(text: &[u8]) -> Result<i64, String> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| format!("{:?} is no number", String::from_utf8_lossy(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_written_as_redis_reads_it() {
        let mut out = BytesMut::new();
        put(&mut out, &[b"GET", b"a book"]);
        assert_eq!(&out[..], b"*2\r\n$3\r\nGET\r\n$6\r\na book\r\n");
    }

    #[test]
    fn replies_are_read_one_after_the_other_and_only_whole() {
        let all: &[u8] = b"+OK\r\n:-7\r\n$5\r\na\r\nb\n\r\n$-1\r\n$0\r\n\r\n-NOSCRIPT none\r\n";
        let expected = [
            Reply::Simple(b"OK"),
            Reply::Int(-7),
            Reply::Bulk(b"a\r\nb\n"),
            Reply::Nil,
            Reply::Bulk(b""),
            Reply::Error(b"NOSCRIPT none"),
        ];
        let mut at = 0;
        for reply in expected {
            let (found, len) = parse(&all[at..]).unwrap().unwrap();
            assert_eq!(found, reply);
            for cut in 0..len {
                assert_eq!(parse(&all[at..at + cut]).unwrap(), None, "{found:?} cut at {cut}");
            }
            at += len;
        }
        assert_eq!(at, all.len());
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bad in [&b"hello\r\n"[..], b"\r\n", b"+OK\n", b":x\r\n", b"$-2\r\n", b"$1\r\nabc", b"*1\r\n"] {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}

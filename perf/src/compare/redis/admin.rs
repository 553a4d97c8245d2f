//! One blocking connection to Redis, for what is done before a load and asked around it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Buf, BytesMut};

use super::resp::{self, Reply};
use crate::error::Error;

/// Time after which a server that says nothing counts as gone.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The connection.
#[derive(Debug)]
pub(super) struct Admin {
    address: SocketAddr,
    stream: TcpStream,
    read: BytesMut,
}

impl Admin {
    /// Connects to a server that need not be there yet.
    pub(super) fn connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, SILENCE_MAX).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(SILENCE_MAX)).ok()?;
        Some(Self { address, stream, read: BytesMut::new() })
    }

    /// Says one thing; what is answered, as text.
    ///
    /// # Errors
    /// When it is refused, or not answered.
    pub(super) fn ask(&mut self, words: &[&str]) -> Result<String, Error> {
        let answers = self.ask_all(std::iter::once(words.iter().map(|word| word.to_string()).collect()))?;
        Ok(answers.into_iter().next().unwrap_or_default())
    }

    /// Says many things at once; what is answered to each, as text.
    ///
    /// # Errors
    /// When one is refused, or not answered.
    pub(super) fn ask_all(&mut self, commands: impl Iterator<Item = Vec<String>>) -> Result<Vec<String>, Error> {
        let mut out = BytesMut::new();
        let mut count = 0;
        for words in commands {
            resp::put(&mut out, &words.iter().map(String::as_bytes).collect::<Vec<_>>());
            count += 1;
        }
        self.stream.write_all(&out).map_err(|error| self.lost(&error.to_string()))?;
        (0..count).map(|_| self.answer()).collect()
    }

    fn answer(&mut self) -> Result<String, Error> {
        let mut scratch = [0; 16 * 1024];
        loop {
            match resp::parse(&self.read) {
                Err(why) => return Err(self.lost(&why)),
                Ok(Some((Reply::Error(why), _))) => return Err(self.lost(&String::from_utf8_lossy(why))),
                Ok(Some((reply, len))) => {
                    let text = reply.text();
                    self.read.advance(len);
                    return Ok(text);
                }
                Ok(None) => match self.stream.read(&mut scratch) {
                    Ok(0) => return Err(self.lost("it closed the connection")),
                    Ok(len) => self.read.extend_from_slice(&scratch[..len]),
                    Err(error) => return Err(self.lost(&error.to_string())),
                },
            }
        }
    }

    fn lost(&self, why: &str) -> Error {
        Error::Unreachable { address: self.address.to_string(), why: why.into() }
    }

    /// A field of `INFO`.
    ///
    /// # Errors
    /// When it is not answered.
    pub(super) fn info(&mut self, name: &str) -> Result<String, Error> {
        self.ask(&["INFO", "everything"]).map(|text| field(&text, name).unwrap_or_default().to_string())
    }
}

/// The value of a line `name:value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| *key == name).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "# Replication\r\nslave_count:3\r\ncount:2\r\nslave0:ip=127.0.0.1,state=online\r\n";
        assert_eq!(field(text, "count"), Some("2"));
        assert_eq!(field(text, "slave0"), Some("ip=127.0.0.1,state=online"));
        assert_eq!(field(text, "slave1"), None);
    }
}

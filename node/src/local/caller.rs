//! A client for the little that `up` and `start` ask of nodes: one connection, one request at a time, blocking.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pygmy_proto::codec::BodyError;
use pygmy_proto::frame::{self, Deframer, Flow, FrameError};
use pygmy_proto::header::Kind;
use pygmy_proto::limits::{CLIENT_BODY_MAX, CREDENTIALS_LEN_MAX, VERSION};
use pygmy_proto::message::{Hello, HelloOk, Role};
use pygmy_proto::types::{Blob, Name};
use pygmy_proto::{ErrorBody, Message};

use crate::settings::ClusterSettings;

/// Longest wait for one step.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server refused.
    #[error("{0}")]
    Refused(ErrorBody),
    /// The server sent something that is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Or a body that is not what its kind says.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// Or another kind than was asked for.
    #[error("an answer of kind {0:#06x} was not asked for")]
    Kind(u16),
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Caller {
    socket: TcpStream,
    last_id: u64,
}

impl Caller {
    /// Connects to the server at `address` (`host:port`) of `cluster`.
    ///
    /// # Errors
    /// It is not there, or does not let us in.
    pub fn connect(address: &str, cluster: [u8; 16]) -> Result<Self, CallError> {
        Self::connect_with(address, cluster, Blob::default())
    }

    /// As [`Self::connect`], and shows the cluster's key, which changing the voters takes.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_as_member(address: &str, cluster: &ClusterSettings) -> Result<Self, CallError> {
        let key = Blob::new(Bytes::copy_from_slice(&cluster.key)).unwrap_or_default();
        Self::connect_with(address, cluster.id, key)
    }

    fn connect_with(
        address: &str,
        cluster: [u8; 16],
        credentials: Blob<CREDENTIALS_LEN_MAX>,
    ) -> Result<Self, CallError> {
        let socket = connect_any(&address.to_socket_addrs()?.collect::<Vec<_>>())?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut caller = Self { socket, last_id: 0 };
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            role: Role::Client,
            cluster,
            settings: 0,
            credentials,
            name: Name::truncated("pygmy-node"),
            replica: None,
        };
        caller.call::<_, HelloOk>(&hello)?;
        Ok(caller)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The connection failed, or the server refused.
    pub fn call<Q: Message, A: Message>(&mut self, question: &Q) -> Result<A, CallError> {
        self.last_id += 1;
        let mut bytes = BytesMut::new();
        frame::write(&mut bytes, self.last_id, 0, 0, question);
        self.socket.write_all(&bytes)?;
        self.answer()
    }

    fn answer<A: Message>(&mut self) -> Result<A, CallError> {
        let mut deframer = Deframer::new(CLIENT_BODY_MAX);
        let mut buffer = [0; 16 * 1024];
        let mut answer = None;
        while answer.is_none() {
            let count = self.socket.read(&mut buffer)?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            // Nothing is asked before the last answer has come, so nothing can follow it.
            deframer.feed(&buffer[..count], |_, frame| {
                answer = Some(match frame.kind() {
                    Some(kind) if kind == A::KIND => frame.decode::<A>().map_err(CallError::from),
                    Some(Kind::Error) => Err(frame.decode().map_or_else(CallError::from, CallError::Refused)),
                    _ => Err(CallError::Kind(frame.header.kind)),
                });
                Flow::Stop
            })?;
        }
        answer.unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()))
    }
}

fn connect_any(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, PATIENCE) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

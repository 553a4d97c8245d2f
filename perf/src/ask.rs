//! One blocking connection, for what is read before and after a run.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::BytesMut;
use pygmy_proto::frame::{self, Deframer, Flow, Frame};
use pygmy_proto::limits::{CLIENT_BODY_MAX, VERSION};
use pygmy_proto::message::{Hello, HelloOk, Message, Role};
use pygmy_proto::types::{Blob, Name};
use pygmy_proto::{ErrorBody, Kind};

use crate::error::Error;
use crate::target::{Server, resolve};

/// Time after which a server that says nothing counts as gone.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Requests that [`Asker::ask_each`] keeps in flight.
const WINDOW: usize = 256;

/// What this program says of itself when it connects.
pub fn hello() -> Hello {
    Hello {
        version_min: VERSION,
        version_max: VERSION,
        role: Role::Client,
        cluster: [0; 16],
        settings: 0,
        credentials: Blob::default(),
        name: Name::truncated("pygmy-perf"),
        replica: None,
    }
}

/// A connection on which one question is asked at a time, or many of a kind.
#[derive(Debug)]
pub struct Asker {
    address: String,
    stream: TcpStream,
    deframer: Deframer,
    /// Answers that came and were not yet taken: request id, kind, body.
    answers: Vec<(u64, u16, Vec<u8>)>,
    next_id: u64,
    node: u16,
}

impl Asker {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub fn connect(server: &Server) -> Result<Self, Error> {
        let address = server.address.clone();
        let stream = TcpStream::connect_timeout(&resolve(server)?, SILENCE_MAX)
            .and_then(|stream| {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(SILENCE_MAX))?;
                stream.set_write_timeout(Some(SILENCE_MAX))?;
                Ok(stream)
            })
            .map_err(|error| Error::Unreachable { address: address.clone(), why: error.to_string() })?;
        let deframer = Deframer::new(CLIENT_BODY_MAX);
        let mut asker = Self { address, stream, deframer, answers: Vec::new(), next_id: 0, node: 0 };
        asker.node = asker.ask::<_, HelloOk>(&hello())?.node;
        Ok(asker)
    }

    /// Number of the node at the other end.
    pub fn node(&self) -> u16 {
        self.node
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// When it is refused, or no answer comes.
    pub fn ask<Q: Message, A: Message>(&mut self, question: &Q) -> Result<A, Error> {
        let mut bytes = BytesMut::new();
        let id = self.put(question, &mut bytes);
        self.send(&bytes)?;
        loop {
            if let Some((found, kind, body)) = self.answers.pop() {
                if found == id || found == 0 {
                    return self.open::<A>(kind, &body)?.map_err(|error| self.refused(error));
                }
                continue;
            }
            self.receive()?;
        }
    }

    /// Asks many questions, several in flight; answers or refusals in the order of the questions.
    ///
    /// # Errors
    /// When answers stop coming.
    pub fn ask_each<Q: Message, A: Message>(
        &mut self,
        questions: impl ExactSizeIterator<Item = Q>,
    ) -> Result<Vec<Result<A, ErrorBody>>, Error> {
        let first_id = self.next_id + 1;
        let mut results: Vec<Option<Result<A, ErrorBody>>> = Vec::new();
        results.resize_with(questions.len(), || None);
        let (mut questions, mut in_flight) = (questions.fuse(), 0);
        loop {
            let mut bytes = BytesMut::new();
            while in_flight < WINDOW
                && let Some(question) = questions.next()
            {
                self.put(&question, &mut bytes);
                in_flight += 1;
            }
            if in_flight == 0 {
                let missing = || self.protocol("an answer is missing");
                return results.into_iter().map(|result| result.ok_or_else(missing)).collect();
            }
            self.send(&bytes)?;
            self.receive()?;
            for (id, kind, body) in std::mem::take(&mut self.answers) {
                let result = self.open(kind, &body)?;
                let place = id.checked_sub(first_id).and_then(|place| results.get_mut(usize::try_from(place).ok()?));
                *place.ok_or_else(|| self.protocol(&format!("request id {id} was not asked")))? = Some(result);
                in_flight -= 1;
            }
        }
    }

    /// A refusal by this connection's server that ends the run.
    pub fn refused(&self, error: ErrorBody) -> Error {
        Error::Refused { address: self.address.clone(), error: Box::new(error) }
    }

    fn put<Q: Message>(&mut self, question: &Q, bytes: &mut BytesMut) -> u64 {
        self.next_id += 1;
        frame::write(bytes, self.next_id, 0, 0, question);
        self.next_id
    }

    fn open<A: Message>(&self, kind: u16, body: &[u8]) -> Result<Result<A, ErrorBody>, Error> {
        let wrong = |error: pygmy_proto::codec::BodyError| self.protocol(&error.to_string());
        if kind == A::KIND as u16 {
            return pygmy_proto::codec::decode(body).map(Ok).map_err(wrong);
        }
        match Kind::from_u16(kind) {
            Some(Kind::Error) => pygmy_proto::codec::decode(body).map(Err).map_err(wrong),
            _ => Err(self.protocol(&format!("kind {kind:#06x} is no answer to {:?}", A::KIND))),
        }
    }

    fn protocol(&self, why: &str) -> Error {
        Error::Unreachable { address: self.address.clone(), why: format!("it does not speak the protocol: {why}") }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.stream.write_all(bytes).map_err(|error| self.lost(&error))
    }

    fn lost(&self, error: &std::io::Error) -> Error {
        Error::Unreachable { address: self.address.clone(), why: error.to_string() }
    }

    /// Waits for more bytes and keeps the answers in them.
    fn receive(&mut self) -> Result<(), Error> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let len = match self.stream.read(&mut buffer) {
                Ok(0) => return Err(self.lost(&std::io::ErrorKind::UnexpectedEof.into())),
                Ok(len) => len,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.lost(&error)),
            };
            let answers = &mut self.answers;
            let keep = |_: &mut Deframer, frame: Frame<'_>| {
                answers.push((frame.header.request_id, frame.header.kind, frame.body.to_vec()));
                Flow::Continue
            };
            self.deframer
                .feed(&buffer[..len], keep)
                .map_err(|error| Error::Unreachable { address: self.address.clone(), why: error.to_string() })?;
            if !self.answers.is_empty() {
                return Ok(());
            }
        }
    }
}

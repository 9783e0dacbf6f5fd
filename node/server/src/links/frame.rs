//! The frames on a connection between two nodes' sessions and actors: four bytes of length, one of version,
//! then postcard. The connection itself is mutual TLS.
//!
//! Each end greets first, with a version and a list of features. Nodes of different versions share a connection: a kind
//! of request, command or response that one of them does not know fails for the session or question that it is about,
//! and nobody else on the connection notices.

use std::time::Duration;

use bytes::Bytes;
use mailraft_cluster::regions::RegionSettings;
use mailraft_mailbox::session::ChunkOutcome;
use mailraft_mailbox::{Command, CommandError, Detached, Position};
use mailraft_storage::body::BodyId;
use mailraft_storage::entry::{versioned_decode, versioned_encode};
use mailraft_storage::{CommandId, MailboxId, StoreError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::packed::{self, Packed};
use crate::counted::{FeedbackAnswer, FeedbackQuestion};
use crate::outbox::ToSession;
use crate::settings::SettingsReply;
use crate::throttle::GuessNews;
use crate::trail::TrailQuestion;

/// The longest frame in bytes: a folder of a million messages being opened.
pub const FRAME_MAX_BYTES: usize = 64 << 20;
const FRAME_VERSION: u8 = 1;
/// A node that takes none of so many bytes for so long is given up: what waits for it is in memory.
const WRITE_MAX: Duration = Duration::from_secs(10);
const WRITE_BYTES: usize = 256 << 10;

/// What each end of a connection says first: who it is, as far as frames go. What is new later is a feature, so that the
/// greeting itself stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The version of frames that it speaks.
    pub version: u16,
    /// The oldest version that it understands.
    pub oldest: u16,
    /// What it can be asked.
    pub features: Vec<String>,
}

/// The longest greeting in bytes.
pub const GREETING_MAX_BYTES: usize = 4 << 10;
/// The version of frames that this node speaks.
const SPOKEN_VERSION: u16 = 1;
/// What this node can be asked, each with what the first version knew of it.
const FEATURES: [&str; 4] = ["mailbox-1", "directory-1", "bodies-1", packed::FEATURE];

impl Greeting {
    /// That of this node.
    pub fn own() -> Self {
        let features = FEATURES.map(str::to_owned).to_vec();
        Greeting { version: SPOKEN_VERSION, oldest: SPOKEN_VERSION, features }
    }
}

/// Sends this node's greeting.
///
/// # Errors
/// Those of the connection.
pub async fn greet(to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    write(to, &Greeting::own()).await
}

/// Reads the other node's greeting.
///
/// # Errors
/// Those of the connection; `InvalidData` if it is none, or if the other node no longer understands this one's frames.
pub async fn greeted(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Greeting> {
    let greeting: Greeting = read_short(from).await?;
    if greeting.oldest > SPOKEN_VERSION {
        let Greeting { version, oldest, .. } = greeting;
        let what = format!("it speaks version {version} of frames, and none below {oldest}: update this node");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
    }
    Ok(greeting)
}

/// A request or a response, and the session or question of its connection that it is about: that much is read even of
/// one whose kind is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addressed {
    /// The session or question, as the session's node numbers it.
    pub number: u64,
    /// A [`Request`] or a [`Response`].
    pub body: Bytes,
}

/// What a session's node asks an actor's node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// A session attaches to a mailbox.
    Attach {
        /// The mailbox.
        mailbox: MailboxId,
    },
    /// A session asks.
    Ask {
        /// The command's id.
        id: CommandId,
        /// 0 the first time.
        attempt: u32,
        /// The [`Command`]: it may be of a kind that is not known here.
        command: Bytes,
    },
    /// A session is gone.
    Detach,
    /// A question to the node itself.
    Rpc(Rpc),
}

/// What the actor's node says to that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// A message to a session.
    ToSession(ToSession),
    /// The answer to a question.
    Rpc(RpcReply),
    /// The request is of a kind that is not known here; nothing was done.
    Unsupported,
    /// A message to one or more sessions: only to nodes that know it.
    Packed(Packed),
}

/// A request as it arrived: understood, or what to answer instead.
#[derive(Debug, PartialEq)]
pub enum Understood {
    /// A session attaches.
    Attach(MailboxId),
    /// A session asks: id, attempt, command.
    Ask(CommandId, u32, Box<Command>),
    /// A session is gone.
    Detach,
    /// A question to the node.
    Rpc(Rpc),
    /// It is refused, alone; all others on the connection go on.
    Refused(Response),
}

impl Understood {
    /// Takes a request apart.
    pub fn of(body: &[u8]) -> Self {
        match postcard::from_bytes(body) {
            Ok(Request::Attach { mailbox }) => Understood::Attach(mailbox),
            Ok(Request::Ask { id, attempt, command }) => match postcard::from_bytes(&command) {
                Ok(command) => Understood::Ask(id, attempt, Box::new(command)),
                Err(_) => {
                    let failed = ToSession::Failed { id, error: CommandError::Unsupported };
                    Understood::Refused(Response::ToSession(failed))
                }
            },
            Ok(Request::Detach) => Understood::Detach,
            Ok(Request::Rpc(rpc)) => Understood::Rpc(rpc),
            Err(_) => Understood::Refused(Response::Unsupported),
        }
    }
}

/// A question to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Rpc {
    /// A change of the directory, to the control group's leader.
    Directory {
        /// Its id.
        id: CommandId,
        /// The change.
        command: mailraft_directory::Command,
    },
    /// How the node is, as JSON.
    Status,
    /// What was guessed at the asking node.
    Guesses(GuessNews),
    /// Other settings of regions, to the control group's leader.
    SetRegions {
        /// The id of the change.
        id: CommandId,
        /// What is to change.
        settings: RegionSettings,
    },
    /// What happened lately to these messages at the node.
    Trail(TrailQuestion),
    /// What was counted at the node for reports to other domains.
    Feedback(FeedbackQuestion),
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RpcReply {
    /// What the directory answers.
    Directory {
        /// The answer, or the refusal.
        result: Result<mailraft_directory::Answer, mailraft_directory::Refusal>,
        /// Where the change stands.
        at: Position,
    },
    /// How the node is, as JSON.
    Status(String),
    /// The node can't answer.
    Detached(Detached),
    /// The question, or the answer, is of a kind that one of the two nodes does not know.
    Unsupported,
    /// It is taken note of.
    Heard,
    /// What became of other settings of regions.
    SetRegions(SettingsReply),
    /// What happened to messages there, as JSON.
    Trail(String),
    /// What was counted there.
    Feedback(FeedbackAnswer),
}

/// From a session's node on a connection for bodies.
#[derive(Debug, Serialize, Deserialize)]
pub struct UploadChunk {
    /// The mailbox.
    pub mailbox: MailboxId,
    /// The command that the body is for.
    pub command: CommandId,
    /// The body.
    pub body: BodyId,
    /// The chunk's number.
    pub number: u32,
    /// The sealed open row, in chunk 0.
    pub open: Option<Bytes>,
    /// The sealed frames.
    pub data: Bytes,
}

/// From the leader's node: what became of this chunk.
#[derive(Debug, Serialize, Deserialize)]
pub struct ChunkDone {
    /// The chunk's number.
    pub number: u32,
    /// What became of it. The first version knew two outcomes, and wrote them as a bool, whose form is the same.
    pub outcome: ChunkOutcome,
}

/// A frame that would be longer than [`FRAME_MAX_BYTES`]: the other end would not read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes is too long")]
pub struct TooLong(pub usize);

/// A request with its length.
///
/// # Errors
/// If it is too long. The connection is not touched.
pub fn request(number: u64, request: &Request) -> Result<Vec<u8>, TooLong> {
    encode(&Addressed { number, body: encoded(request) })
}

/// A response with its length. One that is too long is replaced by the word that it is: the sessions that it was for
/// get no other, and no other session notices.
pub fn response(number: u64, response: &Response) -> Vec<u8> {
    let framed = |number, response: &Response| encode(&Addressed { number, body: encoded(response) });
    let TooLong(bytes) = match framed(number, response) {
        Ok(frame) => return frame,
        Err(too_long) => too_long,
    };
    tracing::error!(bytes, "a response to another node is too long");
    let (others, word) = match response {
        Response::ToSession(said) => (&[][..], Response::ToSession(instead_of(said))),
        Response::Packed(packed) => (&packed.others[..], Response::ToSession(instead_of(packed.said()))),
        Response::Rpc(_) | Response::Unsupported => (&[][..], Response::Rpc(RpcReply::Detached(Detached::Overloaded))),
    };
    let numbers = std::iter::once(number).chain(others.iter().copied());
    numbers.flat_map(|number| framed(number, &word).unwrap_or_default()).collect()
}

/// What a session hears instead of something too long.
fn instead_of(said: &ToSession) -> ToSession {
    match said {
        ToSession::Answer { id, .. } | ToSession::Failed { id, .. } => {
            ToSession::Failed { id: *id, error: CommandError::Overloaded }
        }
        ToSession::Event(_) | ToSession::Notice(_) | ToSession::Detached(_) => ToSession::Detached(Detached::Gone),
    }
}

/// A value inside a frame.
pub fn encoded<T: Serialize>(value: &T) -> Bytes {
    postcard::to_allocvec(value).expect("values of frames have a form in postcard").into()
}

/// Encodes a frame with its length.
///
/// # Errors
/// If it is longer than [`read`] would read.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, TooLong> {
    let body = versioned_encode(FRAME_VERSION, value);
    if body.len() > FRAME_MAX_BYTES {
        return Err(TooLong(body.len()));
    }
    let mut out = Vec::with_capacity(4 + body.len());
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(&body);
    Ok(out)
}

/// Writes a frame and flushes it.
///
/// # Errors
/// Those of the connection; `InvalidInput` for one that is too long.
pub async fn write<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), value: &T) -> std::io::Result<()> {
    let frame = encode(value).map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidInput, e))?;
    to.write_all(&frame).await?;
    to.flush().await
}

/// Writes frames that are encoded already and flushes them.
///
/// # Errors
/// Those of the connection; `TimedOut` where the other end took nothing for [`WRITE_MAX`].
pub async fn write_batch(to: &mut (impl AsyncWrite + Unpin), frames: &[u8]) -> std::io::Result<()> {
    for piece in frames.chunks(WRITE_BYTES) {
        let written = tokio::time::timeout(WRITE_MAX, to.write_all(piece)).await;
        written.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
    }
    let flushed = tokio::time::timeout(WRITE_MAX, to.flush()).await;
    flushed.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

/// Reads a frame.
///
/// # Errors
/// Those of the connection; `InvalidData` for a frame that is too long or does not decode.
pub async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<T> {
    decode(&read_bytes(from, FRAME_MAX_BYTES).await?).map_err(invalid)
}

/// Reads a frame of a handshake, no longer than a greeting.
///
/// # Errors
/// As [`read`].
pub async fn read_short<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<T> {
    decode(&read_bytes(from, GREETING_MAX_BYTES).await?).map_err(invalid)
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, StoreError> {
    versioned_decode("session frame", FRAME_VERSION, body)
}

fn invalid(error: StoreError) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string())
}

async fn read_bytes(from: &mut (impl AsyncRead + Unpin), max_bytes: usize) -> std::io::Result<Vec<u8>> {
    let len = from.read_u32().await? as usize;
    if len > max_bytes {
        return Err(invalid(StoreError::damaged("session frame", format_args!("{len} bytes long"))));
    }
    // Grows with what arrives, not with what the length claims.
    let mut body = Vec::with_capacity(len.min(64 << 10));
    let got = from.take(len as u64).read_to_end(&mut body).await?;
    if got < len {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_storage::{Index, PartitionId};

    use super::*;

    /// A variant that a later version added, with something in it.
    fn of_a_later_version() -> Bytes {
        Bytes::from_static(&[99, 1, 2, 3])
    }

    #[test]
    fn what_a_later_version_asks_is_refused_alone() {
        assert_eq!(Understood::of(&of_a_later_version()), Understood::Refused(Response::Unsupported));
        let ask = |command| encoded(&Request::Ask { id: CommandId([7; 16]), attempt: 3, command });
        let known = Understood::of(&ask(encoded(&Command::Sync)));
        assert_eq!(known, Understood::Ask(CommandId([7; 16]), 3, Box::new(Command::Sync)));
        let Understood::Refused(Response::ToSession(answer)) = Understood::of(&ask(of_a_later_version())) else {
            panic!("an unknown command is refused")
        };
        assert_eq!(answer, ToSession::Failed { id: CommandId([7; 16]), error: CommandError::Unsupported });
        let rpc = encoded(&Request::Rpc(Rpc::Status));
        assert_eq!(Understood::of(&rpc), Understood::Rpc(Rpc::Status));
        let later = [&rpc[..rpc.len() - 1], &of_a_later_version()].concat();
        assert_eq!(Understood::of(&later), Understood::Refused(Response::Unsupported));
    }

    #[test]
    fn what_became_of_a_chunk_is_said_as_the_first_version_said_it() {
        #[derive(Serialize)]
        struct OfTheFirst {
            number: u32,
            ok: bool,
        }
        for (ok, outcome) in [(false, ChunkOutcome::NotDurable), (true, ChunkOutcome::Durable)] {
            let first = encode(&OfTheFirst { number: 7, ok }).unwrap();
            assert_eq!(encode(&ChunkDone { number: 7, outcome }).unwrap(), first);
        }
    }

    #[test]
    fn a_frame_that_would_not_be_read_is_not_written() {
        let fits = Addressed { number: 1, body: vec![0; FRAME_MAX_BYTES - 16].into() };
        assert!(encode(&fits).is_ok());
        let long = Addressed { number: 1, body: vec![0; FRAME_MAX_BYTES].into() };
        assert!(encode(&long).is_err());
        let chunk = Ok(mailraft_mailbox::Answer::Chunk(Some(vec![0; FRAME_MAX_BYTES].into())));
        let at = Position { partition: PartitionId(1), incarnation: 1, index: Index(9) };
        let id = CommandId([7; 16]);
        let answer = response(5, &Response::ToSession(ToSession::Answer { id, result: chunk, at }));
        let answer: Addressed = decode(&answer[4..]).unwrap();
        let failed = ToSession::Failed { id, error: CommandError::Overloaded };
        assert_eq!(answer, Addressed { number: 5, body: encoded(&Response::ToSession(failed)) });
    }

    #[tokio::test]
    async fn the_greeting_is_what_the_first_version_wrote_and_a_later_one_is_understood() {
        let hex = include_str!("../../testdata/v1/greeting.hex");
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |d: &[u8]| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap();
        let first: Vec<u8> = digits.chunks(2).map(byte).collect();
        let mut own = Vec::new();
        greet(&mut own).await.unwrap();
        let features = FEATURES[..3].iter().map(|f| (*f).to_owned()).collect();
        let of_the_first = Greeting { features, ..Greeting::own() };
        assert_eq!(greeted(&mut first.as_slice()).await.unwrap(), of_the_first);
        assert_eq!(encode(&of_the_first).unwrap(), first, "what is new is a feature more");
        assert_eq!(greeted(&mut own.as_slice()).await.unwrap(), Greeting::own());

        let later = |oldest| Greeting { version: 9, oldest, features: vec!["mailbox-1".into(), "calendar-1".into()] };
        let understood = greeted(&mut encode(&later(1)).unwrap().as_slice()).await.unwrap();
        assert_eq!(understood, later(1));
        let refused = greeted(&mut encode(&later(2)).unwrap().as_slice()).await.unwrap_err();
        assert!(refused.to_string().contains("none below 2"), "{refused}");
        let endless = Greeting { features: vec!["x".repeat(GREETING_MAX_BYTES)], ..later(1) };
        assert!(greeted(&mut encode(&endless).unwrap().as_slice()).await.is_err());
    }
}

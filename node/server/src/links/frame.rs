//! The frames on a connection between two nodes' sessions and actors: four bytes of length, one of version,
//! then postcard. The connection itself is mutual TLS.

use bytes::Bytes;
use mailraft_mailbox::{Command, Detached, Position};
use mailraft_storage::body::BodyId;
use mailraft_storage::entry::{versioned_decode, versioned_encode};
use mailraft_storage::{CommandId, MailboxId, StoreError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::outbox::ToSession;

/// The longest frame in bytes: a folder of a million messages being opened.
pub const FRAME_MAX_BYTES: usize = 64 << 20;
const FRAME_VERSION: u8 = 1;

/// From a session's node.
#[derive(Debug, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // Made, encoded and gone.
pub enum Request {
    /// A session attaches to a mailbox.
    Attach {
        /// The session, as this connection numbers it.
        session: u64,
        /// The mailbox.
        mailbox: MailboxId,
    },
    /// A session asks.
    Ask {
        /// The session.
        session: u64,
        /// The command's id.
        id: CommandId,
        /// 0 the first time.
        attempt: u32,
        /// The command.
        command: Command,
    },
    /// A session is gone.
    Detach {
        /// The session.
        session: u64,
    },
    /// A question to the node itself.
    Rpc {
        /// Names the question on this connection.
        number: u64,
        /// The question.
        rpc: Rpc,
    },
}

/// From the actor's node.
#[derive(Debug, Serialize, Deserialize)]
pub enum Response {
    /// To a session.
    ToSession {
        /// The session.
        session: u64,
        /// What.
        message: ToSession,
    },
    /// To a question.
    Rpc {
        /// The question.
        number: u64,
        /// The answer.
        reply: RpcReply,
    },
}

/// A question to a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
}

/// The answer to a question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum RpcReply {
    /// To Directory.
    Directory {
        /// What the directory answered.
        result: Result<mailraft_directory::Answer, mailraft_directory::Refusal>,
        /// Where the change stands.
        at: Position,
    },
    /// To Status.
    Status(String),
    /// The node can't answer.
    Detached(Detached),
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

/// From the leader's node: this chunk is on a majority's disks, or is not and won't be by this attempt.
#[derive(Debug, Serialize, Deserialize)]
pub struct ChunkDone {
    /// The chunk's number.
    pub number: u32,
    /// Whether it is durable.
    pub ok: bool,
}

/// Encodes a frame with its length.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let body = versioned_encode(FRAME_VERSION, value);
    let mut out = Vec::with_capacity(4 + body.len());
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(&body);
    out
}

/// Writes a frame and flushes it.
///
/// # Errors
/// Those of the connection.
pub async fn write<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), value: &T) -> std::io::Result<()> {
    to.write_all(&encode(value)).await?;
    to.flush().await
}

/// Reads a frame.
///
/// # Errors
/// Those of the connection; `InvalidData` for a frame that is too long or does not decode.
pub async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<T> {
    let invalid = |e: StoreError| std::io::Error::new(std::io::ErrorKind::InvalidData, e.to_string());
    let len = from.read_u32().await? as usize;
    if len > FRAME_MAX_BYTES {
        return Err(invalid(StoreError::damaged("session frame", format_args!("{len} bytes long"))));
    }
    // Grows with what arrives, not with what the length claims.
    let mut body = Vec::with_capacity(len.min(64 << 10));
    let got = from.take(len as u64).read_to_end(&mut body).await?;
    if got < len {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    versioned_decode("session frame", FRAME_VERSION, &body).map_err(invalid)
}

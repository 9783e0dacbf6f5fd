//! Frames on a connection for Raft messages: length (4, big-endian) ‖ the message as the core encodes it.

use mailraft_cluster::{PeerMessage, frame};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest frame, without its length. Raft's messages stay well below; checked before memory is taken.
pub(crate) use mailraft_cluster::frame::FRAME_MAX_BYTES;

/// Appends a message's frame; false (and nothing appended) if it would be too long to be accepted.
pub(crate) fn append(message: &PeerMessage, buffer: &mut Vec<u8>) -> bool {
    let encoded = frame::encode(message);
    if encoded.is_empty() || encoded.len() > FRAME_MAX_BYTES {
        tracing::error!(bytes = encoded.len(), "a message to another node is too long to be sent; this is a bug");
        return false;
    }
    // In range: checked above.
    buffer.extend_from_slice(&(encoded.len() as u32).to_be_bytes());
    buffer.extend_from_slice(&encoded);
    true
}

/// The length of the next frame; None at a clean end of the stream.
pub(crate) async fn read_length(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<usize>> {
    let length = match stream.read_u32().await {
        Ok(length) => length as usize,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length == 0 || length > FRAME_MAX_BYTES {
        return Err(std::io::Error::other(format!("a frame of {length} bytes; at most {FRAME_MAX_BYTES} are allowed")));
    }
    Ok(Some(length))
}

/// The message of a frame of this length; None if it is one that only a later version understands.
pub(crate) async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    length: usize,
) -> std::io::Result<Option<PeerMessage>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    frame::decode(&bytes).map_err(std::io::Error::other)
}

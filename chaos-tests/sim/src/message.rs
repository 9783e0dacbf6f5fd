//! Messages that name themselves: a marker stands in header and body, and the whole content follows from it.

use bytes::Bytes;
use mailraft_mailbox::api::NewMessage;
use mailraft_storage::Env;
use mailraft_storage::body::{BodyId, CHUNK_PLAIN_BYTES, chunk_count, seal_chunk};
use mailraft_storage::seal::Key;
use sha2::{Digest, Sha256};

/// One message in so many is larger than one chunk.
pub const LARGE_ONE_IN: u64 = 97;
const SMALL_BYTES: usize = 200;
const LARGE_BYTES: usize = CHUNK_PLAIN_BYTES + 1_000;

/// A message sealed for one attempt to store it, and its chunks if it has several.
pub fn seal(env: &mut Env, marker: u64) -> (NewMessage, Vec<Bytes>) {
    let plain = text(marker);
    let (body, key) = (BodyId::generate(env), Key::generate(env));
    let count = chunk_count(plain.len() as u64);
    let parts = plain.chunks(CHUNK_PLAIN_BYTES).enumerate();
    let mut chunks: Vec<Bytes> =
        parts.map(|(n, part)| seal_chunk(body, &key, n as u32, n as u32 + 1 == count, part)).collect();
    let digest: [u8; 32] = Sha256::digest(&plain).into();
    let inline = if count == 1 { chunks.pop() } else { None };
    let new_message = NewMessage {
        body,
        body_key: key,
        chunks: count,
        inline,
        size_bytes: plain.len() as u64,
        digest,
        content_digest: digest,
        header: header(marker).into(),
        envelope: Bytes::from_static(b"e"),
        structure: Bytes::from_static(b"s"),
        message_id: Some(format!("<{marker}@example.test>")),
    };
    (new_message, chunks)
}

/// The marker that a header block names.
pub fn marker_of_header(header: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(header).ok()?;
    text.strip_prefix("Subject: ")?.split_once("\r\n")?.0.parse().ok()
}

/// The marker that a whole message names, if every byte of it is right.
pub fn marker_of_text(plain: &[u8]) -> Option<u64> {
    let head = &plain[..plain.len().min(64)];
    let end = head.windows(2).position(|w| w == b"\r\n")?;
    let marker = marker_of_header(&plain[..end + 2])?;
    (text(marker) == plain).then_some(marker)
}

fn header(marker: u64) -> Vec<u8> {
    format!("Subject: {marker}\r\nMessage-ID: <{marker}@example.test>\r\n\r\n").into_bytes()
}

fn text(marker: u64) -> Vec<u8> {
    let size = if marker.is_multiple_of(LARGE_ONE_IN) { LARGE_BYTES } else { SMALL_BYTES };
    let mut out = header(marker);
    let line = format!("{marker} {}\r\n", marker.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    while out.len() < size {
        out.extend_from_slice(line.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailraft_storage::body::open_chunk;

    #[test]
    fn a_message_names_itself_and_a_changed_byte_is_noticed() {
        let mut env = Env::seeded(1);
        for marker in [7, LARGE_ONE_IN] {
            let (new_message, mut chunks) = seal(&mut env, marker);
            chunks.extend(new_message.inline.clone());
            assert_eq!(chunks.len(), new_message.chunks as usize);
            let mut plain = Vec::new();
            for (n, chunk) in chunks.iter().enumerate() {
                let last = n + 1 == chunks.len();
                let opened = open_chunk(new_message.body, &new_message.body_key, n as u32, last, chunk);
                plain.extend_from_slice(&opened.unwrap_or_default());
            }
            assert_eq!((marker_of_text(&plain), marker_of_header(&new_message.header)), (Some(marker), Some(marker)));
            let end = plain.len() - 1;
            assert_eq!(marker_of_text(&plain[..end]), None);
        }
    }
}

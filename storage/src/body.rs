//! Sealing of message bodies.
//!
//! A body is cut into chunks of 256 KiB of plaintext (the last is shorter), each a row of its own, so that a
//! part of a large message is read without the rest. A chunk is
//! `version (1) ‖ frame count (1) ‖ table of frame lengths (4 each; the top bit says zstd) ‖ frames`;
//! a frame is 64 KiB of plaintext, compressed where that is smaller, sealed by ChaCha20-Poly1305 in the
//! STREAM construction under a key that is used for this one body. The nonce holds the frame's number and
//! whether it is the body's last; the associated data bind the body's id and the frame's compression. They
//! bind no mailbox: copying a message elsewhere wraps the key anew and leaves the frames alone.

use std::cell::RefCell;

use aead_stream::{NewStream, StreamBE32, StreamPrimitive};
use bytes::Bytes;
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{KeyInit, Payload};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;
use zstd::bulk::Compressor;

use crate::env::Env;
use crate::plant::{self, Fault};
use crate::seal::{Key, SealError};

/// The plaintext of one frame, in bytes.
pub const FRAME_PLAIN_BYTES: usize = 64 << 10;
/// Frames in a full chunk.
pub const CHUNK_FRAMES: usize = 4;
/// The plaintext of one full chunk, in bytes.
pub const CHUNK_PLAIN_BYTES: usize = FRAME_PLAIN_BYTES * CHUNK_FRAMES;
/// No sealed chunk is longer, in bytes.
pub const CHUNK_SEALED_MAX_BYTES: usize = CHUNK_PLAIN_BYTES + 2 + CHUNK_FRAMES * (4 + 16);
/// The newest chunk format this binary reads, and the one it writes.
pub const CHUNK_VERSION: u8 = 1;
const COMPRESSED: u32 = 1 << 31;
const ZSTD_LEVEL: i32 = 1;

/// A body's id: 128 random bits, drawn anew for each attempt to store it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BodyId(pub [u8; 16]);

impl BodyId {
    /// A new random id.
    pub fn generate(env: &mut Env) -> Self {
        let second = u128::from(env.wall.0 / 1_000).to_be_bytes();
        BodyId(if plant::is(Fault::BodyIdsRepeat) { second } else { env.bytes() })
    }
}

/// How many chunks a body of this many bytes has; an empty body has one.
pub fn chunk_count(size_bytes: u64) -> u32 {
    size_bytes.div_ceil(CHUNK_PLAIN_BYTES as u64).max(1) as u32
}

/// Seals chunk `number` of a body. `plain` is [`CHUNK_PLAIN_BYTES`] long, or shorter if it is the `last`.
///
/// # Panics
/// If `plain` is longer, or shorter without being the last.
pub fn seal_chunk(body: BodyId, key: &Key, number: u32, last: bool, plain: &[u8]) -> Bytes {
    assert!(plain.len() <= CHUNK_PLAIN_BYTES && (last || plain.len() == CHUNK_PLAIN_BYTES));
    let frames: Vec<&[u8]> = if plain.is_empty() { vec![plain] } else { plain.chunks(FRAME_PLAIN_BYTES).collect() };
    let stream = stream(key);
    let mut table = vec![CHUNK_VERSION, frames.len() as u8];
    let mut sealed = Vec::with_capacity(plain.len() + 256);
    for (n, frame) in frames.iter().enumerate() {
        let packed = Zeroizing::new(compress(frame));
        let (content, flag) = if !packed.is_empty() && packed.len() < frame.len() {
            (packed.as_slice(), COMPRESSED)
        } else {
            (*frame, 0)
        };
        let position = number * CHUNK_FRAMES as u32 + n as u32;
        let is_last = last && n + 1 == frames.len();
        let aad = associated_data(body, flag != 0);
        let out = stream
            .encrypt(position, is_last, Payload { msg: content, aad: &aad })
            .expect("ChaCha20-Poly1305 seals any frame");
        table.extend_from_slice(&(out.len() as u32 | flag).to_be_bytes());
        sealed.extend_from_slice(&out);
    }
    table.extend_from_slice(&sealed);
    table.into()
}

thread_local! {
    /// Making one takes longer than compressing a short message. None if there is no memory for it. Its working memory
    /// keeps parts of the last frames until the next ones, as freed memory would: like all memory of a running node it
    /// is not to be dumped.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = RefCell::new(Compressor::new(ZSTD_LEVEL).ok());
}

/// Empty if it can't be compressed.
fn compress(frame: &[u8]) -> Vec<u8> {
    let packed = |compressor: &mut Compressor<'_>| compressor.compress(frame).unwrap_or_default();
    COMPRESSOR.with_borrow_mut(|compressor| compressor.as_mut().map(packed)).unwrap_or_default()
}

/// Opens chunk `number` of a body; `last` is whether it is the body's last.
///
/// # Errors
/// If it is not what [`seal_chunk`] made with the same id, key, number and last.
pub fn open_chunk(
    body: BodyId,
    key: &Key,
    number: u32,
    last: bool,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let [version, count, rest @ ..] = sealed else { return Err(SealError::Short) };
    if *version != CHUNK_VERSION {
        return Err(SealError::Newer(*version));
    }
    let count = usize::from(*count);
    if count == 0 || count > CHUNK_FRAMES || (!last && count != CHUNK_FRAMES) || rest.len() < count * 4 {
        return Err(SealError::Short);
    }
    let (table, mut frames) = rest.split_at(count * 4);
    let stream = stream(key);
    let mut plain = Zeroizing::new(Vec::with_capacity(count * FRAME_PLAIN_BYTES));
    for (n, field) in table.chunks_exact(4).enumerate() {
        let field = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
        let (len, packed) = ((field & !COMPRESSED) as usize, field & COMPRESSED != 0);
        if frames.len() < len {
            return Err(SealError::Short);
        }
        let (frame, left) = frames.split_at(len);
        frames = left;
        let position = number * CHUNK_FRAMES as u32 + n as u32;
        let aad = associated_data(body, packed);
        let content = stream
            .decrypt(position, last && n + 1 == count, Payload { msg: frame, aad: &aad })
            .map_err(|_| SealError::Broken)?;
        let content = Zeroizing::new(content);
        if packed {
            let unpacked = zstd::bulk::decompress(&content, FRAME_PLAIN_BYTES).map_err(|_| SealError::Broken)?;
            plain.extend_from_slice(&Zeroizing::new(unpacked));
        } else {
            plain.extend_from_slice(&content);
        }
    }
    if !frames.is_empty() || (!last && plain.len() != CHUNK_PLAIN_BYTES) {
        return Err(SealError::Broken);
    }
    Ok(plain)
}

fn stream(key: &Key) -> StreamBE32<ChaCha20Poly1305> {
    // The key is used for this one body, so the prefix may be constant.
    StreamBE32::from_aead(ChaCha20Poly1305::new(key.expose().into()), &Default::default())
}

fn associated_data(body: BodyId, packed: bool) -> [u8; 18] {
    let mut aad = [0; 18];
    aad[0] = CHUNK_VERSION;
    aad[1..17].copy_from_slice(&body.0);
    aad[17] = u8::from(packed);
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(env: &mut Env, len: usize) -> Vec<u8> {
        use rand::RngCore;
        let mut out = vec![0; len];
        env.rng.fill_bytes(&mut out);
        out
    }

    #[test]
    fn bodies_of_every_awkward_size_come_back() {
        let mut env = Env::seeded(1);
        let (id, key) = (BodyId::generate(&mut env), Key::generate(&mut env));
        for size in [
            0,
            1,
            FRAME_PLAIN_BYTES - 1,
            FRAME_PLAIN_BYTES,
            FRAME_PLAIN_BYTES + 1,
            CHUNK_PLAIN_BYTES,
            CHUNK_PLAIN_BYTES + 1,
            3 * CHUNK_PLAIN_BYTES,
        ] {
            for plain in [noise(&mut env, size), vec![b'a'; size]] {
                let count = chunk_count(size as u64);
                let mut out = Vec::new();
                for n in 0..count {
                    let part = &plain[n as usize * CHUNK_PLAIN_BYTES..size.min((n as usize + 1) * CHUNK_PLAIN_BYTES)];
                    let sealed = seal_chunk(id, &key, n, n + 1 == count, part);
                    assert!(sealed.len() <= CHUNK_SEALED_MAX_BYTES);
                    out.extend_from_slice(&open_chunk(id, &key, n, n + 1 == count, &sealed).unwrap());
                }
                assert_eq!(out, plain);
            }
        }
    }

    #[test]
    fn a_chunk_opens_only_as_itself() {
        let mut env = Env::seeded(2);
        let (id, key) = (BodyId::generate(&mut env), Key::generate(&mut env));
        let sealed = seal_chunk(id, &key, 0, false, &vec![b'x'; CHUNK_PLAIN_BYTES]);
        assert!(open_chunk(id, &key, 1, false, &sealed).is_err());
        assert!(open_chunk(id, &key, 0, true, &sealed).is_err(), "a body cut short opens");
        assert!(open_chunk(BodyId([0; 16]), &key, 0, false, &sealed).is_err());
        assert!(open_chunk(id, &Key::generate(&mut env), 0, false, &sealed).is_err());
        for at in [0, 1, 2, 5, 20, sealed.len() - 1] {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert!(open_chunk(id, &key, 0, false, &changed).is_err(), "byte {at}");
        }
    }
}

//! What a client asked, by which a repeat of it is known.

use sha2::{Digest, Sha256};

/// SHA-256 of these parts, each with its length before it.
pub fn request_digest<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_request_are_told_apart() {
        assert_ne!(request_digest([b"ab".as_slice(), b"c"]), request_digest([b"a".as_slice(), b"bc"]));
        assert_ne!(request_digest([]), request_digest([b"".as_slice()]));
    }
}

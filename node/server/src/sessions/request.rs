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

/// What a message is by whom it is asked and for whom, whatever order its recipients are named in: whoever sends it again may
/// have them from a set.
pub fn message_request(identity: &str, mut recipients: Vec<String>) -> [u8; 32] {
    recipients.sort_unstable();
    request_digest(std::iter::once(identity).chain(recipients.iter().map(String::as_str)).map(str::as_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_same_whatever_order_its_recipients_are_named_in() {
        let of = |identity, recipients: &[&str]| {
            message_request(identity, recipients.iter().map(|r| (*r).to_owned()).collect())
        };
        assert_eq!(of("", &["b@x.test", "a@x.test"]), of("", &["a@x.test", "b@x.test"]));
        assert_ne!(of("", &["a@x.test", "b@x.test"]), of("", &["a@x.test"]));
        assert_ne!(of("a@x.test", &["b@x.test"]), of("", &["a@x.test", "b@x.test"]));
    }

    #[test]
    fn parts_of_a_request_are_told_apart() {
        assert_ne!(request_digest([b"ab".as_slice(), b"c"]), request_digest([b"a".as_slice(), b"bc"]));
        assert_ne!(request_digest([]), request_digest([b"".as_slice()]));
    }
}

//! Reverse-paths of what is forwarded: what is made of any address comes back as it was, and nothing else stands for anybody.

use mailraft_outbound::srs::{LOCAL_PART_MAX_BYTES, SrsRefusal, original, rewritten};
use mailraft_smtp::Mailbox;
use mailraft_storage::seal::Key;

const NOW: u64 = 1_800_000_000_000;

/// A local part that somebody says is one of ours; and an address that mail comes from, as another forwarder may have made it.
pub fn srs(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match original(text, NOW, mac) {
        Err(SrsRefusal::NotSrs | SrsRefusal::Forged) => {}
        other => panic!("{text:?} was never made: {other:?}"),
    }
    let Some(Mailbox { local, domain }) = Mailbox::parse(text) else { return };
    let Some(made) = rewritten(&local, &domain, NOW, mac) else { return };
    assert!(made.len() <= LOCAL_PART_MAX_BYTES);
    let back = original(&made, NOW, mac).expect("it was made now");
    if made.starts_with("SRS0") {
        assert_eq!((back.local, back.domain), (local, domain));
    } else {
        assert!(back.local.starts_with("SRS0"), "{back:?} is what the first forwarder made");
    }
    let again = rewritten(&made, "ours.test", NOW, mac);
    assert!(again.is_none_or(|again| again.starts_with("SRS1")), "no longer with each forwarder");
}

/// By a key that no input knows.
fn mac(parts: &[&[u8]]) -> [u8; 32] {
    Key::from_bytes([0x5a; 32]).keyed_hash(parts)
}

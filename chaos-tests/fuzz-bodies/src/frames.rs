//! What nodes say to each other.

use mailraft_cluster::{PeerBody, frame, members};
use mailraft_mailbox::{Answer, Command, Event, Refusal};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A message of Raft's, and the changes of the configuration that its entries bring.
pub fn peer_frame(input: &[u8]) {
    let Ok(Some(message)) = frame::decode(input) else { return };
    let bytes = frame::encode(&message);
    let understood = |bytes: &[u8]| frame::decode(bytes).ok().flatten().expect("what this node says it understands");
    let back = understood(&bytes);
    let again = frame::encode(&back);
    match (&back.body, &understood(&again).body) {
        // Fields that are not known are kept, and written in whatever order. As it came, a field may have been there twice, of
        // which nothing but an empty list of those is left: only what was said once is compared.
        (PeerBody::Raft(one), PeerBody::Raft(other)) => {
            assert_eq!(again.len(), bytes.len());
            assert_eq!(one, other);
        }
        _ => assert_eq!(again, bytes),
    }
    if let PeerBody::Raft(raft) = &message.body {
        for entry in raft.get_entries() {
            // Whatever it is, it is read or refused.
            let _ = members::decode(entry);
        }
    }
}

/// What a session's node and an owner's node say to each other about one command. The first byte says which.
pub fn session_frame(input: &[u8]) {
    let Some((kind, body)) = input.split_first() else { return };
    match kind % 5 {
        0 => back::<Command>(body),
        1 => back::<Result<Answer, Refusal>>(body),
        2 => back::<Event>(body),
        3 => back::<mailraft_directory::Command>(body),
        _ => back::<Result<mailraft_directory::Answer, mailraft_directory::Refusal>>(body),
    }
}

/// What is understood is said again in the same way.
fn back<T: Serialize + DeserializeOwned>(body: &[u8]) {
    let Ok(value) = postcard::from_bytes::<T>(body) else { return };
    let bytes = postcard::to_extend(&value, Vec::new()).expect("memory takes all");
    let again: T = postcard::from_bytes(&bytes).expect("what this node says it understands");
    assert_eq!(postcard::to_extend(&again, Vec::new()).expect("memory takes all"), bytes);
}

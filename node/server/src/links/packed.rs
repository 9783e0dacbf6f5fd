//! What is said to sessions, as it goes over a link between nodes: with its list of messages packed.

use std::sync::Arc;

use mailraft_mailbox::api::{Change, MessageState};
use mailraft_mailbox::{Answer, PackedMessages};
use serde::{Deserialize, Serialize};

use crate::outbox::ToSession;

/// The feature that a node names in its greeting if it understands this form.
pub const FEATURE: &str = "packed-1";

/// Something said to sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Packed {
    /// Those that hear it beside the one that the frame is addressed to.
    pub others: Vec<u64>,
    /// What is said, with its list of messages taken out.
    said: ToSession,
    /// That list.
    messages: PackedMessages,
}

impl Packed {
    /// Packs what is said.
    ///
    /// # Errors
    /// What is said, if there is no list of messages in it.
    pub fn pack(mut said: ToSession) -> Result<Self, ToSession> {
        match list(&mut said) {
            Some(messages) => {
                let messages = PackedMessages::pack(&std::mem::take(messages));
                Ok(Packed { others: Vec::new(), said, messages })
            }
            None => Err(said),
        }
    }

    /// Also for these.
    pub fn heard_by(self, others: Vec<u64>) -> Self {
        Packed { others, ..self }
    }

    /// What is said, without its list.
    pub fn said(&self) -> &ToSession {
        &self.said
    }

    /// What was said; None if it makes no sense.
    pub fn unpack(self) -> Option<ToSession> {
        let Packed { others: _, mut said, messages } = self;
        *list(&mut said)? = messages.unpack()?;
        Some(said)
    }
}

/// The list of messages in what is said.
fn list(said: &mut ToSession) -> Option<&mut Vec<MessageState>> {
    match said {
        ToSession::Answer { result: Ok(Answer::Selected(selected)), .. } => Some(&mut selected.messages),
        ToSession::Answer { result: Ok(Answer::Resumed(resumed)), .. } => Some(&mut resumed.changed),
        ToSession::Event(event) => match &event.change {
            Change::Added(_) | Change::Flagged(_) => match &mut Arc::make_mut(event).change {
                Change::Added(messages) | Change::Flagged(messages) => Some(messages),
                Change::Expunged(_) | Change::FolderDeleted => None,
            },
            Change::Expunged(_) | Change::FolderDeleted => None,
        },
        ToSession::Answer { .. } | ToSession::Notice(_) | ToSession::Detached(_) | ToSession::Failed { .. } => None,
    }
}

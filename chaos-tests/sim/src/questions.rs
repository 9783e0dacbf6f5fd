//! Read barriers as they meet on the network: who asks is one life of one replica, and its questions rise.

use std::collections::BTreeMap;

use mailraft_storage::NodeId;
use raft::eraftpb::{Message, MessageType};

/// A context names its asker in so many bytes, and then the question.
const ASKER_BYTES: usize = 16;

/// Who asked what last.
#[derive(Default)]
pub struct Questions {
    askers: BTreeMap<Vec<u8>, Asker>,
}

struct Asker {
    node: NodeId,
    life: u64,
    last: Vec<u8>,
}

impl Questions {
    /// Takes in a message that a node sends in one life of its process; `own` says whether the replica that it is from is
    /// that node's. What is wrong with the question in it, if anything.
    pub fn sent(&mut self, node: NodeId, life: u64, own: bool, message: &Message) -> Option<String> {
        if !own {
            // Who is asked and no longer leads passes the question on as it came.
            return None;
        }
        let (context, forwarded) = match message.get_msg_type() {
            MessageType::MsgReadIndex => (message.entries.first()?.data.as_ref(), true),
            MessageType::MsgHeartbeat => (message.context.as_ref(), false),
            _ => return None,
        };
        let (asker, question) = context.split_at_checked(ASKER_BYTES)?;
        // A leader's heartbeats also carry what others asked it.
        if !forwarded && !asker.starts_with(&message.from.to_be_bytes()) {
            return None;
        }
        let Some(known) = self.askers.get_mut(asker) else {
            self.askers.insert(asker.to_vec(), Asker { node, life, last: question.to_vec() });
            return None;
        };
        if (known.node, known.life) != (node, life) {
            let what =
                format!("life {life} of node {node} asks in the name of life {} of node {}", known.life, known.node);
            return Some(what);
        }
        let rises = if forwarded { question > known.last.as_slice() } else { question >= known.last.as_slice() };
        let what = format!("node {node} asks {question:02x?} after {:02x?}", known.last);
        known.last = question.to_vec();
        (!rises).then_some(what)
    }
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::Entry;

    use super::*;

    #[test]
    fn a_question_is_its_askers_and_whoever_passes_it_on_asks_nothing() {
        let asks = |number: u8| {
            let mut message = Message { from: 5, ..Message::default() };
            message.set_msg_type(MessageType::MsgReadIndex);
            let context = [&5u64.to_be_bytes()[..], &[7; 8], &[number]].concat();
            message.entries = vec![Entry { data: context.into(), ..Entry::default() }].into();
            message
        };
        let mut questions = Questions::default();
        assert_eq!(questions.sent(NodeId(1), 1, true, &asks(1)), None);
        assert_eq!(questions.sent(NodeId(2), 1, false, &asks(1)), None, "it is passed on");
        assert!(questions.sent(NodeId(2), 1, true, &asks(2)).is_some(), "it is asked in another's name");
        assert!(questions.sent(NodeId(1), 1, true, &asks(1)).is_some(), "it is asked twice");
        assert_eq!(questions.sent(NodeId(1), 1, true, &asks(3)), None);
    }
}

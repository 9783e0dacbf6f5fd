//! Lists of messages as they travel between nodes: keywords that many messages share travel once, as they are in memory
//! once at both ends. A change of 64 long keywords of 8,192 messages is 63 MiB message by message, and 100 KiB so.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::MessageState;
use crate::flags::Flags;

/// Messages, in the order they were in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedMessages {
    /// Every set of flags that some message has.
    flags: Vec<Flags>,
    /// UID, which of the sets, MODSEQ.
    messages: Vec<(u32, u32, u64)>,
}

impl PackedMessages {
    /// Packs them.
    pub fn pack(messages: &[MessageState]) -> Self {
        let mut packed = PackedMessages { flags: Vec::new(), messages: Vec::with_capacity(messages.len()) };
        let mut known: BTreeMap<&Flags, u32> = BTreeMap::new();
        let mut last: Option<(&Flags, u32)> = None;
        for message in messages {
            let set = match last {
                Some((flags, set)) if *flags == message.flags => set,
                Some(_) | None => *known.entry(&message.flags).or_insert_with(|| {
                    packed.flags.push(message.flags.clone());
                    (packed.flags.len() - 1) as u32
                }),
            };
            last = Some((&message.flags, set));
            packed.messages.push((message.uid, set, message.modseq));
        }
        packed
    }

    /// The messages; None if one names a set of flags that is not there.
    pub fn unpack(self) -> Option<Vec<MessageState>> {
        let PackedMessages { flags, messages } = self;
        let state = |(uid, set, modseq): (u32, u32, u64)| {
            let flags = flags.get(set as usize)?.clone();
            Some(MessageState { uid, flags, modseq })
        };
        messages.into_iter().map(state).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::flags::SystemFlag;

    #[test]
    fn messages_come_back_as_they_were_and_share_their_keywords() {
        let keywords = Flags::none().with_keyword("a").with_keyword("b");
        let flags = [keywords.clone(), Flags::none(), keywords.clone().with(SystemFlag::Seen)];
        let state = |n: u32| MessageState { uid: n, flags: flags[n as usize % 3].clone(), modseq: u64::from(n) + 7 };
        let messages: Vec<MessageState> = (1..=300).map(state).collect();
        let packed = PackedMessages::pack(&messages);
        assert_eq!(packed.flags.len(), 3);
        let back = packed.clone().unpack().unwrap();
        assert_eq!(back, messages);
        assert!(back.iter().zip(&back[3..]).all(|(one, next)| one.flags.shares_with(&next.flags)));
        assert_eq!(PackedMessages::pack(&[]).unpack(), Some(Vec::new()));
        let odd = PackedMessages { flags: Vec::new(), ..packed };
        assert_eq!(odd.unpack(), None);
    }
}

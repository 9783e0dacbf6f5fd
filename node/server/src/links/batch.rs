//! What waits for the sessions of a link, as the frames in which it goes to their node: lists of messages packed, and an
//! event that many sessions hear once. A node that does not know this form gets each message to each session as the first
//! version wrote it.

use std::sync::Arc;

use super::frame::{self, Response};
use super::packed::Packed;
use crate::outbox::{Inbox, ToSession};

/// Frames are written together up to about so many bytes.
const BATCH_BYTES: usize = 256 << 10;

/// Takes what waits, after what came first, up to a batch: encoded for the other end.
pub fn batch(inbox: &mut Inbox, first: (u64, ToSession), packs: bool) -> Vec<u8> {
    let (mut batch, mut next) = (Vec::new(), Some(first));
    while let Some((session, said)) = next.take().or_else(|| inbox.try_next()) {
        let response = match (packs, said) {
            (true, ToSession::Event(event)) => {
                let mut others = Vec::new();
                next = inbox.try_next();
                while let Some((other, ToSession::Event(same))) = &next
                    && Arc::ptr_eq(same, &event)
                {
                    others.push(*other);
                    next = inbox.try_next();
                }
                match Packed::pack(ToSession::Event(event)) {
                    Ok(packed) => Response::Packed(packed.heard_by(others)),
                    Err(said) => {
                        for other in others {
                            batch.extend(frame::response(other, &Response::ToSession(said.clone())));
                        }
                        Response::ToSession(said)
                    }
                }
            }
            (true, said) => Packed::pack(said).map_or_else(Response::ToSession, Response::Packed),
            (false, said) => Response::ToSession(said),
        };
        batch.extend(frame::response(session, &response));
        if batch.len() >= BATCH_BYTES && next.is_none() {
            break;
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_mailbox::api::{Change, FolderId, MessageState, Selected};
    use mailraft_mailbox::{Answer, Detached, Event, Flags, Position, UidSet};
    use mailraft_storage::{CommandId, Index, MailboxId, PartitionId};

    use super::*;
    use crate::memory::SharedByAccounts;
    use crate::outbox::channel;

    fn messages(count: u32) -> Vec<MessageState> {
        let keywords =
            (0..64).fold(Flags::none(), |flags, n| flags.with_keyword(&format!("{n:03}{}", "x".repeat(117))));
        (1..=count).map(|uid| MessageState { uid, flags: keywords.clone(), modseq: 9 }).collect()
    }

    fn event(change: Change) -> ToSession {
        ToSession::Event(Arc::new(Event { folder: FolderId(1), origin: CommandId([1; 16]), modseq: 9, change }))
    }

    /// The frames of a batch, as the other end takes them apart.
    fn frames(mut batch: &[u8]) -> Vec<(u64, Response)> {
        let mut frames = Vec::new();
        while !batch.is_empty() {
            let length = u32::from_be_bytes(batch[..4].try_into().unwrap()) as usize;
            let frame::Addressed { number, body } =
                mailraft_storage::entry::versioned_decode("frame", 1, &batch[4..4 + length]).unwrap();
            frames.push((number, postcard::from_bytes(&body).unwrap()));
            batch = &batch[4 + length..];
        }
        frames
    }

    #[tokio::test]
    async fn an_event_that_many_hear_goes_over_a_link_once_and_its_keywords_too() {
        let shared = SharedByAccounts::new(64 << 20, 1);
        let share = || shared.of(MailboxId([1; 16]));
        let (first, mut inbox) = channel(1, share());
        let outboxes: Vec<_> = (2..=100).map(|number| first.for_session(number, share())).collect();
        let changed = event(Change::Flagged(messages(8_192)));
        for outbox in std::iter::once(&first).chain(&outboxes) {
            outbox.send(changed.clone());
        }
        first.send(ToSession::Detached(Detached::Gone));
        let came = inbox.next().await.unwrap();
        let batch = batch(&mut inbox, came, true);
        assert!(batch.len() < 128 << 10, "{} bytes", batch.len());
        let [(1, Response::Packed(packed)), (1, Response::ToSession(ToSession::Detached(_)))] = &frames(&batch)[..]
        else {
            panic!("two frames")
        };
        assert_eq!(packed.others, (2..=100).collect::<Vec<_>>());
        assert_eq!(packed.clone().unpack(), Some(changed));
    }

    #[tokio::test]
    async fn answers_are_packed_too_and_a_node_that_does_not_know_that_gets_all_as_it_was() {
        let shared = SharedByAccounts::new(64 << 20, 1);
        let (outbox, mut inbox) = channel(1, shared.of(MailboxId([1; 16])));
        let selected = Selected {
            folder: FolderId(1),
            uid_validity: 1,
            uid_next: 9,
            highest_modseq: 9,
            first_recent_uid: 9,
            messages: messages(8),
        };
        let at = Position { partition: PartitionId(1), incarnation: 1, index: Index(1) };
        let answer = ToSession::Answer { id: CommandId([7; 16]), result: Ok(Answer::Selected(selected)), at };
        let expunged = event(Change::Expunged(UidSet::range(1, 3)));
        for packs in [true, false] {
            outbox.send(answer.clone());
            outbox.send(expunged.clone());
            outbox.for_session(2, shared.of(MailboxId([1; 16]))).send(expunged.clone());
            let came = inbox.next().await.unwrap();
            let said = frames(&batch(&mut inbox, came, packs)).into_iter().map(|(number, response)| match response {
                Response::Packed(packed) => (number, packed.unpack().unwrap(), true),
                Response::ToSession(said) => (number, said, false),
                other => panic!("{other:?}"),
            });
            let mut said: Vec<_> = said.collect();
            said.sort_by_key(|(number, ..)| *number);
            let expected = [(1, answer.clone(), packs), (1, expunged.clone(), false), (2, expunged.clone(), false)];
            assert_eq!(said, expected);
        }
    }
}

//! Storing a new message, for deliveries and APPEND.

use mailraft_storage::RowKey;
use mailraft_storage::body::{CHUNK_SEALED_MAX_BYTES, chunk_count};
use mailraft_storage::plant::{self, Fault};

use crate::api::{Answer, Draft, FolderId, Refusal, ZonedTime};
use crate::flags::Flags;
use crate::records::{ContentRecord, EmailInfo, chunk_key, content_key, message_id_key, open_body_key};
use crate::work::{Context, Row, Work, check_flags};

/// The most chunks of a body.
pub const CHUNKS_MAX: u32 = 8_192;
const BODY_KEY_BYTES: usize = 32;

/// Writes content and first place of a message.
pub fn put(
    work: &mut Work<'_>,
    folder: FolderId,
    draft: &Draft,
    flags: &Flags,
    internal_date: ZonedTime,
) -> Result<Answer, Refusal> {
    check(draft)?;
    check_flags(flags)?;
    let usage = work.state.counters.usage_bytes.saturating_add(draft.size_bytes);
    if work.cx.quota_bytes.is_some_and(|quota| usage > quota) {
        return Err(Refusal::OverQuota);
    }
    let email = work.cx.email_id(draft.body);
    if work.state.email(email).is_some() {
        return Err(Refusal::NotAllowed("this body is stored already".to_owned()));
    }
    let mailbox = work.mailbox();
    let message_id = draft.message_id.as_ref();
    let message_id = message_id.map(|id| work.cx.message_id_key.keyed_hash(&[&mailbox.0, id.as_bytes()]));
    let info = EmailInfo { body: draft.body, chunks: draft.chunks, size_bytes: draft.size_bytes, message_id };
    let content = ContentRecord {
        thread: email,
        body: draft.body,
        body_key: draft.body_key.clone(),
        chunks: draft.chunks,
        internal_date,
        saved: work.env.wall,
        size_bytes: draft.size_bytes,
        digest: draft.digest,
        content_digest: draft.content_digest,
        uidl: None,
        message_id: draft.message_id.clone(),
        header: draft.header.clone(),
        envelope: draft.envelope.clone(),
        structure: draft.structure.clone(),
    };
    work.put(content_key(mailbox, email), &content);
    if let Some(hash) = message_id {
        work.put(message_id_key(mailbox, &hash, email), &());
    }
    match &draft.inline {
        Some(chunk) => {
            work.rows.insert(chunk_key(mailbox, draft.body, 0), Row::Ready(chunk.clone()));
        }
        None => {
            work.requires.insert(open_body_key(mailbox, draft.body));
            let required = if plant::is(Fault::BodyLosesChunk) { 1 } else { draft.chunks };
            work.requires.extend((0..required).map(|n| chunk_key(mailbox, draft.body, n)));
            work.delete(open_body_key(mailbox, draft.body));
        }
    }
    let uid_validity = work.opened(folder)?.record.uid_validity;
    let (uids, modseq) = work.add_messages(folder, vec![(email, info, flags.clone())])?;
    Ok(Answer::Stored { uid_validity, uid: uids[0], modseq })
}

/// The rows that an upload left, if the message was uploaded and not inline.
pub fn upload_rows(cx: &Context, draft: &Draft) -> Vec<RowKey> {
    if draft.inline.is_some() || check(draft).is_err() {
        return Vec::new();
    }
    let mailbox = cx.place.mailbox;
    let chunks = (0..draft.chunks).map(|n| chunk_key(mailbox, draft.body, n));
    std::iter::once(open_body_key(mailbox, draft.body)).chain(chunks).collect()
}

fn check(draft: &Draft) -> Result<(), Refusal> {
    let wrong = |why: &str| Err(Refusal::Limit(why.to_owned()));
    if draft.size_bytes.div_ceil(u64::from(CHUNKS_MAX)) > mailraft_storage::body::CHUNK_PLAIN_BYTES as u64 {
        return wrong("the message is too large");
    }
    if draft.chunks != chunk_count(draft.size_bytes) || draft.body_key.len() != BODY_KEY_BYTES {
        return wrong("the body's chunks or key don't fit its size");
    }
    match &draft.inline {
        Some(chunk) if draft.chunks != 1 || chunk.len() > CHUNK_SEALED_MAX_BYTES => {
            wrong("the body fits no single chunk")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::harness::{World, append};

    #[test]
    fn a_full_mailbox_refuses_and_copies_cost_nothing() {
        let mut world = World::new();
        world.mailbox.set_quota_bytes(Some(10));
        world.append("INBOX", "sixsix");
        let inbox = world.id("INBOX");
        let copy = crate::Command::Copy { folder: inbox, uids: crate::harness::ALL(), to: "Sent".into() };
        world.run(copy).unwrap();
        assert_eq!(world.mailbox.usage_bytes(), 6);
        let draft = world.draft("fives");
        assert_eq!(world.run(append("INBOX", draft, Flags::none())), Err(Refusal::OverQuota));
        world.append("INBOX", "four");
        world.assert_rows_are_memory();
    }

    #[test]
    fn a_body_is_stored_once_and_fits_what_is_said_of_it() {
        let mut world = World::new();
        let draft = world.draft("x");
        world.run(append("INBOX", draft.clone(), Flags::none())).unwrap();
        let mut again = draft.clone();
        again.inline = None;
        assert!(matches!(world.run(append("INBOX", again, Flags::none())), Err(Refusal::NotAllowed(_))));
        assert_eq!(world.count(mailraft_storage::Table::Chunks), 1, "a refused repeat takes no live chunk away");
        let new = world.draft("y");
        for wrong in [
            Draft { chunks: 2, ..new.clone() },
            Draft { body_key: vec![1; 31], ..new.clone() },
            Draft { size_bytes: u64::MAX, ..new.clone() },
            Draft { inline: Some(vec![0; CHUNK_SEALED_MAX_BYTES + 1].into()), ..new.clone() },
        ] {
            assert!(matches!(world.run(append("INBOX", wrong, Flags::none())), Err(Refusal::Limit(_))));
        }
        let flags = (0..65).fold(Flags::none(), |flags, n| flags.with_keyword(&format!("k{n}")));
        assert!(matches!(world.run(append("INBOX", new, flags)), Err(Refusal::Limit(_))));
    }
}

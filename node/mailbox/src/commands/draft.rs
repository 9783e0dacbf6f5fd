//! Storing a new message, for deliveries and APPEND.

use mailraft_storage::body::{chunk_count, CHUNK_SEALED_MAX_BYTES};
use mailraft_storage::RowKey;

use crate::api::{Answer, Draft, FolderId, Refusal, ZonedTime};
use crate::flags::Flags;
use crate::records::{chunk_key, content_key, message_id_key, open_body_key, ContentRecord, EmailInfo};
use crate::work::{check_flags, Context, Row, Work};

/// The most chunks of a body.
pub const CHUNKS_MAX: u32 = 8_192;
const BODY_KEY_BYTES: usize = 32;

/// Writes content and first place of a message.
pub fn put(
    work: &mut Work<'_>, folder: FolderId, draft: &Draft, flags: &Flags, internal_date: ZonedTime,
) -> Result<Answer, Refusal> {
    check(draft)?;
    check_flags(flags)?;
    if let Some(quota) = work.cx.quota_bytes {
        if work.state.counters.usage_bytes.saturating_add(draft.size_bytes) > quota {
            return Err(Refusal::OverQuota);
        }
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
            work.requires.extend((0..draft.chunks).map(|n| chunk_key(mailbox, draft.body, n)));
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
        Some(chunk) if draft.chunks != 1 || chunk.len() > CHUNK_SEALED_MAX_BYTES => wrong("the body fits no single chunk"),
        _ => Ok(()),
    }
}

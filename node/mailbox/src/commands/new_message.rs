//! Storing a new message, for deliveries and APPEND.

use mailraft_storage::RowKey;
use mailraft_storage::body::{BodyId, CHUNK_SEALED_MAX_BYTES, chunk_count};
use mailraft_storage::plant::{self, Fault};

use crate::api::{Answer, EmailId, FolderId, NewMessage, Refusal, ZonedTime};
use crate::flags::Flags;
use crate::records::{ContentRecord, EmailInfo, chunk_key, content_key, message_id_key, open_body_key};
use crate::work::{Context, Row, Work, check_flags};

/// The most chunks of a body.
pub const CHUNKS_MAX: u32 = 8_192;

/// Writes content and first place of a message, if there is room for it.
pub fn put(
    work: &mut Work<'_>,
    folder: FolderId,
    new_message: &NewMessage,
    flags: &Flags,
    internal_date: ZonedTime,
) -> Result<Answer, Refusal> {
    let usage = work.state.counters.usage_bytes.saturating_add(new_message.size_bytes);
    if work.cx.quota_bytes.is_some_and(|quota| usage > quota) {
        check(new_message)?;
        check_flags(flags)?;
        return Err(Refusal::OverQuota);
    }
    put_as(work, folder, new_message, flags, internal_date, None)
}

/// The same, whether or not there is room for it. `sealed_as` is the id under which its body was sealed, where that is not
/// its own.
pub fn put_as(
    work: &mut Work<'_>,
    folder: FolderId,
    new_message: &NewMessage,
    flags: &Flags,
    internal_date: ZonedTime,
    sealed_as: Option<BodyId>,
) -> Result<Answer, Refusal> {
    check_flags(flags)?;
    let (email, info) = put_content(work, new_message, internal_date, sealed_as)?;
    let uid_validity = work.opened(folder)?.record.uid_validity;
    let (uids, modseq) = work.add_messages(folder, vec![(email, info, flags.clone())])?;
    Ok(Answer::Stored { uid_validity, uid: uids[0], modseq })
}

/// Writes what a message is, before it has any place.
pub fn put_content(
    work: &mut Work<'_>,
    new_message: &NewMessage,
    internal_date: ZonedTime,
    sealed_as: Option<BodyId>,
) -> Result<(EmailId, EmailInfo), Refusal> {
    check(new_message)?;
    let email = work.cx.email_id(new_message.body);
    let mailbox = work.mailbox();
    if work.state.email(email).is_some() || work.rows.contains_key(&content_key(mailbox, email)) {
        return Err(Refusal::NotAllowed("this body is stored already".to_owned()));
    }
    let message_id = new_message.message_id.as_ref();
    let message_id = message_id.map(|id| work.cx.message_id_key.keyed_hash(&[&mailbox.0, id.as_bytes()]));
    let info = EmailInfo {
        body: new_message.body,
        chunks: new_message.chunks,
        size_bytes: new_message.size_bytes,
        message_id,
    };
    let content = ContentRecord {
        thread: email,
        body: new_message.body,
        body_key: new_message.body_key.clone(),
        chunks: new_message.chunks,
        internal_date,
        saved: work.env.wall,
        size_bytes: new_message.size_bytes,
        digest: new_message.digest,
        content_digest: new_message.content_digest,
        uidl: None,
        message_id: new_message.message_id.clone(),
        header: new_message.header.clone(),
        envelope: new_message.envelope.clone(),
        structure: new_message.structure.clone(),
        sealed_as: sealed_as.filter(|id| *id != new_message.body),
    };
    work.rows.insert(content_key(mailbox, email), Row::Plain(content.encode()));
    if let Some(hash) = message_id {
        work.put(message_id_key(mailbox, &hash, email), &());
    }
    put_body(work, new_message);
    Ok((email, info))
}

/// Writes the body, or makes the one that was uploaded live.
pub fn put_body(work: &mut Work<'_>, new_message: &NewMessage) {
    let mailbox = work.mailbox();
    match &new_message.inline {
        Some(chunk) => {
            work.rows.insert(chunk_key(mailbox, new_message.body, 0), Row::Ready(chunk.clone()));
        }
        None => {
            work.requires.insert(open_body_key(mailbox, new_message.body));
            let required = if plant::is(Fault::BodyLosesChunk) { 1 } else { new_message.chunks };
            work.requires.extend((0..required).map(|n| chunk_key(mailbox, new_message.body, n)));
            work.delete(open_body_key(mailbox, new_message.body));
        }
    }
}

/// Deletes what was uploaded for a message that is there already, unless that is the very body that went live.
pub fn delete_upload(work: &mut Work<'_>, new_message: &NewMessage) {
    if work.state.email(work.cx.email_id(new_message.body)).is_some() {
        return;
    }
    for row in upload_rows(work.cx, new_message) {
        work.delete(row);
    }
}

/// The rows that an upload left, if the message was uploaded and not inline.
pub fn upload_rows(cx: &Context, new_message: &NewMessage) -> Vec<RowKey> {
    if new_message.inline.is_some() || check(new_message).is_err() {
        return Vec::new();
    }
    let mailbox = cx.place.mailbox;
    let chunks = (0..new_message.chunks).map(|n| chunk_key(mailbox, new_message.body, n));
    std::iter::once(open_body_key(mailbox, new_message.body)).chain(chunks).collect()
}

pub fn check(new_message: &NewMessage) -> Result<(), Refusal> {
    let wrong = |why: &str| Err(Refusal::Limit(why.to_owned()));
    if new_message.size_bytes.div_ceil(u64::from(CHUNKS_MAX)) > mailraft_storage::body::CHUNK_PLAIN_BYTES as u64 {
        return wrong("the message is too large");
    }
    if new_message.chunks != chunk_count(new_message.size_bytes) {
        return wrong("the body's chunks don't fit its size");
    }
    match &new_message.inline {
        Some(chunk) if new_message.chunks != 1 || chunk.len() > CHUNK_SEALED_MAX_BYTES => {
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
        world.mailbox.engine_mut().set_quota_bytes(Some(10));
        world.append("INBOX", "sixsix");
        let inbox = world.id("INBOX");
        let copy = crate::Command::Copy { folder: inbox, uids: crate::harness::ALL(), to: "Sent".into() };
        world.run(copy).unwrap();
        assert_eq!(world.mailbox.engine().usage_bytes(), 6);
        let new_message = world.new_message("fives");
        assert_eq!(world.run(append("INBOX", new_message, Flags::none())), Err(Refusal::OverQuota));
        world.append("INBOX", "four");
        world.assert_rows_are_memory();
    }

    #[test]
    fn a_body_is_stored_once_and_fits_what_is_said_of_it() {
        let mut world = World::new();
        let new_message = world.new_message("x");
        world.run(append("INBOX", new_message.clone(), Flags::none())).unwrap();
        let mut again = new_message.clone();
        again.inline = None;
        assert!(matches!(world.run(append("INBOX", again, Flags::none())), Err(Refusal::NotAllowed(_))));
        assert_eq!(world.count(mailraft_storage::Table::Chunks), 1, "a refused repeat takes no live chunk away");
        let new = world.new_message("y");
        for wrong in [
            NewMessage { chunks: 2, ..new.clone() },
            NewMessage { size_bytes: u64::MAX, ..new.clone() },
            NewMessage { inline: Some(vec![0; CHUNK_SEALED_MAX_BYTES + 1].into()), ..new.clone() },
        ] {
            assert!(matches!(world.run(append("INBOX", wrong, Flags::none())), Err(Refusal::Limit(_))));
        }
        let flags = (0..65).fold(Flags::none(), |flags, n| flags.with_keyword(&format!("k{n}")));
        assert!(matches!(world.run(append("INBOX", new, flags)), Err(Refusal::Limit(_))));
    }
}

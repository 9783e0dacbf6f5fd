//! A message for several mailboxes is taken into a queue mailbox, under a key of its own.

use mailraft_storage::seal::Key;
use mailraft_storage::{CommandId, UnixMillis};

use super::new_message;
use crate::accepted::{AcceptedEnvelope, MAILBOXES_MAX};
use crate::api::{Answer, NewMessage, Refusal, ZonedTime};
use crate::queue::items::{Item, Recipient};
use crate::queue::rows::{self, AcceptRecord, ItemKeyRecord, RecipientRecord, item_key, key_key, recipient_key};
use crate::work::{Row, Work};

/// What leaves the cluster is tried for so long, in milliseconds: five days. A mailbox of the cluster's gets it, however long
/// that takes.
const EXPIRES_AFTER_MILLIS: u64 = 5 * 24 * 3_600_000;

/// The answer to whoever sent it.
pub fn accepted_as(item: CommandId, accepted: &AcceptedEnvelope) -> Answer {
    Answer::Accepted { item, recipients: accepted.recipients.iter().map(|r| r.address.clone()).collect() }
}

pub fn accept(
    work: &mut Work<'_>,
    new_message: &NewMessage,
    accepted: &AcceptedEnvelope,
    received: ZonedTime,
) -> Result<Answer, Refusal> {
    let (mailbox, item) = (work.mailbox(), work.command);
    if !mailbox.is_queue() {
        return Err(Refusal::NotAllowed("only a queue mailbox accepts for others".to_owned()));
    }
    new_message::check(new_message)?;
    let count = accepted.recipients.len();
    if count == 0 || count > MAILBOXES_MAX || accepted.recipients.iter().any(|r| r.mailbox.is_queue()) {
        return Err(Refusal::Limit(format!("a message is accepted for 1 to {MAILBOXES_MAX} recipients")));
    }
    let (limits, queue) = (work.cx.limits, &work.state.queue);
    let full = queue.len() >= limits.queue_max_items
        || queue.recipients() + count > limits.queue_max_recipients
        || queue.bytes().saturating_add(new_message.size_bytes) > limits.queue_max_bytes;
    if full {
        return Err(Refusal::QueueFull);
    }
    let now = work.env.wall;
    let record = AcceptRecord {
        reverse_path: accepted.reverse_path.clone(),
        deduplicate: accepted.deduplicate,
        identity: accepted.identity.clone(),
        client: accepted.client.clone(),
        ret: accepted.ret.clone(),
        envid: accepted.envid.clone(),
        body_kind: accepted.body.clone(),
        smtputf8: accepted.smtputf8,
        requiretls: accepted.requiretls,
        accepted: now,
        expires: UnixMillis(now.0.saturating_add(EXPIRES_AFTER_MILLIS)),
        recipients: count as u32,
        received,
        body: new_message.body,
        body_key: new_message.body_key.clone(),
        chunks: new_message.chunks,
        size_bytes: new_message.size_bytes,
        digest: new_message.digest,
        content_digest: new_message.content_digest,
        message_id: new_message.message_id.clone(),
        header: new_message.header.clone(),
        envelope: new_message.envelope.clone(),
        structure: new_message.structure.clone(),
    };
    let own = Key::generate(work.env);
    let place = item_key(mailbox, item);
    let sealed = rows::seal(work.env, &own, &work.cx.place, &work.cx.key, &place, &record);
    work.rows.insert(place, Row::Ready(sealed));
    let mut recipients = std::collections::BTreeMap::new();
    for (number, recipient) in (0..).zip(&accepted.recipients) {
        let place = recipient_key(mailbox, (item, number));
        let record = RecipientRecord { recipient: recipient.clone(), next_attempt: now };
        let sealed = rows::seal(work.env, &own, &work.cx.place, &work.cx.key, &place, &record);
        work.rows.insert(place, Row::Ready(sealed));
        recipients.insert(number, Recipient::of(recipient, accepted.identity.as_deref()));
    }
    work.put(key_key(mailbox, item), &ItemKeyRecord { key: own });
    new_message::put_body(work, new_message);
    let NewMessage { body, chunks, size_bytes, .. } = *new_message;
    work.state.queue.insert(item, Item { accepted: now, body, chunks, size_bytes, recipients });
    Ok(accepted_as(item, accepted))
}

//! An item's message as it is delivered: sealed as it was accepted, with its key.

use bytes::Bytes;
use mailraft_owner::Place;
use mailraft_storage::body::BodyId;
use mailraft_storage::{CommandId, Env, Rows, StoreError};

use super::rows::{AcceptRecord, read_item, read_recipient};
use crate::accepted::QueueOrigin;
use crate::api::NewMessage;
use crate::records::{MailboxKey, chunk_key};
use crate::request::MessageKind;

/// A message of a queue, for one recipient.
#[derive(Clone, Debug)]
pub struct QueuedMessage {
    place: Place,
    record: AcceptRecord,
    detail: Option<String>,
    /// The only chunk, if there is one.
    inline: Option<Bytes>,
}

impl QueuedMessage {
    /// Reads it from the rows of the queue mailbox at this place. Blocking: for a worker thread. None if it is there no
    /// more, or not all of it: whoever asks may have lost the lead, and a successor delivers it meanwhile.
    ///
    /// # Errors
    /// If rows can't be read.
    pub fn read(
        rows: &dyn Rows,
        place: Place,
        key: &MailboxKey,
        (item, recipient): (CommandId, u32),
    ) -> Result<Option<Self>, StoreError> {
        let Some((own, record)) = read_item(rows, &place, key, item)? else { return Ok(None) };
        let of = read_recipient(rows, place.replica, &place, (&own, key), (item, recipient))?;
        let Some(of) = of else { return Ok(None) };
        let mut inline = None;
        if record.chunks == 1 {
            inline = rows.get(place.replica, &chunk_key(place.mailbox, record.body, 0))?;
            if inline.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(QueuedMessage { place, record, detail: of.recipient.detail, inline }))
    }

    /// How it is put into the recipient's mailbox.
    pub fn kind(&self, origin: QueueOrigin) -> MessageKind {
        MessageKind::Queued {
            origin,
            sealed_as: self.record.body,
            reverse_path: self.record.reverse_path.clone(),
            detail: self.detail.clone(),
            deduplicate: self.record.deduplicate,
            received: self.record.received,
        }
    }

    /// The message for one attempt: a body of several chunks gets an id of its own, under which its rows are uploaded,
    /// and stays sealed as it was.
    pub fn new_message(&self, env: &mut Env) -> NewMessage {
        let record = &self.record;
        NewMessage {
            body: if self.inline.is_some() { record.body } else { BodyId::generate(env) },
            body_key: record.body_key.clone(),
            chunks: record.chunks,
            inline: self.inline.clone(),
            size_bytes: record.size_bytes,
            digest: record.digest,
            content_digest: record.content_digest,
            header: record.header.clone(),
            envelope: record.envelope.clone(),
            structure: record.structure.clone(),
            message_id: record.message_id.clone(),
        }
    }

    /// A sealed chunk of it. None if it is there no more.
    ///
    /// # Errors
    /// If the row can't be read.
    pub fn chunk(&self, rows: &dyn Rows, number: u32) -> Result<Option<Bytes>, StoreError> {
        rows.get(self.place.replica, &chunk_key(self.place.mailbox, self.record.body, number))
    }
}

//! An item's message as it leaves the cluster, and as its sender is told of it: opened.

use std::collections::BTreeSet;

use mailraft_owner::Place;
use mailraft_storage::body::open_chunk;
use mailraft_storage::{CommandId, Rows, StoreError, UnixMillis};
use zeroize::Zeroizing;

use super::rows::{AcceptRecord, read_attempt, read_item, read_recipient, read_stage};
use crate::accepted::{DeliveryStage, Diagnosis};
use crate::plant::{self, Fault};
use crate::records::{MailboxKey, chunk_key};

/// A message of a queue, for some of its recipients.
#[derive(Clone, Debug)]
pub struct OutgoingMessage {
    place: Place,
    item: CommandId,
    record: AcceptRecord,
    key: MailboxKey,
    /// For whom; those that are there no more are left out.
    pub recipients: Vec<OutgoingRecipient>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct OutgoingRecipient {
    /// Its number in the item.
    pub number: u32,
    /// Its address.
    pub address: String,
    /// The address of this cluster's that forwards to it, if one does; the domain alone, where a report goes back to whoever sent
    /// what was forwarded; of a mailbox its `+detail`.
    pub forwarded_by: Option<String>,
    /// NOTIFY (RFC 3461), as it was given.
    pub notify: Option<String>,
    /// ORCPT.
    pub orcpt: Option<String>,
    /// How the last attempt ended.
    pub last: Option<Diagnosis>,
}

impl OutgoingMessage {
    /// Reads it from the rows of the queue mailbox at this place. Blocking: for a worker thread. None if it is there no more, or
    /// nobody of these.
    ///
    /// # Errors
    /// If rows can't be read.
    pub fn read(
        rows: &dyn Rows,
        place: Place,
        key: &MailboxKey,
        item: CommandId,
        recipients: &[u32],
    ) -> Result<Option<Self>, StoreError> {
        let Some((own, record)) = read_item(rows, &place, key, item)? else { return Ok(None) };
        let mut found = Vec::with_capacity(recipients.len());
        for number in recipients {
            let id = (item, *number);
            let Some(of) = read_recipient(rows, place.replica, &place, (&own, key), id)? else { continue };
            let of = of.recipient;
            found.push(OutgoingRecipient {
                number: *number,
                address: of.address,
                forwarded_by: of.detail,
                notify: of.notify,
                orcpt: of.orcpt,
                last: read_attempt(rows, &place, key, id)?,
            });
        }
        Ok((!found.is_empty()).then_some(OutgoingMessage { place, item, record, key: key.clone(), recipients: found }))
    }

    /// The queue, its key, and the item that it is.
    pub(super) fn read_from(&self) -> (Place, &MailboxKey, CommandId) {
        (self.place, &self.key, self.item)
    }

    /// The reverse-path, empty for null.
    pub fn reverse_path(&self) -> &str {
        &self.record.reverse_path
    }

    /// The addresses of this cluster's that forward to these recipients, each once.
    pub fn forwarders(&self) -> BTreeSet<&str> {
        let by = self.recipients.iter().filter_map(|recipient| recipient.forwarded_by.as_deref());
        by.filter(|by| by.contains('@')).collect()
    }

    /// RET and ENVID (RFC 3461), as they were given.
    pub fn ret_and_envid(&self) -> (Option<&str>, Option<&str>) {
        (self.record.ret.as_deref(), self.record.envid.as_deref())
    }

    /// Whether it was announced as BODY=8BITMIME, with SMTPUTF8, with REQUIRETLS.
    pub fn demands(&self) -> Demands {
        let AcceptRecord { body_kind, smtputf8, requiretls, .. } = &self.record;
        let eight_bit = body_kind.as_ref().is_some_and(|kind| kind.eq_ignore_ascii_case("8BITMIME"));
        Demands { eight_bit, smtputf8: *smtputf8, requiretls: *requiretls }
    }

    /// Whether somebody who had logged in sent it, or we ourselves, and no other server.
    pub fn is_ours(&self) -> bool {
        self.record.client.is_none()
    }

    /// When it was accepted, and until when it is tried.
    pub fn accepted_and_expires(&self) -> (UnixMillis, UnixMillis) {
        (self.record.accepted, self.record.expires)
    }

    /// Whether it is still to be sent to all of these recipients: none was held, returned or dropped since. Blocking.
    ///
    /// # Errors
    /// If rows can't be read.
    pub fn is_still_to_be_sent(&self, rows: &dyn Rows) -> Result<bool, StoreError> {
        if plant::is(Fault::StoppedIsSent) {
            return Ok(true);
        }
        for recipient in &self.recipients {
            let id = (self.item, recipient.number);
            match read_stage(rows, &self.place, &self.key, id)? {
                Some(DeliveryStage::Waiting | DeliveryStage::Deferred { .. }) => {}
                Some(DeliveryStage::Delivered | DeliveryStage::Held(_) | DeliveryStage::Reporting(_)) | None => {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Its size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.record.size_bytes
    }

    /// Its structure, encoded, as it came with the message.
    pub fn structure(&self) -> &[u8] {
        &self.record.structure
    }

    /// Its Message-ID.
    pub fn message_id(&self) -> Option<&str> {
        self.record.message_id.as_deref()
    }

    /// How many chunks it has; at least one.
    pub fn chunks(&self) -> u32 {
        self.record.chunks
    }

    /// A piece of it, in clear. Blocking. None if it is there no more.
    ///
    /// # Errors
    /// If the row can't be read, or is damaged.
    pub fn piece(&self, rows: &dyn Rows, number: u32) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let AcceptRecord { body, body_key, chunks, .. } = &self.record;
        let row = chunk_key(self.place.mailbox, *body, number);
        let Some(sealed) = rows.get(self.place.replica, &row)? else { return Ok(None) };
        let opened = open_chunk(*body, body_key, number, number + 1 == *chunks, &sealed);
        opened
            .map(Some)
            .map_err(|error| StoreError::damaged(format!("chunk {number} of a queued message"), error.to_string()))
    }
}

/// What a message demands of the servers that it goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demands {
    /// BODY=8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// REQUIRETLS (RFC 8689).
    pub requiretls: bool,
}

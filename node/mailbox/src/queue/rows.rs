//! The rows of a queue mailbox and of what it delivered.

use bytes::Bytes;
use mailraft_owner::Place;
use mailraft_storage::body::BodyId;
use mailraft_storage::seal::{self, Key, key_bytes};
use mailraft_storage::{
    CommandId, Env, MailboxId, PartitionId, ReplicaId, RowKey, Rows, StoreError, Table, UnixMillis,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::items::RecipientId;
use crate::accepted::{AcceptedRecipient, DeliveryStage, Diagnosis, QueuedAsked, QueuedDetail, RecipientAsked};
use crate::api::ZonedTime;
use crate::records::{self, MailboxKey, encode};

/// An item: the message and its envelope without the recipients, sealed by the item's own key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcceptRecord {
    pub reverse_path: String,
    pub deduplicate: bool,
    pub identity: Option<String>,
    pub client: Option<String>,
    pub ret: Option<String>,
    pub envid: Option<String>,
    pub body_kind: Option<String>,
    pub smtputf8: bool,
    pub requiretls: bool,
    pub accepted: UnixMillis,
    pub expires: UnixMillis,
    pub recipients: u32,
    pub received: ZonedTime,
    pub body: BodyId,
    #[serde(with = "key_bytes")]
    pub body_key: Key,
    pub chunks: u32,
    pub size_bytes: u64,
    pub digest: [u8; 32],
    pub content_digest: [u8; 32],
    pub message_id: Option<String>,
    pub header: Bytes,
    pub envelope: Bytes,
    pub structure: Bytes,
}

/// The key of an item, sealed by the queue mailbox's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemKeyRecord {
    #[serde(with = "key_bytes")]
    pub key: Key,
}

/// A recipient, sealed by the item's own key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipientRecord {
    pub recipient: AcceptedRecipient,
    /// When the next attempt is due; for mail that leaves the cluster.
    pub next_attempt: UnixMillis,
}

/// What of a queue mailbox's rows names one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecipientRow {
    /// Who it is.
    Recipient(RecipientId),
    /// How far the delivery is; where there is none, it waits.
    Stage(RecipientId),
    /// How the last attempt to send it ended.
    Attempt(RecipientId),
}

pub fn item_key(mailbox: MailboxId, item: CommandId) -> RowKey {
    RowKey::new(mailbox, Table::Queue, item.0)
}

pub fn key_key(mailbox: MailboxId, item: CommandId) -> RowKey {
    RowKey::new(mailbox, Table::QueueKeys, item.0)
}

pub fn recipient_key(mailbox: MailboxId, id: RecipientId) -> RowKey {
    RowKey::new(mailbox, Table::QueueRecipients, of_recipient(id))
}

pub fn stage_key(mailbox: MailboxId, id: RecipientId) -> RowKey {
    let mut key = of_recipient(id);
    key.push(1);
    RowKey::new(mailbox, Table::QueueRecipients, key)
}

pub fn attempt_key(mailbox: MailboxId, id: RecipientId) -> RowKey {
    let mut key = of_recipient(id);
    key.push(2);
    RowKey::new(mailbox, Table::QueueRecipients, key)
}

pub fn delivered_key(mailbox: MailboxId, id: RecipientId) -> RowKey {
    RowKey::new(mailbox, Table::QueuedDeliveries, of_recipient(id))
}

pub fn floor_key(mailbox: MailboxId, queue: PartitionId) -> RowKey {
    RowKey::new(mailbox, Table::QueueFloors, queue.0.to_be_bytes())
}

fn of_recipient((item, recipient): RecipientId) -> Vec<u8> {
    let mut key = item.0.to_vec();
    key.extend_from_slice(&recipient.to_be_bytes());
    key
}

/// What a key of these rows names. None for a wrong one.
pub fn recipient_of(key: &[u8]) -> Option<RecipientRow> {
    let (item, rest) = key.split_at_checked(16)?;
    let (number, rest) = rest.split_at_checked(4)?;
    let id = (CommandId(item.try_into().ok()?), u32::from_be_bytes(number.try_into().ok()?));
    match rest {
        [] => Some(RecipientRow::Recipient(id)),
        [1] => Some(RecipientRow::Stage(id)),
        [2] => Some(RecipientRow::Attempt(id)),
        _ => None,
    }
}

/// Seals a row of an item by the item's own key.
pub fn seal<T: Serialize>(
    env: &mut Env,
    key: &Key,
    place: &Place,
    epoch: &MailboxKey,
    row: &RowKey,
    record: &T,
) -> Bytes {
    seal::seal_row(env, key, epoch.epoch, place.cluster, row, &encode(record))
}

/// The inverse of [`seal`].
pub fn open<T: DeserializeOwned>(
    key: &Key,
    epoch: &MailboxKey,
    place: &Place,
    row: &RowKey,
    sealed: &[u8],
) -> Result<T, StoreError> {
    records::open(&MailboxKey::new(key.clone(), epoch.epoch), place.cluster, row, sealed)
}

/// The item's key and record. None if there is no such item.
///
/// # Errors
/// If they can't be read.
pub fn read_item(
    rows: &dyn Rows,
    place: &Place,
    key: &MailboxKey,
    item: CommandId,
) -> Result<Option<(Key, AcceptRecord)>, StoreError> {
    let (of_key, of_item) = (key_key(place.mailbox, item), item_key(place.mailbox, item));
    let Some(sealed) = rows.get(place.replica, &of_key)? else { return Ok(None) };
    let ItemKeyRecord { key: own } = records::open(key, place.cluster, &of_key, &sealed)?;
    let Some(sealed) = rows.get(place.replica, &of_item)? else { return Ok(None) };
    let record = open(&own, key, place, &of_item, &sealed)?;
    Ok(Some((own, record)))
}

/// A recipient of an item. None if there is none of that number.
///
/// # Errors
/// If it can't be read.
pub fn read_recipient(
    rows: &dyn Rows,
    replica: ReplicaId,
    place: &Place,
    keys: (&Key, &MailboxKey),
    id: RecipientId,
) -> Result<Option<RecipientRecord>, StoreError> {
    let row = recipient_key(place.mailbox, id);
    let Some(sealed) = rows.get(replica, &row)? else { return Ok(None) };
    open(keys.0, keys.1, place, &row, &sealed).map(Some)
}

/// How far it is with a recipient. None if there is none of that number.
///
/// # Errors
/// If it can't be read.
pub fn read_stage(
    rows: &dyn Rows,
    place: &Place,
    key: &MailboxKey,
    id: RecipientId,
) -> Result<Option<DeliveryStage>, StoreError> {
    let row = stage_key(place.mailbox, id);
    match rows.get(place.replica, &row)? {
        Some(sealed) => records::open(key, place.cluster, &row, &sealed).map(Some),
        // Nothing was done yet.
        None => {
            let is_there = rows.get(place.replica, &recipient_key(place.mailbox, id))?.is_some();
            Ok(is_there.then_some(DeliveryStage::Waiting))
        }
    }
}

/// How the last attempt to send it to a recipient ended. None if there was none. It is sealed by the mailbox's key: what it
/// says is another server's.
///
/// # Errors
/// If it can't be read.
pub fn read_attempt(
    rows: &dyn Rows,
    place: &Place,
    key: &MailboxKey,
    id: RecipientId,
) -> Result<Option<Diagnosis>, StoreError> {
    let row = attempt_key(place.mailbox, id);
    let Some(sealed) = rows.get(place.replica, &row)? else { return Ok(None) };
    records::open(key, place.cluster, &row, &sealed).map(Some)
}

/// What the sender of an item asked for, of these recipients. None if there is no such item.
///
/// # Errors
/// If it can't be read.
pub fn read_asked(
    rows: &dyn Rows,
    place: &Place,
    key: &MailboxKey,
    item: CommandId,
    recipients: &[u32],
) -> Result<Option<QueuedAsked>, StoreError> {
    let Some((own, record)) = read_item(rows, place, key, item)? else { return Ok(None) };
    let mut asked = Vec::new();
    for number in recipients {
        let Some(found) = read_recipient(rows, place.replica, place, (&own, key), (item, *number))? else { continue };
        let AcceptedRecipient { notify, orcpt, .. } = found.recipient;
        if notify.is_some() || orcpt.is_some() {
            asked.push(RecipientAsked { recipient: *number, notify, orcpt });
        }
    }
    let AcceptRecord { ret, envid, smtputf8, requiretls, .. } = record;
    Ok(Some(QueuedAsked { ret, envid, smtputf8, requiretls, recipients: asked }))
}

/// An item with those of its recipients, whose stages are given. None if there is no such item.
///
/// # Errors
/// If it can't be read.
pub fn read_detail(
    rows: &dyn Rows,
    place: &Place,
    key: &MailboxKey,
    item: CommandId,
    stages: &[(u32, DeliveryStage)],
) -> Result<Option<QueuedDetail>, StoreError> {
    let Some((own, record)) = read_item(rows, place, key, item)? else { return Ok(None) };
    let mut recipients = Vec::with_capacity(stages.len());
    for (number, stage) in stages {
        let found = read_recipient(rows, place.replica, place, (&own, key), (item, *number))?;
        recipients.extend(found.map(|found| (*number, found.recipient.address, *stage)));
    }
    let AcceptRecord { reverse_path, accepted, size_bytes, .. } = record;
    Ok(Some(QueuedDetail { reverse_path, accepted, size_bytes, recipients }))
}

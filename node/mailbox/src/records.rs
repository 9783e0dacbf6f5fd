//! What stands in the rows of a mailbox, their keys, and sealing. Every record is one byte of version and
//! postcard; fields and variants are only ever added at the end, together with a higher version.

use bytes::Bytes;
use mailraft_owner::Place;
use mailraft_storage::body::BodyId;
use mailraft_storage::entry::{versioned_decode, versioned_encode};
use mailraft_storage::seal::{self, Key, key_bytes};
use mailraft_storage::{
    ClusterId, CommandId, Env, Epoch, Index, MailboxId, RowKey, StoreError, Table, Term, UnixMillis,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::api::{Answer, EmailId, FolderId, Refusal, SpecialUse, ZonedTime};
use crate::flags::Flags;
use crate::uids::UidSet;

/// The newest version of the records, and the one written.
pub const RECORD_VERSION: u8 = 1;
/// How many UIDs share a page of flags.
pub const PAGE_UIDS: u32 = 1_024;

/// A mailbox's key and its generation.
#[derive(Clone, Debug)]
pub struct MailboxKey {
    pub(crate) key: Key,
    pub(crate) epoch: Epoch,
}

impl MailboxKey {
    /// A key with the epoch that rows sealed by it name.
    pub fn new(key: Key, epoch: Epoch) -> Self {
        MailboxKey { key, epoch }
    }
}

/// Marks the rows that one staged or removed change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct StageId(pub [u8; 16]);

/// A keyed hash as it stands in a row's key.
pub(crate) type KeyedHash = [u8; 32];

/// Counters of the whole mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// The last UIDVALIDITY given to a folder.
    pub uid_validity: u32,
    /// The last MODSEQ's counter, without the incarnation.
    pub modseq: u64,
    /// The last folder id given to a folder or subscription.
    pub folder: u32,
    /// The size of all messages, each counted once however many places it has.
    pub usage_bytes: u64,
    /// How many messages, in the same way.
    pub messages: u64,
    /// The applied position that the last entry was decided on.
    pub position: Index,
    /// The number of the incarnation it was decided in.
    pub incarnation: u32,
}

/// Where an incarnation began in a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ForkRecord {
    /// The number of the incarnation.
    pub incarnation: u32,
    /// The last MODSEQ's counter before it: what was above that in an earlier one is not part of the mailbox.
    pub modseq: u64,
}

/// A term that began while the home answered alone, in which the mailbox was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AloneRecord {
    /// The number of the incarnation.
    pub incarnation: u32,
    /// The term.
    pub term: Term,
    /// The MODSEQ's counter that it goes on above.
    pub modseq: u64,
    /// How many terms this stands for: older ones come to be told with the next.
    pub terms: u32,
}

/// A row of the folders' table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FolderRow {
    /// A folder.
    Folder(FolderRecord),
    /// A name that is subscribed to, whether or not there is a folder of it.
    Subscription(String),
}

/// A folder. It knows its last level and the folder above, so that renaming a subtree changes one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FolderRecord {
    pub parent: Option<FolderId>,
    pub leaf: String,
    pub uid_validity: u32,
    pub uid_next: u32,
    pub highest_modseq: u64,
    pub special_use: Option<SpecialUse>,
    pub selectable: bool,
    /// UIDs from here on are \Recent to the next SELECT.
    pub first_unclaimed: u32,
    /// What was expunged up to this MODSEQ is no longer known.
    pub expunged_floor: u64,
}

/// A message's content: everything but its body and its places.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContentRecord {
    pub thread: EmailId,
    pub body: BodyId,
    #[serde(with = "key_bytes")]
    pub body_key: Key,
    pub chunks: u32,
    pub internal_date: ZonedTime,
    pub saved: UnixMillis,
    pub size_bytes: u64,
    pub digest: [u8; 32],
    pub content_digest: [u8; 32],
    /// The POP3 unique id; the email id in hexadecimal for None.
    pub uidl: Option<String>,
    pub message_id: Option<String>,
    pub header: Bytes,
    pub envelope: Bytes,
    pub structure: Bytes,
    /// The id under which the body was sealed, where that is not its own: it came from a queue. None in rows of version 1.
    pub sealed_as: Option<BodyId>,
}

/// The version of a [`ContentRecord`] whose body was sealed under another id; others are written as the first one was.
const CONTENT_VERSION: u8 = 2;

/// A [`ContentRecord`] of version 1.
#[derive(Serialize, Deserialize)]
struct OwnContent {
    thread: EmailId,
    body: BodyId,
    #[serde(with = "key_bytes")]
    body_key: Key,
    chunks: u32,
    internal_date: ZonedTime,
    saved: UnixMillis,
    size_bytes: u64,
    digest: [u8; 32],
    content_digest: [u8; 32],
    uidl: Option<String>,
    message_id: Option<String>,
    header: Bytes,
    envelope: Bytes,
    structure: Bytes,
}

impl ContentRecord {
    pub fn encode(self) -> Vec<u8> {
        if self.sealed_as.is_some() {
            return versioned_encode(CONTENT_VERSION, &self);
        }
        let of = self;
        let own = OwnContent {
            thread: of.thread,
            body: of.body,
            body_key: of.body_key,
            chunks: of.chunks,
            internal_date: of.internal_date,
            saved: of.saved,
            size_bytes: of.size_bytes,
            digest: of.digest,
            content_digest: of.content_digest,
            uidl: of.uidl,
            message_id: of.message_id,
            header: of.header,
            envelope: of.envelope,
            structure: of.structure,
        };
        versioned_encode(1, &own)
    }

    pub fn decode(place: &str, bytes: &[u8]) -> Result<Self, StoreError> {
        if bytes.first() != Some(&1) {
            return versioned_decode(place, CONTENT_VERSION, bytes);
        }
        let of: OwnContent = versioned_decode(place, 1, bytes)?;
        Ok(ContentRecord {
            thread: of.thread,
            body: of.body,
            body_key: of.body_key,
            chunks: of.chunks,
            internal_date: of.internal_date,
            saved: of.saved,
            size_bytes: of.size_bytes,
            digest: of.digest,
            content_digest: of.content_digest,
            uidl: of.uidl,
            message_id: of.message_id,
            header: of.header,
            envelope: of.envelope,
            structure: of.structure,
            sealed_as: None,
        })
    }

    /// The POP3 unique id: 1 to 70 characters that are printed (RFC 1939, section 7).
    pub fn unique_id(&self, email: EmailId) -> String {
        match &self.uidl {
            Some(uidl) => uidl.clone(),
            None => email.0.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// What of a message is kept in memory, and therefore in each of its places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EmailInfo {
    pub body: BodyId,
    pub chunks: u32,
    pub size_bytes: u64,
    /// The first part of its key in the Message-ID index.
    pub message_id: Option<KeyedHash>,
}

/// Where a message is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlaceRecord {
    pub email: EmailId,
    pub flags: Flags,
    pub modseq: u64,
    /// It counts only if this stage is live.
    pub stage: Option<StageId>,
    pub info: EmailInfo,
    /// When the message came to this folder; None in rows of version 1.
    pub saved: Option<UnixMillis>,
}

/// The version of a [`PlaceRecord`]: the first one did not say when the message came.
const PLACE_VERSION: u8 = 2;

/// A [`PlaceRecord`] of version 1.
#[derive(Serialize, Deserialize)]
struct UndatedPlace {
    email: EmailId,
    flags: Flags,
    modseq: u64,
    stage: Option<StageId>,
    info: EmailInfo,
}

impl PlaceRecord {
    pub fn encode(&self) -> Vec<u8> {
        versioned_encode(PLACE_VERSION, self)
    }

    pub fn decode(place: &str, bytes: &[u8]) -> Result<Self, StoreError> {
        if bytes.first() == Some(&1) {
            let UndatedPlace { email, flags, modseq, stage, info } = versioned_decode(place, 1, bytes)?;
            return Ok(PlaceRecord { email, flags, modseq, stage, info, saved: None });
        }
        versioned_decode(place, PLACE_VERSION, bytes)
    }
}

/// Flags of many places of one page: each group's UIDs got these flags at this MODSEQ. A place whose own
/// row has a higher MODSEQ does not heed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlagPageRecord {
    pub groups: Vec<FlagGroup>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlagGroup {
    pub modseq: u64,
    pub flags: Flags,
    /// Offsets in the page plus one.
    pub offsets: PackedUids,
}

/// What was expunged at one MODSEQ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExpungedRecord {
    pub uids: PackedUids,
}

/// What a delivery was answered, and which message that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeliveryRecord {
    pub at: UnixMillis,
    pub uid_validity: u32,
    pub uid: u32,
    pub modseq: u64,
    /// None in rows of version 1.
    pub email: Option<EmailId>,
}

/// The version of a [`DeliveryRecord`]: the first one did not name the message.
const DELIVERY_VERSION: u8 = 2;

/// A [`DeliveryRecord`] of version 1.
#[derive(Serialize, Deserialize)]
struct UnnamedDelivery {
    at: UnixMillis,
    uid_validity: u32,
    uid: u32,
    modseq: u64,
}

impl DeliveryRecord {
    pub fn encode(&self) -> Vec<u8> {
        versioned_encode(DELIVERY_VERSION, self)
    }

    pub fn decode(place: &str, bytes: &[u8]) -> Result<Self, StoreError> {
        if bytes.first() == Some(&1) {
            let UnnamedDelivery { at, uid_validity, uid, modseq } = versioned_decode(place, 1, bytes)?;
            return Ok(DeliveryRecord { at, uid_validity, uid, modseq, email: None });
        }
        versioned_decode(place, DELIVERY_VERSION, bytes)
    }
}

/// A command whose answer its client may not have heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RepeatRecord {
    pub at: UnixMillis,
    pub command: CommandId,
    pub made: Repeated,
}

/// What a command made and was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Repeated {
    Stored {
        email: EmailId,
        uid_validity: u32,
        uid: u32,
        modseq: u64,
    },
    /// `count` copies of `from`, with UIDs from `first` on.
    Copied {
        folder: FolderId,
        uid_validity: u32,
        from: PackedUids,
        first: u32,
        count: u32,
    },
    /// A message for several mailboxes, in a queue mailbox.
    Accepted {
        item: CommandId,
    },
}

/// A row of the stages' table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StageRecord {
    /// The places written under this stage count. Kept for good: they go on naming it.
    Live,
    /// These places are gone although their rows may still be there; a sweep deletes them.
    Removed { folder: FolderId, uids: PackedUids },
}

/// An upload that is not live yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenBodyRecord {
    pub opened: UnixMillis,
    pub chunks: u32,
}

/// The row that an uploader sends in a body's first chunk entry. `chunks` is how many the body has.
pub fn open_body_row(
    env: &mut Env,
    key: &MailboxKey,
    cluster: ClusterId,
    mailbox: MailboxId,
    body: BodyId,
    chunks: u32,
    when: UnixMillis,
) -> Bytes {
    let plain = encode(&OpenBodyRecord { opened: when, chunks });
    seal::seal_row(env, &key.key, key.epoch, cluster, &open_body_key(mailbox, body), &plain)
}

/// A set of UIDs as gap and length of each range, a fraction of the size of the plain ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackedUids(Vec<(u32, u32)>);

impl PackedUids {
    pub fn pack(uids: &UidSet) -> Self {
        let mut at = 0;
        PackedUids(
            uids.ranges()
                .iter()
                .map(|&(lo, hi)| {
                    let packed = (lo - at, hi - lo);
                    at = hi;
                    packed
                })
                .collect(),
        )
    }

    pub fn unpack(&self) -> Result<UidSet, StoreError> {
        let damaged = || StoreError::damaged("set of UIDs", "it goes past 2^32");
        let mut at = 0u32;
        let mut ranges = Vec::with_capacity(self.0.len());
        for &(gap, more) in &self.0 {
            let lo = at.checked_add(gap).ok_or_else(damaged)?;
            at = lo.checked_add(more).ok_or_else(damaged)?;
            ranges.push((lo, at));
        }
        Ok(UidSet::from_ranges(ranges))
    }
}

/// A result as it is kept: lists of UIDs packed, so that the largest COPY's fits an entry.
#[derive(Serialize, Deserialize)]
enum KeptResult {
    Plain(Result<Answer, Refusal>),
    Copied { uid_validity: u32, from: PackedUids, to: PackedUids },
    Expunged { uids: PackedUids, modseq: Option<u64> },
}

/// A result, encoded to be sealed.
pub(crate) fn encode_result(result: &Result<Answer, Refusal>) -> Vec<u8> {
    let kept = match result {
        Ok(Answer::Copied { uid_validity, from, to }) => KeptResult::Copied {
            uid_validity: *uid_validity,
            from: PackedUids::pack(&from.iter().copied().collect()),
            to: PackedUids::pack(&to.iter().copied().collect()),
        },
        Ok(Answer::Expunged { uids, modseq }) => KeptResult::Expunged { uids: PackedUids::pack(uids), modseq: *modseq },
        other => KeptResult::Plain(other.clone()),
    };
    encode(&kept)
}

/// The inverse of [`encode_result`].
pub(crate) fn decode_result(bytes: &[u8]) -> Result<Result<Answer, Refusal>, StoreError> {
    Ok(match decode("a command's result", bytes)? {
        KeptResult::Plain(result) => result,
        KeptResult::Copied { uid_validity, from, to } => Ok(Answer::Copied {
            uid_validity,
            from: from.unpack()?.iter().collect(),
            to: to.unpack()?.iter().collect(),
        }),
        KeptResult::Expunged { uids, modseq } => Ok(Answer::Expunged { uids: uids.unpack()?, modseq }),
    })
}

pub(crate) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    versioned_encode(RECORD_VERSION, record)
}

pub(crate) fn decode<T: DeserializeOwned>(place: &str, bytes: &[u8]) -> Result<T, StoreError> {
    versioned_decode(place, RECORD_VERSION, bytes)
}

/// Opens a sealed row and decodes the record in it.
pub(crate) fn open<T: DeserializeOwned>(
    key: &MailboxKey,
    cluster: ClusterId,
    row: &RowKey,
    sealed: &[u8],
) -> Result<T, StoreError> {
    open_with(key, cluster, row, sealed, decode)
}

/// Opens a sealed row and decodes the record in it by a rule of its own.
pub(crate) fn open_with<T>(
    key: &MailboxKey,
    cluster: ClusterId,
    row: &RowKey,
    sealed: &[u8],
    decode: impl FnOnce(&str, &[u8]) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let name = || format!("row {:02x} of mailbox {}", row.table, row.mailbox);
    let plain = seal::open_row(&key.key, cluster, row, sealed).map_err(|e| StoreError::damaged(name(), e))?;
    decode(&name(), &plain)
}

/// The page that a UID's flags are in.
pub(crate) fn page_of(uid: u32) -> u32 {
    uid / PAGE_UIDS
}

pub(crate) fn counters_key(mailbox: MailboxId) -> RowKey {
    RowKey::new(mailbox, Table::Counters, [])
}

/// Where all its forks stand in one row, in rising order.
pub(crate) fn forks_key(mailbox: MailboxId) -> RowKey {
    RowKey::new(mailbox, Table::Counters, [1])
}

/// Where all its terms that began alone stand in one row, in rising order.
pub(crate) fn alone_key(mailbox: MailboxId) -> RowKey {
    RowKey::new(mailbox, Table::Counters, [2])
}

pub(crate) fn folder_key(mailbox: MailboxId, folder: FolderId) -> RowKey {
    RowKey::new(mailbox, Table::Folders, folder.0.to_be_bytes())
}

pub(crate) fn content_key(mailbox: MailboxId, email: EmailId) -> RowKey {
    RowKey::new(mailbox, Table::Contents, email.0)
}

pub(crate) fn place_key(mailbox: MailboxId, folder: FolderId, uid: u32) -> RowKey {
    RowKey::new(mailbox, Table::Places, two(folder.0, &uid.to_be_bytes()))
}

pub(crate) fn page_key(mailbox: MailboxId, folder: FolderId, page: u32) -> RowKey {
    RowKey::new(mailbox, Table::FlagPages, two(folder.0, &page.to_be_bytes()))
}

pub(crate) fn expunged_key(mailbox: MailboxId, folder: FolderId, modseq: u64) -> RowKey {
    RowKey::new(mailbox, Table::Expunged, two(folder.0, &modseq.to_be_bytes()))
}

pub(crate) fn message_id_key(mailbox: MailboxId, hash: &KeyedHash, email: EmailId) -> RowKey {
    let mut key = hash.to_vec();
    key.extend_from_slice(&email.0);
    RowKey::new(mailbox, Table::MessageIds, key)
}

pub(crate) fn delivery_key(mailbox: MailboxId, hash: &KeyedHash) -> RowKey {
    RowKey::new(mailbox, Table::Deliveries, *hash)
}

pub(crate) fn repeat_key(mailbox: MailboxId, hash: &KeyedHash) -> RowKey {
    RowKey::new(mailbox, Table::Repeats, *hash)
}

pub(crate) fn stage_key(mailbox: MailboxId, stage: StageId) -> RowKey {
    RowKey::new(mailbox, Table::Stages, stage.0)
}

/// The key of the row that says an upload is not live yet.
pub fn open_body_key(mailbox: MailboxId, body: BodyId) -> RowKey {
    RowKey::new(mailbox, Table::OpenBodies, body.0)
}

/// The key of a chunk of a body.
pub fn chunk_key(mailbox: MailboxId, body: BodyId, number: u32) -> RowKey {
    let mut key = body.0.to_vec();
    key.extend_from_slice(&number.to_be_bytes());
    RowKey::new(mailbox, Table::Chunks, key)
}

fn two(first: u32, second: &[u8]) -> Vec<u8> {
    let mut key = first.to_be_bytes().to_vec();
    key.extend_from_slice(second);
    key
}

/// Seals a command's result for its row.
pub(crate) fn seal_result(env: &mut Env, key: &MailboxKey, place: &Place, id: CommandId, plain: &[u8]) -> Bytes {
    seal::seal_row(env, &key.key, key.epoch, place.cluster, &seal::result_place(place.mailbox, id), plain)
}

/// Opens a command's result.
pub(crate) fn open_result(
    key: &MailboxKey,
    place: &Place,
    id: CommandId,
    sealed: &[u8],
) -> Result<Result<Answer, Refusal>, StoreError> {
    let plain = seal::open_row(&key.key, place.cluster, &seal::result_place(place.mailbox, id), sealed)
        .map_err(|e| StoreError::damaged(format!("result of command {id}"), e))?;
    decode_result(&plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn packed_sets_and_results_come_back() {
        let every_second: UidSet = (1..1_000).map(|n| n * 2).collect();
        for set in [
            UidSet::new(),
            UidSet::range(1, u32::MAX),
            UidSet::from_ranges(vec![(5, 5), (9, 12)]),
            every_second.clone(),
        ] {
            assert_eq!(PackedUids::pack(&set).unpack().unwrap(), set);
        }
        assert!(PackedUids(vec![(5, 1), (u32::MAX, 0)]).unpack().is_err());
        assert!(encode(&PackedUids::pack(&every_second)).len() < 2_010, "two bytes a range");
        for result in [
            Ok(Answer::Copied { uid_validity: 3, from: vec![1, 5, 6], to: vec![10, 11, 12] }),
            Ok(Answer::Expunged { uids: every_second, modseq: Some(7) }),
            Ok(Answer::Done),
            Err(Refusal::OverQuota),
        ] {
            assert_eq!(decode_result(&encode_result(&result)).unwrap(), result);
        }
    }

    #[test]
    fn a_delivery_is_read_in_every_version() {
        let old = UnnamedDelivery { at: UnixMillis(7), uid_validity: 2, uid: 3, modseq: 4 };
        let kept = [1, 7, 2, 3, 4];
        assert_eq!(versioned_encode(1, &old), kept, "what version 1 wrote");
        let mut record = DeliveryRecord { at: UnixMillis(7), uid_validity: 2, uid: 3, modseq: 4, email: None };
        assert_eq!(DeliveryRecord::decode("row", &kept).unwrap(), record);
        record.email = Some(EmailId([5; 16]));
        assert_eq!(DeliveryRecord::decode("row", &record.encode()).unwrap(), record);
        let later = [&[3], &record.encode()[1..]].concat();
        assert!(matches!(DeliveryRecord::decode("row", &later), Err(StoreError::Newer { .. })));
    }

    #[test]
    fn a_content_is_read_in_every_version_and_written_as_the_first_one_where_that_says_all() {
        let of = |sealed_as| ContentRecord {
            thread: EmailId([1; 16]),
            body: BodyId([2; 16]),
            body_key: Key::from_bytes([3; 32]),
            chunks: 1,
            internal_date: ZonedTime::default(),
            saved: UnixMillis(4),
            size_bytes: 5,
            digest: [6; 32],
            content_digest: [7; 32],
            uidl: None,
            message_id: Some("m".to_owned()),
            header: Bytes::from_static(b"h"),
            envelope: Bytes::from_static(b"e"),
            structure: Bytes::from_static(b"s"),
            sealed_as,
        };
        for (sealed_as, version) in [(None, 1), (Some(BodyId([8; 16])), CONTENT_VERSION)] {
            let encoded = of(sealed_as).encode();
            assert_eq!(encoded[0], version);
            assert_eq!(ContentRecord::decode("row", &encoded).unwrap(), of(sealed_as));
        }
        let later = [&[3], &of(None).encode()[1..]].concat();
        assert!(matches!(ContentRecord::decode("row", &later), Err(StoreError::Newer { .. })));
    }

    #[test]
    fn a_place_is_read_in_every_version() {
        let info = EmailInfo { body: BodyId([1; 16]), chunks: 1, size_bytes: 5, message_id: None };
        let (email, flags) = (EmailId([2; 16]), Flags::none().with_keyword("k"));
        let old = UndatedPlace { email, flags: flags.clone(), modseq: 7, stage: None, info };
        let mut record = PlaceRecord { email, flags, modseq: 7, stage: None, info, saved: None };
        assert_eq!(PlaceRecord::decode("row", &versioned_encode(1, &old)).unwrap(), record);
        record.saved = Some(UnixMillis(9));
        assert_eq!(PlaceRecord::decode("row", &record.encode()).unwrap(), record);
        let later = [&[3], &record.encode()[1..]].concat();
        assert!(matches!(PlaceRecord::decode("row", &later), Err(StoreError::Newer { .. })));
    }

    #[test]
    fn an_open_body_row_opens_at_its_place_only() {
        let mut env = Env::seeded(1);
        let key = MailboxKey::new(Key::generate(&mut env), Epoch(1));
        let (cluster, mailbox, body) = (ClusterId([1; 16]), MailboxId([2; 16]), BodyId([3; 16]));
        let row = open_body_row(&mut env, &key, cluster, mailbox, body, 7, UnixMillis(9));
        let record: OpenBodyRecord = open(&key, cluster, &open_body_key(mailbox, body), &row).unwrap();
        assert_eq!(record, OpenBodyRecord { opened: UnixMillis(9), chunks: 7 });
        assert!(open::<OpenBodyRecord>(&key, cluster, &open_body_key(mailbox, BodyId([4; 16])), &row).is_err());
    }
}

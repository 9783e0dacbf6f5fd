//! Commands, answers, events and refusals, as sessions on any node speak them. They travel between nodes
//! in postcard: variants and fields are only ever added at the end.

use std::cell::Cell;
use std::fmt;

use bytes::Bytes;
use mailraft_storage::body::BodyId;
use mailraft_storage::seal::{Key, key_bytes};
use mailraft_storage::{CommandId, UnixMillis};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::accepted::{
    AcceptedEnvelope, Diagnosis, QueueChange, QueueDecision, QueueOrigin, QueuedAsked, QueuedDetail, QueuedItem, Told,
};
pub use crate::email_id::EmailId;
use crate::flags::{Flags, KeywordSharing};
pub use crate::folders::{
    FOLDER_NAME_MAX_BYTES, FOLDERS_MAX, FolderId, FolderInfo, FolderStatus, HIERARCHY_SEPARATOR, Listing, SpecialUse,
    Watching,
};
pub use crate::limits::QuotaUsage;
use crate::search_index::{SearchAnswer, SearchQuestion};
use crate::uids::UidSet;

/// A POP3 session that has the maildrop to itself, or wants it: 128 random bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MaildropHolder(pub [u8; 16]);

/// The most UIDs that one [`Command::Fetch`] or [`Command::UniqueIds`] answers for.
pub const FETCH_UIDS_MAX: usize = 500;
/// The most chunks that one [`Command::ReadChunks`] reads: of whole size they would be 16 MiB, which a frame has room for.
pub const READ_CHUNKS_MAX: usize = 64;
/// The most messages that one [`Command::AppendMany`] appends: what brings them is one entry.
pub const APPEND_MESSAGES_MAX: usize = 256;
/// The most folders that one [`Command::Statuses`] answers for.
pub const STATUSES_MAX: usize = 1_000;
/// The most items that one [`Command::QueueItems`] answers for.
pub const QUEUE_ITEMS_LISTED_MAX: usize = 1_000;
/// A point in time with the zone it was given in (RFC 3501 date-time).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ZonedTime {
    /// Seconds since 1970-01-01 UTC.
    pub unix_seconds: i64,
    /// Minutes east of UTC.
    pub zone_minutes: i16,
}

/// A message on its way into the mailbox, prepared and sealed by the session's node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewMessage {
    /// The sealed body's id.
    pub body: BodyId,
    /// The key that sealed it, used for nothing else.
    #[serde(with = "key_bytes")]
    pub body_key: Key,
    /// How many chunks it has (`storage::body::chunk_count` of its size).
    pub chunks: u32,
    /// The only chunk, if there is one. Otherwise all of them were uploaded before.
    pub inline: Option<Bytes>,
    /// The whole message in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the whole message.
    pub digest: [u8; 32],
    /// SHA-256 of the message without trace header fields.
    pub content_digest: [u8; 32],
    /// The header block with its closing empty line; nothing if it is longer than 256 KiB, and then it is read from the
    /// body.
    pub header: Bytes,
    /// `message::Envelope`, encoded; opaque here.
    pub envelope: Bytes,
    /// `message::Part`, encoded; opaque here.
    pub structure: Bytes,
    /// The Message-ID field's value, if there is one.
    pub message_id: Option<String>,
}

/// One of several messages that are appended together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppendedMessage {
    /// The message.
    pub new_message: NewMessage,
    /// Its flags.
    pub flags: Flags,
    /// Its INTERNALDATE.
    pub internal_date: ZonedTime,
}

/// What makes a command the repeat of another one whose answer its client may not have heard: then it is not done again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// SHA-256 of what the client asked beside what stands in the command, as the recipients of a message.
    pub request: [u8; 32],
    /// Earlier commands of the session, whose answers the client has heard: at most
    /// [`HEARD_MAX`](crate::limits::HEARD_MAX).
    pub heard: Vec<CommandId>,
    /// The session's own latest commands that were answered, heard or not, at most as many: whoever has an answer and asks
    /// on the same connection does not repeat what was answered.
    pub own: Vec<CommandId>,
}

/// How STORE changes flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreMode {
    /// FLAGS
    Replace,
    /// +FLAGS
    Add,
    /// -FLAGS
    Remove,
}

/// What a FETCH needs beside UID, flags and MODSEQ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchWhat {
    /// INTERNALDATE, size, email id, body id and key.
    pub content: bool,
    /// The header block, ENVELOPE and BODYSTRUCTURE.
    pub header: bool,
}

/// What a session asks of a mailbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    // Reads.
    /// Answers [`Answer::Done`] when everything before it is answered; what NOOP asks.
    Sync,
    /// All folders.
    List,
    /// The counts of a folder, by name.
    Status {
        /// Its name.
        folder: String,
    },
    /// Opens a folder: all its messages. The session hears its events from here on until it is closed.
    Select {
        /// Its name.
        folder: String,
        /// SELECT claims the recent messages, EXAMINE does not.
        claim_recent: bool,
    },
    /// What changed in a folder since a MODSEQ (QRESYNC); what a session asks after a failover. Subscribes
    /// like [`Command::Select`].
    Resume {
        /// The folder.
        folder: FolderId,
        /// Its UIDVALIDITY as the session knows it.
        uid_validity: u32,
        /// The highest MODSEQ the session knows.
        since: u64,
        /// The UIDs that the session knows.
        known: UidSet,
    },
    /// No more events of the open folder.
    Unselect,
    /// Metadata of at most [`FETCH_UIDS_MAX`] messages. UIDs that don't exist are left out.
    Fetch {
        /// The folder.
        folder: FolderId,
        /// The UIDs of the messages.
        uids: UidSet,
        /// What is read of them beside flags.
        what: FetchWhat,
    },
    /// One sealed chunk of a body that the session learnt from a fetch.
    ReadChunk {
        /// The message, so that only what is still in the mailbox is read.
        email: EmailId,
        /// The body.
        body: BodyId,
        /// The chunk's number.
        number: u32,
    },

    // Changes.
    /// Delivers to INBOX, or to the folder of `+detail` if there is one of that name.
    Deliver {
        /// The message.
        new_message: NewMessage,
        /// The reverse-path, empty for null.
        reverse_path: String,
        /// The `+detail` of the recipient's address.
        detail: Option<String>,
        /// Whether a repeat within a day is answered with the first one's answer: not on submission.
        deduplicate: bool,
        /// When it arrived.
        received: ZonedTime,
    },
    /// Appends to a folder.
    Append {
        /// Its name.
        folder: String,
        /// The message.
        new_message: NewMessage,
        /// Its flags.
        flags: Flags,
        /// Its INTERNALDATE.
        internal_date: ZonedTime,
    },
    /// Changes flags. UIDs that don't exist are left out.
    Store {
        /// The folder.
        folder: FolderId,
        /// The UIDs of the messages.
        uids: UidSet,
        /// How the flags change.
        mode: StoreMode,
        /// The flags that are added, removed or put in their place.
        flags: Flags,
        /// Only messages whose MODSEQ is not above it (CONDSTORE).
        unchanged_since: Option<u64>,
    },
    /// Copies messages to another folder; all or none.
    Copy {
        /// The folder that they are in.
        folder: FolderId,
        /// The UIDs of the messages.
        uids: UidSet,
        /// The name of the folder that they are copied to.
        to: String,
    },
    /// Moves messages to another folder; all or none.
    Move {
        /// The folder that they are in.
        folder: FolderId,
        /// The UIDs of the messages.
        uids: UidSet,
        /// The name of the folder that they are moved to.
        to: String,
    },
    /// Removes messages that are \Deleted, only those among `uids` if given (UID EXPUNGE).
    Expunge {
        /// The folder.
        folder: FolderId,
        /// Which of the \Deleted messages; all for None.
        uids: Option<UidSet>,
    },
    /// Makes a folder, and those above it.
    CreateFolder {
        /// Its name.
        name: String,
    },
    /// Deletes a folder with its messages; one with folders below it stays as `\Noselect`.
    DeleteFolder {
        /// Its name.
        name: String,
    },
    /// Renames a folder and those below it. INBOX: moves its messages to a new folder (RFC 3501, 6.3.5).
    RenameFolder {
        /// Its name.
        from: String,
        /// The new name.
        to: String,
    },
    /// Subscribes to a name or ends that.
    Subscribe {
        /// The name; subscribing needs no folder of it.
        name: String,
        /// Whether to subscribe.
        on: bool,
    },
    /// Does an APPEND, a COPY or a delivery, unless the same was done before, nobody is known to have heard the answer, and
    /// what it made is still there. Then that answer is given again.
    Once {
        /// What makes it the same.
        once: Once,
        /// The command.
        #[serde(deserialize_with = "done_once")]
        command: Box<Command>,
    },
    /// The answers to these commands were heard: what asks for the same of this owner from now on is done again. The owner
    /// does not answer, and writes it only with its next entry: whoever wants to know that it has heard asks
    /// [`Command::Sync`] over the same link.
    Heard {
        /// Their ids, at most [`HEARD_MAX`](crate::limits::HEARD_MAX).
        commands: Vec<CommandId>,
    },

    // For POP3.
    /// The messages of INBOX as a maildrop (RFC 1939).
    Maildrop,
    /// The POP3 unique ids of at most [`FETCH_UIDS_MAX`] messages. UIDs that don't exist are left out.
    UniqueIds {
        /// The folder.
        folder: FolderId,
        /// The UIDs of the messages.
        uids: UidSet,
    },
    /// Removes messages, whatever their flags. UIDs that don't exist are left out.
    Remove {
        /// The folder.
        folder: FolderId,
        /// The UIDs of the messages.
        uids: UidSet,
    },
    /// Does a command for a session that has the maildrop to itself, or gets it because nobody else has it; else it is
    /// refused. [`Command::Maildrop`] also takes it from a session that has been silent for a minute, and
    /// [`Command::Unselect`] gives it back.
    InMaildrop {
        /// The session.
        holder: MaildropHolder,
        /// The command.
        command: Box<Command>,
    },

    /// Makes a folder for a special use that no other one has, and those above it.
    CreateFolderFor {
        /// Its name.
        name: String,
        /// What it is for.
        special_use: SpecialUse,
    },
    /// How much of its quota the mailbox takes.
    Quota,
    /// Appends a message in the place of another one (RFC 8508): both or neither.
    Replace {
        /// The folder of the one that goes.
        folder: FolderId,
        /// Its UID.
        uid: u32,
        /// The name of the folder that the new one comes to.
        to: String,
        /// The new one.
        new_message: NewMessage,
        /// Its flags.
        flags: Flags,
        /// Its INTERNALDATE.
        internal_date: ZonedTime,
    },
    /// Sealed chunks of several bodies, at most [`READ_CHUNKS_MAX`], which the asker knows to be short: what it searches is
    /// read for many messages at once.
    ReadChunks {
        /// Of each the message, the body and the chunk's number, as for [`Command::ReadChunk`].
        chunks: Vec<(EmailId, BodyId, u32)>,
    },
    /// When at most [`FETCH_UIDS_MAX`] messages came to their folder. UIDs that don't exist are left out.
    SaveDates {
        /// The folder.
        folder: FolderId,
        /// The UIDs of the messages.
        uids: UidSet,
    },
    /// How many messages of a folder are \\Deleted.
    CountDeleted {
        /// Its name.
        folder: String,
    },

    // For messages to several mailboxes.
    /// A queue mailbox takes a message in, which is delivered from there.
    Accept {
        /// The message.
        new_message: NewMessage,
        /// Whom it is from and for.
        accepted: AcceptedEnvelope,
        /// When it arrived.
        received: ZonedTime,
    },
    /// Delivers what a queue mailbox accepted, unless it was delivered before; the mailbox's quota was asked when it was
    /// accepted.
    DeliverQueued {
        /// Where it comes from.
        origin: QueueOrigin,
        /// The message.
        new_message: NewMessage,
        /// The id under which its body was sealed.
        sealed_as: BodyId,
        /// The reverse-path, empty for null.
        reverse_path: String,
        /// The `+detail` of the recipient's address.
        detail: Option<String>,
        /// Whether a sender's repeat is recognised.
        deduplicate: bool,
        /// When it arrived.
        received: ZonedTime,
    },
    /// The queue knows for good that this was delivered: the mailbox forgets it, and takes nothing more that was decided
    /// before.
    ReleaseQueued {
        /// Where it came from.
        origin: QueueOrigin,
    },
    /// A queue mailbox's owner says how far a delivery is. Of nobody else is it taken.
    ChangeQueue {
        /// The change.
        change: QueueChange,
    },
    /// The items of a queue mailbox after this one, at most [`QUEUE_ITEMS_LISTED_MAX`].
    QueueItems {
        /// None for the first.
        after: Option<CommandId>,
    },
    /// An item of a queue mailbox with its recipients.
    QueueItem {
        /// The id under which it was accepted.
        item: CommandId,
    },
    /// A queue mailbox takes in what the sender of an item is told; with it he is.
    Report {
        /// Of what, and of whom.
        told: Told,
        /// The report.
        new_message: NewMessage,
        /// Whom it is for; from nobody.
        accepted: AcceptedEnvelope,
        /// When it was made.
        received: ZonedTime,
    },
    /// What an operator wants done with recipients of an item.
    DecideQueued {
        /// The item.
        item: CommandId,
        /// The recipients; none for all.
        recipients: Vec<u32>,
        /// What is done with them.
        decision: QueueDecision,
    },
    /// How the last attempts to send an item ended.
    QueueAttempts {
        /// The item.
        item: CommandId,
    },
    /// What the sender of an item asked for.
    QueueAsked {
        /// The item.
        item: CommandId,
    },
    /// Appends several messages to a folder (RFC 3502); all or none.
    AppendMany {
        /// Its name.
        folder: String,
        /// At most [`APPEND_MESSAGES_MAX`].
        messages: Vec<AppendedMessage>,
    },

    /// What the session hears of folders that it does not have open, from here on until it is detached.
    Watch {
        /// What.
        what: Watching,
    },
    /// The counts of those of these folders whose HIGHESTMODSEQ is another than that which is named, at most
    /// [`STATUSES_MAX`]. Folders that are no more are left out.
    Statuses {
        /// Of each its HIGHESTMODSEQ as the session knows it.
        known: Vec<(FolderId, u64)>,
    },
    /// About the index for searches.
    Search(SearchQuestion),
}

/// Reads the command of a [`Command::Once`]. None is in another: each would take its part of the stack, and nobody writes
/// one.
fn done_once<'de, D: Deserializer<'de>>(from: D) -> Result<Box<Command>, D::Error> {
    thread_local! {
        static IS_IN_ONE: Cell<bool> = const { Cell::new(false) };
    }
    if IS_IN_ONE.replace(true) {
        return Err(D::Error::custom("a command that is done once is in another"));
    }
    let command = Box::deserialize(from);
    IS_IN_ONE.set(false);
    command
}

/// A message as a session's view keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageState {
    /// Its UID.
    pub uid: u32,
    /// Its flags.
    pub flags: Flags,
    /// When they last changed.
    pub modseq: u64,
}

/// A folder as it is opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selected {
    /// The folder.
    pub folder: FolderId,
    /// UIDVALIDITY
    pub uid_validity: u32,
    /// UIDNEXT
    pub uid_next: u32,
    /// HIGHESTMODSEQ
    pub highest_modseq: u64,
    /// UIDs from here on are \Recent in this session.
    pub first_recent_uid: u32,
    /// All messages, UIDs rising.
    #[serde(deserialize_with = "sharing_keywords")]
    pub messages: Vec<MessageState>,
}

/// What changed in a folder since a MODSEQ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// UIDNEXT
    pub uid_next: u32,
    /// HIGHESTMODSEQ
    pub highest_modseq: u64,
    /// Of the known UIDs, those that are no more.
    pub vanished: UidSet,
    /// Messages that are new or whose flags changed.
    #[serde(deserialize_with = "sharing_keywords")]
    pub changed: Vec<MessageState>,
}

/// A message's metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fetched {
    /// UID, flags, MODSEQ.
    pub state: MessageState,
    /// With [`FetchWhat::content`].
    pub content: Option<FetchedContent>,
    /// With [`FetchWhat::header`].
    pub header: Option<FetchedHeader>,
}

/// Where a message's body is, and its dates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FetchedContent {
    /// Its immutable id.
    pub email: EmailId,
    /// The id of its conversation.
    pub thread: EmailId,
    /// INTERNALDATE
    pub internal_date: ZonedTime,
    /// RFC822.SIZE
    pub size_bytes: u64,
    /// The body's id.
    pub body: BodyId,
    /// The key that opens it.
    #[serde(with = "key_bytes")]
    pub body_key: Key,
    /// How many chunks it has.
    pub chunks: u32,
}

/// What was parsed of a message when it came in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FetchedHeader {
    /// The header block with its closing empty line; nothing if it is longer than 256 KiB, and then it is read from the
    /// body.
    pub header: Bytes,
    /// `message::Envelope`, encoded.
    pub envelope: Bytes,
    /// `message::Part`, encoded.
    pub structure: Bytes,
}

/// INBOX as a maildrop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maildrop {
    /// The folder.
    pub folder: FolderId,
    /// All messages, UIDs rising.
    pub messages: Vec<MaildropMessage>,
}

/// A message of a maildrop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaildropMessage {
    /// Its UID.
    pub uid: u32,
    /// The whole message in bytes.
    pub size_bytes: u64,
}

/// What the mailbox answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// Done; nothing to say (Sync, Unselect, folders, Subscribe).
    Done,
    /// To List.
    Folders(Vec<FolderInfo>),
    /// To Status.
    Status(FolderStatus),
    /// To Select.
    Selected(Selected),
    /// To Resume.
    Resumed(Resumed),
    /// To Fetch; UIDs rising.
    Fetched(Vec<Fetched>),
    /// To ReadChunk; None if it is no more.
    Chunk(Option<Bytes>),
    /// To Deliver, Append and Replace.
    Stored {
        /// The UIDVALIDITY of the folder that it is in.
        uid_validity: u32,
        /// Its UID.
        uid: u32,
        /// Its MODSEQ.
        modseq: u64,
    },
    /// To Store.
    Flagged {
        /// UIDs refused because of `unchanged_since`.
        modified: UidSet,
        /// The MODSEQ of the change; None if nothing changed.
        modseq: Option<u64>,
    },
    /// To Copy and Move: `from[i]` became `to[i]`. Both empty if no message was there.
    Copied {
        /// The UIDVALIDITY of the target folder.
        uid_validity: u32,
        /// The UIDs that were copied or moved, rising.
        from: Vec<u32>,
        /// The UID of each in the target folder, in the same order.
        to: Vec<u32>,
    },
    /// To Expunge and Remove.
    Expunged {
        /// The UIDs of the messages that went.
        uids: UidSet,
        /// The MODSEQ of the change; None if nothing went.
        modseq: Option<u64>,
    },
    /// To Maildrop.
    Maildrop(Maildrop),
    /// To UniqueIds; UIDs rising.
    UniqueIds(Vec<(u32, String)>),
    /// To Quota.
    Quota(QuotaUsage),
    /// To CountDeleted.
    Counted(u32),
    /// To SaveDates; UIDs rising.
    SaveDates(Vec<(u32, UnixMillis)>),
    /// To ReadChunks, in their order; None for those that are no more.
    Chunks(Vec<Option<Bytes>>),
    /// To Accept.
    Accepted {
        /// The id under which it waits: that of an earlier command, if this one repeats it.
        item: CommandId,
        /// The recipients' addresses.
        recipients: Vec<String>,
    },
    /// To QueueItems, oldest first.
    QueueItems(Vec<QueuedItem>),
    /// To QueueItem; None for one that is not in the queue: every recipient has it, or it never was there.
    QueueItem(Option<QueuedDetail>),
    /// To QueueAttempts: of each recipient for whom one was made.
    QueueAttempts(Vec<(u32, Diagnosis)>),
    /// To QueueAsked; None for one that is not in the queue.
    QueueAsked(Option<QueuedAsked>),
    /// To AppendMany.
    Appended {
        /// The folder's UIDVALIDITY.
        uid_validity: u32,
        /// The UID of each message, in their order.
        uids: Vec<u32>,
    },
    /// To Statuses.
    Statuses(Vec<(FolderId, FolderStatus)>),
    /// To Search.
    Search(SearchAnswer),
}

/// Why the mailbox does not do it. Results like answers: kept under the command's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// There is no such folder.
    #[error("no such folder")]
    NoSuchFolder,
    /// The target of APPEND, COPY or MOVE could be created (TRYCREATE).
    #[error("no such folder; create it first")]
    TryCreate,
    /// CREATE or RENAME to a name that exists.
    #[error("a folder of that name exists")]
    FolderExists,
    /// Not a name that a folder can have.
    #[error("{0}")]
    BadName(String),
    /// INBOX can't be deleted, a deleted level can't be selected, and so on.
    #[error("{0}")]
    NotAllowed(String),
    /// A bound of the mailbox is reached.
    #[error("{0}")]
    Limit(String),
    /// The mailbox is full.
    #[error("the mailbox is full")]
    OverQuota,
    /// A row of this mailbox is damaged.
    #[error("part of this mailbox is damaged and being repaired")]
    Corrupt,
    /// The folder was made anew since the session opened it.
    #[error("the folder was deleted")]
    FolderGone,
    /// Another POP3 session has the maildrop to itself.
    #[error("another session has this maildrop open; try again later")]
    MaildropInUse,
    /// A queue mailbox holds as much as it may.
    #[error("too much mail waits to be delivered; try again later")]
    QueueFull,
    /// A queue decided on this delivery before it released later ones: it is to look again.
    #[error("the queue has gone on since it decided on this")]
    Stale,
}

/// What changed in a folder, told to every session that has it open, in the order of the log and before
/// the answer to the command that caused it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The folder in which it changed.
    pub folder: FolderId,
    /// The command that caused it.
    pub origin: CommandId,
    /// HIGHESTMODSEQ after it.
    pub modseq: u64,
    /// What changed.
    pub change: Change,
}

/// The kinds of change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// New messages, UIDs rising.
    Added(#[serde(deserialize_with = "sharing_keywords")] Vec<MessageState>),
    /// Flags of messages that were there.
    Flagged(#[serde(deserialize_with = "sharing_keywords")] Vec<MessageState>),
    /// Messages are gone.
    Expunged(UidSet),
    /// The folder itself is gone.
    FolderDeleted,
}

/// Messages of which those with equal keywords share them in memory, as they did where they come from.
fn sharing_keywords<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<MessageState>, D::Error> {
    struct Messages;
    impl<'de> Visitor<'de> for Messages {
        type Value = Vec<MessageState>;

        fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
            to.write_str("messages")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<MessageState>, A::Error> {
            let (mut sharing, mut messages) = (KeywordSharing::default(), Vec::new());
            while let Some(mut message) = from.next_element::<MessageState>()? {
                sharing.share(&mut message.flags);
                messages.push(message);
            }
            messages.shrink_to_fit();
            Ok(messages)
        }
    }
    from.deserialize_seq(Messages)
}

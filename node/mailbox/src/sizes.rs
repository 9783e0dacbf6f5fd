//! What commands, answers and events take in memory while they wait.

use mailraft_storage::CommandId;

use crate::accepted::{AcceptedEnvelope, AcceptedRecipient, DeliveryStage, Diagnosis, QueueChange, RecipientAsked};
use crate::api::{Answer, AppendedMessage, Change, Command, Event, Fetched, FolderInfo, MessageState, NewMessage};
use crate::flags::{Flags, KeywordMemory};
use crate::folders::Listing;
use crate::notice::{FolderNews, ListChange, Notice};
use crate::search_index::{self, question_bytes};
use crate::uids::UidSet;

/// What a command takes beside its texts, in bytes, roughly.
const COMMAND_BYTES: usize = 256;

/// What a command takes, in bytes, roughly.
pub(crate) fn command_bytes(command: &Command) -> usize {
    let new_message = |d: &NewMessage| {
        d.inline.as_ref().map_or(0, bytes::Bytes::len)
            + d.header.len()
            + d.envelope.len()
            + d.structure.len()
            + d.message_id.as_ref().map_or(0, String::len)
    };
    let set = set_bytes;
    let flags = |flags: &Flags| flags.keywords().map(|k| k.len() + 32).sum::<usize>();
    COMMAND_BYTES
        + match command {
            Command::Sync
            | Command::ReleaseQueued { .. }
            | Command::QueueItems { .. }
            | Command::QueueItem { .. }
            | Command::QueueAsked { .. }
            | Command::QueueAttempts { .. }
            | Command::List
            | Command::Quota
            | Command::Unselect
            | Command::Watch { .. }
            | Command::ReadChunk { .. }
            | Command::Maildrop => 0,
            Command::Status { folder } | Command::Select { folder, .. } | Command::CountDeleted { folder } => {
                folder.len()
            }
            Command::Search(question) => question_bytes(question),
            Command::ReadChunks { chunks } => std::mem::size_of_val(chunks.as_slice()),
            Command::Statuses { known } => std::mem::size_of_val(known.as_slice()),
            Command::Resume { known, .. } => set(known),
            Command::Fetch { uids, .. }
            | Command::SaveDates { uids, .. }
            | Command::UniqueIds { uids, .. }
            | Command::Remove { uids, .. } => set(uids),
            Command::Deliver { new_message: d, reverse_path, detail, .. } => {
                new_message(d) + reverse_path.len() + detail.as_ref().map_or(0, String::len)
            }
            Command::DeliverQueued { new_message: d, reverse_path, detail, .. } => {
                new_message(d) + reverse_path.len() + detail.as_ref().map_or(0, String::len)
            }
            Command::Accept { new_message: d, accepted, .. } => new_message(d) + envelope_bytes(accepted),
            Command::Report { new_message: d, accepted, told, .. } => {
                new_message(d) + envelope_bytes(accepted) + std::mem::size_of_val(told.recipients.as_slice())
            }
            Command::ChangeQueue { change } => change_bytes(change),
            Command::DecideQueued { recipients, .. } => std::mem::size_of_val(recipients.as_slice()),
            Command::Append { folder, new_message: d, flags: f, .. } => folder.len() + new_message(d) + flags(f),
            Command::AppendMany { folder, messages } => {
                let message = |m: &AppendedMessage| size_of_val(m) + new_message(&m.new_message) + flags(&m.flags);
                folder.len() + messages.iter().map(message).sum::<usize>()
            }
            Command::Replace { to, new_message: d, flags: f, .. } => to.len() + new_message(d) + flags(f),
            Command::Store { uids, flags: f, .. } => set(uids) + flags(f),
            Command::Copy { uids, to, .. } | Command::Move { uids, to, .. } => set(uids) + to.len(),
            Command::Expunge { uids, .. } => uids.as_ref().map_or(0, set),
            Command::CreateFolder { name }
            | Command::CreateFolderFor { name, .. }
            | Command::DeleteFolder { name }
            | Command::Subscribe { name, .. } => name.len(),
            Command::RenameFolder { from, to } => from.len() + to.len(),
            Command::Once { once, command } => {
                (once.heard.len() + once.own.len()) * size_of::<CommandId>() + command_bytes(command)
            }
            Command::InMaildrop { command, .. } => command_bytes(command),
            Command::Heard { commands } => commands.len() * size_of::<CommandId>(),
        }
}

fn change_bytes(change: &QueueChange) -> usize {
    match change {
        QueueChange::Delivered { .. } | QueueChange::Held { .. } | QueueChange::Released { .. } => 0,
        QueueChange::Attempted { attempts, .. } => {
            attempts.iter().map(|a| size_of_val(a) + diagnosis_bytes(&a.diagnosis)).sum()
        }
        QueueChange::NotTold(told) => std::mem::size_of_val(told.recipients.as_slice()),
    }
}

fn diagnosis_bytes(diagnosis: &Diagnosis) -> usize {
    diagnosis.text.len() + diagnosis.status.len() + diagnosis.host.as_ref().map_or(0, String::len)
}

fn envelope_bytes(accepted: &AcceptedEnvelope) -> usize {
    let texts = [&accepted.identity, &accepted.client, &accepted.ret, &accepted.envid, &accepted.body];
    let recipient = |r: &AcceptedRecipient| {
        let texts = [&r.detail, &r.notify, &r.orcpt];
        size_of::<AcceptedRecipient>() + r.address.len() + texts.into_iter().flatten().map(String::len).sum::<usize>()
    };
    accepted.reverse_path.len()
        + texts.into_iter().flatten().map(String::len).sum::<usize>()
        + accepted.recipients.iter().map(recipient).sum::<usize>()
}

/// What an answer or an event takes beside its lists, in bytes, roughly.
const MESSAGE_BYTES: usize = 128;

/// What an answer takes, in bytes, roughly.
pub fn answer_bytes(answer: &Answer) -> usize {
    MESSAGE_BYTES
        + match answer {
            Answer::Done
            | Answer::Status(_)
            | Answer::Quota(_)
            | Answer::Counted(_)
            | Answer::Stored { .. }
            | Answer::Chunk(None) => 0,
            Answer::Folders(folders) => {
                folders.iter().map(|folder| size_of::<FolderInfo>() + folder.name.len()).sum::<usize>()
            }
            Answer::Statuses(statuses) => std::mem::size_of_val(statuses.as_slice()),
            Answer::Selected(selected) => states_bytes(&selected.messages),
            Answer::Resumed(resumed) => states_bytes(&resumed.changed) + set_bytes(&resumed.vanished),
            Answer::Fetched(fetched) => {
                let mut keywords = KeywordMemory::default();
                let mut bytes = 0;
                for message in fetched {
                    keywords.count(&message.state.flags);
                    let header = message.header.as_ref();
                    bytes += size_of::<Fetched>()
                        + header.map_or(0, |of| of.header.len() + of.envelope.len() + of.structure.len());
                }
                bytes + keywords.bytes()
            }
            Answer::Search(answer) => search_index::answer_bytes(answer),
            Answer::Chunk(Some(chunk)) => chunk.len(),
            Answer::Chunks(chunks) => {
                std::mem::size_of_val(chunks.as_slice()) + chunks.iter().flatten().map(bytes::Bytes::len).sum::<usize>()
            }
            Answer::Flagged { modified: uids, .. } | Answer::Expunged { uids, .. } => set_bytes(uids),
            Answer::Appended { uids, .. } => uids.len() * size_of::<u32>(),
            Answer::Copied { from, to, .. } => (from.len() + to.len()) * size_of::<u32>(),
            Answer::Maildrop(maildrop) => std::mem::size_of_val(maildrop.messages.as_slice()),
            Answer::SaveDates(dates) => std::mem::size_of_val(dates.as_slice()),
            Answer::Accepted { recipients, .. } => recipients.iter().map(|a| size_of::<String>() + a.len()).sum(),
            Answer::QueueItems(items) => std::mem::size_of_val(items.as_slice()),
            Answer::QueueItem(None) => 0,
            Answer::QueueItem(Some(detail)) => {
                let recipient = |r: &(u32, String, DeliveryStage)| size_of_val(r) + r.1.len();
                detail.reverse_path.len() + detail.recipients.iter().map(recipient).sum::<usize>()
            }
            Answer::QueueAttempts(attempts) => attempts.iter().map(|a| size_of_val(a) + diagnosis_bytes(&a.1)).sum(),
            Answer::QueueAsked(None) => 0,
            Answer::QueueAsked(Some(asked)) => {
                let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
                let recipient = |r: &RecipientAsked| size_of_val(r) + text(&r.notify) + text(&r.orcpt);
                text(&asked.ret) + text(&asked.envid) + asked.recipients.iter().map(recipient).sum::<usize>()
            }
            Answer::UniqueIds(ids) => ids.iter().map(|(_, id)| size_of::<(u32, String)>() + id.len()).sum(),
        }
}

/// What an event takes, in bytes, roughly, however many sessions share it.
pub fn event_bytes(event: &Event) -> usize {
    MESSAGE_BYTES
        + match &event.change {
            Change::Added(messages) | Change::Flagged(messages) => states_bytes(messages),
            Change::Expunged(uids) => set_bytes(uids),
            Change::FolderDeleted => 0,
        }
}

/// What a notice takes, in bytes, roughly.
pub fn notice_bytes(notice: &Notice) -> usize {
    MESSAGE_BYTES
        + match notice {
            Notice::Anew | Notice::ListIsHere => 0,
            Notice::OfOthers(FolderNews::List(list)) | Notice::Own(FolderNews::List(list)) => {
                let listings = |all: &[Listing]| -> usize { all.iter().map(listing_bytes).sum() };
                let moved = match &list.change {
                    ListChange::Made | ListChange::Removed(_) | ListChange::Subscription => 0,
                    ListChange::Renamed { from, below } => from.len() + listings(below),
                };
                listing_bytes(&list.name) + listings(&list.above) + moved
            }
            Notice::OfOthers(_) | Notice::Own(_) => 0,
        }
}

fn listing_bytes(listing: &Listing) -> usize {
    size_of::<Listing>() + listing.line.name.len()
}

fn states_bytes(messages: &[MessageState]) -> usize {
    let mut keywords = KeywordMemory::default();
    messages.iter().for_each(|message| keywords.count(&message.flags));
    std::mem::size_of_val(messages) + keywords.bytes()
}

fn set_bytes(uids: &UidSet) -> usize {
    std::mem::size_of_val(uids.ranges())
}

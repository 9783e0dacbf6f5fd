//! A mailbox of two folders for dialogues: what others do is scripted.

use std::io;

use bytes::Bytes;
use mailraft_mailbox::api::{
    Change, EmailId, FetchedContent, FetchedHeader, FolderId, FolderInfo, FolderStatus, MessageState, Selected,
    SpecialUse, StoreMode, ZonedTime,
};
use mailraft_mailbox::{Answer, Command, Event, Flags, Refusal, SystemFlag, UidSet};
use mailraft_message::{Envelope, Part, header};
use mailraft_storage::body::{BodyId, CHUNK_PLAIN_BYTES, chunk_count, seal_chunk};
use mailraft_storage::entry::versioned_encode;
use mailraft_storage::seal::Key;
use zeroize::Zeroizing;

use crate::store::{LoginFailure, Mailstore, Output, ReceiveFailure, StoreFailure};

#[derive(Clone)]
pub struct Stored {
    pub state: MessageState,
    pub date: ZonedTime,
    pub message: Vec<u8>,
}

#[derive(Default)]
pub struct FakeStore {
    pub inbox: Vec<Stored>,
    pub uid_next: u32,
    pub modseq: u64,
    pub events: Vec<Event>,
    pub open: bool,
    pub unavailable: bool,
    receiving: Vec<u8>,
}

impl FakeStore {
    pub fn deliver(&mut self, message: &str) {
        self.put(message.as_bytes().to_vec(), Flags::none(), ZonedTime { unix_seconds: 820_454_400, zone_minutes: 0 });
    }

    fn put(&mut self, message: Vec<u8>, flags: Flags, date: ZonedTime) -> u32 {
        self.uid_next = self.uid_next.max(1);
        self.modseq += 1;
        let state = MessageState { uid: self.uid_next, flags, modseq: self.modseq };
        self.uid_next += 1;
        self.inbox.push(Stored { state: state.clone(), date, message });
        self.event(Change::Added(vec![state.clone()]));
        state.uid
    }

    pub fn expunge(&mut self, uids: UidSet) {
        self.inbox.retain(|m| !uids.contains(m.state.uid));
        self.event(Change::Expunged(uids));
    }

    fn event(&mut self, change: Change) {
        if self.open {
            self.events.push(Event { folder: FolderId(1), origin: Default::default(), modseq: self.modseq, change });
        }
    }

    fn answer(&mut self, command: Command) -> Result<Answer, StoreFailure> {
        let refused = |r| Err(StoreFailure::Refused(r));
        Ok(match command {
            Command::Sync | Command::Unselect | Command::CreateFolder { .. } | Command::Subscribe { .. } => {
                Answer::Done
            }
            Command::List => {
                let folder = |name: &str, id: u32, special_use| FolderInfo {
                    name: name.into(),
                    id: Some(FolderId(id)),
                    subscribed: id != 3,
                    special_use,
                    selectable: true,
                };
                Answer::Folders(vec![
                    folder("Sent", 2, Some(SpecialUse::Sent)),
                    folder("INBOX", 1, None),
                    folder("Sent/Entwürfe", 3, None),
                ])
            }
            Command::Status { folder } if folder == "INBOX" => Answer::Status(FolderStatus {
                messages: self.inbox.len() as u32,
                unseen: self.inbox.iter().filter(|m| !m.state.flags.has(SystemFlag::Seen)).count() as u32,
                uid_next: self.uid_next,
                uid_validity: 7,
                ..FolderStatus::default()
            }),
            Command::Select { folder, .. } if folder == "INBOX" => {
                self.open = true;
                Answer::Selected(Selected {
                    folder: FolderId(1),
                    uid_validity: 7,
                    uid_next: self.uid_next,
                    highest_modseq: self.modseq,
                    first_recent_uid: 2,
                    messages: self.inbox.iter().map(|m| m.state.clone()).collect(),
                })
            }
            Command::Fetch { uids, what, .. } => {
                let of = |m: &Stored| {
                    let block = &m.message[..header::header_len(&m.message)];
                    mailraft_mailbox::api::Fetched {
                        state: m.state.clone(),
                        content: what.content.then(|| FetchedContent {
                            email: EmailId([m.state.uid as u8; 16]),
                            thread: EmailId([0; 16]),
                            internal_date: m.date,
                            size_bytes: m.message.len() as u64,
                            body: BodyId([m.state.uid as u8; 16]),
                            body_key: vec![5; 32],
                            chunks: chunk_count(m.message.len() as u64),
                        }),
                        header: what.header.then(|| FetchedHeader {
                            header: Bytes::copy_from_slice(block),
                            envelope: versioned_encode(1, &Envelope::parse(block)).into(),
                            structure: versioned_encode(1, &Part::parse(&m.message)).into(),
                        }),
                    }
                };
                Answer::Fetched(self.inbox.iter().filter(|m| uids.contains(m.state.uid)).map(of).collect())
            }
            Command::ReadChunk { body, number, .. } => {
                let found = self.inbox.iter().find(|m| BodyId([m.state.uid as u8; 16]) == body);
                Answer::Chunk(found.map(|m| {
                    let from = number as usize * CHUNK_PLAIN_BYTES;
                    let to = m.message.len().min(from + CHUNK_PLAIN_BYTES);
                    seal_chunk(body, &Key::from_bytes([5; 32]), number, to == m.message.len(), &m.message[from..to])
                }))
            }
            Command::Store { uids, mode, flags, .. } => {
                self.modseq += 1;
                let mut changed = Vec::new();
                for m in self.inbox.iter_mut().filter(|m| uids.contains(m.state.uid)) {
                    let before = m.state.flags.clone();
                    m.state.flags = match mode {
                        StoreMode::Replace => flags.clone(),
                        StoreMode::Add => before.union(&flags),
                        StoreMode::Remove => before.minus(&flags),
                    };
                    m.state.modseq = self.modseq;
                    changed.push(m.state.clone());
                }
                self.event(Change::Flagged(changed));
                Answer::Flagged { modified: UidSet::new(), modseq: Some(self.modseq) }
            }
            Command::Copy { uids, .. } => {
                let from: Vec<u32> = self.inbox.iter().map(|m| m.state.uid).filter(|u| uids.contains(*u)).collect();
                let to = from.iter().map(|u| u + 100).collect();
                Answer::Copied { uid_validity: 9, from, to }
            }
            Command::Move { uids, .. } => {
                let from: Vec<u32> = self.inbox.iter().map(|m| m.state.uid).filter(|u| uids.contains(*u)).collect();
                let to = from.iter().map(|u| u + 100).collect();
                self.expunge(uids);
                Answer::Copied { uid_validity: 9, from, to }
            }
            Command::Expunge { uids, .. } => {
                let gone: UidSet = self
                    .inbox
                    .iter()
                    .filter(|m| {
                        m.state.flags.has(SystemFlag::Deleted) && uids.as_ref().is_none_or(|u| u.contains(m.state.uid))
                    })
                    .map(|m| m.state.uid)
                    .collect();
                self.expunge(gone.clone());
                Answer::Expunged { uids: gone, modseq: None }
            }
            Command::Status { .. }
            | Command::Select { .. }
            | Command::DeleteFolder { .. }
            | Command::RenameFolder { .. } => {
                return refused(Refusal::NoSuchFolder);
            }
            Command::Resume { .. } | Command::Deliver { .. } | Command::Append { .. } => {
                return Err(StoreFailure::Unavailable);
            }
        })
    }
}

impl Mailstore for FakeStore {
    async fn login(&mut self, user: &str, password: Zeroizing<String>) -> Result<(), LoginFailure> {
        match (user, password.as_str()) {
            _ if self.unavailable => Err(LoginFailure::Unavailable),
            ("alice", "secret") => Ok(()),
            _ => Err(LoginFailure::Wrong),
        }
    }

    async fn ask(&mut self, command: Command) -> Result<Answer, StoreFailure> {
        if self.unavailable { Err(StoreFailure::Unavailable) } else { self.answer(command) }
    }

    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn close_folder(&mut self) {
        self.open = false;
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), ReceiveFailure> {
        self.receiving.extend_from_slice(bytes);
        Ok(())
    }

    fn discard(&mut self) {
        self.receiving.clear();
    }

    async fn append(
        &mut self,
        folder: String,
        flags: Flags,
        date: Option<ZonedTime>,
    ) -> Result<Result<(u32, u32), ReceiveFailure>, StoreFailure> {
        if folder != "INBOX" {
            return Err(StoreFailure::Refused(Refusal::TryCreate));
        }
        let message = std::mem::take(&mut self.receiving);
        Ok(Ok((7, self.put(message, flags, date.unwrap_or_default()))))
    }
}

#[derive(Default)]
pub struct Heard(pub Vec<u8>);

impl Output for Heard {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

//! A mailbox of two folders, and dialogues with it: `C:` is what the client says, `S:` what it hears, `!` what
//! others do meanwhile.
#![allow(clippy::unwrap_used)]

use std::io;

use bytes::Bytes;
use futures::executor::block_on;
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

use crate::session::{Session, Turn};
use crate::state::Config;
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
    /// So many questions are answered; those behind fail.
    pub answers: Option<usize>,
    /// Expunged while the next change is on its way.
    pub meanwhile: Option<UidSet>,
    slow: bool,
    held: Vec<Event>,
    /// INBOX was deleted.
    pub deleted: bool,
    /// Beside INBOX and Sent.
    pub folders: Vec<FolderInfo>,
    pub created: Vec<String>,
    /// Chunks that were asked for.
    pub chunks_read: usize,
    /// Bodies can't be read any more.
    pub lost: bool,
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

    /// Whether events are held back until the session asks for news.
    pub fn hold_back(&mut self, slow: bool) {
        self.slow = slow;
        if !slow {
            self.events.append(&mut self.held);
        }
    }

    pub fn event(&mut self, change: Change) {
        if self.open {
            let events = if self.slow { &mut self.held } else { &mut self.events };
            events.push(Event { folder: FolderId(1), origin: Default::default(), modseq: self.modseq, change });
        }
    }

    fn answer(&mut self, command: Command) -> Result<Answer, StoreFailure> {
        let refused = |r| Err(StoreFailure::Refused(r));
        if !command.is_read()
            && let Some(uids) = self.meanwhile.take()
        {
            self.expunge(uids);
        }
        let of_folder = matches!(
            command,
            Command::Fetch { .. }
                | Command::Store { .. }
                | Command::Copy { .. }
                | Command::Move { .. }
                | Command::Expunge { .. }
        );
        if of_folder && self.deleted {
            return refused(Refusal::FolderGone);
        }
        Ok(match command {
            Command::Sync => {
                self.events.append(&mut self.held);
                Answer::Done
            }
            Command::CreateFolder { name } => {
                self.created.push(name);
                Answer::Done
            }
            Command::DeleteFolder { name } if name == "INBOX" => {
                self.inbox.clear();
                self.deleted = true;
                self.event(Change::FolderDeleted);
                Answer::Done
            }
            Command::Unselect | Command::Subscribe { .. } => Answer::Done,
            Command::List => {
                let folder = |name: &str, id: u32, special_use| FolderInfo {
                    name: name.into(),
                    id: Some(FolderId(id)),
                    subscribed: id != 3,
                    special_use,
                    selectable: true,
                };
                let mut folders = vec![
                    folder("Sent", 2, Some(SpecialUse::Sent)),
                    folder("INBOX", 1, None),
                    folder("Sent/Entwürfe", 3, None),
                ];
                folders.extend(self.folders.iter().cloned());
                Answer::Folders(folders)
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
                self.chunks_read += 1;
                let found = self.inbox.iter().filter(|_| !self.lost).find(|m| BodyId([m.state.uid as u8; 16]) == body);
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
            ("mallory", _) => Err(LoginFailure::Throttled),
            _ => Err(LoginFailure::Wrong),
        }
    }

    async fn ask(&mut self, command: Command) -> Result<Answer, StoreFailure> {
        if self.unavailable || self.answers == Some(0) {
            return Err(StoreFailure::Unavailable);
        }
        self.answers = self.answers.map(|left| left - 1);
        // Whoever changes something hears of everything before the answer.
        let slow = self.slow;
        if !command.is_read() {
            self.slow = false;
            self.events.append(&mut self.held);
        }
        let answer = self.answer(command);
        self.slow = slow;
        answer
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

/// What the client heard, and the most bytes that came at once.
#[derive(Default)]
pub struct Heard(pub Vec<u8>, pub usize);

impl Output for Heard {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        self.1 = self.1.max(bytes.len());
        Ok(())
    }
}

const MESSAGE: &str = "From: A <a@b>\r\nSubject: first\r\nDate: Mon, 1 Jan 1996 00:00:00 +0000\r\nMessage-ID: <1@b>\r\n\r\nhello world\r\n";

pub struct Talk {
    pub session: Session,
    pub store: FakeStore,
    pub heard: Heard,
    pub turn: Turn,
}

impl Talk {
    pub fn new(tls: bool) -> Self {
        let session = Session::new(Config { max_message_bytes: 1_000, tls_available: true }, tls);
        let mut store = FakeStore::default();
        store.deliver(MESSAGE);
        store.deliver("Subject: second\r\n\r\nbye\r\n");
        Talk { session, store, heard: Heard::default(), turn: Turn::NeedInput }
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.say_in_pieces(bytes, 10_000);
    }

    /// Up to the end of the session.
    pub fn say_in_pieces(&mut self, bytes: &[u8], size: usize) {
        for piece in bytes.chunks(size) {
            if self.turn == Turn::Close {
                return;
            }
            self.session.input(piece);
            self.turn = block_on(self.session.drive(&mut self.store, &mut self.heard)).unwrap();
            if self.turn == Turn::StartTls {
                self.session.tls_started();
            }
        }
    }

    /// What was heard since the last time.
    pub fn take_heard(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.heard.0)).into_owned()
    }
}

pub fn dialogue(talk: &mut Talk, script: &str) {
    let mut expected = String::new();
    for line in script.lines().map(str::trim_start) {
        if let Some(said) = line.strip_prefix("C: ") {
            let heard = String::from_utf8_lossy(&std::mem::take(&mut talk.heard.0)).replace("\r\n", "\n");
            assert_eq!(heard, std::mem::take(&mut expected), "before {said:?}");
            talk.say(format!("{said}\r\n").as_bytes());
        } else if let Some(heard) = line.strip_prefix("S: ") {
            expected.push_str(heard);
            expected.push('\n');
        } else if let Some(happens) = line.strip_prefix("! ") {
            match happens.split_once(' ') {
                Some(("expunge", uid)) => {
                    let uid = uid.parse().unwrap();
                    talk.store.expunge(UidSet::range(uid, uid));
                }
                Some(("deliver", text)) => talk.store.deliver(&format!("{text}\r\n\r\n")),
                Some(("meanwhile", uid)) => {
                    let uid = uid.parse().unwrap();
                    talk.store.meanwhile = Some(UidSet::range(uid, uid));
                }
                Some(("answers", count)) => talk.store.answers = Some(count.parse().unwrap()),
                _ if happens == "lost" => talk.store.lost = true,
                _ if happens == "slow" => talk.store.hold_back(true),
                _ if happens == "deleted" => talk.store.event(Change::FolderDeleted),
                _ => {
                    talk.store.unavailable = happens == "unavailable";
                    talk.store.answers = None;
                }
            }
            if talk.turn == Turn::Idle {
                talk.turn = block_on(talk.session.tell(&mut talk.store, &mut talk.heard)).unwrap();
            }
        }
    }
    let heard = String::from_utf8_lossy(&std::mem::take(&mut talk.heard.0)).replace("\r\n", "\n");
    assert_eq!(heard, expected, "at the end");
}

pub fn logged_in() -> Talk {
    let mut talk = Talk::new(true);
    talk.say(b"l LOGIN alice secret\r\n");
    assert!(String::from_utf8_lossy(&talk.heard.0).starts_with("l OK [CAPABILITY IMAP4rev1 "));
    talk.heard.0.clear();
    talk
}

pub fn selected() -> Talk {
    let mut talk = logged_in();
    dialogue(
        &mut talk,
        "C: s SELECT inbox
         S: * FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)
         S: * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] kept
         S: * 2 EXISTS
         S: * 1 RECENT
         S: * OK [UNSEEN 1] first unseen
         S: * OK [UIDVALIDITY 7] UIDs valid
         S: * OK [UIDNEXT 3] next UID
         S: s OK [READ-WRITE] SELECT done",
    );
    talk
}

//! The real mailbox as a session asks for it, with what may go wrong on the way.

use mailraft_mailbox::api::{AppendedMessage, FolderId, NewMessage, ZonedTime};
use mailraft_mailbox::{Answer, Command, Event, Flags, Notice, UidSet, WaitingNotices};
use mailraft_message::octets;
use mailraft_protocol::{Failure, Mailbox, Refusal};
use mailraft_real_mailbox::{RealMailbox, Who};
use zeroize::Zeroizing;

use crate::store::Mailstore;

/// An hour after the first message came.
const NOW_UNIX_SECONDS: i64 = 820_458_000;

/// What becomes of a change whose outcome is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It is done.
    Done,
    /// It is not done.
    NotDone,
}

/// A [`RealMailbox`] behind failures that a test asks for.
pub struct TestStore {
    pub mailbox: RealMailbox,
    /// No majority answers.
    pub unavailable: bool,
    /// Another region confirms nothing, so that nothing changes.
    pub unconfirmed: bool,
    /// Why no message may come now.
    pub no_place: Option<Refusal>,
    /// What becomes of changes whose outcome nobody learns.
    pub unknown: Option<Unknown>,
    /// So many questions are answered; those behind fail.
    pub answers: Option<usize>,
    /// Expunged while the next change is on its way.
    pub meanwhile: Option<UidSet>,
    /// Bodies that are asked for are no more.
    pub lost: bool,
    /// Chunks that were asked for.
    pub chunks_read: usize,
    /// How often several chunks were asked for at once.
    pub reads_ahead: usize,
    /// How often all folders were asked for.
    pub lists: usize,
    /// What the session said of its client, since this was last taken.
    pub heard: Vec<&'static str>,
    /// Turns that were given to others, and how many a command may need.
    pub breaths: usize,
    pub breaths_max: usize,
    /// The client has waited for long.
    pub progress_due: bool,
    /// What the command holds, and the most bytes that one may.
    pub held: usize,
    pub held_max: usize,
    /// What happens to other folders does not arrive, as between two owners.
    pub away: bool,
    /// There is an owner again.
    pub is_back: bool,
    /// What somebody else does in the middle of the session's work: right after the answer that comes behind so many.
    pub later: Option<(usize, Command)>,
    /// Events arrive only before an answer, as over a slow link.
    pub slow: bool,
    events: Vec<Event>,
    notices: WaitingNotices,
    receiving: Vec<u8>,
    /// Messages that are whole, and others come behind them.
    whole: Vec<Vec<u8>>,
}

impl TestStore {
    pub fn new() -> Self {
        TestStore {
            mailbox: RealMailbox::new(),
            unavailable: false,
            unconfirmed: false,
            no_place: None,
            unknown: None,
            answers: None,
            meanwhile: None,
            lost: false,
            chunks_read: 0,
            reads_ahead: 0,
            lists: 0,
            heard: Vec::new(),
            breaths: 0,
            breaths_max: usize::MAX,
            progress_due: false,
            held: 0,
            held_max: usize::MAX,
            away: false,
            is_back: false,
            later: None,
            slow: false,
            events: Vec::new(),
            notices: WaitingNotices::default(),
            receiving: Vec::new(),
            whole: Vec::new(),
        }
    }

    /// A message comes into INBOX.
    pub fn deliver(&mut self, message: &str) {
        self.mailbox.append("INBOX", message.as_bytes());
    }

    /// UIDs of INBOX with their flags.
    pub fn inbox(&mut self) -> Vec<(u32, Flags)> {
        match self.mailbox.others(Command::Select { folder: "INBOX".into(), claim_recent: false }) {
            Answer::Selected(selected) => selected.messages.into_iter().map(|m| (m.uid, m.flags)).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Whether there are events that have arrived.
    pub fn has_events(&self) -> bool {
        self.is_back || !self.events.is_empty() || !self.notices.is_empty() || (!self.slow && self.mailbox.has_events())
    }

    fn hear_notices(&mut self) {
        let notices = self.mailbox.take_notices();
        notices.into_iter().filter(|_| !self.away).for_each(|notice| self.notices.push(notice));
    }

    fn received(&mut self) -> Result<Vec<NewMessage>, Failure> {
        let mut messages = std::mem::take(&mut self.whole);
        messages.push(std::mem::take(&mut self.receiving));
        for message in &messages {
            octets::check(message).map_err(|wrong| Refusal::MessageOctets(wrong.to_string()))?;
        }
        Ok(messages.iter().map(|message| self.mailbox.new_message(message)).collect())
    }

    fn stored(&mut self, command: Command) -> Result<(u32, u32), Failure> {
        match self.answer(command)? {
            Answer::Stored { uid_validity, uid, .. } => Ok((uid_validity, uid)),
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, command: Command) -> Result<Answer, Failure> {
        if self.unavailable || self.answers == Some(0) {
            return Err(Refusal::Unavailable.into());
        }
        if self.unconfirmed && !command.is_read() {
            return Err(Refusal::NotConfirmed.into());
        }
        self.answers = self.answers.map(|left| left - 1);
        let unknown = self.unknown.filter(|_| !command.is_read());
        if unknown == Some(Unknown::NotDone) {
            return Err(Failure::Unknown);
        }
        if !command.is_read()
            && let Some(uids) = self.meanwhile.take()
        {
            self.mailbox.expunge(uids);
        }
        if matches!(command, Command::ReadChunk { .. }) {
            self.chunks_read += 1;
            if self.lost {
                return Ok(Answer::Chunk(None));
            }
        }
        if let Command::ReadChunks { chunks } = &command {
            self.chunks_read += chunks.len();
            self.reads_ahead += 1;
            if self.lost {
                return Ok(Answer::Chunks(vec![None; chunks.len()]));
            }
        }
        let is_list = command == Command::List;
        self.lists += usize::from(is_list);
        let answer = self.mailbox.ask(Who::Client, command);
        self.hear_notices();
        if is_list {
            self.notices.push(Notice::ListIsHere);
        }
        match self.later.take() {
            Some((0, later)) => drop(self.mailbox.others(later)),
            Some((questions, later)) => self.later = Some((questions - 1, later)),
            None => {}
        }
        // Whatever was told before the answer is here before it.
        self.events.extend(self.mailbox.take_events());
        if unknown.is_some() {
            return Err(Failure::Unknown);
        }
        answer.map_err(|refusal| Refusal::from(refusal).into())
    }
}

impl Mailbox for TestStore {
    async fn ask(&mut self, command: Command) -> Result<Answer, Failure> {
        self.answer(command)
    }
}

impl Mailstore for TestStore {
    async fn login(&mut self, user: &str, password: Zeroizing<String>) -> Result<(), Failure> {
        let refusal = match (user, password.as_str()) {
            _ if self.unavailable => Refusal::Unavailable,
            ("alice", "secret") => return Ok(()),
            ("mallory", _) => Refusal::Throttled,
            _ => Refusal::WrongCredentials,
        };
        Err(refusal.into())
    }

    fn begin_message(&mut self) -> Result<(), Refusal> {
        self.no_place.clone().map_or(Ok(()), Err)
    }

    fn begin_command(&mut self) {
        (self.breaths, self.held) = (0, 0);
    }

    fn is_progress_due(&mut self) -> bool {
        std::mem::take(&mut self.progress_due)
    }

    fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.held = bytes;
        if bytes > self.held_max { Err(Refusal::Overloaded) } else { Ok(()) }
    }

    fn now_unix_seconds(&self) -> i64 {
        NOW_UNIX_SECONDS
    }

    async fn breathe(&mut self) -> Result<(), Refusal> {
        self.breaths += 1;
        if self.breaths > self.breaths_max { Err(Refusal::Limit("enough".into())) } else { Ok(()) }
    }

    fn compress(&mut self) -> Result<(), Refusal> {
        if self.held_max < usize::MAX { Err(Refusal::Overloaded) } else { Ok(()) }
    }

    async fn wait_for_event(&mut self) {
        if !self.has_events() {
            std::future::pending().await
        }
    }

    fn take_events(&mut self) -> Vec<Event> {
        if !self.slow {
            self.events.extend(self.mailbox.take_events());
        }
        std::mem::take(&mut self.events)
    }

    fn take_notices(&mut self) -> Vec<Notice> {
        self.hear_notices();
        if std::mem::take(&mut self.is_back) {
            self.notices.push(Notice::Anew);
        }
        self.notices.take()
    }

    fn keep_for_notify(&mut self, bytes: usize) -> Result<(), Refusal> {
        if bytes > self.held_max { Err(Refusal::Overloaded) } else { Ok(()) }
    }

    fn client_went_on(&mut self) {
        self.heard.push("went on");
    }

    fn tell_heard(&mut self) {
        self.heard.push("tells");
    }

    async fn client_leaves(&mut self) {
        self.heard.push("leaves");
    }

    fn close_folder(&mut self) {}

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.receiving.extend_from_slice(bytes);
        Ok(())
    }

    fn next_message(&mut self) -> Result<(), Refusal> {
        self.whole.push(std::mem::take(&mut self.receiving));
        Ok(())
    }

    fn discard(&mut self) {
        self.whole.clear();
        self.receiving.clear();
    }

    async fn replace(
        &mut self,
        (folder, uid): (FolderId, u32),
        to: String,
        flags: Flags,
        internal_date: Option<ZonedTime>,
    ) -> Result<(u32, u32), Failure> {
        let (new_message, internal_date) = (self.received()?.remove(0), internal_date.unwrap_or_default());
        self.stored(Command::Replace { folder, uid, to, new_message, flags, internal_date })
    }

    async fn append(
        &mut self,
        folder: String,
        each: Vec<(Flags, Option<ZonedTime>)>,
    ) -> Result<(u32, Vec<u32>), Failure> {
        let received = self.received()?;
        assert_eq!(received.len(), each.len(), "each message has flags and a date");
        let each = received.into_iter().zip(each).map(|(new_message, (flags, date))| AppendedMessage {
            new_message,
            flags,
            internal_date: date.unwrap_or_default(),
        });
        let mut messages: Vec<AppendedMessage> = each.collect();
        if messages.len() == 1 {
            let AppendedMessage { new_message, flags, internal_date } = messages.remove(0);
            let stored = self.stored(Command::Append { folder, new_message, flags, internal_date })?;
            return Ok((stored.0, vec![stored.1]));
        }
        match self.answer(Command::AppendMany { folder, messages })? {
            Answer::Appended { uid_validity, uids } => Ok((uid_validity, uids)),
            other => panic!("{other:?}"),
        }
    }
}

//! A client's connection to one node, as data.

use bytes::Bytes;
use mailraft_checkers::{At, Ended, Micros, Op, Reply};
use mailraft_mailbox::api::{FetchedContent, FolderId, MaildropHolder, MessageState, Selected};
use mailraft_mailbox::{Answer, Following, Once, Request, Unheard, session};
use mailraft_storage::body::BodyId;
use mailraft_storage::{CommandId, MailboxId, NodeId};

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads and changes one mailbox.
    Imap,
    /// Delivers to any mailbox.
    Smtp,
    /// Fetches from INBOX and removes there.
    Pop3,
}

/// A session.
pub struct Session {
    /// Its number; a client that connects anew gets another.
    pub number: u64,
    /// The node it is connected to.
    pub node: NodeId,
    /// What it does.
    pub kind: Kind,
    /// Of this mailbox now.
    pub mailbox: MailboxId,
    /// The production state machine.
    pub machine: session::Session,
    /// The way to the mailbox's actor: its number in the session, and the actor's node.
    pub conn: Option<(u64, NodeId)>,
    /// How many such ways there were.
    pub conns: u64,
    /// How many of them before the present machine, which counts from 1.
    pub conns_before: u64,
    /// What it is doing.
    pub busy: Option<Busy>,
    /// Which answers its client has heard.
    pub unheard: Unheard,
    /// Its client does not hear that another region takes over: it stays at its node as long as that runs.
    pub stays: bool,
    /// What its client keeps of the folder that it has open.
    pub kept: Option<Kept>,
    /// What its client had kept when it came back, until it has opened that folder.
    pub returns_with: Option<Kept>,
    /// What a POP3 client was shown when it logged in, and whether all that is left is to quit.
    pub maildrop: Option<OpenMaildrop>,
    /// What its client asks again next, as it is not sure that it was done, or wants it twice.
    pub again: Option<Op>,
    /// The message that is being uploaded.
    pub sealed: Option<Sealed>,
    /// Its node died: nothing begins until its client has connected elsewhere.
    pub over: bool,
    /// When the present timer rings.
    pub wakes_at: Option<Micros>,
    /// The present timer; earlier ones are void.
    pub timer: u64,
}

/// An operation on its way.
pub struct Busy {
    /// The id of its command, kept through retries.
    pub id: CommandId,
    /// What it is.
    pub op: Op,
    /// How its node asks for it.
    pub request: Request,
    /// What it takes along, if it is done once.
    pub once: Option<Once>,
    /// When it began.
    pub started: Micros,
    /// The body that it reads.
    pub reading: Option<BodyRead>,
    /// Its client has opened a folder that it had kept, and asks what it missed.
    pub returning: Option<Returning>,
}

/// What a client keeps of a folder beyond its connection.
pub struct Kept {
    /// The name under which it opened it.
    pub name: String,
    /// What it knows of it.
    pub folder: Selected,
}

/// A maildrop that a POP3 client has open.
pub struct OpenMaildrop {
    /// The folder.
    pub folder: FolderId,
    /// Its messages as they were.
    pub uids: Vec<u32>,
    /// It has removed what it wants removed.
    pub quits: bool,
}

/// A client that has opened a folder again.
pub struct Returning {
    /// What it had kept.
    pub kept: Kept,
    /// What it was told when it opened it.
    pub selected: Selected,
    /// The position of that.
    pub at: At,
}

impl Kept {
    /// Messages that are new, or whose flags changed.
    pub fn takes_in(&mut self, messages: &[MessageState]) {
        let known = &mut self.folder.messages;
        for message in messages {
            match known.binary_search_by_key(&message.uid, |known| known.uid) {
                Ok(at) => known[at] = message.clone(),
                Err(at) => known.insert(at, message.clone()),
            }
        }
    }
}

/// A body that is read chunk by chunk.
pub struct BodyRead {
    /// Where it is.
    pub content: FetchedContent,
    /// What was read.
    pub plain: Vec<u8>,
    /// The chunk that is asked for.
    pub next: u32,
    /// The position at which the message was there.
    pub at: At,
}

/// A large message as it was sealed for one upload.
pub struct Sealed {
    /// The body's id.
    pub body: BodyId,
    /// Its sealed chunks.
    pub chunks: Vec<Bytes>,
}

impl Session {
    /// Whether it hears of folders that it does not have open: every other session, from its first SYNC on.
    pub fn watches(&self) -> bool {
        self.kind == Kind::Imap && self.number.is_multiple_of(2)
    }

    /// Not attached, with nothing to do.
    pub fn new(number: u64, node: NodeId, kind: Kind, mailbox: MailboxId) -> Self {
        Session {
            number,
            node,
            kind,
            mailbox,
            machine: session::Session::new(),
            conn: None,
            conns: 0,
            conns_before: 0,
            busy: None,
            unheard: Unheard::default(),
            stays: false,
            kept: None,
            returns_with: None,
            maildrop: None,
            again: None,
            sealed: None,
            over: false,
            wakes_at: None,
            timer: 0,
        }
    }

    /// What a POP3 client knows after an operation has ended. Whoever was not told that it was done logs in anew.
    pub fn keeps_maildrop(&mut self, op: &Op, ended: &Ended) {
        self.maildrop = match (op, ended) {
            (Op::Maildrop, Ended::Done(Reply::Answer(Answer::Maildrop(shown)))) => {
                let uids = shown.messages.iter().map(|message| message.uid).collect();
                Some(OpenMaildrop { folder: shown.folder, uids, quits: false })
            }
            (Op::Unselect, Ended::Done(_)) => None,
            (_, Ended::Done(_)) => self.maildrop.take(),
            (_, Ended::Refused(_) | Ended::NotDone | Ended::NoSuchMailbox | Ended::Unknown) => None,
        };
    }

    /// As whom a POP3 client has the maildrop: every connection is another one.
    pub fn holder(&self) -> MaildropHolder {
        MaildropHolder(u128::from(self.number).to_be_bytes())
    }

    /// The open folder.
    pub fn following(&self) -> Option<&Following> {
        self.machine.following()
    }

    /// A new way to an actor, numbered by the machine.
    pub fn attaches(&mut self, link: u64, node: NodeId) {
        assert!(self.conn.is_none(), "one link at a time");
        self.conns = self.conns_before + link;
        self.conn = Some((self.conns, node));
    }

    /// Another mailbox, with nothing to do there yet.
    pub fn turns_to(&mut self, mailbox: MailboxId) {
        assert!(self.busy.is_none() && self.conn.is_none(), "a session leaves one mailbox before it turns to another");
        (self.mailbox, self.machine, self.conns_before) = (mailbox, session::Session::new(), self.conns);
        self.unheard = Unheard::default();
        (self.kept, self.returns_with) = (None, None);
    }

    /// Its node died, and with it all that it knew.
    pub fn dies(&mut self) {
        (self.machine, self.conns_before, self.conn) = (session::Session::new(), self.conns, None);
        (self.sealed, self.over, self.wakes_at) = (None, true, None);
        self.returns_with = self.kept.take().or(self.returns_with.take());
        self.maildrop = None;
        self.unheard = Unheard::default();
        self.timer += 1;
    }
}

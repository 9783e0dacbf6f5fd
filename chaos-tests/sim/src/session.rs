//! A client's connection to one node, as data.

use bytes::Bytes;
use mailraft_checkers::{At, Micros, Op};
use mailraft_mailbox::Following;
use mailraft_mailbox::api::{Draft, FetchedContent};
use mailraft_storage::{CommandId, MailboxId, NodeId};

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads and changes one mailbox.
    Imap,
    /// Delivers to any mailbox.
    Smtp,
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
    /// The way to the mailbox's actor.
    pub conn: Option<Conn>,
    /// How many such ways there were.
    pub conns: u64,
    /// The open folder.
    pub following: Option<Following>,
    /// What it is doing.
    pub busy: Option<Busy>,
    /// Its node died: nothing begins until its client has connected elsewhere.
    pub over: bool,
    /// The present timer; earlier ones are void.
    pub timer: u64,
}

/// A way to an actor.
pub struct Conn {
    /// Its number in the session.
    pub number: u64,
    /// The actor's node.
    pub node: NodeId,
    /// The open folder is being resumed by this command, since this MODSEQ.
    pub resuming: Option<(CommandId, u64)>,
}

/// A command on its way.
pub struct Busy {
    /// Its id, kept through retries.
    pub id: CommandId,
    /// What it is.
    pub op: Op,
    /// When it began.
    pub started: Micros,
    /// How often it was tried before.
    pub attempt: u32,
    /// Something was sent: it may have been done.
    pub sent: bool,
    /// The command that was sent in this attempt and has no answer yet: the same id, or one of a part.
    pub asked: Option<CommandId>,
    /// Where it is.
    pub stage: Stage,
}

/// Where a command is.
pub enum Stage {
    /// One question, one answer.
    Plain,
    /// A large body goes first.
    Upload(Upload),
    /// A body is read chunk by chunk.
    Body {
        /// Where it is.
        content: FetchedContent,
        /// What was read.
        plain: Vec<u8>,
        /// The chunk that is asked for.
        next: u32,
        /// The position at which the message was there.
        at: At,
    },
}

/// A large body on its way.
pub struct Upload {
    /// Its number.
    pub number: u64,
    /// The message.
    pub draft: Draft,
    /// Its sealed chunks.
    pub chunks: Vec<Bytes>,
    /// So many were sent.
    pub sent: usize,
    /// So many are durable.
    pub durable: usize,
}

//! What happens: on a node, on its way to one, to a client, to the world.

use bytes::Bytes;
use mailraft_cluster::{Input, PeerMessage, SnapshotEvent};
use mailraft_mailbox::{Command, Reply as OwnerReply};
use mailraft_storage::body::BodyId;
use mailraft_storage::{CommandId, MailboxId, NodeId, PartitionId, ReplicaId};

use crate::actors::Asker;
use crate::host::Staged;
use crate::office::DirectoryReply;

/// What a session sends to an actor's node.
#[derive(Clone, Debug)]
pub enum ToActor {
    /// Attach to this mailbox.
    Attach(MailboxId),
    /// A question.
    Ask {
        /// The mailbox.
        mailbox: MailboxId,
        /// The command's id.
        id: CommandId,
        /// 0 the first time.
        attempt: u32,
        /// The command.
        command: Box<Command>,
    },
    /// The session is gone.
    Detach(MailboxId),
    /// A part of a large body.
    Chunk {
        /// The mailbox.
        mailbox: MailboxId,
        /// The command.
        command: CommandId,
        /// The body.
        body: BodyId,
        /// Which part.
        number: u32,
        /// The row that opens the upload, with the first part.
        open: Option<Bytes>,
        /// The sealed part.
        data: Bytes,
    },
}

/// What a node sends to a session.
#[derive(Clone, Debug)]
pub enum ToSession {
    /// What an actor said, and in which incarnation.
    Reply(Box<OwnerReply>, u32),
    /// A part is durable, or is not and won't be.
    Chunk {
        /// The body.
        body: BodyId,
        /// Whether it is durable.
        ok: bool,
    },
}

/// Something that happens on one node, in one life of its process.
pub enum Local {
    /// A tick of its core.
    Tick,
    /// A message of another node.
    Peer(NodeId, Box<PeerMessage>),
    /// A connection to another node broke.
    Unreachable(NodeId),
    /// The fsync of the group returns.
    Synced,
    /// Apply is done.
    Applied,
    /// Rows are flushed.
    Flush,
    /// Rows of a snapshot are in place.
    Installed(ReplicaId),
    /// Something about a snapshot.
    Snapshot(Box<SnapshotEvent>),
    /// What an actor said reaches its core late.
    Late(Box<Input>),
    /// An actor's mailbox is loaded, or its key is looked for.
    Load(MailboxId, u64),
    /// An actor's rows are read.
    Read(MailboxId, u64, u64),
    /// An actor's pause is over.
    Again(MailboxId, u64),
    /// The directory is asked.
    DirectoryAsk(Asker, CommandId, Box<mailraft_directory::Command>),
    /// The keys of the directory's actor of this number are read.
    DirectoryLoad(u64),
    /// A pause of the directory's actor of this number is over.
    DirectoryAgain(u64),
    /// The directory's actor of this number waits for its turn.
    DirectoryTurn(u64),
    /// From a session: its number, its connection and node, and what it says.
    FromSession(u64, u64, NodeId, Box<ToActor>),
}

/// Something that happens.
pub enum Event {
    /// On a node, in this life.
    On(NodeId, u64, Local),
    /// A message to a node, whatever life it is in when it arrives.
    To(NodeId, Local),
    /// A snapshot arrives: to, from, the sender's life, Raft's message, position and rows.
    Snapshot(NodeId, NodeId, u64, Box<PeerMessage>, Box<Staged>),
    /// A message to a session, on this connection.
    ToSession(u64, u64, Box<ToSession>),
    /// A session's timer.
    Wake(u64, u64),
    /// A client loses its connection to its node.
    HangUp(u64),
    /// A client connects anew in the place of this one.
    Connect(u64),
    /// A session begins its next operation.
    Next(u64),
    /// A fault begins.
    Fault(usize),
    /// A fault ends.
    Over(usize),
    /// A flapping link changes.
    Flap,
    /// Replicas are compared, and the table of commands is looked after.
    Look,
    /// A new mailbox is made.
    Make(MailboxId),
    /// An administrator begins his next change, or asks again; which question of his that is.
    Administrator(usize, u64),
    /// The directory's reply to an administrator's question.
    FromDirectory(usize, u64, Box<DirectoryReply>),
    /// A client logs in.
    Login,
    /// A node that was told to stop ends.
    Stop(NodeId),
    /// The operator does the next steps.
    Operate,
    /// An operator looks what became of the settings that he wants; which of them.
    Settings(usize),
    /// The operator replaces a damaged replica: its node, its partition, itself.
    Repair(NodeId, PartitionId, ReplicaId),
    /// The operator asks whether a lost node has replicas left.
    Replace(NodeId),
}

impl Local {
    /// A number for its kind, in the trace.
    pub fn kind(&self) -> u64 {
        match self {
            Local::Tick => 0,
            Local::Peer(..) => 1,
            Local::Unreachable(_) => 2,
            Local::Synced => 3,
            Local::Applied => 4,
            Local::Flush => 5,
            Local::Installed(_) => 6,
            Local::Snapshot(_) => 7,
            Local::Load(..) => 8,
            Local::Read(..) => 9,
            Local::Again(..) => 10,
            Local::FromSession(..) => 11,
            Local::Late(_) => 12,
            Local::DirectoryAsk(..) => 13,
            Local::DirectoryLoad(_) => 14,
            Local::DirectoryAgain(_) => 15,
            Local::DirectoryTurn(_) => 16,
        }
    }
}

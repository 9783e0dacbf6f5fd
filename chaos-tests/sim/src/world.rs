//! The simulated world: nodes, network, clients, and what happens next.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use mailraft_checkers::{At, Checker, Ended, Micros, Record, Violation};
use mailraft_cluster::eviction::RESULTS_KEPT;
use mailraft_cluster::{Input, Output, PeerMessage, SnapshotEvent};
use mailraft_mailbox::{Command, Limits, MailboxKey, Reply as OwnerReply};
use mailraft_storage::body::BodyId;
use mailraft_storage::log::LOG_BATCH_MAX_BYTES;
use mailraft_storage::{Applied, CommandId, Env, MailboxId, NodeId, PartitionId, ReplicaId};

use crate::actors::Asker;
use crate::dice::Dice;
use crate::faults::Planned;
use crate::host::{Host, Staged};
use crate::moves::Move;
use crate::net::Net;
use crate::node_log::LogDisks;
use crate::office::{DirectoryReply, Office};
use crate::questions::Questions;
use crate::queue::Queue;
use crate::session::Session;
use crate::trace::Trace;

/// The size and length of a run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Everything follows from it.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: u64,
    /// Partitions beside the control group.
    pub partitions: u32,
    /// How many mailboxes there are, those that are made during the run among them.
    pub mailboxes: u64,
    /// IMAP sessions.
    pub imap_sessions: u64,
    /// SMTP sessions.
    pub smtp_sessions: u64,
    /// A client begins an operation so often, in the mean, all sessions taken together.
    pub operation_every: Micros,
    /// A slow follower's log is kept up to so many entries.
    pub log_keep_entries: u64,
    /// The most bytes of entries that one fsync makes durable.
    pub log_batch_max_bytes: usize,
    /// How long results of commands are kept.
    pub results_kept: Duration,
    /// Replicas are compared, and tables of commands looked after, so often.
    pub look_every: Micros,
    /// How long faults may happen.
    pub safety: Micros,
    /// How long all is well after them, with the workload going on.
    pub liveness: Micros,
    /// Mean time between faults.
    pub fault_every: Micros,
    /// Of a thousand new messages so many more than else are larger than one chunk.
    pub large_permille: u64,
    /// So many bodies of each folder are read at the end.
    pub bodies_read: usize,
    /// Bounds of mailboxes: where they are low, small changes take the rows that large ones take in production.
    pub limits: Limits,
    /// Of a thousand of IMAP's commands so many are about all messages of a folder.
    pub wide_permille: u64,
    /// Past so many messages in a folder a client deletes rather than adds.
    pub folder_full: usize,
    /// Some of what actors say reaches their core so much later, in the mean.
    pub proposals_late: Micros,
    /// Of a thousand changes that ended so many come once more, late, as an attempt that lay about somewhere.
    pub late_copies_permille: u64,
    /// ... and so much later, in the mean.
    pub late_copies_mean: Micros,
    /// Of a thousand of these so many are first attempts.
    pub late_firsts_permille: u64,
    /// At the start the nodes' wall clocks are apart by no more than this.
    pub clocks_apart: Micros,
    /// No more wall clocks than this jump or stand still together.
    pub clocks_wrong_max: u64,
    /// Of a thousand deliveries that were accepted so many are made again, as by a sender that lost its answer.
    pub repeats_permille: u64,
    /// Most senders that repeat a delivery do so after this time, in the mean.
    pub repeats_mean: Micros,
    /// Of a thousand faults so many are instead a change of who votes in some group, the control group's too.
    pub ballots_permille: u64,
    /// How many accounts administrators change and clients log in to; with none the directory has nothing to do.
    pub accounts: usize,
    /// What the nodes' Raft logs stand on; without it they are bytes in memory.
    pub log_disks: Option<LogDisks>,
    /// Printed as it happens.
    pub loud: bool,
}

/// How long a long world goes through faults: results of commands are evicted in the last twelve hours of it.
const LONG_SAFETY: Micros = RESULTS_KEPT.as_micros() as Micros + 12 * 3_600_000_000;

impl Setup {
    /// Five nodes, four partitions, 50 operations a second.
    pub fn new(seed: u64) -> Self {
        Setup {
            seed,
            nodes: 5,
            partitions: 4,
            mailboxes: 8,
            imap_sessions: 14,
            smtp_sessions: 5,
            operation_every: 20_000,
            log_keep_entries: 200,
            log_batch_max_bytes: LOG_BATCH_MAX_BYTES,
            results_kept: Duration::from_secs(75),
            look_every: 1_000_000,
            safety: 120_000_000,
            liveness: 15_000_000,
            fault_every: 1_500_000,
            large_permille: 0,
            bodies_read: 3,
            limits: Limits::default(),
            wide_permille: 0,
            folder_full: 40,
            proposals_late: 0,
            late_copies_permille: 30,
            late_copies_mean: 1_000_000,
            late_firsts_permille: 0,
            clocks_apart: 1_000_000_000,
            clocks_wrong_max: u64::MAX,
            repeats_permille: 0,
            repeats_mean: 2_000_000,
            ballots_permille: 0,
            accounts: 0,
            log_disks: None,
            loud: false,
        }
    }

    /// Two and a half days of three nodes and one partition with an operation every 40 seconds: what takes long to come about comes
    /// about here, with results of commands kept as long as in production.
    pub fn long(seed: u64) -> Self {
        Setup {
            nodes: 3,
            partitions: 1,
            mailboxes: 5,
            imap_sessions: 6,
            smtp_sessions: 2,
            operation_every: 40_000_000,
            log_keep_entries: 1,
            results_kept: RESULTS_KEPT,
            look_every: 10_000_000,
            safety: LONG_SAFETY,
            fault_every: 40_000_000,
            ..Setup::new(seed)
        }
    }
}

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
    /// The operator replaces a damaged replica: its node, its partition, itself.
    Repair(NodeId, PartitionId, ReplicaId),
    /// The operator asks whether a lost node has replicas left.
    Replace(NodeId),
}

/// A mailbox of the run.
pub struct MailboxInfo {
    /// Its key.
    pub key: MailboxKey,
    /// The key's bytes, as they stand in the control group's row.
    pub key_bytes: [u8; 32],
    /// Its partition.
    pub partition: PartitionId,
    /// Whether it was made.
    pub exists: bool,
}

/// A delivery that a sender tries again.
#[derive(Clone, Copy, Debug)]
pub struct Redelivery {
    /// To this mailbox.
    pub mailbox: MailboxId,
    /// The message.
    pub marker: u64,
    /// How often it was tried before.
    pub tried: u32,
}

/// What the table of commands keeps.
pub type KeptResult = Result<mailraft_mailbox::Answer, mailraft_mailbox::Refusal>;

/// The world.
pub struct World {
    /// How it was set up.
    pub setup: Setup,
    /// The time.
    pub now: Micros,
    /// What happens next.
    pub queue: Queue<Event>,
    /// Inputs that follow from the present event.
    pub todo: VecDeque<(NodeId, Input)>,
    /// Room for what a core says.
    pub out: Vec<Output>,
    /// Nodes.
    pub hosts: BTreeMap<NodeId, Host>,
    /// The network.
    pub net: Net,
    /// Chance in the network and on disks.
    pub dice: Dice,
    /// Chance in what clients do.
    pub work: Dice,
    /// What clients draw ids and keys from.
    pub clients: Env,
    /// What happened.
    pub trace: Trace,
    /// Whether it was right.
    pub checker: Checker,
    /// Clients.
    pub sessions: BTreeMap<u64, Session>,
    /// The last session's number.
    pub last_session: u64,
    /// The last message's marker.
    pub last_marker: u64,
    /// Mailboxes.
    pub mailboxes: BTreeMap<MailboxId, MailboxInfo>,
    /// Deliveries to be tried again, by time.
    pub redeliveries: BTreeMap<(Micros, u64), Redelivery>,
    /// How often each message was tried.
    pub tries: BTreeMap<u64, u32>,
    /// Ids whose fate the client does not know, and since when.
    pub unresolved: BTreeMap<CommandId, (MailboxId, Micros)>,
    /// Results that were seen in the table of commands while their clients still waited.
    pub found: BTreeMap<CommandId, (At, KeptResult)>,
    /// The plan of faults, and which of them are at work.
    pub plan: Vec<Planned>,
    /// Faults at work.
    pub active: BTreeMap<usize, ()>,
    /// Whether the flapping links are broken at the moment.
    pub flapped: bool,
    /// Messages that wait for a link to be whole.
    pub held: Vec<(NodeId, NodeId, Event)>,
    /// Connections that broke: (session, connection).
    pub broken: BTreeMap<(u64, u64), ()>,
    /// Who led which term of a partition.
    pub led: BTreeMap<(PartitionId, u64), NodeId>,
    /// Read barriers that were asked.
    pub questions: Questions,
    /// What the world itself saw to be wrong.
    pub wrong: Vec<Violation>,
    /// Administrators, logins, and what they heard.
    pub office: Office,
    /// Replicas that take others' places.
    pub moves: Vec<Move>,
    /// The highest replica id there ever was.
    pub last_replica: u64,
    /// Entries that evicted results, for figures.
    pub evictions: u64,
    /// The names in the last answer to a LIST.
    pub last_list: Option<Vec<String>>,
    /// How each session's last operation ended, if someone asks.
    pub answers: Option<BTreeMap<u64, (Ended, Option<At>)>>,
    /// Clients begin no more operations.
    pub quiet: bool,
    /// Nothing more is to begin.
    pub at_rest: bool,
    /// A client was refused since damaged rows could not be read.
    pub refused_damaged: bool,
    /// Operations that ended, for figures.
    pub operations: u64,
    /// Snapshots installed, for figures.
    pub installed: u64,
}

impl World {
    /// A line of the history.
    pub fn record(&mut self, record: Record) {
        self.checker.record(record);
    }

    /// A line for people.
    pub fn say(&mut self, line: String) {
        self.trace.line(self.now, line);
    }

    /// A node.
    ///
    /// # Panics
    /// If there is none of that number.
    pub fn host(&mut self, node: NodeId) -> &mut Host {
        self.hosts.get_mut(&node).unwrap_or_else(|| panic!("there is no node {node}"))
    }

    /// Something later on a node, in its present life.
    pub fn later(&mut self, node: NodeId, at: Micros, what: Local) {
        let life = self.host(node).life;
        self.queue.push(at, Event::On(node, life, what));
    }

    /// The replica of a partition on a node that is up.
    pub fn replica(&self, node: NodeId, partition: PartitionId) -> Option<ReplicaId> {
        let process = self.hosts.get(&node)?.up.as_ref()?;
        process.core.replica_ids().get(&partition).copied()
    }

    /// The position of a replica.
    pub fn applied(&self, node: NodeId, replica: ReplicaId) -> Option<Applied> {
        use mailraft_storage::Rows;
        self.hosts.get(&node)?.rows.applied(replica).ok()?
    }
}

//! The seam between the core and whatever drives it: threads and sockets in production, the simulator
//! in tests. `Node::step` takes one [`Input`] and yields [`Output`]s.

use std::sync::Arc;
use std::time::Duration;

use mailraft_storage::log::LogBatch;
use mailraft_storage::{
    Applied, ClusterId, CommandId, Incarnation, Index, LogPosition, MailboxId, NodeId, PartitionId, Proposal,
    ReplicaId, TakenOver, Term, UnixMillis, Verdict,
};
use raft::eraftpb::{self, ConfState, MessageType};

use crate::config::ReplicaSpec;
use crate::members::MemberChange;
use crate::mode::ModeReport;
use crate::outcome::Decision;
use crate::peer_refusal::PeerRefusal;
use crate::placement::GroupRows;
use crate::regions::{RegionSettings, Regions};

/// Names a question to the core until it is [`Output::Decided`]. The driver never uses one twice, nor the highest number,
/// under which the core asks itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Who reads after a read barrier: with other regions, what is applied may not be visible yet, and a region that is away must
/// not stop reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// An owner, of its memory, which is visible state: fails unless this node leads in this term, now and when the answer
    /// comes.
    Owner(Term),
    /// An owner whose memory will be the last that remembers something, as that a message was delivered: passes like
    /// [`Reader::Owner`], and not before the other regions hold everything that was committed when it was asked.
    Held(Term),
    /// Whoever may only hear "yes" of rows, at any replica: they have all that was acknowledged, and perhaps more. What is
    /// written after such a "yes" is visible no sooner than what it rests on.
    Applied,
    /// Whoever may hear a "no" of rows, which is permanent: what is read before the answer comes is visible.
    Visible,
}

/// One thing that happened.
#[derive(Debug)]
pub enum Input {
    /// A tick of 25 ms passed. Never two for one period: after a stall the driver gives one.
    Tick,
    /// A message of another node: decoded, size-checked, from the node that its certificate names.
    Peer {
        /// The node that sent it.
        from: NodeId,
        /// What it says.
        message: PeerMessage,
    },
    /// An owner wants its change appended. Decided with [`Decision::Proposal`].
    Propose {
        /// Answered under this id.
        request: RequestId,
        /// To the log of this partition.
        partition: PartitionId,
        /// The change, with the term and incarnation that it was decided in.
        proposal: Proposal,
    },
    /// Asks when the rows here hold everything acknowledged before now. Decided with [`Decision::Barrier`].
    ReadBarrier {
        /// Answered under this id.
        request: RequestId,
        /// The partition whose group it is about.
        partition: PartitionId,
        /// Who reads then.
        reader: Reader,
    },
    /// Asks when no entry of a mailbox is in flight in this term, so that a new owner may load. Decided with
    /// [`Decision::Slot`].
    AwaitSlot {
        /// Answered under this id.
        request: RequestId,
        /// The partition whose group it is about.
        partition: PartitionId,
        /// The term that the new owner decides in.
        term: Term,
        /// The mailbox whose slot is awaited.
        mailbox: MailboxId,
    },
    /// Asks to change the members of a group. Decided with [`Decision::Change`]. A leader that is itself to go or to
    /// vote no more hands the lead over first, and answers NotLeader with whom it handed it to.
    Reconfigure {
        /// Answered under this id.
        request: RequestId,
        /// The partition whose group it is about.
        partition: PartitionId,
        /// Only while this node leads in this term.
        term: Term,
        /// Who is to be added, promoted, demoted or removed.
        change: MemberChange,
    },
    /// A new, empty replica, which is to become a learner. The row that names it must be flushed: a restart
    /// finds it by that. Decided with [`Decision::Create`].
    Create {
        /// Answered under this id.
        request: RequestId,
        /// The replica, with the members of its group as they are.
        spec: ReplicaSpec,
    },
    /// A replica of this node was removed from its group, as the control group says: it goes, for ever.
    Destroy {
        /// The replica that goes.
        replica: ReplicaId,
    },
    /// An operator's word that the home region is lost and this node's takes the cluster over: its standby of the control
    /// group is to adopt this incarnation, of a number above its own. Said to every node of the region with the same
    /// nonce; a majority of them begins it. Decided with [`Decision::TakeOver`].
    TakeOver {
        /// Answered under this id.
        request: RequestId,
        /// The incarnation.
        incarnation: Incarnation,
        /// Who says so, for people; at most [`WORD_MAX_BYTES`](mailraft_storage::takeover::WORD_MAX_BYTES).
        word: String,
    },
    /// An operator wants other settings of regions. An entry of the core's own, for which no owner's slot is waited and no
    /// other region: what is away is what it may be about. Decided with [`Decision::Settings`].
    SetRegions {
        /// Answered under this id.
        request: RequestId,
        /// The id of the change: sent again under it, to whichever node, it is made once.
        id: CommandId,
        /// What is to change.
        settings: RegionSettings,
    },
    /// The node is about to stop: hand every leadership to another replica and take none.
    HandOver,
    /// Whether this node is to lead only what no other can, because it is short of something: it hands its leads over
    /// and takes none that another could have, until it is told that this is over.
    Reluctant {
        /// Whether it is.
        reluctant: bool,
    },
    /// Rows of this replica can't be read or opened. It hands the lead over while another can take it, takes none that
    /// another could have, and is to be replaced. The control group's are read by the owners of all partitions: if it
    /// is its replica here, that holds for all of this node's.
    Damaged {
        /// The replica whose rows are damaged.
        replica: ReplicaId,
    },
    /// The connection to a node broke: what was sent may be lost.
    Unreachable {
        /// The node that may not have it.
        node: NodeId,
    },
    /// The fsync loop made every batch up to this one durable.
    Persisted {
        /// The batch's number.
        number: u64,
    },
    /// Apply wrote entries.
    Applied {
        /// The replica to whose rows they were applied.
        replica: ReplicaId,
        /// The position after them.
        applied: Applied,
        /// What it did with each entry that is no configuration change and not empty.
        verdicts: Vec<(Index, Verdict)>,
        /// One value for all rows at that position, if the store keeps one ([`RowsProof`](mailraft_storage::rows::RowsProof)).
        sum: Option<[u8; 32]>,
        /// What the rows say of regions, if that may have changed.
        regions: Option<Arc<Regions>>,
    },
    /// Rows up to these indexes survive a crash: the log may be cut below.
    Flushed {
        /// For each replica the last entry whose rows are flushed.
        upto: Vec<(ReplicaId, Index)>,
    },
    /// About a snapshot.
    Snapshot(SnapshotEvent),
}

/// The term in which owners decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnersTerm {
    /// The term that its replica leads in.
    pub term: Term,
    /// The group's incarnation.
    pub incarnation: Incarnation,
    /// Whether no other region held the term's first entry as it began, since the home answers alone. Then what an earlier
    /// leader sent to another region alone may live on there, and a takeover by that region makes it part of the log. Once
    /// that first entry is held, nothing of the kind can win an election there.
    pub began_alone: bool,
}

/// One thing to do. To be carried out in order.
#[derive(Debug)]
pub enum Output {
    /// Write this batch and sync it, then say [`Input::Persisted`]. At most one is outstanding for a node.
    Persist {
        /// The batch's number, rising.
        number: u64,
        /// What to write.
        batch: LogBatch,
    },
    /// Apply committed entries in order, then say [`Input::Applied`].
    Apply(ApplyJob),
    /// Entries up to this position are committed and in the log here, durably: whoever reads them out (an archive, a
    /// backup) may. Positions rise; where a snapshot took the place of entries they skip those.
    Committed {
        /// The partition whose group it is about.
        partition: PartitionId,
        /// Its replica here.
        replica: ReplicaId,
        /// The last of them.
        upto: LogPosition,
    },
    /// Send to another node. May leave now. May be lost.
    Send {
        /// The node that it is for.
        to: NodeId,
        /// What to say.
        message: PeerMessage,
    },
    /// The answer to a question.
    Decided {
        /// The question's id.
        request: RequestId,
        /// The answer, of the question's kind.
        decision: Decision,
    },
    /// Answers became visible now that had waited for other regions, each for so long since it was applied. Never in a
    /// cluster of one region.
    Waited {
        /// The partition whose group it is about.
        partition: PartitionId,
        /// For how long, in the order of the log.
        waited: Vec<Duration>,
    },
    /// This node leads a partition from now on and its owners may start: the term's first entry and the
    /// incarnation are applied. Or, with None, it leads it no more.
    Leads {
        /// The partition whose group it is about.
        partition: PartitionId,
        /// Its replica here.
        replica: ReplicaId,
        /// In what owners decide.
        leading: Option<OwnersTerm>,
    },
    /// Whom this replica believes to lead a partition: a hint for routing.
    Leader {
        /// The partition whose group it is about.
        partition: PartitionId,
        /// The leader's node, if one is known.
        node: Option<NodeId>,
    },
    /// How far the cluster's time is ahead of this node's wall clock, from now on: what is kept for a time is
    /// kept by the cluster's.
    Time {
        /// In milliseconds; negative if the wall clock is ahead.
        ahead_ms: i64,
    },
    /// Send or install a snapshot.
    Snapshot(SnapshotJob),
    /// Another replica's rows are not what this one's are: to be told to the operator.
    Differs {
        /// The partition whose group it is about.
        partition: PartitionId,
        /// Its replica here.
        replica: ReplicaId,
        /// The replica that disagrees with this one.
        other: ReplicaId,
        /// On its first so many accepted entries they disagree.
        count: u64,
        /// Which of them is wrong.
        difference: Difference,
    },
    /// The sums over two replicas' rows differ: to be told to the operator.
    RowsDiffer {
        /// The partition whose group it is about.
        partition: PartitionId,
        /// Its replica here.
        replica: ReplicaId,
        /// The replica that disagrees with this one.
        other: ReplicaId,
        /// The position at which they disagree.
        index: Index,
        /// Which of them is wrong.
        difference: Difference,
    },
    /// The rows of this replica are not what a majority of its group has: nothing of them may be told any more. The core
    /// takes it for damaged already.
    Distrust {
        /// The partition whose group it is about.
        partition: PartitionId,
        /// Its replica here.
        replica: ReplicaId,
        /// The position at which they differ.
        index: Index,
    },
    /// A node said what no honest node says, and nothing was changed by it: to be told to the operator, and the connection
    /// ended over which it came if the refusal [says so](PeerRefusal::ends_connection).
    Refused {
        /// The node that said it.
        from: NodeId,
        /// The partition whose group it is about.
        partition: PartitionId,
        /// Why it is not heard.
        refusal: PeerRefusal,
    },
    /// Something that must never be: stop the process. This replica differs from a majority, a damaged entry, ...
    Abort(String),
}

/// Which of two replicas that differ is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The other one: a majority has what this one has.
    OtherIsWrong,
    /// Not known before more voters are heard.
    Undecided,
}

/// Committed entries of one replica to apply, in order.
#[derive(Clone, Debug)]
pub struct ApplyJob {
    /// The replica to whose rows they are to be applied.
    pub replica: ReplicaId,
    /// The entries, with Raft's configuration after each that changed it.
    pub entries: Vec<(eraftpb::Entry, Option<eraftpb::ConfState>)>,
}

/// What one node says to another. Everything is bound to cluster, group, replica and incarnation.
#[derive(Clone, Debug)]
pub struct PeerMessage {
    /// The cluster that the sender belongs to: another's messages are dropped.
    pub cluster: ClusterId,
    /// The partition whose Raft group it is about.
    pub partition: PartitionId,
    /// The sender's replica.
    pub from: ReplicaId,
    /// The receiver's replica.
    pub to: ReplicaId,
    /// The incarnation that the sender's replica is a voter or learner of. Of the first one without its nonce, and with the
    /// number 0 before `begin`.
    pub incarnation: Incarnation,
    /// The sender's wall clock, for stamps.
    pub wall: UnixMillis,
    /// What it says.
    pub body: PeerBody,
}

impl PeerMessage {
    /// Writes a snapshot's position into the metadata of Raft's MsgSnapshot; false if the message is none.
    pub fn set_position(&mut self, applied: &Applied) -> bool {
        let PeerBody::Raft(raft) = &mut self.body else { return false };
        if raft.get_msg_type() != MessageType::MsgSnapshot {
            return false;
        }
        let metadata = raft.mut_snapshot().mut_metadata();
        metadata.index = applied.index.0;
        metadata.term = applied.term.0;
        metadata.set_conf_state(conf_state(applied));
        true
    }

    /// Whether it is a MsgSnapshot with this position.
    pub fn has_position(&self, applied: &Applied) -> bool {
        let PeerBody::Raft(raft) = &self.body else { return false };
        let metadata = raft.get_snapshot().get_metadata();
        raft.get_msg_type() == MessageType::MsgSnapshot
            && metadata.index == applied.index.0
            && metadata.term == applied.term.0
            && *metadata.get_conf_state() == conf_state(applied)
    }
}

/// Raft's configuration at a position.
fn conf_state(applied: &Applied) -> ConfState {
    let ids = |replicas: &[ReplicaId]| replicas.iter().map(|r| r.0).collect();
    ConfState {
        voters: ids(&applied.voters),
        learners: ids(&applied.learners),
        voters_outgoing: ids(&applied.voters_outgoing),
        learners_next: ids(&applied.learners_next),
        auto_leave: applied.auto_leave,
        ..ConfState::default()
    }
}

/// The kinds of peer message.
#[derive(Clone, Debug)]
pub enum PeerBody {
    /// A message of raft-rs.
    Raft(eraftpb::Message),
    /// Count and hash over accepted entries, to compare.
    Hash {
        /// The number of entries that the sender has accepted.
        count: u64,
        /// The running hash over them.
        hash: [u8; 32],
    },
    /// One value for all rows at a position, to compare.
    Rows {
        /// The position.
        index: Index,
        /// The sum over the sender's rows.
        sum: [u8; 32],
    },
    /// Entries up to here are visible, as the sender knows, which leads. Only in clusters of several regions.
    Visible {
        /// The last of them.
        index: Index,
    },
    /// What the sender's node leads, of the partitions without a replica on the receiver's. Between replicas of
    /// the control group, which every node has.
    Leads(Vec<(PartitionId, Term)>),
    /// The group was taken over: the sender has applied that, or was sealed by it.
    TakenOver(TakenOver),
    /// The receiver was removed from the group, and the sender has applied that.
    Removed,
    /// Whom the sender's node hears ([`Reach`](crate::reach::Reach)). Between replicas of the control group.
    Hears {
        /// These nodes.
        nodes: Vec<NodeId>,
        /// With so many of them it hears each other.
        links: u32,
    },
    /// What the sender's node leads, and how far other regions are with it. To the control group's leader; only in
    /// clusters of several regions.
    Modes(Vec<ModeReport>),
    /// Other regions hold everything that was appended to a partition longer ago than so many milliseconds, as its leader knows.
    /// To the control group's leader, with [`PeerBody::Modes`].
    HeldBut(Vec<(PartitionId, u64)>),
}

/// Something to do about a snapshot.
#[derive(Clone, Debug)]
pub enum SnapshotJob {
    /// Take a view of a replica's rows and send it over a connection of its own; the metadata of the
    /// message are replaced by the view's own position. Then say [`SnapshotEvent::Sent`].
    Send {
        /// The replica here whose rows are sent.
        replica: ReplicaId,
        /// To this node.
        to: NodeId,
        /// Raft's MsgSnapshot for the other side.
        message: PeerMessage,
    },
    /// Replace a replica's rows by its staged snapshot and flush, then say [`SnapshotEvent::Installed`]. Asked
    /// again after a crash: the same rows once more.
    Install {
        /// The replica here whose rows are replaced.
        replica: ReplicaId,
        /// The snapshot's position.
        applied: Applied,
    },
    /// Throw a staged snapshot away.
    Discard {
        /// The replica here for which it was staged.
        replica: ReplicaId,
    },
    /// The replica was removed from its group: once everything handed to apply before is applied, delete its
    /// rows and staged snapshots. Asked again after a crash. No answer.
    Remove {
        /// The replica that was removed.
        replica: ReplicaId,
    },
}

/// Something that happened about a snapshot.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // One at a time, moved once.
pub enum SnapshotEvent {
    /// The other side has it whole, or sending failed.
    Sent {
        /// The replica here whose rows were sent.
        replica: ReplicaId,
        /// To this replica of the other node.
        to: ReplicaId,
        /// Whether it has it whole.
        ok: bool,
    },
    /// A snapshot arrived, is whole, and synced as files.
    Staged {
        /// From this node.
        from: NodeId,
        /// Raft's MsgSnapshot with the position's metadata.
        message: PeerMessage,
        /// The position of its rows.
        applied: Applied,
    },
    /// A staged snapshot's rows are in place and flushed.
    Installed {
        /// The replica here whose rows were replaced.
        replica: ReplicaId,
        /// What they say of the group's members ([`group`](crate::placement::group)).
        group: GroupRows,
        /// What they say of regions, if they are the control group's ([`Regions::from_rows`]).
        regions: Option<Arc<Regions>>,
    },
}

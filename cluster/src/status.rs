//! How a node's replicas are: for operators, and as JSON between nodes, so that nodes of two versions
//! understand each other in an upgrade.

use std::fmt;

use mailraft_storage::{Incarnation, Index, NodeId, PartitionId, ReplicaId, Term, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::low_water::LowWater;
use crate::mode::Mode;
use crate::promised::InLog;

/// Beside the way there and back, a region of which a majority of standbys was not heard for so long is silent, in
/// milliseconds.
pub const SILENT_AFTER_MS: u64 = 1_400;
/// The longest way there and back that is counted on where none was measured, in milliseconds.
const ROUND_TRIP_MS_MAX: u64 = 300;

/// A replica as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The partition of whose group it is a member.
    pub partition: PartitionId,
    /// The id of the replica.
    pub replica: ReplicaId,
    /// What it does in its group.
    pub role: Role,
    /// The Raft term that it is in.
    pub term: Term,
    /// The leader's node, if known.
    pub leader: Option<NodeId>,
    /// The last entry that it knows to be committed.
    pub commit: Index,
    /// The last entry applied.
    pub applied: Index,
    /// The last entry whose rows survive a crash without the log.
    pub flushed: Index,
    /// The last entry that is visible: what is after it is told to nobody yet.
    pub visible: Index,
    /// What holds the log, of the marks below which it is cut.
    pub log_held_by: LowWater,
    /// The index of that mark.
    pub log_held_at: Index,
    /// The first entry in its log.
    pub first: Index,
    /// The last entry in its log.
    pub last: Index,
    /// How many entries were accepted.
    pub count: u64,
    /// The hash over them; in JSON in hexadecimal.
    #[serde(with = "hex::serde")]
    pub hash: [u8; 32],
    /// Whether a snapshot is being installed.
    pub installing: bool,
    /// Whether rows of it, or of the node's replica of the control group, were found to be damaged since the start.
    pub damaged: bool,
    /// On the leader: the other members.
    pub followers: Vec<FollowerStatus>,
    /// On the leader, in a cluster of several regions: the other ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<RegionStatus>,
    /// On the leader: for how long the oldest entry has been applied that regions which answers wait for do not hold, in
    /// milliseconds; 0 if they hold everything.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unheld_ms: u64,
    /// On the leader, in a cluster of several regions: the answers that waited or wait for them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub answers: AnswersStatus,
    /// On the leader, in a cluster of several regions: whether answers wait for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ModeStatus>,
    /// On a standby in another region: a snapshot brought it up to here, and it has not heard yet that its region holds
    /// that. It could not take over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<Index>,
    /// The incarnation that it takes and answers messages of; the first one without its nonce.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub incarnation: Incarnation,
    /// It is no voter of this later incarnation, and serves nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_by: Option<u32>,
    /// The voters of that incarnation: where it is served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sealed_voters: Vec<ReplicaId>,
    /// On a standby in another region: how long ago a message of Raft came from there, in milliseconds; None if none came
    /// since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home_heard_ms: Option<u64>,
    /// It heard of another incarnation of its number, and serves nothing until a higher one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub contested: bool,
    /// On a standby of the control group in another region: what its log has of settings that are not applied, in order. For who
    /// asks here; not in JSON.
    #[serde(skip)]
    pub settings_in_log: Vec<InLog>,
    /// On the leader: nothing more is begun, because those regions have not confirmed for long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unconfirmed: bool,
}

/// Whether answers wait for other regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeStatus {
    /// The version of the control group's row, as the leader's node knows it.
    pub version: u64,
    /// What the row says.
    pub mode: Mode,
    /// Since when it does.
    pub since: UnixMillis,
    /// Whether the leader answers what no other region holds.
    pub alone: bool,
}

/// Answers that wait from applied to visible, and those for which nobody waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswersStatus {
    /// So many wait now.
    pub waiting: u64,
    /// So many were given alone, of what other regions did not hold, since this process started.
    pub alone: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn first() -> Incarnation {
    Incarnation { number: 1, nonce: [0; 16] }
}

fn is_first(incarnation: &Incarnation) -> bool {
    *incarnation == first()
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Another region as a group's leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionStatus {
    /// Its name.
    pub region: String,
    /// Whether answers wait for it.
    pub in_sync_set: bool,
    /// The standbys of the group there.
    pub standbys: usize,
    /// So many of them were found to differ from their home: they hold nothing any more.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disagreeing: usize,
    /// So many of them answered lately, and are not known to differ from their home.
    pub confirming: usize,
    /// It holds the log up to here.
    pub held: Index,
    /// For how long the oldest entry has been applied that it does not hold, in milliseconds; 0 if it holds everything.
    #[serde(default)]
    pub unheld_ms: u64,
    /// How long ago a majority of its standbys was heard last, in milliseconds; None if it never was since this replica
    /// began to lead.
    #[serde(default)]
    pub heard_ms: Option<u64>,
    /// The time to the median of its standbys and back, as measured last, in milliseconds.
    #[serde(default)]
    pub round_trip_ms: Option<u64>,
    /// How long ago the sums over the rows of its standbys that confirm were last found to be the home's, at one position: the
    /// longest of them, in milliseconds. None if one of them never was since this process started.
    #[serde(default)]
    pub compared_ms: Option<u64>,
    /// For how long it has confirmed nothing, in milliseconds: since it was heard last, if it is silent, or since the oldest
    /// entry was applied that it does not hold. A new leader begins to count when it begins to lead. 0 while all is well.
    #[serde(default)]
    pub unconfirmed_ms: u64,
}

impl RegionStatus {
    /// Whether it should have answered by now and did not. An idle region is spoken to once a second.
    pub fn is_silent(&self) -> bool {
        let way_ms = self.round_trip_ms.unwrap_or(ROUND_TRIP_MS_MAX);
        self.heard_ms.is_none_or(|ms| ms > SILENT_AFTER_MS + way_ms)
    }
}

/// What a replica does in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It leads.
    Leader,
    /// It votes and follows.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It follows without a vote.
    Learner,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
        })
    }
}

/// A follower as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerStatus {
    /// The replica that follows.
    pub replica: ReplicaId,
    /// The node that it is on.
    pub node: NodeId,
    /// The last entry it is known to have.
    pub matched: Index,
    /// How many entries it lacks.
    pub lag: u64,
    /// It answered within the last election timeout.
    pub active: bool,
    /// Whether it is being sent a snapshot.
    pub snapshot: bool,
}

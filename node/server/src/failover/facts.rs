//! What nodes say of themselves where a region is to take over: as JSON between nodes, so that two versions understand each
//! other.

use mailraft_cluster::mode::ModeRow;
use mailraft_cluster::promised::InLog;
use mailraft_cluster::regions::RegionsRow;
use mailraft_storage::{Incarnation, Index, NodeId, PartitionId};
use serde::{Deserialize, Serialize};

use super::unsealing::KeyState;

/// A node of the region that is to take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The node.
    pub node: NodeId,
    /// The home region, as its rows say.
    pub home: String,
    /// The newest incarnation that has begun, as its rows say; 1 if there was no takeover.
    pub begun: u32,
    /// Its replicas, the control group's first.
    pub standings: Vec<Standing>,
    /// The nodes of the home region, and how long ago each answered last.
    pub home_nodes: Vec<Heard>,
    /// Nodes of its own region to which its connection stands.
    pub neighbours: Vec<NodeId>,
    /// The home had this region's confirmations of everything no longer ago than this, in milliseconds, as it said itself;
    /// None if that was not heard since this node started. An age, as clocks are set.
    #[serde(default)]
    pub confirmed_ago_ms: Option<u64>,
    /// What the home said of itself, if it did since this node started.
    #[serde(default)]
    pub home_said: Option<HomeSaid>,
    /// Whether it can open mailboxes.
    pub key: KeyState,
    /// It takes clients.
    pub serves: bool,
    /// Mailboxes that are open there.
    pub mailboxes: usize,
    /// How long ago it accepted its first message since it serves, in milliseconds.
    pub accepted_ago_ms: Option<u64>,
    /// Another region took over from this node's.
    #[serde(default)]
    pub sealed_by: Option<Seal>,
    /// What the home promises, as it knows; None from a node of an earlier version.
    #[serde(default)]
    pub promised: Option<Promised>,
}

/// What the home promises, as a node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promised {
    /// Its rows have so much of the control group's log.
    pub applied: Index,
    /// What those say.
    pub row: RegionsRow,
    /// And of the mode.
    pub mode: ModeRow,
    /// Where the newest change of settings stands that those have.
    #[serde(default)]
    pub settings: Index,
    /// What follows in its log.
    pub in_log: Vec<InLog>,
}

/// Who sealed a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The number of that incarnation.
    pub number: u32,
    /// The region that took over, if its name is known.
    pub region: Option<String>,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The partition.
    pub partition: PartitionId,
    /// The incarnation that it is of.
    pub incarnation: Incarnation,
    /// The last entry in its log.
    pub last: Index,
    /// A snapshot brought it above what its region is known to hold: it can't take over.
    pub ahead: bool,
    /// How long ago the home was heard here about this partition, in milliseconds.
    pub home_heard_ms: Option<u64>,
    /// This node leads the partition, and its mailboxes may be opened.
    pub ready: bool,
    /// It heard of another incarnation of the same number.
    pub contested: bool,
    /// A later incarnation has sealed it.
    pub sealed: bool,
}

/// When a node was heard last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The node.
    pub node: NodeId,
    /// So many milliseconds ago; None if never since this node started.
    pub ago_ms: Option<u64>,
}

/// What a node at home says of how a region confirms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeSays {
    /// The partitions that it leads.
    pub led: Vec<PartitionId>,
    /// Of one of them the region has confirmed nothing for so long, in milliseconds; 0 while all is well.
    pub unconfirmed_ms: u64,
    /// The home answers without the region, or what it answered so may be missing yet: that something is confirmed again says
    /// nothing of that.
    #[serde(default)]
    pub lacks: bool,
    /// The version of the mode by which it does or does not, as the node has applied it.
    #[serde(default)]
    pub version: u64,
    /// Where the newest change of settings stands that the node has applied, in the control group's log.
    #[serde(default)]
    pub settings: Index,
}

/// The newest of what the home said of itself to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeSaid {
    /// The version of the mode.
    pub version: u64,
    /// Where the newest change of settings stood.
    pub settings: Index,
    /// By these it answers what this region may lack.
    pub lacks: bool,
}

/// What is asked between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// How far are you?
    Facts,
    /// How does this region confirm?
    Home {
        /// Its name.
        region: String,
    },
    /// Our region takes over.
    Word {
        /// The incarnation to adopt.
        incarnation: Incarnation,
        /// Who said so, for people.
        word: String,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Question::Facts`].
    Facts(Box<Facts>),
    /// To [`Question::Home`].
    Home(HomeSays),
    /// To [`Question::Word`]: it is adopted, durably.
    Adopted,
    /// It is of a higher one: somebody else gave the word too.
    Later {
        /// Its number.
        number: u32,
    },
    /// It is not; nothing was changed.
    Refused {
        /// Why, for people.
        why: String,
        /// Whether to ask again.
        again: bool,
    },
    /// It is not, and nothing was changed: the region has taken over already.
    Begun {
        /// The number of the incarnation that began.
        number: u32,
    },
}

impl Facts {
    /// Its replica of a partition.
    pub fn of(&self, partition: PartitionId) -> Option<&Standing> {
        self.standings.iter().find(|standing| standing.partition == partition)
    }

    /// The same once so many milliseconds have passed since it was said.
    #[must_use]
    pub fn after(mut self, ms: u64) -> Self {
        self.confirmed_ago_ms = self.confirmed_ago_ms.map(|ago| ago.saturating_add(ms));
        self
    }
}

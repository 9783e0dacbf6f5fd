//! With several regions: how the control group's rows on this node bear on all other groups.
//!
//! An entry names how much of the control group its leader's node had applied, and is visible only when that is visible:
//! so no mail is answered whose key could be lost. Of entries that a start found here, or a snapshot brought, nobody has
//! seen what they name. So the node asks the control group itself, after each such find: whatever they name was committed
//! before, and a read barrier that passes says that everything is visible that was committed when it was asked.

use std::sync::Arc;

use mailraft_storage::{Env, Index, PartitionId, ReplicaId};

use super::Node;
use crate::outcome::{BarrierOutcome, Decision};
use crate::regions::Regions;
use crate::replica::ControlSeen;
use crate::seam::{Output, Reader, RequestId};

/// The core's question to itself.
const OWN_QUESTION: RequestId = RequestId(u64::MAX);

/// What the other groups know of the control group here.
#[derive(Default)]
pub(super) struct ControlWatch {
    seen: ControlSeen,
    /// The finds that the question is about that is under way.
    asked: Option<Vec<(PartitionId, u64)>>,
}

impl ControlWatch {
    /// How far the control group was here when that was looked at last.
    pub fn seen(&self) -> ControlSeen {
        self.seen
    }
}

impl Node {
    /// Tells all other groups how far the control group is here, if that has changed; whether it has.
    pub(super) fn looks_at_control(&mut self) -> bool {
        if self.config.regions.is_none() {
            return false;
        }
        let Some(seen) = self.replicas.get(&PartitionId::CONTROL).map(|control| control.control_seen()) else {
            return false;
        };
        if seen == self.control.seen {
            return false;
        }
        self.control.seen = seen;
        for (partition, replica) in
            self.replicas.iter_mut().filter(|(partition, _)| **partition != PartitionId::CONTROL)
        {
            replica.sees_control(seen);
            self.dirty.push(*partition);
        }
        true
    }

    /// The control group's rows here say something else of regions, perhaps: every replica goes by that from now on. A
    /// cluster that had one region when this process started is taken for one until the next start.
    pub(super) fn hears_regions(
        &mut self,
        replica: ReplicaId,
        regions: Option<Arc<Regions>>,
        applied: Index,
        out: &mut Vec<Output>,
    ) {
        let is_control = self.by_replica.get(&replica) == Some(&PartitionId::CONTROL);
        let Some(regions) = regions.filter(|_| is_control && self.config.regions.is_some()) else { return };
        self.config.regions = Some(Arc::clone(&regions));
        for (partition, replica) in &mut self.replicas {
            replica.hears_regions(&regions, applied);
            self.dirty.push(*partition);
        }
        self.follows_takeovers(out);
    }

    /// Asks whether what was found here needs nothing that is not visible, where that is not known.
    pub(super) fn asks_about_needs(&mut self) {
        let Some(regions) = self.config.regions.as_ref().filter(|_| self.control.asked.is_none()) else { return };
        // Standbys lead nothing.
        if !regions.is_home(self.config.node) {
            return;
        }
        let finds = self.replicas.iter().filter(|(partition, _)| **partition != PartitionId::CONTROL);
        let finds: Vec<_> = finds.filter_map(|(p, replica)| Some((*p, replica.unknown_needs()?))).collect();
        if finds.is_empty() {
            return;
        }
        let Some((_, control)) = self.asked(PartitionId::CONTROL) else { return };
        if control.read_barrier(OWN_QUESTION, Reader::Visible).is_none() {
            self.control.asked = Some(finds);
        }
    }

    /// Takes the answer to the node's own question out of what the driver is told.
    pub(super) fn hears_own_answer(&mut self, env: &mut Env, first: usize, out: &mut Vec<Output>) {
        let is_own = |output: &Output| matches!(output, Output::Decided { request: OWN_QUESTION, .. });
        let Some(at) = out[first..].iter().position(is_own) else { return };
        let Output::Decided { decision, .. } = out.remove(first + at) else { return };
        let finds = self.control.asked.take().expect("an answer follows a question");
        if let Decision::Barrier(BarrierOutcome::Passed { .. }) = decision {
            for (partition, find) in finds {
                if let Some(replica) = self.replicas.get_mut(&partition) {
                    replica.needs_are_met(find);
                    self.dirty.push(partition);
                }
            }
            self.settle(env, out);
        }
    }
}

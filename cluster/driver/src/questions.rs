//! Who waits for the core's answers: a map for each kind of question, so that each is answered in its own type.

use std::collections::HashMap;
use std::time::Instant;

use mailraft_cluster::{
    BarrierOutcome, Decision, RequestId, SettingsOutcome, SlotOutcome, TakeOverOutcome, TakeOverRefusal,
};
use mailraft_storage::ProposalOutcome;
use tokio::sync::oneshot;

use crate::metrics;

/// Someone waits for an outcome.
pub(crate) struct Waiting<T> {
    since: Instant,
    reply: oneshot::Sender<T>,
}

/// Someone who waits, by the kind of question.
pub(crate) enum Asked {
    Proposal(Waiting<ProposalOutcome>),
    Barrier(Waiting<BarrierOutcome>),
    Slot(Waiting<SlotOutcome>),
    Settings(Waiting<SettingsOutcome>),
    TakeOver(Waiting<TakeOverOutcome>),
}

/// Everyone who waits.
#[derive(Default)]
pub(crate) struct Questions {
    proposals: HashMap<RequestId, Waiting<ProposalOutcome>>,
    barriers: HashMap<RequestId, Waiting<BarrierOutcome>>,
    slots: HashMap<RequestId, Waiting<SlotOutcome>>,
    settings: HashMap<RequestId, Waiting<SettingsOutcome>>,
    takeovers: HashMap<RequestId, Waiting<TakeOverOutcome>>,
}

impl<T> Waiting<T> {
    /// Someone who waits from now on.
    pub(crate) fn new(reply: oneshot::Sender<T>) -> Self {
        Waiting { since: Instant::now(), reply }
    }

    fn decided(self, kind: &'static str, label: &'static str, outcome: T) {
        ::metrics::counter!(metrics::DECIDED, "kind" => kind, "outcome" => label).increment(1);
        // Whoever asked may have gone.
        let _ = self.reply.send(outcome);
    }
}

impl Questions {
    pub(crate) fn insert(&mut self, request: RequestId, asked: Asked) {
        match asked {
            Asked::Proposal(waiting) => drop(self.proposals.insert(request, waiting)),
            Asked::Barrier(waiting) => drop(self.barriers.insert(request, waiting)),
            Asked::Slot(waiting) => drop(self.slots.insert(request, waiting)),
            Asked::Settings(waiting) => drop(self.settings.insert(request, waiting)),
            Asked::TakeOver(waiting) => drop(self.takeovers.insert(request, waiting)),
        }
    }

    /// The core has answered.
    pub(crate) fn decided(&mut self, request: RequestId, decision: Decision) {
        match decision {
            Decision::Proposal(outcome) => {
                if let Some(waiting) = self.proposals.remove(&request) {
                    ::metrics::histogram!(metrics::PROPOSAL).record(waiting.since.elapsed());
                    waiting.decided("propose", proposal_label(&outcome), outcome);
                }
            }
            Decision::Barrier(outcome) => {
                if let Some(waiting) = self.barriers.remove(&request) {
                    waiting.decided("read", barrier_label(&outcome), outcome);
                }
            }
            Decision::Slot(outcome) => {
                if let Some(waiting) = self.slots.remove(&request) {
                    waiting.decided("slot", slot_label(&outcome), outcome);
                }
            }
            Decision::Settings(outcome) => {
                if let Some(waiting) = self.settings.remove(&request) {
                    waiting.decided("settings", settings_label(&outcome), outcome);
                }
            }
            Decision::TakeOver(outcome) => {
                if let Some(waiting) = self.takeovers.remove(&request) {
                    waiting.decided("take_over", take_over_label(outcome), outcome);
                }
            }
            // No part of a node changes members or makes replicas yet.
            Decision::Change(_) | Decision::Create(_) => {}
        }
    }
}

fn proposal_label(outcome: &ProposalOutcome) -> &'static str {
    match outcome {
        ProposalOutcome::Applied { .. } => "applied",
        ProposalOutcome::Dropped => "dropped",
        ProposalOutcome::Overloaded => "overloaded",
        ProposalOutcome::NotConfirmed => "not_confirmed",
        ProposalOutcome::NotLeader { .. } => "not_leader",
        ProposalOutcome::Unknown => "unknown",
    }
}

fn barrier_label(outcome: &BarrierOutcome) -> &'static str {
    match outcome {
        BarrierOutcome::Passed { .. } => "read",
        BarrierOutcome::NotLeader { .. } => "not_leader",
        BarrierOutcome::Unavailable => "unavailable",
    }
}

fn slot_label(outcome: &SlotOutcome) -> &'static str {
    match outcome {
        SlotOutcome::Free => "slot_free",
        SlotOutcome::NotLeader { .. } => "not_leader",
        SlotOutcome::Overloaded => "overloaded",
    }
}

fn settings_label(outcome: &SettingsOutcome) -> &'static str {
    match outcome {
        SettingsOutcome::Changed { .. } => "changed",
        SettingsOutcome::Refused(_) => "refused",
        SettingsOutcome::Dropped => "dropped",
        SettingsOutcome::NotLeader { .. } => "not_leader",
        SettingsOutcome::Overloaded => "overloaded",
        SettingsOutcome::Unknown => "unknown",
    }
}

fn take_over_label(outcome: TakeOverOutcome) -> &'static str {
    match outcome {
        TakeOverOutcome::Adopted => "adopted",
        TakeOverOutcome::Refused(why) => match why {
            TakeOverRefusal::NoStandby => "no_standby",
            TakeOverRefusal::IsHome => "is_home",
            TakeOverRefusal::NotHigher { .. } => "not_higher",
            TakeOverRefusal::Ahead(_) => "ahead",
            TakeOverRefusal::Sealed => "sealed",
            TakeOverRefusal::Busy => "busy",
        },
    }
}

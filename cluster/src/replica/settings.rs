//! Other settings of regions, as an operator wants them. The control group's leader appends them as entries of its own, as it
//! does rows about the mode: they wait for no owner's slot, since what has the slot may be what waits for another region,
//! and they are answered when a majority at home has them. An operator who has lost a region is to be able to say so.
//!
//! Each change is decided on all before it in the log, applied or not, so that two at once lose nothing of each other; and
//! its entry keeps its id, so that one that is sent again is made once.

use std::collections::VecDeque;

use mailraft_storage::{CommandId, Index, RowBatch, UnixMillis, Verdict};

use super::Replica;
use crate::config::NodeConfig;
use crate::outcome::{Decision, SettingsOutcome};
use crate::plant::{self, Fault};
use crate::regions::{self, ChangesRow, RegionSettings, RegionsRow, SettingsChange, SettingsRefusal};
use crate::seam::{Output, RequestId};

/// Who may wait for changes at once.
const WAITING_MAX: usize = 64;

/// The changes that this leader appended in its term and that have no verdict.
#[derive(Default)]
pub(super) struct SettingsInFlight(VecDeque<InFlight>);

struct InFlight {
    /// The rows once it is applied.
    row: RegionsRow,
    changes: ChangesRow,
    change: SettingsChange,
    /// Who asked for it: whoever sends it again joins.
    requests: Vec<RequestId>,
    verdict: Option<Verdict>,
}

impl SettingsInFlight {
    fn waiting(&self) -> usize {
        self.0.iter().map(|change| change.requests.len()).sum()
    }
}

impl Replica {
    /// Appends other settings, or says at once what becomes of them. Other regions hold everything of every partition that was
    /// appended before `held_until`.
    pub fn set_regions(
        &mut self,
        config: &NodeConfig,
        wall: UnixMillis,
        request: RequestId,
        id: CommandId,
        settings: RegionSettings,
        held_until: UnixMillis,
    ) -> Option<SettingsOutcome> {
        let not_leader = SettingsOutcome::NotLeader { leader: self.leader() };
        let (Some(term), Some(regions)) = (self.leads_surely(), self.abroad.regions().cloned()) else {
            return Some(not_leader);
        };
        if self.settings.waiting() >= WAITING_MAX {
            return Some(SettingsOutcome::Overloaded);
        }
        if let Some(same) = self.settings.0.iter_mut().find(|in_flight| in_flight.change.id == id) {
            if same.change.settings != settings {
                return Some(SettingsOutcome::Refused(SettingsRefusal::IdIsTaken));
            }
            same.requests.push(request);
            return None;
        }
        match regions.changes().made(id) {
            Some(made) if made.settings == settings => return Some(SettingsOutcome::Changed { index: made.index }),
            Some(_) => return Some(SettingsOutcome::Refused(SettingsRefusal::IdIsTaken)),
            None => {}
        }
        let (row, changes) = match self.settings.0.back() {
            Some(before) => (before.row.clone(), before.changes.clone()),
            None => (regions.row().clone(), regions.changes().clone()),
        };
        let (waited_for, before) = (row.sync_set.len(), row.durability);
        let row = match regions.changed(row, &settings) {
            Ok(row) => row,
            Err(why) => return Some(SettingsOutcome::Refused(SettingsRefusal::BadSettings(why))),
        };
        if self.raw.store().is_full() {
            return Some(SettingsOutcome::Overloaded);
        }
        // What was answered while nobody waited for the new one it may lack, and so it is as if nobody had confirmed.
        let adds = row.sync_set.len() > waited_for;
        // What was answered by the earlier promise they may lack, and it is more than is promised from now on.
        let tightens =
            row.durability.may_run_ahead() < before.may_run_ahead() && !plant::is(Fault::LessPromisedForgotten);
        let changes_mode = adds || tightens && !row.sync_set.is_empty();
        let mode = match adds {
            true => regions.mode().taken_back(wall),
            false => regions.mode().promised_more(wall, held_until),
        };
        if changes_mode && self.has_appended_mode(term, mode.version) {
            return Some(SettingsOutcome::Dropped);
        }
        let index = Index(self.raw.raft.raft_log.last_index() + 1);
        let change = SettingsChange { id, index, settings };
        let changes = changes.with(change.clone());
        let mut batch = RowBatch::default();
        regions::write(&mut batch, &row);
        changes.write(&mut batch);
        if changes_mode {
            batch.puts.extend(mode.batch().puts);
        }
        match self.append_own(config, wall, term, batch, 0) {
            Some(at) => {
                assert_eq!(at, index, "a change of settings names its own index");
                let in_flight = InFlight { row, changes, change, requests: vec![request], verdict: None };
                self.settings.0.push_back(in_flight);
                if changes_mode {
                    self.appends_mode(term, mode.version);
                }
                None
            }
            None => Some(SettingsOutcome::Dropped),
        }
    }

    /// Entries were applied.
    pub(super) fn applies_settings(&mut self, verdicts: &[(Index, Verdict)], out: &mut Vec<Output>) {
        for in_flight in &mut self.settings.0 {
            let of_it = verdicts.iter().find(|(index, _)| *index == in_flight.change.index);
            in_flight.verdict = of_it.map(|(_, verdict)| *verdict).or(in_flight.verdict);
        }
        self.answers_settings(out);
    }

    /// Answers whoever asked for what is applied by now.
    pub(super) fn answers_settings(&mut self, out: &mut Vec<Output>) {
        let waits = plant::is(Fault::SettingsWaitToBeVisible);
        let upto = if waits { self.visibility.index() } else { Index(u64::MAX) };
        while let Some(done) = self.settings.0.pop_front_if(|c| c.verdict.is_some() && c.change.index <= upto) {
            let outcome = match done.verdict {
                Some(Verdict::Accepted) => SettingsOutcome::Changed { index: done.change.index },
                Some(Verdict::Missing | Verdict::Fenced) => SettingsOutcome::Dropped,
                None => SettingsOutcome::Unknown,
            };
            let answer = |request| Output::Decided { request, decision: Decision::Settings(outcome.clone()) };
            out.extend(done.requests.into_iter().map(answer));
        }
    }

    /// The term is over in which they were appended.
    pub(super) fn forgets_settings(&mut self, out: &mut Vec<Output>) {
        let requests = std::mem::take(&mut self.settings.0).into_iter().flat_map(|change| change.requests);
        let unknown = |request| Output::Decided { request, decision: Decision::Settings(SettingsOutcome::Unknown) };
        out.extend(requests.map(unknown));
    }
}

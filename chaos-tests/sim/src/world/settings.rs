//! Operators who want other settings of regions, whoever is away. Each asks the control group's leader again and again under
//! the same id until he hears that it is made: then it is made once, and nothing of it is lost.

use mailraft_checkers::{Micros, Rule};
use mailraft_cluster::regions::{ChangesRow, RegionSettings, RegionsRow};
use mailraft_cluster::{Input, Role, SettingsOutcome};
use mailraft_storage::{CommandId, NodeId, PartitionId};

use crate::event::Event;
use crate::host::Waiter;
use crate::world::World;

/// He looks so often.
const LOOK_EVERY: Micros = 150_000;
/// An answer is not waited for longer than this.
const ANSWER_MAX: Micros = 3_000_000;
/// Whoever leads, and has applied what was asked of it, says so within this time, whatever waits for the other region.
const ANSWERS_WITHIN: Micros = 1_500_000;

/// The id of a wish.
fn id(number: usize) -> CommandId {
    let mut id = [0x5e; 16];
    id[8..].copy_from_slice(&(number as u64).to_be_bytes());
    CommandId(id)
}

impl World {
    /// An operator wants something to be set.
    pub(super) fn wants_settings(&mut self, settings: RegionSettings) {
        let number = self.promise.wants(settings);
        self.queue.push(self.now(), Event::Settings(number));
    }

    /// He looks what became of it, and asks again where that is nothing.
    pub(super) fn goes_on_with_settings(&mut self, number: usize) {
        let now = self.now();
        let Some(wish) = self.promise.wish(number).cloned().filter(|wish| wish.done.is_none()) else {
            return;
        };
        self.queue.push(now + LOOK_EVERY, Event::Settings(number));
        match wish.asked {
            Some((node, life, at)) if now < at + ANSWER_MAX => self.looks_for_answer(node, life, number),
            Some(_) | None => self.asks_for_settings(number, wish.settings),
        }
    }

    fn asks_for_settings(&mut self, number: usize, settings: RegionSettings) {
        let now = self.now();
        let leads = |node: NodeId| {
            let process = self.host(node).up.as_ref().filter(|_| !self.promise.is_far(node))?;
            let status = process.core.status().into_iter().find(|s| s.partition == PartitionId::CONTROL)?;
            (status.role == Role::Leader).then_some((status.term, node))
        };
        let leader = self.nodes().into_iter().filter_map(leads).max().map(|(_, node)| node);
        if let Some(wish) = self.promise.wish(number) {
            (wish.asked, wish.made_since) = (None, None);
        }
        let Some(node) = leader else { return };
        let life = self.host(node).life;
        let Some(process) = self.host_mut(node).up.as_mut() else { return };
        let request = process.request(Waiter::Settings(number));
        if let Some(wish) = self.promise.wish(number) {
            wish.asked = Some((node, life, now));
        }
        self.say(format!("an operator asks node {node} for {settings:?}"));
        self.input(node, Input::SetRegions { request, id: id(number), settings });
    }

    /// Whether the node that was asked has made it and does not say so.
    fn looks_for_answer(&mut self, node: NodeId, life: u64, number: usize) {
        let (now, host) = (self.now(), self.host(node));
        let is_well = host.up.is_some() && host.life == life && host.paused_until < now && host.slow == 1;
        let changes = self.replica(node, PartitionId::CONTROL).and_then(|r| ChangesRow::read(&host.rows, r).ok());
        let is_made = changes.is_some_and(|changes| changes.made(id(number)).is_some());
        let Some(wish) = self.promise.wish(number) else { return };
        wish.made_since = wish.made_since.filter(|_| is_well).or((is_well && is_made).then_some(now));
        let late = wish.made_since.is_some_and(|since| now > since + ANSWERS_WITHIN);
        if late {
            let what = format!("node {node} has made the settings {number} of an operator, and does not say so");
            self.goes_wrong(Rule::Liveness, what);
        }
    }

    /// What a leader says.
    pub(super) fn settings_are_answered(&mut self, node: NodeId, number: usize, outcome: SettingsOutcome) {
        self.say(format!("node {node} answers what an operator wants to be set: {outcome:?}"));
        match outcome {
            SettingsOutcome::Changed { index } => {
                if let Some(wish) = self.promise.wish(number) {
                    wish.done = Some(index);
                }
            }
            SettingsOutcome::Refused(why) => {
                self.goes_wrong(Rule::Liveness, format!("node {node} refuses settings that are right: {why}"));
            }
            SettingsOutcome::Dropped
            | SettingsOutcome::NotLeader { .. }
            | SettingsOutcome::Overloaded
            | SettingsOutcome::Unknown => {
                let asked_here = |asked: &mut (NodeId, u64, Micros)| asked.0 == node;
                if let Some(wish) = self.promise.wish(number) {
                    wish.asked.take_if(asked_here);
                }
            }
        }
    }

    /// Everything is at rest: each wish of which an operator heard that it is made is so, once, and no row says anything
    /// that nobody wanted.
    pub(super) fn settings_are_made(&mut self) {
        let Some(first) = self.promise.first().cloned().filter(|_| !self.promise.is_word_given()) else { return };
        let wanted = self.promise.wanted().to_vec();
        for node in self.up() {
            let Some(control) = self.replica(node, PartitionId::CONTROL) else { continue };
            let rows = &self.host(node).rows;
            let (Ok(Some(row)), Ok(changes)) = (RegionsRow::read(rows, control), ChangesRow::read(rows, control))
            else {
                continue;
            };
            let made: Vec<_> = changes.iter().cloned().collect();
            let replayed = made.iter().try_fold(first.clone(), |row, change| row.changed(&change.settings));
            let rises = made.windows(2).all(|two| two[0].index < two[1].index);
            let once = made.iter().filter(|change| {
                wanted.iter().enumerate().any(|(n, w)| change.id == id(n) && change.settings == w.settings)
            });
            let known = once.count() == made.len();
            for (number, wish) in wanted.iter().enumerate() {
                self.witness.held(Rule::ExactlyOnce);
                let found: Vec<_> = made.iter().filter(|change| change.id == id(number)).collect();
                let fits = match wish.done {
                    Some(index) => found.len() == 1 && found[0].index == index,
                    None => false,
                };
                if !fits {
                    let what = format!("node {node} has the settings {number} ({wish:?}) so: {found:?}");
                    return self.goes_wrong(Rule::ExactlyOnce, what);
                }
            }
            if replayed.as_ref() != Ok(&row) || !rises || !known {
                let what = format!("node {node} goes by {row:?}, and its changes say {replayed:?}: {made:?}");
                return self.goes_wrong(Rule::ExactlyOnce, what);
            }
        }
    }
}

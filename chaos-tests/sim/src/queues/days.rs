//! Days in the queues' world: steps with other servers in them, hours that pass in one, nodes that crash, leaders that do not
//! know that they are deposed.

use std::time::Duration;

use mailraft_mailbox::{Detached, Owner};
use mailraft_outbound::destinations::{DESTINATIONS_MAX, Destinations};
use mailraft_storage::{MailboxId, PartitionId};

use super::outside::{NODES, Stage, node_of};
use super::servers::OfMessage;
use super::{Asker, PARTITIONS, World};

/// At most so many milliseconds pass in one step: what has waited for days would be tried once.
const JUMP_MEAN_MILLIS: u64 = 40 * 60_000;

impl World {
    pub(super) fn step_outside(&mut self) -> Result<(), String> {
        let millis = self.dice.exponential(40);
        self.pass(millis);
        match self.dice.below(100) {
            0..7 => self.client(),
            7..33 => {
                let flying = self.flying();
                self.dice.pick(&flying).copied().map_or(Ok(()), |mailbox| self.applies(mailbox))
            }
            33..48 => self.carry_out_one(),
            48..72 => {
                let due = self.due_tasks();
                self.dice.pick(&due).copied().map_or(Ok(()), |at| self.go_on(at))
            }
            72..78 => self.wake_due(),
            78..82 => {
                self.wake_queues()?;
                self.let_idle_ones_end()
            }
            82..84 => self.late_copy(),
            84..87 => self.change_leader(),
            87..89 => self.panic(),
            89 => self.crash_node(),
            90..92 => self.deposed_ends(),
            92..94 => self.decide(),
            94..99 => self.jump(),
            _ => {
                if self.deleted.is_empty()
                    && self.dice.chance(300)
                    && let Some(mailbox) = self.dice.pick(&self.mailboxes).copied()
                {
                    self.deleted.insert(mailbox);
                }
                Ok(())
            }
        }
    }

    /// Whoever wanted to be asked to go on by now is asked. Each comes late, and none without having wanted it.
    pub(super) fn wake_due(&mut self) -> Result<(), String> {
        let now = self.env.now;
        let mut due = Vec::new();
        for partition in &mut self.partitions {
            let leading = partition.owners.iter_mut().map(|(mailbox, running)| (*mailbox, running));
            for (mailbox, running) in leading.chain(partition.deposed.values_mut().map(|r| (r.place.mailbox, r))) {
                let later = running.wakes.split_off(&(now + Duration::from_nanos(1)));
                if !std::mem::replace(&mut running.wakes, later).is_empty() {
                    due.push((mailbox, running.epoch));
                }
            }
        }
        for (mailbox, epoch) in due {
            self.with_running(mailbox, epoch, |owner, env, out| owner.again(env, out))?;
        }
        Ok(())
    }

    /// When something is to happen that only time brings.
    pub(super) fn next_moment(&self) -> Option<Duration> {
        let owners = self.partitions.iter().flat_map(|p| p.owners.values());
        let wakes = owners.filter_map(|running| running.wakes.first().copied());
        wakes.chain(self.outside.tasks.iter().map(|task| task.at)).min()
    }

    /// Nothing happens for long.
    fn jump(&mut self) -> Result<(), String> {
        // A client that asks again only after hours would not be told what became of it.
        if self.unanswered() > 0 {
            return self.client();
        }
        let now = self.env.now;
        let next = self.next_moment().filter(|_| self.dice.chance(500)).map(|at| at.saturating_sub(now));
        let millis = match next {
            Some(pause) => u64::try_from(pause.as_millis()).unwrap_or(u64::MAX) + 1,
            None => self.dice.exponential(JUMP_MEAN_MILLIS),
        };
        self.pass(millis);
        self.wake_queues()?;
        self.wake_due()?;
        self.nobody_sleeps()
    }

    /// Whether something that an owner wants done is under way.
    fn is_busy(&self, epoch: u64) -> bool {
        let asked = self.asked.values().any(|asker| match asker {
            Asker::Errand(job) => job.epoch == epoch,
            Asker::Report(task) => task.epoch == epoch,
            Asker::Client(_) | Asker::Operator(_) | Asker::Nobody => false,
        });
        asked
            || self.jobs.iter().any(|job| job.epoch == epoch)
            || self.outside.tasks.iter().any(|t| t.epoch == epoch && !matches!(t.stage, Stage::Arrived(..)))
    }

    /// Whatever waits in a queue has an owner that does something, or wants to be asked to go on.
    ///
    /// # Errors
    /// `asleep`.
    pub(super) fn nobody_sleeps(&mut self) -> Result<(), String> {
        let waiting = self.waiting()?;
        for queue in (1..=PARTITIONS).map(|number| MailboxId::queue_of(PartitionId(number))) {
            let of_queue =
                |item: &&mailraft_storage::CommandId| MailboxId::queue_of(item.queue_partition(PARTITIONS)) == queue;
            let Some(item) = waiting.iter().find(of_queue).copied() else { continue };
            let Some(running) = self.partition(queue).owners.get(&queue) else {
                return Err(format!("asleep: {item} waits in {queue}, which has no owner"));
            };
            let (epoch, awake) = (running.epoch, running.in_flight.is_some() || !running.wakes.is_empty());
            if !awake && !self.is_busy(epoch) {
                return Err(format!("asleep: {item} waits in {queue}, and its owner waits for nothing"));
            }
        }
        Ok(())
    }

    /// A deposed leader hears that it is over.
    pub(super) fn deposed_ends(&mut self) -> Result<(), String> {
        let all: Vec<(usize, u64)> = (0..self.partitions.len())
            .flat_map(|at| self.partitions[at].deposed.keys().map(move |epoch| (at, *epoch)))
            .collect();
        let Some((at, epoch)) = self.dice.pick(&all).copied() else { return Ok(()) };
        let Some(mailbox) = self.partitions[at].deposed.get(&epoch).map(|running| running.place.mailbox) else {
            return Ok(());
        };
        self.with_running(mailbox, epoch, |owner, _, out| owner.end(Detached::NotLeader, out))
    }

    /// A node is gone with all that it was doing, and comes again without a memory.
    fn crash_node(&mut self) -> Result<(), String> {
        let node = self.dice.below(NODES as u64) as usize;
        self.summary.disturbed += 1;
        for at in 0..self.partitions.len() {
            let partition = &mut self.partitions[at];
            let id = partition.id;
            partition.deposed.retain(|_, running| node_of(id, running.place.term.0) != node);
            if node_of(id, partition.term) != node {
                continue;
            }
            for mailbox in self.partitions[at].owners.keys().copied().collect::<Vec<_>>() {
                self.lose(mailbox)?;
            }
            self.partitions[at].term += 1;
        }
        let (gone, left) = std::mem::take(&mut self.outside.tasks).into_iter().partition(|task| task.node == node);
        self.outside.tasks = left;
        let gone: Vec<super::outside::Task> = gone;
        for task in gone {
            if let Stage::LetGo(talk, what) = &task.stage {
                // What had left it may arrive all the same.
                let what = if self.dice.chance(500) { *what } else { OfMessage::Dies };
                self.takes(&task, talk, what);
            }
        }
        self.outside.destinations[node] = Destinations::new(DESTINATIONS_MAX);
        Ok(())
    }
}

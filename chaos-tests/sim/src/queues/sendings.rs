//! Sending to other servers in the queues' world, as a node does it: what is read, with whom is spoken, when the message's last
//! octet is let go, and what the owner hears.

use std::sync::Arc;
use std::time::Duration;

use mailraft_mailbox::Command;
use mailraft_mailbox::accepted::{Attempt, AttemptEnd, Diagnosis, QueueChange, ReportKind};
use mailraft_mailbox::queue::arrived::Arrived;
use mailraft_mailbox::queue::outgoing::OutgoingMessage;
use mailraft_mailbox::queue::outward::{OutwardKind, OutwardOutcome};
use mailraft_outbound::destinations::{Admission, Ended};
use mailraft_outbound::schedule::{EXPIRY, Retry, retry};

use super::books::Said;
use super::outside::{Came, Stage, Talk, Task};
use super::servers::{self, Meeting, OfMessage, OfRecipient};
use super::{Asker, World, key_of};
use crate::message;
use crate::plant::{self, Fault};

/// What finds a domain's places taken comes again after this.
const FULL_PAUSE: Duration = Duration::from_millis(250);
/// An owner has so long to record what other servers have, before whoever leads is told.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// After so many a successor has sent it once more.
const LOOKS_MAX: u32 = 30;

impl World {
    /// Tasks that may go on now.
    pub(super) fn due_tasks(&self) -> Vec<usize> {
        let tasks = self.outside.tasks.iter().enumerate();
        tasks.filter(|(_, task)| task.at <= self.env.now).map(|(at, _)| at).collect()
    }

    /// A task goes a step further.
    pub(super) fn go_on(&mut self, at: usize) -> Result<(), String> {
        let mut task = self.outside.tasks.swap_remove(at);
        let stage = std::mem::replace(&mut task.stage, Stage::Waits);
        match (stage, task.outward.what.clone()) {
            (Stage::Waits, OutwardKind::Report { kind, recipients }) => {
                if self.is_there(&task) {
                    self.tell(task, kind, &recipients)?;
                }
                Ok(())
            }
            (Stage::Waits, OutwardKind::Send { domain, recipients, is_asked_for, .. }) => {
                if self.is_there(&task) {
                    self.connect(task, (&domain, is_asked_for), &recipients)
                } else {
                    Ok(())
                }
            }
            (Stage::Speaks(talk), OutwardKind::Send { domain, .. }) => self.before_last_octet(task, talk, &domain),
            (Stage::LetGo(talk, what), OutwardKind::Send { .. }) => self.after_last_octet(task, talk, what),
            (Stage::Arrived(arrived, looks), OutwardKind::Send { .. }) => self.until_recorded(task, arrived, looks),
            (Stage::Speaks(_) | Stage::LetGo(..) | Stage::Arrived(..), OutwardKind::Report { .. }) => {
                Err("a report is sent to a server".to_owned())
            }
        }
    }

    /// Whether somebody waits for what comes of it.
    fn is_there(&mut self, task: &Task) -> bool {
        self.partition(task.queue).running(task.queue, task.epoch).is_some()
    }

    pub(super) fn read_item(&mut self, task: &Task, numbers: &[u32]) -> Result<Option<OutgoingMessage>, String> {
        let (item, key) = (task.outward.item, key_of(task.queue));
        OutgoingMessage::read(&task.rows, task.place, &key, item, numbers).map_err(|e| e.to_string())
    }

    fn connect(
        &mut self,
        mut task: Task,
        (domain, is_asked_for): (&str, bool),
        recipients: &[(u32, u32)],
    ) -> Result<(), String> {
        let now_ms = millis(self.env.now);
        let numbers: Vec<u32> = recipients.iter().map(|(number, _)| *number).collect();
        match self.outside.destinations[task.node].admit(domain, now_ms, is_asked_for) {
            Admission::Open => {}
            Admission::Full => return self.ended(&task, OutwardOutcome::NotNow(FULL_PAUSE)),
            Admission::DownUntil(at) => {
                // A look at what can't have expired yet, each minute for days, would take longer than all the rest.
                let age_ms = self.env.wall.0.saturating_sub(task.outward.item.time().0);
                if age_ms >= millis(EXPIRY)
                    && let Some(message) = self.read_item(&task, &numbers)?
                    && self.env.wall >= message.accepted_and_expires().1
                {
                    self.summary.expired += message.recipients.len();
                    let never = message.recipients.iter().map(|of| (of.number, AttemptEnd::Failed)).collect();
                    return self.attempted(&task, &message, never);
                }
                let pause = Duration::from_millis(at.saturating_sub(now_ms));
                return self.ended(&task, OutwardOutcome::NotNow(pause));
            }
        }
        let read = self.read_item(&task, &numbers)?;
        let Some(message) = read.filter(|message| is_whole(message, &task)) else {
            self.leave(&task, Ended::Neither);
            return self.ended(&task, OutwardOutcome::Failed);
        };
        let count = message.recipients.len();
        let (came, pause_ms) = match servers::meet(&mut self.dice, domain, self.healing) {
            Meeting::NotReached => (vec![Some(Came::Unreached); count], self.dice.between(0, 30_000)),
            Meeting::Silent(pause_ms) => (vec![Some(Came::Unreached); count], pause_ms),
            Meeting::Speaks => {
                let came = (0..count).map(|_| match servers::of_recipient(&mut self.dice, domain, self.healing) {
                    OfRecipient::Yes => None,
                    OfRecipient::NotNow => Some(Came::NotNow),
                    OfRecipient::Never => Some(Came::Never),
                });
                (came.collect(), self.dice.exponential(300))
            }
        };
        task.stage = Stage::Speaks(Talk { message: Arc::new(message), came });
        task.at = self.env.now + Duration::from_millis(pause_ms);
        self.outside.tasks.push(task);
        Ok(())
    }

    /// All but the last octet is sent. Whoever leads no more goes no further: another node sends it now.
    fn before_last_octet(&mut self, mut task: Task, mut talk: Talk, domain: &str) -> Result<(), String> {
        if talk.came.iter().all(Option::is_some) {
            return self.hung_up(&task, &talk);
        }
        let partition = self.partition(task.queue);
        let leads = (partition.incarnation, partition.term) == (task.place.incarnation.number, task.place.term.0);
        if !leads && !plant::is(Fault::LetGoUnconfirmed) {
            self.summary.withdrawn += 1;
            talk.came.iter_mut().filter(|came| came.is_none()).for_each(|came| *came = Some(Came::NotNow));
            return self.hung_up(&task, &talk);
        }
        let is_still_to_be_sent = talk.message.is_still_to_be_sent(&task.rows).map_err(|e| e.to_string())?;
        if !is_still_to_be_sent {
            self.summary.decided_otherwise += 1;
            talk.came.iter_mut().filter(|came| came.is_none()).for_each(|came| *came = Some(Came::NotNow));
            return self.hung_up(&task, &talk);
        }
        // Of one that panicked in this very term, what it had begun goes on, and nobody hears what comes of it.
        let unheard = leads && !self.is_there(&task);
        for (of, _) in talk.message.recipients.iter().zip(&talk.came).filter(|(_, came)| came.is_none()) {
            self.books.lets_go(task.outward.item, of.number, task.epoch, unheard)?;
        }
        let what = servers::of_message(&mut self.dice, domain, self.healing);
        task.at = self.env.now + Duration::from_millis(self.dice.exponential(300));
        task.stage = Stage::LetGo(talk, what);
        self.outside.tasks.push(task);
        Ok(())
    }

    fn after_last_octet(&mut self, task: Task, mut talk: Talk, what: OfMessage) -> Result<(), String> {
        self.takes(&task, &talk, what);
        let came = match what {
            OfMessage::Takes => Came::Sent,
            OfMessage::TakesUnheard | OfMessage::Dies | OfMessage::NotNow => Came::NotNow,
            OfMessage::Never => Came::Never,
        };
        talk.came.iter_mut().filter(|came| came.is_none()).for_each(|of| *of = Some(came));
        self.hung_up(&task, &talk)
    }

    /// The other server has the message's last octet.
    pub(super) fn takes(&mut self, task: &Task, talk: &Talk, what: OfMessage) {
        let (arrived, unheard) = match what {
            OfMessage::Takes => (true, false),
            OfMessage::TakesUnheard => (true, true),
            OfMessage::Dies | OfMessage::NotNow | OfMessage::Never => (false, false),
        };
        for (of, _) in talk.message.recipients.iter().zip(&talk.came).filter(|(_, came)| came.is_none()) {
            self.books.arrives(task.outward.item, of.number, task.epoch, arrived, unheard);
        }
    }

    /// The connection is over.
    fn hung_up(&mut self, task: &Task, talk: &Talk) -> Result<(), String> {
        let all = talk.came.iter().all(|came| *came == Some(Came::Unreached));
        self.leave(task, if all { Ended::Down } else { Ended::Well });
        let OutwardKind::Send { domain, recipients, .. } = &task.outward.what else { return Ok(()) };
        let (accepted, _) = talk.message.accepted_and_expires();
        let mut ends = Vec::new();
        for (of, came) in talk.message.recipients.iter().zip(&talk.came) {
            let failed = recipients.iter().find(|(number, _)| *number == of.number).map_or(0, |(_, failed)| *failed);
            let end = match came {
                Some(Came::Sent) => {
                    let wants = |notify: &String| super::books::is_wanted(Some(notify), ReportKind::Relayed);
                    let told = !servers::reports_onward(domain) && of.notify.as_ref().is_some_and(wants);
                    AttemptEnd::Sent { report: told.then_some(ReportKind::Relayed) }
                }
                Some(Came::Never) => AttemptEnd::Failed,
                Some(Came::NotNow | Came::Unreached) | None => {
                    match retry(accepted.0, self.env.wall.0, failed.saturating_add(1), self.dice.bits()) {
                        Retry::At(next) => AttemptEnd::Deferred { next: mailraft_storage::UnixMillis(next) },
                        Retry::Expired => {
                            self.summary.expired += 1;
                            AttemptEnd::Failed
                        }
                    }
                }
            };
            ends.push((of.number, end));
        }
        self.attempted(task, &talk.message, ends)
    }

    fn leave(&mut self, task: &Task, how: Ended) {
        if let OutwardKind::Send { domain, .. } = &task.outward.what {
            self.outside.destinations[task.node].ended(domain, how, 0, millis(self.env.now));
        }
    }

    /// The owner hears what came of an attempt, if it is there.
    fn attempted(
        &mut self,
        task: &Task,
        message: &OutgoingMessage,
        ends: Vec<(u32, AttemptEnd)>,
    ) -> Result<(), String> {
        let item = task.outward.item;
        if let Some(running) = self.partition(task.queue).running(task.queue, task.epoch) {
            running.said.extend(ends.iter().map(|(recipient, end)| Said { item, recipient: *recipient, end: *end }));
        }
        let at = self.env.wall;
        let attempt = |(recipient, end): (u32, AttemptEnd)| {
            let (status, text) = ("4.0.0".to_owned(), "so the other server says".to_owned());
            let diagnosis = Diagnosis { at, host: Some("mx.test".to_owned()), status, text, is_reply: true };
            Attempt { recipient, end, diagnosis }
        };
        let attempts: Vec<Attempt> = ends.into_iter().map(attempt).collect();
        if let Some(arrived) = Arrived::of(message, &attempts) {
            let (at, stage) = (self.env.now + FIRST_LOOK, Stage::Arrived(arrived, 0));
            self.outside.tasks.push(Task { at, stage, ..task.clone() });
        }
        self.ended(task, OutwardOutcome::Attempted(attempts))
    }

    /// The node sees to it that the queue knows what other servers have, also where another one leads it by now.
    fn until_recorded(&mut self, mut task: Task, arrived: Arrived, looks: u32) -> Result<(), String> {
        let partition = self.partition(task.queue);
        let is_over = partition.incarnation != task.place.incarnation.number || looks >= LOOKS_MAX;
        if is_over || arrived.is_recorded(&partition.rows).map_err(|e| e.to_string())? {
            return Ok(());
        }
        let command = arrived.command();
        self.start(task.queue)?;
        if let (Command::ChangeQueue { change: QueueChange::Attempted { item, attempts } }, Some(running)) =
            (&command, self.partition(task.queue).owners.get_mut(&task.queue))
        {
            let said = |of: &Attempt| Said { item: *item, recipient: of.recipient, end: of.end };
            running.said.extend(attempts.iter().map(said));
        }
        self.summary.told += 1;
        let (session, id) = (self.session(Asker::Nobody), self.env.command_id());
        task.at = self.env.now + LOOK_PAUSE;
        let queue = task.queue;
        self.outside.tasks.push(Task { stage: Stage::Arrived(arrived, looks + 1), ..task });
        self.ask(queue, session, id, 0, command)
    }

    /// The owner hears how it ended, if it is there.
    pub(super) fn ended(&mut self, task: &Task, outcome: OutwardOutcome) -> Result<(), String> {
        let number = task.outward.number;
        self.with_running(task.queue, task.epoch, |owner, env, out| owner.outward_ended(env, number, outcome, out))
    }
}

/// Whether every byte of it is there, and right.
fn is_whole(message: &OutgoingMessage, task: &Task) -> bool {
    let mut plain = Vec::new();
    for number in 0..message.chunks() {
        match message.piece(&task.rows, number) {
            Ok(Some(piece)) => plain.extend_from_slice(&piece),
            Ok(None) | Err(_) => return false,
        }
    }
    let is_right = message::marker_of_text(&plain).is_some();
    assert!(is_right, "what a queue reads of {} is not what it accepted", task.outward.item);
    true
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

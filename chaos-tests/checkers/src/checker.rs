//! Takes the history in line by line, and hands it to the checks at its end.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_mailbox::api::{Change, Event};
use mailraft_storage::{CommandId, MailboxId};

use crate::history::{At, Ended, Micros, Op, Record, Reply};
use crate::operation::{MailboxHistory, Moment, Operation};
use crate::replicas::Replicas;
use crate::report::{Bounds, Report, Rule};
use crate::service::Service;
use crate::takeovers::{Takeover, Takeovers};
use crate::unique_ids;
use crate::views::{Glimpse, follow};
use crate::{order, orders};

/// Checks one history.
pub struct Checker {
    bounds: Bounds,
    report: Report,
    mailboxes: BTreeMap<MailboxId, MailboxHistory>,
    operations: BTreeMap<CommandId, Asked>,
    sessions: BTreeMap<u64, Session>,
    /// What each session saw of each mailbox.
    glimpses: BTreeMap<(MailboxId, u64), Vec<Glimpse>>,
    /// The last MODSEQ of each command, as events told it.
    hints: BTreeMap<CommandId, u64>,
    replicas: Replicas,
    service: Service,
    takeovers: BTreeMap<u32, Takeovers>,
}

/// Where an operation is kept.
#[derive(Clone, Copy)]
struct Asked {
    mailbox: MailboxId,
    operation: usize,
    /// Its partition and number as a write.
    write: Option<(u32, usize)>,
    /// Whether the mailbox existed by then.
    existed: bool,
}

/// A session as it is now.
struct Session {
    mailbox: MailboxId,
    /// The SELECT that opens its folder.
    select: Option<usize>,
}

impl Checker {
    /// For a history that has not begun.
    pub fn new(bounds: Bounds) -> Self {
        Checker {
            bounds,
            report: Report { checks: Rule::ALL.into_iter().map(|rule| (rule, 0)).collect(), ..Report::default() },
            mailboxes: BTreeMap::new(),
            operations: BTreeMap::new(),
            sessions: BTreeMap::new(),
            glimpses: BTreeMap::new(),
            hints: BTreeMap::new(),
            replicas: Replicas::default(),
            service: Service::default(),
            takeovers: BTreeMap::new(),
        }
    }

    /// Takes in the next line of the history. Lines come in the order in which the observer saw them.
    pub fn record(&mut self, record: Record) {
        match record {
            Record::Mailbox { mailbox, partition } => self.mailbox(mailbox).partition = Some(partition),
            Record::Asked { at, session, mailbox, id, op } => self.asked(at, session, mailbox, id, op),
            Record::Hears { at, id, commands } => {
                self.service.advance(at);
                self.hears(id, commands);
            }
            Record::Ended { at, id, ended, position } => self.ended(at, id, ended, position),
            Record::Opened { at, session, mailbox, selected } => {
                self.service.advance(at);
                let select = self.sessions.get_mut(&session).and_then(|s| s.select.take());
                let history = self.mailbox(mailbox);
                history.opened.push(selected.clone());
                if let Some(of) = select.and_then(|select| history.operations.get_mut(select)) {
                    of.opened = Some(selected.clone());
                }
                self.glimpse(mailbox, session, Glimpse::Opened { at, selected });
            }
            Record::Event { at, session, event } => {
                self.service.advance(at);
                self.hint(&event);
                if let Some(mailbox) = self.sessions.get(&session).map(|s| s.mailbox) {
                    self.glimpse(mailbox, session, Glimpse::Event { at, event });
                }
            }
            Record::Resumed { at, session, folder, since: _, resumed } => {
                self.service.advance(at);
                if let Some(mailbox) = self.sessions.get(&session).map(|s| s.mailbox) {
                    self.mailbox(mailbox).resumed.push((at, resumed.highest_modseq));
                    self.glimpse(mailbox, session, Glimpse::Resumed { at, folder, resumed });
                }
            }
            Record::Closed { at, session } => {
                self.service.advance(at);
                if let Some(mailbox) = self.sessions.get(&session).map(|s| s.mailbox) {
                    self.glimpse(mailbox, session, Glimpse::Closed);
                }
            }
            Record::Resolved { id, outcome } => {
                let asked = self.operations.get(&id).copied();
                let history = asked.and_then(|asked| self.mailboxes.get_mut(&asked.mailbox));
                if let (Some(asked), Some(history)) = (asked, history) {
                    history.operations[asked.operation].resolved = Some(outcome);
                }
            }
            Record::Replica { at, node, partition, applied, count, hash, state_hash } => {
                self.service.advance(at);
                self.replicas.chain(at, node, (partition, count), hash, &mut self.report);
                if let Some(hash) = state_hash {
                    self.replicas.state(at, node, (partition, applied), hash, &mut self.report);
                }
            }
            Record::TakenOver { at, partition, incarnation, fork, lost_since } => {
                self.service.advance(at);
                let takeover = Takeover { incarnation, fork, lost_since };
                self.takeovers.entry(partition).or_default().add(takeover);
            }
            Record::Fault { at, name } => {
                self.service.advance(at);
                self.service.fault(at, name);
            }
            Record::Healed { at } => {
                self.service.advance(at);
                self.service.healed(at);
            }
        }
    }

    /// Checks all of it.
    pub fn finish(mut self) -> Report {
        for (id, hint) in self.hints {
            if let Some(asked) = self.operations.get(&id)
                && let Some(history) = self.mailboxes.get_mut(&asked.mailbox)
            {
                history.operations[asked.operation].hint = Some(hint);
            }
        }
        let none = Takeovers::default();
        for (mailbox, history) in &mut self.mailboxes {
            let takeovers = history.partition.and_then(|partition| self.takeovers.get(&partition)).unwrap_or(&none);
            takeovers.prune(history, &mut self.report);
            for of in &history.operations {
                kept_word(of, *mailbox, &mut self.report);
            }
            let journal = orders::replay(history, self.bounds, &mut self.report);
            order::check(history, &journal, &mut self.report);
            unique_ids::check(history, &mut self.report);
            for ((_, session), glimpses) in self.glimpses.range((*mailbox, 0)..=(*mailbox, u64::MAX)) {
                follow(history, &journal, takeovers, *session, glimpses, &mut self.report);
            }
        }
        self.service.finish(self.bounds, &mut self.report);
        self.report
    }

    fn asked(&mut self, at: Micros, session: u64, mailbox: MailboxId, id: CommandId, op: Op) {
        self.service.advance(at);
        // A repeat under the same id is the same operation.
        if let Some(before) = self.operations.get(&id) {
            let first = self.mailboxes.get(&before.mailbox).and_then(|h| h.operations.get(before.operation));
            let same = before.mailbox == mailbox && first.is_some_and(|of| of.op == op && of.session == session);
            self.report
                .check(Rule::ExactlyOnce, at, same, || format!("two commands have the id {id}: the second is {op:?}"));
            return;
        }
        self.report.operations += 1;
        let history = self.mailbox(mailbox);
        let operation = history.operations.len();
        let partition = history.partition;
        history.moments.push(Moment::Asked(operation));
        let (is_read, closes) = (op.is_read(), matches!(op, Op::Select { .. } | Op::Unselect));
        let select = matches!(op, Op::Select { .. }).then_some(operation);
        history.operations.push(Operation {
            id,
            session,
            asked: at,
            op,
            ended: None,
            position: None,
            resolved: None,
            hint: None,
            opened: None,
            hears: Vec::new(),
        });
        let write = partition.filter(|_| !is_read).map(|partition| (partition, self.service.asked(at, partition)));
        self.operations.insert(id, Asked { mailbox, operation, write, existed: partition.is_some() });
        if closes {
            self.glimpse(mailbox, session, Glimpse::Closed);
        }
        self.sessions.insert(session, Session { mailbox, select });
    }

    fn ended(&mut self, at: Micros, id: CommandId, ended: Ended, position: Option<At>) {
        self.service.advance(at);
        let Some(asked) = self.operations.get(&id).copied() else { return };
        let history = self.mailbox(asked.mailbox);
        let of = &mut history.operations[asked.operation];
        if of.ended.is_some() {
            return;
        }
        let session = of.session;
        if let Ended::Done(Reply::Answer(mailraft_mailbox::Answer::Selected(selected))) = &ended {
            history.opened.push(selected.clone());
        }
        let no_such_mailbox = ended == Ended::NoSuchMailbox;
        let served = matches!(ended, Ended::Done(_) | Ended::Refused(_));
        (of.ended, of.position) = (Some((at, ended)), position);
        history.moments.push(Moment::Ended(asked.operation));
        self.report.check(Rule::Stale, at, !(no_such_mailbox && asked.existed), || {
            format!("command {id}: mailbox {} exists, and was answered to be none", asked.mailbox)
        });
        if let Some((partition, write)) = asked.write {
            self.service.ended(at, partition, write, served);
        }
        self.glimpse(asked.mailbox, session, Glimpse::Ended(asked.operation));
    }

    fn hears(&mut self, id: CommandId, commands: Vec<CommandId>) {
        if let Some(asked) = self.operations.get(&id).copied() {
            return self.mailbox(asked.mailbox).operations[asked.operation].hears.extend(commands);
        }
        for heard in commands {
            if let Some(asked) = self.operations.get(&heard).copied() {
                self.mailbox(asked.mailbox).told_heard.insert(heard);
            }
        }
    }

    fn hint(&mut self, event: &Event) {
        let of = self.operations.get(&event.origin).and_then(|asked| {
            self.mailboxes.get(&asked.mailbox).map(|history| &history.operations[asked.operation].op)
        });
        let last = match (&event.change, of) {
            // The removal comes right after.
            (Change::Added(_), Some(Op::Move { .. } | Op::Rename { .. })) => event.modseq.saturating_add(1),
            (Change::Added(_) | Change::Flagged(_) | Change::Expunged(_) | Change::FolderDeleted, _) => event.modseq,
        };
        let hint = self.hints.entry(event.origin).or_default();
        *hint = last.max(*hint);
    }

    fn mailbox(&mut self, mailbox: MailboxId) -> &mut MailboxHistory {
        self.mailboxes.entry(mailbox).or_insert_with(|| MailboxHistory {
            mailbox,
            partition: None,
            operations: Vec::new(),
            moments: Vec::new(),
            opened: Vec::new(),
            resumed: Vec::new(),
            told_heard: BTreeSet::new(),
        })
    }

    fn glimpse(&mut self, mailbox: MailboxId, session: u64, glimpse: Glimpse) {
        self.glimpses.entry((mailbox, session)).or_default().push(glimpse);
    }
}

/// What a client was told of its command is what the table of commands says.
fn kept_word(of: &Operation, mailbox: MailboxId, report: &mut Report) {
    let (Some((at, ended)), Some(table)) = (&of.ended, &of.resolved) else { return };
    let held = match (of.answered(), table) {
        (Some(answer), Some((place, kept))) => answer == *kept && of.position.is_none_or(|at| at == *place),
        (Some(_), None) => of.op.is_read(),
        (None, Some(_)) => !matches!(ended, Ended::NotDone | Ended::NoSuchMailbox),
        (None, None) => true,
    };
    report.check(Rule::ExactlyOnce, *at, held, || {
        format!(
            "mailbox {mailbox} command {}: {:?} ended as {ended:?} at {:?}, the table says {table:?}",
            of.id, of.op, of.position
        )
    });
}

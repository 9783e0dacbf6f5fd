//! Whether what one session saw of its open folder, event by event, is what the log did to it.

use std::collections::BTreeMap;

use mailraft_mailbox::api::{Change, Event, FolderId, MessageState, Resumed, Selected};
use mailraft_mailbox::{Flags, UidSet};

use crate::history::{Ended, Micros};
use crate::journal::{Journal, Logged, Point};
use crate::model::{Effect, Number, hash};
use crate::operation::MailboxHistory;
use crate::report::{Report, Rule};
use crate::takeovers::Takeovers;

/// What one session saw of one mailbox, in its order.
#[derive(Debug)]
pub(crate) enum Glimpse {
    Opened {
        at: Micros,
        selected: Selected,
    },
    Event {
        at: Micros,
        event: Event,
    },
    Resumed {
        at: Micros,
        folder: FolderId,
        resumed: Resumed,
    },
    Closed,
    /// One of its commands ended.
    Ended(usize),
}

/// The session's open folder.
struct View {
    folder: FolderId,
    number: Number,
    messages: BTreeMap<u32, Flags>,
    hash: u64,
    modseq: u64,
    /// The last entry whose changes it shows.
    entry: usize,
    /// False once it was wrong, or can't be compared: that is told once.
    sound: bool,
    /// It shows what is lost: only what a later incarnation says of it is compared.
    lost: bool,
}

struct Follower<'a> {
    history: &'a MailboxHistory,
    journal: &'a Journal,
    takeovers: &'a Takeovers,
    report: &'a mut Report,
    session: u64,
    view: Option<View>,
    /// The last entry that an answer of this session showed.
    answered: usize,
}

/// Follows one session.
pub(crate) fn follow(
    history: &MailboxHistory,
    journal: &Journal,
    takeovers: &Takeovers,
    session: u64,
    glimpses: &[Glimpse],
    report: &mut Report,
) {
    let mut follower = Follower { history, journal, takeovers, report, session, view: None, answered: 0 };
    for glimpse in glimpses {
        match glimpse {
            Glimpse::Opened { at, selected } => follower.opened(*at, selected),
            Glimpse::Event { at, event } => follower.event(*at, event),
            Glimpse::Resumed { at, folder, resumed } => follower.resumed(*at, *folder, resumed),
            Glimpse::Closed => follower.view = None,
            Glimpse::Ended(operation) => follower.ended(*operation),
        }
    }
}

impl Follower<'_> {
    fn check(&mut self, rule: Rule, at: Micros, holds: bool, what: impl FnOnce() -> String) -> bool {
        if self.journal.doubt && !holds {
            self.report.skipped += 1;
            return false;
        }
        let (mailbox, session) = (self.history.mailbox, self.session);
        self.report.check(rule, at, holds, || format!("mailbox {mailbox} session {session}: {}", what()))
    }

    fn opened(&mut self, at: Micros, selected: &Selected) {
        self.view = None;
        let Some(number) = self.journal.folder(selected.folder, selected.uid_validity) else {
            self.report.skipped += 1;
            return;
        };
        let messages: BTreeMap<u32, Flags> = selected.messages.iter().map(|m| (m.uid, m.flags.clone())).collect();
        let mut view = View {
            folder: selected.folder,
            number,
            hash: messages.iter().fold(0, |sum: u64, (uid, flags)| sum.wrapping_add(hash(*uid, flags))),
            messages,
            modseq: selected.highest_modseq,
            entry: 0,
            sound: false,
            lost: self.takeovers.may_be_lost(selected.highest_modseq, at),
        };
        if view.lost {
            self.report.skipped += 1;
        } else if self.is_committed(at, number, &selected.messages) && self.stands(at, &mut view, Rule::View) {
            view.sound = true;
        }
        self.view = Some(view);
    }

    /// Whether every message was put there by something in the log.
    fn is_committed(&mut self, at: Micros, number: Number, messages: &[MessageState]) -> bool {
        if !self.journal.doubtful.is_empty() {
            self.report.skipped += 1;
            return true;
        }
        let alien = messages.iter().find(|m| self.journal.added(number, m.uid).is_none()).map(|m| m.uid);
        self.check(Rule::Uncommitted, at, alien.is_none(), || {
            format!("sees UID {alien:?} of folder number {number}, which nothing in the log put there")
        })
    }

    /// Whether a whole view, taken at once, is the folder at its HIGHESTMODSEQ.
    fn stands(&mut self, at: Micros, view: &mut View, rule: Rule) -> bool {
        let entry = self.journal.entry_of_modseq(view.modseq);
        let point = entry.and_then(|entry| self.journal.point(view.number, entry)).copied();
        let (Some(entry), Some(point)) = (entry, point) else {
            if !self.journal.doubtful.is_empty() {
                self.report.skipped += 1;
                return false;
            }
            return self.check(Rule::Uncommitted, at, false, || {
                format!("sees HIGHESTMODSEQ {}, which nothing in the log gave", view.modseq)
            });
        };
        view.entry = entry;
        let near = self.journal.entries.get(entry.saturating_sub(1)..=entry);
        let unsure = near.is_none_or(|near| near.iter().any(|e| e.unsure));
        if unsure || point.state.unsure || point.state.highest_unsure || !self.journal.doubtful.is_empty() {
            self.report.skipped += 1;
            return false;
        }
        let rule_of_modseq = if view.modseq < point.state.highest_modseq { Rule::Atomic } else { Rule::Uncommitted };
        self.check(rule_of_modseq, at, view.modseq == point.state.highest_modseq, || {
            format!("sees HIGHESTMODSEQ {}, the folder has {} there", view.modseq, point.state.highest_modseq)
        }) && self.same(at, view, &point, rule)
    }

    fn same(&mut self, at: Micros, view: &View, point: &Point, rule: Rule) -> bool {
        let same = view.hash == point.state.hash && view.messages.len() == point.state.messages;
        self.check(rule, at, same, || {
            format!(
                "its view of folder id {} at MODSEQ {} ({} messages) is not the folder's ({} messages)",
                view.folder.0,
                view.modseq,
                view.messages.len(),
                point.state.messages
            )
        })
    }

    fn event(&mut self, at: Micros, event: &Event) {
        if self.takeovers.may_be_lost(event.modseq, at) {
            self.report.skipped += 1;
            return self.shows_lost(event);
        }
        if self.journal.doubtful.contains(&event.origin) {
            self.report.skipped += 1;
            self.distrust();
            return;
        }
        let numbers: Vec<Number> = self.journal.folders_of(event.folder).collect();
        if numbers.is_empty() {
            self.report.skipped += 1;
            self.distrust();
            return;
        }
        let same_kind = |told: &Effect| match (&event.change, told) {
            (Change::Added(_), Effect::Added(_))
            | (Change::Flagged(_), Effect::Flagged(_))
            | (Change::Expunged(_), Effect::Expunged { .. })
            | (Change::FolderDeleted, Effect::Deleted { .. }) => true,
            (Change::Added(_) | Change::Flagged(_) | Change::Expunged(_) | Change::FolderDeleted, _) => false,
        };
        let journal = self.journal;
        let logged = journal.of_origin(event.origin).find(|l| numbers.contains(&l.folder) && same_kind(&l.effect));
        let found = self.check(Rule::Uncommitted, at, logged.is_some(), || {
            format!("was told of {:?} by {}, which is not in the log", event.change, event.origin)
        });
        let Some(logged) = logged.filter(|_| found) else {
            self.distrust();
            return;
        };
        if !self.is_told_as_done(at, event, logged) {
            self.distrust();
            return;
        }
        self.apply(at, event, logged);
    }

    /// Brings the view forward by what is lost, or may be.
    fn shows_lost(&mut self, event: &Event) {
        let Some(view) = self.view.as_mut().filter(|v| v.folder == event.folder) else { return };
        (view.lost, view.sound) = (true, false);
        view.modseq = view.modseq.max(event.modseq);
        match &event.change {
            Change::Added(messages) | Change::Flagged(messages) => messages.iter().for_each(|m| view.put(m)),
            Change::Expunged(uids) => {
                for uid in uids.iter() {
                    view.remove(uid);
                }
            }
            Change::FolderDeleted => self.view = None,
        }
    }

    /// Compares an event with the change that it tells of.
    fn is_told_as_done(&mut self, at: Micros, event: &Event, logged: &Logged) -> bool {
        if logged.unsure {
            self.report.skipped += 1;
            return true;
        }
        let wrong = match (&event.change, &logged.effect) {
            (Change::Added(seen), Effect::Added(done)) | (Change::Flagged(seen), Effect::Flagged(done)) => {
                differs(seen, done)
            }
            (Change::Expunged(seen), Effect::Expunged { uids, .. }) if seen != uids => {
                Some(if is_part(seen, uids) { Rule::Atomic } else { Rule::Uncommitted })
            }
            _ => None,
        };
        let rule = wrong.unwrap_or(Rule::Uncommitted);
        let of = event.origin;
        self.check(rule, at, wrong.is_none(), || {
            format!("was told of {:?} by {of}, the log has {:?}", event.change, logged.effect)
        }) && self.check(Rule::Modseq, at, event.modseq == logged.modseq, || {
            format!("was told of a change by {of} at MODSEQ {}, it was {}", event.modseq, logged.modseq)
        })
    }

    /// Brings the view forward.
    fn apply(&mut self, at: Micros, event: &Event, logged: &Logged) {
        let Some(mut view) = self.view.take().filter(|v| v.folder == event.folder) else { return };
        if view.number != logged.folder {
            return;
        }
        if view.sound {
            view.sound = self.check(Rule::View, at, event.modseq > view.modseq, || {
                format!("was told of MODSEQ {} after {}", event.modseq, view.modseq)
            });
        }
        view.modseq = view.modseq.max(event.modseq);
        view.entry = view.entry.max(logged.entry);
        let mut unknown = None;
        match &event.change {
            Change::Added(messages) => messages.iter().for_each(|m| view.put(m)),
            Change::Flagged(messages) => {
                for message in messages {
                    if !view.messages.contains_key(&message.uid) {
                        unknown = Some(message.uid);
                    }
                    view.put(message);
                }
            }
            Change::Expunged(uids) => {
                for uid in uids.iter() {
                    if !view.remove(uid) {
                        unknown = Some(uid);
                    }
                }
            }
            // Nothing is open any more.
            Change::FolderDeleted => return,
        }
        if view.sound {
            view.sound = self.check(Rule::View, at, unknown.is_none(), || {
                format!("was told of UID {unknown:?} by {}, which it does not know", event.origin)
            });
        }
        self.view = Some(view);
    }

    /// A session is told of everything up to the position of its answer before that answer.
    fn ended(&mut self, operation: usize) {
        let of = &self.history.operations[operation];
        let (Some(position), Some((at, Ended::Done(_) | Ended::Refused(_)))) = (of.position, &of.ended) else { return };
        self.answered = self.answered.max(self.journal.entry_at(position));
        let Some(mut view) = self.view.take() else { return };
        if view.sound {
            view.sound = self.is_current(*at, &view, operation);
        }
        self.view = Some(view);
    }

    fn is_current(&mut self, at: Micros, view: &View, operation: usize) -> bool {
        let journal = self.journal;
        let id = self.history.operations[operation].id;
        let (shown, now) = (journal.point(view.number, self.answered), journal.point(view.number, view.entry));
        let (Some(shown), Some(now)) = (shown, now) else { return true };
        let told = shown.told <= view.entry;
        let missed = journal.entries.get(shown.told).and_then(|e| e.at).unwrap_or_default();
        let current = self.check(Rule::View, at, told, || {
            format!("was answered {id} before it was told of the entry at {missed} in folder id {}", view.folder.0)
        });
        if !current || now.state.unsure || !journal.doubtful.is_empty() {
            return current;
        }
        // Perhaps the rest of a later entry is on its way.
        if view.entry > shown.told && view.modseq < now.state.highest_modseq {
            return true;
        }
        self.same(at, view, now, Rule::View)
    }

    fn resumed(&mut self, at: Micros, folder: FolderId, resumed: &Resumed) {
        let Some(mut view) = self.view.take().filter(|v| v.folder == folder) else {
            self.report.skipped += 1;
            return;
        };
        let known = view.modseq;
        let rises = self.check(Rule::Modseq, at, resumed.highest_modseq >= known, || {
            format!("knew MODSEQ {known} of folder id {}, resumed at {}", folder.0, resumed.highest_modseq)
        });
        let vanished: Vec<u32> = view.messages.keys().copied().filter(|uid| resumed.vanished.contains(*uid)).collect();
        for uid in vanished {
            view.remove(uid);
        }
        resumed.changed.iter().for_each(|m| view.put(m));
        view.modseq = resumed.highest_modseq;
        let lost = view.lost;
        view.lost = self.takeovers.may_be_lost(view.modseq, at);
        // Whoever saw what is lost has now what is there, as everybody else.
        let rule = if lost { Rule::Forks } else { Rule::Modseq };
        let sound = !view.lost && (view.sound || lost) && rises;
        let sound = sound && self.is_committed(at, view.number, &resumed.changed);
        view.sound = sound && self.stands(at, &mut view, rule);
        if view.sound {
            let told = self.journal.point(view.number, self.answered).map_or(0, |p| p.told);
            view.sound = self.check(Rule::Modseq, at, told <= view.entry, || {
                format!("resumed at MODSEQ {}, older than what it was answered", resumed.highest_modseq)
            });
        }
        self.view = Some(view);
    }

    fn distrust(&mut self) {
        if let Some(view) = &mut self.view {
            view.sound = false;
        }
    }
}

impl View {
    fn put(&mut self, message: &MessageState) {
        self.remove(message.uid);
        self.hash = self.hash.wrapping_add(hash(message.uid, &message.flags));
        self.messages.insert(message.uid, message.flags.clone());
    }

    fn remove(&mut self, uid: u32) -> bool {
        let flags = self.messages.remove(&uid);
        if let Some(flags) = &flags {
            self.hash = self.hash.wrapping_sub(hash(uid, flags));
        }
        flags.is_some()
    }
}

/// Which rule messages in an event break, compared with those of the change.
fn differs(seen: &[MessageState], done: &[(u32, Flags)]) -> Option<Rule> {
    let (uids, all): (UidSet, UidSet) =
        (seen.iter().map(|m| m.uid).collect(), done.iter().map(|(uid, _)| *uid).collect());
    if uids != all {
        return Some(if is_part(&uids, &all) { Rule::Atomic } else { Rule::Uncommitted });
    }
    let same = seen.len() == done.len() && seen.iter().zip(done).all(|(m, (u, f))| m.uid == *u && m.flags == *f);
    (!same).then_some(Rule::Flags)
}

fn is_part(some: &UidSet, all: &UidSet) -> bool {
    some.ranges().iter().all(|&(lo, hi)| all.ranges().iter().any(|&(l, h)| l <= lo && hi <= h))
}

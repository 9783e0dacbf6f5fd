//! Whether a read shows exactly the state after the entry that its position names.

use std::collections::BTreeMap;

use mailraft_mailbox::api::{
    Answer, FETCH_UIDS_MAX, FolderId, FolderInfo, FolderStatus, Maildrop, MessageState, Refusal, Selected,
};
use mailraft_mailbox::{Flags, UidSet};

use crate::answers::{is_unknowable, same_refusal};
use crate::history::{Ended, Op, Reply};
use crate::journal::Journal;
use crate::model::{Folder, Model, Number};
use crate::names::INBOX;
use crate::report::Rule;

/// What a read is compared with.
pub(crate) struct Shown<'a> {
    pub model: &'a Model,
    pub journal: &'a Journal,
    /// Where each message from outside was stored first.
    pub stored: &'a BTreeMap<u64, (Number, u32)>,
    /// Names that are subscribed to or not, nobody told which.
    pub maybe_subscribed: &'a std::collections::BTreeSet<String>,
}

/// One difference.
#[derive(Debug)]
pub(crate) struct Found {
    pub rule: Rule,
    pub folder: Number,
    pub uid: u32,
    pub what: String,
    /// It is no difference if the message goes by something asked before the read's answer: content is read
    /// later than the flags.
    pub unless_gone: bool,
    /// What was shown instead of a message that is there.
    pub shown: Option<MessageState>,
}

/// What a read teaches: ids, and what depended on an order that nobody told.
#[derive(Debug)]
pub(crate) enum Lesson {
    Id(Number, FolderId),
    Validity(Number, u32),
    UidNext(Number, u32),
    Highest(Number, u64),
    Message(Number, MessageState),
}

impl Lesson {
    /// The folder that it is about.
    pub fn folder(&self) -> Number {
        match self {
            Lesson::Id(number, _)
            | Lesson::Validity(number, _)
            | Lesson::UidNext(number, _)
            | Lesson::Highest(number, _)
            | Lesson::Message(number, _) => *number,
        }
    }

    /// A model takes it in, where it did not know.
    ///
    /// # Errors
    /// If a folder's id is another's.
    pub fn teach(self, model: &mut Model) -> Result<(), String> {
        match self {
            Lesson::Id(number, id) => return model.learn_id(number, id),
            Lesson::Validity(number, uid_validity) => {
                if model.fits_validity(number, uid_validity).is_ok() {
                    model.learn_validity(number, uid_validity);
                }
            }
            Lesson::UidNext(number, uid_next) => {
                if let Some(folder) = model.folder_mut(number).filter(|f| f.uid_next_unknown) {
                    (folder.uid_next, folder.uid_next_unknown) = (uid_next, false);
                }
            }
            Lesson::Highest(number, modseq) => {
                if let Some(folder) = model.folder_mut(number).filter(|f| f.highest_unsure) {
                    (folder.highest_modseq, folder.highest_unsure) = (modseq, false);
                }
            }
            Lesson::Message(number, MessageState { uid, flags, modseq }) => {
                if let Some(folder) = model.folder_mut(number)
                    && let Some(message) = folder.take(uid)
                {
                    folder.put(uid, crate::model::Message { flags, modseq, unsure: false, ..message });
                }
            }
        }
        Ok(())
    }
}

/// The outcome of one comparison.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub found: Vec<Found>,
    pub lessons: Vec<Lesson>,
    pub held: Vec<(Rule, u64)>,
    pub skipped: u64,
}

impl Seen {
    fn check(&mut self, rule: Rule, holds: bool, folder: Number, uid: u32, what: impl FnOnce() -> String) {
        if holds {
            self.held.push((rule, 1));
        } else {
            self.found.push(Found { rule, folder, uid, what: what(), unless_gone: false, shown: None });
        }
    }
}

/// A message as an answer shows it, with its marker if that was read.
type Line = (u32, Option<u64>, Flags, u64);

impl Shown<'_> {
    /// Compares one read. `opened` is what the session saw, should the answer not say it.
    pub fn compare(&self, op: &Op, ended: &Ended, opened: Option<&Selected>) -> Seen {
        let mut seen = Seen::default();
        match (op, ended) {
            (_, Ended::NotDone | Ended::NoSuchMailbox | Ended::Unknown) => {}
            (_, Ended::Refused(refusal)) => self.refused(op, refusal, &mut seen),
            (Op::List, Ended::Done(Reply::Answer(Answer::Folders(lines)))) => self.list(lines, &mut seen),
            (Op::Status { folder }, Ended::Done(Reply::Answer(Answer::Status(status)))) => {
                self.status(folder, status, &mut seen);
            }
            (Op::Select { folder }, Ended::Done(Reply::Answer(Answer::Selected(selected)))) => {
                self.select(folder, selected, &mut seen);
            }
            (Op::Select { folder }, Ended::Done(_)) => match opened {
                Some(selected) => self.select(folder, selected, &mut seen),
                None => seen.skipped += 1,
            },
            (Op::Fetch { folder, uids }, Ended::Done(Reply::Fetched(lines))) => {
                let lines = lines.iter().map(|(u, m, f, s)| (*u, Some(*m), f.clone(), *s)).collect();
                self.fetch(*folder, uids, lines, true, &mut seen);
            }
            (Op::Fetch { folder, uids }, Ended::Done(Reply::Answer(Answer::Fetched(fetched)))) => {
                let lines = fetched.iter().map(|f| (f.state.uid, None, f.state.flags.clone(), f.state.modseq));
                let content = fetched.iter().any(|f| f.content.is_some() || f.header.is_some());
                self.fetch(*folder, uids, lines.collect(), content, &mut seen);
            }
            (Op::ReadBody { folder, uid }, Ended::Done(reply)) => self.body(*folder, *uid, reply, &mut seen),
            (Op::Maildrop, Ended::Done(Reply::Answer(Answer::Maildrop(maildrop)))) => {
                self.maildrop(maildrop, &mut seen)
            }
            (Op::UniqueIds { folder, uids }, Ended::Done(Reply::Answer(Answer::UniqueIds(lines)))) => {
                self.unique_ids(*folder, uids, lines, &mut seen);
            }
            (Op::Sync | Op::Unselect, Ended::Done(_)) => {}
            (_, Ended::Done(_)) => seen.skipped += 1,
        }
        seen
    }

    fn refused(&self, op: &Op, refusal: &Refusal, seen: &mut Seen) {
        if is_unknowable(refusal) {
            seen.skipped += 1;
            return;
        }
        let expected = match op {
            Op::Status { folder } | Op::Select { folder } => self.named(folder).map(|_| ()),
            Op::Fetch { folder, .. } | Op::ReadBody { folder, .. } | Op::UniqueIds { folder, .. }
                if self.model.number_of(*folder).is_none() =>
            {
                seen.skipped += 1;
                return;
            }
            Op::Fetch { folder, .. } | Op::ReadBody { folder, .. } | Op::UniqueIds { folder, .. } => {
                self.model.opened(*folder).map(|_| ())
            }
            Op::Maildrop => self.named(INBOX).map(|_| ()),
            _ => Ok(()),
        };
        let right = expected.as_ref().is_err_and(|e| same_refusal(e, refusal));
        seen.check(Rule::Stale, right, 0, 0, || format!("expected {expected:?}, refused: {refusal}"));
    }

    fn named(&self, name: &str) -> Result<(Number, &Folder), Refusal> {
        let number = self.model.named(name).ok_or(Refusal::NoSuchFolder)?;
        let folder = self.model.folder(number).ok_or(Refusal::NoSuchFolder)?;
        if folder.selectable { Ok((number, folder)) } else { Err(Refusal::NotAllowed(String::new())) }
    }

    fn list(&self, lines: &[FolderInfo], seen: &mut Seen) {
        let mut expected: BTreeMap<&str, Option<(Number, &Folder)>> =
            self.model.folders().map(|(number, f)| (f.name.as_str(), Some((number, f)))).collect();
        for name in &self.model.subscriptions {
            expected.entry(name).or_insert(None);
        }
        for line in lines {
            let subscribed = line.subscribed == self.model.subscriptions.contains(&line.name);
            let maybe = self.maybe_subscribed.contains(&line.name);
            let right = match expected.remove(line.name.as_str()) {
                None => maybe,
                Some(None) => line.id.is_none() && !line.selectable,
                Some(Some((number, folder))) => {
                    if let Some(id) = line.id {
                        let right = folder.id.is_none_or(|known| known == id);
                        seen.check(Rule::Uids, right, number, 0, || format!("{:?} now has the id {}", folder, id.0));
                        seen.lessons.push(Lesson::Id(number, id));
                    }
                    line.selectable == folder.selectable
                        && line.id.is_some() == folder.selectable
                        && line.special_use == folder.special_use
                }
            };
            seen.check(Rule::Stale, right && (subscribed || maybe), 0, 0, || format!("LIST shows {line:?}"));
        }
        expected.retain(|name, _| !self.maybe_subscribed.contains(*name));
        seen.check(Rule::Stale, expected.is_empty(), 0, 0, || {
            format!("LIST does not show {:?}", expected.keys().collect::<Vec<_>>())
        });
    }

    fn status(&self, name: &str, status: &FolderStatus, seen: &mut Seen) {
        let Some((number, folder)) = self.opened_or_tell(name, seen) else { return };
        let have = folder.messages.len() as u32;
        let rule = if status.messages < have { Rule::ExactlyOnce } else { Rule::Uncommitted };
        seen.check(rule, status.messages == have, number, 0, || {
            format!("{name} has {have} messages, STATUS says {}", status.messages)
        });
        if folder.unsure == 0 {
            seen.check(Rule::Flags, status.messages != have || status.unseen == folder.unseen, number, 0, || {
                format!("{name} has {} unseen messages, STATUS says {}", folder.unseen, status.unseen)
            });
        }
        self.header(number, folder, (status.uid_validity, status.uid_next, status.highest_modseq), seen);
    }

    fn select(&self, name: &str, selected: &Selected, seen: &mut Seen) {
        let Some((number, folder)) = self.opened_or_tell(name, seen) else { return };
        let known = folder.id.is_none_or(|id| id == selected.folder);
        seen.check(Rule::Uids, known, number, 0, || {
            format!("{name} had the id {:?}, now {:?}", folder.id, selected.folder)
        });
        seen.lessons.push(Lesson::Id(number, selected.folder));
        let header = (selected.uid_validity, selected.uid_next, selected.highest_modseq);
        let lines = selected.messages.iter().map(|m| (m.uid, None, m.flags.clone(), m.modseq)).collect();
        let all = folder.messages.iter().map(|(uid, message)| (*uid, message)).collect();
        self.messages(number, folder, all, lines, false, seen);
        if seen.found.is_empty() {
            self.header(number, folder, header, seen);
        }
    }

    fn opened_or_tell(&self, name: &str, seen: &mut Seen) -> Option<(Number, &Folder)> {
        let named = self.named(name);
        seen.check(Rule::Stale, named.is_ok(), 0, 0, || format!("{name} was opened: {:?}", named.as_ref().err()));
        named.ok()
    }

    /// UIDVALIDITY, UIDNEXT, HIGHESTMODSEQ.
    fn header(&self, number: Number, folder: &Folder, header: (u32, u32, u64), seen: &mut Seen) {
        let (uid_validity, uid_next, highest) = header;
        let name = &folder.name;
        let fits = self.model.fits_validity(number, uid_validity);
        seen.check(Rule::Uids, fits.is_ok(), number, 0, || fits.as_ref().err().cloned().unwrap_or_default());
        seen.lessons.push(Lesson::Validity(number, uid_validity));
        if folder.uid_next_unknown {
            seen.lessons.push(Lesson::UidNext(number, uid_next));
        } else {
            let rule = if uid_next < folder.uid_next { Rule::Uids } else { Rule::Uncommitted };
            seen.check(rule, uid_next == folder.uid_next, number, 0, || {
                format!("{name} has UIDNEXT {}, seen is {uid_next}", folder.uid_next)
            });
        }
        if folder.highest_unsure {
            seen.lessons.push(Lesson::Highest(number, highest));
        } else {
            let rule = if highest < folder.highest_modseq { Rule::Modseq } else { Rule::Uncommitted };
            seen.check(rule, highest == folder.highest_modseq, number, 0, || {
                format!("{name} has HIGHESTMODSEQ {}, seen is {highest}", folder.highest_modseq)
            });
        }
    }

    fn fetch(&self, id: FolderId, uids: &UidSet, lines: Vec<Line>, content: bool, seen: &mut Seen) {
        let Some(number) = self.model.number_of(id) else {
            seen.skipped += 1;
            return;
        };
        let Some(folder) = self.model.folder(number).filter(|f| f.selectable) else {
            seen.check(Rule::Stale, false, number, 0, || format!("folder id {} is gone and was fetched from", id.0));
            return;
        };
        let asked = lines.iter().all(|(uid, ..)| uids.contains(*uid));
        let rising = lines.windows(2).all(|w| w[0].0 < w[1].0);
        seen.check(Rule::Uids, asked && rising, number, 0, || "UIDs don't rise or were not asked for".to_owned());
        if asked && rising {
            let expected = folder.within(uids).take(FETCH_UIDS_MAX).collect();
            self.messages(number, folder, expected, lines, content, seen);
        }
    }

    fn maildrop(&self, maildrop: &Maildrop, seen: &mut Seen) {
        let Some((number, folder)) = self.opened_or_tell(INBOX, seen) else { return };
        seen.lessons.push(Lesson::Id(number, maildrop.folder));
        let uids: Vec<u32> = maildrop.messages.iter().map(|message| message.uid).collect();
        let all = folder.messages.iter().map(|(uid, message)| (*uid, message.marker)).collect();
        self.places(number, folder, &all, &uids, false, seen);
    }

    fn unique_ids(&self, id: FolderId, uids: &UidSet, lines: &[(u32, String)], seen: &mut Seen) {
        let Some((number, folder)) = self.model.number_of(id).and_then(|n| Some((n, self.model.folder(n)?))) else {
            seen.skipped += 1;
            return;
        };
        let shown: Vec<u32> = lines.iter().map(|(uid, _)| *uid).collect();
        let asked = folder.within(uids).take(FETCH_UIDS_MAX).map(|(uid, message)| (uid, message.marker)).collect();
        self.places(number, folder, &asked, &shown, true, seen);
        let mut markers: BTreeMap<&str, u64> = BTreeMap::new();
        for (uid, unique_id) in lines {
            let Some(message) = folder.messages.get(uid) else { continue };
            let other = *markers.entry(unique_id).or_insert(message.marker);
            seen.check(Rule::Uids, other == message.marker, number, *uid, || {
                format!("messages {other} and {} have the unique id {unique_id}", message.marker)
            });
        }
    }

    /// Compares which messages are there, by UID and marker; with `later` what is told of them is read after that.
    fn places(
        &self,
        number: Number,
        folder: &Folder,
        expected: &BTreeMap<u32, u64>,
        shown: &[u32],
        later: bool,
        seen: &mut Seen,
    ) {
        let rising = shown.windows(2).all(|pair| pair[0] < pair[1]);
        seen.check(Rule::Uids, rising, number, 0, || "UIDs don't rise".to_owned());
        for (uid, marker) in expected.iter().filter(|(uid, _)| !shown.contains(uid)) {
            let what = format!("{} has UID {uid} (marker {marker}), it is not shown", folder.name);
            let rule = Rule::ExactlyOnce;
            seen.found.push(Found { rule, folder: number, uid: *uid, what, unless_gone: later, shown: None });
        }
        for uid in shown.iter().filter(|uid| !expected.contains_key(uid)) {
            seen.found.push(self.extra(number, folder, *uid, None));
        }
        seen.held.push((Rule::ExactlyOnce, expected.len() as u64));
    }

    /// Compares messages one by one, UIDs rising in both.
    fn messages(
        &self,
        number: Number,
        folder: &Folder,
        expected: Vec<(u32, &crate::model::Message)>,
        lines: Vec<Line>,
        content: bool,
        seen: &mut Seen,
    ) {
        let name = &folder.name;
        let (mut equal, before) = (0, seen.found.len());
        // MODSEQs of which something was seen as it is, and of which something was not.
        let mut whole: BTreeMap<u64, (bool, Vec<usize>)> = BTreeMap::new();
        let mut lines = lines.into_iter().peekable();
        for (uid, message) in expected {
            while let Some((extra, marker, ..)) = lines.next_if(|(u, ..)| *u < uid) {
                seen.found.push(self.extra(number, folder, extra, marker));
            }
            let Some((_, marker, flags, modseq)) = lines.next_if(|(u, ..)| *u == uid) else {
                let rule = if message.stored { Rule::ExactlyOnce } else { Rule::Atomic };
                let what = format!("{name} has UID {uid} (marker {}), it is not shown", message.marker);
                seen.found.push(Found { rule, folder: number, uid, what, unless_gone: content, shown: None });
                continue;
            };
            if let Some(marker) = marker.filter(|m| *m != message.marker) {
                let rule = if self.stored.contains_key(&marker) { Rule::Uids } else { Rule::Uncommitted };
                let what = format!("{name} UID {uid} is marker {}, shown is {marker}", message.marker);
                seen.found.push(Found { rule, folder: number, uid, what, unless_gone: false, shown: None });
            } else if message.unsure {
                seen.lessons.push(Lesson::Message(number, MessageState { uid, flags, modseq }));
            } else if flags == message.flags && modseq == message.modseq {
                equal += 1;
                whole.entry(message.modseq).or_default().0 = true;
            } else {
                let rule = match (flags == message.flags, modseq > self.model.modseq()) {
                    (true, _) => Rule::Modseq,
                    (false, true) => Rule::Uncommitted,
                    (false, false) => Rule::Flags,
                };
                whole.entry(message.modseq).or_default().1.push(seen.found.len());
                let (is, was) = (message.flags.names(), flags.names());
                let what =
                    format!("{name} UID {uid} is {is:?} at MODSEQ {}, shown is {was:?} at {modseq}", message.modseq);
                let shown = Some(MessageState { uid, flags, modseq });
                seen.found.push(Found { rule, folder: number, uid, what, unless_gone: false, shown });
            }
        }
        for (uid, marker, ..) in lines {
            seen.found.push(self.extra(number, folder, uid, marker));
        }
        // Part of a change of several messages is shown and part of it not.
        for at in whole.into_values().filter(|(some, _)| *some).flat_map(|(_, parts)| parts) {
            if let Some(found) = seen.found.get_mut(at).filter(|f| f.rule == Rule::Flags) {
                found.rule = Rule::Atomic;
            }
        }
        seen.held.push((Rule::Flags, equal));
        if seen.found.len() == before {
            seen.held.extend([(Rule::Uncommitted, 1), (Rule::Atomic, 1), (Rule::ExactlyOnce, 1)]);
        }
    }

    /// A message is shown that is not there.
    fn extra(&self, number: Number, folder: &Folder, uid: u32, marker: Option<u64>) -> Found {
        let twice = marker.is_some_and(|m| self.stored.contains_key(&m));
        let rule = match self.journal.gone(number, uid) {
            Some(true) => Rule::Atomic,
            Some(false) => Rule::Stale,
            None if twice => Rule::ExactlyOnce,
            None => Rule::Uncommitted,
        };
        let what = format!("{} shows UID {uid} (marker {marker:?}), which is not there", folder.name);
        Found { rule, folder: number, uid, what, unless_gone: false, shown: None }
    }

    fn body(&self, id: FolderId, uid: u32, reply: &Reply, seen: &mut Seen) {
        let Some(number) = self.model.number_of(id) else {
            seen.skipped += 1;
            return;
        };
        let message = self.model.folder(number).and_then(|f| f.messages.get(&uid));
        let place = format!("folder id {} UID {uid}", id.0);
        match (reply, message) {
            (Reply::Body(Some(marker)), Some(message)) => {
                let rule = if self.stored.contains_key(marker) { Rule::Uids } else { Rule::Uncommitted };
                let same = *marker == message.marker;
                let rule = if same { Rule::ExactlyOnce } else { rule };
                seen.check(rule, same, number, uid, || {
                    format!("{place} is marker {}, its body is that of {marker}", message.marker)
                });
            }
            (Reply::Body(Some(marker)), None) => {
                let rule = if self.journal.gone(number, uid).is_some() { Rule::Stale } else { Rule::Uncommitted };
                seen.check(rule, false, number, uid, || format!("{place} is not there, its body is that of {marker}"));
            }
            (Reply::Body(None) | Reply::BodyDamaged, None) => seen.held.push((Rule::ExactlyOnce, 1)),
            (Reply::Body(None) | Reply::BodyDamaged, Some(message)) => {
                let what = format!("{place} (marker {}) can't be read: {reply:?}", message.marker);
                let rule = Rule::ExactlyOnce;
                seen.found.push(Found { rule, folder: number, uid, what, unless_gone: true, shown: None });
            }
            (Reply::Answer(_) | Reply::Fetched(_), _) => seen.skipped += 1,
        }
    }
}

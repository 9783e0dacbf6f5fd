//! What a session knows of its open folder: enough to resume it at another owner and miss nothing.

use std::collections::BTreeSet;

use mailraft_storage::CommandId;

use crate::api::{Change, Command, Event, FolderId, Refusal, Resumed, Selected};
use crate::uids::UidSet;

/// A folder that a session has open, as far as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Following {
    folder: FolderId,
    uid_validity: u32,
    modseq: u64,
    uids: BTreeSet<u32>,
    gone: bool,
}

impl Following {
    /// As a SELECT answered it.
    pub fn new(selected: &Selected) -> Self {
        Following {
            folder: selected.folder,
            uid_validity: selected.uid_validity,
            modseq: selected.highest_modseq,
            uids: selected.messages.iter().map(|m| m.uid).collect(),
            gone: false,
        }
    }

    /// The folder.
    pub fn folder(&self) -> FolderId {
        self.folder
    }

    /// The highest MODSEQ heard of.
    pub fn modseq(&self) -> u64 {
        self.modseq
    }

    /// The UIDs heard of, rising.
    pub fn uids(&self) -> impl Iterator<Item = u32> + '_ {
        self.uids.iter().copied()
    }

    /// Whether the folder was deleted meanwhile: nothing is left to follow.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Takes an event in.
    pub fn hear(&mut self, event: &Event) {
        if event.folder != self.folder {
            return;
        }
        self.modseq = self.modseq.max(event.modseq);
        match &event.change {
            Change::Added(messages) => self.uids.extend(messages.iter().map(|m| m.uid)),
            Change::Flagged(_) => {}
            Change::Expunged(uids) => self.uids.retain(|uid| !uids.contains(*uid)),
            Change::FolderDeleted => self.gone = true,
        }
    }

    /// What to ask another owner.
    pub fn resume(&self) -> Command {
        Command::Resume {
            folder: self.folder,
            uid_validity: self.uid_validity,
            since: self.modseq,
            known: self.uids.iter().copied().collect::<UidSet>(),
        }
    }

    /// Turns the answer to a resume into the events that were missed, and takes them in.
    pub fn resumed(&mut self, id: CommandId, resumed: Resumed) -> Vec<Event> {
        let Resumed { uid_next: _, highest_modseq, vanished, changed } = resumed;
        let (known, new): (Vec<_>, Vec<_>) = changed.into_iter().partition(|m| self.uids.contains(&m.uid));
        let mut missed = Vec::new();
        if !vanished.is_empty() {
            missed.push(Change::Expunged(vanished));
        }
        if !known.is_empty() {
            missed.push(Change::Flagged(known));
        }
        if !new.is_empty() {
            missed.push(Change::Added(new));
        }
        let event = |change| Event { folder: self.folder, origin: id, modseq: highest_modseq, change };
        let missed: Vec<Event> = missed.into_iter().map(event).collect();
        self.modseq = self.modseq.max(highest_modseq);
        for event in &missed {
            self.hear(event);
        }
        missed
    }

    /// A refused resume: the event to tell if the folder is no more, None if it is to be asked again.
    pub fn refused(&mut self, id: CommandId, refusal: &Refusal) -> Option<Event> {
        match refusal {
            Refusal::FolderGone | Refusal::NoSuchFolder => {
                self.gone = true;
                Some(Event { folder: self.folder, origin: id, modseq: u64::MAX, change: Change::FolderDeleted })
            }
            Refusal::TryCreate
            | Refusal::FolderExists
            | Refusal::BadName(_)
            | Refusal::NotAllowed(_)
            | Refusal::Limit(_)
            | Refusal::OverQuota
            | Refusal::MaildropInUse
            | Refusal::QueueFull
            | Refusal::Stale
            | Refusal::Corrupt => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::MessageState;
    use crate::flags::Flags;

    fn message(uid: u32, modseq: u64) -> MessageState {
        MessageState { uid, flags: Flags::default(), modseq }
    }

    #[test]
    fn a_resume_brings_what_was_missed_once_and_in_a_sensible_order() {
        let selected = Selected {
            folder: FolderId(4),
            uid_validity: 9,
            uid_next: 4,
            highest_modseq: 10,
            first_recent_uid: 1,
            messages: vec![message(1, 3), message(2, 4), message(3, 10)],
        };
        let mut following = Following::new(&selected);
        let elsewhere = Event {
            folder: FolderId(5),
            origin: CommandId::default(),
            modseq: 99,
            change: Change::Added(vec![message(7, 99)]),
        };
        following.hear(&elsewhere);
        let Command::Resume { folder, uid_validity, since, known } = following.resume() else { panic!() };
        assert_eq!((folder, uid_validity, since, known), (FolderId(4), 9, 10, (1..=3).collect()));
        let resumed = Resumed {
            uid_next: 6,
            highest_modseq: 20,
            vanished: [2].into_iter().collect(),
            changed: vec![message(3, 12), message(5, 20)],
        };
        let missed = following.resumed(CommandId::default(), resumed);
        let changes: Vec<Change> = missed.into_iter().map(|e| e.change).collect();
        assert_eq!(
            changes,
            [
                Change::Expunged([2].into_iter().collect()),
                Change::Flagged(vec![message(3, 12)]),
                Change::Added(vec![message(5, 20)])
            ]
        );
        let Command::Resume { since, known, .. } = following.resume() else { panic!() };
        assert_eq!((since, known), (20, [1, 3, 5].into_iter().collect()));
        assert!(following.refused(CommandId::default(), &Refusal::OverQuota).is_none() && !following.is_gone());
        assert!(following.refused(CommandId::default(), &Refusal::FolderGone).is_some() && following.is_gone());
    }
}

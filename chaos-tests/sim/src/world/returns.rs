//! Clients that lost their connection and come back with what they have kept of a folder: they open it, and ask what they
//! missed since then (QRESYNC, RFC 7162), perhaps in another incarnation.

use mailraft_checkers::{At, Ended, Record, Reply};
use mailraft_mailbox::api::{Change, Event, Resumed, Selected};
use mailraft_mailbox::{Answer, Command, Request, UidSet};

use crate::session::{Kept, Returning};
use crate::world::World;

impl World {
    /// A session opened a folder under this name.
    pub(super) fn keeps_opened(&mut self, number: u64, name: &str, selected: &Selected) {
        if self.setup.clients_return
            && let Some(session) = self.clients.session_mut(number)
        {
            session.kept = Some(Kept { name: name.to_owned(), folder: selected.clone() });
        }
    }

    /// A session hears of a change in its folder.
    pub(super) fn keeps_event(&mut self, number: u64, event: &Event) {
        let Some(session) = self.clients.session_mut(number) else { return };
        let Some(kept) = session.kept.as_mut().filter(|kept| kept.folder.folder == event.folder) else { return };
        kept.folder.highest_modseq = kept.folder.highest_modseq.max(event.modseq);
        match &event.change {
            Change::Added(messages) | Change::Flagged(messages) => kept.takes_in(messages),
            Change::Expunged(uids) => kept.folder.messages.retain(|message| !uids.contains(message.uid)),
            Change::FolderDeleted => session.kept = None,
        }
    }

    /// A session goes on with its folder at another actor.
    pub(super) fn keeps_resumed(&mut self, number: u64, resumed: &Resumed) {
        let Some(kept) = self.clients.session_mut(number).and_then(|session| session.kept.as_mut()) else { return };
        kept.folder.highest_modseq = kept.folder.highest_modseq.max(resumed.highest_modseq);
        kept.folder.messages.retain(|message| !resumed.vanished.contains(message.uid));
        kept.takes_in(&resumed.changed);
    }

    /// A session has opened a folder: if its client has kept it from before, it asks what it missed since, and hears the rest
    /// of its answer behind that. Whether it does.
    pub(super) fn asks_what_it_missed(&mut self, number: u64, selected: &Selected, at: At) -> bool {
        let Some(session) = self.clients.session_mut(number) else { return false };
        let same =
            |kept: &Kept| kept.folder.folder == selected.folder && kept.folder.uid_validity == selected.uid_validity;
        let Some(kept) = session.returns_with.take().filter(same) else { return false };
        let Some(busy) = session.busy.as_mut() else { return false };
        let known: UidSet = kept.folder.messages.iter().map(|message| message.uid).collect();
        let Selected { folder, uid_validity, highest_modseq: since, .. } = kept.folder;
        busy.returning = Some(Returning { kept, selected: selected.clone(), at });
        let id = self.clients.command_id();
        let command = Command::Resume { folder, uid_validity, since, known };
        self.with_machine(number, None, |machine, env, out| machine.begin(env, id, Request::Command(command), out));
        true
    }

    /// What a client that came back is told it missed. It is judged as a session of its own, which had open what was kept.
    pub(super) fn is_told_what_it_missed(&mut self, number: u64, resumed: Option<Resumed>) {
        let Some(session) = self.clients.session_mut(number) else { return };
        let mailbox = session.mailbox;
        let Some(Returning { kept, selected, at: opened }) = session.busy.as_mut().and_then(|b| b.returning.take())
        else {
            return;
        };
        if let Some(resumed) = resumed {
            let since = kept.folder.highest_modseq;
            let partition = self.mailboxes.partition(mailbox);
            self.counts_return(partition, since, &resumed);
            let (at, session, folder) = (self.now(), self.clients.judged_alone(), kept.folder.folder);
            self.record(Record::Opened { at, session, mailbox, selected: kept.folder });
            self.record(Record::Resumed { at, session, folder, since, resumed });
            self.record(Record::Closed { at, session });
        }
        self.ends(number, Ended::Done(Reply::Answer(Answer::Selected(selected))), Some(opened), 0);
    }
}

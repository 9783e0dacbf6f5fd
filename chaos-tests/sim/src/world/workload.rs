//! What clients do next: an operation, a new session, one more mailbox.

use mailraft_checkers::{Op, Record};
use mailraft_storage::MailboxId;

use crate::event::Event;
use crate::session::Kind;
use crate::world::{Beginners, World};

impl World {
    /// Whether a client may begin something, and then does.
    pub fn next_operation(&mut self, number: u64) {
        let Some(session) = self.clients.session(number) else { return };
        if session.busy.is_some() || session.over || self.beginners != Beginners::Everyone {
            return;
        }
        let (node, kind) = (session.node, session.kind);
        let Some(host) = self.hosts.get(&node).filter(|h| h.up.is_some()) else { return };
        self.clients.set_wall(host.cluster_wall(self.queue.now()));
        let again = self.clients.session_mut(number).and_then(|session| session.again.take());
        let op = match kind {
            _ if again.is_some() => again,
            Kind::Smtp => self.delivery(number),
            Kind::Imap => self.clients.imap_command(number, &self.setup),
            Kind::Pop3 => self.clients.pop3_command(number, &self.setup),
        };
        let Some(op) = op else { return };
        let lost = op.is_once().then(|| self.clients.hangs_up_after(&self.setup)).flatten();
        self.begins(number, op);
        lost.into_iter().for_each(|after| self.queue.push(self.queue.now() + after, Event::HangUp(number)));
    }

    /// An operation has ended: when the next begins, and whether a sender tries again.
    pub fn after(&mut self, number: u64, kind: Kind, mailbox: MailboxId, again: Option<u64>) {
        let now = self.now();
        if let Some(marker) = again {
            self.clients.tries_again(mailbox, marker, now, &self.setup);
        }
        let think = self.clients.think(kind, &self.setup);
        self.queue.push(now + think, Event::Next(number));
    }

    /// A new session in the place of one whose node died.
    pub fn connects_again(&mut self, old: u64) {
        let Some(session) = self.clients.disconnect(old) else { return };
        assert!(session.busy.is_none(), "a client connects anew while session {old} still does something");
        let up = self.up();
        let Some(node) = self.clients.dice().pick(&up).copied() else {
            // Nobody is there: the client goes on trying.
            self.clients.stays(session);
            let at = self.now() + 500_000;
            return self.queue.push(at, Event::Connect(old));
        };
        let number = self.connect(node, session.kind, session.mailbox);
        if let Some(now) = self.clients.session_mut(number) {
            (now.again, now.returns_with) = (session.again, session.returns_with);
        }
        let at = self.now() + self.clients.think(session.kind, &self.setup) / 2;
        self.queue.push(at, Event::Next(number));
    }

    fn delivery(&mut self, number: u64) -> Option<Op> {
        let (there, now) = (self.mailboxes.there(), self.now());
        let (mailbox, op) = self.clients.delivery(&there, now, &self.setup)?;
        if self.clients.session(number)?.mailbox != mailbox {
            self.turns_to(number, mailbox);
        }
        Some(op)
    }

    /// A mailbox was made, or is to be made again.
    pub fn mailbox_was_made(&mut self, mailbox: MailboxId, made: bool) {
        if !made {
            let at = self.now() + 200_000;
            return self.queue.push(at, Event::Make(mailbox));
        }
        if !self.mailboxes.made(mailbox) {
            return;
        }
        let partition = self.mailboxes.partition(mailbox).0;
        self.record(Record::Mailbox { mailbox, partition });
        self.say(format!("mailbox {mailbox} exists, in partition {partition}"));
    }
}

//! The clients of the queues' world: who sends messages to several mailboxes, and asks once more.

use mailraft_mailbox::Command;
use mailraft_mailbox::accepted::{AcceptedEnvelope, AcceptedRecipient};
use mailraft_mailbox::api::ZonedTime;
use mailraft_storage::MailboxId;

use super::books::{Item, Recipient, Sender};
use super::servers::{self, DOMAINS};
use super::{Asker, MAILBOXES, MESSAGES_UNDER_WAY, Message, PARTITIONS, Scope, World};
use crate::message;

/// Recipients at other servers of one message.
const OUTSIDE_MAX: u64 = 4;
/// What senders want to hear.
const NOTIFY: [Option<&str>; 6] =
    [None, None, Some("NEVER"), Some("SUCCESS,FAILURE"), Some("SUCCESS,FAILURE,DELAY"), Some("DELAY")];

impl World {
    /// A client has a new message, or asks once more for one of which it has no answer.
    pub(super) fn client(&mut self) -> Result<(), String> {
        let unheard = |m: &Message| m.accepted.is_none() && m.waiting.is_none();
        let again: Vec<usize> = (0..self.messages.len()).filter(|n| unheard(&self.messages[*n])).collect();
        if let Some(number) = self.dice.pick(&again).copied() {
            return self.send(number);
        }
        if self.messages.iter().filter(|m| m.accepted.is_none()).count() >= MESSAGES_UNDER_WAY || self.healing {
            return Ok(());
        }
        // A sender that lost its 250 sends the same again.
        let repeated: Vec<usize> = (0..self.messages.len())
            .filter(|n| self.messages[*n].deduplicate && self.messages[*n].accepted == Some(true))
            .collect();
        let repeats = if self.dice.chance(150) { self.dice.pick(&repeated).copied() } else { None };
        let (marker, recipients, deduplicate) = match repeats {
            Some(number) => {
                let of = &self.messages[number];
                (of.marker, of.recipients.clone(), true)
            }
            None if self.scope == Scope::Outside => {
                let mut recipients = self.mailboxes.clone();
                let count = self.dice.below(3) as usize;
                while recipients.len() > count {
                    recipients.swap_remove(self.dice.below(recipients.len() as u64) as usize);
                }
                (self.new_marker(), recipients, false)
            }
            None => {
                let mut recipients = self.mailboxes.clone();
                let count = self.dice.between(2, MAILBOXES) as usize;
                while recipients.len() > count {
                    recipients.swap_remove(self.dice.below(recipients.len() as u64) as usize);
                }
                (self.new_marker(), recipients, self.dice.chance(300))
            }
        };
        let id = self.env.command_id();
        let (sender, reverse_path, outside) = match self.scope {
            Scope::Mailboxes => (Sender::Unknown, "sender@example.test".to_owned(), Vec::new()),
            Scope::Outside => self.envelope(),
        };
        self.messages.push(Message {
            marker,
            recipients,
            sender,
            reverse_path,
            outside,
            deduplicate,
            id,
            attempts: 0,
            waiting: None,
            accepted: None,
            at: 0,
            may_be_lost: false,
        });
        self.send(self.messages.len() - 1)
    }

    /// Who a message is from, and to whom outside it goes.
    fn envelope(&mut self) -> (Sender, String, Vec<AcceptedRecipient>) {
        let (sender, reverse_path) = match self.dice.below(10) {
            0 => (Sender::Null, String::new()),
            1 => (Sender::Unknown, "nobody@here.test".to_owned()),
            2..5 => (Sender::Outside, format!("friend@{}", servers::domain(self.dice.below(DOMAINS)))),
            _ => {
                let number = self.dice.below(MAILBOXES);
                (Sender::Mailbox(self.mailboxes[number as usize]), format!("m{number}@here.test"))
            }
        };
        let count = self.dice.between(1, OUTSIDE_MAX);
        let outside = (0..count).map(|number| AcceptedRecipient {
            address: format!("r{number}@{}", servers::domain(self.dice.below(DOMAINS))),
            mailbox: MailboxId::OUTSIDE,
            // What another server brings goes outside only where an address here forwards it.
            detail: matches!(sender, Sender::Outside).then(|| format!("list{}@here.test", number % 2)),
            notify: self.dice.pick(&NOTIFY).copied().flatten().map(str::to_owned),
            orcpt: None,
        });
        (sender, reverse_path, outside.collect())
    }

    /// Names a message that nobody has yet. Many have a body of several chunks.
    pub(super) fn new_marker(&mut self) -> u64 {
        let number = (self.messages.len() as u64 + 1) * message::LARGE_ONE_IN;
        if self.dice.chance(250) { number } else { number + 1 }
    }

    pub(super) fn send(&mut self, number: usize) -> Result<(), String> {
        let Message { marker, id, attempts, deduplicate, .. } = self.messages[number];
        let queue = MailboxId::queue_of(id.queue_partition(PARTITIONS));
        let (new_message, chunks) = message::seal(&mut self.env, marker);
        self.upload(queue, &new_message, chunks)?;
        let recipient = |mailbox: &MailboxId| AcceptedRecipient {
            address: format!("{mailbox}@example.test"),
            mailbox: *mailbox,
            detail: None,
            notify: None,
            orcpt: None,
        };
        let message = &self.messages[number];
        let mut recipients: Vec<AcceptedRecipient> = message.recipients.iter().map(recipient).collect();
        recipients.extend(message.outside.iter().cloned());
        let of = |recipient: &AcceptedRecipient| Recipient {
            mailbox: (recipient.mailbox != MailboxId::OUTSIDE).then_some(recipient.mailbox),
            notify: recipient.notify.clone(),
            ..Recipient::default()
        };
        let entered = Item {
            sender: message.sender,
            report: None,
            recipients: recipients.iter().map(of).collect(),
            accepted: false,
        };
        let accepted = AcceptedEnvelope {
            reverse_path: message.reverse_path.clone(),
            recipients,
            deduplicate,
            ..AcceptedEnvelope::default()
        };
        self.books.enter(id, entered);
        let session = self.session(Asker::Client(number));
        self.messages[number].waiting = Some(session);
        self.messages[number].attempts += 1;
        let command = Command::Accept { new_message, accepted, received: ZonedTime::default() };
        self.ask(queue, session, id, attempts, command)
    }
}

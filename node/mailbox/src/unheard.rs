//! Which answers of a session its client has heard. Until then a repeat of the command is taken for one: the client may
//! have lost its connection. Afterwards it wants the same twice.
//!
//! Nobody knows what arrives at a client. But who sends more after an answer was handed to its connection has either read
//! it, or did not wait for it.

use mailraft_storage::{CommandId, Env};

use crate::api::Once;
use crate::limits::{HEARD_MAX, REPEATS_MAX};
use crate::session::{Session, Step};

/// Commands of one session and one mailbox.
#[derive(Debug, Default)]
pub struct Unheard {
    /// They are answered; what the client sent after that is not there yet.
    answered: Vec<CommandId>,
    /// The client has gone on since. The mailbox is still to be told.
    heard: Vec<CommandId>,
    /// The owner was told by itself, and may have ended before an entry of its took them along. The next command takes
    /// them along once more, and another owner is told once more.
    told: Vec<CommandId>,
    /// The link over which they were told.
    told_over: Option<u64>,
    /// The latest that were answered, whatever was heard of them.
    own: Vec<CommandId>,
}

impl Unheard {
    /// What the next command to the mailbox takes along; [`Unheard::answered`] says what came of it.
    pub fn once(&mut self, request: [u8; 32]) -> Once {
        let heard = self.take_heard();
        Once { request, heard, own: self.own.clone() }
    }

    /// A command ended, which took along what [`Unheard::once`] gave: under this id with an answer, or without one.
    pub fn answered(&mut self, once: Once, id: Option<CommandId>) {
        match id {
            Some(id) => {
                self.answered.push(id);
                self.own.push(id);
                self.own.drain(..self.own.len().saturating_sub(HEARD_MAX));
            }
            None => drop(self.told.splice(..0, once.heard)),
        }
    }

    /// All answers so far were handed to the client's connection, and it has sent more since.
    pub fn client_went_on(&mut self) {
        self.heard.append(&mut self.answered);
        // Older ones are forgotten there too.
        self.heard.drain(..self.heard.len().saturating_sub(REPEATS_MAX));
    }

    /// Tells the mailbox's owner by itself. What can't be told now waits.
    pub fn tell(&mut self, session: &mut Session, env: &mut Env, out: &mut Vec<Step>) {
        let Some(link) = session.link().filter(|_| session.is_attached()).map(|(_, link)| link) else { return };
        if self.told_over.replace(link) != Some(link) {
            self.heard.splice(..0, self.told.drain(..));
        }
        for commands in self.heard.chunks(HEARD_MAX) {
            session.heard(env, commands.to_vec(), out);
        }
        self.told.append(&mut self.heard);
        self.told.drain(..self.told.len().saturating_sub(REPEATS_MAX));
    }

    /// Whether the owner at the end of the session's link was told everything that was heard; it knows it when it has
    /// answered something that was asked after that.
    pub fn is_told(&self, session: &Session) -> bool {
        let link = session.link().map(|(_, link)| link);
        self.heard.is_empty() && (self.told.is_empty() || self.told_over == link)
    }

    /// Whether nothing was heard that a mailbox could still have to hear of.
    pub fn is_settled(&self) -> bool {
        self.heard.is_empty() && self.told.is_empty()
    }

    fn take_heard(&mut self) -> Vec<CommandId> {
        self.told.append(&mut self.heard);
        self.told.drain(..self.told.len().min(HEARD_MAX)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(heard: &[CommandId]) -> Once {
        Once { heard: heard.to_vec(), ..Once::default() }
    }

    fn id(n: u8) -> CommandId {
        CommandId([n; 16])
    }

    #[test]
    fn an_answer_is_heard_when_its_client_goes_on() {
        let mut unheard = Unheard::default();
        unheard.answered(once(&[]), Some(id(1)));
        assert_eq!(unheard.take_heard(), []);
        unheard.client_went_on();
        assert_eq!(unheard.take_heard(), [id(1)]);
        // The one that took it along was not done: the next one does.
        unheard.answered(once(&[id(1)]), Some(id(2)));
        unheard.client_went_on();
        let heard = unheard.take_heard();
        unheard.answered(once(&heard), None);
        unheard.client_went_on();
        assert_eq!(unheard.take_heard(), [id(2)]);
        assert_eq!(unheard.take_heard(), []);
    }

    #[test]
    fn a_session_knows_its_own_answers_before_any_is_heard() {
        let mut unheard = Unheard::default();
        for n in 0..=HEARD_MAX as u8 {
            unheard.answered(once(&[]), Some(id(n)));
        }
        let own: Vec<CommandId> = (1..=HEARD_MAX as u8).map(id).collect();
        assert_eq!(unheard.once([7; 32]), Once { request: [7; 32], heard: Vec::new(), own });
    }

    #[test]
    fn many_are_told_in_parts_and_too_many_are_not_kept() {
        let mut unheard = Unheard::default();
        for n in 0..REPEATS_MAX + HEARD_MAX {
            unheard.answered(once(&[]), Some(CommandId((n as u128).to_be_bytes())));
        }
        unheard.client_went_on();
        let parts: Vec<usize> = std::iter::from_fn(|| Some(unheard.take_heard().len()).filter(|n| *n > 0)).collect();
        assert_eq!(parts, [HEARD_MAX; REPEATS_MAX / HEARD_MAX]);
    }
}

//! Who has the maildrop to itself (RFC 1939, section 4). The lock is in the owner's memory: it ends with the owner's term,
//! and the session takes it again from the next owner with whatever it asks there, unless somebody else has it by then.

use std::time::Duration;

use crate::api::{Command, MaildropHolder};

/// A session that has asked nothing for this long gives way to a new login.
pub const SILENT_HOLDER_MAX: Duration = Duration::from_secs(60);

/// The maildrop's lock; `S` names a link of a session.
#[derive(Debug)]
pub(crate) struct Maildrop<S>(Option<Held<S>>);

#[derive(Debug)]
struct Held<S> {
    holder: MaildropHolder,
    /// The link over which it asked last.
    session: S,
    /// When that was.
    asked: Duration,
}

impl<S: Copy + Eq> Maildrop<S> {
    /// A session asks something in the maildrop: whether it has it to itself, perhaps from now on.
    pub fn enter(&mut self, now: Duration, session: S, holder: MaildropHolder, command: &Command) -> bool {
        let is_login = matches!(command, Command::Maildrop);
        let gives_way = |held: &Held<S>| is_login && now >= held.asked + SILENT_HOLDER_MAX;
        if self.0.as_ref().is_some_and(|held| held.holder != holder && !gives_way(held)) {
            return false;
        }
        self.0 = match command {
            Command::Unselect => None,
            _ => Some(Held { holder, session, asked: now }),
        };
        true
    }

    /// A link is over. The session may have made another one before.
    pub fn leave(&mut self, session: S) {
        self.0.take_if(|held| held.session == session);
    }
}

impl<S> Default for Maildrop<S> {
    fn default() -> Self {
        Maildrop(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MaildropHolder = MaildropHolder([1; 16]);
    const B: MaildropHolder = MaildropHolder([2; 16]);

    #[test]
    fn one_session_has_it_until_it_leaves_gives_it_back_or_is_silent() {
        let mut maildrop = Maildrop::default();
        let at = Duration::from_secs;
        assert!(maildrop.enter(at(0), 1, A, &Command::Maildrop));
        assert!(!maildrop.enter(at(1), 2, B, &Command::Maildrop));
        // A link that broke and its successor are of one session.
        assert!(maildrop.enter(at(2), 3, A, &Command::Sync));
        maildrop.leave(1);
        assert!(!maildrop.enter(at(61), 2, B, &Command::Maildrop), "it asked something at 2");
        assert!(!maildrop.enter(at(62), 2, B, &Command::Sync), "only a login takes it");
        assert!(maildrop.enter(at(62), 2, B, &Command::Maildrop));
        assert!(!maildrop.enter(at(62), 3, A, &Command::Sync));
        assert!(!maildrop.enter(at(62), 3, A, &Command::Unselect), "it is not his to give back");
        assert!(maildrop.enter(at(63), 2, B, &Command::Unselect));
        assert!(maildrop.enter(at(63), 3, A, &Command::Sync));
        maildrop.leave(3);
        assert!(maildrop.enter(at(63), 2, B, &Command::Maildrop));
    }
}

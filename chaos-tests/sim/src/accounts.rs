//! What is heard of accounts, and whether it is right. An account is two registers, its password and whether it is
//! disabled; each change of one has a place in the log. Whoever reads after a read barrier sees at least what was
//! answered before he asked.

use mailraft_checkers::Micros;
use mailraft_storage::Index;

/// A password, by the number of its verifier.
pub type Password = u64;

/// What an administrator asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new account with this password.
    Create(Password),
    /// Another password.
    SetPassword(Password),
    /// It may not log in, or may again.
    SetDisabled(bool),
}

/// How a change ended for who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeEnd {
    /// It was made, in this entry.
    Done(Index),
    /// It was refused, in this entry: the account is there already, or is not.
    Refused(Index),
    /// Nobody told.
    Unknown,
}

/// An account as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its password.
    pub password: Password,
    /// Whether it may not log in.
    pub disabled: bool,
}

/// All changes of all accounts.
#[derive(Debug, Default)]
pub struct Accounts {
    asked: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    account: usize,
    change: Change,
    at: Micros,
    ended: Option<(Micros, ChangeEnd)>,
}

impl Asked {
    /// The entry that made it, if that was answered at this time at the latest.
    fn done_by(&self, then: Micros) -> Option<Index> {
        match self.ended {
            Some((at, ChangeEnd::Done(index))) if at <= then => Some(index),
            Some((_, ChangeEnd::Done(_) | ChangeEnd::Refused(_) | ChangeEnd::Unknown)) | None => None,
        }
    }

    /// The entry that made it; None if nobody told whether one did.
    fn place(&self) -> Option<Index> {
        self.done_by(Micros::MAX)
    }

    /// Whether it was made, or may have been.
    fn may_count(&self) -> bool {
        !matches!(self.ended, Some((_, ChangeEnd::Refused(_))))
    }

    fn is_create(&self) -> bool {
        matches!(self.change, Change::Create(_))
    }

    fn password(&self) -> Option<Password> {
        match self.change {
            Change::Create(password) | Change::SetPassword(password) => Some(password),
            Change::SetDisabled(_) => None,
        }
    }

    fn disabled(&self) -> Option<bool> {
        match self.change {
            Change::Create(_) => Some(false),
            Change::SetDisabled(disabled) => Some(disabled),
            Change::SetPassword(_) => None,
        }
    }
}

impl Accounts {
    /// A change is asked. Returns its number.
    pub fn asks(&mut self, account: usize, change: Change, now: Micros) -> usize {
        self.asked.push(Asked { account, change, at: now, ended: None });
        self.asked.len() - 1
    }

    /// A change has ended for who asked.
    ///
    /// # Errors
    /// What is wrong with that.
    pub fn ends(&mut self, number: usize, end: ChangeEnd, now: Micros) -> Result<(), String> {
        self.asked[number].ended = Some((now, end));
        let Asked { account, change, at, .. } = self.asked[number];
        let wrong = |why: &str| Err(format!("account {account}: {change:?} is answered {end:?}, {why}"));
        let mut others = self.asked.iter().enumerate().filter(|(n, other)| *n != number && other.account == account);
        let created = |(_, other): (usize, &Asked)| other.is_create() && other.may_count() && other.at <= now;
        match (change, end) {
            (_, ChangeEnd::Unknown) => return Ok(()),
            (Change::Create(_), ChangeEnd::Done(_)) if others.any(|(_, o)| o.is_create() && o.place().is_some()) => {
                return wrong("and it was created before");
            }
            (Change::Create(_), ChangeEnd::Refused(_)) if !others.any(created) => {
                return wrong("and nobody else creates it");
            }
            (Change::SetPassword(_) | Change::SetDisabled(_), ChangeEnd::Done(_)) if !others.any(created) => {
                return wrong("and nobody creates it");
            }
            (Change::SetPassword(_) | Change::SetDisabled(_), ChangeEnd::Refused(_))
                if others.any(|(_, o)| o.is_create() && o.done_by(at).is_some()) =>
            {
                return wrong("and it was created before");
            }
            (_, ChangeEnd::Done(_) | ChangeEnd::Refused(_)) => {}
        }
        let place = |end| match end {
            ChangeEnd::Done(index) | ChangeEnd::Refused(index) => Some(index),
            ChangeEnd::Unknown => None,
        };
        let before = self.asked.iter().filter_map(|o| o.ended.filter(|(ended, _)| *ended < at));
        let newest = before.filter_map(|(_, end)| place(end)).max();
        match (newest, place(end)) {
            (Some(newest), Some(index)) if index <= newest => {
                wrong(&format!("and what ended before it was asked stands at {newest:?}"))
            }
            (Some(_) | None, Some(_) | None) => Ok(()),
        }
    }

    /// The password of the newest change that was answered.
    pub fn password(&self, account: usize) -> Option<Password> {
        let of = self.asked.iter().filter(|o| o.account == account);
        of.filter_map(|o| Some((o.place()?, o.password()?))).max().map(|(_, password)| password)
    }

    /// An account was read after a read barrier that was asked after `began`.
    ///
    /// # Errors
    /// What is wrong with that.
    pub fn is_read(&self, account: usize, seen: Option<Seen>, began: Micros, now: Micros) -> Result<(), String> {
        let changes = || self.asked.iter().filter(move |o| o.account == account && o.at <= now);
        let wrong = |why: String| Err(format!("account {account} is read as {seen:?} since {began} us: {why}"));
        let Some(Seen { password, disabled }) = seen else {
            return match changes().find(|o| o.is_create() && o.done_by(began).is_some()) {
                Some(create) => wrong(format!("{create:?}")),
                None => Ok(()),
            };
        };
        let Some(set) = changes().find(|o| o.password() == Some(password)) else {
            return wrong("nobody set that password".to_owned());
        };
        let newest = changes().filter(|o| o.password().is_some()).filter_map(|o| o.done_by(began)).max();
        if !set.may_count() || set.place().zip(newest).is_some_and(|(place, newest)| place < newest) {
            return wrong(format!("its password was set by {set:?}, another at {newest:?}"));
        }
        let answered = |o: &Asked| Some((o.done_by(began)?, o.disabled()?));
        let (newest, last) = changes().filter_map(answered).max().unwrap_or((Index(0), false));
        let later = |o: &Asked| o.may_count() && o.place().is_none_or(|place| place >= newest);
        if disabled != last && !changes().any(|o| o.disabled() == Some(disabled) && later(o)) {
            return wrong(format!("at {newest:?} it was set to {last}"));
        }
        Ok(())
    }

    /// Someone was let in with a password, by what his node had.
    ///
    /// # Errors
    /// If that was never the password.
    pub fn is_let_in(&self, account: usize, password: Password) -> Result<(), String> {
        let set = self.asked.iter().find(|o| o.account == account && o.password() == Some(password));
        match set {
            Some(set) if set.may_count() => Ok(()),
            Some(_) | None => Err(format!("account {account}: {password} lets in, which was set by {set:?}")),
        }
    }

    /// How many changes were answered.
    pub fn answered(&self) -> usize {
        self.asked.iter().filter(|o| o.place().is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: fn(u64) -> ChangeEnd = |index| ChangeEnd::Done(Index(index));

    /// Account 0 is created with password 1 at 20, and gets password 2 at 40, each answered 10 later.
    fn two_passwords() -> Accounts {
        let mut accounts = Accounts::default();
        for (change, at, index) in [(Change::Create(1), 20, 5), (Change::SetPassword(2), 40, 7)] {
            let number = accounts.asks(0, change, at);
            assert_eq!(accounts.ends(number, DONE(index), at + 10), Ok(()));
        }
        accounts
    }

    fn seen(password: Password) -> Option<Seen> {
        Some(Seen { password, disabled: false })
    }

    #[test]
    fn a_read_shows_at_least_what_was_answered_before_it() {
        let mut accounts = two_passwords();
        assert_eq!(accounts.password(0), Some(2));
        assert!(accounts.is_read(0, None, 25, 60).is_ok() && accounts.is_read(0, seen(1), 25, 60).is_ok());
        assert!(accounts.is_read(0, None, 30, 60).is_err(), "it was answered that it is there");
        assert!(accounts.is_read(0, seen(1), 49, 60).is_ok() && accounts.is_read(0, seen(2), 30, 60).is_ok());
        assert!(accounts.is_read(0, seen(1), 50, 60).is_err(), "it was answered that it has another password");
        assert!(accounts.is_read(0, seen(2), 30, 39).is_err(), "nobody had asked for that yet");
        assert!(accounts.is_read(0, seen(3), 50, 60).is_err());
        let disabled = Some(Seen { password: 2, disabled: true });
        assert!(accounts.is_read(0, disabled, 50, 60).is_err());
        // What nobody heard of may have been done, now or later.
        let number = accounts.asks(0, Change::SetDisabled(true), 55);
        assert!(accounts.is_read(0, disabled, 50, 60).is_ok() && accounts.is_read(0, seen(2), 50, 60).is_ok());
        assert_eq!(accounts.ends(number, ChangeEnd::Unknown, 65), Ok(()));
        assert!(accounts.is_read(0, disabled, 70, 80).is_ok() && accounts.is_read(0, seen(2), 70, 80).is_ok());
        let number = accounts.asks(0, Change::SetDisabled(true), 90);
        assert_eq!(accounts.ends(number, DONE(9), 95), Ok(()));
        assert!(accounts.is_read(0, disabled, 99, 100).is_ok());
        assert!(accounts.is_read(0, seen(2), 99, 100).is_err());
        assert!(
            accounts.is_let_in(0, 1).is_ok() && accounts.is_let_in(0, 3).is_err() && accounts.is_let_in(1, 1).is_err()
        );
    }

    #[test]
    fn changes_are_made_once_and_in_the_order_of_their_answers() {
        let mut accounts = two_passwords();
        let mut ask = |account, change, end| {
            let number = accounts.asks(account, change, 60);
            accounts.ends(number, end, 70)
        };
        let refused = ChangeEnd::Refused(Index(9));
        assert!(ask(0, Change::SetPassword(3), DONE(7)).is_err(), "it stands where an earlier one does");
        assert!(ask(0, Change::Create(4), DONE(8)).is_err(), "it is created twice");
        assert!(ask(0, Change::SetDisabled(true), refused).is_err(), "it is there");
        assert!(ask(1, Change::Create(5), refused).is_err(), "it is not there");
        assert!(ask(2, Change::SetDisabled(true), DONE(10)).is_err(), "it is not there");
        assert!(ask(2, Change::SetDisabled(true), refused).is_ok());
        assert!(ask(0, Change::Create(6), refused).is_ok());
    }
}

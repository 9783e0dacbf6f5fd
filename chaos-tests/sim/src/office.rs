//! Administrators who change accounts, and clients that log in: who waits for what, and what they heard.

use std::collections::BTreeMap;

use mailraft_checkers::Micros;
use mailraft_directory::{Answer, Command, Refusal};
use mailraft_owner::Unanswered;
use mailraft_storage::{CommandId, Index, NodeId};

use crate::accounts::{Accounts, Change, ChangeEnd, Password};
use crate::dice::Dice;

/// Administrators of a run.
pub const ADMINISTRATORS: usize = 3;
/// Between two changes of one administrator, in the mean.
pub const CHANGE_EVERY: Micros = 400_000;
/// The dice of administrators and logins.
const STREAM: u64 = 4;

/// What an administrator's node hears.
pub type DirectoryReply = Result<(Result<Answer, Refusal>, Index), Unanswered>;

/// Administrators and logins, and what they heard.
pub struct Office {
    /// Chance in what they do.
    dice: Dice,
    accounts: Accounts,
    administrators: Vec<Administrator>,
    /// The last password that was drawn.
    last_password: Password,
    /// Whether the domain of all accounts was made.
    has_domain: bool,
    /// Logins that wait for a read barrier, by number.
    logins: BTreeMap<u64, Login>,
    last_login: u64,
    /// When a change was answered last.
    answered_at: Micros,
}

/// An administrator.
#[derive(Default)]
struct Administrator {
    /// Rises with every question.
    attempt: u64,
    /// What he waits for.
    busy: Option<Busy>,
}

/// What an administrator is to ask next.
pub enum Drawn {
    /// That the domain of all accounts be made.
    Domain,
    /// A change of an account, by its number among all changes.
    Change {
        /// The number.
        number: usize,
        /// The account.
        account: usize,
        /// The change.
        change: Change,
    },
}

/// How a change ended for an administrator.
pub struct ChangeEnded {
    /// He begins his next then.
    pub next: Micros,
    /// ... as this question.
    pub attempt: u64,
    /// What is wrong with that end, if anything.
    pub wrong: Option<String>,
}

/// A change that he waits for.
pub struct Busy {
    /// Through this node.
    pub node: NodeId,
    /// The command's id.
    pub id: CommandId,
    /// The command.
    pub command: Command,
    /// The change of an account; None for the domain.
    pub change: Option<usize>,
    /// When it was asked first.
    pub asked: Micros,
}

/// A login that waits for a read barrier.
pub struct Login {
    /// The account.
    pub account: usize,
    /// When it began.
    pub began: Micros,
}

impl Office {
    /// Nobody has asked anything.
    pub fn new(seed: u64) -> Self {
        Office {
            dice: Dice::new(seed, STREAM),
            accounts: Accounts::default(),
            administrators: (0..ADMINISTRATORS).map(|_| Administrator::default()).collect(),
            last_password: 0,
            has_domain: false,
            logins: BTreeMap::new(),
            last_login: 0,
            answered_at: 0,
        }
    }

    /// Chance in what administrators do, and in how it fares.
    pub fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    /// What was heard of accounts.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// When a change was answered last.
    pub fn answered_at(&self) -> Micros {
        self.answered_at
    }

    /// Which question of his an administrator asks, or asked last.
    pub fn attempt(&self, administrator: usize) -> u64 {
        self.administrators[administrator].attempt
    }

    /// What an administrator waits for.
    pub fn busy(&self, administrator: usize) -> Option<&Busy> {
        self.administrators[administrator].busy.as_ref()
    }

    /// What an administrator asks next, of so many accounts, and through which of the nodes that are up; None where none
    /// is.
    pub fn draws_change(&mut self, accounts: usize, up: &[NodeId], now: Micros) -> Option<(NodeId, Drawn)> {
        let account = self.dice.below(accounts as u64) as usize;
        let there = self.accounts.password(account).is_some();
        let password = self.last_password + 1;
        let change = match self.dice.below(10) {
            0 => Change::Create(password),
            _ if !there => Change::Create(password),
            1..4 => Change::SetDisabled(self.dice.chance(300)),
            _ => Change::SetPassword(password),
        };
        let node = self.dice.pick(up).copied()?;
        if !self.has_domain {
            return Some((node, Drawn::Domain));
        }
        self.last_password = password;
        let number = self.accounts.asks(account, change, now);
        Some((node, Drawn::Change { number, account, change }))
    }

    /// An administrator waits for a change.
    pub fn waits(&mut self, administrator: usize, busy: Busy) {
        self.administrators[administrator].busy = Some(busy);
    }

    /// An administrator asks, or asks again: which question of his that is, and what he waits for.
    pub fn asks(&mut self, administrator: usize) -> (u64, Option<&Busy>) {
        let administrator = &mut self.administrators[administrator];
        administrator.attempt += 1;
        (administrator.attempt, administrator.busy.as_ref())
    }

    /// A change has ended for an administrator; None if he waits for none.
    pub fn change_ends(&mut self, administrator: usize, end: ChangeEnd, now: Micros) -> Option<ChangeEnded> {
        let administrator = &mut self.administrators[administrator];
        let Busy { change, .. } = administrator.busy.take()?;
        administrator.attempt += 1;
        let attempt = administrator.attempt;
        let next = now + 1 + self.dice.exponential(CHANGE_EVERY);
        if end != ChangeEnd::Unknown {
            self.answered_at = now;
            // One who repeats it hears that it is there.
            self.has_domain |= change.is_none();
        }
        let wrong = change.and_then(|change| self.accounts.ends(change, end, now).err());
        Some(ChangeEnded { next, attempt, wrong })
    }

    /// A client logs in to one of so many accounts: which, and with which password.
    pub fn draws_login(&mut self, accounts: usize) -> (usize, Password) {
        let account = self.dice.below(accounts as u64) as usize;
        let right = self.accounts.password(account).filter(|_| !self.dice.chance(300));
        (account, right.unwrap_or_else(|| self.dice.between(1, self.last_password + 1)))
    }

    /// A login waits for a read barrier; its number.
    pub fn login_waits(&mut self, login: Login) -> u64 {
        self.last_login += 1;
        self.logins.insert(self.last_login, login);
        self.last_login
    }

    /// A login waits no longer.
    pub fn take_login(&mut self, number: u64) -> Option<Login> {
        self.logins.remove(&number)
    }
}

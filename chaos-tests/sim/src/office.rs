//! Administrators who change accounts, and clients that log in: who waits for what, and what they heard.

use std::collections::BTreeMap;

use mailraft_checkers::Micros;
use mailraft_directory::{Answer, Command, Refusal};
use mailraft_owner::Unanswered;
use mailraft_storage::{CommandId, Index, NodeId};

use crate::accounts::{Accounts, Password};
use crate::dice::Dice;

/// Administrators of a run.
pub const ADMINISTRATORS: usize = 3;
/// The dice of administrators and logins.
const STREAM: u64 = 4;

/// What an administrator's node hears.
pub type DirectoryReply = Result<(Result<Answer, Refusal>, Index), Unanswered>;

/// Administrators and logins, and what they heard.
pub struct Office {
    /// Chance in what they do.
    pub dice: Dice,
    /// What they heard.
    pub accounts: Accounts,
    /// The administrators.
    pub administrators: Vec<Administrator>,
    /// The last password that was drawn.
    pub last_password: Password,
    /// Whether the domain of all accounts was made.
    pub has_domain: bool,
    /// Logins that wait for a read barrier.
    pub logins: BTreeMap<u64, Login>,
    /// The last such login's number.
    pub last_login: u64,
    /// When a change was answered last.
    pub answered: Micros,
}

/// An administrator.
#[derive(Default)]
pub struct Administrator {
    /// Rises with every question.
    pub attempt: u64,
    /// What he waits for.
    pub busy: Option<Busy>,
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
            answered: 0,
        }
    }

    /// How many changes of accounts were answered.
    pub fn answered(&self) -> usize {
        self.accounts.answered()
    }
}

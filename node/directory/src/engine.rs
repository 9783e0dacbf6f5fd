//! The directory's owner: one command at a time, decided on applied state, one entry in flight.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use mailraft_storage::entry::{versioned_decode, versioned_encode, CommandRow, RowsBody};
use mailraft_storage::seal::{open_row, result_place, seal_row, sealed_epoch};
use mailraft_storage::{CommandId, EntryKind, Env, Incarnation, Index, MailboxId, Proposal, RowBatch, RowKey, Term, Verdict};
use serde::{Deserialize, Serialize};

use crate::decide::decide;
use crate::lookup::{Lookup, LookupError};
use crate::records::AccountId;

/// Commands that may wait.
pub const QUEUE_MAX_COMMANDS: usize = 1_024;
const RESULT_VERSION: u8 = 1;

/// A change of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A new domain.
    CreateDomain {
        /// Its name.
        name: String,
    },
    /// A new account with its mailbox.
    CreateAccount {
        /// Its address.
        address: String,
        /// Its password's verifier.
        verifier: String,
    },
    /// Another password.
    SetPassword {
        /// The account.
        address: String,
        /// The new verifier.
        verifier: String,
    },
    /// An account may not log in, or may again.
    SetDisabled {
        /// The account.
        address: String,
        /// Whether it is disabled.
        disabled: bool,
    },
    /// More targets for an address, which is made if need be.
    AddAddress {
        /// The address.
        address: String,
        /// Addresses of this cluster.
        targets: Vec<String>,
    },
    /// An address that is no account's goes.
    RemoveAddress {
        /// The address.
        address: String,
    },
}

/// What the directory answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// A new account.
    AccountCreated {
        /// Its id.
        id: AccountId,
        /// Its mailbox.
        mailbox: MailboxId,
    },
}

/// Why the directory does not do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The name can't be.
    #[error("{0}")]
    BadName(String),
    /// There is one already.
    #[error("the domain {0} exists already")]
    DomainExists(String),
    /// The domain is missing.
    #[error("there is no domain {0}: create it first with mailraft domain create {0}")]
    NoSuchDomain(String),
    /// There is one already.
    #[error("the address {0} exists already")]
    AddressExists(String),
    /// The address is missing.
    #[error("there is no address {0} in this cluster")]
    NoSuchAddress(String),
    /// The account is missing.
    #[error("there is no account {0}")]
    NoSuchAccount(String),
    /// An account's own address stays as long as the account.
    #[error("{0} is an account's own address and stays as long as the account")]
    IsAccount(String),
    /// The directory's rows are damaged.
    #[error("the directory can't be read: {0}")]
    Damaged(String),
}

/// What became of handing a command in.
#[derive(Debug)]
pub enum Submitted {
    /// It was done before: its result and where.
    Answered(Result<Answer, Refusal>, Index),
    /// It waits.
    Queued,
    /// The same command waits already; both are answered together.
    Joined,
    /// Too many wait.
    Overloaded,
    /// Whether it was done can't be said.
    Unknown,
}

/// The directory's owner in one term.
pub struct Directory {
    lookup: Arc<Lookup>,
    incarnation: Incarnation,
    term: Term,
    queue: VecDeque<(CommandId, Command)>,
    in_flight: Option<(CommandId, Command, Result<Answer, Refusal>)>,
}

impl Directory {
    /// The owner in this term.
    ///
    /// # Errors
    /// If the keyring can't be read.
    pub fn load(lookup: &Arc<Lookup>, incarnation: Incarnation, term: Term) -> Result<Self, LookupError> {
        lookup.newest_key()?;
        Ok(Directory { lookup: Arc::clone(lookup), incarnation, term, queue: VecDeque::new(), in_flight: None })
    }

    /// Takes a command in.
    pub fn submit(&mut self, _: &mut Env, id: CommandId, attempt: u32, command: Command) -> Submitted {
        let waits = self.in_flight.as_ref().is_some_and(|(of, _, _)| *of == id) || self.queue.iter().any(|(of, _)| *of == id);
        if waits {
            return Submitted::Joined;
        }
        if attempt > 0 {
            match self.result_of(id) {
                Ok(Some((result, index))) => return Submitted::Answered(result, index),
                Ok(None) => {}
                Err(_) => return Submitted::Unknown,
            }
        }
        if self.queue.len() >= QUEUE_MAX_COMMANDS {
            return Submitted::Overloaded;
        }
        self.queue.push_back((id, command));
        Submitted::Queued
    }

    /// Decides the next command, unless one is in flight. A refusal is a result too and travels.
    pub fn next_entry(&mut self, env: &mut Env) -> Option<Proposal> {
        if self.in_flight.is_some() {
            return None;
        }
        let (id, command) = self.queue.pop_front()?;
        let (batch, result) = match decide(&self.lookup, env, &command) {
            Ok(Ok(effects)) => (effects.rows, Ok(effects.answer)),
            Ok(Err(refusal)) => (RowBatch::default(), Err(refusal)),
            Err(error) => (RowBatch::default(), Err(Refusal::Damaged(error.to_string()))),
        };
        let sealed = self.seal_result(env, id, &result).ok()?;
        let body = RowsBody { requires: Vec::new(), batch, results: vec![(id, sealed)] };
        self.in_flight = Some((id, command, result));
        Some(Proposal {
            incarnation: self.incarnation,
            term: self.term,
            mailbox: MailboxId::PARTITION,
            command: id,
            kind: EntryKind::Rows(body),
        })
    }

    /// The entry in flight has its verdict.
    ///
    /// # Panics
    /// If none is in flight.
    pub fn applied(&mut self, index: Index, verdict: Verdict) -> Vec<(CommandId, Result<Answer, Refusal>, Index)> {
        let (id, command, result) = self.in_flight.take().expect("a verdict for an entry in flight");
        match verdict {
            Verdict::Accepted => vec![(id, result, index)],
            Verdict::Missing | Verdict::Fenced => {
                self.queue.push_front((id, command));
                Vec::new()
            }
        }
    }

    /// The entry was never appended: its command is decided again.
    pub fn dropped(&mut self) {
        if let Some((id, command, _)) = self.in_flight.take() {
            self.queue.push_front((id, command));
        }
    }

    fn seal_result(&self, env: &mut Env, id: CommandId, result: &Result<Answer, Refusal>) -> Result<Bytes, LookupError> {
        let (key, epoch) = self.lookup.newest_key()?;
        let (_, _, cluster) = self.lookup.rows();
        let plain = versioned_encode(RESULT_VERSION, result);
        Ok(seal_row(env, &key, epoch, cluster, &result_place(MailboxId::PARTITION, id), &plain))
    }

    fn result_of(&self, id: CommandId) -> Result<Option<(Result<Answer, Refusal>, Index)>, LookupError> {
        let (rows, replica, cluster) = self.lookup.rows();
        let Some(row) = rows.get(replica, &RowKey::command(id))? else { return Ok(None) };
        let row = CommandRow::decode(&row)?;
        let table = mailraft_storage::Table::Commands;
        let said = |error| LookupError::Seal { table, error };
        let key = self.lookup.epoch_key(sealed_epoch(&row.result).map_err(said)?)?;
        let place = result_place(MailboxId::PARTITION, id);
        let plain = open_row(&key, cluster, &place, &row.result).map_err(said)?;
        Ok(Some((versioned_decode("result", RESULT_VERSION, &plain)?, row.index)))
    }
}

#[cfg(test)]
mod tests {
    use mailraft_storage::memory::MemoryRows;
    use mailraft_storage::rows::{ReplicaBatch, Rows};
    use mailraft_storage::{Applied, ClusterId, ReplicaId};

    use super::*;
    use crate::keys::{first_rows, RootKey};
    use crate::lookup::Resolution;

    const CLUSTER: ClusterId = ClusterId([4; 16]);
    const REPLICA: ReplicaId = ReplicaId(1);

    struct World {
        rows: MemoryRows,
        lookup: Arc<Lookup>,
        directory: Directory,
        env: Env,
        index: u64,
    }

    fn root() -> RootKey {
        RootKey::parse(&"ab".repeat(32)).unwrap()
    }

    impl World {
        fn new() -> Self {
            let (rows, mut env) = (MemoryRows::new(), Env::seeded(1));
            let batch = first_rows(&mut env, CLUSTER, &root());
            let applied = Applied { index: Index(1), ..Applied::default() };
            rows.write(&[ReplicaBatch { replica: REPLICA, batch, applied }]).unwrap();
            let lookup = Arc::new(Lookup::new(Arc::new(rows.clone()), REPLICA, CLUSTER, root()).unwrap());
            let directory = Directory::load(&lookup, Incarnation::default(), Term(1)).unwrap();
            World { rows, lookup, directory, env, index: 1 }
        }

        fn apply(&mut self, proposal: Proposal) -> Vec<(CommandId, Result<Answer, Refusal>, Index)> {
            self.index += 1;
            let EntryKind::Rows(body) = proposal.kind else { panic!("no rows") };
            let mut batch = body.batch;
            for (id, result) in body.results {
                let row = CommandRow { index: Index(self.index), mailbox: proposal.mailbox, result };
                batch.put(RowKey::command(id), row.encode());
            }
            let applied = Applied { index: Index(self.index), ..Applied::default() };
            self.rows.write(&[ReplicaBatch { replica: REPLICA, batch, applied }]).unwrap();
            self.directory.applied(Index(self.index), Verdict::Accepted)
        }

        fn run(&mut self, command: Command) -> Result<Answer, Refusal> {
            let id = self.env.command_id();
            assert!(matches!(self.directory.submit(&mut self.env, id, 0, command), Submitted::Queued));
            let proposal = self.directory.next_entry(&mut self.env).unwrap();
            self.apply(proposal).remove(0).1
        }
    }

    fn domain(name: &str) -> Command {
        Command::CreateDomain { name: name.into() }
    }

    fn account(address: &str) -> Command {
        Command::CreateAccount { address: address.into(), verifier: "v".into() }
    }

    fn alias(address: &str, targets: &[&str]) -> Command {
        Command::AddAddress { address: address.into(), targets: targets.iter().map(|t| (*t).into()).collect() }
    }

    #[test]
    fn domains_accounts_and_aliases_resolve() {
        let mut w = World::new();
        assert_eq!(w.run(account("a@x.test")), Err(Refusal::NoSuchDomain("x.test".into())));
        assert_eq!(w.run(domain("X.test")), Ok(Answer::Done));
        assert_eq!(w.run(domain("x.test")), Err(Refusal::DomainExists("x.test".into())));
        let Ok(Answer::AccountCreated { mailbox: a, .. }) = w.run(account("A@x.test")) else { panic!("no account") };
        let Ok(Answer::AccountCreated { mailbox: b, .. }) = w.run(account("b@x.test")) else { panic!("no account") };
        assert_ne!(a, b);
        assert_eq!(w.run(account("a@x.test")), Err(Refusal::AddressExists("a@x.test".into())));
        assert_eq!(w.run(alias("all@x.test", &["a@x.test", "b@x.test"])), Ok(Answer::Done));
        assert_eq!(w.run(alias("more@x.test", &["all@x.test"])), Ok(Answer::Done));
        let resolve = |w: &World, address: &str| w.lookup.resolve(address).unwrap();
        assert_eq!(resolve(&w, "A+box@x.test"), Resolution::Mailboxes(vec![a], Some("box".into())));
        assert_eq!(resolve(&w, "more@x.test"), Resolution::Mailboxes(vec![a, b], None));
        assert_eq!(resolve(&w, "c@x.test"), Resolution::Unknown);
        assert_eq!(resolve(&w, "a@y.test"), Resolution::NotOurs);
        assert_ne!(w.lookup.mailbox_key(a).unwrap(), w.lookup.mailbox_key(b).unwrap());
        assert_eq!(w.run(Command::RemoveAddress { address: "a@x.test".into() }), Err(Refusal::IsAccount("a@x.test".into())));
        assert_eq!(w.run(Command::RemoveAddress { address: "all@x.test".into() }), Ok(Answer::Done));
        assert_eq!(resolve(&w, "more@x.test"), Resolution::Unknown);
        assert_eq!(w.lookup.accounts(10).unwrap().len(), 2);
        assert_eq!(w.lookup.account("all@x.test").unwrap(), None);
    }

    #[test]
    fn an_alias_that_leads_to_itself_ends() {
        let mut w = World::new();
        w.run(domain("x.test")).unwrap();
        w.run(account("a@x.test")).unwrap();
        w.run(alias("b@x.test", &["a@x.test"])).unwrap();
        w.run(alias("c@x.test", &["b@x.test"])).unwrap();
        w.run(alias("b@x.test", &["c@x.test"])).unwrap();
        assert!(matches!(w.lookup.resolve("c@x.test").unwrap(), Resolution::Mailboxes(m, None) if m.len() == 1));
    }

    #[test]
    fn a_command_sent_again_is_answered_from_the_table_and_one_dropped_is_decided_again() {
        let mut w = World::new();
        let id = w.env.command_id();
        assert!(matches!(w.directory.submit(&mut w.env, id, 0, domain("x.test")), Submitted::Queued));
        assert!(matches!(w.directory.submit(&mut w.env, id, 1, domain("x.test")), Submitted::Joined));
        w.directory.next_entry(&mut w.env).unwrap();
        assert!(w.directory.next_entry(&mut w.env).is_none(), "one in flight");
        w.directory.dropped();
        let proposal = w.directory.next_entry(&mut w.env).unwrap();
        w.apply(proposal);
        let again = w.directory.submit(&mut w.env, id, 1, domain("x.test"));
        assert!(matches!(again, Submitted::Answered(Ok(Answer::Done), Index(2))), "{again:?}");
    }

    #[test]
    fn no_name_stands_in_any_row_and_another_root_key_opens_nothing() {
        let mut w = World::new();
        w.run(domain("secret-domain.test")).unwrap();
        w.run(account("secret-name@secret-domain.test")).unwrap();
        let view = w.rows.view(REPLICA).unwrap().unwrap();
        for (key, value) in view.rows(None, 1_000).unwrap() {
            for bytes in [key.encode(), value.to_vec()] {
                assert!(!bytes.windows(6).any(|w| w == b"secret"), "{key:?}");
            }
        }
        let other = RootKey::parse(&"cd".repeat(32)).unwrap();
        assert!(matches!(Lookup::new(Arc::new(w.rows.clone()), REPLICA, CLUSTER, other), Err(LookupError::RootKey)));
    }
}

//! What a command changes, decided on applied state: nothing here changes anything.

use mailraft_storage::entry::versioned_encode;
use mailraft_storage::seal::{seal_row, Key};
use mailraft_storage::{ClusterId, Env, Epoch, MailboxId, RowBatch, RowKey, Table};
use serde::Serialize;

use crate::engine::{Answer, Command, Refusal};
use crate::keys::{key_record, mailbox_key_place};
use crate::lookup::{Lookup, LookupError, TARGETS_MAX};
use crate::names;
use crate::records::{
    account_place, address_place, domain_place, Account, AccountId, AddressRecord, Domain, Target, RECORD_VERSION,
};

/// A command's exact effects.
pub struct Effects {
    pub rows: RowBatch,
    pub answer: Answer,
}

/// Decides one command.
pub fn decide(lookup: &Lookup, env: &mut Env, command: &Command) -> Result<Result<Effects, Refusal>, LookupError> {
    match command {
        Command::CreateDomain { name } => create_domain(lookup, env, name),
        Command::CreateAccount { address, verifier } => create_account(lookup, env, address, verifier),
        Command::SetPassword { address, verifier } => {
            change_account(lookup, env, address, |account| account.verifier.clone_from(verifier))
        }
        Command::SetDisabled { address, disabled } => {
            change_account(lookup, env, address, |account| account.disabled = *disabled)
        }
        Command::AddAddress { address, targets } => add_address(lookup, env, address, targets),
        Command::RemoveAddress { address } => remove_address(lookup, address),
    }
}

macro_rules! accept {
    ($parsed:expr) => {
        match $parsed {
            Ok(name) => name,
            Err(why) => return Ok(Err(Refusal::BadName(why))),
        }
    };
}

fn create_domain(lookup: &Lookup, env: &mut Env, name: &str) -> Result<Result<Effects, Refusal>, LookupError> {
    let name = accept!(names::domain(name));
    if lookup.domain(&name)?.is_some() {
        return Ok(Err(Refusal::DomainExists(name)));
    }
    let place = domain_place(lookup.index(), &name);
    let mut sealer = Sealer::new(lookup)?;
    sealer.put(env, place, &Domain { name, created: env.wall });
    Ok(Ok(sealer.done(Answer::Done)))
}

fn create_account(
    lookup: &Lookup,
    env: &mut Env,
    address: &str,
    verifier: &str,
) -> Result<Result<Effects, Refusal>, LookupError> {
    let address = accept!(names::address(address));
    if let Some(refusal) = needs_domain(lookup, &address)? {
        return Ok(Err(refusal));
    }
    if lookup.address(&address)?.is_some() {
        return Ok(Err(Refusal::AddressExists(address)));
    }
    let (id, mailbox) = (AccountId(env.bytes()), MailboxId(env.bytes()));
    let key = Key::generate(env);
    let mut sealer = Sealer::new(lookup)?;
    sealer.put_plain(env, mailbox_key_place(mailbox), &key_record(&key));
    let target = Target::Mailbox { account: id, mailbox, address: address.clone() };
    let record = AddressRecord { address: address.clone(), targets: vec![target] };
    sealer.put(env, address_place(lookup.index(), &address), &record);
    let account =
        Account { id, address, verifier: verifier.to_owned(), mailbox, disabled: false, created: env.wall };
    sealer.put(env, account_place(id), &account);
    Ok(Ok(sealer.done(Answer::AccountCreated { id, mailbox })))
}

fn change_account(
    lookup: &Lookup,
    env: &mut Env,
    address: &str,
    change: impl FnOnce(&mut Account),
) -> Result<Result<Effects, Refusal>, LookupError> {
    let address = accept!(names::address(address));
    let Some(mut account) = lookup.account(&address)? else { return Ok(Err(Refusal::NoSuchAccount(address))) };
    change(&mut account);
    let mut sealer = Sealer::new(lookup)?;
    sealer.put(env, account_place(account.id), &account);
    Ok(Ok(sealer.done(Answer::Done)))
}

fn add_address(
    lookup: &Lookup,
    env: &mut Env,
    address: &str,
    targets: &[String],
) -> Result<Result<Effects, Refusal>, LookupError> {
    let address = accept!(names::address(address));
    if let Some(refusal) = needs_domain(lookup, &address)? {
        return Ok(Err(refusal));
    }
    if targets.is_empty() || targets.len() > TARGETS_MAX {
        return Ok(Err(Refusal::BadName(format!("name between 1 and {TARGETS_MAX} targets"))));
    }
    let place = address_place(lookup.index(), &address);
    let mut record = lookup.address(&address)?.unwrap_or(AddressRecord { address: address.clone(), targets: Vec::new() });
    for target in targets {
        let target = accept!(names::address(target));
        if target == address {
            return Ok(Err(Refusal::BadName(format!("{address} can't be a target of itself"))));
        }
        if lookup.address(&target)?.is_none() {
            return Ok(Err(Refusal::NoSuchAddress(target)));
        }
        let target = match lookup.account(&target)? {
            Some(account) => Target::Mailbox { account: account.id, mailbox: account.mailbox, address: target },
            None => Target::Address(target),
        };
        if !record.targets.contains(&target) {
            record.targets.push(target);
        }
    }
    let mut sealer = Sealer::new(lookup)?;
    sealer.put(env, place, &record);
    Ok(Ok(sealer.done(Answer::Done)))
}

fn remove_address(lookup: &Lookup, address: &str) -> Result<Result<Effects, Refusal>, LookupError> {
    let address = accept!(names::address(address));
    if lookup.address(&address)?.is_none() {
        return Ok(Err(Refusal::NoSuchAddress(address)));
    }
    if lookup.account(&address)?.is_some() {
        return Ok(Err(Refusal::IsAccount(address)));
    }
    let mut rows = RowBatch::default();
    rows.delete(address_place(lookup.index(), &address));
    Ok(Ok(Effects { rows, answer: Answer::Done }))
}

fn needs_domain(lookup: &Lookup, address: &str) -> Result<Option<Refusal>, LookupError> {
    let host = address.rsplit_once('@').map_or("", |(_, host)| host);
    Ok(lookup.domain(host)?.is_none().then(|| Refusal::NoSuchDomain(host.to_owned())))
}

/// Seals rows by the newest key of the keyring.
struct Sealer {
    key: Key,
    epoch: Epoch,
    cluster: ClusterId,
    rows: RowBatch,
}

impl Sealer {
    fn new(lookup: &Lookup) -> Result<Self, LookupError> {
        let (key, epoch) = lookup.newest_key()?;
        let (_, _, cluster) = lookup.rows();
        Ok(Sealer { key, epoch, cluster, rows: RowBatch::default() })
    }

    fn put<T: Serialize>(&mut self, env: &mut Env, place: RowKey, record: &T) {
        let plain = zeroize::Zeroizing::new(versioned_encode(RECORD_VERSION, record));
        self.put_plain(env, place, &plain);
    }

    fn put_plain(&mut self, env: &mut Env, place: RowKey, plain: &[u8]) {
        debug_assert!(Table::from_number(place.table).is_some());
        let sealed = seal_row(env, &self.key, self.epoch, self.cluster, &place, plain);
        self.rows.put(place, sealed);
    }

    fn done(self, answer: Answer) -> Effects {
        Effects { rows: self.rows, answer }
    }
}

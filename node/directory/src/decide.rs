//! What a command changes, decided on applied state and what was decided before it in the same entry: nothing
//! here changes anything.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_storage::entry::versioned_encode;
use mailraft_storage::seal::{Key, seal_row};
use mailraft_storage::{ClusterId, Env, Epoch, MailboxId, RowBatch, RowKey, Table, UnixMillis};
use serde::Serialize;

use crate::api::{Answer, Command, NewKey, Refusal};
use crate::domain_keys;
use crate::error::LookupError;
use crate::keys::{forwarding_key_place, key_record, mailbox_key_place};
use crate::lookup::{self, ADDRESSES_WITH_ACCOUNT_MAX, Reader, TARGETS_MAX};
use crate::records::{
    Account, AccountId, AddressRecord, Domain, DomainKeys, RECORD_VERSION, Target, account_place, address_place,
    domain_keys_place, domain_place,
};
use crate::{names, password};

/// The most addresses that may lead to one whose aliases change.
const REFERRERS_MAX: usize = 200;

/// A command's exact effects.
pub struct Effects {
    /// Rows that were read and must still be there.
    pub requires: Vec<RowKey>,
    pub rows: RowBatch,
    pub answer: Answer,
}

type Decision = Result<Result<Effects, Refusal>, LookupError>;

/// Decides one command.
pub fn decide(at: Reader<'_>, env: &mut Env, command: &Command) -> Decision {
    match command {
        Command::CreateDomain { name } => create_domain(at, env, name, &[]),
        Command::CreateAccount { address, verifier } => create_account(at, env, address, verifier),
        Command::SetPassword { verifier, .. } if !password::is_verifier(verifier) => Ok(Err(Refusal::BadVerifier)),
        Command::SetPassword { address, verifier } => {
            change_account(at, env, address, |account| account.verifier.clone_from(verifier))
        }
        Command::SetDisabled { address, disabled } => {
            change_account(at, env, address, |account| account.disabled = *disabled)
        }
        Command::AddAddress { address, targets } => add_address(at, env, address, targets, Elsewhere::Refused),
        Command::AddForwards { address, targets } => add_address(at, env, address, targets, Elsewhere::Taken),
        Command::RenewForwardingKey => renew_forwarding_key(at, env),
        Command::RemoveAddress { address } => remove_address(at, address),
        Command::DeleteAccount { address } => delete_account(at, env, address),
        Command::CreateDomainWithKeys { name, keys } => create_domain(at, env, name, keys),
        Command::AddDomainKeys { name, keys } => {
            change_keys(at, env, name, |all, wall| domain_keys::add(all, keys, wall))
        }
        Command::UseDomainKey { name, selector } => {
            change_keys(at, env, name, |all, wall| domain_keys::sign(all, selector, wall))
        }
        Command::RetireDomainKey { name, selector } => {
            change_keys(at, env, name, |all, wall| domain_keys::retire(all, selector, wall))
        }
        Command::RemoveDomainKey { name, selector } => {
            change_keys(at, env, name, |all, _| domain_keys::remove(all, selector))
        }
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

fn create_domain(at: Reader<'_>, env: &mut Env, name: &str, keys: &[NewKey]) -> Decision {
    let name = accept!(names::domain(name));
    if at.domain(&name)?.is_some() {
        return Ok(Err(Refusal::DomainExists(name)));
    }
    let place = domain_place(at.lookup().index(), &name);
    let mut sealer = Sealer::new(at)?;
    sealer.put(env, place, &Domain { name: name.clone(), created: env.wall });
    if !keys.is_empty() {
        let mut all = DomainKeys { name, keys: Vec::new() };
        if let Err(refusal) = domain_keys::add(&mut all, keys, env.wall) {
            return Ok(Err(refusal));
        }
        sealer.put(env, domain_keys_place(at.lookup().index(), &all.name), &all);
    }
    Ok(Ok(sealer.done(Answer::Done)))
}

/// Changes the keys of a domain that is there.
fn change_keys(
    at: Reader<'_>,
    env: &mut Env,
    name: &str,
    change: impl FnOnce(&mut DomainKeys, UnixMillis) -> Result<(), Refusal>,
) -> Decision {
    let name = accept!(names::domain(name));
    if at.domain(&name)?.is_none() {
        return Ok(Err(Refusal::NoSuchDomain(name)));
    }
    let mut sealer = Sealer::new(at)?;
    sealer.requires.push(domain_place(at.lookup().index(), &name));
    let mut all = at.domain_keys(&name)?.unwrap_or(DomainKeys { name, keys: Vec::new() });
    if let Err(refusal) = change(&mut all, env.wall) {
        return Ok(Err(refusal));
    }
    sealer.put(env, domain_keys_place(at.lookup().index(), &all.name), &all);
    Ok(Ok(sealer.done(Answer::Done)))
}

fn create_account(at: Reader<'_>, env: &mut Env, address: &str, verifier: &str) -> Decision {
    let address = accept!(names::address(address));
    if !password::is_verifier(verifier) {
        return Ok(Err(Refusal::BadVerifier));
    }
    if let Some(refusal) = needs_domain(at, &address)? {
        return Ok(Err(refusal));
    }
    let roles = names::roles(host_of(&address));
    // Who is to be postmaster, and stood for one until now, takes it over.
    let stands_in = |record: &AddressRecord| roles.contains(&record.address) && !is_account(record);
    if at.address(&address)?.is_some_and(|record| !stands_in(&record)) {
        return Ok(Err(Refusal::AddressExists(address)));
    }
    let (id, mailbox) = (AccountId(env.bytes()), MailboxId(env.bytes()));
    let key = Key::generate(env);
    let mut sealer = Sealer::new(at)?;
    sealer.requires.push(domain_of(at, &address));
    sealer.put_plain(env, mailbox_key_place(mailbox), &key_record(&key));
    let target = Target::Mailbox { account: id, mailbox, address: address.clone() };
    // The first account of a domain is also its postmaster, until somebody else is named: mail to it is never refused.
    for role in roles.iter().filter(|role| **role != address) {
        if at.address(role)?.is_none() {
            let record = AddressRecord { address: role.clone(), targets: vec![target.clone()] };
            sealer.put(env, address_place(at.lookup().index(), role), &record);
        }
    }
    let record = AddressRecord { address: address.clone(), targets: vec![target] };
    sealer.put(env, address_place(at.lookup().index(), &address), &record);
    let account = Account { id, address, verifier: verifier.to_owned(), mailbox, disabled: false, created: env.wall };
    sealer.put(env, account_place(id), &account);
    Ok(Ok(sealer.done(Answer::AccountCreated { id, mailbox })))
}

fn change_account(at: Reader<'_>, env: &mut Env, address: &str, change: impl FnOnce(&mut Account)) -> Decision {
    let address = accept!(names::address(address));
    let Some(mut account) = at.account(&address)? else { return Ok(Err(Refusal::NoSuchAccount(address))) };
    change(&mut account);
    let mut sealer = Sealer::new(at)?;
    let place = account_place(account.id);
    sealer.requires.push(place.clone());
    sealer.put(env, place, &account);
    Ok(Ok(sealer.done(Answer::Done)))
}

/// Whether an address may stand for addresses of other domains.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Elsewhere {
    Taken,
    Refused,
}

fn add_address(at: Reader<'_>, env: &mut Env, address: &str, targets: &[String], elsewhere: Elsewhere) -> Decision {
    let address = accept!(names::alias(address));
    if let Some(refusal) = needs_domain(at, &address)? {
        return Ok(Err(refusal));
    }
    if targets.is_empty() || targets.len() > TARGETS_MAX {
        return Ok(Err(Refusal::BadName(format!("name between 1 and {TARGETS_MAX} targets"))));
    }
    // It would stand for several mailboxes, and go only with the account.
    if at.account(&address)?.is_some() {
        return Ok(Err(Refusal::IsAccount(address)));
    }
    let place = address_place(at.lookup().index(), &address);
    let mut sealer = Sealer::new(at)?;
    if address != names::POSTMASTER {
        sealer.requires.push(domain_of(at, &address));
    }
    let mut record = at.address(&address)?.unwrap_or(AddressRecord { address: address.clone(), targets: Vec::new() });
    for target in targets {
        if elsewhere == Elsewhere::Taken {
            let outside = accept!(names::address_outside(target));
            if at.domain(host_of(&outside))?.is_none() {
                if address == names::POSTMASTER {
                    let why =
                        "what is forwarded comes back to a domain: forward postmaster of one of yours, and name that";
                    return Ok(Err(Refusal::BadName(why.to_owned())));
                }
                let target = Target::Outside(outside);
                if !record.targets.contains(&target) {
                    record.targets.push(target);
                }
                continue;
            }
        }
        let target = accept!(names::address(target));
        if target == address {
            return Ok(Err(Refusal::BadName(format!("{address} can't be a target of itself"))));
        }
        if at.address(&target)?.is_none() {
            return Ok(Err(Refusal::NoSuchAddress(target)));
        }
        sealer.requires.push(address_place(at.lookup().index(), &target));
        let target = match at.account(&target)? {
            Some(account) => Target::Mailbox { account: account.id, mailbox: account.mailbox, address: target },
            None => Target::Address(target),
        };
        if !record.targets.contains(&target) {
            record.targets.push(target);
        }
    }
    if record.targets.len() > TARGETS_MAX {
        return Ok(Err(Refusal::TooManyTargets(address)));
    }
    let names_aliases = record.targets.iter().any(|target| matches!(target, Target::Address(_) | Target::Outside(_)));
    if names_aliases && let Some(address) = out_of_reach(at, &record)? {
        return Ok(Err(Refusal::OutOfReach(address)));
    }
    sealer.put(env, place, &record);
    Ok(Ok(sealer.done(Answer::Done)))
}

/// An address whose mail would not reach all that it stands for with this record: itself, or one that leads to it.
fn out_of_reach(at: Reader<'_>, changed: &AddressRecord) -> Result<Option<String>, LookupError> {
    let mut all: BTreeMap<String, AddressRecord> =
        at.addresses()?.into_iter().map(|record| (record.address.clone(), record)).collect();
    all.insert(changed.address.clone(), changed.clone());
    let mut leads_to: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for record in all.values() {
        for target in &record.targets {
            if let Target::Address(of) = target {
                leads_to.entry(of).or_default().push(&record.address);
            }
        }
    }
    let (mut affected, mut open) = (BTreeSet::new(), vec![changed.address.as_str()]);
    while let Some(address) = open.pop() {
        // What is checked for each has a bound, and so has their number.
        if affected.len() == REFERRERS_MAX {
            return Ok(Some(changed.address.clone()));
        }
        if affected.insert(address) {
            open.extend(leads_to.get(address).into_iter().flatten());
        }
    }
    for address in affected {
        let Some(record) = all.get(address) else { continue };
        let reached = lookup::reached(record.clone(), |next| Ok::<_, LookupError>(all.get(next).cloned()))?;
        if !reached.whole {
            return Ok(Some(address.to_owned()));
        }
    }
    Ok(None)
}

fn renew_forwarding_key(at: Reader<'_>, env: &mut Env) -> Decision {
    let mut sealer = Sealer::new(at)?;
    sealer.put(env, forwarding_key_place(), &at.forwarding_key_number()?.saturating_add(1));
    Ok(Ok(sealer.done(Answer::Done)))
}

fn remove_address(at: Reader<'_>, address: &str) -> Decision {
    let address = accept!(names::alias(address));
    if at.address(&address)?.is_none() {
        return Ok(Err(Refusal::NoSuchAddress(address)));
    }
    if at.account(&address)?.is_some() {
        return Ok(Err(Refusal::IsAccount(address)));
    }
    let place = address_place(at.lookup().index(), &address);
    let mut rows = RowBatch::default();
    rows.delete(place.clone());
    Ok(Ok(Effects { requires: vec![place], rows, answer: Answer::Done }))
}

/// The account, its own address and its mailbox's key go. Every other address loses it as a target, and goes too if it
/// stands for nothing else; so on for those that name one of these.
fn delete_account(at: Reader<'_>, env: &mut Env, address: &str) -> Decision {
    let address = accept!(names::address(address));
    let Some(account) = at.account(&address)? else { return Ok(Err(Refusal::NoSuchAccount(address))) };
    let mut addresses = at.addresses()?;
    let (mut gone, mut changed) = (BTreeSet::from([address.clone()]), BTreeSet::new());
    let is_its = |target: &Target| matches!(target, Target::Mailbox { account: of, .. } if *of == account.id);
    // Somebody else is postmaster then, as long as there is anybody.
    for role in names::roles(host_of(&address)) {
        let own = |record: &&AddressRecord| is_account(record) && record.address != address;
        let successor = addresses.iter().filter(own).find(|record| match role.as_str() {
            names::POSTMASTER => true,
            _ => host_of(&record.address) == host_of(&address),
        });
        let Some(targets) = successor.map(|record| record.targets.clone()) else { continue };
        let is_left = |record: &&mut AddressRecord| record.address == role && record.targets.iter().all(is_its);
        if let Some(record) = addresses.iter_mut().find(is_left) {
            record.targets = targets;
            gone.remove(&role);
            changed.insert(role);
        }
    }
    let own_goes = gone.contains(&address);
    let mut before = 0;
    while before < gone.len() + changed.len() {
        before = gone.len() + changed.len();
        for record in addresses.iter_mut().filter(|record| !own_goes || record.address != address) {
            let all = record.targets.len();
            record.targets.retain(|target| match target {
                Target::Mailbox { .. } | Target::Outside(_) => !is_its(target),
                Target::Address(of) => !gone.contains(of),
            });
            if record.targets.is_empty() {
                gone.insert(record.address.clone());
                changed.remove(&record.address);
            } else if record.targets.len() < all {
                changed.insert(record.address.clone());
            }
        }
    }
    if gone.len() + changed.len() > ADDRESSES_WITH_ACCOUNT_MAX {
        return Ok(Err(Refusal::TooManyAddresses(address)));
    }
    let mut sealer = Sealer::new(at)?;
    let place = account_place(account.id);
    sealer.requires.push(place.clone());
    sealer.rows.delete(place);
    sealer.rows.delete(mailbox_key_place(account.mailbox));
    for address in &gone {
        sealer.rows.delete(address_place(at.lookup().index(), address));
    }
    for record in addresses.iter().filter(|record| changed.contains(&record.address)) {
        sealer.put(env, address_place(at.lookup().index(), &record.address), record);
    }
    Ok(Ok(sealer.done(Answer::Done)))
}

/// Whether an address is an account's own.
fn is_account(record: &AddressRecord) -> bool {
    record.targets.iter().any(|target| match target {
        Target::Mailbox { address, .. } => *address == record.address,
        Target::Address(_) | Target::Outside(_) => false,
    })
}

fn needs_domain(at: Reader<'_>, address: &str) -> Result<Option<Refusal>, LookupError> {
    if address == names::POSTMASTER {
        return Ok(None);
    }
    let host = host_of(address);
    Ok(at.domain(host)?.is_none().then(|| Refusal::NoSuchDomain(host.to_owned())))
}

fn domain_of(at: Reader<'_>, address: &str) -> RowKey {
    domain_place(at.lookup().index(), host_of(address))
}

fn host_of(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, host)| host)
}

/// Seals rows by the newest key of the keyring.
struct Sealer {
    key: Key,
    epoch: Epoch,
    cluster: ClusterId,
    requires: Vec<RowKey>,
    rows: RowBatch,
}

impl Sealer {
    fn new(at: Reader<'_>) -> Result<Self, LookupError> {
        let (key, epoch) = at.lookup().newest_key()?;
        let (_, _, cluster) = at.lookup().rows();
        Ok(Sealer { key, epoch, cluster, requires: Vec::new(), rows: RowBatch::default() })
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
        Effects { requires: self.requires, rows: self.rows, answer }
    }
}

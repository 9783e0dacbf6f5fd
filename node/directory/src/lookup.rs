//! Reading the directory from a node's own replica of the control group.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use mailraft_storage::entry::versioned_decode;
use mailraft_storage::seal::{Key, open_row, sealed_epoch};
use mailraft_storage::{ClusterId, Epoch, MailboxId, ReplicaId, RowKey, Rows, Table};
use serde::Deserialize;

use crate::error::LookupError;
use crate::keys::{
    FIRST_EPOCH, MAILBOX_EPOCH, RootKey, forwarding_key_place, key_of, keyring_place, mailbox_key_place, open_epoch_key,
};
use crate::names::{POSTMASTER, without_detail};
use crate::records::{
    Account, AddressRecord, Domain, DomainKey, DomainKeys, KeyState, PublicKey, RECORD_VERSION, Target, account_place,
    address_place, domain_keys_place, domain_place,
};

/// Aliases of aliases are followed this far.
pub const ALIAS_DEPTH_MAX: usize = 8;
/// An address reaches at most so many mailboxes, and has at most so many targets.
pub const TARGETS_MAX: usize = 100;
/// Addresses that are looked up for one, at most.
pub const ALIASES_MAX: usize = 1_000;
/// Addresses that one change takes an account out of, at most.
pub const ADDRESSES_WITH_ACCOUNT_MAX: usize = 1_000;
/// Rows that one page of a listing holds, at most.
pub const PAGE_MAX_ROWS: usize = 1_000;

/// Rows as they will be once what is decided is applied: None for one that is deleted.
pub(crate) type Overlay = BTreeMap<RowKey, Option<Bytes>>;

/// Some records of a listing, and where to go on; None at the end.
pub type Page<T> = (Vec<T>, Option<Vec<u8>>);

/// What an address stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The domain is not of this cluster.
    NotOurs,
    /// Nobody of that name.
    Unknown,
    /// These mailboxes, each once, and the address's detail.
    Mailboxes(Vec<MailboxId>, Option<String>),
    /// Somebody elsewhere, and perhaps mailboxes too.
    Forwarded {
        /// These mailboxes, each once.
        mailboxes: Vec<MailboxId>,
        /// Addresses of other domains, each once; at least one.
        outside: Vec<Forward>,
        /// The address's detail.
        detail: Option<String>,
    },
}

/// Mail goes on to another domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// To this address; its local part as it was given.
    pub to: String,
    /// By this address of the cluster's, which names it.
    pub by: String,
}

/// The keys of what is written into reverse-paths of what is forwarded, the same for all nodes.
#[derive(Clone, Debug)]
pub struct ForwardingKeys {
    /// By this one they are made.
    pub newest: Key,
    /// By this one they were made before, and are still taken.
    pub before: Option<Key>,
}

/// Reads the directory.
pub struct Lookup {
    rows: Arc<dyn Rows>,
    replica: ReplicaId,
    cluster: ClusterId,
    root: RootKey,
    keyring: RwLock<BTreeMap<Epoch, Key>>,
    index: Key,
}

impl Lookup {
    /// Over the rows of this replica of the control group.
    ///
    /// # Errors
    /// If the keyring is not there or the root key does not open it.
    pub fn new(
        rows: Arc<dyn Rows>,
        replica: ReplicaId,
        cluster: ClusterId,
        root: RootKey,
    ) -> Result<Self, LookupError> {
        check_trusted(rows.as_ref(), replica)?;
        let sealed = rows.get(replica, &keyring_place(FIRST_EPOCH))?.ok_or(LookupError::NoKey(FIRST_EPOCH))?;
        let first = open_epoch_key(cluster, &root, FIRST_EPOCH, &sealed)?;
        let index = first.derive("mailraft directory index");
        let keyring = RwLock::new(BTreeMap::from([(FIRST_EPOCH, first)]));
        Ok(Lookup { rows, replica, cluster, root, keyring, index })
    }

    /// The domain of this name, in its one form.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn domain(&self, name: &str) -> Result<Option<Domain>, LookupError> {
        self.reader(None).domain(name)
    }

    /// What anybody may know of a domain's keys, in the order in which they were made.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn domain_keys(&self, name: &str) -> Result<Vec<PublicKey>, LookupError> {
        let found = self.reader(None).domain_keys(&name.to_ascii_lowercase())?;
        Ok(found.map_or(Vec::new(), |all| all.keys.into_iter().map(|key| key.public).collect()))
    }

    /// The keys that sign the mail of a domain now, at most one of each algorithm; none if it is not of this cluster.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn signers_of(&self, domain: &str) -> Result<Vec<DomainKey>, LookupError> {
        let found = self.reader(None).domain_keys(&domain.to_ascii_lowercase())?;
        let keys = found.map_or(Vec::new(), |all| all.keys);
        Ok(keys.into_iter().filter(|key| key.public.state == KeyState::Signing).collect())
    }

    /// The address's own record, in its one form.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn address(&self, address: &str) -> Result<Option<AddressRecord>, LookupError> {
        self.reader(None).address(address)
    }

    /// What an address stands for: itself, or itself without its detail, through aliases. `postmaster` may be without a
    /// domain.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn resolve(&self, address: &str) -> Result<Resolution, LookupError> {
        let address = address.to_ascii_lowercase();
        match address.rsplit_once('@') {
            Some((_, host)) if self.domain(host)?.is_none() => return Ok(Resolution::NotOurs),
            Some(_) => {}
            None if address == POSTMASTER => {}
            None => return Ok(Resolution::Unknown),
        }
        let (found, detail) = match self.address(&address)? {
            Some(found) => (Some(found), None),
            None => match without_detail(&address) {
                Some((base, detail)) => (self.address(&base)?, Some(detail)),
                None => (None, None),
            },
        };
        let Some(found) = found else { return Ok(Resolution::Unknown) };
        let next = |address: &str| self.address(address)?.map(|record| self.with_new_domains(record)).transpose();
        let Reached { mailboxes, outside, .. } = reached(self.with_new_domains(found)?, next)?;
        Ok(match (mailboxes.is_empty(), outside.is_empty()) {
            (true, true) => Resolution::Unknown,
            (false, true) => Resolution::Mailboxes(mailboxes, detail),
            (_, false) => Resolution::Forwarded { mailboxes, outside, detail },
        })
    }

    /// Whether an account may send under a reverse-path: its own address, with any detail, or one that stands for
    /// its mailbox alone. A list of several is nobody's own.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn may_send_as(&self, account: &str, reverse_path: &str) -> Result<bool, LookupError> {
        let Some(account) = self.account(account)? else { return Ok(false) };
        match self.resolve(reverse_path)? {
            Resolution::Mailboxes(mailboxes, _) => Ok(mailboxes == [account.mailbox]),
            Resolution::Forwarded { .. } | Resolution::NotOurs | Resolution::Unknown => Ok(false),
        }
    }

    /// The account that logs in under this address.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn account(&self, address: &str) -> Result<Option<Account>, LookupError> {
        self.reader(None).account(address)
    }

    /// A mailbox's key and its epoch. Those of queue mailboxes are derived from the keyring: what waits there has keys of its
    /// own.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn mailbox_key(&self, mailbox: MailboxId) -> Result<Option<(Key, Epoch)>, LookupError> {
        if mailbox.is_queue() {
            let key = self.epoch_key(FIRST_EPOCH)?.derive(&format!("mailraft queue mailbox {mailbox}"));
            return Ok(Some((key, MAILBOX_EPOCH)));
        }
        let place = mailbox_key_place(mailbox);
        match self.open(&place, Table::MailboxKeys)? {
            Some(plain) => Ok(Some((key_of(&plain)?, MAILBOX_EPOCH))),
            None => Ok(None),
        }
    }

    /// The keys by which reverse-paths of what is forwarded are made and known again.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn forwarding_keys(&self) -> Result<ForwardingKeys, LookupError> {
        let (ring, number) = (self.epoch_key(FIRST_EPOCH)?, self.reader(None).forwarding_key_number()?);
        let key = |number: u64| ring.derive(&format!("mailraft reverse-paths of what is forwarded {number}"));
        Ok(ForwardingKeys { newest: key(number), before: number.checked_sub(1).map(key) })
    }

    /// Whether there is such a mailbox, without opening its key.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn has_mailbox(&self, mailbox: MailboxId) -> Result<bool, LookupError> {
        check_trusted(self.rows.as_ref(), self.replica)?;
        Ok(mailbox.is_queue() || self.rows.get(self.replica, &mailbox_key_place(mailbox))?.is_some())
    }

    /// Up to `limit` domains, sorted by name.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn domains(&self, limit: usize) -> Result<Vec<Domain>, LookupError> {
        let mut all: Vec<Domain> = self.all(Table::Domains, limit)?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Up to `limit` addresses, sorted.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn addresses(&self, limit: usize) -> Result<Vec<AddressRecord>, LookupError> {
        let mut all: Vec<AddressRecord> = self.all(Table::Addresses, limit)?;
        all.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(all)
    }

    /// Up to `limit` accounts, sorted by address.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn accounts(&self, limit: usize) -> Result<Vec<Account>, LookupError> {
        let mut all: Vec<Account> = self.all(Table::Accounts, limit)?;
        all.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(all)
    }

    /// A page of the domains, in no order that means anything; `after` is what the page before gave.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn domains_page(&self, after: Option<&[u8]>, limit: usize) -> Result<Page<Domain>, LookupError> {
        self.page(Table::Domains, after, limit)
    }

    /// A page of the addresses, in no order that means anything; `after` is what the page before gave.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn addresses_page(&self, after: Option<&[u8]>, limit: usize) -> Result<Page<AddressRecord>, LookupError> {
        self.page(Table::Addresses, after, limit)
    }

    /// A page of the accounts, in no order that means anything; `after` is what the page before gave.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn accounts_page(&self, after: Option<&[u8]>, limit: usize) -> Result<Page<Account>, LookupError> {
        self.page(Table::Accounts, after, limit)
    }

    /// Reads through what is decided and not yet applied.
    pub(crate) fn reader<'a>(&'a self, overlay: Option<&'a Overlay>) -> Reader<'a> {
        Reader { lookup: self, overlay }
    }

    pub(crate) fn rows(&self) -> (&dyn Rows, ReplicaId, ClusterId) {
        (self.rows.as_ref(), self.replica, self.cluster)
    }

    pub(crate) fn index(&self) -> &Key {
        &self.index
    }

    /// The key that new rows are sealed by.
    pub(crate) fn newest_key(&self) -> Result<(Key, Epoch), LookupError> {
        Ok((self.epoch_key(FIRST_EPOCH)?, FIRST_EPOCH))
    }

    pub(crate) fn epoch_key(&self, epoch: Epoch) -> Result<Key, LookupError> {
        if let Some(key) = self.keyring.read().unwrap_or_else(PoisonError::into_inner).get(&epoch) {
            return Ok(key.clone());
        }
        let sealed = self.rows.get(self.replica, &keyring_place(epoch))?.ok_or(LookupError::NoKey(epoch))?;
        let key = open_epoch_key(self.cluster, &self.root, epoch, &sealed)?;
        self.keyring.write().unwrap_or_else(PoisonError::into_inner).insert(epoch, key.clone());
        Ok(key)
    }

    fn open(&self, place: &RowKey, table: Table) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, LookupError> {
        check_trusted(self.rows.as_ref(), self.replica)?;
        match self.rows.get(self.replica, place)? {
            Some(sealed) => self.unseal(place, table, &sealed).map(Some),
            None => Ok(None),
        }
    }

    fn unseal(&self, place: &RowKey, table: Table, sealed: &Bytes) -> Result<zeroize::Zeroizing<Vec<u8>>, LookupError> {
        let said = |error| LookupError::Seal { table, error };
        let key = self.epoch_key(sealed_epoch(sealed).map_err(said)?)?;
        open_row(&key, self.cluster, place, sealed).map_err(said)
    }

    /// A record with those of its targets as addresses of this cluster whose domain has become one of its own.
    fn with_new_domains(&self, mut record: AddressRecord) -> Result<AddressRecord, LookupError> {
        for target in &mut record.targets {
            if let Target::Outside(address) = target
                && let Some((_, host)) = address.rsplit_once('@')
                && self.domain(host)?.is_some()
            {
                *target = Target::Address(address.to_ascii_lowercase());
            }
        }
        Ok(record)
    }

    fn all<T: for<'a> Deserialize<'a>>(&self, table: Table, limit: usize) -> Result<Vec<T>, LookupError> {
        let (mut all, mut after) = (Vec::new(), None);
        while all.len() < limit {
            let (page, next) = self.page(table, after.as_deref(), limit - all.len())?;
            all.extend(page);
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        Ok(all)
    }

    fn page<T: for<'a> Deserialize<'a>>(
        &self,
        table: Table,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page<T>, LookupError> {
        // The first key behind another is that one and a zero byte.
        let from = after.map(|key| [key, &[0]].concat()).unwrap_or_default();
        let limit = limit.clamp(1, PAGE_MAX_ROWS);
        check_trusted(self.rows.as_ref(), self.replica)?;
        let found = self.rows.scan(self.replica, MailboxId::PARTITION, table, &[], &from, limit)?;
        let next = if found.len() == limit { found.last().map(|(key, _)| key.clone()) } else { None };
        let mut page = Vec::with_capacity(found.len());
        for (key, sealed) in found {
            let plain = self.unseal(&RowKey::partition(table, key), table, &sealed)?;
            page.push(versioned_decode(&format!("{table:?} row"), RECORD_VERSION, &plain)?);
        }
        Ok((page, next))
    }
}

/// What an address stands for.
pub(crate) struct Reached {
    /// Each once.
    pub mailboxes: Vec<MailboxId>,
    /// Addresses of other domains, each once.
    pub outside: Vec<Forward>,
    /// Whether that is all: nothing is nested too deep, or one too many.
    pub whole: bool,
}

/// Follows an address's targets.
pub(crate) fn reached<E>(
    record: AddressRecord,
    mut address: impl FnMut(&str) -> Result<Option<AddressRecord>, E>,
) -> Result<Reached, E> {
    let mut reached = Reached { mailboxes: Vec::new(), outside: Vec::new(), whole: true };
    let mut seen = BTreeSet::from([record.address.clone()]);
    // The nearest first, so that the depth at which an address is met is its least.
    let mut open = VecDeque::from([(record, 0)]);
    while let Some((record, depth)) = open.pop_front() {
        for target in record.targets {
            match target {
                Target::Mailbox { mailbox, .. } if reached.mailboxes.contains(&mailbox) => {}
                Target::Mailbox { mailbox, .. } if reached.mailboxes.len() + reached.outside.len() < TARGETS_MAX => {
                    reached.mailboxes.push(mailbox);
                }
                Target::Outside(to) if reached.outside.iter().any(|known| known.to == to) => {}
                Target::Outside(to) if reached.mailboxes.len() + reached.outside.len() < TARGETS_MAX => {
                    reached.outside.push(Forward { to, by: record.address.clone() });
                }
                // Each address once: a few lists that name each other have more paths than can be walked.
                Target::Address(next) if seen.contains(&next) => {}
                Target::Address(next) if depth < ALIAS_DEPTH_MAX && seen.len() < ALIASES_MAX => {
                    open.extend(address(&next)?.map(|record| (record, depth + 1)));
                    seen.insert(next);
                }
                Target::Mailbox { .. } | Target::Address(_) | Target::Outside(_) => reached.whole = false,
            }
        }
    }
    Ok(reached)
}

/// Fails if the rows are known to be others than those that were applied: an older account would let an old password in.
fn check_trusted(rows: &dyn Rows, replica: ReplicaId) -> Result<(), LookupError> {
    match rows.proof() {
        Some(proof) => Ok(proof.check_trusted(replica)?),
        None => Ok(()),
    }
}

/// Reads applied rows, and before them those that are decided.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    lookup: &'a Lookup,
    overlay: Option<&'a Overlay>,
}

impl<'a> Reader<'a> {
    pub fn lookup(&self) -> &'a Lookup {
        self.lookup
    }

    pub fn domain(&self, name: &str) -> Result<Option<Domain>, LookupError> {
        self.record(&domain_place(&self.lookup.index, name), Table::Domains)
    }

    pub fn domain_keys(&self, name: &str) -> Result<Option<DomainKeys>, LookupError> {
        self.record(&domain_keys_place(&self.lookup.index, name), Table::DomainKeys)
    }

    pub fn address(&self, address: &str) -> Result<Option<AddressRecord>, LookupError> {
        self.record(&address_place(&self.lookup.index, address), Table::Addresses)
    }

    pub fn account(&self, address: &str) -> Result<Option<Account>, LookupError> {
        let Some(record) = self.address(address)? else { return Ok(None) };
        for target in record.targets {
            if let Target::Mailbox { account, .. } = target {
                let found: Option<Account> = self.record(&account_place(account), Table::Accounts)?;
                if found.as_ref().is_some_and(|a| a.address == address) {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// How often the key of what is forwarded was replaced.
    pub fn forwarding_key_number(&self) -> Result<u64, LookupError> {
        Ok(self.record(&forwarding_key_place(), Table::Keyring)?.unwrap_or(0))
    }

    /// Every address. Reads all of them: as many as there are.
    pub fn addresses(&self) -> Result<Vec<AddressRecord>, LookupError> {
        let mut all = self.lookup.addresses(usize::MAX)?;
        let Some(overlay) = self.overlay else { return Ok(all) };
        let of_addresses = |key: &&RowKey| key.table == Table::Addresses.number();
        let decided: Vec<&RowKey> = overlay.keys().filter(of_addresses).collect();
        all.retain(|record| !decided.contains(&&address_place(&self.lookup.index, &record.address)));
        for place in decided {
            all.extend(self.record::<AddressRecord>(place, Table::Addresses)?);
        }
        Ok(all)
    }

    fn record<T: for<'d> Deserialize<'d>>(&self, place: &RowKey, table: Table) -> Result<Option<T>, LookupError> {
        let plain = match self.overlay.and_then(|rows| rows.get(place)) {
            Some(Some(sealed)) => Some(self.lookup.unseal(place, table, sealed)?),
            Some(None) => None,
            None => self.lookup.open(place, table)?,
        };
        match plain {
            Some(plain) => Ok(Some(versioned_decode(&format!("{table:?} row"), RECORD_VERSION, &plain)?)),
            None => Ok(None),
        }
    }
}

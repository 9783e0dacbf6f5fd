//! What was counted in one UTC day: for each domain, for each policy that it published, sums and rows.

use std::fmt::Debug;

use mailraft_outbound::tls::domain::host_name;
use mailraft_storage::StoreError;
use mailraft_storage::entry::{versioned_decode, versioned_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::shelf::{Counted, Limit, Shelf, Weighed};

/// Seconds of a day.
pub const DAY_SECONDS: u64 = 86_400;
/// The longest part of a day that is written down as one record, in bytes.
pub const PART_MAX_BYTES: usize = 256 << 10;
/// The longest policy or row in a record, in bytes of memory: three fit a part.
const KEY_MAX_BYTES: usize = 80 << 10;
/// The newest version of these records, and the one written.
const PART_VERSION: u8 = 1;

/// What is counted: sessions of TLS, or messages that DMARC judged.
pub trait Kind: Clone + Debug + PartialEq + Eq {
    /// What a domain published.
    type Policy: Key;
    /// What a report tells of besides sums.
    type Row: Key;
    /// What a record of this kind is called in errors.
    const RECORD: &'static str;
    /// How much is kept of a day: domains, and bytes.
    const DAY: Limit;
    /// Of a domain: policies, and bytes.
    const DOMAIN: Limit;
    /// Of a policy: rows, and bytes.
    const POLICY: Limit;
}

/// What a policy and a row have to be for that.
pub trait Key: Ord + Clone + Debug + Weighed + Serialize + DeserializeOwned {}

impl<T: Ord + Clone + Debug + Weighed + Serialize + DeserializeOwned> Key for T {}

/// The day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day<K: Kind> {
    day: u64,
    domains: Shelf<Name, Domain<K>>,
}

/// How much was counted of which no report tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// What stands in no report at all.
    pub untold: u64,
    /// What stands in the sums of one, and in no row.
    pub unlisted: u64,
}

/// Days that are to become one are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("day {theirs} after 1970-01-01 can not be counted to day {ours}: each day has a report of its own")]
pub struct OtherDay {
    /// The day that was there.
    pub ours: u64,
    /// The day that was to be counted to it.
    pub theirs: u64,
}

/// One event that is counted.
pub(crate) struct Event<K: Kind> {
    pub(crate) policy: K::Policy,
    pub(crate) went: Went,
    pub(crate) row: Option<K::Row>,
}

/// How it went, for the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Went {
    Well,
    Badly,
}

/// What was counted under one policy of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy<K: Kind> {
    pub(crate) well: u64,
    pub(crate) badly: u64,
    pub(crate) rows: Shelf<K::Row, u64>,
}

/// What was counted of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Domain<K: Kind> {
    pub(crate) policies: Shelf<K::Policy, Policy<K>>,
}

/// A domain's name, in an order that is another one every day: what comes last is what has no room, and that is not to be the
/// same domains always, nor those that somebody chose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    order: [u8; 8],
    name: String,
}

impl<K: Kind> Day<K> {
    /// Nothing is counted yet of this day, in days since 1970-01-01.
    pub fn new(day: u64) -> Self {
        Day { day, domains: Shelf::default() }
    }

    /// Which day it is, in days since 1970-01-01.
    pub fn day(&self) -> u64 {
        self.day
    }

    /// Its first and its last second, since 1970-01-01 UTC.
    pub fn range_unix_s(&self) -> (u64, u64) {
        let begin = self.day.saturating_mul(DAY_SECONDS);
        (begin, begin.saturating_add(DAY_SECONDS - 1))
    }

    /// The domains of which something was counted.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains.iter().map(|(name, _)| name.name.as_str())
    }

    /// All that was counted, also what was lost.
    pub fn total(&self) -> u64 {
        self.domains.total()
    }

    /// What it takes in memory, in bytes, at most `K::DAY.bytes`. What was dropped may be counted in it.
    pub fn bytes(&self) -> usize {
        self.domains.claimed_bytes(K::DAY)
    }

    /// How much was counted of which no report tells, as there was no room.
    pub fn lost(&self) -> Lost {
        let none = Lost { untold: self.domains.dropped(), unlisted: 0 };
        self.domains.iter().fold(none, |lost, (_, domain)| {
            let of = domain.lost();
            Lost { untold: lost.untold.saturating_add(of.untold), unlisted: lost.unlisted.saturating_add(of.unlisted) }
        })
    }

    /// Takes in what another node counted of the same day. In whatever order parts come, the same is left in the end, within the
    /// bounds of one. Each part is to come once: it does not know whether it was counted already.
    ///
    /// # Errors
    /// If it is another day; then nothing is changed.
    pub fn merge(&mut self, other: Self) -> Result<(), OtherDay> {
        if other.day != self.day {
            return Err(OtherDay { ours: self.day, theirs: other.day });
        }
        self.domains.join(other.domains, K::DAY);
        Ok(())
    }

    /// The day in parts, each a record of at most [`PART_MAX_BYTES`]: [`Day::decode`] makes a day of each, and these merged are
    /// this one. At least one, as a day of which nothing was counted has its number.
    pub fn encode(&self) -> Vec<Vec<u8>> {
        let mut parts = Parts::new(self.day, self.domains.dropped(), self.domains.cut().map(|cut| cut.name.clone()));
        for (name, domain) in self.domains.iter() {
            parts.domain(&name.name, domain.policies.dropped(), domain.policies.cut());
            for (policy, of) in domain.policies.iter() {
                parts.policy(policy, of);
                of.rows.iter().for_each(|(row, count)| parts.row(row, *count));
            }
        }
        parts.end()
    }

    /// Reads a part of [`Day::encode`]. What it has beyond the bounds is counted as dropped.
    ///
    /// # Errors
    /// If it is of a later version, or damaged.
    pub fn decode(part: &[u8]) -> Result<Self, StoreError> {
        let part: PartRecord<K::Policy, K::Row> = versioned_decode(K::RECORD, PART_VERSION, part)?;
        let name = |text: String| match host_name(&text) {
            Some(name) if name == text => Ok(Name::of(part.day, text)),
            Some(_) | None => Err(StoreError::damaged(K::RECORD, format_args!("{text:?} is no domain"))),
        };
        let cut = part.cut.map(name).transpose()?;
        if part.domains.iter().flat_map(DomainRecord::weights).any(|weight| weight > KEY_MAX_BYTES) {
            return Err(StoreError::damaged(K::RECORD, "a policy or a row is longer than any that is counted"));
        }
        let domain =
            |of: DomainRecord<K::Policy, K::Row>| Ok((name(of.name)?, Domain::of(of.policies, of.cut, of.untold)));
        let domains = part.domains.into_iter().map(domain).collect::<Result<Vec<_>, StoreError>>()?;
        Ok(Day { day: part.day, domains: Shelf::of(domains, cut, part.untold, K::DAY) })
    }

    /// Counts what happened to a domain, whose name is as [`host_name`] has it.
    pub(crate) fn count(&mut self, domain: String, event: Event<K>) {
        let name = Name::of(self.day, domain);
        self.domains.count(name, usize::MAX, K::DAY, |domain, room| {
            domain.policies.count(event.policy, room, K::DOMAIN, |policy, room| {
                let sum = match event.went {
                    Went::Well => &mut policy.well,
                    Went::Badly => &mut policy.badly,
                };
                *sum = sum.saturating_add(1);
                if let Some(row) = event.row {
                    policy.rows.count(row, room, K::POLICY, |count, _| *count = count.saturating_add(1));
                }
            });
        });
    }

    /// What was counted of a domain.
    pub(crate) fn domain(&self, name: &str) -> Option<&Domain<K>> {
        self.domains.get(&Name::of(self.day, name.to_owned()))
    }
}

impl<K: Kind> Domain<K> {
    fn of(policies: Vec<PolicyRecord<K::Policy, K::Row>>, cut: Option<K::Policy>, dropped: u64) -> Self {
        let policies = policies.into_iter().map(|of| {
            let rows = Shelf::of(of.rows, of.cut, of.unlisted, K::POLICY);
            (of.policy, Policy { well: of.well, badly: of.badly, rows })
        });
        Domain { policies: Shelf::of(policies, cut, dropped, K::DOMAIN) }
    }

    /// How much of this domain was lost.
    pub(crate) fn lost(&self) -> Lost {
        let unlisted = self.policies.iter().fold(0u64, |sum, (_, policy)| sum.saturating_add(policy.rows.dropped()));
        Lost { untold: self.policies.dropped(), unlisted }
    }
}

impl<K: Kind> Default for Policy<K> {
    fn default() -> Self {
        Policy { well: 0, badly: 0, rows: Shelf::default() }
    }
}

impl<K: Kind> Default for Domain<K> {
    fn default() -> Self {
        Domain { policies: Shelf::default() }
    }
}

impl<K: Kind> Counted for Policy<K> {
    fn claimed_bytes(&self) -> usize {
        self.rows.claimed_bytes(K::POLICY)
    }

    fn total(&self) -> u64 {
        self.well.saturating_add(self.badly)
    }

    fn join(&mut self, other: Self) {
        self.well = self.well.saturating_add(other.well);
        self.badly = self.badly.saturating_add(other.badly);
        self.rows.join(other.rows, K::POLICY);
    }
}

impl<K: Kind> Counted for Domain<K> {
    fn claimed_bytes(&self) -> usize {
        self.policies.claimed_bytes(K::DOMAIN)
    }

    fn total(&self) -> u64 {
        self.policies.total()
    }

    fn join(&mut self, other: Self) {
        self.policies.join(other.policies, K::DOMAIN);
    }
}

impl Name {
    fn of(day: u64, name: String) -> Self {
        let digest = Sha256::new().chain_update(day.to_be_bytes()).chain_update(name.as_bytes()).finalize();
        let mut order = [0; 8];
        order.copy_from_slice(&digest[..8]);
        Name { order, name }
    }
}

impl Weighed for Name {
    fn heap_bytes(&self) -> usize {
        self.name.len()
    }
}

/// A part of a day.
#[derive(Serialize, Deserialize)]
struct PartRecord<P, R> {
    day: u64,
    untold: u64,
    cut: Option<String>,
    domains: Vec<DomainRecord<P, R>>,
}

#[derive(Serialize, Deserialize)]
struct DomainRecord<P, R> {
    name: String,
    untold: u64,
    cut: Option<P>,
    policies: Vec<PolicyRecord<P, R>>,
}

#[derive(Serialize, Deserialize)]
struct PolicyRecord<P, R> {
    policy: P,
    well: u64,
    badly: u64,
    unlisted: u64,
    cut: Option<R>,
    rows: Vec<(R, u64)>,
}

impl<P: Key, R: Key> DomainRecord<P, R> {
    /// What each policy and each row takes, in bytes.
    fn weights(&self) -> impl Iterator<Item = usize> {
        let rows = self.policies.iter().flat_map(|of| of.rows.iter().map(|(row, _)| row).chain(&of.cut));
        let policies = self.policies.iter().map(|of| &of.policy).chain(&self.cut);
        policies.map(weight).chain(rows.map(weight))
    }
}

/// Parts as they are written. Lengths are judged by what things take in memory, which is always more.
struct Parts<P, R> {
    done: Vec<Vec<u8>>,
    part: PartRecord<P, R>,
    bytes: usize,
}

/// What a header or a row takes at most beside its keys, in bytes.
const COUNTS_BYTES: usize = 64;

impl<P: Key, R: Key> Parts<P, R> {
    fn new(day: u64, untold: u64, cut: Option<String>) -> Self {
        let bytes = COUNTS_BYTES + cut.as_ref().map_or(0, String::len);
        Parts { done: Vec::new(), part: PartRecord { day, untold, cut, domains: Vec::new() }, bytes }
    }

    fn domain(&mut self, name: &str, untold: u64, cut: Option<&P>) {
        self.make_room(COUNTS_BYTES + name.len() + cut.map_or(0, weight));
        self.part.domains.push(DomainRecord { name: name.to_owned(), untold, cut: cut.cloned(), policies: Vec::new() });
    }

    fn policy<K: Kind<Policy = P, Row = R>>(&mut self, policy: &P, of: &Policy<K>) {
        let domain = self.part.domains.last().map(|domain| domain.name.clone());
        let cut = of.rows.cut();
        if self.make_room(COUNTS_BYTES + weight(policy) + cut.map_or(0, weight)) {
            self.domain(&domain.unwrap_or_default(), 0, None);
        }
        let (well, badly, unlisted) = (of.well, of.badly, of.rows.dropped());
        let of = PolicyRecord { policy: policy.clone(), well, badly, unlisted, cut: cut.cloned(), rows: Vec::new() };
        if let Some(domain) = self.part.domains.last_mut() {
            domain.policies.push(of);
        }
    }

    fn row(&mut self, row: &R, count: u64) {
        let domain = self.part.domains.last();
        let above = domain.and_then(|domain| Some((domain.name.clone(), domain.policies.last()?.policy.clone())));
        let Some((name, policy)) = above else { return };
        if self.make_room(COUNTS_BYTES + weight(row)) {
            self.domain(&name, 0, None);
            self.bytes += COUNTS_BYTES + weight(&policy);
            let of = PolicyRecord { policy, well: 0, badly: 0, unlisted: 0, cut: None, rows: Vec::new() };
            if let Some(domain) = self.part.domains.last_mut() {
                domain.policies.push(of);
            }
        }
        if let Some(policy) = self.part.domains.last_mut().and_then(|domain| domain.policies.last_mut()) {
            policy.rows.push((row.clone(), count));
        }
    }

    /// Begins a new part if these bytes don't fit; says whether it did.
    fn make_room(&mut self, bytes: usize) -> bool {
        let is_full = self.bytes + bytes > PART_MAX_BYTES;
        if is_full {
            self.write();
            self.bytes = COUNTS_BYTES;
        }
        self.bytes += bytes;
        is_full
    }

    fn write(&mut self) {
        let next = PartRecord { day: self.part.day, untold: 0, cut: None, domains: Vec::new() };
        self.done.push(versioned_encode(PART_VERSION, &std::mem::replace(&mut self.part, next)));
    }

    fn end(mut self) -> Vec<Vec<u8>> {
        self.write();
        self.done
    }
}

fn weight<T: Weighed>(key: &T) -> usize {
    size_of::<T>() + key.heap_bytes()
}

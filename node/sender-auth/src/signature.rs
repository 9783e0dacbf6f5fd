//! Signatures as a message has them, of DKIM and of ARC alike (RFC 6376, section 3.5; RFC 8617, section 4.1), and the digest
//! that each is over. Whether they are right is for the key to say.

use std::collections::BTreeMap;
use std::ops::Range;

use aws_lc_rs::digest::{Context, Digest, SHA256};
use mailraft_message::header::Field;

use crate::canonical::{BodyDigests, Canonical};
use crate::dns::{Asker, Dns};
use crate::domain::Domain;
use crate::keys::{Algorithm, Key, KeyRefusal};
use crate::limits::{SIGNATURE_FIELD_MAX_BYTES, SIGNED_FIELDS_MAX};
use crate::tags::{Tags, colons};

/// Which fields of a header signatures name, and where they stand, in order.
pub(crate) type Signed = BTreeMap<Vec<u8>, Vec<Range<usize>>>;

/// A signature over fields and a body, with the digest over its fields.
pub(crate) struct Signature {
    pub(crate) signer: Signer,
    pub(crate) digest: Digest,
    body: Canonical,
    body_hash: Vec<u8>,
    length: Option<u64>,
    /// Of `i=`: in or below the domain.
    identity: Option<Domain>,
    expires_at: Option<u64>,
    /// Whether the message has a From that it is not over.
    leaves_from: bool,
}

/// Who signed, and how.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) domain: Domain,
    pub(crate) selector: Domain,
    pub(crate) algorithm: Algorithm,
    pub(crate) signature: Vec<u8>,
    /// Its first letters as they are written, by which one is told from another (RFC 6008).
    pub(crate) begins: String,
}

/// What a signature field says, before its fields are looked up.
pub(crate) struct Parsed {
    signer: Signer,
    fields: Canonical,
    body: Canonical,
    body_hash: Vec<u8>,
    names: Vec<Vec<u8>>,
    length: Option<u64>,
    identity: Option<Domain>,
    expires_at: Option<u64>,
}

/// What a signature belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// DKIM-Signature.
    Dkim,
    /// ARC-Message-Signature.
    Arc,
}

/// Why a signature proves nothing, whatever its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It is not of the grammar.
    Unreadable,
    /// It is made in a way that is not known, or no longer proves anything.
    Algorithm,
    /// It leaves From out.
    FromUnsigned,
    /// It names more fields than are looked up, or is longer than is read.
    TooMuch,
}

/// What came of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    Right,
    WrongBody,
    WrongSignature,
    /// Part of the body may be anyone's.
    PartOfBody,
    /// A From may be anyone's.
    AnotherFrom,
    Expired,
    /// Its identity is not one that the key may sign for.
    Identity,
    NoKey,
    Unusable,
    Revoked,
    KeyTooShort,
    KeyTooLong,
    NoAnswer,
}

impl Signer {
    /// Reads what DKIM-Signature, ARC-Message-Signature and ARC-Seal have in common.
    pub(crate) fn parse(tags: &Tags<'_>) -> Result<Self, Flaw> {
        let algorithm = tags.text("a").ok_or(Flaw::Unreadable)?;
        let algorithm = Algorithm::parse(&algorithm.to_ascii_lowercase()).ok_or(Flaw::Algorithm)?;
        let domain = tags.text("d").and_then(Domain::of_host).ok_or(Flaw::Unreadable)?;
        let selector = tags.text("s").and_then(Domain::parse).ok_or(Flaw::Unreadable)?;
        let signature = tags.base64("b").filter(|b| !b.is_empty()).ok_or(Flaw::Unreadable)?;
        let written = tags.bytes("b").unwrap_or_default().iter().filter(|b| !b.is_ascii_whitespace());
        let begins = written.take(8).map(|b| char::from(*b)).collect();
        Ok(Signer { domain, selector, algorithm, signature, begins })
    }

    /// Whether its key made the signature over this digest.
    pub(crate) async fn checks<D: Dns>(
        &self,
        dns: &Asker<'_, D>,
        digest: &Digest,
        identity: Option<&Domain>,
    ) -> Checked {
        let Some(name) = self.domain.below(&format!("{}._domainkey", self.selector)) else { return Checked::NoKey };
        let records = match dns.txt(name.as_str()).await {
            Ok(records) => records,
            Err(_) => return Checked::NoAnswer,
        };
        let Some(record) = records.first() else { return Checked::NoKey };
        let key = match Key::parse(record) {
            Ok(key) => key,
            Err(KeyRefusal::Unusable) => return Checked::Unusable,
            Err(KeyRefusal::Revoked) => return Checked::Revoked,
            Err(KeyRefusal::TooShort) => return Checked::KeyTooShort,
            Err(KeyRefusal::TooLong) => return Checked::KeyTooLong,
        };
        if key.same_domain && identity.is_some_and(|identity| *identity != self.domain) {
            return Checked::Identity;
        }
        match key.verifies(self.algorithm, digest, &self.signature) {
            Some(true) => Checked::Right,
            Some(false) => Checked::WrongSignature,
            None => Checked::Unusable,
        }
    }
}

impl Parsed {
    /// Reads a signature field. Returns its tags too, by which it is found what of it is not signed.
    pub(crate) fn of<'a>(field: &Field<'a>, kind: Kind) -> (Option<Tags<'a>>, Result<Self, Flaw>) {
        if field.value.len() > SIGNATURE_FIELD_MAX_BYTES {
            return (None, Err(Flaw::TooMuch));
        }
        let tags = Tags::parse(field.value);
        let parsed = tags.as_ref().ok_or(Flaw::Unreadable).and_then(|tags| Parsed::of_tags(tags, kind));
        (tags, parsed)
    }

    fn of_tags(tags: &Tags<'_>, kind: Kind) -> Result<Self, Flaw> {
        let unreadable = Flaw::Unreadable;
        match (kind, tags.text("v")) {
            (Kind::Dkim, Some("1")) | (Kind::Arc, None) => {}
            (Kind::Dkim | Kind::Arc, _) => return Err(unreadable),
        }
        let signer = Signer::parse(tags)?;
        let (fields, body) = match (tags.has("c"), tags.text("c").map(str::to_ascii_lowercase)) {
            (false, _) => (Canonical::Simple, Canonical::Simple),
            (true, None) => return Err(unreadable),
            (true, Some(forms)) => {
                let (fields, body) = forms.split_once('/').unwrap_or((&forms, "simple"));
                (form(fields).ok_or(unreadable)?, form(body).ok_or(unreadable)?)
            }
        };
        let names: Vec<Vec<u8>> = match tags.text("h") {
            Some(list) => colons(list).map(|name| name.to_ascii_lowercase().into_bytes()).collect(),
            None => return Err(unreadable),
        };
        if names.len() > SIGNED_FIELDS_MAX {
            return Err(Flaw::TooMuch);
        }
        if !names.iter().any(|name| name == b"from") {
            return Err(Flaw::FromUnsigned);
        }
        if kind == Kind::Arc && names.iter().any(|name| name == b"arc-seal") {
            return Err(unreadable);
        }
        let identity = match (tags.has("i") && kind == Kind::Dkim, tags.text("i")) {
            (false, _) => None,
            (true, None) => return Err(unreadable),
            (true, Some(identity)) => {
                let domain = identity.rsplit_once('@').and_then(|(_, domain)| Domain::parse(domain));
                Some(domain.filter(|domain| domain.is_within(&signer.domain)).ok_or(unreadable)?)
            }
        };
        if tags.has("q") && !tags.text("q").is_some_and(|ways| colons(ways).any(|way| way == "dns/txt")) {
            return Err(unreadable);
        }
        let number = |name| tags.number(name).map_err(|()| unreadable);
        let body_hash = tags.base64("bh").ok_or(unreadable)?;
        let length = tags.number("l").map_err(|()| unreadable)?;
        let (made_at, expires_at) = (number("t")?, number("x")?);
        if made_at.zip(expires_at).is_some_and(|(made, expires)| expires <= made) {
            return Err(unreadable);
        }
        Ok(Parsed { signer, fields, body, body_hash, names, length, identity, expires_at })
    }

    /// The names of the fields that it signs, in lower case.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.names.iter()
    }

    /// The canonical form of the body, and how much of it is signed.
    pub(crate) fn body(&self) -> (Canonical, Option<u64>) {
        (self.body, self.length)
    }

    /// Takes the digest over the fields that it signs: of each name from the last one up, and itself without its `b=`.
    pub(crate) fn digest(self, block: &[u8], signed: &Signed, field: &Field<'_>, tags: &Tags<'_>) -> Signature {
        let mut digest = Context::new(&SHA256);
        let mut used: BTreeMap<&[u8], usize> = BTreeMap::new();
        for name in &self.names {
            let Some(all) = signed.get(name) else { continue };
            let used = used.entry(name).or_default();
            *used += 1;
            if let Some(range) = all.len().checked_sub(*used).and_then(|at| all.get(at)) {
                self.fields.field(&block[range.clone()], |piece| digest.update(piece));
            }
        }
        unsigned_field(block, field, tags, self.fields, |piece| digest.update(piece));
        let from: &[u8] = b"from";
        let leaves_from = used.get(from).copied().unwrap_or(0) < signed.get(from).map_or(0, Vec::len);
        let Parsed { signer, body, body_hash, length, identity, expires_at, fields: _, names: _ } = self;
        Signature { signer, digest: digest.finish(), body, body_hash, length, identity, expires_at, leaves_from }
    }
}

impl Signature {
    /// Whether it is right, at this time in seconds since 1970-01-01 UTC.
    pub(crate) async fn checks<D: Dns>(&self, dns: &Asker<'_, D>, bodies: &Bodies, now_s: u64) -> Checked {
        if self.expires_at.is_some_and(|at| at < now_s) {
            return Checked::Expired;
        }
        let Some(digests) = bodies.get(&self.body) else { return Checked::WrongBody };
        let whole = match digests.of(self.length) {
            Some((digest, whole)) if digest == self.body_hash => whole,
            Some(_) | None => return Checked::WrongBody,
        };
        match self.signer.checks(dns, &self.digest, self.identity.as_ref()).await {
            Checked::Right if !whole => Checked::PartOfBody,
            // Readers show the upper one, or both (RFC 6376, section 8.15).
            Checked::Right if self.leaves_from => Checked::AnotherFrom,
            checked => checked,
        }
    }
}

/// The digests of a body in the forms that signatures ask for.
pub(crate) type Bodies = BTreeMap<Canonical, BodyDigests>;

/// A field as it is signed by itself: its `b=` empty, without a line end behind it (RFC 6376, section 3.7).
pub(crate) fn unsigned_field(
    block: &[u8],
    field: &Field<'_>,
    tags: &Tags<'_>,
    form: Canonical,
    mut piece: impl FnMut(&[u8]),
) {
    let raw = &block[field.range.clone()];
    let value = memchr::memchr(b':', raw).map_or(raw.len(), |colon| colon + 1);
    let without = match tags.range("b") {
        Some(b) => [&raw[..value + b.start], &raw[value + b.end..]].concat(),
        None => raw.to_vec(),
    };
    let mut out = Vec::with_capacity(without.len());
    form.field(&without, |piece| out.extend_from_slice(piece));
    piece(out.strip_suffix(b"\r\n").unwrap_or(&out));
}

fn form(name: &str) -> Option<Canonical> {
    match name {
        "simple" => Some(Canonical::Simple),
        "relaxed" => Some(Canonical::Relaxed),
        _ => None,
    }
}

//! ARC chains as a message has them, and whether they hold (RFC 8617, section 5.2). They are told, and trusted with nothing:
//! anyone can seal what he likes.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, Digest, SHA256};
use mailraft_message::header::Field;

use crate::canonical::Canonical;
use crate::dns::{Asker, Dns};
use crate::domain::Domain;
use crate::limits::{ARC_SETS_MAX, SIGNATURE_FIELD_MAX_BYTES};
use crate::signature::{Bodies, Checked, Kind, Parsed, Signature, Signed, Signer, unsigned_field};
use crate::tags::Tags;

/// What came of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arc {
    /// There is none.
    None,
    /// It holds; it was sealed last by this domain.
    Pass(Domain),
    /// It does not hold.
    Fail,
    /// The DNS did not answer.
    TempError,
}

/// Fields of ARC sets, each where it stands in the list of fields.
#[derive(Default)]
pub(crate) struct Sets<'a> {
    fields: Vec<(Member, Field<'a>)>,
    too_many: bool,
}

/// A field of a set, in the order in which seals cover them (RFC 8617, section 5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Member {
    /// ARC-Authentication-Results.
    Results,
    /// ARC-Message-Signature.
    Signature,
    /// ARC-Seal.
    Seal,
}

/// What a chain says.
pub(crate) enum Chain {
    None,
    /// It is none that could hold.
    Broken,
    Whole {
        /// The youngest ARC-Message-Signature.
        signature: Box<Signature>,
        /// The oldest first, with what each is over.
        seals: Vec<(Signer, Digest)>,
    },
}

/// A chain whose signed fields are not looked up yet.
pub(crate) struct Draft<'a> {
    parsed: Parsed,
    field: Field<'a>,
    tags: Tags<'a>,
    seals: Vec<(Signer, Digest)>,
}

impl<'a> Sets<'a> {
    /// Keeps a field if it is one of them.
    pub(crate) fn take(&mut self, field: &Field<'a>) {
        let Some(member) = member(field) else { return };
        match self.fields.len() < 3 * ARC_SETS_MAX {
            true => self.fields.push((member, field.clone())),
            false => self.too_many = true,
        }
    }

    /// Reads them; None if there are none, and the error if they are no chain.
    pub(crate) fn draft(self, block: &[u8]) -> Result<Option<Draft<'a>>, ()> {
        if self.fields.is_empty() {
            return Ok(None);
        }
        if self.too_many {
            return Err(());
        }
        let mut sets: BTreeMap<(u64, Member), Field<'a>> = BTreeMap::new();
        for (member, field) in self.fields {
            if sets.insert((instance(&field, member).ok_or(())?, member), field).is_some() {
                return Err(());
            }
        }
        let number = sets.len() / 3;
        let all = [Member::Results, Member::Signature, Member::Seal];
        let expected = (1..=number as u64).flat_map(|instance| all.map(|member| (instance, member)));
        if sets.len() != 3 * number || !sets.keys().copied().eq(expected) {
            return Err(());
        }
        let (mut seals, mut before, mut youngest) = (Vec::new(), Context::new(&SHA256), None);
        for ((instance, member), field) in &sets {
            let whole = |digest: &mut Context| {
                Canonical::Relaxed.field(&block[field.range.clone()], |piece| digest.update(piece));
            };
            match member {
                Member::Results => {}
                Member::Signature => youngest = Some(field.clone()),
                Member::Seal => {
                    let tags = Tags::parse(field.value).ok_or(())?;
                    let says = tags.text("cv").ok_or(())?;
                    let continues = if *instance == 1 { "none" } else { "pass" };
                    if !says.eq_ignore_ascii_case(continues) || tags.has("h") {
                        return Err(());
                    }
                    let signer = Signer::parse(&tags).map_err(drop)?;
                    let mut digest = before.clone();
                    unsigned_field(block, field, &tags, Canonical::Relaxed, |piece| digest.update(piece));
                    seals.push((signer, digest.finish()));
                }
            }
            whole(&mut before);
        }
        let field = youngest.ok_or(())?;
        let (tags, parsed) = Parsed::of(&field, Kind::Arc);
        Ok(Some(Draft { parsed: parsed.map_err(drop)?, tags: tags.ok_or(())?, field, seals }))
    }
}

impl Draft<'_> {
    pub(crate) fn parsed(&self) -> &Parsed {
        &self.parsed
    }

    pub(crate) fn chain(self, block: &[u8], signed: &Signed) -> Chain {
        let signature = Box::new(self.parsed.digest(block, signed, &self.field, &self.tags));
        Chain::Whole { signature, seals: self.seals }
    }
}

/// Which field of a set it is, if it is one.
pub(crate) fn member(field: &Field<'_>) -> Option<Member> {
    let members = [
        ("ARC-Authentication-Results", Member::Results),
        ("ARC-Message-Signature", Member::Signature),
        ("ARC-Seal", Member::Seal),
    ];
    members.into_iter().find(|(name, _)| field.name.eq_ignore_ascii_case(name.as_bytes())).map(|(_, member)| member)
}

/// Which set a field is of.
pub(crate) fn instance(field: &Field<'_>, member: Member) -> Option<u64> {
    if field.value.len() > SIGNATURE_FIELD_MAX_BYTES && member != Member::Results {
        return None;
    }
    let number = match member {
        // What follows is no list of tags.
        Member::Results => {
            let end = memchr::memchr(b';', field.value)?;
            let (name, number) = std::str::from_utf8(&field.value[..end]).ok()?.split_once('=')?;
            number.trim().parse().ok().filter(|_| name.trim() == "i")?
        }
        Member::Signature | Member::Seal => Tags::parse(field.value)?.number("i").ok()??,
    };
    (1..=ARC_SETS_MAX as u64).contains(&number).then_some(number)
}

impl Chain {
    pub(crate) async fn checks<D: Dns>(&self, dns: &Asker<'_, D>, bodies: &Bodies, now_s: u64) -> Arc {
        let (signature, seals) = match self {
            Chain::None => return Arc::None,
            Chain::Broken => return Arc::Fail,
            Chain::Whole { signature, seals } => (signature, seals),
        };
        let went = |checked| match checked {
            Checked::Right => None,
            Checked::NoAnswer => Some(Arc::TempError),
            Checked::WrongBody
            | Checked::WrongSignature
            | Checked::PartOfBody
            | Checked::AnotherFrom
            | Checked::Expired
            | Checked::Identity
            | Checked::NoKey
            | Checked::Unusable
            | Checked::Revoked
            | Checked::KeyTooShort
            | Checked::KeyTooLong => Some(Arc::Fail),
        };
        if let Some(ended) = went(signature.checks(dns, bodies, now_s).await) {
            return ended;
        }
        for (signer, digest) in seals.iter().rev() {
            if let Some(ended) = went(signer.checks(dns, digest, None).await) {
                return ended;
            }
        }
        seals.last().map_or(Arc::Fail, |(signer, _)| Arc::Pass(signer.domain.clone()))
    }
}

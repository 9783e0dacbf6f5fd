//! What a message claims of who sent it: read once, piece by piece, with a bounded part of it in memory.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use aws_lc_rs::digest::{SHA256, digest};
use mailraft_message::envelope::each_address;
use mailraft_message::header::{Field, fields};

use crate::arc::{Chain, Sets};
use crate::canonical::{BodyHash, Canonical};
use crate::dmarc::Authors;
use crate::domain::Domain;
use crate::head::Head;
use crate::limits::{AUTHOR_DOMAINS_MAX, AUTHORS_MAX, SIGNATURES_MAX};
use crate::signature::{Bodies, Flaw, Kind, Parsed, Signature, Signed};

/// Reads a message piece by piece.
#[derive(Default)]
pub struct Reader {
    head: Head,
    body: Option<Body>,
}

/// What is known once the header is whole.
struct Body {
    claims: Claims,
    hashes: Vec<(Canonical, BodyHash)>,
}

/// What a message claims.
pub struct Claims {
    pub(crate) authors: Authors,
    pub(crate) signatures: Vec<Result<Signature, Flaw>>,
    pub(crate) chain: Chain,
    pub(crate) bodies: Bodies,
    /// A number below 100 that is the same each time the message comes.
    pub(crate) sample: u8,
}

impl Claims {
    /// How many signatures are checked.
    pub fn signatures(&self) -> usize {
        self.signatures.len()
    }
}

impl Reader {
    /// The next piece of the message.
    pub fn push(&mut self, mut bytes: &[u8]) {
        if self.body.is_none() {
            let Some(rest) = self.head.push(bytes) else { return };
            bytes = rest;
            self.begin_body();
        }
        if let Some(body) = &mut self.body {
            body.hashes.iter_mut().for_each(|(_, hash)| hash.push(bytes));
        }
    }

    /// What it claims, when all of it was read.
    pub fn finish(mut self) -> Claims {
        if self.body.is_none() {
            self.begin_body();
        }
        let Some(Body { mut claims, hashes }) = self.body else { unreachable!("its body was begun") };
        claims.bodies = hashes.into_iter().map(|(form, hash)| (form, hash.finish())).collect();
        claims
    }

    fn begin_body(&mut self) {
        let (claims, wanted) = read(&self.head.bytes);
        let forms: BTreeSet<Canonical> = wanted.iter().map(|(form, _)| *form).collect();
        let lengths = |form| wanted.iter().filter(move |(of, _)| *of == form).filter_map(|(_, length)| *length);
        let hashes = forms.into_iter().map(|form| (form, BodyHash::new(form, lengths(form).collect()))).collect();
        self.body = Some(Body { claims, hashes });
        self.head = Head::default();
    }
}

/// What a header claims, and the digests of the body that are needed to check it.
fn read(block: &[u8]) -> (Claims, Vec<(Canonical, Option<u64>)>) {
    let (mut found, mut sets, mut from) = (Vec::new(), Sets::default(), Vec::new());
    for field in fields(block) {
        if field.name.eq_ignore_ascii_case(b"DKIM-Signature") && found.len() < SIGNATURES_MAX {
            let (tags, parsed) = Parsed::of(&field, Kind::Dkim);
            found.push((field, tags, parsed));
        } else if field.name.eq_ignore_ascii_case(b"From") {
            from.push(field);
        } else {
            sets.take(&field);
        }
    }
    let draft = sets.draft(block);
    let parsed: Vec<&Parsed> = found
        .iter()
        .filter_map(|(_, _, parsed)| parsed.as_ref().ok())
        .chain(draft.iter().flatten().map(|draft| draft.parsed()))
        .collect();
    let signed = signed_fields(block, &parsed);
    let wanted = parsed.iter().map(|parsed| parsed.body()).collect();
    drop(parsed);
    let signatures = found.into_iter().map(|(field, tags, parsed)| {
        let tags = tags.ok_or(Flaw::Unreadable);
        parsed.and_then(|parsed| Ok(parsed.digest(block, &signed, &field, &tags?)))
    });
    let signatures = signatures.collect();
    let chain = match draft {
        Ok(None) => Chain::None,
        Ok(Some(draft)) => draft.chain(block, &signed),
        Err(()) => Chain::Broken,
    };
    let first = digest(&SHA256, block).as_ref().first().copied().unwrap_or_default();
    let claims = Claims {
        authors: authors(&from),
        signatures,
        chain,
        bodies: Bodies::new(),
        sample: (u16::from(first) * 100 / 256) as u8,
    };
    (claims, wanted)
}

/// Where the fields stand that signatures name, all in one go: a header may have very many.
fn signed_fields(block: &[u8], parsed: &[&Parsed]) -> Signed {
    let names = parsed.iter().flat_map(|parsed| parsed.names());
    let mut signed: Signed = names.map(|name| (name.clone(), Vec::new())).collect();
    if !signed.is_empty() {
        for field in fields(block) {
            if let Some(all) = signed.get_mut(&field.name.to_ascii_lowercase()) {
                all.push(field.range);
            }
        }
    }
    signed
}

fn authors(from: &[Field<'_>]) -> Authors {
    let mut domains: BTreeSet<Domain> = BTreeSet::new();
    let (mut seen, mut clear) = (0, !from.is_empty());
    for field in from {
        let mut named = false;
        each_address(field.value, |address| {
            seen += 1;
            // A group's beginning and end have no host.
            if let Some(host) = address.host {
                named = true;
                match std::str::from_utf8(&host).ok().and_then(Domain::parse) {
                    Some(domain) => drop(domains.insert(domain)),
                    None => clear = false,
                }
            }
            clear &= seen <= AUTHORS_MAX && domains.len() <= AUTHOR_DOMAINS_MAX;
            if clear { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        clear &= named;
        if !clear {
            break;
        }
    }
    if clear { Authors::Domains(domains.into_iter().collect()) } else { Authors::Unclear }
}

#[cfg(test)]
mod tests {
    use mailraft_message::header::HEADER_MAX_BYTES;

    use super::*;

    pub(crate) fn of(message: &str) -> Claims {
        let mut reader = Reader::default();
        reader.push(message.as_bytes());
        reader.finish()
    }

    fn domains(message: &str) -> Option<Vec<String>> {
        match of(message).authors {
            Authors::Domains(domains) => Some(domains.iter().map(ToString::to_string).collect()),
            Authors::Unclear => None,
        }
    }

    #[test]
    fn from_names_domains_or_nobody() {
        let is = |text: &str, wanted: Option<&[&str]>| {
            assert_eq!(domains(text), wanted.map(|all| all.iter().map(|d| (*d).to_owned()).collect()), "{text}");
        };
        is("From: A <a@Example.COM>\r\n\r\n", Some(&["example.com"]));
        is("From: a@b.test, \"x@y.test\" <c@d.test>\r\n\r\n", Some(&["b.test", "d.test"]));
        is("From: a@b.test\r\nFrom: c@d.test\r\n\r\n", Some(&["b.test", "d.test"]));
        is("Subject: x\r\n\r\nFrom: a@b.test\r\n", None);
        is("From: somebody\r\n\r\n", None);
        is("From: a@b.test\r\nFrom: undisclosed:;\r\n\r\n", None);
        is("From: a@[192.0.2.1]\r\n\r\n", None);
        let many: String = (0..=AUTHOR_DOMAINS_MAX).map(|n| format!("a@b{n}.test,")).collect();
        is(&format!("From: {many}\r\n\r\n"), None);
        let many = "a@b.test,".repeat(AUTHORS_MAX + 1);
        is(&format!("From: {many}\r\n\r\n"), None);
    }

    #[test]
    fn of_a_thousand_signatures_the_first_are_looked_at() {
        let message = format!("{}From: a@b.test\r\n\r\n", "DKIM-Signature: v=1\r\n".repeat(1_000));
        assert_eq!(of(&message).signatures.len(), SIGNATURES_MAX);
    }

    #[test]
    fn pieces_make_no_difference() {
        let message = "From: a@b.test\r\nDKIM-Signature: v=1; a=rsa-sha256; d=b.test; s=s; h=from; b=YQ==; bh=YQ==\r\n\r\nbody\r\n";
        let whole = of(message);
        for size in [1, 2, 7, 64] {
            let mut reader = Reader::default();
            message.as_bytes().chunks(size).for_each(|piece| reader.push(piece));
            let claims = reader.finish();
            assert_eq!(claims.authors, whole.authors);
            let digests = |claims: &Claims| {
                let signature = claims.signatures[0].as_ref().ok().unwrap();
                (signature.digest.as_ref().to_vec(), claims.bodies[&Canonical::Simple].of(None).unwrap().0.to_vec())
            };
            assert_eq!(digests(&claims), digests(&whole));
        }
    }

    #[test]
    fn a_header_that_never_ends_is_not_kept() {
        let mut reader = Reader::default();
        for _ in 0..40 {
            reader.push(&b"X: y\r\n".repeat(10_000));
        }
        assert!(reader.head.bytes.capacity() <= 4 * HEADER_MAX_BYTES);
        assert_eq!(reader.finish().authors, Authors::Unclear);
    }
}

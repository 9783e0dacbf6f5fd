//! Seals a message that goes on to another domain (RFC 8617, section 5.1): what came of its check on arrival is told in one more set
//! of fields, which is signed by the domain that forwards it.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use mailraft_message::header::{Field, fields};

use crate::arc::{Member, instance, member};
use crate::canonical::Canonical;
use crate::limits::ARC_SETS_MAX;
use crate::sign::{Covered, Folded, SignRefusal, Signer, Signing, Times, signature};
use crate::tags::Tags;

/// What was found out of a message when it came, as our own Authentication-Results field tells it ([`crate::Verdict::field`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Who found it out, and the results: all of the field's value.
    results: String,
    chain: ArrivedChain,
}

/// What came of its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ArrivedChain {
    None,
    Pass,
    Fail,
}

impl ArrivedChain {
    /// In `cv=` (RFC 8617, section 4.1.3).
    fn as_str(self) -> &'static str {
        match self {
            ArrivedChain::None => "none",
            ArrivedChain::Pass => "pass",
            ArrivedChain::Fail => "fail",
        }
    }
}

impl Arrived {
    /// Of a message with this header, if it begins with our own field: fields in our name that others wrote were taken out, and ours
    /// went before all others. None if it was not checked, or the DNS did not answer about its chain.
    pub fn read(header: &[u8]) -> Option<Self> {
        let field = fields(header).next().filter(|first| first.range.start == 0)?;
        let is_results = field.name.eq_ignore_ascii_case(b"Authentication-Results");
        let results = std::str::from_utf8(field.value).ok().filter(|_| is_results)?.trim();
        // No value that we write has a semicolon in it.
        let of_chain = results.split(';').skip(1).filter_map(|result| result.trim().strip_prefix("arc=")).next();
        let chain = match of_chain.map(|result| result.split_ascii_whitespace().next().unwrap_or_default()) {
            None => ArrivedChain::None,
            Some("pass") => ArrivedChain::Pass,
            Some("fail") => ArrivedChain::Fail,
            Some(_) => return None,
        };
        Some(Arrived { results: results.to_owned(), chain })
    }
}

impl Signing {
    /// The fields of one more set with their line ends, when all of the message was read; they go before it. None if it gets no more:
    /// its chain was told to have failed already (RFC 8617, section 5.1), has [`ARC_SETS_MAX`] sets, or is not the one that was checked.
    ///
    /// # Errors
    /// If it can't be signed.
    pub fn seal(self, signer: &Signer<'_>, arrived: &Arrived, made_unix_s: u64) -> Result<Option<String>, SignRefusal> {
        let (header, body) = self.into_read()?;
        let Some(sets) = Sets::read(&header, arrived.chain) else { return Ok(None) };
        let number = sets.last + 1;
        let covered = Covered::of(&header, &body, &["DKIM-Signature"]).ok_or(SignRefusal::NoAuthor)?;
        let times = Times { made_unix_s: Some(made_unix_s), expires_unix_s: None };
        let first_tag = format!("i={number};");
        let results = format!("ARC-Authentication-Results: {first_tag} {}\r\n", arrived.results);
        let message = signature(("ARC-Message-Signature", &first_tag), signer, times, &covered)?;
        let mut digest = sets.digest;
        for field in [&results, &message] {
            Canonical::Relaxed.field(field.as_bytes(), |piece| digest.update(piece));
        }
        let mut seal = Folded::begun("ARC-Seal");
        seal.word(" ", &first_tag);
        seal.word(" ", &format!("a={};", signer.key.algorithm().as_str()));
        seal.word(" ", &format!("cv={};", arrived.chain.as_str()));
        seal.signer(signer);
        seal.word(" ", &format!("t={made_unix_s};"));
        Ok(Some(seal.signed(signer, digest)? + &message + &results))
    }
}

/// The sets that a message has.
struct Sets {
    /// The number of the last one, 0 if there are none.
    last: u64,
    /// Over those that the next seal covers.
    digest: Context,
}

impl Sets {
    /// None if there is to be no further one.
    fn read(header: &[u8], chain: ArrivedChain) -> Option<Self> {
        let mut sets: BTreeMap<(u64, Member), Field<'_>> = BTreeMap::new();
        let mut has_any = false;
        for field in fields(header) {
            let Some(member) = member(&field) else { continue };
            has_any = true;
            if let Some(number) = instance(&field, member) {
                sets.insert((number, member), field);
            }
        }
        let last = sets.keys().map(|(number, _)| *number).max().unwrap_or_default();
        if has_any != (chain != ArrivedChain::None) || last >= ARC_SETS_MAX as u64 {
            return None;
        }
        let mut digest = Context::new(&SHA256);
        match chain {
            ArrivedChain::None => {}
            ArrivedChain::Pass => {
                for field in sets.values() {
                    Canonical::Relaxed.field(&header[field.range.clone()], |piece| digest.update(piece));
                }
            }
            // The seal is over its own set alone (section 5.1.2), and who told so before is not told again.
            ArrivedChain::Fail => {
                let seal = sets.get(&(last, Member::Seal)).and_then(|field| Tags::parse(field.value));
                if seal.is_some_and(|tags| tags.text("cv").is_some_and(|cv| cv.eq_ignore_ascii_case("fail"))) {
                    return None;
                }
            }
        }
        Some(Sets { last, digest })
    }
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;

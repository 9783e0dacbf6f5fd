//! Signs a message that goes to another server (RFC 6376, section 5; RFC 8301, 8463), read once, piece by piece.

use aws_lc_rs::digest::{Context, SHA256};
use base64::prelude::{BASE64_STANDARD, Engine};
use mailraft_message::header::fields;

use crate::canonical::{BodyDigests, BodyHash, Canonical};
use crate::domain::Domain;
use crate::head::Head;
use crate::limits::SAME_FIELDS_SIGNED_MAX;
use crate::signing_key::{KeyError, SigningKey};

/// Fields that are signed, and once more than they are there: nobody on the way can add one (RFC 6376, section 8.15).
pub const OVERSIGNED: [&str; 16] = [
    "From",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Reply-To",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
    "Content-ID",
    "Content-Description",
    "Content-Language",
];
/// Fields that are signed as often as they are there. A list on the way adds its own, and the signature holds.
pub const SIGNED: [&str; 17] = [
    "Sender",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Date",
    "Resent-Message-ID",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
    "Auto-Submitted",
    "TLS-Required",
];
/// Lines of a signature field are shorter than this, in octets, but for a domain or a selector that is long itself.
const LINE_OCTETS: usize = 78;

/// A key and whose it is.
pub struct Signer<'a> {
    /// The domain that signs.
    pub domain: &'a Domain,
    /// Where its key is published: at SELECTOR._domainkey.DOMAIN.
    pub selector: &'a Domain,
    /// The key.
    pub key: &'a SigningKey,
}

/// What a signature says of its time, in seconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When it was made (`t=`).
    pub made_unix_s: Option<u64>,
    /// When it ends (`x=`), later than that.
    pub expires_unix_s: Option<u64>,
}

/// Why a message is not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignRefusal {
    /// It has a longer header than a message may have.
    #[error("the message's header is longer than a message may have it: it can't be signed")]
    HeaderTooLong,
    /// It has no author (RFC 6376, section 5.4), or more fields that name one than are signed.
    #[error("the message has no From field, or too many: it can't be signed")]
    NoAuthor,
    /// The key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Reads a message for its signatures.
#[derive(Default)]
pub struct Signing {
    head: Head,
    body: Option<BodyHash>,
}

impl Signing {
    /// The next piece of the message.
    pub fn push(&mut self, bytes: &[u8]) {
        match &mut self.body {
            Some(body) => body.push(bytes),
            None => {
                if let Some(rest) = self.head.push(bytes) {
                    let mut body = BodyHash::new(Canonical::Relaxed, Vec::new());
                    body.push(rest);
                    self.body = Some(body);
                }
            }
        }
    }

    /// A DKIM-Signature field with its line end for each signer, when all of the message was read. They go before it in any order:
    /// none covers another.
    ///
    /// # Errors
    /// If it can't be signed.
    pub fn finish(self, signers: &[Signer<'_>], times: Times) -> Result<Vec<String>, SignRefusal> {
        let (header, body) = self.into_read()?;
        let covered = Covered::of(&header, &body, &[]).ok_or(SignRefusal::NoAuthor)?;
        signers.iter().map(|signer| Ok(signature(("DKIM-Signature", "v=1;"), signer, times, &covered)?)).collect()
    }

    /// The header, and digests of the body.
    pub(crate) fn into_read(self) -> Result<(Vec<u8>, BodyDigests), SignRefusal> {
        let Signing { head, body } = self;
        if body.is_none() && head.is_full() {
            return Err(SignRefusal::HeaderTooLong);
        }
        Ok((head.bytes, body.unwrap_or_else(|| BodyHash::new(Canonical::Relaxed, Vec::new())).finish()))
    }
}

/// What a signature covers.
pub(crate) struct Covered {
    /// The names that are signed, in the order of `h=`.
    names: Vec<&'static str>,
    /// The canonical fields that they stand for.
    fields: Vec<u8>,
    /// The digest of the body, in base64.
    body_hash: String,
}

impl Covered {
    /// Of a message with this header: what is signed of every message, and these fields as often as they are there. None if From is not
    /// among it wholly.
    pub(crate) fn of(header: &[u8], body: &BodyDigests, others: &[&'static str]) -> Option<Self> {
        let (names, fields) = covered(header, others)?;
        let (body_hash, _) = body.of(None).unwrap_or_default();
        Some(Covered { names, fields, body_hash: BASE64_STANDARD.encode(body_hash) })
    }
}

/// The names that are signed, and the canonical fields that they stand for. None if From is not among them wholly.
fn covered(header: &[u8], others: &[&'static str]) -> Option<(Vec<&'static str>, Vec<u8>)> {
    let all: Vec<_> = fields(header).collect();
    let (mut names, mut canonical) = (Vec::new(), Vec::new());
    let lists = [(&OVERSIGNED[..], 1), (&SIGNED[..], 0), (others, 0)];
    for (name, more) in lists.into_iter().flat_map(|(list, more)| list.iter().map(move |name| (*name, more))) {
        // From the last one up (RFC 6376, section 5.4.2).
        let found = all.iter().rev().filter(|field| field.name.eq_ignore_ascii_case(name.as_bytes()));
        let mut number = 0;
        for field in found.take(SAME_FIELDS_SIGNED_MAX + 1) {
            number += 1;
            if number <= SAME_FIELDS_SIGNED_MAX {
                let whole = &header[field.range.clone()];
                Canonical::Relaxed.field(whole, |piece| canonical.extend_from_slice(piece));
            }
        }
        if name == "From" && !(1..=SAME_FIELDS_SIGNED_MAX).contains(&number) {
            return None;
        }
        // One more than is there stands for none. Where not all are signed, there is no sense in it.
        let times = if number > SAME_FIELDS_SIGNED_MAX { SAME_FIELDS_SIGNED_MAX } else { number + more };
        names.extend(std::iter::repeat_n(name, times));
    }
    Some((names, canonical))
}

/// A signature field with its line end, of this name and first tag: what it covers, and itself.
pub(crate) fn signature(
    (name, first_tag): (&str, &str),
    signer: &Signer<'_>,
    times: Times,
    covered: &Covered,
) -> Result<String, KeyError> {
    let mut out = Folded::begun(name);
    out.word(" ", first_tag);
    out.word(" ", &format!("a={};", signer.key.algorithm().as_str()));
    out.word(" ", "c=relaxed/relaxed;");
    out.signer(signer);
    if let Some(made) = times.made_unix_s {
        out.word(" ", &format!("t={made};"));
    }
    if let Some(expires) = times.expires_unix_s {
        out.word(" ", &format!("x={expires};"));
    }
    for (at, name) in covered.names.iter().enumerate() {
        let end = if at + 1 == covered.names.len() { ";" } else { ":" };
        let (before, begin) = if at == 0 { (" ", "h=") } else { ("", "") };
        out.word(before, &format!("{begin}{}{end}", name.to_ascii_lowercase()));
    }
    out.word(" ", &format!("bh={};", covered.body_hash));
    let mut digest = Context::new(&SHA256);
    digest.update(&covered.fields);
    out.signed(signer, digest)
}

/// A field that is folded as it grows.
pub(crate) struct Folded {
    text: String,
    column: usize,
}

impl Folded {
    /// A field of this name.
    pub(crate) fn begun(name: &str) -> Self {
        Folded { text: format!("{name}:"), column: name.len() + 1 }
    }

    /// Whose key signs it.
    pub(crate) fn signer(&mut self, signer: &Signer<'_>) {
        self.word(" ", &format!("d={};", signer.domain));
        self.word(" ", &format!("s={};", signer.selector));
    }

    /// Signs it, behind what is in this digest already, and ends it.
    pub(crate) fn signed(mut self, signer: &Signer<'_>, mut digest: Context) -> Result<String, KeyError> {
        self.line("b=");
        let mut own = Vec::new();
        Canonical::Relaxed.field(format!("{}\r\n", self.text).as_bytes(), |piece| own.extend_from_slice(piece));
        digest.update(own.strip_suffix(b"\r\n").unwrap_or(&own));
        let coded = BASE64_STANDARD.encode(signer.key.sign(&digest.finish())?);
        let mut rest = coded.as_str();
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(LINE_OCTETS - 1 - self.column));
            self.text.push_str(piece);
            rest = behind;
            if !rest.is_empty() {
                self.line("");
            }
        }
        self.text.push_str("\r\n");
        Ok(self.text)
    }

    /// A word behind this, or on the next line if it does not fit.
    pub(crate) fn word(&mut self, before: &str, word: &str) {
        if self.column + before.len() + word.len() >= LINE_OCTETS {
            self.line(word);
        } else {
            self.text.push_str(before);
            self.text.push_str(word);
            self.column += before.len() + word.len();
        }
    }

    fn line(&mut self, word: &str) {
        self.text.push_str("\r\n\t");
        self.text.push_str(word);
        self.column = 1 + word.len();
    }
}

#[cfg(test)]
#[path = "sign_tests.rs"]
mod tests;

//! What came of a message's DKIM signatures (RFC 6376, section 6), in the words of RFC 8601, section 2.7.1.

use serde::{Deserialize, Serialize};

use crate::domain::Domain;
use crate::keys::Algorithm;
use crate::signature::{Checked, Flaw, Signature};

/// What came of a signature. Kept in records: variants are only ever added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DkimResult {
    /// It is right.
    Pass,
    /// It is not.
    Fail,
    /// It may be right, and is not enough for us.
    Policy,
    /// It can't be understood.
    Neutral,
    /// The DNS did not answer.
    TempError,
    /// It can't be checked, now or later.
    PermError,
}

/// A signature and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dkim {
    /// What came of it.
    pub result: DkimResult,
    /// Why, in a few words; none where it is right.
    pub reason: &'static str,
    /// Who signed.
    pub domain: Option<Domain>,
    /// The key's name.
    pub selector: Option<Domain>,
    /// How it was signed.
    pub algorithm: Option<Algorithm>,
    /// The signature's first letters (RFC 6008).
    pub begins: String,
}

impl Dkim {
    pub(crate) fn flawed(flaw: Flaw) -> Self {
        let (result, reason) = match flaw {
            Flaw::Unreadable => (DkimResult::Neutral, "the signature can't be understood"),
            Flaw::Algorithm => (DkimResult::Policy, "neither rsa-sha256 nor ed25519-sha256"),
            Flaw::FromUnsigned => (DkimResult::PermError, "From is not signed"),
            Flaw::TooMuch => (DkimResult::Policy, "the signature is too long"),
        };
        Dkim { result, reason, domain: None, selector: None, algorithm: None, begins: String::new() }
    }

    pub(crate) fn checked(signature: &Signature, checked: Checked) -> Self {
        let (result, reason) = match checked {
            Checked::Right => (DkimResult::Pass, ""),
            Checked::WrongBody => (DkimResult::Fail, "the body is another"),
            Checked::WrongSignature => (DkimResult::Fail, "the signature is wrong"),
            Checked::PartOfBody => (DkimResult::Policy, "part of the body is not signed"),
            Checked::AnotherFrom => (DkimResult::Policy, "another From is not signed"),
            Checked::Expired => (DkimResult::Fail, "the signature has expired"),
            Checked::Identity => (DkimResult::PermError, "the key is not for this identity"),
            Checked::NoKey => (DkimResult::PermError, "no key"),
            Checked::Unusable => (DkimResult::PermError, "the key can't be used"),
            Checked::Revoked => (DkimResult::PermError, "the key is revoked"),
            Checked::KeyTooShort => (DkimResult::Policy, "the key is too short"),
            Checked::KeyTooLong => (DkimResult::Policy, "the key is too long"),
            Checked::NoAnswer => (DkimResult::TempError, "the DNS did not answer"),
        };
        let signer = &signature.signer;
        Dkim {
            result,
            reason,
            domain: Some(signer.domain.clone()),
            selector: Some(signer.selector.clone()),
            algorithm: Some(signer.algorithm),
            begins: signer.begins.clone(),
        }
    }
}

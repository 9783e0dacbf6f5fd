//! The Authentication-Results field (RFC 8601).
//!
//! Of what a sender wrote only domains and dot-atoms stand in it, addresses and the first letters of signatures: nothing that
//! could end a value, a comment, a line or the field. What is not of that kind is left out.

use std::fmt::Write;
use std::net::IpAddr;

use crate::arc::Arc;
use crate::dkim::DkimResult;
use crate::dmarc::{DmarcResult, Policy};
use crate::domain::Domain;
use crate::iprev::Iprev;
use crate::limits::TOLD_ADDRESS_MAX_BYTES;
use crate::spf::SpfResult;
use crate::verdict::{Envelope, Verdict};

impl Verdict {
    /// The Authentication-Results field with its line end, in the name of `host`.
    ///
    /// # Panics
    /// If `host` is no host's name.
    pub fn field(&self, host: &str, envelope: &Envelope) -> String {
        assert!(Domain::parse(host).is_some(), "{host:?} is no host's name");
        let mut out = format!("Authentication-Results: {host}");
        iprev(&mut out, envelope, self);
        spf(&mut out, envelope, self);
        dkim(&mut out, self);
        dmarc(&mut out, self);
        match &self.arc {
            Arc::None => {}
            Arc::Pass(sealer) => put(&mut out, format_args!("arc=pass header.d={sealer}")),
            Arc::Fail => put(&mut out, format_args!("arc=fail")),
            Arc::TempError => put(&mut out, format_args!("arc=temperror")),
        }
        out.push_str("\r\n");
        out
    }
}

fn put(out: &mut String, result: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = write!(out, ";\r\n\t{result}");
}

fn iprev(out: &mut String, envelope: &Envelope, verdict: &Verdict) {
    let result = match &verdict.iprev {
        Iprev::Pass(name) => format!("pass ({name})"),
        Iprev::Fail => "fail".to_owned(),
        Iprev::TempError => "temperror".to_owned(),
        Iprev::PermError => "permerror".to_owned(),
    };
    match envelope.address {
        IpAddr::V4(v4) => put(out, format_args!("iprev={result} policy.iprev={v4}")),
        // A colon stands in quotes alone (RFC 2045, section 5.1).
        IpAddr::V6(v6) => put(out, format_args!("iprev={result} policy.iprev=\"{v6}\"")),
    }
}

fn spf(out: &mut String, envelope: &Envelope, verdict: &Verdict) {
    let result = match verdict.spf {
        SpfResult::None => "none",
        SpfResult::Neutral => "neutral",
        SpfResult::Pass => "pass",
        SpfResult::Fail => "fail",
        SpfResult::SoftFail => "softfail",
        SpfResult::TempError => "temperror",
        SpfResult::PermError => "permerror",
    };
    let property = match (&verdict.spf_domain, &envelope.reverse_path) {
        (None, _) => String::new(),
        (Some(domain), None) => format!(" smtp.helo={domain}"),
        (Some(domain), Some((local, _))) if is_dot_atom(local) => {
            let address = format!("{local}@{domain}");
            let told = if address.len() <= TOLD_ADDRESS_MAX_BYTES { &address } else { domain.as_str() };
            format!(" smtp.mailfrom={told}")
        }
        (Some(domain), Some(_)) => format!(" smtp.mailfrom={domain}"),
    };
    put(out, format_args!("spf={result}{property}"));
}

fn dkim(out: &mut String, verdict: &Verdict) {
    if verdict.dkim.is_empty() {
        put(out, format_args!("dkim=none"));
    }
    for dkim in &verdict.dkim {
        let result = match dkim.result {
            DkimResult::Pass => "pass",
            DkimResult::Fail => "fail",
            DkimResult::Policy => "policy",
            DkimResult::Neutral => "neutral",
            DkimResult::TempError => "temperror",
            DkimResult::PermError => "permerror",
        };
        let mut text = format!("dkim={result}");
        if !dkim.reason.is_empty() {
            let _ = write!(text, " reason=\"{}\"", dkim.reason);
        }
        if let Some(domain) = &dkim.domain {
            let _ = write!(text, " header.d={domain}");
        }
        if let Some(selector) = &dkim.selector {
            let _ = write!(text, " header.s={selector}");
        }
        if let Some(algorithm) = dkim.algorithm {
            let _ = write!(text, " header.a={}", algorithm.as_str());
        }
        let is_base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
        if !dkim.begins.is_empty() && dkim.begins.bytes().all(is_base64) {
            let _ = write!(text, " header.b=\"{}\"", dkim.begins);
        }
        put(out, format_args!("{text}"));
    }
}

fn dmarc(out: &mut String, verdict: &Verdict) {
    let result = match verdict.dmarc.result {
        DmarcResult::None => "none",
        DmarcResult::Pass => "pass",
        DmarcResult::Fail => "fail",
        DmarcResult::TempError => "temperror",
        DmarcResult::PermError => "permerror",
    };
    let policy = match verdict.dmarc.published {
        None => "",
        Some(Policy::None) => " (p=none)",
        Some(Policy::Quarantine) => " (p=quarantine)",
        Some(Policy::Reject) => " (p=reject)",
    };
    match &verdict.dmarc.domain {
        Some(domain) => put(out, format_args!("dmarc={result}{policy} header.from={domain}")),
        None => put(out, format_args!("dmarc={result}{policy}")),
    }
}

/// RFC 5322, section 3.2.3, in ASCII.
fn is_dot_atom(text: &str) -> bool {
    let is_atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    text.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext))
}

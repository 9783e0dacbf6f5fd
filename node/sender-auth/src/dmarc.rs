//! What the domain in From wants done with mail that can't be shown to be its own (DMARC, RFC 7489).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::dkim::{Dkim, DkimResult};
use crate::dns::{Asker, Dns, NoAnswer};
use crate::domain::Domain;
use crate::limits::RECORD_MAX_BYTES;
use crate::spf::SpfResult;
use crate::tags::{Tags, colons};

/// What a domain wants done. Kept in records: variants are only ever added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Policy {
    /// Nothing.
    None,
    /// It is suspicious.
    Quarantine,
    /// It is refused.
    Reject,
}

/// What came of it (RFC 7489, section 11.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DmarcResult {
    /// The domain publishes no policy.
    None,
    /// The mail is the domain's own.
    Pass,
    /// The DNS did not answer.
    TempError,
    /// From names nobody that could be asked.
    PermError,
    /// Nothing shows that the mail is the domain's own.
    Fail,
}

/// The result for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dmarc {
    /// The result.
    pub result: DmarcResult,
    /// The domain in From that it is about.
    pub domain: Option<Domain>,
    /// What that domain publishes for such mail.
    pub published: Option<Policy>,
    /// What it wants done with this message: nothing, unless it failed; less than published for part of all messages, if the
    /// domain says so (`pct`).
    pub wanted: Policy,
    /// What was gone by, if there is a record: for a report about it.
    pub basis: Option<Basis>,
}

/// What a message was judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basis {
    /// Where the record stands: the author's domain, or its organisation's.
    pub at: Domain,
    /// The record.
    pub record: DmarcRecord,
    /// Whether SPF passed for a domain that is like the author's.
    pub spf_shows: bool,
    /// Whether a signature of such a domain is right.
    pub dkim_shows: bool,
}

/// Who From names, as far as it can be asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authors {
    /// These domains.
    Domains(Vec<Domain>),
    /// Nobody, or somebody who can't be understood, or too many.
    Unclear,
}

/// What other methods showed.
pub(crate) struct Shown<'a> {
    pub(crate) spf: SpfResult,
    /// The domain that SPF was asked about.
    pub(crate) spf_domain: Option<&'a Domain>,
    pub(crate) dkim: &'a [Dkim],
}

/// A domain's policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmarcRecord {
    /// `p`: for the domain itself.
    pub policy: Policy,
    /// `sp`: for domains below it; `p` where it has none.
    pub below: Policy,
    /// `adkim=s`: who signs has to be the author's domain itself.
    pub strict_dkim: bool,
    /// `aspf=s`: so has the domain that SPF is about.
    pub strict_spf: bool,
    /// `pct`: messages of a hundred that it is for.
    pub percent: u8,
    /// `fo`: which failures it wants to hear of; "0" where it has none.
    pub failure_options: String,
    /// `rua`: where it wants aggregate reports.
    pub aggregate_reports_to: Option<String>,
}

/// Why a record does not say what its domain means, whatever is made of it ([`DmarcRecord::published`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DmarcRecordFlaw {
    /// It is no list of tags, or does not begin with `v=DMARC1`.
    #[error("it is no list of tags that begins with v=DMARC1")]
    NoTags,
    /// `p` is missing, or none of its three values.
    #[error("p is none, quarantine or reject")]
    Policy,
    /// So is `sp` or `np`.
    #[error("sp and np are none, quarantine or reject")]
    Below,
    /// `adkim` or `aspf`.
    #[error("adkim and aspf are r or s")]
    Alignment,
    /// `pct`.
    #[error("pct is a number from 0 to 100")]
    Percent,
    /// `fo`.
    #[error("fo is made of 0, 1, d and s with colons between them")]
    FailureOptions,
}

/// The answer for one domain in From: its record, and whether that stands at its organisation's domain.
pub(crate) type Found = Result<Option<(DmarcRecord, Place)>, NoAnswer>;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Itself,
    Organization,
}

impl DmarcRecord {
    /// Reads a record; None if it is none.
    pub(crate) fn parse(record: &[u8]) -> Option<Self> {
        let tags = Some(record).filter(|r| r.len() <= RECORD_MAX_BYTES).and_then(Tags::parse)?;
        if tags.first() != Some("v") || tags.text("v") != Some("DMARC1") {
            return None;
        }
        let policy = |name| match tags.text(name).map(str::to_ascii_lowercase).as_deref() {
            Some("none") => Some(Policy::None),
            Some("quarantine") => Some(Policy::Quarantine),
            Some("reject") => Some(Policy::Reject),
            Some(_) | None => None,
        };
        let (own, below) = (policy("p"), policy("sp"));
        let (own, below) = match own {
            Some(own) if below.is_some() || !tags.has("sp") => (own, below.unwrap_or(own)),
            // Who can't be understood and wants reports has them, and nothing more (RFC 7489, section 6.6.3).
            Some(_) | None if tags.text("rua").is_some_and(|rua| rua.contains(':')) => (Policy::None, Policy::None),
            Some(_) | None => return None,
        };
        let strict = |name| tags.text(name).is_some_and(|mode| mode.eq_ignore_ascii_case("s"));
        let percent = tags.number("pct").ok().flatten().and_then(|percent| u8::try_from(percent).ok());
        let percent = percent.filter(|percent| *percent <= 100).unwrap_or(100);
        Some(DmarcRecord {
            policy: own,
            below,
            strict_dkim: strict("adkim"),
            strict_spf: strict("aspf"),
            percent,
            failure_options: tags.text("fo").unwrap_or("0").to_owned(),
            aggregate_reports_to: tags.text("rua").map(str::to_owned),
        })
    }

    /// Reads a record as its domain should write it: what others would ignore, or guess, is a flaw (RFC 7489, section 6.3).
    ///
    /// # Errors
    /// The first flaw.
    pub fn published(record: &[u8]) -> Result<Self, DmarcRecordFlaw> {
        let tags = Tags::parse(record).ok_or(DmarcRecordFlaw::NoTags)?;
        let is_one_of = |name: &str, values: &[&str]| match tags.text(name) {
            Some(value) => values.iter().any(|one| value.eq_ignore_ascii_case(one)),
            None => !tags.has(name),
        };
        let policies = ["none", "quarantine", "reject"];
        let is_number = |name, max| match tags.number(name) {
            Ok(number) => number.is_none_or(|number| number <= max),
            Err(()) => false,
        };
        let mut options = tags.text("fo").into_iter().flat_map(colons);
        match () {
            () if tags.first() != Some("v") || tags.text("v") != Some("DMARC1") => Err(DmarcRecordFlaw::NoTags),
            () if !tags.has("p") || !is_one_of("p", &policies) => Err(DmarcRecordFlaw::Policy),
            () if !is_one_of("sp", &policies) || !is_one_of("np", &policies) => Err(DmarcRecordFlaw::Below),
            () if !is_one_of("adkim", &["r", "s"]) || !is_one_of("aspf", &["r", "s"]) => {
                Err(DmarcRecordFlaw::Alignment)
            }
            () if !is_number("pct", 100) => Err(DmarcRecordFlaw::Percent),
            () if !options.all(|option| ["0", "1", "d", "s"].contains(&option)) => Err(DmarcRecordFlaw::FailureOptions),
            () => DmarcRecord::parse(record).ok_or(DmarcRecordFlaw::NoTags),
        }
    }

    /// The one record among the TXT records of a name, if there is exactly one, and it can be read (RFC 7489, section 6.6.3).
    pub fn among<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut records = records.into_iter().filter(|record| record.starts_with(b"v=DMARC1"));
        let (Some(record), None) = (records.next(), records.next()) else { return None };
        DmarcRecord::parse(record)
    }
}

/// The name at which a domain's record stands; None if it would be too long.
pub fn dmarc_record_name(domain: &Domain) -> Option<Domain> {
    domain.below("_dmarc")
}

/// Looks a domain's record up, there or at its organisation's domain (RFC 7489, section 6.6.3).
pub(crate) async fn find<D: Dns>(dns: &Asker<'_, D>, domain: &Domain) -> Found {
    let organization = domain.organizational();
    let places = [(domain, Place::Itself), (&organization, Place::Organization)];
    let places = if organization == *domain { &places[..1] } else { &places[..] };
    for (at, place) in places {
        let Some(name) = dmarc_record_name(at) else { continue };
        let mut records = dns.txt(name.as_str()).await?;
        records.retain(|record| record.starts_with(b"v=DMARC1"));
        match records.as_slice() {
            [] => {}
            [record] => return Ok(DmarcRecord::parse(record).map(|record| (record, *place))),
            [_, _, ..] => return Ok(None),
        }
    }
    Ok(None)
}

/// What counts of the results for several authors: the one whose domain wants most, and of those that want the same one that
/// does not pass. So a message passes if all of them do. None where there are none.
pub(crate) fn strictest(judged: impl Iterator<Item = Dmarc>) -> Option<Dmarc> {
    judged.max_by_key(|dmarc| (dmarc.wanted, dmarc.result != DmarcResult::Pass, dmarc.result))
}

/// The result for a domain; `sample`, below 100, says which part of all messages this one is of.
pub(crate) fn judge(domain: &Domain, found: &Found, shown: &Shown<'_>, sample: u8) -> Dmarc {
    let without =
        |result| Dmarc { result, domain: Some(domain.clone()), published: None, wanted: Policy::None, basis: None };
    let (record, place) = match found {
        Ok(Some(found)) => found,
        Ok(None) => return without(DmarcResult::None),
        Err(NoAnswer) => return without(DmarcResult::TempError),
    };
    let published = match place {
        Place::Itself => record.policy,
        Place::Organization => record.below,
    };
    let aligns = |other: &Domain, strict: bool| match strict {
        true => other == domain,
        false => other.organizational() == domain.organizational(),
    };
    let spf_aligns = shown.spf_domain.is_some_and(|spf| aligns(spf, record.strict_spf));
    let dkim = |result: DkimResult| {
        let of = |dkim: &&Dkim| dkim.result == result;
        let mut domains = shown.dkim.iter().filter(of).filter_map(|dkim| dkim.domain.as_ref());
        domains.any(|domain| aligns(domain, record.strict_dkim))
    };
    let at = match place {
        Place::Itself => domain.clone(),
        Place::Organization => domain.organizational(),
    };
    let (spf_shows, dkim_shows) = (spf_aligns && shown.spf == SpfResult::Pass, dkim(DkimResult::Pass));
    let basis = Basis { at, record: record.clone(), spf_shows, dkim_shows };
    let of = |result, wanted| Dmarc {
        result,
        domain: Some(domain.clone()),
        published: Some(published),
        wanted,
        basis: Some(basis.clone()),
    };
    if spf_shows || dkim_shows {
        return of(DmarcResult::Pass, Policy::None);
    }
    // What could have shown it was not heard of.
    if (spf_aligns && shown.spf == SpfResult::TempError) || dkim(DkimResult::TempError) {
        return of(DmarcResult::TempError, Policy::None);
    }
    let wanted = match published {
        wanted if sample < record.percent => wanted,
        Policy::Reject => Policy::Quarantine,
        Policy::Quarantine | Policy::None => Policy::None,
    };
    of(DmarcResult::Fail, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::Zone;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn signed(by: &str, result: DkimResult) -> Dkim {
        Dkim { result, reason: "", domain: Some(domain(by)), selector: None, algorithm: None, begins: String::new() }
    }

    fn result(zone: &str, from: &str, shown: &Shown<'_>, sample: u8) -> Dmarc {
        let (zone, from) = (Zone::read(zone), domain(from));
        let found = zone.run(|dns| find(dns, &from));
        judge(&from, &found, shown, sample)
    }

    #[test]
    fn what_is_shown_counts_where_it_aligns() {
        use DmarcResult::{Fail, None, Pass, TempError};
        let reject = "_dmarc.example.com TXT v=DMARC1; p=reject; sp=quarantine";
        let strict = "_dmarc.example.com TXT v=DMARC1; p=reject; adkim=s; aspf=s; sp=none";
        for (zone, from, spf, signed_by, expected) in [
            (reject, "example.com", Some(("example.com", SpfResult::Pass)), Option::None, (Pass, Policy::None)),
            (reject, "example.com", Some(("bounce.example.com", SpfResult::Pass)), Option::None, (Pass, Policy::None)),
            (reject, "example.com", Some(("example.net", SpfResult::Pass)), Option::None, (Fail, Policy::Reject)),
            (reject, "a.example.com", Option::None, Some(("b.example.com", DkimResult::Pass)), (Pass, Policy::None)),
            (reject, "a.example.com", Option::None, Some(("evil.test", DkimResult::Pass)), (Fail, Policy::Quarantine)),
            (reject, "example.com", Option::None, Some(("example.com", DkimResult::Fail)), (Fail, Policy::Reject)),
            (reject, "example.com", Option::None, Some(("example.com", DkimResult::Policy)), (Fail, Policy::Reject)),
            (
                reject,
                "example.com",
                Option::None,
                Some(("example.com", DkimResult::TempError)),
                (TempError, Policy::None),
            ),
            (reject, "example.com", Option::None, Some(("evil.test", DkimResult::TempError)), (Fail, Policy::Reject)),
            (
                reject,
                "example.com",
                Some(("example.com", SpfResult::TempError)),
                Option::None,
                (TempError, Policy::None),
            ),
            (reject, "example.com", Some(("example.com", SpfResult::SoftFail)), Option::None, (Fail, Policy::Reject)),
            (
                strict,
                "example.com",
                Some(("bounce.example.com", SpfResult::Pass)),
                Option::None,
                (Fail, Policy::Reject),
            ),
            (strict, "example.com", Option::None, Some(("b.example.com", DkimResult::Pass)), (Fail, Policy::Reject)),
            (strict, "example.com", Option::None, Some(("example.com", DkimResult::Pass)), (Pass, Policy::None)),
            (strict, "a.example.com", Option::None, Option::None, (Fail, Policy::None)),
            ("", "example.com", Option::None, Option::None, (None, Policy::None)),
            ("_dmarc.example.com FAIL", "a.example.com", Option::None, Option::None, (TempError, Policy::None)),
            (
                "_dmarc.a.example.com TXT v=DMARC1; p=none\n_dmarc.example.com TXT v=DMARC1; p=reject",
                "a.example.com",
                Option::None,
                Option::None,
                (Fail, Policy::None),
            ),
            (
                "_dmarc.example.com TXT v=DMARC1; p=reject\n_dmarc.example.com TXT v=DMARC1; p=none",
                "example.com",
                Option::None,
                Option::None,
                (None, Policy::None),
            ),
            // Nobody speaks for a public suffix.
            ("_dmarc.co.uk TXT v=DMARC1; p=reject", "a.co.uk", Option::None, Option::None, (None, Policy::None)),
        ] {
            let dkim: Vec<Dkim> = signed_by.iter().map(|(by, result)| signed(by, *result)).collect();
            let spf_domain = spf.map(|(name, _)| domain(name));
            let shown = Shown {
                spf: spf.map_or(SpfResult::None, |(_, result)| result),
                spf_domain: spf_domain.as_ref(),
                dkim: &dkim,
            };
            let found = result(zone, from, &shown, 99);
            assert_eq!((found.result, found.wanted), expected, "{zone} {from} {spf:?} {signed_by:?}");
        }
    }

    #[test]
    fn a_part_of_all_messages_meets_the_policy_and_the_rest_the_next_lesser_one() {
        let nothing = Shown { spf: SpfResult::None, spf_domain: None, dkim: &[] };
        for (policy, sample, wanted) in [
            ("p=reject; pct=20", 19, Policy::Reject),
            ("p=reject; pct=20", 20, Policy::Quarantine),
            ("p=quarantine; pct=20", 19, Policy::Quarantine),
            ("p=quarantine; pct=20", 20, Policy::None),
            ("p=reject; pct=0", 0, Policy::Quarantine),
            ("p=reject; pct=101", 99, Policy::Reject),
            ("p=reject; pct=x", 99, Policy::Reject),
        ] {
            let zone = format!("_dmarc.a.test TXT v=DMARC1; {policy}");
            assert_eq!(result(&zone, "a.test", &nothing, sample).wanted, wanted, "{policy} {sample}");
        }
    }

    #[test]
    fn what_a_message_was_judged_by_is_told_with_where_it_stands() {
        let zone = "_dmarc.example.com TXT v=DMARC1; p=reject; sp=none; adkim=s; pct=7; fo=1:d; rua=mailto:a@b.test";
        let dkim = [signed("a.example.com", DkimResult::Pass)];
        let spf_domain = domain("example.com");
        let shown = Shown { spf: SpfResult::Fail, spf_domain: Some(&spf_domain), dkim: &dkim };
        let basis = result(zone, "a.example.com", &shown, 0).basis.unwrap();
        assert_eq!((basis.at.as_str(), basis.spf_shows, basis.dkim_shows), ("example.com", false, true));
        let record = DmarcRecord {
            policy: Policy::Reject,
            below: Policy::None,
            strict_dkim: true,
            strict_spf: false,
            percent: 7,
            failure_options: "1:d".to_owned(),
            aggregate_reports_to: Some("mailto:a@b.test".to_owned()),
        };
        assert_eq!(basis.record, record);
        let text = zone.split_once("TXT ").unwrap().1.as_bytes();
        assert_eq!(DmarcRecord::among([b"v=spf1 -all".as_slice(), text]), Some(record));
        assert_eq!(DmarcRecord::among([text, text]), Option::None);
        assert_eq!(result("", "a.example.com", &shown, 0).basis, Option::None);
        assert_eq!(dmarc_record_name(&basis.at).unwrap().as_str(), "_dmarc.example.com");
    }

    #[test]
    fn what_others_would_ignore_or_guess_is_a_flaw_of_a_published_record() {
        use DmarcRecordFlaw::{Alignment, Below, FailureOptions, NoTags, Percent, Policy as OfPolicy};
        let all = "v=DMARC1; p=Reject; sp=none; np=reject; adkim=s; aspf=R; pct=0; fo=1:d:s; rua=mailto:a@b.test; x=y;";
        for right in ["v=DMARC1; p=none", all] {
            assert_eq!(DmarcRecord::published(right.as_bytes()).ok(), DmarcRecord::parse(right.as_bytes()), "{right}");
        }
        for (wrong, flaw) in [
            ("p=none; v=DMARC1", NoTags),
            ("v=DMARC1; p=none; p=none", NoTags),
            ("v=DMARC1 p=none", NoTags),
            ("v=DMARC1", OfPolicy),
            ("v=DMARC1; rua=mailto:a@b.test", OfPolicy),
            ("v=DMARC1; p=foo", OfPolicy),
            ("v=DMARC1; p=foo; rua=mailto:a@b.test", OfPolicy),
            ("v=DMARC1; p=reject; sp=foo", Below),
            ("v=DMARC1; p=reject; np=", Below),
            ("v=DMARC1; p=reject; adkim=strict", Alignment),
            ("v=DMARC1; p=reject; aspf=", Alignment),
            ("v=DMARC1; p=reject; pct=101", Percent),
            ("v=DMARC1; p=reject; pct=x", Percent),
            ("v=DMARC1; p=reject; fo=2", FailureOptions),
        ] {
            assert_eq!(DmarcRecord::published(wrong.as_bytes()), Err(flaw), "{wrong}");
        }
        assert!(
            DmarcRecord::published(format!("v=DMARC1; p=none; x={}", "y".repeat(RECORD_MAX_BYTES)).as_bytes()).is_err()
        );
    }

    #[test]
    fn records_are_of_the_grammar_or_ask_for_nothing() {
        let policies = |text: &str| DmarcRecord::parse(text.as_bytes()).map(|r| (r.policy, r.below));
        for (text, is) in [
            ("v=DMARC1; p=reject", Some((Policy::Reject, Policy::Reject))),
            ("v=DMARC1;p=Quarantine;sp=none;", Some((Policy::Quarantine, Policy::None))),
            ("v=DMARC1; rua=mailto:a@b.test", Some((Policy::None, Policy::None))),
            ("v=DMARC1; p=bogus; rua=mailto:a@b.test", Some((Policy::None, Policy::None))),
            ("v=DMARC1; p=reject; sp=bogus", None),
            ("v=DMARC1", None),
            ("v=DMARC1; p=bogus", None),
            ("v=DMARC2; p=reject", None),
            ("p=reject; v=DMARC1", None),
        ] {
            assert_eq!(policies(text), is, "{text}");
        }
    }
}

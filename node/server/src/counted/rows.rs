//! A message as it is counted for its author's domain.

use mailraft_feedback::dmarc::{
    Alignment, AlignmentMode, DkimAuth, Override, OverrideKind, Published, Row, SpfAuth, SpfScope,
};
use mailraft_sender_auth::{Basis, Disposition, Dkim, DkimResult, DmarcResult, Envelope, Policy, Verdict};

/// The domain whose policy was found, that policy, and the message's row. None if there is none, or its domain wants no reports.
pub fn of(verdict: &Verdict, envelope: &Envelope, done: Disposition) -> Option<(String, Published, Row)> {
    let (author, basis) = (verdict.dmarc.domain.as_ref()?, verdict.dmarc.basis.as_ref()?);
    let Basis { at, record, spf_shows, dkim_shows } = basis;
    record.aggregate_reports_to.as_ref()?;
    let mode = |strict: bool| if strict { AlignmentMode::Strict } else { AlignmentMode::Relaxed };
    let published = Published {
        policy: record.policy,
        below: record.below,
        dkim_alignment: mode(record.strict_dkim),
        spf_alignment: mode(record.strict_spf),
        percent: record.percent,
        failure_options: record.failure_options.clone(),
    };
    let alignment = |shows: bool| if shows { Alignment::Pass } else { Alignment::Fail };
    let row = Row {
        header_from: author.to_string(),
        envelope_from: envelope.reverse_path.as_ref().map(|(_, domain)| domain.clone()),
        // To whom he writes its author knows, and others who want his reports need not.
        envelope_to: None,
        source: envelope.address,
        disposition: done,
        dkim_aligned: alignment(*dkim_shows),
        spf_aligned: alignment(*spf_shows),
        overrides: overrides(verdict, done),
        dkim: signatures(&verdict.dkim),
        spf: SpfAuth {
            domain: verdict.spf_domain.as_ref().map(ToString::to_string).unwrap_or_default(),
            scope: if envelope.reverse_path.is_some() { SpfScope::MailFrom } else { SpfScope::Helo },
            result: verdict.spf,
        },
    };
    Some((at.to_string(), published, row))
}

/// Why something else was done than the domain publishes.
fn overrides(verdict: &Verdict, done: Disposition) -> Vec<Override> {
    let dmarc = &verdict.dmarc;
    if dmarc.result != DmarcResult::Fail {
        return Vec::new();
    }
    let published = dmarc.published.unwrap_or(Policy::None);
    let as_wanted = match dmarc.wanted {
        Policy::None => Disposition::Deliver,
        Policy::Quarantine => Disposition::Quarantine,
        Policy::Reject => Disposition::Reject,
    };
    let of = |kind| Override { kind, comment: None };
    let sampled_out = (dmarc.wanted != published).then(|| of(OverrideKind::SampledOut));
    let ours = (done != as_wanted).then(|| of(OverrideKind::LocalPolicy));
    sampled_out.into_iter().chain(ours).collect()
}

/// Signatures that name their domain: those that are right first.
fn signatures(all: &[Dkim]) -> Vec<DkimAuth> {
    let (right, others): (Vec<&Dkim>, Vec<&Dkim>) = all.iter().partition(|dkim| dkim.result == DkimResult::Pass);
    let signature = |of: &Dkim| {
        let domain = of.domain.as_ref()?.to_string();
        let selector = of.selector.as_ref().map(ToString::to_string).unwrap_or_default();
        Some(DkimAuth { domain, selector, result: of.result })
    };
    right.into_iter().chain(others).filter_map(signature).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::Future;

    use mailraft_sender_auth::{Claims, Dns, Enforcement, NoAnswer, Question, Reader, Record, SpfResult, check};

    use super::*;

    /// One domain's records, under an organisation's.
    struct Zone(&'static str);

    impl Dns for Zone {
        fn ask(&self, question: &Question) -> impl Future<Output = Result<Vec<Record>, NoAnswer>> + Send {
            let text = match question {
                Question::Txt(name) if name == "_dmarc.a.test" => Some(self.0),
                Question::Txt(name) if name == "a.test" => Some("v=spf1 ip4:192.0.2.1 -all"),
                _ => None,
            };
            std::future::ready(Ok(text.map(|text| Record::Txt(text.as_bytes().to_vec())).into_iter().collect()))
        }
    }

    fn claims(message: &str) -> Claims {
        let mut reader = Reader::default();
        reader.push(message.as_bytes());
        reader.finish()
    }

    async fn counted(record: &'static str, from: [u8; 4], how: Enforcement) -> Option<(String, Published, Row)> {
        let envelope = Envelope {
            address: from.into(),
            helo: "mx.a.test".to_owned(),
            reverse_path: Some(("x".to_owned(), "a.test".to_owned())),
        };
        let verdict = check(&Zone(record), &envelope, &claims("From: x@sub.a.test\r\n\r\nx\r\n"), 0).await;
        of(&verdict, &envelope, verdict.disposition(how))
    }

    #[tokio::test]
    async fn a_row_says_what_was_published_what_was_shown_and_what_was_done() {
        let record = "v=DMARC1; p=reject; sp=quarantine; aspf=r; adkim=s; rua=mailto:r@a.test";
        let (domain, published, row) = counted(record, [192, 0, 2, 1], Enforcement::Reject).await.unwrap();
        assert_eq!((domain.as_str(), row.header_from.as_str()), ("a.test", "sub.a.test"));
        assert_eq!((published.policy, published.below), (Policy::Reject, Policy::Quarantine));
        assert_eq!(
            (published.dkim_alignment, published.spf_alignment),
            (AlignmentMode::Strict, AlignmentMode::Relaxed)
        );
        assert_eq!((row.spf_aligned, row.dkim_aligned), (Alignment::Pass, Alignment::Fail));
        assert_eq!((row.disposition, row.overrides.len()), (Disposition::Deliver, 0));
        assert_eq!((row.spf.domain.as_str(), row.spf.result), ("a.test", SpfResult::Pass));

        let (_, _, row) = counted(record, [192, 0, 2, 9], Enforcement::Reject).await.unwrap();
        assert_eq!((row.spf_aligned, row.disposition), (Alignment::Fail, Disposition::Quarantine));
        assert!(row.overrides.is_empty(), "that is what it wants for domains below it");
        let (_, _, row) = counted(record, [192, 0, 2, 9], Enforcement::Mark).await.unwrap();
        let kinds: Vec<OverrideKind> = row.overrides.iter().map(|of| of.kind).collect();
        assert_eq!((row.disposition, kinds), (Disposition::Deliver, vec![OverrideKind::LocalPolicy]));
        let none = "v=DMARC1; p=reject; pct=0; rua=mailto:r@a.test";
        let (_, _, row) = counted(none, [192, 0, 2, 9], Enforcement::Reject).await.unwrap();
        let kinds: Vec<OverrideKind> = row.overrides.iter().map(|of| of.kind).collect();
        assert_eq!((row.disposition, kinds), (Disposition::Quarantine, vec![OverrideKind::SampledOut]));
    }

    #[tokio::test]
    async fn who_wants_no_reports_is_not_counted() {
        assert!(counted("v=DMARC1; p=reject", [192, 0, 2, 9], Enforcement::Mark).await.is_none());
        assert!(counted("v=spf1 -all", [192, 0, 2, 9], Enforcement::Mark).await.is_none());
    }
}

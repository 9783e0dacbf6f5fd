//! How much TLS one server of a domain has to have: one decision out of DANE, MTA-STS, the configuration, and what the sender
//! asked for (RFC 7672, RFC 8461, RFC 8689).

use super::dane::{Dane, Security, Usable, Usage};
use super::domain::host_name;
use super::hello::{HandshakeFailure, Hello, Hellos};
use super::mta_sts::{Mode, Policy};
use super::report::{AppliedPolicy, FailureKind};

/// What the operator wants for mail to a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configured {
    /// What the domain asks for by DANE and MTA-STS, and else TLS if it can be had.
    AsTheDomainAsks,
    /// TLS at least, and what the domain asks for.
    Encrypted,
    /// A server that is proved to be the domain's.
    Authenticated,
    /// TLS if it can be had, whatever the domain asks for: for one whose records or policy are broken.
    PoliciesIgnored,
}

/// What the sender of a message asked for (RFC 8689).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    Nothing,
    /// REQUIRETLS: TLS with a proved server all the way, or no delivery.
    RequireTls,
    /// `TLS-Required: No`: delivery matters more than TLS.
    TlsNotRequired,
}

/// What is known of a server before a connection to it.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// The domain that mail goes to, as [`host_name`] has it.
    pub domain: &'a str,
    /// The server, as [`host_name`] has it.
    pub host: &'a str,
    /// How much of the answer is proved that named this server.
    pub mx: Security,
    /// What DANE says.
    pub dane: &'a Dane,
    /// The domain's policy of MTA-STS, if there is one that is valid.
    pub mta_sts: Option<&'a Policy>,
}

/// How much TLS a connection has to have before mail goes over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsWanted {
    /// TLS if the server offers it, whatever its certificate is; and else, or if its handshake fails, none.
    Opportunistic,
    /// TLS, whatever the certificate is.
    Encrypted,
    /// TLS with a server that proves who it is.
    Authenticated {
        /// By what.
        how: Authentication,
    },
}

/// What proves who a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// TLSA records.
    Dane {
        /// Of which one has to fit.
        records: Vec<Usable>,
        /// The host below whose name they stand: the SNI.
        base: String,
        /// What a certificate that a trust anchor signed has to be for: one of these (RFC 7672, section 3.2.2).
        names: Vec<String>,
    },
    /// A certificate for this host that leads to an authority that this machine trusts.
    WebPki {
        /// The host.
        host: String,
    },
}

impl Authentication {
    /// The name that the server is asked for (RFC 7672, section 8.1; RFC 8461, section 4.2).
    pub fn server_name(&self) -> &str {
        match self {
            Authentication::Dane { base, .. } => base,
            Authentication::WebPki { host } => host,
        }
    }
}

/// What is decided for a server that may get mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What the connection has to have.
    pub wanted: TlsWanted,
    /// What is looked at and reported, and stops nothing: a policy in mode testing.
    pub watched: Option<Authentication>,
    /// Whether the server has to offer REQUIRETLS, and MAIL FROM has it too (RFC 8689, section 4.2.1).
    pub needs_requiretls: bool,
    /// Under what policy the connection is counted for a report.
    pub counted_as: AppliedPolicy,
    /// What a report has to say whatever comes of the connection.
    pub flaw: Option<FailureKind>,
    /// Why, in a sentence for the log.
    pub because: String,
}

/// Why a server gets no connection at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRefusal {
    /// Nobody can say whether it has TLSA records: perhaps somebody hides them.
    DaneUnknown {
        /// The server.
        host: String,
    },
    /// The domain's policy of MTA-STS doesn't name it.
    NotInPolicy {
        /// The server.
        host: String,
        /// The domain.
        domain: String,
    },
    /// It has to be proved to be the domain's, and neither DNSSEC nor MTA-STS says that it is.
    Unproved {
        /// The server.
        host: String,
        /// The domain.
        domain: String,
    },
}

/// Whether it is any use to try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// It may be otherwise in a while.
    ForNow,
    /// It will be the same for this message.
    ForGood,
}

impl HostRefusal {
    /// A sentence for the log and the sender: what, where, and what to do.
    pub fn sentence(&self) -> String {
        match self {
            HostRefusal::DaneUnknown { host } => format!(
                "the DNS does not say whether {host} has TLSA records, so it gets no mail now (RFC 7672); its operator may \
                 look at the signatures of its zone and at the answers of its name servers to questions for TLSA"
            ),
            HostRefusal::NotInPolicy { host, domain } => format!(
                "the MTA-STS policy of {domain} does not name {host}, so it gets no mail (RFC 8461); the operator of {domain} \
                 may add it to the policy or take it out of the MX records"
            ),
            HostRefusal::Unproved { host, domain } => format!(
                "nothing proves that {host} is a server of {domain}: its MX records are not signed, and no MTA-STS policy \
                 names it, so it gets no mail that must not go to anybody else (RFC 8689)"
            ),
        }
    }

    /// Whether it may be otherwise later. A domain without DNSSEC and MTA-STS will hardly have them before a message is given up.
    pub fn lasting(&self) -> Lasting {
        match self {
            HostRefusal::DaneUnknown { .. } | HostRefusal::NotInPolicy { .. } => Lasting::ForNow,
            HostRefusal::Unproved { .. } => Lasting::ForGood,
        }
    }

    /// What a report says of it; nothing of what only we or the sender wanted.
    pub fn failure_kind(&self) -> Option<FailureKind> {
        match self {
            HostRefusal::DaneUnknown { .. } => Some(FailureKind::DnssecInvalid),
            HostRefusal::NotInPolicy { .. } => Some(FailureKind::ValidationFailure),
            HostRefusal::Unproved { .. } => None,
        }
    }
}

/// Decides for one server.
///
/// # Errors
/// If it gets no connection.
pub fn decide(server: Server<'_>, configured: Configured, asked: Asked) -> Result<Decision, HostRefusal> {
    let has_to_be_proved = match (configured, asked) {
        (_, Asked::RequireTls) | (Configured::Authenticated, Asked::Nothing | Asked::TlsNotRequired) => true,
        // Who sends may waive what the receiving domain asks for, not what the operator does.
        (Configured::PoliciesIgnored, Asked::Nothing | Asked::TlsNotRequired) => {
            return Ok(waived(server, TlsWanted::Opportunistic, "the configuration ignores its policies"));
        }
        (Configured::AsTheDomainAsks, Asked::TlsNotRequired) => {
            return Ok(waived(server, TlsWanted::Opportunistic, "the sender waives it (TLS-Required: No)"));
        }
        (Configured::Encrypted, Asked::TlsNotRequired) => {
            return Ok(waived(server, TlsWanted::Encrypted, "the configuration wants TLS and the sender waives more"));
        }
        (Configured::AsTheDomainAsks | Configured::Encrypted, Asked::Nothing) => false,
    };
    let needs_requiretls = asked == Asked::RequireTls;
    let mut decision = of_the_domain(server)?;
    decision.needs_requiretls = needs_requiretls;
    match (&decision.wanted, configured) {
        (TlsWanted::Authenticated { .. }, _) => {}
        (TlsWanted::Opportunistic | TlsWanted::Encrypted, _) if has_to_be_proved => {
            let Server { domain, host, mx, mta_sts, .. } = server;
            let is_named = mta_sts.is_some_and(|policy| policy.mode != Mode::None && policy.names(host));
            if mx == Security::Insecure && !is_named {
                return Err(HostRefusal::Unproved { host: host.to_owned(), domain: domain.to_owned() });
            }
            decision.wanted = TlsWanted::Authenticated { how: Authentication::WebPki { host: host.to_owned() } };
            let who = if needs_requiretls { "the sender" } else { "the configuration" };
            decision.because = format!("{who} wants {host} to be proved: it has to have a certificate that is trusted");
        }
        (TlsWanted::Opportunistic, Configured::Encrypted) => {
            decision.wanted = TlsWanted::Encrypted;
            decision.because = format!("the configuration wants TLS for {}", server.domain);
        }
        (TlsWanted::Opportunistic | TlsWanted::Encrypted, _) => {}
    }
    Ok(decision)
}

/// What the domain asks for. DANE decides wherever it says something, so that MTA-STS never lets through what DANE stops (RFC
/// 8461, section 2).
fn of_the_domain(server: Server<'_>) -> Result<Decision, HostRefusal> {
    let Server { domain, host, dane, mta_sts, .. } = server;
    let plain = |wanted, counted_as, because| Decision {
        wanted,
        watched: None,
        needs_requiretls: false,
        counted_as,
        flaw: None,
        because,
    };
    match dane {
        Dane::Failed => Err(HostRefusal::DaneUnknown { host: host.to_owned() }),
        Dane::Records { records, base } => {
            let how = Authentication::Dane { records: records.clone(), base: base.clone(), names: names(server, base) };
            let because = format!("{base} has TLSA records: its certificate has to fit one of them (DANE)");
            Ok(plain(TlsWanted::Authenticated { how }, tlsa(base, records), because))
        }
        Dane::Unusable | Dane::Absent => {
            let mut decision = of_mta_sts(server, mta_sts)?;
            if *dane == Dane::Unusable && decision.wanted == TlsWanted::Opportunistic {
                decision.wanted = TlsWanted::Encrypted;
                decision.counted_as = tlsa(host, &[]);
                decision.flaw = Some(FailureKind::TlsaInvalid);
                decision.because = format!("{host} has TLSA records that can't be used: it has to have TLS (DANE)");
            }
            if let (TlsWanted::Opportunistic, None) = (&decision.wanted, &decision.watched) {
                decision.because = format!("{domain} asks for nothing: {host} gets TLS if it offers it");
            }
            Ok(decision)
        }
    }
}

fn of_mta_sts(server: Server<'_>, policy: Option<&Policy>) -> Result<Decision, HostRefusal> {
    let Server { domain, host, .. } = server;
    let mut decision = Decision {
        wanted: TlsWanted::Opportunistic,
        watched: None,
        needs_requiretls: false,
        counted_as: AppliedPolicy::NoPolicy,
        flaw: None,
        because: String::new(),
    };
    let Some(policy) = policy else { return Ok(decision) };
    let how = Authentication::WebPki { host: host.to_owned() };
    let sts = AppliedPolicy::Sts { lines: policy.lines(), patterns: policy.patterns.clone() };
    match (policy.mode, policy.names(host)) {
        (Mode::None, _) => {}
        (Mode::Enforce, false) => {
            return Err(HostRefusal::NotInPolicy { host: host.to_owned(), domain: domain.to_owned() });
        }
        (Mode::Enforce, true) => {
            decision.wanted = TlsWanted::Authenticated { how };
            decision.counted_as = sts;
            decision.because =
                format!("{domain} has a policy that names {host}: its certificate has to be trusted (MTA-STS)");
        }
        (Mode::Testing, is_named) => {
            decision.watched = Some(how);
            decision.counted_as = sts;
            decision.flaw = (!is_named).then_some(FailureKind::ValidationFailure);
            decision.because = format!("{domain} tests its policy: {host} gets TLS if it offers it (MTA-STS)");
        }
    }
    Ok(decision)
}

/// The names of which a certificate under a trust anchor has to have one: the base, and, as this server was named by signed
/// records, the domain itself (RFC 7672, section 3.2.2).
fn names(server: Server<'_>, base: &str) -> Vec<String> {
    let domain = host_name(server.domain).filter(|domain| server.mx == Security::Secure && domain != base);
    [base.to_owned()].into_iter().chain(domain).collect()
}

fn tlsa(base: &str, records: &[Usable]) -> AppliedPolicy {
    AppliedPolicy::Tlsa { base: base.to_owned(), records: records.iter().map(Usable::to_string).collect() }
}

fn waived(server: Server<'_>, wanted: TlsWanted, why: &str) -> Decision {
    Decision {
        wanted,
        watched: None,
        needs_requiretls: false,
        counted_as: AppliedPolicy::NoPolicy,
        flaw: None,
        because: format!("{} is taken whatever it asks for: {why}", server.host),
    }
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateFault {
    /// It is over, or not yet valid.
    Expired,
    /// It is for other hosts.
    NotForHost,
    /// It leads to nobody who is trusted.
    NotTrusted,
    /// No TLSA record fits it.
    NoRecordFits,
    /// Anything else.
    Other,
}

/// Why a connection has no TLS that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// The server doesn't offer STARTTLS, or refuses it when it is asked.
    NotOffered,
    /// The handshake failed.
    Handshake(HandshakeFailure),
    /// The certificate isn't what it has to be.
    Certificate(CertificateFault),
}

impl TlsFailure {
    /// What a report says of it.
    pub fn kind(self) -> FailureKind {
        match self {
            TlsFailure::NotOffered => FailureKind::StarttlsNotSupported,
            TlsFailure::Handshake(_) => FailureKind::ValidationFailure,
            TlsFailure::Certificate(fault) => match fault {
                CertificateFault::Expired => FailureKind::CertificateExpired,
                CertificateFault::NotForHost => FailureKind::CertificateHostMismatch,
                CertificateFault::NotTrusted => FailureKind::CertificateNotTrusted,
                CertificateFault::NoRecordFits | CertificateFault::Other => FailureKind::ValidationFailure,
            },
        }
    }

    /// More of it for a report.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            TlsFailure::NotOffered => None,
            TlsFailure::Handshake(_) => Some("handshake-failed"),
            TlsFailure::Certificate(CertificateFault::NoRecordFits) => Some("no-tlsa-record-fits"),
            TlsFailure::Certificate(_) => None,
        }
    }
}

/// What is done after a connection had no TLS that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This server again, with this first message.
    Again(Hello),
    /// This server without TLS: on the same connection if it offered none, and else on a new one.
    InClear,
    /// Another server, or later: the message stays. Never a refusal for good, whatever the server answered: somebody on the way
    /// must not be able to have mail returned.
    OtherServer,
}

/// What is done after a failure.
pub fn after(wanted: &TlsWanted, failure: TlsFailure, tried: Hello) -> Next {
    let again = match failure {
        TlsFailure::Handshake(failure) => Hellos::again(tried, failure),
        TlsFailure::NotOffered | TlsFailure::Certificate(_) => None,
    };
    match (again, wanted) {
        (Some(hello), _) => Next::Again(hello),
        (None, TlsWanted::Opportunistic) => Next::InClear,
        (None, TlsWanted::Encrypted | TlsWanted::Authenticated { .. }) => Next::OtherServer,
    }
}

/// Whether a certificate's chain is looked at beyond the server's own certificate.
pub fn has_trust_anchors(records: &[Usable]) -> bool {
    records.iter().any(|record| record.usage == Usage::TrustAnchor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::dane::{Association, Selector};

    const ENFORCE: &str = "version: STSv1\nmode: enforce\nmx: mx.b.test\nmax_age: 1";

    fn policy(mode: &str, host: &str) -> Policy {
        Policy::parse(ENFORCE.replace("enforce", mode).replace("mx.b.test", host).as_bytes()).unwrap()
    }

    fn records() -> Dane {
        let record = Usable {
            usage: Usage::EndEntity,
            selector: Selector::PublicKey,
            association: Association::Sha256([7; 32]),
        };
        Dane::Records { records: vec![record], base: "mx.b.test".into() }
    }

    /// A decision in a word.
    fn word(decision: &Result<Decision, HostRefusal>) -> &'static str {
        match decision {
            Ok(Decision { wanted, watched, .. }) => match (wanted, watched) {
                (TlsWanted::Opportunistic, None) => "may",
                (TlsWanted::Opportunistic, Some(_)) => "may, watched",
                (TlsWanted::Encrypted, _) => "tls",
                (TlsWanted::Authenticated { how: Authentication::Dane { .. } }, _) => "dane",
                (TlsWanted::Authenticated { how: Authentication::WebPki { .. } }, _) => "webpki",
            },
            Err(HostRefusal::DaneUnknown { .. }) => "no: dane unknown",
            Err(HostRefusal::NotInPolicy { .. }) => "no: not in policy",
            Err(HostRefusal::Unproved { .. }) => "no: unproved",
        }
    }

    fn decided(
        mx: Security,
        dane: &Dane,
        mta_sts: Option<&Policy>,
        configured: Configured,
        asked: Asked,
    ) -> &'static str {
        let server = Server { domain: "b.test", host: "mx.b.test", mx, dane, mta_sts };
        let decision = decide(server, configured, asked);
        if let Ok(decision) = &decision {
            assert!(!decision.because.is_empty());
            assert_eq!(decision.needs_requiretls, asked == Asked::RequireTls);
            let must = matches!(decision.wanted, TlsWanted::Authenticated { .. });
            assert!(must || asked != Asked::RequireTls && configured != Configured::Authenticated);
        }
        word(&decision)
    }

    #[test]
    fn dane_and_mta_sts_and_what_is_wanted_make_one_decision() {
        use Asked::{Nothing, RequireTls, TlsNotRequired};
        use Configured::{AsTheDomainAsks, Authenticated, Encrypted, PoliciesIgnored};
        use Security::{Insecure, Secure};
        let (enforce, other, testing) =
            (policy("enforce", "mx.b.test"), policy("enforce", "x.test"), policy("testing", "mx.b.test"));
        let (testing_other, none) = (policy("testing", "x.test"), policy("none", "mx.b.test"));
        let (enforce, other, testing) = (Some(&enforce), Some(&other), Some(&testing));
        let (testing_other, none) = (Some(&testing_other), Some(&none));
        // mx, dane, mta-sts; as the domain asks | tls configured | proof configured | policies ignored | REQUIRETLS | waived
        let table = [
            (Insecure, Dane::Absent, None, ["may", "tls", "no: unproved", "may", "no: unproved", "may"]),
            (Secure, Dane::Absent, None, ["may", "tls", "webpki", "may", "webpki", "may"]),
            (Insecure, Dane::Absent, enforce, ["webpki", "webpki", "webpki", "may", "webpki", "may"]),
            (Insecure, Dane::Absent, testing, ["may, watched", "tls", "webpki", "may", "webpki", "may"]),
            (
                Insecure,
                Dane::Absent,
                testing_other,
                ["may, watched", "tls", "no: unproved", "may", "no: unproved", "may"],
            ),
            (Insecure, Dane::Absent, none, ["may", "tls", "no: unproved", "may", "no: unproved", "may"]),
            (
                Insecure,
                Dane::Absent,
                other,
                ["no: not in policy", "no: not in policy", "no: not in policy", "may", "no: not in policy", "may"],
            ),
            (Secure, records(), None, ["dane", "dane", "dane", "may", "dane", "may"]),
            // DANE overrules MTA-STS, in what it asks for and in what it lets through.
            (Secure, records(), enforce, ["dane", "dane", "dane", "may", "dane", "may"]),
            (Secure, records(), other, ["dane", "dane", "dane", "may", "dane", "may"]),
            (
                Secure,
                Dane::Failed,
                enforce,
                ["no: dane unknown", "no: dane unknown", "no: dane unknown", "may", "no: dane unknown", "may"],
            ),
            // Records that can't be used: TLS at least, and more where more is asked for.
            (Secure, Dane::Unusable, None, ["tls", "tls", "webpki", "may", "webpki", "may"]),
            (Secure, Dane::Unusable, testing, ["tls", "tls", "webpki", "may", "webpki", "may"]),
            (Secure, Dane::Unusable, enforce, ["webpki", "webpki", "webpki", "may", "webpki", "may"]),
        ];
        for (mx, dane, mta_sts, expected) in &table {
            let columns = [
                (AsTheDomainAsks, Nothing),
                (Encrypted, Nothing),
                (Authenticated, Nothing),
                (PoliciesIgnored, Nothing),
                (AsTheDomainAsks, RequireTls),
                (AsTheDomainAsks, TlsNotRequired),
            ];
            let came = columns.map(|(configured, asked)| decided(*mx, dane, *mta_sts, configured, asked));
            assert_eq!(came, *expected, "{mx:?} {dane:?} {mta_sts:?}");
        }
        // The sender waives what the domain asks for and not what the operator does; what the operator ignores the sender may ask for.
        assert_eq!(decided(Insecure, &Dane::Absent, enforce, Encrypted, TlsNotRequired), "tls");
        assert_eq!(decided(Insecure, &Dane::Absent, enforce, Authenticated, TlsNotRequired), "webpki");
        assert_eq!(decided(Insecure, &Dane::Absent, enforce, PoliciesIgnored, RequireTls), "webpki");
        assert_eq!(decided(Secure, &records(), None, PoliciesIgnored, RequireTls), "dane");
    }

    #[test]
    fn a_report_hears_of_flaws_that_stop_nothing() {
        let flaw = |dane: &Dane, mta_sts: Option<&Policy>| {
            let server = Server { domain: "b.test", host: "mx.b.test", mx: Security::Secure, dane, mta_sts };
            let decision = decide(server, Configured::AsTheDomainAsks, Asked::Nothing).unwrap();
            (decision.flaw, decision.counted_as)
        };
        assert_eq!(flaw(&Dane::Absent, None), (None, AppliedPolicy::NoPolicy));
        let tlsa = AppliedPolicy::Tlsa { base: "mx.b.test".into(), records: Vec::new() };
        assert_eq!(flaw(&Dane::Unusable, None), (Some(FailureKind::TlsaInvalid), tlsa));
        let (kind, counted_as) = flaw(&Dane::Absent, Some(&policy("testing", "x.test")));
        assert_eq!(kind, Some(FailureKind::ValidationFailure));
        assert!(matches!(counted_as, AppliedPolicy::Sts { lines, .. } if lines[1] == "mode: testing"));
        let (kind, counted_as) = flaw(&records(), Some(&policy("enforce", "mx.b.test")));
        let record = format!("3 1 1 {}", "07".repeat(32));
        assert_eq!(kind, None);
        assert_eq!(counted_as, AppliedPolicy::Tlsa { base: "mx.b.test".into(), records: vec![record] });
    }

    #[test]
    fn a_certificate_under_a_trust_anchor_may_be_for_the_domain_too() {
        let dane = records();
        let server = Server { domain: "b.test", host: "alias.test", mx: Security::Secure, dane: &dane, mta_sts: None };
        let decision = decide(server, Configured::AsTheDomainAsks, Asked::Nothing).unwrap();
        let TlsWanted::Authenticated { how } = decision.wanted else { panic!("it has records") };
        assert_eq!(how.server_name(), "mx.b.test", "the name below which the records stand, and not the alias");
        assert!(matches!(how, Authentication::Dane { names, .. } if names == ["mx.b.test", "b.test"]));
    }

    #[test]
    fn only_who_wants_no_proof_goes_on_in_clear() {
        use HandshakeFailure::{Ended, Other};
        let how = Authentication::WebPki { host: "mx.b.test".into() };
        let wanted = [TlsWanted::Opportunistic, TlsWanted::Encrypted, TlsWanted::Authenticated { how }];
        for wanted in &wanted {
            let plain = if *wanted == TlsWanted::Opportunistic { Next::InClear } else { Next::OtherServer };
            assert_eq!(after(wanted, TlsFailure::NotOffered, Hello::WithMlKem), plain);
            assert_eq!(after(wanted, TlsFailure::Handshake(Other), Hello::WithMlKem), plain);
            assert_eq!(after(wanted, TlsFailure::Handshake(Ended), Hello::WithMlKem), Next::Again(Hello::Small));
            assert_eq!(after(wanted, TlsFailure::Handshake(Ended), Hello::Small), plain);
            let certificate = TlsFailure::Certificate(CertificateFault::NoRecordFits);
            assert_eq!(after(wanted, certificate, Hello::WithMlKem), plain);
        }
    }

    #[test]
    fn a_refusal_says_who_may_do_what() {
        let (host, domain) = ("mx.b.test".to_owned(), "b.test".to_owned());
        let unknown = HostRefusal::DaneUnknown { host: host.clone() };
        let not_named = HostRefusal::NotInPolicy { host: host.clone(), domain: domain.clone() };
        let unproved = HostRefusal::Unproved { host, domain };
        for refusal in [&unknown, &not_named, &unproved] {
            assert!(refusal.sentence().contains("mx.b.test"));
        }
        assert_eq!((unknown.lasting(), not_named.lasting()), (Lasting::ForNow, Lasting::ForNow));
        assert_eq!(unproved.lasting(), Lasting::ForGood);
    }
}

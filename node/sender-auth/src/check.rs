//! The check: all methods at once, and what DMARC makes of them.

use futures::future::join_all;

use crate::claims::Claims;
use crate::dkim::Dkim;
use crate::dmarc::{self, Authors, Dmarc, DmarcResult, Policy, Shown};
use crate::dns::{Asker, Dns};
use crate::domain::Domain;
use crate::verdict::{Envelope, Verdict};
use crate::{iprev, spf};

/// Checks a message, at this time in seconds since 1970-01-01 UTC. Takes as long as `dns` does.
pub async fn check<D: Dns>(dns: &D, envelope: &Envelope, claims: &Claims, now_s: u64) -> Verdict {
    // What others make costly takes no question from what DMARC goes by: the author's signatures and policy.
    let (dns, deciding) = (&Asker::new(dns), &Asker::new(dns));
    let address = envelope.address.to_canonical();
    let (local, domain) = match &envelope.reverse_path {
        Some((local, domain)) => (local.as_str(), domain.as_str()),
        None => ("", envelope.helo.as_str()),
    };
    // Where there is no local part it is this one (RFC 7208, section 4.3).
    let local = if local.is_empty() { "postmaster" } else { local };
    let spf_domain = Domain::of_host(domain);
    let asked = spf_domain.as_ref().map_or("", Domain::as_str);
    let sender = spf::Sender { address, helo: &envelope.helo, local, domain: asked };
    let signatures = claims.signatures.iter().map(|signature| async {
        match signature {
            Ok(signature) => Dkim::checked(signature, signature.checks(deciding, &claims.bodies, now_s).await),
            Err(flaw) => Dkim::flawed(*flaw),
        }
    });
    let policies = async {
        match &claims.authors {
            Authors::Domains(domains) => {
                join_all(domains.iter().map(|domain| async { (domain.clone(), dmarc::find(deciding, domain).await) }))
                    .await
            }
            Authors::Unclear => Vec::new(),
        }
    };
    let (iprev, spf, dkim, arc, policies) = futures::join!(
        iprev::check(dns, address),
        spf::check(dns, &sender),
        join_all(signatures),
        claims.chain.checks(dns, &claims.bodies, now_s),
        policies,
    );
    let shown = Shown { spf, spf_domain: spf_domain.as_ref(), dkim: &dkim };
    let judged = policies.iter().map(|(domain, found)| dmarc::judge(domain, found, &shown, claims.sample));
    let dmarc = dmarc::strictest(judged).unwrap_or(Dmarc {
        result: DmarcResult::PermError,
        domain: None,
        published: None,
        wanted: Policy::None,
        basis: None,
    });
    Verdict { iprev, spf, spf_domain, dkim, arc, dmarc }
}

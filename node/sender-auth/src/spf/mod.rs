//! Whether a domain says that its mail comes from an address (SPF, RFC 7208).

mod macros;
mod record;
#[cfg(test)]
mod suite;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use self::macros::{MacroString, Values};
use self::record::{Mechanism, Prefixes, Qualifier, SpfRecord, is_spf};
pub use self::record::{SpfFlaw, spf_names_mx};
use crate::dns::{Asker, Dns};
use crate::limits::{SPF_NAMES_MAX, SPF_RECORD_MAX_BYTES, SPF_TERMS_MAX, SPF_VOID_MAX};

/// What came of it (RFC 7208, section 2.6). Kept in records: variants are only ever added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SpfResult {
    /// There is no domain, or it publishes no record.
    None,
    /// The domain says nothing of the address.
    Neutral,
    /// The address may send for the domain.
    Pass,
    /// It may not.
    Fail,
    /// It probably may not.
    SoftFail,
    /// The DNS did not answer.
    TempError,
    /// The record can't be understood, or asks too much.
    PermError,
}

/// Who sends, as SPF sees it.
pub(crate) struct Sender<'a> {
    pub(crate) address: IpAddr,
    pub(crate) helo: &'a str,
    pub(crate) local: &'a str,
    pub(crate) domain: &'a str,
}

/// What one check has asked.
struct Check<'a, D> {
    dns: &'a Asker<'a, D>,
    sender: &'a Sender<'a>,
    terms: usize,
    voids: usize,
    /// The name of the address, once it was asked for.
    name: Option<String>,
}

/// Why a check ends with no result of a mechanism.
enum Ended {
    Temp,
    Perm,
}

type Outcome<T> = Result<T, Ended>;

/// check_host() (RFC 7208, section 4).
pub(crate) async fn check<D: Dns>(dns: &Asker<'_, D>, sender: &Sender<'_>) -> SpfResult {
    let mut check = Check { dns, sender, terms: 0, voids: 0, name: None };
    match check.host(sender.domain.to_owned()).await {
        Ok(result) => result,
        Err(Ended::Temp) => SpfResult::TempError,
        Err(Ended::Perm) => SpfResult::PermError,
    }
}

impl<D: Dns> Check<'_, D> {
    fn host(&mut self, domain: String) -> Pin<Box<dyn Future<Output = Outcome<SpfResult>> + Send + '_>> {
        Box::pin(async move {
            if !is_host_name(&domain) {
                return Ok(SpfResult::None);
            }
            let mut records = self.dns.txt(&domain).await.map_err(|_| Ended::Temp)?;
            records.retain(|record| is_spf(record));
            let record = match records.as_slice() {
                [] => return Ok(SpfResult::None),
                [record] if record.len() <= SPF_RECORD_MAX_BYTES => SpfRecord::parse(record).ok_or(Ended::Perm)?,
                [_] | [_, _, ..] => return Err(Ended::Perm),
            };
            for (qualifier, mechanism) in &record.directives {
                if self.matches(mechanism, &domain).await? {
                    return Ok(match qualifier {
                        Qualifier::Pass => SpfResult::Pass,
                        Qualifier::Fail => SpfResult::Fail,
                        Qualifier::SoftFail => SpfResult::SoftFail,
                        Qualifier::Neutral => SpfResult::Neutral,
                    });
                }
            }
            let Some(redirect) = &record.redirect else { return Ok(SpfResult::Neutral) };
            self.asks()?;
            let target = self.expand(redirect, &domain).await?;
            match self.host(target).await? {
                SpfResult::None => Err(Ended::Perm),
                result => Ok(result),
            }
        })
    }

    async fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Outcome<bool> {
        let address = self.sender.address;
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4(network, prefix) => Ok(shares_prefix(address, IpAddr::V4(*network), *prefix)),
            Mechanism::Ip6(network, prefix) => Ok(shares_prefix(address, IpAddr::V6(*network), *prefix)),
            Mechanism::Include(target) => {
                self.asks()?;
                let target = self.expand(target, domain).await?;
                match self.host(target).await? {
                    SpfResult::Pass => Ok(true),
                    SpfResult::Fail | SpfResult::SoftFail | SpfResult::Neutral => Ok(false),
                    SpfResult::TempError => Err(Ended::Temp),
                    SpfResult::None | SpfResult::PermError => Err(Ended::Perm),
                }
            }
            Mechanism::A(target, prefixes) => {
                self.asks()?;
                let Some(target) = self.target(target.as_ref(), domain).await? else { return Ok(false) };
                let addresses = self.dns.addresses(&target, address).await.map_err(|_| Ended::Temp)?;
                self.found(addresses.len())?;
                Ok(one_shares_prefix(address, &addresses, *prefixes))
            }
            Mechanism::Mx(target, prefixes) => {
                self.asks()?;
                let Some(target) = self.target(target.as_ref(), domain).await? else { return Ok(false) };
                let hosts = self.dns.mx(&target).await.map_err(|_| Ended::Temp)?;
                self.found(hosts.len())?;
                if hosts.len() > SPF_NAMES_MAX {
                    return Err(Ended::Perm);
                }
                for host in hosts.iter().map(|host| host.strip_suffix('.').unwrap_or(host)).filter(|h| is_host_name(h))
                {
                    let addresses = self.dns.addresses(host, address).await.map_err(|_| Ended::Temp)?;
                    if one_shares_prefix(address, &addresses, *prefixes) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Mechanism::Ptr(target) => {
                self.asks()?;
                let Some(target) = self.target(target.as_ref(), domain).await? else { return Ok(false) };
                let names = self.names_of_address().await?;
                Ok(names.iter().any(|name| is_within(name, &target)))
            }
            Mechanism::Exists(target) => {
                self.asks()?;
                let Some(target) = self.target(Some(target), domain).await? else { return Ok(false) };
                let addresses = self.dns.a(&target).await.map_err(|_| Ended::Temp)?;
                self.found(addresses.len())?;
                Ok(!addresses.is_empty())
            }
        }
    }

    /// One more term asks the DNS.
    fn asks(&mut self) -> Outcome<()> {
        self.terms += 1;
        if self.terms > SPF_TERMS_MAX { Err(Ended::Perm) } else { Ok(()) }
    }

    /// It found so many records.
    fn found(&mut self, records: usize) -> Outcome<()> {
        self.voids += usize::from(records == 0);
        if self.voids > SPF_VOID_MAX { Err(Ended::Perm) } else { Ok(()) }
    }

    /// The name that a mechanism asks about; None if it can't be one, so that nothing matches.
    async fn target(&mut self, spec: Option<&MacroString>, domain: &str) -> Outcome<Option<String>> {
        let name = match spec {
            Some(spec) => self.expand(spec, domain).await?,
            None => domain.to_owned(),
        };
        Ok(Some(name).filter(|name| is_host_name(name)))
    }

    async fn expand(&mut self, spec: &MacroString, domain: &str) -> Outcome<String> {
        if spec.needs_name() && self.name.is_none() {
            let names = self.names_of_address().await?;
            let best = names.iter().find(|name| is_within(name, domain) && name.len() == domain.len());
            let best = best.or_else(|| names.iter().find(|name| is_within(name, domain))).or_else(|| names.first());
            self.name = Some(best.cloned().unwrap_or_else(|| "unknown".to_owned()));
        }
        let Sender { address, helo, local, domain: sender_domain } = *self.sender;
        let name = self.name.as_deref().unwrap_or("unknown");
        Ok(spec.expand(&Values { local, sender_domain, domain, address, name, helo }))
    }

    /// The names of the address that have it; none where the DNS did not answer (RFC 7208, section 5.5).
    async fn names_of_address(&mut self) -> Outcome<Vec<String>> {
        let address = self.sender.address;
        let Ok(names) = self.dns.names(address).await else { return Ok(Vec::new()) };
        self.found(names.len())?;
        let mut validated = Vec::new();
        for name in names.iter().take(SPF_NAMES_MAX).map(|name| name.strip_suffix('.').unwrap_or(name)) {
            if is_host_name(name) && self.dns.addresses(name, address).await.is_ok_and(|all| all.contains(&address)) {
                validated.push(name.to_ascii_lowercase());
            }
        }
        Ok(validated)
    }
}

/// Whether a text can be asked about: labels of 1 to 63 octets, two at least, 253 in all. Of which octets is the DNS's affair.
fn is_host_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253
        && text.contains('.')
        && text.bytes().all(|b| (0x20..0x7f).contains(&b))
        && text.split('.').all(|label| (1..=63).contains(&label.len()))
}

/// Whether a name is that one or below it.
fn is_within(name: &str, target: &str) -> bool {
    let (name, target) = (name.to_ascii_lowercase(), target.strip_suffix('.').unwrap_or(target).to_ascii_lowercase());
    name.strip_suffix(target.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn one_shares_prefix(address: IpAddr, others: &[IpAddr], prefixes: Prefixes) -> bool {
    let prefix = if address.is_ipv4() { prefixes.v4 } else { prefixes.v6 };
    others.iter().any(|other| shares_prefix(address, *other, prefix))
}

fn shares_prefix(one: IpAddr, other: IpAddr, prefix: u8) -> bool {
    let differ = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    differ >= u32::from(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::Zone;

    fn spf(zone: &Zone, address: &str, helo: &str, from: &str) -> SpfResult {
        let (local, domain) = from.split_once('@').unwrap_or(("postmaster", from));
        let sender = Sender { address: address.parse().unwrap(), helo, local, domain };
        zone.run(|dns| async { check(dns, &sender).await })
    }

    /// The zone of RFC 7208, appendix A.
    fn example() -> String {
        "example.com MX 10 mail-a.example.com\nexample.com MX 20 mail-b.example.com\nexample.com A 192.0.2.10\n\
         example.com A 192.0.2.11\namy.example.com A 192.0.2.65\nbob.example.com A 192.0.2.66\n\
         mail-a.example.com A 192.0.2.129\nmail-b.example.com A 192.0.2.130\nexample.org MX 10 mail-c.example.org\n\
         mail-c.example.org A 192.0.2.140\n192.0.2.10 PTR example.com\n192.0.2.11 PTR example.com\n\
         192.0.2.65 PTR amy.example.com\n192.0.2.66 PTR bob.example.com\n192.0.2.129 PTR mail-a.example.com\n\
         192.0.2.130 PTR mail-b.example.com\n192.0.2.140 PTR mail-c.example.org\n10.0.0.4 PTR bob.example.com\n"
            .to_owned()
    }

    #[test]
    fn the_examples_of_rfc_7208_appendix_a() {
        use SpfResult::{Fail, Pass};
        for (record, address, result) in [
            ("v=spf1 +all", "203.0.113.1", Pass),
            ("v=spf1 a -all", "192.0.2.10", Pass),
            ("v=spf1 a -all", "192.0.2.11", Pass),
            ("v=spf1 a -all", "192.0.2.65", Fail),
            ("v=spf1 a:example.org -all", "192.0.2.10", Fail),
            ("v=spf1 mx -all", "192.0.2.129", Pass),
            ("v=spf1 mx -all", "192.0.2.130", Pass),
            ("v=spf1 mx -all", "192.0.2.10", Fail),
            ("v=spf1 mx:example.org -all", "192.0.2.140", Pass),
            ("v=spf1 mx mx:example.org -all", "192.0.2.140", Pass),
            ("v=spf1 mx/30 mx:example.org/30 -all", "192.0.2.131", Pass),
            ("v=spf1 mx/30 mx:example.org/30 -all", "192.0.2.143", Pass),
            ("v=spf1 mx/30 mx:example.org/30 -all", "192.0.2.144", Fail),
            ("v=spf1 ptr -all", "192.0.2.10", Pass),
            ("v=spf1 ptr -all", "192.0.2.65", Pass),
            ("v=spf1 ptr -all", "192.0.2.140", Fail),
            ("v=spf1 ptr -all", "10.0.0.4", Fail),
            ("v=spf1 ip4:192.0.2.128/28 -all", "192.0.2.129", Pass),
            ("v=spf1 ip4:192.0.2.128/28 -all", "192.0.2.65", Fail),
        ] {
            let mut zone = Zone::read(&example());
            zone.add("example.com", "TXT", record);
            assert_eq!(spf(&zone, address, "x.test", "u@example.com"), result, "{record} {address}");
        }
    }

    #[test]
    fn a_mail_server_of_one_user_by_macros() {
        let zone = Zone::read(
            "example.com TXT v=spf1 mx include:%{l}._spf.%{d} -all\nmary._spf.example.com TXT v=spf1 a:mary.test ~all\n\
             mary.test A 192.0.2.77\nexample.com MX 10 mx.example.com\nmx.example.com A 192.0.2.1",
        );
        assert_eq!(spf(&zone, "192.0.2.77", "h.test", "mary@example.com"), SpfResult::Pass);
        assert_eq!(spf(&zone, "192.0.2.78", "h.test", "mary@example.com"), SpfResult::Fail);
        assert_eq!(spf(&zone, "192.0.2.77", "h.test", "joe@example.com"), SpfResult::PermError);
    }

    #[test]
    fn results_of_every_kind() {
        use SpfResult::{Fail, Neutral, None, Pass, PermError, SoftFail, TempError};
        for (zone, result) in [
            ("", None),
            ("d.test TXT other", None),
            ("d.test TXT v=spf1", Neutral),
            ("d.test TXT v=spf1 ?all", Neutral),
            ("d.test TXT v=spf1 ~all", SoftFail),
            ("d.test TXT v=spf1 -ip4:192.0.2.1 +all", Fail),
            ("d.test TXT v=spf1 ip4:192.0.2.0/31 -all", Pass),
            ("d.test TXT v=spf1 ip6:::/0 -all", Fail),
            ("d.test TXT v=spf1 ip4:192.0.2.1 nonsense", PermError),
            ("d.test TXT v=spf1 -all\nd.test TXT v=spf1 +all", PermError),
            ("d.test FAIL", TempError),
            ("d.test TXT v=spf1 a:gone.test -all\ngone.test FAIL", TempError),
            ("d.test TXT v=spf1 include:e.test -all\ne.test TXT v=spf1 +all", Pass),
            ("d.test TXT v=spf1 include:e.test -all\ne.test TXT v=spf1 -all", Fail),
            ("d.test TXT v=spf1 include:e.test -all", PermError),
            ("d.test TXT v=spf1 redirect=e.test\ne.test TXT v=spf1 ~all", SoftFail),
            ("d.test TXT v=spf1 redirect=e.test", PermError),
            ("d.test TXT v=spf1 -all redirect=e.test", Fail),
            ("d.test TXT v=spf1 exists:%{ir}.bl.test -all\n1.2.0.192.bl.test A 127.0.0.2", Pass),
            (
                "d.test TXT v=spf1 a:%{p}.x.test -all\nmx.d.test.x.test A 192.0.2.1\n192.0.2.1 PTR mx.d.test\nmx.d.test A 192.0.2.1",
                Pass,
            ),
            ("d.test TXT v=spf1 a:%{p}.test -all\nunknown.test A 192.0.2.1", Pass),
            ("d.test TXT v=spf1 mx -all\nd.test MX 0 .", Fail),
        ] {
            assert_eq!(spf(&Zone::read(zone), "192.0.2.1", "h.test", "u@d.test"), result, "{zone}");
        }
        for no_domain in ["u@localhost", "u@[192.0.2.1]", "u@a..b", "u@"] {
            assert_eq!(spf(&Zone::default(), "192.0.2.1", "h.test", no_domain), None, "{no_domain}");
        }
    }

    #[test]
    fn what_a_record_may_ask_is_bounded() {
        // Ten terms ask; an eleventh is too much, and none is asked.
        let includes = |count: usize| {
            let mut zone = Zone::default();
            let names: String = (0..count).map(|n| format!(" include:i{n}.test")).collect();
            zone.add("d.test", "TXT", &format!("v=spf1{names} -all"));
            (0..count).for_each(|n| zone.add(&format!("i{n}.test"), "TXT", "v=spf1 -all"));
            zone
        };
        let (ten, eleven) = (includes(SPF_TERMS_MAX), includes(SPF_TERMS_MAX + 1));
        assert_eq!(spf(&ten, "192.0.2.1", "h.test", "u@d.test"), SpfResult::Fail);
        assert_eq!(spf(&eleven, "192.0.2.1", "h.test", "u@d.test"), SpfResult::PermError);
        assert_eq!(eleven.asked.lock().unwrap().len(), 1 + SPF_TERMS_MAX);
        // It may not include itself for ever.
        let zone = Zone::read("d.test TXT v=spf1 include:d.test -all");
        assert_eq!(spf(&zone, "192.0.2.1", "h.test", "u@d.test"), SpfResult::PermError);
        // Two may find nothing.
        let zone = Zone::read("d.test TXT v=spf1 a:x.test a:y.test ip4:192.0.2.1 -all");
        assert_eq!(spf(&zone, "192.0.2.1", "h.test", "u@d.test"), SpfResult::Pass);
        let zone = Zone::read("d.test TXT v=spf1 a:x.test a:y.test mx:z.test ip4:192.0.2.1 -all");
        assert_eq!(spf(&zone, "192.0.2.1", "h.test", "u@d.test"), SpfResult::PermError);
        // Ten hosts, ten names.
        for (hosts, result) in [(SPF_NAMES_MAX, SpfResult::Fail), (SPF_NAMES_MAX + 1, SpfResult::PermError)] {
            let mut zone = Zone::read("d.test TXT v=spf1 mx -all");
            (0..hosts).for_each(|n| zone.add("d.test", "MX", &format!("10 m{n}.test")));
            assert_eq!(spf(&zone, "192.0.2.1", "h.test", "u@d.test"), result);
        }
        let mut zone = Zone::read("d.test TXT v=spf1 ptr -all\nn10.d.test A 192.0.2.1");
        (0..=SPF_NAMES_MAX).for_each(|n| zone.add("192.0.2.1", "PTR", &format!("n{n}.d.test")));
        assert_eq!(spf(&zone, "192.0.2.1", "h.test", "u@d.test"), SpfResult::Fail);
        let long = format!("v=spf1 {} -all", "a=x ".repeat(SPF_RECORD_MAX_BYTES / 4));
        let mut zone = Zone::default();
        zone.add("d.test", "TXT", &long);
        assert_eq!(spf(&zone, "192.0.2.1", "h.test", "u@d.test"), SpfResult::PermError);
    }
}

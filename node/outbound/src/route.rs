//! Where mail for a domain goes (RFC 5321, section 5.1): out of what the DNS said, and what the configuration says instead.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::client::Credentials;
use crate::outcome::{Diagnosis, Outcome, Phase};
use crate::reply::EnhancedCode;

/// So many hosts of a domain are looked up, the preferred ones.
pub const HOSTS_MAX: usize = 10;
/// So many addresses of one host are tried.
pub const ADDRESSES_OF_HOST_MAX: usize = 6;
/// So many addresses of a domain are tried.
pub const ADDRESSES_MAX: usize = 20;
/// Where servers take mail from others.
pub const SMTP_PORT: u16 = 25;

/// What the DNS said about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// These records; none if it has none of the type, or is not there at all.
    Records(Vec<T>),
    /// Nobody could say.
    NoAnswer,
}

/// What stands behind the @ of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A domain, in A-labels and lower case.
    Domain(String),
    /// An address literal (RFC 5321, section 4.1.3).
    Address(IpAddr),
}

/// An MX record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailExchange {
    /// The smaller, the better.
    pub preference: u16,
    /// The host; `.` or empty says that no mail is taken (RFC 7505).
    pub host: String,
}

/// The hosts of a domain, in the order to try them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Those of its MX records; at most [`HOSTS_MAX`].
    ByMx(Vec<String>),
    /// Itself: it has no MX record.
    Itself(String),
}

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host that has it.
    pub host: String,
    /// The address.
    pub address: IpAddr,
}

/// Whether networks that are not public are mailed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Public addresses alone: a stranger's DNS must not make us talk to our own network.
    Public,
    /// Private ones and loopback too, for networks inside and for tests.
    Private,
}

/// Why mail for a domain goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteRefusal {
    /// It is no domain.
    #[error("{0} is no domain")]
    NoDomain(String),
    /// A null MX record (RFC 7505).
    #[error("{0} takes no mail (null MX)")]
    NullMx(String),
    /// It has neither MX nor address.
    #[error("{0} has no mail server in the DNS: neither MX nor address")]
    Nothing(String),
    /// Its hosts have no addresses.
    #[error("the mail servers of {0} have no addresses in the DNS")]
    NoAddresses(String),
    /// Its hosts have addresses that nobody should connect to.
    #[error("the mail servers of {0} have no addresses that may be connected to")]
    NotAllowed(String),
    /// This server is its best one, yet does not know it.
    #[error("mail for {0} comes back to this server, which does not take it")]
    Loop(String),
    /// Nobody could say.
    #[error("the DNS gave no answer about {0}")]
    NoAnswer(String),
}

impl RouteRefusal {
    /// What becomes of a message.
    pub fn outcome(&self) -> Outcome {
        let ours = |class, subject, detail| {
            Diagnosis::ours(None, Phase::Route, EnhancedCode::new(class, subject, detail), &self.to_string())
        };
        match self {
            RouteRefusal::NoDomain(_) | RouteRefusal::Nothing(_) => Outcome::failed(ours(5, 1, 2)),
            RouteRefusal::NullMx(_) => Outcome::failed(ours(5, 1, 10)),
            RouteRefusal::NoAddresses(_) | RouteRefusal::NotAllowed(_) => Outcome::failed(ours(5, 4, 4)),
            RouteRefusal::Loop(_) => Outcome::failed(ours(5, 4, 6)),
            RouteRefusal::NoAnswer(_) => Outcome::deferred(ours(4, 4, 3)),
        }
    }
}

/// A host of the configuration that mail goes to instead.
#[derive(Clone)]
#[allow(missing_debug_implementations)] // It may hold a password.
pub struct SmartHost {
    /// Its name, whose addresses are asked for; its MX records are not.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How TLS is taken up.
    pub tls: SmartHostTls,
    /// Who we are to it.
    pub credentials: Option<Credentials>,
}

/// How TLS is taken up with a smart host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmartHostTls {
    /// Before its greeting.
    Implicit,
    /// With STARTTLS, always.
    StartTls,
    /// Where it offers STARTTLS.
    Opportunistic,
}

/// The routes of the configuration.
#[derive(Clone, Default)]
#[allow(missing_debug_implementations)] // It may hold passwords.
pub struct Routes {
    /// For every domain that is not among the others.
    pub default: Option<SmartHost>,
    /// By domain, in A-labels and lower case; none if its mail goes where the DNS says.
    pub by_domain: BTreeMap<String, Option<SmartHost>>,
}

impl Routes {
    /// The smart host of a domain; none if its mail goes where the DNS says.
    pub fn of(&self, domain: &str) -> Option<&SmartHost> {
        match self.by_domain.get(&plain(domain)) {
            Some(route) => route.as_ref(),
            None => self.default.as_ref(),
        }
    }
}

/// Reads what stands behind the @ of an address.
///
/// # Errors
/// If it is neither a domain nor an address literal.
pub fn place(domain: &str) -> Result<Place, RouteRefusal> {
    let no_domain = || RouteRefusal::NoDomain(domain.to_owned());
    if let Some(literal) = domain.strip_prefix('[') {
        let literal = literal.strip_suffix(']').ok_or_else(no_domain)?;
        let v6 = literal.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:")).map(|_| &literal[5..]);
        let address = match v6 {
            Some(v6) => v6.parse().map(IpAddr::V6).ok(),
            None => literal.parse().map(IpAddr::V4).ok(),
        };
        return address.map(Place::Address).ok_or_else(no_domain);
    }
    let ascii = idna::domain_to_ascii_cow(domain.as_bytes(), idna::AsciiDenyList::EMPTY).map_err(|_| no_domain())?;
    let name = plain(&ascii);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let is_name = name.len() <= 253 && name.split('.').all(is_label);
    if is_name { Ok(Place::Domain(name)) } else { Err(no_domain()) }
}

/// The hosts of a domain in the order to try them: the better preference first, equal ones as chance has it, which is given
/// any bound and says a number below it. Where one of them is among `ourselves`, it and all that are not better are left out.
///
/// # Errors
/// If there are none, or nobody could say.
pub fn hosts(
    domain: &str,
    said: &Lookup<MailExchange>,
    ourselves: &[String],
    mut chance: impl FnMut(usize) -> usize,
) -> Result<Hosts, RouteRefusal> {
    let domain = plain(domain);
    let Lookup::Records(records) = said else { return Err(RouteRefusal::NoAnswer(domain)) };
    if records.is_empty() {
        return Ok(Hosts::Itself(domain));
    }
    let mut usable: Vec<(u16, String)> =
        records.iter().map(|mx| (mx.preference, plain(&mx.host))).filter(|(_, host)| !host.is_empty()).collect();
    if usable.is_empty() {
        return Err(RouteRefusal::NullMx(domain));
    }
    let is_ours = |host: &str| ourselves.iter().any(|name| plain(name) == host);
    if let Some(ours) = usable.iter().filter(|(_, host)| is_ours(host)).map(|(preference, _)| *preference).min() {
        usable.retain(|(preference, _)| *preference < ours);
        if usable.is_empty() {
            return Err(RouteRefusal::Loop(domain));
        }
    }
    // Shuffled whole (Fisher and Yates), then sorted by preference alone, which keeps the order of equal ones.
    for n in (1..usable.len()).rev() {
        usable.swap(n, chance(n + 1).min(n));
    }
    usable.sort_by_key(|(preference, _)| *preference);
    let mut names: Vec<String> = Vec::new();
    for (_, host) in usable {
        if names.len() < HOSTS_MAX && !names.contains(&host) {
            names.push(host);
        }
    }
    Ok(Hosts::ByMx(names))
}

/// A host and what the DNS said of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddresses {
    /// Its name.
    pub host: String,
    /// AAAA.
    pub v6: Lookup<Ipv6Addr>,
    /// A.
    pub v4: Lookup<Ipv4Addr>,
}

/// The addresses to try, host after host, IPv6 and IPv4 in turns. `of` are the hosts that [`hosts`] gave, in their order.
///
/// # Errors
/// If there are none, or nobody could say.
pub fn targets(domain: &str, hosts: &Hosts, of: &[HostAddresses], reach: Reach) -> Result<Vec<Target>, RouteRefusal> {
    let (mut targets, mut unsure, mut forbidden) = (Vec::new(), false, false);
    for HostAddresses { host, v6, v4 } in of {
        let mut family = |addresses: &Lookup<IpAddr>| match addresses {
            Lookup::Records(addresses) => {
                let (may, not): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|a| may_connect(**a, reach));
                forbidden |= !not.is_empty();
                may
            }
            Lookup::NoAnswer => {
                unsure = true;
                Vec::new()
            }
        };
        let (mut v6, mut v4) = (family(&any(v6, IpAddr::V6)).into_iter(), family(&any(v4, IpAddr::V4)).into_iter());
        let mut in_turns = Vec::new();
        loop {
            let pair = [v6.next(), v4.next()];
            if pair == [None, None] {
                break;
            }
            in_turns.extend(pair.into_iter().flatten());
        }
        let room = ADDRESSES_OF_HOST_MAX.min(ADDRESSES_MAX - targets.len());
        targets.extend(in_turns.into_iter().take(room).map(|address| Target { host: host.clone(), address }));
    }
    let domain = plain(domain);
    match (targets.is_empty(), hosts) {
        (false, _) => Ok(targets),
        (true, _) if unsure => Err(RouteRefusal::NoAnswer(domain)),
        (true, _) if forbidden => Err(RouteRefusal::NotAllowed(domain)),
        (true, Hosts::Itself(_)) => Err(RouteRefusal::Nothing(domain)),
        (true, Hosts::ByMx(_)) => Err(RouteRefusal::NoAddresses(domain)),
    }
}

fn any<T: Copy>(said: &Lookup<T>, of: impl Fn(T) -> IpAddr) -> Lookup<IpAddr> {
    match said {
        Lookup::Records(addresses) => Lookup::Records(addresses.iter().map(|address| of(*address)).collect()),
        Lookup::NoAnswer => Lookup::NoAnswer,
    }
}

/// Whether an address may be connected to.
pub fn may_connect(address: IpAddr, reach: Reach) -> bool {
    let address = match address.to_canonical() {
        IpAddr::V6(v6) => inner(v6).map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 => v4,
    };
    let (never, private) = match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            (a == 0 || a >= 224, v4.is_loopback() || v4.is_private() || v4.is_link_local() || shared)
        }
        IpAddr::V6(v6) => (
            v6.is_unspecified() || v6.is_multicast(),
            v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
        ),
    };
    !never && (!private || reach == Reach::Private)
}

/// The IPv4 address that one of IPv6 leads to: through a translator (RFC 6052, section 2.1), by 6to4 (RFC 3056, section 2), or
/// where an old stack takes one for it (RFC 4291, section 2.5.5.1).
fn inner(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => of(high, low),
        [0x2002, high, low, ..] => of(high, low),
        // Not :: and ::1, which are addresses of their own.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => of(high, low),
        _ => None,
    }
}

/// A name as it is compared: in lower case, without a dot at its end.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mx(records: &[(u16, &str)]) -> Lookup<MailExchange> {
        let of = |(preference, host): &(u16, &str)| MailExchange { preference: *preference, host: (*host).to_owned() };
        Lookup::Records(records.iter().map(of).collect())
    }

    fn names(records: &[(u16, &str)], ourselves: &[&str]) -> Result<Vec<String>, RouteRefusal> {
        let ourselves: Vec<String> = ourselves.iter().map(|name| (*name).to_owned()).collect();
        match hosts("B.test.", &mx(records), &ourselves, |_| 0)? {
            Hosts::ByMx(names) => Ok(names),
            Hosts::Itself(name) => Ok(vec![format!("itself {name}")]),
        }
    }

    fn addresses(host: &str, v6: Option<&[&str]>, v4: Option<&[&str]>) -> HostAddresses {
        HostAddresses {
            host: host.to_owned(),
            v6: v6.map_or(Lookup::NoAnswer, |all| Lookup::Records(all.iter().map(|a| a.parse().unwrap()).collect())),
            v4: v4.map_or(Lookup::NoAnswer, |all| Lookup::Records(all.iter().map(|a| a.parse().unwrap()).collect())),
        }
    }

    fn tried(of: &[HostAddresses], hosts: &Hosts, reach: Reach) -> Result<Vec<String>, RouteRefusal> {
        let all = targets("b.test", hosts, of, reach)?;
        Ok(all.into_iter().map(|target| format!("{} {}", target.host, target.address)).collect())
    }

    fn code(refusal: &RouteRefusal) -> String {
        refusal.outcome().diagnosis().enhanced.to_string()
    }

    #[test]
    fn the_preferred_host_is_first_and_equal_ones_are_shuffled() {
        let records = [(20, "C.b.test."), (10, "a.b.test"), (20, "d.b.test"), (20, "c.b.test")];
        assert_eq!(names(&records, &[]).unwrap()[0], "a.b.test");
        assert_eq!(names(&records, &[]).unwrap().len(), 3);
        let equal = mx(&[(1, "a"), (1, "b"), (1, "c")]);
        let mut orders = std::collections::BTreeSet::new();
        for n in 0..6 {
            let Ok(Hosts::ByMx(order)) = hosts("b.test", &equal, &[], |below| if below == 3 { n % 3 } else { n % 2 })
            else {
                panic!("they are hosts")
            };
            orders.insert(order);
        }
        assert_eq!(orders.len(), 6);
    }

    #[test]
    fn hosts_and_addresses_are_bounded() {
        let many: Vec<(u16, String)> = (0..100).map(|n| (n, format!("h{n}.test"))).collect();
        let many: Vec<(u16, &str)> = many.iter().map(|(n, host)| (*n, host.as_str())).collect();
        assert_eq!(names(&many, &[]).unwrap().len(), HOSTS_MAX);
        let crowd: Vec<String> = (1..100).map(|n| format!("192.0.2.{n}")).collect();
        let crowd: Vec<&str> = crowd.iter().map(String::as_str).collect();
        let of: Vec<HostAddresses> = (0..5).map(|n| addresses(&format!("h{n}"), Some(&[]), Some(&crowd))).collect();
        let all = tried(&of, &Hosts::ByMx(Vec::new()), Reach::Public).unwrap();
        assert_eq!((all.len(), all[ADDRESSES_OF_HOST_MAX].as_str()), (ADDRESSES_MAX, "h1 192.0.2.1"));
    }

    #[test]
    fn a_domain_without_mx_is_its_own_host_and_a_null_mx_has_none() {
        assert_eq!(names(&[], &[]).unwrap(), ["itself b.test"]);
        for null in [&[(0, ".")][..], &[(0, "")]] {
            assert_eq!(code(&names(null, &[]).unwrap_err()), "5.1.10");
        }
        assert_eq!(names(&[(0, "."), (10, "a.b.test")], &[]).unwrap(), ["a.b.test"]);
        assert_eq!(code(&hosts("b.test", &Lookup::NoAnswer, &[], |_| 0).unwrap_err()), "4.4.3");
    }

    #[test]
    fn mail_does_not_go_round_in_circles() {
        let records = [(10, "a.b.test"), (20, "us.test"), (20, "c.b.test"), (30, "d.b.test")];
        assert_eq!(names(&records, &["US.test."]).unwrap(), ["a.b.test"]);
        assert_eq!(code(&names(&records[1..], &["us.test"]).unwrap_err()), "5.4.6");
    }

    #[test]
    fn both_families_take_turns_and_no_answer_is_not_none() {
        let by_mx = Hosts::ByMx(vec!["a".into(), "b".into()]);
        let itself = Hosts::Itself("b.test".into());
        let of = [
            addresses("a", Some(&["2001:db8::1", "2001:db8::2"]), Some(&["192.0.2.1"])),
            addresses("b", None, Some(&["192.0.2.2"])),
        ];
        let expected = ["a 2001:db8::1", "a 192.0.2.1", "a 2001:db8::2", "b 192.0.2.2"];
        assert_eq!(tried(&of, &by_mx, Reach::Public).unwrap(), expected);
        for (of, hosts, expected) in [
            (addresses("a", Some(&[]), Some(&[])), &by_mx, "5.4.4"),
            (addresses("b.test", Some(&[]), Some(&[])), &itself, "5.1.2"),
            (addresses("a", None, Some(&[])), &by_mx, "4.4.3"),
            (addresses("a", None, Some(&["127.0.0.1"])), &itself, "4.4.3"),
            (addresses("a", Some(&[]), Some(&["127.0.0.1"])), &itself, "5.4.4"),
        ] {
            assert_eq!(code(&tried(&[of], hosts, Reach::Public).unwrap_err()), expected);
        }
    }

    #[test]
    fn nobody_is_sent_into_our_own_network() {
        for (address, public, private) in [
            ("192.0.2.1", true, true),
            ("2001:db8::1", true, true),
            ("127.0.0.1", false, true),
            ("10.1.2.3", false, true),
            ("172.16.0.1", false, true),
            ("192.168.0.1", false, true),
            ("169.254.0.1", false, true),
            ("100.64.0.1", false, true),
            ("::1", false, true),
            ("fd00::1", false, true),
            ("fe80::1", false, true),
            ("::ffff:127.0.0.1", false, true),
            ("::ffff:0.0.0.0", false, false),
            ("0.0.0.0", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("240.0.0.1", false, false),
            ("::", false, false),
            ("ff02::1", false, false),
            // An IPv4 address inside: by a translator (RFC 6052), by 6to4 (RFC 3056), or in front of nothing (RFC 4291).
            ("64:ff9b::192.0.2.1", true, true),
            ("64:ff9b::127.0.0.1", false, true),
            ("64:ff9b::10.1.2.3", false, true),
            ("2002:c000:0201::1", true, true),
            ("2002:7f00:1::1", false, true),
            ("2002:a00:1::1", false, true),
            ("::127.0.0.1", false, true),
            ("::10.0.0.1", false, true),
            ("64:ff9b::0.0.0.0", false, false),
        ] {
            let address = address.parse().unwrap();
            let is = (may_connect(address, Reach::Public), may_connect(address, Reach::Private));
            assert_eq!(is, (public, private), "{address}");
        }
    }

    #[test]
    fn what_stands_behind_the_at_is_a_domain_or_an_address() {
        let domain = |name: &str| Ok(Place::Domain(name.to_owned()));
        assert_eq!(place("B.Test."), domain("b.test"));
        assert_eq!(place("b\u{fc}cher.test"), domain("xn--bcher-kva.test"));
        assert_eq!(place("_a.b.test"), domain("_a.b.test"));
        assert_eq!(place("[192.0.2.1]"), Ok(Place::Address("192.0.2.1".parse().unwrap())));
        assert_eq!(place("[IPv6:2001:db8::1]"), Ok(Place::Address("2001:db8::1".parse().unwrap())));
        for wrong in
            ["", ".", "a..b", "a b", "[", "[]", "[x]", "[2001:db8::1]", "[IPv6:192.0.2.1]", "[192.0.2.1", "a\r\nb"]
        {
            assert_eq!(code(&place(wrong).unwrap_err()), "5.1.2", "{wrong:?}");
        }
    }

    #[test]
    fn a_route_of_the_configuration_goes_before_the_dns() {
        let smart =
            |host: &str| SmartHost { host: host.to_owned(), port: 587, tls: SmartHostTls::StartTls, credentials: None };
        let by_domain = BTreeMap::from([("a.test".to_owned(), Some(smart("for-a"))), ("b.test".to_owned(), None)]);
        let routes = Routes { default: Some(smart("for-all")), by_domain };
        let of = |domain| routes.of(domain).map(|smart| smart.host.as_str());
        assert_eq!([of("A.test."), of("b.test"), of("c.test")], [Some("for-a"), None, Some("for-all")]);
        assert!(Routes::default().of("a.test").is_none());
    }
}

//! What a request for a page asks for.

use mailraft_outbound::tls::domain::host_name;

/// The longest address that is taken, in octets.
const ADDRESS_MAX_BYTES: usize = 320;

/// A request, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a str,
    /// What the field Host says.
    pub host: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The query, empty if there is none.
    pub query: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// A page, and the domain that it is about, as [`host_name`] has it. Whether that is ours is another question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The domain's policy of MTA-STS (RFC 8461, section 3.3).
    Policy {
        /// The domain.
        domain: String,
    },
    /// What Thunderbird and others fill in by themselves (autoconfig, version 1.1).
    Autoconfig {
        /// The domain.
        domain: String,
    },
    /// The same for Outlook (Autodiscover, plain old XML).
    Autodiscover {
        /// The domain.
        domain: String,
        /// Whose account.
        address: String,
    },
    /// The same for Apple's devices: a profile.
    Profile {
        /// The domain.
        domain: String,
        /// Whose account.
        address: String,
    },
}

/// Why there is no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestRefusal {
    /// There is none of that name.
    NotFound,
    /// It is not asked for in this way.
    NotAllowed,
    /// An address is missing or is none.
    NoAddress,
}

impl Wanted {
    /// What is asked for.
    ///
    /// # Errors
    /// Why there is no page.
    pub fn of(asked: &Asked<'_>) -> Result<Self, RequestRefusal> {
        let host = host_name(asked.host.split(':').next().unwrap_or_default()).ok_or(RequestRefusal::NotFound)?;
        let path = asked.path.to_ascii_lowercase();
        let get = || if asked.method == "GET" { Ok(()) } else { Err(RequestRefusal::NotAllowed) };
        match path.as_str() {
            "/.well-known/mta-sts.txt" => {
                get()?;
                let domain = host.strip_prefix("mta-sts.").ok_or(RequestRefusal::NotFound)?;
                Ok(Wanted::Policy { domain: domain.to_owned() })
            }
            "/mail/config-v1.1.xml" | "/.well-known/autoconfig/mail/config-v1.1.xml" => {
                get()?;
                let of_host = host.strip_prefix("autoconfig.").unwrap_or(&host).to_owned();
                let domain = match parameter(asked.query, "emailaddress") {
                    Some(address) => domain_of(&address).ok_or(RequestRefusal::NoAddress)?,
                    None => of_host,
                };
                Ok(Wanted::Autoconfig { domain })
            }
            "/autodiscover/autodiscover.xml" if asked.method == "POST" => {
                let address = element(asked.body, "EMailAddress").ok_or(RequestRefusal::NoAddress)?;
                let domain = domain_of(&address).ok_or(RequestRefusal::NoAddress)?;
                Ok(Wanted::Autodiscover { domain, address })
            }
            "/autodiscover/autodiscover.xml" => Err(RequestRefusal::NotAllowed),
            "/mail.mobileconfig" => {
                get()?;
                let address = parameter(asked.query, "emailaddress").ok_or(RequestRefusal::NoAddress)?;
                let domain = domain_of(&address).ok_or(RequestRefusal::NoAddress)?;
                Ok(Wanted::Profile { domain, address })
            }
            _ => Err(RequestRefusal::NotFound),
        }
    }

    /// The domain that it is about.
    pub fn domain(&self) -> &str {
        match self {
            Wanted::Policy { domain }
            | Wanted::Autoconfig { domain }
            | Wanted::Autodiscover { domain, .. }
            | Wanted::Profile { domain, .. } => domain,
        }
    }
}

/// The domain of an address that can be somebody's: no control characters, spaces, quotes or angle brackets.
fn domain_of(address: &str) -> Option<String> {
    let (local, domain) = address.rsplit_once('@')?;
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>' | '"' | '&' | '@' | '\'');
    let is_sound = !local.is_empty() && address.len() <= ADDRESS_MAX_BYTES && !local.contains(is_odd);
    host_name(domain).filter(|_| is_sound)
}

/// A parameter of a query, decoded (application/x-www-form-urlencoded).
fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    let mut octets = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        (octets, rest) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
                octets.push(u8::from_str_radix(digits, 16).ok()?);
                (octets, after)
            }
            (b'%', _) => return None,
            // A plus stands for itself in an address, and no address has a space.
            (octet, after) => {
                octets.push(*octet);
                (octets, after)
            }
        };
    }
    String::from_utf8(octets).ok()
}

/// The text of the first element of this name, whatever its namespace. What it has for `&amp;` and the like is in no address.
fn element(xml: &[u8], name: &str) -> Option<String> {
    let xml = std::str::from_utf8(xml).ok()?;
    let mut rest = xml;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (tag, text) = after.split_once('>')?;
        rest = text;
        let tag = tag.split([' ', '\t', '\r', '\n']).next().unwrap_or_default();
        let local = tag.rsplit(':').next().unwrap_or_default();
        if !tag.starts_with('/') && local.eq_ignore_ascii_case(name) {
            return text.split_once('<').map(|(text, _)| text.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn get(host: &str, path_and_query: &str) -> Result<Wanted, RequestRefusal> {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        Wanted::of(&Asked { method: "GET", host, path, query, body: b"" })
    }

    fn post(body: &str) -> Result<Wanted, RequestRefusal> {
        let (host, path) = ("autodiscover.b.test", "/Autodiscover/Autodiscover.xml");
        Wanted::of(&Asked { method: "POST", host, path, query: "", body: body.as_bytes() })
    }

    #[test]
    fn each_page_has_its_names() {
        let domain = || "b.test".to_owned();
        let policy = Ok(Wanted::Policy { domain: domain() });
        assert_eq!(get("mta-sts.b.test", "/.well-known/mta-sts.txt"), policy);
        assert_eq!(get("MTA-STS.b.test:443", "/.well-known/mta-sts.txt"), policy);
        let autoconfig = Ok(Wanted::Autoconfig { domain: domain() });
        assert_eq!(get("autoconfig.b.test", "/mail/config-v1.1.xml"), autoconfig);
        assert_eq!(get("b.test", "/.well-known/autoconfig/mail/config-v1.1.xml"), autoconfig);
        let by_address = "/mail/config-v1.1.xml?emailaddress=a%2Bx%40b.test";
        assert_eq!(get("autoconfig.elsewhere.test", by_address), autoconfig);
        let address = "a+x@b.test".to_owned();
        let profile = Ok(Wanted::Profile { domain: domain(), address: address.clone() });
        assert_eq!(get("mail.b.test", "/mail.mobileconfig?emailaddress=a+x@b.test"), profile);
        let xml = "<?xml version=\"1.0\"?>\r\n<Autodiscover xmlns=\"x\"><Request>\n<EMailAddress>\n a+x@b.test </EMailAddress>";
        let autodiscover = Ok(Wanted::Autodiscover { domain: domain(), address });
        assert_eq!(post(xml), autodiscover);
        assert_eq!(post(&xml.replace("EMailAddress", "a:emailaddress")), autodiscover);
    }

    #[test]
    fn what_is_no_request_for_a_page_has_none() {
        use RequestRefusal::{NoAddress, NotAllowed, NotFound};
        for path in ["/", "/mta-sts.txt", "/.well-known/mta-sts.txt/", "/..", ""] {
            assert_eq!(get("mta-sts.b.test", path), Err(NotFound), "{path}");
        }
        for host in ["", "b.test", "192.0.2.1", "[::1]:443", "mta-sts.", "mta-sts.b test"] {
            assert_eq!(get(host, "/.well-known/mta-sts.txt"), Err(NotFound), "{host}");
        }
        for address in [
            "",
            "a",
            "@b.test",
            "a@",
            "a@192.0.2.1",
            "a b@b.test",
            "a%00@b.test",
            "%3Ca%3E@b.test",
            "a%4",
            "a%zz@b.test",
            "a@c@b.test",
            "a%ff@b.test",
        ] {
            assert_eq!(
                get("b.test", &format!("/mail.mobileconfig?emailaddress={address}")),
                Err(NoAddress),
                "{address}"
            );
        }
        let long = format!("/mail.mobileconfig?emailaddress={}@b.test", "x".repeat(ADDRESS_MAX_BYTES));
        assert_eq!(get("b.test", &long), Err(NoAddress));
        assert_eq!(get("b.test", "/mail.mobileconfig"), Err(NoAddress));
        assert_eq!(get("b.test", "/autodiscover/autodiscover.xml"), Err(NotAllowed));
        for xml in ["", "<", "<EMailAddress", "<EMailAddress>a@b.test", "</EMailAddress>a@b.test<", "<x>a@b.test</x>"] {
            assert_eq!(post(xml), Err(NoAddress), "{xml}");
        }
        let delete =
            Asked { method: "DELETE", host: "mta-sts.b.test", path: "/.well-known/mta-sts.txt", query: "", body: b"" };
        assert_eq!(Wanted::of(&delete), Err(NotAllowed));
    }

    /// What a generator of numbers (xorshift64*) makes of requests.
    #[test]
    fn whatever_is_asked_is_about_a_domain_or_refused() {
        let seeds = [
            "mta-sts.b.test/.well-known/mta-sts.txt",
            "b.test/mail/config-v1.1.xml?emailaddress=a%2Bx@b.test",
            "b.test/mail.mobileconfig?emailaddress=a@b.test",
            "b.test/autodiscover/autodiscover.xml?<a><EMailAddress>a@b.test</EMailAddress></a>",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
        };
        let mut found = 0;
        for round in 0..20_000 {
            let mut text = seeds[round % seeds.len()].as_bytes().to_vec();
            for _ in 0..next(4) {
                let at = next(text.len());
                match next(3) {
                    0 => text[at] = next(256) as u8,
                    1 => drop(text.remove(at)),
                    _ => text.insert(at, b"%@<>&=?/.:+\xff"[next(12)]),
                }
            }
            let text = String::from_utf8_lossy(&text).into_owned();
            let (host, rest) = text.split_at(text.find('/').unwrap_or(text.len()));
            let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
            for method in ["GET", "POST"] {
                if let Ok(wanted) = Wanted::of(&Asked { method, host, path, query, body: query.as_bytes() }) {
                    assert_eq!(host_name(wanted.domain()).as_deref(), Some(wanted.domain()), "{text}");
                    found += 1;
                }
            }
        }
        assert!(found > 1_000, "{found}");
    }
}

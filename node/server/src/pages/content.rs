//! The texts of pages.

use std::fmt::Write as _;

use mailraft_outbound::tls::mta_sts::Policy;
use sha2::{Digest, Sha256};

use super::request::Wanted;
use crate::config::Listen;

/// What mail programs can speak here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Imap,
    Pop3,
    Submission,
}

/// When TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TlsFrom {
    Start,
    Starttls,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug)]
struct Offer {
    protocol: Protocol,
    port: u16,
    tls: TlsFrom,
}

/// What pages tell.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The name of the server.
    pub hostname: &'a str,
    /// Where it listens.
    pub listen: &'a Listen,
    /// Our own policy of MTA-STS, if there is one.
    pub policy: Option<&'a Policy>,
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Content-Type.
    pub kind: &'static str,
    /// What it says.
    pub text: String,
}

/// The text of what is wanted, about a domain that is ours. None if there is nothing to tell.
pub fn page(wanted: &Wanted, told: &Told<'_>) -> Option<Page> {
    let xml = "application/xml; charset=utf-8";
    match wanted {
        Wanted::Policy { .. } => {
            let text = told.policy?.lines().join("\r\n") + "\r\n";
            Some(Page { kind: "text/plain; charset=utf-8", text })
        }
        Wanted::Autoconfig { domain } => Some(Page { kind: xml, text: autoconfig(domain, told) }),
        Wanted::Autodiscover { address, .. } => Some(Page { kind: xml, text: autodiscover(address, told) }),
        Wanted::Profile { domain, address } => {
            let text = profile(domain, address, told)?;
            Some(Page { kind: "application/x-apple-aspen-config; charset=utf-8", text })
        }
    }
}

/// What is offered, the better first: TLS from the start (RFC 8314, section 3).
fn offers(listen: &Listen) -> Vec<Offer> {
    let all = [
        (Protocol::Imap, listen.imaps, TlsFrom::Start),
        (Protocol::Imap, listen.imap, TlsFrom::Starttls),
        (Protocol::Pop3, listen.pop3s, TlsFrom::Start),
        (Protocol::Pop3, listen.pop3, TlsFrom::Starttls),
        (Protocol::Submission, listen.submissions, TlsFrom::Start),
        (Protocol::Submission, listen.submission, TlsFrom::Starttls),
    ];
    all.into_iter().filter_map(|(protocol, at, tls)| Some(Offer { protocol, port: at?.port(), tls })).collect()
}

fn autoconfig(domain: &str, told: &Told<'_>) -> String {
    let (domain, hostname) = (escaped(domain), escaped(told.hostname));
    let mut servers = String::new();
    for offer in offers(told.listen) {
        let (element, kind) = match offer.protocol {
            Protocol::Imap => ("incomingServer", "imap"),
            Protocol::Pop3 => ("incomingServer", "pop3"),
            Protocol::Submission => ("outgoingServer", "smtp"),
        };
        let socket = match offer.tls {
            TlsFrom::Start => "SSL",
            TlsFrom::Starttls => "STARTTLS",
        };
        let _ = write!(
            servers,
            "    <{element} type=\"{kind}\">\n      <hostname>{hostname}</hostname>\n      <port>{}</port>\n      \
             <socketType>{socket}</socketType>\n      <authentication>password-cleartext</authentication>\n      \
             <username>%EMAILADDRESS%</username>\n    </{element}>\n",
            offer.port
        );
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<clientConfig version=\"1.1\">\n  <emailProvider id=\"{domain}\">\n    \
         <domain>{domain}</domain>\n    <displayName>{domain}</displayName>\n    \
         <displayShortName>{domain}</displayShortName>\n{servers}  </emailProvider>\n</clientConfig>\n"
    )
}

fn autodiscover(address: &str, told: &Told<'_>) -> String {
    let (address, hostname) = (escaped(address), escaped(told.hostname));
    let mut protocols = String::new();
    for offer in offers(told.listen) {
        let kind = match offer.protocol {
            Protocol::Imap => "IMAP",
            Protocol::Pop3 => "POP3",
            Protocol::Submission => "SMTP",
        };
        let encryption = match offer.tls {
            TlsFrom::Start => "SSL",
            TlsFrom::Starttls => "TLS",
        };
        let _ = write!(
            protocols,
            "      <Protocol>\n        <Type>{kind}</Type>\n        <Server>{hostname}</Server>\n        \
             <Port>{}</Port>\n        <DomainRequired>off</DomainRequired>\n        <LoginName>{address}</LoginName>\n        \
             <SPA>off</SPA>\n        <SSL>on</SSL>\n        <Encryption>{encryption}</Encryption>\n        \
             <AuthRequired>on</AuthRequired>\n      </Protocol>\n",
            offer.port
        );
    }
    let schema = "http://schemas.microsoft.com/exchange/autodiscover";
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<Autodiscover xmlns=\"{schema}/responseschema/2006\">\n  \
         <Response xmlns=\"{schema}/outlook/responseschema/2006a\">\n    <Account>\n      \
         <AccountType>email</AccountType>\n      <Action>settings</Action>\n{protocols}    </Account>\n  \
         </Response>\n</Autodiscover>\n"
    )
}

/// A profile with one account. None if there is nothing to read mail by, or nothing to send it by.
fn profile(domain: &str, address: &str, told: &Told<'_>) -> Option<String> {
    let offers = offers(told.listen);
    let incoming = offers.iter().find(|offer| offer.protocol != Protocol::Submission)?;
    let outgoing = offers.iter().find(|offer| offer.protocol == Protocol::Submission)?;
    let kind = match incoming.protocol {
        Protocol::Imap | Protocol::Submission => "EmailTypeIMAP",
        Protocol::Pop3 => "EmailTypePOP",
    };
    let mut account = String::new();
    let (address, domain, hostname) = (escaped(address), escaped(domain), escaped(told.hostname));
    let mut string = |key: &str, value: &str| {
        let _ = writeln!(account, "      <key>{key}</key><string>{value}</string>");
    };
    string("EmailAccountType", kind);
    string("EmailAddress", &address);
    for direction in ["Incoming", "Outgoing"] {
        string(&format!("{direction}MailServerAuthentication"), "EmailAuthPassword");
        string(&format!("{direction}MailServerHostName"), &hostname);
        string(&format!("{direction}MailServerUsername"), &address);
    }
    string("PayloadType", "com.apple.mail.managed");
    string("PayloadIdentifier", &format!("mailraft.{hostname}.account"));
    string("PayloadUUID", &uuid("account", &address));
    for (direction, offer) in [("Incoming", incoming), ("Outgoing", outgoing)] {
        let _ = writeln!(account, "      <key>{direction}MailServerPortNumber</key><integer>{}</integer>", offer.port);
        let _ = writeln!(account, "      <key>{direction}MailServerUseSSL</key><true/>");
    }
    account.push_str("      <key>OutgoingPasswordSameAsIncomingPassword</key><true/>\n");
    account.push_str("      <key>PayloadVersion</key><integer>1</integer>\n");
    Some(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n<dict>\n  \
         <key>PayloadContent</key>\n  <array>\n    <dict>\n{account}    </dict>\n  </array>\n  \
         <key>PayloadDisplayName</key><string>{domain}</string>\n  \
         <key>PayloadIdentifier</key><string>mailraft.{hostname}</string>\n  \
         <key>PayloadType</key><string>Configuration</string>\n  \
         <key>PayloadUUID</key><string>{}</string>\n  <key>PayloadVersion</key><integer>1</integer>\n</dict>\n</plist>\n",
        uuid("profile", &address)
    ))
}

/// The same for the same account, so that a profile that is fetched again takes the place of the first (RFC 9562, section 5.8).
fn uuid(what: &str, address: &str) -> String {
    let digest = Sha256::digest(format!("mailraft {what} {}", address.to_ascii_lowercase()));
    let mut octets: [u8; 16] = std::array::from_fn(|at| digest[at]);
    octets[6] = octets[6] & 0x0f | 0x80;
    octets[8] = octets[8] & 0x3f | 0x80;
    let hex = hex::encode_upper(octets);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn listen() -> Listen {
        let at = |port: u16| Some(([127, 0, 0, 1], port).into());
        Listen { imaps: at(993), imap: at(143), submissions: at(465), ..Listen::default() }
    }

    fn text(wanted: &Wanted, listen: &Listen, policy: Option<&Policy>) -> Option<Page> {
        page(wanted, &Told { hostname: "mail.a.test", listen, policy })
    }

    /// What stands between each of these elements.
    fn all<'a>(xml: &'a str, element: &str) -> Vec<&'a str> {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        xml.split(open.as_str()).skip(1).filter_map(|rest| rest.split_once(&close)).map(|(text, _)| text).collect()
    }

    #[test]
    fn a_policy_is_what_others_read_it_as() {
        let policy = Policy::parse(b"version: STSv1\nmode: testing\nmx: mail.a.test\nmax_age: 86400").unwrap();
        let wanted = Wanted::Policy { domain: "b.test".into() };
        let page = text(&wanted, &listen(), Some(&policy)).unwrap();
        assert!(page.kind.starts_with("text/plain"));
        assert_eq!(Policy::parse(page.text.as_bytes()), Ok(policy));
        assert_eq!(text(&wanted, &listen(), None), None);
    }

    #[test]
    fn mail_programs_are_told_what_there_is_and_nothing_else() {
        let (domain, address) = ("b.test".to_owned(), "o'a&b@b.test".to_owned());
        let page = text(&Wanted::Autoconfig { domain: domain.clone() }, &listen(), None).unwrap().text;
        assert_eq!(all(&page, "port"), ["993", "143", "465"]);
        assert_eq!(all(&page, "socketType"), ["SSL", "STARTTLS", "SSL"]);
        assert_eq!(all(&page, "hostname"), ["mail.a.test"; 3]);
        assert_eq!((all(&page, "domain"), page.matches("type=\"pop3\"").count()), (vec!["b.test"], 0));
        let page = text(&Wanted::Autodiscover { domain: domain.clone(), address: address.clone() }, &listen(), None);
        let page = page.unwrap().text;
        assert_eq!(all(&page, "Type"), ["IMAP", "IMAP", "SMTP"]);
        assert_eq!(all(&page, "Encryption"), ["SSL", "TLS", "SSL"]);
        assert_eq!(all(&page, "LoginName"), ["o&apos;a&amp;b@b.test"; 3], "what somebody wrote is text and no element");
        let profile = Wanted::Profile { domain, address };
        let page = text(&profile, &listen(), None).unwrap().text;
        assert_eq!(all(&page, "integer"), ["993", "465", "1", "1"]);
        assert!(page.contains("<key>EmailAddress</key><string>o&apos;a&amp;b@b.test</string>"));
        assert_eq!(text(&profile, &listen(), None).unwrap().text, page, "fetched again it is the same profile");
        assert_eq!(text(&profile, &Listen { imaps: None, imap: None, ..listen() }, None), None);
        assert_eq!(text(&profile, &Listen { submissions: None, ..listen() }, None), None);
    }
}

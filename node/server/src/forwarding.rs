//! What addresses of this cluster forward to other domains: under which reverse-path it goes on, whom what comes back goes to, and
//! what does not go on.

use mailraft_directory::{ForwardingKeys, Lookup, LookupError, Resolution};
use mailraft_outbound::srs;
use mailraft_sender_auth::Domain;
use mailraft_smtp::Mailbox;
use mailraft_storage::UnixMillis;
use mailraft_storage::seal::Key;

/// Whom a recipient's address stands for.
#[derive(Debug)]
pub enum Stands {
    /// For these.
    For(Resolution),
    /// For whoever sent what was forwarded under this address as its reverse-path.
    ForFirstSender(Mailbox),
}

/// Why no reverse-path is made of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRewritten {
    /// It is no address.
    #[error("its reverse-path is no address")]
    NoAddress,
    /// What would come of it is too long.
    #[error("its reverse-path is too long to be written into one of the address that forwards it")]
    TooLong,
}

/// Whom an address stands for at this time. An address that the directory does not know may be a reverse-path that was made by
/// [`rewritten`].
///
/// # Errors
/// If the directory can't be read.
pub fn stands_for(lookup: &Lookup, address: &Mailbox, now: UnixMillis) -> Result<Stands, LookupError> {
    let Mailbox { local, domain } = address;
    let found = match domain.as_str() {
        "" => lookup.resolve(local)?,
        _ => lookup.resolve(&format!("{local}@{domain}"))?,
    };
    match found {
        Resolution::Unknown => {}
        Resolution::NotOurs | Resolution::Mailboxes(..) | Resolution::Forwarded { .. } => {
            return Ok(Stands::For(found));
        }
    }
    let Some(first) = first_sender(&lookup.forwarding_keys()?, local, now) else { return Ok(Stands::For(found)) };
    Ok(match lookup.resolve(&format!("{}@{}", first.local, first.domain))? {
        Resolution::NotOurs => Stands::ForFirstSender(first),
        ours @ (Resolution::Unknown | Resolution::Mailboxes(..) | Resolution::Forwarded { .. }) => Stands::For(ours),
    })
}

/// The reverse-path under which a message goes on from an address of this cluster's: in the domain of that address, so that SPF lets
/// it pass, and reports come back to it.
///
/// # Errors
/// If there is none.
pub fn rewritten(keys: &ForwardingKeys, path: &str, by: &str, now: UnixMillis) -> Result<String, NotRewritten> {
    let Mailbox { local, domain } = Mailbox::parse(path).ok_or(NotRewritten::NoAddress)?;
    let (_, host) = by.rsplit_once('@').ok_or(NotRewritten::NoAddress)?;
    let mac = |parts: &[&[u8]]| keys.newest.keyed_hash(parts);
    let local = srs::rewritten(&local, &domain, now.0, mac).ok_or(NotRewritten::TooLong)?;
    Ok(Mailbox { local, domain: host.to_owned() }.to_string())
}

/// The field by which an address knows again what it has forwarded (RFC 9228).
pub fn delivered_to(by: &str) -> String {
    format!("Delivered-To: {by}\r\n")
}

/// Whether authors are of the domain of the address that forwards, or of one of the same organisation. What is sent under a
/// reverse-path of that domain would be shown to be theirs (RFC 7489, section 3.1.2). Nobody knows of authors that can't be
/// understood.
pub fn vouches_for(by: &str, authors: Option<&[String]>) -> bool {
    let Some(authors) = authors else { return true };
    authors.iter().any(|author| author.rsplit_once('@').is_some_and(|(_, host)| is_of(by, host)))
}

/// Whether a domain is the one of this address, or of the same organisation.
pub fn is_of(by: &str, domain: &str) -> bool {
    let organisation = |host: &str| Domain::parse(host).map(|domain| domain.organizational());
    let own = by.rsplit_once('@').and_then(|(_, host)| organisation(host));
    own.is_some() && organisation(domain) == own
}

fn first_sender(keys: &ForwardingKeys, local: &str, now: UnixMillis) -> Option<Mailbox> {
    let by = |key: &Key| srs::original(local, now.0, |parts| key.keyed_hash(parts)).ok();
    let srs::Original { local, domain } = by(&keys.newest).or_else(|| keys.before.as_ref().and_then(by))?;
    Some(Mailbox { local, domain: domain.to_ascii_lowercase() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn keys(newest: u8, before: Option<u8>) -> ForwardingKeys {
        let key = |byte: u8| Key::from_bytes([byte; 32]);
        ForwardingKeys { newest: key(newest), before: before.map(key) }
    }

    #[test]
    fn a_reverse_path_that_was_made_is_known_by_the_key_and_the_one_before_it_alone() {
        for path in ["jane@a.test", "\"a b\"@a.test", "SRS0=hash=day=c.test=x@a.test"] {
            let made = rewritten(&keys(1, None), path, "list@x.test", NOW).unwrap();
            let made = Mailbox::parse(&made).unwrap();
            assert_eq!(made.domain, "x.test");
            let back = |keys: ForwardingKeys| first_sender(&keys, &made.local, NOW).map(|mailbox| mailbox.to_string());
            assert_eq!(back(keys(1, None)).as_deref(), Some(path));
            assert_eq!(back(keys(2, Some(1))).as_deref(), Some(path));
            assert_eq!((back(keys(3, Some(2))), back(keys(2, None))), (None, None));
        }
        let long = format!("{}@a.test", "x".repeat(510));
        assert_eq!(rewritten(&keys(1, None), &long, "list@x.test", NOW), Err(NotRewritten::TooLong));
        assert_eq!(rewritten(&keys(1, None), "jane", "list@x.test", NOW), Err(NotRewritten::NoAddress));
    }

    #[test]
    fn what_says_that_it_is_of_the_forwarders_own_organisation_would_be_believed() {
        let authors = |all: &[&str]| all.iter().map(|author| (*author).to_owned()).collect::<Vec<_>>();
        for (all, vouches) in [
            (&["jane@a.test"][..], false),
            (&["jane@example.org"], true),
            (&["jane@a.test", "jane@News.Example.org"], true),
            (&["jane@example.com"], false),
            (&["jane"], false),
            (&[], false),
        ] {
            assert_eq!(vouches_for("list@mail.example.org", Some(&authors(all))), vouches, "{all:?}");
        }
        assert!(vouches_for("list@example.org", None));
    }
}

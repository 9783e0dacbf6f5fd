//! Reverse-paths of what is forwarded, rewritten by the Sender Rewriting Scheme (SRS; Wong 2003, as libsrs2 and pysrs write it):
//! the next server looks whether we may send under the reverse-path, and what it returns comes back to whoever sent it first.
//!
//! `SRS0=hash=day=domain=local@ours` stands for `local@domain`. Of what another forwarder has rewritten already
//! `SRS1=hash=its domain==the rest@ours` stands for `SRS0=the rest@its domain`, so that it gets no longer with each of them.
//! Servers on the way may change the case of a local part: neither the hash nor the day depends on it.

/// The longest local part that is made, in bytes: as long as those of reverse-paths that we take.
pub const LOCAL_PART_MAX_BYTES: usize = 512;
/// What was forwarded comes back within this, in days: mail is tried for five, and reports for as long.
pub const VALID_DAYS: u64 = 21;
/// Days come round after this.
const DAYS: u64 = 1 << 10;
/// Characters of a hash, of five bits each.
const HASH_CHARS: usize = 8;
/// Of RFC 4648, section 6.
const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const MILLIS_PER_DAY: u64 = 24 * 3_600_000;

/// Why an address stands for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrsRefusal {
    /// It is not of this form.
    NotSrs,
    /// We did not make it.
    Forged,
    /// It is older than [`VALID_DAYS`].
    Expired,
}

/// An address as it was, its local part without quoting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// The local part.
    pub local: String,
    /// The domain.
    pub domain: String,
}

/// The local part, in a domain of ours, that stands for a reverse-path from this time on, in milliseconds since 1970. `mac` is a
/// keyed hash. None if it would be longer than [`LOCAL_PART_MAX_BYTES`].
pub fn rewritten(local: &str, domain: &str, unix_ms: u64, mac: impl Fn(&[&[u8]]) -> [u8; 32]) -> Option<String> {
    let made = match (rest_of(local, "SRS0"), rest_of(local, "SRS1")) {
        // Its hash and day are the first forwarder's, who looks at them.
        (Some(rest), _) => once_more(domain, rest, mac),
        (None, Some(rest)) => match rest[1..].splitn(3, '=').collect::<Vec<_>>().as_slice() {
            [_, first, rest] if !first.is_empty() => once_more(first, rest, mac),
            _ => first(local, domain, unix_ms, mac),
        },
        (None, None) => first(local, domain, unix_ms, mac),
    };
    (made.len() <= LOCAL_PART_MAX_BYTES).then_some(made)
}

/// Whom a local part that we made stands for.
///
/// # Errors
/// If it is nobody.
pub fn original(local: &str, unix_ms: u64, mac: impl Fn(&[&[u8]]) -> [u8; 32]) -> Result<Original, SrsRefusal> {
    if let Some(rest) = rest_of(local, "SRS0") {
        let [hash, day, domain, local] = rest[1..].splitn(4, '=').collect::<Vec<_>>()[..] else {
            return Err(SrsRefusal::NotSrs);
        };
        check(hash, &hash_of(&["SRS0", day, domain, local], mac))?;
        let then = day_of(day).ok_or(SrsRefusal::Forged)?;
        let age = (unix_ms / MILLIS_PER_DAY + DAYS - then) % DAYS;
        // One day ahead: clocks differ.
        if age > VALID_DAYS && age != DAYS - 1 {
            return Err(SrsRefusal::Expired);
        }
        return Ok(Original { local: local.to_owned(), domain: domain.to_owned() });
    }
    let rest = rest_of(local, "SRS1").ok_or(SrsRefusal::NotSrs)?;
    let [hash, domain, rest] = rest[1..].splitn(3, '=').collect::<Vec<_>>()[..] else {
        return Err(SrsRefusal::NotSrs);
    };
    check(hash, &hash_of(&["SRS1", domain, rest], mac))?;
    Ok(Original { local: format!("SRS0{rest}"), domain: domain.to_owned() })
}

fn first(local: &str, domain: &str, unix_ms: u64, mac: impl Fn(&[&[u8]]) -> [u8; 32]) -> String {
    let day = unix_ms / MILLIS_PER_DAY % DAYS;
    let day: String = [day >> 5, day & 31].iter().map(|five| char::from(DIGITS[*five as usize])).collect();
    format!("SRS0={}={day}={domain}={local}", hash_of(&["SRS0", &day, domain, local], mac))
}

/// `rest` begins with the separator that the first forwarder uses.
fn once_more(domain: &str, rest: &str, mac: impl Fn(&[&[u8]]) -> [u8; 32]) -> String {
    format!("SRS1={}={domain}={rest}", hash_of(&["SRS1", domain, rest], mac))
}

/// What follows a tag, with the separator that follows the tag.
fn rest_of<'a>(local: &'a str, tag: &str) -> Option<&'a str> {
    let (head, rest) = local.split_at_checked(tag.len())?;
    (head.eq_ignore_ascii_case(tag) && rest.starts_with(['=', '+', '-'])).then_some(rest)
}

fn hash_of(parts: &[&str], mac: impl Fn(&[&[u8]]) -> [u8; 32]) -> String {
    let parts: Vec<String> = parts.iter().map(|part| part.to_ascii_lowercase()).collect();
    let hash = mac(&parts.iter().map(String::as_bytes).collect::<Vec<_>>());
    let bits = hash.iter().take(5).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    (0..HASH_CHARS).rev().map(|at| char::from(DIGITS[(bits >> (5 * at) & 31) as usize])).collect()
}

/// In a time that says nothing of where they differ.
fn check(is: &str, should: &str) -> Result<(), SrsRefusal> {
    let is = is.to_ascii_uppercase();
    let differ = is.bytes().zip(should.bytes()).fold(0, |all, (one, other)| all | (one ^ other));
    if is.len() == should.len() && differ == 0 { Ok(()) } else { Err(SrsRefusal::Forged) }
}

fn day_of(text: &str) -> Option<u64> {
    let digit = |b: u8| DIGITS.iter().position(|d| *d == b.to_ascii_uppercase()).map(|at| at as u64);
    match text.as_bytes() {
        [high, low] => Some(digit(*high)? << 5 | digit(*low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn mac(parts: &[&[u8]]) -> [u8; 32] {
        Sha256::digest([b"key".as_slice(), &parts.join(&0)].concat()).into()
    }

    fn after(days: u64) -> u64 {
        NOW + days * MILLIS_PER_DAY
    }

    #[test]
    fn what_comes_back_goes_to_who_sent_it_first_for_so_many_days() {
        let srs = rewritten("jane+x", "a.test", NOW, mac).unwrap();
        assert!(srs.starts_with("SRS0=") && srs.ends_with("=a.test=jane+x"), "{srs}");
        let is = Original { local: "jane+x".to_owned(), domain: "a.test".to_owned() };
        for days in [0, 1, VALID_DAYS] {
            assert_eq!(original(&srs, after(days), mac), Ok(is.clone()), "{days}");
        }
        // Another node's clock is behind.
        assert_eq!(original(&srs, NOW - MILLIS_PER_DAY, mac), Ok(is));
        for days in [VALID_DAYS + 1, DAYS / 2, DAYS - 2] {
            assert_eq!(original(&srs, after(days), mac), Err(SrsRefusal::Expired), "{days}");
        }
        for local in [srs.to_ascii_lowercase(), srs.to_ascii_uppercase()] {
            assert!(original(&local, NOW, mac).is_ok_and(|is| is.local.eq_ignore_ascii_case("jane+x")), "{local}");
        }
    }

    #[test]
    fn what_we_did_not_make_stands_for_nobody() {
        let srs = rewritten("jane", "a.test", NOW, mac).unwrap();
        let other = |parts: &[&[u8]]| Sha256::digest(parts.concat()).into();
        assert_eq!(original(&srs, NOW, other), Err(SrsRefusal::Forged), "another key");
        for (from, to) in [("a.test", "b.test"), ("jane", "joan"), ("SRS0=", "SRS0=A")] {
            assert_eq!(original(&srs.replace(from, to), NOW, mac), Err(SrsRefusal::Forged), "{to}");
        }
        assert_eq!(original(&srs.replace("SRS0", "SRS1"), NOW, mac), Err(SrsRefusal::Forged));
        for local in ["jane", "SRS0", "SRS0=", "SRS0=a=b=c", "SRS1=a=b", "SRS2=a=b=c=d", "srs0x=a=b=c=d", ""] {
            assert_eq!(original(local, NOW, mac), Err(SrsRefusal::NotSrs), "{local}");
        }
    }

    #[test]
    fn what_went_over_several_forwarders_comes_back_to_the_first_of_them() {
        let first = "SRS0+opaque=x=a.test=jane";
        let srs = rewritten(first, "one.test", NOW, mac).unwrap();
        assert!(srs.starts_with("SRS1=") && srs.ends_with("=one.test=+opaque=x=a.test=jane"), "{srs}");
        let is = Original { local: first.to_owned(), domain: "one.test".to_owned() };
        assert_eq!(original(&srs, NOW, mac), Ok(is.clone()));
        // However many follow, it is as long as after the second.
        let again = rewritten(&srs, "two.test", NOW, mac).unwrap();
        assert_eq!((again.len(), original(&again, NOW, mac)), (srs.len(), Ok(is)));
        // What only begins like that is an address like others.
        for odd in ["SRS1=x", "SRS1=x==y"] {
            let srs = rewritten(odd, "b.test", NOW, mac).unwrap();
            assert_eq!(original(&srs, NOW, mac).map(|is| is.local).as_deref(), Ok(odd));
        }
    }

    #[test]
    fn a_local_part_has_a_bound() {
        let fits = LOCAL_PART_MAX_BYTES - "SRS0=12345678=12=a.test=".len();
        assert!(rewritten(&"x".repeat(fits), "a.test", NOW, mac).is_some());
        assert!(rewritten(&"x".repeat(fits + 1), "a.test", NOW, mac).is_none());
    }

    proptest! {
        #[test]
        fn whatever_is_rewritten_comes_back_and_whatever_comes_panics_nowhere(
            local in "(SRS[01][=+-])?[ -~]{0,20}", domain in "[a-z]{1,5}\\.test", other in "(SRS[01])?[=a-zA-Z2-7\u{e4}]{0,40}",
        ) {
            let srs = rewritten(&local, &domain, NOW, mac).unwrap();
            let back = original(&srs, NOW, mac).unwrap();
            if srs.starts_with("SRS0") {
                prop_assert_eq!(back, Original { local, domain });
            }
            prop_assert!(original(&other, NOW, mac).is_err());
        }
    }
}

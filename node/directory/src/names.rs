//! What domains and addresses may look like, and their one form: lower case.

/// The longest address, in bytes (RFC 5321, section 4.5.3.1.3, without the angle brackets).
pub const ADDRESS_MAX_BYTES: usize = 254;
/// The longest selector, in bytes: a name below _domainkey has room for a domain too.
pub const SELECTOR_MAX_BYTES: usize = 63;
/// What separates a local part from its detail (RFC 5233).
pub const DETAIL_SEPARATOR: char = '+';
/// Whom mail about this server itself goes to, in any domain and without one (RFC 5321, section 4.5.1).
pub const POSTMASTER: &str = "postmaster";
/// Whom complaints about a domain's users go to (RFC 2142, section 4).
const ABUSE: &str = "abuse";
/// Characters of a wrong name that are told back: refusals are kept in the log.
const SHOWN_MAX_CHARS: usize = 80;

/// A domain's name in its one form.
///
/// # Errors
/// One sentence that says what is wrong.
pub fn domain(text: &str) -> Result<String, String> {
    let name = text.trim().trim_end_matches('.').to_ascii_lowercase();
    // Four numbers are an IP address.
    let numeric = name.rsplit('.').next().is_some_and(|top| top.bytes().all(|b| b.is_ascii_digit()));
    if name.len() > 253 || !name.contains('.') || numeric || !name.split('.').all(is_label) {
        return Err(format!("{} is not a domain name such as example.org", shown(text)));
    }
    Ok(name)
}

/// A selector's name in its one form: labels as those of a host (RFC 6376, section 3.1).
///
/// # Errors
/// One sentence that says what is wrong.
pub fn selector(text: &str) -> Result<String, String> {
    let name = text.trim().to_ascii_lowercase();
    if name.len() > SELECTOR_MAX_BYTES || !name.split('.').all(is_label) {
        return Err(format!(
            "{} is not a selector: use letters, digits and hyphens, at most {SELECTOR_MAX_BYTES}",
            shown(text)
        ));
    }
    Ok(name)
}

/// An address in its one form.
///
/// # Errors
/// One sentence that says what is wrong.
pub fn address(text: &str) -> Result<String, String> {
    address_outside(text).map(|address| address.to_ascii_lowercase())
}

/// An address of another domain in its one form: of the case of its local part only its own server knows (RFC 5321, section 2.4).
///
/// # Errors
/// One sentence that says what is wrong.
pub fn address_outside(text: &str) -> Result<String, String> {
    let text = text.trim();
    let (local, host) =
        text.rsplit_once('@').ok_or_else(|| format!("{} is not an address such as jane@example.org", shown(text)))?;
    let host = domain(host)?;
    let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b);
    let dots = local.starts_with('.') || local.ends_with('.') || local.contains("..");
    if local.is_empty() || local.len() > 64 || dots || !local.bytes().all(atom) || text.len() > ADDRESS_MAX_BYTES {
        return Err(format!(
            "{} is not a local part: use letters, digits and some punctuation, at most 64",
            shown(local)
        ));
    }
    Ok(format!("{local}@{host}"))
}

/// An address that may stand for others, in its one form: also `postmaster` without a domain.
///
/// # Errors
/// One sentence that says what is wrong.
pub fn alias(text: &str) -> Result<String, String> {
    if text.trim().eq_ignore_ascii_case(POSTMASTER) { Ok(POSTMASTER.to_owned()) } else { address(text) }
}

/// The addresses at which somebody must be reached where there is this domain.
pub(crate) fn roles(host: &str) -> [String; 3] {
    [format!("{POSTMASTER}@{host}"), format!("{ABUSE}@{host}"), POSTMASTER.to_owned()]
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_MAX_CHARS).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    format!("{short:?}")
}

/// An address without its detail, and the detail.
pub fn without_detail(address: &str) -> Option<(String, String)> {
    let (local, host) = address.rsplit_once('@')?;
    let (base, detail) = local.split_once(DETAIL_SEPARATOR)?;
    (!base.is_empty()).then(|| (format!("{base}@{host}"), detail.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        assert_eq!(address(" Jane.Doe@Example.ORG "), Ok("jane.doe@example.org".into()));
        assert_eq!(domain("Example.org."), Ok("example.org".into()));
        for wrong in [
            "a@1.2.3.4",
            "jane",
            "@example.org",
            "a b@example.org",
            "a..b@example.org",
            "a@b",
            "a@-b.org",
            "jörg@example.org",
        ] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
        assert_eq!(selector(" Rsa-2026.x "), Ok("rsa-2026.x".into()));
        for wrong in ["", "a b", "-a", "a..b", "a_b", "a;b", &"x".repeat(64)] {
            assert!(selector(wrong).is_err(), "{wrong}");
        }
        let long = "ö".repeat(100_000);
        for refused in [address(&long), address(&format!("{long}@x.org")), domain(&long)] {
            assert!(refused.is_err_and(|why| why.len() < 400), "a refusal is short");
        }
        assert_eq!(without_detail("a+b+c@d.e"), Some(("a@d.e".into(), "b+c".into())));
        assert_eq!(without_detail("+b@d.e"), None);
    }
}

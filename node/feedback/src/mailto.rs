//! Addresses in URIs of the scheme mailto (RFC 6068), as those who want reports give them.

use mailraft_outbound::tls::domain::host_name;

/// The longest URI that is read, in octets.
pub const URI_MAX_BYTES: usize = 1_024;

/// An address that may stand in a header and in an SMTP command as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) address: String,
    /// What stands behind its `@`, as [`host_name`] has it.
    pub(crate) host: String,
}

/// The scheme of a URI in lower case, and what stands behind its colon. None if it is too long, or has what no URI has.
pub(crate) fn split(uri: &str) -> Option<(String, &str)> {
    let is_sound = uri.len() <= URI_MAX_BYTES && uri.bytes().all(|b| b.is_ascii_graphic());
    let (scheme, rest) = uri.split_once(':').filter(|_| is_sound)?;
    Some((scheme.to_ascii_lowercase(), rest))
}

/// The address of such a URI, of what stands behind the scheme. What else it asks for is nothing to a report. None if there is not
/// one address, in ASCII, that needs no quotes.
pub(crate) fn address(rest: &str) -> Option<Address> {
    let address = unescaped(rest.split('?').next()?)?;
    let (local, domain) = address.rsplit_once('@')?;
    let is_atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    let is_dot_atom = local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext));
    let host = host_name(domain).filter(|_| is_dot_atom)?;
    Some(Address { address: format!("{local}@{host}"), host })
}

/// Without percent-encoding (RFC 3986, section 2.1).
fn unescaped(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut out = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
        out.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(out).ok()
}

//! Responses (RFC 1939, section 3; RFC 2449, section 8).

/// The longest first line of a response with its CRLF, in bytes (RFC 2449, section 4).
pub const RESPONSE_LINE_MAX_BYTES: usize = 512;

/// Says that it was done.
pub(crate) fn ok(out: &mut Vec<u8>, text: &str) {
    line(out, &format!("+OK {text}"));
}

/// Says that it was not done.
pub(crate) fn err(out: &mut Vec<u8>, text: &str) {
    line(out, &format!("-ERR {text}"));
}

/// Appends one line. A text may come from anywhere: what isn't printable ASCII becomes `?`, so that nobody can make two
/// responses of one, and what is too long is cut off.
pub(crate) fn line(out: &mut Vec<u8>, response: &str) {
    let printable = |c: char| if matches!(c, ' '..='~') { c as u8 } else { b'?' };
    out.extend(response.chars().take(RESPONSE_LINE_MAX_BYTES - 2).map(printable));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_stays_one_line_of_bounded_length() {
        let mut out = Vec::new();
        err(&mut out, "a\r\n+OK b\u{e4}\0");
        assert_eq!(out, b"-ERR a??+OK b??\r\n");
        out.clear();
        ok(&mut out, &"x".repeat(10_000));
        assert_eq!(out.len(), RESPONSE_LINE_MAX_BYTES);
    }
}

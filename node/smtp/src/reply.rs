//! Replies (RFC 5321, section 4.2) with enhanced status codes (RFC 2034).

/// The longest reply line with its CRLF, in bytes (RFC 5321, section 4.5.3.1.5).
pub const REPLY_LINE_MAX_BYTES: usize = 512;

/// Appends `code[-]text` lines.
pub fn lines(out: &mut Vec<u8>, code: u16, texts: &[String]) {
    for (n, text) in texts.iter().enumerate() {
        let separator = if n + 1 == texts.len() { ' ' } else { '-' };
        line(out, &format!("{code}{separator}{text}"));
    }
}

/// Appends one line. A text may come from anywhere: what isn't printable ASCII becomes `?`, so that nobody can
/// make two replies of one, and what is too long is cut off.
pub fn line(out: &mut Vec<u8>, reply: &str) {
    let printable = |c: char| if matches!(c, ' '..='~') { c as u8 } else { b'?' };
    out.extend(reply.chars().take(REPLY_LINE_MAX_BYTES - 2).map(printable));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_stays_one_line_of_bounded_length() {
        let mut out = Vec::new();
        line(&mut out, "550 a\r\n250 b\u{e4}\0");
        assert_eq!(out, b"550 a??250 b??\r\n");
        out.clear();
        line(&mut out, &"x".repeat(10_000));
        assert_eq!(out.len(), REPLY_LINE_MAX_BYTES);
    }

    #[test]
    fn the_last_line_of_several_has_no_hyphen() {
        let mut out = Vec::new();
        lines(&mut out, 250, &["a".into(), "b".into()]);
        assert_eq!(out, b"250-a\r\n250 b\r\n");
    }
}

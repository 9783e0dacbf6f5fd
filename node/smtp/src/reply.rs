//! Replies (RFC 5321, section 4.2) with enhanced status codes (RFC 2034).

/// Appends `code[-]text` lines.
pub fn lines(out: &mut Vec<u8>, code: u16, texts: &[String]) {
    for (n, text) in texts.iter().enumerate() {
        let separator = if n + 1 == texts.len() { ' ' } else { '-' };
        out.extend_from_slice(format!("{code}{separator}{text}\r\n").as_bytes());
    }
}

/// Appends one line.
pub fn line(out: &mut Vec<u8>, reply: &str) {
    out.extend_from_slice(reply.as_bytes());
    out.extend_from_slice(b"\r\n");
}

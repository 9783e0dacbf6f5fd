//! Identifiers that stay (RFC 8474): of a folder through renames, of a message through copies.

use mailraft_mailbox::api::{EmailId, FolderId};

/// The longest name of a message, in bytes.
const EMAIL_BYTES: usize = 1 + 32;

/// EMAILID
pub fn print_email(id: EmailId) -> String {
    let hex: String = id.0.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("M{hex}")
}

/// The message of an EMAILID; None if no message can have that.
pub fn email(text: &[u8]) -> Option<[u8; 16]> {
    let hex = std::str::from_utf8(text).ok()?.strip_prefix('M').filter(|_| text.len() == EMAIL_BYTES)?;
    let mut id = [0; 16];
    for (n, byte) in id.iter_mut().enumerate() {
        let digits = hex.get(2 * n..2 * n + 2).filter(|d| d.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(id)
}

/// MAILBOXID. A folder that is deleted while others are below it and made again is another one: so says its UIDVALIDITY.
pub fn print_folder(id: FolderId, uid_validity: u32) -> String {
    format!("F{}-{uid_validity}", id.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_id_comes_back_and_nothing_else_is_one() {
        let id = EmailId([0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        let text = print_email(id);
        assert_eq!(email(text.as_bytes()), Some(id.0));
        for wrong in ["", "M", "Mzz", &text[1..], &format!("{text}0"), &text.to_uppercase(), &text.replace("a0", "+0")]
        {
            assert_eq!(email(wrong.as_bytes()), None, "{wrong}");
        }
    }
}

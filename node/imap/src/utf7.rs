//! Folder names in modified UTF-7 (RFC 3501, section 5.1.3), or in UTF-8 where the client has enabled that (RFC 6855, RFC
//! 9051).

use std::fmt;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

/// How a session's client spells folders' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// As IMAP4rev1 does.
    ModifiedUtf7,
    /// As they are.
    Utf8,
}

impl Spelling {
    /// A name as it goes over the wire.
    pub fn encode(self, name: &str) -> String {
        match self {
            Spelling::ModifiedUtf7 => encode(name),
            Spelling::Utf8 => name.to_owned(),
        }
    }

    /// A name from the wire, if it is one.
    pub fn decode(self, raw: &[u8]) -> Option<String> {
        match self {
            Spelling::ModifiedUtf7 => decode(raw),
            Spelling::Utf8 => String::from_utf8(raw.to_vec()).ok(),
        }
    }
}

impl fmt::Display for Spelling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Spelling::ModifiedUtf7 => "modified UTF-7",
            Spelling::Utf8 => "UTF-8",
        })
    }
}

/// A name as it goes over the wire.
pub fn encode(name: &str) -> String {
    let mut out = String::new();
    let mut shifted: Vec<u16> = Vec::new();
    for c in name.chars() {
        if (' '..='~').contains(&c) {
            flush(&mut shifted, &mut out);
            out.push(c);
            if c == '&' {
                out.push('-');
            }
        } else {
            shifted.extend_from_slice(c.encode_utf16(&mut [0; 2]));
        }
    }
    flush(&mut shifted, &mut out);
    out
}

/// A name from the wire. Clients that send UTF-8 as it is are understood too.
pub fn decode(raw: &[u8]) -> Option<String> {
    if !raw.is_ascii() {
        return String::from_utf8(raw.to_vec()).ok();
    }
    let mut out = String::new();
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'&' {
            out.push(byte as char);
            continue;
        }
        let (mut bits, mut count, mut units, mut first) = (0u32, 0, Vec::new(), true);
        loop {
            let byte = bytes.next()?;
            if byte == b'-' {
                break;
            }
            first = false;
            let value = DIGITS.iter().position(|d| *d == byte)? as u32;
            bits = (bits << 6) | value;
            count += 6;
            if count >= 16 {
                count -= 16;
                units.push((bits >> count) as u16);
                bits &= (1 << count) - 1;
            }
        }
        if first {
            out.push('&');
        } else {
            if bits != 0 {
                return None;
            }
            out.push_str(&String::from_utf16(&units).ok()?);
        }
    }
    // Each name is written in one way: what could be written without shifting is, and shifts don't follow each other.
    (encode(&out).as_bytes() == raw).then_some(out)
}

fn flush(units: &mut Vec<u16>, out: &mut String) {
    if units.is_empty() {
        return;
    }
    out.push('&');
    let (mut bits, mut count) = (0u32, 0);
    for unit in units.drain(..) {
        bits = (bits << 16) | u32::from(unit);
        count += 16;
        while count >= 6 {
            count -= 6;
            out.push(DIGITS[(bits >> count) as usize & 63] as char);
            bits &= (1 << count) - 1;
        }
    }
    if count > 0 {
        out.push(DIGITS[(bits << (6 - count)) as usize & 63] as char);
    }
    out.push('-');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_the_rfc_and_others() {
        assert_eq!(encode("~peter/mail/台北/日本語"), "~peter/mail/&U,BTFw-/&ZeVnLIqe-");
        assert_eq!(encode("Q&A"), "Q&-A");
        assert_eq!(decode(b"Entw&APw-rfe"), Some("Entwürfe".into()));
        assert_eq!(decode("Entwürfe".as_bytes()), Some("Entwürfe".into()));
        assert_eq!(decode(b"open&AP"), None);
        assert_eq!(decode(b"&*-"), None);
        for wrong in ["&AGE-", "&AOQ-&APY-", "&2Dw-", "&AOR-", "a\tb"] {
            assert_eq!(decode(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in "\\PC{0,20}") {
            prop_assert_eq!(decode(encode(&name).as_bytes()), Some(name));
        }
    }
}

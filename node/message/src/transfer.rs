//! Content-Transfer-Encoding (RFC 2045, section 6).

/// What such bytes mean.
pub fn decode(encoding: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut transfer = Transfer::of(encoding);
    // At once: a vector that grows takes more while it does.
    let mut out = Vec::with_capacity(match transfer {
        Transfer::Base64 { .. } => bytes.len() / 4 * 3 + 3,
        Transfer::Identity | Transfer::Quoted(_) => bytes.len(),
    });
    transfer.decode(bytes, &mut out);
    out
}

/// Decodes what comes in pieces.
pub struct Decoding(Transfer);

impl Decoding {
    /// Of bytes of this encoding; None if it is not known what they mean.
    pub fn of(encoding: &[u8]) -> Option<Decoding> {
        let plain = ["", "7bit", "8bit", "binary"].iter().any(|name| encoding.eq_ignore_ascii_case(name.as_bytes()));
        let transfer = Transfer::of(encoding);
        (plain || !matches!(transfer, Transfer::Identity)).then_some(Decoding(transfer))
    }

    /// What the next piece means.
    pub fn take(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(piece.len());
        self.0.decode(piece, &mut out);
        out
    }
}

/// Whether bytes of this encoding mean others.
pub(crate) fn is_encoded(encoding: &[u8]) -> bool {
    !matches!(Transfer::of(encoding), Transfer::Identity)
}

/// Content-Transfer-Encoding, and what it remembers from one piece to the next.
pub(crate) enum Transfer {
    Identity,
    Base64 { bits: u32, count: u32 },
    Quoted(Quoted),
}

#[derive(Clone, Copy)]
pub(crate) enum Quoted {
    Text,
    /// After `=`, the CR of a line end, or one digit.
    Sign,
    Return,
    Digit(u8),
}

impl Transfer {
    pub(crate) fn of(encoding: &[u8]) -> Self {
        match encoding {
            encoding if encoding.eq_ignore_ascii_case(b"base64") => Transfer::Base64 { bits: 0, count: 0 },
            encoding if encoding.eq_ignore_ascii_case(b"quoted-printable") => Transfer::Quoted(Quoted::Text),
            _ => Transfer::Identity,
        }
    }

    /// What can't be decoded is left out (base64) or taken as it is (quoted-printable).
    pub(crate) fn decode(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        match self {
            Transfer::Identity => out.extend_from_slice(piece),
            Transfer::Base64 { bits, count } => {
                for byte in piece {
                    let value = match byte {
                        b'A'..=b'Z' => byte - b'A',
                        b'a'..=b'z' => byte - b'a' + 26,
                        b'0'..=b'9' => byte - b'0' + 52,
                        b'+' => 62,
                        b'/' => 63,
                        b'=' => {
                            // The end; whatever follows begins anew.
                            *count = 0;
                            continue;
                        }
                        _ => continue,
                    };
                    *bits = (*bits << 6 | u32::from(value)) & 0xff_ffff;
                    *count += 6;
                    if *count >= 8 {
                        *count -= 8;
                        out.push((*bits >> *count) as u8);
                    }
                }
            }
            Transfer::Quoted(state) => {
                for byte in piece {
                    *state = state.step(*byte, out);
                }
            }
        }
    }
}

impl Quoted {
    fn step(self, byte: u8, out: &mut Vec<u8>) -> Quoted {
        let digit = |byte: u8| (byte as char).to_digit(16);
        match (self, byte) {
            (Quoted::Text | Quoted::Return, b'=') => Quoted::Sign,
            // A soft line break.
            (Quoted::Sign, b'\r') => Quoted::Return,
            (Quoted::Sign | Quoted::Return, b'\n') => Quoted::Text,
            (Quoted::Sign, byte) if digit(byte).is_some() => Quoted::Digit(byte),
            (Quoted::Digit(high), byte) => {
                match digit(high).zip(digit(byte)) {
                    Some((high, low)) => out.push((high << 4 | low) as u8),
                    None => out.extend([b'=', high, byte]),
                }
                Quoted::Text
            }
            (Quoted::Sign, byte) => {
                out.extend([b'=', byte]);
                Quoted::Text
            }
            (Quoted::Text | Quoted::Return, byte) => {
                out.push(byte);
                Quoted::Text
            }
        }
    }
}

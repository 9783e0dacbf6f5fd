//! A blocking SMTP submission client over TLS.

use std::io;

use crate::cluster::Account;
use crate::wire::{Trust, Wire};

/// A logged-in submission session.
pub struct Smtp {
    wire: Wire,
}

/// How the server replied to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SmtpReply {
    /// 250: it is durable, under this command id and at this position.
    Accepted {
        /// `id=`
        id: String,
        /// `at=`
        at: String,
    },
    /// Another code with its text.
    Refused(u16, String),
}

impl Smtp {
    /// Connects to a `submissions` address and logs in.
    ///
    /// # Errors
    /// Those of the connection; `Other` with the server's words if it refuses.
    pub fn login(trust: &Trust, address: &str, account: &Account) -> io::Result<Self> {
        let mut smtp = Smtp { wire: Wire::connect(trust, address)? };
        smtp.expect(220)?;
        smtp.wire.send(b"EHLO chaos.test\r\n")?;
        smtp.expect(250)?;
        let plain = base64(format!("\0{}\0{}", account.address, account.password).as_bytes());
        smtp.wire.send(format!("AUTH PLAIN {plain}\r\n").as_bytes())?;
        smtp.expect(235)?;
        Ok(smtp)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Those of the connection: then nothing is known of the message.
    pub fn send(&mut self, from: &str, to: &str, message: &[u8]) -> io::Result<SmtpReply> {
        self.send_asking((from, ""), (to, ""), message)
    }

    /// Sends a message with these parameters of MAIL and RCPT, each behind its address.
    ///
    /// # Errors
    /// As [`Smtp::send`].
    pub fn send_asking(&mut self, from: (&str, &str), to: (&str, &str), message: &[u8]) -> io::Result<SmtpReply> {
        self.send_to_each(from, &[to], message)
    }

    /// Sends a message to several recipients, each with parameters.
    ///
    /// # Errors
    /// As [`Smtp::send`].
    pub fn send_to_each(
        &mut self,
        (from, of_mail): (&str, &str),
        to: &[(&str, &str)],
        message: &[u8],
    ) -> io::Result<SmtpReply> {
        // Pipelined, as RFC 2920 allows.
        let recipients: String = to.iter().map(|(to, of_rcpt)| format!("RCPT TO:<{to}>{of_rcpt}\r\n")).collect();
        self.wire.send(format!("MAIL FROM:<{from}>{of_mail}\r\n{recipients}DATA\r\n").as_bytes())?;
        let replies = (0..to.len() + 2).map(|_| self.reply()).collect::<io::Result<Vec<_>>>()?;
        if replies.last().is_none_or(|last| last.0 != 354) {
            self.wire.send(b"RSET\r\n")?;
            self.reply()?;
            let (code, text) = replies.into_iter().find(|r| r.0 >= 400).unwrap_or((0, "no refusal, and no 354".into()));
            return Ok(SmtpReply::Refused(code, text));
        }
        let mut data = Vec::with_capacity(message.len() + 64);
        for line in message.split_inclusive(|b| *b == b'\n') {
            if line.first() == Some(&b'.') {
                data.push(b'.');
            }
            data.extend_from_slice(line);
        }
        data.extend_from_slice(b".\r\n");
        self.wire.send(&data)?;
        let (code, text) = self.reply()?;
        let field = |name: &str| {
            let at = text.find(name)? + name.len();
            Some(text[at..].split_whitespace().next()?.to_owned())
        };
        match (code, field("id="), field("at=")) {
            (250, Some(id), Some(at)) => Ok(SmtpReply::Accepted { id, at }),
            _ => Ok(SmtpReply::Refused(code, text)),
        }
    }

    /// QUIT.
    ///
    /// # Errors
    /// Those of the connection; `Other` with the server's words if it does not say goodbye.
    pub fn quit(mut self) -> io::Result<()> {
        self.wire.send(b"QUIT\r\n")?;
        self.expect(221)
    }

    fn expect(&mut self, wanted: u16) -> io::Result<()> {
        let (code, text) = self.reply()?;
        if code == wanted { Ok(()) } else { Err(io::Error::other(format!("{code} {text}"))) }
    }

    fn reply(&mut self) -> io::Result<(u16, String)> {
        loop {
            let line = self.wire.line()?;
            let (code, rest) = line.split_at_checked(3).ok_or_else(|| io::Error::other(line.clone()))?;
            if !rest.starts_with('-') {
                return Ok((code.parse().unwrap_or(0), rest.trim_start().to_owned()));
            }
        }
    }
}

/// RFC 4648, section 4.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let n = group.iter().enumerate().fold(0u32, |n, (i, b)| n | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            out.push(if i <= group.len() { DIGITS[(n >> (18 - 6 * i)) as usize & 63] as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_as_in_rfc_4648() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(super::base64(plain.as_bytes()), coded);
        }
    }
}

//! What a server can do, as its answer to EHLO says (RFC 5321, section 4.1.1.1).

use crate::reply::Reply;

/// A server's extensions. One that was greeted with HELO has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531).
    pub utf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// SIZE (RFC 1870).
    pub size: bool,
    /// The largest message that it takes, in bytes, if it says so.
    pub size_max_bytes: Option<u64>,
    /// AUTH PLAIN (RFC 4616).
    pub auth_plain: bool,
    /// AUTH LOGIN.
    pub auth_login: bool,
    /// The most recipients of a transaction, if it says so (RFC 9422); at least 1.
    pub recipients_max: Option<usize>,
    /// The most transactions of a connection, if it says so (RFC 9422); at least 1.
    pub transactions_max: Option<usize>,
}

impl Capabilities {
    /// Those of an answer to EHLO. What isn't known is passed over.
    pub fn read(reply: &Reply) -> Self {
        let mut read = Capabilities::default();
        for line in reply.lines.iter().skip(1) {
            // Old servers write AUTH=.
            let line =
                line.replacen('=', " ", usize::from(line.get(..5).is_some_and(|l| l.eq_ignore_ascii_case("AUTH="))));
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next() else { continue };
            match keyword.to_ascii_uppercase().as_str() {
                "STARTTLS" => read.starttls = true,
                "PIPELINING" => read.pipelining = true,
                "8BITMIME" => read.eight_bit = true,
                "SMTPUTF8" => read.utf8 = true,
                "DSN" => read.dsn = true,
                "REQUIRETLS" => read.require_tls = true,
                "SIZE" => {
                    read.size = true;
                    // 0 says that there is no bound.
                    read.size_max_bytes = words.next().and_then(|word| word.parse().ok()).filter(|max| *max > 0);
                }
                "AUTH" => {
                    for mechanism in words {
                        read.auth_plain |= mechanism.eq_ignore_ascii_case("PLAIN");
                        read.auth_login |= mechanism.eq_ignore_ascii_case("LOGIN");
                    }
                }
                "LIMITS" => {
                    for (name, value) in words.filter_map(|word| word.split_once('=')) {
                        let most = value.parse().ok().filter(|most| *most > 0);
                        match name.to_ascii_uppercase().as_str() {
                            "RCPTMAX" => read.recipients_max = most,
                            "MAILMAX" => read.transactions_max = most,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Capabilities {
        let lines = std::iter::once("mx.test").chain(lines.iter().copied()).map(str::to_owned).collect();
        Capabilities::read(&Reply { code: 250, lines })
    }

    #[test]
    fn extensions_are_read_whatever_their_case_and_the_first_line_is_none() {
        let read =
            read(&["Size 1000", "pipelining", "AUTH=LOGIN", "AUTH PLAIN X", "LIMITS RCPTMAX=7 X=1 MAILMAX=0", "", "X"]);
        let expected = Capabilities {
            size: true,
            size_max_bytes: Some(1_000),
            pipelining: true,
            auth_login: true,
            auth_plain: true,
            recipients_max: Some(7),
            ..Capabilities::default()
        };
        assert_eq!(read, expected);
        let first = Reply { code: 250, lines: vec!["STARTTLS".into()] };
        assert_eq!(Capabilities::read(&first), Capabilities::default());
    }

    #[test]
    fn a_size_without_a_bound_is_none() {
        for line in ["SIZE", "SIZE 0", "SIZE x", "SIZE 99999999999999999999"] {
            let read = read(&[line]);
            assert_eq!((read.size, read.size_max_bytes), (true, None), "{line}");
        }
    }
}

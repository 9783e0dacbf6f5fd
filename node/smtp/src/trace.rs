//! Trace fields (RFC 5321, section 4.4).

use mailraft_message::date::date_time;
use mailraft_protocol::Tls;

/// What a Received field tells.
#[derive(Clone, Debug)]
pub struct Received<'a> {
    /// What the client called itself, and its address; None where that is not told.
    pub from: Option<(&'a str, std::net::IpAddr)>,
    /// This server.
    pub host: &'a str,
    /// ESMTP, with S under TLS and A after AUTH (RFC 3848).
    pub protocol: &'a str,
    /// Which TLS, if any. Its names are the program's own, so that none ends a comment.
    pub tls: Option<Tls>,
    /// The command's id.
    pub id: &'a str,
    /// The recipient, if there is only one.
    pub recipient: Option<&'a str>,
    /// Seconds since 1970-01-01 UTC.
    pub unix_seconds: i64,
}

/// The Received field with its line end. Which TLS was spoken is told in a comment, as other servers do: ESMTPS
/// alone (RFC 3848) says nothing of how good it was.
pub fn received(r: &Received<'_>) -> String {
    let from = r.from.map_or(String::new(), |(helo, peer)| match peer.to_canonical() {
        std::net::IpAddr::V4(v4) => format!("from {helo} ([{v4}])\r\n\t"),
        std::net::IpAddr::V6(v6) => format!("from {helo} ([IPv6:{v6}])\r\n\t"),
    });
    let comment = r.tls.map_or(String::new(), |tls| format!("\r\n\t(version={} cipher={})", tls.version, tls.cipher));
    let recipient = r.recipient.map_or(String::new(), |to| format!("\r\n\tfor <{to}>"));
    format!(
        "Received: {from}by {} with {}\r\n\tid {}{comment}{recipient};\r\n\t{}\r\n",
        r.host,
        r.protocol,
        r.id,
        date_time(r.unix_seconds)
    )
}

/// The Return-Path field with its line end; empty for the null reverse-path.
pub fn return_path(reverse_path: &str) -> String {
    format!("Return-Path: <{reverse_path}>\r\n")
}

/// RFC 3848's name for what was spoken.
pub fn protocol(extended: bool, tls: bool, authenticated: bool) -> &'static str {
    match (extended, tls, authenticated) {
        (false, _, _) => "SMTP",
        (true, false, false) => "ESMTP",
        (true, true, false) => "ESMTPS",
        (true, false, true) => "ESMTPA",
        (true, true, true) => "ESMTPSA",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Received<'static> {
        Received {
            from: Some(("c.example", std::net::Ipv6Addr::LOCALHOST.into())),
            host: "mx.example",
            protocol: protocol(true, false, false),
            tls: None,
            id: "0192",
            recipient: Some("a@b"),
            unix_seconds: 0,
        }
    }

    #[test]
    fn a_message_that_came_in_clear() {
        assert_eq!(
            received(&example()),
            "Received: from c.example ([IPv6:::1])\r\n\tby mx.example with ESMTP\r\n\tid 0192\r\n\tfor <a@b>;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
        let mapped = std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().into();
        let r = Received { from: Some(("[192.0.2.1]", mapped)), recipient: None, ..example() };
        assert_eq!(
            received(&r),
            "Received: from [192.0.2.1] ([192.0.2.1])\r\n\tby mx.example with ESMTP\r\n\tid 0192;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
    }

    #[test]
    fn of_a_mail_program_nobody_learns_where_it_is() {
        let r = Received { from: None, protocol: protocol(true, false, true), recipient: None, ..example() };
        assert_eq!(
            received(&r),
            "Received: by mx.example with ESMTPA\r\n\tid 0192;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
    }

    #[test]
    fn a_message_that_came_over_tls() {
        let tls = Some(Tls { version: "TLS1_3", cipher: "TLS_AES_256_GCM_SHA384" });
        let r = Received { protocol: protocol(true, true, false), tls, ..example() };
        assert_eq!(
            received(&r),
            "Received: from c.example ([IPv6:::1])\r\n\tby mx.example with ESMTPS\r\n\tid 0192\r\n\t(version=TLS1_3 cipher=TLS_AES_256_GCM_SHA384)\r\n\tfor <a@b>;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
        let tls = Some(Tls { version: "TLS1_2", cipher: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" });
        let r = Received { protocol: protocol(true, true, true), tls, recipient: None, ..example() };
        assert_eq!(
            received(&r),
            "Received: from c.example ([IPv6:::1])\r\n\tby mx.example with ESMTPSA\r\n\tid 0192\r\n\t(version=TLS1_2 cipher=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256);\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
    }

    #[test]
    fn the_return_path() {
        assert_eq!(return_path(""), "Return-Path: <>\r\n");
        assert_eq!(return_path("a@b"), "Return-Path: <a@b>\r\n");
    }

    #[test]
    fn protocols_by_rfc_3848() {
        for (extended, tls, authenticated, name) in [
            (false, true, false, "SMTP"),
            (true, false, false, "ESMTP"),
            (true, true, false, "ESMTPS"),
            (true, false, true, "ESMTPA"),
            (true, true, true, "ESMTPSA"),
        ] {
            assert_eq!(protocol(extended, tls, authenticated), name);
        }
    }
}

//! EHLO and HELO (RFC 5321, section 4.1.1.1).

use crate::parse::is_domain;
use crate::reply::{line, lines};
use crate::session::{Service, Session};

pub fn run(session: &mut Session, argument: &[u8], extended: bool, out: &mut Vec<u8>) {
    let name = std::str::from_utf8(argument).ok().map(str::trim).filter(|n| is_domain(n));
    let Some(name) = name else {
        return session.wrong(out, "501 5.5.4 say EHLO and your name or address literal");
    };
    session.helo = Some((name.to_owned(), extended));
    session.mail = None;
    if !extended {
        return line(out, &format!("250 {}", session.config.hostname));
    }
    let mut texts = vec![
        session.config.hostname.clone(),
        "PIPELINING".into(),
        format!("SIZE {}", session.config.max_message_bytes),
        "8BITMIME".into(),
        "ENHANCEDSTATUSCODES".into(),
    ];
    if !session.tls && session.config.tls_available {
        texts.push("STARTTLS".into());
    }
    if session.tls && session.config.service != Service::Relay {
        texts.push("AUTH PLAIN LOGIN".into());
    }
    lines(out, 250, &texts);
}

//! EHLO and HELO (RFC 5321, section 4.1.1.1).

use crate::agent::DeliveryAgent;
use crate::parse::is_domain;
use crate::reply::{line, lines};
use crate::state::{Service, State};

pub fn run<A: DeliveryAgent>(state: &mut State, argument: &[u8], extended: bool, agent: &mut A, out: &mut Vec<u8>) {
    let name = std::str::from_utf8(argument).ok().map(str::trim).filter(|n| is_domain(n));
    let Some(name) = name else {
        return state.wrong(out, "501 5.5.4 say EHLO and your name or address literal");
    };
    state.helo = Some((name.to_owned(), extended));
    state.drop_mail(agent);
    if !extended {
        return line(out, &format!("250 {}", state.config.hostname));
    }
    let mut texts = vec![
        state.config.hostname.clone(),
        "PIPELINING".into(),
        format!("SIZE {}", state.config.max_message_bytes),
        "8BITMIME".into(),
        "CHUNKING".into(),
        "ENHANCEDSTATUSCODES".into(),
    ];
    if state.config.reports {
        texts.push("DSN".into());
    }
    if state.tls.is_some() {
        texts.push("REQUIRETLS".into());
    }
    if state.tls.is_none() && state.config.tls_available {
        texts.push("STARTTLS".into());
    }
    if state.tls.is_some() && state.config.service != Service::Relay {
        texts.push("AUTH PLAIN LOGIN".into());
    }
    lines(out, 250, &texts);
}

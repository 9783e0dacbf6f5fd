//! MAIL (RFC 5321, section 4.1.1.2) with SIZE (RFC 1870) and BODY (RFC 6152).

use crate::parse::{ParseError, Side, path_and_parameters};
use crate::reply::line;
use crate::state::{Mail, Service, State};

pub fn run(state: &mut State, argument: &[u8], out: &mut Vec<u8>) {
    if state.helo.is_none() {
        return state.wrong(out, "503 5.5.1 say EHLO first");
    }
    if state.config.service != Service::Relay && state.identity.is_none() {
        let reply = if state.tls { "530 5.7.0 log in first" } else { "530 5.7.0 say STARTTLS first, then log in" };
        return state.wrong(out, reply);
    }
    if state.mail.is_some() {
        return state.wrong(out, "503 5.5.1 one MAIL at a time; RSET begins anew");
    }
    let (reverse_path, parameters) = match path_and_parameters(argument, Side::From) {
        Ok(parsed) => parsed,
        Err(ParseError::Path) => return state.wrong(out, "501 5.1.7 say MAIL FROM:<address>"),
        Err(ParseError::NotAscii) => return state.wrong(out, "553 5.6.7 addresses outside ASCII are not taken here"),
        Err(ParseError::Parameters) => return state.wrong(out, "501 5.5.4 parameters are NAME=value, each once"),
    };
    let mut mail = Mail { reverse_path, ..Mail::default() };
    for (name, value) in parameters {
        let value = value.unwrap_or_default();
        match name.as_str() {
            "SIZE" => match announced_bytes(&value) {
                Some(bytes) => mail.announced_bytes = Some(bytes),
                None => return state.wrong(out, "501 5.5.4 SIZE is a number"),
            },
            "BODY" if value.eq_ignore_ascii_case("7BIT") => {}
            "BODY" if value.eq_ignore_ascii_case("8BITMIME") => mail.eight_bit = true,
            "BODY" => return state.wrong(out, "501 5.5.4 BODY is 7BIT or 8BITMIME"),
            // Whom another server believes to have sent it (RFC 4954, section 5) is nobody's proof here.
            "AUTH" if state.config.service != Service::Relay && !value.is_empty() => {}
            _ => return state.wrong(out, &format!("555 5.5.4 unknown parameter {name}")),
        }
    }
    let limit = state.config.max_message_bytes;
    if mail.announced_bytes.is_some_and(|bytes| bytes > limit) {
        return line(out, &format!("552 5.3.4 the message is longer than {limit} bytes"));
    }
    state.mail = Some(mail);
    line(out, "250 2.1.0 Ok");
}

/// The number SIZE= tells: 1 to 20 digits (RFC 1870, section 4); what is past counting is u64::MAX.
fn announced_bytes(digits: &str) -> Option<u64> {
    let is_number = (1..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

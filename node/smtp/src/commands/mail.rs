//! MAIL (RFC 5321, section 4.1.1.2) with SIZE (RFC 1870), BODY (RFC 6152), REQUIRETLS (RFC 8689), and RET and ENVID
//! (RFC 3461).

use mailraft_protocol::Refusal;

use crate::agent::DeliveryAgent;
use crate::dsn::{ENVID_MAX_BYTES, Return, is_envid};
use crate::parse::{ParseError, Side, path_and_parameters};
use crate::refusals::{During, refuse};
use crate::reply::line;
use crate::state::{Config, Mail, Service, State};

pub async fn run<A: DeliveryAgent>(state: &mut State, argument: &[u8], agent: &mut A, out: &mut Vec<u8>) {
    if state.helo.is_none() {
        return state.wrong(out, "503 5.5.1 say EHLO first");
    }
    if state.config.service != Service::Relay && state.identity.is_none() {
        let first = if state.tls.is_some() { "log in first" } else { "say STARTTLS first, then log in" };
        return state.wrong(out, &format!("530 5.7.0 {first}"));
    }
    if state.mail.is_some() {
        return state.wrong(out, "503 5.5.1 one MAIL at a time; RSET begins anew");
    }
    let mail = match parsed(argument, &state.config) {
        Ok(mail) => mail,
        Err(reply) => return state.wrong(out, &reply),
    };
    if mail.requiretls && state.tls.is_none() {
        return state.wrong(out, "530 5.7.4 REQUIRETLS is for a message that comes over TLS; say STARTTLS first");
    }
    let limit = state.config.max_message_bytes;
    if mail.announced_bytes.is_some_and(|bytes| bytes > limit) {
        return refuse(state, &Refusal::MessageTooLong(limit).into(), During::Message, out);
    }
    if let Err(refusal) = agent.has_room() {
        return refuse(state, &refusal.into(), During::Message, out);
    }
    if let (Some(identity), Some(path)) = (&state.identity, &mail.reverse_path)
        && let Err(failure) = agent.check_sender(identity, path).await
    {
        return refuse(state, &failure, During::Sender, out);
    }
    state.mail = Some(mail);
    line(out, "250 2.1.0 Ok");
}

/// What a MAIL line says, or the reply that refuses it.
fn parsed(argument: &[u8], config: &Config) -> Result<Mail, String> {
    let (reverse_path, parameters) = path_and_parameters(argument, Side::From).map_err(|error| match error {
        ParseError::Path => "501 5.1.7 say MAIL FROM:<address>",
        ParseError::NotAscii => "553 5.6.7 addresses outside ASCII are not taken here",
        ParseError::Parameters => "501 5.5.4 parameters are NAME=value, each once",
    })?;
    let mut mail = Mail { reverse_path, ..Mail::default() };
    for (name, value) in parameters {
        if name == "REQUIRETLS" && value.is_none() {
            mail.requiretls = true;
            continue;
        }
        let value = value.unwrap_or_default();
        match name.as_str() {
            "SIZE" => mail.announced_bytes = Some(announced_bytes(&value).ok_or("501 5.5.4 SIZE is a number")?),
            "BODY" if value.eq_ignore_ascii_case("7BIT") => {}
            "BODY" if value.eq_ignore_ascii_case("8BITMIME") => mail.eight_bit = true,
            "BODY" => return Err("501 5.5.4 BODY is 7BIT or 8BITMIME".into()),
            "RET" if config.reports => mail.ret = Some(Return::parse(&value).ok_or("501 5.5.4 RET is FULL or HDRS")?),
            "ENVID" if config.reports && is_envid(&value) => mail.envid = Some(value),
            "ENVID" if config.reports => {
                return Err(format!("501 5.5.4 ENVID is xtext of at most {ENVID_MAX_BYTES} printable characters"));
            }
            "REQUIRETLS" => return Err("501 5.5.4 REQUIRETLS has no value".into()),
            // Whom another server believes to have sent it (RFC 4954, section 5) is nobody's proof here.
            "AUTH" if config.service != Service::Relay && !value.is_empty() => {}
            _ => return Err(format!("555 5.5.4 unknown parameter {name}")),
        }
    }
    Ok(mail)
}

/// The number SIZE= tells: 1 to 20 digits (RFC 1870, section 4); what is past counting is u64::MAX.
fn announced_bytes(digits: &str) -> Option<u64> {
    let is_number = (1..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

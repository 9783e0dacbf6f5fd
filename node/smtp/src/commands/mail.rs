//! MAIL (RFC 5321, section 4.1.1.2) with SIZE (RFC 1870) and BODY (RFC 6152).

use crate::parse::{PathError, path_and_parameters};
use crate::reply::line;
use crate::session::{Mail, Service, Session};

pub fn run(session: &mut Session, argument: &[u8], out: &mut Vec<u8>) {
    if session.helo.is_none() {
        return session.wrong(out, "503 5.5.1 say EHLO first");
    }
    if session.config.service != Service::Relay && session.identity.is_none() {
        return session.wrong(out, "530 5.7.0 log in first");
    }
    if session.mail.is_some() {
        return session.wrong(out, "503 5.5.1 one MAIL at a time; RSET begins anew");
    }
    let (reverse_path, parameters) = match path_and_parameters(argument, "FROM:") {
        Ok(parsed) => parsed,
        Err(PathError::Syntax) => return session.wrong(out, "501 5.1.7 say MAIL FROM:<address>"),
        Err(PathError::NotAscii) => return session.wrong(out, "553 5.6.7 addresses outside ASCII are not taken here"),
    };
    let mut mail = Mail { reverse_path, ..Mail::default() };
    for (name, value) in parameters {
        match (name.as_str(), value.as_deref()) {
            ("SIZE", Some(size)) => match size.parse::<u64>() {
                Ok(size) if size > session.config.max_message_bytes => {
                    let limit = session.config.max_message_bytes;
                    return line(out, &format!("552 5.3.4 the message is longer than {limit} bytes"));
                }
                Ok(_) => {}
                Err(_) => return session.wrong(out, "501 5.5.4 SIZE is a number"),
            },
            ("BODY", Some(body)) if body.eq_ignore_ascii_case("7BIT") => {}
            ("BODY", Some(body)) if body.eq_ignore_ascii_case("8BITMIME") => mail.eight_bit = true,
            // Whom another server believes to have sent it (RFC 4954, section 5) is nobody's proof here.
            ("AUTH", Some(_)) if session.config.service != Service::Relay => {}
            _ => return session.wrong(out, &format!("555 5.5.4 unknown parameter {name}")),
        }
    }
    session.mail = Some(mail);
    line(out, "250 2.1.0 Ok");
}

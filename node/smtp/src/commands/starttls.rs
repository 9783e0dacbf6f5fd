//! STARTTLS (RFC 3207).

use crate::reply::line;
use crate::session::{Session, Step};

pub fn run(session: &mut Session, argument: &[u8], out: &mut Vec<u8>) -> Option<Step> {
    if session.tls {
        session.wrong(out, "503 5.5.1 TLS is up already");
        return None;
    }
    if !session.config.tls_available {
        session.wrong(out, "502 5.5.1 STARTTLS is not offered");
        return None;
    }
    if !argument.is_empty() {
        session.wrong(out, "501 5.5.4 STARTTLS takes no argument");
        return None;
    }
    line(out, "220 2.0.0 ready for TLS");
    Some(session.start_tls())
}

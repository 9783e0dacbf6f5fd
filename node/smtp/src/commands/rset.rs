//! RSET (RFC 5321, section 4.1.1.5).

use crate::reply::line;
use crate::session::Session;

pub fn run(session: &mut Session, argument: &[u8], out: &mut Vec<u8>) {
    if !argument.is_empty() {
        return session.wrong(out, "501 5.5.4 RSET takes no argument");
    }
    session.mail = None;
    line(out, "250 2.0.0 Ok");
}

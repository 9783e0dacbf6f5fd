//! EXPN (RFC 5321, section 4.1.1.7): there are no lists to tell the members of.

use crate::session::Session;

pub fn run(session: &mut Session, out: &mut Vec<u8>) {
    session.wrong(out, "502 5.5.1 EXPN is not offered");
}

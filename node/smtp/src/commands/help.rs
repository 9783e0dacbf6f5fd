//! HELP (RFC 5321, section 4.1.1.8).

use crate::reply::line;

pub fn run(out: &mut Vec<u8>) {
    line(out, "214 2.0.0 see RFC 5321");
}

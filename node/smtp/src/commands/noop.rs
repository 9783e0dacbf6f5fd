//! NOOP (RFC 5321, section 4.1.1.9): it may have an argument, which means nothing.

use crate::reply::line;

pub fn run(out: &mut Vec<u8>) {
    line(out, "250 2.0.0 Ok");
}

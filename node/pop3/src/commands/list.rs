//! LIST (RFC 1939, section 5): the octets of one message or of all.

use mailraft_protocol::{Out, Output};

use crate::reply::{line, ok};
use crate::state::{State, words};

pub async fn run<O: Output>(state: &mut State, argument: &[u8], out: &mut Out<O>) {
    let Some(opened) = state.opened(&mut out.bytes) else { return };
    match words(argument).as_slice() {
        [] => {
            let (count, bytes) = opened.count();
            ok(&mut out.bytes, &format!("{count} messages ({bytes} octets)"));
            for (number, message) in opened.present() {
                line(&mut out.bytes, &format!("{number} {}", message.size_bytes));
                out.pass_on().await;
            }
            line(&mut out.bytes, ".");
        }
        [number] => match opened.find(number) {
            Ok((number, message)) => ok(&mut out.bytes, &format!("{number} {}", message.size_bytes)),
            Err(why) => state.wrong(&mut out.bytes, why),
        },
        _ => state.wrong(&mut out.bytes, "LIST takes one message or none"),
    }
}

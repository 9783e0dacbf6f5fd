//! BDAT (RFC 3030).

use crate::agent::DeliveryAgent;
use crate::chunks::{Chunk, ChunkRefusal, Chunks};
use crate::reply::line;
use crate::state::{Reading, State};

pub fn run<A: DeliveryAgent>(state: &mut State, argument: &[u8], agent: &mut A, out: &mut Vec<u8>) {
    let Some((size_bytes, last)) = parsed(argument) else {
        // How much of what follows is no command can't be known.
        state.closing = true;
        return line(out, "501 5.5.4 say BDAT and the number of octets, and LAST with the last");
    };
    let refused = begin(state, agent).err();
    state.reading = Reading::Chunk(Chunk { size_bytes, left_bytes: size_bytes, last, refused });
}

/// Begins the message, if it was not.
fn begin<A: DeliveryAgent>(state: &mut State, agent: &mut A) -> Result<(), ChunkRefusal> {
    let mail = state.mail.as_mut().ok_or(ChunkRefusal::Wrong("503 5.5.1 say MAIL first"))?;
    if mail.recipients.is_empty() {
        return Err(ChunkRefusal::Wrong("554 5.5.1 no valid recipients"));
    }
    if mail.chunks.is_none() {
        agent.begin_message().map_err(ChunkRefusal::Refused)?;
        mail.chunks = Some(Chunks::default());
    }
    Ok(())
}

/// The number of octets, and whether LAST follows.
fn parsed(argument: &[u8]) -> Option<(u64, bool)> {
    let text = std::str::from_utf8(argument).ok()?;
    let (octets, last) = match text.split_once(' ') {
        Some((octets, last)) if last.trim().eq_ignore_ascii_case("LAST") => (octets, true),
        Some(_) => return None,
        None => (text, false),
    };
    let is_number = !octets.is_empty() && octets.bytes().all(|b| b.is_ascii_digit());
    Some((is_number.then(|| octets.parse().ok())??, last))
}

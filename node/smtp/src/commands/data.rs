//! DATA (RFC 5321, section 4.1.1.4).

use crate::agent::DeliveryAgent;
use crate::data::Data;
use crate::refusals::{During, refuse};
use crate::reply::line;
use crate::state::{Reading, State};

pub fn run<A: DeliveryAgent>(state: &mut State, argument: &[u8], agent: &mut A, out: &mut Vec<u8>) {
    if !argument.is_empty() {
        return state.wrong(out, "501 5.5.4 DATA takes no argument");
    }
    match &state.mail {
        None => state.wrong(out, "503 5.5.1 say MAIL first"),
        Some(mail) if mail.chunks.is_some() => {
            state.wrong(out, "503 5.5.1 the message came by BDAT; end it so, or say RSET")
        }
        Some(mail) if mail.recipients.is_empty() => state.wrong(out, "554 5.5.1 no valid recipients"),
        Some(_) => {
            if let Err(refusal) = agent.begin_message() {
                return refuse(state, &refusal.into(), During::Message, out);
            }
            state.reading = Reading::Data(Data::new());
            line(out, "354 end with <CR><LF>.<CR><LF>");
        }
    }
}

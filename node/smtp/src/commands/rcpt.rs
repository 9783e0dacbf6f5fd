//! RCPT (RFC 5321, section 4.1.1.3): all recipients of one transaction are one mailbox.

use crate::agent::DeliveryAgent;
use crate::parse::{Mailbox, ParseError, Side, path_and_parameters};
use crate::refusals::{During, refuse};
use crate::reply::line;
use crate::state::{RECIPIENTS_MAX, State};

pub async fn run<A: DeliveryAgent>(state: &mut State, argument: &[u8], agent: &mut A, out: &mut Vec<u8>) {
    let Some(mail) = &mut state.mail else { return state.wrong(out, "503 5.5.1 say MAIL first") };
    if mail.chunks.is_some() {
        return state.wrong(out, "503 5.5.1 the message has begun");
    }
    if mail.recipients.len() >= RECIPIENTS_MAX {
        return line(out, "452 4.5.3 too many recipients");
    }
    let address = match address(argument) {
        Ok(address) => address,
        Err(reply) => return state.wrong(out, &reply),
    };
    match agent.verify(&address).await {
        Ok(found) => {
            if mail.destination.get_or_insert_with(|| found.clone()).mailbox != found.mailbox {
                return line(out, "452 4.5.3 one mailbox for each message; send it again for this one");
            }
            mail.recipients.push(address);
            line(out, "250 2.1.5 Ok");
        }
        Err(failure) => refuse(state, &failure, During::Recipient, out),
    }
}

/// Whom a RCPT line names, or the reply that refuses it.
fn address(argument: &[u8]) -> Result<Mailbox, String> {
    match path_and_parameters(argument, Side::To) {
        Ok((Some(address), parameters)) => match parameters.first() {
            None => Ok(address),
            Some((name, _)) => Err(format!("555 5.5.4 unknown parameter {name}")),
        },
        Ok((None, _)) | Err(ParseError::Path) => Err("501 5.1.3 say RCPT TO:<address>".to_owned()),
        Err(ParseError::NotAscii) => Err("553 5.6.7 addresses outside ASCII are not taken here".to_owned()),
        Err(ParseError::Parameters) => Err("501 5.5.4 parameters are NAME=value, each once".to_owned()),
    }
}

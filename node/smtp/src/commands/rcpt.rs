//! RCPT (RFC 5321, section 4.1.1.3): all recipients of one transaction are one mailbox.

use crate::agent::{DeliveryAgent, Recipient};
use crate::parse::{Mailbox, ParseError, Side, path_and_parameters};
use crate::reply::line;
use crate::state::{RECIPIENTS_MAX, State};

pub async fn run<A: DeliveryAgent>(state: &mut State, argument: &[u8], agent: &mut A, out: &mut Vec<u8>) {
    let Some(mail) = &mut state.mail else { return state.wrong(out, "503 5.5.1 say MAIL first") };
    if mail.recipients.len() >= RECIPIENTS_MAX {
        return line(out, "452 4.5.3 too many recipients");
    }
    let address = match address(argument) {
        Ok(address) => address,
        Err(reply) => return state.wrong(out, &reply),
    };
    match agent.verify(&address).await {
        Recipient::Mailbox(found) => {
            if mail.destination.get_or_insert_with(|| found.clone()).mailbox != found.mailbox {
                return line(out, "452 4.5.3 one mailbox for each message; send it again for this one");
            }
            mail.recipients.push(address);
            line(out, "250 2.1.5 Ok");
        }
        Recipient::Unknown => state.wrong(out, &format!("550 5.1.1 <{address}> is nobody here")),
        Recipient::NotOurs => state
            .wrong(out, &format!("550 5.7.1 <{address}> is not in a domain of this server, and it relays for nobody")),
        Recipient::Several => {
            line(out, "451 4.3.0 this address stands for several mailboxes, which can't be reached at once yet")
        }
        Recipient::OverQuota => line(out, "452 4.2.2 the mailbox is full"),
        Recipient::Unavailable => line(out, "451 4.3.0 whether there is such a mailbox can't be said now; try again"),
        Recipient::Overloaded => line(out, "451 4.3.2 too busy; try again later"),
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

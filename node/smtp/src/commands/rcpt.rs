//! RCPT (RFC 5321, section 4.1.1.3): recipients that stand for the same mailbox are one.

use mailraft_protocol::Failure;

use crate::agent::{DeliveryAgent, Destination, Verified};
use crate::parse::{Mailbox, ParseError, Side, path_and_parameters};
use crate::refusals::{During, refuse};
use crate::reply::line;
use crate::state::{MAILBOXES_MAX, Mail, RECIPIENTS_MAX, State};

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
    match agent.verify(state.identity.as_deref(), &address).await {
        Ok(found) => match join(mail, &address, found, agent).await {
            Ok(()) => {
                mail.recipients.push(address);
                line(out, "250 2.1.5 Ok");
            }
            Err(NotJoined::TooMany) => line(out, "452 4.5.3 too many recipients"),
            // The one before was taken, and whether it has room it says when the message is there.
            Err(NotJoined::FirstAlone) => {
                line(out, "452 4.5.3 this one not together with the one before; send it again for this one");
            }
            Err(NotJoined::Failed(failure)) => refuse(state, &failure, During::Recipient, out),
        },
        Err(failure) => refuse(state, &failure, During::Recipient, out),
    }
}

/// Why a recipient does not join those before it.
enum NotJoined {
    TooMany,
    FirstAlone,
    Failed(Failure),
}

/// Adds the mailboxes that an address stands for. As soon as there are several, each has been asked whether it has room:
/// a single one says so when the message is there.
async fn join<A: DeliveryAgent>(
    mail: &mut Mail,
    address: &Mailbox,
    found: Verified,
    agent: &mut A,
) -> Result<(), NotJoined> {
    let (new, detail) = match found {
        Verified::Mailboxes { mailboxes, detail } => {
            let known = |mailbox: &[u8; 16]| mail.destinations.iter().any(|d| d.mailbox == Some(*mailbox));
            (mailboxes.into_iter().filter(|mailbox| !known(mailbox)).map(Some).collect(), detail)
        }
        Verified::Outside => {
            let known = mail.destinations.iter().any(|d| d.mailbox.is_none() && is_same(&d.address, address));
            (if known { Vec::new() } else { vec![None] }, None)
        }
    };
    let together = mail.destinations.len() + new.len();
    if together > MAILBOXES_MAX {
        return Err(NotJoined::TooMany);
    }
    if together > 1 && !new.is_empty() {
        if let [Destination { mailbox: Some(first), .. }] = mail.destinations.as_slice()
            && agent.check_quota(*first, mail.announced_bytes).await.is_err()
        {
            return Err(NotJoined::FirstAlone);
        }
        for mailbox in new.iter().flatten() {
            agent.check_quota(*mailbox, mail.announced_bytes).await.map_err(NotJoined::Failed)?;
        }
    }
    let destination = |mailbox| Destination { mailbox, address: address.clone(), detail: detail.clone() };
    mail.destinations.extend(new.into_iter().map(destination));
    Ok(())
}

/// Whether two addresses outside are one: of their local parts only their own servers know (RFC 5321, section 2.4).
fn is_same(one: &Mailbox, other: &Mailbox) -> bool {
    one.local == other.local && one.domain.eq_ignore_ascii_case(&other.domain)
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

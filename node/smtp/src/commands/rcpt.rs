//! RCPT (RFC 5321, section 4.1.1.3) with NOTIFY and ORCPT (RFC 3461): recipients that stand for the same mailbox are one.

use mailraft_protocol::Failure;

use crate::agent::{DeliveryAgent, Destination, Forward, Verified, goes_by_queue};
use crate::dsn::{Asked, Notify, ORCPT_MAX_BYTES, is_orcpt};
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
    let (address, asked) = match parsed(argument, state.config.reports) {
        Ok(parsed) => parsed,
        Err(reply) => return state.wrong(out, &reply),
    };
    match agent.verify(state.identity.as_deref(), &address).await {
        Ok(found) => match join(mail, &address, (found, &asked), agent).await {
            Ok(()) => {
                mail.recipients.push(address);
                line(out, "250 2.1.5 Ok");
            }
            Err(NotJoined::TooMany) => line(out, "452 4.5.3 too many recipients"),
            // The one before was taken, and whether it has room it says when the message is there.
            Err(NotJoined::FirstAlone) => {
                line(out, "452 4.5.3 this one not together with the one before; send it again for this one");
            }
            Err(NotJoined::ForReportsAlone) => {
                state.wrong(out, "550 5.7.1 this address takes reports alone: say MAIL FROM:<>");
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
    ForReportsAlone,
    Failed(Failure),
}

/// Adds the mailboxes that an address stands for. As soon as the message goes by a queue, each has been asked whether it has
/// room: a single one says so when the message is there.
async fn join<A: DeliveryAgent>(
    mail: &mut Mail,
    address: &Mailbox,
    (found, asked): (Verified, &Asked),
    agent: &mut A,
) -> Result<(), NotJoined> {
    let places = places(mail, address, found)?;
    let mut together = mail.destinations.clone();
    let mut new = Vec::new();
    for (place, (mailbox, address, detail)) in places.into_iter().enumerate() {
        // That it arrived is told of one of them, so that nobody learns how many they are.
        let asked = if place == 0 { asked.clone() } else { asked.without_success() };
        let is_known = |known: &&mut Destination| match mailbox {
            Some(_) => known.mailbox == mailbox,
            None => known.mailbox.is_none() && is_same(&known.address, &address),
        };
        match together.iter_mut().find(is_known) {
            Some(known) => known.asked = known.asked.joined(&asked),
            None => {
                new.extend(mailbox);
                together.push(Destination { mailbox, address, detail, asked });
            }
        }
    }
    if together.len() > MAILBOXES_MAX {
        return Err(NotJoined::TooMany);
    }
    if goes_by_queue(&mail.reverse_path, &together) {
        if !goes_by_queue(&mail.reverse_path, &mail.destinations)
            && let [Destination { mailbox: Some(first), .. }] = mail.destinations.as_slice()
            && agent.check_quota(*first, mail.announced_bytes).await.is_err()
        {
            return Err(NotJoined::FirstAlone);
        }
        for mailbox in new {
            agent.check_quota(mailbox, mail.announced_bytes).await.map_err(NotJoined::Failed)?;
        }
    }
    mail.destinations = together;
    Ok(())
}

/// A mailbox or nobody's, the address that it is sent to, and the detail or the address that forwards to it.
type Place = (Option<[u8; 16]>, Mailbox, Option<String>);

/// What an address stands for, one by one.
fn places(mail: &Mail, address: &Mailbox, found: Verified) -> Result<Vec<Place>, NotJoined> {
    let here = |mailboxes: Vec<[u8; 16]>, detail: Option<String>| {
        mailboxes.into_iter().map(move |mailbox| (Some(mailbox), address.clone(), detail.clone()))
    };
    let there = |Forward { to, by }| (None, to, Some(by));
    Ok(match found {
        Verified::Mailboxes { mailboxes, detail } => here(mailboxes, detail).collect(),
        Verified::Outside => vec![(None, address.clone(), None)],
        Verified::Forwarded { mailboxes, outside, detail } => {
            here(mailboxes, detail).chain(outside.into_iter().map(there)).collect()
        }
        Verified::Returned(_) if mail.reverse_path.is_some() => return Err(NotJoined::ForReportsAlone),
        Verified::Returned(to) => vec![there(Forward { to, by: address.domain.clone() })],
    })
}

/// Whether two addresses outside are one: of their local parts only their own servers know (RFC 5321, section 2.4).
fn is_same(one: &Mailbox, other: &Mailbox) -> bool {
    one.local == other.local && one.domain.eq_ignore_ascii_case(&other.domain)
}

/// Whom a RCPT line names and what is asked of them, or the reply that refuses it.
fn parsed(argument: &[u8], reports: bool) -> Result<(Mailbox, Asked), String> {
    let (path, parameters) = path_and_parameters(argument, Side::To).map_err(|error| match error {
        ParseError::Path => "501 5.1.3 say RCPT TO:<address>",
        ParseError::NotAscii => "553 5.6.7 addresses outside ASCII are not taken here",
        ParseError::Parameters => "501 5.5.4 parameters are NAME=value, each once",
    })?;
    let address = path.ok_or("501 5.1.3 say RCPT TO:<address>")?;
    let mut asked = Asked::default();
    for (name, value) in parameters {
        let value = value.unwrap_or_default();
        match name.as_str() {
            "NOTIFY" if reports => {
                let told = "501 5.5.4 NOTIFY is NEVER, or some of SUCCESS, FAILURE and DELAY";
                asked.notify = Some(Notify::parse(&value).ok_or(told)?);
            }
            "ORCPT" if reports && is_orcpt(&value) => asked.orcpt = Some(value),
            "ORCPT" if reports => {
                return Err(format!(
                    "501 5.5.4 ORCPT is a type, a semicolon and an address in xtext, {ORCPT_MAX_BYTES} bytes at most"
                ));
            }
            _ => return Err(format!("555 5.5.4 unknown parameter {name}")),
        }
    }
    Ok((address, asked))
}

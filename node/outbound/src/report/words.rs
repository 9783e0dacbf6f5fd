//! The part of a report that a person reads.

use mailraft_message::date::date_time;

use super::fields::Fields;
use super::sentences::sentence;
use super::told::{Action, Attached, Diagnostic, Original, RECIPIENTS_MAX, Recipient};

/// What the report is about, by the worst that it tells.
pub(super) fn subject(told: &[&Recipient<'_>]) -> &'static str {
    let worst = told.iter().map(|recipient| Group::of(recipient.action)).min();
    match worst {
        Some(Group::Failed) => "Your message was not delivered",
        Some(Group::Delayed) => "Your message is delayed",
        Some(Group::Relayed) => "Your message was passed on",
        Some(Group::Delivered) | None => "Your message was delivered",
    }
}

/// Writes the text.
pub(super) fn write(
    out: &mut Fields,
    host: &str,
    original: &Original<'_>,
    attached: Attached,
    told: &[&Recipient<'_>],
) {
    let arrived = date_time(original.arrived_unix_s);
    out.paragraph("", &format!("This is the mail server {host}. You sent a message that came here on {arrived}."));
    let listed = &told[..told.len().min(RECIPIENTS_MAX)];
    for group in [Group::Failed, Group::Delayed, Group::Relayed, Group::Delivered] {
        let of_group: Vec<&&Recipient<'_>> = listed.iter().filter(|r| Group::of(r.action) == group).collect();
        if of_group.is_empty() {
            continue;
        }
        out.raw("\r\n");
        out.paragraph("", group.heading());
        for recipient in of_group {
            one(out, recipient);
        }
    }
    if told.len() > listed.len() {
        out.raw("\r\n");
        let more = told.len() - listed.len();
        out.paragraph("", &format!("There are {more} more recipients, which are not listed here."));
    }
    out.raw("\r\n");
    out.paragraph(
        "",
        match attached {
            Attached::Whole => "Your message is attached.",
            Attached::Header => "The header of your message is attached. Its text is not.",
        },
    );
}

fn one(out: &mut Fields, recipient: &Recipient<'_>) {
    out.raw("\r\n  ");
    out.line(&format!("<{}>", recipient.address));
    match recipient.action {
        Action::Failed => {
            let sentence = sentence(recipient.status);
            out.paragraph("    ", sentence.what);
            out.paragraph("    ", sentence.advice);
        }
        Action::Delayed { retry_until_unix_s } => {
            out.paragraph("    ", sentence(recipient.status).what);
            out.paragraph("    ", &format!("It is tried until {}.", date_time(retry_until_unix_s)));
        }
        Action::Relayed | Action::Delivered => {}
    }
    match recipient.diagnostic {
        Diagnostic::None => {}
        Diagnostic::Reply { host, reply } => out.quote("    ", &format!("The server {host} said:"), reply),
        Diagnostic::Own(why) => out.quote("    ", "Why:", why),
    }
}

/// Recipients of whom the same is told, the worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Failed,
    Delayed,
    Relayed,
    Delivered,
}

impl Group {
    fn of(action: Action) -> Self {
        match action {
            Action::Failed => Group::Failed,
            Action::Delayed { .. } => Group::Delayed,
            Action::Relayed => Group::Relayed,
            Action::Delivered => Group::Delivered,
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Group::Failed => "It was NOT DELIVERED to these recipients, and is not tried again:",
            Group::Delayed => {
                "It is NOT YET DELIVERED to these recipients. You need not send it again: it is still tried."
            }
            Group::Relayed => {
                "It was passed on for these recipients to a server that tells nothing more. It may have arrived; you will hear no more of it:"
            }
            Group::Delivered => "It was delivered to these recipients:",
        }
    }
}

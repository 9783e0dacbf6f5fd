//! Writes a report as a message.

use mailraft_message::Part;
use mailraft_message::date::date_time;

use super::address::{self, Mailbox};
use super::fields::{Charset, Fields, xtext};
use super::request::wants;
use super::told::{Action, Attached, Diagnostic, Original, RECIPIENTS_MAX, Recipient, Reporter};
use super::{original, words};
use crate::seven_bit::has_seven_bit_form;

/// A report as a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whom it goes to; it is sent with a null reverse-path (RFC 3461, section 6.1).
    pub to: String,
    /// Its octets. The original is there as its header where the whole of it would keep the report from where it goes.
    pub message: Vec<u8>,
}

/// Why there is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportRefusal {
    /// The reverse-path is null: a report of a report would go round for ever (RFC 3461, section 6.1).
    NullReversePath,
    /// No recipient is to be told of (RFC 3461, section 4.1).
    NobodyAsked,
    /// The reverse-path is none that can stand in a header.
    NoAddress,
}

/// Writes a report at this time, in seconds since 1970-01-01 UTC. `unique` is random: nothing in the original has it.
///
/// # Errors
/// Where there is nothing to tell, or nobody to tell it to.
///
/// # Panics
/// If the reporter's host or address is none.
pub fn report(
    reporter: Reporter<'_>,
    original: &Original<'_>,
    recipients: &[Recipient<'_>],
    now_unix_s: i64,
    unique: [u8; 16],
) -> Result<Report, ReportRefusal> {
    assert!(address::is_host(reporter.host), "{:?} is no host's name", reporter.host);
    let from = Mailbox::parse(reporter.from, Charset::Ascii);
    let from = from.unwrap_or_else(|| panic!("{:?} is no address to report from", reporter.from));
    let charset = if original.smtputf8 { Charset::Utf8 } else { Charset::Ascii };
    let to = original.reverse_path.filter(|path| !path.is_empty()).ok_or(ReportRefusal::NullReversePath)?;
    let to = Mailbox::parse(to, charset).ok_or(ReportRefusal::NoAddress)?;
    let told: Vec<&Recipient<'_>> = recipients.iter().filter(|r| wants(r.notify, r.action.event())).collect();
    if told.is_empty() {
        return Err(ReportRefusal::NobodyAsked);
    }
    let unique: String = unique.iter().map(|octet| format!("{octet:02x}")).collect();
    let envelope = Envelope { reporter: reporter.host, from, to, charset, now_unix_s, unique };
    let whole = original.whole.map(|whole| envelope.report(original, Some(whole), &told));
    // What came over 8BITMIME may have no other form, and its sender's server may not have that: he is told with the header, as RFC
    // 3461, section 4.3, lets anybody do.
    let message = match whole.filter(|message| goes_anywhere(message, charset)) {
        Some(message) => message,
        None => envelope.report(original, None, &told),
    };
    Ok(Report { to: envelope.to.to_string(), message })
}

/// Whether every server that may be the sender's can take a report: one with SMTPUTF8 has 8BITMIME too (RFC 6531, section 3.1).
fn goes_anywhere(message: &[u8], charset: Charset) -> bool {
    Part::parse(message).is_ok_and(|root| charset == Charset::Utf8 || has_seven_bit_form(&root, message))
}

/// What a report says of itself.
struct Envelope<'a> {
    reporter: &'a str,
    from: Mailbox,
    to: Mailbox,
    charset: Charset,
    now_unix_s: i64,
    unique: String,
}

impl Envelope<'_> {
    /// Its octets, with all of the original or with its header.
    fn report(&self, original: &Original<'_>, whole: Option<&[u8]>, told: &[&Recipient<'_>]) -> Vec<u8> {
        let Envelope { reporter, from, to, charset, now_unix_s, unique } = self;
        let boundary = format!("=_{unique}");
        let attached = if whole.is_some() { Attached::Whole } else { Attached::Header };
        let kinds = Kinds::of(*charset, attached);
        let mut out = Fields::new(*charset);
        out.field("From", &format!("Mail Delivery System <{from}>"));
        out.whole("To", &format!("<{to}>"));
        out.field("Subject", words::subject(told));
        out.field("Date", &date_time(*now_unix_s));
        out.whole("Message-ID", &format!("<{unique}@{reporter}>"));
        if let Some(id) = original::message_id(original.header) {
            out.whole("In-Reply-To", &id);
            out.whole("References", &id);
        }
        // RFC 3834, section 5.
        out.field("Auto-Submitted", "auto-replied");
        out.field("MIME-Version", "1.0");
        out.raw(&format!(
            "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n"
        ));
        out.raw(&format!("Content-Transfer-Encoding: {}\r\n\r\n", kinds.encoding));
        out.raw(&format!("--{boundary}\r\n{}\r\n", kinds.words));
        words::write(&mut out, reporter, original, attached, told);
        out.raw(&format!("\r\n--{boundary}\r\n{}\r\n", kinds.status));
        delivery_status(&mut out, reporter, original, told);
        out.raw(&format!("\r\n--{boundary}\r\n{}\r\n", kinds.original));
        let mut message = out.into_bytes();
        match whole {
            Some(whole) => message.extend_from_slice(whole),
            None => original::header(&mut message, original.header, *charset),
        }
        message.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        message
    }
}

/// The header fields of a report's parts, and how its octets are encoded.
struct Kinds {
    words: &'static str,
    status: &'static str,
    original: &'static str,
    encoding: &'static str,
}

impl Kinds {
    fn of(charset: Charset, attached: Attached) -> Self {
        let (words, status) = match charset {
            Charset::Ascii => {
                ("Content-Type: text/plain; charset=us-ascii\r\n", "Content-Type: message/delivery-status\r\n")
            }
            Charset::Utf8 => (
                "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n",
                "Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n",
            ),
        };
        let original = match (charset, attached) {
            (Charset::Ascii, Attached::Header) => "Content-Type: text/rfc822-headers\r\n",
            (Charset::Ascii, Attached::Whole) => "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n",
            (Charset::Utf8, Attached::Header) => {
                "Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n"
            }
            (Charset::Utf8, Attached::Whole) => "Content-Type: message/global\r\nContent-Transfer-Encoding: 8bit\r\n",
        };
        let encoding = match (charset, attached) {
            (Charset::Ascii, Attached::Header) => "7bit",
            (Charset::Ascii, Attached::Whole) | (Charset::Utf8, Attached::Header | Attached::Whole) => "8bit",
        };
        Kinds { words, status, original, encoding }
    }
}

/// The fields for programs (RFC 3464, section 2).
fn delivery_status(out: &mut Fields, host: &str, original: &Original<'_>, told: &[&Recipient<'_>]) {
    if let Some(id) = original.envelope_id.and_then(|id| xtext(id, out.charset())) {
        out.field("Original-Envelope-Id", &id);
    }
    out.field("Reporting-MTA", &format!("dns; {host}"));
    out.field("Arrival-Date", &date_time(original.arrived_unix_s));
    if let Some(more) = told.len().checked_sub(RECIPIENTS_MAX).filter(|more| *more > 0) {
        out.field("X-Mailraft-Recipients-Not-Listed", &more.to_string());
    }
    for recipient in told.iter().take(RECIPIENTS_MAX) {
        out.raw("\r\n");
        if let Some((kind, address)) = recipient.original.and_then(|o| o.split_once(';'))
            && address::is_atom(kind)
            && let Some(address) = xtext(address, out.charset())
        {
            out.whole("Original-Recipient", &format!("{kind}; {address}"));
        }
        let kind = if recipient.address.is_ascii() { "rfc822" } else { "utf-8" };
        out.whole("Final-Recipient", &format!("{kind}; {}", recipient.address));
        out.field("Action", recipient.action.as_str());
        out.field("Status", &recipient.status.to_string());
        match recipient.diagnostic {
            Diagnostic::None => {}
            Diagnostic::Reply { host, reply } => {
                out.whole("Remote-MTA", &format!("dns; {host}"));
                out.long("Diagnostic-Code", "smtp; ", reply);
            }
            Diagnostic::Own(why) => out.long("Diagnostic-Code", "X-Mailraft; ", why),
        }
        if let Some(at) = recipient.last_attempt_unix_s {
            out.field("Last-Attempt-Date", &date_time(at));
        }
        if let Action::Delayed { retry_until_unix_s } = recipient.action {
            out.field("Will-Retry-Until", &date_time(retry_until_unix_s));
        }
    }
}

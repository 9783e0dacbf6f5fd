//! The mail that brings a report.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compression, GzBuilder};
use mailraft_message::date::date_time;
use mailraft_outbound::tls::policy::Asked;

use crate::reporter::Reporter;

/// Letters of base64 in a line (RFC 2045, section 6.8).
const LINE_LETTERS: usize = 76;

/// A mail, to be signed and sent. It goes with a null reverse-path, so that nobody is told where it can't be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Whom it goes to.
    pub to: String,
    /// Its octets, of ASCII alone, with lines that end with CRLF.
    pub bytes: Vec<u8>,
    /// How much TLS its way has to have.
    pub asked: Asked,
}

/// What a report's mail has besides its addresses.
pub(crate) struct Written<'a> {
    /// The domain that it is about.
    pub(crate) domain: &'a str,
    pub(crate) id: &'a str,
    /// The type of the whole, without its boundary.
    pub(crate) kind: &'a str,
    /// Fields of its own: names and values that have to stand in no more than one line.
    pub(crate) fields: &'a [(&'a str, &'a str)],
    /// What a person reads: lines of ASCII.
    pub(crate) words: &'a [String],
    pub(crate) file_name: &'a str,
    pub(crate) file_kind: &'a str,
    pub(crate) file: &'a [u8],
    pub(crate) asked: Asked,
}

/// Compresses a report, always to the same octets (RFC 1952).
///
/// # Panics
/// Never: writing to memory does not fail.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory does not fail")
}

/// Writes the mail, at a time in seconds since 1970-01-01 UTC.
pub(crate) fn mail(reporter: &Reporter, to: &str, written: &Written<'_>, now_unix_s: u64) -> Mail {
    let Written { domain, id, kind, fields, words, file_name, file_kind, file, asked } = written;
    let (submitter, from) = (reporter.domain(), reporter.from());
    // An underscore stands in no base64, and behind two hyphens in no line of ours.
    let boundary = format!("=_{id}");
    let date = date_time(i64::try_from(now_unix_s).unwrap_or(i64::MAX));
    let mut out = format!("From: <{from}>\r\nTo: <{to}>\r\nDate: {date}\r\nMessage-ID: <{id}@{submitter}>\r\n");
    out +=
        &format!("Subject: Report Domain: {domain}\r\n Submitter: {submitter}\r\n Report-ID: <{id}@{submitter}>\r\n");
    for (name, value) in *fields {
        out += &format!("{name}: {value}\r\n");
    }
    // RFC 3834, section 5: nobody's holiday answers it.
    out += "Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n";
    out += &format!("Content-Type: {kind};\r\n\tboundary=\"{boundary}\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n");
    out += &format!("--{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n");
    for line in *words {
        out += &format!("{line}\r\n");
    }
    out += &format!("\r\n--{boundary}\r\nContent-Type: {file_kind}\r\nContent-Transfer-Encoding: base64\r\n");
    out += &format!("Content-Disposition: attachment;\r\n\tfilename=\"{file_name}\"\r\n\r\n");
    let coded = STANDARD.encode(file);
    let mut rest = coded.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(LINE_LETTERS));
        out += line;
        out += "\r\n";
        rest = behind;
    }
    out += &format!("\r\n--{boundary}--\r\n");
    Mail { to: (*to).to_owned(), bytes: out.into_bytes(), asked: *asked }
}

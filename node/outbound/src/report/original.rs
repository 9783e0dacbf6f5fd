//! The message that a report is about, as far as it is attached.

use mailraft_message::header::{fields, message_id as id_of};

use super::fields::Charset;
use super::request::Ret;
use super::told::{Action, Attached, Recipient};

/// A message above this size, in bytes, does not come back whole: a report that is too large for a mailbox helps nobody.
pub const ORIGINAL_MAX_BYTES: u64 = 1 << 20;
/// What is attached of a header, in bytes.
pub const ORIGINAL_HEADER_MAX_BYTES: usize = 64 << 10;
/// The longest line that may come back, in bytes (RFC 5322, section 2.1.1).
const LINE_MAX_BYTES: usize = 998;
/// The longest Message-ID that a report answers, in bytes: it stands on one line with its field's name.
const ID_MAX_BYTES: usize = 900;

/// What of a message of this size is attached: all where its sender asked for it, it failed for somebody (RFC 3461, section 4.3),
/// and it is not too large.
pub fn attached(ret: Option<Ret>, recipients: &[Recipient<'_>], size_bytes: u64) -> Attached {
    let failed = recipients.iter().any(|recipient| recipient.action == Action::Failed);
    match ret {
        Some(Ret::Full) if failed && size_bytes <= ORIGINAL_MAX_BYTES => Attached::Whole,
        Some(Ret::Full | Ret::Hdrs) | None => Attached::Header,
    }
}

/// The Message-ID of a header, if it can stand in another one.
pub(super) fn message_id(header: &[u8]) -> Option<String> {
    let id = String::from_utf8(id_of(header)?).ok()?;
    let inner = id.strip_prefix('<')?.strip_suffix('>')?;
    let is_plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'<' | b'>');
    (!inner.is_empty() && id.len() <= ID_MAX_BYTES && inner.bytes().all(is_plain)).then_some(id)
}

/// Appends the fields of a header, each whole: such as do not fit into a message, or no longer into the report, are left out.
pub(super) fn header(out: &mut Vec<u8>, header: &[u8], charset: Charset) {
    let mut room = ORIGINAL_HEADER_MAX_BYTES;
    for field in fields(header) {
        let text = String::from_utf8_lossy(&header[field.range]).into_owned();
        let lines: Vec<String> = text.lines().map(|line| harmless(line, charset)).collect();
        let size: usize = lines.iter().map(|line| line.len() + 2).sum();
        if lines.iter().any(|line| line.len() > LINE_MAX_BYTES || line.trim().is_empty()) {
            continue;
        }
        let Some(left) = room.checked_sub(size) else { break };
        room = left;
        for line in lines {
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn harmless(line: &str, charset: Charset) -> String {
    let allowed = |c: char| c == '\t' || !c.is_control() && (c.is_ascii() || charset == Charset::Utf8);
    line.chars().map(|c| if allowed(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::status::Status;
    use super::super::told::Diagnostic;
    use super::*;

    fn recipient(action: Action) -> Recipient<'static> {
        Recipient {
            address: "a@b.test",
            original: None,
            notify: None,
            action,
            status: Status::parse("5.0.0").unwrap(),
            diagnostic: Diagnostic::None,
            last_attempt_unix_s: None,
        }
    }

    #[test]
    fn a_message_comes_back_whole_where_it_was_asked_for_and_failed_and_is_small() {
        let (failed, delayed) = (recipient(Action::Failed), recipient(Action::Delayed { retry_until_unix_s: 0 }));
        for (ret, recipients, size, is) in [
            (Some(Ret::Full), &[delayed, failed][..], ORIGINAL_MAX_BYTES, Attached::Whole),
            (Some(Ret::Full), &[failed], ORIGINAL_MAX_BYTES + 1, Attached::Header),
            (Some(Ret::Full), &[delayed], 1, Attached::Header),
            (Some(Ret::Hdrs), &[failed], 1, Attached::Header),
            (None, &[failed], 1, Attached::Header),
        ] {
            assert_eq!(attached(ret, recipients, size), is, "{ret:?} {size}");
        }
    }

    fn attached_header(of: &[u8], charset: Charset) -> String {
        let mut out = Vec::new();
        header(&mut out, of, charset);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_come_back_whole_or_not_at_all() {
        let long = format!("A: b\r\nX: {}\r\nno field\r\nSubject: a\r\n b\u{f6}\r\n\r\nbody", "x".repeat(998));
        assert_eq!(attached_header(long.as_bytes(), Charset::Ascii), "A: b\r\nSubject: a\r\n b?\r\n");
        assert_eq!(attached_header(long.as_bytes(), Charset::Utf8), "A: b\r\nSubject: a\r\n b\u{f6}\r\n");
        assert_eq!(attached_header(b"A: b\rc\0\nB: \r\n \r\n\tc\r\nC: d", Charset::Ascii), "A: b?c?\r\nC: d\r\n");
    }

    #[test]
    fn of_a_long_header_the_beginning_comes_back() {
        let field = format!("X: {}\r\n", "x".repeat(95));
        let told = attached_header(field.repeat(10_000).as_bytes(), Charset::Ascii);
        assert_eq!(told, field.repeat(ORIGINAL_HEADER_MAX_BYTES / field.len()));
    }

    #[test]
    fn a_message_id_is_answered_if_it_is_one() {
        let id = |value: &str| message_id(format!("Message-ID: {value}\r\n\r\n").as_bytes());
        assert_eq!(id("<1@a.test>").as_deref(), Some("<1@a.test>"));
        let long = format!("<{}@a>", "x".repeat(ID_MAX_BYTES));
        for wrong in ["1@a.test", "<>", "<a b>", "<a>, <b>", "<\u{f6}@a>", long.as_str()] {
            assert_eq!(id(wrong), None, "{wrong}");
        }
    }
}

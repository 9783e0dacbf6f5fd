//! APPEND (RFC 3501, section 6.3.11; UIDPLUS, RFC 4315).

use mailraft_mailbox::Flags;
use mailraft_mailbox::api::ZonedTime;
use mailraft_protocol::Refusal;

use crate::cursor::{Cursor, Recent};
use crate::date;
use crate::outcome::{Done, Outcome};
use crate::state::Config;
use crate::store::Mailstore;

/// An APPEND before its message.
#[derive(Debug)]
pub(crate) struct Append {
    folder: String,
    flags: Flags,
    internal_date: Option<ZonedTime>,
}

/// Reads everything before the message.
pub(crate) fn parse(c: &mut Cursor<'_>, size_bytes: u64, config: &Config) -> Result<Append, Done> {
    c.space()?;
    c.word()?;
    c.space()?;
    let folder = c.folder()?;
    c.space()?;
    let mut flags = Flags::none();
    if c.peek() == Some(b'(') {
        flags = c.flag_list(Recent::Ignored)?;
        c.space()?;
    }
    let mut internal_date = None;
    if c.peek() == Some(b'"') {
        let text = c.text()?;
        internal_date = Some(
            date::parse(&text).ok_or_else(|| Done::Bad("a date-time reads \"17-Jul-1996 02:44:25 -0700\"".into()))?,
        );
        c.space()?;
    }
    c.end()?;
    if size_bytes > config.max_message_bytes {
        return Err(Refusal::MessageTooLong(config.max_message_bytes).into());
    }
    Ok(Append { folder, flags, internal_date })
}

/// Appends the message that was received, unless it could not be kept.
pub(crate) async fn run<S: Mailstore>(append: Append, refusal: Option<Refusal>, rest: &[u8], store: &mut S) -> Outcome {
    if !rest.is_empty() {
        store.discard();
        return Err(Done::Bad("APPEND takes one message".into()));
    }
    if let Some(refusal) = refusal {
        store.discard();
        return Err(refusal.into());
    }
    let (uid_validity, uid) = store.append(append.folder, append.flags, append.internal_date).await?;
    Ok(Done::Ok(format!("[APPENDUID {uid_validity} {uid}] APPEND done")))
}

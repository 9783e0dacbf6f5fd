//! How commands end.

use crate::cursor::Wrong;

/// How a command ended.
pub(crate) enum Done {
    /// Tagged OK with this text.
    Ok(String),
    /// Tagged NO with this text.
    No(String),
    /// Tagged BAD with this text.
    Bad(String),
    /// IDLE began.
    Idle,
    /// STARTTLS: OK, then TLS.
    StartTls,
    /// COMPRESS: OK, then compression.
    Compress,
    /// LOGOUT: OK, then the end.
    Logout,
    /// AUTHENTICATE waits for its message.
    Challenge,
    /// Tagged NO with this text, and the end.
    LastNo(String),
    /// BYE with this text, without a tagged response.
    Bye(String),
    /// The end without a word: a response was begun and can't be completed, so a word would count as part of it.
    HangUp,
}

/// Either done, or why not.
pub(crate) type Outcome = Result<Done, Done>;

/// Tagged OK of a command that has no more to say.
pub(crate) fn ok(command: &str) -> Outcome {
    Ok(Done::Ok(format!("{command} done")))
}

/// Tagged OK of a command that was done to all messages that were named but those that others have removed, which the
/// client still counts (RFC 2180, section 4). Its user would take NO for a failure.
pub(crate) fn ok_but_for_some(command: &str) -> Outcome {
    Ok(Done::Ok(format!("[EXPUNGEISSUED] {command} done; some of the messages are no more")))
}

/// The client has enabled UIDONLY, and names a message by its number (RFC 9586, section 3.3).
pub(crate) fn uid_required() -> Done {
    Done::Bad("[UIDREQUIRED] messages are named by UIDs alone".into())
}

impl Done {
    /// Others have removed all messages that were named (RFC 2180, section 4).
    pub(crate) fn missing() -> Done {
        Done::No("[EXPUNGEISSUED] the messages are no more".into())
    }

    /// The mailbox answered another question.
    pub(crate) fn odd_answer() -> Done {
        Done::No("[UNAVAILABLE] the mailbox answered something else".into())
    }
}

impl From<Wrong> for Done {
    fn from(wrong: Wrong) -> Self {
        Done::Bad(wrong.0)
    }
}

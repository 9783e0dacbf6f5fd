//! What this node's parts say no to, as the protocols' one list of refusals. How each protocol tells it stands in the
//! `refusals.rs` of its engine.

use mailraft_mailbox::NotDone;
use mailraft_message::header::HOPS_MAX;
use mailraft_protocol::Refusal;

use crate::credentials::LoginRefused;
use crate::spool::SpoolRefused;

/// Why a mailbox's command was not done.
pub fn not_done(why: NotDone) -> Refusal {
    match why {
        NotDone::Refused(refusal) => refusal.into(),
        // What was tried until the client's time was up; another attempt may find it better.
        NotDone::NoQuorum | NotDone::BodyLost | NotDone::Expired | NotDone::Unsupported => Refusal::Unavailable,
        NotDone::NotConfirmed => {
            ::metrics::counter!(crate::metrics::NOT_CONFIRMED).increment(1);
            Refusal::NotConfirmed
        }
        NotDone::Overloaded => Refusal::Overloaded,
        NotDone::NoSuchMailbox => Refusal::NoSuchMailbox,
        NotDone::Corrupt => Refusal::Corrupt,
    }
}

/// Why nobody is logged in.
pub fn login(why: LoginRefused) -> Refusal {
    match why {
        LoginRefused::Wrong => Refusal::WrongCredentials,
        LoginRefused::Throttled => Refusal::Throttled,
        LoginRefused::Unavailable => Refusal::Unavailable,
    }
}

/// Why a message is not kept on its way to its mailbox.
pub fn spool(why: SpoolRefused) -> Refusal {
    match why {
        SpoolRefused::Overloaded => Refusal::Overloaded,
        SpoolRefused::Octets(wrong) => Refusal::MessageOctets(wrong.to_string()),
        SpoolRefused::TooMuch(what) => Refusal::MessageTooMuch(what.to_string()),
        SpoolRefused::Circle => Refusal::MailLoop(HOPS_MAX),
        SpoolRefused::Disk => Refusal::NotKept,
        SpoolRefused::NoRoom => Refusal::ServerFull,
    }
}

#[cfg(test)]
mod tests {
    use mailraft_mailbox as mailbox;

    use super::*;

    #[test]
    fn what_the_session_machine_gives_up_may_be_retried() {
        for (why, refusal) in [
            (NotDone::NoQuorum, Refusal::Unavailable),
            (NotDone::BodyLost, Refusal::Unavailable),
            (NotDone::Expired, Refusal::Unavailable),
            (NotDone::Unsupported, Refusal::Unavailable),
            (NotDone::NotConfirmed, Refusal::NotConfirmed),
            (NotDone::Overloaded, Refusal::Overloaded),
            (NotDone::Corrupt, Refusal::Corrupt),
            (NotDone::Refused(mailbox::Refusal::Corrupt), Refusal::Corrupt),
            (NotDone::Refused(mailbox::Refusal::OverQuota), Refusal::OverQuota),
        ] {
            assert!(refusal.may_be_retried(), "{refusal:?}");
            assert_eq!(not_done(why), refusal);
        }
        assert!(!not_done(NotDone::NoSuchMailbox).may_be_retried());
    }
}

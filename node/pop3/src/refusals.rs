//! POP3's answers to all refusals: response codes (RFC 2449, section 8.1; RFC 3206) and texts.

use mailraft_protocol::{Failure, Refusal};

use crate::reply::err;
use crate::state::State;

/// What was asked when it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum During {
    /// Credentials were checked, and the maildrop opened.
    Login,
    /// Something was read.
    Transaction,
    /// Messages were removed.
    Update,
}

/// Answers a failure. A session that has lost its maildrop ends.
pub(crate) fn refuse(state: &mut State, failure: &Failure, during: During, out: &mut Vec<u8>) {
    let text = text(failure, during);
    match failure {
        Failure::NotDone(Refusal::WrongCredentials) if during == During::Login => state.wrong_login(out, &text),
        Failure::NotDone(Refusal::MaildropInUse) if during != During::Login => {
            state.closing = true;
            err(out, &text);
        }
        Failure::NotDone(_) | Failure::Unknown => err(out, &text),
    }
}

fn text(failure: &Failure, during: During) -> String {
    let refusal = match (failure, during) {
        (Failure::Unknown, During::Update) => {
            return "[SYS/TEMP] it is not known whether the messages were removed: look before you repeat it"
                .to_owned();
        }
        // What reads changes nothing.
        (Failure::Unknown, During::Login | During::Transaction) => &Refusal::Unavailable,
        (Failure::NotDone(refusal), _) => refusal,
    };
    let code = match refusal {
        Refusal::Unavailable
        | Refusal::NotConfirmed
        | Refusal::Overloaded
        | Refusal::NotKept
        | Refusal::ServerFull
        | Refusal::Corrupt
        | Refusal::OverQuota
        | Refusal::Limit(_)
        | Refusal::SentTooMuch(_)
        | Refusal::ForwardingRests(_) => "SYS/TEMP",
        Refusal::MaildropInUse if during == During::Login => "IN-USE",
        Refusal::MaildropInUse => {
            return "[SYS/TEMP] another session has taken this maildrop; no message was removed".to_owned();
        }
        Refusal::WrongCredentials | Refusal::Throttled => "AUTH",
        Refusal::NoSuchMailbox
        | Refusal::NoSuchFolder
        | Refusal::NoSuchTarget
        | Refusal::FolderGone
        | Refusal::FolderExists
        | Refusal::BadName(_)
        | Refusal::NotAllowed(_)
        | Refusal::MessageTooMuch(_)
        | Refusal::MessageOctets(_)
        | Refusal::MailLoop(_)
        | Refusal::ForwardedBefore(_)
        | Refusal::NotForwarded(_)
        | Refusal::AgainstPolicy(_)
        | Refusal::MessageTooLong(_)
        | Refusal::NoSuchAddress(_)
        | Refusal::NotOurDomain(_)
        | Refusal::SendingIsOff(_)
        | Refusal::NotOwnAddress
        | Refusal::NotOwnAuthor => "SYS/PERM",
    };
    match during {
        During::Login | During::Transaction => format!("[{code}] {refusal}"),
        During::Update => format!("[{code}] no message was removed: {refusal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_response() {
        let told: Vec<String> = Refusal::each().into_iter().map(|r| text(&r.into(), During::Login)).collect();
        assert_eq!(
            told,
            [
                "[SYS/TEMP] no majority of the servers can be reached; try again",
                "[SYS/TEMP] the backup region has not confirmed what came before, so nothing new is taken; try again later",
                "[SYS/TEMP] too busy; try again later",
                "[SYS/TEMP] the message can't be kept now; try again",
                "[SYS/TEMP] this server's disk is nearly full, which is not about your mailbox; try again later",
                "[SYS/TEMP] part of this mailbox is damaged and being repaired",
                "[SYS/TEMP] the mailbox is full",
                "[SYS/PERM] no such mailbox",
                "[SYS/PERM] no such folder",
                "[SYS/PERM] no such folder; create it first",
                "[SYS/PERM] the folder was deleted",
                "[SYS/PERM] a folder of that name exists",
                "[SYS/PERM] no such name",
                "[SYS/PERM] not with INBOX",
                "[SYS/TEMP] too many folders",
                "[IN-USE] another session has this maildrop open; try again later",
                "[SYS/PERM] the header is longer than 1024 KiB",
                "[SYS/PERM] a message has no NUL octets",
                "[SYS/PERM] the message has been through more than 50 servers, so it goes in a circle",
                "[SYS/PERM] <a@b.test> has forwarded this message before, so it goes in a circle",
                "[SYS/PERM] <a@b.test> forwards nothing that says it is of its own domain and does not show it (DMARC)",
                "[SYS/PERM] b.test wants mail refused that is not shown to be its own, and this is not (DMARC)",
                "[SYS/PERM] the message is longer than 100 bytes",
                "[AUTH] wrong user name or password",
                "[AUTH] too many wrong logins; try again in a minute",
                "[SYS/PERM] <a@b.test> is nobody here",
                "[SYS/PERM] <a@b.test> is not in a domain of this server, and it relays for nobody",
                "[SYS/PERM] <a@b.test> is in another domain, and this server sends nothing there: whoever runs it may switch outbound.enabled on",
                "[SYS/TEMP] this account has sent to as many addresses in other domains as it may in an hour; try again in 60 s",
                "[SYS/TEMP] <a@b.test> forwards to another domain, and this server sends nothing there now; try again later",
                "[SYS/PERM] this reverse-path is not yours to send from",
                "[SYS/PERM] From and Sender must name addresses that are yours to send from",
            ]
        );
    }

    #[test]
    fn what_may_have_been_done_is_no_refusal() {
        for failure in Refusal::each().into_iter().map(Failure::NotDone) {
            assert!(text(&failure, During::Update).contains("no message was removed"));
        }
        let unknown = text(&Failure::Unknown, During::Update);
        assert!(unknown.contains("not known whether") && !unknown.contains("no message"), "{unknown}");
        for during in [During::Login, During::Transaction] {
            assert_eq!(text(&Failure::Unknown, during), text(&Refusal::Unavailable.into(), during));
        }
    }
}

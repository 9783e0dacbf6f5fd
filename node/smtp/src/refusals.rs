//! SMTP's answers to all refusals: reply codes (RFC 5321, section 4.2) with enhanced status codes (RFC 3463).

use mailraft_protocol::{Failure, Refusal};

use crate::reply::line;
use crate::state::State;

/// What was asked when it was refused. What can't be said now is named by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum During {
    /// Credentials were checked.
    Login,
    /// A reverse-path was looked up.
    Sender,
    /// A recipient was looked up.
    Recipient,
    /// A message was taken in, or announced.
    Message,
}

/// Answers a failure. Wrong credentials, and addresses that are refused for good, count towards the end of the session.
pub(crate) fn refuse(state: &mut State, failure: &Failure, during: During, out: &mut Vec<u8>) {
    let reply = reply(failure, during);
    match during {
        During::Login if *failure == Failure::NotDone(Refusal::WrongCredentials) => state.wrong_login(out, &reply),
        During::Sender | During::Recipient if !failure.may_be_retried() => state.wrong(out, &reply),
        During::Login | During::Sender | During::Recipient | During::Message => line(out, &reply),
    }
}

fn reply(failure: &Failure, during: During) -> String {
    let refusal = match (failure, during) {
        // The sender sends it again, and a mailbox recognises what it has already.
        (Failure::Unknown, During::Message) => {
            return "451 4.3.0 it is not known whether the message was taken; send the same again".to_owned();
        }
        // Looking something up changes nothing.
        (Failure::Unknown, During::Login | During::Sender | During::Recipient) => &Refusal::Unavailable,
        (Failure::NotDone(refusal), _) => refusal,
    };
    let code = match refusal {
        Refusal::Unavailable => match during {
            During::Login => return "454 4.7.0 logins can't be checked now; try again".to_owned(),
            During::Sender => {
                return "451 4.3.0 whether this reverse-path is yours can't be said now; try again".to_owned();
            }
            During::Recipient => {
                return "451 4.3.0 whether there is such a mailbox can't be said now; try again".to_owned();
            }
            During::Message => "451 4.3.0",
        },
        Refusal::Corrupt => return "451 4.3.0 the mailbox is being repaired; try again later".to_owned(),
        Refusal::NotConfirmed | Refusal::NotKept => "451 4.3.0",
        Refusal::Overloaded | Refusal::MaildropInUse | Refusal::ForwardingRests(_) => "451 4.3.2",
        Refusal::ServerFull => "452 4.3.1",
        Refusal::SentTooMuch(_) => "451 4.7.1",
        Refusal::OverQuota => "452 4.2.2",
        Refusal::NoSuchMailbox
        | Refusal::NoSuchFolder
        | Refusal::NoSuchTarget
        | Refusal::FolderGone
        | Refusal::NoSuchAddress(_) => "550 5.1.1",
        Refusal::NotOurDomain(_) | Refusal::SendingIsOff(_) => "550 5.7.1",
        Refusal::MessageTooMuch(_) | Refusal::MessageTooLong(_) => "552 5.3.4",
        Refusal::MessageOctets(_) => "550 5.6.0",
        Refusal::MailLoop(_) | Refusal::ForwardedBefore(_) => "554 5.4.6",
        Refusal::AgainstPolicy(_) | Refusal::NotForwarded(_) => "550 5.7.1",
        Refusal::NotOwnAddress | Refusal::NotOwnAuthor => "553 5.7.1",
        Refusal::FolderExists | Refusal::BadName(_) | Refusal::NotAllowed(_) | Refusal::Limit(_) => "554 5.3.0",
        Refusal::WrongCredentials => "535 5.7.8",
        Refusal::Throttled => "454 4.7.0",
    };
    format!("{code} {refusal}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_a_message_has_its_reply() {
        let told: Vec<String> =
            Refusal::each().into_iter().map(|refusal| reply(&Failure::NotDone(refusal), During::Message)).collect();
        assert_eq!(
            told,
            [
                "451 4.3.0 no majority of the servers can be reached; try again",
                "451 4.3.0 the backup region has not confirmed what came before, so nothing new is taken; try again later",
                "451 4.3.2 too busy; try again later",
                "451 4.3.0 the message can't be kept now; try again",
                "452 4.3.1 this server's disk is nearly full, which is not about your mailbox; try again later",
                "451 4.3.0 the mailbox is being repaired; try again later",
                "452 4.2.2 the mailbox is full",
                "550 5.1.1 no such mailbox",
                "550 5.1.1 no such folder",
                "550 5.1.1 no such folder; create it first",
                "550 5.1.1 the folder was deleted",
                "554 5.3.0 a folder of that name exists",
                "554 5.3.0 no such name",
                "554 5.3.0 not with INBOX",
                "554 5.3.0 too many folders",
                "451 4.3.2 another session has this maildrop open; try again later",
                "552 5.3.4 the header is longer than 1024 KiB",
                "550 5.6.0 a message has no NUL octets",
                "554 5.4.6 the message has been through more than 50 servers, so it goes in a circle",
                "554 5.4.6 <a@b.test> has forwarded this message before, so it goes in a circle",
                "550 5.7.1 <a@b.test> forwards nothing that says it is of its own domain and does not show it (DMARC)",
                "550 5.7.1 b.test wants mail refused that is not shown to be its own, and this is not (DMARC)",
                "552 5.3.4 the message is longer than 100 bytes",
                "535 5.7.8 wrong user name or password",
                "454 4.7.0 too many wrong logins; try again in a minute",
                "550 5.1.1 <a@b.test> is nobody here",
                "550 5.7.1 <a@b.test> is not in a domain of this server, and it relays for nobody",
                "550 5.7.1 <a@b.test> is in another domain, and this server sends nothing there: whoever runs it may switch outbound.enabled on",
                "451 4.7.1 this account has sent to as many addresses in other domains as it may in an hour; try again in 60 s",
                "451 4.3.2 <a@b.test> forwards to another domain, and this server sends nothing there now; try again later",
                "553 5.7.1 this reverse-path is not yours to send from",
                "553 5.7.1 From and Sender must name addresses that are yours to send from",
            ]
        );
    }

    #[test]
    fn what_can_not_be_said_now_is_named() {
        for (during, told) in [
            (During::Login, "454 4.7.0 logins can't be checked now; try again"),
            (During::Sender, "451 4.3.0 whether this reverse-path is yours can't be said now; try again"),
            (During::Recipient, "451 4.3.0 whether there is such a mailbox can't be said now; try again"),
            (During::Message, "451 4.3.0 no majority of the servers can be reached; try again"),
        ] {
            assert_eq!(reply(&Failure::NotDone(Refusal::Unavailable), during), told);
            match during {
                During::Message => {
                    let unknown = reply(&Failure::Unknown, during);
                    assert!(unknown.starts_with("451 4.3.0 it is not known whether"), "{unknown}");
                }
                _ => assert_eq!(reply(&Failure::Unknown, during), told),
            }
        }
    }

    #[test]
    fn a_sender_is_told_to_try_again_exactly_where_that_may_help() {
        let throttled = Failure::NotDone(Refusal::Throttled);
        for failure in Refusal::each().into_iter().map(Failure::NotDone).chain([Failure::Unknown]) {
            for during in [During::Login, During::Sender, During::Recipient, During::Message] {
                let told = reply(&failure, during);
                let may_help = failure.may_be_retried() || failure == throttled;
                assert!(told.starts_with(if may_help { '4' } else { '5' }), "{told}");
            }
        }
    }
}

//! IMAP's answers to all refusals: response codes (RFC 3501, section 7.1; RFC 5530) and texts.

use mailraft_protocol::{Failure, Refusal};

use crate::outcome::Done;

/// The response code that is about credentials.
const AUTHENTICATIONFAILED: &str = "AUTHENTICATIONFAILED";

/// The last line of a session whose command may have been done. NO would be wrong if it was, OK if it was not, and there
/// is no third tagged response: the session ends, and the client, which has it to do with servers whose connections
/// break, finds out.
const UNKNOWN: &str = "[UNAVAILABLE] it is not known whether the command without a response was done: connect again and \
                       look before you repeat it";

impl From<Failure> for Done {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotDone(refusal) => refusal.into(),
            Failure::Unknown => Done::Bye(UNKNOWN.to_owned()),
        }
    }
}

impl From<Refusal> for Done {
    fn from(refusal: Refusal) -> Self {
        let (code, text) = response(&refusal);
        Done::No(format!("[{code}] {text}"))
    }
}

/// Why a login failed. NO says "wrong password" to a mail program, and it asks its user: right for what is about
/// credentials, and for too many of them, which slows the client down as it should. Anything else ends the session.
pub(crate) fn login(failure: &Failure) -> Done {
    let (code, text) = match failure {
        Failure::NotDone(refusal) => response(refusal),
        // A login changes nothing.
        Failure::Unknown => response(&Refusal::Unavailable),
    };
    let text = format!("[{code}] {text}");
    if code == AUTHENTICATIONFAILED { Done::No(text) } else { Done::Bye(text) }
}

/// The response code and the text.
fn response(refusal: &Refusal) -> (&'static str, String) {
    let code = match refusal {
        Refusal::Unavailable | Refusal::NotConfirmed | Refusal::NotKept | Refusal::ForwardingRests(_) => "UNAVAILABLE",
        Refusal::Overloaded | Refusal::Limit(_) | Refusal::SentTooMuch(_) => "LIMIT",
        Refusal::MaildropInUse => "INUSE",
        Refusal::Corrupt => "CONTACTADMIN",
        Refusal::OverQuota | Refusal::ServerFull => "OVERQUOTA",
        // Where IMAP says mailbox, it means a folder.
        Refusal::NoSuchMailbox => return ("NONEXISTENT", "the mailbox is no more".to_owned()),
        Refusal::NoSuchFolder | Refusal::FolderGone | Refusal::NoSuchAddress(_) => "NONEXISTENT",
        Refusal::NoSuchTarget => "TRYCREATE",
        Refusal::FolderExists => "ALREADYEXISTS",
        Refusal::BadName(_)
        | Refusal::NotAllowed(_)
        | Refusal::MessageOctets(_)
        | Refusal::MailLoop(_)
        | Refusal::ForwardedBefore(_)
        | Refusal::NotForwarded(_)
        | Refusal::AgainstPolicy(_)
        | Refusal::NotOurDomain(_)
        | Refusal::SendingIsOff(_)
        | Refusal::NotOwnAddress
        | Refusal::NotOwnAuthor => "CANNOT",
        Refusal::MessageTooMuch(_) => "TOOBIG",
        Refusal::MessageTooLong(max_bytes) => return ("TOOBIG", format!("a message has at most {max_bytes} bytes")),
        Refusal::WrongCredentials | Refusal::Throttled => AUTHENTICATIONFAILED,
    };
    (code, refusal.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_response() {
        let no = |done: Done| if let Done::No(text) = done { text } else { panic!("a refusal is a NO") };
        let told: Vec<String> = Refusal::each().into_iter().map(|refusal| no(refusal.into())).collect();
        assert_eq!(
            told,
            [
                "[UNAVAILABLE] no majority of the servers can be reached; try again",
                "[UNAVAILABLE] the backup region has not confirmed what came before, so nothing new is taken; try again later",
                "[LIMIT] too busy; try again later",
                "[UNAVAILABLE] the message can't be kept now; try again",
                "[OVERQUOTA] this server's disk is nearly full, which is not about your mailbox; try again later",
                "[CONTACTADMIN] part of this mailbox is damaged and being repaired",
                "[OVERQUOTA] the mailbox is full",
                "[NONEXISTENT] the mailbox is no more",
                "[NONEXISTENT] no such folder",
                "[TRYCREATE] no such folder; create it first",
                "[NONEXISTENT] the folder was deleted",
                "[ALREADYEXISTS] a folder of that name exists",
                "[CANNOT] no such name",
                "[CANNOT] not with INBOX",
                "[LIMIT] too many folders",
                "[INUSE] another session has this maildrop open; try again later",
                "[TOOBIG] the header is longer than 1024 KiB",
                "[CANNOT] a message has no NUL octets",
                "[CANNOT] the message has been through more than 50 servers, so it goes in a circle",
                "[CANNOT] <a@b.test> has forwarded this message before, so it goes in a circle",
                "[CANNOT] <a@b.test> forwards nothing that says it is of its own domain and does not show it (DMARC)",
                "[CANNOT] b.test wants mail refused that is not shown to be its own, and this is not (DMARC)",
                "[TOOBIG] a message has at most 100 bytes",
                "[AUTHENTICATIONFAILED] wrong user name or password",
                "[AUTHENTICATIONFAILED] too many wrong logins; try again in a minute",
                "[NONEXISTENT] <a@b.test> is nobody here",
                "[CANNOT] <a@b.test> is not in a domain of this server, and it relays for nobody",
                "[CANNOT] <a@b.test> is in another domain, and this server sends nothing there: whoever runs it may switch outbound.enabled on",
                "[LIMIT] this account has sent to as many addresses in other domains as it may in an hour; try again in 60 s",
                "[UNAVAILABLE] <a@b.test> forwards to another domain, and this server sends nothing there now; try again later",
                "[CANNOT] this reverse-path is not yours to send from",
                "[CANNOT] From and Sender must name addresses that are yours to send from",
            ]
        );
        let Done::Bye(unknown) = Failure::Unknown.into() else { panic!("what may have been done is no NO") };
        assert!(unknown.contains("not known") && unknown.contains("look"), "{unknown}");
    }

    #[test]
    fn a_login_hears_no_only_about_its_credentials() {
        for failure in Refusal::each().into_iter().map(Failure::NotDone).chain([Failure::Unknown]) {
            let about_credentials = matches!(failure, Failure::NotDone(Refusal::WrongCredentials | Refusal::Throttled));
            match login(&failure) {
                Done::No(text) => assert!(about_credentials, "{text}"),
                Done::Bye(text) => assert!(!about_credentials, "{text}"),
                _ => panic!("{failure:?} is neither NO nor BYE"),
            }
        }
    }
}

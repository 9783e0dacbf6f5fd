//! Enhanced status codes in plain words (RFC 3463, section 3, and the registry of RFC 5248).

use super::status::{Class, Status};

/// What a code means to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sentence {
    /// What is the matter.
    pub(super) what: &'static str,
    /// What the person who sent the message can do.
    pub(super) advice: &'static str,
}

/// What a code of failure or delay means.
pub(super) fn sentence(status: Status) -> Sentence {
    let by_detail =
        SENTENCES.iter().find(|(subject, detail, ..)| (*subject, *detail) == (status.subject, status.detail));
    let (what, advice) = match (by_detail, status.subject, status.class) {
        (Some((_, _, what, advice)), ..) => (*what, *advice),
        (None, 1, _) => ("The other server does not take mail for this address.", CHECK_ADDRESS),
        (None, 2, _) => ("Something is wrong with the mailbox of this address.", OTHER_WAY),
        (None, 3, _) => ("The mail system of this address has a fault.", LATER),
        (None, 4, _) => ("The message could not be brought to the mail server of this address.", LATER),
        (None, 5, _) => ("The two mail servers did not understand each other.", OPERATOR),
        (None, 6, _) => ("The other server can't take a message of this form.", OTHER_FORM),
        (None, 7, _) => ("The other server refuses the message by its rules.", REFUSED),
        (None, _, Class::Permanent) => ("The other server refuses the message.", OTHER_WAY),
        (None, _, Class::Transient) => ("The other server does not take the message at this time.", LATER),
        (None, _, Class::Success) => ("The message was accepted.", ""),
    };
    Sentence { what, advice }
}

const CHECK_ADDRESS: &str =
    "Look for a typing error in the address, or ask the person for the right one by another way.";
const OTHER_WAY: &str = "Reach the person by another way, and tell them of it.";
const LATER: &str = "Send the message again later if it is still needed.";
const OPERATOR: &str = "Show this report to whoever runs your mail server.";
const OTHER_FORM: &str = "Send it in another form, such as plain text, or put the files elsewhere and send a link.";
const SMALLER: &str = "Send it in parts, or put the files elsewhere and send a link.";
const REFUSED: &str =
    "Reach the person by another way: they can ask whoever runs their mail server to let your mail in.";

/// Subject, detail, what is the matter, and what to do.
const SENTENCES: [(u16, u16, &str, &str); 46] = [
    (1, 1, "There is no mailbox of this address.", CHECK_ADDRESS),
    (1, 2, "The domain of this address does not exist, or has no mail server.", CHECK_ADDRESS),
    (1, 3, "The other server can't read the address.", CHECK_ADDRESS),
    (1, 4, "The address can mean several people.", CHECK_ADDRESS),
    (1, 6, "The person has moved to another address.", CHECK_ADDRESS),
    (1, 7, "The other server can't read your own address.", OPERATOR),
    (1, 8, "The other server does not accept your own address: it finds no mail server for it.", OPERATOR),
    (1, 10, "The domain of this address takes no mail at all.", CHECK_ADDRESS),
    (2, 1, "The mailbox is closed and takes no mail.", OTHER_WAY),
    (2, 2, "The mailbox is full.", OTHER_WAY),
    (2, 3, "The message is too large for this mailbox.", SMALLER),
    (2, 4, "The mailing list of this address has a fault.", OTHER_WAY),
    (3, 1, "The other server has no room for the message.", LATER),
    (3, 2, "The other server takes no mail at this time.", LATER),
    (3, 4, "The message is too large for the other server.", SMALLER),
    (3, 5, "The other server is set up wrongly.", OTHER_WAY),
    (4, 1, "The mail server of this address does not answer.", LATER),
    (4, 2, "The connection to the mail server of this address broke off.", LATER),
    (4, 3, "The names of the mail servers of this address could not be looked up.", LATER),
    (4, 4, "There is no way to a mail server of this address.", CHECK_ADDRESS),
    (4, 5, "The mail system of this address has too much to do.", LATER),
    (4, 6, "The message went in a circle between servers.", OPERATOR),
    (4, 7, "The message could not be delivered in the time that it is tried.", LATER),
    (5, 3, "The message has too many recipients for the other server.", "Send it to fewer people at once."),
    (6, 1, "The other server does not take messages of this kind.", OTHER_FORM),
    (6, 3, "The other server can't take a message in this encoding.", OTHER_FORM),
    (
        6,
        7,
        "The other server can't take addresses with letters that are not English.",
        "Use another address of the person.",
    ),
    (7, 1, "The other server refused the message by its rules, perhaps as spam.", REFUSED),
    (7, 2, "You may not write to this mailing list.", "Ask whoever runs the list."),
    (7, 3, "The other server can't do what the message asks for its safety.", OPERATOR),
    (7, 4, "The connection to the other server can't be encrypted as it must be.", OPERATOR),
    (7, 5, "The other server could not prove who it is, or the encryption failed.", OPERATOR),
    (7, 7, "The message was changed on its way.", LATER),
    (7, 8, "The other server wants a log-in that it did not get.", OPERATOR),
    (7, 10, "The other server takes mail over encrypted connections only.", OPERATOR),
    (7, 17, "The mailbox belongs to somebody else now than when you last wrote.", CHECK_ADDRESS),
    (7, 18, "The domain belongs to somebody else now than when you last wrote.", CHECK_ADDRESS),
    (7, 20, "The other server found no valid signature of your domain (DKIM).", OPERATOR),
    (7, 21, "The other server does not accept the signature of your domain (DKIM).", OPERATOR),
    (7, 22, "The signature is of another domain than your address (DKIM).", OPERATOR),
    (7, 23, "Your domain does not allow your mail server to send for it (SPF).", OPERATOR),
    (7, 24, "Whether your mail server may send for your domain could not be looked up (SPF).", OPERATOR),
    (7, 25, "The address of your mail server has no name (reverse DNS).", OPERATOR),
    (7, 26, "The other server found no proof that the message is from your domain (SPF, DKIM, DMARC).", OPERATOR),
    (7, 27, "Your own address takes no mail, so nobody could answer you.", OPERATOR),
    (7, 30, "No server on the way keeps the message as safe as it asks (REQUIRETLS).", OPERATOR),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_stands_once_in_the_table_and_says_what_to_do() {
        for (at, (subject, detail, what, advice)) in SENTENCES.iter().enumerate() {
            let again = SENTENCES[at + 1..].iter().any(|(s, d, ..)| (s, d) == (subject, detail));
            assert!(!again, "{subject}.{detail} stands twice");
            for text in [what, advice] {
                assert!(text.ends_with('.') && text.is_ascii(), "{text}");
            }
        }
    }

    #[test]
    fn a_code_that_is_not_known_is_told_by_its_subject_and_then_by_its_class() {
        let what = |text: &str| sentence(Status::parse(text).unwrap()).what;
        assert_eq!(what("5.1.1"), "There is no mailbox of this address.");
        assert_eq!(what("4.2.2"), "The mailbox is full.");
        assert_eq!(what("5.7.999"), "The other server refuses the message by its rules.");
        assert_eq!(what("5.0.0"), "The other server refuses the message.");
        assert_eq!(what("4.9.1"), "The other server does not take the message at this time.");
        let whats: std::collections::BTreeSet<&str> = (0..9).map(|s| what(&format!("5.{s}.999"))).collect();
        assert_eq!(whats.len(), 8);
    }
}

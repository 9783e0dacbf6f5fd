//! What a client hears of a command that was done, that was not done, and of which nobody knows.

use mailraft_protocol::Turn;

use crate::testing::{Talk, Unknown, selected};

/// Commands, and what of them changes the mailbox.
const COMMANDS: [(&str, Changes); 35] = [
    ("APPEND INBOX {1+}\r\nx", Changes::Something),
    ("APPEND INBOX {1+}\r\nx {1+}\r\ny", Changes::Something),
    ("CAPABILITY", Changes::AsksNobody),
    ("CHECK", Changes::Nothing),
    ("CLOSE", Changes::Something),
    ("COPY 1 Trash", Changes::Something),
    ("UID COPY 1 Trash", Changes::Something),
    ("CREATE Lists", Changes::Something),
    ("DELETE Archive", Changes::Something),
    ("ENABLE CONDSTORE", Changes::AsksNobody),
    ("EXAMINE INBOX", Changes::Nothing),
    ("EXPUNGE", Changes::Something),
    ("UID EXPUNGE 1", Changes::Something),
    ("FETCH 1 BODY[]", Changes::Something),
    ("UID FETCH 1 BODY[]", Changes::Something),
    ("FETCH 1 BODY.PEEK[]", Changes::Nothing),
    ("ID NIL", Changes::AsksNobody),
    ("IDLE", Changes::Nothing),
    ("LIST \"\" *", Changes::Nothing),
    ("LOGOUT", Changes::AsksNobody),
    ("LSUB \"\" *", Changes::Nothing),
    ("MOVE 1 Trash", Changes::Something),
    ("UID MOVE 1 Trash", Changes::Something),
    ("NAMESPACE", Changes::AsksNobody),
    ("NOOP", Changes::Nothing),
    ("RENAME Archive Old", Changes::Something),
    ("SEARCH BODY hello", Changes::Nothing),
    ("UID SEARCH BODY hello", Changes::Nothing),
    ("SELECT INBOX", Changes::Nothing),
    ("STATUS INBOX (MESSAGES)", Changes::Nothing),
    ("STORE 1 +FLAGS (\\Seen)", Changes::Something),
    ("UID STORE 1 +FLAGS (\\Seen)", Changes::Something),
    ("SUBSCRIBE INBOX", Changes::Something),
    ("UNSUBSCRIBE INBOX", Changes::Something),
    ("UNSELECT", Changes::OnlyHere),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changes {
    Something,
    Nothing,
    /// What the session knows, whether or not its mailbox can be told.
    OnlyHere,
    AsksNobody,
}

/// A session whose first message is to be expunged, and what it hears of a command.
fn hears(command: &str, wrong: impl FnOnce(&mut Talk)) -> (Talk, String) {
    let mut talk = selected();
    talk.say(b"d UID STORE 1 +FLAGS.SILENT (\\Deleted)\r\n");
    talk.take_heard();
    wrong(&mut talk);
    talk.say(format!("a {command}\r\n").as_bytes());
    let heard = talk.take_heard();
    (talk, heard)
}

#[test]
fn what_may_have_been_done_is_never_told_as_done_or_as_not_done() {
    for (command, changes) in COMMANDS {
        for unknown in [Unknown::Done, Unknown::NotDone] {
            let (talk, heard) = hears(command, |talk| talk.store().unknown = Some(unknown));
            let last = heard.lines().last().unwrap_or_default();
            if changes == Changes::Something {
                assert!(last.starts_with("* BYE [UNAVAILABLE] it is not known whether"), "{command}: {heard}");
                assert!(!heard.lines().any(|line| line.starts_with("a ")), "{command} has no tagged response: {heard}");
                assert_eq!(talk.turn, Turn::Close, "{command}");
            } else {
                assert!(last.starts_with("a OK ") || last == "+ idling", "{command}: {heard}");
            }
        }
    }
}

#[test]
fn what_was_not_done_may_be_done_again_on_the_same_connection() {
    for (command, changes) in COMMANDS {
        let (mut talk, heard) = hears(command, |talk| talk.store().unavailable = true);
        let last = heard.lines().last().unwrap_or_default();
        match changes {
            Changes::Something | Changes::Nothing => {
                assert!(last.starts_with("a NO [UNAVAILABLE] no majority"), "{command}: {heard}");
                assert_eq!(talk.turn, Turn::NeedInput, "{command}");
                talk.store().unavailable = false;
                talk.say(b"b NOOP\r\n");
                assert!(talk.take_heard().ends_with("b OK NOOP done\r\n"), "{command}");
            }
            Changes::OnlyHere | Changes::AsksNobody => assert!(last.starts_with("a OK "), "{command}: {heard}"),
        }
    }
}

#[test]
fn a_folder_that_was_expunged_by_close_is_closed_though_nobody_can_be_told() {
    let (mut talk, heard) = hears("CLOSE", |talk| talk.store().answers = Some(1));
    assert_eq!(heard, "a OK CLOSE done\r\n");
    assert_eq!(talk.store().inbox().len(), 1);
}

#[test]
fn an_answer_counts_as_heard_when_more_comes_after_it() {
    let mut talk = selected();
    talk.store().heard.clear();
    talk.say(b"a APPEND INBOX {1+}\r\nx\r\n");
    assert!(talk.take_heard().ends_with("APPEND done\r\n"));
    assert_eq!(talk.store().heard, ["went on"], "that is the command itself");
    talk.say(b"b CAPABILITY\r\n");
    assert_eq!(talk.store().heard[1..], ["went on", "tells"], "what asks the mailbox nothing tells it all the same");
    talk.say(b"c LOGOUT\r\n");
    assert_eq!(talk.store().heard[3..], ["went on", "tells", "leaves"]);
}

//! What goes wrong on the way, and what is large.

use mailraft_protocol::{Engine, Farewell, INPUT_MAX_BYTES, OUTPUT_FLUSH_BYTES, Out, Turn};
use mailraft_storage::body::CHUNK_PLAIN_BYTES;

use crate::session::{AUTH_LINE_MAX_BYTES, COMMAND_LINE_MAX_BYTES};
use crate::testing::{Heard, LOGIN_MAX, TLS, Talk, Unknown, logged_in};

/// Three messages, the third longer than a chunk.
fn with_a_long_one() -> (Talk, String) {
    let message = format!("Subject: long\r\n\r\n{}", ".123456789\r\n".repeat(CHUNK_PLAIN_BYTES / 5));
    let mut talk = Talk::new(true);
    talk.maildrop().deliver(&message);
    talk.say(b"USER alice\r\nPASS secret\r\n");
    talk.take_heard();
    (talk, message)
}

#[test]
fn a_long_message_is_sent_in_pieces_and_its_size_is_what_was_sent() {
    let (mut talk, message) = with_a_long_one();
    talk.say(b"RETR 3\r\n");
    assert!(talk.heard.1 < 2 * OUTPUT_FLUSH_BYTES, "{} at once", talk.heard.1);
    let heard = talk.take_heard();
    let (first, rest) = heard.split_once("\r\n").unwrap();
    let text = rest.strip_suffix("\r\n.\r\n").unwrap().replace("\r\n..", "\r\n.") + "\r\n";
    assert_eq!((first, text.as_str()), (format!("+OK {} octets", message.len()).as_str(), message.as_str()));
}

#[test]
fn a_message_that_fails_when_some_of_it_is_out_ends_the_session_without_a_word() {
    for lost in [false, true] {
        let (mut talk, message) = with_a_long_one();
        let chunks = message.len().div_ceil(CHUNK_PLAIN_BYTES);
        talk.maildrop().answers = Some(chunks);
        talk.maildrop().lost = lost;
        talk.say(b"RETR 3\r\nNOOP\r\n");
        let heard = talk.take_heard();
        if lost {
            assert_eq!(heard, "-ERR somebody else has removed this message\r\n+OK nothing done\r\n");
        } else {
            assert!(heard.starts_with("+OK ") && heard.len() > OUTPUT_FLUSH_BYTES && !heard.contains("-ERR"));
            assert!(!heard.ends_with(".\r\n") && talk.turn == Turn::Close);
        }
    }
}

#[test]
fn many_messages_are_listed_in_pieces_and_keep_their_unique_ids() {
    let mut talk = Talk::new(true);
    talk.maildrop().mailbox.fill(10_002);
    talk.say(b"USER alice\r\nPASS secret\r\nLIST\r\n");
    assert!(talk.heard.1 < OUTPUT_FLUSH_BYTES + 100);
    let heard = talk.take_heard();
    assert!(heard.contains("\r\n10002 ") && heard.lines().count() == 10_002 + 4, "{}", &heard[..200]);
    talk.say(b"UIDL\r\n");
    let before = talk.take_heard();
    assert_eq!(before.lines().count(), 10_002 + 2);
    // Copies are one message in several places; each delivery has an id of its own.
    assert!(before.lines().nth(1).unwrap().strip_prefix("1 ") != before.lines().nth(2).unwrap().strip_prefix("2 "));
    talk.fail_over(|_| {});
    talk.say(b"UIDL\r\n");
    assert!(talk.take_heard() == before, "unique ids stay through a failover");
    talk.maildrop().answers = Some(10);
    talk.say(b"UIDL\r\n");
    assert_eq!(talk.turn, Turn::Close, "some of it is out");
    assert!(!talk.take_heard().ends_with("\r\n.\r\n"));
}

#[test]
fn what_is_removed_is_removed_once_and_what_nobody_knows_is_told_so() {
    for (unknown, left) in [(Unknown::Done, vec![2]), (Unknown::NotDone, vec![1, 2])] {
        let mut talk = logged_in();
        talk.maildrop().unknown = Some(unknown);
        talk.say(b"DELE 1\r\nQUIT\r\n");
        let heard = talk.take_heard();
        assert!(heard.contains("-ERR [SYS/TEMP] it is not known whether the messages were removed"), "{heard}");
        assert_eq!((talk.turn, talk.maildrop().inbox()), (Turn::Close, left));
    }
}

#[test]
fn whoever_breaks_off_removes_nothing_and_gives_the_maildrop_back() {
    let mut talk = logged_in();
    talk.say(b"DELE 1\r\n");
    assert!(talk.maildrop().another(mailraft_mailbox::Command::Maildrop).is_err());
    futures::executor::block_on(talk.session.ended());
    assert!(talk.maildrop().another(mailraft_mailbox::Command::Maildrop).is_ok());
    assert_eq!(talk.maildrop().inbox(), [1, 2]);
}

#[test]
fn a_long_line_has_its_bound() {
    let long = |head: &str, bytes: usize| format!("{head}{}\r\n", "x".repeat(bytes - head.len() - 2));
    for (head, bound, fits) in [
        ("USER ", COMMAND_LINE_MAX_BYTES, "+OK now the password\r\n"),
        ("AUTH PLAIN ", AUTH_LINE_MAX_BYTES, "-ERR not the base64 of what the mechanism wants\r\n"),
    ] {
        for (bytes, expected) in [(bound, fits), (bound + 1, "-ERR line too long\r\n")] {
            let mut talk = Talk::new(true);
            talk.say(long(head, bytes).as_bytes());
            assert_eq!(talk.take_heard(), expected, "{head}{bytes}");
        }
    }
}

#[test]
fn a_client_logs_in_soon_and_is_then_waited_for() {
    let mut talk = Talk::new(true);
    assert_eq!(talk.session.patience().total, Some(LOGIN_MAX));
    talk.say(b"USER alice\r\nPASS secret\r\n");
    let patience = talk.session.patience();
    assert_eq!((patience.total, patience.idle.as_secs()), (None, 600));
}

#[test]
fn last_lines() {
    let session = Talk::new(true).session;
    for (why, line) in [
        (Farewell::Silent, ""),
        (Farewell::TooLong, "-ERR a login took too long\r\n"),
        (Farewell::TooSlow, "-ERR this comes too slowly\r\n"),
        (Farewell::Revoked, "-ERR [AUTH] the account has changed; no message was removed; log in again\r\n"),
        (Farewell::ShuttingDown, "-ERR [SYS/TEMP] shutting down; no message was removed; connect again\r\n"),
        (Farewell::TooManySessions, "-ERR [SYS/TEMP] too many connections; try again later\r\n"),
    ] {
        assert_eq!(String::from_utf8_lossy(&session.farewell(why)), line);
    }
}

#[test]
fn stls_empties_the_input_both_before_and_after_the_shell_takes_it_up() {
    let mut session = Talk::new(false).session;
    session.input(b"STLS\r\nCAPA\r\n");
    let mut out = Out::new(Heard::default());
    assert_eq!(futures::executor::block_on(session.drive(&mut out)), Turn::StartTls);
    assert_eq!(session.room(), INPUT_MAX_BYTES);
    out.bytes.clear();
    session.input(b"CAPA\r\n");
    session.tls_started(TLS);
    assert_eq!(futures::executor::block_on(session.drive(&mut out)), Turn::NeedInput);
    assert_eq!(out.bytes, b"");
}

#[test]
fn whoever_computes_for_long_gives_others_their_turn_and_is_stopped_at_its_end() {
    let (mut talk, _) = with_a_long_one();
    for said in ["UIDL", "TOP 3 1"] {
        talk.maildrop().breaths_max = 0;
        talk.say(format!("{said}\r\n").as_bytes());
        assert_eq!(talk.take_heard(), "-ERR [SYS/TEMP] enough\r\n", "{said}");
        talk.maildrop().breaths_max = usize::MAX;
        talk.say(format!("{said}\r\n").as_bytes());
        assert!(talk.take_heard().starts_with("+OK") && talk.maildrop().breaths > 0, "{said}");
    }
}

#[test]
fn what_is_printed_of_a_session_is_no_secret() {
    let mut session = Talk::new(true).session;
    session.input(b"PASS secret\r\n");
    let printed = format!("{session:?}");
    assert!(printed.contains("Input(13 bytes)") && !printed.contains("secret"), "{printed}");
}

//! What holds for every input.

use proptest::prelude::*;

use super::dialogue::Talk;
use crate::state::{MAILBOXES_MAX, RECIPIENTS_MAX, Service};

/// Input that is likely to reach every state: pieces of sessions, and bytes that framing is about.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "EHLO c.test\r\n",
            "MAIL FROM:<a@b>\r\n",
            "MAIL FROM:<alice@here.test>\r\n",
                "MAIL FROM:<> SIZE=7\r\n",
            "RCPT TO:<alice@here.test>\r\n",
            "RCPT TO:<bob@here.test>\r\n",
            "DATA\r\n",
            "BDAT 14\r\n",
            "BDAT 0 LAST\r\n",
            "BDAT 30 LAST\r\n",
            "Subject: y\r\n\r\n",
            "..\r\n",
            ".x\r\n",
            "\r\n.\r\n",
            "0123456789012345678901234567890123456789012345678901234567890123456789",
            "RSET\r\n",
            "FOO\r\n",
            "STARTTLS\r\n",
            "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n",
            "AUTH LOGIN\r\n",
            "YWxpY2U=\r\n",
            "c2VjcmV0\r\n",
            "*\r\n",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => (500usize..1_100).prop_map(|bytes| vec![b'x'; bytes]),
        4 => prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), any::<u8>()], 1..6),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn service() -> impl Strategy<Value = (Service, bool)> {
    prop::sample::select(vec![
        (Service::Relay, false),
        (Service::Relay, true),
        (Service::Submission, false),
        (Service::Submission, true),
        (Service::Submissions, true),
    ])
}

/// What arrives in one piece with STARTTLS is lost by intent, so there cutting does make a difference.
fn without_starttls(mut input: Vec<u8>) -> Vec<u8> {
    while let Some(at) = input.windows(8).position(|w| w.eq_ignore_ascii_case(b"STARTTLS")) {
        input[at] = b'X';
    }
    input
}

proptest! {
    #[test]
    fn any_split_of_the_input_gives_the_same(
        (service, tls) in service(),
        input in input().prop_map(without_starttls),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let start: &[u8] = if service == Service::Relay { b"EHLO x\r\n" } else { b"EHLO x\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n" };
        let input = [start, &input].concat();
        let mut whole = Talk::new(service, tls);
        whole.say(&input);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.index(input.len())).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let mut split = Talk::new(service, tls);
        for w in cuts.windows(2) {
            split.say(&input[w[0]..w[1]]);
        }
        prop_assert_eq!(&whole.heard, &split.heard);
        prop_assert_eq!(&whole.log, &split.log);
        let mut bytewise = Talk::new(service, tls);
        for byte in &input {
            bytewise.say(&[*byte]);
        }
        prop_assert_eq!(whole.heard, bytewise.heard);
        prop_assert_eq!(whole.log, bytewise.log);
    }

    #[test]
    fn nothing_panics_and_replies_are_lines((service, tls) in service(), input in input()) {
        let mut talk = Talk::new(service, tls);
        talk.say(&input);
        let text = String::from_utf8(talk.heard).unwrap();
        for line in text.split_terminator("\r\n") {
            let (code, rest) = line.split_at(3);
            prop_assert!(code.bytes().all(|b| b.is_ascii_digit()), "{}", line);
            prop_assert!(rest.starts_with([' ', '-']), "{}", line);
            prop_assert!(rest.bytes().all(|b| matches!(b, b' '..=b'~')), "{}", line);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        for (service, tls) in [(Service::Relay, false), (Service::Submissions, true)] {
            Talk::new(service, tls).say(&bytes);
        }
    }

    /// Whatever a message holds: with its dots stuffed it comes out as it was, and what follows it is read.
    #[test]
    fn a_message_comes_out_as_it_went_in(lines in prop::collection::vec("[.a\0\u{e4}]{0,5}", 0..12)) {
        let message: String = lines.iter().map(|l| format!("{l}\r\n")).collect();
        prop_assume!(message.len() <= 100);
        let stuffed: String = lines.iter().map(|l| format!("{}{l}\r\n", if l.starts_with('.') { "." } else { "" })).collect();
        let mut talk = Talk::new(Service::Relay, false);
        talk.say(format!("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<alice@here.test>\r\nDATA\r\n{stuffed}.\r\nQUIT\r\n").as_bytes());
        let delivered = format!("a@b -> alice@here.test by x esmtp to 1: {message:?}");
        prop_assert_eq!(talk.log, [delivered, "close".to_owned()]);
    }

    /// In pieces of told lengths any bytes come out as they went in, and what follows them is read.
    #[test]
    fn pieces_come_out_as_they_went_in(pieces in prop::collection::vec("[.a\0\u{e4}]{0,5}(\r\n)?(\\.\r\n|QUIT\r\n|BDAT 3\r\n)?", 0..8)) {
        let message = pieces.concat();
        prop_assume!(message.len() <= 100);
        let mut said = "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<alice@here.test>\r\n".to_owned();
        for piece in &pieces {
            said.push_str(&format!("BDAT {}\r\n{piece}", piece.len()));
        }
        let mut talk = Talk::new(Service::Relay, false);
        talk.say(format!("{said}BDAT 0 LAST\r\nQUIT\r\n").as_bytes());
        let delivered = format!("a@b -> alice@here.test by x esmtp to 1: {message:?}");
        prop_assert_eq!(talk.log, [delivered, "close".to_owned()]);
    }

    /// Smuggling: without a true CRLF.CRLF no message ends, so that nothing of it is read as a command.
    #[test]
    fn no_other_end_ends_a_message(pieces in prop::collection::vec(
        prop::sample::select(vec!["\r", "\n", ".", "\r\n", "\0", "x", "MAIL FROM:<evil@x>", "\n.\n", "\r.\r", "\n.\r\n", "\r\n.\n", "\r\n.\r"]),
        0..30,
    )) {
        // Made harmless where chance made a true end.
        let content = format!("x{}", pieces.concat()).replace("\r\n.\r\n", "\r\n-\r\n");
        prop_assume!(!content.contains("\r\n.\r\n"));
        let mut talk = Talk::new(Service::Relay, false);
        talk.say(b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<alice@here.test>\r\nDATA\r\n");
        talk.heard.clear();
        talk.say(content.as_bytes());
        prop_assert_eq!(String::from_utf8_lossy(&talk.heard), "");
        talk.say(b"x\r\n.\r\nNOOP\r\n");
        let replies = String::from_utf8(talk.heard).unwrap();
        prop_assert_eq!(replies.lines().count(), 2, "{}", replies);
        prop_assert!(replies.ends_with("\r\n250 2.0.0 Ok\r\n"));
        let bare = content.replace("\r\n", "").contains(['\r', '\n']);
        if content.len() <= 90 {
            prop_assert_eq!(replies.starts_with("550 5.6.11 "), bare, "{}", replies);
        }
        prop_assert!(!bare || !replies.starts_with("250 "), "{}", replies);
    }
}

#[test]
fn recipients_are_bounded() {
    let mut talk = Talk::new(Service::Relay, false);
    let mut say = |line: &str| talk.say(format!("{line}\r\n").as_bytes()).pop().unwrap();
    say("EHLO client.test");
    assert_eq!(say("MAIL FROM:<a@b.test>"), "S: 250 2.1.0 Ok");
    for _ in 0..RECIPIENTS_MAX {
        assert_eq!(say("RCPT TO:<alice@here.test>"), "S: 250 2.1.5 Ok");
    }
    assert_eq!(say("RCPT TO:<alice@here.test>"), "S: 452 4.5.3 too many recipients");
    say("RSET");
    say("MAIL FROM:<a@b.test>");
    // A hundred mailboxes each.
    let taken = ["crowd", "crush", "crowd"].map(|group| say(&format!("RCPT TO:<{group}@here.test>")));
    assert_eq!(taken, ["S: 250 2.1.5 Ok", "S: 250 2.1.5 Ok", "S: 250 2.1.5 Ok"]);
    assert_eq!(MAILBOXES_MAX, 200);
    assert_eq!(say("RCPT TO:<alice@here.test>"), "S: 452 4.5.3 too many recipients");
}

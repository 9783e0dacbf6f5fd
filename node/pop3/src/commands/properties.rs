//! What holds for every input, and wherever the mailbox fails.

use mailraft_protocol::Turn;
use mailraft_storage::body::CHUNK_PLAIN_BYTES;
use proptest::prelude::*;

use crate::testing::{Talk, Unknown};

/// How many responses there are to these commands, if all are whole.
fn responses(commands: &[&str], heard: &str) -> Option<usize> {
    let mut rest = heard;
    for (count, command) in commands.iter().enumerate() {
        if rest.is_empty() {
            return Some(count);
        }
        let (first, after) = rest.split_once("\r\n")?;
        rest = after;
        let has_lines =
            ["CAPA", "LIST", "UIDL"].contains(command) || command.starts_with("RETR") || command.starts_with("TOP");
        if first.starts_with("+OK") && has_lines {
            rest = match rest.strip_prefix(".\r\n") {
                Some(rest) => rest,
                None => rest.split_once("\r\n.\r\n")?.1,
            };
        } else if !first.starts_with("+OK") && !first.starts_with("-ERR ") {
            return None;
        }
    }
    rest.is_empty().then_some(commands.len())
}

fn command() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "STAT",
        "LIST",
        "LIST 3",
        "UIDL",
        "UIDL 1",
        "RETR 1",
        "RETR 3",
        "RETR 3",
        "TOP 3 2",
        "TOP 1 0",
        "DELE 1",
        "DELE 3",
        "RSET",
        "NOOP",
        "CAPA",
        "QUIT",
        "LIST 9",
        "RETR",
        "XTND",
        "USER alice",
        "PASS secret",
        "STLS",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Wherever the mailbox fails, what was said before is whole, or the session is over.
    #[test]
    fn a_mailbox_that_fails_anywhere_leaves_whole_responses(
        commands in proptest::collection::vec(command(), 1..12),
        answers in 0usize..12,
        lost in any::<bool>(),
        unknown in prop_oneof![Just(None), Just(Some(Unknown::Done)), Just(Some(Unknown::NotDone))],
    ) {
        let mut talk = Talk::new(true);
        talk.maildrop().deliver(&format!("Subject: long\r\n\r\n{}", "0123456789\r\n".repeat(CHUNK_PLAIN_BYTES / 10)));
        talk.say(b"USER alice\r\nPASS secret\r\n");
        talk.take_heard();
        talk.maildrop().answers = Some(answers);
        talk.maildrop().lost = lost;
        talk.maildrop().unknown = unknown;
        for command in &commands {
            talk.say(format!("{command}\r\n").as_bytes());
        }
        let heard = talk.take_heard();
        match responses(&commands, &heard) {
            Some(count) => prop_assert!(count == commands.len() || talk.turn == Turn::Close, "{}", heard),
            None => prop_assert_eq!(talk.turn, Turn::Close),
        }
        talk.maildrop().answers = None;
        talk.maildrop().unknown = None;
        let left = talk.maildrop().inbox();
        prop_assert!(commands.contains(&"QUIT") || left == [1, 2, 3], "only QUIT removes anything: {:?}", left);
    }

    /// However what a client says comes, the answers are the same.
    #[test]
    fn any_split_of_what_is_hostile_gives_the_same(
        words in proptest::collection::vec(prop_oneof![
            4 => command().prop_map(|command| format!("{command}\r\n")),
            1 => prop_oneof![
                "[ -~]{0,20}", Just("\r\n".to_owned()), Just("\n".to_owned()), Just("\r".to_owned()), Just("\0".to_owned()),
                Just("AUTH PLAIN\r\n".to_owned()), Just("AUTH LOGIN\r\n".to_owned()), Just("*\r\n".to_owned()),
                Just("AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n".to_owned()), Just("x".repeat(300)), Just("y".repeat(70_000)),
            ],
        ], 0..14),
        early in any::<bool>(),
        size in prop_oneof![1usize..20, 20usize..40_000],
    ) {
        // What comes in one piece with STLS in clear is lost by intent; here TLS is up.
        let said = words.concat();
        let talk = || {
            let mut talk = Talk::new(true);
            if !early {
                talk.say(b"USER alice\r\nPASS secret\r\n");
            }
            talk
        };
        let (mut whole, mut split) = (talk(), talk());
        whole.say_in_pieces(said.as_bytes(), 50_000);
        split.say_in_pieces(said.as_bytes(), size);
        prop_assert_eq!(whole.take_heard(), split.take_heard());
        prop_assert_eq!(whole.turn, split.turn);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000), tls in any::<bool>()) {
        let mut talk = Talk::new(tls);
        talk.say(&bytes);
        for line in talk.take_heard().split_terminator("\r\n") {
            prop_assert!(line.bytes().all(|b| matches!(b, b' '..=b'~')), "{}", line);
        }
    }

    /// Whatever a message holds comes out as it was, once the dots before dots are taken away.
    #[test]
    fn a_message_comes_out_as_it_went_in(lines in proptest::collection::vec("[.a\u{e4}]{0,5}", 0..12)) {
        let message: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let mut talk = Talk::new(true);
        talk.maildrop().deliver(&message);
        talk.say(b"USER alice\r\nPASS secret\r\n");
        talk.take_heard();
        talk.say(b"RETR 3\r\n");
        let heard = talk.take_heard();
        let lines = heard.split_terminator("\r\n").skip(1).take_while(|line| *line != ".");
        let read: String = lines.map(|line| format!("{}\r\n", line.strip_prefix('.').unwrap_or(line))).collect();
        prop_assert_eq!(&read, &message);
        let first = format!("+OK {} octets\r\n", read.len());
        prop_assert!(heard.starts_with(&first) && heard.ends_with("\r\n.\r\n"), "{}", heard);
    }
}

//! What holds for every input, and wherever the store fails.

use mailraft_protocol::Turn;
use mailraft_storage::body::CHUNK_PLAIN_BYTES;
use proptest::prelude::*;

use crate::decoder::LINE_MAX_BYTES;
use crate::testing::{Talk, logged_in, selected};

/// The responses, each with its literals, if all are whole.
fn responses(mut heard: &[u8]) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut response = String::new();
    while !heard.is_empty() {
        let end = heard.windows(2).position(|w| w == b"\r\n")?;
        let line = String::from_utf8_lossy(&heard[..end]).into_owned();
        heard = &heard[end + 2..];
        response += &line;
        let literal = line.strip_suffix('}').and_then(|l| l.rsplit_once('{')?.1.parse::<usize>().ok());
        match literal {
            Some(size) => heard = heard.get(size..)?,
            None => {
                let count = |c: char| response.matches(c).count();
                if count('(') != count(')') {
                    return None;
                }
                out.push(std::mem::take(&mut response));
            }
        }
    }
    response.is_empty().then_some(out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Wherever the store fails, what was said before is whole, or the session is over.
    #[test]
    fn a_store_that_fails_anywhere_leaves_whole_responses(
        answers in 0usize..12,
        command in proptest::sample::select(vec![
            "FETCH 1:4 (UID BODY[])", "FETCH 1:4 (FLAGS BODY[HEADER] BODY[TEXT]<3.200000> ENVELOPE)", "UID FETCH 1:* RFC822",
            "FETCH 4 (BODY.PEEK[1] BODY.PEEK[1.MIME])", "SEARCH TEXT needle", "STORE 1:4 +FLAGS Own", "UID COPY 1:* Sent",
            "MOVE 2:3 Sent", "LIST \"\" * RETURN (STATUS (MESSAGES))", "UID EXPUNGE 1:*", "CLOSE", "SELECT INBOX", "NOOP",
        ]),
    ) {
        let mut talk = logged_in();
        talk.store().deliver(&format!("Subject: long\r\n\r\n{}", "0123456789\r\n".repeat(CHUNK_PLAIN_BYTES / 5)));
        talk.store().deliver("Subject: last\r\n\r\n");
        talk.say(b"s SELECT INBOX\r\n");
        talk.heard.0.clear();
        talk.store().answers = Some(answers);
        talk.store().deliver("Subject: news\r\n\r\n");
        talk.say(format!("a {command}\r\n").as_bytes());
        match responses(&talk.heard.0) {
            Some(all) => prop_assert!(all.last().is_some_and(|l| l.starts_with("a ")), "{:?}", all),
            None => prop_assert_eq!(talk.turn, Turn::Close),
        }
    }

    /// However what a client says comes, the answers are the same.
    #[test]
    fn any_split_of_what_is_hostile_gives_the_same(
        words in proptest::collection::vec(prop_oneof![
            "[ -~]{0,20}", Just("\r\n".to_owned()), Just("\n".to_owned()), Just("\r".to_owned()), Just("\0".to_owned()),
            Just("a APPEND INBOX {7}\r\n".to_owned()), Just("b APPEND INBOX {7+}\r\n".to_owned()),
            Just("c APPEND INBOX {2000+}\r\n".to_owned()), Just("d APPEND Nowhere {3+}\r\n".to_owned()),
            Just(" {3+}\r\n".to_owned()), Just("{5}\r\n".to_owned()), Just("{99999999999999+}\r\n".to_owned()),
            Just("e IDLE\r\n".to_owned()), Just("DONE\r\n".to_owned()), Just("f SEARCH SUBJECT ".to_owned()),
            Just("x".repeat(9_000)), Just("x".repeat(33_000)), Just("x".repeat(LINE_MAX_BYTES)),
            Just("g FETCH 1:* (FLAGS BODY.PEEK[])\r\n".to_owned()), Just("h AUTHENTICATE PLAIN\r\n".to_owned()),
            Just("i LOGIN alice secret\r\n".to_owned()), Just("j LOGIN {5}\r\nalice {6+}\r\nsecret\r\n".to_owned()),
        ], 0..14),
        early in any::<bool>(),
        size in prop_oneof![1usize..20, 20usize..40_000],
    ) {
        let said = words.concat();
        let talk = || if early { Talk::new(true) } else { selected() };
        let (mut whole, mut split) = (talk(), talk());
        whole.say_in_pieces(said.as_bytes(), 50_000);
        split.say_in_pieces(said.as_bytes(), size);
        prop_assert_eq!(whole.take_heard(), split.take_heard());
        prop_assert_eq!(whole.turn, split.turn);
    }

    #[test]
    fn any_split_of_the_input_gives_the_same(cuts in proptest::collection::vec(0usize..400, 0..12)) {
        let input: &[u8] = b"l LOGIN alice {6+}\r\nsecret\r\ns SELECT INBOX\r\na FETCH 1:2 (FLAGS BODY.PEEK[])\r\nb APPEND INBOX {5+}\r\nab\r\nc\r\nc UID SEARCH TEXT hello\r\nd IDLE\r\nDONE\r\ne NONSENSE\r\nf LOGOUT\r\n";
        let mut whole = Talk::new(true);
        whole.say(input);
        let mut split = Talk::new(true);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(input.len())).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        for w in cuts.windows(2) {
            split.say(&input[w[0]..w[1]]);
        }
        prop_assert_eq!(String::from_utf8_lossy(&whole.heard.0), String::from_utf8_lossy(&split.heard.0));
    }

    #[test]
    fn random_commands_never_panic(words in proptest::collection::vec(prop_oneof![
        "[ -~]{0,12}", Just("a UID FETCH 1:* (".to_owned()), Just("BODY[1.".to_owned()), Just("\r\n".to_owned()), Just("{3+}\r\n".to_owned()),
        Just("a SEARCH NOT OR (".to_owned()), Just("a STORE 1 +FLAGS (".to_owned()), Just("\"\\".to_owned()), Just("a LIST \"\" ".to_owned()),
    ], 0..20)) {
        let mut talk = selected();
        talk.say(words.concat().as_bytes());
        talk.say(b"\r\nz NOOP\r\n");
    }
}

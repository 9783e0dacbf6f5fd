//! Dialogues in which something goes wrong: the store fails, others interfere, clients say what they shouldn't.

use mailraft_mailbox::UidSet;
use mailraft_storage::body::CHUNK_PLAIN_BYTES;
use proptest::prelude::*;

use crate::decoder::LINE_MAX_BYTES;
use crate::out::OUTPUT_FLUSH_BYTES;
use crate::session::Turn;
use crate::testing::{Talk, dialogue, logged_in, selected};

const UNAVAILABLE: &str = "[UNAVAILABLE] no majority of the servers can be reached; try again";

/// Three messages, the third longer than a chunk.
fn with_a_long_one(text: &str) -> Talk {
    let mut talk = logged_in();
    talk.store.deliver(&format!("Subject: long\r\n\r\n{text}"));
    talk.say(b"s EXAMINE INBOX\r\n");
    talk.take_heard();
    talk
}

#[test]
fn a_fetch_that_fails_leaves_no_half_response() {
    let mut talk = selected();
    dialogue(
        &mut talk,
        &format!(
            "! answers 1
             C: a FETCH 1 (UID BODY.PEEK[])
             S: a NO {UNAVAILABLE}
             ! answers 2
             C: b FETCH 1:2 (BODY.PEEK[HEADER.FIELDS (Subject)] BODY.PEEK[TEXT])
             S: * 1 FETCH (BODY[HEADER.FIELDS (Subject)] {{18}}
             S: Subject: first
             S: 
             S:  BODY[TEXT] {{13}}
             S: hello world
             S: )
             S: b NO {UNAVAILABLE}
             ! available
             ! lost
             C: c FETCH 2 BODY.PEEK[TEXT]
             S: c NO [EXPUNGEISSUED] some of the messages are no more
             C: d UID FETCH 2 BODY.PEEK[TEXT]
             S: d OK FETCH done"
        ),
    );
}

#[test]
fn a_fetch_that_fails_when_some_of_it_is_out_ends_the_session_without_a_word() {
    let text = "0123456789".repeat(CHUNK_PLAIN_BYTES / 5);
    let mut talk = with_a_long_one(&text);
    talk.store.deliver("Subject: news\r\n\r\n");
    talk.store.answers = Some(2);
    talk.say(b"a FETCH 3 BODY.PEEK[TEXT]\r\nb NOOP\r\n");
    let heard = talk.take_heard();
    let literal = heard.strip_prefix(&format!("* 3 FETCH (BODY[TEXT] {{{}}}\r\n", text.len())).unwrap();
    assert!(literal.len() > OUTPUT_FLUSH_BYTES && text.starts_with(literal));
    assert_eq!(talk.turn, Turn::Close);
}

#[test]
fn literals_that_come_unasked_behind_what_is_refused_never_count_as_commands() {
    let long = "x".repeat(LINE_MAX_BYTES);
    for (said, why) in [
        (format!("a SEARCH SUBJECT {long} {{10+}}"), "line too long"),
        ("a SEARCH\n SUBJECT {10+}".to_owned(), "a line ends with CRLF and has no bare CR, LF or NUL"),
        ("a SEARCH SUBJECT {123456789012345+}".to_owned(), "literal too long"),
        ("a SEARCH SUBJECT {70000+}".to_owned(), "literal too long"),
    ] {
        let mut talk = selected();
        talk.say(format!("{said}\r\nb DELETE x\r\nc NOOP\r\n").as_bytes());
        assert_eq!(talk.take_heard(), format!("a BAD {why}\r\n* BYE what follows can't be understood\r\n"));
        assert_eq!(talk.turn, Turn::Close);
    }
    // Before a login nothing is read to be dropped.
    let mut talk = Talk::new(true);
    talk.say(b"a APPEND INBOX {1000000000+}\r\nxyz");
    assert_eq!(talk.take_heard(), "a BAD log in first\r\n* BYE what follows can't be understood\r\n");
    let mut talk = selected();
    talk.say(b"a APPEND INBOX {2000+}\r\n");
    talk.say(&[b'x'; 2_000]);
    talk.say(b"\r\nb NOOP\r\n");
    assert_eq!(talk.take_heard(), "a NO [TOOBIG] a message has at most 1000 bytes\r\nb OK NOOP done\r\n");
}

#[test]
fn lines_are_taken_up_to_a_bound_however_they_come() {
    for (length, taken) in [(40_000, true), (LINE_MAX_BYTES, true), (LINE_MAX_BYTES + 1, false)] {
        let head = "a SEARCH SUBJECT ";
        let line = format!("{head}{}\r\n", "x".repeat(length - head.len()));
        let answer = if taken { "* SEARCH\r\na OK SEARCH done\r\n" } else { "a BAD line too long\r\n" };
        for size in [1_000, 32_768, 65_000, 100_000] {
            let mut talk = selected();
            talk.say_in_pieces(line.as_bytes(), size);
            assert_eq!(talk.take_heard(), answer, "{length} in pieces of {size}");
        }
    }
}

#[test]
fn what_others_did_is_found_before_the_session_was_told() {
    let mut talk = selected();
    dialogue(
        &mut talk,
        "! slow
         ! deliver Subject: third
         C: a UID FETCH 3:* FLAGS
         S: * 3 EXISTS
         S: * 2 RECENT
         S: * 3 FETCH (UID 3 FLAGS (\\Recent))
         S: a OK FETCH done
         ! deliver Subject: fourth
         ! expunge 1
         C: b SEARCH ALL
         S: * 4 EXISTS
         S: * 3 RECENT
         S: * SEARCH 2 3 4
         S: b OK SEARCH done
         ! deliver Subject: fifth
         C: c UID SEARCH SUBJECT f
         S: * 5 EXISTS
         S: * 4 RECENT
         S: * SEARCH 4 5
         S: * 1 EXPUNGE
         S: c OK SEARCH done
         ! deliver Subject: sixth
         C: d UID STORE 6 +FLAGS.SILENT \\Seen
         S: * 5 EXISTS
         S: * 5 RECENT
         S: d OK STORE done
         ! deliver Subject: seventh
         C: e UID COPY 7 Sent
         S: * 6 EXISTS
         S: * 6 RECENT
         S: e OK [COPYUID 9 7 107] COPY done",
    );
}

#[test]
fn words_are_found_across_the_chunks_of_a_message() {
    let mut text = "a line of text as there are many\r\n".repeat(CHUNK_PLAIN_BYTES / 34 - 1);
    // The header counts too.
    let gap = CHUNK_PLAIN_BYTES - text.len() - "Subject: long\r\n\r\n".len();
    text += &".".repeat(gap - 3);
    text += "needle in the hay\r\n";
    text += &"a line of text as there are many\r\n".repeat(100);
    let mut talk = with_a_long_one(&text);
    dialogue(
        &mut talk,
        "C: a SEARCH BODY NEEDLE
         S: * SEARCH 3
         S: a OK SEARCH done
         C: b SEARCH NOT TEXT \"needle in\" TEXT e
         S: * SEARCH 1 2
         S: b OK SEARCH done
         C: c SEARCH OR BODY needles BODY bye
         S: * SEARCH 2
         S: c OK SEARCH done",
    );
}

#[test]
fn a_search_reads_a_message_chunk_by_chunk_and_no_further_than_it_must() {
    let text = format!("early\r\n{}late\r\n", "0123456789abcd\r\n".repeat(CHUNK_PLAIN_BYTES / 4));
    for (word, chunks) in [("early", 1), ("late", 5), ("never", 5)] {
        let mut talk = with_a_long_one(&text);
        talk.say(format!("a SEARCH 3 BODY {word}\r\n").as_bytes());
        let found = if word == "never" { "" } else { " 3" };
        assert_eq!(talk.take_heard(), format!("* SEARCH{found}\r\na OK SEARCH done\r\n"));
        assert_eq!(talk.store.chunks_read, chunks, "{word}");
    }
}

#[test]
fn a_search_costs_no_more_than_its_sets_and_the_folder() {
    let mut talk = logged_in();
    for _ in 0..20_000 {
        talk.store.deliver("\r\n");
    }
    talk.say(b"s SELECT INBOX\r\n");
    talk.take_heard();
    let odd: Vec<String> = (0..5_000).map(|n| (2 * n + 1).to_string()).collect();
    talk.say(format!("a SEARCH {} UID 9000:* 1:9002\r\n", odd.join(",")).as_bytes());
    assert_eq!(talk.take_heard(), "* SEARCH 9001\r\na OK SEARCH done\r\n");
}

#[test]
fn a_hundred_alternatives_are_searched_and_too_many_are_refused() {
    let mut talk = selected();
    talk.say(format!("a SEARCH {}SUBJECT first\r\n", "OR SUBJECT second ".repeat(300)).as_bytes());
    assert_eq!(talk.take_heard(), "* SEARCH 1 2\r\na OK SEARCH done\r\n");
    talk.say(format!("b SEARCH {}SUBJECT first\r\n", "NOT ".repeat(301)).as_bytes());
    assert_eq!(talk.take_heard(), "* SEARCH 2\r\nb OK SEARCH done\r\n");
    for deep in ["OR ".repeat(20_000), "NOT ".repeat(16_000), "(".repeat(60_000), "NOT (OR ".repeat(8_000)] {
        talk.say(format!("c SEARCH {deep}\r\n").as_bytes());
        let heard = talk.take_heard();
        assert!(heard == "c BAD too many search keys\r\n" || heard == "c BAD nested too deep\r\n", "{heard}");
    }
}

#[test]
fn many_expunges_are_told_in_pieces() {
    let mut talk = logged_in();
    for _ in 0..20_000 {
        talk.store.deliver("\r\n");
    }
    talk.say(b"s SELECT INBOX\r\n");
    talk.take_heard();
    talk.store.expunge(UidSet::range(1, 20_001));
    talk.say(b"a NOOP\r\n");
    assert_eq!(talk.take_heard(), "* 1 EXPUNGE\r\n".repeat(20_001) + "a OK NOOP done\r\n");
    assert!(talk.heard.1 < OUTPUT_FLUSH_BYTES + 100);
}

#[test]
fn what_interrupts_a_command_is_answered_under_its_tag() {
    let mut talk = selected();
    dialogue(
        &mut talk,
        "C: a IDLE
         S: + idling
         C: b APPEND INBOX {5}
         S: a BAD a command came in the middle of another
         C: c IDLE
         S: + idling
         C: d NO\0OP
         S: c BAD a line ends with CRLF and has no bare CR, LF or NUL
         C: e IDLE
         S: + idling
         C: f NOOP
         S: e BAD IDLE ends with DONE
         C: g NOOP
         S: g OK NOOP done
         C: h IDLE
         S: + idling
         C: i APPEND INBOX {5+}
         S: h BAD a command came in the middle of another
         C: j ABC
         C: k NOOP
         S: k OK NOOP done
         C: l IDLE
         S: + idling
         ! deleted
         S: * BYE the open folder was deleted",
    );
    assert_eq!(talk.turn, Turn::Close);
    let mut talk = Talk::new(true);
    dialogue(
        &mut talk,
        "C: a AUTHENTICATE PLAIN
         S: + 
         C: b APPEND INBOX {5}
         S: a BAD a command came in the middle of another
         C: c AUTHENTICATE PLAIN
         S: + 
         C: *
         S: c BAD login given up
         C: d AUTHENTICATE PLAIN
         S: + 
         C: AG\0
         S: d BAD a line ends with CRLF and has no bare CR, LF or NUL",
    );
}

#[test]
fn idle_does_not_keep_a_session_that_has_ended() {
    let mut talk = selected();
    dialogue(
        &mut talk,
        "! deleted
         C: a IDLE
         S: + idling
         S: * BYE the open folder was deleted
         C: DONE",
    );
    assert_eq!(talk.turn, Turn::Close);
}

#[test]
fn who_deletes_the_open_folder_goes_on_without_its_messages() {
    let mut talk = selected();
    dialogue(
        &mut talk,
        "C: a DELETE INBOX
         S: * 1 EXPUNGE
         S: * 1 EXPUNGE
         S: a OK DELETE done
         C: b FETCH 1 FLAGS
         S: b BAD there is no message of that number
         C: c UID SEARCH ALL
         S: * SEARCH
         S: c OK SEARCH done
         C: d EXPUNGE
         S: d NO [NONEXISTENT] the folder was deleted
         C: e IDLE
         S: + idling
         C: DONE
         S: e OK IDLE done
         C: f CLOSE
         S: f OK CLOSE done
         C: g LIST \"\" INBOX
         S: * LIST (\\HasNoChildren) \"/\" \"INBOX\"
         S: g OK LIST done",
    );
}

#[test]
fn flags_of_messages_that_went_meanwhile_are_not_told() {
    let mut talk = selected();
    dialogue(
        &mut talk,
        "! meanwhile 1
         C: a STORE 1:2 +FLAGS (\\Flagged)
         S: * 2 FETCH (FLAGS (\\Flagged \\Recent))
         S: a NO [EXPUNGEISSUED] some of the messages are no more
         ! meanwhile 2
         C: b UID STORE 2 -FLAGS (\\Flagged)
         S: * 1 EXPUNGE
         S: * 1 EXPUNGE
         S: b OK STORE done",
    );
}

#[test]
fn logins_that_are_refused_say_why_as_the_table_of_refusals_has_it() {
    let mut talk = Talk::new(true);
    dialogue(
        &mut talk,
        "C: a LOGIN mallory guess
         S: a NO [AUTHENTICATIONFAILED] too many wrong logins; try again in a minute
         C: b LOGIN alice one
         S: b NO [AUTHENTICATIONFAILED] wrong user name or password
         C: c LOGIN alice two
         S: c NO [AUTHENTICATIONFAILED] wrong user name or password
         C: d LOGIN alice three
         S: d NO [AUTHENTICATIONFAILED] wrong user name or password
         S: * BYE too many wrong logins",
    );
    assert_eq!(talk.turn, Turn::Close);
}

#[test]
fn sections_that_make_no_sense_are_refused() {
    let mut talk = selected();
    dialogue(
        &mut talk,
        "C: a FETCH 1 BODY[1.]
         S: a BAD a word is missing
         C: b FETCH 1 BODY[1MIME]
         S: b BAD no such section
         C: c FETCH 1 BODY[HEADER.FIELDS (\"Grüße\")]
         S: c BAD not the name of a header field
         C: d FETCH 1 BODY.PEEK[HEADER.FIELDS (\"X-(odd)\")]
         S: * 1 FETCH (BODY[HEADER.FIELDS (\"X-(odd)\")] {2}
         S: 
         S: )
         S: d OK FETCH done",
    );
}

#[test]
fn patterns_of_any_kind_are_matched_in_time() {
    let mut talk = logged_in();
    talk.say(format!("a CREATE {}\r\n", "a".repeat(900)).as_bytes());
    talk.say(format!("b LIST \"\" {}b\r\n", "a*%".repeat(600)).as_bytes());
    talk.say(format!("c LIST \"\" {}\r\n", "*".repeat(3_000)).as_bytes());
    assert_eq!(talk.take_heard(), "a OK CREATE done\r\nb OK LIST done\r\nc BAD a pattern is too long\r\n");
}

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
        talk.store.deliver(&format!("Subject: long\r\n\r\n{}", "0123456789\r\n".repeat(CHUNK_PLAIN_BYTES / 5)));
        talk.store.deliver("Subject: last\r\n\r\n");
        talk.say(b"s SELECT INBOX\r\n");
        talk.heard.0.clear();
        talk.store.answers = Some(answers);
        talk.store.deliver("Subject: news\r\n\r\n");
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
}

//! What goes wrong or is large: too long for a golden dialogue.

use mailraft_mailbox::UidSet;
use mailraft_mailbox::search_index::{NARROWED_PLACES_MAX, NARROWED_TEXTS_MAX, narrowed_at_once};
use mailraft_message::body_search::PIECE_MAX_BYTES;
use mailraft_message::header::{HEADER_KEPT_MAX_BYTES, HEADER_MAX_BYTES};
use mailraft_message::query::TEXTS_MAX;
use mailraft_protocol::{OUTPUT_FLUSH_BYTES, Refusal, Turn};
use mailraft_storage::body::CHUNK_PLAIN_BYTES;

use crate::commands::id::{NAME_MAX_BYTES, PAIRS_MAX};
use crate::decoder::{DROPPED_MAX_BYTES_EARLY, ID_MAX_BYTES, LINE_MAX_BYTES};
use crate::store::KEYS_MAX_BYTES;
use crate::testing::{Talk, logged_in, selected};

/// Three messages, the third longer than a chunk.
fn with_a_long_one(text: &str) -> Talk {
    let mut talk = logged_in();
    talk.store().deliver(&format!("Subject: long\r\n\r\n{text}"));
    talk.say(b"s EXAMINE INBOX\r\n");
    talk.take_heard();
    talk
}

#[test]
fn a_fetch_that_fails_when_some_of_it_is_out_ends_the_session_without_a_word() {
    let text = "0123456789".repeat(CHUNK_PLAIN_BYTES / 5);
    let mut talk = with_a_long_one(&text);
    talk.store().deliver("Subject: news\r\n\r\n");
    talk.store().answers = Some(2);
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
    ] {
        let mut talk = selected();
        talk.say(format!("{said}\r\nb DELETE x\r\nc NOOP\r\n").as_bytes());
        assert_eq!(talk.take_heard(), format!("a BAD {why}\r\n* BYE what follows can't be understood\r\n"));
        assert_eq!(talk.turn, Turn::Close);
    }
    let mut talk = selected();
    talk.say(b"a SEARCH SUBJECT {123456789012345+}\r\n");
    assert_eq!(talk.take_heard(), "a BAD literal too long\r\n* BYE [TOOBIG] a literal is too long\r\n");
    let mut talk = selected();
    talk.say(
        format!(
            "a SEARCH SUBJECT {{70000+}}\r\n{} BODY x\r\nc NOOP\r\n",
            "b DELETE x\r\n".repeat(7_000).split_at(70_000).0
        )
        .as_bytes(),
    );
    assert_eq!(talk.take_heard(), "a BAD literal too long\r\nc OK NOOP done\r\n");
    // Before a login little is read to be dropped.
    for (command, why) in [("APPEND INBOX", "log in first"), ("LOGIN alice", "literal too long")] {
        let said = |bytes: u64| {
            let mut talk = Talk::new(true);
            talk.say(format!("a {command} {{{bytes}+}}\r\n{}\r\nb NOOP\r\n", "x".repeat(bytes as usize)).as_bytes());
            talk.take_heard()
        };
        assert_eq!(said(DROPPED_MAX_BYTES_EARLY), format!("a BAD {why}\r\nb OK NOOP done\r\n"));
        assert_eq!(
            said(DROPPED_MAX_BYTES_EARLY + 1),
            format!("a BAD {why}\r\n* BYE [TOOBIG] a literal is too long\r\n")
        );
    }
    let mut talk = selected();
    talk.say(b"a APPEND INBOX {2000+}\r\n");
    talk.say(&[b'x'; 2_000]);
    talk.say(b"\r\nb NOOP\r\n");
    assert_eq!(talk.take_heard(), "a NO [TOOBIG] a message has at most 1000 bytes\r\nb OK NOOP done\r\n");
}

#[test]
fn id_has_its_bounds_before_a_login_too() {
    let pairs = |count: usize, name: usize, value: usize| -> Vec<String> {
        let value = "\\\\".repeat(value / 2) + &"v".repeat(value % 2 + value / 2);
        (0..count).map(|n| format!("\"{n:0name$}\" \"{value}\"")).collect()
    };
    let ok = "* ID (\"name\" \"Mailraft\")\r\na OK ID done\r\n";
    let fits = pairs(PAIRS_MAX, NAME_MAX_BYTES, 700).join(" ");
    assert!(fits.len() > 30 << 10);
    let literal = |n| format!("\"{n}\" {{1024+}}\r\n{}", "l".repeat(1_024));
    let literals = (0..PAIRS_MAX).map(literal).collect::<Vec<_>>().join(" ");
    for (fields, heard) in [
        (&fits, ok),
        (&literals, ok),
        (&pairs(PAIRS_MAX + 1, 2, 1).join(" "), "a BAD ID takes 30 fields\r\n"),
        (&pairs(1, NAME_MAX_BYTES + 1, 1).join(" "), "a BAD a field of ID has 30 octets, and its value 1024\r\n"),
        (&format!("\"x\" \"{}\"", "v".repeat(1_025)), "a BAD a field of ID has 30 octets, and its value 1024\r\n"),
        (
            &format!("\"x\" {{5000+}}\r\n{}", "v".repeat(5_000)),
            "a BAD a field of ID has 30 octets, and its value 1024\r\n",
        ),
        (&"x".repeat(ID_MAX_BYTES), "a BAD line too long\r\n"),
    ] {
        let mut talk = Talk::new(true);
        talk.say(format!("a ID ({fields})\r\n").as_bytes());
        assert_eq!(talk.take_heard(), heard);
    }
}

#[test]
fn where_there_is_no_place_for_a_message_it_is_refused_before_it_is_sent() {
    let mut talk = selected();
    talk.store().no_place = Some(Refusal::Overloaded);
    talk.say(b"a APPEND INBOX {20}\r\n");
    assert_eq!(talk.take_heard(), "a NO [LIMIT] too busy; try again later\r\n");
    talk.say(b"b APPEND INBOX {3+}\r\nxyz\r\nc NOOP\r\n");
    assert_eq!(talk.take_heard(), "b NO [LIMIT] too busy; try again later\r\nc OK NOOP done\r\n");
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
fn a_header_that_is_too_long_to_be_kept_beside_its_message_is_read_and_searched() {
    for length in [HEADER_KEPT_MAX_BYTES, HEADER_KEPT_MAX_BYTES + 1, HEADER_MAX_BYTES] {
        let ends = "\r\nSubject: long\r\nX-Last: needle\r\n\r\n";
        let header = format!("X: {}{ends}", "y".repeat(length - ends.len() - 3));
        assert_eq!(header.len(), length);
        let mut talk = logged_in();
        talk.store().deliver(&format!("{header}body\r\n"));
        talk.say(b"s EXAMINE INBOX\r\n");
        talk.take_heard();
        talk.say(b"a FETCH 3 (BODY.PEEK[HEADER.FIELDS (X-Last)] BODY.PEEK[HEADER]<0.3> ENVELOPE)\r\n");
        let heard = talk.take_heard();
        assert!(heard.starts_with("* 3 FETCH (BODY[HEADER.FIELDS (X-Last)] {18}\r\nX-Last: needle\r\n\r\n BODY[HEADER]<0> {3}\r\nX:  ENVELOPE (NIL \"long\" "), "{heard}");
        talk.say(b"b FETCH 3 BODY.PEEK[HEADER]\r\n");
        assert_eq!(
            talk.take_heard(),
            format!("* 3 FETCH (BODY[HEADER] {{{length}}}\r\n{header})\r\nb OK FETCH done\r\n")
        );
        talk.say(b"c SEARCH HEADER X-Last needle TEXT needle BODY body SUBJECT long\r\n");
        assert_eq!(talk.take_heard(), "* SEARCH 3\r\nc OK SEARCH done\r\n");
    }
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
    for (keys, found) in
        [("BODY NEEDLE", " 3"), ("NOT TEXT \"needle in\" TEXT e", " 1 2"), ("OR BODY needles BODY bye", " 2")]
    {
        talk.say(format!("a SEARCH {keys}\r\n").as_bytes());
        assert_eq!(talk.take_heard(), format!("* SEARCH{found}\r\na OK SEARCH done\r\n"), "{keys}");
    }
}

#[test]
fn a_search_reads_a_message_chunk_by_chunk_and_no_further_than_it_must() {
    let text = format!("early\r\n{}late\r\n", "0123456789abcd\r\n".repeat(CHUNK_PLAIN_BYTES / 4));
    for (word, chunks) in [("early", 1), ("late", 5), ("never", 5)] {
        let mut talk = with_a_long_one(&text);
        talk.say(format!("a SEARCH 3 BODY {word}\r\n").as_bytes());
        let found = if word == "never" { "" } else { " 3" };
        assert_eq!(talk.take_heard(), format!("* SEARCH{found}\r\na OK SEARCH done\r\n"));
        assert_eq!(talk.store().chunks_read, chunks, "{word}");
    }
}

#[test]
fn a_search_costs_no_more_than_its_sets_and_the_folder() {
    let mut talk = logged_in();
    talk.store().mailbox.fill(20_002);
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
    talk.store().mailbox.fill(20_002);
    talk.say(b"s SELECT INBOX\r\n");
    talk.take_heard();
    talk.store().mailbox.expunge(UidSet::range(1, 20_001));
    talk.say(b"a NOOP\r\n");
    assert_eq!(talk.take_heard(), "* 1 EXPUNGE\r\n".repeat(20_001) + "a OK NOOP done\r\n");
    assert!(talk.heard.1 < OUTPUT_FLUSH_BYTES + 100);
}

#[test]
fn patterns_of_any_kind_are_matched_in_time() {
    let mut talk = logged_in();
    talk.say(format!("a CREATE {}\r\n", "a".repeat(900)).as_bytes());
    talk.say(format!("b LIST \"\" {}b\r\n", "a*%".repeat(600)).as_bytes());
    talk.say(format!("c LIST \"\" {}\r\n", "*".repeat(3_000)).as_bytes());
    assert_eq!(
        talk.take_heard(),
        "a OK [MAILBOXID (F13-7)] CREATE done\r\nb OK LIST done\r\nc BAD a pattern is too long\r\n"
    );
}

#[test]
fn a_message_larger_than_a_chunk_is_fetched_whole_and_in_parts() {
    let mut talk = logged_in();
    let body: String = (0..40_000).map(|n| format!("{n:08}\r\n")).collect();
    talk.store().deliver(&format!("Subject: large\r\n\r\n{body}"));
    talk.say(b"s EXAMINE INBOX\r\n");
    talk.heard.0.clear();
    talk.say(b"a FETCH 3 BODY[TEXT]\r\n");
    let heard = String::from_utf8_lossy(&talk.heard.0).into_owned();
    assert_eq!(heard, format!("* 3 FETCH (BODY[TEXT] {{400000}}\r\n{body})\r\na OK FETCH done\r\n"));
    talk.heard.0.clear();
    talk.say(b"b FETCH 3 BODY.PEEK[TEXT]<262120.40>\r\n");
    let heard = String::from_utf8_lossy(&talk.heard.0).into_owned();
    assert_eq!(
        heard,
        format!("* 3 FETCH (BODY[TEXT]<262120> {{40}}\r\n{})\r\nb OK FETCH done\r\n", &body[262_120..262_160])
    );
}

#[test]
fn whoever_computes_for_long_gives_others_their_turn_and_is_stopped_at_its_end() {
    let text = "0123456789".repeat(CHUNK_PLAIN_BYTES / 5);
    let pieces = text.len() / PIECE_MAX_BYTES;
    let mut talk = with_a_long_one(&text);
    for (said, most_heard, breaths) in [
        // So short that no index spares reading it.
        ("SEARCH TEXT zz", "* SEARCH\r\n", 3 + 3 + pieces),
        ("SEARCH SEEN", "* SEARCH\r\n", 3),
        ("FETCH 1:3 (UID FLAGS)", "* 3 FETCH", 3 * 2),
        ("LIST \"\" *", "INBOX", 1),
        ("LSUB \"\" *", "OK LSUB", 1),
    ] {
        talk.say(format!("a {said}\r\n").as_bytes());
        let heard = talk.take_heard();
        assert!(heard.contains(most_heard) && heard.contains("a OK"), "{said}: {heard}");
        let took = talk.store().breaths;
        assert!(took >= breaths, "{said}: {took} turns for others");
        // One less than it needs.
        talk.store().breaths_max = took - 1;
        talk.say(format!("b {said}\r\n").as_bytes());
        let heard = talk.take_heard();
        assert!(heard.contains("b NO [LIMIT] enough\r\n"), "{said}: {heard}");
        assert!(!heard.contains("* SEARCH"), "{said}: {heard}");
        talk.store().breaths_max = usize::MAX;
    }
    talk.say(b"c NOOP\r\n");
    assert_eq!(talk.take_heard(), "c OK NOOP done\r\n");
}

#[test]
fn a_search_for_too_many_texts_is_refused_before_it_costs_anything() {
    let mut talk = selected();
    let search = |texts: usize| format!("a SEARCH{}\r\n", " SUBJECT x".repeat(texts));
    talk.say(search(TEXTS_MAX).as_bytes());
    assert_eq!(talk.take_heard(), "* SEARCH\r\na OK SEARCH done\r\n");
    talk.say(search(TEXTS_MAX + 1).as_bytes());
    assert_eq!(talk.take_heard(), "a NO [LIMIT] at most 500 texts can be looked for at once\r\n");
    assert_eq!(talk.store().breaths, 0);
}

#[test]
fn what_is_put_in_order_has_its_bound() {
    let mut talk = logged_in();
    // A quarter of the bound each, but for what stands around it.
    let subject = "x".repeat(KEYS_MAX_BYTES / 4 / 20);
    for _ in 0..70 {
        talk.store().deliver(&format!("Subject: {subject}\r\n\r\n"));
    }
    talk.say(b"s EXAMINE INBOX\r\n");
    talk.take_heard();
    for command in ["SORT (SUBJECT) UTF-8 1:72", "UID SORT RETURN (COUNT) (SUBJECT) UTF-8 1:72"] {
        talk.say(format!("a {command}\r\n").as_bytes());
        assert!(talk.take_heard().ends_with("a OK SORT done\r\n"));
    }
    talk.say(b"a SORT (SUBJECT REVERSE SUBJECT) UTF-8 ALL\r\nb SORT (SIZE) UTF-8 ALL\r\n");
    let heard = talk.take_heard();
    assert!(
        heard.starts_with("a NO [LIMIT] there are too many messages to put in order; name fewer\r\n* SORT "),
        "{heard}"
    );
    // Whatever there is room for.
    for command in ["SORT (SUBJECT)", "THREAD REFERENCES", "THREAD ORDEREDSUBJECT"] {
        talk.store().held_max = usize::MAX;
        talk.say(format!("a {command} UTF-8 1:2\r\n").as_bytes());
        let took = talk.store().held;
        assert!(took > 0 && talk.take_heard().contains("a OK"), "{command}");
        talk.store().held_max = took - 1;
        talk.say(format!("a {command} UTF-8 1:2\r\n").as_bytes());
        assert_eq!(talk.take_heard(), "a NO [LIMIT] too busy; try again later\r\n", "{command}");
    }
}

#[test]
fn putting_in_order_gives_others_their_turn() {
    for command in ["SORT (SUBJECT)", "THREAD REFERENCES", "THREAD ORDEREDSUBJECT"] {
        let mut talk = selected();
        for n in 0..100 {
            talk.store().deliver(&format!("Subject: {n}\r\nMessage-ID: <{n}@x>\r\n\r\n"));
        }
        talk.say(format!("a {command} UTF-8 ALL\r\n").as_bytes());
        assert!(talk.store().breaths > 200, "{command}: {}", talk.store().breaths);
        talk.store().breaths_max = 150;
        talk.take_heard();
        talk.say(format!("a {command} UTF-8 ALL\r\n").as_bytes());
        assert_eq!(talk.take_heard(), "a NO [LIMIT] enough\r\n", "{command}");
    }
}

#[test]
fn short_bodies_are_searched_many_at_once_and_each_is_read_once() {
    let mut talk = logged_in();
    for n in 0..150 {
        talk.store().deliver(&format!("Subject: {n}\r\n\r\nneedle {n}\r\n"));
    }
    // Longer than what is read ahead at once, and than a chunk.
    for length in [CHUNK_PLAIN_BYTES - 200, CHUNK_PLAIN_BYTES - 200, 2 * CHUNK_PLAIN_BYTES] {
        talk.store().deliver(&format!("Subject: long\r\n\r\n{}needle\r\n", "x".repeat(length)));
    }
    talk.say(b"s SELECT INBOX\r\n");
    talk.take_heard();
    talk.say(b"a SEARCH RETURN (COUNT) BODY needle\r\nb SEARCH BODY \"needle 77\"\r\n");
    assert_eq!(
        talk.take_heard(),
        "* ESEARCH (TAG \"a\") COUNT 153\r\na OK SEARCH done\r\n* SEARCH 80\r\nb OK SEARCH done\r\n"
    );
    // The last batch has a message of three chunks.
    // The first search told the index of each message of one chunk: the second one reads the one that fits, and the long one,
    // which the first had not gone through.
    let second = talk.store().chunks_read - (152 + 2 + 3);
    assert!((1 + 3..=1 + 3 + 5).contains(&second), "{second}: a few may be read in vain");
    // Those that are no more meanwhile are left out.
    talk.store().lost = true;
    talk.say(b"c SEARCH BODY needle\r\n");
    assert_eq!(talk.take_heard(), "* SEARCH\r\nc OK SEARCH done\r\n");
}

/// A search finds this, and reads so many chunks for it.
fn search(talk: &mut Talk, said: &str, found: &str, read: usize) {
    let before = talk.store().chunks_read;
    talk.say(format!("a SEARCH {said}\r\n").as_bytes());
    assert_eq!(talk.take_heard(), format!("* SEARCH{found}\r\na OK SEARCH done\r\n"), "{said}");
    assert_eq!(talk.store().chunks_read - before, read, "{said}");
}

#[test]
fn what_was_searched_once_is_not_read_again_for_what_it_lacks() {
    let mut talk = logged_in();
    for n in 0..100 {
        talk.store().deliver(&format!("Subject: Gr\u{fc}\u{df}e {n}\r\n\r\nKirschen {n} und\r\nBrot\r\n"));
    }
    talk.say(b"s SELECT INBOX\r\n");
    talk.take_heard();
    // The folder has two of its own.
    search(&mut talk, "BODY nowhere", "", 102);
    search(&mut talk, "BODY nowhere", "", 0);
    search(&mut talk, "BODY \"kirschen 77 \"", " 80", 1);
    search(&mut talk, "TEXT nobody", "", 0);
    search(&mut talk, "SUBJECT nobody", "", 0);
    search(&mut talk, "NOT BODY nowhere NOT 3:*", " 1 2", 0);
    search(&mut talk, "OR BODY nobody TEXT nowhere", "", 0);
    // Shorter than a gram: read as ever. What the header decides is not read.
    search(&mut talk, "BODY zz", "", 102);
    search(&mut talk, "TEXT \"e 77\"", " 80", 0);
    // What came since is read, once.
    talk.store().deliver("Subject: new\r\n\r\nPflaumen\r\n");
    talk.say(b"n NOOP\r\n");
    talk.take_heard();
    search(&mut talk, "BODY nowhere", "", 1);
    search(&mut talk, "BODY nowhere", "", 0);
    search(&mut talk, "BODY pflaume", " 103", 1);
}

#[test]
fn a_folder_of_more_messages_than_one_question_is_about_is_asked_about_in_pieces() {
    let words = |n: usize| (0..30).map(|k| format!("w{n}x{k}")).collect::<Vec<_>>().join("-");
    let texts: Vec<Vec<u32>> = vec![vec![0; NARROWED_PLACES_MAX]; NARROWED_TEXTS_MAX];
    let at_once = narrowed_at_once(&texts);
    let mut talk = logged_in();
    for n in 0..at_once {
        talk.store().deliver(&format!("Subject: {n}\r\n\r\n{}\r\n", words(n % NARROWED_TEXTS_MAX)));
    }
    let all: String = (0..NARROWED_TEXTS_MAX).map(|n| words(n) + "\r\n").collect();
    talk.store().deliver(&format!("Subject: last\r\n\r\n{all}"));
    talk.say(b"s SELECT INBOX\r\n");
    talk.take_heard();
    // The folder has two of its own.
    let last = at_once + 3;
    let query: Vec<String> = (0..NARROWED_TEXTS_MAX).map(|n| format!("BODY {}", words(n))).collect();
    search(&mut talk, "BODY nowhere", "", last);
    search(&mut talk, "BODY nowhere", "", 0);
    search(&mut talk, &query.join(" "), &format!(" {last}"), 1);
}

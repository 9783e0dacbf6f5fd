//! Dialogues about every command.

use mailraft_mailbox::api::{FolderId, FolderInfo};
use proptest::prelude::*;

use crate::session::Turn;
use crate::testing::{Talk, dialogue, logged_in, selected};

#[test]
fn logins_want_tls_and_the_right_password() {
    let mut talk = Talk::new(false);
    dialogue(
        &mut talk,
        "C: a LOGIN alice secret
         S: a NO [PRIVACYREQUIRED] say STARTTLS first
         C: b SELECT INBOX
         S: b BAD log in first, or there is no such command
         C: c STARTTLS
         S: c OK begin TLS
         C: d LOGIN alice wrong
         S: d NO [AUTHENTICATIONFAILED] wrong user name or password
         C: e AUTHENTICATE PLAIN
         S: + 
         C: AGFsaWNlAHNlY3JldA==
         S: e OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID ENABLE IDLE NAMESPACE UIDPLUS UNSELECT CHILDREN SPECIAL-USE MOVE STATUS=SIZE] logged in
         C: f LOGOUT
         S: * BYE goodbye
         S: f OK LOGOUT done",
    );
    assert_eq!(talk.turn, Turn::Close);
    let mut talk = Talk::new(true);
    dialogue(
        &mut talk,
        "! unavailable
         C: a LOGIN alice secret
         S: * BYE [UNAVAILABLE] no majority of the servers can be reached; try again",
    );
}

#[test]
fn messages_are_fetched_by_items_sections_and_parts() {
    let mut talk = selected();
    dialogue(
        &mut talk,
        "C: a FETCH 1 FAST
         S: * 1 FETCH (FLAGS () INTERNALDATE \" 1-Jan-1996 00:00:00 +0000\" RFC822.SIZE 103)
         S: a OK FETCH done
         C: b UID FETCH 1 (ENVELOPE BODY)
         S: * 1 FETCH (UID 1 ENVELOPE (\"Mon, 1 Jan 1996 00:00:00 +0000\" \"first\" ((\"A\" NIL \"a\" \"b\")) ((\"A\" NIL \"a\" \"b\")) ((\"A\" NIL \"a\" \"b\")) NIL NIL NIL NIL \"<1@b>\") BODY (\"TEXT\" \"PLAIN\" (\"CHARSET\" \"us-ascii\") NIL NIL \"7BIT\" 13 1))
         S: b OK FETCH done
         C: c FETCH 1 (BODY.PEEK[HEADER.FIELDS (Subject)] BODY.PEEK[TEXT]<6.5>)
         S: * 1 FETCH (BODY[HEADER.FIELDS (Subject)] {18}
         S: Subject: first
         S: 
         S:  BODY[TEXT]<6> {5}
         S: world)
         S: c OK FETCH done
         C: d FETCH 1 BODY[1]
         S: * 1 FETCH (BODY[1] {13}
         S: hello world
         S:  FLAGS (\\Seen))
         S: d OK FETCH done
         C: e FETCH 3 FLAGS
         S: e BAD there is no message of that number
         C: f UID FETCH 50 FLAGS
         S: f OK FETCH done
         C: g FETCH 1 NONSENSE
         S: g BAD FETCH does not know NONSENSE",
    );
}

#[test]
fn flags_are_stored_told_and_kept_silent() {
    let mut talk = selected();
    dialogue(
        &mut talk,
        "C: a STORE 1:2 +FLAGS (\\Flagged Work)
         S: * FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft Work)
         S: * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft Work \\*)] kept
         S: * 1 FETCH (FLAGS (\\Flagged Work))
         S: * 2 FETCH (FLAGS (\\Flagged Work \\Recent))
         S: a OK STORE done
         C: b UID STORE 1 -FLAGS.SILENT Work
         S: b OK STORE done
         C: c STORE 1 FLAGS (\\Deleted)
         S: * 1 FETCH (FLAGS (\\Deleted))
         S: c OK STORE done
         C: d EXPUNGE
         S: * 1 EXPUNGE
         S: d OK EXPUNGE done
         C: e FETCH 1 UID
         S: * 1 FETCH (UID 2)
         S: e OK FETCH done",
    );
}

#[test]
fn what_others_do_is_told_where_it_may_be() {
    let mut talk = selected();
    dialogue(
        &mut talk,
        "! expunge 1
         ! deliver Subject: third
         C: a STORE 2 +FLAGS.SILENT (\\Seen)
         S: * 3 EXISTS
         S: * 2 RECENT
         S: a OK STORE done
         C: b FETCH 1 RFC822.SIZE
         S: b NO [EXPUNGEISSUED] some of the messages are no more
         C: c NOOP
         S: * 1 EXPUNGE
         S: c OK NOOP done
         C: d IDLE
         S: + idling
         ! deliver Subject: fourth
         S: * 3 EXISTS
         S: * 3 RECENT
         ! expunge 2
         S: * 1 EXPUNGE
         C: DONE
         S: d OK IDLE done",
    );
}

#[test]
fn searches_by_every_kind_of_key() {
    let mut talk = selected();
    dialogue(
        &mut talk,
        "C: a SEARCH ALL
         S: * SEARCH 1 2
         S: a OK SEARCH done
         C: b UID SEARCH SUBJECT FIRST
         S: * SEARCH 1
         S: b OK SEARCH done
         C: c SEARCH BODY \"hello w\" NOT SEEN SENTON 1-Jan-1996
         S: * SEARCH 1
         S: c OK SEARCH done
         C: d SEARCH OR (TEXT bye) LARGER 100
         S: * SEARCH 1 2
         S: d OK SEARCH done
         C: e SEARCH CHARSET KOI8-R ALL
         S: e NO [BADCHARSET (UTF-8 US-ASCII)] no such charset here
         C: f SEARCH NEW UID 2:*
         S: * SEARCH 2
         S: f OK SEARCH done
         C: g SEARCH 5 SINCE 2-Jan-1996
         S: * SEARCH
         S: g OK SEARCH done",
    );
}

#[test]
fn folders_are_listed_and_counted() {
    let mut talk = logged_in();
    dialogue(
        &mut talk,
        "C: a LIST \"\" *
         S: * LIST (\\HasNoChildren) \"/\" \"INBOX\"
         S: * LIST (\\HasChildren \\Sent) \"/\" \"Sent\"
         S: * LIST (\\HasNoChildren) \"/\" \"Sent/Entw&APw-rfe\"
         S: a OK LIST done
         C: b LIST \"\" \"\"
         S: * LIST (\\Noselect) \"/\" \"\"
         S: b OK LIST done
         C: c LSUB \"\" %
         S: * LSUB () \"/\" \"INBOX\"
         S: * LSUB () \"/\" \"Sent\"
         S: c OK LSUB done
         C: d STATUS INBOX (MESSAGES UNSEEN UIDNEXT UIDVALIDITY)
         S: * STATUS \"INBOX\" (MESSAGES 2 UNSEEN 2 UIDNEXT 3 UIDVALIDITY 7)
         S: d OK STATUS done
         C: e SELECT Nowhere
         S: e NO [NONEXISTENT] no such folder
         C: f NAMESPACE
         S: * NAMESPACE ((\"\" \"/\")) NIL NIL
         S: f OK NAMESPACE done
         C: g LIST (SPECIAL-USE) \"\" * RETURN (CHILDREN)
         S: * LIST (\\HasChildren \\Sent) \"/\" \"Sent\"
         S: g OK LIST done",
    );
}

#[test]
fn levels_that_are_no_folders_are_listed_as_such() {
    let mut talk = logged_in();
    let folder = |name: &str, id: Option<u32>, subscribed: bool| FolderInfo {
        name: name.into(),
        id: id.map(FolderId),
        subscribed,
        special_use: None,
        selectable: id.is_some(),
    };
    talk.store.folders = vec![
        folder("Deleted", None, false),
        folder("Deleted/Child", Some(4), true),
        folder("Empty", None, false),
        folder("Gone/Long Ago", None, true),
        folder("a/b/c", Some(5), false),
        folder("a/b-side", Some(6), false),
    ];
    dialogue(
        &mut talk,
        "C: a LIST \"\" *
         S: * LIST (\\HasNoChildren) \"/\" \"INBOX\"
         S: * LIST (\\Noselect \\HasChildren) \"/\" \"Deleted\"
         S: * LIST (\\HasNoChildren) \"/\" \"Deleted/Child\"
         S: * LIST (\\HasChildren \\Sent) \"/\" \"Sent\"
         S: * LIST (\\HasNoChildren) \"/\" \"Sent/Entw&APw-rfe\"
         S: * LIST (\\Noselect \\HasChildren) \"/\" \"a\"
         S: * LIST (\\Noselect \\HasChildren) \"/\" \"a/b\"
         S: * LIST (\\HasNoChildren) \"/\" \"a/b-side\"
         S: * LIST (\\HasNoChildren) \"/\" \"a/b/c\"
         S: a OK LIST done
         C: b LIST \"\" (a/% inbox)
         S: * LIST (\\HasNoChildren) \"/\" \"INBOX\"
         S: * LIST (\\Noselect \\HasChildren) \"/\" \"a/b\"
         S: * LIST (\\HasNoChildren) \"/\" \"a/b-side\"
         S: b OK LIST done
         C: c LIST (SUBSCRIBED) \"\" *o*
         S: * LIST (\\NonExistent \\HasNoChildren \\Subscribed) \"/\" \"Gone/Long Ago\"
         S: c OK LIST done
         C: d LSUB \"\" %
         S: * LSUB () \"/\" \"INBOX\"
         S: * LSUB (\\Noselect) \"/\" \"Deleted\"
         S: * LSUB (\\Noselect) \"/\" \"Gone\"
         S: * LSUB () \"/\" \"Sent\"
         S: d OK LSUB done
         C: e LIST \"\" % RETURN (STATUS (MESSAGES UIDNEXT))
         S: * LIST (\\HasNoChildren) \"/\" \"INBOX\"
         S: * STATUS \"INBOX\" (MESSAGES 2 UIDNEXT 3)
         S: * LIST (\\Noselect \\HasChildren) \"/\" \"Deleted\"
         S: * LIST (\\HasChildren \\Sent) \"/\" \"Sent\"
         S: * LIST (\\Noselect \\HasChildren) \"/\" \"a\"
         S: e OK LIST done",
    );
}

#[test]
fn a_name_may_end_with_the_separator_when_it_is_created() {
    let mut talk = logged_in();
    dialogue(
        &mut talk,
        "C: a CREATE work/
         S: a OK CREATE done
         C: b CREATE \"work/new\"
         S: b OK CREATE done",
    );
    assert_eq!(talk.store.created, ["work", "work/new"]);
}

#[test]
fn messages_are_appended_copied_and_moved() {
    let mut talk = selected();
    dialogue(
        &mut talk,
        "C: a APPEND INBOX (\\Seen) \" 1-Feb-1996 00:00:00 +0100\" {9+}
         C: a: b
         C: 
         C: c
         S: * 3 EXISTS
         S: * 2 RECENT
         S: a OK [APPENDUID 7 3] APPEND done
         C: b APPEND Nowhere {3+}
         C: xyz
         S: b NO [TRYCREATE] no such folder; create it first
         C: c APPEND INBOX {2000}
         S: c NO [TOOBIG] a message has at most 1000 bytes
         C: d COPY 1:2 Sent
         S: d OK [COPYUID 9 1:2 101:102] COPY done
         C: e UID MOVE 2 Sent
         S: * OK [COPYUID 9 2 102] moved
         S: * 2 EXPUNGE
         S: e OK MOVE done
         C: f CLOSE
         S: f OK CLOSE done
         C: g FETCH 1 FLAGS
         S: g BAD SELECT a folder first",
    );
}

#[test]
fn nothing_that_came_in_clear_counts_after_starttls() {
    let mut talk = Talk::new(false);
    talk.say(b"a STARTTLS\r\nb LOGIN alice secret\r\n");
    assert_eq!(String::from_utf8_lossy(&talk.heard.0), "a OK begin TLS\r\n");
}

#[test]
fn a_message_larger_than_a_chunk_is_fetched_whole_and_in_parts() {
    let mut talk = logged_in();
    let body: String = (0..40_000).map(|n| format!("{n:08}\r\n")).collect();
    talk.store.deliver(&format!("Subject: large\r\n\r\n{body}"));
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

proptest! {
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

//! A client that follows what it is told knows what the server has.

use mailraft_mailbox::api::StoreMode;
use mailraft_mailbox::{Command, Flags, SystemFlag, UidSet};
use proptest::prelude::*;

use crate::testing::{Talk, selected};

#[derive(Clone, Debug)]
enum Step {
    /// The client says this, with `#` for a number it knows.
    Says(&'static str, usize),
    Idles(Vec<Step>),
    Delivery,
    /// Of one of the messages there are.
    Expunge(usize),
    Flag(usize, bool),
    /// Events are held back until they are asked for.
    Slow(bool),
}

/// UIDs by sequence number, as far as they were told.
#[derive(Default)]
struct Client {
    messages: Vec<Option<u32>>,
}

impl Client {
    fn hears(&mut self, heard: &str, expunges_allowed: bool) {
        for line in heard.lines() {
            let words: Vec<&str> = line.split([' ', '(', ')']).filter(|w| !w.is_empty()).collect();
            let ["*", number, what, ..] = words.as_slice() else { continue };
            let Ok(number) = number.parse::<usize>() else { continue };
            match *what {
                "EXISTS" => {
                    assert!(number >= self.messages.len(), "{line}");
                    self.messages.resize(number, None);
                }
                "EXPUNGE" => {
                    assert!(expunges_allowed, "{heard}");
                    self.messages.remove(number - 1);
                }
                "FETCH" => {
                    let uid = words.iter().position(|w| *w == "UID").map(|at| words[at + 1].parse().unwrap());
                    let known = &mut self.messages[number - 1];
                    assert!(known.is_none() || uid.is_none() || *known == uid, "{line}");
                    *known = known.or(uid);
                }
                _ => {}
            }
        }
    }

    fn does(&mut self, step: &Step, talk: &mut Talk) {
        let of = |pick: usize, talk: &mut Talk| {
            let inbox = talk.store().inbox();
            (!inbox.is_empty()).then(|| inbox[pick % inbox.len()].0)
        };
        match step {
            Step::Says(command, pick) => {
                if command.contains('#') && self.messages.is_empty() {
                    return;
                }
                let number = (pick % self.messages.len().max(1) + 1).to_string();
                talk.say(format!("a {}\r\n", command.replace('#', &number)).as_bytes());
                let forbidden = ["FETCH", "STORE", "SEARCH"].iter().any(|name| command.starts_with(name));
                let heard = talk.take_heard();
                assert!(!heard.contains("a BAD"), "{command}: {heard}");
                self.hears(&heard, !forbidden);
            }
            Step::Idles(steps) => {
                talk.say(b"i IDLE\r\n");
                for step in steps {
                    self.does(step, talk);
                    talk.tell();
                }
                talk.say(b"DONE\r\n");
                self.hears(&talk.take_heard(), true);
            }
            Step::Delivery => talk.store().deliver("Subject: x\r\n\r\n"),
            Step::Expunge(pick) => {
                if let Some(uid) = of(*pick, talk) {
                    talk.store().mailbox.expunge(UidSet::range(uid, uid));
                }
            }
            Step::Flag(pick, set) => {
                if let Some(uid) = of(*pick, talk) {
                    let mode = if *set { StoreMode::Add } else { StoreMode::Remove };
                    let flags = Flags::none().with(SystemFlag::Flagged).with_keyword("Work");
                    let uids = UidSet::range(uid, uid);
                    let folder = talk.store().mailbox.folder("INBOX");
                    talk.store().mailbox.others(Command::Store { folder, uids, mode, flags, unchanged_since: None });
                }
            }
            Step::Slow(slow) => talk.store().slow = *slow,
        }
    }
}

fn others() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Delivery),
        3 => any::<usize>().prop_map(Step::Expunge),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(pick, set)| Step::Flag(pick, set)),
        1 => any::<bool>().prop_map(Step::Slow),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let says = proptest::sample::select(vec![
        "NOOP",
        "CHECK",
        "FETCH 1:# (UID FLAGS)",
        "FETCH # (UID BODY[])",
        "UID FETCH 1:* FLAGS",
        "UID FETCH 3:5 (ENVELOPE)",
        "STORE # +FLAGS (\\Deleted)",
        "STORE #:* FLAGS (Own)",
        "UID STORE 1:* -FLAGS.SILENT (\\Deleted)",
        "SEARCH UNSEEN",
        "UID SEARCH 1:* BODY x",
        "EXPUNGE",
        "UID EXPUNGE 1:4",
        "COPY # Sent",
        "MOVE # Sent",
        "STATUS INBOX (MESSAGES)",
    ]);
    prop_oneof![
        4 => (says, any::<usize>()).prop_map(|(command, pick)| Step::Says(command, pick)),
        4 => others(),
        1 => proptest::collection::vec(others(), 0..5).prop_map(Step::Idles),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_client_that_follows_what_it_is_told_knows_what_there_is(steps in proptest::collection::vec(steps(), 0..40)) {
        let mut talk = selected();
        let mut client = Client { messages: vec![Some(1), Some(2)] };
        for step in &steps {
            client.does(step, &mut talk);
        }
        client.does(&Step::Says("NOOP", 0), &mut talk);
        client.does(&Step::Says("UID FETCH 1:* FLAGS", 0), &mut talk);
        let inbox = talk.store().inbox();
        let there: Vec<Option<u32>> = inbox.iter().map(|(uid, _)| Some(*uid)).collect();
        prop_assert_eq!(client.messages, there);
        talk.say(b"b UID SEARCH FLAGGED KEYWORD work\r\n");
        let flagged = inbox.iter().filter(|(_, flags)| flags.has(SystemFlag::Flagged) && flags.has_keyword("Work"));
        let flagged: String = flagged.map(|(uid, _)| format!(" {uid}")).collect();
        prop_assert_eq!(talk.take_heard(), format!("* SEARCH{flagged}\r\nb OK SEARCH done\r\n"));
    }
}

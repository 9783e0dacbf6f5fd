//! What holds for every server.

use proptest::prelude::*;

use crate::client::connection::TRANSACTIONS_MAX;
use crate::client::dialogue::Talk;
use crate::client::envelope::RECIPIENTS_MAX;
use crate::client::transaction::PIPELINED_MAX_BYTES;

/// What servers are likely to say, and what they are not.
fn said() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        9 => prop::sample::select(vec![
            "220 go\r\n", "250 Ok\r\n", "250 Ok\r\n", "250-x\r\n250-PIPELINING\r\n250 STARTTLS\r\n", "354 go on\r\n", "354 go on\r\n",
            "452 4.5.3 too many\r\n", "550 5.1.1 no\r\n", "421 bye\r\n", "334 \r\n", "235 2.7.0 hello\r\n", "250-",
        ]).prop_map(|line| line.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..9),
    ];
    prop::collection::vec(line, 0..30).prop_map(|mut lines| {
        lines.insert(0, b"220 mx.b.test\r\n250 mx.b.test\r\n".to_vec());
        lines.concat()
    })
}

/// Says it in pieces, and does what the client asks for. Returns all that happened.
fn talked(settings: &str, said: &[u8], piece_bytes: usize) -> Vec<String> {
    let mut talk = Talk::new(settings);
    let mut all = Vec::new();
    for piece in said.chunks(piece_bytes) {
        let mut lines = talk.hear(piece);
        loop {
            let last = lines.last().cloned();
            all.append(&mut lines);
            lines = match last.as_deref() {
                Some("E: idle") => talk.act("begin from:a@a.test to:b@b.test to:c@b.test"),
                Some("E: message?") => {
                    [talk.act("piece x\r\n".replace("\r\n", "\\r\\n").as_str()), talk.act("end")].concat()
                }
                Some("E: final dot?") => talk.act("finish"),
                Some("E: tls?") => talk.act("tls"),
                Some(_) | None => break,
            };
        }
    }
    all.extend(talk.act("lost closed"));
    all
}

proptest! {
    #[test]
    fn nothing_is_sent_without_a_final_dot_and_each_recipient_has_its_fate(
        settings in prop::sample::select(vec!["opportunistic", "never", "required", "implicit", "implicit login"]),
        said in said(),
        piece_bytes in 1usize..50,
    ) {
        let all = talked(settings, &said, piece_bytes);
        let (mut dots, mut begun, mut fates) = (0, 0, 0);
        for line in &all {
            dots += usize::from(line == "C: .");
            begun += usize::from(line.starts_with("C: MAIL"));
            if let Some(fate) = line.strip_prefix("E: <") {
                fates += 1;
                let sent = ["sent", "perhaps sent"].iter().any(|word| fate.contains(&format!("> {word}")));
                prop_assert!(!sent || dots > 0, "{:#?}", all);
            }
            dots = if line.starts_with("C: MAIL") { 0 } else { dots };
        }
        prop_assert_eq!(fates, 2 * begun, "{:#?}", all);
        prop_assert!(all.last().is_some_and(|line| line.starts_with("E: close")), "{:#?}", all);
    }
}

#[test]
fn recipients_and_what_is_said_at_once_are_bounded() {
    let mut talk = Talk::new("never");
    talk.hear(b"220 a\r\n250-a\r\n250 PIPELINING\r\n");
    let to = |n: usize| format!(" to:{n}{}@b.test", "x".repeat(200));
    let begin = (0..RECIPIENTS_MAX + 30).map(to).collect::<String>();
    let (mut rcpts, mut lines) = (0, talk.act(&format!("begin from:a@a.test{begin}")));
    while lines.iter().all(|line| line.starts_with("C: ")) {
        let bytes: usize = lines.iter().map(|line| line.len() - 1).sum();
        assert!(!lines.is_empty() && bytes <= PIPELINED_MAX_BYTES, "{bytes} octets at once");
        rcpts += lines.iter().filter(|line| line.starts_with("C: RCPT")).count();
        let answers = lines.iter().map(|line| if line == "C: DATA" { "554 no\r\n" } else { "250 Ok\r\n" });
        lines = talk.hear(answers.collect::<String>().as_bytes());
    }
    assert_eq!(rcpts, RECIPIENTS_MAX);
    let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!((count("> failed 5.0.0 Data"), count("> another transaction")), (RECIPIENTS_MAX, 30));
}

#[test]
fn transactions_of_one_connection_are_bounded() {
    let mut talk = Talk::new("never");
    talk.hear(b"220 a\r\n250 a\r\n");
    for n in 1..=TRANSACTIONS_MAX {
        let last = talk.act("begin from:a@a.test> to:b@b.test").pop();
        assert_eq!(last.as_deref(), Some(if n < TRANSACTIONS_MAX { "E: idle" } else { "C: QUIT" }));
    }
}

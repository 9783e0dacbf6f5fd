//! Prints what a check computes: `cargo run --release --workspace --example cost`, or the built `target/release/examples/cost`. The
//! DNS answers at once, so that only computing counts.
#![allow(clippy::expect_used)]

use std::time::Duration;

use mailraft_sender_auth::{Claims, Dns, Envelope, NoAnswer, Question, Reader, Record, check};

/// Signed by two keys of its author, RSA of 2,048 bits and Ed25519, and sealed by a list.
const SIGNED: &str = include_str!("../testdata/dkimpy.eml");
const ED25519: &str = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const RSA: &str = "v=DKIM1; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAsluVuMZyZUEt6paDes6biSidj/68m7uPObRMX5dZDKH9wV4JQq2W5LZfVWnAKjRtvPwHVImoUvkeMJDpyLG2YOf+io1Pn8ulf2P0oOpoju99YorAHAJ08+lvDJMvC0Sj5hTgRmZX3yTO9/LkicGpMNrB/lgeAgRZwwWqbrgxScB97mmgw7ZaXWZ+qTdwSHWufRRBFGP7WVT1KVmy9VvgbGuMtdyE+EHc+22r9ZqTUjuqnG4ukTjuQeUMVlEvHaGbBfYqmtjb1Dn3xXSC4R4dA2UKn8iQzSFuL1tTohljMuzJREMyo5HT9BEuE0kPZ+BN0k/NRbn5qRMIqsst7kf8MwIDAQAB";

struct Answers;

impl Dns for Answers {
    async fn ask(&self, question: &Question) -> Result<Vec<Record>, NoAnswer> {
        let text = |text: &str| Ok(vec![Record::Txt(text.as_bytes().to_vec())]);
        match question {
            Question::Txt(name) if name.starts_with("ed.") => text(ED25519),
            Question::Txt(name) if name.starts_with("rsa.") => text(RSA),
            Question::Txt(name) if name.starts_with("_dmarc.") => text("v=DMARC1; p=reject"),
            Question::Txt(_) => text("v=spf1 mx a:out.bank.test ip4:192.0.2.0/24 -all"),
            Question::A(_) => Ok(vec![Record::A([203, 0, 113, 1].into())]),
            Question::Mx(_) => Ok(vec![Record::Mx { preference: 10, exchange: "mx.bank.test".into() }]),
            Question::Ptr(_) => Ok(vec![Record::Ptr("mx.bank.test".into())]),
            Question::Aaaa(_) => Ok(Vec::new()),
        }
    }
}

fn message(body_bytes: usize) -> Vec<u8> {
    let header = SIGNED.split_once("\r\n\r\n").expect("a header").0;
    let mut message = format!("{header}\r\n\r\n").into_bytes();
    message.extend(b"some words of a line, as people write them, and white  space\r\n".iter().cycle().take(body_bytes));
    message
}

/// Processor time of this thread so far.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds"))
}

/// What one of so many rounds takes.
fn each(rounds: u32, mut round: impl FnMut()) -> Duration {
    let before = processor_time();
    (0..rounds).for_each(|_| round());
    (processor_time() - before) / rounds
}

fn claims(message: &[u8]) -> Claims {
    let mut reader = Reader::default();
    message.chunks(256 << 10).for_each(|piece| reader.push(piece));
    reader.finish()
}

fn main() {
    let envelope = Envelope {
        address: [192, 0, 2, 1].into(),
        helo: "mx.bank.test".into(),
        reverse_path: Some(("u".into(), "bank.test".into())),
    };
    let messages =
        [("as it was signed", SIGNED.as_bytes().to_vec()), ("4 KiB", message(4 << 10)), ("50 MiB", message(50 << 20))];
    for (name, message) in messages {
        let rounds = if message.len() < 1 << 20 { 2_000 } else { 5 };
        let read = each(rounds, || assert!(claims(&message).signatures() == 2));
        let of = claims(&message);
        let checked = each(2_000, || {
            let verdict = futures::executor::block_on(check(&Answers, &envelope, &of, 1_800_000_000));
            assert!(!verdict.field("mx.here.test", &envelope).is_empty());
        });
        println!("{name}: read in {read:?}, checked in {checked:?}");
    }
}

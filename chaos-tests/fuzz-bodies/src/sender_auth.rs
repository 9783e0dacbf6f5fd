//! Who sent a message: the message, and records that a stranger publishes.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::executor::block_on;
use mailraft_sender_auth::limits::{QUESTIONS_MAX, SIGNATURES_MAX};
use mailraft_sender_auth::{Disposition, Dns, Enforcement, Envelope, NoAnswer, Question, Reader, Record, check};

/// A DNS that says to every question what it was given, as often as it was asked.
struct Strangers<'a> {
    records: Vec<&'a [u8]>,
    asked: AtomicUsize,
}

impl Dns for Strangers<'_> {
    async fn ask(&self, question: &Question) -> Result<Vec<Record>, NoAnswer> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let text = |record: &&[u8]| String::from_utf8_lossy(record).into_owned();
        Ok(match question {
            Question::Txt(_) => self.records.iter().map(|record| Record::Txt(record.to_vec())).collect(),
            Question::Mx(_) => {
                self.records.iter().map(|record| Record::Mx { preference: 0, exchange: text(record) }).collect()
            }
            Question::A(_) => vec![Record::A([192, 0, 2, 1].into())],
            Question::Aaaa(_) => Vec::new(),
            Question::Ptr(_) => self.records.iter().map(|record| Record::Ptr(text(record))).collect(),
        })
    }
}

/// Records, a line each, up to a line with nothing but `%`; then the message. What comes of it is one field of short lines
/// that none of them ends, few questions are asked, and nothing is refused unless DMARC wants it.
pub fn sender_auth(input: &[u8]) {
    let at = input.windows(3).position(|three| three == b"\n%\n");
    let (records, message) = at.map_or((&b""[..], input), |at| (&input[..at], &input[at + 3..]));
    let records: Vec<&[u8]> = records.split(|b| *b == b'\n').collect();
    let first = String::from_utf8_lossy(records.first().copied().unwrap_or_default()).into_owned();
    let envelope = Envelope {
        address: [192, 0, 2, 1].into(),
        helo: first.clone(),
        reverse_path: Some((first, "sender.test".to_owned())),
    };
    let dns = Strangers { records, asked: AtomicUsize::new(0) };
    let mut reader = Reader::default();
    message.chunks(1_000).for_each(|piece| reader.push(piece));
    let verdict = block_on(check(&dns, &envelope, &reader.finish(), 1_700_000_000));
    assert!(dns.asked.into_inner() <= QUESTIONS_MAX);
    assert!(verdict.dkim.len() <= SIGNATURES_MAX);
    let field = verdict.field("mx.test", &envelope);
    let whole = field.strip_suffix("\r\n").expect("it ends with its line");
    assert!(whole.starts_with("Authentication-Results: mx.test;\r\n\t") && whole.is_ascii(), "{whole:?}");
    for line in whole.split("\r\n") {
        assert!(line.len() <= 998 && !line.bytes().any(|b| b.is_ascii_control() && b != b'\t'), "{line:?}");
    }
    assert!(whole.split("\r\n").skip(1).all(|line| line.starts_with('\t') && line.len() > 1), "{whole:?}");
    assert_eq!(verdict.disposition(Enforcement::Mark), Disposition::Deliver);
}

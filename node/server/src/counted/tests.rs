#![allow(clippy::unwrap_used)]
use std::sync::atomic::AtomicU64;

use mailraft_feedback::tls::SessionsOfDay;
use mailraft_feedback::{DAYS_MAX, PART_MAX_BYTES, dmarc, tls};
use mailraft_outbound::tls::report::FailureKind;
use mailraft_sender_auth::{Claims, Dns, NoAnswer, Question, Reader, Record, check};
use mailraft_storage::ClusterId;
use mailraft_storage::seal::Key;

use super::*;

const BOTH: config::Reports = config::Reports { tls: true, dmarc: true, from: None, organization: None, contact: None };

/// A node's counts over restarts, by a clock that is set.
struct Node {
    dir: tempfile::TempDir,
    now: Arc<AtomicU64>,
}

impl Node {
    fn new() -> Self {
        Node { dir: tempfile::tempdir().unwrap(), now: Arc::new(AtomicU64::new(10 * DAY_SECONDS)) }
    }

    fn set(&self, now_unix_s: u64) {
        self.now.store(now_unix_s, Ordering::Relaxed);
    }

    fn start(&self) -> Counted {
        self.start_with(1)
    }

    fn start_with(&self, key: u8) -> Counted {
        let now = Arc::clone(&self.now);
        let file = CountsFile::new(self.dir.path(), ClusterId([7; 16]), Key::from_bytes([key; 32]));
        Counted::new(&BOTH, file, move || now.load(Ordering::Relaxed))
    }
}

fn failure(host: &str) -> Failure {
    Failure {
        kind: FailureKind::CertificateExpired,
        our_address: None,
        host: Some(host.to_owned()),
        host_address: None,
        reason: None,
    }
}

/// All of a day, as whoever sends reports hears it.
fn told(counted: &Counted, day: u64) -> SessionsOfDay {
    let mut all = Day::new(day);
    let mut from = 0;
    loop {
        let answer = counted.answer_now(FeedbackQuestion::Parts { what: What::Sessions, day, from });
        let FeedbackAnswer::Parts { parts, more } = answer else { panic!("{answer:?}") };
        assert!(parts.len() <= PARTS_AT_ONCE && parts.iter().all(|part| part.len() <= PART_MAX_BYTES));
        from += parts.len() as u32;
        parts.iter().for_each(|part| all.merge(Day::decode(part).unwrap()).unwrap());
        if !more {
            return all;
        }
    }
}

#[test]
fn what_was_counted_is_there_after_a_restart_and_is_told_when_its_day_is_over_until_it_is_forgotten() {
    let node = Node::new();
    let counted = node.start();
    counted.session("b.test", &AppliedPolicy::NoPolicy, Some(&failure("mx.b.test")));
    counted.write();
    counted.session("c.test", &AppliedPolicy::NoPolicy, None);
    let question = FeedbackQuestion::Parts { what: What::Sessions, day: 10, from: 0 };
    assert_eq!(counted.answer_now(question), FeedbackAnswer::NotNow, "the day goes on");
    // It ends without a word.
    drop(counted);
    let counted = node.start();
    node.set(11 * DAY_SECONDS + 5);
    counted.session("d.test", &AppliedPolicy::NoPolicy, None);
    let day = told(&counted, 10);
    assert_eq!(day.domains().collect::<Vec<_>>(), ["b.test"], "what came after the file was written is lost");
    assert_eq!(told(&counted, 10), day, "whoever asks, and again");
    // Not a day that is not over, whatever another node's clock says.
    assert_eq!(counted.answer_now(FeedbackQuestion::Told { day: 11 }), FeedbackAnswer::NotNow);
    assert_eq!(counted.answer_now(FeedbackQuestion::Told { day: 10 }), FeedbackAnswer::Noted);
    assert_eq!(told(&counted, 10).total(), 0);
    drop(counted);
    let counted = node.start();
    node.set(12 * DAY_SECONDS);
    assert_eq!((told(&counted, 10).total(), told(&counted, 11).total()), (0, 1));
}

#[test]
fn a_clock_that_is_set_leaves_what_fits_and_nothing_is_counted_twice() {
    let node = Node::new();
    let counted = node.start();
    let count = |day: u64| {
        node.set(day * DAY_SECONDS);
        counted.session("b.test", &AppliedPolicy::NoPolicy, None);
    };
    // A month ahead, and back.
    [10, 40, 10, 11].into_iter().for_each(count);
    node.set(12 * DAY_SECONDS);
    assert_eq!((told(&counted, 10).total(), told(&counted, 11).total()), (2, 1));
    node.set(41 * DAY_SECONDS);
    assert_eq!(told(&counted, 40).total(), 0, "the farthest of more than {DAYS_MAX} is forgotten");
}

#[test]
fn a_file_of_another_key_or_one_that_is_damaged_begins_anew() {
    let node = Node::new();
    let counted = node.start();
    counted.session("b.test", &AppliedPolicy::NoPolicy, None);
    counted.write();
    let path = node.dir.path().join("reports.counts");
    let file = std::fs::read(&path).unwrap();
    assert!(!file.windows(6).any(|six| six == b"b.test"), "it is sealed");
    node.set(11 * DAY_SECONDS);
    assert_eq!(told(&node.start_with(2), 10).total(), 0);
    for at in [0, 4, 9, file.len() / 2, file.len() - 1] {
        let mut odd = file.clone();
        odd[at] ^= 1;
        std::fs::write(&path, &odd).unwrap();
        assert_eq!(told(&node.start(), 10).total(), 0, "{at}");
    }
    std::fs::write(&path, &file[..file.len() - 3]).unwrap();
    assert_eq!(told(&node.start(), 10).total(), 0);
    std::fs::write(&path, &file).unwrap();
    assert_eq!(told(&node.start(), 10).total(), 1);
}

#[test]
fn what_is_switched_off_is_not_counted() {
    let node = Node::new();
    let counted = node.start();
    counted.set(&config::Reports { tls: false, ..BOTH });
    counted.session("b.test", &AppliedPolicy::NoPolicy, None);
    node.set(11 * DAY_SECONDS);
    assert_eq!(told(&counted, 10).total(), 0);
}

/// Every domain wants its reports.
struct Everybody;

impl Dns for Everybody {
    fn ask(&self, question: &Question) -> impl Future<Output = Result<Vec<Record>, NoAnswer>> + Send {
        let is_policy = matches!(question, Question::Txt(name) if name.starts_with("_dmarc."));
        let record = Record::Txt(b"v=DMARC1; p=none; rua=mailto:r@evil.test".to_vec());
        std::future::ready(Ok(is_policy.then_some(record).into_iter().collect()))
    }
}

fn claims(author: &str) -> Claims {
    let mut reader = Reader::default();
    reader.push(format!("From: {author}\r\n\r\nx\r\n").as_bytes());
    reader.finish()
}

#[tokio::test]
async fn who_has_many_domains_fills_the_bounds_and_no_more_and_the_file_has_room_for_it() {
    let node = Node::new();
    let counted = node.start();
    let label = "x".repeat(60);
    for n in 0..dmarc::DOMAINS_MAX + 1_000 {
        let domain = format!("{label}.{label}.{n}.test");
        counted.session(&domain, &AppliedPolicy::NoPolicy, Some(&failure(&domain)));
        let envelope = Envelope {
            address: [192, 0, 2, 1].into(),
            helo: domain.clone(),
            reverse_path: Some(("x".to_owned(), domain.clone())),
        };
        let verdict = check(&Everybody, &envelope, &claims(&format!("x@{domain}")), 0).await;
        counted.message(&verdict, &envelope, Disposition::Deliver);
    }
    assert!(counted.bytes() <= tls::DAY_MAX_BYTES + dmarc::DAY_MAX_BYTES, "{}", counted.bytes());
    assert!(lock(&counted.0.sessions).lost().untold > 0 && lock(&counted.0.messages).lost().untold > 0);
    node.set(11 * DAY_SECONDS);
    let before = told(&counted, 10);
    assert!(before.domains().count() > 1_000);
    assert!(lock(&counted.0.asked).is_none(), "nothing is kept once all is told");
    // Whoever is asked by two, in turn, tells each his own, and makes the parts no more often than somebody begins.
    let ask = |what, from| match counted.answer_now(FeedbackQuestion::Parts { what, day: 10, from }) {
        FeedbackAnswer::Parts { parts, more } => (parts, more),
        other => panic!("{other:?}"),
    };
    let next = PARTS_AT_ONCE as u32;
    let (first, second) = (ask(What::Sessions, 0), ask(What::Sessions, next));
    assert!(first.1 && first != second);
    assert_eq!(ask(What::Messages, next), {
        ask(What::Messages, 0);
        ask(What::Messages, next)
    });
    assert_eq!((ask(What::Sessions, next), ask(What::Sessions, 0)), (second, first));
    counted.write();
    assert_eq!(told(&node.start(), 10), before);
}

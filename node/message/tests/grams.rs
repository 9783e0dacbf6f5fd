//! Whatever a search finds in a message by reading it, the message's grams don't rule out.

#![allow(clippy::unwrap_used)]

use mailraft_message::body_search::PIECE_MAX_BYTES;
use mailraft_message::grams::{GramKey, Grams, KEY_BYTES};
use mailraft_message::query::{Key, Known, Verdict};
use mailraft_message::{BodySearch, Part, Query};
use proptest::prelude::*;

fn key() -> GramKey {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    GramKey::new(&(0..KEY_BYTES).map(|_| next()).collect::<Vec<u8>>()).unwrap()
}

/// Reads a message for these words, and notes its grams if asked.
fn read(message: &[u8], words: &[&str], grams: Option<&mut Grams>, piece_bytes: usize) -> (Vec<bool>, bool) {
    let root = Part::parse(message).unwrap();
    let mut search = BodySearch::new(words, &root);
    if let Some(grams) = grams {
        search = search.noting(grams, true);
    }
    while let Some(wanted) = search.wants() {
        let wanted = &message[wanted.start as usize..wanted.end as usize];
        search.take(&wanted[..wanted.len().min(piece_bytes)]);
    }
    let is_whole = search.is_whole();
    (search.into_found(), is_whole)
}

/// The grams of a message, noted while it was searched for something else.
fn noted(message: &[u8], piece_bytes: usize) -> Grams {
    let mut grams = Grams::new(key());
    let (_, is_whole) = read(message, &["something else", ""], Some(&mut grams), piece_bytes);
    assert!(is_whole, "all of it was gone through");
    let root = Part::parse(message).unwrap();
    let block = &message[root.header.start as usize..root.header.end as usize];
    grams.feed(Known::default().with_header(block).header_text());
    grams.end_text();
    grams
}

fn lacks(grams: &Grams, word: &str) -> bool {
    !grams.key().places(word).iter().all(|place| grams.marks()[*place as usize / 64] >> (place % 64) & 1 == 1)
}

/// What each kind of key says of a message: by reading it, and with what its grams rule out besides.
fn judged(message: &[u8], grams: &Grams, word: &str, piece_bytes: usize) -> Vec<(Verdict, Verdict)> {
    let root = Part::parse(message).unwrap();
    let block = &message[root.header.start as usize..root.header.end as usize];
    let word = word.to_lowercase();
    let keys: [Key<()>; 4] = [
        Key::Body(word.clone()),
        Key::Text(word.clone()),
        Key::Header("subject".into(), word.clone()),
        Key::Header("x-other".into(), word.clone()),
    ];
    let judge = |key: Key<()>| {
        let mut query = Query::new();
        query.push(key).unwrap();
        let lacks: Vec<bool> = query.looked_for().iter().map(|text| lacks(grams, text)).collect();
        let (found, _) = read(message, &query.words(), None, piece_bytes);
        let verdict = |lacks: &[bool]| {
            let mut known = Known::default().with_header(block).lacking(lacks);
            known.searched(found.clone());
            query.judge(&known, |()| false)
        };
        (verdict(&[]), verdict(&lacks))
    };
    keys.into_iter().map(judge).collect()
}

#[test]
fn words_across_folds_encoded_words_and_soft_line_ends_are_found_and_not_ruled_out() {
    let message = b"Subject: =?utf-8?q?K=C3=84?=\r\n =?iso-8859-1?b?U0U=?= und\r\n Brot\r\nX-Other: ab\r\n\tcd\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\nGr=FC=\r\n=DFe\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\nS2\r\nl\r\nyc2\r\nNoZQ==\r\n--b\r\nContent-Disposition: attachment; filename=\"Apfel.pdf\"\r\nContent-Type: application/pdf\r\n\r\nsecret\r\n--b--\r\n";
    let of = |word: &str, piece_bytes: usize| judged(message, &noted(message, piece_bytes), word, piece_bytes);
    let (yes, no) = (Verdict::Match, Verdict::NoMatch);
    for piece_bytes in [1, 5, PIECE_MAX_BYTES] {
        for (word, verdicts) in [
            ("KÄSE und Brot", [no, yes, yes, no]),
            ("ab\tcd", [no, yes, no, yes]),
            ("grüße", [yes, yes, no, no]),
            ("KIRSCHE", [yes, yes, no, no]),
            ("apfel.PDF", [yes, yes, no, no]),
            ("brot\nx-other", [no, yes, no, no]),
            // Of two texts, or of none that is searched.
            ("ekirsche", [no; 4]),
            ("secret", [no; 4]),
            ("preamble", [no; 4]),
        ] {
            let expected: Vec<(Verdict, Verdict)> = verdicts.into_iter().map(|verdict| (verdict, verdict)).collect();
            assert_eq!(of(word, piece_bytes), expected, "{word} in pieces of {piece_bytes}");
        }
    }
    let grams = noted(message, PIECE_MAX_BYTES);
    assert!(
        ["nowhere", "secret", "preamble"].iter().all(|word| lacks(&grams, word)),
        "they need not be read for these"
    );
}

#[test]
fn a_search_that_ends_early_has_not_noted_all() {
    let message = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nearly\r\n--b\r\n\r\nlate\r\n--b--\r\n";
    let root = Part::parse(message).unwrap();
    for (to_the_end, late) in [(true, false), (false, true)] {
        let mut grams = Grams::new(key());
        let words = ["early"];
        let mut search = BodySearch::new(&words, &root).noting(&mut grams, to_the_end);
        while let Some(wanted) = search.wants() {
            search.take(&message[wanted.start as usize..wanted.end as usize]);
        }
        assert_eq!(search.is_whole(), to_the_end);
        assert_eq!(search.into_found(), [true]);
        assert_eq!(lacks(&grams, "late"), late);
    }
}

/// Text of few letters, so that much of it is found by chance; some change their length or their form with their case.
fn text(most_letters: usize) -> impl Strategy<Value = String> {
    proptest::string::string_regex(&format!("[abAßäÄİΣσς .\u{4e2d}]{{0,{most_letters}}}")).unwrap()
}

fn encoded_word(text: &str, n: usize) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("={b:02X}")).collect::<String>();
    match n {
        0 => format!("=?utf-8?q?{}?=", hex(text.as_bytes())),
        1 => {
            let latin: Vec<u8> = text.chars().filter_map(|c| u8::try_from(u32::from(c)).ok()).collect();
            format!("=?iso-8859-1?Q?{}?=", hex(&latin))
        }
        2 => text.replace(' ', "\r\n "),
        _ => text.to_owned(),
    }
}

fn part(text: &str, n: usize) -> Vec<u8> {
    let quoted = |bytes: &[u8]| -> String {
        let each = |(n, b): (usize, &u8)| format!("={b:02x}{}", if n % 5 == 4 { "=\r\n" } else { "" });
        bytes.iter().enumerate().map(each).collect()
    };
    let utf_16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let (head, body) = match n {
        0 => (String::new(), text.to_owned()),
        1 => ("Content-Transfer-Encoding: quoted-printable\r\n".to_owned(), quoted(text.as_bytes())),
        2 => (
            "Content-Transfer-Encoding: quoted-printable\r\nContent-Type: text/plain; charset=utf-16le\r\n".to_owned(),
            quoted(&utf_16),
        ),
        3 => ("Content-Type: text/html; charset=koi8-r\r\n".to_owned(), text.to_owned()),
        4 => (format!("Content-Type: image/png; name=\"{text}\"\r\n"), text.to_owned()),
        5 => ("Content-Type: message/rfc822\r\n".to_owned(), format!("Subject: {text}\r\n\r\n{text}")),
        _ => ("Content-Type: text/plain; charset=x\r\n".to_owned(), text.to_owned()),
    };
    format!("--b\r\n{head}\r\n{body}\r\n").into_bytes()
}

proptest! {
    #[test]
    fn what_is_found_by_reading_is_never_ruled_out(
        subject in proptest::collection::vec((text(12), 0usize..4), 0..4),
        parts in proptest::collection::vec((text(40), 0usize..7), 0..5),
        words in proptest::collection::vec(text(6), 1..8),
        cut in (0usize..40, 0usize..12),
        piece_bytes in prop_oneof![1usize..40, Just(PIECE_MAX_BYTES)],
    ) {
        let subject: Vec<String> = subject.iter().map(|(text, n)| encoded_word(text, *n)).collect();
        let head = format!("Subject: {}\r\nX-Other: {}\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n", subject.join(" "), subject.concat());
        let mut message = head.into_bytes();
        parts.iter().for_each(|(text, n)| message.extend(part(text, *n)));
        message.extend(b"--b--\r\n");
        let grams = noted(&message, piece_bytes);
        // What stands in it, and what may.
        let cuts = parts.iter().map(|(text, _)| text.chars().skip(cut.0 % 20).take(cut.1).collect::<String>());
        for word in words.iter().cloned().chain(cuts) {
            for (by_reading, with_grams) in judged(&message, &grams, &word, piece_bytes) {
                prop_assert_eq!(by_reading, with_grams, "{:?} in {:?}", word, String::from_utf8_lossy(&message));
            }
        }
    }

    #[test]
    fn what_is_found_in_any_bytes_is_never_ruled_out(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), from in 0usize..200, count in 0usize..8,
    ) {
        let message = [b"Subject: x\r\n\r\n".as_slice(), &bytes].concat();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let word: String = text.chars().skip(from % text.chars().count().max(1)).take(count).collect();
        for (by_reading, with_grams) in judged(&message, &noted(&message, 64), &word, 64) {
            prop_assert_eq!(by_reading, with_grams);
        }
    }
}

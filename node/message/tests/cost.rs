//! What it costs to take a message apart, whatever the message: small inputs by which others were made to spend much. One
//! test only, because memory is counted for the whole process.
#![allow(missing_docs, clippy::unwrap_used)]

use mailraft_message::budget::{
    DESCRIPTION_MAX_BYTES, DESCRIPTION_MEMORY_MAX_BYTES, ENCODED_MESSAGES_MAX_BYTES, PARSE_MEMORY_MAX_BYTES,
};
use mailraft_message::claims::without_our_claims;
use mailraft_message::header::{HEADER_KEPT_MAX_BYTES, HEADER_MAX_BYTES, header_len, without_trace};
use mailraft_message::query::{Addresses, Key, Known};
use mailraft_message::{Described, Query, TooMuch, envelope, search};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;
/// A header block that is just short enough.
const BLOCK: usize = HEADER_MAX_BYTES - 1024;
/// One that is told in ENVELOPE and BODYSTRUCTURE, whatever is in it.
const TOLD: usize = HEADER_KEPT_MAX_BYTES - 1024;

/// The most bytes that were allocated at once.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let made = work();
    (made, ALLOCATOR.peak_usage().saturating_sub(before))
}

fn nested(header: &str) -> String {
    format!("Content-Type: message/rfc822\r\n\r\n{header}\r\n\r\nx\r\n")
}

/// Much of a piece.
fn fill(piece: &str, bytes: usize) -> String {
    piece.repeat(bytes / piece.len())
}

/// A multipart with so many encoded messages of so many bytes.
fn fill_encoded(count: usize, bytes: usize) -> String {
    let part = "--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n";
    let part = format!("{part}A: b\r\n\r\n{}\r\n", fill("x\r\n", bytes - 20));
    format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}--b--\r\n", part.repeat(count))
}

fn attacks() -> Vec<(&'static str, String, Option<TooMuch>)> {
    use TooMuch::{Depth, Description, Header, PartHeader, Parts};
    let mixed = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
    let deep: String = (0..50)
        .map(|n| format!("Content-Type: multipart/mixed; boundary={}{n}\n\n--{}{n}\n", fill("b", 900), fill("b", 900)))
        .collect();
    vec![
        ("a nested To of 8 MiB", nested(&format!("To: {}", fill("a@b,", 8 * MIB))), Some(PartHeader)),
        ("one that fits", nested(&format!("To: {}", fill("a@b,", BLOCK))), Some(Description)),
        ("one nobody would write", nested(&format!("To: {}", fill("@", TOLD))), None),
        ("one too long", nested(&format!("To: {}", fill("@", BLOCK))), Some(Description)),
        ("groups", nested(&format!("To: {}", fill(":;", BLOCK))), Some(Description)),
        ("From thrice", format!("From: {}\r\n\r\nx", fill("some.body@example.org,", BLOCK)), Some(Description)),
        ("people", format!("To: {}\r\n\r\nx", fill("Some Body <some.body@example.org>,", TOLD)), None),
        (
            "more people",
            format!("To: {}\r\n\r\nx", fill("Some Body <some.body@example.org>,", BLOCK)),
            Some(Description),
        ),
        ("semicolons", format!("Content-Type: {}\r\n\r\nx", fill(";", BLOCK)), None),
        ("nested semicolons", nested(&format!("Content-Type: {}", fill(";", 8 * MIB))), Some(PartHeader)),
        ("parameters", format!("Content-Type: a/b{}\r\n\r\nx", fill(";a=", BLOCK)), Some(Description)),
        ("continuations", format!("Content-Type: a/b{}\r\n\r\nx", fill(";a*0*=xxxxxxxxxxxxxxxx", TOLD)), None),
        (
            "more continuations",
            format!("Content-Type: a/b{}\r\n\r\nx", fill(";a*0*=xxxxxxxxxxxxxxxx", BLOCK)),
            Some(Description),
        ),
        ("languages", format!("Content-Language: {}\r\n\r\nx", fill("a,", BLOCK)), Some(Description)),
        ("dispositions", format!("{}\r\nx", fill("Content-Disposition: a;b=c\r\n", TOLD)), None),
        ("more dispositions", format!("{}\r\nx", fill("Content-Disposition: a;b=c\r\n", BLOCK)), Some(Description)),
        ("comments", format!("To: {}\r\nContent-Type: {}\r\n\r\nx", fill("(", TOLD / 2), fill("(", TOLD / 2)), None),
        (
            "more comments",
            format!("To: {}\r\nContent-Type: {}\r\n\r\nx", fill("(", BLOCK / 2), fill("(", BLOCK / 2)),
            Some(Description),
        ),
        ("a folded value", format!("Subject:{}\r\n\r\nx", fill("\r\n a", TOLD)), None),
        ("a longer folded value", format!("Subject:{}\r\n\r\nx", fill("\r\n a", BLOCK)), Some(Description)),
        ("references", format!("References: {}\r\n\r\nx", fill("<a@b> ", BLOCK)), None),
        ("encoded words", format!("Subject: {}\r\n\r\nx", fill("=?u?q?x?= ", TOLD)), None),
        ("more encoded words", format!("Subject: {}\r\n\r\nx", fill("=?u?q?x?= ", BLOCK)), Some(Description)),
        ("fields with encoded words", format!("{}\r\nx", fill("a:=?u?q?x?=\r\n", BLOCK)), None),
        ("fields", format!("{}\r\nx", fill("a:\r\n", BLOCK)), None),
        ("lines of a header", fill(":\n", 50 * MIB), Some(Header)),
        ("nested lines", nested(&fill("a:\n", 8 * MIB)), Some(PartHeader)),
        ("tiny parts", format!("{mixed}{}", fill("--b\n\n", 16 * MIB)), Some(Parts)),
        ("parts that fit", format!("{mixed}{}", "--b\n\n".repeat(3_900)), None),
        ("lines like delimiters", format!("{mixed}{}", fill("--\n", 16 * MIB)), None),
        ("deep with long boundaries", format!("{deep}\n{}", fill(&format!("--{}\n", fill("b", 900)), 16 * MIB)), None),
        ("messages in messages", fill("Content-Type: message/rfc822\n\n", 8 * MIB), Some(Depth)),
        ("encoded messages", fill_encoded(1, ENCODED_MESSAGES_MAX_BYTES), None),
        ("too many encoded messages", fill_encoded(60, ENCODED_MESSAGES_MAX_BYTES / 2), None),
        (
            "encoded messages in each other",
            "Content-Type: message/rfc822\nContent-Transfer-Encoding: quoted-printable\n\n".repeat(60),
            Some(Depth),
        ),
        ("our claims", format!("{}\r\n{}", fill("Return-Path:\r\n", BLOCK), fill("x\r\n", 8 * MIB)), None),
        ("results", format!("Authentication-Results: {}\r\n\r\nx", fill("(", BLOCK)), None),
        ("results in encoded words", format!("{}\r\nx", fill("Authentication-Results: =?u?q?x?=\r\n", BLOCK)), None),
    ]
}

#[test]
fn the_cost_of_a_message_is_bounded_by_what_is_made_of_it() {
    for (name, message, refused) in attacks() {
        let bytes = message.as_bytes();
        let (described, memory_bytes) = peak(|| Described::of(bytes));
        assert_eq!(described.as_ref().err(), refused.as_ref(), "{name}");
        // What is made, and a header block unfolded or two.
        let most = DESCRIPTION_MEMORY_MAX_BYTES + 3 * HEADER_MAX_BYTES + ENCODED_MESSAGES_MAX_BYTES;
        assert!(memory_bytes <= most, "{name}: {} KiB", memory_bytes >> 10);
        // What is left is for the encoded form, which grows by doubling.
        assert!(most + 2 * DESCRIPTION_MAX_BYTES <= PARSE_MEMORY_MAX_BYTES);

        let block = &bytes[..header_len(bytes).min(HEADER_MAX_BYTES)];
        let (_, memory_bytes) = peak(|| envelope::authors(block, 16));
        assert!(memory_bytes <= 3 * HEADER_MAX_BYTES, "{name}: {} KiB for authors", memory_bytes >> 10);
        let (_, memory_bytes) = peak(|| search::header_text(block));
        assert!(memory_bytes <= 6 * HEADER_MAX_BYTES, "{name}: {} KiB of text", memory_bytes >> 10);
        let mut query = Query::<()>::new();
        for name in ["a", "Subject", "To", "x"] {
            query.push(Key::Header(name.to_owned(), "y".to_owned())).unwrap();
        }
        query.push(Key::Addresses(Addresses::To, "y".to_owned())).unwrap();
        let (_, memory_bytes) = peak(|| query.judge(&Known::default().with_header(block), |()| true));
        assert!(memory_bytes <= 6 * HEADER_MAX_BYTES, "{name}: {} KiB of fields", memory_bytes >> 10);

        let mut own = bytes.to_vec();
        let names = ["mx.test".to_owned()];
        let (_, memory_bytes) = peak(|| without_our_claims(&mut own, 0, &names));
        assert!(memory_bytes <= 4 * MIB || refused == Some(TooMuch::Header), "{name}: {} KiB", memory_bytes >> 10);
        assert!(name != "our claims" || own.len() == bytes.len() - BLOCK / 14 * 14, "all of them are gone");
        let (_, memory_bytes) = peak(|| without_trace(bytes, |_| {}));
        assert_eq!(memory_bytes, 0, "{name}");
    }
}

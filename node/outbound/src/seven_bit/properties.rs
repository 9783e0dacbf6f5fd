//! What holds for every message: its 7-bit form is ASCII, has the same parts, and each decodes to what it was.

use mailraft_message::transfer::decode;
use mailraft_message::{Body, Part};
use proptest::prelude::*;

use super::{Converter, NotSevenBit, Survey};

/// The 7-bit form of a message without its first octets, read in pieces of so many bytes.
fn converted(message: &[u8], begin: usize, size: usize) -> Result<Vec<u8>, NotSevenBit> {
    let root = Part::parse(message).unwrap();
    let pieces = || message[begin..].chunks(size);
    let mut survey = Survey::of(&root, begin as u64);
    pieces().for_each(|piece| survey.piece(piece));
    let plan = survey.finish()?;
    let (mut converter, mut out) = (Converter::new(&plan), Vec::new());
    pieces().for_each(|piece| converter.piece(piece, &mut out));
    converter.finish()?;
    Ok(out)
}

fn of(message: &str) -> Result<String, NotSevenBit> {
    let out = converted(message.as_bytes(), 0, 7)?;
    assert!(out.is_ascii(), "{}", out.escape_ascii());
    same(message.as_bytes(), &out);
    Ok(String::from_utf8(out).unwrap())
}

/// The parts that are not looked into, in their order: the type, and the octets that they stand for.
fn leaves(message: &[u8], part: &Part, out: &mut Vec<(Vec<u8>, Vec<u8>)>) {
    match &part.kind {
        Body::Multipart(parts) => parts.iter().for_each(|part| leaves(message, part, out)),
        Body::Message(nested) if !part.is_encoded_message() => leaves(message, &nested.1, out),
        Body::Message(_) | Body::Leaf | Body::Text => {
            let kind = [&part.media_type[..], b"/", &part.subtype].concat();
            let body = &message[part.body.start as usize..part.body.end as usize];
            out.push((kind, decode(&part.encoding, body)));
        }
    }
}

fn same(message: &[u8], converted: &[u8]) {
    let [mut was, mut is] = [Vec::new(), Vec::new()];
    leaves(message, &Part::parse(message).unwrap(), &mut was);
    leaves(converted, &Part::parse(converted).unwrap(), &mut is);
    assert_eq!(was, is, "{}\nbecame\n{}", message.escape_ascii(), converted.escape_ascii());
}

#[test]
fn text_becomes_quoted_printable_or_base64_by_what_is_shorter() {
    let head = "From: a\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n";
    let latin = of(&format!("{head}Gr\u{fc}\u{df}e an alle, die das lesen.\r\n.\r\n")).unwrap();
    let quoted = head.replace("8bit", "quoted-printable");
    assert_eq!(latin, format!("{quoted}Gr=C3=BC=C3=9Fe an alle, die das lesen.\r\n.\r\n"));
    let greek = of(&format!("{head}\u{3b1}\u{3b2}\u{3b3}\r\n")).unwrap();
    assert_eq!(greek, head.replace("8bit", "base64") + "zrHOss6zDQo=");
    // Nobody said what it is.
    let bare = of("From: a\r\n\r\nein Gru\u{df} von hier\r\n").unwrap();
    assert!(bare.contains("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"), "{bare}");
    let latin = converted(b"From: a\r\n\r\nein Gru\xdf von hier\r\n", 0, 3).unwrap();
    let latin = String::from_utf8(latin).unwrap();
    assert!(latin.contains("charset=unknown-8bit\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nein Gru=DF"));
}

#[test]
fn parts_are_encoded_each_by_itself_and_what_is_around_them_says_that_it_is_not() {
    let message = "Return-Path: <a@b>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\nf\u{fc}r alte\r\n--b\r\n\r\nein Gru\u{df} zum Abschied\r\n--b\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: binary\r\n\r\n\u{ff}\u{ff}\r\n--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: x\r\n\r\nalles \u{fc}ber die Welt\r\n--b\r\n\r\nonly ASCII\r\n--b--\r\nEp\u{ed}logo\r\n";
    let begin = "Return-Path: <a@b>\r\n".len();
    let out = String::from_utf8(converted(message.as_bytes(), begin, 5).unwrap()).unwrap();
    assert_eq!(
        out,
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 7bit\r\n\r\nf**r alte\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nein Gru=C3=9F zum Abschied\r\n--b\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: base64\r\n\r\nw7/Dvw==\r\n--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nalles =C3=BCber die Welt\r\n--b\r\n\r\nonly ASCII\r\n--b--\r\nEp**logo\r\n"
    );
    same(message.as_bytes(), out.as_bytes());
}

#[test]
fn text_of_little_else_than_what_is_quoted_becomes_base64() {
    for text in ["=".repeat(300), "a \r\n".repeat(100), "\u{c}".repeat(300)] {
        let out = of(&format!("A: b\r\n\r\n{text}\u{e9}\r\n")).unwrap();
        assert!(out.contains("Content-Transfer-Encoding: base64\r\n"), "{out}");
    }
}

#[test]
fn what_has_parts_says_seven_bits_though_it_said_eight_with_a_comment() {
    let message = "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit (comment)\r\n\r\n--b\r\n\r\na\r\n--b--\r\n";
    assert_eq!(of(message).unwrap(), message.replace("8bit (comment)", "7bit"));
}

#[test]
fn what_can_not_be_encoded_is_told_with_the_reason() {
    let multipart = |kind: &str, inside: &str| {
        format!("Content-Type: multipart/{kind}; boundary=b\r\n\r\n--b\r\n{inside}\r\n--b--\r\n")
    };
    let inner_with_the_same_boundary = format!("{}--b\r\n\r\n\u{e9}", multipart("alternative", "\r\nx"));
    for (message, why) in [
        ("Subject: \u{e9}\r\n\r\n\u{e9}\r\n".to_owned(), NotSevenBit::HeaderField),
        (multipart("mixed", "Content-Description: \u{e9}\r\n\r\nx"), NotSevenBit::HeaderField),
        (multipart("signed", "\r\n\u{e9}"), NotSevenBit::Signed),
        (multipart("signed", &multipart("mixed", "\r\n\u{e9}").replace('b', "c")), NotSevenBit::Signed),
        ("Content-Transfer-Encoding: base64\r\n\r\n\u{e9}\r\n".to_owned(), NotSevenBit::Encoded),
        ("Content-Transfer-Encoding: x-uuencode\r\n\r\n\u{e9}\r\n".to_owned(), NotSevenBit::Encoded),
        ("Content-Type: message/partial\r\n\r\n\u{e9}\r\n".to_owned(), NotSevenBit::Unencodable),
        ("Content-Type: multipart/mixed; boundary=b\r\n\r\n\u{e9}\r\n".to_owned(), NotSevenBit::NoParts),
        (multipart("mixed", &inner_with_the_same_boundary), NotSevenBit::BehindLast),
    ] {
        assert_eq!(of(&message), Err(why), "{message}");
    }
    // What is signed has none of them: a part beside it may.
    let inner = multipart("signed", "\r\nx").replace('b', "c");
    let beside = of(&multipart("mixed", &format!("{inner}\r\n--b\r\n\r\n\u{e9} and so on")));
    assert!(beside.unwrap().contains("=C3=A9 and so on"));
}

#[test]
fn another_message_than_was_described_is_not_converted() {
    let root = Part::parse("A: b\r\n\r\n\u{e9}\r\n".as_bytes()).unwrap();
    for other in ["A: b\r\n\r\n", "A: b\r\n\r\n\u{e9}\r\n\r\n"] {
        let mut survey = Survey::of(&root, 0);
        survey.piece(other.as_bytes());
        assert_eq!(survey.finish().unwrap_err(), NotSevenBit::Misfit, "{other}");
    }
}

/// Lines of which messages are made: fields, and whatever.
fn lines() -> impl Strategy<Value = Vec<String>> {
    let field = || {
        prop::sample::select(vec![
            "Content-Type: multipart/mixed; boundary=b",
            "Content-Type: multipart/digest; boundary=c",
            "Content-Type: message/rfc822",
            "Content-Type: application/x",
            "Content-Transfer-Encoding: 8bit",
            "Content-Transfer-Encoding: binary",
            "Content-Transfer-Encoding: quoted-printable",
        ])
    };
    let line = prop_oneof![
        6 => field().prop_map(str::to_owned),
        18 => other_line(),
    ];
    (prop::collection::vec(field(), 0..3), prop::collection::vec(line, 0..25)).prop_map(|(head, lines)| {
        let head = head.into_iter().map(str::to_owned).chain([String::new()]);
        head.chain(lines).collect()
    })
}

fn other_line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("--b".to_owned()),
        Just("--b--".to_owned()),
        Just("--c".to_owned()),
        Just("--c--".to_owned()),
        Just(String::new()),
        Just(String::new()),
        Just(" ".to_owned()),
        Just(">From x".to_owned()),
        Just("A: b".to_owned()),
        Just(format!("{}--b", "x".repeat(75))),
        Just(format!("{}\u{e9} --b", "x".repeat(71))),
        "[a\u{e9}\u{3b1}= -]{0,9}",
        "[a\u{e9}\u{3b1}= -]{0,9}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_part_decodes_to_what_it_was(lines in lines(), size in 1usize..40, ends in any::<bool>()) {
        let mut message = lines.join("\r\n");
        if ends {
            message.push_str("\r\n");
        }
        let message = message.as_bytes();
        if let Ok(out) = converted(message, 0, size) {
            prop_assert!(out.is_ascii());
            prop_assert_eq!(&converted(message, 0, message.len().max(1)).unwrap(), &out);
            same(message, &out);
            // Nothing changes where nothing has to.
            let says = |what: &str| String::from_utf8_lossy(message).contains(what);
            prop_assert!(!message.is_ascii() || says("8bit") || says("binary") || out == message);
        }
    }
}

//! Messages as they come, and the tree that is made of them.
#![allow(missing_docs, clippy::unwrap_used)]

use mailraft_message::{Body, Envelope, Part, header};

fn shown(message: &[u8]) -> String {
    let mut out = String::new();
    show(message, &Part::parse(message).unwrap(), 0, &mut out);
    out
}

fn show(message: &[u8], part: &Part, depth: usize, out: &mut String) {
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let kind = match &part.kind {
        Body::Leaf => "leaf",
        Body::Text => "text",
        Body::Message(_) => "message",
        Body::Multipart(_) => "multipart",
    };
    let name = part.disposition.as_ref().and_then(|(_, of)| of.first()).map(|(_, v)| format!(" {}", text(v)));
    let body = &message[part.body.start as usize..part.body.end as usize];
    out.push_str(&format!(
        "{}{kind} {}/{} {} lines{} {:?}\n",
        "  ".repeat(depth),
        text(&part.media_type),
        text(&part.subtype),
        part.lines,
        name.unwrap_or_default(),
        if matches!(part.kind, Body::Leaf | Body::Text) { text(body) } else { "..".into() },
    ));
    match &part.kind {
        Body::Leaf | Body::Text => {}
        Body::Message(nested) => show(message, &nested.1, depth + 1, out),
        Body::Multipart(parts) => parts.iter().for_each(|p| show(message, p, depth + 1, out)),
    }
}

#[test]
fn a_newsletter_with_an_inline_image_and_an_attachment() {
    let message = b"Return-Path: <bounce@news.example>\r\n\
Received: from mx by node; Mon, 1 Jan 2024 00:00:00 +0000\r\n\
From: =?utf-8?q?Caf=C3=A9?= News <news@news.example>\r\n\
To: \"Jane (work)\" <jane@example.org>\r\n\
Subject: =?utf-8?q?Caf=C3=A9?=\r\n =?utf-8?q?_und_Kuchen?=\r\n\
MIME-Version: 1.0\r\n\
Content-Type: multipart/mixed;\r\n\tboundary=\"=_mixed\"\r\n\
\r\n\
This is a multi-part message in MIME format.\r\n\
--=_mixed\r\n\
Content-Type: multipart/related; boundary=\"=_mixed_rel\"\r\n\
\r\n\
--=_mixed_rel\r\n\
Content-Type: multipart/alternative; boundary=alt\r\n\
\r\n\
--alt\r\n\
Content-Type: text/plain; charset=utf-8; format=flowed\r\n\
\r\n\
Guten Tag\r\n\
\r\n\
--alt\r\n\
Content-Type: text/html; charset=utf-8\r\n\
Content-Transfer-Encoding: quoted-printable\r\n\
\r\n\
<p>Guten=20Tag\r\n\
--alt--\r\n\
--=_mixed_rel\r\n\
Content-Type: image/png\r\n\
Content-ID: <logo@x>\r\n\
Content-Transfer-Encoding: base64\r\n\
\r\n\
iVBORw==\r\n\
--=_mixed_rel--\r\n\
\r\n\
--=_mixed  \r\n\
Content-Type: application/pdf\r\n\
Content-Disposition: attachment;\r\n filename=\"a;b.pdf\" (a comment)\r\n\
\r\n\
%PDF\r\n\
--=_mixed--\r\n\
epilogue\r\n";
    assert_eq!(
        shown(message),
        r#"multipart multipart/mixed 0 lines ".."
  multipart multipart/related 0 lines ".."
    multipart multipart/alternative 0 lines ".."
      text text/plain 1 lines "Guten Tag\r\n"
      text text/html 0 lines "<p>Guten=20Tag"
    leaf image/png 0 lines "iVBORw=="
  leaf application/pdf 0 lines a;b.pdf "%PDF"
"#
    );
    let root = Part::parse(message).unwrap();
    assert_eq!(root.find(&[1, 1, 2]).unwrap().encoding, b"quoted-printable");
    assert_eq!(root.find(&[1, 2]).unwrap().id.as_deref(), Some(b"<logo@x>".as_slice()));
    assert_eq!(root.find(&[1, 1, 2, 1]), None);
    let envelope = Envelope::parse(&message[..header::header_len(message)]).unwrap();
    assert_eq!(envelope.subject.as_deref(), Some(b"=?utf-8?q?Caf=C3=A9?= =?utf-8?q?_und_Kuchen?=".as_slice()));
    assert_eq!(envelope.to[0].name.as_deref(), Some(b"Jane (work)".as_slice()));
    assert_eq!(envelope.from[0].host.as_deref(), Some(b"news.example".as_slice()));
}

#[test]
fn a_forwarded_bounce() {
    let message = b"Subject: Fwd\r\nContent-Type: message/rfc822\r\n\r\n\
Subject: Undelivered\r\nFrom: <MAILER-DAEMON@x>\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=r\r\n\r\n\
--r\r\n\r\nSorry.\r\n\
--r\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\n\
--r\r\nContent-Type: message/rfc822\r\n\r\nSubject: original\r\n\r\nhello\r\n\
--r--\r\n";
    assert_eq!(
        shown(message),
        r#"message message/rfc822 19 lines ".."
  multipart multipart/report 0 lines ".."
    text text/plain 0 lines "Sorry."
    leaf message/delivery-status 0 lines "Reporting-MTA: dns; x\r\n"
    message message/rfc822 2 lines ".."
      text text/plain 0 lines "hello"
"#
    );
    let root = Part::parse(message).unwrap();
    assert_eq!(root.find(&[1]), Some(&root));
    assert_eq!(root.find(&[1, 3]).unwrap().message().unwrap().body.end, root.body.end - "\r\n--r--\r\n".len() as u64);
    assert_eq!(root.find(&[1, 3, 1]).unwrap().size_bytes(), 5);
    assert_eq!(root.find(&[2]), None);
}

#[test]
fn bare_line_feeds_no_closing_boundary_and_a_longer_boundary_that_begins_alike() {
    let message = b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/mixed; boundary=bb\n\n--bb\n\none\n--bb--\n--b\n\ntwo\n--bx\n--b-\nstill two";
    assert_eq!(
        shown(message),
        r#"multipart multipart/mixed 0 lines ".."
  multipart multipart/mixed 0 lines ".."
    text text/plain 0 lines "one"
  text text/plain 3 lines "two\n--bx\n--b-\nstill two"
"#
    );
}

#[test]
fn an_inner_multipart_that_is_not_closed_ends_with_its_part() {
    let message = b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\na\r\n--o\r\n\r\nb\r\n--o--\r\n";
    assert_eq!(
        shown(message),
        r#"multipart multipart/mixed 0 lines ".."
  multipart multipart/mixed 0 lines ".."
    text text/plain 0 lines "a"
  text text/plain 0 lines "b"
"#
    );
}

#[test]
fn what_is_said_wrongly_or_not_at_all() {
    for (message, tree) in [
        (b"".as_slice(), "text text/plain 0 lines \"\"\n"),
        (b"\r\nbody", "text text/plain 0 lines \"body\"\n"),
        (b"\0\xff\xfe binary\x80\n\n\0", "text text/plain 0 lines \"\\0\"\n"),
        (b"Content-Type: nonsense\n\nx\n", "text text/plain 1 lines \"x\\n\"\n"),
        (b"Content-Type: /plain\n\nx\n", "text text/plain 1 lines \"x\\n\"\n"),
        (
            b"Content-Type: multipart/mixed\n\nx\n",
            "multipart multipart/mixed 0 lines \"..\"\n  text text/plain 1 lines \"x\\n\"\n",
        ),
        (
            b"Content-Type: multipart/mixed; boundary=\"b\n\nx\n",
            "multipart multipart/mixed 0 lines \"..\"\n  text text/plain 1 lines \"x\\n\"\n",
        ),
        (
            b"Content-Type: multipart/mixed; boundary=b\n\n--b--\n",
            "multipart multipart/mixed 0 lines \"..\"\n  text text/plain 1 lines \"--b--\\n\"\n",
        ),
        (
            b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nAA==\n",
            "leaf application/octet-stream 0 lines \"AA==\\n\"\n",
        ),
    ] {
        assert_eq!(shown(message), tree, "{:?}", String::from_utf8_lossy(message));
    }
}

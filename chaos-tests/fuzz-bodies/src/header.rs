//! Header blocks: fields, addresses, dates, encoded words.

use mailraft_message::claims::without_our_claims;
use mailraft_message::header::{
    HEADER_MAX_BYTES, MESSAGE_ID_MAX_BYTES, fields, first, header_len, message_id, subset, without_trace,
};
use mailraft_message::{Address, Envelope, date, envelope, search};

/// Takes a header block apart: fields lie behind each other, ENVELOPE's texts are lines of what was there, groups begin and
/// end, and what only this server may say is gone and stays gone.
pub fn header(input: &[u8]) {
    let block = &input[..header_len(input).min(HEADER_MAX_BYTES)];
    let (mut end, mut fields_bytes) = (0, 0);
    for field in fields(block) {
        assert!(field.range.start >= end && field.range.end <= block.len());
        assert!(!field.name.is_empty() && field.name.iter().all(u8::is_ascii_graphic));
        (end, fields_bytes) = (field.range.end, fields_bytes + field.range.len());
    }
    let names = [b"from".to_vec(), b"SUBJECT".to_vec(), b"x".to_vec()];
    let both = subset(block, &names, false).len() + subset(block, &names, true).len();
    assert_eq!(both, fields_bytes + 4, "each field is in one of two subsets");
    assert!(message_id(block).is_none_or(|id| !id.is_empty() && id.len() <= MESSAGE_ID_MAX_BYTES));
    if let Ok(envelope) = Envelope::parse(block) {
        let texts = [&envelope.date, &envelope.subject, &envelope.in_reply_to, &envelope.message_id];
        texts.into_iter().flatten().for_each(|text| check_line(text));
        for list in [&envelope.from, &envelope.sender, &envelope.reply_to, &envelope.to, &envelope.cc, &envelope.bcc] {
            check_addresses(list);
        }
    }
    if let Some(authors) = envelope::authors(block, 16) {
        assert!(authors.len() <= 16 && authors.iter().all(|author| author.contains('@')));
    }
    let mut own = input.to_vec();
    let names = ["mx.test".to_owned()];
    without_our_claims(&mut own, 0, &names);
    assert_eq!(first(&own[..header_len(&own)], "Return-Path"), None);
    let mut twice = own.clone();
    without_our_claims(&mut twice, 0, &names);
    assert_eq!(own, twice, "what was taken out is out");
    let mut left = 0;
    without_trace(input, |piece| left += piece.len());
    assert!(left <= input.len());
}

fn check_line(text: &[u8]) {
    assert!(!text.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)), "{:?}", String::from_utf8_lossy(text));
}

fn check_addresses(list: &[Address]) {
    let mut in_group = false;
    for address in list {
        let Address { name, route, mailbox, host } = address;
        [name, route, mailbox, host].into_iter().flatten().for_each(|text| check_line(text));
        match (mailbox, host) {
            (Some(_), Some(_)) => {}
            (Some(_), None) => assert!(!std::mem::replace(&mut in_group, true), "no group begins in another"),
            (None, None) => assert!(std::mem::replace(&mut in_group, false), "a group that ends has begun"),
            (None, Some(_)) => panic!("a domain by itself"),
        }
    }
    assert!(!in_group, "a group ends");
}

/// Reads one value in every way there is: as addresses, as a date, as text with encoded words.
pub fn text(input: &[u8]) {
    check_addresses(&envelope::addresses(input));
    if let Some((_, zone_minutes)) = date::parse_date(input) {
        assert!(zone_minutes.abs() < 100 * 60, "{zone_minutes} minutes east");
    }
    let decoded = search::decode_header(input);
    assert!(decoded.len() <= 16 * input.len() + 64, "{} bytes of {}", decoded.len(), input.len());
    let line = [b"Subject: ".as_slice(), input, b"\r\n\r\n"].concat();
    assert!(search::header_text(&line).len() <= 64 * line.len());
}

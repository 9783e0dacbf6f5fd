//! What only the server that takes a message may say in its header: who sent it (Return-Path), and what came of checking that
//! (Authentication-Results in its name).

use crate::header::{Field, unfold, without};
use crate::search::decode_header;

/// An Authentication-Results field that is longer, in bytes, is taken out, whoever it names.
pub const RESULTS_MAX_BYTES: usize = 16 << 10;

/// Takes out of a message's header, from `at` on, what only this server may say: any Return-Path (RFC 5321, section 4.4),
/// and Authentication-Results in one of its names (RFC 8601, section 5), however leniently a reader finds the name in it.
pub fn without_our_claims(message: &mut Vec<u8>, at: usize, names: &[String]) {
    let is_claim = |field: &Field<'_>| {
        field.name.eq_ignore_ascii_case(b"Return-Path")
            || (field.name.eq_ignore_ascii_case(b"Authentication-Results")
                && (field.value.len() > RESULTS_MAX_BYTES || is_ours(field.value, names)))
    };
    without(message, at, is_claim);
}

/// What becomes of a comment, and of octets that are no letters of ours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// What stands around it is one word.
    Closes,
    /// It divides words.
    Divides,
}

/// Whether the first word of an Authentication-Results field may be read as one of our names.
fn is_ours(value: &[u8], names: &[String]) -> bool {
    let is_name = |word: &[u8]| {
        // A dot at its end, or before it, is not part of the name to every reader.
        let word = trimmed(word, |b| b == b'.');
        names.iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
    };
    let decoded = decode_header(value).into_bytes();
    [unfold(value), without_folds(value), decoded].iter().any(|text| {
        [Gap::Closes, Gap::Divides].into_iter().any(|gap| {
            let (plain, unclosed) = flat(text, gap);
            let said = plain.split(|b| *b == b';').find(|part| words(part).next().is_some()).unwrap_or_default();
            let first = |text: &[u8]| words(text).next().is_some_and(is_name);
            first(said)
                || first(&dots_closed(said))
                // Nobody knows where a comment ends that does not.
                || unclosed.split(|b| *b == b';').next().is_some_and(|part| words(part).any(is_name))
        })
    })
}

/// A text without comments, quoting, and octets that no name of ours has; and what stands behind the beginning of a comment
/// that does not end.
fn flat(text: &[u8], gap: Gap) -> (Vec<u8>, Vec<u8>) {
    let (mut plain, mut comment, mut depth, mut quoted) = (Vec::new(), Vec::new(), 0_usize, false);
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        let out = if depth > 0 { &mut comment } else { &mut plain };
        match byte {
            // The next octet stands for itself.
            b'\\' => out.extend(bytes.next()),
            b'"' if depth == 0 => quoted = !quoted,
            b'(' if !quoted => {
                depth += 1;
                comment.push(b' ');
            }
            b')' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    comment.clear();
                    plain.extend((gap == Gap::Divides).then_some(b' '));
                }
            }
            _ if byte.is_ascii_control() => out.push(b' '),
            _ if !byte.is_ascii() => out.extend((gap == Gap::Divides).then_some(b' ')),
            _ => out.push(byte),
        }
    }
    (plain, comment)
}

/// The words of a text: what stands between white space and what is special in a header (RFC 2045, section 5.1).
fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let divides = |b: &u8| b.is_ascii_whitespace() || b"()<>@,;:\\\"/[]?=".contains(b);
    text.split(divides).filter(|word| !word.is_empty())
}

/// A value without line ends and the white space behind each: a word that is folded is whole again.
fn without_folds(value: &[u8]) -> Vec<u8> {
    let lines = value.split(|b| *b == b'\n').enumerate();
    let rest = |(number, line): (usize, &[u8])| match number {
        0 => line.to_vec(),
        _ => line.trim_ascii_start().to_vec(),
    };
    lines.flat_map(rest).filter(|b| *b != b'\r').collect()
}

/// Without the white space around dots.
fn dots_closed(text: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = text.split(|b| *b == b'.').map(|part| trimmed(part, |b| b.is_ascii_whitespace())).collect();
    parts.join(&b'.')
}

fn trimmed(mut text: &[u8], is_around: fn(u8) -> bool) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_around(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_around(*last)
    {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_this_server_may_say_is_taken_out_and_all_else_stays() {
        let ours = b"Return-Path: <a@b>\r\n";
        let said = b"return-path: <x@y>\r\nAuthentication-Results: mx.test 1;\r\n\tspf=pass\r\nSubject: x\r\n\
                     Authentication-Results: (hm) \"MX.test\"; none\r\nAuthentication-Results: mx.test.example; dkim=pass\r\n\r\n\
                     Return-Path: in the body\r\n";
        let mut message = [ours.as_slice(), said].concat();
        without_our_claims(&mut message, ours.len(), &["mx.test".to_owned()]);
        let left = b"Return-Path: <a@b>\r\nSubject: x\r\nAuthentication-Results: mx.test.example; dkim=pass\r\n\r\n\
                     Return-Path: in the body\r\n";
        assert_eq!(String::from_utf8_lossy(&message), String::from_utf8_lossy(left));
        let mut nothing = Vec::new();
        without_our_claims(&mut nothing, 0, &["mx.test".to_owned()]);
        assert!(nothing.is_empty());
    }

    /// Whether a field with this value stays.
    fn stays(value: &[u8]) -> bool {
        let said = [b"Authentication-Results:", value, b"\r\n\r\n"].concat();
        let mut message = said.clone();
        without_our_claims(&mut message, 0, &["mx.test".to_owned(), "mail.test".to_owned()]);
        assert!(message == said || message == b"\r\n");
        message == said
    }

    #[test]
    fn our_name_is_found_however_it_is_written() {
        for ours in [
            " mx.test; spf=pass",
            " MX.TEST 1; spf=pass",
            " (a\\)b) mx.test; spf=pass",
            " (a(b)\\(c) mx.test(d) ; spf=pass",
            " \"mx\\.test\"; spf=pass",
            " \"m\\x.te\r\n\tst\" 1; spf=pass",
            " \"mx.test \"; spf=pass",
            " mx.test.; spf=pass",
            " (\") mx.test; spf=pass",
            " mail.test; spf=pass",
            " mx.test",
        ] {
            assert!(!stays(ours.as_bytes()), "{ours}");
        }
    }

    #[test]
    fn our_name_is_found_where_only_a_lenient_reader_finds_it() {
        for ours in [
            " mx.test(x)/1; spf=pass",
            " mx.test/1; spf=pass",
            " mx.test, x; spf=pass",
            ", mx.test; spf=pass",
            "; mx.test; spf=pass",
            " (x mx.test; spf=pass",
            " (x (y) \"mx.test\"; spf=pass",
            " (mx.test; spf=pass",
            "\x0bmx.test; spf=pass",
            " \x0cmx.test\0; spf=pass",
            " mx.test=; spf=pass",
            " <mx.test>; spf=pass",
            " \"mx.test;\"; x",
            " \"mx.test; spf=pass",
            " mx . test; spf=pass",
            " mx(c). test 1; spf=pass",
            " mx.te\r\n st; spf=pass",
            " .mx.test..; spf=pass",
            " =?utf-8?q?mx.test?=; spf=pass",
            " =?utf-8?b?bXgudGVzdDsgc3BmPXBhc3M=?=",
        ] {
            assert!(!stays(ours.as_bytes()), "{ours:?}");
        }
        for ours in
            [&b" mx.test\xff; spf=pass"[..], b" mx.te\xffst; spf=pass", b" \xefmx.test; x", b" mx.test\xffx; spf=pass"]
        {
            assert!(!stays(ours), "{ours:?}");
        }
        for other in [
            " mx.tests; spf=pass",
            " a.mx.test; spf=pass",
            " mx.test.example; spf=pass",
            " mx-test; spf=pass",
            " (mx.test) other; x",
            " other (mx.test); spf=pass smtp.helo=mx.test",
            " other; mx.test",
            " other 1 (mx.test; x",
            "",
            " ;",
        ] {
            // Where a comment does not end, whatever is in it may be what a reader finds.
            assert_eq!(stays(other.as_bytes()), !other.contains("1 (mx"), "{other}");
        }
    }

    #[test]
    fn a_field_that_is_too_long_is_taken_out_whoever_it_names() {
        let longest = format!("{:x<1$}", " other; ", RESULTS_MAX_BYTES);
        assert!(stays(longest.as_bytes()) && !stays(format!("{longest}x").as_bytes()));
        let hidden = format!("{} mx.test; x", " (c)".repeat(4_000));
        assert!(hidden.len() <= RESULTS_MAX_BYTES && !stays(hidden.as_bytes()));
    }
}

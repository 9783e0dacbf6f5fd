//! IMAP: a whole session over a real mailbox in memory.

use mailraft_imap::testing::Talk;

/// Says the input to a session, whose first byte says how far it is: nobody logged in, logged in, or with INBOX open. It
/// hears the same however the input is cut, and only whole responses.
pub fn dialogue(input: &[u8]) {
    let Some((first, said)) = input.split_first() else { return };
    let (heard, handshakes) = talk(*first, said, 10_000);
    check_responses(&heard);
    for size in [1, 13] {
        // What came in clear behind STARTTLS is dropped: how it is cut makes a difference.
        if handshakes == 0 {
            let (cut, _) = talk(*first, said, size);
            assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(&cut), "in pieces of {size}");
        }
    }
}

fn talk(first: u8, said: &[u8], piece_bytes: usize) -> (Vec<u8>, u32) {
    let mut talk = Talk::new(first & 4 == 0);
    if first & 3 > 0 {
        talk.say(b"l LOGIN alice secret\r\n");
    }
    if first & 3 > 1 {
        talk.say(b"s SELECT INBOX\r\n");
    }
    talk.heard.0.clear();
    talk.say_in_pieces(said, piece_bytes);
    (talk.heard.0, talk.handshakes)
}

/// Responses are lines, with literals in them, that begin with `*`, `+` or a tag (RFC 3501, section 7).
fn check_responses(heard: &[u8]) {
    let mut rest = heard;
    let mut at_start = true;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|w| w == b"\r\n").expect("a response ends");
        let (line, behind) = (&rest[..end], &rest[end + 2..]);
        assert!(!line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)), "{:?}", String::from_utf8_lossy(line));
        if at_start {
            let word = line.split(|b| *b == b' ').next().unwrap_or_default();
            assert!(!word.is_empty() && word.len() <= 64, "{:?}", String::from_utf8_lossy(line));
        }
        let literal = line.strip_suffix(b"}").and_then(|line| {
            let open = line.iter().rposition(|b| *b == b'{')?;
            std::str::from_utf8(&line[open + 1..]).ok()?.parse::<usize>().ok()
        });
        at_start = literal.is_none();
        rest = behind.get(literal.unwrap_or(0)..).expect("a literal is whole");
    }
    assert!(at_start, "a literal is followed by the rest of its response");
}

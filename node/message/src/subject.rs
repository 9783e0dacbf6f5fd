//! What a subject is about, whoever replied to it or forwarded it (RFC 5256, section 2.1), and how texts are compared.

use unicode_normalization::UnicodeNormalization;

use crate::search::decode_header;

/// A subject without what replies and forwards add to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseSubject {
    /// What is left, in the form that is compared.
    pub text: String,
    /// Whether it was a reply's or a forward's.
    pub is_reply: bool,
}

impl BaseSubject {
    /// Of a Subject field's value.
    pub fn of(raw: &[u8]) -> Self {
        let spaced: Vec<String> = decode_header(raw).split([' ', '\t', '\r', '\n']).map(str::to_owned).collect();
        let flat = spaced.iter().filter(|word| !word.is_empty()).map(String::as_str).collect::<Vec<_>>().join(" ");
        let (mut text, mut is_reply) = (flat.as_str(), false);
        loop {
            while let Some(rest) = without_trailer(text) {
                (text, is_reply) = (rest, true);
            }
            while let Some((rest, replied)) = without_leader(text) {
                (text, is_reply) = (rest, is_reply | replied);
            }
            match text.get(..5).filter(|start| start.eq_ignore_ascii_case("[fwd:")).and(text.strip_suffix(']')) {
                Some(forwarded) => (text, is_reply) = (forwarded[5..].trim(), true),
                None => break,
            }
        }
        BaseSubject { text: compared(text), is_reply }
    }
}

/// The form in which texts are compared (RFC 5051): without case, and however their characters are composed.
pub fn compared(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_uppercase();
    }
    let upper = text.chars().map(|c| {
        let mut upper = c.to_uppercase();
        // Mapped one to one: what would become several characters stays.
        if upper.len() == 1 { upper.next().unwrap_or(c) } else { c }
    });
    upper.nfkd().collect()
}

/// Without `(fwd)` or space at its end.
fn without_trailer(text: &str) -> Option<&str> {
    let trimmed = text.trim_end();
    let cut = trimmed.len().checked_sub(5)?;
    trimmed
        .get(cut..)
        .filter(|end| end.eq_ignore_ascii_case("(fwd)"))
        .and_then(|_| trimmed.get(..cut))
        .map(str::trim_end)
}

/// Without what stands before it: `re:`, `fw:` or `fwd:` behind any number of `[...]`, or else those, where something is
/// left; and whether there was a word.
fn without_leader(text: &str) -> Option<(&str, bool)> {
    let trimmed = text.trim_start();
    let (mut rest, mut last) = (trimmed, trimmed);
    while let Some(behind) = without_blob(rest) {
        (last, rest) = (rest, behind);
    }
    if let Some(behind) = without_word(rest) {
        return Some((behind, true));
    }
    let left = if rest.is_empty() { last } else { rest };
    (left.len() < text.len()).then_some((left, false))
}

/// Without `[...]` and the space behind it.
fn without_blob(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('[')?;
    let end = inner.find(['[', ']'])?;
    inner[end..].strip_prefix(']').map(str::trim_start)
}

/// Without `re:`, `fw:` or `fwd:`, and a `[...]` before the colon.
fn without_word(text: &str) -> Option<&str> {
    let starts = |word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let word = ["fwd", "re", "fw"].into_iter().find(|word| starts(word))?;
    let rest = text[word.len()..].trim_start();
    without_blob(rest).unwrap_or(rest).strip_prefix(':')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn subjects_are_about_what_is_left_of_them() {
        for (subject, text, is_reply) in [
            ("Hello", "HELLO", false),
            ("  Re: hello\t  you", "HELLO YOU", true),
            ("RE: Fwd: [list] re[2]: hello (fwd) (FWD)", "HELLO", true),
            ("[list] [other] hello", "HELLO", false),
            ("[list] re : hello", "HELLO", true),
            ("Re: [list]", "[LIST]", true),
            ("[a] [b]", "[B]", false),
            ("[Fwd: Re: hello]", "HELLO", true),
            ("[Fwd: [Fwd: hello]] (fwd)", "HELLO", true),
            ("Re:", "", true),
            ("", "", false),
            ("(fwd)", "", true),
            ("Return: to sender", "RETURN: TO SENDER", false),
            ("=?utf-8?q?Re=3A_Gr=C3=BC=C3=9Fe?=", "GRU\u{308}\u{df}E", true),
            ("fw: GRU\u{308}\u{df}e", "GRU\u{308}\u{df}E", true),
        ] {
            assert_eq!(BaseSubject::of(subject.as_bytes()), BaseSubject { text: text.into(), is_reply }, "{subject}");
        }
    }

    #[test]
    fn long_subjects_cost_no_more_than_their_length() {
        for part in ["[a] ", "re: ", "[fwd:", "(fwd) ", "[", "re[", "[a] re"] {
            BaseSubject::of(part.repeat(50_000).as_bytes());
        }
    }

    proptest! {
        #[test]
        fn no_subject_panics(words in proptest::collection::vec(prop_oneof![
            Just("re:"), Just("[Fwd:"), Just("]"), Just("["), Just("(fwd)"), Just(" "), Just("ä"), Just("x")
        ], 0..20)) {
            let base = BaseSubject::of(words.concat().as_bytes());
            prop_assert_eq!(base.text.trim_end(), base.text.as_str());
        }
    }
}

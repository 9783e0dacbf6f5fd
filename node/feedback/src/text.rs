//! Words of others, as they may stand in a report.

/// The beginning of a text, of at most so many bytes, cut between characters. What XML can't have, what ends a line and what turns
/// the direction of writing is a question mark.
pub(crate) fn harmless(text: &str, max_bytes: usize) -> String {
    // A question mark is never longer than what it stands for.
    text[..text.floor_char_boundary(max_bytes)].chars().map(|c| if is_harmful(c) { '?' } else { c }).collect()
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
        || matches!(c, '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_nothing_in_it_ends_a_line_or_an_element() {
        assert_eq!(harmless("a\r\nb\0c\u{7f}\u{85}\u{202e}\u{fffe}\u{2028}", 99), "a??b?c?????");
        assert_eq!(harmless("äöü", 3), "ä");
        assert_eq!(harmless("äöü", 4), "äö");
        assert_eq!(harmless("<a>&\"'", 99), "<a>&\"'");
        assert_eq!(harmless("", 0), "");
    }
}

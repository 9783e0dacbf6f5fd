//! The flags of a message.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The most keywords one message may have.
pub const KEYWORDS_MAX: usize = 64;
/// The longest keyword, in bytes.
pub const KEYWORD_MAX_BYTES: usize = 128;

/// A flag that RFC 3501, section 2.3.2 defines and clients may set. (\Recent is no flag of a message here.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum SystemFlag {
    /// \Seen
    Seen = 1,
    /// \Answered
    Answered = 2,
    /// \Flagged
    Flagged = 4,
    /// \Deleted
    Deleted = 8,
    /// \Draft
    Draft = 16,
}

impl SystemFlag {
    /// All of them, in the order they are printed.
    pub const ALL: [SystemFlag; 5] =
        [SystemFlag::Answered, SystemFlag::Flagged, SystemFlag::Deleted, SystemFlag::Seen, SystemFlag::Draft];

    /// The flag as it is printed.
    pub fn name(self) -> &'static str {
        match self {
            SystemFlag::Seen => "\\Seen",
            SystemFlag::Answered => "\\Answered",
            SystemFlag::Flagged => "\\Flagged",
            SystemFlag::Deleted => "\\Deleted",
            SystemFlag::Draft => "\\Draft",
        }
    }
}

/// A set of flags: system flags as bits, keywords by their name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Flags {
    bits: u8,
    keywords: BTreeSet<String>,
}

impl Flags {
    /// No flag.
    pub fn none() -> Self {
        Self::default()
    }

    /// With a system flag.
    pub fn with(mut self, flag: SystemFlag) -> Self {
        self.bits |= flag as u8;
        self
    }

    /// With a keyword, as the client spelt it. A keyword that differs only in case is the same: the first
    /// spelling stays.
    pub fn with_keyword(mut self, keyword: &str) -> Self {
        self.add_keyword(keyword);
        self
    }

    /// Whether a system flag is set.
    pub fn has(&self, flag: SystemFlag) -> bool {
        self.bits & flag as u8 != 0
    }

    /// Whether a keyword is set, whatever its case.
    pub fn has_keyword(&self, keyword: &str) -> bool {
        self.keywords.iter().any(|k| k.eq_ignore_ascii_case(keyword))
    }

    /// The keywords, in a fixed order.
    pub fn keywords(&self) -> impl Iterator<Item = &str> {
        self.keywords.iter().map(String::as_str)
    }

    /// How many keywords.
    pub fn keyword_count(&self) -> usize {
        self.keywords.len()
    }

    /// Whether no flag is set.
    pub fn is_empty(&self) -> bool {
        self.bits == 0 && self.keywords.is_empty()
    }

    /// These and the others.
    pub fn union(mut self, others: &Flags) -> Self {
        self.bits |= others.bits;
        for keyword in &others.keywords {
            self.add_keyword(keyword);
        }
        self
    }

    /// These without the others.
    pub fn minus(mut self, others: &Flags) -> Self {
        self.bits &= !others.bits;
        self.keywords.retain(|k| !others.has_keyword(k));
        self
    }

    /// Names as printed in a FLAGS list: system flags first.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for flag in SystemFlag::ALL {
            if self.has(flag) {
                names.push(flag.name());
            }
        }
        names.extend(self.keywords());
        names
    }

    fn add_keyword(&mut self, keyword: &str) {
        if !self.has_keyword(keyword) {
            self.keywords.insert(keyword.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_ignore_case_and_keep_their_first_spelling() {
        let flags = Flags::none().with(SystemFlag::Seen).with_keyword("$Forwarded").with_keyword("$forwarded");
        assert_eq!(flags.names(), ["\\Seen", "$Forwarded"]);
        let rest = flags.minus(&Flags::none().with_keyword("$FORWARDED"));
        assert_eq!(rest, Flags::none().with(SystemFlag::Seen));
    }
}

//! The flags of a message.

use std::collections::BTreeSet;
use std::sync::Arc;

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

/// A set of flags: system flags as bits, keywords by their name. Copies share their keywords, which may be a thousand times
/// as large as the rest of a message in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Flags {
    bits: u8,
    #[serde(with = "keyword_set")]
    keywords: Option<Arc<BTreeSet<String>>>,
}

/// Makes equal sets of keywords one in memory, wherever they come from.
#[derive(Debug, Default)]
pub struct KeywordSharing {
    sets: BTreeSet<Arc<BTreeSet<String>>>,
}

/// What keywords take in memory, in bytes, roughly: those that are shared count once.
#[derive(Debug, Default)]
pub(crate) struct KeywordMemory {
    seen: BTreeSet<usize>,
    bytes: usize,
}

impl KeywordMemory {
    /// What a keyword takes beside its text, in bytes, roughly.
    const KEYWORD_BYTES: usize = 56;

    /// Counts those of a message.
    pub fn count(&mut self, flags: &Flags) {
        if let Some(keywords) = &flags.keywords
            && self.seen.insert(Arc::as_ptr(keywords).addr())
        {
            self.bytes += keywords.iter().map(|k| k.len() + Self::KEYWORD_BYTES).sum::<usize>();
        }
    }

    /// All that was counted.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl KeywordSharing {
    /// These flags now share their keywords with all equal ones that came before.
    pub fn share(&mut self, flags: &mut Flags) {
        let Some(keywords) = &mut flags.keywords else { return };
        match self.sets.get(keywords) {
            Some(known) => *keywords = Arc::clone(known),
            None => drop(self.sets.insert(Arc::clone(keywords))),
        }
    }
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
        self.keywords().any(|k| k.eq_ignore_ascii_case(keyword))
    }

    /// The keywords, in a fixed order.
    pub fn keywords(&self) -> impl Iterator<Item = &str> {
        self.keywords.iter().flat_map(|set| set.iter().map(String::as_str))
    }

    /// How many keywords.
    pub fn keyword_count(&self) -> usize {
        self.keywords.as_ref().map_or(0, |set| set.len())
    }

    /// Whether no flag is set.
    pub fn is_empty(&self) -> bool {
        self.bits == 0 && self.keywords.is_none()
    }

    /// These and the others.
    pub fn union(mut self, others: &Flags) -> Self {
        self.bits |= others.bits;
        match self.keywords {
            None => self.keywords.clone_from(&others.keywords),
            Some(_) => others.keywords().for_each(|keyword| self.add_keyword(keyword)),
        }
        self
    }

    /// These without the others.
    pub fn minus(mut self, others: &Flags) -> Self {
        self.bits &= !others.bits;
        if self.keywords().any(|k| others.has_keyword(k)) {
            let left: BTreeSet<String> =
                self.keywords().filter(|k| !others.has_keyword(k)).map(str::to_owned).collect();
            self.keywords = (!left.is_empty()).then(|| Arc::new(left));
        }
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
            Arc::make_mut(self.keywords.get_or_insert_default()).insert(keyword.to_owned());
        }
    }

    /// The same in another place of memory: equal flags that do not share.
    #[cfg(test)]
    fn unshared(&self) -> Flags {
        self.keywords().fold(Flags { bits: self.bits, keywords: None }, Flags::with_keyword)
    }

    /// Whether both have one set of keywords in memory.
    #[cfg(test)]
    pub(crate) fn shares_with(&self, other: &Flags) -> bool {
        match (&self.keywords, &other.keywords) {
            (Some(own), Some(others)) => Arc::ptr_eq(own, others),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

/// Written as the set itself, empty where there are no keywords.
mod keyword_set {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(keywords: &Option<Arc<BTreeSet<String>>>, to: S) -> Result<S::Ok, S::Error> {
        match keywords {
            Some(set) => set.serialize(to),
            None => BTreeSet::<String>::new().serialize(to),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Arc<BTreeSet<String>>>, D::Error> {
        let set = BTreeSet::deserialize(from)?;
        Ok((!set.is_empty()).then(|| Arc::new(set)))
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
    #[test]
    fn equal_keywords_are_one_in_memory() {
        let some = Flags::none().with(SystemFlag::Seen).with_keyword("a").with_keyword("b");
        let mut same = some.unshared();
        assert!(same == some && !same.shares_with(&some) && some.clone().shares_with(&some));
        assert!(Flags::none().union(&some).shares_with(&some) && some.clone().union(&same).shares_with(&some));
        let others = Flags::none().with_keyword("c");
        assert!(some.clone().minus(&others).shares_with(&some));
        let mut sharing = KeywordSharing::default();
        for flags in [&mut some.clone(), &mut same, &mut others.clone(), &mut Flags::none()] {
            sharing.share(flags);
        }
        assert!(same.shares_with(&some));
    }
}

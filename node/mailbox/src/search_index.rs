//! The index for searches: of each message a *filter* that tells which texts the message lacks, so that it need not be read
//! for these. It is an aid in the owner's memory and nothing of it is a row: whoever reads messages to search them brings
//! their filters, a message without one is read, and so is what a filter does not rule out. A filter goes with the last
//! place of its message, and all of them with the owner.
//!
//! A filter knows grams (`node/message/src/grams.rs`) by places that depend on a key, which is derived from the mailbox's.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mailraft_storage::seal::Key;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::email_id::EmailId;
use crate::folders::FolderId;
use crate::uids::UidSet;

/// Which texts of a message a search goes through, how they are decoded, and how that is asked about: a number for each way. Nodes
/// of another version that do it otherwise neither bring filters nor use them.
pub const MATCHER: u32 = 2;
/// Places of grams.
pub const PLACES: usize = 1 << 18;
/// Bits of a filter for each place that it has: of the places that it has not it rules out 85 in 100.
pub const FILTER_BITS_OF_A_PLACE: usize = 6;
/// The longest filter, in bytes.
pub const FILTER_MAX_BYTES: usize = PLACES / 8;
/// What a filter takes in memory beside its bits, in bytes, roughly.
pub const FILTER_MEMORY_BYTES: usize = 112;
/// The filters of one mailbox, in bytes: those of some 100,000 messages of 2 KiB. What comes past it is read.
pub const INDEX_MAX_BYTES: usize = 64 << 20;
/// The filters that one question brings.
pub const FILTERS_AT_ONCE_MAX: usize = 4_096;
/// The texts that one question is about; what else is looked for nothing is known of.
pub const NARROWED_TEXTS_MAX: usize = 16;
/// The places of each: a message that has the first so many grams of a longer text is read.
pub const NARROWED_PLACES_MAX: usize = 64;
/// The messages that one question is about,
pub const NARROWED_MESSAGES_MAX: usize = 8_192;
/// and so many places in all of them together: some milliseconds.
const NARROWED_LOOKS_MAX: usize = 1 << 20;

/// Where the key of grams differs from all other keys that are derived from a mailbox's.
const GRAM_KEY_LABEL: &str = "search index: places of grams";
/// Parts of the index by the first byte of a message's id: a change copies few while a question is being answered.
const SHARDS: usize = 256;

/// What is asked about the index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SearchQuestion {
    /// What the places of grams depend on.
    Key {
        /// Whoever asks notes the grams of what this matcher goes through: see [`MATCHER`].
        matcher: u32,
    },
    /// Which messages of a folder lack texts.
    Narrow {
        /// The folder.
        folder: FolderId,
        /// The messages: at most [`narrowed_at_once`].
        uids: UidSet,
        /// Of each text places of its grams: at most [`NARROWED_TEXTS_MAX`], of [`NARROWED_PLACES_MAX`] each.
        texts: Vec<Vec<u32>>,
    },
    /// Brings filters, at most [`FILTERS_AT_ONCE_MAX`].
    Add {
        /// Of each message that was read.
        filters: Vec<(EmailId, Filter)>,
    },
}

/// What is answered; to [`SearchQuestion::Add`] only that it is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SearchAnswer {
    /// To Key.
    Key(GramSeed),
    /// To Narrow.
    Narrowed {
        /// The messages that have a filter.
        indexed: UidSet,
        /// Of each text those that lack it for certain.
        lacking: Vec<UidSet>,
    },
}

/// Random bytes that the places of grams depend on; never printed.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct GramSeed(Zeroizing<Vec<u8>>);

impl GramSeed {
    /// Bytes of a seed: four for each value of three bytes.
    pub const BYTES: usize = 3 * 256 * 4;

    /// That of a mailbox, by its key.
    pub(crate) fn of(mailbox_key: &Key) -> Self {
        let key = mailbox_key.derive(GRAM_KEY_LABEL);
        let mut seed = Zeroizing::new(Vec::with_capacity(Self::BYTES));
        let mut number = 0_u64;
        while seed.len() < Self::BYTES {
            seed.extend_from_slice(&key.keyed_hash(&[&number.to_be_bytes()]));
            number += 1;
        }
        GramSeed(seed)
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for GramSeed {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("GramSeed(..)")
    }
}

/// What a message may hold: a bit for some places each. It is wiped when it goes.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Filter(Zeroizing<Vec<u8>>);

impl Filter {
    /// That of a message whose texts have the grams of these places: a bit for each of [`PLACES`].
    ///
    /// # Panics
    /// If they are not so many.
    pub fn of(marks: &[u64]) -> Self {
        assert_eq!(marks.len() * 64, PLACES, "a bit for each place");
        let places: usize = marks.iter().map(|marks| marks.count_ones() as usize).sum();
        let bytes = (places * FILTER_BITS_OF_A_PLACE).div_ceil(8).clamp(1, FILTER_MAX_BYTES);
        let mut bits = Zeroizing::new(vec![0; bytes]);
        for (n, &word) in marks.iter().enumerate() {
            let mut left = word;
            while left != 0 {
                let bit = bit_of(n * 64 + left.trailing_zeros() as usize, bytes);
                bits[bit / 8] |= 1 << (bit % 8);
                left &= left - 1;
            }
        }
        Filter(bits)
    }

    /// Whether the message may hold a text whose grams have these places.
    pub fn may_hold(&self, places: &[u32]) -> bool {
        let has = |place: &u32| {
            let bit = bit_of(*place as usize % PLACES, self.0.len());
            self.0.get(bit / 8).is_none_or(|byte| byte >> (bit % 8) & 1 == 1)
        };
        places.iter().all(has)
    }

    /// What it takes in memory, in bytes, roughly.
    pub fn memory_bytes(&self) -> usize {
        self.0.len() + FILTER_MEMORY_BYTES
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Filter({} bytes)", self.0.len())
    }
}

/// Which bit of a filter of so many bytes says whether it has a place.
fn bit_of(place: usize, bytes: usize) -> usize {
    place * bytes * 8 / PLACES
}

type Shard = BTreeMap<EmailId, Arc<Filter>>;

/// The filters of one mailbox. A copy costs nothing, and does not change.
#[derive(Clone)]
pub(crate) struct SearchIndex {
    shards: Arc<Vec<Arc<Shard>>>,
    bytes: usize,
    max_bytes: usize,
}

/// There is no room for a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexFull;

impl Default for SearchIndex {
    fn default() -> Self {
        SearchIndex { shards: Arc::new(vec![Arc::default(); SHARDS]), bytes: 0, max_bytes: INDEX_MAX_BYTES }
    }
}

impl fmt::Debug for SearchIndex {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "SearchIndex({} bytes)", self.bytes)
    }
}

impl SearchIndex {
    /// What it takes in memory, in bytes, roughly.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Puts a message's filter in the place of whatever it had.
    pub fn add(&mut self, email: EmailId, filter: Filter) -> Result<(), IndexFull> {
        let bytes = filter.memory_bytes();
        if self.bytes + bytes > self.max_bytes {
            return Err(IndexFull);
        }
        let before = self.shard(email).insert(email, Arc::new(filter));
        self.bytes += bytes;
        self.bytes -= before.map_or(0, |before| before.memory_bytes());
        Ok(())
    }

    /// A message is no more.
    pub fn remove(&mut self, email: EmailId) {
        if self.get(email).is_some() {
            let gone = self.shard(email).remove(&email);
            self.bytes -= gone.map_or(0, |gone| gone.memory_bytes());
        }
    }

    /// Forgets all of it.
    pub fn clear(&mut self) {
        *self = SearchIndex { max_bytes: self.max_bytes, ..SearchIndex::default() };
    }

    /// Which of these messages have a filter, and which of them lack each of these texts.
    pub fn narrow(&self, messages: &[(u32, EmailId)], texts: &[Vec<u32>]) -> SearchAnswer {
        let mut indexed = UidSet::new();
        let mut lacking = vec![UidSet::new(); texts.len()];
        for (uid, email) in messages {
            let Some(filter) = self.get(*email) else { continue };
            indexed.insert(*uid);
            for (places, lacking) in texts.iter().zip(&mut lacking) {
                if !filter.may_hold(places) {
                    lacking.insert(*uid);
                }
            }
        }
        SearchAnswer::Narrowed { indexed, lacking }
    }

    fn get(&self, email: EmailId) -> Option<&Arc<Filter>> {
        self.shards[usize::from(email.0[0])].get(&email)
    }

    fn shard(&mut self, email: EmailId) -> &mut Shard {
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[usize::from(email.0[0])])
    }
}

/// How many messages one question may be about that looks for these texts.
pub fn narrowed_at_once(texts: &[Vec<u32>]) -> usize {
    let places: usize = texts.iter().map(Vec::len).sum();
    (NARROWED_LOOKS_MAX / places.max(1)).clamp(1, NARROWED_MESSAGES_MAX)
}

/// Whether a question is as large as one may be, and of whoever searches like us.
pub(crate) fn is_within_bounds(question: &SearchQuestion) -> bool {
    match question {
        SearchQuestion::Key { matcher } => *matcher == MATCHER,
        SearchQuestion::Narrow { uids, texts, .. } => {
            texts.len() <= NARROWED_TEXTS_MAX
                && texts.iter().all(|places| places.len() <= NARROWED_PLACES_MAX)
                && uids.len() <= narrowed_at_once(texts) as u64
        }
        SearchQuestion::Add { filters } => {
            let fits = |(_, filter): &(EmailId, Filter)| (1..=FILTER_MAX_BYTES).contains(&filter.0.len());
            filters.len() <= FILTERS_AT_ONCE_MAX && filters.iter().all(fits)
        }
    }
}

/// What a question takes beside itself, in bytes, roughly.
pub(crate) fn question_bytes(question: &SearchQuestion) -> usize {
    match question {
        SearchQuestion::Key { .. } => 0,
        SearchQuestion::Narrow { uids, texts, .. } => {
            let places = texts.iter().map(|places| size_of_val(places) + size_of_val(places.as_slice()));
            size_of_val(uids.ranges()) + places.sum::<usize>()
        }
        SearchQuestion::Add { filters } => filters_bytes(filters),
    }
}

/// What filters take in memory, in bytes, roughly.
pub fn filters_bytes(filters: &[(EmailId, Filter)]) -> usize {
    filters.iter().map(|(_, filter)| filter.memory_bytes()).sum()
}

/// What an answer takes beside itself, in bytes, roughly.
pub(crate) fn answer_bytes(answer: &SearchAnswer) -> usize {
    match answer {
        SearchAnswer::Key(seed) => seed.0.len(),
        SearchAnswer::Narrowed { indexed, lacking } => {
            let set = |uids: &UidSet| size_of_val(uids) + size_of_val(uids.ranges());
            set(indexed) + lacking.iter().map(set).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn marks(places: &[u32]) -> Vec<u64> {
        let mut marks = vec![0; PLACES / 64];
        places.iter().for_each(|place| marks[*place as usize / 64] |= 1 << (place % 64));
        marks
    }

    fn email(n: u32) -> EmailId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_le_bytes());
        EmailId(id)
    }

    #[test]
    fn a_filter_rules_most_out_that_it_has_not() {
        // 700 places, spread as a hash spreads them, and others.
        let spread = |n: u32| n.wrapping_mul(2_654_435_761) >> 14;
        let filter = Filter::of(&marks(&(0..700).map(spread).collect::<Vec<_>>()));
        assert!((0..700).all(|n| filter.may_hold(&[spread(n)])));
        let wrong = (700..10_700).filter(|n| filter.may_hold(&[spread(*n)])).count();
        assert!((1_000..2_000).contains(&wrong), "{wrong} of 10,000");
        assert_eq!(filter.memory_bytes() - FILTER_MEMORY_BYTES, 525);
        assert_eq!(format!("{filter:?}"), "Filter(525 bytes)");
        assert!(filter.may_hold(&[]), "of a text without grams nothing is known");
        let full = Filter::of(&vec![u64::MAX; PLACES / 64]);
        assert_eq!(full.memory_bytes(), FILTER_MAX_BYTES + FILTER_MEMORY_BYTES);
        assert!(!Filter::of(&marks(&[])).may_hold(&[7]), "a message without texts lacks every text");
    }

    #[test]
    fn the_index_is_bounded_and_counts_what_it_has() {
        let one = || Filter::of(&marks(&[1, 2, 3]));
        let bytes = one().memory_bytes();
        let mut index = SearchIndex { max_bytes: 3 * bytes, ..SearchIndex::default() };
        let before = index.clone();
        assert!((0..3).all(|n| index.add(email(n), one()).is_ok()));
        assert_eq!((index.add(email(3), one()), index.memory_bytes()), (Err(IndexFull), 3 * bytes));
        index.remove(email(1));
        index.remove(email(1));
        assert_eq!(index.memory_bytes(), 2 * bytes);
        assert_eq!((index.add(email(2), one()), index.memory_bytes()), (Ok(()), 2 * bytes));
        assert_eq!(before.memory_bytes(), 0, "a copy does not change");
        let messages = [(4, email(0)), (5, email(1)), (6, email(2)), (7, email(3))];
        let SearchAnswer::Narrowed { indexed, lacking } = index.narrow(&messages, &[vec![1], vec![200_000], vec![]])
        else {
            panic!("that is no answer")
        };
        assert_eq!(indexed.iter().collect::<Vec<_>>(), [4, 6]);
        assert_eq!(lacking, [UidSet::new(), indexed, UidSet::new()]);
        index.clear();
        assert_eq!((index.memory_bytes(), index.max_bytes), (0, 3 * bytes));
    }

    #[test]
    fn a_question_is_bounded() {
        let narrow = |texts: usize, places: usize, messages: u32| {
            let texts = vec![vec![0; places]; texts];
            let at_once = narrowed_at_once(&texts);
            let uids = UidSet::range(7, 6 + messages);
            (is_within_bounds(&SearchQuestion::Narrow { folder: FolderId(1), uids, texts }), at_once)
        };
        assert_eq!(narrow(NARROWED_TEXTS_MAX, NARROWED_PLACES_MAX, 1_024), (true, 1_024));
        assert_eq!(narrow(NARROWED_TEXTS_MAX, NARROWED_PLACES_MAX, 1_025), (false, 1_024));
        assert_eq!(narrow(1, 5, 8_192), (true, NARROWED_MESSAGES_MAX));
        assert_eq!(narrow(1, 5, 8_193), (false, NARROWED_MESSAGES_MAX));
        assert!(!narrow(NARROWED_TEXTS_MAX + 1, 1, 1).0 && !narrow(1, NARROWED_PLACES_MAX + 1, 1).0);
        let add = |count: usize, bytes: usize| {
            let filter = Filter(Zeroizing::new(vec![0; bytes]));
            is_within_bounds(&SearchQuestion::Add { filters: vec![(email(1), filter); count] })
        };
        assert!(add(FILTERS_AT_ONCE_MAX, 1) && add(1, FILTER_MAX_BYTES));
        assert!(!add(FILTERS_AT_ONCE_MAX + 1, 1) && !add(1, FILTER_MAX_BYTES + 1) && !add(1, 0));
    }

    #[test]
    fn a_seed_is_the_mailboxs_own_and_never_printed() {
        let of = |n: u8| GramSeed::of(&Key::from_bytes([n; 32]));
        assert_eq!((of(1).expose().len(), of(1)), (GramSeed::BYTES, of(1)));
        assert_ne!(of(1), of(2));
        assert_ne!(of(1).expose()[..32], of(1).expose()[32..64]);
        assert_eq!(format!("{:?}", of(1)), "GramSeed(..)");
    }

    proptest! {
        #[test]
        fn a_filter_never_rules_out_what_a_message_has(
            places in proptest::collection::vec(0..PLACES as u32, 0..300), from in 0usize..300, count in 0usize..9,
        ) {
            let of_text = &places[from.min(places.len())..(from + count).min(places.len())];
            prop_assert!(Filter::of(&marks(&places)).may_hold(of_text));
        }
    }
}

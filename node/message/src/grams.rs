//! Which *grams* a text has: three bytes in a row, of text that is decoded and in lower case. A text that holds a word has
//! each of the word's grams; one that lacks a gram need not be read to know that it lacks the word.
//!
//! A gram is known by its place among [`PLACES`] alone, which depends on a key: several grams share each place, so that what
//! is noted says only that a gram may be there, and to whoever lacks the key not even that.

/// Raised whenever a search goes through other texts of a message than before, or decodes them otherwise, whenever grams or their
/// places are other ones, and whenever they are asked about otherwise: what was noted before says nothing of a message then.
pub const MATCHER: u32 = 2;
/// Places of grams.
pub const PLACES: usize = 1 << 18;
/// A gram, in bytes; shorter words have none.
pub const GRAM_BYTES: usize = 3;
/// What a key is made of, in bytes: four for each value of each byte of a gram.
pub const KEY_BYTES: usize = GRAM_BYTES * 256 * 4;

/// Where grams have their places.
#[allow(missing_debug_implementations)] // It is a key.
pub struct GramKey(Box<[[u32; 256]; GRAM_BYTES]>);

impl GramKey {
    /// A key of random bytes; None if they are not [`KEY_BYTES`].
    pub fn new(random: &[u8]) -> Option<Self> {
        if random.len() != KEY_BYTES {
            return None;
        }
        let mut tables = Box::new([[0; 256]; GRAM_BYTES]);
        for (value, bytes) in tables.iter_mut().flatten().zip(random.chunks_exact(4)) {
            *value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) % PLACES as u32;
        }
        Some(GramKey(tables))
    }

    /// The places of a word's grams, each once; none if the word is shorter than a gram.
    pub fn places(&self, word: &str) -> Vec<u32> {
        let grams = word.as_bytes().windows(GRAM_BYTES);
        let mut places: Vec<u32> = grams.map(|gram| self.place(gram[0], gram[1], gram[2])).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    fn place(&self, first: u8, second: u8, third: u8) -> u32 {
        self.0[0][usize::from(first)] ^ self.0[1][usize::from(second)] ^ self.0[2][usize::from(third)]
    }
}

impl Drop for GramKey {
    fn drop(&mut self) {
        *self.0 = [[0; 256]; GRAM_BYTES];
        // What is not read any more is written all the same.
        std::hint::black_box(&self.0);
    }
}

/// The grams of a message's texts, as they come.
#[allow(missing_debug_implementations)] // It tells of mail.
pub struct Grams {
    key: GramKey,
    marks: Vec<u64>,
    /// The last bytes of a text that goes on.
    before: [u8; GRAM_BYTES - 1],
    held: usize,
}

impl Grams {
    /// None yet.
    pub fn new(key: GramKey) -> Self {
        Grams { key, marks: vec![0; PLACES / 64], before: [0; GRAM_BYTES - 1], held: 0 }
    }

    /// Where they have their places.
    pub fn key(&self) -> &GramKey {
        &self.key
    }

    /// Forgets all, for another message.
    pub fn clear(&mut self) {
        self.marks.fill(0);
        self.end_text();
    }

    /// The text goes on with this.
    pub fn feed(&mut self, text: &str) {
        for &byte in text.as_bytes() {
            let [first, second] = self.before;
            if self.held == GRAM_BYTES - 1 {
                let place = self.key.place(first, second, byte) as usize;
                self.marks[place / 64] |= 1 << (place % 64);
            } else {
                self.held += 1;
            }
            self.before = [second, byte];
        }
    }

    /// A word neither ends nor begins across this.
    pub fn end_text(&mut self) {
        (self.before, self.held) = ([0; GRAM_BYTES - 1], 0);
    }

    /// The places of all that came: a bit for each, the lowest of each number first.
    pub fn marks(&self) -> &[u64] {
        &self.marks
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// A key whose places are spread.
    fn key() -> GramKey {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        GramKey::new(&(0..KEY_BYTES).map(|_| next()).collect::<Vec<u8>>()).unwrap()
    }

    fn has_all(grams: &Grams, word: &str) -> bool {
        let has = |place: &u32| grams.marks()[*place as usize / 64] >> (place % 64) & 1 == 1;
        grams.key().places(word).iter().all(has)
    }

    #[test]
    fn a_key_has_all_its_bytes_and_a_short_word_no_gram() {
        assert!(GramKey::new(&[0; KEY_BYTES - 1]).is_none() && GramKey::new(&[0; KEY_BYTES + 1]).is_none());
        let key = key();
        assert!(key.places("").is_empty() && key.places("ab").is_empty());
        assert_eq!((key.places("abc").len(), key.places("aaaaaa").len()), (1, 1));
        assert!(key.places("\u{20ac}").iter().all(|place| (*place as usize) < PLACES));
    }

    #[test]
    fn a_text_of_other_words_lacks_a_word() {
        let mut grams = Grams::new(key());
        grams.feed("some words that nobody looks for");
        grams.end_text();
        assert!(has_all(&grams, "nobody") && !has_all(&grams, "nowhere"));
        // Texts have no gram together.
        grams.clear();
        assert!(grams.marks().iter().all(|marks| *marks == 0));
        grams.feed("ab");
        grams.end_text();
        grams.feed("c");
        assert!(!has_all(&grams, "abc"));
        grams.clear();
        grams.feed("ab");
        grams.feed("");
        grams.feed("c");
        assert!(has_all(&grams, "abc"));
    }

    proptest! {
        #[test]
        fn whatever_a_text_holds_it_has_the_grams_of_however_it_comes(
            before in "\\PC{0,20}", word in "\\PC{0,8}", after in "\\PC{0,20}", size in 1usize..9,
        ) {
            let mut grams = Grams::new(key());
            let text: Vec<char> = [before, word.clone(), after].concat().chars().collect();
            text.chunks(size).for_each(|piece| grams.feed(&piece.iter().collect::<String>()));
            prop_assert!(has_all(&grams, &word));
        }
    }
}

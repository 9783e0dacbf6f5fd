//! What the mailbox's index for searches tells of messages before they are read, and what it is told of those that are.
//! Without it, or where it can't be asked, everything is read.

use mailraft_mailbox::api::{EmailId, FolderId};
use mailraft_mailbox::search_index::{
    self, FILTERS_AT_ONCE_MAX, Filter, NARROWED_PLACES_MAX, NARROWED_TEXTS_MAX, SearchAnswer, SearchQuestion,
    filters_bytes, narrowed_at_once,
};
use mailraft_mailbox::{Answer, Command, UidSet};
use mailraft_message::grams::{GramKey, Grams, MATCHER, PLACES};

use crate::store::Mailstore;

const _: () = assert!(PLACES == search_index::PLACES, "both mean the same places");
const _: () = assert!(MATCHER == search_index::MATCHER, "both mean the same texts");

/// Filters are brought when there are so many bytes of them.
const FILTERS_AT_ONCE_BYTES: usize = 128 << 10;

/// What is known of the messages of a folder.
#[derive(Default)]
pub(crate) struct Narrowing {
    indexed: UidSet,
    /// Of each text that is looked for, as far as the index was asked.
    lacking: Vec<UidSet>,
    /// None where no filters are wanted.
    grams: Option<Grams>,
    filters: Vec<(EmailId, Filter)>,
    bytes: usize,
}

impl Narrowing {
    /// Asks which of these messages of a folder, UIDs rising, lack each of these texts.
    pub(crate) async fn ask<S: Mailstore>((folder, uids): (FolderId, &[u32]), texts: &[&str], store: &mut S) -> Self {
        let key = match store.ask(Command::Search(SearchQuestion::Key { matcher: MATCHER })).await {
            Ok(Answer::Search(SearchAnswer::Key(seed))) => GramKey::new(seed.expose()),
            // One that is too old has no index.
            Ok(_) | Err(_) => None,
        };
        let Some(key) = key else { return Narrowing::default() };
        let some_of = |text: &&str| {
            let mut places = key.places(text);
            places.truncate(NARROWED_PLACES_MAX);
            places
        };
        let texts: Vec<Vec<u32>> = texts.iter().take(NARROWED_TEXTS_MAX).map(some_of).collect();
        let lacking = vec![UidSet::new(); texts.len()];
        let mut known = Narrowing { lacking, grams: Some(Grams::new(key)), ..Narrowing::default() };
        for uids in uids.chunks(narrowed_at_once(&texts)) {
            let question =
                SearchQuestion::Narrow { folder, uids: uids.iter().copied().collect(), texts: texts.clone() };
            match store.ask(Command::Search(question)).await {
                Ok(Answer::Search(SearchAnswer::Narrowed { indexed, lacking })) => known.learn(&indexed, &lacking),
                // Of the rest nothing is known.
                Ok(_) | Err(_) => {
                    known.grams = None;
                    break;
                }
            }
        }
        known
    }

    /// Of messages above all that were asked about.
    fn learn(&mut self, indexed: &UidSet, lacking: &[UidSet]) {
        indexed.iter().for_each(|uid| self.indexed.insert(uid));
        for (known, lacking) in self.lacking.iter_mut().zip(lacking) {
            lacking.iter().for_each(|uid| known.insert(uid));
        }
    }

    /// Which of the texts a message lacks for certain, put where others were.
    pub(crate) fn lacks(&self, uid: u32, lacks: &mut Vec<bool>) {
        lacks.clear();
        lacks.extend(self.lacking.iter().map(|lacking| lacking.contains(uid)));
    }

    /// Where to note the grams of a message that is read, if the index wants to know them.
    pub(crate) fn grams_of(&mut self, uid: u32) -> Option<&mut Grams> {
        let grams = self.grams.as_mut().filter(|_| !self.indexed.contains(uid))?;
        grams.clear();
        Some(grams)
    }

    /// All of a message but its header was noted.
    pub(crate) async fn read<S: Mailstore>(&mut self, email: EmailId, header_text: &str, store: &mut S) {
        let Some(grams) = &mut self.grams else { return };
        grams.feed(header_text);
        grams.end_text();
        self.filters.push((email, Filter::of(grams.marks())));
        self.bytes += self.filters.last().map_or(0, |(_, filter)| filter.memory_bytes());
        if self.bytes >= FILTERS_AT_ONCE_BYTES || self.filters.len() >= FILTERS_AT_ONCE_MAX {
            self.bring(store).await;
        }
    }

    /// Brings what was not brought yet.
    pub(crate) async fn bring<S: Mailstore>(&mut self, store: &mut S) {
        if self.filters.is_empty() {
            return;
        }
        debug_assert_eq!(self.bytes, filters_bytes(&self.filters));
        self.bytes = 0;
        let filters = std::mem::take(&mut self.filters);
        if store.ask(Command::Search(SearchQuestion::Add { filters })).await.is_err() {
            // It has no room for more.
            self.grams = None;
        }
    }
}

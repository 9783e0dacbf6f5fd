//! What a session has heard of folders and not looked at yet, while it is busy with something else.

use crate::notice::{FolderNews, Notice};
use crate::sizes::notice_bytes;

/// Notices that may wait, in bytes: 500 names of the usual kind. Past that a session compares all folders with what it knows.
pub const WAITING_MAX_BYTES: usize = 128 << 10;

/// Notices in their order, bounded.
#[derive(Debug, Default)]
pub struct WaitingNotices {
    notices: Vec<Notice>,
    bytes: usize,
}

impl WaitingNotices {
    /// One more.
    pub fn push(&mut self, notice: Notice) {
        match &notice {
            // Whoever compares everything needs to know nothing else.
            Notice::Anew => self.clear(),
            Notice::ListIsHere => self.notices.retain(|waits| *waits != Notice::ListIsHere),
            Notice::OfOthers(_) | Notice::Own(_) if self.notices.last() == Some(&Notice::Anew) => return,
            // Looked at once, it is known however often it happened.
            Notice::OfOthers(FolderNews::Messages(_) | FolderNews::Flags(_))
                if self.notices.last() == Some(&notice) =>
            {
                return;
            }
            Notice::OfOthers(_) | Notice::Own(_) => {}
        }
        let bytes = notice_bytes(&notice);
        if self.bytes + bytes > WAITING_MAX_BYTES {
            self.clear();
            return self.notices.push(Notice::Anew);
        }
        self.bytes += bytes;
        self.notices.push(notice);
    }

    /// Those that wait.
    pub fn take(&mut self) -> Vec<Notice> {
        self.bytes = 0;
        std::mem::take(&mut self.notices)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.notices.is_empty()
    }

    fn clear(&mut self) {
        (self.notices, self.bytes) = (Vec::new(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folders::FolderId;

    fn messages(folder: u32) -> Notice {
        Notice::OfOthers(FolderNews::Messages(FolderId(folder)))
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_past_that_everything_is_compared() {
        let mut waiting = WaitingNotices::default();
        for folder in 0..10_000 {
            waiting.push(messages(folder));
            assert!(waiting.notices.len() * notice_bytes(&messages(folder)) <= WAITING_MAX_BYTES);
        }
        assert_eq!(waiting.take(), [Notice::Anew], "and what came behind is in the comparison too");
        waiting.push(messages(1));
        assert_eq!(waiting.take(), [messages(1)]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn what_came_behind_a_list_is_not_in_it() {
        let mut waiting = WaitingNotices::default();
        let heard =
            [Notice::Anew, messages(1), Notice::ListIsHere, messages(2), messages(2), Notice::ListIsHere, messages(3)];
        heard.into_iter().for_each(|notice| waiting.push(notice));
        assert_eq!(waiting.take(), [Notice::Anew, messages(2), Notice::ListIsHere, messages(3)]);
    }
}

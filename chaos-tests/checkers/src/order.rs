//! Whether positions in the log follow real time.

use crate::history::{At, Ended, Micros};
use crate::journal::Journal;
use crate::operation::{MailboxHistory, Moment};
use crate::report::{Report, Rule};

/// The highest of what ended, apart from what ended in the same microsecond: its order is not known.
#[derive(Clone, Copy, Debug, Default)]
struct Floor<T> {
    before: T,
    at: Micros,
    now: T,
}

impl<T: Copy + Ord> Floor<T> {
    fn raise(&mut self, at: Micros, value: T) {
        self.advance(at);
        self.now = self.now.max(value);
    }

    /// What ended before this moment.
    fn advance(&mut self, at: Micros) -> T {
        if at > self.at {
            self.before = self.before.max(self.now);
            self.at = at;
        }
        self.before
    }
}

/// Compares each position with those of everything that ended before it was asked.
pub(crate) fn check(history: &MailboxHistory, journal: &Journal, report: &mut Report) {
    let (mut written, mut seen) = (Floor::<At>::default(), Floor::<usize>::default());
    let mut floors = vec![(At::default(), 0); history.operations.len()];
    let mut own = std::collections::BTreeMap::<u64, At>::new();
    for moment in &history.moments {
        match *moment {
            Moment::Asked(operation) => {
                let of = &history.operations[operation];
                let own = own.get(&of.session).copied().unwrap_or_default();
                floors[operation] = (written.advance(of.asked).max(own), seen.advance(of.asked));
            }
            Moment::Ended(operation) => {
                let of = &history.operations[operation];
                let Some((at, ended)) = &of.ended else { continue };
                let answered = matches!(ended, Ended::Done(_) | Ended::Refused(_));
                let Some(position) = of.position.filter(|_| answered) else { continue };
                let (floor, shown) = floors[operation];
                let told = || format!("mailbox {} command {}: {:?}", history.mailbox, of.id, of.op);
                if let Some(partition) = history.partition {
                    report.check(Rule::Stale, *at, position.partition == partition, || {
                        format!("{} at {position}, its partition is {partition}", told())
                    });
                }
                let entry = journal.entry_at(position);
                if of.op.is_read() {
                    report.check(Rule::Stale, *at, position >= floor, || {
                        format!("{} shows {position}, asked after the write at {floor} had ended", told())
                    });
                    report.check(Rule::Stale, *at, entry >= shown, || {
                        let shown = journal.entries.get(shown).and_then(|e| e.at).unwrap_or_default();
                        format!("{} shows {position}, asked after {shown} had been shown", told())
                    });
                } else {
                    // A refusal may name the state that it was found in rather than an entry of its own.
                    let done = matches!(ended, Ended::Done(_));
                    let later = position > floor && entry > shown;
                    let later = later || (!done && position >= floor && entry >= shown);
                    report.check(Rule::Stale, *at, later, || {
                        format!("{} is at {position}, asked after {floor} had ended", told())
                    });
                    written.raise(*at, position);
                    let own = own.entry(of.session).or_default();
                    *own = position.max(*own);
                }
                seen.raise(*at, entry);
            }
        }
    }
}

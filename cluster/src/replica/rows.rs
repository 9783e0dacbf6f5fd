//! Whether the rows of the replicas of a group are the same: their sums are compared at equal positions, as the hashes of
//! what was accepted are at equal counts.
//!
//! A replica whose sum differs from a majority's has rows that were put back or deleted on its disk, and has met one of
//! them. It is damaged, and its rows are not trusted any more; its log is as good as before, so it goes on following and
//! voting, and its process goes on. Where no majority agrees nobody knows who is wrong, and it is reported only.

use mailraft_storage::{Env, Index, ReplicaId};

use super::{COMPARE_EVERY_TICKS, Replica};
use crate::agreement::{Agreement, Finding, Hash};
use crate::config::NodeConfig;
use crate::seam::{Difference, Output, PeerBody};

/// What a standby tells instead of a sum whose rows are known to be wrong where it is: at a start, at a load, by a scrub. Sums
/// are keyed, and none is that.
const WRONG: Hash = [0; 32];

/// What one replica knows of its own sums and of those of the others that differ.
#[derive(Default)]
pub(super) struct RowsAgreement {
    sums: Agreement,
    last: Option<(Index, Hash)>,
    /// This replica is known to be wrong, or nobody to be right.
    settled: bool,
}

impl RowsAgreement {
    /// The rows are at this position, and their sum is known or not.
    pub(super) fn applied(&mut self, index: Index, sum: Option<Hash>) {
        self.last = sum.map(|sum| (index, sum));
        if let Some(sum) = sum {
            self.sums.remember(index.0, sum);
        }
    }
}

impl Replica {
    /// Tells the others what is held here, now and then and where somebody differs.
    pub(super) fn tell_sums(&mut self, config: &NodeConfig, env: &Env, out: &mut Vec<Output>) {
        let mut sums = self.rows_agreement.sums.tell(self.ticks);
        let due = self.ticks.is_multiple_of(COMPARE_EVERY_TICKS);
        if self.is_damaged() && self.is_standby() {
            // Its home would go on counting on it, and know nothing.
            sums = if due { vec![(self.raw.store().applied().index.0, WRONG)] } else { Vec::new() };
        } else if due {
            sums.extend(self.rows_agreement.last.map(|(index, sum)| (index.0, sum)));
        }
        for (index, sum) in sums {
            for member in self.members.rows().into_iter().filter(|m| m.replica != self.spec.replica) {
                let body = PeerBody::Rows { index: Index(index), sum };
                let message = self.message(config, env, member.replica, body);
                out.push(Output::Send { to: member.node, message });
            }
        }
    }

    /// The sum over the rows with which it begins.
    pub fn begins_with_sum(&mut self, index: Index, sum: Hash) {
        if self.raw.store().applied().index == index {
            self.rows_agreement.applied(index, Some(sum));
        }
    }

    /// Another replica says what it holds.
    pub(super) fn compares_rows(&mut self, from: ReplicaId, index: Index, sum: Hash, out: &mut Vec<Output>) {
        let (partition, replica) = (self.spec.partition, self.spec.replica);
        let differs = |other, difference| Output::RowsDiffer { partition, replica, other, index, difference };
        if sum == WRONG {
            if self.is_wrong_as_it_says(from) {
                out.push(differs(from, Difference::OtherIsWrong));
            }
            return;
        }
        if self.rows_agreement.sums.had(index.0, sum) {
            self.rows_agree(from);
        }
        let heard = (from, index.0, sum);
        match self.rows_agreement.sums.heard(self.ticks, heard, replica, self.members.voters()) {
            Finding::Nothing => {}
            Finding::Undecided => out.push(differs(from, Difference::Undecided)),
            Finding::OthersAreWrong(others) => {
                self.sets_aside(&others);
                out.extend(others.into_iter().map(|other| differs(other, Difference::OtherIsWrong)));
            }
            Finding::OwnIsWrong if !self.rows_agreement.settled => {
                self.rows_agreement.settled = true;
                self.found_damaged();
                out.push(Output::Distrust { partition, replica, index });
            }
            Finding::NobodyIsRight if !self.rows_agreement.settled => {
                self.rows_agreement.settled = true;
                out.push(differs(from, Difference::Undecided));
            }
            Finding::OwnIsWrong | Finding::NobodyIsRight => {}
        }
    }
}

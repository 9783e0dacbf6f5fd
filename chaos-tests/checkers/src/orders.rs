//! Which order commands had within their entries, where nobody told.

use std::collections::BTreeMap;

use crate::journal::Journal;
use crate::operation::MailboxHistory;
use crate::replay::replay_with;
use crate::report::{Bounds, Report};

/// How many entries before something that does not fit are tried in other orders.
const REVISED_MAX: usize = 6;
/// How many other orders of each.
const ORDERS_REVISED: usize = 2;
/// The most replays of one mailbox.
const REPLAYS_MAX: usize = 24;

/// Replays all of it. Where the order within entries is not told and what comes later does not fit, other orders
/// are tried: a history is right if one of them explains all of it.
pub(crate) fn replay(history: &MailboxHistory, bounds: Bounds, report: &mut Report) -> Journal {
    let mut orders = BTreeMap::new();
    let mut best = replay_with(history, bounds, &orders);
    let mut replays = 1;
    'better: while let Some(wrong) = best.wrong {
        for entry in best.ambiguous.iter().rev().filter(|entry| **entry <= wrong).take(REVISED_MAX) {
            let next = orders.get(entry).copied().unwrap_or_default() + 1;
            for order in next..next + ORDERS_REVISED {
                if replays == REPLAYS_MAX {
                    break 'better;
                }
                replays += 1;
                let mut revised = orders.clone();
                revised.insert(*entry, order);
                let other = replay_with(history, bounds, &revised);
                if other.wrong.is_none_or(|now| now > wrong) {
                    (orders, best) = (revised, other);
                    continue 'better;
                }
            }
        }
        break;
    }
    report.merge(best.report);
    best.journal
}

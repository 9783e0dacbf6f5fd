//! Whether partitions serve writes, while faults last and once all are healed.

use std::collections::BTreeMap;

use crate::history::Micros;
use crate::report::{Bounds, Report, Rule};

/// One write of a partition.
#[derive(Clone, Copy, Debug)]
struct Write {
    asked: Micros,
    ended: Option<Micros>,
    served: bool,
}

#[derive(Debug, Default)]
struct Partition {
    writes: Vec<Write>,
    waiting: usize,
    /// Since when somebody waits and nobody was served.
    since: Micros,
}

/// A kind of fault: when it began last, and when it was healed after that.
#[derive(Clone, Copy, Debug)]
struct Fault {
    from: Micros,
    healed: Option<Micros>,
}

/// Watches every partition.
#[derive(Debug, Default)]
pub(crate) struct Service {
    partitions: BTreeMap<u32, Partition>,
    faults: BTreeMap<String, Fault>,
    longest: BTreeMap<String, Micros>,
    healed: Option<Micros>,
    last: Micros,
}

impl Service {
    /// Time goes on.
    pub fn advance(&mut self, at: Micros) {
        self.last = self.last.max(at);
    }

    pub fn fault(&mut self, at: Micros, name: String) {
        self.healed = None;
        self.longest.entry(name.clone()).or_default();
        let fault = self.faults.entry(name).or_insert(Fault { from: at, healed: None });
        if fault.healed.take().is_some() {
            fault.from = at;
        }
    }

    pub fn healed(&mut self, at: Micros) {
        self.healed = Some(at);
        for fault in self.faults.values_mut() {
            fault.healed.get_or_insert(at);
        }
    }

    /// A write is asked. Returns what names it when it ends.
    pub fn asked(&mut self, at: Micros, partition: u32) -> usize {
        let state = self.partitions.entry(partition).or_default();
        if state.waiting == 0 {
            state.since = at;
        }
        state.waiting += 1;
        state.writes.push(Write { asked: at, ended: None, served: false });
        state.writes.len() - 1
    }

    /// A write ended: served, or given up.
    pub fn ended(&mut self, at: Micros, partition: u32, write: usize, served: bool) {
        let Some(state) = self.partitions.get_mut(&partition) else { return };
        let Some(write) = state.writes.get_mut(write).filter(|w| w.ended.is_none()) else { return };
        (write.ended, write.served) = (Some(at), served);
        let since = state.since;
        state.waiting -= 1;
        if served {
            state.since = at;
        }
        self.note(since, at);
    }

    /// Measures to the end, and judges each partition after the healing.
    pub fn finish(mut self, bounds: Bounds, report: &mut Report) {
        let last = self.last;
        let waiting: Vec<Micros> = self.partitions.values().filter(|p| p.waiting > 0).map(|p| p.since).collect();
        for since in waiting {
            self.note(since, last);
        }
        report.without_service = std::mem::take(&mut self.longest);
        let Some(healed) = self.healed else { return };
        for (number, partition) in &self.partitions {
            let late = partition.writes.iter().filter(|w| w.ended.is_none_or(|ended| ended > healed));
            let Some(first) = late.clone().map(|w| w.asked.max(healed)).min() else { continue };
            let deadline = first.saturating_add(bounds.serves_within);
            let served = late.clone().filter(|w| w.served).filter_map(|w| w.ended).min();
            let in_time = served.is_some_and(|at| at <= deadline);
            // Whoever gave up before the bound, or a history that ends before it, proves nothing.
            let waited = late.clone().any(|w| w.ended.is_none_or(|ended| ended >= deadline)) && last >= deadline;
            if !in_time && !waited {
                report.skipped += 1;
                continue;
            }
            report.check(Rule::Liveness, deadline, in_time, || {
                let served = served.map_or("none".to_owned(), |at| format!("the first at {at}"));
                format!("partition {number}: healed at {healed}, a write waited from {first}, served was {served}")
            });
        }
    }

    /// A partition served nobody who waited in this time: every fault that was there in it counts it.
    fn note(&mut self, since: Micros, at: Micros) {
        for (name, fault) in &self.faults {
            if fault.from <= at && fault.healed.is_none_or(|healed| healed >= since) {
                let longest = self.longest.entry(name.clone()).or_default();
                *longest = (*longest).max(at.saturating_sub(since));
            }
        }
    }
}

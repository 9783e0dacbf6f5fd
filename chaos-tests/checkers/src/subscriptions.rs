//! Names of which nobody told whether they are subscribed to.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    maybe: BTreeSet<String>,
    /// Those for which that stays so: nobody knows when it was carried out, if ever.
    open: BTreeSet<String>,
}

impl Subscriptions {
    /// A command for this name has an unknown outcome.
    pub fn leave_open(&mut self, name: String) {
        self.maybe.insert(name.clone());
        self.open.insert(name);
    }

    /// What one entry's commands subscribe to or no more; its order is not told.
    pub fn settle(&mut self, commands: impl Iterator<Item = (String, bool)>) {
        let mut names: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
        for (name, on) in commands {
            names.entry(name).or_default().insert(on);
        }
        for (name, ways) in names {
            if ways.len() > 1 {
                self.maybe.insert(name);
            } else if !self.open.contains(&name) {
                self.maybe.remove(&name);
            }
        }
    }

    pub fn maybe(&self) -> &BTreeSet<String> {
        &self.maybe
    }
}

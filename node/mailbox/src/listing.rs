//! What LIST says of names.

use std::collections::BTreeMap;

use crate::folders::{FolderInfo, Listing};
use crate::state::State;

/// All names, sorted, with those that are only subscribed to.
pub(crate) fn list(state: &State) -> Vec<FolderInfo> {
    let mut lines: BTreeMap<&str, FolderInfo> = state.names().map(|(name, _)| (name, line(state, name))).collect();
    for (name, _) in state.subscriptions() {
        lines.entry(name).or_insert_with(|| line(state, name));
    }
    lines.into_values().collect()
}

/// One name, and whether anything is below it.
pub(crate) fn listing(state: &State, name: &str) -> Listing {
    let line = line(state, name);
    Listing { line, is_there: state.named(name).is_some(), has_children: state.has_below(name) }
}

/// What is below a name, at any depth.
pub(crate) fn below(state: &State, name: &str) -> Vec<Listing> {
    state.below(name).iter().map(|(name, _)| listing(state, name)).collect()
}

fn line(state: &State, name: &str) -> FolderInfo {
    let folder = state.named(name).and_then(|id| Some((id, &state.folder(id)?.record)));
    let selectable = folder.is_some_and(|(_, record)| record.selectable);
    FolderInfo {
        name: name.to_owned(),
        id: folder.map(|(id, _)| id).filter(|_| selectable),
        subscribed: state.subscribed(name).is_some(),
        special_use: folder.and_then(|(_, record)| record.special_use),
        selectable,
    }
}

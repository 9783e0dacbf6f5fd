//! How a list of folders differs from what a client knows, told in an order in which it can follow: no name is given to a
//! folder while another one has it.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_mailbox::api::{FolderId, FolderInfo, HIERARCHY_SEPARATOR};

/// A difference of two lists of folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// A folder of this name is no more.
    Removed(String),
    /// A folder has another name, and those below it too.
    Renamed { from: String, to: String },
    /// A folder has another name since one above it has.
    MovedAlong { from: String, to: String },
    /// There is a folder of this name.
    Made(String),
    /// A subscription to this name began or ended.
    Subscription(String),
}

/// How the folders that a client knows were removed and renamed, and those of them that it knows no more though they are
/// there: of folders that changed places one goes, and comes again. `tells` says whether the client is told of a renaming:
/// else what is below does not move along.
pub(crate) fn differences<'k>(
    known: impl Iterator<Item = (FolderId, &'k str)>,
    list: &[FolderInfo],
    tells: impl Fn(&str, &str) -> bool,
) -> (Vec<Difference>, BTreeSet<FolderId>) {
    let now: BTreeMap<FolderId, &str> = list.iter().filter_map(|line| Some((line.id?, line.name.as_str()))).collect();
    let mut all = Vec::new();
    // What the client knows after each difference.
    let mut names: BTreeMap<String, FolderId> = BTreeMap::new();
    for (id, name) in known {
        if now.contains_key(&id) {
            names.insert(name.to_owned(), id);
        } else {
            all.push(Difference::Removed(name.to_owned()));
        }
    }
    let mut lost = BTreeSet::new();
    // What is below moves along, and may have to move back. Past this whatever waits goes, and comes again.
    let mut renames_left = 2 * names.len();
    let mut moved_along = BTreeSet::new();
    loop {
        // Levels before what is below them.
        let waits: Vec<String> =
            names.iter().filter(|(name, id)| now[id] != *name).map(|(name, _)| name.clone()).collect();
        let Some(first) = waits.first() else { break };
        let mut any = false;
        for from in &waits {
            let Some(to) = names.get(from).map(|id| now[id]).filter(|to| to != from) else { continue };
            let is_told = tells(from, to);
            if renames_left == 0 {
                continue;
            }
            let Some(below) = rename(&mut names, from, to, is_told) else { continue };
            any = true;
            renames_left -= 1;
            all.extend(is_told.then(|| Difference::Renamed { from: from.clone(), to: to.to_owned() }));
            for (from, to, id) in below {
                // One that is to move on has its own line then.
                if now[&id] == to && moved_along.insert(id) {
                    all.push(Difference::MovedAlong { from, to });
                }
            }
        }
        if !any {
            lost.extend(names.remove(first));
            all.push(Difference::Removed(first.clone()));
        }
    }
    (all, lost)
}

/// Renames a folder, with what is below it if that moves along: what was renamed below it. None, and nothing is renamed, if one
/// of the new names is another folder's.
fn rename(
    names: &mut BTreeMap<String, FolderId>,
    from: &str,
    to: &str,
    with_below: bool,
) -> Option<Vec<(String, String, FolderId)>> {
    let below = format!("{from}{HIERARCHY_SEPARATOR}");
    if with_below && to.starts_with(&below) {
        return None;
    }
    let mut moved: Vec<(String, String)> = vec![(from.to_owned(), to.to_owned())];
    if with_below {
        let names = names.range(below.clone()..).take_while(|(name, _)| name.starts_with(&below));
        moved.extend(names.map(|(name, _)| (name.clone(), format!("{to}{}", &name[from.len()..]))));
    }
    let moves = |name: &str| name == from || with_below && name.starts_with(&below);
    if moved.iter().any(|(_, new)| names.contains_key(new) && !moves(new)) {
        return None;
    }
    let mut moved: Vec<(String, String, FolderId)> = moved
        .into_iter()
        .filter_map(|(old, new)| {
            let id = names.remove(&old)?;
            Some((old, new, id))
        })
        .collect();
    names.extend(moved.iter().map(|(_, new, id)| (new.clone(), *id)));
    moved.remove(0);
    Some(moved)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(names: &[(u32, &str)]) -> Vec<FolderInfo> {
        let line = |(id, name): &(u32, &str)| FolderInfo {
            name: (*name).to_owned(),
            id: Some(FolderId(*id)),
            subscribed: false,
            special_use: None,
            selectable: true,
        };
        names.iter().map(line).collect()
    }

    fn told(before: &[(u32, &str)], now: &[(u32, &str)]) -> String {
        let known = before.iter().map(|(id, name)| (FolderId(*id), *name));
        let (all, lost) = differences(known, &list(now), |_, _| true);
        let brief = |difference: &Difference| match difference {
            Difference::Removed(name) => format!("-{name}"),
            Difference::Renamed { from, to } => format!("{from}>{to}"),
            Difference::MovedAlong { from, to } => format!("~{from}>{to}"),
            Difference::Made(_) | Difference::Subscription(_) => unreachable!("these are not of names that are known"),
        };
        let lost = lost.iter().map(|id| format!("+{}", id.0));
        all.iter().map(brief).chain(lost).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn no_name_is_given_to_a_folder_while_another_has_it() {
        for (before, now, should) in [
            (&[(1, "a"), (2, "b")][..], &[(1, "b"), (2, "c")][..], "b>c a>b"),
            (&[(1, "a"), (2, "b"), (3, "c")], &[(1, "b"), (2, "c"), (3, "d")], "c>d b>c a>b"),
            (&[(1, "a"), (2, "b")], &[(1, "b"), (2, "a")], "-a b>a +1"),
            (&[(1, "a"), (2, "b"), (3, "c")], &[(1, "b"), (2, "c"), (3, "a")], "-a c>a b>c +1"),
            (&[(1, "a"), (2, "b")], &[(1, "b")], "-b a>b"),
            (&[(1, "a"), (2, "a/x")], &[(1, "z"), (2, "z/x")], "a>z ~a/x>z/x"),
            (&[(1, "a"), (2, "a/x")], &[(1, "z"), (2, "a/x")], "a>z z/x>a/x"),
            (&[(1, "a"), (2, "a/x"), (3, "z")], &[(1, "z"), (2, "z/x"), (3, "a")], "a/x>z/x -a z>a a/x>z/x +1"),
            (&[(1, "a")], &[(1, "a/b")], "-a +1"),
            (&[(1, "a"), (2, "a/x")], &[(1, "a/x"), (2, "a")], "-a a/x>a +1"),
        ] {
            assert_eq!(told(before, now), should, "{before:?} {now:?}");
        }
    }

    proptest! {
        /// A client that does what it is told knows in the end what is there, and never has two folders of one name.
        #[test]
        fn a_client_that_follows_knows_the_list(
            before in proptest::collection::btree_map(0u32..8, "[ab](/[ab]){0,2}", 0..8),
            now in proptest::collection::btree_map(0u32..8, "[ab](/[ab]){0,2}", 0..8),
        ) {
            let unique = |of: &BTreeMap<u32, String>| -> BTreeMap<String, u32> {
                of.iter().map(|(id, name)| (name.clone(), *id)).collect()
            };
            let (before, now) = (unique(&before), unique(&now));
            let lines: Vec<(u32, &str)> = now.iter().map(|(name, id)| (*id, name.as_str())).collect();
            let known = before.iter().map(|(name, id)| (FolderId(*id), name.as_str()));
            let (all, lost) = differences(known, &list(&lines), |_, _| true);
            let mut names = before.clone();
            for difference in all {
                match difference {
                    Difference::Removed(name) => prop_assert!(names.remove(&name).is_some(), "{name} is not there"),
                    Difference::Renamed { from, to } => {
                        let below = format!("{from}/");
                        let moved: Vec<String> =
                            names.keys().filter(|name| **name == from || name.starts_with(&below)).cloned().collect();
                        prop_assert!(moved.contains(&from), "{from} is not there");
                        let moved: Vec<(String, u32)> = moved
                            .into_iter()
                            .map(|old| (format!("{to}{}", &old[from.len()..]), names.remove(&old).unwrap_or_default()))
                            .collect();
                        for (name, id) in moved {
                            prop_assert!(names.insert(name.clone(), id).is_none(), "{name} is another's");
                        }
                    }
                    Difference::MovedAlong { from, to } => {
                        prop_assert!(names.contains_key(&to) && from.rsplit('/').next() == to.rsplit('/').next());
                    }
                    Difference::Made(_) | Difference::Subscription(_) => unreachable!("these are told elsewhere"),
                }
            }
            let there: BTreeSet<u32> = names.values().copied().collect();
            for (name, id) in &now {
                if before.values().any(|known| known == id) && !lost.contains(&FolderId(*id)) {
                    prop_assert_eq!(names.get(name), Some(id));
                } else {
                    prop_assert!(!there.contains(id));
                }
            }
            prop_assert!(names.keys().all(|name| now.contains_key(name)));
        }
    }
}

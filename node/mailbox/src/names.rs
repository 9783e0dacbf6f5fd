//! Names of folders: which are allowed, and their one spelling.

use crate::api::{FOLDER_NAME_MAX_BYTES, HIERARCHY_SEPARATOR, Refusal};

/// The folder that every mailbox has.
pub const INBOX: &str = "INBOX";

/// A name in the spelling it is kept under: INBOX as first level is case-insensitive (RFC 3501, section 5.1).
///
/// # Errors
/// [`Refusal::BadName`] with what is wrong.
pub fn canonical(name: &str) -> Result<String, Refusal> {
    let bad = |why: &str| Err(Refusal::BadName(why.to_owned()));
    if name.is_empty() {
        return bad("a folder's name is not empty");
    }
    if name.len() > FOLDER_NAME_MAX_BYTES {
        return bad("a folder's name has at most 1,000 bytes");
    }
    if name.chars().any(char::is_control) {
        return bad("a folder's name has no control characters");
    }
    if name.split(HIERARCHY_SEPARATOR).any(str::is_empty) {
        return bad("no level of a folder's name is empty");
    }
    Ok(spelt(name))
}

/// The kept spelling of a name that is only looked up.
pub fn spelt(name: &str) -> String {
    let first = name.split(HIERARCHY_SEPARATOR).next().unwrap_or_default();
    if first.eq_ignore_ascii_case(INBOX) { format!("{INBOX}{}", &name[INBOX.len()..]) } else { name.to_owned() }
}

/// The levels above a name, the highest first: `a`, `a/b` for `a/b/c`.
pub fn above(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices(HIERARCHY_SEPARATOR).map(|(at, _)| &name[..at])
}

/// The last level of a name.
pub fn leaf(name: &str) -> &str {
    name.rsplit(HIERARCHY_SEPARATOR).next().unwrap_or(name)
}

/// The name of the level above.
pub fn parent(name: &str) -> Option<&str> {
    name.rsplit_once(HIERARCHY_SEPARATOR).map(|(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_inbox_has_one_spelling() {
        for (name, kept) in
            [("inbox", "INBOX"), ("Inbox/x", "INBOX/x"), ("inboxes", "inboxes"), ("a/inbox", "a/inbox"), ("Ä b", "Ä b")]
        {
            assert_eq!(canonical(name), Ok(kept.to_owned()));
        }
        let long = "x".repeat(FOLDER_NAME_MAX_BYTES + 1);
        for name in ["", "/", "a/", "/a", "a//b", "a\nb", "a\u{7f}", long.as_str()] {
            assert!(matches!(canonical(name), Err(Refusal::BadName(_))), "{name}");
        }
        assert_eq!(above("a/b/c").collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!((leaf("a/b/c"), parent("a/b/c"), leaf("a"), parent("a")), ("c", Some("a/b"), "a", None));
    }
}

//! Names of folders, as RFC 3501, section 5.1 has them: INBOX has one spelling, levels are parted by a slash.

use mailraft_mailbox::api::{FOLDER_NAME_MAX_BYTES, HIERARCHY_SEPARATOR, Refusal};

/// The folder that every mailbox has.
pub(crate) const INBOX: &str = "INBOX";

/// The spelling in which a name is kept.
pub(crate) fn spelt(name: &str) -> String {
    let (first, rest) = name.split_at(name.find(HIERARCHY_SEPARATOR).unwrap_or(name.len()));
    if first.eq_ignore_ascii_case(INBOX) { format!("{INBOX}{rest}") } else { name.to_owned() }
}

/// The kept spelling of a name that a folder may have.
pub(crate) fn allowed(name: &str) -> Result<String, Refusal> {
    let bad = name.is_empty()
        || name.len() > FOLDER_NAME_MAX_BYTES
        || name.chars().any(char::is_control)
        || name.split(HIERARCHY_SEPARATOR).any(str::is_empty);
    if bad { Err(Refusal::BadName(String::new())) } else { Ok(spelt(name)) }
}

/// The levels above a name, the highest first.
pub(crate) fn above(name: &str) -> impl DoubleEndedIterator<Item = &str> {
    name.match_indices(HIERARCHY_SEPARATOR).map(|(at, _)| &name[..at])
}

//! LIST (RFC 3501, section 6.3.8), with the attributes of RFC 3348 and RFC 6154, and as RFC 5258 and RFC 5819 extend it.

use std::collections::BTreeSet;

use mailraft_mailbox::api::{FolderInfo, HIERARCHY_SEPARATOR};
use mailraft_mailbox::spelt;
use mailraft_protocol::{Out, Output};

use crate::commands::status;
use crate::cursor::{Cursor, Read, wrong};
use crate::folders::{self, Levels, Subscriptions, with_levels_above};
use crate::outcome::{Outcome, ok};
use crate::print;
use crate::state::{Enabled, State};
use crate::store::Mailstore;
use crate::utf7::Spelling;

/// Patterns of one LIST.
const PATTERNS_MAX: usize = 20;
/// The patterns of one LIST together, in bytes: matching takes the product of theirs and a name's length, for each
/// folder.
const PATTERNS_MAX_BYTES: usize = 2 << 10;

/// What LIST is asked for.
#[derive(Debug, Default)]
struct Wanted {
    special_only: bool,
    subscribed_only: bool,
    /// Also what has something that fits below it (RFC 5258, section 3).
    recursive: bool,
    tell_subscribed: bool,
    status: Option<Vec<status::Item>>,
    patterns: Vec<String>,
}

impl Wanted {
    /// Whether a name fits the options, whatever the patterns.
    fn selects(&self, info: Option<&FolderInfo>) -> bool {
        (!self.special_only || info.is_some_and(|f| f.special_use.is_some()))
            && (!self.subscribed_only || info.is_some_and(|f| f.subscribed))
    }

    /// Which options there are, for CHILDINFO.
    fn options(&self) -> String {
        let options = [(self.special_only, "\"SPECIAL-USE\""), (self.subscribed_only, "\"SUBSCRIBED\"")];
        let options: Vec<&str> = options.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
        options.join(" ")
    }
}

pub(crate) async fn run<S: Mailstore, O: Output>(
    state: &mut State,
    c: &mut Cursor<'_>,
    store: &mut S,
    out: &mut Out<O>,
) -> Outcome {
    let wanted = parse(c)?;
    if wanted.status.as_ref().is_some_and(|items| items.contains(&status::Item::HighestModseq)) {
        state.enable(Enabled::CondStore);
    }
    if wanted.patterns.iter().all(String::is_empty) {
        // Asks for the separator alone.
        out.line("* LIST (\\Noselect) \"/\" \"\"");
        return ok("LIST");
    }
    let folders = folders::all(store).await?;
    let levels = Levels::of(&folders);
    let selected = || folders.iter().filter(|f| wanted.selects(Some(f))).map(|f| f.name.as_str());
    // What has something below it that fits.
    let mut above: BTreeSet<&str> = BTreeSet::new();
    if wanted.recursive {
        for name in selected() {
            if let Some(end) = name.rfind(HIERARCHY_SEPARATOR) {
                with_levels_above(&name[..end], &mut above);
            }
        }
    }
    let mut names: BTreeSet<&str> = match wanted.subscribed_only || wanted.special_only {
        true => selected().collect(),
        false => levels.there.iter().copied().collect(),
    };
    names.extend(&above);
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_by_key(|name| (*name != "INBOX", *name));
    for name in names {
        store.breathe().await?;
        if !wanted.patterns.iter().any(|p| matches(p, name)) {
            continue;
        }
        let subscriptions = if wanted.tell_subscribed { Subscriptions::Told } else { Subscriptions::LeftOut };
        let attributes = levels.attributes(name, subscriptions);
        let child_info = above.contains(name).then(|| format!(" (\"CHILDINFO\" ({}))", wanted.options()));
        out.line(&format!("{}{}", line("LIST", &attributes, name, state.spelling()), child_info.unwrap_or_default()));
        if let Some(items) = wanted.status.as_ref().filter(|_| levels.is_selectable(name)) {
            // One that can't be counted is left out (RFC 5819, section 2).
            let mark = out.mark();
            if status::tell(state, name.to_owned(), items, store, out).await.is_err() {
                out.roll_back(mark);
            }
        }
        out.pass_on().await;
    }
    ok("LIST")
}

fn parse(c: &mut Cursor<'_>) -> Read<Wanted> {
    let mut wanted = Wanted::default();
    c.space()?;
    if c.peek() == Some(b'(') {
        c.open()?;
        while !c.close() {
            match c.word()?.as_str() {
                "SPECIAL-USE" => wanted.special_only = true,
                "SUBSCRIBED" => {
                    wanted.subscribed_only = true;
                    wanted.tell_subscribed = true;
                }
                // There are none elsewhere.
                "REMOTE" => {}
                "RECURSIVEMATCH" => wanted.recursive = true,
                other => return wrong(format!("LIST does not select by {other}")),
            }
            c.eat(b' ');
        }
        if wanted.recursive && !wanted.special_only && !wanted.subscribed_only {
            return wrong("RECURSIVEMATCH goes with what is selected by");
        }
        c.space()?;
    }
    let reference = c.folder()?;
    c.space()?;
    if c.peek() == Some(b'(') {
        c.open()?;
        if c.peek() == Some(b')') {
            return wrong("a pattern is missing");
        }
        while !c.close() {
            wanted.patterns.push(whole(&reference, &c.pattern()?)?);
            let bytes: usize = wanted.patterns.iter().map(String::len).sum();
            if wanted.patterns.len() > PATTERNS_MAX || bytes > PATTERNS_MAX_BYTES {
                return wrong("too many patterns");
            }
            c.eat(b' ');
        }
    } else {
        let pattern = c.pattern()?;
        wanted.patterns.push(if pattern.is_empty() { pattern } else { whole(&reference, &pattern)? });
    }
    if c.eat(b' ') {
        if c.word()? != "RETURN" {
            return wrong("RETURN is missing");
        }
        c.space()?;
        c.open()?;
        while !c.close() {
            match c.word()?.as_str() {
                "SPECIAL-USE" | "CHILDREN" => {}
                "SUBSCRIBED" => wanted.tell_subscribed = true,
                "STATUS" => {
                    c.space()?;
                    wanted.status = Some(status::items(c)?);
                }
                other => return wrong(format!("LIST does not return {other}")),
            }
            c.eat(b' ');
        }
    }
    c.end()?;
    Ok(wanted)
}

/// Reference and pattern together, with INBOX in its one spelling.
pub(super) fn whole(reference: &str, pattern: &str) -> Read<String> {
    let whole = format!("{reference}{pattern}");
    if whole.len() > PATTERNS_MAX_BYTES {
        return wrong("a pattern is too long");
    }
    Ok(spelt(&whole))
}

/// A response of LIST or LSUB without the end of its line.
pub(super) fn line(response: &str, attributes: &[&str], name: &str, spelling: Spelling) -> String {
    format!("* {response} ({}) \"/\" {}", attributes.join(" "), print::folder(name, spelling))
}

/// Whether a pattern with `*` and `%` matches a name. Takes at most the product of their lengths.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    // Up to the first wildcard both must be the same: most names end here.
    let literal = pattern.find(['*', '%']).unwrap_or(pattern.len());
    let Some(rest) = name.strip_prefix(&pattern[..literal]) else { return false };
    let rest: Vec<char> = rest.chars().collect();
    // reached[n]: the pattern so far matches the first n characters.
    let mut reached = vec![false; rest.len() + 1];
    reached[0] = true;
    for p in pattern[literal..].chars() {
        let before = std::mem::replace(&mut reached, vec![false; rest.len() + 1]);
        let mut any = false;
        for at in 0..=rest.len() {
            reached[at] = match p {
                '*' => before[at] || (at > 0 && reached[at - 1]),
                '%' => before[at] || (at > 0 && reached[at - 1] && rest[at - 1] != HIERARCHY_SEPARATOR),
                c => at > 0 && before[at - 1] && rest[at - 1] == c,
            };
            any |= reached[at];
        }
        if !any {
            return false;
        }
    }
    reached[rest.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, yes) in [
            ("*", "a/b", true),
            ("%", "a/b", false),
            ("%", "a", true),
            ("a/%", "a/b", true),
            ("a/%", "a/b/c", false),
            ("a*c", "a/b/c", true),
            ("inbox", "INBOX", true),
            ("inbox/%", "INBOX/x", true),
            ("INBOX/%", "INBOX/x", true),
            ("inboxes", "INBOXes", false),
            ("", "a", false),
            ("a%", "a", true),
            ("%/%", "a/b", true),
            ("a", "ab", false),
            ("ab", "a", false),
            ("Ä%", "Äb", true),
        ] {
            assert_eq!(matches(&whole("", pattern).unwrap(), name), yes, "{pattern} {name}");
        }
        assert!(matches(&whole("a/", "%").unwrap(), "a/b"));
        assert!(whole("a", &"x".repeat(PATTERNS_MAX_BYTES)).is_err());
    }
}

//! LIST and LSUB (RFC 3501, sections 6.3.8, 6.3.9) with RFC 3348's and RFC 6154's attributes.

use std::collections::BTreeMap;

use mailraft_mailbox::api::{FolderInfo, HIERARCHY_SEPARATOR, SpecialUse};
use mailraft_mailbox::{Answer, Command};

use crate::cursor::{Cursor, wrong};
use crate::out::Out;
use crate::outcome::{Done, Outcome, ok};
use crate::print;
use crate::store::{Mailstore, Output};

/// A line of LIST before it is printed.
struct Line {
    attributes: Vec<&'static str>,
    name: String,
}

pub(crate) async fn list<S: Mailstore, O: Output>(c: &mut Cursor<'_>, store: &mut S, out: &mut Out<'_, O>) -> Outcome {
    c.space()?;
    // RFC 6154: only special uses, or their attributes asked for (told always).
    let mut special_only = false;
    if c.peek() == Some(b'(') {
        c.open()?;
        while !c.close() {
            match c.word()?.as_str() {
                "SPECIAL-USE" => special_only = true,
                other => return Err(Done::Bad(format!("LIST does not know {other}"))),
            }
            c.eat(b' ');
        }
        c.space()?;
    }
    let (reference, pattern) = arguments(c)?;
    if c.peek() == Some(b' ') {
        c.space()?;
        if c.word()? != "RETURN" {
            return Err(wrong::<()>("RETURN is missing").err().map_or(Done::Bad(String::new()), Done::from));
        }
        c.space()?;
        c.open()?;
        while !c.close() {
            match c.word()?.as_str() {
                "SPECIAL-USE" | "CHILDREN" => {}
                other => return Err(Done::Bad(format!("LIST does not return {other}"))),
            }
            c.eat(b' ');
        }
    }
    c.end()?;
    if pattern.is_empty() {
        out.line("* LIST (\\Noselect) \"/\" \"\"");
        return ok("LIST");
    }
    let folders = all(store).await?;
    let names: Vec<String> = folders.iter().filter(|f| f.id.is_some()).map(|f| f.name.clone()).collect();
    let mut lines = Vec::new();
    for folder in folders.iter().filter(|f| f.id.is_some()) {
        if special_only && folder.special_use.is_none() {
            continue;
        }
        let mut attributes = Vec::new();
        if !folder.selectable {
            attributes.push("\\Noselect");
        }
        let below = format!("{}{HIERARCHY_SEPARATOR}", folder.name);
        attributes.push(if names.iter().any(|n| n.starts_with(&below)) { "\\HasChildren" } else { "\\HasNoChildren" });
        attributes.extend(folder.special_use.map(special_use));
        lines.push(Line { attributes, name: folder.name.clone() });
    }
    print_matching("LIST", &format!("{reference}{pattern}"), lines, out).await;
    ok("LIST")
}

pub(crate) async fn lsub<S: Mailstore, O: Output>(c: &mut Cursor<'_>, store: &mut S, out: &mut Out<'_, O>) -> Outcome {
    c.space()?;
    let (reference, pattern) = arguments(c)?;
    c.end()?;
    let pattern = format!("{reference}{pattern}");
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    for folder in all(store).await?.into_iter().filter(|f| f.subscribed) {
        let selectable = folder.id.is_some() && folder.selectable;
        // With `%`, a level above a subscribed name stands for it.
        let mut level = folder.name.as_str();
        while let Some((above, _)) = level.rsplit_once(HIERARCHY_SEPARATOR) {
            if pattern.contains('%') && !matches(&pattern, &folder.name) && matches(&pattern, above) {
                lines
                    .entry(above.to_owned())
                    .or_insert(Line { attributes: vec!["\\Noselect"], name: above.to_owned() });
            }
            level = above;
        }
        let attributes = if selectable { Vec::new() } else { vec!["\\Noselect"] };
        lines.insert(folder.name.clone(), Line { attributes, name: folder.name });
    }
    print_matching("LSUB", &pattern, lines.into_values().collect(), out).await;
    ok("LSUB")
}

fn arguments(c: &mut Cursor<'_>) -> Result<(String, String), Done> {
    let reference = c.folder()?;
    c.space()?;
    Ok((reference, c.pattern()?))
}

async fn all<S: Mailstore>(store: &mut S) -> Result<Vec<FolderInfo>, Done> {
    match store.ask(Command::List).await? {
        Answer::Folders(mut folders) => {
            folders.sort_by(|a, b| (a.name != "INBOX", &a.name).cmp(&(b.name != "INBOX", &b.name)));
            Ok(folders)
        }
        _ => Err(Done::No("the mailbox answered something else".into())),
    }
}

async fn print_matching<O: Output>(response: &str, pattern: &str, lines: Vec<Line>, out: &mut Out<'_, O>) {
    for line in lines {
        if matches(pattern, &line.name) {
            let name = print::folder(&line.name);
            out.line(&format!("* {response} ({}) \"/\" {name}", line.attributes.join(" ")));
            out.pass_on().await;
        }
    }
}

fn special_use(of: SpecialUse) -> &'static str {
    match of {
        SpecialUse::Drafts => "\\Drafts",
        SpecialUse::Sent => "\\Sent",
        SpecialUse::Junk => "\\Junk",
        SpecialUse::Trash => "\\Trash",
        SpecialUse::Archive => "\\Archive",
    }
}

/// Whether a pattern with `*` and `%` matches a name. Linear in pattern times name.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let inbox = |text: &str| text.eq_ignore_ascii_case("INBOX");
    if inbox(name) && inbox(pattern) {
        return true;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // reached[n]: the pattern so far matches the first n characters.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for p in pattern {
        let before = std::mem::replace(&mut reached, vec![false; name.len() + 1]);
        for at in 0..=name.len() {
            reached[at] = match p {
                '*' => before[at] || (at > 0 && reached[at - 1]),
                '%' => before[at] || (at > 0 && reached[at - 1] && name[at - 1] != HIERARCHY_SEPARATOR),
                c => at > 0 && before[at - 1] && name[at - 1] == c,
            };
        }
    }
    reached[name.len()]
}

#[cfg(test)]
mod tests {
    use super::matches;

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
            ("INBOX/%", "INBOX/x", true),
            ("", "a", false),
            ("a%", "a", true),
            ("%/%", "a/b", true),
        ] {
            assert_eq!(matches(pattern, name), yes, "{pattern} {name}");
        }
    }
}

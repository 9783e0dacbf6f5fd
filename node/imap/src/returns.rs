//! What a search or a sort returns (RFC 4731, 5182, 5267, 9394).

use mailraft_mailbox::UidSet;

use crate::cursor::{Cursor, PartialRange, Read, wrong};
use crate::opened::Names;

/// What RETURN asks for.
#[derive(Debug, Default)]
pub(crate) struct Returns {
    min: bool,
    max: bool,
    all: bool,
    count: bool,
    /// Whether what is found is saved.
    pub(crate) save: bool,
    partial: Option<PartialRange>,
}

impl Returns {
    /// All that is found.
    pub(crate) fn everything() -> Self {
        Returns { all: true, ..Returns::default() }
    }

    /// Reads `RETURN (...)` and a space, if it is there.
    pub(crate) fn parse(c: &mut Cursor<'_>) -> Read<Option<Returns>> {
        if c.peek_word() != "RETURN" {
            return Ok(None);
        }
        c.word()?;
        c.space()?;
        c.open()?;
        let mut returns = Returns::default();
        while !c.close() {
            match c.word()?.as_str() {
                "MIN" => returns.min = true,
                "MAX" => returns.max = true,
                "ALL" => returns.all = true,
                "COUNT" => returns.count = true,
                "SAVE" => returns.save = true,
                "PARTIAL" if returns.partial.is_some() => return wrong("PARTIAL is there twice"),
                "PARTIAL" => {
                    c.space()?;
                    returns.partial = Some(c.partial_range()?);
                }
                other => return wrong(format!("SEARCH does not return {other}")),
            }
            c.eat(b' ');
        }
        c.space()?;
        if returns.all && returns.partial.is_some() {
            return wrong("either ALL or PARTIAL");
        }
        returns.all |= !returns.tells() && !returns.save;
        Ok(Some(returns))
    }

    /// Whether anything is told.
    pub(crate) fn tells(&self) -> bool {
        self.min || self.max || self.all || self.count || self.partial.is_some()
    }

    /// What was found, in its order.
    pub(crate) fn print(&self, tag: &str, names: Names, found: &[u32]) -> String {
        let mut out = format!("* ESEARCH (TAG \"{tag}\")");
        if names == Names::Uids {
            out += " UID";
        }
        let ends = found.first().zip(found.last());
        if let Some((min, _)) = ends.filter(|_| self.min) {
            out += &format!(" MIN {min}");
        }
        if let Some((_, max)) = ends.filter(|_| self.max) {
            out += &format!(" MAX {max}");
        }
        if self.count {
            out += &format!(" COUNT {}", found.len());
        }
        if self.all && !found.is_empty() {
            out += &format!(" ALL {}", in_order(found));
        }
        if let Some(range) = &self.partial {
            let part = range.of(found);
            let part = if part.is_empty() { "NIL".to_owned() } else { in_order(part) };
            out += &format!(" PARTIAL ({} {part})", range.print());
        }
        out
    }

    /// What of all that was found is saved: what is returned, or all if it is counted or nothing is asked for (RFC 5182,
    /// section 2.4; RFC 9394, section 3.2).
    pub(crate) fn saved(&self, found: &[u32]) -> UidSet {
        if self.all || self.count || !self.tells() {
            return set(found);
        }
        let ends = [found.first().filter(|_| self.min), found.last().filter(|_| self.max)];
        let part = self.partial.map(|range| range.of(found)).unwrap_or_default();
        ends.into_iter().flatten().chain(part).copied().collect()
    }
}

/// As a set.
pub(crate) fn set(numbers: &[u32]) -> UidSet {
    numbers.iter().copied().collect()
}

/// As a sequence set that names them in this order (RFC 5267, section 3).
fn in_order(numbers: &[u32]) -> String {
    let runs = numbers.chunk_by(|one, next| one.checked_add(1) == Some(*next));
    let run = |of: &[u32]| match of {
        [first, .., last] => format!("{first}:{last}"),
        of => of.iter().map(u32::to_string).collect(),
    };
    runs.map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_told_in_the_order_in_which_they_are_found() {
        assert_eq!(in_order(&[3, 4, 5, 2, 1, 7, 8]), "3:5,2,1,7:8");
        assert_eq!(in_order(&[u32::MAX]), u32::MAX.to_string());
        assert_eq!(in_order(&[]), "");
    }
}

//! Macros in SPF records (RFC 7208, section 7).

use std::net::IpAddr;

/// A text with macros that are of the grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MacroString(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Macro { letter: Letter, escaped: bool, parts: Option<usize>, reversed: bool, delimiters: String },
}

/// What a macro stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Letter {
    Sender,
    LocalPart,
    SenderDomain,
    Domain,
    Address,
    /// The name of the address, if it has the address.
    Name,
    Family,
    Helo,
}

/// What macros are expanded to.
pub(crate) struct Values<'a> {
    pub(crate) local: &'a str,
    pub(crate) sender_domain: &'a str,
    pub(crate) domain: &'a str,
    pub(crate) address: IpAddr,
    pub(crate) name: &'a str,
    pub(crate) helo: &'a str,
}

/// The longest name that is asked for, in octets.
const NAME_MAX_BYTES: usize = 253;

impl MacroString {
    /// Reads a macro-string.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            literal(&mut parts, &rest[..at])?;
            let after = &rest[at + 1..];
            rest = match after.as_bytes().first()? {
                b'%' => {
                    literal(&mut parts, "%")?;
                    &after[1..]
                }
                b'_' => {
                    literal(&mut parts, " ")?;
                    &after[1..]
                }
                b'-' => {
                    literal(&mut parts, "%20")?;
                    &after[1..]
                }
                b'{' => {
                    let (inside, after) = after[1..].split_once('}')?;
                    parts.push(expansion(inside)?);
                    after
                }
                _ => return None,
            };
        }
        literal(&mut parts, rest)?;
        Some(MacroString(parts))
    }

    /// Reads a domain-spec: it ends with a macro, or with a label that a top-level domain could have.
    pub(crate) fn domain(text: &str) -> Option<Self> {
        let parsed = MacroString::parse(text)?;
        let ends_well = match parsed.0.last()? {
            Part::Macro { .. } => true,
            // Not `%%`, `%_` or `%-`: none of them is in a label.
            Part::Text(end) => {
                let end = end.strip_suffix('.').unwrap_or(end);
                let (before, top) = end.rsplit_once('.')?;
                let is_first = parsed.0.len() == 1 && before.is_empty();
                !is_first && is_top_label(top)
            }
        };
        ends_well.then_some(parsed)
    }

    /// Whether the name of the address is needed.
    pub(crate) fn needs_name(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Macro { letter: Letter::Name, .. }))
    }

    /// The name that it stands for, without what goes beyond its longest from the left (RFC 7208, section 7.3).
    pub(crate) fn expand(&self, values: &Values<'_>) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Macro { letter, escaped, parts, reversed, delimiters } => {
                    let value = letter.value(values);
                    let mut split: Vec<&str> = value.split(|c| delimiters.contains(c)).collect();
                    if *reversed {
                        split.reverse();
                    }
                    let keep = parts.unwrap_or(split.len()).min(split.len());
                    let joined = split[split.len() - keep..].join(".");
                    match escaped {
                        true => joined.bytes().for_each(|b| match b {
                            b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => out.push(char::from(b)),
                            b => out.push_str(&format!("%{b:02X}")),
                        }),
                        false => out.push_str(&joined),
                    }
                }
            }
        }
        let mut name = out.strip_suffix('.').unwrap_or(&out);
        while name.len() > NAME_MAX_BYTES {
            match name.split_once('.') {
                Some((_, rest)) => name = rest,
                None => return String::new(),
            }
        }
        name.to_owned()
    }
}

fn literal(parts: &mut Vec<Part>, text: &str) -> Option<()> {
    if !text.bytes().all(|b| matches!(b, 0x20..=0x7e)) {
        return None;
    }
    match parts.last_mut() {
        Some(Part::Text(before)) => before.push_str(text),
        _ if text.is_empty() => {}
        _ => parts.push(Part::Text(text.to_owned())),
    }
    Some(())
}

fn is_top_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let is_inner = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-';
    !bytes.is_empty()
        && bytes.iter().all(is_inner)
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
        && !bytes.iter().all(u8::is_ascii_digit)
}

/// What stands in `%{...}`.
fn expansion(inside: &str) -> Option<Part> {
    let mut chars = inside.chars();
    let first = chars.next()?;
    let letter = match first.to_ascii_lowercase() {
        's' => Letter::Sender,
        'l' => Letter::LocalPart,
        'o' => Letter::SenderDomain,
        'd' => Letter::Domain,
        'i' => Letter::Address,
        'p' => Letter::Name,
        'v' => Letter::Family,
        'h' => Letter::Helo,
        _ => return None,
    };
    let rest = chars.as_str();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, rest) = rest.split_at(digits);
    // As many as it has labels are enough; so long a number is of the grammar.
    let parts = match digits {
        "" => None,
        digits if digits.len() > 9 => Some(usize::MAX),
        digits => Some(digits.parse::<usize>().ok().filter(|parts| *parts > 0)?),
    };
    let (reversed, delimiters) = match rest.strip_prefix(['r', 'R']) {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if !delimiters.chars().all(|c| ".-+,/_=".contains(c)) {
        return None;
    }
    let delimiters = if delimiters.is_empty() { "." } else { delimiters }.to_owned();
    Some(Part::Macro { letter, escaped: first.is_ascii_uppercase(), parts, reversed, delimiters })
}

impl Letter {
    fn value(self, values: &Values<'_>) -> String {
        match self {
            Letter::Sender => format!("{}@{}", values.local, values.sender_domain),
            Letter::LocalPart => values.local.to_owned(),
            Letter::SenderDomain => values.sender_domain.to_owned(),
            Letter::Domain => values.domain.to_owned(),
            Letter::Address => match values.address {
                IpAddr::V4(v4) => v4.to_string(),
                IpAddr::V6(v6) => {
                    let nibbles = v6.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
                    nibbles.map(|nibble| format!("{nibble:x}")).collect::<Vec<_>>().join(".")
                }
            },
            Letter::Name => values.name.to_owned(),
            Letter::Family => if values.address.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
            Letter::Helo => values.helo.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_7208_section_7_4() {
        let of = |text: &str, address: &str| {
            let values = Values {
                local: "strong-bad",
                sender_domain: "email.example.com",
                domain: "email.example.com",
                address: address.parse().unwrap(),
                name: "mx.example.org",
                helo: "mx.example.org",
            };
            MacroString::parse(text).unwrap().expand(&values)
        };
        for (text, expanded) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d3}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
            ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
            ("%{S}%%%_%-", "strong-bad%40email.example.com% %20"),
        ] {
            assert_eq!(of(text, "192.0.2.3"), expanded, "{text}");
        }
        assert_eq!(
            of("%{ir}.%{v}._spf.%{d2}", "2001:db8::cb01"),
            "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com"
        );
    }

    #[test]
    fn what_is_no_macro_or_no_domain_is_refused() {
        for wrong in ["%", "%a", "%{", "%{}", "%{x}", "%{d0}", "%{d2x}", "%{c}", "%{t}", "%{r}", "a%", "\u{7f}"] {
            assert!(MacroString::parse(wrong).is_none(), "{wrong}");
        }
        for wrong in ["", "a", ".a", "a.1", "a.-b", "a.b-", "a.b..", "a.%%", "a.b%-", "a.b c"] {
            assert!(MacroString::domain(wrong).is_none(), "{wrong}");
        }
        for right in ["a.b", "a.b.", "%{d}", "x%{d}", "_spf.%{d}", "%{i}.x1-a"] {
            assert!(MacroString::domain(right).is_some(), "{right}");
        }
    }

    #[test]
    fn names_that_are_too_long_lose_labels_from_the_left() {
        let values = Values {
            local: &["x"; 300].join("."),
            sender_domain: "a.test",
            domain: "a.test",
            address: IpAddr::from([192, 0, 2, 1]),
            name: "",
            helo: "",
        };
        let name = MacroString::parse("%{l}.%{d}").unwrap().expand(&values);
        assert!(name.len() <= NAME_MAX_BYTES && name.ends_with(".x.a.test"), "{name}");
    }
}

//! The structure of a report, for tests: what RFC 7489, appendix C, and RFC 9990, appendix A, say of each element.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::xml::{NAMESPACE, Schema};

/// An element as it was read.
#[derive(Debug, Default)]
pub struct Element {
    pub name: String,
    pub namespace: Option<String>,
    pub text: String,
    pub inside: Vec<Element>,
}

impl Element {
    /// Reads a document.
    pub fn read(xml: &[u8]) -> Self {
        let mut reader = Reader::from_reader(xml);
        reader.config_mut().trim_text(true);
        let mut open = vec![Element::default()];
        let mut buffer = Vec::new();
        loop {
            match reader.read_event_into(&mut buffer).unwrap() {
                Event::Start(start) => {
                    let namespace = start.attributes().next().map(|attribute| {
                        let attribute = attribute.unwrap();
                        assert_eq!(attribute.key.as_ref(), "xmlns");
                        attribute.value.into_owned()
                    });
                    let name = start.name().as_ref().to_owned();
                    open.push(Element { name, namespace, ..Element::default() });
                }
                Event::End(_) => {
                    let done = open.pop().unwrap();
                    open.last_mut().unwrap().inside.push(done);
                }
                Event::Text(text) => open.last_mut().unwrap().text.push_str(&text),
                Event::GeneralRef(reference) => {
                    let name: &str = &reference;
                    let known = [("lt", '<'), ("gt", '>'), ("amp", '&'), ("quot", '"'), ("apos", '\'')];
                    let (_, c) = known.into_iter().find(|(known, _)| *known == name).unwrap();
                    open.last_mut().unwrap().text.push(c);
                }
                Event::Decl(_) | Event::Empty(_) => {}
                Event::Eof => break,
                other => panic!("{other:?}"),
            }
            buffer.clear();
        }
        assert_eq!(open.len(), 1, "every element ends");
        let mut roots = open.remove(0).inside;
        assert_eq!(roots.len(), 1, "one element has all");
        roots.remove(0)
    }

    /// The elements of this name inside it.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Element> + use<'a> {
        let name = name.to_owned();
        self.inside.iter().filter(move |element| element.name == name)
    }

    /// The text of the element at the end of a path.
    pub fn at(&self, path: &str) -> Option<&str> {
        let found = path.split('/').try_fold(self, |element, name| element.all(name).next())?;
        Some(&found.text)
    }
}

/// How often an element may stand there.
#[derive(Clone, Copy, PartialEq)]
enum Times {
    Once,
    Perhaps,
    Any,
    Some,
}

use Times::{Any, Once, Perhaps, Some as AtLeastOnce};

/// Whether elements have to come in the order of the table.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Fixed,
    Free,
}

type Rule = (&'static str, Order, &'static [(&'static str, Times)]);

const RFC_7489: &[Rule] = &[
    (
        "feedback",
        Order::Fixed,
        &[("version", Once), ("report_metadata", Once), ("policy_published", Once), ("record", AtLeastOnce)],
    ),
    (
        "report_metadata",
        Order::Fixed,
        &[
            ("org_name", Once),
            ("email", Once),
            ("extra_contact_info", Perhaps),
            ("report_id", Once),
            ("date_range", Once),
            ("error", Any),
        ],
    ),
    ("date_range", Order::Free, &[("begin", Once), ("end", Once)]),
    (
        "policy_published",
        Order::Free,
        &[
            ("domain", Once),
            ("adkim", Perhaps),
            ("aspf", Perhaps),
            ("p", Once),
            ("sp", Once),
            ("pct", Once),
            ("fo", Once),
        ],
    ),
    ("record", Order::Fixed, &[("row", Once), ("identifiers", Once), ("auth_results", Once)]),
    ("row", Order::Free, &[("source_ip", Once), ("count", Once), ("policy_evaluated", Once)]),
    ("policy_evaluated", Order::Fixed, &[("disposition", Once), ("dkim", Once), ("spf", Once), ("reason", Any)]),
    ("reason", Order::Free, &[("type", Once), ("comment", Perhaps)]),
    ("identifiers", Order::Free, &[("envelope_to", Perhaps), ("envelope_from", Once), ("header_from", Once)]),
    ("auth_results", Order::Fixed, &[("dkim", Any), ("spf", AtLeastOnce)]),
    (
        "auth_results/dkim",
        Order::Free,
        &[("domain", Once), ("selector", Perhaps), ("result", Once), ("human_result", Perhaps)],
    ),
    ("auth_results/spf", Order::Free, &[("domain", Once), ("scope", Once), ("result", Once)]),
];

const RFC_9990: &[Rule] = &[
    (
        "feedback",
        Order::Fixed,
        &[
            ("version", Perhaps),
            ("report_metadata", Once),
            ("policy_published", Once),
            ("extension", Perhaps),
            ("record", AtLeastOnce),
        ],
    ),
    (
        "report_metadata",
        Order::Free,
        &[
            ("org_name", Once),
            ("email", Once),
            ("extra_contact_info", Perhaps),
            ("report_id", Once),
            ("date_range", Once),
            ("error", Perhaps),
            ("generator", Perhaps),
        ],
    ),
    ("date_range", Order::Free, &[("begin", Once), ("end", Once)]),
    (
        "policy_published",
        Order::Free,
        &[
            ("domain", Once),
            ("p", Once),
            ("sp", Perhaps),
            ("np", Perhaps),
            ("adkim", Perhaps),
            ("aspf", Perhaps),
            ("discovery_method", Perhaps),
            ("fo", Perhaps),
            ("testing", Perhaps),
        ],
    ),
    ("record", Order::Fixed, &[("row", Once), ("identifiers", Once), ("auth_results", Once)]),
    ("row", Order::Free, &[("source_ip", Once), ("count", Once), ("policy_evaluated", Once)]),
    ("policy_evaluated", Order::Fixed, &[("disposition", Once), ("dkim", Once), ("spf", Once), ("reason", Any)]),
    ("reason", Order::Free, &[("type", Once), ("comment", Perhaps)]),
    ("identifiers", Order::Free, &[("header_from", Once), ("envelope_from", Perhaps), ("envelope_to", Perhaps)]),
    ("auth_results", Order::Fixed, &[("dkim", Any), ("spf", Perhaps)]),
    (
        "auth_results/dkim",
        Order::Free,
        &[("domain", Once), ("selector", Once), ("result", Once), ("human_result", Perhaps)],
    ),
    (
        "auth_results/spf",
        Order::Free,
        &[("domain", Once), ("scope", Perhaps), ("result", Once), ("human_result", Perhaps)],
    ),
];

/// What an element may say, by its name and the one around it; of others anything.
fn values(schema: Schema, around: &str, name: &str) -> Option<&'static [&'static str]> {
    let is_new = schema == Schema::Rfc9990;
    Some(match (around, name) {
        ("feedback", "version") => &["1.0"],
        ("policy_published", "p" | "sp" | "np") => &["none", "quarantine", "reject"],
        ("policy_published", "adkim" | "aspf") => &["r", "s"],
        ("policy_published", "discovery_method") => &["psl", "treewalk"],
        ("policy_published", "testing") => &["n", "y"],
        ("policy_evaluated", "disposition") if is_new => &["none", "pass", "quarantine", "reject"],
        ("policy_evaluated", "disposition") => &["none", "quarantine", "reject"],
        ("policy_evaluated", "dkim" | "spf") => &["pass", "fail"],
        ("reason", "type") if is_new => {
            &["local_policy", "mailing_list", "other", "policy_test_mode", "trusted_forwarder"]
        }
        ("reason", "type") => {
            &["forwarded", "sampled_out", "trusted_forwarder", "mailing_list", "local_policy", "other"]
        }
        ("auth_results/dkim", "result") => &["none", "pass", "fail", "policy", "neutral", "temperror", "permerror"],
        ("auth_results/spf", "scope") if is_new => &["mfrom"],
        ("auth_results/spf", "scope") => &["helo", "mfrom"],
        ("auth_results/spf", "result") => &["none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"],
        _ => return None,
    })
}

/// Why a document is not of a schema.
pub fn flaw(schema: Schema, xml: &[u8]) -> Option<String> {
    let root = Element::read(xml);
    let namespace = match schema {
        Schema::Rfc7489 => None,
        Schema::Rfc9990 => Some(NAMESPACE),
    };
    if root.name != "feedback" || root.namespace.as_deref() != namespace {
        return Some(format!("its root is {} in {:?}", root.name, root.namespace));
    }
    flaw_of(schema, "", &root)
}

fn flaw_of(schema: Schema, around: &str, element: &Element) -> Option<String> {
    let rules = match schema {
        Schema::Rfc7489 => RFC_7489,
        Schema::Rfc9990 => RFC_9990,
    };
    let inner = match around {
        "auth_results" => format!("auth_results/{}", element.name),
        _ => element.name.clone(),
    };
    let rule = rules
        .iter()
        .find(|(name, ..)| *name == inner && around != "policy_evaluated" || *name == "reason" && inner == "reason");
    let Some((_, order, may)) = rule else {
        if !element.inside.is_empty() {
            return Some(format!("{inner} has elements inside it"));
        }
        let may = values(schema, around, &element.name)?;
        return (!may.contains(&element.text.as_str()))
            .then(|| format!("{around}/{} says {:?}", element.name, element.text));
    };
    let mut last = 0;
    for child in &element.inside {
        let Some(place) = may.iter().position(|(name, _)| *name == child.name) else {
            return Some(format!("{} may not stand in {inner}", child.name));
        };
        if *order == Order::Fixed && place < last {
            return Some(format!("{} comes too late in {inner}", child.name));
        }
        last = place;
        if let Some(flaw) = flaw_of(schema, &inner, child) {
            return Some(flaw);
        }
    }
    may.iter().find_map(|(name, times)| {
        let count = element.all(name).count();
        let is_right = match times {
            Once => count == 1,
            Perhaps => count <= 1,
            Any => true,
            AtLeastOnce => count >= 1,
        };
        (!is_right).then(|| format!("{inner} has {count} of {name}"))
    })
}

#[test]
fn the_sample_of_rfc_9990_is_of_its_schema_and_not_of_the_other() {
    let sample = include_bytes!("../../testdata/rfc9990-sample.xml");
    assert_eq!(flaw(Schema::Rfc9990, sample), None);
    assert!(flaw(Schema::Rfc7489, sample).is_some());
    let text = std::str::from_utf8(sample).unwrap();
    for (from, to) in [
        ("<disposition>pass", "<disposition>accept"),
        ("<p>quarantine</p>", ""),
        ("<count>123</count>", "<count>123</count><count>1</count>"),
        ("<np>none</np>", "<pct>100</pct>"),
        ("<version>1.0</version>", "<version>2.0</version>"),
    ] {
        assert!(flaw(Schema::Rfc9990, text.replace(from, to).as_bytes()).is_some(), "{to}");
    }
}

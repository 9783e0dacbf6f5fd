//! MTA-STS: what a domain says over HTTPS about the TLS of its mail servers (RFC 8461).

use thiserror::Error;

use super::domain::host_name;

/// The longest policy that is read, in bytes (RFC 8461, section 3.2, lets 64 KiB be the end).
pub const POLICY_MAX_BYTES: usize = 64 << 10;
/// Patterns of hosts in one policy.
pub const PATTERNS_MAX: usize = 512;
/// A policy is kept no longer than this, in seconds: a year (RFC 8461, section 3.2).
pub const MAX_AGE_MAX_S: u64 = 31_557_600;
/// A policy that is in use is fetched anew when it is this old, in seconds, so that it is renewed long before it ends (RFC
/// 8461, section 10.2).
pub const REFRESH_AFTER_S: u64 = 86_400;
/// After a fetch that failed the next one waits this long, in seconds (RFC 8461, section 3.3).
pub const FETCH_AGAIN_AFTER_S: u64 = 300;
/// The longest id of a policy, in octets (RFC 8461, section 3.1).
const ID_MAX_BYTES: usize = 32;

/// What a policy asks for when a host or its certificate is not as it says (RFC 8461, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Such a host gets no mail.
    Enforce,
    /// It gets mail, and the failure is reported.
    Testing,
    /// As if there were no policy.
    None,
}

/// A policy (RFC 8461, section 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What it asks for.
    pub mode: Mode,
    /// How long it may be kept, in seconds, at most [`MAX_AGE_MAX_S`].
    pub max_age_s: u64,
    /// Patterns of hosts: names in ASCII and lower case, or `*.` and such a name. None only in mode none.
    pub patterns: Vec<String>,
}

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// It has more than [`POLICY_MAX_BYTES`].
    #[error("the policy is longer than 65536 bytes")]
    TooLong,
    /// It has more than [`PATTERNS_MAX`] patterns.
    #[error("the policy names more than 512 hosts")]
    TooManyPatterns,
    /// It is not UTF-8, or a line of it has no colon.
    #[error("the policy has a line that is no field")]
    NotFields,
    /// There is none of these.
    #[error("the policy has no field {0}")]
    Missing(&'static str),
    /// A field's value can't be.
    #[error("the policy's field {0} has no value that may be there")]
    BadValue(&'static str),
}

impl Policy {
    /// Reads the text of a policy. Lines end with LF or CRLF; of a field that may be there once the first counts; fields that
    /// are not known are skipped.
    ///
    /// # Errors
    /// Why it is no policy; a domain whose policy can't be read has none (RFC 8461, section 3.3).
    pub fn parse(text: &[u8]) -> Result<Self, PolicyError> {
        if text.len() > POLICY_MAX_BYTES {
            return Err(PolicyError::TooLong);
        }
        let text = std::str::from_utf8(text).map_err(|_| PolicyError::NotFields)?;
        let (mut version, mut mode, mut max_age, mut patterns) = (None, None, None, Vec::new());
        for line in text.split('\n').map(|line| line.trim_matches([' ', '\t', '\r'])).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or(PolicyError::NotFields)?;
            let value = value.trim_matches([' ', '\t']);
            match name.trim_end_matches([' ', '\t']) {
                "version" => version = version.or(Some(value)),
                "mode" => mode = mode.or(Some(value)),
                "max_age" => max_age = max_age.or(Some(value)),
                "mx" if patterns.len() == PATTERNS_MAX => return Err(PolicyError::TooManyPatterns),
                "mx" => patterns.push(pattern(value).ok_or(PolicyError::BadValue("mx"))?),
                // Fields to come (RFC 8461, section 3.2).
                _ => {}
            }
        }
        if version.ok_or(PolicyError::Missing("version"))? != "STSv1" {
            return Err(PolicyError::BadValue("version"));
        }
        let mode = match mode.ok_or(PolicyError::Missing("mode"))? {
            "enforce" => Mode::Enforce,
            "testing" => Mode::Testing,
            "none" => Mode::None,
            _ => return Err(PolicyError::BadValue("mode")),
        };
        let max_age_s = seconds(max_age.ok_or(PolicyError::Missing("max_age"))?)?;
        // A policy that no host can fit would stop all mail: it is a mistake.
        match mode {
            Mode::Enforce | Mode::Testing if patterns.is_empty() => Err(PolicyError::Missing("mx")),
            Mode::Enforce | Mode::Testing | Mode::None => Ok(Policy { mode, max_age_s, patterns }),
        }
    }

    /// Whether the policy names this host. `*` is one label, the first (RFC 8461, section 4.1).
    pub fn names(&self, host: &str) -> bool {
        let Some(host) = host_name(host) else { return false };
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.patterns.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(suffix) => parent == Some(suffix),
            None => *pattern == host,
        })
    }

    /// Its lines as a report has them (RFC 8460, section 4.4).
    pub fn lines(&self) -> Vec<String> {
        let mode = match self.mode {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        };
        let mut lines = vec!["version: STSv1".to_owned(), format!("mode: {mode}")];
        lines.extend(self.patterns.iter().map(|pattern| format!("mx: {pattern}")));
        lines.push(format!("max_age: {}", self.max_age_s));
        lines
    }

    /// What it takes in memory, in bytes.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.patterns.iter().map(|p| size_of::<String>() + p.capacity()).sum::<usize>()
    }
}

/// The id of a domain's policy, out of the TXT records of `_mta-sts.` and its name. None if there is not exactly one record
/// of MTA-STS among them, or it has no id: then the domain has no policy (RFC 8461, section 3.1).
pub fn policy_id<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Option<String> {
    let is_ours = |record: &&[u8]| {
        record.strip_prefix(b"v=STSv1").is_some_and(|rest| rest.trim_ascii_start().first() == Some(&b';'))
    };
    let mut records = records.into_iter().filter(is_ours);
    let record = records.next()?;
    if records.next().is_some() {
        return None;
    }
    let fields = std::str::from_utf8(record).ok()?.split(';').skip(1);
    let mut ids = fields.filter_map(|field| field.trim_matches([' ', '\t']).strip_prefix("id="));
    let id = ids.next()?;
    let is_id = (1..=ID_MAX_BYTES).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    is_id.then(|| id.to_owned())
}

/// The host that has a domain's policy, below `/.well-known/mta-sts.txt` (RFC 8461, section 3.3).
pub fn policy_host(domain: &str) -> String {
    format!("mta-sts.{domain}")
}

/// The name of a domain's record of MTA-STS (RFC 8461, section 3.1).
pub fn record_name(domain: &str) -> String {
    format!("_mta-sts.{domain}")
}

/// What the DNS says about a domain's policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordAnswer {
    /// There is one, with this id.
    Id(String),
    /// There is none.
    None,
    /// Nobody can say now.
    Unknown,
}

/// A policy that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its id when it was fetched.
    pub id: String,
    /// The policy.
    pub policy: Policy,
    /// When it was fetched, in seconds.
    pub fetched_at_s: u64,
}

impl Kept {
    /// Whether it may still be used.
    pub fn is_valid(&self, now_s: u64) -> bool {
        now_s.saturating_sub(self.fetched_at_s) < self.policy.max_age_s
    }
}

/// What is done before mail goes to a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The policy that is kept counts.
    UseKept,
    /// A policy is fetched. If that fails, the kept one counts as long as it is valid, and else there is none (RFC 8461,
    /// section 3.3).
    Fetch,
    /// There is no policy.
    NoPolicy,
}

/// What is done, by the policy that is kept, what the DNS says, and when a fetch failed last. A kept policy that is valid counts
/// whether or not the DNS still has a record: who can forge its answers must not be able to take a policy away (RFC 8461,
/// section 10.2).
pub fn step(kept: Option<&Kept>, answer: &RecordAnswer, failed_at_s: Option<u64>, now_s: u64) -> Step {
    let kept = kept.filter(|kept| kept.is_valid(now_s));
    let otherwise = if kept.is_some() { Step::UseKept } else { Step::NoPolicy };
    let may_fetch = failed_at_s.is_none_or(|at| now_s.saturating_sub(at) >= FETCH_AGAIN_AFTER_S);
    let is_to_fetch = match answer {
        RecordAnswer::Id(id) => {
            kept.is_none_or(|kept| kept.id != *id || now_s.saturating_sub(kept.fetched_at_s) >= REFRESH_AFTER_S)
        }
        RecordAnswer::None | RecordAnswer::Unknown => false,
    };
    if is_to_fetch && may_fetch { Step::Fetch } else { otherwise }
}

/// Seconds, at most [`MAX_AGE_MAX_S`]: more is as much as that, as it is safer to keep a policy than to have none.
fn seconds(value: &str) -> Result<u64, PolicyError> {
    let is_number = (1..=10).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
    let number = value.parse::<u64>().ok().filter(|_| is_number).ok_or(PolicyError::BadValue("max_age"))?;
    Ok(number.min(MAX_AGE_MAX_S))
}

fn pattern(value: &str) -> Option<String> {
    match value.strip_prefix("*.") {
        Some(suffix) => Some(format!("*.{}", host_name(suffix)?)),
        None => host_name(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8461, section 3.2.
    const EXAMPLE: &str = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\n\
                           mx: backupmx.example.com\r\nmax_age: 604800\r\n";

    fn with(from: &str, to: &str) -> Result<Policy, PolicyError> {
        Policy::parse(EXAMPLE.replace(from, to).as_bytes())
    }

    #[test]
    fn the_policy_of_rfc_8461_is_read() {
        let policy = Policy::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!((policy.mode, policy.max_age_s), (Mode::Enforce, 604_800));
        assert_eq!(policy.patterns, ["mail.example.com", "*.example.net", "backupmx.example.com"]);
        assert_eq!(Policy::parse(policy.lines().join("\n").as_bytes()), Ok(policy));
        assert!(Policy::parse(EXAMPLE.replace("\r\n", "\n").trim_end().as_bytes()).is_ok());
    }

    #[test]
    fn what_is_no_policy_is_none() {
        assert_eq!(with("STSv1", "STSv2"), Err(PolicyError::BadValue("version")));
        assert_eq!(with("version: STSv1\r\n", ""), Err(PolicyError::Missing("version")));
        assert_eq!(with("enforce", "Enforce"), Err(PolicyError::BadValue("mode")));
        assert_eq!(with("mode:", "mood:"), Err(PolicyError::Missing("mode")));
        assert_eq!(with("max_age:", "maxage:"), Err(PolicyError::Missing("max_age")));
        for value in ["-1", "1e3", "", "60480000000", "+5"] {
            assert_eq!(with("604800", value), Err(PolicyError::BadValue("max_age")), "{value}");
        }
        for value in ["*", "*.", "m*.example.net", "*.*.example.net", "192.0.2.1", ".example.net", "a b.test"] {
            assert_eq!(with("*.example.net", value), Err(PolicyError::BadValue("mx")), "{value}");
        }
        assert_eq!(with("mx:", "nmx:"), Err(PolicyError::Missing("mx")), "it would stop all mail");
        assert_eq!(with("mode: enforce", "mode"), Err(PolicyError::NotFields));
        assert_eq!(Policy::parse(b"version: STSv1\nmode: \xff"), Err(PolicyError::NotFields));
        assert_eq!(Policy::parse(b"<html><body>Not found"), Err(PolicyError::NotFields));
    }

    #[test]
    fn a_policy_is_bounded() {
        let long = format!("{EXAMPLE}x: {}", "y".repeat(POLICY_MAX_BYTES - EXAMPLE.len() - 3));
        assert_eq!(long.len(), POLICY_MAX_BYTES);
        assert!(Policy::parse(long.as_bytes()).is_ok());
        assert_eq!(Policy::parse(format!("{long}y").as_bytes()), Err(PolicyError::TooLong));
        let many = |n: usize| with("mx: mail.example.com\r\n", &"mx: a.test\r\n".repeat(n));
        assert!(many(PATTERNS_MAX - 2).is_ok_and(|policy| policy.patterns.len() == PATTERNS_MAX));
        assert_eq!(many(PATTERNS_MAX - 1), Err(PolicyError::TooManyPatterns));
        assert_eq!(with("604800", "9999999999").unwrap().max_age_s, MAX_AGE_MAX_S);
    }

    #[test]
    fn the_first_of_a_field_counts_and_unknown_ones_are_skipped() {
        let policy =
            with("mode: enforce\r\n", "later: x: y\r\n\r\n  mode : testing \r\nmode: none\r\nmax_age: 7\r\n").unwrap();
        assert_eq!((policy.mode, policy.max_age_s), (Mode::Testing, 7));
        let none = Policy::parse(b"version: STSv1\nmode: none\nmax_age: 86400").unwrap();
        assert!(none.patterns.is_empty() && none.mode == Mode::None);
    }

    #[test]
    fn a_star_is_one_label() {
        let policy = Policy::parse(EXAMPLE.as_bytes()).unwrap();
        for host in ["mail.example.com", "MAIL.Example.com.", "a.example.net", "b.EXAMPLE.net"] {
            assert!(policy.names(host), "{host}");
        }
        for host in ["example.net", "a.b.example.net", "example.com", "xmail.example.com", "aexample.net", "", "."] {
            assert!(!policy.names(host), "{host}");
        }
    }

    #[test]
    fn one_record_has_the_id() {
        let id = |records: &[&str]| policy_id(records.iter().map(|r| r.as_bytes()));
        // RFC 8461, section 3.1.
        assert_eq!(id(&["v=STSv1; id=20160831085700Z;"]).as_deref(), Some("20160831085700Z"));
        assert_eq!(id(&["v=spf1 -all", "v=STSv1;id=1"]).as_deref(), Some("1"));
        assert_eq!(id(&["v=STSv1 ; ext=a-b ; id=1 "]).as_deref(), Some("1"));
        for none in [
            &["v=STSv1; id=1", "v=STSv1; id=1"][..],
            &[],
            &["v=STSv10; id=1"],
            &["v=STSv1"],
            &["v=STSv1;"],
            &["v=STSv1; id="],
            &["v=STSv1; id=a-b"],
            &["id=1; v=STSv1"],
            &["v=STSv1; id=012345678901234567890123456789012"],
        ] {
            assert_eq!(id(none), None, "{none:?}");
        }
        assert_eq!(policy_id([&b"v=STSv1; id=\xff"[..]]), None);
    }

    #[test]
    fn a_policy_is_fetched_when_it_is_new_and_kept_while_it_is_valid() {
        let policy = Policy::parse(EXAMPLE.as_bytes()).unwrap();
        let kept = Kept { id: "1".into(), policy, fetched_at_s: 1_000 };
        let (same, other) = (RecordAnswer::Id("1".into()), RecordAnswer::Id("2".into()));
        let ends = 1_000 + 604_800;
        let cases = [
            (None, &RecordAnswer::None, None, 1_000, Step::NoPolicy),
            (None, &RecordAnswer::Unknown, None, 1_000, Step::NoPolicy),
            (None, &same, None, 1_000, Step::Fetch),
            // A fetch that failed is not repeated for every message.
            (None, &same, Some(900), 900 + FETCH_AGAIN_AFTER_S - 1, Step::NoPolicy),
            (None, &same, Some(900), 900 + FETCH_AGAIN_AFTER_S, Step::Fetch),
            (Some(&kept), &same, None, 1_000, Step::UseKept),
            (Some(&kept), &same, None, 1_000 + REFRESH_AFTER_S, Step::Fetch),
            (Some(&kept), &other, None, 1_001, Step::Fetch),
            (Some(&kept), &other, Some(1_001), 1_002, Step::UseKept),
            // Who takes the record away takes no policy away.
            (Some(&kept), &RecordAnswer::None, None, ends - 1, Step::UseKept),
            (Some(&kept), &RecordAnswer::Unknown, None, ends - 1, Step::UseKept),
            (Some(&kept), &RecordAnswer::None, None, ends, Step::NoPolicy),
            (Some(&kept), &same, None, ends, Step::Fetch),
            (Some(&kept), &same, Some(ends - 1), ends, Step::NoPolicy),
            // A clock that goes back ends nothing.
            (Some(&kept), &same, None, 0, Step::UseKept),
        ];
        for (kept, answer, failed, now, expected) in cases {
            assert_eq!(step(kept, answer, failed, now), expected, "{answer:?} {failed:?} {now}");
        }
    }
}

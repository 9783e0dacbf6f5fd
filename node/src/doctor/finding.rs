//! One thing that was looked at.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing to do.
    Good,
    /// It could not be told on this machine.
    Unknown,
    /// It works, until something else goes wrong.
    Warning,
    /// The node won't start, or mail could be lost.
    Bad,
}

/// What was found, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: disk, descriptors, memory, certificates, ports, clock, versions.
    pub check: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What is there.
    pub found: String,
    /// What to do; nothing where it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

impl Finding {
    /// Nothing to do.
    pub fn good(check: &'static str, found: String) -> Self {
        Finding { check, verdict: Verdict::Good, found, todo: None }
    }

    /// It could not be told.
    pub fn unknown(check: &'static str, found: String, todo: impl Into<String>) -> Self {
        Finding { check, verdict: Verdict::Unknown, found, todo: Some(todo.into()) }
    }

    /// It works, until something else goes wrong.
    pub fn warning(check: &'static str, found: String, todo: impl Into<String>) -> Self {
        Finding { check, verdict: Verdict::Warning, found, todo: Some(todo.into()) }
    }

    /// The node won't start, or mail could be lost.
    pub fn bad(check: &'static str, found: String, todo: impl Into<String>) -> Self {
        Finding { check, verdict: Verdict::Bad, found, todo: Some(todo.into()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Good => "good",
            Verdict::Unknown => "unknown",
            Verdict::Warning => "WARNING",
            Verdict::Bad => "BAD",
        };
        write!(f, "{verdict:<8} {:<12} {}", self.check, self.found)?;
        if let Some(todo) = &self.todo {
            write!(f, "\n{:22}-> {todo}", "")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_to_do_below_what_is_there() {
        let text = Finding::bad("ports", "25 is taken".to_owned(), "stop the other server").to_string();
        assert_eq!(text, "BAD      ports        25 is taken\n                      -> stop the other server");
        let json = serde_json::to_value(Finding::good("ports", "all free".to_owned())).unwrap_or_default();
        assert_eq!(json, serde_json::json!({"check": "ports", "verdict": "good", "found": "all free"}));
    }
}

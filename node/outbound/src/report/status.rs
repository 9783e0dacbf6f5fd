//! Enhanced status codes (RFC 3463): what became of a message, in three numbers.

use std::fmt;

/// An enhanced status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it is for good.
    pub class: Class,
    /// What it is about, at most 999.
    pub subject: u16,
    /// What of that, at most 999.
    pub detail: u16,
}

/// Whether something is done, may yet be, or never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 2: done.
    Success,
    /// 4: not now.
    Transient,
    /// 5: never.
    Permanent,
}

impl Status {
    /// A code.
    pub const fn new(class: Class, subject: u16, detail: u16) -> Self {
        Status { class, subject, detail }
    }

    /// Reads a code such as `5.1.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let class = match parts.next()? {
            "2" => Class::Success,
            "4" => Class::Transient,
            "5" => Class::Permanent,
            _ => return None,
        };
        let mut number = || {
            let digits = parts.next()?;
            let fits = (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
            if fits { digits.parse().ok() } else { None }
        };
        let (subject, detail) = (number()?, number()?);
        parts.next().is_none().then_some(Status { class, subject, detail })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.class {
            Class::Success => 2,
            Class::Transient => 4,
            Class::Permanent => 5,
        };
        write!(f, "{class}.{}.{}", self.subject.min(999), self.detail.min(999))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_three_numbers_of_which_the_first_is_a_class() {
        for text in ["2.0.0", "4.4.7", "5.7.30", "5.999.999"] {
            assert_eq!(Status::parse(text).map(|status| status.to_string()).as_deref(), Some(text));
        }
        for text in ["", "5", "5.1", "5.1.1.1", "3.1.1", "5.1000.1", "5.1.", "5.+1.1", "5.1.1 x", "250"] {
            assert_eq!(Status::parse(text), None, "{text}");
        }
    }
}

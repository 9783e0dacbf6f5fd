//! Why a region can't take over.

/// Why a region can't take over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Refused {
    /// A word for programs.
    pub code: &'static str,
    /// For people.
    pub sentence: String,
}

impl Refused {
    /// With a word for programs.
    pub fn new(code: &'static str, sentence: impl Into<String>) -> Self {
        Refused { code, sentence: sentence.into() }
    }
}

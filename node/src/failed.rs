//! Why a command failed.

/// Why a command failed, and its exit code.
#[derive(Debug)]
pub struct Failed {
    /// One sentence.
    pub sentence: String,
    /// 1 failed, 2 bad usage or configuration, 3 nobody knows.
    pub code: u8,
}

impl Failed {
    /// It did not work.
    pub fn because(sentence: String) -> Self {
        Failed { sentence, code: 1 }
    }

    /// It may have happened, or may still.
    pub fn unknown(sentence: String) -> Self {
        Failed { sentence, code: 3 }
    }

    /// Whether it may have happened.
    pub fn is_unknown(&self) -> bool {
        self.code == 3
    }

    /// It was not said right.
    pub fn usage(sentence: String) -> Self {
        Failed { sentence, code: 2 }
    }
}

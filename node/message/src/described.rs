//! What is kept beside a message, so that nobody has to take it apart again.

use crate::budget::{Budget, TooMuch};
use crate::envelope::Envelope;
use crate::header::header_len;
use crate::structure::Part;

/// A message's ENVELOPE and BODYSTRUCTURE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Of its header.
    pub envelope: Envelope,
    /// Of the whole.
    pub structure: Part,
}

impl Described {
    /// Takes a message apart, within one budget.
    ///
    /// # Errors
    /// If it has too much of something.
    pub fn of(message: &[u8]) -> Result<Self, TooMuch> {
        let mut budget = Budget::of_a_message();
        // First, because it bounds the header.
        let structure = Part::within(message, &mut budget)?;
        let envelope = Envelope::within(&message[..header_len(message)], &mut budget)?;
        Ok(Described { envelope, structure })
    }
}

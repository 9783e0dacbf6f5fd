//! The 7-bit form of a message, for a server without 8BITMIME (RFC 6152, section 3): each part that has octets above 127 is encoded
//! (RFC 2045, section 6), and decodes to what it was.
//!
//! In three steps, as a message has no bound on its length here: its structure, which was kept when it came, says where its parts
//! stand ([`Survey::of`]); one reading says which of them are to be encoded and how ([`Plan`]); another one converts it
//! ([`Converter`]), as often as it is sent. Each reads pieces of any size.

mod coding;
mod converter;
mod delimiters;
mod layout;
#[cfg(test)]
mod properties;
mod survey;
mod walk;

use mailraft_message::Part;

pub use converter::Converter;
pub use survey::{NotSevenBit, Plan, Survey};

/// Whether a message with this structure has a 7-bit form.
pub fn has_seven_bit_form(structure: &Part, message: &[u8]) -> bool {
    let mut survey = Survey::of(structure, 0);
    survey.piece(message);
    survey.finish().is_ok()
}

//! What names a message, in whichever folders it is.

use serde::{Deserialize, Serialize};

/// The immutable id of a message's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EmailId(pub [u8; 16]);

//! DMARC's aggregate reports (RFC 7489, section 7.2; RFC 9990): who sent mail in a domain's name, and what came of it.

mod external;
mod messages;
mod report;
mod rua;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;
mod xml;

pub use self::external::{Asking, Consent, ask, consent};
pub use self::messages::{
    Alignment, AlignmentMode, COMMENT_MAX_BYTES, DAY_MAX_BYTES, DOMAIN_MAX_BYTES, DOMAINS_MAX, DkimAuth, Dmarc,
    Messages, MessagesOfDay, OVERRIDES_MAX, Override, OverrideKind, POLICIES_MAX, POLICY_MAX_BYTES, Published,
    ROWS_MAX, Row, SIGNATURES_MAX, SpfAuth, SpfScope,
};
pub use self::report::Report;
pub use self::rua::{DESTINATIONS_MAX, Destination, destinations};
pub use self::xml::Schema;

//! SMTP TLS reports (RFC 8460): how connections to a domain's servers went, told to the domain once a day.

mod record;
mod report;
mod sessions;
#[cfg(test)]
mod tests;

pub use self::record::{PLACES_MAX, Place, places, record_name};
pub use self::report::{Post, Report};
pub use self::sessions::{
    DAY_MAX_BYTES, DOMAIN_MAX_BYTES, DOMAINS_MAX, FAILURES_MAX, Failure, POLICIES_MAX, POLICY_LINE_MAX_BYTES,
    POLICY_LINES_MAX, POLICY_MAX_BYTES, REASON_MAX_BYTES, Sessions, SessionsOfDay, Tls,
};

//! What a mail server tells other domains about their mail, once a day: how TLS went with their servers ([`tls`], RFC 8460), and who
//! sent in their name ([`dmarc`], RFC 7489 and RFC 9990). And what a domain of ours publishes, by which others know how to treat
//! its mail and tell us such things ([`domain_records`]).
//!
//! Pure: the time and randomness are handed in, and so is what the DNS says. The shell does the rest:
//!
//! 1. *Each node counts* what it sees. After each connection to another domain's server [`tls::Sessions::count`], with the policy
//!    that was applied (`Decision::counted_as`) and what failed; nothing of smart hosts, and nothing of what never came to a policy
//!    or a greeting. After each check of a message from another server [`dmarc::Messages::count`], if the author's domain
//!    publishes a policy and wants reports (`rua`). Neither is ever waited for: what has no room is counted as lost.
//! 2. *Over a restart* what was counted lives in the records of [`Collector::encode`], all written in the place of those before,
//!    now and then and at a stop. What was counted since then is lost with a crash: these are statistics.
//! 3. *After midnight UTC* whoever sends for all, as the leader of the control group, waits [`COLLECTING_S`], asks each node for what
//!    it counted of the day ([`Collector::day`]), in parts ([`Day::encode`]), and makes one day of them ([`Day::merge`]), each node's
//!    once: a node that is away then is not in the report. When all is sent each node forgets the day ([`Collector::forget_told`]).
//! 4. *For each domain* of the day ([`Day::domains`]) it has a jitter and waits until [`due_unix_s`]. Then it asks the DNS:
//!    - TLS: the TXT records of [`tls::record_name`], which [`tls::places`] reads. A mail of [`tls::Report::mail`] goes to an address,
//!      a [`tls::Report::post`] to a URL, whatever certificate is there; an answer of 2xx takes it.
//!    - DMARC: the domain's record anew, of whose `rua` [`dmarc::destinations`] makes places; for each [`dmarc::ask`], and if that
//!      has a question, [`dmarc::consent`] of the answer. A mail of [`dmarc::Report::mail`] goes to each that takes its length.
//! 5. *A mail* ([`Mail`]) is signed by the domain of the reporter's address and goes into the queue like any other, with a null
//!    reverse-path and as much TLS as [`Mail::asked`] says. It is tried for a day (RFC 8460, section 5.5). What is sent twice, as by
//!    two leaders, has one id and one file name, by which its reader knows it.
//!
//! What was counted is bounded in entries and bytes for each domain and for the day, and sums go on where rows have no room. A
//! report says what it leaves out, and [`Collector::lost`] and [`Day::lost`] have it for a metric.

mod collector;
mod day;
pub mod dmarc;
pub mod domain_records;
mod mail;
mod mailto;
#[cfg(test)]
mod merge_tests;
mod reporter;
mod shelf;
mod text;
pub mod tls;

pub use collector::{COLLECTING_S, Collector, DAYS_MAX, SPREAD_S, due_unix_s};
pub use day::{DAY_SECONDS, Day, Kind, Lost, OtherDay, PART_MAX_BYTES};
pub use mail::Mail;
pub use mailto::URI_MAX_BYTES;
pub use reporter::{Reporter, ReporterError};

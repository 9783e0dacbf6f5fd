//! The client's side of one connection: a greeting, TLS, a login, any number of transactions, QUIT. Bytes in, bytes out.
//!
//! What bites: a reply belongs to the oldest command without one, so after anything that is no reply the connection is of
//! no use; what was read before TLS is forgotten; a message of which the final dot was written and not answered may have been
//! taken; and a connection that waited may be dead, which says nothing about its host.

mod capabilities;
mod connection;
#[cfg(test)]
mod dialogue;
mod envelope;
mod login;
#[cfg(test)]
mod properties;
mod transaction;

pub use capabilities::Capabilities;
pub use connection::{AUTH_MAX, CONNECT_MAX, Client, Ending, Lost, QUIT_MAX, Settings, Step, TRANSACTIONS_MAX, TlsUse};
pub use envelope::{
    ADDRESS_MAX_BYTES, ENVID_MAX_BYTES, Envelope, Notify, ORCPT_MAX_BYTES, RECIPIENTS_MAX, Recipient, Return,
};
pub use login::{Credentials, Role};
pub use transaction::{PIPELINED_MAX_BYTES, TransactionReport};

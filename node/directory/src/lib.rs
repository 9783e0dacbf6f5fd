//! Domains, addresses, accounts.

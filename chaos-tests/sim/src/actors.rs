//! The mailbox actors of a node: the thin shell around the production owner, with simulated delays.

use std::collections::BTreeMap;

use mailraft_mailbox::owner::Owner;

use crate::host::{Leading, PendingRead};

/// A session as an actor knows it: its number and that of its connection.
pub type SessionName = (u64, u64);

/// An actor.
pub struct Actor {
    /// Its number on this node.
    pub number: u64,
    /// What its node leads, when it started.
    pub leading: Leading,
    /// The production state machine.
    pub owner: Owner<SessionName>,
    /// Its reads on their way.
    pub reads: BTreeMap<u64, PendingRead>,
}

impl Actor {
    /// Not loaded yet.
    pub fn new(number: u64, leading: Leading) -> Self {
        Actor { number, leading, owner: Owner::new(), reads: BTreeMap::new() }
    }
}

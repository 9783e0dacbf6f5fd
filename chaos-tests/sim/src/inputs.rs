//! Inputs of cores that follow from the present event.

use std::collections::VecDeque;

use mailraft_cluster::{Input, Output};
use mailraft_storage::NodeId;

/// Inputs in the order in which they came about, and room for what a core says to one.
#[derive(Default)]
pub struct Inputs {
    waiting: VecDeque<(NodeId, Input)>,
    room: Vec<Output>,
}

impl Inputs {
    /// One more, behind all others.
    pub fn push(&mut self, node: NodeId, input: Input) {
        self.waiting.push_back((node, input));
    }

    /// The next.
    pub fn pop(&mut self) -> Option<(NodeId, Input)> {
        self.waiting.pop_front()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A node's process has died: nothing reaches it.
    pub fn forget(&mut self, node: NodeId) {
        self.waiting.retain(|(of, _)| *of != node);
    }

    /// Room for what a core says, to be given back.
    pub fn take_room(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.room)
    }

    /// The room that was taken.
    pub fn give_room(&mut self, room: Vec<Output>) {
        self.room = room;
    }
}

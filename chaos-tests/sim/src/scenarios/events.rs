//! What scripts look for among the things that happen.

use mailraft_cluster::PeerBody;
use mailraft_mailbox::Reply as OwnerReply;
use mailraft_storage::log::LogWrite;
use mailraft_storage::{NodeId, PartitionId, ReplicaId};
use raft::eraftpb::MessageType;

use crate::event::{Event, Local, ToActor, ToSession};
use crate::scenarios::script::{Client, Matches, process};

/// One of Raft's messages of a partition; None for any node.
pub fn raft(kind: MessageType, partition: PartitionId, from: Option<NodeId>, to: Option<NodeId>) -> Matches {
    Box::new(move |_, event| {
        let Event::To(at, Local::Peer(sender, message)) = event else { return false };
        let PeerBody::Raft(raft) = &message.body else { return false };
        message.partition == partition
            && raft.get_msg_type() == kind
            && from.is_none_or(|n| n == *sender)
            && to.is_none_or(|n| n == *at)
    })
}

/// A snapshot of a partition from one node that arrives at another.
pub fn snapshot(partition: PartitionId, from: NodeId, at: NodeId) -> Matches {
    Box::new(move |_, event| {
        matches!(event, Event::Snapshot(to, sender, _, message, _)
            if *to == at && *sender == from && message.partition == partition)
    })
}

/// Whatever a client's session sends to a node.
pub fn from_client(client: Client, at: NodeId) -> Matches {
    Box::new(
        move |_, event| matches!(event, Event::To(to, Local::FromSession(session, ..)) if *to == at && *session == client.0),
    )
}

/// A question that a client's session sends to a node.
pub fn asks(client: Client, at: NodeId) -> Matches {
    Box::new(move |_, event| {
        let Event::To(to, Local::FromSession(session, _, _, what)) = event else { return false };
        *to == at && *session == client.0 && matches!(**what, ToActor::Ask { .. })
    })
}

/// A part of a large body, by its number, on its way to whoever leads.
pub fn chunk(client: Client, part: u32) -> Matches {
    Box::new(move |_, event| {
        let Event::To(_, Local::FromSession(session, _, _, what)) = event else { return false };
        *session == client.0 && matches!(**what, ToActor::Chunk { number, .. } if number == part)
    })
}

/// The word that a part of a large body is durable, on its way to a client.
pub fn chunk_done(client: Client) -> Matches {
    Box::new(move |_, event| {
        matches!(event, Event::ToSession(to, _, what)
            if *to == client.0 && matches!(**what, ToSession::Chunk { ok: true, .. }))
    })
}

/// Whatever is said to a client's session.
pub fn to_client(client: Client) -> Matches {
    Box::new(move |_, event| matches!(event, Event::ToSession(to, ..) if *to == client.0))
}

/// An OK to a client's session.
pub fn ok_to(client: Client) -> Matches {
    Box::new(move |_, event| {
        let Event::ToSession(to, _, what) = event else { return false };
        let ToSession::Reply(reply, _) = &**what else { return false };
        *to == client.0 && matches!(**reply, OwnerReply::Answer { result: Ok(_), .. })
    })
}

/// The end of a node's fsync with such a write of a replica in it.
pub fn synced(node: NodeId, replica: ReplicaId, writes: impl Fn(&LogWrite) -> bool + 'static) -> Matches {
    Box::new(move |world, event| {
        let Event::On(at, life, Local::Synced) = event else { return false };
        let current = world.host(node).life == *life;
        let writing = process(world, node).and_then(|p| p.writing.as_ref());
        let found = writing.is_some_and(|(_, batch)| batch.writes.iter().any(|w| w.replica == replica && writes(w)));
        *at == node && current && found
    })
}

/// The end of a node's apply with an entry of a replica in it, by index.
pub fn applied(node: NodeId, replica: ReplicaId, index: impl Fn(u64) -> bool + 'static) -> Matches {
    Box::new(move |world, event| {
        let Event::On(at, life, Local::Applied) = event else { return false };
        let current = world.host(node).life == *life;
        let jobs = process(world, node).map(|p| &p.applying[..]).unwrap_or_default();
        let found = jobs.iter().any(|j| j.replica == replica && j.entries.iter().any(|(e, _)| index(e.index)));
        *at == node && current && found
    })
}

/// The end of the replacing of a replica's rows by those of a snapshot.
pub fn installed(node: NodeId, replica: ReplicaId) -> Matches {
    Box::new(move |world, event| {
        matches!(event, Event::On(at, life, Local::Installed(of))
            if *at == node && *of == replica && world.host(*at).life == *life)
    })
}

/// The loading of a mailbox by an actor.
pub fn loads() -> Matches {
    Box::new(|world, event| matches!(event, Event::On(at, life, Local::Load(..)) if world.host(*at).life == *life))
}

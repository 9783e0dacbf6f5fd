//! What became of changes of which their clients heard nothing, as the tables of commands say.

use mailraft_checkers::{At, Record, Rule};
use mailraft_mailbox::{Kept, Place, kept_result};
use mailraft_storage::{CommandId, Index, MailboxId, NodeId, PartitionId, ReplicaId, Rows, StoreError};

use crate::host::{CLUSTER, Host};
use crate::unresolved::Seen;
use crate::world::World;

/// Whose tables are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tables {
    /// Those that nobody takes over from.
    Lasting,
    /// Those of a home that may be lost, and those that have what may be lost.
    AtRisk,
}

impl World {
    /// Looks for ids whose clients had no answer, all the time and on every disk: results are evicted after a while. That is
    /// decided right behind such a look, by whoever has them: so with `all` what no look ever saw was not carried out. What only
    /// a home had that may be lost is done if it lives on in the region that takes over, where it may be evicted as soon as it
    /// is applied.
    pub(super) fn resolve(&mut self, all: bool) {
        // Also of those whose clients still wait: an id that a wrong clock drew may be evicted before they give up.
        let waiting = self.clients.sessions().filter_map(|s| {
            let id = s.machine.asked()?;
            s.busy.as_ref().filter(|b| b.id == id && !b.op.is_read())?;
            Some((id, s.mailbox))
        });
        let waiting: Vec<(CommandId, MailboxId)> = waiting.collect();
        for (id, mailbox) in &waiting {
            let (id, mailbox) = (*id, *mailbox);
            match self.kept(id, mailbox, Tables::Lasting) {
                Ok(Some(seen)) => self.unresolved.found(id, seen.at, seen.result),
                Ok(None) | Err(_) => self.sees_at_risk(id, mailbox),
            }
        }
        self.tells_what_lives_on();
        // In the end nobody waits any more, though he may not have given up.
        let waiting = waiting.into_iter().filter(|_| all);
        let to_look_for: Vec<_> = self.unresolved.to_look_for(all, self.now()).into_iter().chain(waiting).collect();
        for (id, mailbox) in to_look_for {
            let known = match self.unresolved.take_found(id) {
                Some(found) => Ok(Some(found)),
                None => self.kept(id, mailbox, Tables::Lasting).map(|seen| seen.map(|seen| (seen.at, seen.result))),
            };
            match known {
                Ok(Some((at, result))) => {
                    self.unresolved.resolved(id);
                    self.record(Record::Resolved { id, outcome: Some((at, result)) });
                }
                Ok(None) if all => {
                    self.unresolved.resolved(id);
                    // Of the rest nobody knows whether it lives on.
                    if !self.unresolved.is_at_risk(id) {
                        self.record(Record::Resolved { id, outcome: None });
                    }
                }
                Ok(None) => self.sees_at_risk(id, mailbox),
                Err(error) => {
                    return self.goes_wrong(Rule::ExactlyOnce, format!("the result of {id} can't be read: {error}"));
                }
            }
        }
    }

    /// Looks for a result at a home that may be lost.
    fn sees_at_risk(&mut self, id: CommandId, mailbox: MailboxId) {
        if !self.promise.is_takeover_expected() || self.unresolved.is_at_risk(id) {
            return;
        }
        if let Ok(Some(seen)) = self.kept(id, mailbox, Tables::AtRisk)
            && self.lives_on(&seen) != Some(false)
        {
            self.unresolved.seen_at_risk(id, seen);
        }
    }

    /// Of what was seen at a home that may be lost: what is part of the log that goes on, and what is lost.
    fn tells_what_lives_on(&mut self) {
        for (id, seen) in self.unresolved.take_at_risk() {
            match self.lives_on(&seen) {
                Some(true) => self.unresolved.found(id, seen.at, seen.result),
                Some(false) => {}
                None => self.unresolved.seen_at_risk(id, seen),
            }
        }
    }

    /// Whether the region that took over has an entry that the home had; None before, or where its log is cut already.
    fn lives_on(&self, seen: &Seen) -> Option<bool> {
        let (partition, index) = (PartitionId(seen.at.partition), Index(seen.at.index));
        let fork = self.promise.fork_behind(partition, seen.at.incarnation)?;
        if index > fork {
            return Some(false);
        }
        let there = self.promise.far().iter().filter(|node| self.has_begun_at(**node, partition));
        let found = there.filter_map(|node| self.term_at(*node, partition, index)).next()?;
        Some(found == seen.term?)
    }

    fn kept(&self, id: CommandId, mailbox: MailboxId, tables: Tables) -> Result<Option<Seen>, StoreError> {
        let (key, partition) = (self.mailboxes.key(mailbox), self.mailboxes.partition(mailbox));
        for host in self.hosts.values() {
            let replicas = host.rows.replicas()?;
            for replica in replicas.into_iter().filter(|replica| self.tables_of(host, *replica) == tables) {
                let place = Place {
                    cluster: CLUSTER,
                    mailbox,
                    replica,
                    incarnation: Default::default(),
                    term: Default::default(),
                    began_alone: false,
                };
                let kept = match kept_result(&host.rows, &place, &key, id) {
                    Err(_) if host.corrupted.contains(&replica) => continue,
                    kept => kept?,
                };
                if let Some(Kept { index, result: Some(result) }) = kept {
                    let at = self.position_at(host.id, replica, partition, index);
                    return Ok(Some(Seen { at, term: self.term_at(host.id, partition, index), result }));
                }
            }
        }
        Ok(None)
    }

    fn tables_of(&self, host: &Host, replica: ReplicaId) -> Tables {
        match self.promise.may_be_lost(host.id) || self.promise.may_have_lost(host, replica) {
            true => Tables::AtRisk,
            false => Tables::Lasting,
        }
    }

    fn position_at(&self, node: NodeId, replica: ReplicaId, partition: PartitionId, index: Index) -> At {
        let incarnation = self.incarnation_at(node, replica, index).unwrap_or(1);
        At { partition: partition.0, incarnation, index: index.0 }
    }
}

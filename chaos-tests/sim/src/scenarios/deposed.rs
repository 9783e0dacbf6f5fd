//! A leader that is cut off with its clients and does not know it.

use mailraft_checkers::{Ended, Op};
use mailraft_storage::PartitionId;
use raft::eraftpb::MessageType;

use crate::scenarios::events;
use crate::scenarios::script::{MS, S, Script, Scripted, leader, process};
use crate::world::World;
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);

/// It believes to lead while another does: it answers no read, and its idling session misses nothing.
pub fn with_its_clients(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 3, 1)?;
    let old = s.leader(P)?;
    let far = s.followers(P)?[0];
    let writer = s.client(far, P)?;
    for _ in 0..3 {
        s.deliver(writer)?;
    }
    let idle = s.client(old, P)?;
    s.opens(idle, "INBOX")?;
    // A write that comes to nothing ends its owner, so it is another mailbox's.
    let (read, written) = (s.mailbox(P)?, s.world.mailboxes().ids().next_back());
    let written = written.filter(|other| *other != read).ok_or("there is one mailbox")?;
    let clients = [s.client_of(old, read), s.client_of(old, read), s.client_of(old, written)];
    for client in clients {
        s.does(client, Op::Sync)?;
    }
    let [early, late, write] = clients;
    // One read's round is confirmed only when another node leads.
    let confirmed = s.hold(events::raft(MessageType::MsgHeartbeatResponse, P, None, Some(old)));
    s.begin(early, Op::Status { folder: "INBOX".to_owned() });
    s.until_held(confirmed, 2, 100 * MS)?;
    let cut = s.cut(&[old])?;
    s.sleep(old, 450 * MS);
    let next = s.led_by_another(P, &[old])?;
    s.expect("the writer asks elsewhere", next != old)?;
    for _ in 0..2 {
        s.deliver(writer)?;
    }
    s.until("the old leader wakes", S, move |w| w.host(old).paused_until <= w.now())?;
    s.begin(late, Op::Status { folder: "INBOX".to_owned() });
    s.begin_delivery(write);
    s.until_after("the read is asked of the old leader", 50 * MS, events::asks(late, old))?;
    let believes = process(&s.world, old).is_some_and(|p| p.leading.contains_key(&P));
    s.expect("two nodes believe to lead", believes && leader(&s.world, P).is_some_and(|(n, _)| n == next))?;
    s.until("it is deposed", S, move |w: &World| process(w, old).is_some_and(|p| !p.leading.contains_key(&P)))?;
    s.release(confirmed)?;
    for client in clients {
        let ended = s.answer(client)?;
        s.expect("nobody is answered there", matches!(ended, Ended::Unknown | Ended::NotDone))?;
    }
    s.over(cut)?;
    let resumed = move |w: &World| w.clients().session(idle.0).is_some_and(|s| s.machine.is_attached());
    s.until("the idling session resumes", 3 * S, resumed)?;
    let there = s.messages(writer, "INBOX")?;
    let seen = s.session(idle)?.following().map(|f| f.uids().count());
    s.expect("it has missed nothing", seen == Some(there))?;
    s.expect_clean()
}

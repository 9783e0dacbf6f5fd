//! A question that the network holds back while its session gives up and succeeds elsewhere.

use mailraft_checkers::Op;
use mailraft_cluster::Role;
use mailraft_mailbox::Flags;
use mailraft_storage::PartitionId;

use crate::scenarios::events;
use crate::scenarios::script::{Client, Hold, MS, S, Script, Scripted};
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);

/// The held copies arrive at a leader that was deposed, and at one that leads again in a later term.
pub fn arrives(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 3, 1)?;
    let (leader, home) = (s.leader(P)?, s.followers(P)?[0]);
    let term = s.term(P)?;
    let reader = s.client(home, P)?;
    s.deliver(reader)?;
    // Attached before, so that only the question is late; not attached, so that all of the connection is; and one
    // whose question would be harmless if it came twice to one owner.
    let attached = s.client(home, P)?;
    s.does(attached, Op::Sync)?;
    let new = [s.client(home, P)?, s.client(home, P)?];
    let mut late = Vec::new();
    for client in [attached, new[0], new[1]] {
        late.push((client, s.hold(events::from_client(client, leader))));
        appends(&mut s, client);
    }
    for (_, hold) in &late {
        s.until_held(*hold, 1, 100 * MS)?;
    }
    let cut = s.cut(&[leader])?;
    let next = s.led_by_another(P, &[leader])?;
    for (client, _) in &late {
        s.ok(*client)?;
    }
    s.expect("they were answered by the next leader", s.leader(P)? == next)?;
    let there = s.messages(reader, "INBOX")?;
    s.over(cut)?;
    s.until("the old leader is deposed", 2 * S, move |w| {
        crate::scenarios::script::status(w, leader, P).is_some_and(|s| s.role == Role::Follower)
    })?;
    for (_, hold) in &late[..2] {
        release(&mut s, *hold)?;
    }
    let now = s.messages(reader, "INBOX")?;
    s.expect("the old leader does nothing", now == there)?;
    // By preference it leads again after a while; all that was held comes then.
    s.led_by(P, leader, 15 * S)?;
    s.expect("it leads in a later term", s.term(P)? > term)?;
    release(&mut s, late[2].1)?;
    s.wait(500 * MS)?;
    let now = s.messages(reader, "INBOX")?;
    s.expect("the new owner does not carry it out again", now == there)?;
    s.expect_clean()
}

/// Nothing recognises two of it as one, but its id.
fn appends(s: &mut Script, client: Client) {
    let marker = s.world.clients_mut().new_marker();
    s.begin(client, Op::Append { folder: "INBOX".to_owned(), marker, flags: Flags::none(), date: None });
}

fn release(s: &mut Script, hold: Hold) -> Scripted<()> {
    s.expect("something is held back", s.held(hold) > 0)?;
    s.release(hold)?;
    s.wait(300 * MS)
}

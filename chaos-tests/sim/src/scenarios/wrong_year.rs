//! Every clock of the cluster is a year ahead or behind for a while.

use mailraft_checkers::{Ended, Op};
use mailraft_mailbox::Flags;
use mailraft_storage::{CommandFloor, CommandId, PartitionId};

use crate::faults::Fault;
use crate::scenarios::events;
use crate::scenarios::script::{Client, Lasting, MS, S, Script, Scripted, rows_at};
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);
const YEAR_MS: i64 = 365 * 24 * 3_600_000;

/// Results of commands are evicted by a time that is wrong, then new ids are a year older than the log's last
/// stamp: everyone is served on, and nothing is done twice.
pub fn and_back(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 3, 1)?;
    let nodes = s.members(P)?;
    let clients = [s.client(nodes[0], P)?, s.client(nodes[1], P)?, s.client(nodes[2], P)?];
    all_write(&mut s, &clients)?;
    let floor = floor(&s)?;
    let wrong = clocks(&mut s, YEAR_MS)?;
    s.wait(300 * MS)?;
    all_write(&mut s, &clients)?;
    s.wait(10 * S)?;
    s.expect("results were evicted by the wrong time", self::floor(&s)? > floor)?;
    all_write(&mut s, &clients)?;
    for clock in wrong {
        s.over(clock)?;
    }
    s.wait(300 * MS)?;
    for _ in 0..3 {
        all_write(&mut s, &clients)?;
        unheard(&mut s)?;
        // Results of the right time are evicted at once, as the log's time is a year ahead.
        s.wait(8 * S)?;
    }
    s.expect_clean()
}

/// Every clock loses its battery with the power: new ids are older than any whose result is kept. Everyone is served
/// on, then and when the clocks are right again.
pub fn behind(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 3, 1)?;
    let nodes = s.members(P)?;
    let kept = i64::try_from(s.world.setup().results_kept.as_millis()).unwrap_or(i64::MAX);
    let clients = [s.client(nodes[0], P)?, s.client(nodes[1], P)?, s.client(nodes[2], P)?];
    all_write(&mut s, &clients)?;
    let mut wrong = clocks(&mut s, 2 * kept)?;
    s.wait(300 * MS)?;
    all_write(&mut s, &clients)?;
    s.wait(10 * S)?;
    s.expect("results were evicted", floor(&s)? > CommandId::default())?;
    nodes.iter().for_each(|node| s.kill(*node));
    wrong.extend(clocks(&mut s, -YEAR_MS)?);
    for node in &nodes {
        s.restart(*node)?;
    }
    s.led_by_another(P, &[])?;
    s.led_by_another(PartitionId::CONTROL, &[])?;
    let clients = [s.client(nodes[0], P)?, s.client(nodes[1], P)?, s.client(nodes[2], P)?];
    for right in [false, true] {
        if right {
            wrong.drain(..).try_for_each(|clock| s.over(clock))?;
            s.wait(300 * MS)?;
        }
        for _ in 0..2 {
            all_write(&mut s, &clients)?;
            unheard(&mut s)?;
            s.wait(8 * S)?;
        }
    }
    s.expect_clean()
}

/// All clocks jump.
fn clocks(s: &mut Script, ms: i64) -> Scripted<Vec<Lasting>> {
    let nodes = s.world.nodes();
    nodes.into_iter().map(|node| s.fault(Fault::Jump { node, ms })).collect()
}

/// Every client's write is done.
fn all_write(s: &mut Script, clients: &[Client]) -> Scripted<()> {
    for client in clients {
        s.deliver(*client)?;
        let marker = s.world.clients_mut().new_marker();
        s.does(*client, Op::Append { folder: "INBOX".to_owned(), marker, flags: Flags::none(), date: None })?;
    }
    Ok(())
}

/// A change is applied, and the one who asked does not hear of it before the leader has changed.
fn unheard(s: &mut Script) -> Scripted<()> {
    let (leader, home) = (s.leader(P)?, s.followers(P)?[0]);
    let client = s.client(home, P)?;
    let lost = s.hold(events::ok_to(client));
    let before = rows_at(&s.world, leader, P);
    let marker = s.world.clients_mut().new_marker();
    s.begin(client, Op::Append { folder: "INBOX".to_owned(), marker, flags: Flags::none(), date: None });
    s.until("it is applied", S, move |w| rows_at(w, leader, P) > before)?;
    let cut = s.cut(&[leader])?;
    s.lose(lost);
    let ended = s.answer(client)?;
    s.expect("it is done, or nobody knows", matches!(ended, Ended::Done(_) | Ended::Unknown))?;
    s.over(cut)
}

/// The id below which no result is kept.
fn floor(s: &Script) -> Scripted<CommandId> {
    let leader = s.leader(P)?;
    let floor = CommandFloor::read(&s.world.host(leader).rows, s.replica(leader, P)?);
    Ok(floor.map_err(|e| e.to_string())?.0)
}

//! An open folder that is renamed, deleted and made anew while leaders die.

use mailraft_checkers::Op;
use mailraft_mailbox::Flags;
use mailraft_storage::PartitionId;

use crate::scenarios::events;
use crate::scenarios::script::{Client, S, Script, Scripted, rows_at};
use crate::world::World;
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);

/// Each change is applied, and the leader dies before anyone hears of it.
pub fn through_failovers(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 5, 4)?;
    let homes = s.outsiders(P);
    let (viewer, changer) = (s.client(homes[0], P)?, s.client(homes[1], P)?);
    s.does(changer, Op::Create { name: "a".to_owned() })?;
    for _ in 0..2 {
        appends(&mut s, changer, "a")?;
    }
    s.opens(viewer, "a")?;
    let first = s.session(viewer)?.following().map(|f| f.folder());
    s.expect("the viewer has it open", first.is_some())?;

    unheard(&mut s, viewer, changer, Op::Rename { from: "a".to_owned(), to: "b".to_owned() })?;
    resumes(&mut s, viewer)?;
    appends(&mut s, changer, "b")?;
    s.until("the viewer sees what comes into the renamed folder", S, move |w| seen(w, viewer) == Some(3))?;

    unheard(&mut s, viewer, changer, Op::Delete { name: "b".to_owned() })?;
    s.until("the viewer knows that it is gone", 3 * S, move |w| seen(w, viewer).is_none())?;
    unheard(&mut s, viewer, changer, Op::Create { name: "a".to_owned() })?;
    s.opens(viewer, "a")?;
    let anew = s.session(viewer)?.following().map(|f| f.folder());
    s.expect("it is another folder", anew > first && seen(&s.world, viewer) == Some(0))?;

    unheard(&mut s, viewer, changer, Op::Rename { from: "a".to_owned(), to: "c".to_owned() })?;
    unheard(&mut s, viewer, changer, Op::Create { name: "a".to_owned() })?;
    appends(&mut s, changer, "a")?;
    appends(&mut s, changer, "c")?;
    resumes(&mut s, viewer)?;
    s.until("the viewer follows the folder, not the name", S, move |w| seen(w, viewer) == Some(1))?;
    let now = s.session(viewer)?.following().map(|f| f.folder());
    s.expect("it is the same folder still", now == anew)?;
    s.expect_clean()
}

/// A change is applied, and its leader dies before viewer or changer hear of it.
fn unheard(s: &mut Script, viewer: Client, changer: Client, op: Op) -> Scripted<()> {
    let leader = s.leader(P)?;
    let lost = [s.hold(events::to_client(viewer)), s.hold(events::ok_to(changer))];
    let before = rows_at(&s.world, leader, P);
    s.begin(changer, op);
    s.until("the change is applied", S, move |w| rows_at(w, leader, P) > before)?;
    s.expect("the changer has no answer", s.ended(changer).is_none())?;
    s.kill(leader);
    lost.into_iter().for_each(|hold| s.lose(hold));
    s.led_by_another(P, &[leader])?;
    s.ok(changer)?;
    let index = s.position(changer).map(|at| at.index);
    s.expect("it was the entry of the one who died", index > before && index < rows_at(&s.world, s.leader(P)?, P))?;
    s.restart(leader)
}

fn resumes(s: &mut Script, viewer: Client) -> Scripted<()> {
    let resumed = move |w: &World| w.clients().session(viewer.0).is_some_and(|s| s.machine.is_attached());
    s.until("the viewer resumes", 3 * S, resumed)
}

fn appends(s: &mut Script, client: Client, folder: &str) -> Scripted<()> {
    let marker = s.world.clients_mut().new_marker();
    s.does(client, Op::Append { folder: folder.to_owned(), marker, flags: Flags::none(), date: None }).map(drop)
}

/// How many messages a viewer sees in its open folder; None without one.
fn seen(world: &World, viewer: Client) -> Option<usize> {
    world.clients().session(viewer.0)?.following().map(|f| f.uids().count())
}

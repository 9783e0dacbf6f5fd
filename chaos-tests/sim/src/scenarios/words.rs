//! Words that are broken off, given again elsewhere, by two operators at once, behind one that has begun, or that are false; and
//! clients that come back behind them.

use std::time::Duration;

use mailraft_cluster::ReplicaStatus;
use mailraft_storage::{NodeId, PartitionId};

use crate::faults::Fault;
use crate::moments::Moment;
use crate::scenarios::events;
use crate::scenarios::script::{Client, MS, S, Script, Scripted, leader, status};
use crate::scenarios::takeover::{HOME, SOUTH, finds, from_home, geo, home_dies, region, says, south_serves, uids_of};
use crate::setup::Setup;
use crate::world::World;
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);
const OTHER: u8 = 2;

fn control(world: &World, node: NodeId) -> Option<ReplicaStatus> {
    status(world, node, PartitionId::CONTROL)
}

/// The number of the incarnation in which all partitions are led, if that is one.
fn led_in(world: &World) -> Option<u32> {
    let of = |partition| {
        let (node, _) = leader(world, partition)?;
        Some(world.host(node).up.as_ref()?.leading.get(&partition)?.incarnation.number)
    };
    let (control, mail) = (of(PartitionId::CONTROL)?, of(P)?);
    (control == mail).then_some(control)
}

fn has_adopted(world: &World, node: NodeId) -> bool {
    control(world, node).is_some_and(|s| s.incarnation.number > 1)
}

/// Another operator says it, and goes on with nothing.
fn says_anew(s: &mut Script, nodes: &[NodeId]) -> Scripted<()> {
    s.fault(Fault::TakeOverAnew { nodes: nodes.to_vec(), nonce: OTHER }).map(drop)
}

/// The command ends behind its first answer, and the node that gave that dies. It is given again at the others.
pub fn who_adopted_first_dies(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    home_dies(&mut s);
    says(&mut s, &SOUTH[..1])?;
    s.until("the first has adopted", S, |w| has_adopted(w, SOUTH[0]))?;
    s.kill(SOUTH[0]);
    s.wait(S)?;
    s.expect("nobody serves by one's word", led_in(&s.world).is_none())?;
    says(&mut s, &SOUTH[1..])?;
    south_serves(&mut s)?;
    let other = s.client(SOUTH[1], P)?;
    s.deliver(other)?;
    s.restart(SOUTH[0])?;
    let follows = |w: &World| status(w, SOUTH[0], P).map(|s| s.applied) == status(w, SOUTH[1], P).map(|s| s.applied);
    s.until("the first follows", 5 * S, follows)?;
    let found = finds(&mut s)?;
    s.expect("both messages are there", found == 2)?;
    s.expect_clean()
}

/// Those who adopt die while that is being made durable, or right behind it, before anybody is answered.
pub fn they_die_as_they_adopt(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    home_dies(&mut s);
    let replica = s.replica(SOUTH[0], PartitionId::CONTROL)?;
    let synced = || events::synced(SOUTH[0], replica, |write| write.incarnation.is_some());
    says(&mut s, &SOUTH[..1])?;
    s.until_before("its word is durable", S, synced())?;
    s.kill(SOUTH[0]);
    s.restart(SOUTH[0])?;
    s.expect("what was not durable is not so", !has_adopted(&s.world, SOUTH[0]))?;
    says(&mut s, &SOUTH[..1])?;
    s.until_after("its word is durable", S, synced())?;
    s.kill(SOUTH[0]);
    s.restart(SOUTH[0])?;
    s.expect("what was durable stays so", has_adopted(&s.world, SOUTH[0]))?;
    says(&mut s, &SOUTH[..2])?;
    s.until("the control group is led", 5 * S, |w| leader(w, PartitionId::CONTROL).is_some())?;
    // The leader dies before a mail partition is led.
    let leads = s.leader(PartitionId::CONTROL)?;
    s.kill(leads);
    s.restart(leads)?;
    south_serves(&mut s)?;
    let found = finds(&mut s)?;
    s.expect("the message is there", found == 1)?;
    s.expect_clean()
}

/// Two operators give one number two nonces at the same moment: nothing serves until somebody names a higher one.
pub fn one_number_with_two_nonces_serves_nothing(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    home_dies(&mut s);
    says(&mut s, &SOUTH[..1])?;
    s.fault(Fault::TakeOver { nodes: SOUTH[1..2].to_vec(), nonce: OTHER })?;
    s.until("both have adopted", S, |w| SOUTH[..2].iter().all(|node| has_adopted(w, *node)))?;
    s.wait(2 * S)?;
    let contested = |w: &World| SOUTH[..2].iter().any(|node| control(w, *node).is_some_and(|s| s.contested));
    s.expect("one has heard of the other", contested(&s.world))?;
    s.expect("nobody serves", led_in(&s.world).is_none())?;
    says(&mut s, &SOUTH)?;
    south_serves(&mut s)?;
    s.expect("it is a higher one", led_in(&s.world) == Some(3))?;
    let found = finds(&mut s)?;
    s.expect("the message is there", found == 1)?;
    s.expect_clean()
}

/// One sleeps through a takeover, and an operator who asks just that one begins another. It is brought back by a word that names
/// its number at all: a second takeover, and nobody loses anything or is told that something is what it is not.
pub fn one_that_slept_names_a_higher_number(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let (writer, reader) = (s.client(HOME[0], P)?, s.client(SOUTH[0], P)?);
    s.deliver(writer)?;
    s.opens(reader, "INBOX")?;
    s.wait(S)?;
    home_dies(&mut s);
    let asleep = s.cut(&SOUTH[1..2])?;
    says(&mut s, &[SOUTH[0], SOUTH[2]])?;
    south_serves(&mut s)?;
    let other = s.client(SOUTH[2], P)?;
    s.deliver(other)?;
    s.until("the reader hears of it", 5 * S, move |w| uids_of(w, reader).len() == 2)?;
    says_anew(&mut s, &SOUTH[1..2])?;
    let strayed = |w: &World| control(w, SOUTH[1]).is_some_and(|s| s.incarnation.number > 2);
    s.until("it has adopted a higher one", S, strayed)?;
    let number = control(&s.world, SOUTH[1]).map(|s| s.incarnation.number);
    s.over(asleep)?;
    s.wait(2 * S)?;
    s.expect("the others serve on", led_in(&s.world) == Some(2))?;
    s.deliver(other)?;
    says(&mut s, &SOUTH)?;
    s.until("all serve in its incarnation", 10 * S, move |w| led_in(w) == number)?;
    s.until("the reader goes on", 5 * S, move |w| uids_of(w, reader).len() == 3)?;
    s.deliver(other)?;
    s.until("the reader hears of a new one", 5 * S, move |w| uids_of(w, reader).len() == 4)?;
    let uids = uids_of(&s.world, reader);
    s.expect("UIDs jump twice", uids[3] > uids[1] + (1 << 20) && uids[1] > uids[0] + (1 << 20))?;
    s.expect_clean()
}

/// A second operator goes over a word that some have adopted and that has not begun.
pub fn half_a_takeover_is_gone_over(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    home_dies(&mut s);
    says(&mut s, &SOUTH[..2])?;
    s.until("two have adopted", S, |w| SOUTH[..2].iter().all(|node| has_adopted(w, *node)))?;
    says_anew(&mut s, &SOUTH[1..])?;
    let higher = |w: &World| control(w, SOUTH[2]).is_some_and(|s| s.incarnation.number > 2);
    s.until("two have adopted a higher one", S, higher)?;
    let number = control(&s.world, SOUTH[2]).map(|s| s.incarnation.number);
    s.until("it begins", 5 * S, move |w| led_in(w) == number)?;
    let follows = |w: &World| status(w, SOUTH[0], P).map(|s| s.applied) == status(w, SOUTH[1], P).map(|s| s.applied);
    s.until("the first follows", 5 * S, follows)?;
    let found = finds(&mut s)?;
    s.expect("the message is there", found == 1)?;
    s.expect_clean()
}

/// A word comes while a snapshot is being put in place: it waits for that, and is refused if what that brought may be ahead.
pub fn a_word_comes_amid_a_snapshot(seed: u64) -> Scripted<Ran> {
    let degrade_after = Some(Duration::from_secs(1));
    let setup = Setup { log_keep_entries: 4, region_log_keep_bytes: 1, degrade_after, ..geo(seed) };
    let mut s = Script::of(setup)?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    s.wait(S)?;
    s.kill(SOUTH[0]);
    for _ in 0..60 {
        s.deliver(writer)?;
    }
    HOME.iter().chain(&SOUTH[1..]).try_for_each(|node| s.flush(*node))?;
    s.wait(100 * MS)?;
    s.restart(SOUTH[0])?;
    let replica = s.replica(SOUTH[0], P)?;
    s.until_before("its rows are being replaced", 10 * S, events::installed(SOUTH[0], replica))?;
    home_dies(&mut s);
    says(&mut s, &SOUTH)?;
    s.expect("the word came amid it", s.world.witness().has_come_to(Moment::WordInSnapshot))?;
    south_serves(&mut s)?;
    let found = finds(&mut s)?;
    s.expect("all messages are there", found == 61)?;
    s.expect_clean()
}

/// 6: The word is false, and the old home goes on alone, heard by clients that never heard of it. What it answers then is lost,
/// and it seals itself on contact: nobody gets what it gave out for something else.
pub fn the_old_home_answers_alone_until_it_hears(seed: u64) -> Scripted<Ran> {
    let degrade_after = Some(Duration::from_secs(1));
    let mut s = Script::of(Setup { degrade_after, ..geo(seed) })?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    let cut = s.cut(&SOUTH)?;
    s.stays(writer)?;
    says(&mut s, &SOUTH)?;
    south_serves(&mut s)?;
    // In flight when the word was given, or begun behind it: alone in the end.
    s.deliver(writer)?;
    s.deliver(writer)?;
    let other = s.client(SOUTH[1], P)?;
    for _ in 0..3 {
        s.deliver(other)?;
    }
    s.expect("the old home has answered", s.world.witness().has_come_to(Moment::OldHomeAnswersUnheld))?;
    s.over(cut)?;
    let sealed = |w: &World| HOME.iter().all(|node| status(w, *node, P).is_some_and(|s| s.sealed_by == Some(2)));
    s.until("the old home is sealed", 5 * S, sealed)?;
    s.begin_delivery(writer);
    s.wait(S)?;
    s.expect("it answers nothing more", s.ended(writer).is_none())?;
    let found = finds(&mut s)?;
    s.expect("what it answered alone is lost", found == 4)?;
    s.expect_clean()
}

/// 8: The same under `geo` without *alone*: clients that stay are answered nothing, whoever of south the old home hears.
pub fn the_old_home_answers_nothing_that_it_can_not_keep(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    s.stays(writer)?;
    // Two of three take over; the old home reaches the third.
    let cut = s.cut(&SOUTH[..2])?;
    says(&mut s, &SOUTH[..2])?;
    south_serves(&mut s)?;
    s.begin_delivery(writer);
    s.wait(3 * S)?;
    s.expect("one standby is not enough for an answer", s.ended(writer).is_none())?;
    let other = s.client(SOUTH[0], P)?;
    s.deliver(other)?;
    s.over(cut)?;
    s.wait(2 * S)?;
    let found = finds(&mut s)?;
    s.expect("what was answered is there", found == 2)?;
    s.expect_clean()
}

/// 10: A mail program that had what is lost comes back with it (QRESYNC), behind one takeover, and once more behind two.
pub fn who_kept_what_is_lost_is_told_everything(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(Setup { clients_return: true, ..region(seed) })?;
    let (reader, writer) = (s.client(HOME[1], P)?, s.client(HOME[0], P)?);
    s.deliver(writer)?;
    s.opens(reader, "INBOX")?;
    s.wait(S)?;
    let holds = SOUTH.map(|node| s.hold(from_home(P, node)));
    for _ in 0..2 {
        s.deliver(writer)?;
    }
    s.until("the reader sees what is not held", 2 * S, move |w| uids_of(w, reader).len() == 3)?;
    s.wait(500 * MS)?;
    home_dies(&mut s);
    holds.into_iter().for_each(|hold| s.lose(hold));
    says(&mut s, &SOUTH)?;
    south_serves(&mut s)?;
    let other = s.client(SOUTH[1], P)?;
    s.deliver(other)?;
    let back = returns(&mut s, reader, SOUTH[0])?;
    s.expect("it was told everything", s.world.witness().has_come_to(Moment::ReturnsPastFork))?;
    s.expect("two are there", uids_of(&s.world, back).len() == 2)?;
    // Its cache is right now; a second takeover finds it so.
    s.kill(SOUTH[0]);
    s.deliver(other)?;
    s.restart(SOUTH[0])?;
    let again = returns(&mut s, back, SOUTH[2])?;
    s.expect("three are there", uids_of(&s.world, again).len() == 3)?;
    s.expect_clean()
}

/// The client of a session that is over comes back to a node and opens what it had open.
fn returns(s: &mut Script, client: Client, node: NodeId) -> Scripted<Client> {
    s.world.hangs_up(client.0);
    s.world.settle();
    let kept = s.world.clients_mut().session_mut(client.0).and_then(|session| session.returns_with.take());
    let kept = kept.ok_or_else(|| s.failed("it had a folder open"))?;
    let name = kept.name.clone();
    let back = s.client(node, P)?;
    if let Some(session) = s.world.clients_mut().session_mut(back.0) {
        session.returns_with = Some(kept);
    }
    s.opens(back, &name)?;
    Ok(back)
}

//! How a takeover could go wrong: one answer lost, brought back, done twice or hidden, each with what stops it.
//!
//! Three nodes at home and three in the south, one partition beside the control group.

use std::time::Duration;

use mailraft_checkers::{Ended, Op, Reply};
use mailraft_cluster::MemberChange;
use mailraft_mailbox::api::StoreMode;
use mailraft_mailbox::{Flags, Refusal, SystemFlag, UidSet};
use mailraft_storage::{NodeId, PartitionId, Term};
use raft::eraftpb::MessageType;

use crate::event::Event;
use crate::faults::Fault;
use crate::scenarios::events;
use crate::scenarios::script::{Client, Hold, MS, Matches, S, Script, Scripted, leader, status};
use crate::setup::Setup;
use crate::world::World;
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);
pub(super) const HOME: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
pub(super) const SOUTH: [NodeId; 3] = [NodeId(4), NodeId(5), NodeId(6)];
const SECOND: u8 = 1;
/// Hundreds of messages that fill a log past any bound.
const MANY: usize = 40;

/// Two regions, and nothing that is answered may be lost.
pub(super) fn geo(seed: u64) -> Setup {
    Setup { nodes: 3, standby_nodes: 3, partitions: 1, one_way: 40_000, ..Setup::new(seed) }
}

/// The same, and a minute of answers may be.
pub(super) fn region(seed: u64) -> Setup {
    Setup { rpo_max: Some(Duration::from_secs(60)), ..geo(seed) }
}

/// South is led in the next incarnation.
fn south_leads(world: &World) -> bool {
    [PartitionId::CONTROL, P].iter().all(|p| leader(world, *p).is_some_and(|(node, _)| SOUTH.contains(&node)))
}

/// An operator says at some nodes of south that it takes over.
pub(super) fn says(s: &mut Script, nodes: &[NodeId]) -> Scripted<()> {
    s.fault(Fault::TakeOver { nodes: nodes.to_vec(), nonce: SECOND }).map(drop)
}

pub(super) fn south_serves(s: &mut Script) -> Scripted<()> {
    s.until("south serves", 5 * S, south_leads)
}

/// The home is lost.
pub(super) fn home_dies(s: &mut Script) {
    HOME.iter().for_each(|node| s.kill(*node));
}

/// Entries of the partition do not arrive at these nodes from home.
fn holds_appends(s: &mut Script, to: &[NodeId]) -> Vec<Hold> {
    to.iter().map(|node| s.hold(from_home(P, *node))).collect()
}

/// Entries of a partition that arrive at a node from home.
pub(super) fn from_home(partition: PartitionId, to: NodeId) -> Matches {
    let from = HOME.map(|home| events::raft(MessageType::MsgAppend, partition, Some(home), Some(to)));
    Box::new(move |world, event| from.iter().any(|matches| matches(world, event)))
}

fn lose(s: &mut Script, holds: Vec<Hold>) {
    holds.into_iter().for_each(|hold| s.lose(hold));
}

/// A client of a node of south, and how many messages it finds in INBOX.
pub(super) fn finds(s: &mut Script) -> Scripted<usize> {
    let client = s.client(SOUTH[1], P)?;
    s.messages(client, "INBOX")
}

/// 1: An answer counts on two of three standbys, and the takeover elects two others, one of which lacks it.
pub fn elects_who_has_it(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    let holds = holds_appends(&mut s, &SOUTH[1..]);
    s.begin_delivery(writer);
    s.wait(S)?;
    s.expect("nobody is answered by what one of three has", s.ended(writer).is_none())?;
    // The second has it, the third does not.
    s.release(holds[0])?;
    s.ok(writer)?;
    home_dies(&mut s);
    s.kill(SOUTH[0]);
    says(&mut s, &SOUTH[1..])?;
    south_serves(&mut s)?;
    s.expect("whoever has it leads", s.leader(P)? == SOUTH[1])?;
    let found = finds(&mut s)?;
    s.expect("both messages are there", found == 2)?;
    lose(&mut s, holds[1..].to_vec());
    s.expect_clean()
}

/// One of three has the word: of its partitions only the control group's adopts, and nobody takes over before a second has it.
pub fn one_of_three_is_not_enough(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    home_dies(&mut s);
    says(&mut s, &SOUTH[..1])?;
    s.wait(3 * S)?;
    s.expect("nobody takes over", !south_leads(&s.world))?;
    says(&mut s, &SOUTH[..2])?;
    south_serves(&mut s)?;
    let found = finds(&mut s)?;
    s.expect("the message is there", found == 1)?;
    s.expect_clean()
}

/// A change of members was on its way when the home was lost: one of south has it, and does not know whether it is committed.
pub fn old_changes_of_members_count_nothing(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    s.wait(S)?;
    let leader = s.leader(P)?;
    let follower = HOME.into_iter().find(|node| *node != leader).ok_or("one node at home")?;
    let holds = holds_appends(&mut s, &SOUTH[1..]);
    let last = s.status(SOUTH[0], P)?.last;
    let demoted = s.replica(follower, P)?;
    s.reconfigure(P, MemberChange::Demote(demoted))?;
    let unsure = move |w: &World| status(w, SOUTH[0], P).is_some_and(|s| s.last > last && s.applied < s.last);
    s.until("one of south has it", S, unsure)?;
    home_dies(&mut s);
    lose(&mut s, holds);
    s.kill(SOUTH[2]);
    says(&mut s, &SOUTH[..2])?;
    south_serves(&mut s)?;
    s.restart(SOUTH[2])?;
    let followers = s.status(s.leader(P)?, P)?.followers;
    let south = followers.iter().all(|f| SOUTH.contains(&f.node));
    s.expect("the members are those of south", south && followers.len() == 2)?;
    s.expect_clean()
}

/// A message is removed, which is applied and not held yet: whoever reads its content is not told that it is gone, as it may
/// come back.
pub fn a_removal_that_is_not_held_is_not_shown(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let (remover, reader) = (s.client(HOME[0], P)?, s.client(SOUTH[0], P)?);
    s.deliver(remover)?;
    s.opens(remover, "INBOX")?;
    s.opens(reader, "INBOX")?;
    let folder = s.session(reader)?.following().ok_or("no folder is open")?.folder();
    let uids = || UidSet::range(1, 1);
    let flags = Flags::none().with(SystemFlag::Deleted);
    s.does(remover, Op::Store { folder, uids: uids(), mode: StoreMode::Add, flags, unchanged_since: None })?;
    let holds = holds_appends(&mut s, &SOUTH);
    s.begin(remover, Op::Expunge { folder, uids: None });
    s.wait(300 * MS)?;
    s.begin(reader, Op::Fetch { folder, uids: uids() });
    s.wait(500 * MS)?;
    s.expect("the reader waits", s.ended(reader).is_none())?;
    home_dies(&mut s);
    lose(&mut s, holds);
    says(&mut s, &SOUTH)?;
    south_serves(&mut s)?;
    let read = s.ok(reader)?;
    s.expect("the message is there", matches!(&read, Reply::Fetched(found) if found.len() == 1))?;
    s.expect_clean()
}

/// 2: A standby has what its neighbours lack, is down while they take over, and comes back.
pub fn hears_no_commit_that_its_region_lacks(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    s.wait(S)?;
    let holds = holds_appends(&mut s, &SOUTH[1..]);
    s.begin_delivery(writer);
    let committed = s.status(s.leader(P)?, P)?.last;
    let has = move |w: &World| status(w, SOUTH[0], P).is_some_and(|s| s.last >= committed);
    s.until("one of south has it", S, has)?;
    s.wait(2 * S)?;
    home_dies(&mut s);
    s.kill(SOUTH[0]);
    lose(&mut s, holds);
    says(&mut s, &SOUTH[1..])?;
    south_serves(&mut s)?;
    let other = s.client(SOUTH[1], P)?;
    s.deliver(other)?;
    s.restart(SOUTH[0])?;
    let follows = |w: &World| status(w, SOUTH[0], P).map(|s| s.applied) == status(w, SOUTH[1], P).map(|s| s.applied);
    s.until("the first follows", 5 * S, follows)?;
    s.expect_clean()
}

/// 3: A standby has by a snapshot what its neighbours lack; they take over without it.
pub fn who_is_ahead_adopts_nothing(seed: u64) -> Scripted<Ran> {
    let degrade_after = Some(Duration::from_secs(1));
    let setup = Setup { log_keep_entries: 4, region_log_keep_bytes: 1, degrade_after, ..geo(seed) };
    let mut s = Script::of(setup)?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    let cut = s.cut(&SOUTH)?;
    // Alone, the home goes on until the bound in bytes lets the log go.
    let last = s.status(SOUTH[0], P)?.last;
    let goes_on =
        |s: &Script| HOME.iter().any(|node| status(&s.world, *node, P).is_none_or(|s| s.first.0 <= last.0 + 1));
    for _ in 0..MANY {
        if !goes_on(&s) {
            break;
        }
        for _ in 0..100 {
            s.deliver(writer)?;
        }
        HOME.iter().try_for_each(|node| s.flush(*node))?;
        s.wait(100 * MS)?;
    }
    s.expect("the logs at home begin behind what south has", !goes_on(&s))?;
    let away = s.cut(&SOUTH[1..])?;
    s.over(cut)?;
    let ahead = |w: &World| status(w, SOUTH[0], P).is_some_and(|s| s.ahead.is_some());
    s.until("the first is ahead of its region", 20 * S, ahead)?;
    home_dies(&mut s);
    s.over(away)?;
    says(&mut s, &SOUTH)?;
    // Whoever was ahead is away while the others elect one of them.
    s.wait(30 * MS)?;
    s.kill(SOUTH[0]);
    south_serves(&mut s)?;
    let other = s.client(SOUTH[1], P)?;
    s.deliver(other)?;
    s.restart(SOUTH[0])?;
    s.until("it is sealed", 5 * S, |w| status(w, SOUTH[0], P).is_some_and(|s| s.sealed_by == Some(2)))?;
    s.expect_clean()
}

/// 4: South has what is committed nowhere, and the next leader at home overwrites it.
pub fn what_is_not_committed_is_not_answered(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let old = s.leader(P)?;
    let others: Vec<NodeId> = HOME.into_iter().filter(|node| *node != old).collect();
    let writer = s.client(old, P)?;
    s.deliver(writer)?;
    s.wait(S)?;
    let holds = holds_appends(&mut s, &others);
    s.begin_delivery(writer);
    s.wait(200 * MS)?;
    let last = s.status(old, P)?.last;
    let have = move |w: &World| SOUTH.iter().all(|node| status(w, *node, P).is_some_and(|s| s.last >= last));
    s.expect("south has it", have(&s.world))?;
    s.expect("it is not answered", s.ended(writer).is_none())?;
    s.kill(old);
    lose(&mut s, holds);
    let new = s.led_by_another(P, &[old])?;
    let other = s.client(new, P)?;
    s.deliver(other)?;
    home_dies(&mut s);
    says(&mut s, &SOUTH)?;
    south_serves(&mut s)?;
    let found = finds(&mut s)?;
    s.expect("what was overwritten is gone", found == 2)?;
    s.expect_clean()
}

/// 5: Mail is held by south, and the key of its mailbox is not.
pub fn mail_waits_for_the_key_that_it_needs(seed: u64) -> Scripted<Ran> {
    let mut s = Script::with_mailboxes(Setup { mailboxes: 7, safety: 2_000 * S, ..geo(seed) })?;
    let made = s.hold(Box::new(|_, event| matches!(event, Event::Make(_))));
    let mailbox = s.world.mailboxes().to_be_made().first().copied().ok_or("every mailbox is made")?;
    let holds = SOUTH.map(|node| s.hold(from_home(PartitionId::CONTROL, node)));
    s.lose(made);
    s.world.make_mailbox(mailbox);
    s.world.settle();
    s.wait(100 * MS)?;
    let writer = s.client_of(HOME[0], mailbox);
    s.begin_delivery(writer);
    s.wait(S)?;
    s.expect("it is not answered before its key is held", s.ended(writer).is_none())?;
    for hold in holds {
        s.release(hold)?;
    }
    s.ok(writer)?;
    home_dies(&mut s);
    says(&mut s, &SOUTH)?;
    south_serves(&mut s)?;
    let reader = s.client_of(SOUTH[0], mailbox);
    let found = s.messages(reader, "INBOX")?;
    s.expect("it is there", found == 1)?;
    s.expect_clean()
}

/// 6: The operator is wrong, the old home lives, and is heard by one of south. It answers nothing, and seals itself for good.
pub fn the_old_home_lives_and_seals_itself(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    // Two take over; the third is still heard by the home.
    let cut = s.cut(&SOUTH[..2])?;
    s.begin_delivery(writer);
    s.wait(300 * MS)?;
    says(&mut s, &SOUTH[..2])?;
    south_serves(&mut s)?;
    s.over(cut)?;
    let sealed = |w: &World| HOME.iter().all(|node| status(w, *node, P).is_some_and(|s| s.sealed_by == Some(2)));
    s.until("the old home is sealed", 5 * S, sealed)?;
    let cut = s.cut(&SOUTH)?;
    for node in HOME {
        s.kill(node);
        s.restart(node)?;
    }
    s.wait(2 * S)?;
    s.expect("it is sealed after a restart too", sealed(&s.world))?;
    s.over(cut)?;
    s.expect("nobody there leads", HOME.iter().all(|node| !leads(&s, *node)))?;
    s.expect_clean()
}

fn leads(s: &Script, node: NodeId) -> bool {
    s.world.host(node).up.as_ref().is_some_and(|process| !process.leading.is_empty())
}

/// 7: The old home has elections while it is cut off, and its log and its terms come back.
pub fn the_old_homes_terms_and_log_count_nothing(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let writer = s.client(HOME[0], P)?;
    s.deliver(writer)?;
    let cut = s.cut(&SOUTH)?;
    says(&mut s, &SOUTH)?;
    south_serves(&mut s)?;
    let before = highest_term(&s.world, &HOME);
    for node in HOME {
        s.kill(node);
        s.wait(S)?;
        s.restart(node)?;
        s.wait(500 * MS)?;
    }
    s.expect("the home had elections", highest_term(&s.world, &HOME) > before)?;
    let other = s.client(SOUTH[0], P)?;
    for _ in 0..3 {
        s.deliver(other)?;
    }
    s.over(cut)?;
    let sealed = |w: &World| HOME.iter().all(|node| status(w, *node, P).is_some_and(|s| s.sealed_by == Some(2)));
    s.until("the old home is sealed", 5 * S, sealed)?;
    let found = finds(&mut s)?;
    s.expect("all is there that was answered", found == 4)?;
    s.expect_clean()
}

fn highest_term(world: &World, nodes: &[NodeId]) -> Option<Term> {
    nodes.iter().filter_map(|node| Some(status(world, *node, P)?.term)).max()
}

/// 8: An entry of a deposed leader lives on in south only; its client was refused meanwhile.
pub fn what_was_refused_stays_undone(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let old = s.leader(P)?;
    let others: Vec<NodeId> = HOME.into_iter().filter(|node| *node != old).collect();
    let (first, second) = (s.client(old, P)?, s.client(others[0], P)?);
    s.deliver(first)?;
    s.wait(S)?;
    // It goes to one of south alone.
    let holds = holds_appends(&mut s, &[others[0], others[1], SOUTH[1], SOUTH[2]]);
    let create = || Op::Create { name: "a".to_owned() };
    let last = s.status(SOUTH[0], P)?.last;
    s.begin(first, create());
    s.until("one of south has it", S, move |w| status(w, SOUTH[0], P).is_some_and(|s| s.last > last))?;
    s.cut(&[old])?;
    lose(&mut s, holds);
    // What is decided now reaches the other two of south, and not yet the one that has the old entry.
    let late = holds_appends(&mut s, &SOUTH[..1]);
    s.led_by_another(P, &[old])?;
    s.does(second, create())?;
    s.begin(second, create());
    let refused = s.answer(second)?;
    s.expect("it is refused", matches!(refused, Ended::Refused(Refusal::FolderExists)))?;
    home_dies(&mut s);
    lose(&mut s, late);
    says(&mut s, &SOUTH)?;
    south_serves(&mut s)?;
    s.expect_clean()
}

/// 9: Who lost its answer asks again in the new home, under the same id.
pub fn what_was_done_before_is_not_done_again(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(geo(seed))?;
    let client = s.client(SOUTH[0], P)?;
    let create = |name: &str| Op::Create { name: name.to_owned() };
    s.does(client, create("a"))?;
    let lost = s.hold(events::ok_to(client));
    s.begin(client, create("b"));
    s.until_held(lost, 1, 2 * S)?;
    home_dies(&mut s);
    s.lose(lost);
    says(&mut s, &SOUTH)?;
    south_serves(&mut s)?;
    s.ok(client)?;
    s.expect_clean()
}

/// 10: A client that saw what is lost goes on in the new home: it is told everything, and no UID means something else.
pub fn who_saw_what_is_lost_is_told_everything(seed: u64) -> Scripted<Ran> {
    let mut s = Script::of(region(seed))?;
    let (reader, writer) = (s.client(SOUTH[0], P)?, s.client(HOME[0], P)?);
    s.deliver(writer)?;
    s.opens(reader, "INBOX")?;
    s.wait(S)?;
    let holds = holds_appends(&mut s, &SOUTH);
    for _ in 0..2 {
        s.deliver(writer)?;
    }
    let seen = move |w: &World| uids_of(w, reader).len() == 3;
    s.until("the reader sees what is not held", 2 * S, seen)?;
    let lost = uids_of(&s.world, reader);
    // What is under way to south is held back too.
    s.wait(500 * MS)?;
    home_dies(&mut s);
    lose(&mut s, holds);
    says(&mut s, &SOUTH)?;
    south_serves(&mut s)?;
    s.until("the reader resumes", 5 * S, move |w| uids_of(w, reader).len() == 1)?;
    let other = s.client(SOUTH[1], P)?;
    s.deliver(other)?;
    s.until("the reader hears of a new one", 2 * S, move |w| uids_of(w, reader).len() == 2)?;
    let now = uids_of(&s.world, reader);
    s.expect("its UID is new", now[0] == lost[0] && now[1] > lost[2])?;
    s.expect_clean()
}

/// South has an entry of a deposed leader that is committed nowhere. The home goes on alone without it, gives others what that
/// entry gives out too, and is lost: no UID and no MODSEQ that somebody saw means another message.
pub fn what_a_deposed_leader_sent_abroad_is_mistaken_for_nothing(seed: u64) -> Scripted<Ran> {
    let degrade_after = Some(Duration::from_secs(1));
    let mut s = Script::of(Setup { degrade_after, ..geo(seed) })?;
    let old = s.leader(P)?;
    let others: Vec<NodeId> = HOME.into_iter().filter(|node| *node != old).collect();
    let (writer, reader) = (s.client(old, P)?, s.client(others[0], P)?);
    s.deliver(writer)?;
    s.opens(reader, "INBOX")?;
    s.wait(S)?;
    // One more goes to south alone.
    let holds = holds_appends(&mut s, &others);
    let before = s.status(old, P)?.last;
    s.begin_delivery(writer);
    let have = move |w: &World| SOUTH.iter().all(|node| status(w, *node, P).is_some_and(|s| s.last > before));
    s.until("south has it", 2 * S, have)?;
    s.expect("it is not answered", s.ended(writer).is_none())?;
    s.kill(old);
    lose(&mut s, holds);
    s.cut(&SOUTH)?;
    let new = s.led_by_another(P, &[old])?;
    let other = s.client(new, P)?;
    for _ in 0..2 {
        s.deliver(other)?;
    }
    s.until("the reader sees what will be lost", 5 * S, move |w| uids_of(w, reader).len() == 3)?;
    let lost = uids_of(&s.world, reader);
    home_dies(&mut s);
    says(&mut s, &SOUTH)?;
    south_serves(&mut s)?;
    let reader = s.client(SOUTH[0], P)?;
    s.opens(reader, "INBOX")?;
    s.until("a reader finds both that live on", 5 * S, move |w| uids_of(w, reader).len() == 2)?;
    let now = uids_of(&s.world, reader);
    s.expect("what lives on has no UID of what is lost", now[0] == lost[0] && !lost[1..].contains(&now[1]))?;
    s.expect_clean()
}

/// What a client knows to be in its open folder.
pub(super) fn uids_of(world: &World, client: Client) -> Vec<u32> {
    let session = world.clients().session(client.0);
    session.and_then(|s| s.following()).map(|f| f.uids().collect()).unwrap_or_default()
}

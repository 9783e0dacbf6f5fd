//! Worlds whose takeovers are broken off and begun again: by the same operator at another node, by another one at the same
//! moment, behind one that has begun; while snapshots are on their way, nobody leads, or the home goes on alone or returns.

use std::time::Duration;

use mailraft_checkers::Micros;
use mailraft_cluster::regions::RegionSettings;
use mailraft_storage::NodeId;

use crate::dice::Dice;
use crate::faults::{Fault, Planned};
use crate::setup::Setup;
use crate::suite::region_episode;
use crate::world::run::faults_of;

/// Where the draws for these worlds begin.
const STREAM: u64 = 1 << 43;
const MS: Micros = 1_000;
const S: Micros = 1_000_000;
/// The first word is given no later.
const WORD_LAST: Micros = 25 * S;

/// The world of an episode, and its faults. Of two worlds one promises that nothing is lost; in the others there is a bound,
/// or the home goes on alone, or both. Clients come back with what they have kept.
pub fn broken_takeover_episode(seed: u64, number: u64) -> (Setup, Vec<Planned>) {
    // The others' worlds have these numbers too.
    let mut setup = region_episode(seed ^ STREAM, number);
    let mut dice = Dice::new(seed, STREAM + number);
    (setup.accounts, setup.clients_return) = (0, true);
    setup.standby_nodes = setup.standby_nodes.max(3);
    if number.is_multiple_of(2) {
        (setup.rpo_max, setup.degrade_after) = (None, None);
    } else {
        // Which mailboxes there are is not to be lost beside the mail.
        setup.mailboxes = 6;
        setup.degrade_after = setup.degrade_after.or(Some(Duration::from_millis(dice.between(1_000, 3_000))));
    }
    let word = dice.between(8 * S, WORD_LAST);
    let mut plan = before(&mut setup, &mut dice, word);
    plan.extend(home(&setup, &mut dice, word));
    let mut at = word;
    for _ in 0..=dice.below(3) {
        plan.extend(words(&setup, &mut dice, at));
        at += dice.between(200 * MS, 8 * S);
    }
    let may_be = |planned: &Planned| stays(&setup, word, planned);
    plan.extend(faults_of(&setup).into_iter().filter(may_be));
    plan.sort_by_key(|planned| planned.from);
    (setup, plan)
}

/// Who is no member any more, or whose disk rots, is replaced at home; here nothing there goes on. And who wants other settings
/// asks before the word, where something may be lost.
fn stays(setup: &Setup, word: Micros, planned: &Planned) -> bool {
    match planned.fault {
        Fault::Move { .. } | Fault::Ballot { .. } | Fault::CorruptLog { .. } | Fault::CorruptRows { .. } => false,
        Fault::Settings { .. } => setup.degrade_after.is_some() && planned.from < word,
        _ => true,
    }
}

fn far(setup: &Setup) -> Vec<NodeId> {
    (setup.nodes + 1..=setup.nodes + setup.standby_nodes).map(NodeId).collect()
}

fn crash(node: NodeId, from: Micros, to: Micros) -> Planned {
    Planned { from, to, fault: Fault::Crash { node, torn: 0 } }
}

/// What goes on at the moment of the first word.
fn before(setup: &mut Setup, dice: &mut Dice, word: Micros) -> Vec<Planned> {
    let far = far(setup);
    match dice.below(4) {
        // Some come back just now and need snapshots; what is missing may lie above what their region holds.
        0 => {
            setup.log_keep_entries = dice.between(4, 12);
            setup.region_log_keep_bytes = 1;
            let back = word - dice.between(100 * MS, 1_500 * MS);
            let away = dice.between(1, far.len() as u64) as usize;
            let from = word - dice.between(3 * S, 7 * S);
            far.iter().take(away).map(|node| crash(*node, from, back)).collect()
        }
        // The leaders at home are gone for a moment.
        1 => (1..=setup.nodes / 2)
            .map(|node| crash(NodeId(node), word - dice.between(20 * MS, 400 * MS), word + S))
            .collect(),
        // The home goes on alone, and may be on its way back.
        2 => {
            let returns = dice.chance(500);
            let to = if returns { word - dice.between(100 * MS, 700 * MS) } else { word + dice.between(0, S) };
            vec![Planned { from: word - dice.between(5 * S, 7 * S), to, fault: Fault::Partition { side: far } }]
        }
        // Somebody wants other settings just now.
        _ if setup.degrade_after.is_some() => {
            let settings =
                RegionSettings { degrade_after_ms: Some(dice.between(1_000, 6_000)), ..RegionSettings::default() };
            let from = word - dice.between(0, 40 * MS);
            vec![Planned { from, to: from + 1, fault: Fault::Settings { settings } }]
        }
        _ => Vec::new(),
    }
}

/// What becomes of the home around the word.
fn home(setup: &Setup, dice: &mut Dice, word: Micros) -> Vec<Planned> {
    let far = far(setup);
    let since = word - dice.between(0, 400 * MS);
    let to = word + dice.between(S, 20 * S);
    match dice.below(5) {
        0..=1 => (1..=setup.nodes).map(|node| crash(NodeId(node), since, setup.safety)).collect(),
        2 => vec![Planned { from: since, to, fault: Fault::Partition { side: far } }],
        // Some hear it all the same.
        3 => {
            let deaf: Vec<NodeId> = far.iter().copied().take(dice.between(1, far.len() as u64 - 1) as usize).collect();
            let link =
                |from: NodeId, to_node: NodeId| Planned { from: since, to, fault: Fault::OneWay { from, to: to_node } };
            let near = (1..=setup.nodes).map(NodeId);
            near.flat_map(|near| {
                deaf.iter().flat_map(move |far| [link(near, *far), link(*far, near)]).collect::<Vec<_>>()
            })
            .collect()
        }
        _ => Vec::new(),
    }
}

/// Words of operators, and who dies between them.
fn words(setup: &Setup, dice: &mut Dice, at: Micros) -> Vec<Planned> {
    let mut nodes = far(setup);
    let turn = dice.below(nodes.len() as u64) as usize;
    nodes.rotate_left(turn);
    let say = |at, nodes: &[NodeId], nonce| {
        let fault = Fault::TakeOver { nodes: nodes.to_vec(), nonce };
        Planned { from: at, to: at + 1, fault }
    };
    let anew = |at, nodes: &[NodeId], nonce| {
        let fault = Fault::TakeOverAnew { nodes: nodes.to_vec(), nonce };
        Planned { from: at, to: at + 1, fault }
    };
    let majority = nodes.len() / 2 + 1;
    let later = at + dice.between(20 * MS, 4 * S);
    let back = |dice: &mut Dice, at: Micros| at + dice.between(300 * MS, 6 * S);
    match dice.below(7) {
        // The command ends behind its first answer, and is given again at another node.
        0 => vec![say(at, &nodes[..1], 1), say(later, &nodes[1..], 1)],
        // Whoever heard it first dies, and the others are asked.
        1 => {
            let dies = at + dice.between(MS, 300 * MS);
            vec![say(at, &nodes[..1], 1), crash(nodes[0], dies, back(dice, dies)), say(later, &nodes[1..], 1)]
        }
        // One of those who adopt dies amid it.
        2 => {
            let fault = Fault::CrashBetween { node: nodes[0], outputs: dice.between(1, 25) };
            let dies = Planned { from: at + dice.below(150 * MS), to: back(dice, at), fault };
            vec![say(at, &nodes, 1), dies, say(later, &nodes, 1)]
        }
        // Two operators, who do not know of each other.
        3 => {
            let other = at + dice.below(2) * dice.between(0, 60 * MS);
            vec![say(at, &nodes[..1], 1), say(other, &nodes[1..2], 2), say(later, &nodes, 1 + dice.below(2) as u8)]
        }
        // Another operator goes over a word that has only just been given.
        4 => {
            vec![say(at, &nodes, 1), anew(at + dice.between(0, 250 * MS), &nodes[..majority], 2), say(later, &nodes, 2)]
        }
        // One sleeps through it all, and then somebody asks just that one.
        5 => {
            let sleeps =
                Planned { from: at - 100 * MS, to: later, fault: Fault::Partition { side: nodes[..1].to_vec() } };
            let asked = later.saturating_sub(dice.below(30) * MS);
            vec![
                sleeps,
                say(at, &nodes[1..], 1),
                anew(asked, &nodes[..1], 2),
                say(later + dice.between(MS, S), &nodes, 1),
            ]
        }
        _ => vec![say(at, &nodes, 1), say(later, &nodes[..majority], 1)],
    }
}

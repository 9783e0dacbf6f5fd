//! What an operator is told before a region takes over: how far each partition's standbys are, what is certain, what may be
//! missing, and who is more likely to be cut off. Pure: of what the region's nodes say.

use std::collections::{BTreeMap, BTreeSet};

use mailraft_cluster::mode::{Mode, Unheld};
use mailraft_cluster::regions::{RegionName, Regions, held};
use mailraft_storage::{Index, NodeId, PartitionId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::ages::{Since, by_age, by_its_clocks, later, millis};
use super::facts::{Facts, Standing};
use super::numbers::broken_off;
use super::promised::{Heard, Least, heard, least};
use super::refused::Refused;
use super::settled::taken_over;
use crate::survival::{moment, seconds};

/// Who was heard within this time is heard: the home is asked once a second.
const HEARD_WITHIN_MS: u64 = 3_000;
/// Of whoever was heard within this time one answer at most is missing.
const ANSWERED_LAST_MS: u64 = 1_500;

/// What is known where a region is to take over.
pub struct Known<'a> {
    /// The region.
    pub to: &'a RegionName,
    /// The cluster's regions, as the asked node's rows say.
    pub regions: &'a Regions,
    /// Where the newest change of settings stands that is known.
    pub settings: Index,
    /// Mail partitions.
    pub partitions: u32,
    /// What its nodes said; None of one that did not answer.
    pub facts: &'a BTreeMap<NodeId, Option<Facts>>,
    /// What time it is.
    pub now: UnixMillis,
}

/// Partitions that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Each with the position that a majority of its standbys has.
    pub positions: Vec<(PartitionId, Index)>,
    /// The home was heard so long ago about one of them, in seconds, as whoever heard it last says; None if never since the
    /// nodes started.
    pub home_heard_s: Option<u64>,
    /// Standbys that could vote.
    pub standbys: usize,
    /// Of so many.
    pub of: usize,
    /// Whether answers waited for this region, as it knows.
    pub mode: Mode,
    /// They waited by that, and may not have since: the home may go on alone, and the time for it has passed.
    #[serde(default)]
    pub may_be_alone: bool,
}

/// What is known before the word is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The region that takes over.
    pub to: String,
    /// The home that is lost.
    pub from: String,
    /// Partitions that are alike.
    pub groups: Vec<Group>,
    /// What is certain, a sentence each.
    pub certain: Vec<String>,
    /// What may be missing, a sentence each.
    pub may_be_missing: Vec<String>,
    /// Who is more likely to be cut off, in a sentence.
    pub cut_off: String,
    /// It is more likely that the region that would take over is cut off.
    pub rather_us: bool,
    /// A takeover was begun here and broken off: it goes on with this number.
    pub goes_on_with: Option<u32>,
    /// Up to then the home can't have gone on alone, if nobody changed its settings; None if that is not known.
    pub alone_from: Option<UnixMillis>,
    /// Answers did not wait for the region, as its own rows say, in a sentence: it lacks mail.
    #[serde(default)]
    pub lacks: Option<String>,
    /// No node there can open mailboxes, in a sentence: the root key must come with the word.
    pub without_key: Option<String>,
    /// Nodes there that can't, where others can.
    #[serde(default)]
    pub locked: Vec<NodeId>,
    /// What is lost, if the word is true and is given now.
    pub lost: String,
    /// The same as it is said once the word is given, and kept.
    #[serde(default)]
    pub lost_by_word: String,
}

impl Plan {
    /// Of what is known.
    ///
    /// # Errors
    /// Why the region can't take over.
    pub fn of(known: &Known<'_>) -> Result<Plan, Refused> {
        let Least { regions, settings } = least(known.regions, known.facts);
        let known = &Known { regions: &regions, settings, ..*known };
        let Known { to, regions, facts, now, .. } = known;
        let (home, region) = (&regions.home().0, &to.0);
        if let Some(number) = taken_over(to, regions, facts)? {
            return Err(Refused::new("has_begun", format!("{region} took over as incarnation {number}")));
        }
        if regions.home() == *to {
            return Err(Refused::new("is_home", format!("{region} is home already")));
        }
        if !regions.sync_set().contains(*to) {
            return Err(Refused::new(
                "not_in_sync_set",
                format!(
                    "{region} was taken out, and answers did not wait for it: it lacks mail, nobody knows how much: bring {home} back"
                ),
            ));
        }
        may_adopt(known)?;
        // By the clock as it is now: what is compared is ages, whatever it was set to before.
        let confirmed_at = confirmed_ago_ms(facts).map(|ago| UnixMillis(now.0.saturating_sub(ago)));
        let alone_from = regions.degrade_after().and_then(|after| Some(later(confirmed_at?, millis(after))));
        let groups = groups(known, regions.degrade_after().is_some() && alone_from.is_none_or(|from| *now > from));
        let (cut_off, rather_us) = cut_off(known);
        let (certain, may_be_missing) = sentences(known, alone_from);
        Ok(Plan {
            to: region.clone(),
            from: home.clone(),
            groups,
            certain,
            may_be_missing,
            cut_off,
            rather_us,
            goes_on_with: broken_off(facts).map(|incarnation| incarnation.number),
            alone_from,
            lacks: unheld(known, Since::Now)
                .map(|what| format!("{region} lacks mail: answers did not wait for it. Missing is {what}")),
            without_key: without_key(to, facts),
            locked: locked(facts),
            lost: lost(known, alone_from, Since::Now),
            lost_by_word: lost(known, alone_from, Since::Word),
        })
    }
}

/// What was answered that the region may lack, as its own rows say, or as the home said of itself.
fn unheld(known: &Known<'_>, told: Since) -> Option<String> {
    let Known { to, regions, settings, facts, now, .. } = known;
    let (home, region) = (&regions.home().0, &to.0);
    let since = || match confirmed_ago_ms(facts) {
        Some(ago) => by_age(UnixMillis(now.0.saturating_sub(ago)), *now, told),
        None => "a time that is not known here".to_owned(),
    };
    match regions.mode().unheld {
        Unheld::Nothing => Some(match heard(regions, *settings, facts)? {
            Heard::Lacks => {
                format!("what {home} answered since {} without waiting for {region}, as it said itself", since())
            }
            Heard::Set => format!(
                "what {home} answered since {} by settings that {region} lacks, if they promise less: it said that there are such",
                since()
            ),
        }),
        Unheld::Since(at) => Some(format!("what {home} answered without {region} {}", by_its_clocks(at))),
        Unheld::SinceLessPromised(at) => Some(format!(
            "what {home} answered {} and {region} did not hold: then, and for a while after, less was promised than now",
            by_its_clocks(at)
        )),
        Unheld::SinceTakenOut => {
            Some(format!("what {home} answered while it did not wait for {region}, nobody here knows how much"))
        }
    }
}

/// What it answered ahead of a region that confirms no more, it answered soon after it last confirmed, whenever it is lost: each
/// partition runs ahead for itself.
fn ahead(bound: std::time::Duration, known: &Known<'_>, told: Since) -> String {
    let when = match confirmed_ago_ms(known.facts) {
        Some(ms) => {
            let at = moment(known.now.0.saturating_sub(ms));
            format!("less than {} s {} (after {at} by the clocks here)", seconds(ms), told.before())
        }
        None => format!("since {} last had all of it", known.to.0),
    };
    format!("of each mailbox at most {} ms of what was answered {when}", millis(bound))
}

/// Nodes that can't open mailboxes, where others can.
fn locked(facts: &BTreeMap<NodeId, Option<Facts>>) -> Vec<NodeId> {
    let known = || facts.values().flatten();
    let locked: Vec<NodeId> = known().filter(|node| !node.key.usable).map(|node| node.node).collect();
    if locked.len() == known().count() { Vec::new() } else { locked }
}

fn without_key(to: &RegionName, facts: &BTreeMap<NodeId, Option<Facts>>) -> Option<String> {
    let known: Vec<&Facts> = facts.values().flatten().collect();
    let first = known.first().filter(|_| known.iter().all(|node| !node.key.usable))?;
    Some(format!(
        "{} can't unseal: node {}: {}. Give the key by --root-key-stdin, or put it there",
        to.0, first.node, first.key.why
    ))
}

/// Whether those that have answered could take over, whatever the others say.
pub fn is_enough(known: &Known<'_>) -> bool {
    may_adopt(known).is_ok()
}

/// Whether a majority of every partition's standbys could vote.
fn may_adopt(known: &Known<'_>) -> Result<(), Refused> {
    let Known { to, regions, facts, .. } = known;
    for (partition, nodes) in standbys(known) {
        let answers = nodes.iter().filter(|node| facts.get(node).is_some_and(Option::is_some)).count();
        let said = |is: fn(&Standing) -> bool| {
            let of = |node: &&NodeId| facts.get(*node).and_then(Option::as_ref)?.of(partition);
            nodes.iter().filter(|node| of(node).is_some_and(is)).map(ToString::to_string).collect::<Vec<_>>()
        };
        let (of, region, home) = (nodes.len(), &to.0, &regions.home().0);
        if answers <= of / 2 {
            let missing: Vec<String> =
                facts.iter().filter(|(_, said)| said.is_none()).map(|(node, _)| node.to_string()).collect();
            return Err(Refused::new(
                "no_majority",
                format!(
                    "{answers} of {of} standbys of partition {partition} in {region} can be reached, and a majority must vote: \
                     start node {} there, then run this again",
                    missing.join(", ")
                ),
            ));
        }
        let sealed = said(|standing| standing.sealed);
        if of - sealed.len() <= of / 2 {
            return Err(Refused::new(
                "sealed",
                format!(
                    "a later incarnation sealed partition {partition} on node {}: another region took over",
                    sealed.join(", ")
                ),
            ));
        }
        let ahead = said(|standing| standing.ahead);
        if answers - ahead.len() <= of / 2 {
            return Err(Refused::new(
                "ahead",
                format!(
                    "partition {partition} on node {} was brought up by a snapshot above what {region} is known to hold, so it \
                     can't vote, and without it there is no majority: bring {home} back until they agree",
                    ahead.join(", ")
                ),
            ));
        }
    }
    Ok(())
}

/// Each partition with the nodes of its standbys in the region.
fn standbys<'a>(known: &Known<'a>) -> impl Iterator<Item = (PartitionId, Vec<NodeId>)> + 'a {
    let (regions, to) = (known.regions, known.to);
    regions.placements().map(move |placed| {
        let there = mailraft_cluster::takeover::standbys(regions, placed, to);
        (placed.partition, there.map(|member| member.node).collect())
    })
}

fn groups(known: &Known<'_>, is_late: bool) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (partition, nodes) in standbys(known) {
        let said = nodes.iter().filter_map(|node| known.facts.get(node)?.as_ref()?.of(partition));
        let said: Vec<&Standing> = said.collect();
        let mut synced: Vec<Index> = said.iter().map(|standing| standing.last).collect();
        synced.resize(nodes.len(), Index(0));
        let group = Group {
            positions: vec![(partition, held(synced))],
            home_heard_s: said.iter().filter_map(|standing| standing.home_heard_ms).min().map(|ms| ms / 1_000),
            standbys: said.iter().filter(|standing| !standing.ahead && !standing.sealed).count(),
            of: nodes.len(),
            mode: known.regions.mode().mode,
            may_be_alone: is_late && known.regions.mode().mode == Mode::Whole,
        };
        let alike = |other: &&mut Group| {
            let Group { positions: _, home_heard_s, standbys, of, mode, may_be_alone: _ } = other;
            let heard = home_heard_s.is_some() == group.home_heard_s.is_some();
            heard && (*standbys, *of, *mode) == (group.standbys, group.of, group.mode)
        };
        match groups.iter_mut().find(alike) {
            Some(other) => {
                other.positions.extend(group.positions);
                other.home_heard_s = other.home_heard_s.min(group.home_heard_s);
            }
            None => groups.push(group),
        }
    }
    groups
}

/// The home had this region's confirmations of everything no longer ago than this, as whoever heard it last says.
fn confirmed_ago_ms(facts: &BTreeMap<NodeId, Option<Facts>>) -> Option<u64> {
    facts.values().flatten().filter_map(|node| node.confirmed_ago_ms).min()
}

/// What is certain, and what may be missing.
fn sentences(known: &Known<'_>, alone_from: Option<UnixMillis>) -> (Vec<String>, Vec<String>) {
    let Known { to, regions, facts, now, .. } = known;
    let (home, region) = (&regions.home().0, &to.0);
    let (mut certain, mut missing) = (Vec::new(), Vec::new());
    let since = confirmed_ago_ms(facts).map(|ms| by_age(UnixMillis(now.0.saturating_sub(ms)), *now, Since::Now));
    let since = since.unwrap_or_else(|| format!("{region} last had all of it, which is not known here"));
    match regions.durability().rpo_max() {
        None => certain
            .push(format!("durability geo: {region} holds all that {home} answered while it waited for {region}, unless it was set otherwise")),
        Some(bound) => missing.push(format!("durability region: {}", ahead(bound, known, Since::Now))),
    }
    let unheld = unheld(known, Since::Now);
    let is_whole = unheld.is_none();
    missing.extend(unheld);
    match (regions.degrade_after(), alone_from) {
        // It has been alone.
        _ if !is_whole => {}
        (None, _) => {
            certain.push(format!("unconfirmed refuse: {home} answers nothing without {region}, unless it was set otherwise"))
        }
        (Some(_), Some(from)) => {
            certain.push(format!(
                "{home} can't have answered alone before {}, unless it was set otherwise",
                by_age(from, *now, Since::Now)
            ));
            missing.push(format!("what {home} answered alone after {}, if it still ran then", by_age(from, *now, Since::Now)));
        }
        (Some(after), None) => missing.push(format!(
            "what {home} answered alone: it begins that {} s without {region}, and when it last had a confirmation is not known \
             here",
            seconds(millis(after))
        )),
    }
    missing.push(format!(
        "whoever reached {home} after {since} could set it otherwise there alone (region set, remove, add), and nobody here \
         heard of that; what was answered by such a setting may be missing too"
    ));
    (certain, missing)
}

/// What is lost if the home is dead now.
fn lost(known: &Known<'_>, alone_from: Option<UnixMillis>, told: Since) -> String {
    let Known { to, regions, facts, now: dead_by, .. } = known;
    let home = &regions.home().0;
    let mut parts = Vec::new();
    if let Some(bound) = regions.durability().rpo_max() {
        parts.push(ahead(bound, known, told));
    }
    let unheld = unheld(known, told);
    let is_whole = unheld.is_none();
    parts.extend(unheld);
    let lost = if parts.is_empty() { "lost: nothing".to_owned() } else { format!("lost: {}", parts.join(", and ")) };
    // An operator there may let it go on without this region. By its confirmations this region had all that was set.
    let set = match confirmed_ago_ms(facts) {
        Some(ms) => format!("set otherwise after {}", moment(dead_by.0.saturating_sub(ms))),
        None => format!("set otherwise since {} last had all of it", to.0),
    };
    match (regions.degrade_after(), alone_from) {
        _ if !is_whole => lost,
        (Some(_), Some(alone)) if *dead_by > alone => format!(
            "{lost}, if {home} was dead {} and not {set}; else what it answered alone until it died{}",
            by_age(alone, *dead_by, told),
            if regions.durability().rpo_max().is_some() { ", and what it answered ahead before that" } else { "" }
        ),
        (Some(_), None) => format!("{lost}, unless {home} answered alone, of which nothing is known here"),
        (None, _) | (Some(_), Some(_)) => format!("{lost}, unless {home} was {set}"),
    }
}

/// Who is more likely to be cut off, and whether that is us.
fn cut_off(known: &Known<'_>) -> (String, bool) {
    let Known { to, regions, facts, .. } = known;
    let (home, region) = (&regions.home().0, &to.0);
    let hear: Vec<(u64, NodeId, NodeId)> = facts
        .values()
        .flatten()
        .flat_map(|node| {
            let ago = node.home_nodes.iter().filter_map(|heard| Some((heard.ago_ms?, node.node, heard.node)));
            ago.filter(|(ms, _, _)| *ms < HEARD_WITHIN_MS)
        })
        .collect();
    let silent: Vec<String> =
        facts.iter().filter(|(_, said)| said.is_none()).map(|(node, _)| node.to_string()).collect();
    let all = facts.len();
    let hearing: BTreeSet<NodeId> = hear.iter().map(|(_, node, _)| *node).collect();
    match hear.iter().min() {
        Some((ms, here, there)) if *ms >= ANSWERED_LAST_MS => (
            format!(
                "{home} answered until {} s ago, as node {there} to node {here}: that is too little to say anything, look again in \
                 a moment",
                seconds(*ms)
            ),
            true,
        ),
        Some((_, here, there)) if hearing.len() == all => {
            (format!("{home} LIVES: all {all} nodes of {region} hear it, as node {here} hears node {there}"), true)
        }
        Some((_, here, there)) => (
            format!(
                "more likely it is a part of {region} that is cut off: node {here} hears node {there} of {home}, and {} of {all} \
                 nodes here do not",
                all - hearing.len()
            ),
            true,
        ),
        None if !silent.is_empty() => (
            format!(
                "more likely it is {region} that is cut off: node {} of its own does not answer either",
                silent.join(", ")
            ),
            true,
        ),
        None => (
            format!(
                "all {all} nodes of {region} hear each other, and none hears {home}: it is lost, or the link to it is; from here \
                 nobody can tell which"
            ),
            false,
        ),
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use mailraft_cluster::mode::ModeRow;
    use mailraft_cluster::placement::{self, MemberRow, NodeRow, Placement};
    use mailraft_cluster::regions::{Durability, RegionsRow, Unconfirmed};
    use mailraft_storage::memory::MemoryRows;
    use mailraft_storage::rows::ReplicaBatch;
    use mailraft_storage::{Applied, Incarnation, ReplicaId, RowBatch, Rows, Term};

    use super::super::facts::Heard;
    use super::super::unsealing::KeyState;
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_684_443_000);
    const UNLESS_SET: &str = "lost: nothing, unless home was set otherwise after 2026-11-26T09:13:50Z";

    pub fn name(name: &str) -> RegionName {
        RegionName(name.into())
    }

    /// Three nodes at home and three in the south, with one mail partition.
    pub struct World {
        pub row: RegionsRow,
        mode: ModeRow,
        pub facts: BTreeMap<NodeId, Option<Facts>>,
    }

    fn standing(partition: u32) -> Standing {
        Standing {
            partition: PartitionId(partition),
            incarnation: Incarnation { number: 1, nonce: [0; 16] },
            last: Index(50),
            ahead: false,
            home_heard_ms: Some(12_300),
            ready: false,
            contested: false,
            sealed: false,
        }
    }

    pub fn facts(node: u64) -> Facts {
        Facts {
            node: NodeId(node),
            home: "home".into(),
            begun: 1,
            standings: vec![standing(0), standing(1)],
            home_nodes: (1..=3).map(|home| Heard { node: NodeId(home), ago_ms: Some(13_000) }).collect(),
            neighbours: Vec::new(),
            confirmed_ago_ms: Some(13_000),
            home_said: None,
            key: KeyState { usable: true, why: String::new(), is_there: true },
            serves: false,
            mailboxes: 0,
            accepted_ago_ms: None,
            sealed_by: None,
            promised: None,
        }
    }

    impl World {
        pub fn new(durability: Durability) -> Self {
            let row = RegionsRow::new(name("home"), [name("south")].into(), durability);
            World {
                row,
                mode: ModeRow::default(),
                facts: (4..=6).map(|node| (NodeId(node), Some(facts(node)))).collect(),
            }
        }

        pub fn each(&mut self, change: impl Fn(&mut Facts)) -> &mut Self {
            self.facts.values_mut().flatten().for_each(change);
            self
        }

        pub fn node(&mut self, node: u64, change: impl Fn(&mut Facts)) -> &mut Self {
            change(self.facts.get_mut(&NodeId(node)).unwrap().as_mut().unwrap());
            self
        }

        pub fn control(&mut self, node: u64, change: impl Fn(&mut Standing)) -> &mut Self {
            self.node(node, |facts| change(&mut facts.standings[0]))
        }

        pub fn plan(&self) -> Result<Plan, Refused> {
            self.plan_at(NOW)
        }

        fn plan_at(&self, now: UnixMillis) -> Result<Plan, Refused> {
            let regions = self.regions();
            Plan::of(&Known {
                to: &name("south"),
                regions: &regions,
                settings: Index(0),
                partitions: 1,
                facts: &self.facts,
                now,
            })
        }

        pub fn regions(&self) -> Regions {
            let stands = |id| NodeRow {
                id: NodeId(id),
                name: String::new(),
                region: if id <= 3 { "home".into() } else { "south".into() },
                zone: String::new(),
                peer: String::new(),
            };
            let nodes: Vec<NodeRow> = (1..=6).map(stands).collect();
            let member = |partition: u32, node| MemberRow {
                replica: ReplicaId(u64::from(partition) * 10 + node),
                node: NodeId(node),
                voter: node <= 3,
            };
            let placed = |partition| Placement {
                partition: PartitionId(partition),
                nonce: [0; 16],
                members: (1..=6).map(|node| member(partition, node)).collect(),
            };
            let mut batch = RowBatch::default();
            placement::write(&mut batch, &nodes, &[placed(0), placed(1)]);
            mailraft_cluster::regions::write(&mut batch, &self.row);
            for (key, value) in self.mode.batch().puts {
                batch.put(key, value);
            }
            let (rows, replica) = (MemoryRows::new(), ReplicaId(1));
            let applied = Applied { index: Index(1), term: Term(1), ..Applied::default() };
            rows.write(&[ReplicaBatch { replica, batch, applied }]).unwrap();
            Regions::from_rows(&rows, replica).unwrap().unwrap()
        }
    }

    #[test]
    fn nothing_is_lost_under_geo_before_the_home_can_have_gone_alone() {
        let plan = World::new(Durability::Geo).plan().unwrap();
        assert_eq!(plan.lost, UNLESS_SET);
        assert_eq!(plan.groups.len(), 1);
        let positions = [(PartitionId(0), Index(50)), (PartitionId(1), Index(50))];
        assert_eq!((&plan.groups[0].positions[..], plan.groups[0].home_heard_s), (&positions[..], Some(12)));
        assert!(
            !plan.rather_us && plan.cut_off.starts_with("all 3 nodes of south hear each other"),
            "{}",
            plan.cut_off
        );
        let late = |facts: &mut Facts| facts.confirmed_ago_ms = Some(61_000);
        let plan = World::new(Durability::Geo).each(late).plan().unwrap();
        assert_eq!(
            plan.lost,
            "lost: nothing, if home was dead 1 s ago (2026-11-26T09:14:02Z by the clocks here) and not set otherwise after \
             2026-11-26T09:13:02Z; else what it answered alone until it died"
        );
        // Whoever reads the word tomorrow is not told that it was a second ago.
        assert_eq!(plan.lost_by_word, plan.lost.replace("1 s ago", "1 s before this was said"));
        let unknown = World::new(Durability::Geo).each(|facts| facts.confirmed_ago_ms = None).plan().unwrap();
        assert!(unknown.lost.starts_with("lost: nothing, unless home answered alone"), "{}", unknown.lost);
        let mut refuse = World::new(Durability::Geo);
        refuse.row.unconfirmed = Unconfirmed::Refuse;
        let plan = refuse.each(late).plan().unwrap();
        assert_eq!(plan.lost, "lost: nothing, unless home was set otherwise after 2026-11-26T09:13:02Z");
        // Home's majority alone can change that.
        assert!(plan.may_be_missing.iter().any(|said| said.contains("could set it otherwise there alone")));
    }

    #[test]
    fn what_is_certain_goes_by_ages_whatever_the_clocks_were_set_to_and_hedges_what_a_restart_forgot() {
        let said = |world: &World, now| {
            let plan = world.plan_at(now).unwrap();
            (plan.lost, plan.groups[0].may_be_alone)
        };
        let mut world = World::new(Durability::Geo);
        world.each(|facts| facts.confirmed_ago_ms = Some(61_000));
        for now in [NOW, UnixMillis(NOW.0 - 600_000), UnixMillis(NOW.0 + 600_000)] {
            let (lost, may_be_alone) = said(&world, now);
            assert!(lost.starts_with("lost: nothing, if home was dead 1 s ago (") && may_be_alone, "{lost}");
        }
        // Whoever heard it last is right, and who started again knows nothing.
        world.node(4, |facts| facts.confirmed_ago_ms = Some(59_000)).node(5, |facts| facts.confirmed_ago_ms = None);
        let lost = "lost: nothing, unless home was set otherwise after 2026-11-26T09:13:04Z";
        assert_eq!(said(&world, NOW), (lost.to_owned(), false));
        let (lost, may_be_alone) = said(world.each(|facts| facts.confirmed_ago_ms = None), NOW);
        assert!(lost.starts_with("lost: nothing, unless home answered alone") && may_be_alone, "{lost}");
        world.row.unconfirmed = Unconfirmed::Refuse;
        let lost = "lost: nothing, unless home was set otherwise since south last had all of it";
        assert_eq!(said(&world, NOW), (lost.to_owned(), false));
    }

    #[test]
    fn where_no_node_has_a_key_it_must_come_with_the_word() {
        let without = |facts: &mut Facts| facts.key = KeyState { usable: false, why: "none".into(), is_there: false };
        let mut world = World::new(Durability::Geo);
        without(world.facts.get_mut(&NodeId(4)).unwrap().as_mut().unwrap());
        assert_eq!((world.plan().unwrap().without_key, world.plan().unwrap().locked), (None, vec![NodeId(4)]));
        let said = world.each(without).plan().unwrap().without_key.unwrap();
        assert!(said.starts_with("south can't unseal: node 4: none. Give the key by --root-key-stdin"), "{said}");
    }

    #[test]
    fn under_region_the_bound_is_said() {
        let plan = World::new(Durability::Region { rpo_max_ms: 700 }).plan().unwrap();
        assert!(
            plan.lost.starts_with(
                "lost: of each mailbox at most 700 ms of what was answered less than 13 s ago (after 2026-11-26T09:1"
            ),
            "{}",
            plan.lost
        );
        assert!(plan.may_be_missing[0].contains("at most 700 ms"), "{:?}", plan.may_be_missing);
    }

    #[test]
    fn what_was_answered_alone_is_missing_from_when_that_began_whatever_the_home_does_since() {
        let at = |ms| UnixMillis(NOW.0 - ms);
        let alone = ModeRow::default().next(Mode::Alone, at(7_200_000));
        let returning = alone.next(Mode::Returning, at(60_000));
        for mode in [alone, returning] {
            let mut world = World::new(Durability::Geo);
            (world.mode, world.row.unconfirmed) = (mode, Unconfirmed::Refuse);
            let plan = world.plan().unwrap();
            assert_eq!(
                plan.lost,
                "lost: what home answered without south since 2026-11-26T07:14:03Z by its own clocks"
            );
            assert!(
                plan.lacks.as_ref().unwrap().starts_with("south lacks mail: answers did not wait for it"),
                "{plan:?}"
            );
            assert!(!plan.certain.iter().any(|said| said.contains("answers nothing without")), "{:?}", plan.certain);
        }
        let mut world = World::new(Durability::Geo);
        world.mode = returning.next(Mode::Whole, at(30_000));
        assert_eq!((world.plan().unwrap().lost.as_str(), world.plan().unwrap().lacks), (UNLESS_SET, None));
        world.mode = world.mode.taken_back(at(10_000));
        let plan = world.plan().unwrap();
        let words = "lost: what home answered while it did not wait for south, nobody here knows how much";
        assert!(plan.lost == words && plan.certain.len() == 1, "{plan:?}");
    }

    #[test]
    fn seconds_split_no_group_and_a_home_that_died_just_now_is_not_said_to_live() {
        let mut world = World::new(Durability::Geo);
        world.each(|facts| facts.standings[1].home_heard_ms = Some(11_900));
        let groups = world.plan().unwrap().groups;
        assert_eq!((groups.len(), groups[0].positions.len(), groups[0].home_heard_s), (1, 2, Some(11)));
        let ago =
            |world: &mut World, ms: u64| world.each(|facts| facts.home_nodes[1].ago_ms = Some(ms)).plan().unwrap();
        assert!(ago(&mut world, 1_400).cut_off.starts_with("home LIVES"));
        let plan = ago(&mut world, 1_600);
        assert!(plan.rather_us && plan.cut_off.starts_with("home answered until 1.6 s ago"), "{}", plan.cut_off);
        assert!(!ago(&mut world, 3_000).rather_us);
    }

    #[test]
    fn what_can_not_take_over_is_refused_in_words() {
        let code = |world: &World| world.plan().unwrap_err().code;
        let mut world = World::new(Durability::Geo);
        world.row.home = name("south");
        assert_eq!(code(&world), "is_home");
        let mut world = World::new(Durability::Geo);
        world.row.sync_set.clear();
        assert_eq!(code(&world), "not_in_sync_set");
        let mut world = World::new(Durability::Geo);
        world.facts.insert(NodeId(4), None);
        assert!(world.plan().is_ok(), "two of three are a majority");
        world.facts.insert(NodeId(5), None);
        let refused = world.plan().unwrap_err();
        assert!(refused.code == "no_majority" && refused.sentence.contains("node 4, 5"), "{refused}");
        let mut world = World::new(Durability::Geo);
        world.control(4, |control| control.ahead = true);
        assert!(world.plan().is_ok());
        world.control(5, |control| control.ahead = true);
        assert_eq!(code(&world), "ahead");
        world.each(|facts| facts.standings[1].sealed = true).control(4, |control| control.ahead = false);
        assert_eq!(code(&world), "sealed");
    }

    #[test]
    fn it_is_said_that_it_is_rather_us_who_are_cut_off() {
        let mut world = World::new(Durability::Geo);
        let lately = |facts: &mut Facts| facts.home_nodes[1].ago_ms = Some(400);
        lately(world.facts.get_mut(&NodeId(5)).unwrap().as_mut().unwrap());
        let plan = world.plan().unwrap();
        assert!(plan.rather_us && plan.cut_off.contains("node 5 hears node 2 of home, and 2 of 3"), "{}", plan.cut_off);
        let lives = world.each(lately).plan().unwrap();
        assert!(lives.rather_us && lives.cut_off.starts_with("home LIVES"), "{}", lives.cut_off);
        let mut world = World::new(Durability::Geo);
        world.facts.insert(NodeId(6), None);
        let plan = world.plan().unwrap();
        assert!(plan.rather_us && plan.cut_off.contains("node 6 of its own does not answer"), "{}", plan.cut_off);
    }
}

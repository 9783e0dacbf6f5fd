//! The word is given, and what follows from it is watched, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mailraft_cluster::regions::{RegionName, Regions};
use mailraft_storage::takeover::WORD_MAX_BYTES;
use mailraft_storage::{Incarnation, NodeId, PartitionId};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::Failover;
use super::facts::{Answer, Facts, Question};
use super::fence::fence;
use super::numbers::{incarnation, left_alone};
use super::plan::Plan;
use super::refused::Refused;
use super::settled::taken_over;
use crate::environment::os_env;
use crate::region;
use crate::survival::moment;

/// A majority has so long to adopt, and then to serve.
const STEP_MAX: Duration = Duration::from_secs(30);
/// Where all partitions are led, a node that answers and takes no clients is waited for so long.
const ALL_TAKE_CLIENTS_MAX: Duration = Duration::from_secs(3);
/// A first message is waited for so long: senders try again after a while.
const MESSAGE_MAX: Duration = Duration::from_secs(10);
/// A node that is handed the key answers within this time.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);
/// Who does not answer is asked again so soon.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How what is lost begins, in words.
const LOST: &str = "lost: ";
/// What the nodes have reached is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whose word it is that the old home is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// An operator's.
    OldRegionIsOff,
    /// That of `node.fence_command`, by its exit code.
    FenceCommand,
}

/// What is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    /// It has begun, with this number: what is missing is the key, or to watch it.
    Nothing { number: u32 },
    /// It has begun without a node that had adopted a higher number: all go on to this one.
    Again(Incarnation),
    /// A takeover.
    Takeover(Incarnation),
}

impl Begins {
    fn number(self) -> u32 {
        match self {
            Begins::Nothing { number } => number,
            Begins::Again(of) | Begins::Takeover(of) => of.number,
        }
    }
}

/// What an operator orders.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The region that takes over.
    pub to: String,
    /// Whose word it is.
    pub word: Word,
    /// The root key, for nodes that have none: 64 hexadecimal digits.
    pub root_key: Option<Zeroizing<String>>,
    /// The incarnation of an order that another node heard and adopted nothing of: this one's is above.
    #[serde(default)]
    pub above: u32,
}

/// What an operator rehearses.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rehearsal {
    /// The region that would take over.
    pub to: String,
    /// Whose word it would be, if one is to be given.
    pub word: Option<Word>,
    /// The root key, if it is to be tried: it is not kept.
    pub root_key: Option<Zeroizing<String>>,
    /// As of an [`Order`].
    #[serde(default)]
    pub above: u32,
}

/// One step that was reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// A word for programs: fenced, adopted, elected, home, serves, unsealed, clients, mailbox, message.
    pub step: String,
    /// In words.
    pub sentence: String,
    /// So long after the node heard the word, in milliseconds.
    pub after_ms: u64,
}

/// How far a takeover is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The region that takes over.
    pub to: String,
    /// The incarnation's number.
    pub incarnation: u32,
    /// What was reached, in order.
    pub steps: Vec<Step>,
    /// What is waited for, in words; empty at the end.
    pub waits_for: String,
    /// Whether it goes on.
    pub running: bool,
    /// Why it ended before all was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// It ended since the asked node adopts nothing: another node of the region may.
    #[serde(default)]
    pub elsewhere: bool,
    /// What is lost, in words.
    pub lost: String,
}

impl Failover {
    /// What an operator is told before the word.
    ///
    /// # Errors
    /// Why the region can't take over.
    pub async fn plan(&self, to: &str) -> Result<Plan, Refused> {
        let regions = self.regions(to).await?;
        let facts = self.gather(&regions).await;
        Plan::of(&self.known(&RegionName(to.to_owned()), &regions, &facts))
    }

    /// What would be refused of an order, with nothing done: before an operator is asked for his word, and where he rehearses.
    ///
    /// # Errors
    /// As [`Failover::begin`].
    pub async fn rehearse(&self, rehearsal: Rehearsal) -> Result<(), Refused> {
        let Rehearsal { to, word, root_key, above } = rehearsal;
        self.considered(&to, word, root_key.as_ref(), above).await.map(|_| ())
    }

    /// How far the takeover is that was ordered here.
    pub fn progress(&self) -> Option<Progress> {
        self.ordered().clone()
    }

    /// Begins, or goes on with what was broken off. Returns once the word is about to be given; [`Failover::progress`] says
    /// what follows.
    ///
    /// # Errors
    /// Why nothing was begun.
    pub async fn begin(&self, order: Order) -> Result<(), Refused> {
        let said_at = Instant::now();
        let Order { to, word, root_key, above } = &order;
        let (regions, begins, lost) = self.considered(to, Some(*word), root_key.as_ref(), *above).await?;
        if let Some(key) = &order.root_key {
            self.unsealing.take(key).await.map_err(|why| Refused::new("wrong_key", why))?;
        }
        if self.progress().is_some_and(|progress| progress.running) {
            // Who asks again watches the same. His word counts, whatever the command says that is asked yet.
            if order.word == Word::OldRegionIsOff {
                self.overruled.notify_waiters();
            }
            self.hands_key_over(&order, &self.nodes(&regions));
            return Ok(());
        }
        {
            let mut progress = self.ordered();
            if progress.as_ref().is_some_and(|progress| progress.running) {
                return Ok(());
            }
            *progress = Some(Progress {
                to: order.to.clone(),
                incarnation: begins.number(),
                steps: Vec::new(),
                waits_for: "the word".to_owned(),
                running: true,
                failed: None,
                elsewhere: false,
                lost,
            });
        }
        let failover = self.clone();
        tokio::spawn(async move {
            let ended = failover.carry_out(&order, begins, &regions, said_at).await;
            if let Err(sentence) = &ended {
                tracing::error!("the takeover is not finished: {sentence}");
            }
            if let Some(progress) = failover.ordered().as_mut() {
                (progress.running, progress.failed) = (false, ended.err());
                progress.waits_for.clear();
            }
        });
        Ok(())
    }

    /// What an order begins, by what the region's nodes say, and what is lost by it, in words. Without a word nobody's is
    /// missed, nor a key.
    async fn considered(
        &self,
        to: &str,
        word: Option<Word>,
        root_key: Option<&Zeroizing<String>>,
        above: u32,
    ) -> Result<(Regions, Begins, String), Refused> {
        let regions = self.regions(to).await?;
        let facts = self.gather(&regions).await;
        if let Some(key) = root_key {
            self.unsealing.fits(key).await.map_err(|why| Refused::new("wrong_key", why))?;
        }
        let name = RegionName(to.to_owned());
        let drawn = || incarnation(&facts, self.cluster.node(), above, os_env().bytes());
        if let Some(number) = taken_over(&name, &regions, &facts)? {
            // A node may have adopted a higher number before, alone, and hears none of the others.
            let begins =
                if left_alone(&facts).is_some() { Begins::Again(drawn()?) } else { Begins::Nothing { number } };
            let lost = said_lost(&regions, number).unwrap_or_default();
            return Ok((regions, begins, lost));
        }
        if word == Some(Word::FenceCommand) && self.config.node.fence_command.is_empty() {
            return Err(Refused::new(
                "no_word",
                "somebody must say that the old home is off: give --old-region-is-off, or set node.fence_command on this node",
            ));
        }
        let plan = Plan::of(&self.known(&name, &regions, &facts))?;
        if let Some(sentence) = plan.without_key.filter(|_| word.is_some() && root_key.is_none()) {
            return Err(Refused::new("no_key", sentence));
        }
        Ok((regions, Begins::Takeover(drawn()?), plan.lost_by_word))
    }

    async fn regions(&self, to: &str) -> Result<Regions, Refused> {
        let regions = region::regions(&self.cluster)
            .ok_or_else(|| Refused::new("one_region", "this cluster has one region, and no other takes it over"))?;
        let own = regions.of(self.cluster.node()).map_or("none", |own| &own.0);
        if !regions.names().any(|name| name.0 == to) {
            let names: Vec<&str> = regions.names().map(|name| name.0.as_str()).collect();
            return Err(Refused::new("no_region", format!("there is no region {to}: there are {}", names.join(", "))));
        }
        if own != to && !regions.has_standbys(&RegionName(to.to_owned())) {
            return Err(Refused::new(
                "left_behind",
                format!(
                    "{} took over without {to}, which has no standbys any more: no command brings it back yet",
                    regions.home().0
                ),
            ));
        }
        if own != to {
            // Where another region took over nobody needs to ask a third.
            let facts = self.gather(&regions).await;
            taken_over(&RegionName(own.to_owned()), &regions, &facts)?;
            return Err(Refused::new(
                "other_region",
                format!("this node stands in region {own}: ask a node of region {to}, which takes over"),
            ));
        }
        Ok(regions)
    }

    async fn carry_out(
        &self,
        order: &Order,
        begins: Begins,
        regions: &Regions,
        said_at: Instant,
    ) -> Result<(), String> {
        let nodes = self.nodes(regions);
        match begins {
            Begins::Nothing { .. } => {}
            Begins::Again(of) => self.gives_word(order, None, of, &nodes, said_at).await?,
            Begins::Takeover(of) => {
                let mut word = order.word;
                if word == Word::FenceCommand {
                    word = self.fenced(&regions.home().0, said_at).await?;
                    // It was dead when this was said, if that is true.
                    let (to, facts) = (RegionName(order.to.clone()), self.gather(regions).await);
                    let plan = Plan::of(&self.known(&to, regions, &facts)).map_err(|refused| refused.sentence)?;
                    self.with(|progress| progress.lost = plan.lost_by_word);
                }
                self.gives_word(order, Some(word), of, &nodes, said_at).await?;
            }
        }
        self.hands_key_over(order, &nodes);
        self.watches(order, begins.number(), &nodes, said_at).await
    }

    /// Has the command make sure that the old home is off, unless an operator says so himself meanwhile. Whose word it is.
    async fn fenced(&self, home: &str, said_at: Instant) -> Result<Word, String> {
        self.waits_for("node.fence_command");
        let command = self.config.node.fence_command.clone();
        tokio::select! {
            said = fence(&command, home) => {
                let said = said?;
                let said = if said.is_empty() { String::new() } else { format!(": {said}") };
                self.reached(said_at, "fenced", format!("node.fence_command says that {home} is off{said}"));
                Ok(Word::FenceCommand)
            }
            () = self.overruled.notified() => {
                self.reached(said_at, "overruled", format!("an operator says that {home} is off: node.fence_command is not waited for"));
                Ok(Word::OldRegionIsOff)
            }
        }
    }

    /// Gives the word, None where it was given before, to every node until a majority has adopted: this node first, so that it knows what it began, then all
    /// others at once. Those that come later are asked on, within a bound, and follow from their rows in the end.
    async fn gives_word(
        &self,
        order: &Order,
        word: Option<Word>,
        of: Incarnation,
        nodes: &[NodeId],
        said_at: Instant,
    ) -> Result<(), String> {
        let (own, at) = (self.cluster.node(), moment(self.cluster.wall().0));
        let who = match word {
            Some(Word::OldRegionIsOff) => format!("an operator at node {own} said that the old region is off, {at}"),
            Some(Word::FenceCommand) => {
                format!("node.fence_command of node {own} said that the old region is off, {at}")
            }
            None => format!("an operator at node {own} went on with what was begun, {at}"),
        };
        let lost = self.with(|progress| progress.lost.clone()).unwrap_or_default();
        let word = with_lost(who, &lost);
        let question = Question::Word { incarnation: of, word };
        self.waits_for("a majority that adopts");
        let mut highest = match self.ask(own, &question).await.map_err(|e| e.to_string())? {
            Answer::Adopted => of.number,
            Answer::Later { number } => number,
            Answer::Begun { number } => {
                return Err(format!(
                    "{} took over meanwhile, as incarnation {number}: run this again to watch it",
                    order.to
                ));
            }
            Answer::Refused { why, .. } => {
                self.with(|progress| progress.elsewhere = true);
                return Err(format!("node {own} adopts nothing ({why}): run this on another node of {}", order.to));
            }
            Answer::Facts(_) | Answer::Home(_) => return Err(format!("node {own} answered something else")),
        };
        let mut adopted = BTreeSet::from([own]);
        let mut refused: BTreeMap<NodeId, NotAdopted> = BTreeMap::new();
        let mut asking = JoinSet::new();
        for node in nodes.iter().copied().filter(|node| *node != own) {
            let (failover, question) = (self.clone(), question.clone());
            asking.spawn(async move { (node, failover.until_it_says(node, &question).await) });
        }
        let majority = nodes.len() / 2 + 1;
        while adopted.len() < majority {
            match asking.join_next().await {
                Some(Ok((node, Ok(number)))) => {
                    adopted.insert(node);
                    highest = number.max(highest);
                }
                Some(Ok((node, Err(why)))) => drop(refused.insert(node, why)),
                Some(Err(_)) => {}
                None => {
                    let said =
                        format!("{} of {} standbys adopted incarnation {}", adopted.len(), nodes.len(), of.number);
                    return Err(not_by_majority(&said, majority, &refused));
                }
            }
        }
        let (count, all) = (adopted.len(), nodes.len());
        let later = match highest > of.number {
            true => format!(" or a later one, up to {highest}: somebody else gave the word too"),
            false => String::new(),
        };
        self.reached(said_at, "adopted", format!("{count} of {all} nodes adopted incarnation {}{later}", of.number));
        // Whoever has not answered yet is asked on beside what follows.
        tokio::spawn(async move { while asking.join_next().await.is_some() {} });
        Ok(())
    }

    /// Gives the word to a node, again while it does not answer. The number that it is of then: that which it was told, or a
    /// higher one.
    async fn until_it_says(&self, node: NodeId, question: &Question) -> Result<u32, NotAdopted> {
        let begun = Instant::now();
        loop {
            let why = match self.ask(node, question).await {
                Ok(Answer::Adopted) => return Ok(0),
                Ok(Answer::Later { number }) => return Ok(number),
                Ok(Answer::Begun { number }) => return Err(NotAdopted::Begun { number }),
                Ok(Answer::Refused { why, again: false }) => return Err(NotAdopted::Why(why)),
                Ok(Answer::Refused { why, again: true }) => why,
                Ok(Answer::Facts(_) | Answer::Home(_)) => "it answered something else".to_owned(),
                Err(error) => format!("it does not answer ({error})"),
            };
            if begun.elapsed() > STEP_MAX {
                return Err(NotAdopted::Why(why));
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Gives the others the root key that an operator gave this one.
    fn hands_key_over(&self, order: &Order, nodes: &[NodeId]) {
        let Some(key) = &order.root_key else { return };
        for node in nodes.iter().copied().filter(|node| *node != self.cluster.node()) {
            let (failover, key) = (self.clone(), key.clone());
            tokio::spawn(async move {
                let begun = Instant::now();
                while begun.elapsed() < STEP_MAX {
                    match failover.links.give_root_key(node, &key, HAND_OVER_MAX).await {
                        Ok(why) if why.is_empty() => return,
                        Ok(why) => return tracing::error!(node = node.0, "the root key is not taken: {why}"),
                        Err(error) => tracing::debug!(node = node.0, %error, "the root key was not handed over yet"),
                    }
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            });
        }
    }

    /// Looks at the nodes until they serve.
    async fn watches(&self, order: &Order, number: u32, nodes: &[NodeId], said_at: Instant) -> Result<(), String> {
        let all = self.cluster.partitions() as usize + 1;
        let (begun, mut serving_since, mut led_since) = (Instant::now(), None, None);
        let (_looking, seen) = self.looks_at(nodes);
        loop {
            let facts = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let known: Vec<&Facts> = facts.values().collect();
            let ready: BTreeSet<PartitionId> = known
                .iter()
                .flat_map(|node| &node.standings)
                .filter(|standing| standing.ready && standing.incarnation.number >= number)
                .map(|standing| standing.partition)
                .collect();
            let (to, total) = (self.with(|progress| progress.to.clone()).unwrap_or_default(), nodes.len());
            if ready.contains(&PartitionId::CONTROL) {
                self.reached(said_at, "elected", format!("partition 0 leads in {to}"));
            }
            if known.iter().any(|node| node.begun >= number && node.home == to) {
                self.reached(said_at, "home", format!("{to} is home, as its rows say"));
            }
            if ready.len() == all {
                self.reached(said_at, "serves", format!("{all} of {all} serve"));
            }
            let locked: Vec<&&Facts> = known.iter().filter(|node| !node.key.usable).collect();
            let open = known.len() - locked.len();
            if open > 0 {
                self.reached(said_at, "unsealed", so_many(open, total, "has the root key", "have the root key"));
            }
            let taking = known.iter().filter(|node| node.serves).count();
            if taking > 0 {
                self.reached(said_at, "clients", so_many(taking, total, "takes clients", "take clients"));
            }
            if known.iter().any(|node| node.mailboxes > 0) {
                self.reached(said_at, "mailbox", "a first mailbox is open".to_owned());
            }
            let accepted = known.iter().filter_map(|node| node.accepted_ago_ms).max();
            if let Some(ago_ms) = accepted {
                let at = said_at.elapsed().saturating_sub(Duration::from_millis(ago_ms));
                self.reached_after(at, "message", "first message accepted".to_owned());
            }
            // What a node leads that has no key serves no mail. Without one whose disk hangs all is served, and that may last.
            let is_led = ready.len() == all && taking > 0;
            led_since = led_since.filter(|_| is_led).or(is_led.then(Instant::now));
            let led_for = led_since.map_or(Duration::ZERO, |since: Instant| since.elapsed());
            let go_on_without = locked.is_empty() && led_for > ALL_TAKE_CLIENTS_MAX;
            let serves = is_led && (taking == known.len() || go_on_without);
            let since = *match serves {
                true => serving_since.get_or_insert_with(Instant::now),
                false => &begun,
            };
            if serves {
                self.waits_for(&format!("a first message from somebody, for {} s at most", MESSAGE_MAX.as_secs()));
                if accepted.is_some() || since.elapsed() > MESSAGE_MAX {
                    for node in nodes.iter().filter(|node| !facts.get(node).is_some_and(|of| of.serves)) {
                        let why = if facts.contains_key(node) { "takes no clients yet" } else { "does not answer" };
                        let sentence = format!("all is served without node {node}, which {why}: see its log");
                        self.reached(said_at, &format!("without {node}"), sentence);
                    }
                    return Ok(());
                }
            } else if ready.len() < all {
                self.waits_for(&format!("leaders: {} of {all} partitions have one", ready.len()));
            } else if let Some(node) = locked.first() {
                self.waits_for(&format!("the root key: node {} can't unseal: {}", node.node, node.key.why));
            } else {
                self.waits_for("a node that takes clients");
            }
            // Nobody brings the key to a node whose file is not there.
            let stays_locked = ready.len() == all && taking > 0 && taking + locked.len() == known.len();
            let is_late = since.elapsed() > STEP_MAX || (stays_locked && order.root_key.is_none());
            if !serves && is_late {
                return Err(self.why_not(&ready, all, &locked));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Asks each node again and again how far it is, so that one which does not answer delays nobody's news. Ends with what
    /// it gives first.
    fn looks_at(&self, nodes: &[NodeId]) -> (JoinSet<()>, Arc<Mutex<BTreeMap<NodeId, Facts>>>) {
        let (mut looking, seen) = (JoinSet::new(), Arc::new(Mutex::new(BTreeMap::new())));
        for node in nodes.iter().copied() {
            let (failover, seen) = (self.clone(), Arc::clone(&seen));
            looking.spawn(async move {
                loop {
                    let facts = match failover.ask(node, &Question::Facts).await {
                        Ok(Answer::Facts(facts)) => Some(*facts),
                        Ok(_) | Err(_) => None,
                    };
                    {
                        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        match facts {
                            Some(facts) => drop(seen.insert(node, facts)),
                            None => drop(seen.remove(&node)),
                        }
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            });
        }
        (looking, seen)
    }

    fn why_not(&self, ready: &BTreeSet<PartitionId>, all: usize, locked: &[&&Facts]) -> String {
        if ready.len() < all {
            let without: Vec<String> =
                (0..all as u32).map(PartitionId).filter(|p| !ready.contains(p)).map(|p| p.to_string()).collect();
            return format!(
                "partitions {} have no leader after {} s: see mailraft status, start nodes that are down, and run this again",
                without.join(", "),
                STEP_MAX.as_secs()
            );
        }
        match locked.first() {
            Some(node) => format!(
                "node {} can't unseal: {}. What it leads serves no mail. Run this again with --root-key-stdin, or put the key at \
                 keys.root_key_file there",
                node.node, node.key.why
            ),
            None => "no node takes clients: see their logs".to_owned(),
        }
    }

    fn reached(&self, said_at: Instant, step: &str, sentence: String) {
        self.reached_after(said_at.elapsed(), step, sentence);
    }

    /// Once.
    fn reached_after(&self, after: Duration, step: &str, sentence: String) {
        self.with(|progress| {
            if progress.steps.iter().any(|known| known.step == step) {
                return;
            }
            let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(after_ms, "takeover: {sentence}");
            progress.steps.push(Step { step: step.to_owned(), sentence, after_ms });
        });
    }

    fn waits_for(&self, what: &str) {
        self.with(|progress| what.clone_into(&mut progress.waits_for));
    }

    fn with<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> Option<T> {
        self.ordered().as_mut().map(change)
    }

    fn ordered(&self) -> MutexGuard<'_, Option<Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What some of the nodes do, and it may be that others will: each step is told once.
fn so_many(count: usize, total: usize, one: &str, all: &str) -> String {
    if count == total { format!("{count} of {total} nodes {all}") } else { format!("the first of {total} nodes {one}") }
}

/// A word with what was said to be lost by it: whoever asks later is told the same.
fn with_lost(word: String, lost: &str) -> String {
    let mut word = if lost.is_empty() { word } else { format!("{word}; {lost}") };
    word.truncate(word.floor_char_boundary(WORD_MAX_BYTES));
    word
}

/// What was said to be lost by the takeover of this number, as this node's rows have it.
fn said_lost(regions: &Regions, number: u32) -> Option<String> {
    let row = regions.takeovers().iter().find(|row| row.incarnation.number == number)?;
    row.word.find(LOST).map(|at| row.word[at..].to_owned())
}

/// Why a node adopts nothing.
enum NotAdopted {
    /// It says why, or says nothing.
    Why(String),
    /// Its region has taken over already.
    Begun { number: u32 },
}

/// That too few adopted, and what that means: another takeover may have begun meanwhile, and serve.
fn not_by_majority(said: &str, majority: usize, refused: &BTreeMap<NodeId, NotAdopted>) -> String {
    let begun = refused.values().filter_map(|why| match why {
        NotAdopted::Begun { number } => Some(*number),
        NotAdopted::Why(_) => None,
    });
    if let Some(number) = begun.max() {
        return format!(
            "{said}, while incarnation {number} began without them, and goes on. Run this again: it brings all to one"
        );
    }
    let why = refused.iter().map(|(node, why)| match why {
        NotAdopted::Why(why) => format!("node {node}: {why}"),
        NotAdopted::Begun { number } => format!("node {node}: incarnation {number} has begun"),
    });
    format!(
        "{said}, and {majority} must: {}. Nothing serves yet; what adopted stays so, and where the others still do it goes on by \
         itself: keep the old home off. Mend that and run this again: it goes on with the same incarnation",
        why.collect::<Vec<_>>().join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_what_was_said_to_be_lost_within_its_bound() {
        let word = with_lost("an operator at node 4 said so, now".into(), "lost: nothing, unless home was set");
        assert_eq!(word, "an operator at node 4 said so, now; lost: nothing, unless home was set");
        assert_eq!(with_lost("so".into(), ""), "so");
        let long = with_lost("so".into(), &format!("lost: {}", "ü".repeat(WORD_MAX_BYTES)));
        assert!(long.len() <= WORD_MAX_BYTES && long.len() > WORD_MAX_BYTES - 2, "{}", long.len());
    }

    #[test]
    fn it_is_not_said_that_nothing_serves_where_another_takeover_has_begun() {
        let silent = || NotAdopted::Why("it does not answer".to_owned());
        let said = "1 of 3 standbys adopted incarnation 5";
        let words = not_by_majority(said, 2, &[(NodeId(4), silent()), (NodeId(5), silent())].into());
        assert!(
            words.contains("and 2 must: node 4: it does not answer; node 5") && words.contains("Nothing serves yet")
        );
        let begun = NotAdopted::Begun { number: 3 };
        let words = not_by_majority(said, 2, &[(NodeId(4), silent()), (NodeId(5), begun)].into());
        assert!(words.starts_with(said) && words.contains("incarnation 3 began without them"), "{words}");
        assert!(!words.contains("Nothing serves"), "{words}");
    }
}

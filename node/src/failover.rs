//! `mailraft region failover`: a backup region takes over from a home that is lost.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use clap::Args;
use mailraft_server::failover::{Group, Mode, Plan, Progress};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::admin_client::{AdminClient, STATUS_MAX};
use crate::failed::Failed;
use crate::output::tell;

const PATH: &str = "/api/v1/failover";
/// Where it is asked what would be refused.
const REHEARSAL: &str = "/api/v1/failover/rehearsal";
/// How far it is is asked so often.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The node that was given the word is waited for so long, should it not answer.
const SILENT_MAX: Duration = Duration::from_secs(10);
/// Partitions whose positions stand on one line.
const POSITIONS_ON_A_LINE: usize = 8;

/// What a takeover needs to know.
#[derive(Args)]
pub struct Failover {
    /// The region that takes over: a backup that answers waited for
    #[arg(long, value_name = "REGION")]
    pub to: String,
    /// Your word that the home region is off, and stays so. Without it node.fence_command of the asked node makes sure. If
    /// it is false, what the old home still answers is lost, and clients there read what is old
    #[arg(long)]
    pub old_region_is_off: bool,
    /// Say what is certain and what may be missing, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Read the root key from the first line of standard input: for nodes that have no file with it. It is kept in memory
    #[arg(long)]
    pub root_key_stdin: bool,
}

/// Lets a region take over, or says what that would cost.
pub fn run(client: &AdminClient, options: &Failover, as_json: bool) -> Result<(), Failed> {
    if options.root_key_stdin {
        mailraft_server::keep_memory_private();
    }
    let root_key = if options.root_key_stdin { Some(root_key()?) } else { None };
    let word = if options.old_region_is_off { "old_region_is_off" } else { "fence_command" };
    let mut order = json!({ "to": options.to });
    if let Some(key) = &root_key {
        order["root_key"] = json!(key.as_str());
    }
    let mut tried = BTreeSet::new();
    let mut found = find(client, &options.to, &tried)?;
    loop {
        tried.insert(found.number);
        let (progress, sentence) = match takes_over(found, &mut order, options, word, as_json)? {
            Ended::Done => return Ok(()),
            Ended::Elsewhere { progress, sentence } => (progress, sentence),
        };
        found = find(client, &options.to, &tried).map_err(|none| {
            if as_json {
                tell!("{}", json!({ "plan": null, "progress": progress }));
            }
            Failed::because(format!("{sentence}; no other one can: {}", none.sentence))
        })?;
        if !as_json {
            tell!("{sentence}. That is done here:\n");
        }
        order["above"] = json!(progress.incarnation);
    }
}

/// What came of asking one node.
enum Ended {
    /// What was wanted is done.
    Done,
    /// That node adopts nothing, and said why: another one may.
    Elsewhere { progress: Box<Progress>, sentence: String },
}

/// Lets the region take over by the node that was found.
fn takes_over(found: Found, order: &mut Value, options: &Failover, word: &str, as_json: bool) -> Result<Ended, Failed> {
    let Found { client, mut plan, .. } = found;
    let root_key = order["root_key"].is_string();
    if let Some(plan) = plan.as_mut().filter(|_| root_key) {
        // It comes with the word.
        (plan.without_key, plan.locked) = (None, Vec::new());
    }
    if let Some(plan) = &plan {
        if as_json {
            if options.dry_run {
                tell!("{}", json!({ "plan": plan }));
            }
        } else {
            described(plan).iter().for_each(|line| tell!("{line}"));
        }
        if options.dry_run {
            if root_key {
                tries_key(&client, order, as_json)?;
            }
            return Ok(Ended::Done);
        }
        order["word"] = json!(word);
        if !options.yes {
            // What is refused anyhow is refused before anybody types anything.
            client.once("POST", REHEARSAL, Some(order))?;
            ask(plan, options, as_json)?;
        }
    } else if options.dry_run {
        return Err(Failed::because(format!("{} took over already: see mailraft region show", options.to)));
    }
    order["word"] = json!(word);
    let progress = client.once("POST", PATH, Some(order))?;
    watch(&client, progress, plan.as_ref(), as_json)
}

/// Whether the root key that came is the cluster's, with nothing kept of it.
fn tries_key(client: &AdminClient, order: &Value, as_json: bool) -> Result<(), Failed> {
    client.once("POST", REHEARSAL, Some(order))?;
    if !as_json {
        tell!("The root key is this cluster's.");
    }
    Ok(())
}

/// The first line of standard input, and nothing after it.
fn root_key() -> Result<Zeroizing<String>, Failed> {
    let mut line = Zeroizing::new(String::with_capacity(128));
    BufReader::new(std::io::stdin().take(128))
        .read_line(&mut line)
        .map_err(|e| Failed::because(format!("the root key can't be read from standard input ({e})")))?;
    let key = Zeroizing::new(line.trim().to_owned());
    if key.len() != 64 || !key.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Failed::usage("standard input has no root key: give the 64 hexadecimal digits of its file".into()));
    }
    Ok(key)
}

/// A node of the region.
struct Found {
    /// It alone.
    client: AdminClient,
    /// Its place among the nodes that are known.
    number: usize,
    /// What it says is to be known. Without that the region has taken over already.
    plan: Option<Plan>,
}

/// A node of the region that was not tried yet.
fn find(client: &AdminClient, to: &str, tried: &BTreeSet<usize>) -> Result<Found, Failed> {
    let path = format!("{PATH}?to={}", crate::admin_client::segment(to));
    let mut why: Option<(u8, String)> = None;
    let (until, heard) = (Instant::now() + STATUS_MAX, client.ask_each_coded(&path, STATUS_MAX));
    // Whoever is there first will do: a node that hangs keeps nobody waiting.
    while let Ok((number, answer)) = heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
        if tried.contains(&number) {
            continue;
        }
        let (weight, sentence) = match answer {
            Ok((200, plan)) => {
                let plan = serde_json::from_value(plan).map_err(|e| {
                    Failed::because(format!(
                        "the node's answer is not known to this version ({e}): use the node's mailraft"
                    ))
                })?;
                return Ok(Found { client: client.only(number), number, plan: Some(plan) });
            }
            Ok((_, said)) if said["code"] == "has_begun" => {
                return Ok(Found { client: client.only(number), number, plan: None });
            }
            Ok((_, said)) => {
                let sentence = said["error"].as_str().unwrap_or("it refused without a reason").to_owned();
                let elsewhere = matches!(said["code"].as_str(), Some("other_region" | "standby"));
                (if elsewhere { 1 } else { 2 }, sentence)
            }
            Err(error) => (0, format!("{} does not answer ({error})", client.nodes()[number].address)),
        };
        if why.as_ref().is_none_or(|(known, _)| weight > *known) {
            why = Some((weight, sentence));
        }
    }
    Err(Failed::because(why.map_or_else(|| "no node is named".to_owned(), |(_, sentence)| sentence)))
}

/// What is to be known before the word.
fn described(plan: &Plan) -> Vec<String> {
    let mut lines = vec![format!("{} takes over from {}.", plan.to, plan.from), String::new()];
    lines.extend(plan.lacks.iter().flat_map(|lacks| [format!("{lacks}."), String::new()]));
    lines.extend(plan.groups.iter().flat_map(|group| group_lines(group, &plan.from)));
    let list = |title: &str, sentences: &[String]| {
        let lines = sentences.iter().map(|sentence| format!("  - {sentence}"));
        [String::new(), title.to_owned()].into_iter().chain(lines).collect::<Vec<_>>()
    };
    lines.extend(list("Certain:", &plan.certain));
    lines.extend(list("May be missing:", &plan.may_be_missing));
    lines.extend([String::new(), format!("Who is cut off? {}.", plan.cut_off)]);
    if let Some(number) = plan.goes_on_with {
        lines.push(format!("A takeover was begun and broken off: this goes on with incarnation {number}."));
    }
    lines.extend(plan.without_key.clone());
    if !plan.locked.is_empty() {
        let nodes: Vec<String> = plan.locked.iter().map(ToString::to_string).collect();
        lines.push(format!(
            "Node {} can't unseal: what it leads serves no mail until it can. Give the key by --root-key-stdin.",
            nodes.join(", ")
        ));
    }
    lines.extend([String::new(), format!("If {} is off: {}", plan.from, plan.lost)]);
    lines
}

fn group_lines(group: &Group, home: &str) -> Vec<String> {
    let heard = match group.home_heard_s {
        Some(s) => format!("{home} heard {s} s ago"),
        None => format!("{home} not heard since the nodes started"),
    };
    let mode = match group.mode {
        Mode::Whole if group.may_be_alone => "answers waited when that was last heard here, and may not have since",
        Mode::Whole => "answers waited",
        Mode::Alone => "home answered alone",
        Mode::Returning => "answers waited again, and what was answered before may be missing",
    };
    let mut lines = vec![format!(
        "{} partitions: {heard}; {} of {} standbys can vote; {mode}; positions",
        group.positions.len(),
        group.standbys,
        group.of
    )];
    for some in group.positions.chunks(POSITIONS_ON_A_LINE) {
        let some: Vec<String> = some.iter().map(|(partition, index)| format!("{partition}:{index}")).collect();
        lines.push(format!("  {}", some.join(" ")));
    }
    lines
}

/// Asks for the region's name. Where standard input brought the key, the terminal is asked.
fn ask(plan: &Plan, options: &Failover, as_json: bool) -> Result<(), Failed> {
    if as_json {
        return Err(Failed::usage("with --json nobody is asked: say --yes".into()));
    }
    let lacks = plan.lacks.as_ref().map_or_else(String::new, |lacks| format!("{lacks}. "));
    let rather = if plan.rather_us { "It is more likely that this region is cut off. " } else { "" };
    let whose = match options.old_region_is_off {
        true => format!("You say that {} is off. If it is not, what it still answers is lost.", plan.from),
        false => format!("node.fence_command is to make sure that {} is off.", plan.from),
    };
    tell!("\n{lacks}{rather}{whose} There is no way back but forward.\nType the name of the region that takes over:");
    let mut line = String::new();
    let read = match options.root_key_stdin {
        true => std::fs::File::open("/dev/tty").and_then(|tty| BufReader::new(tty.take(256)).read_line(&mut line)),
        false => std::io::stdin().lock().read_line(&mut line),
    };
    read.map_err(|e| Failed::usage(format!("nobody can be asked ({e}): say --yes")))?;
    match line.trim() == plan.to {
        true => Ok(()),
        false => Err(Failed::because("nothing was done: that is not the region's name".into())),
    }
}

/// Shows each step as it is reached, until the end.
fn watch(client: &AdminClient, first: Value, plan: Option<&Plan>, as_json: bool) -> Result<Ended, Failed> {
    let (mut shown, mut heard, mut waiting) = (0, Instant::now(), false);
    let mut answer: Result<Value, Failed> = Ok(first);
    loop {
        match &answer {
            Ok(value) => {
                heard = Instant::now();
                let progress: Progress = serde_json::from_value(value.clone())
                    .map_err(|e| Failed::because(format!("the node's answer is not known to this version ({e})")))?;
                for step in progress.steps.iter().skip(shown).filter(|_| !as_json) {
                    tell!("{} after {:.1} s", step.sentence, step.after_ms as f64 / 1_000.0);
                }
                shown = progress.steps.len();
                if !as_json && !waiting && progress.waits_for.contains("message") {
                    waiting = true;
                    told_lost(&progress);
                    tell!("waiting for {}; all serve, and nothing hangs on it", progress.waits_for);
                }
                if !progress.running {
                    return finish(&progress, plan, as_json, waiting);
                }
            }
            Err(failed) if heard.elapsed() > SILENT_MAX => {
                return Err(Failed::unknown(format!(
                    "the node that was given the word does not answer any more ({}): see mailraft status, and run this again: \
                     it goes on with the same incarnation",
                    failed.sentence
                )));
            }
            Err(_) => {}
        }
        std::thread::sleep(LOOK_EVERY);
        answer = client.once("GET", &format!("{PATH}/progress"), None);
    }
}

fn told_lost(progress: &Progress) {
    if !progress.lost.is_empty() {
        tell!("{}", progress.lost);
    }
}

fn finish(progress: &Progress, plan: Option<&Plan>, as_json: bool, told: bool) -> Result<Ended, Failed> {
    if let Some(sentence) = progress.failed.as_ref().filter(|_| progress.elsewhere) {
        return Ok(Ended::Elsewhere { progress: Box::new(progress.clone()), sentence: sentence.clone() });
    }
    if as_json {
        tell!("{}", json!({ "plan": plan, "progress": progress }));
    }
    if let Some(failed) = &progress.failed {
        return Err(Failed::because(failed.clone()));
    }
    if as_json {
        return Ok(Ended::Done);
    }
    if !progress.steps.iter().any(|step| step.step == "message") {
        tell!("no message came to {} yet", progress.to);
    }
    if !told {
        told_lost(progress);
    }
    Ok(Ended::Done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;

    use mailraft_storage::{Index, NodeId, PartitionId};

    use super::*;
    use crate::admin_client::tests::{client, node};

    fn plan() -> Plan {
        Plan {
            to: "south".into(),
            from: "home".into(),
            groups: vec![Group {
                positions: (0..10).map(|n| (PartitionId(n), Index(u64::from(n) + 40))).collect(),
                home_heard_s: Some(12),
                standbys: 3,
                of: 3,
                mode: Mode::Whole,
                may_be_alone: false,
            }],
            certain: vec!["this is".into()],
            may_be_missing: vec!["that may".into()],
            cut_off: "nobody can tell".into(),
            rather_us: false,
            goes_on_with: Some(2),
            alone_from: None,
            lacks: Some("south lacks mail".into()),
            without_key: Some("south can't unseal".into()),
            locked: vec![NodeId(5), NodeId(6)],
            lost: "lost: nothing".into(),
            lost_by_word: "lost: nothing".into(),
        }
    }

    /// An answer whose body this is.
    fn said(body: &impl serde::Serialize) -> &'static str {
        format!("HTTP/1.1 200 OK\r\n\r\n{}", serde_json::to_string(body).unwrap()).leak()
    }

    fn options() -> Failover {
        let to = "south".to_owned();
        Failover { to, old_region_is_off: true, dry_run: false, yes: true, root_key_stdin: false }
    }

    /// How far it is at the end, as a node that adopts nothing says it, and one that does.
    fn ends(incarnation: u32, failed: Option<&str>) -> Progress {
        Progress {
            to: "south".into(),
            incarnation,
            steps: Vec::new(),
            waits_for: String::new(),
            running: false,
            failed: failed.map(str::to_owned),
            elsewhere: failed.is_some(),
            lost: "lost: nothing".into(),
        }
    }

    #[test]
    fn where_the_asked_node_adopts_nothing_the_next_one_is_asked_with_a_higher_number() {
        let (answered, after) = mpsc::channel();
        let (hangs, asked) = node(vec![said(&plan()), said(&ends(4, Some("its disk stands still")))], None);
        let first = std::thread::spawn(move || (asked.join().unwrap(), drop(answered)));
        // It was asked beside the first, too.
        let (goes_on, second) = node(vec![said(&plan()), said(&plan()), said(&ends(6, None))], Some(after));
        run(&client(vec![hangs, goes_on]), &options(), false).unwrap();
        let ((first, ()), second) = (first.join().unwrap(), second.join().unwrap());
        assert!(!first.iter().any(|line| line.contains("above")), "{first:?}");
        let order: Value = serde_json::from_str(second.last().unwrap()).unwrap();
        assert_eq!(order, json!({ "to": "south", "word": "old_region_is_off", "above": 4 }));
    }

    #[test]
    fn where_no_node_adopts_anything_it_is_said_of_which_and_why() {
        let (hangs, _asked) = node(vec![said(&plan()), said(&ends(4, Some("its disk stands still")))], None);
        let refused = "HTTP/1.1 409 Conflict\r\n\r\n{\"code\":\"left_behind\",\"error\":\"it is left behind\"}";
        let (other, _asked) = node(vec![refused, refused], None);
        let failed = run(&client(vec![hangs, other]), &options(), false).unwrap_err();
        assert_eq!(failed.sentence, "its disk stands still; no other one can: it is left behind");
    }

    #[test]
    fn what_is_said_before_the_word_has_every_partition_and_both_lists() {
        let plan = plan();
        assert_eq!(
            described(&plan).join("\n"),
            "south takes over from home.\n\nsouth lacks mail.\n\n10 partitions: home heard 12 s ago; 3 of 3 standbys can vote; answers waited; \
             positions\n  0:40 1:41 2:42 3:43 4:44 5:45 6:46 7:47\n  8:48 9:49\n\nCertain:\n  - this is\n\nMay be missing:\n  \
             - that may\n\nWho is cut off? nobody can tell.\nA takeover was begun and broken off: this goes on with incarnation \
             2.\nsouth can't unseal\nNode 5, 6 can't unseal: what it leads serves no mail until it can. Give the key by \
             --root-key-stdin.\n\nIf home is off: lost: nothing"
        );
        let line = |mode, may_be_alone| {
            let group = Group { mode, may_be_alone, ..plan.groups[0].clone() };
            group_lines(&group, "home").swap_remove(0)
        };
        let stale = line(Mode::Whole, true);
        assert!(stale.contains("answers waited when that was last heard here, and may not have since"), "{stale}");
        assert!(line(Mode::Alone, false).contains("home answered alone"));
    }
}

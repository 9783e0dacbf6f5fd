//! A backup region over a slow link, under load: its nodes are killed, the link is cut and slowed. What `mailraft status`
//! says stands beside what clients hear.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::Load;
use crate::cluster::Cluster;
use crate::wan::Wan;

/// One way over the link, at first.
const ONE_WAY: Duration = Duration::from_millis(40);
/// The sentence changes within 2 s; a test's machine may be so busy that it takes one more. What it took is reported.
const SENTENCE_WITHIN: Duration = Duration::from_secs(3);
/// New mail is deferred for at least so long of each absence.
const DEFERRED_FOR: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(50);

/// Three nodes at home and three in the south, with a link between them.
///
/// # Panics
/// If it does not come up.
pub fn two_regions(one_way: Duration) -> (Cluster, Wan) {
    let wan = Wan::new(one_way).expect("a link");
    let region = |id: u64| if id <= 3 { "home".to_owned() } else { "south".to_owned() };
    let cluster = Cluster::start_regions("home=3,south=3", 6, &|config| wan.between(&config, region));
    (cluster, wan)
}

/// What status says of the south: the state's word, the sentence, there and back in milliseconds.
fn south(cluster: &Cluster) -> (String, String, Option<u64>) {
    let status = cluster.status(1).unwrap_or(Value::Null);
    let line = &status["regions"][0];
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("sentence"), line["round_trip_ms"].as_u64())
}

/// How long it takes until status says this of the south.
///
/// # Errors
/// If it does not within a minute: what it says instead.
pub fn until_said(cluster: &Cluster, state: &str) -> Result<Duration, String> {
    let begun = Instant::now();
    loop {
        let (now, sentence, _) = south(cluster);
        if now == state {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > crate::cluster::PATIENCE {
            return Err(format!("status did not say {state} of the south, but: {sentence}"));
        }
        std::thread::sleep(PAUSE);
    }
}

/// How long it takes until a message is accepted again.
fn until_accepted(load: &Load) -> Result<Duration, String> {
    let (begun, before) = (Instant::now(), load.accepted());
    while load.accepted() == before {
        if begun.elapsed() > crate::cluster::PATIENCE {
            return Err("nothing is accepted any more".into());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(begun.elapsed())
}

/// The south is away from when `leaves` is called until `returns` is: a line for the report.
fn absence(
    (cluster, load): (&mut Cluster, &Load),
    what: &str,
    leaves: impl FnOnce(&mut Cluster),
    returns: impl FnOnce(&mut Cluster),
) -> Result<String, String> {
    leaves(cluster);
    let said = until_said(cluster, "stopped")?;
    if said > SENTENCE_WITHIN {
        return Err(format!("the south was {what}, and status said so only after {said:?}"));
    }
    // What left home before is answered yet; nothing after that.
    std::thread::sleep(Duration::from_secs(1));
    let (accepted, refused) = (load.accepted(), load.refused());
    let begun = Instant::now();
    while load.refused() == refused || begun.elapsed() < DEFERRED_FOR {
        if begun.elapsed() > crate::cluster::PATIENCE {
            return Err(format!("the south was {what}, and no client was deferred"));
        }
        std::thread::sleep(PAUSE);
    }
    if load.accepted() > accepted {
        return Err(format!("the south was {what}, and {} messages were accepted", load.accepted() - accepted));
    }
    let (_, sentence, _) = south(cluster);
    let deferred = load.refused() - refused;
    returns(cluster);
    let again = until_accepted(load)?;
    let well = until_said(cluster, "holds")?;
    Ok(format!(
        "{what}: said after {:.1} s ({sentence}), {deferred} deferred, none accepted; back: accepted after {:.1} s, said \
         after {:.1} s more",
        said.as_secs_f64(),
        again.as_secs_f64(),
        well.as_secs_f64()
    ))
}

/// The south is killed, cut off and slowed under load.
///
/// # Errors
/// What status said and clients did not see, or the other way round; what is missing or there twice.
pub fn backup_region(cluster: &mut Cluster, wan: &Wan) -> Result<String, String> {
    let load = Load::start(cluster, 500)?;
    until_accepted(&load)?;
    until_said(cluster, "holds")?;
    let (_, at_first, round_trip_ms) = south(cluster);
    let least_ms = 2 * ONE_WAY.as_millis() as u64;
    if round_trip_ms.is_none_or(|ms| ms < least_ms) {
        return Err(format!("over a link of {least_ms} ms status says: {at_first}"));
    }
    let nodes = cluster.nodes_in("south");
    let mut report = vec![at_first];
    report.push(absence(
        (cluster, &load),
        "killed",
        |cluster| nodes.iter().for_each(|node| cluster.kill(*node)),
        |cluster| nodes.iter().for_each(|node| cluster.start(*node)),
    )?);
    report.push(absence((cluster, &load), "cut off", |_| wan.cut(true), |_| wan.cut(false))?);
    let slow = Duration::from_millis(150);
    wan.delay(slow);
    let (before, begun) = (load.accepted(), Instant::now());
    std::thread::sleep(Duration::from_secs(5));
    let accepted = load.accepted() - before;
    if accepted == 0 {
        return Err(format!("with the link at {} ms one way nothing is accepted", slow.as_millis()));
    }
    let (state, sentence, round_trip_ms) = south(cluster);
    if state != "holds" || round_trip_ms.is_none_or(|ms| ms < 2 * slow.as_millis() as u64) {
        return Err(format!("with the link at {} ms one way status says: {sentence}", slow.as_millis()));
    }
    report.push(format!("slowed: {accepted} accepted in {:.0} s; {sentence}", begun.elapsed().as_secs_f64()));
    wan.delay(ONE_WAY);
    report.push(load.end(cluster)?);
    Ok(report.join("\n"))
}

/// The same with a cluster of its own.
///
/// # Errors
/// As [`backup_region`].
///
/// # Panics
/// If the cluster can't be started.
pub fn run() -> Result<String, String> {
    let (mut cluster, wan) = two_regions(ONE_WAY);
    backup_region(&mut cluster, &wan)
}

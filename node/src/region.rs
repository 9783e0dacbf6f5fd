//! `mailraft region`: where nodes stand, and what a loss of the home region would cost.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::admin_client::AdminClient;
use crate::failed::Failed;
use crate::output::tell;
use mailraft_server::survival::moment;

const PATH: &str = "/api/v1/regions";
/// Where a takeover forked off, of so many partitions on one line.
const FORKS_ON_A_LINE: usize = 8;

/// What `region set` changes.
#[derive(Args)]
pub struct Settings {
    /// What is promised, should the home region be lost: nothing that was answered (geo), or at most --rpo-max of it (region)
    #[arg(long, value_enum)]
    pub durability: Option<Durability>,
    /// With --durability region: answers run so far ahead of the backup at most, such as 1s or 500ms (default 1s)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub rpo_max: Option<Duration>,
    /// While a backup region confirms nothing, new mail is deferred: for --degrade-after, then the home goes on alone
    /// (degrade), or until it confirms again (refuse)
    #[arg(long, value_enum)]
    pub unconfirmed: Option<Unconfirmed>,
    /// After so long without confirmation the home goes on alone, such as 60s or 5m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub degrade_after: Option<Duration>,
}

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// Mail is answered when every backup region holds it: one round trip more for each message
    Geo,
    /// Mail is answered when it is on a majority's disks at home, as long as the backup is not further behind than the bound
    Region,
}

/// What happens while a backup region confirms nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Unconfirmed {
    /// The home goes on alone after a while: mail that is answered from then on is lost with it
    Degrade,
    /// New mail is deferred for as long as it takes
    Refuse,
}

/// A time with its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err("write a number and a unit: 500ms, 1s, 5m, 2h".to_owned()),
    };
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(ms));
    ms.map(Duration::from_millis).ok_or_else(|| "write a number and a unit: 500ms, 1s, 5m, 2h".to_owned())
}

impl Settings {
    /// As the admin API takes them.
    fn body(&self) -> Result<Value, Failed> {
        let mut body = Map::new();
        if let Some(durability) = self.durability {
            let word = match durability {
                Durability::Geo => "geo",
                Durability::Region => "region",
            };
            body.insert("durability".into(), json!(word));
        }
        if let Some(rpo_max) = self.rpo_max {
            if self.durability != Some(Durability::Region) {
                return Err(Failed::usage("--rpo-max is the bound of --durability region: give both".into()));
            }
            body.insert("rpo_max_ms".into(), json!(millis(rpo_max)));
        }
        if let Some(unconfirmed) = self.unconfirmed {
            let word = match unconfirmed {
                Unconfirmed::Degrade => "degrade",
                Unconfirmed::Refuse => "refuse",
            };
            body.insert("unconfirmed".into(), json!(word));
        }
        if let Some(after) = self.degrade_after {
            body.insert("degrade_after_ms".into(), json!(millis(after)));
        }
        if body.is_empty() {
            return Err(Failed::usage(
                "nothing is to change: give --durability, --unconfirmed or --degrade-after; mailraft region show says what is"
                    .into(),
            ));
        }
        Ok(Value::Object(body))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Prints every region with its nodes.
pub fn list(client: &AdminClient, as_json: bool) -> Result<(), Failed> {
    let answer = client.read(PATH)?;
    if as_json {
        tell!("{}", answer["regions"]);
        return Ok(());
    }
    for region in answer["regions"].as_array().into_iter().flatten() {
        tell!("{}", line(region));
    }
    Ok(())
}

fn line(region: &Value) -> String {
    let nodes: Vec<String> = region["nodes"].as_array().into_iter().flatten().map(Value::to_string).collect();
    let part = match (region["home"] == true, region["waited_for"] == true) {
        (true, _) => "home",
        (false, true) => "backup, answers wait for it",
        (false, false) if region["left_behind"] == true => {
            "was taken over: it serves and protects nothing; keep the data of its nodes"
        }
        (false, false) => "backup that is taken out: answers do not wait for it, it protects nothing",
    };
    format!("{}  {part}  nodes {}", region["name"].as_str().unwrap_or_default(), nodes.join(", "))
}

/// Prints what is promised.
pub fn show(client: &AdminClient, as_json: bool) -> Result<(), Failed> {
    let answer = client.read(PATH)?;
    match as_json {
        true => tell!("{answer}"),
        false => tell!("{}", sentences(&answer).join("\n")),
    }
    Ok(())
}

fn sentences(answer: &Value) -> Vec<String> {
    let home = answer["home"].as_str().unwrap_or_default();
    let Some(durability) = answer["durability"].as_str() else {
        return vec![format!("one region, {home}: with it all mail is lost")];
    };
    let seconds = |key: &str| answer[key].as_u64().unwrap_or_default() as f64 / 1_000.0;
    let is_waited_for = answer["regions"].as_array().into_iter().flatten().any(|region| region["waited_for"] == true);
    let name = match durability {
        "geo" => "durability geo".to_owned(),
        _ => format!("durability region, bound {} s", seconds("rpo_max_ms")),
    };
    let promise = match (durability, is_waited_for) {
        (_, false) => format!("{name}: no backup region is waited for, so a loss of region {home} loses its mail"),
        ("geo", true) => format!("{name}: while answers wait, a loss of region {home} loses no mail that was answered"),
        (_, true) => {
            format!(
                "{name}: while answers wait, a loss of region {home} loses at most that much of each mailbox's mail"
            )
        }
    };
    let without = match answer["unconfirmed"].as_str() {
        Some("refuse") => "unconfirmed refuse: while a backup region confirms nothing, new mail is deferred".to_owned(),
        _ => format!(
            "unconfirmed degrade: {} s after a backup region confirmed last, {home} goes on alone",
            seconds("degrade_after_ms")
        ),
    };
    let regions = answer["regions"].as_array().into_iter().flatten().map(line);
    let now = "whether they wait now, and what is survived: mailraft status".to_owned();
    let rules = if is_waited_for { vec![promise, without, now] } else { vec![promise] };
    let known = answer["known_in"].as_str().map(|region| format!("as region {region} knows, where no mail is served:"));
    known.into_iter().chain(rules).chain(regions).chain(takeovers(answer)).collect()
}

/// A sentence for each takeover, with where it forked off what was before.
fn takeovers(answer: &Value) -> impl Iterator<Item = String> + '_ {
    answer["takeovers"].as_array().into_iter().flatten().flat_map(|row| {
        let forks: Vec<&Value> = row["forks"].as_array().into_iter().flatten().collect();
        let first = format!(
            "incarnation {}  {} took over at {}: {}; forks (partition:entry.term)",
            row["incarnation"],
            row["home"].as_str().unwrap_or_default(),
            moment(row["since_unix_ms"].as_u64().unwrap_or_default()),
            row["word"].as_str().unwrap_or_default()
        );
        let fork = |fork: &&Value| format!("{}:{}.{}", fork["partition"], fork["index"], fork["term"]);
        let lines = forks.chunks(FORKS_ON_A_LINE).map(move |some| some.iter().map(fork).collect::<Vec<_>>().join(" "));
        let lines: Vec<String> = lines.map(|line| format!("  {line}")).collect();
        [first].into_iter().chain(lines)
    })
}

/// Changes what is promised.
pub fn set(
    client: &AdminClient,
    settings: &Settings,
    id: Option<mailraft_storage::CommandId>,
) -> Result<Value, Failed> {
    client.change("PUT", PATH, Some(&settings.body()?), id)
}

/// Has answers wait for a region again, once it holds everything.
pub fn add(client: &AdminClient, name: &str, id: Option<mailraft_storage::CommandId>) -> Result<Value, Failed> {
    client.change("PUT", PATH, Some(&json!({"add": name})), id)
}

/// Has answers wait for a region no more.
pub fn remove(client: &AdminClient, name: &str, id: Option<mailraft_storage::CommandId>) -> Result<Value, Failed> {
    client.change("PUT", PATH, Some(&json!({"remove": name})), id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_a_bound_its_promise() {
        for (text, ms) in [("500ms", 500), ("1s", 1_000), ("5m", 300_000), ("2h", 7_200_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1.5s", "99999999999999999999s", "1d"] {
            assert!(duration(text).is_err(), "{text}");
        }
        let settings = |durability, rpo_max| Settings { durability, rpo_max, unconfirmed: None, degrade_after: None };
        let second = Some(Duration::from_secs(1));
        assert!(settings(None, None).body().is_err() && settings(None, second).body().is_err());
        assert!(settings(Some(Durability::Geo), second).body().is_err());
        let body = settings(Some(Durability::Region), second).body().map_err(|failed| failed.sentence);
        assert_eq!(body, Ok(json!({"durability": "region", "rpo_max_ms": 1_000})));
    }

    #[test]
    fn what_is_promised_is_said_in_words() {
        let mut answer = json!({
            "home": "home", "durability": "geo", "rpo_max_ms": null, "unconfirmed": "degrade", "degrade_after_ms": 60_000,
            "regions": [{"name": "home", "home": true, "waited_for": false, "nodes": [1, 2]},
                        {"name": "south", "home": false, "waited_for": true, "nodes": [3]}],
        });
        assert_eq!(
            sentences(&answer),
            [
                "durability geo: while answers wait, a loss of region home loses no mail that was answered",
                "unconfirmed degrade: 60 s after a backup region confirmed last, home goes on alone",
                "whether they wait now, and what is survived: mailraft status",
                "home  home  nodes 1, 2",
                "south  backup, answers wait for it  nodes 3",
            ]
        );
        answer["durability"] = json!("region");
        answer["rpo_max_ms"] = json!(500);
        answer["unconfirmed"] = json!("refuse");
        let said = sentences(&answer);
        assert!(said[0].contains("bound 0.5 s") && said[1].starts_with("unconfirmed refuse"), "{said:?}");
        // Where nobody waits nothing is promised.
        answer["regions"][1]["waited_for"] = json!(false);
        let said = sentences(&answer);
        assert!(
            said[0].ends_with("no backup region is waited for, so a loss of region home loses its mail"),
            "{said:?}"
        );
        assert!(said[1].starts_with("home  home") && said[2].contains("taken out"), "{said:?}");
        answer["regions"][1]["left_behind"] = json!(true);
        assert!(sentences(&answer)[2].starts_with("south  was taken over"));
        answer["takeovers"] = json!([{
            "incarnation": 2, "home": "south", "since_unix_ms": 1_795_684_443_000_u64, "word": "it is off",
            "forks": [{"partition": 0, "index": 41, "term": 3}, {"partition": 1, "index": 7, "term": 2}],
        }]);
        let said = sentences(&answer);
        assert_eq!(
            said[3..],
            [
                "incarnation 2  south took over at 2026-11-26T09:14:03Z: it is off; forks (partition:entry.term)",
                "  0:41.3 1:7.2",
            ]
        );
        assert_eq!(sentences(&json!({"home": "home"})), ["one region, home: with it all mail is lost"]);
    }
}

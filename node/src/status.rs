//! `mailraft status`: for a tired person.

use std::process::ExitCode;

use serde_json::Value;

use crate::admin_client::AdminClient;
use crate::failed::Failed;
use crate::options::Target;
use crate::output::tell;

/// Prints how the cluster is.
pub fn run(target: &Target, json: bool) -> Result<ExitCode, Failed> {
    let status = AdminClient::of(target)?.ask("GET", "/api/v1/status", None)?;
    if json {
        tell!("{status}");
    } else {
        tell!("{}", table(&status).trim_end());
    }
    Ok(if status["healthy"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(status: &Value) -> String {
    let mut out = String::new();
    let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let partitions = status["partitions"].as_array().map_or(&[][..], Vec::as_slice);
    let up = nodes.iter().filter(|n| n["up"] == true).count();
    let led = partitions.iter().filter(|p| !p["leader"].is_null()).count();
    if status["healthy"] == true {
        out.push_str(&format!("healthy: all {led} partitions have a leader, {up} of {} nodes are up\n", nodes.len()));
    } else {
        out.push_str(&format!(
            "NOT HEALTHY: {led} of {} partitions have a leader, {up} of {} nodes are up\n",
            partitions.len(),
            nodes.len()
        ));
        for problem in status["problems"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            out.push_str(&format!("  - {problem}\n"));
        }
    }
    out.push_str("\nNODE  NAME        STATE  LEADS  BEHIND  ACTORS  UPTIME\n");
    for node in nodes {
        let id = node["id"].as_u64().unwrap_or(0);
        let lag: u64 = partitions
            .iter()
            .flat_map(|p| p["replicas"].as_array().into_iter().flatten())
            .filter(|r| r["node"].as_u64() == Some(id))
            .filter_map(|r| r["lag"].as_u64())
            .sum();
        let name = node["name"].as_str().unwrap_or("");
        if node["up"] == true {
            out.push_str(&format!(
                "{id:<5} {name:<11} up     {:>5}  {lag:>6}  {:>6}  {}\n",
                node["leads"].as_u64().unwrap_or(0),
                node["actors"].as_u64().unwrap_or(0),
                duration(node["uptime_s"].as_u64().unwrap_or(0)),
            ));
        } else {
            out.push_str(&format!("{id:<5} {name:<11} DOWN       -       -       -  -\n"));
        }
    }
    out.push_str("\nPARTITION  LEADER  TERM    COMMITTED  REPLICAS (node:behind)\n");
    let mut sorted: Vec<&Value> = partitions.iter().collect();
    sorted.sort_by_key(|p| (!p["leader"].is_null(), p["partition"].as_u64()));
    for partition in sorted {
        let number = partition["partition"].as_u64().unwrap_or(0);
        let name = if number == 0 { "0 control".to_owned() } else { number.to_string() };
        let leader = partition["leader"].as_u64().map_or("none".to_owned(), |l| l.to_string());
        let text = |key: &str| partition[key].as_u64().map_or("-".to_owned(), |n| n.to_string());
        let replicas: Vec<String> = partition["replicas"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|r| {
                let lag = r["lag"].as_u64().map_or("?".to_owned(), |l| l.to_string());
                format!("{}:{lag}", r["node"].as_u64().unwrap_or(0))
            })
            .collect();
        out.push_str(&format!(
            "{name:<9}  {leader:<6}  {:<6}  {:>9}  {}\n",
            text("term"),
            text("commit"),
            replicas.join(" ")
        ));
    }
    out
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sick_cluster_says_what_is_wrong_first_and_fits_80_columns() {
        let status = json!({
            "healthy": false,
            "problems": ["node 3 does not answer: start it again with mailraft node --config"],
            "nodes": [
                {"id": 1, "name": "node1", "up": true, "leads": 1, "actors": 4, "uptime_s": 4000},
                {"id": 3, "name": "node3", "up": false, "leads": 0},
            ],
            "partitions": [
                {"partition": 0, "leader": 1, "term": 3, "commit": 120, "replicas": [{"node": 1, "lag": 0}]},
                {"partition": 1, "leader": null, "replicas": [{"node": 1, "lag": null}]},
            ],
        });
        let text = table(&status);
        assert!(text.starts_with(
            "NOT HEALTHY: 1 of 2 partitions have a leader, 1 of 2 nodes are up\n  - node 3 does not answer"
        ));
        assert!(text.contains("3     node3       DOWN"));
        assert!(text.find("1          none").unwrap() < text.find("0 control").unwrap(), "{text}");
        assert!(text.lines().all(|l| l.len() <= 80), "{text}");
    }
}

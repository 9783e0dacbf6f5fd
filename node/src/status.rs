//! `mailraft status`: for a tired person.

use std::process::ExitCode;

use mailraft_driver::ScrubStatus;
use mailraft_server::admin::SEALED;
use mailraft_server::status::{ClusterStatus, NodeAnswer, NodeLine, PartitionLine};
use mailraft_storage::PartitionId;
use serde_json::{Value, json};

use crate::admin_client::{AdminClient, Node, STATUS_MAX};
use crate::failed::Failed;
use crate::options::Target;
use crate::output::{duration, tell};

/// Prints how the cluster is.
pub fn run(target: &Target, json: bool) -> Result<ExitCode, Failed> {
    let answer = match AdminClient::of(target) {
        Ok(client) => ask(&client),
        Err(failed) if json => {
            tell!("{}", nobody(&[], &failed.sentence));
            return Ok(ExitCode::from(failed.code));
        }
        Err(failed) => return Err(failed),
    };
    if json {
        let answer = answer.unwrap_or_else(|none| none);
        tell!("{answer}");
        return Ok(exit_code(answer["healthy"] == true));
    }
    let answer = answer.map_err(|none| Failed::because(none["problems"][0].as_str().unwrap_or_default().to_owned()))?;
    let status = read(answer)?;
    tell!("{}", table(&status).trim_end());
    Ok(exit_code(status.healthy))
}

/// What the node says that sees most of the others, and none that is sealed before one that is not; if none answers, that, in the
/// same form.
fn ask(client: &AdminClient) -> Result<Value, Value> {
    let sees = |answer: &Value| -> (bool, usize) {
        let is_sealed = answer["survives"].as_str().is_some_and(|survives| survives.starts_with(SEALED));
        let up = answer["nodes"].as_array().map_or(0, |nodes| nodes.iter().filter(|node| node["up"] == true).count());
        (!is_sealed, up)
    };
    let (mut best, mut whys) = (None, Vec::new());
    for (node, answer) in client.nodes().iter().zip(client.ask_all("/api/v1/status", STATUS_MAX)) {
        match answer {
            Ok(answer) if best.as_ref().is_none_or(|best| sees(best) < sees(&answer)) => best = Some(answer),
            Ok(_) => {}
            Err(why) => whys.push(format!("{}: {why}", node.address)),
        }
    }
    best.ok_or_else(|| {
        let problem = format!(
            "no node says how it is ({}): start what is down (systemctl start mailraft, or mailraft quickstart with its --dir)",
            whys.join("; ")
        );
        nobody(client.nodes(), &problem)
    })
}

/// The status of a cluster of which nobody says anything.
fn nobody(nodes: &[Node], problem: &str) -> Value {
    let line = |id| json!({"id": id, "name": format!("node{id}"), "up": false, "leads": 0, "partitions": []});
    let nodes: Vec<Value> = nodes.iter().filter_map(|node| node.id).map(line).collect();
    json!({
        "cluster": null, "asked_node": null, "healthy": false, "problems": [problem], "nodes": nodes, "partitions": [],
    })
}

fn exit_code(healthy: bool) -> ExitCode {
    if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(answer: Value) -> Result<ClusterStatus, Failed> {
    serde_json::from_value(answer).map_err(|error| {
        Failed::because(format!(
            "the node's answer is not a status that this version knows ({error}): use the mailraft of the node's version, \
             or --json"
        ))
    })
}

fn table(status: &ClusterStatus) -> String {
    let mut out = String::new();
    let ClusterStatus { nodes, partitions, .. } = status;
    let up = nodes.iter().filter(|node| node.up).count();
    let led = partitions.iter().filter(|partition| partition.leader.is_some()).count();
    for line in status.survives.iter().chain(status.regions.iter().map(|line| &line.sentence)) {
        out.push_str(&format!("{line}\n"));
    }
    if status.healthy {
        out.push_str(&format!("healthy: all {led} partitions have a leader, {up} of {} nodes are up\n", nodes.len()));
    } else {
        out.push_str(&format!(
            "NOT HEALTHY: {led} of {} partitions have a leader, {up} of {} nodes are up\n",
            partitions.len(),
            nodes.len()
        ));
        let said = |problem: &String| status.regions.iter().any(|line| line.sentence == *problem);
        for problem in status.problems.iter().filter(|problem| !said(problem)) {
            out.push_str(&format!("  - {problem}\n"));
        }
    }
    for note in &status.notes {
        out.push_str(&format!("  note: {note}\n"));
    }
    out.push_str("\nNODE  NAME        STATE  LEADS  BEHIND  ACTORS  UPTIME  ROWS CHECKED\n");
    for node in nodes {
        out.push_str(&node_line(node, partitions));
    }
    out.push_str("\nPARTITION  LEADER  TERM    COMMITTED  REPLICAS (node:behind)\n");
    let mut sorted: Vec<&PartitionLine> = partitions.iter().collect();
    sorted.sort_by_key(|line| (line.leader.is_some(), line.partition));
    for partition in sorted {
        out.push_str(&partition_line(partition));
    }
    out
}

fn node_line(node: &NodeLine, partitions: &[PartitionLine]) -> String {
    let NodeLine { id, name, leads, answer, up: _ } = node;
    let id = id.to_string();
    match answer {
        NodeAnswer::Up(own) => {
            let replicas = partitions.iter().flat_map(|p| &p.replicas).filter(|r| r.node == node.id);
            let behind: u64 = replicas.filter_map(|r| r.lag).sum();
            let (actors, uptime, checked) = (own.actors, duration(own.uptime_s), checked(own.node.scrub.as_ref()));
            format!("{id:<5} {name:<11} up     {leads:>5}  {behind:>6}  {actors:>6}  {uptime:<6}  {checked}\n")
        }
        NodeAnswer::Down { .. } => format!("{id:<5} {name:<11} DOWN       -       -       -  -\n"),
    }
}

fn partition_line(line: &PartitionLine) -> String {
    let name = if line.partition == PartitionId::CONTROL { "0 control".to_owned() } else { line.partition.to_string() };
    let leader = line.leader.map_or("none".to_owned(), |node| node.to_string());
    let term = line.term.map_or("-".to_owned(), |term| term.to_string());
    let commit = line.commit.map_or("-".to_owned(), |index| index.to_string());
    let replicas: Vec<String> = line
        .replicas
        .iter()
        .map(|r| format!("{}:{}", r.node, r.lag.map_or("?".to_owned(), |lag| lag.to_string())))
        .collect();
    format!("{name:<9}  {leader:<6}  {term:<6}  {commit:>9}  {}\n", replicas.join(" "))
}

/// When every row was read, and how far the present reading is.
fn checked(scrub: Option<&ScrubStatus>) -> String {
    match scrub {
        None => "-".to_owned(),
        Some(ScrubStatus { age_s: Some(age_s), percent: 100, .. }) => format!("{} ago", duration(*age_s)),
        Some(ScrubStatus { age_s: Some(age_s), percent, .. }) => format!("{} ago, {percent}%", duration(*age_s)),
        Some(ScrubStatus { age_s: None, percent, .. }) => format!("{percent}%"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nobody_at_all_is_a_status_too() {
        let node = Node { id: Some(2), address: "127.0.0.1:1".to_owned() };
        let none = nobody(&[node], "no node answers");
        assert_eq!((&none["healthy"], &none["problems"][0]), (&json!(false), &json!("no node answers")));
        assert_eq!((&none["nodes"][0]["id"], &none["nodes"][0]["up"]), (&json!(2), &json!(false)));
        assert_eq!(none["partitions"], json!([]));
    }

    #[test]
    fn a_sick_cluster_says_what_is_wrong_first_and_fits_80_columns() {
        let own = json!({
            "node": 1, "cluster": "c", "peers": [], "partitions": [], "fsync_p50_us": 1, "fsync_p99_us": 1,
            "core_queue": 0, "apply_queue": 0,
            "scrub": {"percent": 34, "rows": 5, "bytes": 900, "age_s": 300_000, "damaged": 0}, "version": "1", "actors": 4, "uptime_s": 4000,
        });
        let mut first = json!({"id": 1, "name": "node1", "up": true, "leads": 1});
        first.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        let status = json!({
            "cluster": "c",
            "asked_node": 1,
            "healthy": false,
            "problems": ["node 3 does not answer: start it again with mailraft node --config"],
            "nodes": [first, {"id": 3, "name": "node3", "up": false, "leads": 0, "partitions": []}],
            "partitions": [
                {"partition": 0, "leader": 1, "term": 3, "commit": 120,
                 "replicas": [{"node": 1, "applied": 120, "role": "leader", "lag": 0}]},
                {"partition": 1, "leader": null,
                 "replicas": [{"node": 1, "applied": 7, "role": "follower", "lag": null}]},
            ],
        });
        let text = table(&read(status).unwrap());
        assert!(text.contains("1     node1       up         1       0       4  1 h     3 d ago, 34%"), "{text}");
        assert!(text.starts_with(
            "NOT HEALTHY: 1 of 2 partitions have a leader, 1 of 2 nodes are up\n  - node 3 does not answer"
        ));
        assert!(text.contains("3     node3       DOWN"));
        assert!(text.find("1          none").unwrap() < text.find("0 control").unwrap(), "{text}");
        assert!(text.lines().all(|l| l.len() <= 80), "{text}");
    }
}

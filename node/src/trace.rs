//! `mailraft trace`: a message's way over all nodes.

use mailraft_server::survival::moment;
use serde_json::Value;

use crate::admin_client::{AdminClient, segment};
use crate::failed::Failed;
use crate::output::tell;

/// Prints what all nodes remember of a message, or of the newest ones of an address.
pub fn run(client: &AdminClient, what: &str, as_json: bool) -> Result<(), Failed> {
    let found = client.read(&format!("/api/v1/trace/{}", segment(what)))?;
    if as_json {
        tell!("{found}");
    } else {
        lines(&found).iter().for_each(|line| tell!("{line}"));
    }
    Ok(())
}

/// A line for each step, oldest first, and one for each node that did not say.
fn lines(found: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines = Vec::new();
    for entry in found["steps"].as_array().into_iter().flatten() {
        let step = &entry["step"];
        let to: Vec<String> = step["to"].as_array().into_iter().flatten().map(|to| format!("<{}>", text(to))).collect();
        let mut line = format!(
            "{}  {}  node {}  {}",
            moment(step["unix_ms"].as_u64().unwrap_or_default()),
            text(&step["id"]),
            entry["node"],
            text(&step["what"])
        );
        if let Some(from) = step["from"].as_str() {
            line.push_str(&format!(" from <{from}>"));
        }
        match (to.is_empty(), step["recipient"].as_u64()) {
            (false, _) => line.push_str(&format!(" to {}", to.join(" "))),
            (true, Some(number)) => line.push_str(&format!(" to its recipient {number}")),
            (true, None) => {}
        }
        if let Some(says) = step["says"].as_str().filter(|says| !says.is_empty()) {
            line.push_str(&format!(": {says}"));
        }
        if let Some(report) = step["report"].as_str() {
            line.push_str(&format!(", by {report}"));
        }
        lines.push(line);
    }
    if lines.is_empty() {
        lines.push(
            "no node remembers anything of it: they keep the newest 16 MiB, and nothing from before they started; what waits \
             is in mailraft queue list"
                .to_owned(),
        );
    }
    for node in found["silent_nodes"].as_array().into_iter().flatten() {
        lines.push(format!("node {node} did not say: what it knows is missing here"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_step_is_a_line_and_who_is_silent_is_named() {
        let found = json!({
            "steps": [
                {"node": 1, "step": {"unix_ms": 1_795_684_443_000_u64, "id": "0a", "what": "accepted", "from": "a@here.test",
                                     "to": ["b@away.test", "c@here.test"], "says": "for the queue"}},
                {"node": 2, "step": {"unix_ms": 1_795_684_443_500_u64, "id": "0a", "what": "delivered", "to": ["c@here.test"],
                                     "recipient": 1}},
                {"node": 2, "step": {"unix_ms": 1_795_684_444_000_u64, "id": "0a", "what": "failed", "to": ["b@away.test"],
                                     "says": "at mx.away.test: 550 5.1.1 nobody"}},
                {"node": 2, "step": {"unix_ms": 1_795_684_445_000_u64, "id": "0a", "what": "reported", "says": "failed",
                                     "report": "0b"}},
            ],
            "silent_nodes": [3],
        });
        assert_eq!(
            lines(&found),
            [
                "2026-11-26T09:14:03Z  0a  node 1  accepted from <a@here.test> to <b@away.test> <c@here.test>: for the queue",
                "2026-11-26T09:14:03Z  0a  node 2  delivered to <c@here.test>",
                "2026-11-26T09:14:04Z  0a  node 2  failed to <b@away.test>: at mx.away.test: 550 5.1.1 nobody",
                "2026-11-26T09:14:05Z  0a  node 2  reported: failed, by 0b",
                "node 3 did not say: what it knows is missing here",
            ]
        );
        assert!(lines(&json!({"steps": [], "silent_nodes": []}))[0].starts_with("no node remembers"));
    }
}

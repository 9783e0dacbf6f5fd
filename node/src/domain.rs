//! `mailraft domain`: what a domain publishes in the DNS, and whether it does.

use std::process::ExitCode;

use serde_json::Value;

use crate::admin_client::{AdminClient, segment};
use crate::failed::Failed;
use crate::output::tell;

/// Where a domain's keys are.
pub fn keys_path(name: &str) -> String {
    format!("/api/v1/domains/{}/keys", segment(name))
}

/// Where one of them is.
pub fn key_path(name: &str, selector: &str) -> String {
    format!("{}/{}", keys_path(name), segment(selector))
}

/// Prints every record to publish.
pub fn dns(client: &AdminClient, name: &str, as_json: bool) -> Result<(), Failed> {
    let found = client.read(&format!("/api/v1/domains/{}/dns", segment(name)))?;
    if as_json {
        tell!("{found}");
    } else {
        zone(&found).iter().for_each(|line| tell!("{line}"));
    }
    Ok(())
}

/// Prints what the DNS says of each record. The exit code is 1 if something is not as it should be.
pub fn check(client: &AdminClient, name: &str, as_json: bool) -> Result<ExitCode, Failed> {
    let found = client.read(&format!("/api/v1/domains/{}/dns/check", segment(name)))?;
    if as_json {
        tell!("{found}");
    } else {
        findings(&found).iter().for_each(|line| tell!("{line}"));
    }
    let is_ok = records(&found).iter().all(|record| record["state"] == "ok");
    Ok(if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn records(found: &Value) -> &[Value] {
    found["records"].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Lines of a zone file, each kind of record below what it is for.
fn zone(found: &Value) -> Vec<String> {
    let (mut lines, mut purpose) = (Vec::new(), "");
    if !records(found).iter().any(|record| record["type"] == "MX") {
        lines.push(
            "; no node has a name that others can look up: set tls.hostname, and name peers by their hosts".to_owned(),
        );
    }
    for record in records(found) {
        if text(&record["purpose"]) != purpose {
            purpose = text(&record["purpose"]);
            lines.push(format!("; {purpose}"));
        }
        lines.push(text(&record["zone"]).to_owned());
    }
    let policy = &found["mta_sts_policy"];
    let url = text(&policy["url"]);
    lines.push(format!("; nodes with listen.https answer {url}, as mta_sts says; another web server there has to say"));
    lines.extend(text(&policy["text"]).lines().map(|line| format!(";   {line}")));
    lines
}

/// A line for each record, and what is there and should be where that is not right.
fn findings(found: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for record in records(found) {
        let (kind, name) = (text(&record["type"]), text(&record["name"]));
        let state = text(&record["state"]);
        lines.push(format!("{:<9}  {kind:<3}  {name}  ({})", state.replace('_', " "), text(&record["purpose"])));
        match state {
            "ok" => {}
            "differs" => {
                let there = record["there"].as_array().into_iter().flatten();
                lines.extend(there.map(|value| format!("           there is    {}", text(value))));
                lines.extend(record["why"].as_str().map(|why| format!("           but         {why}")));
                lines.push(format!("           should be   {}", text(&record["value"])));
            }
            "no_answer" => lines.push("           the DNS does not answer: try again".to_owned()),
            _ => lines.push(format!("           should be   {}", text(&record["value"]))),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(kind: &str, state: &str, there: &[&str]) -> Value {
        json!({"name": "example.org", "type": kind, "value": "v", "purpose": format!("for {kind}"), "zone": format!("a {kind}"),
               "state": state, "there": there})
    }

    fn published(records: &[Value]) -> Value {
        json!({"domain": "example.org", "records": records,
               "mta_sts_policy": {"url": "https://mta-sts.example.org/", "text": "version: STSv1\r\nmx: a\r\n"}})
    }

    #[test]
    fn what_is_to_be_published_is_a_piece_of_a_zone() {
        let found = published(&[record("MX", "", &[]), record("MX", "", &[]), record("TXT", "", &[])]);
        assert_eq!(
            zone(&found),
            [
                "; for MX",
                "a MX",
                "a MX",
                "; for TXT",
                "a TXT",
                "; nodes with listen.https answer https://mta-sts.example.org/, as mta_sts says; another web server there has to say",
                ";   version: STSv1",
                ";   mx: a",
            ]
        );
        assert!(zone(&published(&[]))[0].contains("tls.hostname"));
    }

    #[test]
    fn what_is_not_as_it_should_be_is_told_with_what_should_be() {
        let found = published(&[
            record("MX", "ok", &[]),
            record("TXT", "differs", &["x", "y"]),
            json!({"name": "example.org", "type": "TXT", "value": "v", "purpose": "for TXT", "state": "differs", "there": ["z"],
                   "why": "it is wrong"}),
            record("SRV", "missing", &[]),
            record("A", "no_answer", &[]),
        ]);
        assert_eq!(
            findings(&found),
            [
                "ok         MX   example.org  (for MX)",
                "differs    TXT  example.org  (for TXT)",
                "           there is    x",
                "           there is    y",
                "           should be   v",
                "differs    TXT  example.org  (for TXT)",
                "           there is    z",
                "           but         it is wrong",
                "           should be   v",
                "missing    SRV  example.org  (for SRV)",
                "           should be   v",
                "no answer  A    example.org  (for A)",
                "           the DNS does not answer: try again",
            ]
        );
    }
}

//! `mailraft queue`: mail that waits, and what an operator decides about it.

use std::time::{SystemTime, UNIX_EPOCH};

use mailraft_server::survival::moment;
use mailraft_storage::CommandId;
use serde_json::{Value, json};

use crate::admin_client::AdminClient;
use crate::failed::Failed;
use crate::output::{duration, tell};

/// Prints what waits: nothing where nothing does.
pub fn list(client: &AdminClient, as_json: bool) -> Result<(), Failed> {
    let listed = client.read("/api/v1/queue")?;
    if as_json {
        tell!("{listed}");
    } else {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        table(&listed, u64::try_from(now_ms).unwrap_or(u64::MAX)).iter().for_each(|line| tell!("{line}"));
    }
    // Whoever takes an empty list for "nothing" must not take this one for it.
    let missing: Vec<&str> =
        listed.as_array().into_iter().flatten().filter_map(|line| line["error"].as_str()).collect();
    if missing.is_empty() { Ok(()) } else { Err(Failed::because(format!("not all is listed: {}", missing.join("; ")))) }
}

/// Prints a message that waits, and what is known of each of its recipients.
pub fn show(client: &AdminClient, id: CommandId, as_json: bool) -> Result<(), Failed> {
    let item = client.read(&format!("/api/v1/queue/{id}"))?;
    if as_json {
        tell!("{item}");
    } else {
        lines(id, &item).iter().for_each(|line| tell!("{line}"));
    }
    Ok(())
}

/// Decides about a message that waits, for these of its recipients or for all.
pub fn decide(client: &AdminClient, id: CommandId, decision: &str, recipients: &[String]) -> Result<Value, Failed> {
    let wanted = json!({"decision": decision, "recipients": recipients});
    client.once("POST", &format!("/api/v1/queue/{id}"), Some(&wanted))
}

/// A line for each message, with a heading.
fn table(listed: &Value, now_ms: u64) -> Vec<String> {
    let there = listed.as_array().into_iter().flatten().filter(|line| !line["error"].is_string());
    let row = |line: &Value| {
        let age_s = now_ms.saturating_sub(line["accepted_unix_ms"].as_u64().unwrap_or(now_ms)) / 1_000;
        let number = |field: &str| line[field].as_u64().unwrap_or_default();
        format!(
            "{:32}  {:>8}  {:>7}  {:>4}  {:>10}  {:>9}",
            line["id"].as_str().unwrap_or_default(),
            duration(age_s),
            number("waiting"),
            number("held"),
            number("size_bytes"),
            number("partition")
        )
    };
    let rows: Vec<String> = there.map(row).collect();
    let heading =
        format!("{:32}  {:>8}  {:>7}  {:>4}  {:>10}  {:>9}", "id", "age", "waiting", "held", "bytes", "partition");
    (!rows.is_empty()).then_some(heading).into_iter().chain(rows).collect()
}

/// The message, and a few lines for each recipient.
fn lines(id: CommandId, item: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let at = |value: &Value| value.as_u64().map(moment);
    let mut lines = vec![format!(
        "{id} from <{}>, {} bytes, in partition {}, accepted {}",
        text(&item["reverse_path"]),
        item["size_bytes"],
        item["partition"],
        at(&item["accepted_unix_ms"]).unwrap_or_default()
    )];
    let demanded = [("smtputf8", "SMTPUTF8"), ("requiretls", "REQUIRETLS")].into_iter();
    let demanded = demanded.filter(|(field, _)| item[*field] == json!(true)).map(|(_, name)| name.to_owned());
    lines.extend(asked(asked_of(item, &[("ret", "RET"), ("envid", "ENVID")]).chain(demanded).collect()));
    for recipient in item["recipients"].as_array().into_iter().flatten() {
        let because = recipient["because"].as_str().map(|because| format!(": {because}")).unwrap_or_default();
        lines.push(format!("{}  {}{because}", text(&recipient["address"]), text(&recipient["state"])));
        lines.extend(asked(asked_of(recipient, &[("notify", "NOTIFY"), ("orcpt", "ORCPT")]).collect()));
        let last = &recipient["last_attempt"];
        if last.is_object() {
            let host = last["host"].as_str().map(|host| format!(" at {host}")).unwrap_or_default();
            let when = at(&last["unix_ms"]).map(|at| format!(" {at}")).unwrap_or_default();
            lines.push(format!("    last tried{when}{host}: {} {}", text(&last["status"]), text(&last["said"])));
        }
        if let Some(next) = at(&recipient["next_attempt_unix_ms"]) {
            let attempts = match recipient["attempts"].as_u64() {
                Some(1) => " (1 attempt so far)".to_owned(),
                Some(number) => format!(" ({number} attempts so far)"),
                None => String::new(),
            };
            lines.push(format!("    tried again {next}{attempts}"));
        }
    }
    lines
}

/// Those of these parameters that the sender gave.
fn asked_of<'v>(of: &'v Value, fields: &'v [(&str, &str)]) -> impl Iterator<Item = String> + 'v {
    fields.iter().filter_map(|(field, name)| of[*field].as_str().map(|value| format!("{name}={value}")))
}

fn asked(parameters: Vec<String>) -> Option<String> {
    (!parameters.is_empty()).then(|| format!("    asked for: {}", parameters.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_795_684_443_000;

    #[test]
    fn what_waits_is_a_table_with_a_heading_and_nothing_is_nothing() {
        let item = |id: &str, age_ms: u64| {
            json!({"id": id, "partition": 7, "accepted_unix_ms": NOW_MS - age_ms, "size_bytes": 1234, "waiting": 2, "delivered": 1,
                "held": 0})
        };
        let listed = json!([item("0a", 61_000), {"partition": 3, "error": "silent"}, item("0b", 0)]);
        let is = |id: &str, age: &str| format!("{id:32}  {age:>8}  {:>7}  {:>4}  {:>10}  {:>9}", 2, 0, 1234, 7);
        let lines = table(&listed, NOW_MS);
        assert!(lines[0].starts_with("id   ") && lines[0].ends_with("partition"), "{lines:?}");
        assert_eq!(lines[1..], [is("0a", "1 min"), is("0b", "0 s")]);
        assert_eq!(table(&json!([]), NOW_MS), Vec::<String>::new());
    }

    #[test]
    fn a_message_that_waits_says_for_whom_why_and_when_it_is_tried_again() {
        let item = json!({
            "reverse_path": "a@here.test", "size_bytes": 5, "partition": 2, "accepted_unix_ms": NOW_MS, "ret": "HDRS", "envid": null,
            "smtputf8": true, "requiretls": false,
            "recipients": [
                {"address": "b@away.test", "state": "deferred", "attempts": 2, "next_attempt_unix_ms": NOW_MS + 60_000,
                    "notify": "NEVER", "last_attempt": {"unix_ms": NOW_MS, "host": "mx.away.test", "status": "4.2.0", "said": "later"}},
                {"address": "c@away.test", "state": "held", "because": "an operator holds it"},
            ],
        });
        let (then, next) = (moment(NOW_MS), moment(NOW_MS + 60_000));
        assert_eq!(
            lines(CommandId([10; 16]), &item),
            [
                format!("{} from <a@here.test>, 5 bytes, in partition 2, accepted {then}", CommandId([10; 16])),
                "    asked for: RET=HDRS SMTPUTF8".to_owned(),
                "b@away.test  deferred".to_owned(),
                "    asked for: NOTIFY=NEVER".to_owned(),
                format!("    last tried {then} at mx.away.test: 4.2.0 later"),
                format!("    tried again {next} (2 attempts so far)"),
                "c@away.test  held: an operator holds it".to_owned(),
            ]
        );
    }
}

//! What waits in queue mailboxes, and how far a message is that was accepted for several.

use std::collections::VecDeque;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mailraft_mailbox::accepted::{
    AT_ONCE, DeliveryStage, Diagnosis, HeldBecause, QueueDecision, QueuedAsked, QueuedDetail, QueuedItem, ReportKind,
};
use mailraft_mailbox::{Answer, Command};
use mailraft_storage::{CommandId, PartitionId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Admin;
use super::api::error;
use crate::environment::wall;
use crate::queues::{ITEMS_MAX, ask, items};
use crate::services::Services;
use crate::trail::Step;

/// Of so many recipients a message's trail says what an operator decided; of more it says how many.
const DECIDED_TOLD_MAX: usize = 20;
/// Partitions that are asked for it at once.
const ASKED_AT_ONCE: usize = 16;

/// What waits in all queue mailboxes that answer, by partition; of one that does not a line says that.
pub(super) async fn list(State(admin): State<Admin>) -> Response {
    let mut lines = Vec::new();
    let mut partitions = (1..=admin.services.cluster.partitions()).map(PartitionId);
    let mut asked = VecDeque::new();
    while lines.len() < ITEMS_MAX {
        // One that answers late keeps the answers of no other waiting.
        while asked.len() < ASKED_AT_ONCE
            && let Some(partition) = partitions.next()
        {
            let services = admin.services.clone();
            asked.push_back((partition, tokio::spawn(async move { items(&services.reach(), partition).await })));
        }
        let Some((partition, listed)) = asked.pop_front() else { break };
        match listed.await {
            Ok(Some(items)) => lines.extend(items.iter().map(|item| line(partition, item))),
            Ok(None) | Err(_) => lines.push(json!({"partition": partition.0, "error": not_answered_says(partition)})),
        }
    }
    lines.truncate(ITEMS_MAX);
    Json(lines).into_response()
}

/// An item with its recipients.
pub(super) async fn show(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    let Some(item) = CommandId::from_hex(&id.replace('-', "").to_ascii_lowercase()) else {
        return error(StatusCode::BAD_REQUEST, "an id has 32 hexadecimal digits");
    };
    for partition in (1..=admin.services.cluster.partitions()).map(PartitionId) {
        match ask(&admin.services.reach(), partition, Command::QueueItem { item }).await {
            Some(Answer::QueueItem(Some(detail))) => {
                let attempts = match ask(&admin.services.reach(), partition, Command::QueueAttempts { item }).await {
                    Some(Answer::QueueAttempts(attempts)) => attempts,
                    Some(_) | None => Vec::new(),
                };
                let asked = match ask(&admin.services.reach(), partition, Command::QueueAsked { item }).await {
                    Some(Answer::QueueAsked(asked)) => asked.unwrap_or_default(),
                    // A node of an earlier version has it.
                    Some(_) | None => QueuedAsked::default(),
                };
                return Json(of_detail((item, partition), &detail, &attempts, &asked)).into_response();
            }
            Some(_) => {}
            None => return not_answered(partition),
        }
    }
    error(
        StatusCode::NOT_FOUND,
        "nothing of this id waits: what was accepted under it was delivered, sent, returned or dropped, as mailraft trace says as long \
         as nodes remember; mailraft queue list says what waits",
    )
}

/// What an operator wants done with recipients of an item.
#[derive(Deserialize)]
pub(super) struct Decide {
    /// `hold`, `release`, `retry`, `return` or `drop`.
    decision: String,
    /// Their addresses; none for all.
    #[serde(default)]
    recipients: Vec<String>,
}

/// Decides about an item, or about some of its recipients.
pub(super) async fn decide(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    Json(Decide { decision, recipients }): Json<Decide>,
) -> Response {
    let Some(item) = CommandId::from_hex(&id.replace('-', "").to_ascii_lowercase()) else {
        return error(StatusCode::BAD_REQUEST, "an id has 32 hexadecimal digits");
    };
    let (decision, done) = match decision.as_str() {
        "hold" => (QueueDecision::Hold, "held"),
        "release" => (QueueDecision::Release, "released"),
        "retry" => (QueueDecision::Retry, "retried"),
        "return" => (QueueDecision::Return, "returned"),
        "drop" => (QueueDecision::Drop, "dropped"),
        other => {
            return error(
                StatusCode::BAD_REQUEST,
                &format!("{other:?} is no decision: choose hold, release, retry, return or drop"),
            );
        }
    };
    let (mut found, mut silent) = (None, None);
    for partition in (1..=admin.services.cluster.partitions()).map(PartitionId) {
        match ask(&admin.services.reach(), partition, Command::QueueItem { item }).await {
            Some(Answer::QueueItem(Some(detail))) => {
                found = Some((partition, detail));
                break;
            }
            Some(_) => {}
            None => silent = Some(partition),
        }
    }
    let Some((partition, detail)) = found else {
        return match silent {
            Some(partition) => not_answered(partition),
            None => error(StatusCode::NOT_FOUND, "nothing of this id waits: mailraft queue list says what does"),
        };
    };
    let is_chosen = |address: &String| recipients.iter().any(|chosen| chosen.eq_ignore_ascii_case(address));
    let numbers: Vec<u32> =
        detail.recipients.iter().filter(|(_, address, _)| is_chosen(address)).map(|(number, ..)| *number).collect();
    if numbers.is_empty() && !recipients.is_empty() {
        return error(
            StatusCode::NOT_FOUND,
            "it waits for none of these recipients: mailraft queue show says for whom",
        );
    }
    match ask(&admin.services.reach(), partition, Command::DecideQueued { item, recipients: numbers.clone(), decision })
        .await
    {
        Some(Answer::Counted(decided)) => {
            tracing::info!(%item, decision = done, recipients = decided, "an operator decided about what waits");
            let to =
                detail.recipients.into_iter().filter(|(number, ..)| numbers.is_empty() || numbers.contains(number));
            let to = to.map(|(_, address, _)| address).take(DECIDED_TOLD_MAX).collect();
            let step = Step { to, ..Step::new(item, done) };
            let recipients = if decided == 1 { "recipient" } else { "recipients" };
            admin.services.trail.add(step.saying(&format!("by an operator, for {decided} {recipients}")));
            Json(json!({"id": item.to_string(), "recipients": decided})).into_response()
        }
        Some(_) | None => not_answered(partition),
    }
}

/// How far the delivery to each recipient is of what was accepted for several under this id, in this partition; None if
/// nobody answers. Where it waits no more, everybody has it.
pub(super) async fn recipients(
    services: &Services,
    partition: PartitionId,
    item: CommandId,
    all: &[String],
) -> Option<Value> {
    let Answer::QueueItem(detail) = ask(&services.reach(), partition, Command::QueueItem { item }).await? else {
        return None;
    };
    let open = detail.map(|detail| detail.recipients).unwrap_or_default();
    let of = |(number, address): (u32, &String)| {
        let stage = open.iter().find(|(of, ..)| *of == number).map(|(.., stage)| *stage);
        let (state, because) = stage.map_or(("delivered", None), words);
        with_reason(json!({"address": address, "state": state}), because)
    };
    Some((0..).zip(all).map(of).collect())
}

fn not_answered(partition: PartitionId) -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, &not_answered_says(partition))
}

fn not_answered_says(partition: PartitionId) -> String {
    format!("the queue of partition {partition} does not answer: see mailraft status, then try again")
}

fn line(partition: PartitionId, item: &QueuedItem) -> Value {
    json!({
        "id": item.item.to_string(),
        "partition": partition.0,
        "accepted_unix_ms": item.accepted.0,
        "size_bytes": item.size_bytes,
        "waiting": item.waiting,
        "delivered": item.delivered,
        "held": item.held,
    })
}

fn of_detail(
    (item, partition): (CommandId, PartitionId),
    detail: &QueuedDetail,
    attempts: &[(u32, Diagnosis)],
    asked: &QueuedAsked,
) -> Value {
    let recipients: Vec<Value> = detail
        .recipients
        .iter()
        .map(|(number, address, stage)| {
            let (state, because) = words(*stage);
            let mut line = with_reason(json!({"address": address, "state": state}), because);
            if let DeliveryStage::Deferred { failed, next, .. } = stage {
                line["attempts"] = json!(failed);
                // What is tried at once has no time of its own.
                let next = if *next <= AT_ONCE { wall() } else { *next };
                line["next_attempt_unix_ms"] = json!(next.0);
            }
            if let Some((_, last)) = attempts.iter().find(|(of, _)| of == number) {
                let Diagnosis { at, host, status, text, is_reply: _ } = last;
                line["last_attempt"] = json!({"unix_ms": at.0, "host": host, "status": status, "said": text});
            }
            if let Some(of) = asked.recipients.iter().find(|of| of.recipient == *number) {
                line["notify"] = json!(of.notify);
                line["orcpt"] = json!(of.orcpt);
            }
            line
        })
        .collect();
    json!({
        "id": item.to_string(),
        "partition": partition.0,
        "accepted_unix_ms": detail.accepted.0,
        "size_bytes": detail.size_bytes,
        "reverse_path": detail.reverse_path,
        "ret": asked.ret,
        "envid": asked.envid,
        "smtputf8": asked.smtputf8,
        "requiretls": asked.requiretls,
        "recipients": recipients,
    })
}

fn with_reason(mut line: Value, because: Option<&str>) -> Value {
    if let Some(because) = because {
        line["because"] = json!(because);
    }
    line
}

/// The words for a stage, and for why it does not go on.
fn words(stage: DeliveryStage) -> (&'static str, Option<&'static str>) {
    match stage {
        DeliveryStage::Waiting => ("waiting", None),
        DeliveryStage::Delivered => ("delivered", None),
        DeliveryStage::Held(HeldBecause::NoSuchMailbox) => ("held", Some("the account was deleted")),
        DeliveryStage::Held(HeldBecause::Operator) => ("held", Some("an operator holds it")),
        DeliveryStage::Deferred { .. } => ("deferred", None),
        DeliveryStage::Reporting(ReportKind::Failed) => ("failed", Some("its sender is being told")),
        DeliveryStage::Reporting(ReportKind::Delayed) => ("deferred", None),
        DeliveryStage::Reporting(ReportKind::Relayed) => ("sent", Some("its sender is being told")),
        DeliveryStage::Reporting(ReportKind::Delivered) => ("delivered", Some("its sender is being told")),
    }
}

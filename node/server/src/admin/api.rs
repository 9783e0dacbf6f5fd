//! Accounts and addresses over HTTP, and how the directory is read and changed.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use mailraft_cluster::{BarrierOutcome, Reader};
use mailraft_directory::{Answer, Command, Lookup, LookupError, Refusal, names, password};
use mailraft_mailbox::Detached;
use mailraft_storage::{CommandId, NodeId, PartitionId};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Admin;
use crate::environment::{command_id, os_env};
use crate::links::{Rpc, RpcReply};
use crate::services::Services;
use mailraft_mailbox::Position;

/// How long a change of the directory is tried while nobody was there to be asked.
const NOT_DONE_AFTER: Duration = Duration::from_secs(5);
/// How long it is tried while it is in doubt whether it was done.
const UNKNOWN_AFTER: Duration = Duration::from_secs(10);
/// Between attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Lines in a listing.
const LIST_MAX: usize = 10_000;

/// Names a change of the directory: who sends a request again, to whatever node, gives it the same id and hears the
/// first one's answer. 32 hexadecimal digits, a UUIDv7 of the present. Without it each request is a change of its own.
const COMMAND_HEADER: &str = "mailraft-command";

/// The id of a change, if whoever asks gave it one: then it may have been sent before.
pub(super) struct ChangeId(Option<CommandId>);

impl ChangeId {
    /// This one.
    pub(super) fn of(id: CommandId) -> Self {
        ChangeId(Some(id))
    }

    /// The id that was given, or one that was never used.
    pub(super) fn or_new(self, services: &Services) -> CommandId {
        self.0.unwrap_or_else(|| command_id(&services.cluster))
    }
}

impl<S: Sync> FromRequestParts<S> for ChangeId {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let Some(value) = parts.headers.get(COMMAND_HEADER) else {
            return Ok(ChangeId(None));
        };
        match value.to_str().ok().and_then(CommandId::from_hex) {
            Some(id) => Ok(ChangeId(Some(id))),
            None => Err(error(StatusCode::BAD_REQUEST, "a command id has 32 lower-case hexadecimal digits")),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct NewAccount {
    address: String,
    password: Zeroizing<String>,
}

#[derive(Deserialize)]
pub(super) struct NewPassword {
    password: Zeroizing<String>,
}

#[derive(Deserialize)]
pub(super) struct Disabled {
    disabled: bool,
}

#[derive(Deserialize)]
pub(super) struct NewAddress {
    address: String,
    targets: Vec<String>,
}

/// An error as JSON.
pub(super) fn error(status: StatusCode, sentence: &str) -> Response {
    (status, Json(json!({"error": sentence}))).into_response()
}

pub(super) async fn create_account(State(admin): State<Admin>, id: ChangeId, Json(new): Json<NewAccount>) -> Response {
    match verifier(new.password, &new.address).await {
        Ok(verifier) => change(&admin.services, id, Command::CreateAccount { address: new.address, verifier }).await,
        Err(response) => response,
    }
}

pub(super) async fn set_password(
    State(admin): State<Admin>,
    Path(address): Path<String>,
    id: ChangeId,
    Json(new): Json<NewPassword>,
) -> Response {
    match verifier(new.password, &address).await {
        Ok(verifier) => change(&admin.services, id, Command::SetPassword { address, verifier }).await,
        Err(response) => response,
    }
}

pub(super) async fn set_disabled(
    State(admin): State<Admin>,
    Path(address): Path<String>,
    id: ChangeId,
    Json(Disabled { disabled }): Json<Disabled>,
) -> Response {
    change(&admin.services, id, Command::SetDisabled { address, disabled }).await
}

pub(super) async fn delete_account(State(admin): State<Admin>, Path(address): Path<String>, id: ChangeId) -> Response {
    change(&admin.services, id, Command::DeleteAccount { address }).await
}

pub(super) async fn add_address(State(admin): State<Admin>, id: ChangeId, Json(new): Json<NewAddress>) -> Response {
    let NewAddress { address, targets } = new;
    let command = match elsewhere(&admin.services, &targets).await {
        Ok(None) => Command::AddAddress { address, targets },
        Ok(Some(target)) if !admin.services.config().outbound.enabled => {
            return refused(&format!(
                "{target} is in another domain, and this cluster sends nothing there: set outbound.enabled = true on every \
                 node, reload or restart them, then say this again"
            ));
        }
        Ok(Some(_)) => Command::AddForwards { address, targets },
        Err(response) => return response,
    };
    change(&admin.services, id, command).await
}

/// One of these addresses that is in no domain of this cluster.
async fn elsewhere(services: &Services, targets: &[String]) -> Result<Option<String>, Response> {
    if found_elsewhere(services, targets).await?.is_none() {
        return Ok(None);
    }
    // This node's directory may lag behind.
    up_to_date(services).await?;
    found_elsewhere(services, targets).await
}

async fn found_elsewhere(services: &Services, targets: &[String]) -> Result<Option<String>, Response> {
    let (lookup, targets) = (Arc::clone(&services.lookup), targets.to_vec());
    let look = move || {
        for target in targets {
            // Whoever decides says what is wrong with one.
            let Ok(address) = names::address_outside(&target) else { continue };
            if lookup.domain(address.rsplit_once('@').map_or("", |(_, host)| host))?.is_none() {
                return Ok(Some(address));
            }
        }
        Ok(None)
    };
    match tokio::task::spawn_blocking(look).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(e)) => Err(error(StatusCode::INTERNAL_SERVER_ERROR, &LookupError::to_string(&e))),
        Err(e) => Err(error(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string())),
    }
}

pub(super) async fn renew_forwarding_key(State(admin): State<Admin>, id: ChangeId) -> Response {
    change(&admin.services, id, Command::RenewForwardingKey).await
}

pub(super) async fn remove_address(State(admin): State<Admin>, Path(address): Path<String>, id: ChangeId) -> Response {
    change(&admin.services, id, Command::RemoveAddress { address }).await
}

pub(super) async fn list_domains(State(admin): State<Admin>) -> Response {
    list(&admin.services, |lookup| {
        Ok(json!(lookup.domains(LIST_MAX)?.into_iter().map(|d| json!({"name": d.name})).collect::<Vec<_>>()))
    })
    .await
}

pub(super) async fn list_accounts(State(admin): State<Admin>) -> Response {
    let partitions = admin.services.cluster.partitions();
    list(&admin.services, move |lookup| {
        let lines: Vec<_> = lookup
            .accounts(LIST_MAX)?
            .into_iter()
            .map(|a| {
                json!({
                    "address": a.address,
                    "mailbox": a.mailbox.to_string(),
                    "partition": a.mailbox.partition(partitions).0,
                    "disabled": a.disabled,
                })
            })
            .collect();
        Ok(json!(lines))
    })
    .await
}

pub(super) async fn list_addresses(State(admin): State<Admin>) -> Response {
    list(&admin.services, |lookup| {
        let lines: Vec<_> = lookup
            .addresses(LIST_MAX)?
            .into_iter()
            .map(|a| {
                let targets: Vec<String> = a.targets.iter().map(ToString::to_string).collect();
                json!({"address": a.address, "targets": targets})
            })
            .collect();
        Ok(json!(lines))
    })
    .await
}

async fn verifier(given: Zeroizing<String>, address: &str) -> Result<String, Response> {
    if let Some(weakness) = password::weakness(&given, address) {
        return Err(error(StatusCode::BAD_REQUEST, &weakness));
    }
    let salt: [u8; 16] = os_env().bytes();
    tokio::task::spawn_blocking(move || password::hash_password(&given, salt))
        .await
        .map_err(|_| error(StatusCode::INTERNAL_SERVER_ERROR, "hashing the password failed"))
}

/// Waits until this node's directory has whatever was answered before.
///
/// # Errors
/// What is answered where no majority of the control group is there.
pub(super) async fn up_to_date(services: &Services) -> Result<(), Response> {
    match services.cluster.read_barrier(PartitionId::CONTROL, Reader::Visible).await {
        Ok(BarrierOutcome::Passed { .. }) => Ok(()),
        _ => Err(error(StatusCode::SERVICE_UNAVAILABLE, "the control group does not answer; try again")),
    }
}

async fn list(
    services: &Services,
    read: impl FnOnce(&Lookup) -> Result<serde_json::Value, LookupError> + Send + 'static,
) -> Response {
    if let Err(response) = up_to_date(services).await {
        return response;
    }
    let lookup = Arc::clone(&services.lookup);
    match tokio::task::spawn_blocking(move || read(&lookup)).await {
        Ok(Ok(value)) => Json(value).into_response(),
        Ok(Err(e)) => error(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
        Err(e) => error(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
    }
}

/// What the node that leads the control group says to a change.
pub(super) enum Asked<T> {
    /// It was done, or is refused.
    Answered(T),
    /// It was not begun.
    NotBegun,
    /// It was not begun, because other regions do not confirm.
    NotConfirmed,
    /// It may have been done.
    InDoubt,
}

/// Changes the directory wherever it is led.
pub(super) async fn change(services: &Services, given: ChangeId, command: Command) -> Response {
    let id = given.or_new(services);
    let asked = |node| {
        let asking = ask(services, node, id, command.clone());
        async move {
            match asking.await {
                Ok(answer) => Asked::Answered(answer),
                Err(Detached::NotConfirmed) => Asked::NotConfirmed,
                // Whoever says these has not begun.
                Err(Detached::Overloaded | Detached::NoSuchMailbox | Detached::Corrupt) => Asked::NotBegun,
                Err(Detached::NotLeader | Detached::Gone) => Asked::InDoubt,
            }
        }
    };
    match until_known(services, id, asked).await {
        Ok((Ok(answer), at)) => done(id, &answer, at),
        Ok((Err(refusal), _)) => refused(&refusal.to_string()),
        Err(response) => response,
    }
}

/// Asks whoever leads the control group for a change, again under the same id until someone knows the outcome.
///
/// # Errors
/// What is answered where nobody does in time.
pub(super) async fn until_known<T, Asking: Future<Output = Asked<T>>>(
    services: &Services,
    id: CommandId,
    ask: impl Fn(NodeId) -> Asking,
) -> Result<T, Response> {
    let started = Instant::now();
    let mut leaders = services.cluster.leaders();
    // It was asked, and nobody said that it was not done.
    let mut in_doubt = false;
    loop {
        let leader = leaders.borrow_and_update().first().copied().flatten();
        if let Some(node) = leader {
            let asked = tokio::select! {
                asked = ask(node) => asked,
                () = other_leader(&mut leaders, node) => Asked::InDoubt,
                () = tokio::time::sleep_until(started + UNKNOWN_AFTER) => Asked::InDoubt,
            };
            match asked {
                Asked::Answered(answer) => return Ok(answer),
                Asked::NotConfirmed if !in_doubt => return Err(not_confirmed()),
                Asked::NotBegun | Asked::NotConfirmed => {}
                Asked::InDoubt => in_doubt = true,
            }
        }
        let elapsed = started.elapsed();
        if in_doubt && elapsed >= UNKNOWN_AFTER {
            return Err(unknown(id));
        }
        if !in_doubt && elapsed >= NOT_DONE_AFTER {
            return Err(not_done());
        }
        let _ = tokio::time::timeout(RETRY_PAUSE, leaders.changed()).await;
    }
}

/// Asks the node that leads the directory.
async fn ask(
    services: &Services,
    node: NodeId,
    id: CommandId,
    command: Command,
) -> Result<(Result<Answer, Refusal>, Position), Detached> {
    if node == services.cluster.node() {
        return services.registry.directory(id, command).await;
    }
    match services.links.ask(node, Rpc::Directory { id, command }).await {
        Ok(RpcReply::Directory { result, at }) => Ok((result, at)),
        Ok(RpcReply::Detached(why)) => Err(why),
        Ok(
            RpcReply::Status(_)
            | RpcReply::Unsupported
            | RpcReply::Heard
            | RpcReply::SetRegions(_)
            | RpcReply::Trail(_)
            | RpcReply::Feedback(_),
        ) => Err(Detached::Gone),
        Err(why) => Err(why),
    }
}

/// Waits until another node than this leads the control group.
async fn other_leader(leaders: &mut watch::Receiver<Arc<Vec<Option<NodeId>>>>, than: NodeId) {
    let other = leaders.wait_for(|leaders| leaders.first().copied().flatten().is_some_and(|leader| leader != than));
    if other.await.is_err() {
        // The core ended: no more news come.
        std::future::pending::<()>().await;
    }
}

fn done(id: CommandId, answer: &Answer, at: Position) -> Response {
    let mut line = changed(id, at);
    if let Answer::AccountCreated { mailbox, .. } = answer {
        line["mailbox"] = json!(mailbox.to_string());
    }
    Json(line).into_response()
}

/// A change that was made, and where it stands.
pub(super) fn changed(id: CommandId, at: Position) -> serde_json::Value {
    json!({"id": id.to_string(), "at": at.to_string()})
}

/// It was decided not to do it.
pub(super) fn refused(sentence: &str) -> Response {
    coded(StatusCode::CONFLICT, "refused", sentence)
}

/// Nobody was asked.
fn not_done() -> Response {
    let sentence =
        "no majority of the control group answers, and nothing was done: see mailraft status, then try again";
    coded(StatusCode::SERVICE_UNAVAILABLE, "not_done", sentence)
}

/// It was not begun.
fn not_confirmed() -> Response {
    let sentence = "the backup region has not confirmed what came before, so nothing new is begun, and nothing was done: see \
                    mailraft status, then try again";
    coded(StatusCode::SERVICE_UNAVAILABLE, "not_confirmed", sentence)
}

/// It may have been done, or may still be.
fn unknown(id: CommandId) -> Response {
    let sentence = format!(
        "this may have happened, or may still: look before you repeat it, or repeat it with Mailraft-Command: {id}, which \
         does it once"
    );
    let body = json!({"error": sentence, "code": "unknown", "id": id.to_string()});
    (StatusCode::GATEWAY_TIMEOUT, Json(body)).into_response()
}

/// An error as JSON, with a word for programs.
pub(super) fn coded(status: StatusCode, code: &str, sentence: &str) -> Response {
    (status, Json(json!({"error": sentence, "code": code}))).into_response()
}

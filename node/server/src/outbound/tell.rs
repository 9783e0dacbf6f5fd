//! A report to the sender of a message, into the queue that the message is in.

use mailraft_mailbox::accepted::{AcceptedEnvelope, ReportKind, Told};
use mailraft_mailbox::queue::outgoing::OutgoingMessage;
use mailraft_mailbox::queue::outward::OutwardOutcome;
use mailraft_mailbox::{Finished, MessageKind, NotDone, Place, Refusal};
use mailraft_message::header::{HEADER_MAX_BYTES, header_len};
use mailraft_outbound::report::{
    Action, Attached, Class, Diagnostic, Original, Recipient, ReportRefusal, Reporter, Ret, Status, attached, report,
};
use mailraft_storage::{CommandId, MailboxId};

use super::addresses::{Stands, stands_for};
use super::{Outbound, read_item};
use crate::environment::{command_id, wall, zoned_now};
use crate::links::MailboxSession;
use crate::spool::{Entrance, Spool};
use crate::trail::Step;

/// Draws of an id until one falls to the partition of the queue; each does with a chance of one in as many as there are.
const DRAWS_MAX: usize = 1 << 20;

/// Tells the sender of an item what became of it for these recipients.
pub async fn tell(
    outbound: &Outbound,
    place: Place,
    item: CommandId,
    kind: ReportKind,
    numbers: &[u32],
) -> OutwardOutcome {
    let Some(message) = read_item(outbound, place, item, numbers).await else { return OutwardOutcome::Failed };
    let now_s = (wall().0 / 1_000) as i64;
    let written = match write(outbound, &message, kind, now_s).await {
        Ok(written) => written,
        Err(NotWritten::Nobody(why)) => {
            tracing::info!(%item, ?kind, why, "nobody is told");
            return OutwardOutcome::NobodyToTell;
        }
        Err(NotWritten::NotNow(why)) => {
            tracing::info!(%item, ?kind, why, "its sender is told later");
            return OutwardOutcome::Failed;
        }
    };
    let to = match stands_for(&outbound.reach, &written.to).await {
        // What failed waits for as long as nothing is sent; other news would only fill the queue.
        Ok(Stands::For(to))
            if kind != ReportKind::Failed
                && to.iter().any(|to| to.mailbox == MailboxId::OUTSIDE)
                && !(outbound.config)().outbound.enabled =>
        {
            tracing::info!(%item, ?kind, "its sender is in another domain, and nothing is sent there");
            return OutwardOutcome::NobodyToTell;
        }
        Ok(Stands::For(to)) => to,
        Ok(Stands::ForNobody) => {
            tracing::info!(%item, ?kind, "its sender is nobody here any more");
            return OutwardOutcome::NobodyToTell;
        }
        Err(()) => return OutwardOutcome::Failed,
    };
    let told = Told { item, kind, recipients: numbers.to_vec() };
    // What may only go over TLS says something of itself in a report too (RFC 8689, section 5).
    let requiretls = message.demands().requiretls;
    let accepted = AcceptedEnvelope { recipients: to, requiretls, ..AcceptedEnvelope::default() };
    put(outbound, place, told, accepted, &written.bytes).await
}

struct Written {
    to: String,
    bytes: Vec<u8>,
}

enum NotWritten {
    /// There is nobody to tell, or he does not want to hear it.
    Nobody(&'static str),
    NotNow(String),
}

async fn write(
    outbound: &Outbound,
    message: &OutgoingMessage,
    kind: ReportKind,
    now_s: i64,
) -> Result<Written, NotWritten> {
    if message.reverse_path().is_empty() {
        return Err(NotWritten::Nobody("it has the null reverse-path"));
    }
    let host = (outbound.config)().tls.hostname.clone();
    // In the name of the sender's own domain, if it is of this cluster: such a report is signed by its keys.
    let domain = message.reverse_path().rsplit_once('@').map_or("", |(_, domain)| domain);
    let ours = matches!(outbound.reach.lookup.domain(domain), Ok(Some(_)));
    let from = format!("MAILER-DAEMON@{}", if ours { domain } else { host.as_str() });
    let (accepted, expires) = message.accepted_and_expires();
    let until = (expires.0 / 1_000) as i64;
    let action = match kind {
        ReportKind::Failed => Action::Failed,
        ReportKind::Delayed => Action::Delayed { retry_until_unix_s: until },
        ReportKind::Relayed => Action::Relayed,
        ReportKind::Delivered => Action::Delivered,
    };
    let class = match kind {
        ReportKind::Failed => Class::Permanent,
        ReportKind::Delayed => Class::Transient,
        ReportKind::Relayed | ReportKind::Delivered => Class::Success,
    };
    let of = |recipient| recipient_of(recipient, action, class);
    let recipients: Vec<Recipient<'_>> = message.recipients.iter().map(of).collect();
    let (ret, envid) = message.ret_and_envid();
    let attached = match message.demands().requiretls {
        true => Attached::Header,
        false => attached(ret.and_then(Ret::parse), &recipients, message.size_bytes()),
    };
    let content = content(outbound, message, attached).await.map_err(NotWritten::NotNow)?;
    let header = &content[..header_len(&content).min(HEADER_MAX_BYTES)];
    let original = Original {
        reverse_path: Some(message.reverse_path()),
        envelope_id: envid,
        arrived_unix_s: (accepted.0 / 1_000) as i64,
        smtputf8: message.demands().smtputf8,
        header,
        whole: (attached == Attached::Whole).then_some(&content),
    };
    let unique: [u8; 16] = rand::random();
    let written = report(Reporter { host: &host, from: &from }, &original, &recipients, now_s, unique);
    let written = written.map_err(|refusal| match refusal {
        ReportRefusal::NullReversePath => NotWritten::Nobody("it has the null reverse-path"),
        ReportRefusal::NobodyAsked => NotWritten::Nobody("he does not want to hear it"),
        ReportRefusal::NoAddress => NotWritten::Nobody("its reverse-path is no address"),
    })?;
    Ok(Written { to: message.reverse_path().to_owned(), bytes: written.message })
}

fn recipient_of(
    of: &mailraft_mailbox::queue::outgoing::OutgoingRecipient,
    action: Action,
    class: Class,
) -> Recipient<'_> {
    let last = of.last.as_ref();
    let status = last.and_then(|last| Status::parse(&last.status)).unwrap_or(Status::new(class, 0, 0));
    let diagnostic = match last {
        Some(last) if last.is_reply => {
            Diagnostic::Reply { host: last.host.as_deref().unwrap_or("a server"), reply: &last.text }
        }
        Some(last) => Diagnostic::Own(&last.text),
        None => Diagnostic::None,
    };
    Recipient {
        address: &of.address,
        original: of.orcpt.as_deref(),
        notify: of.notify.as_deref(),
        action,
        status: Status { class, ..status },
        diagnostic,
        last_attempt_unix_s: last.map(|last| (last.at.0 / 1_000) as i64),
    }
}

/// The message, or as much of it as has its header.
async fn content(outbound: &Outbound, message: &OutgoingMessage, attached: Attached) -> Result<Vec<u8>, String> {
    let (message, rows) = (message.clone(), std::sync::Arc::clone(outbound.reach.cluster.rows()));
    let read = move || {
        let mut content = Vec::new();
        for number in 0..message.chunks() {
            match message.piece(rows.as_ref(), number) {
                Ok(Some(piece)) => content.extend_from_slice(&piece),
                Ok(None) => return Err("the message is there no more".to_owned()),
                Err(error) => return Err(format!("the message can't be read: {error}")),
            }
            if attached == Attached::Header
                && (header_len(&content) < content.len() || content.len() >= HEADER_MAX_BYTES)
            {
                break;
            }
        }
        Ok(content)
    };
    tokio::task::spawn_blocking(read).await.map_err(|_| "reading the message failed".to_owned())?
}

async fn put(
    outbound: &Outbound,
    place: Place,
    told: Told,
    accepted: AcceptedEnvelope,
    bytes: &[u8],
) -> OutwardOutcome {
    let Some(queue) = place.mailbox.queue_partition() else { return OutwardOutcome::Failed };
    let (cluster, config) = (&outbound.reach.cluster, (outbound.config)());
    let spooled = async {
        let mut spool = Spool::new(&outbound.budget)?;
        spool.write(bytes, &config.data_dir)?;
        spool.finish(b"Return-Path: <>\r\n", Entrance::Append).await
    };
    let spooled = match spooled.await {
        Ok(spooled) => spooled,
        Err(why) => {
            tracing::info!(item = %told.item, ?why, "its sender is told later");
            return OutwardOutcome::Failed;
        }
    };
    // Under an id by which it is looked for in this queue.
    let drawn =
        (0..DRAWS_MAX).map(|_| command_id(cluster)).find(|id| id.queue_partition(cluster.partitions()) == queue);
    let Some(id) = drawn else { return OutwardOutcome::Failed };
    let (item, kind) = (told.item, told.kind);
    let how = MessageKind::Report { told, accepted, received: zoned_now() };
    let mut session = MailboxSession::new(outbound.reach.clone(), MailboxId::queue_of(queue));
    match session.put(id, how, None, &spooled).await.1 {
        Finished::Done(_) => {
            ::metrics::counter!("mailraft_reports_total", "kind" => name(kind)).increment(1);
            tracing::info!(%item, report = %id, ?kind, "its sender is told");
            let step = Step { report: Some(id.to_string()), ..Step::new(item, "reported") };
            outbound.reach.trail.add(step.saying(name(kind)));
            OutwardOutcome::Reported
        }
        // It was told already, or somebody decided otherwise.
        Finished::NotDone(NotDone::Refused(Refusal::Stale)) => OutwardOutcome::Reported,
        Finished::NotDone(why) => {
            tracing::info!(%item, ?kind, %why, "its sender is told later");
            OutwardOutcome::Failed
        }
        Finished::Unknown => OutwardOutcome::Failed,
    }
}

fn name(kind: ReportKind) -> &'static str {
    match kind {
        ReportKind::Failed => "failed",
        ReportKind::Delayed => "delayed",
        ReportKind::Relayed => "relayed",
        ReportKind::Delivered => "delivered",
    }
}

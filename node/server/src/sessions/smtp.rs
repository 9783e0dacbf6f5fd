//! The SMTP engine's delivery agent: the directory, the credentials and the mailboxes of this cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use mailraft_directory::{Forward, Resolution};
use mailraft_mailbox::accepted::{AcceptedEnvelope, AcceptedRecipient};
use mailraft_mailbox::api::QuotaUsage;
use mailraft_mailbox::{Answer, Command, Finished, MessageKind, Unheard, quarantined};
use mailraft_message::date::date_time;
use mailraft_protocol::{Failure, Refusal, Tls};
use mailraft_sender_auth::{Disposition, DmarcResult, Envelope};
use mailraft_smtp::{
    Config, DeliveryAgent, Destination, Mailbox, Service, Session, Transaction, Verified, goes_by_queue, trace,
};
use mailraft_storage::{CommandId, MailboxId};
use zeroize::Zeroizing;

use super::context::SessionContext;
use super::request::{message_request, request_digest};
use crate::environment::{command_id, wall, zoned_now};
use crate::forwarding::{Stands, is_of, stands_for, vouches_for};
use crate::links::MailboxSession;
use crate::logged_in::Login;
use crate::lookups::{Uncertain, look_twice_before_no, look_up};
use crate::places::Place;
use crate::refusals;
use crate::services::Services;
use crate::spool::{Entrance, Spool, SpoolRefused, SpooledMessage};
use crate::trail::Step;

/// A session at its start; `tls` if TLS is up already. Without a place it is only to be refused.
pub fn session(
    context: &SessionContext,
    service: Service,
    peer: SocketAddr,
    tls: Option<Tls>,
    place: Option<Place>,
) -> Session<Agent> {
    let config = context.services.config();
    let config = Config {
        hostname: config.tls.hostname.clone(),
        service,
        max_message_bytes: config.limits.max_message_bytes,
        tls_available: true,
        reports: service != Service::Relay || config.outbound.enabled,
        login_max: config.limits.login_max,
    };
    Session::new(
        config,
        tls,
        Agent {
            context: context.clone(),
            peer,
            place,
            login: None,
            spool: None,
            mailbox_session: None,
            unheard: Unheard::default(),
        },
    )
}

/// A session's delivery agent.
pub struct Agent {
    context: SessionContext,
    peer: SocketAddr,
    place: Option<Place>,
    login: Option<Login>,
    spool: Option<Result<Spool, SpoolRefused>>,
    mailbox_session: Option<(MailboxId, MailboxSession)>,
    /// Of the mailbox that mailbox_session is about.
    unheard: Unheard,
}

/// What was found of a message's author.
struct Shown {
    author: String,
    dmarc: DmarcResult,
}

impl DeliveryAgent for Agent {
    async fn check_sender(&mut self, identity: &str, reverse_path: &Mailbox) -> Result<(), Failure> {
        let path = format!("{}@{}", reverse_path.local, reverse_path.domain);
        self.may_send_as(identity, &path, Refusal::NotOwnAddress).await
    }

    async fn verify(&mut self, identity: Option<&str>, address: &Mailbox) -> Result<Verified, Failure> {
        let Services { cluster, lookup, .. } = &self.context.services;
        let is_no = |found: &Stands| match found {
            Stands::For(Resolution::Unknown | Resolution::NotOurs) => true,
            Stands::For(Resolution::Mailboxes(..) | Resolution::Forwarded { .. }) | Stands::ForFirstSender(_) => false,
        };
        let look = || {
            let (address, now) = (address.clone(), cluster.wall());
            look_up(cluster, lookup, move |lookup| stands_for(lookup, &address, now))
        };
        let sends = self.context.services.config().outbound.enabled;
        let ids = |mailboxes: Vec<MailboxId>| mailboxes.into_iter().map(|mailbox| mailbox.0).collect();
        match look_twice_before_no(cluster, is_no, look).await {
            Ok(Stands::For(Resolution::Mailboxes(mailboxes, detail))) => {
                Ok(Verified::Mailboxes { mailboxes: ids(mailboxes), detail })
            }
            Ok(Stands::For(Resolution::Forwarded { .. }) | Stands::ForFirstSender(_)) if !sends => {
                Err(Refusal::ForwardingRests(address.to_string()).into())
            }
            Ok(Stands::For(Resolution::Forwarded { mailboxes, outside, detail })) => {
                // Each is an address: the directory takes nothing else.
                let forward =
                    |Forward { to, by }: Forward| Mailbox::parse(&to).map(|to| mailraft_smtp::Forward { to, by });
                let outside = outside.into_iter().map(forward).collect::<Option<_>>().ok_or(Refusal::Unavailable)?;
                Ok(Verified::Forwarded { mailboxes: ids(mailboxes), outside, detail })
            }
            Ok(Stands::ForFirstSender(first)) => Ok(Verified::Returned(first)),
            Ok(Stands::For(Resolution::Unknown)) => {
                // Who asks for one after another is looking for some that are there.
                tokio::time::sleep(self.context.services.credentials.unknown_recipient(self.peer.ip())).await;
                Err(Refusal::NoSuchAddress(address.to_string()).into())
            }
            Ok(Stands::For(Resolution::NotOurs)) => {
                let refusal = match (identity, sends) {
                    (Some(_), true) if outside_host(&address.domain).is_some() => return Ok(Verified::Outside),
                    (Some(_), false) => Refusal::SendingIsOff(address.to_string()),
                    // Only for those who have an account here: nobody else's mail is passed on.
                    (None, _) | (Some(_), true) => Refusal::NotOurDomain(address.to_string()),
                };
                Err(refusal.into())
            }
            Err(Uncertain::Damaged | Uncertain::Unavailable) => Err(Refusal::Unavailable.into()),
        }
    }

    async fn check_quota(&mut self, mailbox: [u8; 16], announced_bytes: Option<u64>) -> Result<(), Failure> {
        if self.context.services.config().limits.quota_bytes.is_none() {
            return Ok(());
        }
        let mut session = MailboxSession::new(self.context.services.reach(), MailboxId(mailbox));
        match session.ask(command_id(&self.context.services.cluster), Command::Quota).await {
            Finished::Done((Answer::Quota(QuotaUsage { used_bytes, limit_bytes }), _)) => {
                let with_it = used_bytes.saturating_add(announced_bytes.unwrap_or(1));
                if limit_bytes.is_some_and(|limit| with_it > limit) { Err(Refusal::OverQuota.into()) } else { Ok(()) }
            }
            Finished::Done(_) | Finished::Unknown => Err(Refusal::Unavailable.into()),
            Finished::NotDone(why) => Err(refusals::not_done(why).into()),
        }
    }

    async fn authenticate(&mut self, user: &str, password: Zeroizing<String>) -> Result<String, Failure> {
        let credentials = &self.context.services.credentials;
        let verified = credentials.verify(user, password, "submission", self.peer.ip()).await;
        let account = verified.map_err(refusals::login)?;
        if let Some(place) = &self.place {
            place.logged_in(account.mailbox);
            self.login = Some(self.context.services.logged_in.enter(&account, place));
        }
        Ok(account.address)
    }

    fn has_room(&self) -> Result<(), Refusal> {
        self.context.services.has_room()
    }

    fn begin_message(&mut self) -> Result<(), Refusal> {
        self.context.services.has_room()?;
        self.spool = None;
        let bounds = self.context.services.bounds();
        match &self.place {
            Some(place) if !place.begin_message(&bounds) => Err(Refusal::Overloaded),
            Some(_) | None => Ok(()),
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        if let Some(place) = &self.place {
            place.took(bytes.len());
        }
        let directory = self.context.services.config().data_dir.clone();
        let budget = &self.context.budget;
        let spool = self.spool.get_or_insert_with(|| Spool::new(budget));
        let no_room = self.context.services.disk.is_low();
        if let Ok(kept) = spool
            && let Err(refused) = if no_room { Err(SpoolRefused::NoRoom) } else { kept.write(bytes, &directory) }
        {
            *spool = Err(refused);
        }
    }

    fn discard(&mut self) {
        self.spool = None;
    }

    fn client_went_on(&mut self) {
        self.unheard.client_went_on();
    }

    async fn client_leaves(&mut self) {
        if let Some((_, session)) = self.mailbox_session.as_mut() {
            session.leave(&mut self.unheard).await;
        }
        self.unheard = Unheard::default();
    }

    async fn deliver(&mut self, transaction: Transaction) -> Result<String, Failure> {
        let begun = Instant::now();
        let (from, to) = (
            transaction.reverse_path.as_ref().map(ToString::to_string).unwrap_or_default(),
            transaction.recipients.iter().map(ToString::to_string).collect(),
        );
        let delivery = self.take_in(transaction).await;
        let (id, what, says) = match &delivery {
            Ok(Taken { id, says, .. }) => (*id, "accepted", (*says).to_owned()),
            Err(Failure::NotDone(refusal)) => {
                (command_id(&self.context.services.cluster), "refused", refusal.to_string())
            }
            Err(Failure::Unknown) => (
                command_id(&self.context.services.cluster),
                "refused",
                "it is not known whether it was taken".to_owned(),
            ),
        };
        self.context.services.trail.add(Step { from: Some(from), to, ..Step::new(id, what) }.saying(&says));
        let result = match &delivery {
            Ok(_) => {
                self.context.services.accepted.get_or_init(Instant::now);
                "accepted"
            }
            Err(failure) if failure.may_be_retried() => "deferred",
            Err(_) => "refused",
        };
        ::metrics::counter!("mailraft_deliveries_total", "result" => result).increment(1);
        ::metrics::histogram!("mailraft_command_seconds", "protocol" => "smtp").record(begun.elapsed().as_secs_f64());
        delivery.map(|taken| taken.text)
    }
}

/// A message that was taken in.
struct Taken {
    id: CommandId,
    /// What its sender is told.
    text: String,
    /// Where it went.
    says: &'static str,
}

/// An id that is a function of what was asked, so that a repeat has the same.
fn of_request(request: &[u8; 32], content: &[u8; 32]) -> CommandId {
    let mut id = [0; 16];
    id.copy_from_slice(&request_digest([request.as_slice(), content])[..16]);
    CommandId(id)
}

/// A host outside in its one form: a name in lower case with A-labels, or an address in brackets. None if it is none.
fn outside_host(domain: &str) -> Option<String> {
    match domain.strip_prefix('[') {
        Some(_) => domain.ends_with(']').then(|| domain.to_ascii_lowercase()),
        None => mailraft_outbound::tls::domain::host_name(domain),
    }
}

/// Whom a message is accepted for.
fn accepted(Destination { mailbox, address, detail, asked }: Destination) -> AcceptedRecipient {
    let (mailbox, domain) = match mailbox {
        Some(mailbox) => (MailboxId(mailbox), address.domain),
        // It was one when the recipient was taken.
        None => (MailboxId::OUTSIDE, outside_host(&address.domain).unwrap_or(address.domain)),
    };
    // Quoted where it has to be: without, it would be another one.
    let address = Mailbox { local: address.local, domain }.to_string();
    AcceptedRecipient {
        address,
        mailbox,
        detail,
        notify: asked.notify.map(|notify| notify.to_string()),
        orcpt: asked.orcpt,
    }
}

impl Agent {
    /// Whether an address is this account's to send from.
    async fn may_send_as(&self, identity: &str, address: &str, or: Refusal) -> Result<(), Failure> {
        let Services { cluster, lookup, .. } = &self.context.services;
        let look = || {
            let (identity, address) = (identity.to_owned(), address.to_owned());
            look_up(cluster, lookup, move |lookup| lookup.may_send_as(&identity, &address))
        };
        match look_twice_before_no(cluster, |may| !may, look).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(or.into()),
            Err(Uncertain::Damaged | Uncertain::Unavailable) => Err(Refusal::Unavailable.into()),
        }
    }

    /// Whether an account may send to as many recipients in other domains: then they are counted.
    fn may_send_so_much(&self, account: &str, destinations: &[Destination]) -> Result<(), Failure> {
        let Services { allowed, credentials, .. } = &self.context.services;
        let per_hour = self.context.services.config().outbound.account_recipients_per_hour;
        let outside = destinations.iter().filter(|destination| destination.mailbox.is_none()).count();
        allowed.take(account, outside, per_hour).map_err(|refusal| {
            let account = credentials.in_log(account);
            tracing::warn!(%account, per_hour, "an account sends to more addresses than it may in an hour");
            refusal.into()
        })
    }

    /// Checks who sent a message from elsewhere, if that is to be done. Returns the field that tells it.
    async fn check_author(
        &self,
        spool: Spool,
        transaction: &mut Transaction,
        authserv_id: &str,
    ) -> Result<(Spool, String, Option<Shown>), Failure> {
        let Services { sender_auth, .. } = &self.context.services;
        let enforcement = self.context.services.config().sender_auth.enforcement;
        let envelope = Envelope {
            address: self.peer.ip(),
            helo: transaction.helo.clone(),
            reverse_path: transaction.reverse_path.as_ref().map(|path| (path.local.clone(), path.domain.clone())),
        };
        let checked = sender_auth.check(enforcement, authserv_id, spool, &envelope).await;
        let (spool, checked) = checked.map_err(refusals::spool)?;
        let Some(checked) = checked else { return Ok((spool, String::new(), None)) };
        match checked.disposition {
            Disposition::Deliver => {}
            Disposition::Quarantine => {
                for destination in &mut transaction.destinations {
                    // What is forwarded whoever gets it judges himself.
                    if destination.mailbox.is_some() {
                        destination.detail = Some(quarantined(destination.detail.as_deref()));
                    }
                    // Whoever it is that wants to hear of it is not who the message says.
                    destination.asked = destination.asked.without_success();
                }
            }
            Disposition::Reject => {
                let author = checked.author.unwrap_or_default();
                tracing::info!(%author, address = %self.peer.ip(), "refused as its author's domain wants it");
                return Err(Refusal::AgainstPolicy(author).into());
            }
        }
        Ok((spool, checked.field, checked.author.map(|author| Shown { author, dmarc: checked.dmarc })))
    }

    /// Whether what another server brought goes on to other domains: not what has come back, and not what would only be believed
    /// because we send it.
    fn check_forwards(
        &self,
        to: &[Destination],
        received: &SpooledMessage,
        shown: Option<&Shown>,
    ) -> Result<(), Refusal> {
        let forwarders = to.iter().filter(|to| to.mailbox.is_none()).filter_map(|to| to.detail.as_deref());
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for by in forwarders.filter(|by| by.contains('@')) {
            *counts.entry(by).or_default() += 1;
            if received.was_delivered_to(by) {
                return Err(Refusal::ForwardedBefore(by.to_owned()));
            }
            if !vouches_for(by, received.authors()) {
                continue;
            }
            match shown.filter(|shown| is_of(by, &shown.author)).map(|shown| shown.dmarc) {
                Some(DmarcResult::Pass) => {}
                Some(DmarcResult::TempError) => return Err(Refusal::Unavailable),
                Some(DmarcResult::None | DmarcResult::PermError | DmarcResult::Fail) | None => {
                    return Err(Refusal::NotForwarded(by.to_owned()));
                }
            }
        }
        // An address forwards as much as an account sends.
        let per_hour = self.context.services.config().outbound.account_recipients_per_hour;
        for (by, recipients) in counts {
            if self.context.services.allowed.take(by, recipients, per_hour).is_err() {
                let address = self.context.services.credentials.in_log(by);
                tracing::warn!(%address, per_hour, "an address forwards to more recipients than it may in an hour");
                return Err(Refusal::ForwardingRests(by.to_owned()));
            }
        }
        Ok(())
    }

    async fn take_in(&mut self, mut transaction: Transaction) -> Result<Taken, Failure> {
        let spool = self.spool.take().unwrap_or_else(|| Spool::new(&self.context.budget));
        let spool = spool.map_err(refusals::spool)?;
        let submitted = transaction.identity.is_some();
        let config = self.context.services.config();
        let authserv_id = config.sender_auth.authserv_id.clone();
        let (spool, results, shown) = match submitted {
            true => (spool, String::new(), None),
            false => self.check_author(spool, &mut transaction, &authserv_id).await?,
        };
        let id = command_id(&self.context.services.cluster);
        let reverse_path = transaction.reverse_path.as_ref().map(ToString::to_string).unwrap_or_default();
        let recipient =
            transaction.recipients.first().filter(|_| transaction.recipients.len() == 1).map(ToString::to_string);
        let hostname = config.tls.hostname.clone();
        let command_id = id.to_string();
        let recipients = transaction.recipients.iter().map(ToString::to_string).collect::<Vec<_>>();
        let identity = transaction.identity.clone().unwrap_or_default();
        let request = message_request(&identity, recipients);
        let now = (wall().0 / 1_000) as i64;
        let prefix = trace::return_path(&reverse_path)
            + &results
            + &trace::received(&trace::Received {
                // Where its sender sits is nobody's business.
                from: (!submitted).then_some((transaction.helo.as_str(), self.peer.ip())),
                host: &hostname,
                protocol: trace::protocol(transaction.extended, transaction.tls.is_some(), submitted),
                tls: transaction.tls,
                id: &command_id,
                recipient: recipient.as_deref(),
                unix_seconds: now,
            });
        let entrance = match submitted {
            true => Entrance::Submission { date: date_time(now), message_id: format!("<{command_id}@{hostname}>") },
            false => Entrance::Elsewhere { names: vec![hostname, authserv_id] },
        };
        let received = spool.finish(prefix.as_bytes(), entrance).await.map_err(refusals::spool)?;
        if submitted {
            for author in received.authors().ok_or(Refusal::NotOwnAuthor)? {
                self.may_send_as(&identity, author, Refusal::NotOwnAuthor).await?;
            }
        } else {
            self.check_forwards(&transaction.destinations, &received, shown.as_ref())?;
        }
        if let Some(account) = &transaction.identity {
            self.may_send_so_much(account, &transaction.destinations)?;
        }
        // What is recognised for a day, whoever heard of it, needs no more; but that it arrived is told once.
        let is_told = transaction.destinations.iter().any(|destination| destination.asked.wants_success());
        // It is a mailbox that recognises it.
        let leaves = transaction.destinations.iter().any(|destination| destination.mailbox.is_none());
        let for_a_day = !submitted && !reverse_path.is_empty() && received.has_message_id() && !is_told && !leaves;
        let by_queue = goes_by_queue(&transaction.reverse_path, &transaction.destinations);
        let (mailbox, kind) = match <[Destination; 1]>::try_from(transaction.destinations) {
            Ok([Destination { mailbox: Some(mailbox), detail, .. }]) if !by_queue => {
                let kind =
                    MessageKind::Deliver { reverse_path, detail, deduplicate: !submitted, received: zoned_now() };
                (MailboxId(mailbox), kind)
            }
            // By one commit in the queue mailbox of some partition: the same one for a repeat that is recognised there.
            others => {
                let several = match others {
                    Ok(one) => one.into(),
                    Err(several) => several,
                };
                let drawn = if for_a_day { id } else { of_request(&request, &received.content_digest()) };
                let queue = MailboxId::queue_of(drawn.queue_partition(self.context.services.cluster.partitions()));
                let accepted = AcceptedEnvelope {
                    reverse_path,
                    recipients: several.into_iter().map(accepted).collect(),
                    deduplicate: !submitted,
                    client: (!submitted).then(|| self.peer.ip().to_string()),
                    identity: transaction.identity,
                    ret: transaction.ret.map(|ret| ret.as_str().to_owned()),
                    envid: transaction.envid,
                    requiretls: transaction.requiretls,
                    body: transaction.eight_bit.then(|| "8BITMIME".to_owned()),
                    ..AcceptedEnvelope::default()
                };
                (queue, MessageKind::Accept { accepted, received: zoned_now() })
            }
        };
        // The next message on this connection often goes to the same mailbox.
        let mut kept = match self.mailbox_session.take() {
            Some((of, session)) if of == mailbox => session,
            other => {
                if let Some((_, mut other)) = other {
                    other.tell_heard(&mut self.unheard);
                }
                self.unheard = Unheard::default();
                MailboxSession::new(self.context.services.reach(), mailbox)
            }
        };
        let once = (!for_a_day).then(|| self.unheard.once(request));
        let (id, finished) = kept.put(id, kind, once.clone(), &received).await;
        if let Some(once) = once {
            self.unheard.answered(once, matches!(finished, Finished::Done(_)).then_some(id));
        }
        kept.take_events();
        self.mailbox_session = Some((mailbox, kept));
        match finished {
            Finished::Done((answer, at)) => {
                let says = match answer {
                    Answer::Accepted { recipients, .. } => {
                        tracing::info!(command = %id, %at, mailboxes = recipients.len(), "accepted");
                        "for the queue"
                    }
                    Answer::Stored { uid, .. } => {
                        tracing::info!(command = %id, %at, uid, "delivered");
                        "and delivered"
                    }
                    other => {
                        tracing::error!(command = %id, %at, ?other, "a delivery was answered with something else");
                        return Err(Failure::Unknown);
                    }
                };
                Ok(Taken { id, text: format!("id={id} at={at}"), says })
            }
            Finished::Unknown => {
                tracing::info!(command = %id, "it is not known whether it was delivered");
                Err(Failure::Unknown)
            }
            Finished::NotDone(why) => {
                tracing::info!(command = %id, %why, "not delivered");
                Err(refusals::not_done(why).into())
            }
        }
    }
}

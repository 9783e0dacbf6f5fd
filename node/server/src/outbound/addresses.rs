//! Whom an address stands for: mailboxes of this cluster, or somebody outside.

use mailraft_directory::{Forward, Resolution};
use mailraft_mailbox::accepted::AcceptedRecipient;
use mailraft_storage::MailboxId;

use crate::links::Reach;
use crate::lookups::{look_twice_before_no, look_up};

/// Whom an address stands for.
pub enum Stands {
    /// These.
    For(Vec<AcceptedRecipient>),
    /// A domain of this cluster has nobody of that name.
    ForNobody,
}

/// Whom an address stands for.
///
/// # Errors
/// If nobody can say now.
pub async fn stands_for(reach: &Reach, address: &str) -> Result<Stands, ()> {
    let is_no = |found: &Resolution| match found {
        Resolution::Unknown | Resolution::NotOurs => true,
        Resolution::Mailboxes(..) | Resolution::Forwarded { .. } => false,
    };
    let look = || {
        let text = address.to_owned();
        look_up(&reach.cluster, &reach.lookup, move |lookup| lookup.resolve(&text))
    };
    let found = look_twice_before_no(&reach.cluster, is_no, look).await.map_err(|_| ())?;
    let recipient =
        |mailbox, address, detail| AcceptedRecipient { address, mailbox, detail, notify: None, orcpt: None };
    let here = |mailboxes: Vec<MailboxId>, detail: Option<String>| {
        mailboxes.into_iter().map(move |mailbox| recipient(mailbox, address.to_owned(), detail.clone()))
    };
    Ok(match found {
        Resolution::Mailboxes(mailboxes, detail) => Stands::For(here(mailboxes, detail).collect()),
        Resolution::Forwarded { mailboxes, outside, detail } => {
            let there = outside.into_iter().map(|Forward { to, by }| recipient(MailboxId::OUTSIDE, to, Some(by)));
            Stands::For(here(mailboxes, detail).chain(there).collect())
        }
        Resolution::NotOurs => Stands::For(vec![recipient(MailboxId::OUTSIDE, address.to_owned(), None)]),
        Resolution::Unknown => Stands::ForNobody,
    })
}

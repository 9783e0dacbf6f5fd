//! SUBSCRIBE and UNSUBSCRIBE (RFC 3501, sections 6.3.6 and 6.3.7).

use mailraft_mailbox::Command;

use crate::cursor::Cursor;
use crate::outcome::{Outcome, ok};
use crate::store::Mailstore;

/// What becomes of the subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subscription {
    Begins,
    Ends,
}

pub(crate) async fn run<S: Mailstore>(c: &mut Cursor<'_>, subscription: Subscription, store: &mut S) -> Outcome {
    c.space()?;
    let name = c.folder()?;
    c.end()?;
    store.ask(Command::Subscribe { name, on: subscription == Subscription::Begins }).await?;
    ok(match subscription {
        Subscription::Begins => "SUBSCRIBE",
        Subscription::Ends => "UNSUBSCRIBE",
    })
}

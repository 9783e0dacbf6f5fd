//! GETQUOTA and GETQUOTAROOT (RFC 9208): an account has one quota, of the storage that its messages take.

use mailraft_mailbox::api::QuotaUsage;
use mailraft_mailbox::{Answer, Command};
use mailraft_protocol::{Out, Output, Refusal};

use crate::cursor::Cursor;
use crate::folders;
use crate::outcome::{Done, Outcome, ok};
use crate::print;
use crate::store::Mailstore;

/// The name of the quota root.
const ROOT: &str = "";
/// STORAGE is counted in these, in bytes.
const STORAGE_UNIT_BYTES: u64 = 1_024;

pub(crate) async fn get<S: Mailstore, O: Output>(c: &mut Cursor<'_>, store: &mut S, out: &mut Out<O>) -> Outcome {
    c.space()?;
    let root = c.text()?;
    c.end()?;
    if root != ROOT {
        return Err(Done::No("[NONEXISTENT] there is no such quota root".into()));
    }
    let usage = usage(store).await?;
    tell(usage, out);
    ok("GETQUOTA")
}

pub(crate) async fn get_root<S: Mailstore, O: Output>(c: &mut Cursor<'_>, store: &mut S, out: &mut Out<O>) -> Outcome {
    c.space()?;
    let folder = c.folder()?;
    c.end()?;
    if !folders::all(store).await?.iter().any(|info| info.name == folder && info.id.is_some()) {
        return Err(Refusal::NoSuchFolder.into());
    }
    let usage = usage(store).await?;
    out.line(&format!("* QUOTAROOT {} \"{ROOT}\"", print::folder(&folder, c.spelling())));
    tell(usage, out);
    ok("GETQUOTAROOT")
}

async fn usage<S: Mailstore>(store: &mut S) -> Result<QuotaUsage, Done> {
    match store.ask(Command::Quota).await? {
        Answer::Quota(usage) => Ok(usage),
        _ => Err(Done::odd_answer()),
    }
}

/// A resource without a bound is not in the list (RFC 9208, section 4.2.1).
fn tell<O: Output>(usage: QuotaUsage, out: &mut Out<O>) {
    let storage = usage.limit_bytes.map(|limit| {
        format!("STORAGE {} {}", usage.used_bytes.div_ceil(STORAGE_UNIT_BYTES), limit / STORAGE_UNIT_BYTES)
    });
    out.line(&format!("* QUOTA \"{ROOT}\" ({})", storage.unwrap_or_default()));
}

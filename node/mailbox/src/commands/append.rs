//! APPEND.

use super::draft;
use crate::api::{Answer, Draft, Refusal, ZonedTime};
use crate::flags::Flags;
use crate::names;
use crate::work::Work;

pub fn append(
    work: &mut Work<'_>, folder: &str, draft: &Draft, flags: &Flags, internal_date: ZonedTime,
) -> Result<Answer, Refusal> {
    let target = work.state.named(&names::spelt(folder)).filter(|id| work.opened(*id).is_ok());
    let target = target.ok_or(Refusal::TryCreate)?;
    draft::put(work, target, draft, flags, internal_date)
}

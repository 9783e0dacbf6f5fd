//! APPEND.

use super::new_message;
use crate::api::{Answer, NewMessage, Refusal, ZonedTime};
use crate::flags::Flags;
use crate::names;
use crate::work::Work;

pub fn append(
    work: &mut Work<'_>,
    folder: &str,
    new_message: &NewMessage,
    flags: &Flags,
    internal_date: ZonedTime,
) -> Result<Answer, Refusal> {
    let target = work.state.named(&names::spelt(folder)).filter(|id| work.opened(*id).is_ok());
    let target = target.ok_or(Refusal::TryCreate)?;
    new_message::put(work, target, new_message, flags, internal_date)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::flags::SystemFlag;
    use crate::harness::{World, append as command};

    #[test]
    fn a_message_gets_its_flags_and_rising_uids() {
        let mut world = World::new();
        let flags = Flags::none().with(SystemFlag::Seen).with_keyword("$Junk");
        for uid in 1..4 {
            let new_message = world.new_message(&uid.to_string());
            let answer = world.run(command("inbox", new_message, flags.clone()));
            assert!(matches!(answer, Ok(Answer::Stored { uid: u, uid_validity: 1, .. }) if u == uid));
        }
        assert!(world.select("INBOX").messages.iter().all(|m| m.flags == flags));
        let new_message = world.new_message("x");
        assert_eq!(world.run(command("none", new_message, flags)), Err(Refusal::TryCreate));
    }
}

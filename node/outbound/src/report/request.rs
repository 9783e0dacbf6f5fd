//! What a sender asked to be told (RFC 3461, sections 4.1 and 4.3).

/// What a sender may ask to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The message arrived, or went where nobody tells more of it.
    Success,
    /// It will not arrive.
    Failure,
    /// It takes longer than usual.
    Delay,
}

/// What of a message its sender wants back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// All of it.
    Full,
    /// Its header.
    Hdrs,
}

impl Ret {
    /// Reads the value of RET.
    pub fn parse(text: &str) -> Option<Self> {
        [(Ret::Full, "FULL"), (Ret::Hdrs, "HDRS")]
            .into_iter()
            .find(|(_, n)| n.eq_ignore_ascii_case(text))
            .map(|(r, _)| r)
    }
}

/// Whether the sender is to be told of this, by the NOTIFY of a recipient. Who asked for nothing is told of failures and delays;
/// so is who asked for what can't be read.
pub fn wants(notify: Option<&str>, event: Event) -> bool {
    let Some(notify) = notify else { return wanted_unasked(event) };
    let mut wanted = false;
    for word in notify.split(',').map(str::trim) {
        let named = [
            ("NEVER", None),
            ("SUCCESS", Some(Event::Success)),
            ("FAILURE", Some(Event::Failure)),
            ("DELAY", Some(Event::Delay)),
        ];
        match named.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) {
            Some((_, None)) => return false,
            Some((_, Some(named))) => wanted |= *named == event,
            None => wanted |= wanted_unasked(event),
        }
    }
    wanted
}

fn wanted_unasked(event: Event) -> bool {
    match event {
        Event::Failure | Event::Delay => true,
        Event::Success => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_what_is_as_was_asked_for_it() {
        for (notify, success, failure, delay) in [
            (None, false, true, true),
            (Some("NEVER"), false, false, false),
            (Some("never"), false, false, false),
            (Some("SUCCESS"), true, false, false),
            (Some("FAILURE"), false, true, false),
            (Some("DELAY"), false, false, true),
            (Some("success,Failure"), true, true, false),
            (Some("SUCCESS,FAILURE,DELAY"), true, true, true),
            (Some("SUCCESS,NEVER"), false, false, false),
            (Some("SUCCESS,x"), true, true, true),
            (Some(""), false, true, true),
        ] {
            let all = [Event::Success, Event::Failure, Event::Delay].map(|event| wants(notify, event));
            assert_eq!(all, [success, failure, delay], "{notify:?}");
        }
    }

    #[test]
    fn ret_is_one_of_two_words() {
        assert_eq!(["FULL", "hdrs", "", "all"].map(Ret::parse), [Some(Ret::Full), Some(Ret::Hdrs), None, None]);
    }
}

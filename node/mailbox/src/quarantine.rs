//! Deliveries that go to Junk. What says so travels in the detail: a node of an earlier version finds no folder of such a
//! name and delivers to INBOX, so nothing is refused in the middle of an upgrade.

/// What no address has in it.
const MARK: char = '\0';

/// Where a delivery goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Where its recipient's detail says.
    ByDetail,
    /// To Junk.
    Junk,
}

/// The detail of a delivery that goes to Junk, whatever its recipient's own detail is.
pub fn quarantined(detail: Option<&str>) -> String {
    format!("{MARK}{}", detail.unwrap_or_default())
}

/// The recipient's own detail, none if it is empty, and where the delivery goes. That the message was judged otherwise when it
/// came before makes it no other message.
pub(crate) fn own_detail(detail: Option<&str>) -> (Option<&str>, Placement) {
    let (detail, placement) = match detail.and_then(|detail| detail.strip_prefix(MARK)) {
        Some(own) => (Some(own), Placement::Junk),
        None => (detail, Placement::ByDetail),
    };
    (detail.filter(|detail| !detail.is_empty()), placement)
}

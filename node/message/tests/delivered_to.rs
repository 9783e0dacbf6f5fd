//! What an address has forwarded before is known again by Delivered-To.
#![allow(missing_docs)]

use mailraft_message::header::was_delivered_to;

#[test]
fn an_address_knows_again_what_it_has_forwarded() {
    let header = b"Received: from a\r\nDELIVERED-TO:  List@Here.test \r\nDelivered-To : bob@here.test\r\nX-Delivered-To: x@here.test\r\n\
                   Delivered-To:\r\n folded@here.test\r\n\r\nDelivered-To: body@here.test\r\n";
    for (address, was) in [
        ("list@here.test", true),
        ("bob@here.test", true),
        ("folded@here.test", true),
        ("x@here.test", false),
        ("body@here.test", false),
        ("ist@here.test", false),
        ("", false),
    ] {
        assert_eq!(was_delivered_to(header, address), was, "{address}");
    }
}

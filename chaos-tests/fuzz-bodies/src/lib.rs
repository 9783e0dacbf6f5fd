//! What a fuzzer does with bytes that came from outside: one plain function for each parser, which panics where one of
//! its promises is broken. `make test` runs them over the inputs in `chaos-tests/fuzz/corpus`, `make fuzz` over what
//! libFuzzer makes of these.
#![allow(clippy::expect_used, clippy::missing_panics_doc, clippy::panic)]

pub mod feedback;
pub mod frames;
pub mod header;
pub mod imap;
pub mod message;
pub mod outbound_tls;
pub mod records;
pub mod sasl;
pub mod sender_auth;
pub mod smtp;
pub mod snapshot;
pub mod srs;

/// A fuzzer's body.
pub type Body = fn(&[u8]);

/// The fuzzers by name.
pub const TARGETS: [(&str, Body); 14] = [
    ("smtp_dialogue", smtp::dialogue),
    ("imap_dialogue", imap::dialogue),
    ("message", message::message),
    ("header", header::header),
    ("text", header::text),
    ("sasl", sasl::sasl),
    ("sender_auth", sender_auth::sender_auth),
    ("outbound_tls", outbound_tls::outbound_tls),
    ("feedback", feedback::feedback),
    ("peer_frame", frames::peer_frame),
    ("session_frame", frames::session_frame),
    ("record", records::record),
    ("snapshot", snapshot::snapshot),
    ("srs", srs::srs),
];

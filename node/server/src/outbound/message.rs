//! A message of a queue as it is sent: read twice from its rows, once to be measured and signed, once to be handed over.

use mailraft_directory::{DomainKey, KeyAlgorithm, Lookup};
use mailraft_mailbox::queue::outgoing::OutgoingMessage;
use mailraft_message::envelope::authors;
use mailraft_message::header::{self, HEADER_MAX_BYTES, header_len, unfold};
use mailraft_outbound::encode::{Encoder, Shape};
use mailraft_outbound::seven_bit::{Converter, Plan};
use mailraft_sender_auth::{Algorithm, Arrived, Domain, Signer, Signing, SigningKey, Times};
use mailraft_storage::{Rows, UnixMillis};

use crate::forwarding::{self, NotRewritten};

/// What was found out of a message at its first reading.
pub struct Measured {
    /// What it looks like, with the fields before it.
    pub shape: Shape,
    /// Its header has octets above 127.
    pub utf8_header: bool,
    /// Fields that go before it: by which addresses it is forwarded, and signatures or a seal.
    pub fields: Vec<u8>,
    /// The reverse-path under which it leaves, empty for null.
    pub reverse_path: String,
    /// Its sender wants it delivered rather than protected (`TLS-Required: No`, RFC 8689, section 5).
    pub tls_not_required: bool,
}

/// Why a message can't be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// It is there no more, or can't be read.
    #[error("{0}")]
    Gone(String),
    /// It is not what may go over the wire.
    #[error("{0}")]
    Unsendable(String),
    /// There is no reverse-path under which it could be forwarded.
    #[error(transparent)]
    NotRewritten(#[from] NotRewritten),
}

/// Reads it through once. Blocking: for a worker thread.
///
/// # Errors
/// If it can't be read, or not be sent as it is.
pub fn measure(
    message: &OutgoingMessage,
    rows: &dyn Rows,
    lookup: &Lookup,
    now: UnixMillis,
) -> Result<Measured, MeasureError> {
    measure_as(message, rows, lookup, now, None)
}

/// The same of the form that it has by this plan: what is measured and signed is what is sent.
///
/// # Errors
/// As [`measure`].
pub fn measure_as(
    message: &OutgoingMessage,
    rows: &dyn Rows,
    lookup: &Lookup,
    now: UnixMillis,
    plan: Option<&Plan>,
) -> Result<Measured, MeasureError> {
    let reverse_path = reverse_path(message, lookup, now)?;
    let (mut encoder, mut signing, mut header) = (Encoder::default(), Signing::default(), Vec::new());
    let mut converter = plan.map(Converter::new);
    let mut wire = Vec::new();
    for number in 0..message.chunks() {
        let mut piece = read(message, rows, number).map_err(MeasureError::Gone)?;
        if let Some(converter) = &mut converter {
            let as_it_is = std::mem::take(&mut piece);
            converter.piece(&as_it_is, &mut piece);
        }
        wire.clear();
        encoder.piece(&piece, &mut wire).map_err(|error| MeasureError::Unsendable(error.to_string()))?;
        signing.push(&piece);
        let room = HEADER_MAX_BYTES.saturating_sub(header.len());
        header.extend_from_slice(&piece[..piece.len().min(room)]);
    }
    let end = header_len(&header);
    header.truncate(end);
    let signatures = match whose(message, &header) {
        Some(whose) => {
            let keys = lookup.signers_of(whose.domain()).map_err(|error| MeasureError::Gone(error.to_string()))?;
            fields_of(whose, signing, &keys, now.0 / 1_000)
        }
        None => Vec::new(),
    };
    let forwarded: String = message.forwarders().into_iter().map(forwarding::delivered_to).collect();
    let fields = [forwarded.as_bytes(), &signatures].concat();
    let mut shape = encoder.shape();
    shape.size_bytes += fields.len() as u64;
    Ok(Measured { shape, utf8_header: !header.is_ascii(), fields, reverse_path, tls_not_required: waives_tls(&header) })
}

/// Whether a header has `TLS-Required: No` (RFC 8689, section 5): a field that says anything else, or one too many, is none.
fn waives_tls(block: &[u8]) -> bool {
    let mut found = header::fields(block).filter(|field| field.name.eq_ignore_ascii_case(b"TLS-Required"));
    let (Some(field), None) = (found.next(), found.next()) else { return false };
    unfold(field.value).trim_ascii().eq_ignore_ascii_case(b"no")
}

/// What another server brought leaves under a reverse-path of the address that forwards it, even if it came under one of ours:
/// nobody showed that it was. What is our own keeps its own.
fn reverse_path(message: &OutgoingMessage, lookup: &Lookup, now: UnixMillis) -> Result<String, MeasureError> {
    let path = message.reverse_path();
    match message.forwarders().first() {
        Some(by) if !message.is_ours() && !path.is_empty() => {
            let keys = lookup.forwarding_keys().map_err(|error| MeasureError::Gone(error.to_string()))?;
            Ok(forwarding::rewritten(&keys, path, by, now)?)
        }
        Some(_) | None => Ok(path.to_owned()),
    }
}

/// Which domain signs it, and what.
enum Whose {
    /// Its author's: it is ours.
    Author(Domain),
    /// That which forwards it: what was found out of it when it came.
    Forwarder(Domain, Arrived),
}

impl Whose {
    fn domain(&self) -> &str {
        match self {
            Whose::Author(domain) | Whose::Forwarder(domain, _) => domain.as_str(),
        }
    }
}

/// Who signs a message with this header. What others bring is not ours to sign, but ours to tell of.
fn whose(message: &OutgoingMessage, header: &[u8]) -> Option<Whose> {
    let domain = |address: &str| address.rsplit_once('@').and_then(|(_, domain)| Domain::parse(domain));
    if message.is_ours() {
        let author = authors(header, 1).and_then(|authors| authors.into_iter().next())?;
        return domain(&author).map(Whose::Author);
    }
    let by = message.forwarders().first().copied().and_then(domain)?;
    Some(Whose::Forwarder(by, Arrived::read(header)?))
}

/// The fields that sign or seal it; none where that fails, as a message without a signature is better than none.
fn fields_of(whose: Whose, signing: Signing, keys: &[DomainKey], now_s: u64) -> Vec<u8> {
    let (domain, mut own) = (whose.domain(), Vec::new());
    for key in keys {
        let algorithm = match key.public.algorithm {
            KeyAlgorithm::RsaSha256 => Algorithm::RsaSha256,
            KeyAlgorithm::Ed25519Sha256 => Algorithm::Ed25519Sha256,
        };
        match (SigningKey::parse(algorithm, &key.secret.0), Domain::parse(&key.public.selector)) {
            (Ok(secret), Some(selector)) => own.push((secret, selector)),
            (Err(error), _) => tracing::error!(%domain, selector = key.public.selector, %error, "a key can't sign"),
            (_, None) => tracing::error!(%domain, selector = key.public.selector, "a key has no selector"),
        }
    }
    let signer = |domain| own.iter().map(move |(key, selector)| Signer { domain, selector, key });
    let made = match &whose {
        Whose::Author(domain) => {
            let signers: Vec<Signer<'_>> = signer(domain).collect();
            let times = Times { made_unix_s: Some(now_s), expires_unix_s: None };
            signing.finish(&signers, times).map(|fields| fields.concat())
        }
        // A set has one seal: by an algorithm that everybody knows, if there is such a key.
        Whose::Forwarder(domain, arrived) => {
            match signer(domain).min_by_key(|of| of.key.algorithm() != Algorithm::RsaSha256) {
                Some(signer) => signing.seal(&signer, arrived, now_s).map(Option::unwrap_or_default),
                None => Ok(String::new()),
            }
        }
    };
    match made {
        Ok(fields) => fields.into_bytes(),
        Err(error) => {
            tracing::warn!(%domain, %error, "a message is sent without a signature");
            Vec::new()
        }
    }
}

/// A piece of it, without the Return-Path that it has here. Blocking: for a worker thread.
///
/// # Errors
/// In words, if it can't be read.
pub fn read(message: &OutgoingMessage, rows: &dyn Rows, number: u32) -> Result<Vec<u8>, String> {
    let plain = read_whole(message, rows, number)?;
    Ok(if number == 0 { without_return_path(&plain).to_vec() } else { plain })
}

/// How many octets of it are not sent: they stand before all others. Blocking.
///
/// # Errors
/// In words, if it can't be read.
pub fn return_path_bytes(message: &OutgoingMessage, rows: &dyn Rows) -> Result<u64, String> {
    let plain = read_whole(message, rows, 0)?;
    Ok((plain.len() - without_return_path(&plain).len()) as u64)
}

fn read_whole(message: &OutgoingMessage, rows: &dyn Rows, number: u32) -> Result<Vec<u8>, String> {
    match message.piece(rows, number) {
        Ok(Some(plain)) => Ok(plain.to_vec()),
        Ok(None) => Err("the message is there no more: another node has it, or it is done".to_owned()),
        Err(error) => Err(format!("the message can't be read here: {error}")),
    }
}

/// What we wrote when it came (RFC 5321, section 4.4: it must not be there when it leaves).
fn without_return_path(message: &[u8]) -> &[u8] {
    const FIELD: &[u8] = b"return-path:";
    if !message.get(..FIELD.len()).is_some_and(|start| start.eq_ignore_ascii_case(FIELD)) {
        return message;
    }
    let mut from = 0;
    while let Some(at) = message[from..].windows(2).position(|two| two == b"\r\n") {
        from += at + 2;
        if !message[from..].first().is_some_and(|b| matches!(b, b' ' | b'\t')) {
            return &message[from..];
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waives_tls_says_so_in_one_field_of_the_header() {
        for (header, waives) in [
            ("From: a\r\nTLS-Required: No\r\n\r\n", true),
            ("tls-required:\r\n NO \r\n\r\n", true),
            ("TLS-Required: Yes\r\n\r\n", false),
            ("TLS-Required: No\r\nTLS-Required: No\r\n\r\n", false),
            ("TLS-Required: \r\n\r\n", false),
            ("From: a\r\n\r\nTLS-Required: No\r\n", false),
        ] {
            assert_eq!(waives_tls(header.as_bytes()), waives, "{header:?}");
        }
    }

    #[test]
    fn what_leaves_has_no_return_path_of_ours() {
        for (message, left) in [
            ("Return-Path: <a@x>\r\nFrom: b\r\n\r\nx", "From: b\r\n\r\nx"),
            ("RETURN-PATH: <a@x>\r\n (a comment)\r\nFrom: b\r\n", "From: b\r\n"),
            ("From: b\r\nReturn-Path: <a@x>\r\n", "From: b\r\nReturn-Path: <a@x>\r\n"),
            ("Return-Path: <a@x>", "Return-Path: <a@x>"),
            ("", ""),
        ] {
            assert_eq!(without_return_path(message.as_bytes()), left.as_bytes(), "{message:?}");
        }
    }
}

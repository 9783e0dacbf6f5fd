//! The second reading: what is sent.

use mailraft_message::header::fields;

use super::coding::Encoding;
use super::layout::HeaderOf;
use super::survey::{Becomes, Label, NotSevenBit, Plan};
use super::walk::{Cut, Walk};

/// What an octet above 127 becomes where no program reads it. No boundary has it (RFC 2046, section 5.1.1).
const NOT_ASCII: u8 = b'*';

/// Converts a message. A header is kept until it is whole, of which the longest has
/// [`mailraft_message::header::HEADER_MAX_BYTES`]; of all else less than a line.
#[derive(Debug)]
pub struct Converter {
    plan: Plan,
    walk: Walk,
    state: State,
}

/// What is kept of the stretch that is read.
#[derive(Debug)]
struct State {
    header: Vec<u8>,
    encoding: Option<Encoding>,
}

impl Converter {
    /// From the first octet on that is sent.
    pub fn new(plan: &Plan) -> Self {
        let state = State { header: Vec::new(), encoding: None };
        Converter { plan: plan.clone(), walk: Walk::from(plan.begin), state }
    }

    /// Appends what the next piece becomes, in ASCII.
    pub fn piece(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let Converter { plan: Plan { steps, .. }, walk, state } = self;
        walk.piece(
            |at| steps.get(at).map(|step| step.end),
            piece,
            |at, cut| match (steps[at].what, cut) {
                (Becomes::Header(..), Cut::Octets(octets)) => state.header.extend_from_slice(octets),
                (Becomes::Header(of, label), Cut::End) => {
                    write_header(&std::mem::take(&mut state.header), of, label, out)
                }
                (Becomes::Same, Cut::Octets(octets)) => out.extend_from_slice(octets),
                (Becomes::Between, Cut::Octets(octets)) => {
                    out.extend(octets.iter().map(|octet| if octet.is_ascii() { *octet } else { NOT_ASCII }));
                }
                (Becomes::Same | Becomes::Between, Cut::End) => {}
                (Becomes::Encoded(coding), Cut::Octets(octets)) => {
                    state.encoding.get_or_insert_with(|| Encoding::new(coding)).piece(octets, out);
                }
                (Becomes::Encoded(_), Cut::End) => state.encoding.take().into_iter().for_each(|mut it| it.end(out)),
            },
        );
    }

    /// Whether all of it was there, when all of it was handed in.
    ///
    /// # Errors
    /// If it was another message.
    pub fn finish(self) -> Result<(), NotSevenBit> {
        if self.walk.is_at_end(self.plan.steps.len()) { Ok(()) } else { Err(NotSevenBit::Misfit) }
    }
}

/// A header with another Content-Transfer-Encoding, in place of the first one that it has.
fn write_header(header: &[u8], of: HeaderOf, label: Label, out: &mut Vec<u8>) {
    if label == (Label::None { says_eight_bits: false }) {
        return out.extend_from_slice(header);
    }
    let (mut unbroken, mut has_version, mut has_type, mut says) = (0, false, false, Vec::new());
    for field in fields(header) {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name.as_bytes());
        has_version |= is("MIME-Version");
        has_type |= is("Content-Type");
        if is("Content-Transfer-Encoding") {
            says.push(field.range.clone());
        }
        if field.range.start == unbroken {
            unbroken = field.range.end;
        }
    }
    let name = match label {
        Label::Of(coding, _) => coding.as_str(),
        Label::None { .. } => "7bit",
    };
    let is_closed = header == b"\r\n" || header.ends_with(b"\n\r\n");
    let fields_end = header.len() - if is_closed { 2 } else { 0 };
    // What follows a line that is no field is not read by every program.
    let at = if header[..unbroken].ends_with(b"\n") { unbroken } else { 0 };
    let mut added = String::new();
    if let Label::Of(_, charset) = label {
        if of != HeaderOf::Part && !has_version {
            added.push_str("MIME-Version: 1.0\r\n");
        }
        if !has_type {
            added.push_str(&format!("Content-Type: text/plain; charset={charset}\r\n"));
        }
    }
    let in_place = says.first().is_some_and(|first| first.start < unbroken);
    if !in_place {
        added.push_str(&format!("Content-Transfer-Encoding: {name}\r\n"));
    }
    let mut changes = vec![(at..at, added)];
    changes.extend(says.into_iter().enumerate().map(|(number, range)| {
        let line_end = if header[range.clone()].ends_with(b"\n") { "\r\n" } else { "" };
        let said = format!("Content-Transfer-Encoding: {name}{line_end}");
        (range, if number == 0 && in_place { said } else { String::new() })
    }));
    changes.sort_by_key(|(range, _)| (range.start, range.end));
    let mut from = 0;
    for (range, becomes) in changes {
        out.extend_from_slice(&header[from..range.start]);
        out.extend_from_slice(becomes.as_bytes());
        from = range.end;
    }
    out.extend_from_slice(&header[from..]);
    // A part whose text followed at once.
    if matches!(label, Label::Of(..)) && !is_closed {
        out.extend_from_slice(if fields_end == 0 || header.ends_with(b"\n") { b"\r\n" } else { b"\r\n\r\n" });
    }
}

#[cfg(test)]
mod tests {
    use super::super::coding::Coding;
    use super::*;

    fn written(header: &str, of: HeaderOf, label: Label) -> String {
        let mut out = Vec::new();
        write_header(header.as_bytes(), of, label, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_header_says_how_its_body_is_encoded_and_nothing_else_of_it_changes() {
        let quoted = Label::Of(Coding::QuotedPrintable, "utf-8");
        for (of, header, becomes) in [
            (
                HeaderOf::Whole,
                "From: a\r\n\r\n",
                "From: a\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n",
            ),
            (
                HeaderOf::Message,
                "content-transfer-encoding: 8bit\r\nMIME-Version: 1.0\r\nContent-Type: text/x\r\n\tContent-Transfer-Encoding:\r\n 7bit\r\nCONTENT-TRANSFER-ENCODING: binary\r\nA: b\r\n\r\n",
                "Content-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\nContent-Type: text/x\r\n\tContent-Transfer-Encoding:\r\n 7bit\r\nA: b\r\n\r\n",
            ),
            (
                HeaderOf::Part,
                "content-type: text/x\r\nno field\r\n\r\n",
                "content-type: text/x\r\nContent-Transfer-Encoding: quoted-printable\r\nno field\r\n\r\n",
            ),
            (
                HeaderOf::Whole,
                "From a\r\nFrom: a\r\nContent-Transfer-Encoding: 8bit\r\nContent-Type: text/x\r\n\r\n",
                "MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\nFrom a\r\nFrom: a\r\nContent-Type: text/x\r\n\r\n",
            ),
            (
                HeaderOf::Message,
                "From: a\r\nno field\r\nA: b\r\n\r\n",
                "From: a\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\nno field\r\nA: b\r\n\r\n",
            ),
            (
                HeaderOf::Part,
                "\r\n",
                "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n",
            ),
            (
                HeaderOf::Part,
                "",
                "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n",
            ),
        ] {
            assert_eq!(written(header, of, quoted), becomes, "{header:?}");
        }
    }

    #[test]
    fn what_is_not_encoded_is_said_to_have_seven_bits() {
        for (says_eight_bits, header, becomes) in [
            (false, "A: b\r\n\r\n", "A: b\r\n\r\n"),
            (
                true,
                "MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8BIT\r\n\r\n",
                "MIME-Version: 1.0\r\nContent-Transfer-Encoding: 7bit\r\n\r\n",
            ),
            (
                true,
                "MIME-Version: 1.0\r\nContent-Transfer-Encoding: binary",
                "MIME-Version: 1.0\r\nContent-Transfer-Encoding: 7bit",
            ),
            (false, "Content-Transfer-Encoding: binary\r\n\r\n", "Content-Transfer-Encoding: binary\r\n\r\n"),
            (false, "Content-Transfer-Encoding: base64\r\n\r\n", "Content-Transfer-Encoding: base64\r\n\r\n"),
        ] {
            assert_eq!(written(header, HeaderOf::Whole, Label::None { says_eight_bits }), becomes, "{header:?}");
        }
    }
}

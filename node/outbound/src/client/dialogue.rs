//! Golden dialogues. `* settings` begins a connection; `S:` is a line that the server says, `R:` raw bytes of it with `\r`, `\n`,
//! `\0` and `\xNN` written so; `D:` what the shell does; `C:` what the client says, `W:` what it writes of a message, `E:` the
//! step it is at and what came of recipients. `#` is a comment. The whole file must come out again.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::client::connection::{Client, Ending, Lost, Settings, Step, TlsUse};
use crate::client::envelope::{Envelope, Notify, Recipient, Return};
use crate::client::login::{Credentials, Role};
use crate::encode::Shape;
use crate::outcome::{Certainty, Handover, Onward, Outcome, Peer};

/// A client, and who is in its transaction.
pub struct Talk {
    pub client: Client,
    recipients: Vec<String>,
}

impl Talk {
    pub fn new(words: &str) -> Self {
        let has = |word: &str| words.split(' ').any(|w| w == word);
        let tls = match () {
            _ if has("implicit") => TlsUse::Implicit,
            _ if has("never") => TlsUse::Never,
            _ if has("required") => TlsUse::Required { why: "b.test has a policy that wants it (MTA-STS)".to_owned() },
            _ => TlsUse::Opportunistic,
        };
        let credentials = Credentials { user: "alice".to_owned(), password: Zeroizing::new("secret".to_owned()) };
        let settings = Settings {
            helo: "us.test".to_owned(),
            peer: Peer::new("mx.b.test", None),
            tls,
            role: match (has("login"), has("smart")) {
                (true, _) => Role::SmartHost(Some(credentials)),
                (false, true) => Role::SmartHost(None),
                (false, false) => Role::Public,
            },
        };
        Talk { client: Client::new(settings), recipients: Vec::new() }
    }

    /// Hands bytes over as there is room, and goes on after each piece.
    pub fn hear(&mut self, bytes: &[u8]) -> Vec<String> {
        let (mut lines, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(self.client.room().min(rest.len()));
            assert!(!piece.is_empty(), "it waits for input that it has no room for");
            self.client.input(piece);
            lines.extend(self.go_on());
            rest = later;
        }
        lines
    }

    /// Carries out steps until something is waited for.
    pub fn go_on(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let step = match self.client.step() {
                Step::Write(bytes) => {
                    let text = String::from_utf8(bytes.to_vec()).unwrap();
                    assert!(text.ends_with("\r\n"), "half a line: {text:?}");
                    lines.extend(text.split_terminator("\r\n").map(|line| format!("C: {line}").trim_end().to_owned()));
                    continue;
                }
                Step::Done(report) => {
                    assert_eq!(report.recipients.len(), self.recipients.len());
                    let fates = self.recipients.iter().zip(&report.recipients);
                    lines.extend(fates.map(|(to, fate)| format!("E: <{to}> {}", told(fate))));
                    continue;
                }
                Step::Read => return lines,
                Step::StartTls => "tls?".to_owned(),
                Step::Message => "message?".to_owned(),
                Step::BeforeFinalDot => "final dot?".to_owned(),
                Step::Idle => "idle".to_owned(),
                Step::Close(Ending::Over) => "close".to_owned(),
                Step::Close(Ending::InClear(diagnosis)) => format!("close, again in clear: {}", diagnosis.sentence()),
                Step::Close(Ending::Failed(fate)) => format!("close, {}", told(&fate)),
            };
            lines.push(format!("E: {step}"));
            return lines;
        }
    }

    /// Does what a line says.
    pub fn act(&mut self, text: &str) -> Vec<String> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut lines = Vec::new();
        match verb {
            "begin" => self.begin(rest),
            "piece" => {
                let wire = self.client.piece(&unescaped(rest));
                lines.push(format!("W: {}", wire.escape_ascii()).trim_end().to_owned());
            }
            "end" => self.client.message_ended(),
            "finish" => self.client.finish(),
            "withdraw" => self.client.withdraw(rest),
            "tls" if rest.is_empty() => self.client.tls_started(),
            "tls" => self.client.tls_failed(rest),
            "quit" => self.client.quit(),
            "lost" => self.client.lost(&match rest {
                "closed" => Lost::Closed,
                "silent" => Lost::Silent,
                "slow" => Lost::Slow,
                "abandoned" => Lost::Abandoned,
                error => Lost::Broken(error.to_owned()),
            }),
            other => panic!("nobody does {other}"),
        }
        lines.extend(self.go_on());
        lines
    }

    fn begin(&mut self, text: &str) {
        let mut envelope = Envelope {
            reverse_path: String::new(),
            recipients: Vec::new(),
            shape: Shape { size_bytes: 3, longest_line_bytes: 1, eight_bit: false },
            not_seven_bit: None,
            utf8_header: false,
            require_tls: false,
            ret: None,
            envid: None,
        };
        for word in text.split(' ') {
            let (name, value) = word.split_once(['=', ':']).unwrap_or((word, ""));
            match name {
                "from" => envelope.reverse_path = value.to_owned(),
                "to" => {
                    let address = value.to_owned();
                    envelope.recipients.push(Recipient { address, notify: None, orcpt: None });
                }
                "notify" => {
                    let has = |word| value.split(',').any(|w| w == word);
                    let of = Notify::Of { success: has("success"), failure: has("failure"), delay: has("delay") };
                    let last = envelope.recipients.last_mut().unwrap();
                    last.notify = Some(if value == "never" { Notify::Never } else { of });
                    last.orcpt = Some(format!("rfc822;{}", last.address));
                }
                "size" => envelope.shape.size_bytes = value.parse().unwrap(),
                "8bit" => envelope.shape.eight_bit = true,
                "8bit-for" => (envelope.shape.eight_bit, envelope.not_seven_bit) = (true, Some(value.to_owned())),
                "utf8" => envelope.utf8_header = true,
                "requiretls" => envelope.require_tls = true,
                "ret" => envelope.ret = Some(if value == "full" { Return::Full } else { Return::Header }),
                "envid" => envelope.envid = Some(value.to_owned()),
                other => panic!("no envelope has {other}"),
            }
        }
        self.recipients = envelope.recipients.iter().map(|to| to.address.clone()).collect();
        self.client.begin(&envelope);
    }
}

/// A recipient's fate in one line.
fn told(fate: &Handover) -> String {
    let (next, outcome) = match fate {
        Handover::Decided(outcome) => ("", outcome),
        Handover::OtherHost(outcome) => ("other host, else ", outcome),
        Handover::AnotherTransaction(outcome) => ("another transaction, else ", outcome),
    };
    let word = match outcome {
        Outcome::Sent { onward: Onward::Reports, .. } => "sent",
        Outcome::Sent { onward: Onward::ReportsNothing, .. } => "sent, relayed",
        Outcome::Deferred { certainty: Certainty::NotSent, .. } => "deferred",
        Outcome::Deferred { certainty: Certainty::PerhapsSent, .. } => "perhaps sent",
        Outcome::Failed(_) => "failed",
    };
    let diagnosis = outcome.diagnosis();
    format!("{next}{word} {} {:?}: {}", diagnosis.enhanced, diagnosis.phase, diagnosis.sentence())
}

fn unescaped(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, length) = match escape.as_bytes()[0] {
            b'r' => (b'\r', 1),
            b'n' => (b'\n', 1),
            b'0' => (0, 1),
            b'x' => (u8::from_str_radix(&escape[1..3], 16).unwrap(), 3),
            other => panic!("\\{} is no escape", other as char),
        };
        bytes.push(byte);
        rest = &escape[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Runs a dialogue. Returns the file as it should be.
fn run(file: &str) -> String {
    let mut came: Vec<String> = Vec::new();
    let mut talk: Option<Talk> = None;
    for line in file.lines() {
        let (mark, text) = line.split_at_checked(2).unwrap_or((line, ""));
        let text = text.strip_prefix(' ').unwrap_or(text);
        match mark {
            "* " => {
                came.push(line.to_owned());
                talk = Some(Talk::new(text));
            }
            "S:" | "R:" => {
                let bytes = if mark == "S:" { format!("{text}\r\n").into_bytes() } else { unescaped(text) };
                came.push(line.to_owned());
                came.extend(talk.as_mut().unwrap().hear(&bytes));
            }
            "D:" => {
                came.push(line.to_owned());
                came.extend(talk.as_mut().unwrap().act(text));
            }
            "C:" | "W:" | "E:" => {}
            _ => {
                assert!(line.is_empty() || line.starts_with('#'), "what is {line:?}?");
                came.push(line.to_owned());
            }
        }
    }
    came.join("\n") + "\n"
}

#[test]
fn every_dialogue_comes_out_as_it_is_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/client");
    let files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut dialogues: Vec<PathBuf> = files.into_iter().filter(|f| f.extension().is_some_and(|e| e == "txt")).collect();
    dialogues.sort();
    assert!(dialogues.len() >= 6, "{dialogues:?}");
    for path in dialogues {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = std::fs::read_to_string(&path).unwrap();
        let came = run(&file);
        assert!(came == file, "{name} comes out as\n{came}");
    }
}

//! Golden dialogues, one file a command: `C:` is a line that the client says, `R:` raw bytes of it with `\r`,
//! `\n`, `\0` and `\xNN` written so, `S:` what it hears, `E:` what the shell was told, `!` what others do or what
//! goes wrong. `* clear`, `* tls`, `* no tls` and `* logged in` begin a new session with a new mailbox (see [`Talk::new`]), the
//! last behind what it says itself. `#` is a comment. The whole file must come out again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mailraft_mailbox::{Command, UidSet};
use mailraft_protocol::{Engine, Turn};

use crate::testing::{Talk, Unknown, logged_in};

#[test]
fn every_dialogue_comes_out_as_it_is_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/commands");
    let files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut dialogues: Vec<PathBuf> = files.into_iter().filter(|f| f.extension().is_some_and(|e| e == "txt")).collect();
    dialogues.sort();
    assert!(dialogues.len() >= 14, "{dialogues:?}");
    for path in dialogues {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = std::fs::read_to_string(&path).unwrap();
        let came = run(&file);
        for (number, (is, should)) in came.lines().zip(file.lines()).enumerate() {
            assert_eq!(is, should, "line {} of {name}", number + 1);
        }
        assert_eq!(came, file, "{name}");
    }
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
                talk = Some(begin(text, &mut came));
            }
            "C:" | "R:" | "! " => {
                came.push(line.to_owned());
                let talk = talk.as_mut().expect("a session begins with *");
                let (closed, handshakes) = (talk.turn == Turn::Close, talk.handshakes);
                match mark {
                    "C:" => talk.say(format!("{text}\r\n").as_bytes()),
                    "R:" => talk.say(&unescaped(text)),
                    _ => happens(text, talk),
                }
                let heard = talk.take_heard();
                came.extend(heard.split_terminator("\r\n").map(|line| format!("S: {line}").trim_end().to_owned()));
                if talk.handshakes > handshakes {
                    came.push("E: tls".to_owned());
                }
                if talk.turn == Turn::Close && !closed {
                    came.push("E: close".to_owned());
                }
            }
            "S:" | "E:" => {}
            _ => {
                assert!(line.is_empty() || line.starts_with('#'), "what is {line:?}?");
                came.push(line.to_owned());
            }
        }
    }
    came.join("\n") + "\n"
}

fn begin(state: &str, came: &mut Vec<String>) -> Talk {
    let talk = match state {
        "clear" => Talk::new(false),
        "tls" => Talk::new(true),
        "no tls" => Talk::with_tls(false, false),
        "logged in" => return logged_in(),
        other => panic!("no session is {other}"),
    };
    came.push(format!("S: {}", String::from_utf8_lossy(&talk.session.greeting()).trim_end()));
    talk
}

fn happens(what: &str, talk: &mut Talk) {
    let maildrop = talk.maildrop();
    let number = |text: &str| -> u32 { text.parse().unwrap() };
    match what.split_once(' ') {
        Some(("deliver", text)) => return maildrop.deliver(&format!("{text}\r\n\r\n")),
        Some(("expunge", uid)) => return maildrop.mailbox.expunge(UidSet::range(number(uid), number(uid))),
        Some(("answers", count)) => return maildrop.answers = Some(number(count) as usize),
        _ => {}
    }
    match what {
        "unavailable" => maildrop.unavailable = true,
        "available" => (maildrop.unavailable, maildrop.answers, maildrop.unknown) = (false, None, None),
        "unknown, done" => maildrop.unknown = Some(Unknown::Done),
        "unknown, not done" => maildrop.unknown = Some(Unknown::NotDone),
        "lost" => maildrop.lost = true,
        "another logs in" => drop(maildrop.another(Command::Maildrop).unwrap()),
        "another is refused" => drop(maildrop.another(Command::Maildrop).unwrap_err()),
        "another leaves" => drop(maildrop.another(Command::Unselect).unwrap()),
        "failover" => talk.fail_over(|_| {}),
        "failover, another logs in" => talk.fail_over(|maildrop| drop(maildrop.another(Command::Maildrop).unwrap())),
        "60 seconds" => {
            maildrop.mailbox.wait(Duration::from_secs(60));
            maildrop.silent = true;
        }
        other => panic!("{other:?} can't happen"),
    }
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

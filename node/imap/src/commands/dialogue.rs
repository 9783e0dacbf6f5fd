//! Golden dialogues, one file a command: `C:` is a line that the client says, `R:` raw bytes of it with `\r`,
//! `\n`, `\0` and `\xNN` written so, `S:` what it hears, `E:` what the shell was told, `!` what others do or what
//! goes wrong, `! together` several of it at once, and `! unheard` before the session looks. `* clear`, `* tls`, `* logged in`
//! and `* selected` begin a new session with a new mailbox (see [`Talk::new`]), the last two behind what they say themselves. `#` is a comment. The whole file must come out
//! again. With WRITE_DIALOGUES in the environment the files are written anew, to be read in the diff.

use std::path::{Path, PathBuf};

use mailraft_mailbox::api::StoreMode;
use mailraft_mailbox::{Command, Flags, SystemFlag, UidSet};
use mailraft_protocol::{Engine, Turn};

use crate::testing::{Talk, Unknown, logged_in, selected};

#[test]
fn every_dialogue_comes_out_as_it_is_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/commands");
    let files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut dialogues: Vec<PathBuf> = files.into_iter().filter(|f| f.extension().is_some_and(|e| e == "txt")).collect();
    dialogues.sort();
    assert!(dialogues.len() >= 20, "{dialogues:?}");
    for path in dialogues {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = std::fs::read_to_string(&path).unwrap();
        let came = run(&file);
        if std::env::var_os("WRITE_DIALOGUES").is_some() {
            std::fs::write(&path, &came).unwrap();
            continue;
        }
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
                let compressions = talk.compressions;
                match mark {
                    "C:" => talk.say(format!("{text}\r\n").as_bytes()),
                    "R:" => talk.say(&unescaped(text)),
                    // Together: nothing is told between.
                    _ => {
                        let together = text.strip_prefix("unheard ").or(text.strip_prefix("together "));
                        let all = together.map_or(vec![text], |all| all.split(", ").collect());
                        all.into_iter().for_each(|what| happens(what, talk));
                    }
                }
                if !text.starts_with("unheard ") {
                    talk.tell_all();
                }
                hear(talk, &mut came);
                if talk.handshakes > handshakes {
                    came.push("E: tls".to_owned());
                }
                if talk.compressions > compressions {
                    came.push("E: compress".to_owned());
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
    match state {
        "clear" | "tls" => {
            let talk = Talk::new(state == "tls");
            came.push(format!("S: {}", String::from_utf8_lossy(&talk.session.greeting()).trim_end()));
            talk
        }
        "logged in" => logged_in(),
        "selected" => selected(),
        other => panic!("no session is {other}"),
    }
}

fn happens(what: &str, talk: &mut Talk) {
    let store = talk.store();
    let number = |text: &str| -> u32 { text.parse().unwrap() };
    match what.split_once(' ') {
        Some(("deliver", text)) => {
            store.deliver(&String::from_utf8_lossy(&[unescaped(text).as_slice(), b"\r\n\r\n"].concat()))
        }
        Some(("create", name)) => drop(store.mailbox.others(Command::CreateFolder { name: name.into() })),
        Some(("delete", name)) => drop(store.mailbox.others(Command::DeleteFolder { name: name.into() })),
        Some(("append", name)) => store.mailbox.append(name, b"Subject: x\r\n\r\n"),
        Some(("rename", names)) => {
            let (from, to) = names.split_once(' ').unwrap();
            store.mailbox.others(Command::RenameFolder { from: from.into(), to: to.into() });
        }
        Some(("unsubscribe", name)) => drop(store.mailbox.others(Command::Subscribe { name: name.into(), on: false })),
        Some(("see" | "unsee" | "flag", of)) => {
            let (name, uid) = of.split_once(' ').unwrap();
            let flag = if what.starts_with("flag") { SystemFlag::Flagged } else { SystemFlag::Seen };
            let (folder, uid) = (store.mailbox.folder(name), number(uid));
            let mode = if what.starts_with("unsee") { StoreMode::Remove } else { StoreMode::Add };
            let flags = Flags::none().with(flag);
            let uids = UidSet::range(uid, uid);
            store.mailbox.others(Command::Store { folder, uids, mode, flags, unchanged_since: None });
        }
        Some(("subscribe", name)) => drop(store.mailbox.others(Command::Subscribe { name: name.into(), on: true })),
        Some(("expunge", uid)) => store.mailbox.expunge(UidSet::range(number(uid), number(uid))),
        Some(("meanwhile", uid)) => store.meanwhile = Some(UidSet::range(number(uid), number(uid))),
        Some(("quota", bytes)) => store.mailbox.set_quota_bytes(Some(number(bytes).into())),
        Some(("answers", count)) => store.answers = Some(number(count) as usize),
        _ => match what {
            "takeover" => store.mailbox.take_over(),
            "unavailable" => store.unavailable = true,
            "unconfirmed" => store.unconfirmed = true,
            "available" => {
                (store.unavailable, store.unconfirmed) = (false, false);
                store.unknown = None;
                store.answers = None;
            }
            "unknown, done" => store.unknown = Some(Unknown::Done),
            "unknown, not done" => store.unknown = Some(Unknown::NotDone),
            "lost" => store.lost = true,
            "slow" => store.slow = true,
            "away" => store.away = true,
            "back" => (store.away, store.is_back) = (false, true),
            "due" => store.progress_due = true,
            other => panic!("{other:?} can't happen"),
        },
    }
}

fn hear(talk: &mut Talk, came: &mut Vec<String>) {
    let heard = talk.take_heard();
    let heard = heard.replace('\0', "\\0");
    came.extend(heard.split_terminator("\r\n").map(|line| format!("S: {line}").trim_end().to_owned()));
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

//! A blocking IMAP client over TLS: enough to look, to flag, and to idle.

use std::collections::BTreeMap;
use std::io;

use crate::cluster::Account;
use crate::wire::{Trust, Wire};

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a tagged line, here without its tag.
    Tagged(String),
    /// The server ended the session first, with these words.
    Bye(String),
}

/// A logged-in session.
pub struct Imap {
    wire: Wire,
    tag: u32,
    /// Untagged lines that came with the last command, literals inlined.
    pub untagged: Vec<String>,
}

impl Imap {
    /// Connects to an `imaps` address and logs in.
    ///
    /// # Errors
    /// Those of the connection; `Other` with the server's words if it refuses.
    pub fn login(trust: &Trust, address: &str, account: &Account) -> io::Result<Self> {
        Self::login_over(Wire::connect(trust, address)?, account)
    }

    /// Logs in over a connection.
    ///
    /// # Errors
    /// As [`Imap::login`].
    pub fn login_over(wire: Wire, account: &Account) -> io::Result<Self> {
        let mut imap = Imap { wire, tag: 0, untagged: Vec::new() };
        imap.wire.line()?;
        imap.ok(&format!("LOGIN \"{}\" \"{}\"", account.address, account.password))?;
        Ok(imap)
    }

    /// One command; its tagged line without the tag.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn command(&mut self, command: &str) -> io::Result<String> {
        let tag = self.begin(command)?;
        loop {
            let line = self.full_line()?;
            match line.strip_prefix(&tag) {
                Some(rest) => return Ok(rest.to_owned()),
                None => self.untagged.push(line),
            }
        }
    }

    /// One command, which the server may end the session over.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn ends(&mut self, command: &str) -> io::Result<Ended> {
        let tag = self.begin(command)?;
        self.hear_end(&tag)
    }

    /// Hears how the command of this tag ended.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn hear_end(&mut self, tag: &str) -> io::Result<Ended> {
        loop {
            let line = self.full_line()?;
            if let Some(rest) = line.strip_prefix(tag) {
                return Ok(Ended::Tagged(rest.to_owned()));
            }
            if let Some(words) = line.strip_prefix("* BYE ") {
                return Ok(Ended::Bye(words.to_owned()));
            }
            self.untagged.push(line);
        }
    }

    /// Sends a command and hears nothing of it. Returns its tag.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn begin(&mut self, command: &str) -> io::Result<String> {
        self.tag += 1;
        let tag = format!("c{} ", self.tag);
        self.wire.send(format!("{tag}{command}\r\n").as_bytes())?;
        self.untagged.clear();
        Ok(tag)
    }

    /// One command that must be answered by OK.
    ///
    /// # Errors
    /// Those of the connection; `Other` with the server's words.
    pub fn ok(&mut self, command: &str) -> io::Result<String> {
        let answer = self.command(command)?;
        if answer.starts_with("OK") {
            Ok(answer)
        } else {
            Err(io::Error::other(format!("{}: {answer}", command.split(' ').next().unwrap_or(command))))
        }
    }

    /// UID and Subject of every message of the selected folder, in the order of sequence numbers.
    ///
    /// # Errors
    /// As [`Imap::ok`].
    pub fn subjects(&mut self) -> io::Result<Vec<(u32, String)>> {
        self.ok("FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])")?;
        let mut out = Vec::new();
        for line in self.untagged.iter().filter(|l| l.contains(" FETCH (")) {
            let uid = line
                .split_once("UID ")
                .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
                .ok_or_else(|| io::Error::other(format!("no UID in {line}")))?;
            let subject = line
                .split_once("Subject: ")
                .map(|(_, rest)| rest.lines().next().unwrap_or_default().trim().to_owned())
                .unwrap_or_default();
            out.push((uid, subject));
        }
        Ok(out)
    }

    /// Every message of a folder: UID by Subject, and a complaint about any Subject that is there twice.
    ///
    /// # Errors
    /// As [`Imap::ok`]; `Other` for a Subject that is there twice or UIDs that don't rise.
    pub fn by_subject(&mut self, folder: &str) -> io::Result<BTreeMap<String, u32>> {
        let select = self.ok(&format!("SELECT {folder}"))?;
        let exists = self.untagged.iter().any(|l| l.ends_with(" EXISTS") && l != "* 0 EXISTS");
        if !exists {
            return Ok(BTreeMap::new());
        }
        let mut out = BTreeMap::new();
        let mut last = 0;
        for (uid, subject) in self.subjects()? {
            if uid <= last {
                return Err(io::Error::other(format!("UID {uid} after {last} ({select})")));
            }
            last = uid;
            if let Some(first) = out.insert(subject.clone(), uid) {
                return Err(io::Error::other(format!("{subject} is there twice: UIDs {first} and {uid}")));
            }
        }
        Ok(out)
    }

    /// How long a write waits for a server that does not read.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn set_write_timeout(&self, time: std::time::Duration) -> io::Result<()> {
        self.wire.set_write_timeout(time)
    }

    /// Begins IDLE.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn idle(&mut self) -> io::Result<()> {
        self.tag += 1;
        self.wire.send(format!("c{} IDLE\r\n", self.tag).as_bytes())?;
        while !self.wire.line()?.starts_with('+') {}
        Ok(())
    }

    /// Waits in IDLE for an untagged line that ends like this.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn hear(&mut self, end: &str) -> io::Result<String> {
        loop {
            let line = self.full_line()?;
            if line.ends_with(end) {
                return Ok(line);
            }
        }
    }

    /// Waits, without asking anything, for an untagged line that begins like this.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn hear_begin(&mut self, begin: &str) -> io::Result<String> {
        loop {
            let line = self.full_line()?;
            if line.starts_with(begin) {
                return Ok(line);
            }
        }
    }

    /// Ends IDLE.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn done(&mut self) -> io::Result<()> {
        let tag = format!("c{} ", self.tag);
        self.wire.send(b"DONE\r\n")?;
        while !self.full_line()?.starts_with(&tag) {}
        Ok(())
    }

    /// A line with its literals.
    fn full_line(&mut self) -> io::Result<String> {
        let mut out = self.wire.line()?;
        loop {
            let literal = out
                .strip_suffix('}')
                .and_then(|l| l.rsplit_once('{'))
                .and_then(|(_, digits)| digits.parse::<usize>().ok());
            let Some(bytes) = literal else { return Ok(out) };
            out.push_str("\r\n");
            out.push_str(&String::from_utf8_lossy(&self.wire.exactly(bytes)?));
            out.push_str(&self.wire.line()?);
        }
    }
}

//! Dialogues: `C:` is what the client says, `S:` what it hears, `>` what the shell is asked and answers by the
//! rules of this file.

use proptest::prelude::*;

use crate::session::{AuthOutcome, Config, Delivery, Recipient, Service, Session, Step};

struct Talk {
    session: Session,
    heard: Vec<u8>,
    content: Vec<u8>,
    log: Vec<String>,
}

impl Talk {
    fn new(service: Service, tls: bool) -> Self {
        let config = Config { hostname: "mx.test".into(), service, max_message_bytes: 100, tls_available: true };
        let session = Session::new(config, tls);
        let heard = session.greeting();
        Talk { session, heard, content: Vec::new(), log: Vec::new() }
    }

    fn say(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(1_000) {
            self.session.input(piece);
            self.run();
        }
    }

    fn run(&mut self) {
        loop {
            let step = self.session.next(&mut self.heard);
            let out = &mut self.heard;
            match step {
                Step::NeedInput => return,
                Step::Close => {
                    self.log.push("close".into());
                    return;
                }
                Step::StartTls => {
                    self.log.push("tls".into());
                    self.session.tls_started();
                }
                Step::Discard => {
                    self.content.clear();
                    self.log.push("discard".into());
                }
                Step::Content(bytes) => self.content.extend_from_slice(&bytes),
                Step::Verify(address) => {
                    let recipient = match (address.local.as_str(), address.domain.as_str()) {
                        (_, domain) if domain != "here.test" && !domain.is_empty() => Recipient::NotOurs,
                        ("alice" | "alice+x" | "postmaster", _) => Recipient::Mailbox([1; 16]),
                        ("bob", _) => Recipient::Mailbox([2; 16]),
                        ("later", _) => Recipient::Unavailable,
                        _ => Recipient::Unknown,
                    };
                    self.session.verified(recipient, out);
                }
                Step::Authenticate { user, password } => {
                    let outcome = match (user.as_str(), password.as_str()) {
                        ("alice", "secret") => AuthOutcome::Ok("alice".into()),
                        ("nobody", _) => AuthOutcome::Unavailable,
                        _ => AuthOutcome::Wrong,
                    };
                    self.session.authenticated(outcome, out);
                }
                Step::Complete(transaction) => {
                    let from = transaction.reverse_path.map_or("<>".into(), |p| p.to_string());
                    let to: Vec<String> = transaction.recipients.iter().map(ToString::to_string).collect();
                    let content = String::from_utf8_lossy(&std::mem::take(&mut self.content)).into_owned();
                    self.log.push(format!("{from} -> {} as {:?}: {content:?}", to.join(" "), transaction.identity));
                    self.session.delivered(Delivery::Accepted("id=7 at=1.1.9".into()), out);
                }
            }
        }
    }
}

fn dialogue(service: Service, tls: bool, script: &str) -> Vec<String> {
    let mut talk = Talk::new(service, tls);
    let mut expected = String::new();
    for line in script.lines().map(str::trim_start) {
        if let Some(said) = line.strip_prefix("C: ") {
            let heard = String::from_utf8_lossy(&std::mem::take(&mut talk.heard)).replace("\r\n", "\n");
            assert_eq!(heard, std::mem::take(&mut expected), "before {said:?}");
            talk.say(format!("{said}\r\n").as_bytes());
        } else if let Some(heard) = line.strip_prefix("S: ") {
            expected.push_str(heard);
            expected.push('\n');
        }
    }
    assert_eq!(String::from_utf8_lossy(&talk.heard).replace("\r\n", "\n"), expected, "at the end");
    talk.log
}

#[test]
fn a_message_from_another_server() {
    let log = dialogue(
        Service::Relay,
        false,
        "S: 220 mx.test ESMTP Mailraft
         C: MAIL FROM:<a@b.test>
         S: 503 5.5.1 say EHLO first
         C: EHLO client.test
         S: 250-mx.test
         S: 250-PIPELINING
         S: 250-SIZE 100
         S: 250-8BITMIME
         S: 250-ENHANCEDSTATUSCODES
         S: 250 STARTTLS
         C: MAIL FROM:<a@b.test> SIZE=20 BODY=8BITMIME
         S: 250 2.1.0 Ok
         C: DATA
         S: 554 5.5.1 no valid recipients
         C: RCPT TO:<nobody@here.test>
         S: 550 5.1.1 <nobody@here.test> is nobody here
         C: RCPT TO:<x@elsewhere.test>
         S: 550 5.7.1 <x@elsewhere.test> is not in a domain of this server, and it relays for nobody
         C: RCPT TO:<later@here.test>
         S: 451 4.3.0 whether there is such a mailbox can't be said now; try again
         C: RCPT TO:<alice@here.test>
         S: 250 2.1.5 Ok
         C: RCPT TO:<alice+x@here.test>
         S: 250 2.1.5 Ok
         C: RCPT TO:<bob@here.test>
         S: 452 4.5.3 one mailbox for each message; send it again for this one
         C: DATA
         S: 354 end with <CR><LF>.<CR><LF>
         C: Subject: x
         C: 
         C: ..dot
         C: .
         S: 250 2.0.0 Ok id=7 at=1.1.9
         C: RCPT TO:<alice@here.test>
         S: 503 5.5.1 say MAIL first
         C: QUIT
         S: 221 2.0.0 bye",
    );
    assert_eq!(
        log,
        ["a@b.test -> alice@here.test alice+x@here.test as None: \"Subject: x\\r\\n\\r\\n.dot\\r\\n\"", "close"]
    );
}

#[test]
fn what_is_too_big_is_refused_early_and_late() {
    let log = dialogue(
        Service::Relay,
        false,
        "S: 220 mx.test ESMTP Mailraft
         C: HELO client.test
         S: 250 mx.test
         C: MAIL FROM:<> SIZE=101
         S: 552 5.3.4 the message is longer than 100 bytes
         C: MAIL FROM:<>
         S: 250 2.1.0 Ok
         C: RCPT TO:<alice@here.test>
         S: 250 2.1.5 Ok
         C: DATA
         S: 354 end with <CR><LF>.<CR><LF>
         C: 0123456789012345678901234567890123456789012345678901234567890123456789
         C: 0123456789012345678901234567890123456789012345678901234567890123456789
         C: .
         S: 552 5.3.4 the message is longer than 100 bytes
         C: MAIL FROM:<> FOO=1
         S: 555 5.5.4 unknown parameter FOO
         C: NOOP
         S: 250 2.0.0 Ok",
    );
    assert_eq!(log, ["discard"]);
}

#[test]
fn submission_wants_tls_then_a_login() {
    let log = dialogue(
        Service::Submission,
        false,
        "S: 220 mx.test ESMTP Mailraft
         C: EHLO client.test
         S: 250-mx.test
         S: 250-PIPELINING
         S: 250-SIZE 100
         S: 250-8BITMIME
         S: 250-ENHANCEDSTATUSCODES
         S: 250 STARTTLS
         C: AUTH PLAIN AGFsaWNlAHNlY3JldA==
         S: 538 5.7.11 say STARTTLS first
         C: MAIL FROM:<alice@here.test>
         S: 530 5.7.0 log in first
         C: STARTTLS
         S: 220 2.0.0 ready for TLS
         C: AUTH PLAIN AGFsaWNlAHNlY3JldA==
         S: 503 5.5.1 AUTH comes after EHLO, once, outside of a transaction
         C: EHLO client.test
         S: 250-mx.test
         S: 250-PIPELINING
         S: 250-SIZE 100
         S: 250-8BITMIME
         S: 250-ENHANCEDSTATUSCODES
         S: 250 AUTH PLAIN LOGIN
         C: AUTH PLAIN AGFsaWNlAHdyb25n
         S: 535 5.7.8 wrong user name or password
         C: AUTH LOGIN
         S: 334 VXNlcm5hbWU6
         C: *
         S: 501 5.7.0 login given up
         C: AUTH LOGIN bm9ib2R5
         S: 334 UGFzc3dvcmQ6
         C: eA==
         S: 454 4.7.0 logins can't be checked now; try again
         C: AUTH LOGIN
         S: 334 VXNlcm5hbWU6
         C: YWxpY2U=
         S: 334 UGFzc3dvcmQ6
         C: c2VjcmV0
         S: 235 2.7.0 logged in
         C: MAIL FROM:<alice@here.test> AUTH=<>
         S: 250 2.1.0 Ok
         C: RCPT TO:<bob@here.test>
         S: 250 2.1.5 Ok
         C: DATA
         S: 354 end with <CR><LF>.<CR><LF>
         C: .
         S: 250 2.0.0 Ok id=7 at=1.1.9",
    );
    assert_eq!(log, ["tls", "alice@here.test -> bob@here.test as Some(\"alice\"): \"\""]);
}

#[test]
fn nothing_that_came_in_clear_counts_after_starttls() {
    let mut talk = Talk::new(Service::Submission, false);
    talk.say(b"EHLO x\r\nSTARTTLS\r\nEHLO injected\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n");
    assert_eq!(talk.log, ["tls"]);
    assert!(String::from_utf8_lossy(&talk.heard).ends_with("220 2.0.0 ready for TLS\r\n"));
}

#[test]
fn lines_end_with_crlf_alone_and_have_a_bound() {
    let mut talk = Talk::new(Service::Relay, false);
    talk.say(b"EHLO x\nMAIL FROM:<a@b>\r\n");
    assert!(String::from_utf8_lossy(&talk.heard).ends_with("500 5.5.2 a command has no bare CR, LF or NUL\r\n"));
    talk.say(&vec![b'x'; 40_000]);
    talk.say(b"\r\nNOOP\r\n");
    assert!(String::from_utf8_lossy(&talk.heard).ends_with("500 5.5.2 line too long\r\n250 2.0.0 Ok\r\n"));
}

#[test]
fn too_many_wrong_commands_end_the_session() {
    let mut talk = Talk::new(Service::Relay, false);
    talk.say("FOO\r\n".repeat(30).as_bytes());
    assert_eq!(talk.log, ["close"]);
    assert!(String::from_utf8_lossy(&talk.heard).ends_with("421 4.7.0 too many wrong commands\r\n"));
}

#[test]
fn a_bare_line_end_in_a_message_refuses_it_and_what_follows_is_not_lost() {
    let mut talk = Talk::new(Service::Relay, false);
    talk.say(
        b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<alice@here.test>\r\nDATA\r\nx\n.\nMAIL FROM:<evil@x>\r\n.\r\nNOOP\r\n",
    );
    assert_eq!(talk.log, ["discard"]);
    let heard = String::from_utf8_lossy(&talk.heard).into_owned();
    assert!(
        heard.ends_with("550 5.6.11 a line ends with a bare CR or LF; lines end with CRLF\r\n250 2.0.0 Ok\r\n"),
        "{heard}"
    );
}

proptest! {
    #[test]
    fn any_split_of_the_input_gives_the_same(cuts in proptest::collection::vec(0usize..260, 0..12)) {
        let input: &[u8] = b"EHLO c.test\r\nMAIL FROM:<a@b>\r\nRCPT TO:<alice@here.test>\r\nRCPT TO:<bob@here.test>\r\nDATA\r\nSubject: y\r\n\r\n..\r\n.x\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<alice@here.test>\r\nDATA\r\n.\r\nFOO\r\nQUIT\r\n";
        let mut whole = Talk::new(Service::Relay, false);
        whole.say(input);
        let mut split = Talk::new(Service::Relay, false);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(input.len())).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        for w in cuts.windows(2) {
            split.say(&input[w[0]..w[1]]);
        }
        prop_assert_eq!(whole.heard, split.heard);
        prop_assert_eq!(whole.log, split.log);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'.')], 0..400)) {
        let mut talk = Talk::new(Service::Submissions, true);
        talk.say(b"EHLO x\r\n");
        talk.say(&bytes);
    }
}

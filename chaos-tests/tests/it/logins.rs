//! Guesses at passwords, sessions of accounts that changed, and messages in the names of others, with real processes.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use mailraft_chaos::cluster::{Account, Cluster};
use mailraft_chaos::imap::Imap;
use mailraft_chaos::smtp::{Smtp, SmtpReply, base64};
use mailraft_chaos::wire::{Trust, Wire};
use rustix::process::Signal;

/// A session ends within this long everywhere after its account changed. Half of it is for a machine that is busy.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

#[test]
fn a_disabled_account_or_another_password_ends_sessions_on_every_node() {
    let cluster = Cluster::start_new(|c| c);
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    let idle = |account: &Account| -> Vec<Imap> {
        let login = |node| {
            let mut imap = Imap::login(&trust, &cluster.text(node, "imaps"), account).unwrap();
            imap.ok("SELECT INBOX").unwrap();
            imap.idle().unwrap();
            imap
        };
        cluster.node_ids().into_iter().map(login).collect()
    };
    let mut other = Imap::login(&trust, &cluster.text(1, "imaps"), &alice).unwrap();
    let end = |sessions: Vec<Imap>| {
        let begun = Instant::now();
        for mut session in sessions {
            let said = session.hear("log in again").unwrap();
            assert_eq!(said, "* BYE [EXPIRED] the account has changed; log in again");
        }
        assert!(begun.elapsed() < ENDS_WITHIN, "{:?}", begun.elapsed());
    };
    let sessions = idle(&bob);
    cluster.mailraft(&["account", "disable", &bob.address], "");
    end(sessions);
    assert!(Imap::login(&trust, &cluster.text(2, "imaps"), &bob).is_err());
    cluster.mailraft(&["account", "enable", &bob.address], "");
    let sessions = idle(&bob);
    let bob = Account { password: "not the one from before".to_owned(), ..bob };
    cluster.mailraft(&["account", "password", &bob.address, "--password-stdin"], &bob.password);
    end(sessions);
    drop(idle(&bob));
    other.ok("NOOP").unwrap();
}

#[test]
fn a_node_that_is_cut_off_lets_nobody_in_by_a_password_that_was_changed() {
    let cluster = Cluster::start_new(|c| c);
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let bob = cluster.account(1);
    // Node 1 knows the password, and has computed it.
    drop(Imap::login(&trust, &cluster.text(1, "imaps"), &bob).unwrap());
    cluster.signal(1, Signal::STOP);
    cluster.mailraft(&["account", "password", &bob.address, "--password-stdin"], "not the one from before");
    cluster.signal(2, Signal::STOP);
    cluster.signal(3, Signal::STOP);
    cluster.signal(1, Signal::CONT);
    let refused = Imap::login(&trust, &cluster.text(1, "imaps"), &bob).map(drop).unwrap_err().to_string();
    cluster.signal(2, Signal::CONT);
    cluster.signal(3, Signal::CONT);
    // A BYE, and the end: nobody can say whether it is right.
    assert!(!refused.contains("AUTHENTICATIONFAILED"), "{refused}");
    cluster.wait_until_caught_up();
    let refused = Imap::login(&trust, &cluster.text(1, "imaps"), &bob).map(drop).unwrap_err().to_string();
    assert!(refused.contains("AUTHENTICATIONFAILED"), "{refused}");
}

#[test]
fn guesses_at_once_are_no_more_than_one_after_the_other_and_stand_in_the_log_for_fail2ban() {
    let cluster = Cluster::start_new(|c| c);
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    let guesses: Vec<_> = (0..30)
        .map(|n| {
            let (trust, address) = (trust.clone(), cluster.text(1, "imaps"));
            let guess = Account { address: alice.address.clone(), password: format!("a guess, number {n}") };
            std::thread::spawn(move || Imap::login(&trust, &address, &guess).map(drop).unwrap_err().to_string())
        })
        .collect();
    let said: Vec<String> = guesses.into_iter().map(|guess| guess.join().unwrap()).collect();
    let count = |text: &str| said.iter().filter(|said| said.contains(text)).count();
    assert!((1..=5).contains(&count("wrong user name or password")), "{said:?}");
    assert_eq!(count("wrong user name or password") + count("too many wrong logins"), 30, "{said:?}");
    // Another account is not concerned.
    Imap::login(&trust, &cluster.text(1, "imaps"), &bob).unwrap();
    let filter = concat!(env!("CARGO_MANIFEST_DIR"), "/../node/package/fail2ban-filter.conf");
    let matched =
        Command::new("python3").args(["-c", MATCH, filter, &cluster.text(1, "log")]).output().expect("python3 runs");
    let matched = String::from_utf8_lossy(&matched.stdout).into_owned();
    assert_eq!(matched.trim(), "30 127.0.0.1", "lines that the filter matches, and the address in them");
    let log = std::fs::read_to_string(cluster.text(1, "log")).unwrap();
    assert!(log.contains("user=a***@example.test") && !log.contains(&alice.address) && !log.contains("a guess"));
}

/// A mail program opens many connections at once, also right after a node's start: the right password is no guess.
#[test]
fn the_right_password_many_times_at_once_is_let_in_each_time() {
    let cluster = Cluster::start_new(|c| c);
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let bob = cluster.account(1);
    let address = cluster.text(2, "imaps");
    let refused: Vec<String> = std::thread::scope(|scope| {
        let login = || Imap::login(&trust, &address, &bob).err().map(|e| e.to_string());
        let logins: Vec<_> = (0..20).map(|_| scope.spawn(login)).collect();
        logins.into_iter().filter_map(|login| login.join().unwrap()).collect()
    });
    assert_eq!(refused, [""; 0]);
    let log = std::fs::read_to_string(cluster.text(2, "log")).unwrap();
    assert!(!log.contains("login refused"), "nothing that fail2ban would take for a guess");
}

/// The number of partitions says in which of them a mailbox is: a node that was told another would look elsewhere.
#[test]
fn a_node_that_is_told_another_number_of_partitions_does_not_start() {
    let mut cluster = Cluster::start_new(|c| c);
    cluster.kill(3);
    let config = cluster.text(3, "config");
    let text = std::fs::read_to_string(&config).unwrap();
    let line = text.lines().find(|line| line.starts_with("partitions = ")).unwrap();
    std::fs::write(&config, text.replace(line, "partitions = 1024")).unwrap();
    let started = Command::new(mailraft_chaos::cluster::binary()).args(["node", "--config", &config]).output().unwrap();
    let said = String::from_utf8_lossy(&started.stderr);
    assert!(!started.status.success() && said.contains("cluster.partitions says 1024"), "{said}");
    std::fs::write(&config, text).unwrap();
    cluster.start(3);
    cluster.wait_until_caught_up();
}

#[test]
fn who_goes_from_node_to_node_has_as_many_guesses_as_who_stays() {
    let cluster = Cluster::start_new(|c| c.replace("mask_addresses = true ", "mask_addresses = false "));
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let alice = cluster.account(0);
    let guesses = |node, number| {
        let guess = Account { password: format!("a guess, number {number}"), ..alice.clone() };
        Imap::login(&trust, &cluster.text(node, "imaps"), &guess).map(drop).unwrap_err().to_string()
    };
    for number in 0..5 {
        assert!(guesses(1, number).contains("wrong user name or password"), "{number}");
    }
    // The next one waits two seconds, wherever it is made; what is on its way takes less than one.
    for node in [2, 3] {
        cluster.wait("it has heard of them", |_| guesses(node, 5).contains("too many wrong logins"));
    }
    let log = std::fs::read_to_string(cluster.text(1, "log")).unwrap();
    assert!(log.contains(&format!("user={}", alice.address)), "names are not masked when that is wished");
}

#[test]
fn a_deleted_account_is_gone_everywhere_and_so_is_its_key() {
    let cluster = Cluster::start_new(|c| c);
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    let mut smtp = Smtp::login(&trust, &cluster.text(2, "submissions"), &alice).unwrap();
    let sent = smtp.send(&alice.address, &bob.address, b"Subject: before\r\n\r\nx\r\n").unwrap();
    assert!(matches!(sent, SmtpReply::Accepted { .. }), "{sent:?}");
    cluster.mailraft(&["address", "add", "bobby@example.test", &bob.address], "");
    let idle = |node| {
        let mut imap = Imap::login(&trust, &cluster.text(node, "imaps"), &bob).unwrap();
        imap.ok("SELECT INBOX").unwrap();
        imap.idle().unwrap();
        imap
    };
    let sessions: Vec<Imap> = cluster.node_ids().into_iter().map(idle).collect();
    let validity = |account: &Account| {
        let mut imap = Imap::login(&trust, &cluster.text(1, "imaps"), account).unwrap();
        imap.ok("STATUS INBOX (UIDVALIDITY)").unwrap();
        let said = imap.untagged.iter().find_map(|line| line.split("UIDVALIDITY ").nth(1).map(str::to_owned));
        said.unwrap().trim_end_matches(')').parse::<u32>().unwrap()
    };
    let (before, second) = (validity(&bob), Instant::now());

    let refused = cluster.runs(&["account", "delete", &bob.address], "");
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--yes"));
    cluster.mailraft(&["account", "delete", &bob.address, "--yes"], "");
    let begun = Instant::now();
    for mut session in sessions {
        assert!(session.hear("log in again").unwrap().starts_with("* BYE"));
    }
    assert!(begun.elapsed() < ENDS_WITHIN, "{:?}", begun.elapsed());
    let again = cluster.runs(&["account", "delete", &bob.address, "--yes"], "");
    assert!(!again.status.success(), "there is none any more");
    for node in cluster.node_ids() {
        assert!(Imap::login(&trust, &cluster.text(node, "imaps"), &bob).is_err());
        let mut smtp = Smtp::login(&trust, &cluster.text(node, "submissions"), &alice).unwrap();
        for gone in [&*bob.address, "bobby@example.test"] {
            let sent = smtp.send(&alice.address, gone, b"Subject: after\r\n\r\nx\r\n").unwrap();
            assert!(matches!(sent, SmtpReply::Refused(550, _)), "{sent:?}");
        }
    }
    // Whoever has the name next has a mailbox of his own, also for mail programs that know the one before.
    cluster.wait("a second has passed", |_| second.elapsed() > Duration::from_secs(1));
    cluster.mailraft(&["account", "create", &bob.address, "--password-stdin"], &bob.password);
    let mut next = Imap::login(&trust, &cluster.text(1, "imaps"), &bob).unwrap();
    next.ok("SELECT INBOX").unwrap();
    assert!(next.untagged.iter().any(|line| line == "* 0 EXISTS"), "{:?}", next.untagged);
    assert!(validity(&bob) > before);
}

/// What fail2ban does with a filter: counts matching lines, and says which hosts they name.
const MATCH: &str = r#"
import configparser, re, sys
filter = configparser.RawConfigParser(); filter.read(sys.argv[1])
rule = re.compile(filter["Definition"]["failregex"].replace("<HOST>", r"(?P<host>[0-9a-fA-F.:]+)"))
found = [m["host"] for m in map(rule.search, open(sys.argv[2], errors="replace")) if m]
print(len(found), *sorted(set(found)))
"#;

#[test]
fn who_submits_names_only_himself() {
    let cluster = Cluster::start_new(|c| c);
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let (alice, bob) = (cluster.account(0).address, cluster.account(1).address);
    let mut smtp = Smtp::login(&trust, &cluster.text(2, "submissions"), &cluster.account(0)).unwrap();
    for (path, header, taken) in [
        (&*alice, format!("From: Alice <{alice}>\r\n"), true),
        (&*alice, String::new(), true),
        ("", format!("From: {alice}\r\nSender: {alice}\r\n"), true),
        (&*alice, format!("From: Bob <{bob}>\r\n"), false),
        ("", format!("From: {bob}\r\n"), false),
        (&*alice, format!("From: {alice}\r\nfrom: {bob}\r\n"), false),
        (&*alice, format!("From: {alice}, {bob}\r\n"), false),
        (&*alice, format!("From: {alice}\r\nSender: {bob}\r\n"), false),
        (&*alice, "From: the president\r\n".to_owned(), false),
        (&*alice, "From: president@elsewhere.example\r\n".to_owned(), false),
    ] {
        let message = format!("{header}Subject: who\r\n\r\nx\r\n");
        match smtp.send(path, &bob, message.as_bytes()).unwrap() {
            SmtpReply::Accepted { .. } => assert!(taken, "{path:?} {header}"),
            SmtpReply::Refused(code, text) => {
                assert!(!taken && code == 553 && text.contains("From and Sender"), "{path:?} {header}: {code} {text}");
            }
        }
    }
}

#[test]
fn what_only_this_server_may_say_does_not_come_in_from_elsewhere() {
    let cluster = Cluster::start_new(|c| c);
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let bob = cluster.account(1);
    let mut server = BufReader::new(TcpStream::connect(cluster.text(1, "smtp")).unwrap());
    let to = format!("RCPT TO:<{}>", bob.address);
    let message = "Return-Path: <boss@example.test>\r\nAuthentication-Results: localhost; dkim=pass\r\n\
                   Authentication-Results: relay.example; none\r\nFrom: a@b.example\r\nSubject: claims\r\n\r\nx\r\n.";
    for line in ["HELO b.example", "MAIL FROM:<a@b.example>", &to, "DATA", message, "QUIT"] {
        let mut reply = String::new();
        server.read_line(&mut reply).unwrap();
        assert!(reply.starts_with(['2', '3']), "before {line}: {reply}");
        server.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }
    let mut reader = Imap::login(&trust, &cluster.text(3, "imaps"), &bob).unwrap();
    cluster.wait("the message is there", |_| {
        reader.ok("SELECT INBOX").unwrap();
        reader.untagged.iter().any(|line| line == "* 1 EXISTS")
    });
    reader.ok("FETCH 1 (BODY.PEEK[HEADER])").unwrap();
    let header = reader.untagged.join("\n");
    assert!(header.contains("Return-Path: <a@b.example>") && header.contains("Subject: claims"), "{header}");
    assert!(header.contains("relay.example; none"), "{header}");
    assert!(!header.contains("boss@") && !header.contains("localhost; dkim"), "{header}");
}

#[test]
fn what_a_mail_program_sends_in_pieces_gets_what_it_lacks_and_says_nothing_of_where_it_is() {
    let cluster = Cluster::start_new(|c| c);
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    let mut wire = Wire::connect(&trust, &cluster.text(1, "submissions")).unwrap();
    let login = base64(format!("\0{}\0{}", alice.address, alice.password).as_bytes());
    let header = format!("From: {}\r\nSubject: pieces\r\nBcc: {}\r\n\r\n", alice.address, bob.address);
    wire.send(format!("EHLO [192.168.77.7]\r\nAUTH PLAIN {login}\r\n").as_bytes()).unwrap();
    wire.send(format!("MAIL FROM:<{}>\r\nRCPT TO:<{}>\r\n", alice.address, bob.address).as_bytes()).unwrap();
    wire.send(format!("BDAT {}\r\n{header}BDAT 13 LAST\r\n.\r\nthe body\r\n", header.len()).as_bytes()).unwrap();
    let mut replies = Vec::new();
    while replies.last().is_none_or(|last: &String| !last.contains(" id=")) {
        replies.push(wire.line().unwrap());
        assert!(replies.last().unwrap().starts_with('2'), "{replies:?}");
    }
    assert!(replies.iter().any(|line| line == "250-CHUNKING"), "{replies:?}");

    let mut reader = Imap::login(&trust, &cluster.text(3, "imaps"), &bob).unwrap();
    cluster.wait("the message is there", |_| {
        reader.ok("SELECT INBOX").unwrap();
        reader.untagged.iter().any(|line| line == "* 1 EXISTS")
    });
    reader.ok("FETCH 1 (BODY.PEEK[])").unwrap();
    let message = reader.untagged.join("\n");
    for part in ["\nDate: ", "\nMessage-ID: <", "\nSubject: pieces", "\nReceived: by ", ".\nthe body"] {
        assert!(message.replace('\r', "").contains(part), "{part:?} in {message}");
    }
    for part in ["Bcc", "192.168.77.7", "127.0.0.1"] {
        assert!(!message.contains(part), "{part} in {message}");
    }
}

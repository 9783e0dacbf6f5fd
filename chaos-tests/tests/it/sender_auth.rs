//! What other servers bring is checked: SPF, DKIM, DMARC and ARC, signed by dkimpy, against a name server of the test's own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mailraft_chaos::cluster::Cluster;
use mailraft_chaos::imap::Imap;
use mailraft_chaos::name_server::{NameServer, Record};
use mailraft_chaos::plain::Plain;
use mailraft_chaos::smtp::{Smtp, SmtpReply};
use mailraft_chaos::wire::Trust;

/// The Ed25519 key of RFC 8463, appendix A.2.
const ED25519_SECRET: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const ED25519_KEY: &str = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

pub fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{command:?} failed");
    done.stdout
}

/// Debian's Python has what others wrote.
fn script(args: &[&str], input: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/sign.py");
    run(Command::new("/usr/bin/python3").arg(path).args(args), input)
}

struct Keys {
    ed25519: PathBuf,
    rsa: PathBuf,
}

/// Keys to sign with, published for a few domains with their policies.
fn publish(dns: &NameServer, dir: &Path) -> Keys {
    let keys = Keys { ed25519: dir.join("ed25519"), rsa: dir.join("rsa.pem") };
    std::fs::write(&keys.ed25519, ED25519_SECRET).unwrap();
    run(Command::new("openssl").args(["genrsa", "-out"]).arg(&keys.rsa).arg("2048").stderr(Stdio::null()), b"");
    let public = run(
        Command::new("openssl").args(["rsa", "-pubout", "-outform", "DER", "-in"]).arg(&keys.rsa).stderr(Stdio::null()),
        b"",
    );
    let text = |text: &str| [Record::Txt(text.to_owned())];
    let rsa = format!("v=DKIM1; k=rsa; p={}", mailraft_chaos::smtp::base64(&public));
    for domain in ["bank.example", "list.example"] {
        dns.set(&format!("ed._domainkey.{domain}"), &text(ED25519_KEY));
        dns.set(&format!("rsa._domainkey.{domain}"), &text(&rsa));
    }
    dns.set("bank.example", &text("v=spf1 -all"));
    dns.set("_dmarc.bank.example", &text("v=DMARC1; p=reject"));
    dns.set("shop.example", &text("v=spf1 -all"));
    dns.set("_dmarc.shop.example", &text("v=DMARC1; p=quarantine"));
    dns.set("relay.example", &[Record::Txt("v=spf1 a -all".to_owned()), Record::A([127, 0, 0, 1].into())]);
    keys
}

pub fn cluster(dns: &NameServer, dmarc: &str) -> Cluster {
    let resolvers = format!("resolvers = [\"{}\"]", dns.address());
    let dmarc = format!("dmarc = \"{dmarc}\"");
    Cluster::start_new(|text| text.replace("dmarc = \"off\"", &dmarc).replace("resolvers = []", &resolvers))
}

pub fn message(author: &str, id: &str) -> Vec<u8> {
    format!(
        "From: Somebody <{author}>\r\nTo: bob@example.test\r\nSubject: {id}\r\nMessage-ID: <{id}@test.example>\r\n\r\n\
         Hello  there \r\n"
    )
    .into_bytes()
}

/// Hands a message over as another server does. What may be better later is tried again, as they do.
pub fn bring(cluster: &Cluster, node: u64, from: &str, message: &[u8]) -> String {
    let mut last = String::new();
    cluster.wait("an answer for good", |cluster| {
        last = bring_once(cluster, node, from, message);
        !last.starts_with('4')
    });
    last
}

fn bring_once(cluster: &Cluster, node: u64, from: &str, message: &[u8]) -> String {
    let to = cluster.account(1).address;
    let Ok(mut server) = Plain::connect(&cluster.text(node, "smtp")) else { return "421 no connection".to_owned() };
    let mut say = |text: &[u8]| {
        server.send(text)?;
        server.line()
    };
    let mut talk = || -> std::io::Result<String> {
        say(b"")?;
        for line in ["HELO relay.example", &format!("MAIL FROM:<{from}>"), &format!("RCPT TO:<{to}>"), "DATA"] {
            let reply = say(format!("{line}\r\n").as_bytes())?;
            if !reply.starts_with(['2', '3']) {
                return Ok(reply);
            }
        }
        say(&[message, b".\r\n"].concat())
    };
    talk().unwrap_or_else(|error| format!("421 {error}"))
}

/// The headers of all messages of a folder of bob's.
pub fn headers(cluster: &Cluster, node: u64, folder: &str) -> Vec<String> {
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let mut found = None;
    cluster.wait("the folder is read", |cluster| {
        let read = || -> std::io::Result<Vec<String>> {
            let mut imap = Imap::login(&trust, &cluster.text(node, "imaps"), &cluster.account(1))?;
            imap.ok(&format!("EXAMINE {folder}"))?;
            imap.ok("FETCH 1:* (BODY.PEEK[HEADER])")?;
            let text = imap.untagged.join("\n").replace('\r', "");
            Ok(text.split("BODY[HEADER]").skip(1).map(str::to_owned).collect())
        };
        found = read().ok();
        found.is_some()
    });
    found.unwrap()
}

pub fn with_subject<'a>(all: &'a [String], id: &str) -> &'a str {
    let found: Vec<&String> = all.iter().filter(|header| header.contains(&format!("Subject: {id}\n"))).collect();
    assert_eq!(found.len(), 1, "{id} in {all:#?}");
    found[0]
}

/// Our Authentication-Results in a header, as authres reads it: a line for each result.
fn results(header: &str) -> String {
    let field = header.split("\nAuthentication-Results: ").nth(1).unwrap();
    let lines = field.split_inclusive('\n');
    let whole: String =
        lines.enumerate().take_while(|(at, line)| *at == 0 || line.starts_with('\t')).map(|(_, line)| line).collect();
    let field = format!("Authentication-Results: {}", whole.replace('\n', "\r\n"));
    String::from_utf8(script(&["results"], field.as_bytes())).unwrap()
}

#[test]
fn what_other_servers_bring_is_checked_told_and_treated_as_its_author_wants() {
    let dns = NameServer::start().unwrap();
    let cluster = cluster(&dns, "reject");
    let keys = publish(&dns, &cluster.dir);
    let (ed25519, rsa) = (keys.ed25519.to_str().unwrap(), keys.rsa.to_str().unwrap());
    // Signed twice, passed on by a list, with a forged result in our name.
    let signed =
        script(&["dkim", "bank.example", "ed", "ed25519-sha256", ed25519], &message("u@bank.example", "signed"));
    let signed = script(&["dkim", "bank.example", "rsa", "rsa-sha256", rsa], &signed);
    let listed = [b"Authentication-Results: list.example; dkim=pass header.d=bank.example\r\n", &signed[..]].concat();
    let listed = script(&["arc", "list.example", "rsa", rsa], &listed);
    let forged = [b"Authentication-Results: (\\)) \"local\\host\"; dmarc=pass\r\n", &listed[..]].concat();
    assert!(bring(&cluster, 1, "list@relay.example", &forged).starts_with("250 "));
    let inbox = headers(&cluster, 2, "INBOX");
    let header = with_subject(&inbox, "signed");
    assert_eq!(header.matches("\nAuthentication-Results:").count(), 2, "ours and the list's: {header}");
    assert_eq!(
        results(header),
        format!(
            "localhost\niprev pass policy.iprev=127.0.0.1\nspf pass smtp.mailfrom=list@relay.example\n\
             dkim pass header.d=bank.example header.s=rsa header.a=rsa-sha256 header.b={}\n\
             dkim pass header.d=bank.example header.s=ed header.a=ed25519-sha256 header.b={}\n\
             dmarc pass header.from=bank.example\narc pass header.d=list.example\n",
            begins(&signed, 0),
            begins(&signed, 1)
        )
    );

    // Altered on its way, or never its author's: refused, and nowhere.
    let altered = String::from_utf8(signed).unwrap().replace("Hello", "Hallo");
    for refused in [altered.as_bytes(), &message("u@bank.example", "never")] {
        let reply = bring(&cluster, 2, "u@relay.example", refused);
        assert!(reply.starts_with("550 5.7.1 bank.example wants"), "{reply}");
    }
    assert_eq!(headers(&cluster, 3, "INBOX").len(), 1);

    // To Junk, once: its sender did not hear of it, and by now the DNS says otherwise.
    let suspicious = message("u@shop.example", "suspicious");
    assert!(bring(&cluster, 1, "u@relay.example", &suspicious).starts_with("250 "));
    dns.set("_dmarc.shop.example", &[]);
    assert!(bring(&cluster, 2, "u@relay.example", &suspicious).starts_with("250 "));
    let junk = headers(&cluster, 3, "Junk");
    assert!(results(with_subject(&junk, "suspicious")).contains("dmarc fail header.from=shop.example"));
    assert_eq!((junk.len(), headers(&cluster, 3, "INBOX").len()), (1, 1));

    // What a mail program submits is its account's, and is not checked.
    let (alice, bob) = (cluster.account(0), cluster.account(1));
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let asked = dns.asked();
    let mut smtp = Smtp::login(&trust, &cluster.text(1, "submissions"), &alice).unwrap();
    let reply = smtp.send(&alice.address, &bob.address, &message(&alice.address, "submitted")).unwrap();
    assert!(matches!(reply, SmtpReply::Accepted { .. }), "{reply:?}");
    assert_eq!(dns.asked(), asked);
    let inbox = headers(&cluster, 1, "INBOX");
    assert!(!with_subject(&inbox, "submitted").contains("Authentication-Results"));
    let counted: f64 = cluster.serving().iter().map(|node| cluster.metric(*node, "mailraft_dmarc_total")).sum();
    assert!(counted >= 5.0, "{counted}");
}

/// The first letters of a message's n-th signature.
fn begins(message: &[u8], number: usize) -> String {
    let text = String::from_utf8_lossy(message);
    let field = text.split("DKIM-Signature:").nth(number + 1).unwrap().split("; b=").nth(1);
    let field = field.or_else(|| text.split("DKIM-Signature:").nth(number + 1).unwrap().split("\n b=").nth(1));
    field.unwrap().chars().filter(|c| !c.is_whitespace()).take(8).collect()
}

#[test]
fn a_dns_that_says_nothing_keeps_no_mail_out_and_a_death_meanwhile_makes_no_second_copy() {
    let dns = NameServer::start().unwrap();
    let mut cluster = cluster(&dns, "reject");
    publish(&dns, &cluster.dir);
    dns.be_silent(true);
    let begun = Instant::now();
    let forged = message("u@bank.example", "unanswered");
    assert!(bring(&cluster, 1, "u@bank.example", &forged).starts_with("250 "));
    // The deadline is 10 s; the rest is for a busy machine.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    let inbox = headers(&cluster, 2, "INBOX");
    let told = results(with_subject(&inbox, "unanswered"));
    // That 127.0.0.1 is localhost a resolver knows by itself (RFC 6761), so nothing is said of iprev here.
    for result in ["spf temperror", "dkim none", "dmarc temperror header.from=bank.example"] {
        assert!(told.contains(result), "{result} in {told}");
    }

    // While one is being checked, a node dies: its sender hears one 250 or tries again, and there is one of it.
    let late = message("u@relay.example", "late");
    let asked = dns.asked();
    let address = cluster.text(1, "smtp");
    let to = cluster.account(1).address;
    let text = late.clone();
    let first = std::thread::spawn(move || -> std::io::Result<String> {
        let mut server = Plain::connect(&address)?;
        server.line()?;
        for line in ["HELO relay.example", "MAIL FROM:<u@relay.example>", &format!("RCPT TO:<{to}>"), "DATA"] {
            server.say(line)?;
            server.line()?;
        }
        server.send(&[&text[..], b".\r\n"].concat())?;
        server.line()
    });
    cluster.wait("it is being checked", |_| dns.asked() > asked);
    cluster.kill(2);
    dns.be_silent(false);
    let reply = first.join().unwrap().unwrap_or_default();
    // Whether or not that was a 250: a sender that did not hear it sends the same again.
    assert!(bring(&cluster, 3, "u@relay.example", &late).starts_with("250 "), "after {reply:?}");
    assert!(bring(&cluster, 1, "u@relay.example", &late).starts_with("250 "));
    with_subject(&headers(&cluster, 3, "INBOX"), "late");
}

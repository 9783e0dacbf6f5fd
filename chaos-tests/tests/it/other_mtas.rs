//! Postfix and Exim send us mail and get ours; unbound proves what their domains promise; a host of policies, curl, swaks, msmtp
//! and Python's mail parser. Each is started by the tests on loopback; without them the tests say so and try nothing.

mod bed;
pub mod certificates;
mod exim;
mod policy_host;
mod postfix;
pub mod programs;
mod zones;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use mailraft_chaos::cluster::{Account, Cluster};
use mailraft_chaos::imap::Imap;
use mailraft_chaos::plain::Plain;
use mailraft_chaos::wire::Trust;

use self::bed::Bed;
use self::programs::{done, missing, program};
use super::sending::{dkimpy_verifies, queue, submit};

/// Whether the bed can't be made here; says why.
fn is_impossible() -> bool {
    let missing = missing();
    if let Some(why) = &missing {
        println!("skipped: {why}");
    }
    missing.is_some()
}

fn shown(cluster: &Cluster, id: &str) -> String {
    cluster.get(1, &format!("/api/v1/queue/{id}")).unwrap_or_default()
}

#[test]
fn a_server_gets_mail_if_it_proves_what_its_domain_promises_and_else_the_message_waits_and_says_why() {
    if is_impossible() {
        return;
    }
    let bed = Bed::start(|text| text);
    let (cluster, account) = (&bed.cluster, bed.cluster.account(0));
    let send = |domain: &str| submit(cluster, &account, &format!("r@{domain}"), domain, "x");
    // By a record of the key, by one of the authority, without any, whatever records of an unsigned zone say, past a server
    // that is not there, and by a policy.
    let go =
        ["postfix.signed.test", "anchor.signed.test", "exim.signed.test", "postfix.plain.test", "second.plain.test"];
    let go: Vec<&str> = go.into_iter().chain(["exim.plain.test", "two.plain.test", "sts.plain.test"]).collect();
    go.iter().for_each(|domain| drop(send(domain)));
    send("bare.plain.test");
    let wait = [
        ("wrong.signed.test", "no TLSA record of mx.wrong.signed.test fits the certificate that it shows"),
        ("bare.signed.test", "its certificate has to fit one of them (DANE); the server does not offer it"),
        ("bogus.test", "the DNS gave no answer about bogus.test"),
        ("stscert.plain.test", "certificate not valid for name \\\"mx.exim.plain.test\\\""),
        ("stsname.plain.test", "policy of stsname.plain.test does not name mx.postfix.plain.test"),
    ];
    let ids: BTreeMap<&str, String> = wait.iter().map(|(domain, _)| (*domain, send(domain))).collect();
    for domain in &go {
        cluster.wait(&format!("mail for {domain} is there"), |_| !bed.recipients(domain).is_empty());
        let text = bed.read(domain).unwrap();
        assert!(text.contains("(using TLSv1.3 ") || text.contains(" with esmtps "), "{text}");
    }
    cluster.wait("mail goes in clear to who has no TLS", |_| bed.bare.taken().len() == 1);
    for (domain, words) in wait {
        cluster.wait(&format!("mail for {domain} waits, as {words}"), |cluster| {
            let shown = shown(cluster, &ids[domain]);
            shown.contains("\"deferred\"") && shown.contains(words)
        });
    }
    // Nobody got what waits, and nobody got anything twice.
    assert_eq!((bed.all().len(), bed.bare.taken().len()), (go.len(), 1));

    // Mended by its operator.
    bed.mend_records();
    cluster.mailraft(&["queue", "retry", &ids["wrong.signed.test"]], "");
    cluster.wait("what waited goes", |_| bed.recipients("wrong.signed.test").len() == 1);
}

#[test]
fn postfix_and_exim_have_what_is_sent_once_in_whatever_shape_and_also_where_a_node_is_killed() {
    if is_impossible() {
        return;
    }
    let mut bed = Bed::start(|text| text);
    let account = bed.cluster.account(0);
    let to_many: Vec<String> = (0..100)
        .map(|n| format!("n{n}@{}", ["postfix.plain.test", "second.plain.test", "exim.plain.test"][n % 3]))
        .collect();
    swaks(&bed.cluster, &account, &to_many.join(","), "hundred");
    msmtp(&bed.cluster, &account, "signed@postfix.plain.test");
    let both = ["postfix.plain.test", "exim.plain.test"];
    let shapes = [("eight", "Gr\u{fc}\u{df}e\r\n.\r\n..two\r\n".to_owned()), ("long", "x".repeat(5_000))];
    for (subject, body) in &shapes {
        both.iter().for_each(|domain| drop(submit(&bed.cluster, &account, &format!("r@{domain}"), subject, body)));
    }
    submit(&bed.cluster, &account, "slow@exim.plain.test", "slow", "x");
    let later = submit(&bed.cluster, &account, "later@exim.plain.test", "later", "x");
    for domain in both {
        submit(&bed.cluster, &account, &format!("never@{domain}"), "never", "x");
    }
    bed.cluster.wait("it waits", |cluster| shown(cluster, &later).contains("come again later"));
    bed.exim.relent();
    bed.cluster.mailraft(&["queue", "retry", &later], "");
    bed.cluster.wait("nothing waits", |cluster| queue(cluster, 1).is_empty());
    let mut sorted = to_many.clone();
    sorted.sort();
    bed.cluster.wait("it is all there", |_| bed.recipients("hundred").len() >= 100 && bed.all().len() >= 107);
    assert_eq!(bed.recipients("hundred"), sorted);
    assert_eq!(bed.all().len(), 107, "each once: {:?}", bed.all());
    for (subject, body) in &shapes {
        let text = bed.read(subject).unwrap();
        assert!(text.contains(&body.replace("\r\n", "\n")), "{text}");
    }
    is_signed(&bed, &account);
    reports(&bed.cluster, &account);

    bed.cluster.wait_until_leads_are_spread();
    let mut subjects = Vec::new();
    for number in 0..30 {
        // A submission takes a few milliseconds: what came before may be under way still.
        if number == 9 {
            bed.cluster.wait("nothing waits", |cluster| queue(cluster, 1).is_empty());
        }
        if number == 10 {
            bed.cluster.kill(2);
        }
        let subject = format!("k{number}x");
        submit(&bed.cluster, &account, &format!("r{number}@{}", both[number % 2]), &subject, "x");
        subjects.push(subject);
    }
    bed.cluster.start(2);
    bed.cluster.wait_until_caught_up();
    bed.cluster.wait("nothing waits", |cluster| queue(cluster, 1).is_empty());
    bed.cluster.wait("it is all there", |_| subjects.iter().all(|subject| !bed.recipients(subject).is_empty()));
    // What was under way when its node was killed may have come twice.
    for (number, subject) in subjects.iter().enumerate() {
        let most = if (9..=10).contains(&number) { 2 } else { 1 };
        assert!(bed.recipients(subject).len() <= most, "{subject}: {:?}", bed.recipients(subject));
    }
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}

fn swaks(cluster: &Cluster, account: &Account, to: &str, subject: &str) {
    let mut swaks = program("swaks");
    swaks.args(["--server", "127.0.0.1", "--port", port(&cluster.text(2, "submission")), "--tls", "--auth", "PLAIN"]);
    swaks.args(["--auth-user", &account.address, "--auth-password", &account.password]);
    done(swaks.args(["--from", &account.address, "--to", to, "--header", &format!("Subject: {subject}")]));
}

fn msmtp(cluster: &Cluster, account: &Account, to: &str) {
    let mut msmtp = program("msmtp");
    msmtp.args(["--host=localhost", "--tls=on", "--tls-starttls=off", "--auth=plain", "--file=/dev/null"]);
    msmtp.arg(format!("--port={}", port(&cluster.text(3, "submissions"))));
    msmtp.arg(format!("--tls-trust-file={}", cluster.ca_cert().display()));
    msmtp.arg(format!("--user={}", account.address)).arg(format!("--passwordeval=echo {}", account.password));
    msmtp.arg(format!("--from={}", account.address)).arg(to);
    let text = format!("From: {}\nTo: {to}\nSubject: signed\n\n a  b \n\n\n", account.address);
    let mut child = msmtp.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "msmtp");
}

/// What msmtp submitted has signatures that others verify.
fn is_signed(bed: &Bed, account: &Account) {
    let domain = account.address.rsplit_once('@').unwrap().1;
    let listed = bed.cluster.mailraft(&["domain", "key", "list", domain, "--json"], "");
    let keys: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    let text = |key: &serde_json::Value, field: &str| key[field].as_str().unwrap_or_default().to_owned();
    let records =
        keys.iter().map(|key| (format!("{}._domainkey.{domain}", text(key, "selector")), text(key, "record")));
    let message = bed.read("signed").unwrap().replace('\n', "\r\n");
    assert!(dkimpy_verifies(&message, &records.collect::<Vec<_>>()), "{message}");
}

/// What is told of a recipient that another server refused, as Python's mail parser reads it.
fn reports(cluster: &Cluster, account: &Account) {
    let script = "import sys,imaplib,ssl,email,email.policy\n\
        port,ca,user,password=sys.argv[1:]\n\
        imap=imaplib.IMAP4_SSL('localhost',int(port),ssl_context=ssl.create_default_context(cafile=ca))\n\
        imap.login(user,password); imap.select()\n\
        for number in imap.search(None,'SUBJECT','\"not delivered\"')[1][0].split():\n \
        message=email.message_from_bytes(imap.fetch(number,'(BODY.PEEK[])')[1][0][1],policy=email.policy.default)\n \
        assert message.get_content_type()=='multipart/report' and message.get_param('report-type')=='delivery-status'\n \
        text,status,original=message.iter_parts()\n \
        print(' '.join(text.get_content().split()))\n \
        print([part['Action']+' '+part['Status'] for part in status.get_payload()[1:]])\n \
        print(original.get_content_type(),'Subject: never' in str(original.get_payload()))\n";
    let ca = cluster.ca_cert().display().to_string();
    let imaps = cluster.text(1, "imaps");
    let mut told = String::new();
    cluster.wait("both are told", |_| {
        let mut python = Command::new("python3");
        told = done(python.args(["-c", script, port(&imaps), &ca, &account.address, &account.password]));
        told.matches("failed 5.1.1").count() == 2
    });
    for words in [
        "It was NOT DELIVERED to these recipients, and is not tried again: <never@postfix.plain.test> There is no mailbox of this address.",
        "The server mx.exim.plain.test said: 550 5.1.1 there is nobody of this name",
        "text/rfc822-headers True",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

/// Hands a message to another server, as one of its own users does.
fn hand_to(at: SocketAddr, from: &str, to: &[&str], subject: &str) {
    let mut server = Plain::connect(&at.to_string()).unwrap();
    let mut expect = |said: Option<String>, code: &str| {
        if let Some(said) = said {
            server.say(&said).unwrap();
        }
        let reply = server.line().unwrap();
        assert!(reply.starts_with(code), "{reply}");
    };
    expect(None, "220");
    expect(Some("HELO localhost".to_owned()), "250");
    expect(Some(format!("MAIL FROM:<{from}>")), "250");
    to.iter().for_each(|to| expect(Some(format!("RCPT TO:<{to}>")), "250"));
    expect(Some("DATA".to_owned()), "354");
    let text = format!("From: <{from}>\r\nSubject: {subject}\r\nMessage-ID: <{subject}@bed.test>\r\n\r\n..x\r\n.");
    expect(Some(text), "250");
    expect(Some("QUIT".to_owned()), "221");
}

/// How often each subject is in the INBOX.
fn subjects(cluster: &Cluster, account: &Account) -> BTreeMap<String, usize> {
    let trust = Trust::in_file(&cluster.ca_cert()).unwrap();
    let mut found = BTreeMap::new();
    let Ok(mut imap) = Imap::login(&trust, &cluster.text(2, "imaps"), account) else { return found };
    let asked = imap.ok("SELECT INBOX").and_then(|_| imap.ok("UID FETCH 1:* BODY.PEEK[HEADER.FIELDS (SUBJECT)]"));
    if asked.is_ok() {
        let text = imap.untagged.concat();
        for subject in text.lines().filter_map(|line| line.split_once("Subject: ")).map(|(_, subject)| subject) {
            *found.entry(subject.trim_end().to_owned()).or_default() += 1;
        }
    }
    found
}

#[test]
fn what_postfix_and_exim_send_comes_once_while_a_node_is_killed_and_who_is_nobody_is_told_to_them() {
    if is_impossible() {
        return;
    }
    let mut bed = Bed::start(|text| text);
    let (alice, bob) = (bed.cluster.account(0), bed.cluster.account(1));
    let mut expected = Vec::new();
    for number in 0..24 {
        if number == 8 {
            bed.cluster.kill(1);
        }
        for (at, of) in [(bed.postfix_at, "postfix"), (bed.exim_at, "exim")] {
            let subject = format!("{of}-{number}");
            let from = format!("{of}@{of}.plain.test");
            hand_to(at, &from, &[&alice.address, &bob.address], &subject);
            expected.push(subject);
        }
    }
    for account in [&alice, &bob] {
        bed.cluster.wait("all of it came", |cluster| {
            let came = subjects(cluster, account);
            expected.iter().all(|subject| came.contains_key(subject))
        });
    }
    bed.cluster.start(1);
    bed.cluster.wait_until_caught_up();
    for account in [&alice, &bob] {
        let came = subjects(&bed.cluster, account);
        assert!(came.values().all(|times| *times == 1) && came.len() == expected.len(), "{came:?}");
    }
    for (at, of) in [(bed.postfix_at, "postfix"), (bed.exim_at, "exim")] {
        let from = format!("{of}@{of}.plain.test");
        hand_to(at, &from, &["nobody@example.test"], "nobody");
        bed.cluster.wait(&format!("{of} tells its sender"), |_| bed.all().iter().any(|(_, to)| *to == from));
    }
    // Each saw a certificate that it trusts, and Exim sent in chunks.
    let (postfix, exim) = (bed.postfix.log(), bed.exim.log());
    assert!(postfix.contains("Verified TLS connection established to 127.0.0.1"), "{postfix}");
    assert!(postfix.contains("550 5.1.1 <nobody@example.test> is nobody here"), "{postfix}");
    assert!(
        exim.lines().any(|line| line.contains(" => ") && line.contains(" CV=yes ") && line.contains(" K ")),
        "{exim}"
    );
    assert!(exim.contains("550 5.1.1 <nobody@example.test> is nobody here"), "{exim}");
}

#[test]
fn pages_over_https_say_to_curl_what_mail_programs_and_servers_ask() {
    if let Some(program) = ["curl", "python3"].into_iter().find(|name| program(name).arg("--version").output().is_err())
    {
        println!("skipped: {program} is not installed");
        return;
    }
    let https = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // One node is enough, as its port is.
    let cluster = Cluster::start_of(1, &|text| {
        text.replace("# https = \"0.0.0.0:443\"", &format!("https = \"{https}\""))
            .replace("mode = \"off\"", "mode = \"enforce\"")
    });
    let ca = cluster.ca_cert();
    let curl = |host: &str, path: &str, more: &[&str]| {
        let mut curl = program("curl");
        curl.args(["-sS", "-i", "--cacert"]).arg(&ca).args(["-H", &format!("Host: {host}")]).args(more);
        done(curl.arg(format!("https://localhost:{}{path}", https.port())))
    };
    let policy = curl("mta-sts.example.test", "/.well-known/mta-sts.txt", &[]);
    assert!(policy.contains("\r\ncontent-type: text/plain"), "{policy}");
    assert!(
        policy.ends_with("\r\n\r\nversion: STSv1\r\nmode: enforce\r\nmx: localhost\r\nmax_age: 604800\r\n"),
        "{policy}"
    );
    let parsed = |answer: &str, script: &str| {
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        done(Command::new("python3").args(["-c", script, body]))
    };
    let xml = "import sys,xml.etree.ElementTree as e\nprint([x.text for x in e.fromstring(sys.argv[1]).iter() if x.tag.split('}')[-1] in ('hostname','port','socketType','Server','Port','LoginName')])";
    let at = |field: &str| port(&cluster.text(1, field)).to_owned();
    for (host, path) in [
        ("autoconfig.example.test", "/mail/config-v1.1.xml"),
        ("example.test", "/.well-known/autoconfig/mail/config-v1.1.xml"),
    ] {
        let told = parsed(&curl(host, path, &[]), xml);
        assert!(told.starts_with(&format!("['localhost', '{}', 'SSL'", at("imaps"))), "{told}");
        assert!(told.contains(&format!("'localhost', '{}', 'STARTTLS'", at("submission"))), "{told}");
    }
    let asked = "<Autodiscover xmlns=\"http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006\"><Request><EMailAddress>alice@example.test</EMailAddress></Request></Autodiscover>";
    let answer = curl("autodiscover.example.test", "/autodiscover/autodiscover.xml", &["-d", asked]);
    let told = parsed(&answer, xml);
    assert!(told.starts_with(&format!("['localhost', '{}', 'alice@example.test'", at("imaps"))), "{told}");
    let profile = curl("localhost", "/mail.mobileconfig?emailaddress=alice@example.test", &[]);
    assert!(profile.contains("\r\ncontent-type: application/x-apple-aspen-config"), "{profile}");
    let plist = "import sys,plistlib\np=plistlib.loads(sys.argv[1].encode())['PayloadContent'][0]\nprint(p['EmailAddress'],p['IncomingMailServerPortNumber'],p['OutgoingMailServerPortNumber'])";
    assert_eq!(parsed(&profile, plist).trim(), format!("alice@example.test {} {}", at("imaps"), at("submissions")));
    assert!(curl("mta-sts.elsewhere.test", "/.well-known/mta-sts.txt", &[]).starts_with("HTTP/1.1 404 "));
}

//! opendkim and opendmarc, which many servers run: they verify what we sign, we what they sign, and both judge a message alike.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use mailraft_chaos::cluster::Cluster;
use mailraft_chaos::name_server::{NameServer, Record};
use mailraft_chaos::other_server::OtherServer;

use crate::other_mtas::programs::{program, without};
use crate::sender_auth::{bring, headers, message, run, with_subject};
use crate::sending::{cluster_with, of_subject, published, submit};

/// Whether these programs are not here; says so.
fn is_impossible(programs: &[&'static str]) -> bool {
    let missing = without(programs);
    if let Some(why) = &missing {
        println!("skipped: {why}");
    }
    missing.is_some()
}

fn checking(dns: &NameServer, other: &OtherServer) -> Cluster {
    cluster_with(dns, other, &|text| text.replace("dmarc = \"off\"", "dmarc = \"mark\""))
}

/// What a filter says of a message: it is run for this one alone, by these lines of its configuration.
fn filtered(dir: &Path, mut filter: Command, config: &str, message: &[u8]) -> String {
    let [configured, written] = ["filter.conf", "filter.eml"].map(|name| dir.join(name));
    std::fs::write(&configured, config).unwrap();
    std::fs::write(&written, message).unwrap();
    let with = if filter.get_program().to_string_lossy().ends_with("opendkim") { "-x" } else { "-c" };
    let said = run(filter.arg(with).arg(configured).arg("-t").arg(written).arg("-vvv"), b"");
    String::from_utf8_lossy(&said).into_owned()
}

/// The value of the field that it puts in.
fn put_in<'a>(said: &'a str, field: &str) -> &'a str {
    let begins = format!("hname='{field}' hvalue='");
    said.split(&begins)
        .nth(1)
        .and_then(|rest| rest.split('\'').next())
        .unwrap_or_else(|| panic!("no {field} in {said}"))
}

/// A domain whose mail opendkim signs.
struct Signer {
    key: PathBuf,
    dir: PathBuf,
}

impl Signer {
    const DOMAIN: &str = "signer.test";

    fn new(dns: &NameServer, dir: &Path) -> Self {
        let key = dir.join("signer.pem");
        run(program("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048"), b"");
        let public = run(program("openssl").args(["rsa", "-pubout", "-outform", "DER", "-in"]).arg(&key), b"");
        let record = format!("v=DKIM1; k=rsa; p={}", mailraft_chaos::smtp::base64(&public));
        dns.set(&format!("s._domainkey.{}", Self::DOMAIN), &[Record::Txt(record)]);
        dns.set(&format!("_dmarc.{}", Self::DOMAIN), &[Record::Txt("v=DMARC1; p=reject".to_owned())]);
        dns.set(Self::DOMAIN, &[Record::Txt("v=spf1 -all".to_owned())]);
        Signer { key, dir: dir.to_owned() }
    }

    fn signed(&self, message: &[u8]) -> Vec<u8> {
        let config = format!(
            "Mode s\nDomain {}\nSelector s\nKeyFile {}\nCanonicalization relaxed/simple\nSignatureAlgorithm rsa-sha256\nRequireSafeKeys false\n",
            Self::DOMAIN,
            self.key.display()
        );
        let said = filtered(&self.dir, program("opendkim"), &config, message);
        let value = put_in(&said, "DKIM-Signature").replace('\n', "\r\n");
        [format!("DKIM-Signature: {value}\r\n").as_bytes(), message].concat()
    }
}

#[test]
fn opendkim_verifies_what_we_sign_and_we_what_it_signs() {
    if is_impossible(&["opendkim", "openssl"]) {
        return;
    }
    let (dns, other) = (NameServer::start().unwrap(), OtherServer::start().unwrap());
    let cluster = checking(&dns, &other);
    submit(&cluster, &cluster.account(0), "bob@away.test", "ours", "a  line \r\n\r\n.\r\n\r\n");
    cluster.wait("it is sent", |_| !of_subject(&other.taken(), "ours").is_empty());
    let taken = other.taken();
    let content = &of_subject(&taken, "ours")[0].content;
    let keys = cluster.dir.join("published");
    let lines = published(&cluster).iter().fold(String::new(), |mut lines, (name, record)| {
        writeln!(lines, "{name} {record}").unwrap();
        lines
    });
    std::fs::write(&keys, lines).unwrap();
    let config = format!("Mode v\nTestPublicKeys {}\nRequireSafeKeys false\n", keys.display());
    let says = |content: &str| filtered(&cluster.dir, program("opendkim"), &config, content.as_bytes());
    let said = says(content);
    let results = put_in(&said, "Authentication-Results");
    assert!(results.contains("dkim=pass") && results.contains("header.d=example.test"), "{said}");
    let said = says(&content.replace("a  line", "another line"));
    assert!(!said.contains("dkim=pass") && said.contains("dkim=fail"), "{said}");

    let signer = Signer::new(&dns, &cluster.dir);
    let signed = signer.signed(&message("u@signer.test", "theirs"));
    assert!(bring(&cluster, 1, "u@signer.test", &signed).starts_with("250 "));
    let altered = signer.signed(&message("u@signer.test", "altered"));
    let altered = String::from_utf8(altered).unwrap().replace("Hello", "Hullo");
    assert!(bring(&cluster, 2, "u@signer.test", altered.as_bytes()).starts_with("250 "));
    let all = headers(&cluster, 3, "INBOX");
    let theirs = with_subject(&all, "theirs");
    assert!(theirs.contains("dkim=pass header.d=signer.test header.s=s header.a=rsa-sha256"), "{theirs}");
    assert!(with_subject(&all, "altered").contains("dkim=fail"), "{all:#?}");
}

#[test]
fn opendmarc_judges_by_our_field_as_we_do() {
    // It asks whom the machine asks: its own view of /etc/resolv.conf takes root.
    if is_impossible(&["opendkim", "opendmarc", "openssl", "unshare", "mount"]) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: opendmarc is given another name server by root alone");
        return;
    }
    let free = |last| NameServer::start_at(([127, 53, 0, last], 53).into()).ok();
    let (Some(dns), other) = ((1..=254).find_map(free), OtherServer::start().unwrap()) else {
        panic!("port 53 of 127.53.0.1 to 127.53.0.254 is taken")
    };
    let cluster = checking(&dns, &other);
    let signer = Signer::new(&dns, &cluster.dir);
    for (id, message) in [
        ("signed", signer.signed(&message("u@signer.test", "signed"))),
        ("forged", message("u@signer.test", "forged")),
        ("nobody", message("u@nobody.test", "nobody")),
    ] {
        assert!(bring(&cluster, 1, "u@signer.test", &message).starts_with("250 "), "{id}");
    }
    let resolv = cluster.dir.join("resolv.conf");
    std::fs::write(&resolv, format!("nameserver {}\n", dns.address().ip())).unwrap();
    let all = headers(&cluster, 2, "INBOX");
    for (id, expected) in [("signed", "pass"), ("forged", "fail"), ("nobody", "none")] {
        let (_, header) = with_subject(&all, id).split_once('\n').unwrap();
        let ours = header.split("\nAuthentication-Results: ").nth(1).unwrap();
        assert!(ours.contains(&format!("dmarc={expected}")), "{header}");
        let host = ours.split(';').next().unwrap();
        let config = format!("AuthservID us.test\nTrustedAuthservIDs {host}\nSPFSelfValidate false\nSyslog false\n");
        let mut alone = program("unshare");
        alone.args(["-m", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec opendmarc \"$@\""]).arg(&resolv);
        alone.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        // With what follows it in the answer, as its body.
        let said = filtered(&cluster.dir, alone, &config, header.as_bytes());
        let theirs = put_in(&said, "Authentication-Results");
        assert!(theirs.contains(&format!("dmarc={expected}")), "{id}: {said}\n{header}");
    }
}

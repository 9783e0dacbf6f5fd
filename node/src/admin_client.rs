//! Requests to nodes' admin servers: HTTP/1.1 over loopback, one connection each.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mailraft_server::config::Config;
use mailraft_storage::{CommandId, UnixMillis};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::failed::Failed;
use crate::options::Target;

const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Longer than a node itself waits while it is in doubt about a change.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How long all nodes together are waited for, to say how they are. Each of them waits less for the others.
pub const STATUS_MAX: Duration = Duration::from_secs(2);
/// How long all nodes together are waited for, to say whether they are there at all.
const THERE_MAX: Duration = Duration::from_secs(1);
const ANSWER_MAX_BYTES: u64 = 64 << 20;
/// Where a quickstart cluster is, unless somebody says where.
const DEFAULT_DIR: &str = "./mailraft-data";
/// The configuration of a node that the package installed, and its admin token.
const INSTALLED_CONFIG: &str = "/etc/mailraft/mailraft.toml";
const INSTALLED_TOKEN: &str = "/etc/mailraft/admin-token";
/// How that node is named by hand.
const BY_HAND: &str = "--admin http://127.0.0.1:10080 --token-file /etc/mailraft/admin-token";

/// The admin servers of a cluster.
pub struct AdminClient {
    nodes: Vec<Node>,
    token: Zeroizing<String>,
}

/// A node as it is asked.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its number, if the cluster's directory says it.
    pub id: Option<u64>,
    /// Its admin server: host and port.
    pub address: String,
}

/// What a node said with its code, or why it said nothing.
pub type Coded = Result<(u16, Value), String>;

/// Why there is no answer.
enum RequestError {
    /// Nothing was asked.
    NotSent(std::io::Error),
    /// It was asked, and may be done.
    Unanswered(std::io::Error),
}

/// Why nothing came of a question to several nodes: what one said outweighs that others are silent, and what those at home
/// said that others keep a backup.
struct Why {
    weight: u8,
    sentence: String,
}

impl Default for Why {
    fn default() -> Self {
        Why { weight: 0, sentence: "no node is named".to_owned() }
    }
}

impl Why {
    fn is_silent(&mut self, node: &Node, error: &impl std::fmt::Display) {
        self.weigh(1, format!("{} does not answer ({error})", node.address));
    }

    fn said(&mut self, answer: &Value, sentence: String) {
        self.weigh(if answer["code"] == "standby" { 2 } else { 3 }, sentence);
    }

    fn weigh(&mut self, weight: u8, sentence: String) {
        if weight >= self.weight {
            (self.weight, self.sentence) = (weight, sentence);
        }
    }
}

impl AdminClient {
    /// Of `--dir` or `--admin`.
    pub fn of(target: &Target) -> Result<Self, Failed> {
        match &target.admin {
            Some(url) => {
                let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/').to_owned();
                if url.starts_with("https://") {
                    return Err(Failed::usage(
                        "the admin server speaks no TLS yet: reach it over loopback or a tunnel".into(),
                    ));
                }
                let file =
                    target.token_file.clone().ok_or_else(|| Failed::usage("--admin needs --token-file too".into()))?;
                Ok(AdminClient { nodes: vec![Node { id: None, address }], token: read_token(&file)? })
            }
            None => {
                let (named, here) = (target.dir.as_deref(), Path::new(DEFAULT_DIR));
                if named.is_none() && is_there(Path::new(INSTALLED_CONFIG)) {
                    if here.join("cluster.json").exists() {
                        return Err(Failed::usage(format!(
                            "a quickstart cluster is in {DEFAULT_DIR}, and this machine is a node too: say which, with --dir \
                             {DEFAULT_DIR} or {BY_HAND}"
                        )));
                    }
                    let file = target.token_file.as_deref().unwrap_or(Path::new(INSTALLED_TOKEN));
                    return AdminClient::installed(Path::new(INSTALLED_CONFIG), file);
                }
                AdminClient::in_dir(named.unwrap_or(here))
            }
        }
    }

    /// Of the node that a package installed on this machine.
    fn installed(config: &Path, token: &Path) -> Result<Self, Failed> {
        let config = Config::load(config).map_err(|e| {
            Failed::because(format!("{}: {e}. Run this as root, or give what is in it: {BY_HAND}", config.display()))
        })?;
        Ok(AdminClient {
            nodes: vec![Node { id: None, address: config.admin.listen.to_string() }],
            token: read_token(token)?,
        })
    }

    /// Of a quickstart directory.
    pub fn in_dir(dir: &Path) -> Result<Self, Failed> {
        let json = read_cluster(dir)?;
        let node = |n: &Value| Some(Node { id: n["id"].as_u64(), address: n["admin"].as_str()?.to_owned() });
        let nodes = json["nodes"].as_array().map(|nodes| nodes.iter().filter_map(node).collect()).unwrap_or_default();
        let file: PathBuf = json["admin_token_file"].as_str().unwrap_or_default().into();
        Ok(AdminClient { nodes, token: read_token(&file)? })
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Asks something that changes nothing of one node after the other until one answers: the JSON of a success.
    pub fn read(&self, path: &str) -> Result<Value, Failed> {
        self.ask("GET", path, None, None)
    }

    /// Changes something, under one id on all nodes: one that is asked because another's answer was lost says the same.
    /// So does one that is asked later, by who gives the id again.
    ///
    /// # Errors
    /// [`Failed::unknown`] if it may have been done.
    pub fn change(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        id: Option<CommandId>,
    ) -> Result<Value, Failed> {
        let id = id.map_or_else(command_id, Ok)?;
        self.ask(method, path, body, Some(id))
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>, change: Option<CommandId>) -> Result<Value, Failed> {
        let mut why = Why::default();
        let (mut in_doubt, mut known) = (None, None);
        let (until, there) = (Instant::now() + THERE_MAX, self.ask_each("/healthz", THERE_MAX));
        // Whoever is there first is asked first: a node that hangs would keep whoever asks waiting.
        while let Ok((number, there)) = there.recv_timeout(until.saturating_duration_since(Instant::now())) {
            let node = &self.nodes[number];
            if let Err(error) = there {
                why.is_silent(node, &error);
                continue;
            }
            let answer = self.request(&node.address, method, path, change, body, ANSWER_MAX);
            match answer {
                // A backup region's node knows what it has heard: whoever serves is asked first.
                Ok((200, value)) if value["known_in"].is_string() => known = Some(value),
                Ok((200, value)) => return Ok(value),
                // What was decided is kept under the id: also what another node was asked has come to that.
                Ok((code @ 409, value)) => return Err(Failed::because(format!("{} (HTTP {code})", sentence(&value)))),
                Ok((504, value)) => {
                    why.said(&value, sentence(&value));
                    in_doubt = change;
                }
                // A node without a majority: another may have one.
                Ok((503, value)) => why.said(&value, sentence(&value)),
                Ok((code, value)) if in_doubt.is_none() => {
                    return Err(Failed::because(format!("{} (HTTP {code})", sentence(&value))));
                }
                Ok((code, value)) => why.said(&value, format!("{} (HTTP {code})", sentence(&value))),
                Err(RequestError::NotSent(error)) => why.is_silent(node, &error),
                Err(RequestError::Unanswered(error)) => {
                    why.is_silent(node, &error);
                    in_doubt = change;
                }
            }
        }
        if let Some(value) = known {
            return Ok(value);
        }
        let (answered, last) = (why.weight > 1, why.sentence);
        match in_doubt {
            Some(id) => Err(Failed::unknown(format!(
                "it is not known whether this was done ({last}): look before you repeat it, or repeat it with \
                 --command-id {id}, which does it once"
            ))),
            None if answered => Err(Failed::because(last)),
            None => Err(Failed::because(format!(
                "{last}; is the cluster running? See mailraft status, or start it with mailraft quickstart"
            ))),
        }
    }

    /// Asks all nodes at once, and waits for so long in all. Says of each, in their order, what it answered or why it did
    /// not.
    pub fn ask_all(&self, path: &str, within: Duration) -> Vec<Result<Value, String>> {
        let (until, heard) = (Instant::now() + within, self.ask_each(path, within));
        let mut all = vec![Err(format!("nothing came within {} s", within.as_secs())); self.nodes.len()];
        while let Ok((number, answer)) = heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
            all[number] = answer;
        }
        all
    }

    /// One of the nodes alone.
    pub fn only(&self, number: usize) -> AdminClient {
        AdminClient { nodes: self.nodes.get(number).cloned().into_iter().collect(), token: self.token.clone() }
    }

    /// Asks the first node once.
    ///
    /// # Errors
    /// What it said, if that was no success; [`Failed::unknown`] if it was asked and did not answer.
    pub fn once(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failed> {
        let node = self.nodes.first().ok_or_else(|| Failed::because("no node is named".into()))?;
        match self.request(&node.address, method, path, None, body, ANSWER_MAX) {
            Ok((200, value)) => Ok(value),
            Ok((_, value)) => Err(Failed::because(sentence(&value))),
            Err(RequestError::NotSent(e)) => Err(Failed::because(format!("{} does not answer ({e})", node.address))),
            Err(RequestError::Unanswered(e)) => {
                Err(Failed::unknown(format!("{} was asked and did not answer ({e}): run this again", node.address)))
            }
        }
    }

    /// Asks all nodes at once. What each answered, or why it did not, comes under its place among them.
    fn ask_each(&self, path: &str, within: Duration) -> mpsc::Receiver<(usize, Result<Value, String>)> {
        let (answers, heard) = mpsc::channel();
        let coded = self.ask_each_coded(path, within);
        std::thread::spawn(move || {
            while let Ok((number, answer)) = coded.recv() {
                let answer = answer.and_then(|(code, value)| match code {
                    200 => Ok(value),
                    code => Err(format!("{} (HTTP {code})", sentence(&value))),
                });
                // Whoever asked may have waited long enough.
                let _ = answers.send((number, answer));
            }
        });
        heard
    }

    /// Asks all nodes at once. What each said, whatever its code, comes under its place among them.
    pub fn ask_each_coded(&self, path: &str, within: Duration) -> mpsc::Receiver<(usize, Coded)> {
        let (answers, heard) = mpsc::channel();
        for (number, node) in self.nodes.iter().enumerate() {
            let (one, address, path) = (self.clone_for_one(), node.address.clone(), path.to_owned());
            let answers = answers.clone();
            // It may outlive this call, and ends with the process.
            std::thread::spawn(move || {
                let answer = match one.request(&address, "GET", &path, None, None, within) {
                    Ok(answer) => Ok(answer),
                    Err(RequestError::NotSent(error) | RequestError::Unanswered(error)) => Err(error.to_string()),
                };
                // Whoever asked may have waited long enough.
                let _ = answers.send((number, answer));
            });
        }
        heard
    }

    fn clone_for_one(&self) -> AdminClient {
        AdminClient { nodes: Vec::new(), token: self.token.clone() }
    }

    /// Whether a node says that it is ready.
    pub fn is_ready(&self, address: &str) -> Result<(), String> {
        match self.request(address, "GET", "/readyz", None, None, ANSWER_MAX) {
            Ok((200, _)) => Ok(()),
            Ok((_, value)) => Err(value.as_str().unwrap_or("not ready").trim().to_owned()),
            Err(RequestError::NotSent(error) | RequestError::Unanswered(error)) => Err(error.to_string()),
        }
    }

    fn request(
        &self,
        address: &str,
        method: &str,
        path: &str,
        change: Option<CommandId>,
        body: Option<&Value>,
        answer_max: Duration,
    ) -> Result<(u16, Value), RequestError> {
        let mut socket = connect(address, answer_max).map_err(RequestError::NotSent)?;
        let body = Zeroizing::new(body.map(Value::to_string).unwrap_or_default());
        let change = change.map(|id| format!("Mailraft-Command: {id}\r\n")).unwrap_or_default();
        let head = Zeroizing::new(format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n{change}Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.token.as_str(),
            body.len()
        ));
        let answer = |socket: &mut TcpStream| {
            socket.write_all(head.as_bytes())?;
            socket.write_all(body.as_bytes())?;
            let mut answer = Vec::new();
            socket.take(ANSWER_MAX_BYTES).read_to_end(&mut answer)?;
            let text = String::from_utf8_lossy(&answer);
            let not_http = || std::io::Error::other("not an answer of HTTP");
            let (head, body) = text.split_once("\r\n\r\n").ok_or_else(not_http)?;
            let code = head.split(' ').nth(1).and_then(|c| c.parse().ok()).ok_or_else(not_http)?;
            Ok((code, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))))
        };
        answer(&mut socket).map_err(RequestError::Unanswered)
    }
}

fn connect(address: &str, answer_max: Duration) -> std::io::Result<TcpStream> {
    let resolved = address.to_socket_addrs()?.next().ok_or_else(|| std::io::Error::other("no such address"))?;
    if !resolved.ip().is_loopback() {
        // The token would travel in clear.
        return Err(std::io::Error::other("not on loopback: reach the admin server through a tunnel"));
    }
    let socket = TcpStream::connect_timeout(&resolved, CONNECT_MAX)?;
    socket.set_read_timeout(Some(answer_max))?;
    socket.set_write_timeout(Some(answer_max))?;
    Ok(socket)
}

/// A new id for a change.
fn command_id() -> Result<CommandId, Failed> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|e| Failed::because(format!("the system gives no random bytes ({e})")))?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    Ok(CommandId::v7(now, u128::from_be_bytes(random)))
}

/// Whether a file is there, readable or not.
fn is_there(path: &Path) -> bool {
    std::fs::metadata(path).map_or_else(|e| e.kind() == std::io::ErrorKind::PermissionDenied, |_| true)
}

/// `cluster.json` of a quickstart directory.
pub fn read_cluster(dir: &Path) -> Result<Value, Failed> {
    let path = dir.join("cluster.json");
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Failed::because(format!(
            "{} can't be read ({e}): name a quickstart cluster's directory with --dir (mailraft quickstart makes one), or a node with --admin and --token-file",
            path.display()
        ))
    })?;
    serde_json::from_str(&text).map_err(|e| Failed::because(format!("{} is damaged ({e})", path.display())))
}

fn read_token(path: &Path) -> Result<Zeroizing<String>, Failed> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failed::because(format!("the admin token {} can't be read ({e})", path.display())))?;
    let token = Zeroizing::new(text.trim().to_owned());
    // It goes into a header of the request as it is.
    if token.is_empty() || token.chars().any(char::is_control) {
        return Err(Failed::because(format!(
            "the admin token {} must be one line: write it anew, the same on every node, for example by openssl rand -hex 32",
            path.display()
        )));
    }
    Ok(token)
}

fn sentence(value: &Value) -> String {
    let said = value["error"].as_str().or(value.as_str()).unwrap_or_default().trim();
    if said.is_empty() { "the node refused without a reason".to_owned() } else { said.to_owned() }
}

/// One segment of a path (RFC 3986, section 2.1).
pub fn segment(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => (b as char).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;

    /// A node that gives these answers after requests, an empty one by hanging up, and then answers nothing any more. Gives
    /// the lines of their heads, and each body as one more. Before the first it waits until `after` is dropped or says something.
    pub fn node(answers: Vec<&'static str>, after: Option<mpsc::Receiver<()>>) -> (Node, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = std::thread::spawn(move || {
            let mut heads = Vec::new();
            if let Some(after) = after {
                let _ = after.recv();
            }
            for answer in answers {
                let (socket, _) = listener.accept().unwrap();
                let mut from = BufReader::new(socket.try_clone().unwrap());
                let lines = from.by_ref().lines().map(Result::unwrap);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let length = head.iter().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
                let mut body = vec![0; length.unwrap()];
                from.read_exact(&mut body).unwrap();
                heads.extend(head);
                heads.extend((!body.is_empty()).then(|| String::from_utf8(body).unwrap()));
                (&socket).write_all(answer.as_bytes()).unwrap();
            }
            // Whoever connects from now on is not accepted, but connected.
            std::mem::forget(listener);
            heads
        });
        (Node { id: None, address }, asked)
    }

    const THERE: &str = "HTTP/1.1 200 OK\r\n\r\nok\n";
    const DONE: &str = "HTTP/1.1 200 OK\r\n\r\n{\"id\":1}";
    const NOT_DONE: &str = "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"error\":\"no majority\"}";
    const UNKNOWN: &str = "HTTP/1.1 504 Gateway Timeout\r\n\r\n{\"error\":\"may have happened\"}";
    const REFUSED: &str = "HTTP/1.1 409 Conflict\r\n\r\n{\"error\":\"it exists\"}";
    const NO_TOKEN: &str = "HTTP/1.1 401 Unauthorized\r\n\r\n{\"error\":\"send the token\"}";
    const HANGS_UP: &str = "";

    /// Who asks these nodes.
    pub fn client(nodes: Vec<Node>) -> AdminClient {
        AdminClient { nodes, token: Zeroizing::new("token".into()) }
    }

    /// Two nodes that are there, the second one not before the first has given this answer.
    fn two(answers: [&'static str; 2]) -> (AdminClient, [JoinHandle<Vec<String>>; 2]) {
        let (answered, after) = mpsc::channel();
        let (first, heads) = node(vec![THERE, answers[0]], None);
        let first_heads = std::thread::spawn(move || {
            let heads = heads.join().unwrap();
            drop(answered);
            heads
        });
        let (second, second_heads) = node(vec![THERE, answers[1]], Some(after));
        (client(vec![first, second]), [first_heads, second_heads])
    }

    #[test]
    fn a_token_of_several_lines_or_none_is_refused_before_anybody_is_asked() {
        let file = std::env::temp_dir().join(format!("mailraft-token-{}", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            read_token(&file).map(|token| token.to_string()).map_err(|failed| failed.sentence)
        };
        assert_eq!(read("a long random word\r\n").unwrap(), "a long random word");
        for text in ["one\nMailraft-Command: two", "one\rtwo", "\n", ""] {
            assert!(read(text).unwrap_err().contains("must be one line"), "{text:?}");
        }
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_change_has_one_id_on_every_node_that_is_asked() {
        let (client, heads) = two([HANGS_UP, DONE]);
        assert_eq!(client.change("POST", "/api/v1/domains", None, None).unwrap_or_default()["id"], 1);
        let ids: Vec<Vec<String>> = heads
            .map(|node| node.join().unwrap().into_iter().filter(|l| l.starts_with("Mailraft-Command: ")).collect())
            .into();
        assert_eq!((ids[0].len(), &ids[0]), (1, &ids[1]));
    }

    #[test]
    fn what_may_have_been_done_is_no_failure_and_no_success() {
        for (first, second, code) in [
            (NOT_DONE, NOT_DONE, 1),
            (UNKNOWN, NOT_DONE, 3),
            (HANGS_UP, NOT_DONE, 3),
            (NOT_DONE, UNKNOWN, 3),
            (NO_TOKEN, DONE, 1),
            (UNKNOWN, NO_TOKEN, 3),
            // What was decided under the id is final.
            (UNKNOWN, REFUSED, 1),
            (UNKNOWN, DONE, 0),
        ] {
            let client = two([first, second]).0;
            let id = CommandId([7; 16]);
            match client.change("POST", "/api/v1/domains", None, Some(id)) {
                Ok(_) => assert_eq!(code, 0, "{first} {second}"),
                Err(failed) => {
                    assert_eq!(failed.code, code, "{first} {second}: {}", failed.sentence);
                    let again = failed.sentence.contains(&format!("--command-id {id}"));
                    assert_eq!(again, code == 3, "{}", failed.sentence);
                }
            }
        }
        // A read is never in doubt.
        let client = two([UNKNOWN, NOT_DONE]).0;
        assert_eq!(client.read("/api/v1/domains").err().map(|failed| failed.code), Some(1));
    }

    #[test]
    fn all_are_asked_at_once_and_one_that_hangs_keeps_nobody_waiting() {
        let (hung, well) = (node(Vec::new(), None), node(vec![THERE, THERE, DONE], None));
        let gone = Node { id: None, address: "127.0.0.1:1".to_owned() };
        let client = client(vec![hung.0.clone(), hung.0, gone, well.0]);
        let begun = Instant::now();
        let answers = client.ask_all("/api/v1/status", STATUS_MAX);
        assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, false, false, true]);
        assert!(begun.elapsed() < STATUS_MAX + STATUS_MAX / 2, "{:?}", begun.elapsed());
        let begun = Instant::now();
        assert_eq!(client.change("POST", "/api/v1/domains", None, None).unwrap_or_default()["id"], 1);
        assert!(begun.elapsed() < THERE_MAX + STATUS_MAX, "{:?}", begun.elapsed());
    }

    #[test]
    fn what_a_node_said_outweighs_silence_and_what_a_standby_said() {
        let gone = Node { id: None, address: "127.0.0.1:1".to_owned() };
        let said = |why: &mut Why, code: &str| why.said(&serde_json::json!({ "code": code }), code.to_owned());
        let mut why = Why::default();
        why.is_silent(&gone, &"refused");
        assert_eq!(why.sentence, "127.0.0.1:1 does not answer (refused)");
        said(&mut why, "standby");
        said(&mut why, "not_confirmed");
        said(&mut why, "standby");
        why.is_silent(&gone, &"refused");
        assert_eq!(why.sentence, "not_confirmed");
        said(&mut why, "not_done");
        assert_eq!(why.sentence, "not_done", "the newest of those");
    }

    #[test]
    fn addresses_are_one_segment_of_a_path() {
        assert_eq!(segment("o/b?c#d+e@x.test"), "o%2Fb%3Fc%23d%2Be@x.test");
    }
}

//! Requests to nodes' admin servers: HTTP/1.1 over loopback, one connection each.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mailraft_storage::{CommandId, UnixMillis};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::failed::Failed;
use crate::options::Target;

const CONNECT_MAX: Duration = Duration::from_secs(2);
const ANSWER_MAX: Duration = Duration::from_secs(15);
const ANSWER_MAX_BYTES: u64 = 64 << 20;

/// The admin servers of a cluster.
pub struct AdminClient {
    addresses: Vec<String>,
    token: Zeroizing<String>,
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
                Ok(AdminClient { addresses: vec![address], token: read_token(&file)? })
            }
            None => AdminClient::in_dir(&target.dir),
        }
    }

    /// Of a quickstart directory.
    pub fn in_dir(dir: &Path) -> Result<Self, Failed> {
        let json = read_cluster(dir)?;
        let addresses = json["nodes"]
            .as_array()
            .map(|nodes| nodes.iter().filter_map(|n| n["admin"].as_str().map(str::to_owned)).collect())
            .unwrap_or_default();
        let file: PathBuf = json["admin_token_file"].as_str().unwrap_or_default().into();
        Ok(AdminClient { addresses, token: read_token(&file)? })
    }

    /// Asks one node after the other until one answers: the JSON of a success. A change has one id on all of them:
    /// a node that is asked because the first one's answer was lost says the same.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failed> {
        let change = match method {
            "GET" => None,
            _ => Some(command_id()?),
        };
        let mut last = "no node is named".to_owned();
        for address in &self.addresses {
            match self.request(address, method, path, change, body) {
                Ok((200, value)) => return Ok(value),
                // A node without a majority: another may have one.
                Ok((503, value)) => last = sentence(&value),
                Ok((code, value)) => return Err(Failed::because(format!("{} (HTTP {code})", sentence(&value)))),
                Err(error) => last = format!("{address} does not answer ({error})"),
            }
        }
        Err(Failed::because(format!(
            "{last}; is the cluster running? See mailraft status, or start it with mailraft quickstart"
        )))
    }

    /// Whether a node says that it is ready.
    pub fn is_ready(&self, address: &str) -> Result<(), String> {
        match self.request(address, "GET", "/readyz", None, None) {
            Ok((200, _)) => Ok(()),
            Ok((_, value)) => Err(value.as_str().unwrap_or("not ready").trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn request(
        &self,
        address: &str,
        method: &str,
        path: &str,
        change: Option<CommandId>,
        body: Option<&Value>,
    ) -> std::io::Result<(u16, Value)> {
        let resolved = address.to_socket_addrs()?.next().ok_or_else(|| std::io::Error::other("no such address"))?;
        if !resolved.ip().is_loopback() {
            // The token would travel in clear.
            return Err(std::io::Error::other("not on loopback: reach the admin server through a tunnel"));
        }
        let mut socket = TcpStream::connect_timeout(&resolved, CONNECT_MAX)?;
        socket.set_read_timeout(Some(ANSWER_MAX))?;
        socket.set_write_timeout(Some(ANSWER_MAX))?;
        let body = Zeroizing::new(body.map(Value::to_string).unwrap_or_default());
        let change = change.map(|id| format!("Mailraft-Command: {id}\r\n")).unwrap_or_default();
        let head = Zeroizing::new(format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n{change}Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.token.as_str(),
            body.len()
        ));
        socket.write_all(head.as_bytes())?;
        socket.write_all(body.as_bytes())?;
        let mut answer = Vec::new();
        socket.take(ANSWER_MAX_BYTES).read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("not an answer of HTTP"))?;
        let code = head.split(' ').nth(1).and_then(|c| c.parse().ok()).unwrap_or(0);
        Ok((code, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))))
    }
}

/// A new id for a change.
fn command_id() -> Result<CommandId, Failed> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|e| Failed::because(format!("the system gives no random bytes ({e})")))?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    Ok(CommandId::v7(now, u128::from_be_bytes(random)))
}

/// `cluster.json` of a quickstart directory.
pub fn read_cluster(dir: &Path) -> Result<Value, Failed> {
    let path = dir.join("cluster.json");
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Failed::because(format!(
            "{} can't be read ({e}): start a cluster with mailraft quickstart, or name its directory with --dir",
            path.display()
        ))
    })?;
    serde_json::from_str(&text).map_err(|e| Failed::because(format!("{} is damaged ({e})", path.display())))
}

fn read_token(path: &Path) -> Result<Zeroizing<String>, Failed> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failed::because(format!("the admin token {} can't be read ({e})", path.display())))?;
    Ok(Zeroizing::new(text.trim().to_owned()))
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
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use zeroize::Zeroizing;

    /// A node that says these after the head of a request, and gives the head's lines.
    fn node(listener: TcpListener, answer: &'static str) -> std::thread::JoinHandle<Vec<String>> {
        std::thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let lines = BufReader::new(socket.try_clone().unwrap()).lines().map(Result::unwrap);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            (&socket).write_all(answer.as_bytes()).unwrap();
            head
        })
    }

    #[test]
    fn a_change_has_one_id_on_every_node_that_is_asked() {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
        let client = super::AdminClient { addresses, token: Zeroizing::new("token".into()) };
        let [first, second] = listeners;
        // The first one's answer is lost.
        let (first, second) = (node(first, ""), node(second, "HTTP/1.1 200 OK\r\n\r\n{\"id\":1}"));
        assert_eq!(client.ask("POST", "/api/v1/domains", None).unwrap_or_default()["id"], 1);
        let ids: Vec<Vec<String>> = [first, second]
            .map(|node| node.join().unwrap().into_iter().filter(|l| l.starts_with("Mailraft-Command: ")).collect())
            .into();
        assert_eq!((ids[0].len(), &ids[0]), (1, &ids[1]));
    }

    #[test]
    fn addresses_are_one_segment_of_a_path() {
        assert_eq!(super::segment("o/b?c#d+e@x.test"), "o%2Fb%3Fc%23d%2Be@x.test");
    }
}

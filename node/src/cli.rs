//! The command line.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use mailraft_storage::CommandId;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::admin_client::{AdminClient, segment};
use crate::failed::Failed;
use crate::options::{Certificates, CreateCluster, Doctor, Quickstart, Target};
use crate::output::tell;
use crate::password::random_password;
use crate::{cluster, doctor, domain, failover, manual, node, queue, quickstart, region, status, trace};

/// A mail cluster in one binary: replicated by Raft, every mailbox encrypted by its own key.
#[derive(Parser)]
#[command(
    version,
    after_help = "Begin with:\n  mailraft quickstart\nthen, in another terminal:\n  mailraft status\n  mailraft account create carol@example.test"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a cluster on this machine and run it: real node processes, a domain, two accounts
    #[command(
        after_help = "Examples:\n  mailraft quickstart\n  mailraft quickstart --dir /tmp/m --base-port 20000 --detach\n\nNode i listens at base-port + 1000*(i-1) + 25, 110, 143, 465, 587, 993, 995, 80 (admin) and 700 (other nodes)."
    )]
    Quickstart(Quickstart),
    /// Stop the nodes of a quickstart cluster
    Stop {
        /// Its directory
        #[arg(long, default_value = "./mailraft-data")]
        dir: PathBuf,
    },
    /// How nodes and partitions are; exit code 1 if something is wrong
    Status(Asking),
    /// Run one node in the foreground
    #[command(
        after_help = "A node stops cleanly on SIGTERM: it hands its leaders over first. SIGHUP reloads certificates and bounds."
    )]
    Node {
        /// Its configuration file
        #[arg(long)]
        config: PathBuf,
        /// Say whether the file is right, and end: every key and bound, not the files that it names
        #[arg(long)]
        check_config: bool,
    },
    /// What would keep a node from running well, and what to do; exit code 1 if something is bad
    #[command(
        after_help = "Run it as the node's user, before the first start and when something is odd:\n  mailraft doctor --config /etc/mailraft/mailraft.toml\n\nWhether a disk keeps what it says it has synced shows only when its power is cut. Watch from another machine:\n  ssh NODE mailraft doctor --config FILE --power-cut-write\ncut the node's power, start it again, and with the last number that was seen:\n  mailraft doctor --config FILE --power-cut-check NUMBER"
    )]
    Doctor(Doctor),
    /// Clusters of several machines: first state and certificates
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Domains
    #[command(subcommand)]
    Domain(Domain),
    /// Accounts
    #[command(subcommand)]
    Account(Account),
    /// Addresses
    #[command(subcommand)]
    Address(Address),
    /// Mail that waits: for other servers, or for several mailboxes that do not all have it yet
    #[command(subcommand)]
    Queue(Queue),
    /// Reports to other domains: how TLS went with their servers, and who sent mail in their name
    #[command(subcommand)]
    Reports(Reports),
    /// A message's way over all nodes: who took it, where it went, and what other servers said
    #[command(
        after_help = "By the id that its sender was told, or by an address, for the newest messages from it and to it:\n  mailraft trace 019ac5d27f3e700080003b2f6f1d5a11\n  mailraft trace alice@example.org\nNodes remember the newest in memory: nothing from before they started."
    )]
    Trace {
        /// An id, or an address
        what: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// Regions: where nodes stand, and what a loss of the home region would cost
    #[command(
        subcommand,
        after_help = "One region is home: it serves mail. Each other keeps encrypted copies of all of it, in mailboxes that\nnobody can open there, and takes over when the home is lost. See what that would cost now with\n  mailraft status\nChoose between a round trip for each message and a bound on what may be lost:\n  mailraft region set --durability geo\n  mailraft region set --durability region --rpo-max 1s"
    )]
    Region(RegionCommand),
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  mailraft completions bash > /etc/bash_completion.d/mailraft")]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write manual pages, one for each command
    Man {
        /// Into this directory
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Write the first state, keys, certificates and configuration of every node of a new cluster
    #[command(
        after_help = "Example:\n  mailraft cluster create --dir ./mail --mail-name mail.example.org \\\n    --node id=1,host=mx1.example.org --node id=2,host=mx2.example.org --node id=3,host=mx3.example.org\n\nRun it on a machine that is no node. Then copy nodes/NAME/config and nodes/NAME/data to each node; the key in\nauthority/ stays."
    )]
    Create(CreateCluster),
    /// Issue new certificates and keys for nodes: copy them, reload or restart the node
    Certificates(Certificates),
}

#[derive(Subcommand)]
enum RegionCommand {
    /// All regions with their nodes
    List(Asking),
    /// What is promised, and what happens while a backup region confirms nothing
    Show(Asking),
    /// Change what is promised; what is not named stays. It takes effect at once, whether or not the backup is there
    #[command(
        after_help = "Examples:\n  mailraft region set --durability geo\n    Nothing that was answered is lost with the home. Each message waits for the slowest backup region.\n  mailraft region set --durability region --rpo-max 1s\n    Messages do not wait, as long as the backup is at most 1 s behind; that much is lost with the home.\n  mailraft region set --unconfirmed refuse\n    While a backup region is away, new mail is deferred (451): senders keep it. Reading goes on.\n  mailraft region set --unconfirmed degrade --degrade-after 60s\n    After a minute the home takes mail alone, until the backup is back: that mail is lost with the home."
    )]
    Set {
        #[command(flatten)]
        settings: region::Settings,
        #[command(flatten)]
        changing: Changing,
    },
    /// Take a backup region out that is lost or given up: answers wait for it no more, and it protects nothing
    #[command(
        after_help = "Example:\n  mailraft region remove south --yes\n    South is lost for good. Mail is answered by the home alone from then on, and is lost with it.\n\nIts nodes go on copying what they can reach. To have answers wait for it again: mailraft region add south"
    )]
    Remove {
        /// The region
        name: String,
        /// Without it nothing is done
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        changing: Changing,
    },
    /// Have answers wait for a backup region again that was taken out. Until it holds everything, the home goes on alone
    Add {
        /// The region
        name: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// A backup region takes over from a home that is lost. Asks a node of that region; the home is not needed
    #[command(
        after_help = "Examples:\n  mailraft region failover --to south --dry-run\n    What is certain, what may be missing, and whether it is rather south that is cut off.\n  mailraft region failover --to south --old-region-is-off\n    The home is off, and stays off: you say so. Clients and senders are served in south within seconds.\n  mailraft region failover --to south --old-region-is-off --root-key-stdin < root.key\n    The same where the nodes of south have no root key.\n\nRun again after a break it goes on. The old home serves nothing once it hears of it, and keeps its data."
    )]
    Failover(FailoverArgs),
}

#[derive(Args)]
struct FailoverArgs {
    #[command(flatten)]
    options: failover::Failover,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Args)]
struct Asking {
    #[command(flatten)]
    target: Target,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Changing {
    #[command(flatten)]
    asking: Asking,
    /// The id of an earlier attempt of which nobody knows whether it was done: both together are done once
    #[arg(long, value_name = "ID", value_parser = parse_command_id)]
    command_id: Option<CommandId>,
}

fn parse_command_id(text: &str) -> Result<CommandId, String> {
    CommandId::from_hex(text).ok_or_else(|| "an id has 32 lower-case hexadecimal digits".to_owned())
}

#[derive(Subcommand)]
enum Domain {
    /// A new domain, with two keys that sign its mail
    #[command(
        after_help = "Example:\n  mailraft domain create example.org\nthen publish what\n  mailraft domain dns example.org\nprints, and see whether it is there with\n  mailraft domain check example.org"
    )]
    Create {
        /// Its name, such as example.org
        name: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// All domains
    List(Asking),
    /// Every record to publish in the DNS for a domain, as lines of its zone
    #[command(
        after_help = "Example:\n  mailraft domain dns example.org\nMX and SPF name the nodes, DKIM the domain's keys, DMARC what becomes of forged mail; SRV records lead mail\nprograms here. The policy of MTA-STS is a page that nodes with listen.https or another web server serve; it is\nprinted last."
    )]
    Dns {
        /// The domain
        name: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// What of that is published: ok, missing, or another one; exit code 1 if something is not as it should be
    #[command(
        after_help = "Example:\n  mailraft domain check example.org\nA node asks the DNS. What was changed a moment ago may be seen only when older answers have expired."
    )]
    Check {
        /// The domain
        name: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// The keys that sign a domain's mail (DKIM)
    #[command(
        subcommand,
        after_help = "To change keys without one message that can't be verified:\n  mailraft domain key add example.org\n    makes new ones; publish them as mailraft domain dns example.org says, and wait until\n    mailraft domain check example.org finds them\n  mailraft domain key use example.org SELECTOR\n    they sign; those before them retire and stay published\n  mailraft domain key remove example.org OLD-SELECTOR\n    a week later, when what the old ones signed has arrived; take their records out of the DNS too"
    )]
    Key(DomainKey),
}

#[derive(Subcommand)]
enum DomainKey {
    /// New keys, one of each algorithm unless one is named. They do not sign before they are told to
    Add {
        /// The domain
        name: String,
        /// Only a key of this algorithm: rsa-sha256, which every server verifies, or ed25519-sha256
        #[arg(long)]
        algorithm: Option<String>,
        /// Under this selector; without it the day and a few letters make one
        #[arg(long, requires = "algorithm")]
        selector: Option<String>,
        #[command(flatten)]
        changing: Changing,
    },
    /// All keys of a domain, and whether they sign
    List {
        /// The domain
        name: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// A key signs from now on; the one of its algorithm that did retires
    Use {
        /// The domain
        name: String,
        /// The key
        selector: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// A key signs no more, and stays published
    Retire {
        /// The domain
        name: String,
        /// The key
        selector: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// A key that does not sign goes for good
    Remove {
        /// The domain
        name: String,
        /// The key
        selector: String,
        #[command(flatten)]
        changing: Changing,
    },
}

#[derive(Subcommand)]
enum Account {
    /// A new account with its mailbox; without --password-stdin a password is made and printed
    Create {
        /// Its address, such as jane@example.org
        address: String,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        changing: Changing,
    },
    /// All accounts
    List(Asking),
    /// Nobody logs in to an account any more, and its sessions end; mail to it is still taken
    Disable {
        /// The account
        address: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// An account may be logged in to again
    Enable {
        /// The account
        address: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// An account goes for good, with its mail: its addresses, its key, and whoever is logged in to it
    Delete {
        /// The account
        address: String,
        /// Do it: nothing brings its mail back
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        changing: Changing,
    },
    /// Another password for an account
    Password {
        /// The account's address
        address: String,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        changing: Changing,
    },
}

#[derive(Subcommand)]
enum Address {
    /// More targets for an address: an alias, a group, a forward to other domains
    Add {
        /// The address; also postmaster without a domain
        address: String,
        /// Addresses that its mail goes to, of this cluster and, where mail is sent there, of other domains
        #[arg(required = true)]
        targets: Vec<String>,
        #[command(flatten)]
        changing: Changing,
    },
    /// All addresses
    List(Asking),
    /// Remove an address that is no account's own
    Remove {
        /// The address
        address: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// Another key for the reverse-paths of what is forwarded: those that were made by the one before are taken until the next time
    RenewKey(Changing),
}

#[derive(Subcommand)]
enum Reports {
    /// Send yesterday's reports now, and not in the night; who has his already gets no second one by mail
    Send(Asking),
}

#[derive(Subcommand)]
enum Queue {
    /// All messages that wait, and for how many of their recipients
    List(Asking),
    /// A message that waits, with its recipients, and why it waits for each
    Show {
        /// Its id, as the server said it when it took the message
        #[arg(value_parser = parse_command_id)]
        id: CommandId,
        #[command(flatten)]
        asking: Asking,
    },
    /// Try a message again now, also one that is held
    Retry(Deciding),
    /// Do nothing for a message until it is released or retried
    Hold(Deciding),
    /// Let a message go on that was held
    Release(Deciding),
    /// Return a message to its sender, who is told that it was not delivered
    Return(Deciding),
    /// Drop a message: its recipients don't get it, and nobody is told
    Drop(Deciding),
}

#[derive(clap::Args)]
struct Deciding {
    /// Its id: see mailraft queue list
    #[arg(value_parser = parse_command_id)]
    id: CommandId,
    /// For these recipients alone
    #[arg(long = "recipient", value_name = "ADDRESS")]
    recipients: Vec<String>,
    #[command(flatten)]
    asking: Asking,
}

/// Runs a command.
pub fn run(cli: Cli) -> Result<ExitCode, Failed> {
    match cli.command {
        Command::Quickstart(options) => quickstart::run(&options)?,
        Command::Stop { dir } => quickstart::stop(&dir)?,
        Command::Status(asking) => return status::run(&asking.target, asking.json),
        Command::Node { config, check_config: false } => node::run(&config)?,
        Command::Node { config, check_config: true } => node::check_config(&config)?,
        Command::Doctor(options) => return doctor::run(&options),
        Command::Cluster(ClusterCommand::Create(options)) => cluster::create(&options)?,
        Command::Cluster(ClusterCommand::Certificates(options)) => cluster::certificates(&options)?,
        Command::Region(RegionCommand::List(asking)) => region::list(&AdminClient::of(&asking.target)?, asking.json)?,
        Command::Region(RegionCommand::Show(asking)) => region::show(&AdminClient::of(&asking.target)?, asking.json)?,
        Command::Region(RegionCommand::Set { settings, changing }) => {
            let client = AdminClient::of(&changing.asking.target)?;
            let done = region::set(&client, &settings, changing.command_id)?;
            say(
                &changing.asking,
                &done,
                "changed: a lesser durability counts once every region that is waited for holds it, all else at once; mailraft region show \
                 says what is promised",
            );
        }
        Command::Region(RegionCommand::Remove { name, yes: false, changing: _ }) => {
            return Err(Failed::because(format!(
                "nothing was done: without {name} a loss of the home loses all mail that no other backup has; say it again with --yes"
            )));
        }
        Command::Region(RegionCommand::Remove { name, yes: true, changing }) => {
            let done = region::remove(&AdminClient::of(&changing.asking.target)?, &name, changing.command_id)?;
            say(&changing.asking, &done, &format!("answers do not wait for {name} any more, and it protects nothing"));
        }
        Command::Region(RegionCommand::Add { name, changing }) => {
            let done = region::add(&AdminClient::of(&changing.asking.target)?, &name, changing.command_id)?;
            say(
                &changing.asking,
                &done,
                &format!("answers wait for {name} once it holds everything: see mailraft status"),
            );
        }
        Command::Region(RegionCommand::Failover(FailoverArgs { options, asking })) => {
            failover::run(&AdminClient::of(&asking.target)?, &options, asking.json)?;
        }
        Command::Trace { what, asking } => trace::run(&AdminClient::of(&asking.target)?, &what, asking.json)?,
        Command::Reports(Reports::Send(asking)) => {
            let begun = AdminClient::of(&asking.target)?.once("POST", "/api/v1/reports", None)?;
            let (tls, dmarc, silent) = (&begun["tls_domains"], &begun["dmarc_domains"], &begun["silent_nodes"]);
            let sentence = format!(
                "reports go to those that want them: of TLS to at most {tls} domains, of DMARC to {dmarc}; nodes that did not \
                 say what they counted: {silent}"
            );
            say(&asking, &begun, &sentence);
        }
        Command::Queue(Queue::List(asking)) => queue::list(&AdminClient::of(&asking.target)?, asking.json)?,
        Command::Queue(Queue::Show { id, asking }) => queue::show(&AdminClient::of(&asking.target)?, id, asking.json)?,
        Command::Queue(Queue::Retry(deciding)) => decide("retry", &deciding)?,
        Command::Queue(Queue::Hold(deciding)) => decide("hold", &deciding)?,
        Command::Queue(Queue::Release(deciding)) => decide("release", &deciding)?,
        Command::Queue(Queue::Return(deciding)) => decide("return", &deciding)?,
        Command::Queue(Queue::Drop(deciding)) => decide("drop", &deciding)?,
        Command::Completions { shell } => manual::completions(&mut Cli::command(), shell)?,
        Command::Man { dir } => manual::pages(Cli::command(), &dir)?,
        Command::Domain(Domain::Create { name, changing }) => {
            let done = change(&changing, "POST", "/api/v1/domains", Some(json!({"name": name})))?;
            let next = format!("created {name}; what to publish for it says mailraft domain dns {name}");
            say(&changing.asking, &done, &next);
        }
        Command::Domain(Domain::List(asking)) => list(&asking, "/api/v1/domains", &["name"])?,
        Command::Domain(Domain::Dns { name, asking }) => {
            domain::dns(&AdminClient::of(&asking.target)?, &name, asking.json)?
        }
        Command::Domain(Domain::Check { name, asking }) => {
            return domain::check(&AdminClient::of(&asking.target)?, &name, asking.json);
        }
        Command::Domain(Domain::Key(DomainKey::Add { name, algorithm, selector, changing })) => {
            let body = json!({"algorithm": algorithm, "selector": selector});
            let done = change(&changing, "POST", &domain::keys_path(&name), Some(body))?;
            let next = format!("added to {name}; mailraft domain dns {name} says what to publish before they are used");
            say(&changing.asking, &done, &next);
        }
        Command::Domain(Domain::Key(DomainKey::List { name, asking })) => {
            list(&asking, &domain::keys_path(&name), &["selector", "algorithm", "state"])?
        }
        Command::Domain(Domain::Key(DomainKey::Use { name, selector, changing })) => {
            set_key_state(&name, &selector, "signing", &changing)?
        }
        Command::Domain(Domain::Key(DomainKey::Retire { name, selector, changing })) => {
            set_key_state(&name, &selector, "retired", &changing)?
        }
        Command::Domain(Domain::Key(DomainKey::Remove { name, selector, changing })) => {
            let done = change(&changing, "DELETE", &domain::key_path(&name, &selector), None)?;
            say(&changing.asking, &done, &format!("removed {selector} of {name}: take its record out of the DNS too"));
        }
        Command::Account(Account::Create { address, password_stdin, changing }) => {
            let (password, made) = password(password_stdin, &changing)?;
            let body = json!({"address": address, "password": password.as_str()});
            let done = change(&changing, "POST", "/api/v1/accounts", Some(body));
            let mut done = done.map_err(|failed| with_password(failed, made, &password))?;
            let mut said = format!("created {address}");
            if made {
                done["password"] = json!(password.as_str());
                said.push_str(&format!(", password {}", password.as_str()));
            }
            say(&changing.asking, &done, &said);
        }
        Command::Account(Account::List(asking)) => {
            list(&asking, "/api/v1/accounts", &["address", "partition", "mailbox"])?
        }
        Command::Account(Account::Disable { address, changing }) => set_disabled(&address, true, &changing)?,
        Command::Account(Account::Enable { address, changing }) => set_disabled(&address, false, &changing)?,
        Command::Account(Account::Delete { address, yes: false, changing: _ }) => {
            return Err(Failed::because(format!(
                "nothing was done: to delete {address} with all its mail, which nothing brings back, say it again with --yes"
            )));
        }
        Command::Account(Account::Delete { address, yes: true, changing }) => {
            let done = change(&changing, "DELETE", &format!("/api/v1/accounts/{}", segment(&address)), None)?;
            say(&changing.asking, &done, &format!("deleted {address}, its addresses and the key of its mail"));
        }
        Command::Account(Account::Password { address, password_stdin, changing }) => {
            let (password, made) = password(password_stdin, &changing)?;
            let path = format!("/api/v1/accounts/{}/password", segment(&address));
            let done = change(&changing, "PUT", &path, Some(json!({"password": password.as_str()})));
            let mut done = done.map_err(|failed| with_password(failed, made, &password))?;
            let mut said = format!("changed the password of {address}");
            if made {
                done["password"] = json!(password.as_str());
                said.push_str(&format!(" to {}", password.as_str()));
            }
            say(&changing.asking, &done, &said);
        }
        Command::Address(Address::Add { address, targets, changing }) => {
            let body = json!({"address": address, "targets": targets});
            let done = change(&changing, "POST", "/api/v1/addresses", Some(body))?;
            say(&changing.asking, &done, &format!("{address} now also goes to {}", targets.join(", ")));
        }
        Command::Address(Address::List(asking)) => list(&asking, "/api/v1/addresses", &["address", "targets"])?,
        Command::Address(Address::Remove { address, changing }) => {
            let done = change(&changing, "DELETE", &format!("/api/v1/addresses/{}", segment(&address)), None)?;
            say(&changing.asking, &done, &format!("removed {address}"));
        }
        Command::Address(Address::RenewKey(changing)) => {
            let done = change(&changing, "POST", "/api/v1/forwarding-key", None)?;
            say(&changing.asking, &done, "what is forwarded from now on has its reverse-path by another key");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn change(changing: &Changing, method: &str, path: &str, body: Option<Value>) -> Result<Value, Failed> {
    AdminClient::of(&changing.asking.target)?.change(method, path, body.as_ref(), changing.command_id)
}

/// Where it may have been set, nobody else will ever say the password that was made.
fn with_password(mut failed: Failed, made: bool, password: &str) -> Failed {
    if made && failed.is_unknown() {
        failed.sentence.push_str(&format!("; the password that was made is {password} (give it by --password-stdin)"));
    }
    failed
}

fn say(asking: &Asking, done: &Value, text: &str) {
    if asking.json {
        tell!("{done}");
    } else {
        tell!("{text}");
    }
}

/// Has a key sign, or not any more.
fn set_key_state(name: &str, selector: &str, state: &str, changing: &Changing) -> Result<(), Failed> {
    let path = format!("{}/state", domain::key_path(name, selector));
    let done = change(changing, "PUT", &path, Some(json!({"state": state})))?;
    say(&changing.asking, &done, &format!("{selector} of {name} is {state} now"));
    Ok(())
}

/// Switches logins to an account off or on.
fn set_disabled(address: &str, disabled: bool, changing: &Changing) -> Result<(), Failed> {
    let path = format!("/api/v1/accounts/{}/disabled", segment(address));
    let done = change(changing, "PUT", &path, Some(json!({"disabled": disabled})))?;
    let said = if disabled { "is disabled, and its sessions end" } else { "may be logged in to again" };
    say(&changing.asking, &done, &format!("{address} {said}"));
    Ok(())
}

fn list(asking: &Asking, path: &str, columns: &[&str]) -> Result<(), Failed> {
    let lines = AdminClient::of(&asking.target)?.read(path)?;
    if asking.json {
        tell!("{lines}");
        return Ok(());
    }
    for line in lines.as_array().into_iter().flatten() {
        let cells: Vec<String> = columns
            .iter()
            .map(|c| match &line[*c] {
                Value::String(text) => text.clone(),
                Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
                other => other.to_string(),
            })
            .collect();
        tell!("{}", cells.join("  "));
    }
    Ok(())
}

/// Decides about a message that waits.
fn decide(decision: &str, Deciding { id, recipients, asking }: &Deciding) -> Result<(), Failed> {
    let done = queue::decide(&AdminClient::of(&asking.target)?, *id, decision, recipients)?;
    say(asking, &done, &format!("{decision}: {} of its recipients", done["recipients"]));
    Ok(())
}

fn password(from_stdin: bool, changing: &Changing) -> Result<(Zeroizing<String>, bool), Failed> {
    if !from_stdin && changing.command_id.is_some() {
        return Err(Failed::usage(
            "with --command-id give the earlier attempt's password by --password-stdin: if that one was done, no other \
             password is taken"
                .into(),
        ));
    }
    if !from_stdin {
        return Ok((random_password()?, true));
    }
    let mut text = Zeroizing::new(String::new());
    std::io::stdin()
        .take(4_096)
        .read_to_string(&mut text)
        .map_err(|e| Failed::because(format!("the password can't be read from standard input ({e})")))?;
    let password = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    Ok((password, false))
}

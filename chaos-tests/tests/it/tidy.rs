//! The house stays tidy: arrows between crates, files, dependencies, documents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who may depend on whom inside the workspace.
const ARROWS: [(&str, &[&str]); 23] = [
    ("mailraft-storage", &[]),
    ("mailraft-disk", &["mailraft-storage"]),
    ("mailraft-faulty-files", &["mailraft-storage"]),
    ("mailraft-cluster", &["mailraft-storage"]),
    ("mailraft-driver", &["mailraft-cluster", "mailraft-storage"]),
    ("mailraft-message", &[]),
    ("mailraft-owner", &["mailraft-storage"]),
    ("mailraft-mailbox", &["mailraft-owner", "mailraft-storage"]),
    ("mailraft-directory", &["mailraft-owner", "mailraft-storage"]),
    ("mailraft-protocol", &["mailraft-mailbox", "mailraft-storage"]),
    ("mailraft-real-mailbox", &["mailraft-mailbox", "mailraft-message", "mailraft-storage"]),
    ("mailraft-sender-auth", &["mailraft-message"]),
    ("mailraft-outbound", &["mailraft-message"]),
    ("mailraft-feedback", &["mailraft-message", "mailraft-outbound", "mailraft-sender-auth", "mailraft-storage"]),
    ("mailraft-smtp", &["mailraft-message", "mailraft-protocol"]),
    ("mailraft-pop3", &["mailraft-mailbox", "mailraft-protocol"]),
    // `mailraft-real-mailbox` only for the fuzzers.
    (
        "mailraft-imap",
        &["mailraft-mailbox", "mailraft-message", "mailraft-protocol", "mailraft-real-mailbox", "mailraft-storage"],
    ),
    (
        "mailraft-server",
        &[
            "mailraft-cluster",
            "mailraft-directory",
            "mailraft-driver",
            "mailraft-feedback",
            "mailraft-imap",
            "mailraft-mailbox",
            "mailraft-message",
            "mailraft-outbound",
            "mailraft-owner",
            "mailraft-pop3",
            "mailraft-protocol",
            "mailraft-sender-auth",
            "mailraft-smtp",
            "mailraft-storage",
        ],
    ),
    ("mailraft", &["mailraft-directory", "mailraft-disk", "mailraft-driver", "mailraft-server", "mailraft-storage"]),
    ("mailraft-checkers", &["mailraft-mailbox", "mailraft-storage"]),
    (
        "mailraft-sim",
        &[
            "mailraft-checkers",
            "mailraft-cluster",
            "mailraft-directory",
            "mailraft-mailbox",
            "mailraft-outbound",
            "mailraft-owner",
            "mailraft-storage",
        ],
    ),
    (
        "mailraft-fuzz-bodies",
        &[
            "mailraft-cluster",
            "mailraft-directory",
            "mailraft-driver",
            "mailraft-feedback",
            "mailraft-imap",
            "mailraft-mailbox",
            "mailraft-message",
            "mailraft-outbound",
            "mailraft-protocol",
            "mailraft-sender-auth",
            "mailraft-smtp",
            "mailraft-storage",
        ],
    ),
    ("mailraft-chaos", &["mailraft-disk", "mailraft-faulty-files", "mailraft-sim", "mailraft-storage"]),
];
const PURE: [&str; 14] = [
    "storage/src",
    "cluster/src",
    "node/owner/src",
    "node/mailbox/src",
    "node/directory/src",
    "node/message/src",
    "node/protocol/src",
    "node/imap/src",
    "node/outbound/src",
    "node/feedback/src",
    "node/sender-auth/src",
    "node/smtp/src",
    "chaos-tests/checkers/src",
    "chaos-tests/sim/src",
];
/// Crates whose files are checked for circles.
const UNCIRCLED: [&str; 19] = [
    "storage/src",
    "storage/disk/src",
    "cluster/src",
    "cluster/driver/src",
    "node/src",
    "node/server/src",
    "node/owner/src",
    "node/mailbox/src",
    "node/directory/src",
    "node/message/src",
    "node/protocol/src",
    "node/imap/src",
    "node/outbound/src",
    "node/feedback/src",
    "node/sender-auth/src",
    "node/smtp/src",
    "chaos-tests/src",
    "chaos-tests/checkers/src",
    "chaos-tests/sim/src",
];
const FILE_MAX_LINES: usize = 800;
/// Licences that may be in the binary. A crate under several is fine with any one of them.
const LICENCES: [&str; 13] = [
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unlicense",
    "CC0-1.0",
    "Unicode-3.0",
    "BSL-1.0",
    "MIT-0",
    "Apache-2.0 WITH LLVM-exception",
];
const TOP_LEVEL: [&str; 17] = [
    ".ci",
    ".gitignore",
    ".git",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "Makefile",
    "README.md",
    "ansible",
    "chaos-tests",
    "cluster",
    "docs",
    "node",
    "rustfmt.toml",
    "storage",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|n| n != "target" && n != ".git") {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut out = Vec::new();
    for dir in ["storage", "cluster", "node", "chaos-tests"] {
        sources(&root().join(dir), &mut out);
    }
    out
}

fn metadata() -> serde_json::Value {
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let host = version.lines().find_map(|l| l.strip_prefix("host: ")).unwrap();
    let run = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", host])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    serde_json::from_slice(&run.stdout).unwrap()
}

#[test]
fn arrows_between_crates_point_one_way() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if !package["source"].is_null() {
            continue;
        }
        seen.insert(name.to_owned());
        let may = allowed.get(name).unwrap_or_else(|| panic!("{name} is not in the table of crates"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            if dependency["kind"].is_null() && on.starts_with("mailraft") {
                assert!(may.contains(&on), "{name} may not depend on {on}");
            }
        }
    }
    assert_eq!(seen.len(), ARROWS.len());
}

#[test]
fn dependencies_come_from_the_registry_under_licences_that_fit() {
    for package in metadata()["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if let Some(source) = package["source"].as_str() {
            assert!(source.starts_with("registry+"), "{name} comes from {source}");
        }
        let licence =
            package["license"].as_str().unwrap_or_else(|| panic!("{name} names no licence")).replace('/', " OR ");
        let fits = licence.split(" AND ").all(|all| {
            all.trim_matches(['(', ')', ' '])
                .split(" OR ")
                .any(|one| LICENCES.contains(&one.trim_matches(['(', ')', ' '])))
        });
        assert!(fits, "{name} is under {licence}");
    }
}

#[test]
fn files_are_short_and_hold_nothing_unfinished() {
    for path in all_sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        assert!(lines <= FILE_MAX_LINES, "{} has {lines} lines: split it", path.display());
        if path.ends_with("tidy.rs") {
            continue;
        }
        for mark in ["todo!(", "unimplemented!(", "FIXME", "XXX"] {
            assert!(!text.contains(mark), "{} holds {mark}", path.display());
        }
        let audited = path.ends_with("storage/disk/src/freed.rs") || path.ends_with("storage/disk/tests/it/audited.rs");
        assert!(audited || !text.contains("unsafe {"), "{} holds an unsafe block", path.display());
    }
}

#[test]
fn pure_crates_ask_no_clock_and_start_no_thread() {
    for dir in PURE {
        let lints = root().join(dir).with_file_name("clippy.toml");
        let rules = std::fs::read_to_string(&lints).unwrap_or_else(|e| panic!("{}: {e}", lints.display()));
        for rule in ["disallowed-methods", "std::time::Instant::now", "std::time::SystemTime::now"] {
            assert!(rules.contains(rule), "{} does not forbid {rule}", lints.display());
        }
        let mut files = Vec::new();
        sources(&root().join(dir), &mut files);
        assert!(!files.is_empty());
        for path in files {
            let text = std::fs::read_to_string(&path).unwrap();
            for mark in [
                "Instant::now",
                "SystemTime::now",
                "thread::sleep",
                "thread::spawn",
                "OsRng",
                "thread_rng",
                "HashMap",
                "HashSet",
            ] {
                assert!(!text.contains(mark), "{} holds {mark}", path.display());
            }
        }
    }
}

/// The files of a crate that a file imports: by `crate::`, `super::` and `self::` paths and by those of its own
/// children, braces followed, and names that a module only passes on followed to where they are made. `name` is the
/// file's own module.
fn imports(text: &str, name: &str, modules: &BTreeSet<String>, passed_on: &PassedOn) -> BTreeSet<String> {
    let (mut paths, _) = used(text);
    let code: String = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
    for (at, _) in code.match_indices("crate::") {
        let end = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | ':');
        let path = code[at..].split(end).next().unwrap_or_default();
        // Braces follow: that is a `use`, and taken apart above.
        paths.extend((!path.ends_with("::")).then(|| path.to_owned()));
    }
    paths.iter().filter_map(|path| target(path, name, modules, passed_on)).filter(|found| found != name).collect()
}

/// For a module and a name that it passes on from another: that other.
type PassedOn = BTreeMap<(String, String), String>;

fn passes_on(text: &str, name: &str, modules: &BTreeSet<String>) -> PassedOn {
    let (_, paths) = used(text);
    let last = |path: &str| path.rsplit("::").next().unwrap_or_default().to_owned();
    let none = PassedOn::new();
    let found = |path: &String| Some(((name.to_owned(), last(path)), target(path, name, modules, &none)?));
    paths.iter().filter_map(found).collect()
}

/// What a file uses by itself, and what it passes on.
fn used(text: &str) -> (Vec<String>, Vec<String>) {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let (mut own, mut passed_on) = (Vec::new(), Vec::new());
    for (at, _) in code.match_indices("use ") {
        let path: String = code[at + 4..].split(';').next().unwrap_or_default().split_whitespace().collect();
        match code[..at].rsplit('\n').next().unwrap_or_default() {
            "" => expand("", &path, &mut own),
            "pub " | "pub(crate) " | "pub(super) " => expand("", &path, &mut passed_on),
            _ => {}
        }
    }
    (own, passed_on)
}

/// The paths of a `use`, its braces taken apart.
fn expand(before: &str, path: &str, out: &mut Vec<String>) {
    let Some(open) = path.find('{') else { return out.push(format!("{before}{path}")) };
    let inner = path[open + 1..].strip_suffix('}').unwrap_or(&path[open + 1..]);
    let before = format!("{before}{}", &path[..open]);
    let (mut depth, mut from) = (0, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&before, &inner[from..at], out);
                from = at + 1;
            }
            _ => {}
        }
    }
    if from < inner.len() {
        expand(&before, &inner[from..], out);
    }
}

/// The file that a path leads to, if it is one of the crate's.
fn target(path: &str, name: &str, modules: &BTreeSet<String>, passed_on: &PassedOn) -> Option<String> {
    let mut base: Vec<&str> = name.split("::").filter(|part| !part.is_empty()).collect();
    let mut parts: Vec<&str> = path.split("::").collect();
    match parts.first().copied()? {
        "crate" => {
            base.clear();
            parts.remove(0);
        }
        "self" => drop(parts.remove(0)),
        "super" => {
            while parts.first() == Some(&"super") {
                base.pop();
                parts.remove(0);
            }
        }
        // A child of this file, or another crate.
        child if modules.contains(&base.iter().copied().chain([child]).collect::<Vec<_>>().join("::")) => {}
        _ => return None,
    }
    let mut found = None;
    for part in parts {
        base.push(part.split("as").next().unwrap_or(part));
        let so_far = base.join("::");
        if modules.contains(&so_far) {
            found = Some(so_far);
        } else if let Some(made) = found.as_ref().and_then(|f| passed_on.get(&(f.clone(), base[base.len() - 1].into())))
        {
            return Some(made.clone());
        }
    }
    found
}

fn cycle(
    of: &str,
    graph: &BTreeMap<String, BTreeSet<String>>,
    path: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    if let Some(at) = path.iter().position(|p| p == of) {
        return Some(path[at..].to_vec());
    }
    if !done.insert(of.to_owned()) {
        return None;
    }
    path.push(of.to_owned());
    for next in graph.get(of).into_iter().flatten() {
        if let Some(found) = cycle(next, graph, path, done) {
            return Some(found);
        }
    }
    path.pop();
    None
}

/// Which files of a crate import which, by module; the crate's root imports all and is left out.
fn imports_of_crate(dir: &str) -> BTreeMap<String, BTreeSet<String>> {
    let base = root().join(dir);
    let mut files = Vec::new();
    sources(&base, &mut files);
    let name = |path: &Path| {
        let relative = path.strip_prefix(&base).unwrap().with_extension("");
        let name = relative.to_string_lossy().replace('/', "::");
        name.strip_suffix("::mod").map(str::to_owned).unwrap_or(name)
    };
    let read = |f: &PathBuf| std::fs::read_to_string(f).unwrap();
    let tests: BTreeSet<String> = files.iter().flat_map(|f| modules_of_tests(&read(f), &name(f))).collect();
    files.retain(|f| !tests.contains(&name(f)));
    let modules: BTreeSet<String> = files.iter().map(|f| name(f)).filter(|n| n != "lib").collect();
    let passed_on: PassedOn = files.iter().flat_map(|f| passes_on(&read(f), &name(f), &modules)).collect();
    files
        .iter()
        .filter(|f| name(f) != "lib")
        .map(|f| (name(f), imports(&read(f), &name(f), &modules, &passed_on)))
        .collect()
}

/// The modules that a file declares for its tests alone.
fn modules_of_tests(text: &str, name: &str) -> Vec<String> {
    let declared = |(attribute, module): (&str, &str)| {
        let module = module.rsplit_once("mod ")?.1.strip_suffix(';')?;
        let inside = [name, module].into_iter().filter(|part| !part.is_empty() && *part != "lib");
        (attribute == "#[cfg(test)]").then(|| inside.collect::<Vec<_>>().join("::"))
    };
    text.lines().zip(text.lines().skip(1)).filter_map(declared).collect()
}

/// The imports between the files and folders that stand beside each other in `folder` (the crate's own: "").
fn imports_in_folder(folder: &str, graph: &BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    let depth = folder.split("::").filter(|part| !part.is_empty()).count();
    let room = |module: &str| {
        let inside = folder.is_empty() || module.starts_with(&format!("{folder}::"));
        inside.then(|| module.split("::").nth(depth).map(str::to_owned)).flatten()
    };
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, imported) in graph {
        let Some(from) = room(module) else { continue };
        let others = imported.iter().filter_map(|module| room(module)).filter(|to| *to != from);
        rooms.entry(from.clone()).or_default().extend(others);
    }
    rooms
}

/// A sentence about the first circle in this graph.
fn circle(place: &str, graph: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let mut done = BTreeSet::new();
    let found = graph.keys().find_map(|module| cycle(module, graph, &mut Vec::new(), &mut done))?;
    Some(format!("{place}: {} import each other in a circle", found.join(", ")))
}

#[test]
fn no_files_import_in_a_circle() {
    let circles: Vec<String> = UNCIRCLED.iter().filter_map(|dir| circle(dir, &imports_of_crate(dir))).collect();
    assert!(circles.is_empty(), "{circles:#?}");
}

/// So that no import runs back up: a folder as a whole stands above all that any of its files imports.
#[test]
fn no_folders_import_in_a_circle() {
    let (mut circles, mut folders_seen) = (Vec::new(), 0);
    for dir in UNCIRCLED {
        let graph = imports_of_crate(dir);
        let mut folders: BTreeSet<&str> = graph.keys().filter_map(|m| m.rsplit_once("::")).map(|(f, _)| f).collect();
        folders.insert("");
        folders_seen += folders.len();
        circles.extend(folders.iter().filter_map(|f| circle(&format!("{dir} {f}"), &imports_in_folder(f, &graph))));
    }
    assert!(circles.is_empty(), "{circles:#?}");
    assert!(folders_seen > UNCIRCLED.len(), "{folders_seen}");
}

#[test]
fn a_circle_of_folders_is_seen_where_no_files_form_one() {
    let of = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    let graph = BTreeMap::from([
        ("links::session".to_owned(), of(&["actors::key"])),
        ("actors::mailbox".to_owned(), of(&["links::outbox"])),
        ("actors::key".to_owned(), of(&[])),
        ("links::outbox".to_owned(), of(&[])),
    ]);
    let rooms = imports_in_folder("", &graph);
    assert_eq!(rooms, BTreeMap::from([("actors".into(), of(&["links"])), ("links".into(), of(&["actors"]))]));
    assert!(cycle("actors", &rooms, &mut Vec::new(), &mut BTreeSet::new()).is_some());
    assert!(imports_in_folder("links", &graph).values().all(BTreeSet::is_empty));
}

#[test]
fn every_key_and_metric_is_documented_and_the_top_level_is_as_agreed() {
    let operations = std::fs::read_to_string(root().join("docs/OPERATIONS.md")).unwrap();
    let mut metrics = 0;
    for path in all_sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        if path.to_string_lossy().contains("/tests/") {
            continue;
        }
        for (at, _) in text.match_indices("\"mailraft_") {
            let name: String = text[at + 1..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if name != "mailraft_" && text[at + 1 + name.len()..].starts_with('"') {
                metrics += 1;
                assert!(operations.contains(&format!("`{name}`")), "{name} is not in docs/OPERATIONS.md");
            }
        }
    }
    assert!(metrics > 20);
    let file = std::fs::read_to_string(root().join("node/server/src/config/render.rs")).unwrap();
    let (mut section, mut keys) = (String::new(), 0);
    let template = file.split("r#\"").nth(1).unwrap().split("\"#").next().unwrap();
    for line in template.lines().map(|l| l.trim_start_matches("# ")) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        {
            keys += 1;
            assert!(operations.contains(&format!("`{section}{key}`")), "{section}{key} is not in docs/OPERATIONS.md");
        }
    }
    assert!(keys > 25, "{keys}");
    let listed = Command::new("git").args(["ls-tree", "--name-only", "HEAD"]).current_dir(root()).output().unwrap();
    for name in String::from_utf8_lossy(&listed.stdout).lines() {
        assert!(TOP_LEVEL.contains(&name), "{name} does not belong at the top level");
    }
}

/// The feature refuses to build without debug assertions; so no profile that is handed out may turn them on, and
/// nothing may ask for the feature by default.
#[test]
fn planted_faults_are_in_no_release() {
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(!workspace.contains("debug-assertions"), "a profile turns debug assertions on");
    let plants = std::fs::read_to_string(root().join("storage/src/plant.rs")).unwrap();
    assert!(plants.contains("#[cfg(all(feature = \"plant\", not(debug_assertions)))]\ncompile_error!"));
    const CRATES: [&str; 8] =
        ["storage", "cluster", "node/owner", "node/mailbox", "chaos-tests/sim", "chaos-tests", "node", "node/server"];
    for manifest in CRATES {
        let text = std::fs::read_to_string(root().join(manifest).join("Cargo.toml")).unwrap();
        let asks = text.lines().filter(|l| l.contains("plant")).any(|l| {
            !l.starts_with("plant = [")
                && !l.contains("planted")
                && !l.starts_with("required-features")
                && !l.starts_with('#')
        });
        assert!(!asks && !text.contains("default = ["), "{manifest}/Cargo.toml asks for the feature");
    }
}

/// What a session and an owner decide stands once: what all owners do in `node/owner`, what sessions and owners of
/// mailboxes do beside it in `node/mailbox`. The server and the simulator drive these machines, and neither they nor the
/// engines take an answer's meaning, an entry's outcome, a pause or a bound into their own hands.
/// The simulated world and its parts, each with its file.
const SIMULATED: [(&str, &str); 11] = [
    ("World", "world/mod.rs"),
    ("Clients", "clients/mod.rs"),
    ("Inputs", "inputs.rs"),
    ("Mailboxes", "mailboxes.rs"),
    ("Moves", "moves.rs"),
    ("Net", "net.rs"),
    ("Office", "office.rs"),
    ("Queue<E>", "queue.rs"),
    ("UnderWay", "under_way.rs"),
    ("Unresolved", "unresolved.rs"),
    ("Witness", "witness.rs"),
];

/// The public fields of a struct in this text; None if there is no such struct.
fn public_fields(text: &str, name: &str) -> Option<Vec<String>> {
    let body = text.split_once(&format!("pub struct {name}"))?.1;
    let body = body.split_once(if body.starts_with('(') { ';' } else { '}' })?.0;
    let fields = body.split([',', '(', '\n']).map(str::trim);
    Some(fields.filter(|field| field.starts_with("pub ") || field.starts_with("pub(")).map(str::to_owned).collect())
}

#[test]
fn the_simulated_world_and_its_parts_own_what_they_hold() {
    for (name, file) in SIMULATED {
        let text = std::fs::read_to_string(root().join("chaos-tests/sim/src").join(file)).unwrap();
        let public = public_fields(&text, name).unwrap_or_else(|| panic!("{file} has no {name}"));
        assert!(public.is_empty(), "{name} in {file}: {public:?}");
    }
    let other = "pub struct A {\n    /// One.\n    pub one: u8,\n    two: u8,\n}\npub struct B(pub u8, u8);\n";
    assert_eq!(public_fields(other, "A"), Some(vec!["pub one: u8".to_owned()]));
    assert_eq!(public_fields(other, "B"), Some(vec!["pub u8".to_owned()]));
    assert_eq!(public_fields(other, "C"), None);
}

#[test]
fn there_is_one_session_and_one_owner() {
    const OF_MAILBOXES: [&str; 9] = [
        "Command::Resume",
        "Following::new",
        "CommandError::Expired",
        "CommandError::BodyLost",
        "const CHUNKS_UNANSWERED_MAX",
        "const HELD_MAX_EVENTS",
        "const NO_LEADER_MAX",
        "const IDLE_RETRY_PAUSE",
        "const PATIENCE_PAUSE",
    ];
    const OF_ALL: [&str; 8] = [
        "ProposalOutcome::Dropped",
        "ProposalOutcome::Overloaded",
        "Verdict::Fenced",
        "Known::BelowFloor",
        "const BACKLOG_MAX_COMMANDS",
        "const BATCH_MAX_COMMANDS",
        "const QUEUE_MAX_COMMANDS",
        "const AGAIN_PAUSE_MS",
    ];
    const SHELLS: [&str; 2] = ["node/server/src", "chaos-tests/sim/src"];
    // It is a core to owners, and turns entries away; nothing follows from that there.
    const SIMULATED_CORE: &str = "chaos-tests/sim/src/queues.rs";
    // A mail program that comes back names what it had kept, as SELECT with QRESYNC does: its client's command, not the session's.
    const RETURNING_PROGRAM: &str = "chaos-tests/sim/src/world/returns.rs";
    const ENGINES: [&str; 2] = ["node/mailbox/src", "node/directory/src"];
    let texts = |dir: &str| {
        let mut files = Vec::new();
        sources(&root().join(dir), &mut files);
        files.into_iter().map(|f| (f.display().to_string(), std::fs::read_to_string(f).unwrap())).collect::<Vec<_>>()
    };
    let check = |marks: &[&str], machine: &str, others: &[&str]| {
        let (machines, others) = (texts(machine), others.iter().flat_map(|dir| texts(dir)).collect::<Vec<_>>());
        for mark in marks {
            let holders = machines.iter().filter(|(_, text)| text.contains(mark)).count();
            assert!(holders > 0, "nothing in {machine} holds {mark}");
            assert!(holders == 1 || !mark.starts_with("const"), "{mark} stands {holders} times in {machine}");
            for (file, text) in &others {
                let is_made = file.ends_with(SIMULATED_CORE) && mark.starts_with("ProposalOutcome::");
                let is_named = file.ends_with(RETURNING_PROGRAM) && *mark == "Command::Resume";
                assert!(
                    is_made || is_named || !text.contains(mark),
                    "{file} holds {mark}: that is for {machine} to decide"
                );
            }
        }
    };
    check(&OF_MAILBOXES, "node/mailbox/src", &SHELLS);
    check(&OF_ALL, "node/owner/src", &[SHELLS, ENGINES].concat());
    let drives = |dir: &str, machine: &str| {
        assert!(texts(dir).iter().any(|(_, text)| text.contains(machine)), "nobody in {dir} drives {machine}");
    };
    for dir in SHELLS {
        drives(dir, "session::Session");
        drives(dir, "MailboxOwner<");
    }
    drives("node/mailbox/src", "LogOwner<Mailbox,");
    SHELLS.iter().for_each(|dir| drives(dir, "LogOwner<Directory,"));
}

/// What a client hears of each command stands in one table, and none is forgotten there.
#[test]
fn the_table_of_what_clients_hear_names_every_command() {
    let text = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let manual = text("docs/OPERATIONS.md");
    let section = manual.split("## What a client hears").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).collect();
    let named = |protocol: &str, command: &str| {
        let mut first = rows.iter().filter_map(|row| row.split('|').nth(1));
        first.any(|cell| cell.trim().starts_with(protocol) && cell.contains(&format!("`{command}`")))
    };
    // The words that a protocol's commands are looked up by.
    for (protocol, at_least) in [("IMAP", 30), ("SMTP", 12), ("POP3", 14)] {
        let commands = text(&format!("node/{}/src/commands/mod.rs", protocol.to_lowercase()));
        let words = commands.split('"').filter(|word| word.len() > 1 && word.bytes().all(|b| b.is_ascii_uppercase()));
        let words: BTreeSet<&str> = words.filter(|word| *word != "UID").collect();
        assert!(words.len() >= at_least, "{words:?}");
        for word in words {
            assert!(named(protocol, word), "{protocol} {word}");
        }
    }
    for word in ["COPY", "EXPUNGE", "FETCH", "MOVE", "SEARCH", "STORE"] {
        assert!(named("IMAP", &format!("UID {word}")), "UID {word}");
    }
    let directory = text("node/directory/src/api.rs");
    let variants = directory.split("pub enum Command {").nth(1).unwrap().split("\n}").next().unwrap();
    let variants = variants.lines().filter_map(|line| line.strip_prefix("    ")?.strip_suffix(" {"));
    let variants: Vec<&str> = variants.filter(|name| !name.starts_with(' ')).collect();
    assert!(variants.len() >= 6, "{variants:?}");
    for variant in variants {
        assert!(named("`", variant), "{variant} of the directory");
    }
    let routes = text("node/server/src/admin/mod.rs");
    let routes: Vec<(&str, &str)> =
        routes.split(".route(\"").skip(1).filter_map(|route| route.split_once('"')).collect();
    assert!(routes.len() >= 10, "{routes:?}");
    for (path, how) in routes.into_iter().filter(|(path, _)| !["/healthz", "/readyz", "/metrics"].contains(path)) {
        let how = how.lines().next().unwrap();
        for method in ["post", "put", "delete"].into_iter().filter(|method| how.contains(&format!("{method}("))) {
            let method = method.to_uppercase();
            assert!(named("`", &format!("{method} {path}")), "{method} {path}");
        }
        assert!(!how.contains("get(") || named("`GET`", path), "GET {path}");
    }
}

/// Each command of a line protocol is a file, and its golden dialogue lies beside it.
#[test]
fn every_command_has_its_dialogue() {
    // What is beside the commands: the table of them, and their tests.
    const OTHERS: [&str; 6] = ["mod", "dialogue", "mishaps", "model", "outcomes", "properties"];
    for (protocol, at_least) in [("smtp", 12), ("imap", 25), ("pop3", 14)] {
        let directory = root().join(format!("node/{protocol}/src/commands"));
        let mut commands = 0;
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if path.extension().is_none_or(|e| e != "rs") || OTHERS.contains(&name.as_str()) {
                continue;
            }
            commands += 1;
            let dialogue = path.with_extension("txt");
            let text = std::fs::read_to_string(&dialogue).unwrap_or_else(|e| panic!("{}: {e}", dialogue.display()));
            let word = name.to_ascii_uppercase();
            let said = |line: &&str| line.starts_with("C: ") || line.starts_with("R: ");
            assert!(
                text.lines().filter(said).any(|line| line.to_ascii_uppercase().contains(&word)),
                "{} never says {word}",
                dialogue.display()
            );
            assert!(text.lines().any(|line| line.starts_with("S: ")), "{} hears nothing", dialogue.display());
        }
        assert!(commands >= at_least, "{commands} commands of {protocol}");
    }
}

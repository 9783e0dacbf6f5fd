//! The house stays tidy: arrows between crates, files, dependencies, documents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who may depend on whom inside the workspace.
const ARROWS: [(&str, &[&str]); 13] = [
    ("mailraft-storage", &[]),
    ("mailraft-disk", &["mailraft-storage"]),
    ("mailraft-cluster", &["mailraft-storage"]),
    ("mailraft-driver", &["mailraft-cluster", "mailraft-storage"]),
    ("mailraft-message", &[]),
    ("mailraft-mailbox", &["mailraft-storage"]),
    ("mailraft-directory", &["mailraft-storage"]),
    ("mailraft-smtp", &[]),
    ("mailraft-imap", &["mailraft-mailbox", "mailraft-message", "mailraft-storage"]),
    (
        "mailraft-server",
        &[
            "mailraft-cluster",
            "mailraft-directory",
            "mailraft-driver",
            "mailraft-imap",
            "mailraft-mailbox",
            "mailraft-message",
            "mailraft-smtp",
            "mailraft-storage",
        ],
    ),
    ("mailraft", &["mailraft-disk", "mailraft-driver", "mailraft-server", "mailraft-storage"]),
    ("mailraft-checkers", &["mailraft-mailbox", "mailraft-storage"]),
    ("mailraft-chaos", &["mailraft-disk"]),
];
const PURE: [&str; 8] = [
    "storage/src",
    "cluster/src",
    "node/mailbox/src",
    "node/directory/src",
    "node/message/src",
    "node/imap/src",
    "node/smtp/src",
    "chaos-tests/checkers/src",
];
/// Crates whose files are checked for circles. The two protocol engines are not among them yet: a session and its
/// commands know each other there.
const UNCIRCLED: [&str; 11] = [
    "storage/src",
    "storage/disk/src",
    "cluster/src",
    "cluster/driver/src",
    "node/src",
    "node/server/src",
    "node/mailbox/src",
    "node/directory/src",
    "node/message/src",
    "chaos-tests/src",
    "chaos-tests/checkers/src",
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
        let audited = path.ends_with("storage/disk/src/audited.rs");
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

/// The files of a crate that a file imports, by `crate::` paths.
fn imports(text: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let code: String = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
    let mut out = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let path: String =
            code[at + 7..].chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':')).collect();
        let mut best = None;
        let mut so_far = String::new();
        for part in path.split("::") {
            so_far = if so_far.is_empty() { part.to_owned() } else { format!("{so_far}::{part}") };
            if modules.contains(&so_far) {
                best = Some(so_far.clone());
            }
        }
        out.extend(best);
    }
    out
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

#[test]
fn no_files_import_in_a_circle() {
    for dir in UNCIRCLED {
        let base = root().join(dir);
        let mut files = Vec::new();
        sources(&base, &mut files);
        let name = |path: &Path| {
            let relative = path.strip_prefix(&base).unwrap().with_extension("");
            let name = relative.to_string_lossy().replace('/', "::");
            name.strip_suffix("::mod").map(str::to_owned).unwrap_or(name)
        };
        let modules: BTreeSet<String> = files.iter().map(|f| name(f)).filter(|n| n != "lib").collect();
        let graph: BTreeMap<String, BTreeSet<String>> = files
            .iter()
            .filter(|f| name(f) != "lib")
            .map(|f| {
                (
                    name(f),
                    imports(&std::fs::read_to_string(f).unwrap(), &modules)
                        .into_iter()
                        .filter(|i| *i != name(f))
                        .collect(),
                )
            })
            .collect();
        let mut done = BTreeSet::new();
        for module in graph.keys() {
            let found = cycle(module, &graph, &mut Vec::new(), &mut done);
            assert!(found.is_none(), "{dir}: {found:?} import each other in a circle");
        }
    }
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

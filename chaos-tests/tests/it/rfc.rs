//! docs/RFC.md names a test for everything that it says is spoken, and each of them exists.

use std::path::{Path, PathBuf};

/// Cells of a row: RFC, what of it, what is missing, tests.
const CELLS: usize = 4;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The names of all files, and the text of those that are in Rust.
fn walk(directory: &Path, names: &mut Vec<String>, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            walk(&path, names, text);
        } else if name.ends_with(".rs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
        names.push(name);
    }
}

fn is_there(test: &str, names: &[String], text: &str) -> bool {
    match test {
        path if path.contains('/') => root().join(path).exists(),
        file if file.ends_with(".txt") => names.iter().any(|name| name == file),
        name => text.contains(&format!("fn {name}(")),
    }
}

#[test]
fn every_rfc_that_is_spoken_names_tests_that_exist() {
    let (mut names, mut text) = (Vec::new(), String::new());
    ["node", "chaos-tests"].iter().for_each(|dir| walk(&root().join(dir), &mut names, &mut text));
    let document = std::fs::read_to_string(root().join("docs/RFC.md")).unwrap();
    let mut rows = 0;
    for line in document.lines() {
        let tests: Vec<&str> = match line.strip_prefix("| ").and_then(|row| row.strip_suffix('|')) {
            Some(row) => {
                let cells: Vec<&str> = row.split('|').collect();
                assert_eq!(cells.len(), CELLS, "{line}");
                if cells[0].trim() == "RFC" {
                    continue;
                }
                rows += 1;
                let tests: Vec<&str> = cells[CELLS - 1].split('`').skip(1).step_by(2).collect();
                assert!(!tests.is_empty(), "{line} names no test");
                tests
            }
            None if line.starts_with('|') => continue,
            None => line.split('`').skip(1).step_by(2).filter(|name| !name.contains('*')).collect(),
        };
        for test in tests {
            assert!(is_there(test, &names, &text), "{test} is no test: {line}");
        }
    }
    assert!(rows >= 30, "{rows} rows");
}

#[test]
fn what_is_advertised_is_in_the_table() {
    let document = std::fs::read_to_string(root().join("docs/RFC.md")).unwrap();
    let state = std::fs::read_to_string(root().join("node/imap/src/state.rs")).unwrap();
    let list = state.split("const CAPABILITIES").nth(1).unwrap().split("];").next().unwrap();
    let names: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    assert!(names.len() >= 20, "{names:?}");
    for name in names {
        let name = name.strip_suffix("=RES-STORAGE").unwrap_or(name);
        assert!(document.contains(name), "{name}");
    }
}

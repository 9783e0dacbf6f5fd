//! The table of limits in docs/OPERATIONS.md: each row names a key or says that it is fixed, a default with its unit,
//! what the client hears, a metric, and the test that fills the limit.

use std::path::{Path, PathBuf};

/// Cells of a row: key, default, unit, what the client hears, metric, test.
const CELLS: usize = 6;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// What stands in backquotes in a cell.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn sources(directory: &Path, all: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, all);
        } else if name.ends_with(".rs") && name != "limits_table.rs" {
            all.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// The keys of the file that quickstart writes, with their values.
fn keys() -> Vec<(String, String)> {
    let file = text("node/server/src/config/render.rs");
    let template = file.split("r#\"").nth(1).unwrap().split("\"#").next().unwrap().to_owned();
    let (mut section, mut keys) = (String::new(), Vec::new());
    for line in template.lines().map(|line| line.trim_start_matches("# ")) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once(" = ") {
            let value = value.split('#').next().unwrap().trim();
            keys.push((format!("{section}.{key}"), value.to_owned()));
        }
    }
    keys
}

#[test]
fn every_limit_has_its_row_and_each_row_names_what_there_is() {
    let manual = text("docs/OPERATIONS.md");
    let section = manual.split("\n## Limits\n").nth(1).expect("a section Limits").split("\n## ").next().unwrap();
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert!(!rows.is_empty());
    let (keys, mut all) = (keys(), String::new());
    for directory in ["storage", "cluster", "node", "chaos-tests"] {
        sources(&root().join(directory), &mut all);
    }
    let metrics = [text("node/server/src/metrics.rs"), text("cluster/driver/src/metrics.rs")].concat();
    for row in &rows {
        assert_eq!(row.len(), CELLS, "{row:?}");
        let [key, default, unit, hears, metric, test] = row[..] else { unreachable!("counted above") };
        assert!(!unit.is_empty() && !hears.is_empty(), "{row:?}");
        match quoted(key)[..] {
            [key] => {
                let (_, value) = keys.iter().find(|(name, _)| name == key).unwrap_or_else(|| panic!("no key {key}"));
                assert_eq!(value, &default.replace(',', ""), "the default of {key}");
            }
            _ => assert!(key.starts_with("fixed: "), "{row:?}: a key in backquotes, or `fixed: ` and what it is"),
        }
        for name in quoted(metric) {
            assert!(metrics.contains(&format!("\"{name}\"")), "no metric {name}");
        }
        assert!(!quoted(test).is_empty(), "{row:?} names no test");
        for name in quoted(test) {
            assert!(all.contains(&format!("fn {name}(")), "no test {name}");
        }
    }
    let in_table = |key: &str| rows.iter().any(|row| quoted(row[0]).contains(&key));
    for (key, _) in keys.iter().filter(|(key, _)| key.starts_with("limits.")) {
        assert!(in_table(key), "{key} has no row in the table of limits");
    }
}

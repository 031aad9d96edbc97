//! Who may use whom, and under which licences.

use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

use super::{nothing, root};

/// A crate may use crates of lower layers only. `quorate-` is left out of the names.
const LAYERS: &[(&str, u8)] = &[
    ("types", 0),
    ("binlog", 1),
    ("role", 1),
    ("wire", 1),
    ("net", 1),
    ("mysql-wire", 2),
    ("storage", 2),
    ("consensus", 3),
    ("replication", 3),
    ("mysqld", 3),
    ("proxy", 3),
    ("node", 4),
    ("quorate", 5),
    ("simulation", 6),
    ("tests", 6),
    ("benches", 7),
];

/// Packages with one crate, or few, that may name them.
const OWNED: &[(&str, &[&str])] = &[
    ("sled", &["storage"]),
    ("openraft", &["consensus"]),
    ("openraft-rt", &["consensus"]),
    ("openraft-rt-tokio", &["consensus"]),
    ("mysql_common", &["binlog", "mysql-wire"]),
    ("mysql_async", &["tests", "benches"]),
    ("clap", &["quorate", "benches", "simulation", "tests"]),
    ("rcgen", &["quorate"]),
    ("turmoil", &["simulation"]),
    ("criterion", &["benches"]),
];

/// Of those above, what any crate's own tests may name.
const FREE_IN_TESTS: &[&str] = &["criterion", "rcgen", "turmoil"];

/// Every `OR` needs one of these, every `AND` all of its parts.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// What cargo knows of every package, dependencies included.
static METADATA: LazyLock<Value> = LazyLock::new(|| {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {errors}");
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
});

fn packages() -> impl Iterator<Item = &'static Value> {
    METADATA["packages"].as_array().into_iter().flatten()
}

fn text(value: &'static Value) -> &'static str {
    value.as_str().unwrap_or_default()
}

/// Our packages by their short names.
fn ours() -> impl Iterator<Item = (&'static str, &'static Value)> {
    packages()
        .filter(|package| package["source"].is_null())
        .map(|package| (short(text(&package["name"])), package))
}

fn short(name: &str) -> &str {
    name.strip_prefix("quorate-").unwrap_or(name)
}

fn layer(name: &str) -> Option<u8> {
    LAYERS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, layer)| *layer)
}

fn dependencies(package: &'static Value) -> impl Iterator<Item = &'static Value> {
    package["dependencies"].as_array().into_iter().flatten()
}

#[test]
fn crates_use_lower_layers_only() {
    let mut findings = Vec::new();
    assert!(ours().count() > 10, "the workspace was found");
    for (name, package) in ours() {
        let Some(own) = layer(name) else {
            findings.push(format!(
                "{name}: has no layer; give it one in this test and the style"
            ));
            continue;
        };
        for dependency in dependencies(package).filter(|one| !one["path"].is_null()) {
            let used = short(text(&dependency["name"]));
            if layer(used).is_none_or(|used| used >= own) {
                findings.push(format!(
                    "{name} (layer {own}) uses {used}, which is not below it"
                ));
            }
        }
    }
    nothing(&findings);
}

#[test]
fn packages_with_an_owner_are_named_by_it_only() {
    let mut findings = Vec::new();
    for (name, package) in ours() {
        for dependency in dependencies(package) {
            let used = text(&dependency["name"]);
            if dependency["kind"] == "dev" && FREE_IN_TESTS.contains(&used) {
                continue;
            }
            let owners = OWNED.iter().find(|(known, _)| *known == used);
            if owners.is_some_and(|(_, owners)| !owners.contains(&name)) {
                findings.push(format!("{name} names {used}"));
            }
        }
    }
    nothing(&findings);
}

#[test]
fn every_dependency_has_a_permissive_licence() {
    let mut findings = Vec::new();
    for package in packages().filter(|package| !package["source"].is_null()) {
        let licence = text(&package["license"]);
        if !permits(licence) {
            findings.push(format!("{}: `{licence}`", text(&package["name"])));
        }
    }
    nothing(&findings);
}

/// Judges an expression of alternatives; parentheses hold alternatives of an `AND`.
fn permits(expression: &str) -> bool {
    let flat = expression.replace('/', " OR ");
    // "(A OR B) AND C" needs C and one of A and B: split outside parentheses only.
    let any = |part: &str| {
        let part = part.trim().trim_start_matches('(').trim_end_matches(')');
        part.split(" OR ").any(|one| LICENCES.contains(&one.trim()))
    };
    if flat.contains('(') {
        return flat.split(" AND ").all(any);
    }
    flat.split(" OR ").any(|one| one.split(" AND ").all(any))
}

#[test]
fn licences_are_judged_by_their_expression() {
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR GPL-2.0) AND Unicode-3.0",
    ] {
        assert!(permits(good), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR ISC) AND LGPL-2.1",
    ] {
        assert!(!permits(bad), "{bad}");
    }
}

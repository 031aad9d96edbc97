//! What is in the tree, and how large.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use super::{nothing, root};

const LINES_MAX: usize = 800;
const MAIN_LINES_MAX: usize = 40;
const README_LINES_MAX: usize = 150;

/// Everything visible at the top; names that start with a dot may stand beside.
const TOP: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "crates",
    "docs",
    "proto",
    "simulation",
    "tests",
];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "manager", "util", "utils"];

/// Left for later, or for one's own eyes. In pieces, so that this file does not find itself.
const LEFTOVERS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
];

/// Paths that exist on one machine only.
const FOREIGN_PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
];

/// Tracked files and new ones that are not ignored, with their text if they are text.
static FILES: LazyLock<Vec<(String, Option<String>)>> = LazyLock::new(|| {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git ls-files: {output:?}");
    let mut names: Vec<String> = output
        .stdout
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .filter(|name| root().join(name).is_file())
        .collect();
    names.sort();
    assert!(names.len() > 20, "the tree was found");
    let read = |name: &String| std::fs::read_to_string(root().join(name)).ok();
    names
        .into_iter()
        .map(|name| (name.clone(), read(&name)))
        .collect()
});

fn texts() -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES
        .iter()
        .filter_map(|(name, text)| Some((name.as_str(), text.as_deref()?)))
}

fn sources() -> impl Iterator<Item = (&'static str, &'static str)> {
    texts().filter(|(name, _)| {
        [".rs", ".proto", ".toml", ".html", ".ci/run"]
            .iter()
            .any(|end| name.ends_with(end))
    })
}

fn documents() -> impl Iterator<Item = (&'static str, &'static str)> {
    texts().filter(|(name, _)| {
        *name == "README.md" || (name.starts_with("docs/") && name.ends_with(".md"))
    })
}

#[test]
fn files_are_short_enough_to_read() {
    let mut findings = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().count();
        let most = if name.ends_with("/src/main.rs") {
            MAIN_LINES_MAX
        } else {
            LINES_MAX
        };
        if lines > most {
            findings.push(format!("{name}: {lines} lines, at most {most}"));
        }
    }
    for (name, text) in texts().filter(|(name, _)| *name == "README.md") {
        let lines = text.lines().count();
        if lines > README_LINES_MAX {
            findings.push(format!("{name}: {lines} lines, at most {README_LINES_MAX}"));
        }
    }
    nothing(&findings);
}

#[test]
fn nothing_has_an_empty_name() {
    let mut findings = Vec::new();
    for (name, _) in FILES.iter() {
        let parts = Path::new(name).iter().filter_map(|part| part.to_str());
        for part in parts.map(|part| part.split('.').next().unwrap_or_default()) {
            if EMPTY_NAMES.contains(&part) {
                findings.push(format!("{name}: `{part}` does not say what is in it"));
            }
        }
    }
    for (name, text) in sources().filter(|(name, _)| name.ends_with(".rs")) {
        for (number, line) in (1..).zip(text.lines()) {
            let words = line
                .trim()
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub ");
            let module = words
                .strip_prefix("mod ")
                .map(|rest| rest.trim_end_matches([';', '{', ' ']));
            if module.is_some_and(|module| EMPTY_NAMES.contains(&module)) {
                findings.push(format!("{name}:{number}: {}", line.trim()));
            }
        }
    }
    nothing(&findings);
}

#[test]
fn nothing_is_left_over_in_code() {
    nothing(&lines_with(sources(), LEFTOVERS));
}

#[test]
fn no_path_of_one_machine_is_in_the_tree() {
    nothing(&lines_with(texts(), FOREIGN_PATHS));
}

fn lines_with<'a>(files: impl Iterator<Item = (&'a str, &'a str)>, banned: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, text) in files {
        for (number, line) in (1..).zip(text.lines()) {
            for word in banned.iter().filter(|word| line.contains(**word)) {
                findings.push(format!("{name}:{number}: `{word}`"));
            }
        }
    }
    findings
}

#[test]
fn the_top_has_only_what_belongs_there() {
    let mut findings = Vec::new();
    for (name, _) in FILES.iter() {
        let top = name.split('/').next().unwrap_or_default();
        if !top.starts_with('.') && !TOP.contains(&top) {
            findings.push(format!("{name}: `{top}` is not one of {TOP:?}"));
        }
    }
    nothing(&findings);
}

#[test]
fn documents_name_paths_that_exist() {
    let mut findings = Vec::new();
    for (name, text) in documents() {
        for (number, line) in (1..).zip(text.lines()) {
            for quoted in line.split('`').skip(1).step_by(2) {
                if is_repository_path(quoted) && !root().join(quoted).exists() {
                    findings.push(format!("{name}:{number}: `{quoted}` does not exist"));
                }
            }
            let folder = Path::new(name).parent().unwrap_or(Path::new(""));
            for link in links(line) {
                if !root().join(folder).join(link).exists() {
                    findings.push(format!("{name}:{number}: the link `{link}` leads nowhere"));
                }
            }
        }
    }
    nothing(&findings);
}

/// Whether a quoted text means a file of ours: it starts with a folder of the top, with no pattern.
fn is_repository_path(quoted: &str) -> bool {
    let pattern = [' ', '*', '<', '{', '…', '$', ':'];
    let folder = quoted.split_once('/').map(|(folder, _)| folder);
    folder.is_some_and(|folder| TOP.contains(&folder) || folder == ".ci")
        && !quoted.contains(pattern)
}

/// Targets of relative links, without their anchors.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://"))
}

#[test]
fn paths_and_links_are_recognised() {
    assert!(is_repository_path("crates/node/src/lib.rs"));
    assert!(!is_repository_path("crates/<name>/src/"));
    assert!(!is_repository_path("DIR/n1/mysql.sock"));
    let found: Vec<&str> = links("see [a](b.md#c), [d](https://e.example/) and [f](#g)").collect();
    assert_eq!(found, ["b.md"]);
}

//! The package sources of this machine, read from apt's own files.

use std::fmt;
use std::path::{Path, PathBuf};

const LIST: &str = "/etc/apt/sources.list";
const PARTS: &str = "/etc/apt/sources.list.d";

/// One place that packages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repository {
    uri: String,
    suite: String,
    components: Vec<String>,
    signed_by: Option<String>,
}

impl Repository {
    /// Whether it mirrors Debian's main archive, which has every release.
    pub(crate) fn is_main_archive(&self) -> bool {
        self.uri.trim_end_matches('/').ends_with("/debian")
            && self.components.iter().any(|c| c == "main")
    }

    /// Whether it belongs to Debian at all: a third party's may be gone or need a key.
    fn is_debian(&self) -> bool {
        self.is_main_archive() || self.uri.contains("/debian-security")
    }

    pub(crate) fn with_suite(mut self, suite: &str) -> Self {
        suite.clone_into(&mut self.suite);
        self.components = vec!["main".to_owned()];
        self
    }

    /// As one line of a `sources.list`.
    pub(crate) fn line(&self) -> String {
        let signed_by = self
            .signed_by
            .as_ref()
            .map(|keys| format!(" signed-by={keys}"))
            .unwrap_or_default();
        let (uri, suite) = (&self.uri, &self.suite);
        let components = self.components.join(" ");
        format!("deb [arch=amd64{signed_by}] {uri} {suite} {components}")
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Debian {}", self.suite)
    }
}

/// Debian's repositories among the sources that this machine is set up with.
pub(crate) fn of_this_machine() -> Vec<Repository> {
    let mut files = vec![PathBuf::from(LIST)];
    let mut parts: Vec<PathBuf> = std::fs::read_dir(PARTS)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    parts.sort();
    files.extend(parts);
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        found.extend(parse(&file, &text));
    }
    found.retain(Repository::is_debian);
    found
}

fn parse(file: &Path, text: &str) -> Vec<Repository> {
    match file.extension().and_then(|e| e.to_str()) {
        Some("list") => text.lines().filter_map(parse_line).collect(),
        Some("sources") => parse_deb822(text),
        _ => Vec::new(),
    }
}

/// `deb [option=value …] URI SUITE COMPONENT…`
fn parse_line(line: &str) -> Option<Repository> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?;
    if !rest.starts_with(char::is_whitespace) {
        return None;
    }
    rest = rest.trim_start();
    let mut signed_by = None;
    if let Some(inner) = rest.strip_prefix('[') {
        let (options, after) = inner.split_once(']')?;
        signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(str::to_owned);
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Repository {
        uri: words.next()?,
        suite: words.next()?,
        components: words.collect(),
        signed_by,
    })
}

/// Stanzas of `Field: value` lines; a line that begins with a space continues the one before.
fn parse_deb822(text: &str) -> Vec<Repository> {
    let mut found = Vec::new();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut stanza: Vec<(String, String)> = Vec::new();
    for line in lines.chain([""]) {
        if line.trim().is_empty() {
            found.extend(repositories_of(&stanza));
            stanza.clear();
        } else if line.starts_with(char::is_whitespace) {
            if let Some((_, value)) = stanza.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((field, value)) = line.split_once(':') {
            stanza.push((field.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    found
}

fn repositories_of(stanza: &[(String, String)]) -> Vec<Repository> {
    let field = |name: &str| {
        let found = stanza.iter().find(|(field, _)| field == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    let words = |name| field(name).split_whitespace().map(str::to_owned);
    if field("enabled").eq_ignore_ascii_case("no") || !words("types").any(|t| t == "deb") {
        return Vec::new();
    }
    // Only the path of a keyring fits a one-line entry; a key written out in the stanza does not.
    let signed_by = Some(field("signed-by"))
        .filter(|keys| keys.starts_with('/') && !keys.contains(char::is_whitespace))
        .map(str::to_owned);
    let mut found = Vec::new();
    for uri in words("uris") {
        for suite in words("suites") {
            found.push(Repository {
                uri: uri.clone(),
                suite,
                components: words("components").collect(),
                signed_by: signed_by.clone(),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_give_the_same_repositories() {
        let list = "# a comment\n\
            deb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian stable main # end\n\
            deb-src http://mirror.example/debian stable main\n";
        let deb822 = "Types: deb\n# a comment\nURIs: http://mirror.example/debian\n\
            Suites: stable\nComponents: main\nSigned-By: /k.gpg\n\n\
            Types: deb\nEnabled: no\nURIs: http://other.example/debian\nSuites: stable\n";
        let one = parse(Path::new("a.list"), list);
        let two = parse(Path::new("a.sources"), deb822);
        assert_eq!(one, two);
        assert_eq!(
            one[0].clone().with_suite("sid").line(),
            "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian sid main"
        );
        assert!(one[0].is_main_archive());
    }

    #[test]
    fn foreign_files_and_broken_lines_are_passed_over() {
        for text in [
            "deb",
            "deb [",
            "deb [x] ",
            "debian x y",
            "deb http://x",
            ":",
            " x",
        ] {
            assert_eq!(parse(Path::new("a.list"), text), []);
            assert_eq!(parse(Path::new("a.sources"), text), []);
        }
        assert_eq!(parse(Path::new("a.list.off"), "deb http://x y main"), []);
    }
}

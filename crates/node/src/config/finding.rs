use std::fmt;
use std::io::Error as IoError;
use std::path::PathBuf;

/// One thing that is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Line and column, both from 1; none if the file as a whole lacks something.
    pub at: Option<(usize, usize)>,
    /// The key, such as `listen.grpc`; empty if the text is no TOML.
    pub key: String,
    /// What is wrong and why, in words.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.at {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}` ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Why a configuration could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("read the configuration {}", file.display())]
    Read { file: PathBuf, source: IoError },
    #[error("{}", list(file, findings))]
    Findings {
        file: PathBuf,
        findings: Vec<Finding>,
    },
}

fn list(file: &std::path::Path, findings: &[Finding]) -> String {
    let mut text = format!("the configuration {} is wrong:", file.display());
    for finding in findings {
        text.push_str("\n  ");
        // A message may have lines of its own: keep them below theirs.
        text.push_str(&finding.to_string().replace('\n', "\n    "));
    }
    text
}

/// Line and column of a byte offset, both from 1; the column counts characters.
pub(crate) fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count() + 1)
}

//! Passwords of the sidecar's own accounts.

use std::fs::OpenOptions;
use std::io::{Error as IoError, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use quorate_types::Secret;
use serde::Deserialize;

/// One file, the same on every node: accounts are replicated like any data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// Of the account `quorate`, which controls mysqld.
    pub control: Secret,
    /// Of the account `quorate_capture`, which reads the primary's binlog and sends ACKs.
    pub capture: Secret,
    /// Of the account `quorate_feed`, with which replicas log in to the feed.
    pub feed: Secret,
    /// Of the account `quorate_clone`, as which another node's server copies this node's.
    pub clone: Secret,
}

/// Why the passwords could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error("open the secrets file {}", file.display())]
    Open { file: PathBuf, source: IoError },
    #[error(
        "the secrets file {} has mode {mode:04o}, so others can read it: run `chmod 600 {}`",
        file.display(), file.display()
    )]
    ReadableByOthers { file: PathBuf, mode: u32 },
    // The parser's own message would quote the line, and with it a password.
    #[error(
        "the secrets file {} line {line} is wrong: it has `control`, `capture`, `feed` and `clone`, each \
         a text of 1 to 32 characters",
        file.display()
    )]
    Invalid { file: PathBuf, line: usize },
    #[error("write the secrets file {}", file.display())]
    Write { file: PathBuf, source: IoError },
    #[error("read random bytes of the system")]
    Random { source: IoError },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    control: String,
    capture: String,
    feed: String,
    clone: String,
}

/// 128 bits each: as good as a key. Not more, since as text they are as long as MySQL takes a
/// replication password (32 characters).
const RANDOM_BYTES: usize = 16;
/// MySQL cuts a longer one off when it logs in to a replication source.
const PASSWORD_LEN_MAX: usize = 32;

impl Secrets {
    /// Draws new ones from the system's generator.
    pub fn generate() -> Result<Self, SecretsError> {
        Ok(Self {
            control: draw()?,
            capture: draw()?,
            feed: draw()?,
            clone: draw()?,
        })
    }

    /// Writes a new file with mode 0600; one that exists is an error, since accounts already have
    /// its passwords.
    pub fn save(&self, file: &Path) -> Result<(), SecretsError> {
        let write = || -> Result<(), IoError> {
            let mut out = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(file)?;
            let text = format!(
                "# Passwords of Quorate's own accounts. The same file, mode 0600, on every node.\n\
                 control = \"{}\"\ncapture = \"{}\"\nfeed = \"{}\"\nclone = \"{}\"\n",
                self.control.expose(),
                self.capture.expose(),
                self.feed.expose(),
                self.clone.expose()
            );
            out.write_all(text.as_bytes())?;
            out.sync_all()
        };
        write().map_err(|source| SecretsError::Write {
            file: file.to_owned(),
            source,
        })
    }

    /// Reads a file; refuses one that anyone but its owner can read.
    pub fn load(file: &Path) -> Result<Self, SecretsError> {
        let open = |source| SecretsError::Open {
            file: file.to_owned(),
            source,
        };
        let mut input = std::fs::File::open(file).map_err(open)?;
        // Of the opened file, not of the path: nothing can be swapped in between.
        let mode = input.metadata().map_err(open)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SecretsError::ReadableByOthers {
                file: file.to_owned(),
                mode,
            });
        }
        let mut text = String::new();
        input.read_to_string(&mut text).map_err(open)?;
        let invalid = |offset: usize| SecretsError::Invalid {
            file: file.to_owned(),
            line: super::finding::line_column(&text, offset).0,
        };
        let raw: Raw = toml::from_str(&text)
            .map_err(|error| invalid(error.span().map_or(0, |span| span.start)))?;
        if [&raw.control, &raw.capture, &raw.feed, &raw.clone]
            .iter()
            .any(|text| text.is_empty() || text.len() > PASSWORD_LEN_MAX)
        {
            return Err(invalid(0));
        }
        Ok(Self {
            control: Secret::new(raw.control),
            capture: Secret::new(raw.capture),
            feed: Secret::new(raw.feed),
            clone: Secret::new(raw.clone),
        })
    }
}

fn draw() -> Result<Secret, SecretsError> {
    let mut bytes = [0; RANDOM_BYTES];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|source| SecretsError::Random { source })?;
    // Hex needs no quoting in TOML, SQL or a shell.
    Ok(Secret::new(
        bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    ))
}

//! Where the node's messages go.

use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Why messages cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("open the log file {}", file.display())]
    Open {
        file: PathBuf,
        source: std::io::Error,
    },
    #[error("parse the log filter `{filter}`")]
    Filter { filter: String, source: ParseError },
    #[error("messages are already written somewhere in this process")]
    AlreadySet,
}

/// Starts writing messages as plain text: to the file if one is given, else to standard error.
/// Colours are for terminals only. Once per process.
pub fn init(log: &crate::config::Log) -> Result<(), TelemetryError> {
    let filter = parse_filter(&log.filter).map_err(|source| TelemetryError::Filter {
        filter: log.filter.clone(),
        source,
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let set = match &log.file {
        Some(file) => {
            let out = OpenOptions::new()
                .create(true)
                .append(true)
                .open(file)
                .map_err(|source| TelemetryError::Open {
                    file: file.clone(),
                    source,
                })?;
            builder
                .with_ansi(false)
                .with_writer(Mutex::new(out))
                .try_init()
        }
        None => builder
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .try_init(),
    };
    set.map_err(|_| TelemetryError::AlreadySet)
}

pub(crate) fn parse_filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(text)
}

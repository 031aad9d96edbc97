use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_mysql_wire::{Row, ServerError};
use quorate_types::GtidSet;

use super::FeedOptions;
use super::variables::{names, system_variable};
use super::virtual_file::{END_FILE, START_FILE};

/// User variables that a session may have, and the bytes of one: consumers set a handful.
const USER_VARIABLES_MAX: usize = 64;
const USER_VARIABLE_BYTES_MAX: usize = 256;
/// Enough for any statement of a consumer; what is longer is not looked into.
const STATEMENT_BYTES_MAX: usize = 64 << 10;

/// What a statement gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ok,
    Rows {
        columns: Vec<String>,
        rows: Vec<Row>,
    },
    Error(ServerError),
}

/// What answers are made of.
pub(super) struct Facts<'a> {
    pub(super) options: &'a FeedOptions,
    pub(super) connection_id: u32,
    pub(super) accepted: Arc<GtidSet>,
}

/// The statements of one session. There is no SQL here: a fixed set of forms, in any case and with
/// any white space, is what replicas, tools and libraries say before they ask for a dump.
#[derive(Debug, Default)]
pub(super) struct Statements {
    user_variables: BTreeMap<String, String>,
}

impl Statements {
    pub(super) fn answer(&mut self, text: &str, facts: &Facts<'_>) -> Answer {
        if text.len() > STATEMENT_BYTES_MAX {
            return unknown(text);
        }
        let text = plain(text);
        let (word, rest) = split_word(&text);
        match word.to_ascii_lowercase().as_str() {
            "select" => self.select(rest, facts),
            "set" => self.set(rest, facts),
            "show" => self.show(rest, facts).unwrap_or_else(|| unknown(&text)),
            "use" | "commit" | "rollback" | "begin" => Answer::Ok,
            _ => unknown(&text),
        }
    }

    /// Whether the consumer said that it understands checksums.
    pub(super) fn wants_checksums(&self) -> bool {
        let said = self.either("source_binlog_checksum", "master_binlog_checksum");
        said.is_some_and(|value| value.eq_ignore_ascii_case("CRC32"))
    }

    /// How long we may be silent; none if the consumer does not mind.
    pub(super) fn heartbeat_period(&self) -> Option<Duration> {
        let said = self.either("source_heartbeat_period", "master_heartbeat_period")?;
        let nanoseconds: u64 = said.parse().ok()?;
        // Without a floor a consumer could keep us busy with nothing.
        const SHORTEST: Duration = Duration::from_millis(1);
        (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds).max(SHORTEST))
    }

    fn either(&self, new: &str, old: &str) -> Option<&String> {
        let variables = &self.user_variables;
        variables.get(new).or_else(|| variables.get(old))
    }

    fn select(&self, rest: &str, facts: &Facts<'_>) -> Answer {
        let mut columns = Vec::new();
        let mut values = Vec::new();
        for item in split_list(without_limit(rest)) {
            let (expression, name) = aliased(item);
            match self.value(expression, facts) {
                Ok(value) => values.push(value),
                Err(error) => return Answer::Error(error),
            }
            columns.push(name.to_owned());
        }
        let rows = vec![Row::from_iter(values)];
        Answer::Rows { columns, rows }
    }

    /// The value of an expression; none is NULL.
    fn value(&self, expression: &str, facts: &Facts<'_>) -> Result<Option<String>, ServerError> {
        let lower = expression.to_ascii_lowercase();
        if let Some(name) = lower.strip_prefix("@@") {
            let name = ["global.", "session.", "local."]
                .iter()
                .find_map(|scope| name.strip_prefix(scope))
                .unwrap_or(name)
                .trim_matches('`');
            return match system_variable(name, facts) {
                Some(value) => Ok(Some(value)),
                None => Err(no_variable(name)),
            };
        }
        if let Some(name) = lower.strip_prefix('@') {
            return Ok(self.user_variables.get(name.trim_matches('`')).cloned());
        }
        if let Some(text) = quoted(expression) {
            return Ok(Some(text.to_owned()));
        }
        let is_number = !lower.is_empty() && lower.bytes().all(|byte| byte.is_ascii_digit());
        let squeezed: String = lower.chars().filter(|c| !c.is_whitespace()).collect();
        match squeezed.as_str() {
            "unix_timestamp()" => Ok(Some((facts.options.unix_seconds)().to_string())),
            "version()" => Ok(Some(facts.options.server_version.clone())),
            "connection_id()" => Ok(Some(facts.connection_id.to_string())),
            "null" | "database()" | "schema()" => Ok(None),
            "true" => Ok(Some("1".to_owned())),
            "false" => Ok(Some("0".to_owned())),
            number if is_number => Ok(Some(number.to_owned())),
            _ => Err(syntax(expression)),
        }
    }

    fn set(&mut self, rest: &str, facts: &Facts<'_>) -> Answer {
        let mut remembered = Vec::new();
        for item in split_list(rest) {
            let lower = item.to_ascii_lowercase();
            let (word, _) = split_word(&lower);
            if matches!(word, "global" | "persist" | "persist_only" | "password")
                || lower.starts_with("@@global.")
                || lower.starts_with("@@persist")
            {
                let text = "Access denied; the feed has nothing that can be set globally";
                return Answer::Error(ServerError::new(1227, "42000", text));
            }
            if !lower.starts_with('@') || lower.starts_with("@@") {
                // Of the session: character sets, time-outs. Nothing here depends on them.
                continue;
            }
            let Some((name, value)) = item.split_once('=') else {
                return Answer::Error(syntax(item));
            };
            let name = lower[1..name.len()].trim_end_matches(':').trim();
            match self.value(value.trim(), facts) {
                Ok(value) => remembered.push((name.trim_matches('`').to_owned(), value)),
                Err(error) => return Answer::Error(error),
            }
        }
        for (name, value) in remembered {
            let value = value.unwrap_or_default();
            let is_new = !self.user_variables.contains_key(&name);
            if name.len() + value.len() > USER_VARIABLE_BYTES_MAX
                || is_new && self.user_variables.len() >= USER_VARIABLES_MAX
            {
                let text = "The feed does not keep that many or that long user variables";
                return Answer::Error(ServerError::new(1105, "HY000", text));
            }
            self.user_variables.insert(name, value);
        }
        Answer::Ok
    }

    fn show(&self, rest: &str, facts: &Facts<'_>) -> Option<Answer> {
        let lower = rest.to_ascii_lowercase();
        let words: Vec<&str> = lower.split_whitespace().collect();
        let rows = |columns: &[&str], rows: Vec<Vec<String>>| {
            Some(Answer::Rows {
                columns: columns.iter().map(|name| (*name).to_owned()).collect(),
                rows: rows
                    .into_iter()
                    .map(|row| Row::from_iter(row.into_iter().map(Some)))
                    .collect(),
            })
        };
        match words[..] {
            ["variables", ..] | ["global" | "session" | "local", "variables", ..] => {
                let like = pattern(rest)?;
                let found = names().filter(|name| matches_like(name, &like));
                let found = found.filter_map(|name| {
                    Some(vec![
                        name.to_owned(),
                        shown(system_variable(name, facts)?, name),
                    ])
                });
                rows(&["Variable_name", "Value"], found.collect())
            }
            ["master", "status"] | ["binary", "log", "status"] => {
                let row = [END_FILE, "4", "", "", &facts.accepted.to_string()].map(str::to_owned);
                let columns = [
                    "File",
                    "Position",
                    "Binlog_Do_DB",
                    "Binlog_Ignore_DB",
                    "Executed_Gtid_Set",
                ];
                rows(&columns, vec![row.into()])
            }
            ["master" | "binary", "logs"] => {
                let row = [START_FILE, "4", "No"].map(str::to_owned);
                rows(&["Log_name", "File_size", "Encrypted"], vec![row.into()])
            }
            ["warnings"] => rows(&["Level", "Code", "Message"], Vec::new()),
            ["replicas"] | ["slave", "hosts"] => {
                let columns = ["Server_Id", "Host", "Port", "Source_Id", "Replica_UUID"];
                rows(&columns, Vec::new())
            }
            _ => None,
        }
    }
}

/// `SHOW VARIABLES` has words where `SELECT` has numbers.
fn shown(value: String, name: &str) -> String {
    match name {
        "autocommit" | "log_bin" | "read_only" | "super_read_only" | "performance_schema" => {
            if value == "1" { "ON" } else { "OFF" }.to_owned()
        }
        _ => value,
    }
}

/// The statement without comments around it, white space and a semicolon at its end.
fn plain(text: &str) -> String {
    let mut text = text.trim();
    while let Some(rest) = text.strip_prefix("/*") {
        match rest.split_once("*/") {
            Some((_, rest)) => text = rest.trim_start(),
            None => break,
        }
    }
    text.trim_end_matches(|c: char| c == ';' || c.is_whitespace())
        .to_owned()
}

fn split_word(text: &str) -> (&str, &str) {
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}

/// Splits at commas that are neither quoted nor in parentheses.
fn split_list(text: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut start, mut depth, mut quote) = (0, 0_usize, None);
    for (at, letter) in text.char_indices() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            (_, Some(_)) => {}
            ('\'' | '"' | '`', None) => quote = Some(letter),
            ('(', None) => depth += 1,
            (')', None) => depth = depth.saturating_sub(1),
            (',', None) if depth == 0 => {
                items.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(text[start..].trim());
    items
}

fn without_limit(text: &str) -> &str {
    let lower = text.to_ascii_lowercase();
    match lower.rfind(" limit ") {
        Some(at) if lower[at + 7..].trim().bytes().all(|b| b.is_ascii_digit()) => &text[..at],
        _ => text,
    }
}

/// An expression and the name of its column.
fn aliased(item: &str) -> (&str, &str) {
    let lower = item.to_ascii_lowercase();
    match lower.rfind(" as ") {
        Some(at) => {
            let name = item[at + 4..].trim();
            (item[..at].trim(), name.trim_matches(['`', '\'', '"']))
        }
        None => (item, item),
    }
}

fn quoted(text: &str) -> Option<&str> {
    ['\'', '"'].iter().find_map(|quote| {
        let inner = text.strip_prefix(*quote)?.strip_suffix(*quote)?;
        (!inner.contains(*quote)).then_some(inner)
    })
}

/// The pattern of `LIKE 'x'` or `WHERE variable_name = 'x'`; everything without one.
fn pattern(rest: &str) -> Option<String> {
    let lower = rest.to_ascii_lowercase();
    let after = lower.split_once("variables")?.1.trim();
    if after.is_empty() {
        return Some("%".to_owned());
    }
    let (word, rest) = split_word(after);
    let value = match word {
        "like" => rest,
        "where" => {
            let (name, value) = rest
                .split_once(['='])
                .or_else(|| rest.split_once(" like "))?;
            (name.trim().trim_matches('`') == "variable_name").then_some(value)?
        }
        _ => return None,
    };
    quoted(value.trim()).map(str::to_owned)
}

/// SQL's `LIKE`, both in lower case.
fn matches_like(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let (mut at, mut like) = (0, 0);
    // Where to go on if what follows the last `%` does not fit.
    let mut retry = None;
    while at < text.len() {
        match pattern.get(like) {
            Some(b'%') => {
                retry = Some((like, at));
                like += 1;
            }
            Some(b'\\') if pattern.get(like + 1) == Some(&text[at]) => {
                at += 1;
                like += 2;
            }
            Some(letter) if *letter == b'_' || *letter == text[at] => {
                at += 1;
                like += 1;
            }
            _ => match retry {
                Some((percent, from)) => {
                    retry = Some((percent, from + 1));
                    at = from + 1;
                    like = percent + 1;
                }
                None => return false,
            },
        }
    }
    pattern[like..].iter().all(|letter| *letter == b'%')
}

fn no_variable(name: &str) -> ServerError {
    let text = format!("Unknown system variable '{name}'");
    ServerError::new(ServerError::UNKNOWN_SYSTEM_VARIABLE, "HY000", text)
}

fn syntax(near: &str) -> ServerError {
    let near: String = near.chars().take(80).collect();
    let text = format!(
        "This is a replication feed, not a server: it has no answer to this, near '{near}'"
    );
    ServerError::new(1064, "42000", text)
}

fn unknown(text: &str) -> Answer {
    Answer::Error(syntax(text))
}

#[cfg(test)]
mod tests;

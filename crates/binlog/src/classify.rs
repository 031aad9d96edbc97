//! May a transaction be cut from a binlog's end, so that the server rolls it back?

use std::fmt;

use crate::body::Query;
use crate::boundary::{Ending, Step};
use crate::event::EventType;
use crate::statement::{Statement, judge};

/// What becomes of a transaction whose events are cut off before the server starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The server rolls it back.
    Rollbackable(Form),
    /// It changes no rows: FLUSH, ANALYZE, OPTIMIZE, REPAIR, or nothing between BEGIN and COMMIT.
    Inert,
    /// Its effect stays: the server must be cloned.
    NotRollbackable(Obstacle),
}

/// The forms that are rolled back exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Row events with an `Xid`.
    Rows,
    /// The same, compressed. Servers compress nothing that an engine without transactions wrote.
    Payload,
    /// DDL or an account statement, with an xid.
    Ddl,
    /// A statement or the first phase of an XA transaction.
    Xa,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rollbackable(Form::Rows) => f.write_str("rows"),
            Self::Rollbackable(Form::Payload) => f.write_str("rows, compressed"),
            Self::Rollbackable(Form::Ddl) => f.write_str("DDL or an account statement"),
            Self::Rollbackable(Form::Xa) => f.write_str("XA"),
            Self::Inert => f.write_str("changes nothing"),
            Self::NotRollbackable(obstacle) => write!(f, "not rolled back: {obstacle}"),
        }
    }
}

/// Why a transaction cannot be rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    #[error("an engine without transactions changed rows")]
    NoXid,
    #[error("it was logged as a statement")]
    StatementFormat,
    #[error("the statement has no xid")]
    StatementWithoutXid,
    #[error("it discards or imports a tablespace")]
    Tablespace,
    #[error("it names an engine other than InnoDB")]
    OtherEngine,
    #[error("the statement is too long to be judged")]
    LongStatement,
    #[error("the server lost events")]
    Incident,
}

/// Collects what decides the class, event by event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Classifier {
    has_rows: bool,
    obstacle: Option<Obstacle>,
    alone: Option<Class>,
}

impl Classifier {
    /// `whole` says that `body` was not cut off.
    pub(crate) fn push(
        &mut self,
        event_type: EventType,
        body: &[u8],
        whole: bool,
        step: &Step,
    ) -> Option<Class> {
        self.look(event_type, body, whole, step);
        let Step::End(ending) = step else {
            return None;
        };
        let Self {
            has_rows,
            obstacle,
            alone,
        } = std::mem::take(self);
        let obstructed = obstacle.map(Class::NotRollbackable);
        Some(match ending {
            Ending::Xid => obstructed.unwrap_or(Class::Rollbackable(Form::Rows)),
            Ending::Commit if !has_rows && obstacle.is_none() => Class::Inert,
            Ending::Commit | Ending::Rollback => Class::NotRollbackable(Obstacle::NoXid),
            Ending::Statement => alone
                .or(obstructed)
                .unwrap_or(Class::NotRollbackable(Obstacle::StatementWithoutXid)),
            Ending::XaPrepare => obstructed.unwrap_or(Class::Rollbackable(Form::Xa)),
            Ending::Payload => Class::Rollbackable(Form::Payload),
            Ending::Incident => Class::NotRollbackable(Obstacle::Incident),
        })
    }

    fn look(&mut self, event_type: EventType, body: &[u8], whole: bool, step: &Step) {
        if event_type.is_rows() {
            self.has_rows = true;
        }
        if matches!(
            event_type,
            EventType::INTVAR | EventType::RAND | EventType::EXECUTE_LOAD_QUERY
        ) {
            self.obstacle = Some(Obstacle::StatementFormat);
        }
        if event_type != EventType::QUERY {
            return;
        }
        let Ok(query) = Query::parse_body(body) else {
            self.obstacle = Some(Obstacle::StatementFormat);
            return;
        };
        if let Step::End(Ending::Statement) = step {
            self.alone = Some(alone(&query, whole));
        } else if !matches!(step, Step::End(_)) && !is_bracket(query.text) {
            self.obstacle = Some(match judge(query.text) {
                Statement::CreateSelect if whole => return,
                Statement::OtherEngine => Obstacle::OtherEngine,
                _ => Obstacle::StatementFormat,
            });
        }
    }
}

fn is_bracket(text: &[u8]) -> bool {
    let xa_start = text
        .get(..8)
        .is_some_and(|head| head.eq_ignore_ascii_case(b"XA START"));
    text == b"BEGIN" || xa_start || judge(text) == Statement::Bracket
}

fn alone(query: &Query<'_>, whole: bool) -> Class {
    let obstacle = match judge(query.text) {
        Statement::Inert => return Class::Inert,
        Statement::Xa => return Class::Rollbackable(Form::Xa),
        _ if query.ddl_xid.is_none() => Obstacle::StatementWithoutXid,
        Statement::Tablespace => Obstacle::Tablespace,
        Statement::OtherEngine => Obstacle::OtherEngine,
        _ if !whole => Obstacle::LongStatement,
        Statement::Bracket | Statement::CreateSelect | Statement::Other => {
            return Class::Rollbackable(Form::Ddl);
        }
    };
    Class::NotRollbackable(obstacle)
}

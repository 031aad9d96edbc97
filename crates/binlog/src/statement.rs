//! What a logged statement does to the binlog's tail: may it be cut?

/// What the text of a statement that stands alone tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// FLUSH, ANALYZE, OPTIMIZE, REPAIR: changes no rows.
    Inert,
    /// `XA COMMIT`, `XA ROLLBACK`.
    Xa,
    /// DISCARD or IMPORT TABLESPACE.
    Tablespace,
    /// Names an engine other than InnoDB.
    OtherEngine,
    /// `CREATE TABLE … START TRANSACTION`: the rows of its SELECT follow it.
    CreateSelect,
    /// `SAVEPOINT`, `ROLLBACK TO`, `RELEASE`, `XA END`: changes nothing by itself.
    Bracket,
    Other,
}

/// Judges by the words of the text, in favour of the answers that forbid a cut.
pub(crate) fn judge(text: &[u8]) -> Statement {
    // What is in a conditional comment may or may not be executed: its words count, but a
    // statement that begins with one is never taken for a harmless one.
    let first = Words::new(text).next().unwrap_or_default();
    let is = |word: &str| first.eq_ignore_ascii_case(word.as_bytes());
    if is("FLUSH") || is("ANALYZE") || is("OPTIMIZE") || is("REPAIR") {
        return Statement::Inert;
    }
    if is("SAVEPOINT") || is("ROLLBACK") || is("RELEASE") {
        return Statement::Bracket;
    }
    if is("XA") {
        let second = Words::new(text).nth(1).unwrap_or_default();
        return match second.eq_ignore_ascii_case(b"END") {
            true => Statement::Bracket,
            false => Statement::Xa,
        };
    }
    scan(text)
}

fn scan(text: &[u8]) -> Statement {
    let (mut moves_space, mut tablespace, mut starts) = (false, false, false);
    let mut create_select = false;
    let mut words = Words::new(text);
    while let Some(word) = words.next() {
        let is = |other: &str| word.eq_ignore_ascii_case(other.as_bytes());
        moves_space |= is("DISCARD") || is("IMPORT");
        tablespace |= is("TABLESPACE");
        create_select |= starts && is("TRANSACTION");
        starts = is("START");
        if is("ENGINE") && names_other_engine(&mut words) {
            return Statement::OtherEngine;
        }
    }
    if moves_space && tablespace {
        Statement::Tablespace
    } else if create_select {
        Statement::CreateSelect
    } else {
        Statement::Other
    }
}

/// After the word ENGINE, which may as well be the name of a column: then no engine follows.
fn names_other_engine(words: &mut Words<'_>) -> bool {
    const OTHERS: [&str; 12] = [
        "MYISAM",
        "MEMORY",
        "HEAP",
        "CSV",
        "ARCHIVE",
        "MERGE",
        "MRG_MYISAM",
        "FEDERATED",
        "BLACKHOLE",
        "NDB",
        "NDBCLUSTER",
        "EXAMPLE",
    ];
    let mut assigned = false;
    let mut ahead = Words::new(words.rest);
    let named = ahead.find(|word| {
        assigned |= *word == b"=";
        !matches!(word, &[b'=' | b'\'' | b'"' | b'`'])
    });
    let named = named.unwrap_or_default();
    let is_one_of = |names: &[&str]| {
        names
            .iter()
            .any(|name| named.eq_ignore_ascii_case(name.as_bytes()))
    };
    is_one_of(&OTHERS) || assigned && !is_one_of(&["INNODB"])
}

/// The words and signs of a statement, plain comments left out, quotes not looked at.
struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    fn skip_blanks(&mut self) {
        loop {
            self.rest = self.rest.trim_ascii_start();
            let plain_comment = self.rest.starts_with(b"/*")
                && !matches!(self.rest.get(2), Some(b'!' | b'+' | b'M'));
            if !plain_comment {
                return;
            }
            let end = self.rest[2..].windows(2).position(|two| two == b"*/");
            self.rest = end.map_or(&[], |end| &self.rest[end + 4..]);
        }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.skip_blanks();
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80;
        let len = self.rest.iter().take_while(|byte| is_word(byte)).count();
        if self.rest.is_empty() {
            return None;
        }
        let (word, rest) = self.rest.split_at(len.max(1));
        self.rest = rest;
        Some(word)
    }
}

use std::fmt::Write as _;
use std::str::FromStr;

use quorate_types::{ClusterId, Epoch, Incarnation, LeaderId, LogId, LogIndex, NodeId, Term};

/// Who owns a data folder, and what must be known before its server may start again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// Grows with each start of the process; unlike the Raft folder's, the folder is an image.
    pub start_counter: u64,
    /// The last epoch in which `super_read_only` was switched off here: written before it was.
    pub last_epoch: Option<Epoch>,
}

/// Why a marker file's text is no marker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the marker file is damaged or of a later version: {0}")]
pub struct MarkerParseError(String);

const HEAD: &str = "quorate-marker 1";

impl Marker {
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!(
            "{HEAD}\ncluster {}\nnode {}\nincarnation {}\nstart_counter {}\n",
            self.cluster, self.node, self.incarnation, self.start_counter
        );
        if let Some(Epoch(LogId { leader, index })) = self.last_epoch {
            let _ = writeln!(text, "last_epoch {} {} {index}", leader.term, leader.node);
        }
        text.push_str("end\n");
        text
    }
}

impl FromStr for Marker {
    type Err = MarkerParseError;

    fn from_str(text: &str) -> Result<Self, MarkerParseError> {
        let mut lines = text.lines();
        let mut expect = |name: &str| -> Result<Vec<String>, MarkerParseError> {
            let line = lines.next().unwrap_or_default();
            let values = line
                .strip_prefix(name)
                .filter(|v| v.is_empty() || v.starts_with(' '));
            let values = values.ok_or_else(|| MarkerParseError(format!("no `{name}`")))?;
            Ok(values.split_whitespace().map(str::to_owned).collect())
        };
        expect(HEAD)?;
        let cluster = one(&expect("cluster")?)?;
        let node = NodeId(one(&expect("node")?)?);
        let incarnation = one(&expect("incarnation")?)?;
        let start_counter = one(&expect("start_counter")?)?;
        let last_epoch = match text.contains("\nlast_epoch ") {
            false => None,
            true => Some(epoch(&expect("last_epoch")?)?),
        };
        expect("end")?;
        Ok(Self {
            cluster,
            node,
            incarnation,
            start_counter,
            last_epoch,
        })
    }
}

fn one<T: FromStr>(values: &[String]) -> Result<T, MarkerParseError> {
    let wrong = || MarkerParseError(format!("`{}`", values.join(" ")));
    let [value] = values else {
        return Err(wrong());
    };
    value.parse().map_err(|_| wrong())
}

fn epoch(values: &[String]) -> Result<Epoch, MarkerParseError> {
    let number = |i: usize| one::<u64>(values.get(i..=i).unwrap_or_default());
    Ok(Epoch(LogId {
        leader: LeaderId {
            term: Term(number(0)?),
            node: NodeId(number(1)?),
        },
        index: LogIndex(number(2)?),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(last_epoch: Option<Epoch>) -> Marker {
        Marker {
            cluster: ClusterId(u64::MAX),
            node: NodeId(3),
            incarnation: Incarnation(7),
            start_counter: 12,
            last_epoch,
        }
    }

    #[test]
    fn a_marker_survives_being_written_and_a_torn_one_is_refused() {
        let leader = LeaderId {
            term: Term(4),
            node: NodeId(3),
        };
        let index = LogIndex(u64::MAX);
        for marker in [marker(None), marker(Some(Epoch(LogId { leader, index })))] {
            let text = marker.to_text();
            assert_eq!(text.parse(), Ok(marker));
            for end in 0..text.len() - 1 {
                assert!(text[..end].parse::<Marker>().is_err(), "{end}");
            }
        }
    }
}

//! `quorate verify`.

use anyhow::bail;
use quorate_wire::v1::{VerifyReply, VerifyRequest};

use crate::admin;
use crate::args::Address;

pub(crate) async fn run(at: &Address) -> anyhow::Result<()> {
    let mut client = admin::connect(at).await?;
    let refused = |status: tonic::Status| admin::refusal(at, &status);
    let reply = client.verify(VerifyRequest {}).await.map_err(refused)?;
    let mut outcomes = reply.into_inner();
    let mut counted = Counted::default();
    while let Some(outcome) = outcomes.message().await.map_err(refused)? {
        counted.count(&outcome);
        if let Some(line) = line(&outcome) {
            println!("{line}");
        }
    }
    let Counted {
        equal,
        different,
        skipped,
    } = counted;
    println!("{equal} equal, {different} different, {skipped} not compared");
    counted.judge()
}

/// Tables of replicas.
#[derive(Clone, Copy, Default)]
struct Counted {
    equal: u64,
    different: u64,
    skipped: u64,
}

impl Counted {
    fn count(&mut self, outcome: &VerifyReply) {
        match (outcome.compared, outcome.wrong.is_empty()) {
            (true, true) => self.equal += 1,
            (true, false) => self.different += 1,
            (false, _) => self.skipped += 1,
        }
    }

    /// An error unless all is known to be equal.
    fn judge(self) -> anyhow::Result<()> {
        match (self.different, self.skipped) {
            (0, 0) => Ok(()),
            (0, skipped) => bail!("{skipped} could not be compared: run it again"),
            (different, _) => bail!("{different} tables of replicas differ from the primary's"),
        }
    }
}

/// What there is to say of it, if anything.
fn line(outcome: &VerifyReply) -> Option<String> {
    let (node, wrong) = (outcome.node, &outcome.wrong);
    match outcome.table.as_str() {
        _ if wrong.is_empty() => None,
        "" => Some(format!("node {node}: {wrong}")),
        table => Some(format!("node {node}, {table}: {wrong}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(table: &str, compared: bool, wrong: &str) -> VerifyReply {
        VerifyReply {
            node: 2,
            table: table.to_owned(),
            compared,
            wrong: wrong.to_owned(),
        }
    }

    fn judged(replies: &[VerifyReply]) -> Option<String> {
        let mut counted = Counted::default();
        for reply in replies {
            counted.count(reply);
        }
        counted.judge().err().map(|error| error.to_string())
    }

    #[test]
    fn it_succeeds_only_if_everything_is_known_to_be_equal() {
        let equal = reply("app.t", true, "");
        let differs = reply("app.t", true, "it holds 1 rows, 7; the primary 2 rows, 9");
        let skipped = reply("app.t", false, "not compared: it lags");
        assert_eq!(judged(&[]), None);
        assert_eq!(judged(std::slice::from_ref(&equal)), None);
        let said = judged(&[equal.clone(), differs.clone(), skipped.clone()]);
        assert!(said.is_some_and(|said| said.starts_with("1 tables of replicas differ")));
        let said = judged(&[equal, skipped]);
        assert!(said.is_some_and(|said| said.starts_with("1 could not be compared")));
    }

    #[test]
    fn only_what_is_wrong_is_said_and_by_node_and_table() {
        assert_eq!(line(&reply("app.t", true, "")), None);
        let all = line(&reply("", false, "not compared: it is down"));
        assert_eq!(all.as_deref(), Some("node 2: not compared: it is down"));
        let one = line(&reply("app.t", true, "it has no such table"));
        assert_eq!(one.as_deref(), Some("node 2, app.t: it has no such table"));
    }
}

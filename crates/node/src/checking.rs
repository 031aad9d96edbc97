//! What a node says of its own server when it is asked what speaks against it.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use quorate_mysqld::{CheckFinding, Facts, Severity};
use quorate_net::Net;
use quorate_wire::v1;
use tokio::time::timeout;
use tonic::Status;

use crate::server::Logins;
use quorate_types::chain;

/// Looking at all tables of a large server takes its time.
const LOOK_MAX: std::time::Duration = std::time::Duration::from_secs(30);

/// Answers with what the own server is like.
pub(crate) type Check =
    Arc<dyn Fn() -> BoxFuture<'static, Result<v1::CheckReply, Status>> + Send + Sync>;

pub(crate) fn checker<N: Net>(net: N, logins: Logins) -> Check {
    Arc::new(move || {
        let (net, logins) = (net.clone(), logins.clone());
        async move {
            let look = async {
                let failed = |error: &dyn std::error::Error| Status::unavailable(chain(error));
                let mut session = logins.control(&net).await.map_err(|error| failed(&error))?;
                let findings = session.preflight().await.map_err(|error| failed(&error))?;
                let facts = session.facts().await.map_err(|error| failed(&error))?;
                Ok(reply(&facts, &findings))
            };
            let late = |_| Status::deadline_exceeded("its server takes too long to be looked at");
            timeout(LOOK_MAX, look).await.map_err(late)?
        }
        .boxed()
    })
}

fn reply(facts: &Facts, findings: &[CheckFinding]) -> v1::CheckReply {
    let facts = facts.iter().map(|(name, value)| v1::Fact {
        name: name.clone(),
        value: value.clone(),
    });
    let findings = findings.iter().map(|finding| v1::CheckFinding {
        severity: match finding.severity {
            Severity::Forbids => v1::Severity::Forbids,
            Severity::Warns => v1::Severity::Warns,
            Severity::Notes => v1::Severity::Notes,
        }
        .into(),
        what: finding.what.clone(),
        advice: finding.advice.clone(),
    });
    v1::CheckReply {
        facts: facts.collect(),
        findings: findings.collect(),
    }
}

/// The facts and findings of a reply. A severity that is not known counts as the worst.
pub(crate) fn from_reply(reply: v1::CheckReply) -> (Facts, Vec<CheckFinding>) {
    let facts = reply.facts.into_iter().map(|fact| (fact.name, fact.value));
    let findings = reply.findings.into_iter().map(|finding| {
        let severity = match v1::Severity::try_from(finding.severity) {
            Ok(v1::Severity::Notes) => Severity::Notes,
            Ok(v1::Severity::Warns) => Severity::Warns,
            Ok(v1::Severity::Forbids | v1::Severity::Unspecified) | Err(_) => Severity::Forbids,
        };
        CheckFinding::new(severity, finding.what, finding.advice)
    });
    (facts.collect(), findings.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_found_reaches_whoever_asked() {
        let facts: Facts = [("server_id".to_owned(), "7".to_owned())].into();
        let severities = [Severity::Forbids, Severity::Warns, Severity::Notes];
        let findings: Vec<CheckFinding> = severities
            .map(|severity| CheckFinding::new(severity, "what", "advice"))
            .into();
        let mut sent = reply(&facts, &findings);
        assert_eq!(from_reply(sent.clone()), (facts, findings));
        sent.findings[2].severity = 99;
        assert_eq!(from_reply(sent).1[2].severity, Severity::Forbids);
    }
}

use std::time::Duration;

use quorate_mysqld::{CheckFinding, Host, Session, Severity};
use quorate_net::Net;
use tokio::time::timeout;

use super::{JobContext, JobError};

/// A server with very many tables is not kept waiting for: `quorate check` looks at it too.
const LOOK_MAX: Duration = Duration::from_secs(10);

impl<N: Net, H: Host> JobContext<N, H> {
    /// Looks at a server before it follows the feed; says once what speaks against it. The session may
    /// be of no use afterwards.
    pub(super) async fn preflight(&self, session: &mut Session) -> Result<(), JobError> {
        let Ok(findings) = timeout(LOOK_MAX, session.preflight()).await else {
            tracing::info!(bound = ?LOOK_MAX, "too much to look at: `quorate check` takes longer");
            return Ok(());
        };
        let findings = findings?;
        let forbidding = findings
            .iter()
            .find(|finding| finding.severity == Severity::Forbids);
        if let Some(finding) = forbidding {
            return Err(JobError::Failed(finding.to_string()));
        }
        self.tell(&findings);
        Ok(())
    }

    fn tell(&self, findings: &[CheckFinding]) {
        let mut told = self
            .told
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for finding in findings.iter().filter(|finding| !told.contains(finding)) {
            match finding.severity {
                Severity::Notes => tracing::info!("preflight: {finding}"),
                Severity::Warns | Severity::Forbids => tracing::warn!("preflight: {finding}"),
            }
        }
        *told = findings.to_vec();
    }
}

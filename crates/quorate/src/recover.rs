//! `quorate recover`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use quorate_node::config::Config;
use quorate_node::force_new_cluster;
use quorate_types::GtidSet;
use quorate_wire::v1::{AcceptErrantReply, AcceptErrantRequest};
use tokio::time::timeout;

use crate::admin;
use crate::args::{Address, RecoverArgs};
use crate::node::offline_parts;

/// More than all servers take to be asked, and two rounds of the log.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

const WARNING: &str = "\
WARNING: this makes a new cluster of this one node. Commits that were acknowledged and that this node
does not have are LOST. If any other node of the old cluster still runs, or ever runs again, there
will be two databases that both take writes, and nothing can merge them. Do this only if the other
nodes are lost for good, on the survivor whose log is the longest.";

const ERRANT_WARNING: &str = "\
WARNING: this makes transactions of one server accepted that never went through the log, and throws
away all that the other servers have besides what is accepted. Nobody can take it back. Look at the
servers first: what is lost with the others can only be read off them now.";

pub(crate) async fn run(args: &RecoverArgs) -> anyhow::Result<()> {
    match (&args.config, &args.addr, args.accept_errant) {
        (Some(config), _, None) => force(config, args.the_others_are_lost).await,
        (None, Some(addr), Some(node)) => {
            let at = Address {
                addr: addr.clone(),
                certs: args.certs.clone(),
            };
            accept_errant(&at, node, args).await
        }
        _ => bail!("say --force-new-cluster with --config, or --accept-errant with --addr"),
    }
}

/// Shows what would be accepted; with --yes has just that accepted.
async fn accept_errant(at: &Address, node: u64, args: &RecoverArgs) -> anyhow::Result<()> {
    eprintln!("{ERRANT_WARNING}\n");
    let mut request = AcceptErrantRequest {
        node,
        do_not_wait: args.do_not_wait,
        executed_gtid_set: None,
    };
    let plan = ask(at, request.clone()).await?;
    if !plan.accepted {
        bail!("refused: {}", plan.text);
    }
    print!("{}", shown(node, &plan)?);
    if !args.yes {
        bail!("nothing was changed. To do it, say --yes");
    }
    request.executed_gtid_set = Some(plan.executed_gtid_set);
    let done = ask(at, request).await?;
    if !done.accepted {
        bail!("refused: {}", done.text);
    }
    println!("{}", done.text);
    Ok(())
}

async fn ask(at: &Address, request: AcceptErrantRequest) -> anyhow::Result<AcceptErrantReply> {
    let ask = async {
        let mut client = admin::connect(at).await?;
        let reply = client.accept_errant(request).await;
        let reply = reply.map_err(|refused| admin::refusal(at, &refused))?;
        anyhow::Ok(reply.into_inner())
    };
    let limit = ANSWER_WAIT.as_secs();
    let late = || format!("{} did not answer within {limit} s: look again", at.addr);
    timeout(ANSWER_WAIT, ask).await.with_context(late)?
}

/// What becomes accepted, and what is thrown away, for people.
fn shown(node: u64, plan: &AcceptErrantReply) -> anyhow::Result<String> {
    let set = |bytes: &[u8]| GtidSet::try_from_wire(bytes).context("understand the answer");
    let errant = set(&plan.errant_gtid_set)?;
    let mut text = format!(
        "These {} transactions of node {node}'s server become accepted:\n  {errant}\n\
         All other data are replaced by a copy of it:\n",
        errant.count()
    );
    for other in &plan.replaced {
        let lost = match other.lost_gtid_set.as_deref().map(set).transpose()? {
            None => "what it has that nobody accepted is not known, and is LOST".to_owned(),
            Some(lost) if lost.is_empty() => "nothing is lost with it".to_owned(),
            Some(lost) => format!("LOST: {lost}"),
        };
        text += &format!("  node {}: {lost} ({})\n", other.node, other.what);
    }
    Ok(text)
}

async fn force(config: &Path, the_others_are_lost: bool) -> anyhow::Result<()> {
    let config = Config::load(config)?;
    eprintln!("{WARNING}\n");
    let parts = offline_parts(&config).await?;
    let forced = force_new_cluster(&config, parts, the_others_are_lost).await?;
    println!(
        "node {} of cluster {}: the log ends at {}, and was known to be committed up to {}",
        config.node,
        forced.before,
        forced.last,
        forced
            .committed
            .map_or("nothing".to_owned(), |committed| committed.to_string()),
    );
    if !the_others_are_lost {
        bail!("nothing was changed. To do it, say --the-others-are-lost");
    }
    println!(
        "It is now the only member of the new cluster {}. Start it as ever; other nodes come with new, \
         empty folders.",
        forced.after
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use quorate_wire::v1::ReplacedServer;

    use super::*;

    #[test]
    fn what_becomes_accepted_and_what_is_lost_is_shown() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let wire = |text: &str| {
            let set: GtidSet = format!("{uuid}:{text}").parse().unwrap();
            set.to_wire().into()
        };
        let replaced = |node, lost_gtid_set| ReplacedServer {
            node,
            what: "why".to_owned(),
            lost_gtid_set,
        };
        let plan = AcceptErrantReply {
            errant_gtid_set: wire("7-8"),
            replaced: vec![
                replaced(1, Some(wire("9"))),
                replaced(3, Some(GtidSet::new().to_wire().into())),
                replaced(4, None),
            ],
            ..AcceptErrantReply::default()
        };
        let text = shown(2, &plan).unwrap();
        for line in [
            "These 2 transactions of node 2's server become accepted:",
            &format!("  {uuid}:7-8"),
            &format!("  node 1: LOST: {uuid}:9 (why)"),
            "  node 3: nothing is lost with it (why)",
            "  node 4: what it has that nobody accepted is not known, and is LOST (why)",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}

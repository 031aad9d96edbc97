//! `quorate switchover`.

use std::time::Duration;

use anyhow::{Context, bail};
use quorate_wire::v1::SwitchoverRequest;

use crate::admin;
use crate::args::{Address, SwitchoverArgs};

/// Far more than a switchover takes; after it the outcome is for `quorate status` to tell.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// A leader may change while it is being asked for; not for ever.
const REDIRECTS_MAX: usize = 3;

pub(crate) async fn run(args: &SwitchoverArgs) -> anyhow::Result<()> {
    let mut at = args.at.clone();
    for _ in 0..=REDIRECTS_MAX {
        match tokio::time::timeout(ANSWER_WAIT, ask(&at, args.to))
            .await
            .context("no answer: ask `quorate status` what came of it")??
        {
            Answer::Done(text) => {
                println!("{text}");
                return Ok(());
            }
            Answer::AskInstead(leader) => at = leader,
        }
    }
    bail!("the leader changes too often to be asked: try again")
}

enum Answer {
    Done(String),
    AskInstead(Address),
}

async fn ask(at: &Address, to: u64) -> anyhow::Result<Answer> {
    let mut client = admin::connect(at).await?;
    let reply = client
        .switchover(SwitchoverRequest { to: Some(to) })
        .await
        .map_err(|refused| admin::refusal(at, &refused))?
        .into_inner();
    if reply.accepted {
        let primary = reply.primary.unwrap_or(to);
        return Ok(Answer::Done(format!("Node {primary} is the primary.")));
    }
    match reply.leader.map(|leader| leader.address.parse()) {
        Some(Ok(leader)) if leader != at.addr => Ok(Answer::AskInstead(Address {
            addr: leader,
            ..at.clone()
        })),
        _ => bail!("refused: {}", reply.reason),
    }
}

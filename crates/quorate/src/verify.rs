//! `quorate verify`.

use anyhow::bail;
use quorate_wire::v1::VerifyRequest;

use crate::admin;
use crate::args::Address;

pub(crate) async fn run(at: &Address) -> anyhow::Result<()> {
    let mut client = admin::connect(at).await?;
    let refused = |status: tonic::Status| admin::refusal(at, &status);
    let reply = client.verify(VerifyRequest {}).await.map_err(refused)?;
    let mut outcomes = reply.into_inner();
    let (mut equal, mut different, mut skipped) = (0_u64, 0_u64, 0_u64);
    while let Some(outcome) = outcomes.message().await.map_err(refused)? {
        match (outcome.compared, outcome.wrong.is_empty()) {
            (true, true) => equal += 1,
            (true, false) => different += 1,
            (false, _) => skipped += 1,
        }
        if !outcome.wrong.is_empty() {
            let (node, table, wrong) = (outcome.node, outcome.table, outcome.wrong);
            println!("node {node}, {table}: {wrong}");
        }
    }
    println!("{equal} equal, {different} different, {skipped} not compared");
    if different > 0 {
        bail!("{different} tables of replicas differ from the primary's");
    }
    Ok(())
}

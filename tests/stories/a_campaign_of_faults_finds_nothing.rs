//! A short fault campaign: whatever its seed breaks, nothing acknowledged is lost and all servers
//! are equal afterwards. Longer ones are run by hand: see docs/testing.md.

use std::process::{Command, Stdio};

#[test]
fn a_campaign_of_faults_finds_nothing() {
    let campaign = Command::new(env!("CARGO_BIN_EXE_campaign"))
        .args(["--seconds", "40", "--seed", "1"])
        .stdin(Stdio::null())
        .status();
    let status = campaign.expect("start the campaign");
    assert!(status.success(), "{status}: what it found is above");
}

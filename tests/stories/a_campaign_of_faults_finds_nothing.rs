//! A short fault campaign: whatever its seed breaks, nothing acknowledged is lost and all servers
//! are equal afterwards. Longer ones are run by hand: see docs/testing.md.

use std::process::{Command, Stdio};

use quorate_tests::PacketFilter;

#[test]
fn a_campaign_of_faults_finds_nothing() {
    let mut campaign = Command::new(env!("CARGO_BIN_EXE_campaign"));
    campaign.args(["--seconds", "120", "--seed", "1"]);
    if PacketFilter::is_possible() {
        campaign.arg("--lose-packets");
    } else {
        println!("this user may make no network: relays hold the bytes of links that are cut");
    }
    let status = campaign.stdin(Stdio::null()).status();
    let status = status.expect("start the campaign");
    assert!(status.success(), "{status}: what it found is above");
}

//! A second opinion on how far sled's log went.
//!
//! To sled, damage inside its log looks like the torn end of it: it opens with less, silently. So
//! now and then, and whenever it opens, the store puts a number into sled, syncs, and then puts
//! the same number into a file of its own. A log that lacks the number lost what it had synced.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use super::failure::Failure;
use super::frame::{Kind, seal, unseal};

const NAME: &str = "witness";

/// The number that sled's log must have reached.
pub(super) fn read(dir: &Path) -> Result<u64, Failure> {
    let value = match fs::read(dir.join(NAME)) {
        Ok(value) => value,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let number = unseal(NAME.as_bytes(), &value)?.payload.try_into();
    let number = number.map_err(|_| Failure::Damage("the witness has the wrong length"))?;
    Ok(u64::from_be_bytes(number))
}

/// Replaces the file as a whole.
pub(super) fn write(dir: &Path, number: u64) -> Result<(), Failure> {
    let fresh = dir.join("witness.new");
    let mut file = File::create(&fresh)?;
    file.write_all(&seal(
        NAME.as_bytes(),
        Kind::Whole,
        0,
        &number.to_be_bytes(),
    ))?;
    file.sync_all()?;
    fs::rename(fresh, dir.join(NAME))?;
    File::open(dir)?.sync_all()?;
    Ok(())
}

use std::fmt;

/// A MySQL server's version, as `mysqld --version` or `@@version` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u16,
    pub minor: u16,
    pub patch: u16,
}

/// Why a server is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    #[error("it is MariaDB ({0}), which Quorate does not support yet")]
    MariaDb(String),
    #[error("MySQL {0} is older than {oldest}, the oldest that Quorate supports", oldest = Version::OLDEST)]
    TooOld(Version),
    #[error("it does not say its version: `{0}`")]
    Unreadable(String),
}

impl Version {
    /// The first release with `rpl_semi_sync_source_*` and the other new names.
    pub const OLDEST: Self = Self::new(8, 0, 26);

    #[must_use]
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Major and minor version.
    #[must_use]
    pub const fn series(self) -> (u16, u16) {
        (self.major, self.minor)
    }

    /// Releases of one series share a data format and may clone each other.
    #[must_use]
    pub fn same_series(self, other: Self) -> bool {
        self.series() == other.series()
    }

    /// Reads what [`Self::parse`] does, and refuses what Quorate cannot run.
    pub fn parse_supported(text: &str) -> Result<Self, VersionError> {
        let version = Self::parse(text)?;
        if version < Self::OLDEST {
            return Err(VersionError::TooOld(version));
        }
        Ok(version)
    }

    /// Reads `… Ver 9.7.4-2 for Linux …` as well as a bare `9.7.4-2`, of MySQL.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let text = text.trim();
        if text.to_ascii_lowercase().contains("mariadb") {
            return Err(VersionError::MariaDb(text.to_owned()));
        }
        let unreadable = || VersionError::Unreadable(text.chars().take(200).collect());
        let number = match text.split_once("Ver ") {
            Some((_, rest)) => rest.split_whitespace().next(),
            None => text.split_whitespace().next(),
        }
        .ok_or_else(unreadable)?;
        let mut parts = number
            .split(|c: char| !c.is_ascii_digit())
            .map(str::parse::<u16>);
        let mut part = || parts.next()?.ok();
        match (part(), part(), part()) {
            (Some(major), Some(minor), Some(patch)) => Ok(Self::new(major, minor, patch)),
            _ => Err(unreadable()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_version_are_read() {
        for text in [
            "mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))",
            "/usr/sbin/mysqld  Ver 9.7.4 for Linux on x86_64 (MySQL Community Server - GPL)",
            "9.7.4-2",
        ] {
            assert_eq!(Version::parse_supported(text), Ok(Version::new(9, 7, 4)));
        }
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_the_reason() {
        let mariadb = "mysqld  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu";
        assert!(matches!(
            Version::parse_supported(mariadb),
            Err(VersionError::MariaDb(_))
        ));
        assert_eq!(
            Version::parse_supported("8.0.25"),
            Err(VersionError::TooOld(Version::new(8, 0, 25)))
        );
        for text in ["", "Ver ", "9.7", "9..7", "99999999.1.1", "nothing"] {
            assert!(
                matches!(
                    Version::parse_supported(text),
                    Err(VersionError::Unreadable(_))
                ),
                "{text}"
            );
        }
    }
}

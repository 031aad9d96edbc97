//! What is done once on a server whose data a cluster begins with.

use crate::control::{ControlError, Session, quote};

impl Session {
    /// A transaction of this server's own that changes nothing, so that it has a GTID.
    pub async fn commit_empty_transaction(&mut self) -> Result<(), ControlError> {
        let what = "commit an empty transaction";
        let gtid = format!("SET SESSION gtid_next='{}:1'", self.identity().await?.uuid);
        let statements = [
            &gtid,
            "BEGIN",
            "COMMIT",
            "SET SESSION gtid_next='AUTOMATIC'",
        ];
        for sql in statements {
            self.run(what, sql).await?;
        }
        Ok(())
    }

    /// Removes all binlog files but a new one: what they hold is in the data, and in no log of ours.
    pub async fn purge_old_binlogs(&mut self) -> Result<(), ControlError> {
        self.run("begin a new binlog file", "FLUSH BINARY LOGS")
            .await?;
        let what = "list the binlog files";
        let result = self.run(what, "SHOW BINARY LOGS").await?;
        let last = result.rows.last().and_then(|row| row.text(0));
        let last = last.ok_or(ControlError::Answer { what })?;
        let purge = format!("PURGE BINARY LOGS TO {}", quote(&last));
        self.run("remove the old binlog files", &purge)
            .await
            .map(drop)
    }

    /// Of the names and types of all columns of all tables but MySQL's own.
    pub async fn schema_checksum(&mut self) -> Result<u64, ControlError> {
        let sql = "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE \
                   FROM information_schema.COLUMNS WHERE TABLE_SCHEMA NOT IN \
                   ('mysql', 'sys', 'information_schema', 'performance_schema') \
                   ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION";
        let result = self.run("read the columns of all tables", sql).await?;
        let mut hash = FNV_OFFSET;
        for row in &result.rows {
            for column in 0..4 {
                let text = row.text(column).unwrap_or_default();
                hash = fnv(fnv(hash, text.as_bytes()), &[0]);
            }
        }
        Ok(hash)
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, which is the same in every release.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

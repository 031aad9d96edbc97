use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::StartIds;
use quorate_mysqld::{Host, HostError, Marker};
use quorate_storage::{LogDisk, LogRead, MetaKey, Write};
use quorate_types::{ClusterId, Incarnation, NodeId};
use tokio::time::Instant;

/// Who a Raft folder is (DESIGN 3, Identity).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub node: NodeId,
    /// None until the node was taken into a cluster or made one.
    pub cluster: Option<ClusterId>,
    pub incarnation: Incarnation,
    /// Grows with each start of the process.
    pub start_counter: u64,
    /// The last start that is known to stand in the data folder's marker too. A marker with a lower
    /// count was brought back from an image; one with a higher count than ours is another's.
    pub marked: u64,
    /// It founded its cluster on data that were there: until the folder has a marker, what the log
    /// begins with may be missing.
    pub brings_data: bool,
    /// Random numbers of the last starts, this one first: peers tell by them whether a folder that
    /// started as often is the same one.
    pub start_ids: StartIds,
}

/// Why a Raft folder's identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("use the Raft log")]
    Disk(#[from] quorate_storage::Error),
    #[error("use the data folder")]
    Host(#[from] HostError),
    #[error("the identity in the Raft folder is damaged or of a later version")]
    Damaged,
    #[error("the Raft folder belongs to node {found}, the configuration says node {expected}")]
    OtherNode { expected: NodeId, found: NodeId },
    #[error("another process owns the data folder: does a sidecar of this node run already?")]
    FolderInUse,
}

/// How long the process before this one may take to give the data folder back.
const CLAIM_MAX: Duration = Duration::from_secs(2);
const CLAIM_LOOK: Duration = Duration::from_millis(20);

const HEAD: &str = "quorate-raft 1";

impl Identity {
    fn to_text(self) -> String {
        let mut text = format!(
            "{HEAD}\nnode {}\nincarnation {}\nstart_counter {}\nmarked {}\n",
            self.node, self.incarnation, self.start_counter, self.marked
        );
        if let Some(cluster) = self.cluster {
            let _ = writeln!(text, "cluster {cluster}");
        }
        if self.brings_data {
            text.push_str("brings_data yes\n");
        }
        let known = self.start_ids.iter().take_while(|id| **id != 0);
        let known: Vec<String> = known.map(|id| format!("{id:016x}")).collect();
        if !known.is_empty() {
            let _ = writeln!(text, "start_ids {}", known.join(" "));
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return None;
        }
        let mut identity = Self {
            node: NodeId::ZERO,
            cluster: None,
            incarnation: Incarnation(0),
            start_counter: 0,
            marked: 0,
            brings_data: false,
            start_ids: StartIds::default(),
        };
        for line in lines {
            let (name, value) = line.split_once(' ')?;
            match name {
                "node" => identity.node = NodeId(value.parse().ok()?),
                "incarnation" => identity.incarnation = value.parse().ok()?,
                "start_counter" => identity.start_counter = value.parse().ok()?,
                "marked" => identity.marked = value.parse().ok()?,
                "brings_data" => identity.brings_data = value == "yes",
                "cluster" => identity.cluster = Some(value.parse().ok()?),
                "start_ids" => identity.start_ids = start_ids(value)?,
                _ => return None,
            }
        }
        (identity.node != NodeId::ZERO).then_some(identity)
    }

    /// Who the folder is; none if it is new.
    ///
    /// # Errors
    /// If the folder is another node's, or cannot be read.
    pub fn read(disk: &impl LogDisk, node: NodeId) -> Result<Option<Self>, IdentityError> {
        let Some(bytes) = disk.reader().meta(MetaKey::Identity)? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| IdentityError::Damaged)?;
        let identity = Self::parse(text).ok_or(IdentityError::Damaged)?;
        if identity.node != node {
            return Err(IdentityError::OtherNode {
                expected: node,
                found: identity.node,
            });
        }
        Ok(Some(identity))
    }

    /// Counts this start, which has the random number `start_id`; with a new incarnation if the
    /// folder is new. Durable when it returns.
    ///
    /// # Errors
    /// If the folder is another node's, or cannot be used.
    pub fn start(
        disk: &mut impl LogDisk,
        node: NodeId,
        new_incarnation: Incarnation,
        start_id: u64,
    ) -> Result<Self, IdentityError> {
        let mut identity = Self::read(disk, node)?.unwrap_or(Self {
            node,
            cluster: None,
            incarnation: new_incarnation,
            start_counter: 0,
            marked: 0,
            brings_data: false,
            start_ids: StartIds::default(),
        });
        identity.start_counter += 1;
        identity.start_ids.rotate_right(1);
        identity.start_ids[0] = start_id.max(1);
        identity.save(disk)?;
        Ok(identity)
    }

    /// Counts this start in the data folder's marker too, if the folder goes with this one. A folder
    /// that does not is left as it is: the repair before the server's start judges it.
    ///
    /// # Errors
    /// If the folder or the disk cannot be used.
    pub(crate) async fn mark(
        &mut self,
        disk: &mut impl LogDisk,
        host: &impl Host,
    ) -> Result<(), IdentityError> {
        // A clone that was interrupted in its last step leaves no data folder at all.
        host.finish_replacement()?;
        if !host.data_folder_exists() {
            return Ok(());
        }
        // A process that was killed gives its locks back a moment later. Without this count the
        // folder would look like a restored one.
        let until = Instant::now() + CLAIM_MAX;
        while !host.claim()? {
            if Instant::now() >= until {
                return Err(IdentityError::FolderInUse);
            }
            tokio::time::sleep(CLAIM_LOOK).await;
        }
        let Some(marker) = host.read_marker()? else {
            return Ok(());
        };
        let ours = (Some(marker.cluster), marker.node, marker.incarnation)
            == (self.cluster, self.node, self.incarnation);
        if ours && (self.marked..=self.start_counter).contains(&marker.start_counter) {
            host.write_marker(&Marker {
                start_counter: self.start_counter,
                ..marker
            })?;
            self.marked = self.start_counter;
            self.brings_data = false;
            self.save(disk)?;
        }
        Ok(())
    }

    /// Durable when it returns.
    ///
    /// # Errors
    /// The disk's.
    pub fn save(&self, disk: &mut impl LogDisk) -> Result<(), quorate_storage::Error> {
        disk.write(vec![self.to_write()])?;
        disk.sync()
    }

    pub(crate) fn to_write(self) -> Write {
        Write::SetMeta(MetaKey::Identity, Bytes::from(self.to_text()))
    }
}

fn start_ids(text: &str) -> Option<StartIds> {
    let mut ids = StartIds::default();
    for (position, id) in text.split(' ').enumerate() {
        *ids.get_mut(position)? = u64::from_str_radix(id, 16).ok()?;
    }
    Some(ids)
}

#[cfg(test)]
mod tests {
    use quorate_storage::MemoryDisk;

    use super::*;

    #[test]
    fn each_start_counts_and_keeps_the_incarnation() {
        let mut disk = MemoryDisk::new();
        let first = Identity::start(&mut disk, NodeId(2), Incarnation(7), 71).unwrap();
        assert_eq!((first.start_counter, first.cluster), (1, None));
        Identity {
            cluster: Some(ClusterId(9)),
            ..first
        }
        .save(&mut disk)
        .unwrap();
        let second = Identity::start(&mut disk, NodeId(2), Incarnation(8), 72).unwrap();
        let mut start_ids = StartIds::default();
        start_ids[..2].copy_from_slice(&[72, 71]);
        let expected = Identity {
            node: NodeId(2),
            cluster: Some(ClusterId(9)),
            incarnation: Incarnation(7),
            start_counter: 2,
            marked: 0,
            brings_data: false,
            start_ids,
        };
        assert_eq!(second, expected);
        for start in 3..40 {
            let next = Identity::start(&mut disk, NodeId(2), Incarnation(8), start).unwrap();
            assert_eq!((next.start_counter, next.start_ids[0]), (start, start));
        }
        let other = Identity::start(&mut disk, NodeId(3), Incarnation(8), 1);
        assert!(matches!(other, Err(IdentityError::OtherNode { .. })));
    }

    #[test]
    fn a_damaged_identity_is_refused() {
        for text in [
            "",
            "quorate-raft 2\nnode 1\n",
            "quorate-raft 1\nnode x\n",
            "quorate-raft 1\n",
        ] {
            assert_eq!(Identity::parse(text), None, "{text}");
        }
    }
}

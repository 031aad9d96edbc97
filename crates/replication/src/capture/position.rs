use std::sync::Arc;

use quorate_binlog::EventHeader;
use quorate_types::BinlogPosition;

/// Where in the source's binlog the dump is, in 64 bits.
#[derive(Clone, Debug)]
pub(super) struct Position {
    file: Arc<str>,
    offset: u64,
}

impl Position {
    pub(super) fn new() -> Self {
        Self {
            file: Arc::from(""),
            offset: 0,
        }
    }

    /// A Rotate event: the events after it are of this file.
    pub(super) fn rotate(&mut self, file: &str, offset: u64) {
        if *self.file != *file {
            self.file = Arc::from(file);
        }
        self.offset = offset;
    }

    /// An event's end, from the 32 bits that its header has: positions only grow within a file, so
    /// a smaller number means that the field wrapped.
    pub(super) fn advance(&mut self, header: &EventHeader) {
        if header.log_pos == 0 {
            return;
        }
        const WRAP: u64 = 1 << 32;
        let mut end = self.offset & !(WRAP - 1) | u64::from(header.log_pos);
        if end < self.offset {
            end += WRAP;
        }
        self.offset = end;
    }

    pub(super) fn file(&self) -> &Arc<str> {
        &self.file
    }

    pub(super) fn here(&self) -> BinlogPosition {
        BinlogPosition {
            file: self.file.clone(),
            offset: self.offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_binlog::EventType;

    use super::*;

    fn header(log_pos: u32) -> EventHeader {
        EventHeader {
            timestamp: 0,
            event_type: EventType::XID,
            server_id: 1,
            event_size: 31,
            log_pos,
            flags: 0,
        }
    }

    #[test]
    fn a_position_past_four_gib_keeps_growing() {
        let mut position = Position::new();
        position.rotate("binlog.000001", 4);
        for log_pos in [100, u32::MAX - 10, 20, 3_000_000_000, 5] {
            position.advance(&header(log_pos));
        }
        assert_eq!(position.here().offset, (2 << 32) + 5);
        position.rotate("binlog.000002", 4);
        position.advance(&header(120));
        assert_eq!(
            (&**position.file(), position.here().offset),
            ("binlog.000002", 120)
        );
    }

    #[test]
    fn an_artificial_event_has_no_position() {
        let mut position = Position::new();
        position.rotate("binlog.000001", 700);
        position.advance(&header(0));
        assert_eq!(position.here().offset, 700);
    }
}

use std::time::Duration;

use quorate_mysql_wire::{AckWriter, ChecksumRequest, ReplicaConnection, ReplicaOptions};

use super::*;

/// A replica as mysqld is one, which checks what it gets.
pub(super) struct Consumer {
    reader: DumpReader,
    _acks: AckWriter,
    algorithm: ChecksumAlgorithm,
    format: Option<FormatDescription>,
    /// The current file and where its last event ended.
    pub(super) file: String,
    pub(super) position: u64,
    /// Every file's name and what its `Previous_gtids` said.
    pub(super) files: Vec<(String, GtidSet)>,
}

/// What a consumer sees, after checks of what holds for any event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    Event(EventType, Bytes),
    Heartbeat(Heartbeat),
    Eof,
    Error(ServerError),
}

impl Consumer {
    pub(super) async fn attach(feed: &TestFeed, executed: &GtidSet) -> Self {
        Self::attach_as(feed, executed, ChecksumRequest::AsSource, 30_000).await
    }

    pub(super) async fn attach_as(
        feed: &TestFeed,
        executed: &GtidSet,
        checksum: ChecksumRequest,
        heartbeat_ms: u64,
    ) -> Self {
        let options = ReplicaOptions {
            server_id: 2,
            server_uuid: SERVER.parse().unwrap(),
            heartbeat_period: Duration::from_millis(heartbeat_ms),
            checksum,
            semi_sync: false,
        };
        let connection = feed.login().await;
        let replica = ReplicaConnection::prepare(connection, &options)
            .await
            .unwrap();
        assert_eq!(replica.source().gtid_mode, "ON");
        let (reader, acks) = replica.dump_gtid(executed).await.unwrap();
        Self {
            reader,
            _acks: acks,
            algorithm: match checksum {
                ChecksumRequest::AsSource => ChecksumAlgorithm::Crc32,
                ChecksumRequest::None => ChecksumAlgorithm::Off,
            },
            format: None,
            file: String::new(),
            position: 0,
            files: Vec::new(),
        }
    }

    pub(super) async fn next(&mut self) -> Got {
        let mut bytes = BytesMut::new();
        loop {
            match self.reader.next().await.unwrap() {
                DumpPacket::Eof => return Got::Eof,
                DumpPacket::Error(error) => return Got::Error(error),
                DumpPacket::Event(chunk) => {
                    assert_eq!(chunk.first, bytes.is_empty());
                    bytes.extend_from_slice(&chunk.bytes);
                    if chunk.last {
                        return self.check(bytes.freeze());
                    }
                }
            }
        }
    }

    fn check(&mut self, bytes: Bytes) -> Got {
        let event = Event::parse(bytes.clone(), self.algorithm).unwrap();
        let log_pos = u64::from(event.header().log_pos);
        let event_type = event.event_type();
        if event_type != EventType::FORMAT_DESCRIPTION {
            event.verify_checksum().unwrap();
        }
        match event_type {
            EventType::ROTATE => {
                let rotate = Rotate::parse(&event).unwrap();
                assert_eq!((rotate.position, log_pos), (4, 0));
                (self.file, self.position) = (rotate.file, 4);
                self.format = None;
                return Got::Event(event_type, bytes);
            }
            EventType::HEARTBEAT | EventType::HEARTBEAT_V2 => {
                let heartbeat = Heartbeat::parse(&event).unwrap();
                let here = (self.file.as_str(), self.position);
                assert_eq!((heartbeat.file.as_str(), heartbeat.position), here);
                return Got::Heartbeat(heartbeat);
            }
            EventType::FORMAT_DESCRIPTION => {
                assert!(self.format.is_none(), "two formats in one file");
                let format = FormatDescription::parse(bytes.clone()).unwrap();
                assert_eq!(format.algorithm, self.algorithm);
                assert_eq!(event.header().flags & 1, 0, "in use");
                self.format = Some(format);
            }
            EventType::PREVIOUS_GTIDS => {
                let set = previous_gtids(&event).unwrap();
                self.files.push((self.file.clone(), set));
            }
            _ => assert!(self.format.is_some(), "an event without a format"),
        }
        self.position += bytes.len() as u64;
        assert_eq!(log_pos, self.position, "position of {event_type:?}");
        Got::Event(event_type, bytes)
    }

    /// The next whole transaction: its GTID and its events, compared but for position and CRC.
    pub(super) async fn transaction(&mut self) -> (Gtid, Vec<Bytes>) {
        let mut gtid = None;
        let mut bodies = Vec::new();
        loop {
            match self.next().await {
                Got::Heartbeat(_) => {}
                Got::Event(
                    EventType::ROTATE | EventType::FORMAT_DESCRIPTION | EventType::PREVIOUS_GTIDS,
                    _,
                ) => assert!(gtid.is_none(), "a file ends inside of a transaction"),
                Got::Event(event_type, bytes) => {
                    let event = Event::parse(bytes, self.algorithm).unwrap();
                    if event_type == EventType::GTID {
                        gtid = Some(GtidEvent::parse(&event).unwrap().gtid);
                    }
                    bodies.push(Bytes::copy_from_slice(event.body()));
                    if event_type == EventType::XID {
                        return (gtid.unwrap(), bodies);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The sequence numbers of the next transactions.
    pub(super) async fn sequences(&mut self, count: usize) -> Vec<u64> {
        let mut found = Vec::new();
        for _ in 0..count {
            found.push(self.transaction().await.0.sequence);
        }
        found
    }
}

/// The events' bodies as they are in the log.
pub(super) fn bodies(mut events: Bytes, algorithm: ChecksumAlgorithm) -> Vec<Bytes> {
    let mut found = Vec::new();
    while !events.is_empty() {
        let header = quorate_binlog::EventHeader::parse(&events).unwrap();
        let event = Event::parse(events.split_to(header.event_size as usize), algorithm).unwrap();
        found.push(Bytes::copy_from_slice(event.body()));
    }
    found
}

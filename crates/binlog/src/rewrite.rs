//! Events for a stream of our own: those of a source with new positions, and those that a stream
//! needs between them.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{Gtid, GtidSet};

use crate::build::EventBuilder;
use crate::checksum::Checksummer;
use crate::event::{
    CHECKSUM_LEN, ChecksumAlgorithm, Event, EventHeader, EventType, FLAG_ARTIFICIAL,
    FLAG_BINLOG_IN_USE, FLAG_IGNORABLE, file_crc,
};
use crate::format::{CREATED_AT, FormatDescription};

/// Puts an event together: the header gets the size, the end the checksum.
pub(crate) fn frame(mut header: EventHeader, body: &[u8], algorithm: ChecksumAlgorithm) -> Bytes {
    // A format description has room for a checksum also where none is used.
    let reserved = match header.event_type {
        EventType::FORMAT_DESCRIPTION => CHECKSUM_LEN,
        _ => algorithm.len(),
    };
    let size = EventHeader::LEN + body.len() + reserved;
    header.event_size = u32::try_from(size).expect("an event's body comes from one of 32 bits");
    let mut bytes = BytesMut::with_capacity(size);
    bytes.put_slice(&header.to_bytes());
    bytes.put_slice(body);
    if reserved > 0 {
        let crc = file_crc(header.event_type, header.flags, &bytes);
        bytes.put_u32_le(crc);
    }
    bytes.freeze()
}

/// The size that [`rewrite`] gives the event.
#[must_use]
pub fn rewritten_len(event: &Event, algorithm: ChecksumAlgorithm) -> usize {
    match event.event_type() {
        EventType::FORMAT_DESCRIPTION => event.bytes().len(),
        _ => EventHeader::LEN + event.body().len() + algorithm.len(),
    }
}

/// The event as it is, but ending at `log_pos` (modulo 2^32) and with or without a checksum.
///
/// The transaction length in a GTID event stays what the source counted, as it does when a server
/// sends without checksums what it wrote with them. For a format description use [`stream_format`].
#[must_use]
pub fn rewrite(event: &Event, log_pos: u64, algorithm: ChecksumAlgorithm) -> Bytes {
    let header = EventHeader {
        log_pos: log_pos as u32,
        ..*event.header()
    };
    frame(header, event.body(), algorithm)
}

/// A source's format description as a stream sends it: not in use, and for the given checksums.
///
/// With a position it stands at the head of a file. Without one the stream begins in the middle
/// of a file: then position and time of creation are zero, which tells a replica to keep its
/// temporary tables, since the source did not restart.
#[must_use]
pub fn stream_format(
    format: &FormatDescription,
    log_pos: Option<u64>,
    algorithm: ChecksumAlgorithm,
) -> Bytes {
    let header = EventHeader::parse(&format.raw).expect("a parsed event has a header");
    let header = EventHeader {
        flags: header.flags & !FLAG_BINLOG_IN_USE,
        log_pos: log_pos.unwrap_or(0) as u32,
        ..header
    };
    let mut body = format.raw[EventHeader::LEN..format.raw.len() - CHECKSUM_LEN].to_vec();
    if log_pos.is_none() {
        body[CREATED_AT - EventHeader::LEN..][..4].fill(0);
    }
    let last = body.len() - 1;
    body[last] = (algorithm == ChecksumAlgorithm::Crc32).into();
    frame(header, &body, algorithm)
}

fn artificial(event_type: EventType, server_id: u32, log_pos: u32, flags: u16) -> EventHeader {
    EventHeader {
        timestamp: 0,
        event_type,
        server_id,
        event_size: 0,
        log_pos,
        flags,
    }
}

/// Tells which file the next events are of, and from where.
#[must_use]
pub fn fake_rotate(
    file: &str,
    position: u64,
    server_id: u32,
    algorithm: ChecksumAlgorithm,
) -> Bytes {
    let mut body = position.to_le_bytes().to_vec();
    body.extend_from_slice(file.as_bytes());
    let header = artificial(EventType::ROTATE, server_id, 0, FLAG_ARTIFICIAL);
    frame(header, &body, algorithm)
}

/// What the files before this one hold; it ends at `log_pos`.
#[must_use]
pub fn previous_gtids_event(
    set: &GtidSet,
    log_pos: u64,
    server_id: u32,
    algorithm: ChecksumAlgorithm,
) -> Bytes {
    let header = artificial(
        EventType::PREVIOUS_GTIDS,
        server_id,
        log_pos as u32,
        FLAG_IGNORABLE,
    );
    frame(header, &set.to_wire(), algorithm)
}

/// A heartbeat of the first form, for positions below 4 GiB.
#[must_use]
pub fn heartbeat_v1(
    file: &str,
    position: u32,
    server_id: u32,
    algorithm: ChecksumAlgorithm,
) -> Bytes {
    let header = artificial(EventType::HEARTBEAT, server_id, position, 0);
    frame(header, file.as_bytes(), algorithm)
}

/// A heartbeat of the second form, for a consumer that asked for it.
#[must_use]
pub fn heartbeat_v2(
    file: &str,
    position: u64,
    server_id: u32,
    algorithm: ChecksumAlgorithm,
) -> Bytes {
    let mut body = vec![1];
    put_lenenc(&mut body, file.len() as u64);
    body.extend_from_slice(file.as_bytes());
    let mut value = Vec::new();
    put_lenenc(&mut value, position);
    body.extend_from_slice(&[2, value.len() as u8]);
    body.extend_from_slice(&value);
    body.push(0);
    let header = artificial(EventType::HEARTBEAT_V2, server_id, position as u32, 0);
    frame(header, &body, algorithm)
}

/// A transaction that changes nothing but `gtid_executed`: GTID, `BEGIN`, `COMMIT`.
///
/// Its commit time is the constant zero, so its content is known by its GTID: [`empty_checksum`].
/// `number` is its place in its file, from 1: appliers want them to grow.
#[must_use]
pub fn empty_transaction(gtid: Gtid, number: i64, builder: &EventBuilder) -> Vec<Bytes> {
    let builder = EventBuilder {
        commit_us: 0,
        ..*builder
    };
    vec![
        builder.gtid(gtid, number - 1, number),
        builder.query("", "BEGIN", None),
        builder.query("", "COMMIT", None),
    ]
}

/// What the index of accepted transactions has as the content checksum of an [`empty_transaction`]:
/// that of one which is the first of its file.
#[must_use]
pub fn empty_checksum(gtid: Gtid) -> u32 {
    let mut checksummer = Checksummer::new();
    let builder = EventBuilder::new(0);
    for bytes in empty_transaction(gtid, 1, &builder) {
        let event = Event::parse(bytes, builder.algorithm).expect("it was just made");
        checksummer.update(&event);
    }
    checksummer.finish()
}

pub(crate) fn put_lenenc(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_le_bytes();
    match value {
        0..=0xfa => out.push(bytes[0]),
        0xfb..=0xffff => out.extend_from_slice(&[0xfc, bytes[0], bytes[1]]),
        0x1_0000..=0xff_ffff => out.extend_from_slice(&[0xfd, bytes[0], bytes[1], bytes[2]]),
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&bytes);
        }
    }
}

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

fn pair() -> (PacketStream, PacketStream) {
    let (a, b) = duplex(1 << 16);
    (
        PacketStream::new(BoxIo::new(a), 64 << 20),
        PacketStream::new(BoxIo::new(b), 64 << 20),
    )
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index % 251) as u8).collect()
}

#[tokio::test]
async fn packets_around_the_frame_limit_arrive_whole() {
    for bytes in [
        0,
        1,
        FRAME_BYTES_MAX - 1,
        FRAME_BYTES_MAX,
        FRAME_BYTES_MAX + 1,
        2 * FRAME_BYTES_MAX,
    ] {
        let (mut ours, mut theirs) = pair();
        let payload = pattern(bytes);
        let (front, back) = payload.split_at(bytes / 3);
        let write = async {
            ours.queue(&[front, &[], back]).await.unwrap();
            ours.queue(&[b"next"]).await.unwrap();
            ours.flush().await.unwrap();
        };
        let read = async {
            let whole = theirs.read().await.unwrap();
            assert!(whole == payload, "{bytes} bytes changed on the way");
            assert_eq!(theirs.read().await.unwrap(), "next");
        };
        tokio::join!(write, read);
    }
}

#[tokio::test]
async fn a_large_packet_comes_in_bounded_pieces() {
    let (ours, theirs) = pair();
    let payload = pattern(FRAME_BYTES_MAX + 5);
    let (mut reader, _keep) = theirs.split(SequenceCheck::Lenient);
    let (_keep_too, mut writer) = ours.split(SequenceCheck::Lenient);
    let write = async {
        writer.begin(payload.len()).unwrap();
        for piece in payload.chunks(700_000) {
            writer.append(piece).await.unwrap();
        }
        writer.flush().await.unwrap();
    };
    let read = async {
        let mut found = Vec::new();
        loop {
            let chunk = reader.next_chunk().await.unwrap();
            assert!(chunk.bytes.len() <= CHUNK_BYTES_MAX);
            assert_eq!(chunk.first, found.is_empty());
            found.extend_from_slice(&chunk.bytes);
            if chunk.last {
                break;
            }
        }
        assert!(found == payload);
    };
    tokio::join!(write, read);
}

#[tokio::test]
async fn a_jump_of_the_sequence_is_refused_only_where_it_is_checked() {
    for (check, accepted) in [
        (SequenceCheck::Strict, false),
        (SequenceCheck::Lenient, true),
    ] {
        let (mut raw, io) = duplex(64);
        raw.write_all(b"\x01\0\0\x07x").await.unwrap();
        let (mut reader, _writer) = PacketStream::new(BoxIo::new(io), 1024).split(check);
        assert_eq!(reader.next_packet().await.is_ok(), accepted);
    }
}

#[tokio::test]
async fn a_packet_over_the_limit_is_refused() {
    let (mut raw, io) = duplex(1 << 16);
    raw.write_all(b"\x0b\0\0\0hello world").await.unwrap();
    let mut stream = PacketStream::new(BoxIo::new(io), 10);
    assert!(matches!(
        stream.read().await,
        Err(PacketError::TooLarge { bytes_max: 10 })
    ));
}

#[tokio::test]
async fn the_end_between_packets_is_told_from_the_end_inside_one() {
    for (bytes, whole) in [(&b""[..], true), (b"\x02", false), (b"\x02\0\0\0x", false)] {
        let (mut raw, io) = duplex(64);
        raw.write_all(bytes).await.unwrap();
        drop(raw);
        let error = PacketStream::new(BoxIo::new(io), 64)
            .read()
            .await
            .unwrap_err();
        assert_eq!(
            matches!(error, PacketError::Closed),
            whole,
            "{bytes:?}: {error}"
        );
    }
}

#[tokio::test]
async fn a_cancelled_read_loses_nothing() {
    let (mut raw, io) = duplex(64);
    let mut stream = PacketStream::new(BoxIo::new(io), 1024);
    for byte in b"\x03\0\0\0abc" {
        let cancelled = tokio::time::timeout(std::time::Duration::ZERO, stream.read()).await;
        assert!(cancelled.is_err());
        raw.write_all(&[*byte]).await.unwrap();
    }
    assert_eq!(stream.read().await.unwrap(), "abc");
}

#[tokio::test]
async fn a_write_cancelled_inside_a_large_packet_ends_the_stream() {
    let (mut ours, _theirs) = pair();
    let payload = pattern(1 << 20);
    let cancelled = tokio::time::timeout(std::time::Duration::ZERO, ours.write(&payload)).await;
    assert!(cancelled.is_err());
    assert!(matches!(
        ours.write(b"x").await,
        Err(PacketError::Interrupted)
    ));
}

#[tokio::test]
async fn nothing_is_allocated_for_a_length_that_did_not_come() {
    let (mut raw, io) = duplex(64);
    raw.write_all(b"\xff\xff\xff\0x").await.unwrap();
    let mut stream = PacketStream::new(BoxIo::new(io), 1 << 30);
    let cancelled = tokio::time::timeout(std::time::Duration::ZERO, stream.read()).await;
    assert!(cancelled.is_err());
    assert!(stream.input.buffer.capacity() <= 2 * CHUNK_BYTES_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes_give_packets_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut raw, io) = duplex(1024);
            raw.write_all(&bytes).await.unwrap();
            drop(raw);
            let (mut reader, _writer) =
                PacketStream::new(BoxIo::new(io), 1024).split(SequenceCheck::Lenient);
            while reader.next_chunk().await.is_ok() {}
        });
    }
}

#[tokio::test]
async fn queued_packets_leave_together_with_rising_sequence_ids() {
    let (mut raw, io) = duplex(64);
    let mut stream = PacketStream::new(BoxIo::new(io), 64);
    stream.queue(&[b"a"]).await.unwrap();
    stream.queue(&[b"b"]).await.unwrap();
    stream.flush().await.unwrap();
    drop(stream);
    let mut found = Vec::new();
    raw.read_to_end(&mut found).await.unwrap();
    assert_eq!(found, b"\x01\0\0\0a\x01\0\0\x01b");
}

use proptest::prelude::*;

use super::*;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn hello() -> Hello {
    Hello {
        cluster: ClusterId(0xfeed),
        from: NodeId(2),
        to: NodeId(1),
        purpose: Purpose::ReadOnly,
        wait_ms: 1500,
    }
}

#[test]
fn messages_survive_the_way() {
    run(async {
        let mut bytes = Vec::new();
        hello().write(&mut bytes).await.unwrap();
        assert_eq!(Hello::read(&mut &bytes[..]).await.unwrap(), hello());

        let leader = LeaderId {
            term: Term(7),
            node: NodeId(3),
        };
        let epoch = Epoch(LogId {
            leader,
            index: LogIndex(99),
        });
        let mut answers = vec![
            Answer::Open { epoch: None },
            Answer::Open { epoch: Some(epoch) },
        ];
        for reason in RefusalReason::ALL {
            let text = reason.label().to_owned();
            answers.push(Answer::Refused(Refusal { reason, text }));
        }
        for answer in answers {
            let mut bytes = Vec::new();
            answer.write(&mut bytes).await.unwrap();
            assert_eq!(Answer::read(&mut &bytes[..]).await.unwrap(), answer);
        }
    });
}

#[test]
fn a_later_version_may_append_to_the_body() {
    run(async {
        let mut bytes = Vec::new();
        hello().write(&mut bytes).await.unwrap();
        bytes[5] += 3;
        bytes.extend_from_slice(b"new");
        assert_eq!(Hello::read(&mut &bytes[..]).await.unwrap(), hello());
    });
}

#[test]
fn a_long_or_wild_text_is_cut_and_cleaned() {
    run(async {
        let answer = Answer::Refused(Refusal {
            reason: RefusalReason::ServerDown,
            text: format!("\x1b[2Jx{}", "é".repeat(1000)),
        });
        let mut bytes = Vec::new();
        answer.write(&mut bytes).await.unwrap();
        let Answer::Refused(read) = Answer::read(&mut &bytes[..]).await.unwrap() else {
            panic!("a refusal was written");
        };
        assert!(read.text.starts_with("[2Jxé"), "{}", read.text);
        assert!(read.text.len() <= TEXT_BYTES_MAX);
    });
}

#[test]
fn a_message_that_announces_too_much_is_refused_before_it_is_read() {
    let bytes = [b'Q', b'R', b'G', b'T', 1, 0xff, 0xff];
    let refused = run(Hello::read(&mut &bytes[..]));
    assert!(matches!(refused, Err(HandshakeError::TooLong(0xffff))));
}

#[test]
fn a_stranger_is_told_apart_by_its_first_bytes() {
    let refused = run(Hello::read(&mut &b"GET / HTTP/1.1"[..]));
    assert!(matches!(refused, Err(HandshakeError::Magic)));
    let refused = run(Hello::read(&mut &b"QRGT\x02\x00\x00"[..]));
    assert!(matches!(refused, Err(HandshakeError::Version(2))));
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut bytes = b"QRGT\x01".to_vec();
        bytes.extend_from_slice(&(body.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&body);
        run(async {
            let _ = Hello::read(&mut &bytes[..]).await;
            let _ = Answer::read(&mut &bytes[..]).await;
            let _ = Hello::read(&mut &body[..]).await;
        });
    }
}

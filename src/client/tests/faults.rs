//! What goes wrong on the way, and what the client makes of it.

use proptest::prelude::*;

use super::stand_in::Fault::{
    BadDigest, Cut, Forget, Garbled, Gone, LostAnswer, NoRange, Short, Silence, StatusAfter, StatusBefore,
};
use super::stand_in::{Fault, MULTIPLE};
use super::*;

#[tokio::test]
async fn after_trouble_storage_is_asked_before_anything_is_sent() {
    // 2000 bytes in chunks of 768: 0-767, 768-1535, 1536-1999.
    for (name, faults, expected) in [
        ("503 before", &[StatusBefore(503)][..], &["send 0-767", "ask", "send 0-767", "send 768-1535"][..]),
        ("503 after", &[StatusAfter(503)], &["send 0-767", "ask", "send 768-1535"]),
        ("429", &[StatusBefore(429)], &["send 0-767", "ask", "send 0-767"]),
        ("408", &[StatusBefore(408)], &["send 0-767", "ask", "send 0-767"]),
        ("cut", &[Cut(300)], &["send 0-767", "ask", "send 256-1023", "send 1024-1791", "send 1792-1999"]),
        ("a lost answer", &[LostAnswer], &["send 0-767", "ask", "send 768-1535"]),
        ("a short range", &[Short(512)], &["send 0-767", "send 512-1279", "send 1280-1999"]),
        ("nothing kept", &[Short(0)], &["send 0-767", "ask", "send 0-767"]),
        ("308 without range", &[NoRange], &["send 0-767", "ask", "send 768-1535"]),
        ("a range that cannot be", &[Garbled], &["send 0-767", "ask", "send 768-1535"]),
        ("a gap", &[Fault::None, Forget(256)], &["send 0-767", "send 768-1535", "ask", "send 256-1023"]),
        (
            "trouble while asking",
            &[StatusBefore(503), StatusBefore(500), LostAnswer],
            &["send 0-767", "ask", "ask", "ask", "send 0-767"],
        ),
        (
            "the last answer is lost",
            &[Fault::None, Fault::None, LostAnswer],
            &["send 0-767", "send 768-1535", "send 1536-1999", "ask", "complete"],
        ),
        (
            "the last answer is 308",
            &[Fault::None, Fault::None, NoRange],
            &["send 0-767", "send 768-1535", "send 1536-1999", "ask", "complete"],
        ),
    ] {
        let scene = Scene::with(&content(2000)).await;
        scene.server.fail(faults);
        scene.completes().await;
        let journal = scene.server.journal();
        assert_eq!(journal[1..=expected.len()], *expected, "{name}");
        assert_eq!(journal.iter().filter(|call| *call == "create").count(), 1, "{name}");
    }
}

#[tokio::test]
async fn an_empty_file_survives_trouble_too() {
    for faults in [[StatusBefore(503)], [LostAnswer], [StatusAfter(500)], [NoRange]] {
        let scene = Scene::with(b"").await;
        scene.server.fail(&faults);
        scene.completes().await;
        assert_eq!(scene.server.journal()[1..3], ["send", "ask"], "{faults:?}");
    }
}

#[tokio::test]
async fn a_connection_that_stands_still_is_given_up() {
    let mut scene = Scene::with(&content(1000)).await;
    scene.client.patience.stalled_after = Duration::from_millis(50);
    scene.server.fail(&[Silence]);
    scene.completes().await;
    assert!(scene.saw("StorageSilent"));
}

#[tokio::test]
async fn patience_ends_and_what_is_there_can_be_resumed() {
    let mut scene = Scene::with(&content(1000)).await;
    scene.client.patience.give_up_after = Duration::from_millis(50);
    scene.server.fail(&[Fault::None]);
    scene.server.fail(&[StatusBefore(503); 1000]);
    let error = scene.upload().await.unwrap_err();
    assert!(matches!(error, Error::GaveUp { trouble: Trouble::Storage(503), .. }), "{error:?}");
    scene.server.world().faults.clear();
    scene.completes().await;
    assert_eq!(scene.server.world().uploads.len(), 1, "it was the same upload");
}

#[tokio::test]
async fn a_storage_that_never_keeps_anything_does_not_keep_the_client_forever() {
    for fault in [Short(0), NoRange, Garbled] {
        let mut scene = Scene::with(&content(1000)).await;
        scene.client.patience.give_up_after = Duration::from_millis(50);
        for _ in 0..1000 {
            scene.server.fail(&[fault, Forget(0)]);
        }
        assert!(matches!(scene.upload().await, Err(Error::GaveUp { .. })), "{fault:?}");
    }
}

#[tokio::test]
async fn a_lost_session_is_renewed_and_begins_at_zero() {
    for status in [404, 410, 499] {
        let scene = Scene::with(&content(1000)).await;
        scene.server.fail(&[Fault::None, Gone(status)]);
        scene.completes().await;
        let expected = ["create", "send 0-767", "send 768-999", "complete", "renew", "send 0-767", "send 768-999"];
        assert_eq!(scene.server.journal()[..7], expected, "{status}");
    }
}

#[tokio::test]
async fn sessions_that_are_lost_again_and_again_end_the_upload() {
    let scene = Scene::with(&content(1000)).await;
    scene.server.fail(&[Gone(410); 100]);
    let error = scene.upload().await.unwrap_err();
    assert!(matches!(error, Error::SessionLostAgain(6)), "{error}");
    assert_eq!(scene.server.world().uploads[0].state, "cancelled");
}

#[tokio::test]
async fn a_broker_that_cannot_renew_ends_the_upload_cleanly() {
    let scene = Scene::with(&content(1000)).await;
    scene.server.world().renews = false;
    scene.server.fail(&[Gone(410)]);
    let error = scene.upload().await.unwrap_err();
    assert!(matches!(error, Error::SessionLost), "{error}");
    assert_eq!(scene.server.world().uploads[0].state, "cancelled", "its quota is freed");
    assert!(!scene.state_file().exists(), "the next run starts anew");
    scene.completes().await;
}

#[tokio::test]
async fn a_session_that_is_gone_because_it_is_finished_is_no_loss() {
    let scene = Scene::with(&content(1000)).await;
    scene.server.fail(&[Fault::None, LostAnswer, Gone(404)]);
    scene.completes().await;
    assert_eq!(scene.server.journal()[1..], ["send 0-767", "send 768-999", "ask", "complete"]);
}

#[tokio::test]
async fn an_upload_that_someone_cancels_meanwhile_is_reported_as_cancelled() {
    let scene = Scene::with(&content(1000)).await;
    scene.server.fail(&[Gone(499)]);
    scene.server.refuse("complete", 409, json!({"code": "invalid-state"}));
    let upload = json!({"id": format!("3f{:032x}", 0), "state": "cancelled", "policy": "p", "object": "o"});
    scene.server.refuse("find", 200, upload);
    assert_eq!(scene.upload().await.unwrap().state, FinalState::Cancelled);
    assert_eq!(scene.server.journal(), ["create", "send 0-767", "complete", "find"]);
}

#[tokio::test]
async fn what_storage_refuses_for_good_ends_the_upload() {
    for (status, resumable) in [(400, false), (413, false), (403, true)] {
        let scene = Scene::with(&content(1000)).await;
        scene.server.fail(&[Fault::None, StatusBefore(status)]);
        let error = scene.upload().await.unwrap_err();
        let expected = status;
        assert!(
            matches!(error, Error::StorageRefused { status, offset: 768, .. } if status == expected),
            "{status}: {error}"
        );
        assert_eq!(scene.state_file().exists(), resumable, "{status}");
        assert_eq!(scene.server.world().uploads[0].state == "cancelled", !resumable, "{status}");
    }
}

#[tokio::test]
async fn a_refusal_tells_storages_word_for_it_unless_the_file_was_changed() {
    let scene = Scene::with(&content(1000)).await;
    scene.server.fail(&[Fault::None, BadDigest]);
    let error = scene.upload().await.unwrap_err().to_string();
    assert_eq!(error, "storage refused the bytes at offset 768 with status 400 BadDigest");

    for kind in [TransferKind::Resumable, TransferKind::Simple] {
        let mut scene = Scene::with(&content(1000)).await;
        scene.order.transfer = kind;
        scene.server.fail(&[BadDigest]);
        // What was sent looks as it was hashed; who wrote to it shows only afterwards.
        let file = scene.file.clone();
        scene.server.world().before_refusal = Some(Box::new(move || std::fs::write(&file, b"other").unwrap()));
        let error = scene.upload().await.unwrap_err();
        assert!(matches!(error, Error::SourceChanged(_)), "{kind}: {error}");
        assert_eq!(scene.server.world().uploads[0].state, "cancelled", "{kind}");
    }
}

#[tokio::test]
async fn an_object_that_exists_already_is_ours_or_an_error() {
    let scene = Scene::with(&content(1000)).await;
    scene.server.fail(&[Fault::None, StatusAfter(412)]);
    scene.completes().await;
    let scene = Scene::with(&content(1000)).await;
    scene.server.fail(&[Fault::None, StatusBefore(412)]);
    assert!(matches!(scene.upload().await, Err(Error::StorageRefused { status: 412, .. })));
}

#[tokio::test]
async fn the_broker_is_asked_again_when_that_can_help() {
    for (operation, status, code) in [
        ("create", 503, "overloaded"),
        ("create", 429, "rate-limited"),
        ("create", 409, "idempotency-in-progress"),
        ("complete", 504, "storage-timeout"),
        ("complete", 409, "not-complete"),
    ] {
        let scene = Scene::with(&content(1000)).await;
        scene.server.refuse(operation, status, json!({"code": code}));
        scene.completes().await;
        assert_eq!(scene.server.world().uploads.len(), 1, "{operation} {status}");
    }
}

#[tokio::test]
async fn the_broker_is_believed_when_it_refuses() {
    for (operation, status, body) in [
        ("create", 400, json!({"code": "invalid-request"})),
        ("create", 403, json!({"code": "policy-denied"})),
        ("create", 302, json!(null)),
        ("create", 422, json!({"violations": [{"limit": "max_size", "allowed": "1", "given": "2"}]})),
        ("complete", 403, json!({"code": "policy-denied"})),
    ] {
        let scene = Scene::with(&content(1000)).await;
        scene.server.refuse(operation, status, body);
        let error = scene.upload().await.unwrap_err();
        let Error::Refused { refusal, .. } = &error else { panic!("{operation} {status}: {error:?}") };
        assert_eq!(refusal.status, status);
        assert_eq!(scene.state_file().exists(), operation == "complete", "{operation} {status}");
        let calls = scene.server.journal();
        assert_eq!(calls.iter().filter(|call| *call == operation).count(), 1, "{operation} {status} is not repeated");
    }
}

#[tokio::test]
async fn answers_that_are_no_uploads_are_told_without_quoting_them() {
    let id = format!("3f{:032x}", 0);
    let transfer = json!({"kind": "resumable", "uri": format!("ftp://x/{SECRET}")});
    let typed = json!({"id": 7, "transfer": {"uri": SECRET}});
    let upload = |id: &str| json!({"id": id, "state": "pending", "policy": "p", "object": "o", "transfer": transfer});
    for body in [json!("hello"), typed, upload("../admin"), upload(&id)] {
        let scene = Scene::with(b"x").await;
        scene.server.refuse("create", 201, body.clone());
        let error = scene.upload().await.unwrap_err();
        assert!(matches!(error, Error::Nonsense { operation: Operation::Create, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn digests_are_left_out_where_the_policy_forbids_them() {
    let scene = Scene::with(&content(1000)).await;
    let violations = json!([{"limit": "digest", "allowed": "none", "given": "md5, crc32c"}]);
    scene.server.refuse("create", 422, json!({"code": "policy-violation", "violations": violations}));
    scene.completes().await;
    let body = scene.server.world().uploads[0].body.clone();
    assert!(body.get("md5").is_none() && body.get("crc32c").is_none(), "{body}");
}

#[tokio::test]
async fn a_lost_answer_to_create_does_not_make_two_uploads() {
    let scene = Scene::with(&content(1000)).await;
    scene.server.world().lost_creates = 2;
    scene.completes().await;
    assert_eq!(scene.server.journal()[..3], ["create", "create", "create"]);
    assert_eq!(scene.server.world().uploads.len(), 1);
}

#[tokio::test]
async fn an_upload_whose_session_is_still_being_opened_is_waited_for() {
    let opening = json!({"id": format!("3f{:032x}", 0), "state": "pending", "policy": "p", "object": "o"});
    let scene = Scene::with(&content(1000)).await;
    scene.server.fail(&[StatusBefore(403)]);
    assert!(scene.upload().await.is_err());
    scene.server.refuse("find", 200, opening);
    scene.completes().await;
    assert!(scene.saw("BrokerOpening"));
}

#[tokio::test]
async fn a_token_is_read_again_when_it_is_refused() {
    let mut scene = Scene::with(&content(1000)).await;
    let file = scene.directory.path().join("token");
    std::fs::write(&file, "token-0\n").unwrap();
    scene.client.token = Token::File(file.clone());
    let error = scene.upload().await.unwrap_err();
    assert!(matches!(&error, Error::Refused { refusal, .. } if refusal.status == 401), "{error}");
    assert_eq!(scene.server.journal(), ["create"], "the same token would be refused again");
    std::fs::write(&file, "token-1\n").unwrap();
    scene.completes().await;
    for (name, text) in [("empty", "\n"), ("two lines", "a\nb"), ("not ASCII", "tökén")] {
        std::fs::write(&file, text).unwrap();
        assert!(matches!(scene.upload().await, Err(Error::TokenForm)), "{name}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(scene.upload().await, Err(Error::Token { .. })));
}

#[tokio::test]
async fn a_broker_that_is_away_is_an_error_in_the_end() {
    let mut scene = Scene::with(b"x").await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    scene.client.broker = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    scene.client.patience.give_up_after = Duration::from_millis(20);
    let error = scene.upload().await.unwrap_err();
    assert!(matches!(error, Error::GaveUp { trouble: Trouble::BrokerUnreachable(_), .. }), "{error:?}");
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => Just(StatusBefore(503)),
        1 => Just(StatusBefore(429)),
        1 => Just(StatusAfter(500)),
        2 => (0..2000_u64).prop_map(Cut),
        1 => Just(LostAnswer),
        2 => (0..2000_u64).prop_map(Short),
        1 => Just(NoRange),
        1 => Just(Garbled),
        1 => (0..2000_u64).prop_map(Forget),
    ]
}

/// Whatever fails, what is stored in the end is the file. The stand-in itself looks for bytes at a wrong offset.
#[test]
fn no_order_of_faults_harms_the_bytes() {
    // One runtime and one client for all cases: reading the system's roots takes longer than an upload.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let http = Http::new(&[]).unwrap();
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    let input = (0..6000_usize, 1..9_u64, proptest::collection::vec(any_fault(), 0..24));
    let outcome = proptest::test_runner::TestRunner::new(config).run(&input, |(size, multiples, faults)| {
        runtime.block_on(async {
            let scene = Scene::over(http.clone(), &content(size)).await;
            scene.server.world().chunk = multiples * MULTIPLE;
            scene.server.fail(&faults);
            scene.completes().await;
            let creates = scene.server.journal().iter().filter(|call| *call == "create").count();
            prop_assert_eq!(creates, 1);
            Ok(())
        })
    });
    outcome.unwrap();
}

//! Signed URLs: whole objects, and sessions that the client opens.

use super::stand_in::Fault::{self, BadDigest, Cut, Garbled, Gone, LostAnswer, Silence, StatusAfter, StatusBefore};
use super::*;

impl Scene {
    async fn signed(kind: TransferKind, bytes: &[u8]) -> Self {
        let mut scene = Self::with(bytes).await;
        scene.order.transfer = kind;
        scene
    }
}

#[tokio::test]
async fn a_signed_url_takes_everything_at_once() {
    for size in [0, 1, 2000, 300_000] {
        let scene = Scene::signed(TransferKind::Simple, &content(size)).await;
        let report = scene.completes().await;
        assert_eq!(scene.server.journal(), ["create", "put", "complete"], "{size} bytes");
        assert_eq!((report.transfer, report.chunks, report.renewals), (TransferKind::Simple, 1, 0));
        assert_eq!(scene.server.world().uploads[0].body["transfer_kind"], "simple");
    }
}

#[tokio::test]
async fn a_session_is_opened_with_a_signed_url() {
    let scene = Scene::signed(TransferKind::SignedResumable, &content(2000)).await;
    scene.server.fail(&[Fault::None, Fault::None, StatusAfter(503)]);
    let report = scene.completes().await;
    let expected = ["create", "open", "send 0-767", "send 768-1535", "ask", "send 1536-1999", "complete"];
    assert_eq!(scene.server.journal(), expected);
    assert_eq!((report.transfer, report.chunks, report.resumes), (TransferKind::SignedResumable, 3, 1));
}

#[tokio::test]
async fn the_broker_is_asked_before_a_whole_object_is_sent_again() {
    for (name, fault, expected) in [
        ("503 before", StatusBefore(503), &["put", "complete", "put", "complete"][..]),
        ("429 before", StatusBefore(429), &["put", "complete", "put", "complete"]),
        ("cut", Cut(300), &["put", "complete", "put", "complete"]),
        ("503 after", StatusAfter(503), &["put", "complete"]),
        ("a lost answer", LostAnswer, &["put", "complete"]),
        ("there already, and ours", StatusAfter(412), &["put", "complete"]),
    ] {
        let scene = Scene::signed(TransferKind::Simple, &content(1000)).await;
        scene.server.fail(&[fault]);
        scene.completes().await;
        assert_eq!(scene.server.journal()[1..], *expected, "{name}");
    }
}

/// A large object on a slow line takes longer than patience lasts.
#[tokio::test]
async fn the_broker_is_asked_before_a_whole_object_is_given_up() {
    let mut scene = Scene::signed(TransferKind::Simple, &content(1000)).await;
    scene.client.patience.give_up_after = Duration::ZERO;
    scene.server.fail(&[LostAnswer]);
    scene.completes().await;
    assert_eq!(scene.server.journal(), ["create", "put", "complete"]);

    for (name, refusal) in [("the URL is good", "not-complete"), ("the URL has ended", "session-lost")] {
        let mut scene = Scene::signed(TransferKind::Simple, &content(1000)).await;
        scene.client.patience.give_up_after = Duration::ZERO;
        scene.server.fail(&[Cut(300)]);
        scene.server.refuse("complete", 409, json!({"code": refusal}));
        let error = scene.upload().await.unwrap_err();
        assert!(matches!(error, Error::GaveUp { trouble: Trouble::StorageUnreachable(_), .. }), "{name}: {error:?}");
        assert_eq!(scene.server.journal(), ["create", "put", "complete"], "{name}");
        scene.completes().await;
        assert_eq!(scene.server.world().uploads.len(), 1, "{name}: it was the same upload");
    }
}

#[tokio::test]
async fn a_connection_that_stands_still_is_given_up_and_the_broker_asked() {
    let mut scene = Scene::signed(TransferKind::Simple, &content(1000)).await;
    scene.client.patience.stalled_after = Duration::from_millis(50);
    scene.server.fail(&[Silence]);
    scene.completes().await;
    assert_eq!(scene.server.journal()[1..], ["put", "complete", "put", "complete"]);
}

#[tokio::test]
async fn a_url_that_has_ended_is_renewed() {
    for (kind, first) in [(TransferKind::Simple, "put"), (TransferKind::SignedResumable, "open")] {
        for status in [400, 403] {
            let scene = Scene::signed(kind, &content(700)).await;
            scene.server.fail(&[Gone(status)]);
            let report = scene.completes().await;
            assert_eq!(report.renewals, 1);
            assert!(scene.saw(&format!("Renewed {{ kind: {kind:?} }}")), "{kind} {status}");
            assert_eq!(scene.server.journal()[..5], ["create", first, "complete", "renew", first], "{kind} {status}");
        }
    }
}

/// A broker that does not see yet that a URL has ended: another is asked for, once.
#[tokio::test]
async fn a_refusal_is_believed_of_two_urls_in_a_row() {
    for (kind, first) in [(TransferKind::Simple, "put"), (TransferKind::SignedResumable, "open")] {
        let scene = Scene::signed(kind, &content(700)).await;
        scene.server.fail(&[StatusBefore(400)]);
        assert_eq!(scene.completes().await.renewals, 1, "{kind}");

        let scene = Scene::signed(kind, &content(700)).await;
        scene.server.fail(&[StatusBefore(403); 2]);
        let error = scene.upload().await.unwrap_err();
        assert!(matches!(error, Error::StorageRefused { status: 403, offset: 0, .. }), "{error}");
        assert_eq!(scene.server.journal(), ["create", first, "complete", "renew", first, "complete"]);
        assert!(scene.state_file().exists(), "a permission may come back");
        scene.completes().await;
    }
}

/// What a URL that ended long ago says nothing about: one that was good for a while has ended by itself.
#[tokio::test]
async fn a_url_that_was_good_for_a_while_is_replaced_again() {
    let scene = Scene::signed(TransferKind::Simple, &content(700)).await;
    scene.server.fail(&[StatusBefore(403), StatusBefore(503), StatusBefore(403)]);
    assert_eq!(scene.completes().await.renewals, 2);
}

#[tokio::test]
async fn what_is_refused_for_good_ends_the_upload() {
    for (kind, status, times) in
        [(TransferKind::Simple, 400, 2), (TransferKind::Simple, 413, 1), (TransferKind::SignedResumable, 404, 1)]
    {
        let scene = Scene::signed(kind, &content(700)).await;
        scene.server.fail(&vec![StatusBefore(status); times]);
        let error = scene.upload().await.unwrap_err();
        let expected = status;
        assert!(matches!(error, Error::StorageRefused { status, .. } if status == expected), "{status}: {error}");
        assert_eq!(scene.server.world().uploads[0].state, "cancelled");
    }
    for kind in [TransferKind::Simple, TransferKind::SignedResumable] {
        let scene = Scene::signed(kind, &content(700)).await;
        scene.server.fail(&[BadDigest; 2]);
        let error = scene.upload().await.unwrap_err().to_string();
        assert!(error.ends_with("400 BadDigest"), "{kind}: {error}");

        let scene = Scene::signed(kind, &content(700)).await;
        scene.server.fail(&[StatusBefore(412)]);
        assert!(matches!(scene.upload().await, Err(Error::StorageRefused { status: 412, .. })), "someone else's");
    }
}

#[tokio::test]
async fn a_session_is_opened_again_after_trouble() {
    for fault in [StatusBefore(503), StatusAfter(500), LostAnswer] {
        let scene = Scene::signed(TransferKind::SignedResumable, &content(700)).await;
        scene.server.fail(&[fault]);
        scene.completes().await;
        assert_eq!(scene.server.journal(), ["create", "open", "open", "send 0-699", "complete"], "{fault:?}");
    }
    let scene = Scene::signed(TransferKind::SignedResumable, &content(700)).await;
    scene.server.fail(&[Garbled]);
    assert!(matches!(scene.upload().await, Err(Error::StorageNonsense(_))), "without Location");
}

#[tokio::test]
async fn a_kill_forgets_the_session_but_not_the_upload() {
    let scene = Scene::signed(TransferKind::SignedResumable, &content(2000)).await;
    scene.server.fail(&[Fault::None, Fault::None, Silence]);
    scene.killed_at("send 768-1535").await;
    let state = std::fs::read_to_string(scene.state_file()).unwrap();
    assert!(!state.contains(SECRET), "{state}");
    scene.completes().await;
    assert_eq!(scene.server.journal()[..4], ["find", "complete", "open", "send 0-767"]);
    assert_eq!(scene.server.world().uploads.len(), 1);
}

#[tokio::test]
async fn a_kill_after_the_object_was_put_sends_nothing_again() {
    let scene = Scene::signed(TransferKind::Simple, &content(700)).await;
    for _ in 0..100_000 {
        scene.server.refuse("complete", 503, json!(null));
    }
    scene.killed_at("complete").await;
    scene.server.world().refusals.clear();
    let report = scene.completes().await;
    assert_eq!(scene.server.journal(), ["find", "complete"]);
    assert_eq!((report.chunks, report.transfer), (0, TransferKind::Simple));
}

#[tokio::test]
async fn another_transfer_is_another_order() {
    let mut scene = Scene::signed(TransferKind::Simple, &content(700)).await;
    scene.server.fail(&[Silence]);
    scene.killed_at("put").await;
    scene.order.transfer = TransferKind::Resumable;
    scene.completes().await;
    assert!(scene.saw("StartedAnew(OrderChanged)"));
}

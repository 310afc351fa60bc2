//! Pipes: sizes that nobody knows, and bytes that cannot be read again.

use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;

use super::stand_in::Fault::{self, Cut, Forget, Garbled, Gone, LostAnswer, NoRange, Short, StatusAfter, StatusBefore};
use super::stand_in::MULTIPLE;
use super::*;

impl Scene {
    /// Uploads what the scene's server expects, from a pipe.
    async fn stream(&self) -> Result<UploadReport, Error> {
        let content = self.server.world().expected.clone();
        let (reading, mut writing) = tokio::io::duplex(100);
        let write = async move {
            // Who stops to read has its reasons.
            let _ = writing.write_all(&content).await;
            drop(writing);
        };
        let upload = self.watched(async |watch| self.client.stream(reading, &self.order, watch).await);
        tokio::join!(upload, write).0
    }

    async fn streams(&self) -> UploadReport {
        self.is_complete(self.stream().await)
    }
}

#[tokio::test]
async fn a_pipe_goes_up_without_a_size() {
    for (size, expected) in [
        (0, &["close"][..]),
        (1, &["send 0-0"]),
        (767, &["send 0-766"]),
        (768, &["send 0-767", "close"]),
        (769, &["send 0-767", "send 768-768"]),
        (1536, &["send 0-767", "send 768-1535", "close"]),
        (2000, &["send 0-767", "send 768-1535", "send 1536-1999"]),
    ] {
        let scene = Scene::with(&content(size)).await;
        let report = scene.streams().await;
        let journal = scene.server.journal();
        assert_eq!(journal[1..journal.len() - 1], *expected, "{size} bytes");
        assert_eq!(report.bytes, size as u64);
        assert_eq!(report.crc32c, Crc32c(crc32c::crc32c(&content(size))));
        let body = json!({"filename": "stdin", "content_type": "application/octet-stream"});
        assert_eq!(scene.server.world().uploads[0].body, body, "nothing is declared that is not known");
        assert!(scene.saw("Streaming"));
    }
}

#[tokio::test]
async fn a_pipe_has_the_name_that_it_is_given() {
    let mut scene = Scene::with(b"x").await;
    scene.order.name = Some("talk.mp4".parse().unwrap());
    scene.streams().await;
    assert_eq!(scene.server.world().uploads[0].body, json!({"filename": "talk.mp4", "content_type": "video/mp4"}));
}

#[tokio::test]
async fn a_named_pipe_is_a_pipe() {
    let mut scene = Scene::with(&content(2000)).await;
    scene.file = scene.directory.path().join("talk.mp4");
    assert!(std::process::Command::new("mkfifo").arg(&scene.file).status().unwrap().success());
    let (file, bytes) = (scene.file.clone(), content(2000));
    let writer = std::thread::spawn(move || std::fs::write(file, bytes).unwrap());
    scene.completes().await;
    writer.join().unwrap();
    assert_eq!(scene.server.journal().last().unwrap(), "complete");
    assert_eq!(scene.server.world().uploads[0].body["filename"], "talk.mp4");
    let leftovers = std::fs::read_dir(&scene.directory).unwrap().count();
    assert_eq!(leftovers, 2, "the file of the scene and the pipe: no state");
}

#[tokio::test]
async fn a_simple_upload_of_a_pipe_is_refused_before_anything_is_done() {
    let mut scene = Scene::with(b"x").await;
    scene.order.transfer = TransferKind::Simple;
    assert!(matches!(scene.stream().await, Err(Error::SimplePipe)));
    assert!(scene.server.journal().is_empty());
}

#[tokio::test]
async fn a_pipe_may_go_to_a_session_opened_with_a_signed_url() {
    let mut scene = Scene::with(&content(1000)).await;
    scene.order.transfer = TransferKind::SignedResumable;
    scene.streams().await;
    assert_eq!(scene.server.journal(), ["create", "open", "send 0-767", "send 768-999", "complete"]);
}

#[tokio::test]
async fn after_trouble_a_chunk_is_sent_from_where_storage_says() {
    for (name, faults, expected) in [
        ("503 before", &[StatusBefore(503)][..], &["send 0-767", "ask", "send 0-767", "send 768-1535"][..]),
        ("503 after", &[StatusAfter(503)], &["send 0-767", "ask", "send 768-1535"]),
        ("cut", &[Cut(300)], &["send 0-767", "ask", "send 256-1023", "send 1024-1791", "send 1792-1999"]),
        ("a lost answer", &[LostAnswer], &["send 0-767", "ask", "send 768-1535"]),
        ("a short range", &[Short(512)], &["send 0-767", "send 512-1279", "send 1280-1999"]),
        ("nothing kept", &[Short(0)], &["send 0-767", "ask", "send 0-767"]),
        ("308 without range", &[NoRange], &["send 0-767", "ask", "send 768-1535"]),
        (
            "308 without range, later",
            &[Fault::None, NoRange],
            &["send 0-767", "send 768-1535", "ask", "send 1536-1999"],
        ),
        (
            "the last answer is lost",
            &[Fault::None, Fault::None, LostAnswer],
            &["send 0-767", "send 768-1535", "send 1536-1999", "ask", "complete"],
        ),
    ] {
        let scene = Scene::with(&content(2000)).await;
        scene.server.fail(faults);
        scene.streams().await;
        assert_eq!(scene.server.journal()[1..=expected.len()], *expected, "{name}");
    }
}

#[tokio::test]
async fn the_end_survives_trouble_too() {
    for (size, sends) in [(0, &["close"][..]), (768, &["send 0-767", "close"])] {
        for (fault, after) in [
            (StatusBefore(503), &["ask", "close", "complete"][..]),
            (LostAnswer, &["ask", "complete"]),
            (StatusAfter(500), &["ask", "complete"]),
            (NoRange, &["ask", "complete"]),
        ] {
            let scene = Scene::with(&content(size)).await;
            scene.server.fail(&vec![Fault::None; sends.len() - 1]);
            scene.server.fail(&[fault]);
            scene.streams().await;
            assert_eq!(scene.server.journal()[1..], [sends, after].concat(), "{size} bytes, {fault:?}");
        }
    }
}

#[tokio::test]
async fn a_session_that_is_lost_early_is_renewed() {
    let scene = Scene::with(&content(1000)).await;
    scene.server.fail(&[Gone(410)]);
    let report = scene.streams().await;
    assert_eq!(report.renewals, 1);
    assert_eq!(
        scene.server.journal(),
        ["create", "send 0-767", "complete", "renew", "send 0-767", "send 768-999", "complete"]
    );
}

#[tokio::test]
async fn confirmed_bytes_that_are_lost_end_the_upload() {
    for (name, faults) in [
        ("the session", &[Fault::None, Gone(404)][..]),
        ("what it had", &[Fault::None, Forget(0), Forget(0), Forget(0), Forget(0)]),
    ] {
        let scene = Scene::with(&content(2000)).await;
        scene.server.fail(faults);
        let error = scene.stream().await.unwrap_err();
        assert!(matches!(error, Error::PipeLost), "{name}: {error:?}");
        assert!(error.to_string().contains("cannot be read again"), "{error}");
        assert_eq!(scene.server.world().uploads[0].state, "cancelled", "{name}: its quota is freed");
    }
}

#[tokio::test]
async fn one_wrong_answer_does_not_end_a_pipe() {
    let scene = Scene::with(&content(2000)).await;
    scene.server.fail(&[Fault::None, StatusBefore(503), NoRange]);
    scene.streams().await;
    assert!(scene.saw("StorageForgot"));
}

#[tokio::test]
async fn what_fails_for_any_reason_is_cancelled() {
    let mut scene = Scene::with(&content(2000)).await;
    scene.client.patience.give_up_after = Duration::from_millis(50);
    scene.server.fail(&[StatusBefore(503); 1000]);
    assert!(matches!(scene.stream().await, Err(Error::GaveUp { .. })));
    assert_eq!(scene.server.world().uploads[0].state, "cancelled", "nobody can go on with it");
}

/// Admitted, but with nothing that bytes could be sent to.
#[tokio::test]
async fn what_fails_before_the_first_byte_is_cancelled_too() {
    let upload = json!({"id": format!("3f{:032x}", 0), "state": "pending", "policy": "p", "object": "o"});
    let with = |transfer: serde_json::Value| {
        let mut upload = upload.clone();
        upload["transfer"] = transfer;
        upload
    };
    for (name, answer, expected) in [
        ("no transfer, and no word of it", upload.clone(), &["create", "find", "cancel"][..]),
        ("a kind that nobody knows", with(json!({"kind": "pigeon"})), &["create", "cancel"]),
        ("no URI", with(json!({"kind": "resumable"})), &["create", "cancel"]),
    ] {
        let scene = Scene::with(b"x").await;
        scene.server.refuse("create", 201, answer);
        scene.server.refuse("find", 403, json!({"code": "policy-denied"}));
        assert!(scene.stream().await.is_err(), "{name}");
        assert_eq!(scene.server.journal(), *expected, "{name}");
        assert!(scene.saw("Admitted"), "{name}: who stops it meanwhile must know what to cancel");
    }
}

/// However long the other end takes, patience is for storage.
#[tokio::test]
async fn a_slow_writer_does_not_use_up_the_patience() {
    let mut scene = Scene::with(&content(1000)).await;
    scene.client.patience.give_up_after = Duration::from_millis(250);
    scene.server.fail(&[Fault::None, StatusBefore(503)]);
    let (reading, mut writing) = tokio::io::duplex(2000);
    let write = async move {
        writing.write_all(&content(1000)[..800]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        writing.write_all(&content(1000)[800..]).await.unwrap();
    };
    let upload = scene.watched(async |watch| scene.client.stream(reading, &scene.order, watch).await);
    let (outcome, ()) = tokio::join!(upload, write);
    scene.is_complete(outcome);
}

#[tokio::test]
async fn an_upload_can_be_cancelled_by_its_id() {
    let scene = Scene::with(&content(1000)).await;
    scene.server.fail(&[StatusBefore(403)]);
    assert!(scene.upload().await.is_err());
    scene.client.cancel(format!("3f{:032x}", 0).parse().unwrap()).await.unwrap();
    assert_eq!(scene.server.world().uploads[0].state, "cancelled");
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => Just(StatusBefore(503)),
        1 => Just(StatusAfter(500)),
        2 => (0..2000_u64).prop_map(Cut),
        1 => Just(LostAnswer),
        2 => (0..2000_u64).prop_map(Short),
        1 => Just(Garbled),
    ]
}

/// As for files, but for what a pipe cannot survive: storage that forgets.
#[test]
fn no_order_of_faults_harms_the_bytes_of_a_pipe() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let http = Http::new(&[]).unwrap();
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    let input = (0..6000_usize, 1..9_u64, proptest::collection::vec(any_fault(), 0..24));
    let outcome = proptest::test_runner::TestRunner::new(config).run(&input, |(size, multiples, faults)| {
        runtime.block_on(async {
            let scene = Scene::over(http.clone(), &content(size)).await;
            scene.server.world().chunk = multiples * MULTIPLE;
            scene.server.fail(&faults);
            scene.streams().await;
            Ok(())
        })
    });
    outcome.unwrap();
}

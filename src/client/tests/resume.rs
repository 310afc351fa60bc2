//! What a kill leaves, and what the next run makes of it.

use super::stand_in::Fault::{self, Silence, StatusBefore};
use super::*;

impl Scene {
    /// Runs until the journal has the given call, then drops the upload as a kill would.
    pub(super) async fn killed_at(&self, call: &str) {
        let killed = async {
            while !self.server.journal().iter().any(|seen| seen == call) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            outcome = self.upload() => panic!("it ended before {call}: {outcome:?}"),
            () = killed => {}
        }
        self.server.world().journal.clear();
        self.server.world().faults.clear();
    }

    fn rewrite(&mut self, bytes: &[u8]) {
        std::fs::write(&self.file, bytes).unwrap();
        self.server.world().expected = bytes.to_vec();
    }
}

#[tokio::test]
async fn a_killed_upload_goes_on_where_it_stopped() {
    let scene = Scene::with(&content(2000)).await;
    scene.server.fail(&[Fault::None, Silence]);
    scene.killed_at("send 768-1535").await;
    let state = std::fs::read_to_string(scene.state_file()).unwrap();
    assert!(!state.contains(SECRET) && !state.contains("upload_id=") && !state.contains("token-"), "{state}");
    let report = scene.completes().await;
    assert_eq!(scene.server.journal(), ["find", "ask", "send 768-1535", "send 1536-1999", "complete"]);
    assert_eq!((report.chunks, report.resumes), (2, 1));
    assert!(scene.saw("Resumed { offset: 768 }"));
}

#[tokio::test]
async fn a_kill_at_any_point_costs_no_second_upload() {
    // The answer to the call is never seen: it is killed while it waits.
    for call in ["send 0-767", "send 1536-1999"] {
        let scene = Scene::with(&content(2000)).await;
        let before = if call == "send 0-767" { 0 } else { 2 };
        scene.server.fail(&vec![Fault::None; before]);
        scene.server.fail(&[Silence]);
        scene.killed_at(call).await;
        scene.completes().await;
        assert_eq!(scene.server.world().uploads.len(), 1, "{call}");
    }
}

#[tokio::test]
async fn a_kill_while_creating_repeats_the_same_request() {
    let scene = Scene::with(&content(2000)).await;
    scene.server.world().lost_creates = u32::MAX;
    scene.killed_at("create").await;
    scene.server.world().lost_creates = 0;
    scene.completes().await;
    assert_eq!(scene.server.world().uploads.len(), 1, "the key was the same");
}

#[tokio::test]
async fn a_kill_after_the_last_byte_needs_no_more_bytes() {
    let scene = Scene::with(&content(700)).await;
    for _ in 0..100_000 {
        scene.server.refuse("complete", 503, json!(null));
    }
    scene.killed_at("complete").await;
    scene.server.world().refusals.clear();
    let report = scene.completes().await;
    assert_eq!(scene.server.journal(), ["find", "ask", "complete"]);
    assert_eq!(report.chunks, 0);
    // And one that was verified already, only its answer was not seen.
    let scene = Scene::with(&content(700)).await;
    scene.server.fail(&[StatusBefore(403)]);
    assert!(scene.upload().await.is_err());
    let stored = scene.server.world().expected.clone();
    {
        let upload = &mut scene.server.world().uploads[0];
        (upload.state, upload.finished, upload.stored) = ("completed", true, stored);
    }
    scene.completes().await;
    assert_eq!(scene.server.journal()[2..], ["find"]);
}

#[tokio::test]
async fn a_changed_file_starts_anew_and_the_old_upload_is_cancelled() {
    let mut scene = Scene::with(&content(2000)).await;
    scene.server.fail(&[Fault::None, Silence]);
    scene.killed_at("send 768-1535").await;
    let mut changed = content(2000);
    changed[1999] ^= 1;
    scene.rewrite(&changed);
    scene.completes().await;
    assert!(scene.saw("StartedAnew(FileChanged)"));
    assert_eq!(scene.server.journal()[..3], ["cancel", "create", "send 0-767"]);
    assert_eq!(scene.server.world().uploads[0].state, "cancelled");
}

#[tokio::test]
async fn a_file_that_changes_under_way_ends_the_upload() {
    let mut scene = Scene::with(&content(2000)).await;
    scene.server.fail(&[Fault::None, StatusBefore(403)]);
    assert!(scene.upload().await.is_err());
    scene.server.fail(&[Fault::None, Silence]);
    scene.client.patience.stalled_after = Duration::from_millis(100);
    let file = scene.file.clone();
    let change = async {
        while !scene.saw("Resumed") {
            tokio::task::yield_now().await;
        }
        std::fs::write(&file, b"shorter").unwrap();
    };
    let (outcome, ()) = tokio::join!(scene.upload(), change);
    assert!(matches!(outcome, Err(Error::SourceChanged(_))), "{outcome:?}");
    assert_eq!(scene.server.world().uploads[0].state, "cancelled");
    assert!(!scene.state_file().exists());
}

#[tokio::test]
async fn what_cannot_be_continued_starts_anew_and_says_why() {
    for (name, expected) in [
        ("other metadata", "OrderChanged"),
        ("forgotten", "Forgotten"),
        ("cancelled by someone", "Ended"),
        ("a damaged state file", "StateUnreadable"),
        ("another broker", "OtherBroker"),
        ("an id that is none", "StateUnreadable"),
    ] {
        let mut scene = Scene::with(&content(2000)).await;
        scene.server.fail(&[Fault::None, Silence]);
        scene.killed_at("send 768-1535").await;
        let state = std::fs::read_to_string(scene.state_file()).unwrap();
        match name {
            "other metadata" => drop(scene.order.metadata.insert("album".into(), "winter".into())),
            "forgotten" => scene.server.refuse("find", 404, json!({"code": "not-found"})),
            "cancelled by someone" => scene.server.world().uploads[0].state = "cancelled",
            "a damaged state file" => std::fs::write(scene.state_file(), &state[..40]).unwrap(),
            "another broker" => {
                let address = scene.server.address.to_string();
                std::fs::write(scene.state_file(), state.replace(&address, "127.0.0.1:1")).unwrap();
            }
            _ => std::fs::write(scene.state_file(), state.replace("\"3f000", "\"../00")).unwrap(),
        }
        scene.completes().await;
        assert!(scene.saw(&format!("StartedAnew({expected})")), "{name}");
        assert_eq!(scene.server.world().uploads.len(), 2, "{name}");
    }
}

#[tokio::test]
async fn a_state_directory_keeps_the_files_own_clean() {
    let mut scene = Scene::with(&content(2000)).await;
    let elsewhere = tempfile::tempdir().unwrap();
    scene.order.state_directory = Some(elsewhere.path().to_owned());
    scene.server.fail(&[Fault::None, Silence]);
    scene.killed_at("send 768-1535").await;
    assert!(!scene.state_file().exists());
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 1);
    let report = scene.completes().await;
    assert_eq!(report.resumes, 1);
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
}

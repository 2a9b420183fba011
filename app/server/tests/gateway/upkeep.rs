//! What the server does by itself, and how it shows when it cannot.

use std::fs;
use std::time::Duration;

use super::stage::Stage;

async fn wait_until_written(stage: &Stage, written: bool) {
    for _ in 0..1000 {
        if stage.server.service().checkpoint_written() == written {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never became {written}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_file_that_cannot_be_written_shows_until_it_can() {
    let stage = Stage::new().await;
    assert!(stage.server.service().checkpoint_written());
    let path = stage.data().checkpoints_path();
    let _not_written_yet = fs::remove_file(&path);
    fs::create_dir(&path).unwrap();
    stage.enroll("RD-1").await; // rows to chain
    wait_until_written(&stage, false).await;
    fs::remove_dir(&path).unwrap();
    stage.enroll("RD-2").await;
    wait_until_written(&stage, true).await;
}

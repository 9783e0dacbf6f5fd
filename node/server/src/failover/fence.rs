//! The command by which a node makes sure that the old home is off (`node.fence_command`): its exit code is the word.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The command may take so long.
pub const FENCE_MAX: Duration = Duration::from_secs(60);
/// What is shown of its output, in bytes of each stream.
const SHOWN_MAX_BYTES: usize = 4 << 10;
/// What it printed is waited for so long after its end.
const LATE_OUTPUT_MAX: Duration = Duration::from_millis(500);

/// Runs it with the region that is to be off in `MAILRAFT_REGION`. What it printed, if it succeeded.
///
/// # Errors
/// One sentence with what it printed: it could not be run, failed, or took longer than [`FENCE_MAX`], and was killed.
pub async fn fence(command: &[String], region: &str) -> Result<String, String> {
    fence_within(command, region, FENCE_MAX).await
}

async fn fence_within(command: &[String], region: &str, within: Duration) -> Result<String, String> {
    let (program, args) = command.split_first().ok_or("node.fence_command is empty")?;
    let started = Command::new(program)
        .args(args)
        .env("MAILRAFT_REGION", region)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // What it starts ends with it.
        .process_group(0)
        .spawn();
    let mut child = started.map_err(|e| format!("node.fence_command {program} can't be run ({e})"))?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let (out, err) = (Beginning::of(child.stdout.take()), Beginning::of(child.stderr.take()));
    let Ok(status) = timeout(within, child.wait()).await else {
        return Err(format!("node.fence_command {program} did not end within {} s, and was killed", within.as_secs()));
    };
    // Its number may be another's from now on.
    group.0 = None;
    let said = [out.when_read().await, err.when_read().await].concat();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    match status {
        Ok(status) if status.success() => Ok(said),
        Ok(status) => Err(format!("node.fence_command {program} failed ({status}): {said}")),
        Err(e) => Err(format!("node.fence_command {program} failed ({e})")),
    }
}

/// A command that runs, with all that it started. They are killed if nobody waits for it any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // All of them may have ended just now.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

/// The beginning of what a command prints. The rest is read, so that it goes on, and dropped.
struct Beginning {
    kept: Arc<Mutex<Vec<u8>>>,
    reading: AbortOnDrop,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Beginning {
    fn of(from: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&kept);
        let reading = AbortOnDrop(tokio::spawn(async move {
            let Some(mut from) = from else { return };
            let mut some = [0; 1_024];
            while let Ok(count @ 1..) = from.read(&mut some).await {
                let mut kept = into.lock().unwrap_or_else(PoisonError::into_inner);
                let room = SHOWN_MAX_BYTES - kept.len().min(SHOWN_MAX_BYTES);
                kept.extend_from_slice(&some[..count.min(room)]);
            }
        }));
        Beginning { kept, reading }
    }

    /// Once the command has ended: what it started may go on, and hold its output open.
    async fn when_read(mut self) -> Vec<u8> {
        let _ = timeout(LATE_OUTPUT_MAX, &mut self.reading.0).await;
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).into()
    }

    #[tokio::test]
    async fn its_exit_code_decides_and_its_output_is_shown() {
        let off = fence(&shell("echo \"$MAILRAFT_REGION is off\""), "home").await;
        assert_eq!(off.unwrap(), "home is off");
        let failed = fence(&shell("echo no >&2; exit 3"), "home").await.unwrap_err();
        assert!(failed.contains("exit status: 3") && failed.ends_with(": no"), "{failed}");
        assert!(fence(&["/nonexistent/fence".to_owned()], "home").await.unwrap_err().contains("can't be run"));
        assert!(fence(&[], "home").await.is_err());
        let long = fence(&shell("head -c 100000 /dev/zero | tr '\\0' x"), "home").await.unwrap();
        assert_eq!(long.len(), SHOWN_MAX_BYTES);
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_keeps_nobody_waiting_and_ends_with_one_that_is_killed() {
        let begun = std::time::Instant::now();
        let off = fence(&shell("sleep 20 & echo $!; exit 0"), "home").await.unwrap();
        assert!(begun.elapsed() < FENCE_MAX / 4, "{:?}", begun.elapsed());
        let is_there = |id: &str| {
            let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            state.rsplit(')').next().is_some_and(|rest| !matches!(rest.trim().chars().next(), Some('Z') | None))
        };
        assert!(is_there(off.trim()), "it may have more to do");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        assert!(fence_within(&shell(&script), "home", Duration::from_secs(1)).await.is_err());
        let left = std::fs::read_to_string(&file).unwrap();
        while is_there(left.trim()) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_no_word() {
        let hung = fence_within(&shell("sleep 600"), "home", Duration::from_secs(1)).await.unwrap_err();
        assert!(hung.contains("did not end within 1 s, and was killed"), "{hung}");
    }
}

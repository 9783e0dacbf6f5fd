//! The command by which a node makes sure that the old home is off (`node.fence_command`): its exit code is the word.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

/// The command may take so long.
pub const FENCE_MAX: Duration = Duration::from_secs(60);
/// What is shown of its output, in bytes of each stream.
const SHOWN_MAX_BYTES: u64 = 4 << 10;

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
        .kill_on_drop(true)
        .spawn();
    let mut child = started.map_err(|e| format!("node.fence_command {program} can't be run ({e})"))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = timeout(within, async { tokio::join!(child.wait(), beginning(out), beginning(err)) }).await;
    let Ok((status, out, err)) = ended else {
        return Err(format!("node.fence_command {program} did not end within {} s, and was killed", within.as_secs()));
    };
    let said = [out, err].concat();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    match status {
        Ok(status) if status.success() => Ok(said),
        Ok(status) => Err(format!("node.fence_command {program} failed ({status}): {said}")),
        Err(e) => Err(format!("node.fence_command {program} failed ({e})")),
    }
}

/// The beginning of what a command prints; the rest is read, so that it goes on, and dropped.
async fn beginning(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut from) = from {
        let _ = (&mut from).take(SHOWN_MAX_BYTES).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
    kept
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
        assert_eq!(long.len() as u64, SHOWN_MAX_BYTES);
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_no_word() {
        let hung = fence_within(&shell("sleep 600"), "home", Duration::from_secs(1)).await.unwrap_err();
        assert!(hung.contains("did not end within 1 s, and was killed"), "{hung}");
    }
}

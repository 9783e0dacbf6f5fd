//! The programs of the bed: whether they are here, and how they are run.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// What has to be in PATH.
const PROGRAMS: [&str; 9] =
    ["postfix", "unbound", "ldns-keygen", "ldns-signzone", "openssl", "swaks", "msmtp", "curl", "python3"];

/// What is missing here for the bed, in words; None if nothing is.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("other mail servers are started by root alone".to_owned());
    }
    let exim = if exim().is_none() { vec!["exim4"] } else { Vec::new() };
    not_installed(&[absent(&PROGRAMS), exim].concat())
}

/// Says which of these programs are not here, in words; None if all are.
pub fn without(programs: &[&'static str]) -> Option<String> {
    not_installed(&absent(programs))
}

fn absent(programs: &[&'static str]) -> Vec<&'static str> {
    programs.iter().copied().filter(|program| in_path(program).is_none()).collect()
}

fn not_installed(missing: &[&str]) -> Option<String> {
    (!missing.is_empty()).then(|| format!("not installed: {}; .ci/prepare does that", missing.join(", ")))
}

/// Exim: the machine's, or the one that `.ci/prepare` unpacked, as Debian installs one mail server at a time.
pub fn exim() -> Option<PathBuf> {
    let target = mailraft_chaos::cluster::binary();
    let unpacked = target.ancestors().nth(2).map(|target| target.join("exim").join("usr/sbin/exim4"));
    in_path("exim4").or(unpacked.filter(|path| path.exists()))
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(program)).find(|path| path.exists())
}

/// A program of the bed, to be given arguments.
pub fn program(name: &str) -> Command {
    Command::new(in_path(name).unwrap_or_else(|| PathBuf::from(name)))
}

/// Runs a command to its end.
///
/// # Panics
/// If it fails.
pub fn done(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&stderr));
    said
}

/// A process in the foreground; killed when dropped.
pub struct Running(Child);

impl Running {
    /// Starts it; what it says goes to a file.
    pub fn start(command: &mut Command, says: &Path) -> Self {
        let file = std::fs::File::create(says).unwrap();
        let errors = file.try_clone().unwrap();
        Running(command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn().unwrap())
    }

    /// SIGHUP.
    pub fn reload(&self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes the user own what is there.
pub fn give(user: &str, path: &Path) {
    done(Command::new("chown").args([OsStr::new("-R"), OsStr::new(user), path.as_os_str()]));
}

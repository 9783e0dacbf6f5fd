//! A wall clock that a test sets while processes run: they read it through Debian's libfaketime. The time since the machine booted
//! goes on as it is.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where Debian puts the library, by the machine's architecture.
const LIBRARIES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];

/// The clock of the processes that are started by it.
pub struct SetClock {
    file: PathBuf,
    library: &'static str,
}

impl SetClock {
    /// The machine's time, until it is set; what it is stands in a file of this directory.
    ///
    /// # Errors
    /// If libfaketime is not installed, or the file can't be written.
    pub fn in_dir(dir: &Path) -> io::Result<Self> {
        let library = LIBRARIES.into_iter().find(|path| Path::new(path).exists());
        let missing =
            || io::Error::other("libfaketime is not here: install the package libfaketime, as .ci/prepare does");
        let clock = SetClock { file: dir.join("clock"), library: library.ok_or_else(missing)? };
        clock.set(machine_unix_s())?;
        Ok(clock)
    }

    /// Sets it, in seconds since 1970; it goes on from there.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn set(&self, unix_s: u64) -> io::Result<()> {
        let ahead = i128::from(unix_s) - i128::from(machine_unix_s());
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{ahead:+}\n"))?;
        std::fs::rename(new, &self.file)
    }

    /// A process that is started by this has it.
    pub fn goes_for(&self, program: &mut Command) {
        program
            .env("LD_PRELOAD", self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

/// The machine's time, in seconds since 1970.
pub fn machine_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

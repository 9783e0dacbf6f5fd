//! A disk that hangs while the process that writes to it lives, as behind a controller or a network path that answers no more:
//! what makes files durable does not return, for as long as a test wants it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What stands before libc's functions in such a process.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static void wait_for_disk(void) {
    const char *hangs = getenv("MAILRAFT_DISK_HANGS");
    while (hangs && access(hangs, F_OK) == 0) usleep(10000);
}
int fsync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_for_disk();
    return real(fd);
}
int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_for_disk();
    return real(fd);
}
"#;

/// The disk of the processes that are started on it.
pub struct HungDisk {
    library: PathBuf,
    hangs: PathBuf,
}

impl HungDisk {
    /// One that is well; what it needs is made in this directory, by the C compiler that RocksDB was built by.
    ///
    /// # Errors
    /// If that fails.
    pub fn in_dir(dir: &Path) -> io::Result<Self> {
        let (source, library) = (dir.join("hung_disk.c"), dir.join("hung_disk.so"));
        std::fs::write(&source, SHIM)?;
        let run =
            Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").output()?;
        if !run.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&run.stderr).into_owned()));
        }
        Ok(HungDisk { library, hangs: dir.join("hangs") })
    }

    /// A process that is started by this writes to it.
    pub fn is_under(&self, program: &mut Command) {
        program.env("LD_PRELOAD", &self.library).env("MAILRAFT_DISK_HANGS", &self.hangs);
    }

    /// From now on it makes nothing durable.
    ///
    /// # Errors
    /// If the file that says so can't be written.
    pub fn hang(&self) -> io::Result<()> {
        std::fs::write(&self.hangs, "")
    }

    /// It goes on where it stood.
    ///
    /// # Errors
    /// If the file that says so can't be removed.
    pub fn go_on(&self) -> io::Result<()> {
        std::fs::remove_file(&self.hangs)
    }
}

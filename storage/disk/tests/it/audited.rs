//! The calls by which RocksDB writes to the disk, taken over in this test's process: the linker takes a function of the
//! program before the C library's. Each tells [`power`](crate::power) what is done to files under the directory that it
//! watches, and does as that says; for all other files each is the system call of its name and nothing else.
//!
//! The one place of the tests with `unsafe`: pointers that come from C are made slices and paths, with the lengths that
//! the callers state for the system call itself.
#![allow(unsafe_code, missing_docs)]

use std::ffi::{CStr, OsStr, c_char, c_int, c_long, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::power::{self, Call, Verdict};

/// # Safety
/// As write(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, data: *const c_void, len: usize) -> isize {
    if power::is_on() && power::watches(fd) {
        let at = unsafe { libc::syscall(libc::SYS_lseek, fd, 0 as c_long, libc::SEEK_CUR) };
        let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) };
        if let Verdict::Fail(errno) = power::calls(fd, Call::Write { at: at.max(0) as usize, bytes }) {
            return fails(errno) as isize;
        }
    }
    unsafe { libc::syscall(libc::SYS_write, fd, data, len) as isize }
}

/// # Safety
/// As pwrite(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite(fd: c_int, data: *const c_void, len: usize, at: i64) -> isize {
    if power::is_on() && power::watches(fd) {
        let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) };
        if let Verdict::Fail(errno) = power::calls(fd, Call::Write { at: at.max(0) as usize, bytes }) {
            return fails(errno) as isize;
        }
    }
    unsafe { libc::syscall(libc::SYS_pwrite64, fd, data, len, at) as isize }
}

/// # Safety
/// As ftruncate(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate(fd: c_int, len: i64) -> c_int {
    if power::is_on()
        && power::watches(fd)
        && let Verdict::Fail(errno) = power::calls(fd, Call::Truncate(len.max(0) as usize))
    {
        return fails(errno);
    }
    unsafe { libc::syscall(libc::SYS_ftruncate, fd, len) as c_int }
}

/// # Safety
/// As fsync(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fsync)
}

/// # Safety
/// As fdatasync(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fdatasync)
}

/// # Safety
/// As open(2); the mode is there whenever it counts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) as c_int };
    if power::is_on() && fd >= 0 {
        power::opened(fd, path_of(&path), flags & libc::O_TRUNC != 0, flags & libc::O_CREAT != 0);
    }
    fd
}

/// # Safety
/// As close(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    if power::is_on() {
        power::closed(fd);
    }
    unsafe { libc::syscall(libc::SYS_close, fd) as c_int }
}

/// # Safety
/// As rename(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    if power::is_on()
        && let Verdict::Fail(errno) = power::renames(path_of(&from), path_of(&to))
    {
        return fails(errno);
    }
    unsafe { libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) as c_int }
}

/// # Safety
/// As unlink(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    if power::is_on()
        && let Verdict::Fail(errno) = power::unlinks(path_of(&path))
    {
        return fails(errno);
    }
    unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) as c_int }
}

fn sync(fd: c_int, call: c_long) -> c_int {
    if power::is_on() && power::watches(fd) {
        // Nothing goes to the real disk: what a power cut leaves is made of what is known here.
        return match power::calls(fd, Call::Sync) {
            Verdict::Fail(errno) => fails(errno),
            Verdict::Do => 0,
        };
    }
    unsafe { libc::syscall(call, fd) as c_int }
}

fn fails(errno: c_int) -> c_int {
    unsafe { *libc::__errno_location() = errno };
    -1
}

fn path_of(path: &*const c_char) -> &Path {
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(*path) }.to_bytes()))
}

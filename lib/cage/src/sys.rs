//! The system calls that nix does not have
#![allow(unsafe_code)]
use nix::{errno::Errno, sys::signal::SigSet};
use std::{
    ffi::CStr,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    ptr,
    time::{SystemTime, UNIX_EPOCH},
};

/// Signals from the agent to the supervisor; each carries a number. They are real-time signals: none is lost by another.
pub(crate) const SIG_KILL_GRACE: i32 = 36;
pub(crate) const SIG_FORWARD: i32 = 37;
pub(crate) const SIG_READ_STDOUT: i32 = 38;
pub(crate) const SIG_READ_STDERR: i32 = 39;

/// The part of `siginfo_t` that a queued signal fills, in the kernel's layout for 64-bit machines
#[repr(C)]
struct QueuedSignal {
    signo: i32,
    errno: i32,
    code: i32,
    pad: i32,
    pid: i32,
    uid: u32,
    value: u64,
    rest: [u64; 12],
}

/// Opens a process for waiting and signalling without a race over its number
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and returns a new descriptor or an error.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Queues a signal with a number to the process
pub(crate) fn pidfd_queue(pidfd: impl AsFd, signal: i32, value: u64) -> io::Result<()> {
    const _: () = assert!(size_of::<QueuedSignal>() == 128);
    let info = QueuedSignal {
        signo: signal,
        errno: 0,
        code: libc::SI_QUEUE,
        pad: 0,
        pid: std::process::id() as i32,
        uid: nix::unistd::getuid().as_raw(),
        value,
        rest: [0; 12],
    };
    // SAFETY: `info` has the size and layout of the kernel's siginfo_t and outlives the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, &raw const info, 0) })?;
    Ok(())
}

/// Kills the process
pub(crate) fn pidfd_kill(pidfd: impl AsFd) -> io::Result<()> {
    // SAFETY: a null siginfo is allowed and means a plain signal.
    Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), libc::SIGKILL, 0usize, 0) })?;
    Ok(())
}

/// Closes every descriptor from `first` on; an old kernel that cannot leaves them, all being close-on-exec
pub(crate) fn close_from(first: i32) {
    // SAFETY: the supervisor calls this before it has opened anything of its own.
    unsafe { libc::syscall(libc::SYS_close_range, first, i32::MAX, 0) };
}

/// Puts every ordinary signal back to its default action except SIGPIPE, which is ignored
pub(crate) fn default_signals() {
    /// `struct sigaction` as the kernel has it: handler, flags, restorer, mask
    type Action = [u64; 4];
    const DEFAULT: Action = [libc::SIG_DFL as u64, 0, 0, 0];
    const IGNORE: Action = [libc::SIG_IGN as u64, 0, 0, 0];
    // Up to 33, past the C library, which refuses to touch its own two and whose `posix_spawn` leaves them ignored.
    for signal in 1..=33 {
        let action = if signal == libc::SIGPIPE { &IGNORE } else { &DEFAULT };
        // SAFETY: the struct is as large as the kernel's; no handler is given; KILL and STOP are refused, harmlessly.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, ptr::from_ref(action), 0usize, 8usize) };
    }
}

/// Waits until a descriptor is ready or the time is over; negative means for ever
pub(crate) fn poll(fds: &mut [libc::pollfd], timeout_ms: i32) {
    // SAFETY: pointer and length are those of the slice. An interrupted wait leaves no events, and the caller looks again.
    if unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) } < 0 {
        fds.iter_mut().for_each(|f| f.revents = 0);
    }
}

/// What a descriptor is ready for right now
pub(crate) fn poll_now(fd: i32, events: i16) -> i16 {
    let mut fds = [libc::pollfd { fd, events, revents: 0 }];
    poll(&mut fds, 0);
    fds[0].revents
}

/// Reads an extended attribute of up to 64 bytes
pub(crate) fn attribute(path: &CStr, name: &CStr) -> Option<Vec<u8>> {
    let mut value = vec![0; 64];
    // SAFETY: both names end in NUL, and the length given is that of the buffer.
    let length = Errno::result(unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) }).ok()?;
    value.truncate(length as usize);
    Some(value)
}

/// A set of signals, real-time ones among them
pub(crate) fn signal_set(signals: &[i32]) -> SigSet {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the set is initialised by the first call, and every number given is a signal.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        SigSet::from_sigset_t_unchecked(set.assume_init())
    }
}

/// What `wait4` said
pub(crate) enum Waited {
    /// A child died: its number, raw status, and processor time in microseconds
    Died { pid: i32, status: i32, cpu_us: u64 },
    /// Children are there and live
    Living,
    /// There is no child left
    Childless,
}

/// Reaps one dead child, if there is one
pub(crate) fn reap_any() -> Waited {
    let mut status = 0;
    // SAFETY: rusage is plain integers, for which all zeroes are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live locals.
        let pid = unsafe { libc::wait4(-1, &mut status, libc::WNOHANG | libc::__WALL, &mut usage) };
        return match pid {
            0 => Waited::Living,
            -1 if Errno::last() == Errno::EINTR => continue,
            -1 => Waited::Childless,
            _ => Waited::Died { pid, status, cpu_us: micros(usage.ru_utime) + micros(usage.ru_stime) },
        };
    }
}

/// Waits for a child of ours by number; an error means it is not ours
pub(crate) fn wait_pid(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live local.
        match Errno::result(unsafe { libc::waitpid(pid, &mut status, 0) }) {
            Ok(_) => return Ok(status),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Milliseconds of a clock that only goes forward and also counts while the machine sleeps
pub(crate) fn boot_ms() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).expect("every kernel we run on has this clock");
    time.tv_sec() as u64 * 1000 + time.tv_nsec() as u64 / 1_000_000
}

/// Unix time in milliseconds
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

fn micros(time: libc::timeval) -> u64 {
    time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64
}

/// Takes charge of a descriptor that a call has just returned
pub(crate) fn own(fd: i32) -> OwnedFd {
    // SAFETY: callers pass what the kernel has just given them, which nobody else closes.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

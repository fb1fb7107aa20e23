//! How the task comes into being: a child that shares our memory until it executes the command
//!
//! A fork would copy page tables and fault on every page both sides touch. This clone borrows our memory, and
//! we stand still until it has executed or given up (as `posix_spawn` does inside). So the child may call the
//! kernel and write to its own [`Birth`], and nothing else: no allocation, no lock, no unwinding.
#![allow(unsafe_code)]
use crate::spec::{OOM_SCORE_MAX, Order};
use nix::errno::Errno;
use std::{
    ffi::{CStr, c_char, c_int, c_void},
    mem::MaybeUninit,
    os::fd::RawFd,
    ptr,
};

const STACK_BYTES: usize = 32 << 10;
/// The supervisor's own standard error is `/dev/null`, open for both ways
const NULL_FD: RawFd = 2;

/// What was being done when a birth failed
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Stage {
    Clone = 0,
    Parent,
    Cgroup,
    Files,
    Limits,
    User,
    Directory,
    Exec,
    Born,
}

impl Stage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stage::Clone => "clone",
            Stage::Parent => "parent",
            Stage::Cgroup => "cgroup",
            Stage::Files => "files",
            Stage::Limits => "limits",
            Stage::User => "user",
            Stage::Directory => "directory",
            Stage::Exec => "exec",
            Stage::Born => "born",
        }
    }
}

/// The task's standard descriptors; a missing one is `/dev/null`
pub(crate) struct Standard {
    pub stdin: Option<RawFd>,
    pub stdout: RawFd,
    pub stderr: RawFd,
}

/// Everything the child needs, laid out beforehand, and what became of it
struct Birth {
    supervisor: libc::pid_t,
    stdin: RawFd,
    stdout: RawFd,
    stderr: RawFd,
    /// `tasks` and `cgroup.procs` files to write ourselves into; ends with null
    joins: *const *const c_char,
    user: Option<(u32, u32)>,
    nofile: Option<u64>,
    core: Option<u64>,
    data: Option<u64>,
    oom_score: Option<u64>,
    cwd: *const c_char,
    candidates: *const *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    stage: Stage,
    errno: c_int,
}

/// Starts the command of the order
///
/// # Errors
/// The stage that failed and the kernel's answer. The child that failed is dead and reaped.
pub(crate) fn start(order: &Order<'_>, standard: &Standard) -> Result<i32, (Stage, i32)> {
    let unified = match order.unified {
        Some(dir) => Some(nix::fcntl::open(dir, nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty()).map_err(|e| (Stage::Cgroup, e as i32))?),
        None => None,
    };
    if let Some(dir) = &unified {
        match attempt(order, standard, Some(std::os::fd::AsRawFd::as_raw_fd(dir))) {
            // The kernel kills a child at once that is born into a cgroup while its parent's own has been killed once. And older
            // kernels and strict sandboxes do not know this way of being born. Joining afterwards works for all.
            Err((Stage::Clone, _)) => {}
            answer => return answer,
        }
    }
    attempt(order, standard, None)
}

fn attempt(order: &Order<'_>, standard: &Standard, into: Option<RawFd>) -> Result<i32, (Stage, i32)> {
    let joins = join_files(order, into.is_none());
    let join_pointers = pointers(joins.split_inclusive(|b| *b == 0).map(|f| f.as_ptr().cast()));
    let candidates = order.candidates();
    let candidate_pointers = pointers(candidates.split_inclusive(|b| *b == 0).map(|f| f.as_ptr().cast()));
    let argv = pointers(order.argv.iter().map(|a| a.as_ptr()));
    let envp = pointers(order.env.iter().map(|e| e.as_ptr()));
    let mut birth = Birth {
        supervisor: std::process::id() as libc::pid_t,
        stdin: standard.stdin.unwrap_or(NULL_FD),
        stdout: standard.stdout,
        stderr: standard.stderr,
        joins: join_pointers.as_ptr(),
        user: order.user,
        nofile: order.rlimit_nofile,
        core: order.rlimit_core,
        data: order.rlimit_data,
        oom_score: order.oom_score,
        cwd: order.cwd.as_ptr(),
        candidates: candidate_pointers.as_ptr(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        stage: Stage::Clone,
        errno: 0,
    };
    let mut stack = MaybeUninit::<Stack>::uninit();
    // SAFETY: everything `birth` points to lives until this function returns, and CLONE_VFORK holds us in the call
    // until the child no longer uses it or the stack.
    let pid = unsafe { clone(&raw mut birth, stack.as_mut_ptr(), into) };
    if pid < 0 {
        return Err((Stage::Clone, -pid as i32));
    }
    // SAFETY: the child wrote here behind the compiler's back; it has ended or executed.
    let (stage, errno) = unsafe { (ptr::read_volatile(&raw const birth.stage), ptr::read_volatile(&raw const birth.errno)) };
    if stage == Stage::Born {
        return Ok(pid as i32);
    }
    let status = crate::sys::wait_pid(pid as i32).unwrap_or(0);
    if errno == 0 && libc::WIFSIGNALED(status) {
        // Killed on the way, by the kernel if at the very start.
        return Err((if stage == Stage::Clone { Stage::Clone } else { stage }, libc::EINTR));
    }
    Err((stage, errno))
}

/// The files to write `0` into, NUL-terminated one after the other
fn join_files(order: &Order<'_>, with_unified: bool) -> Vec<u8> {
    let mut files = Vec::with_capacity(256);
    let mut add = |dir: &CStr, name: &[u8]| {
        files.extend_from_slice(dir.to_bytes());
        files.extend_from_slice(name);
    };
    for dir in &order.v1 {
        // `tasks` moves one thread and so takes no machine-wide lock, which `cgroup.procs` does.
        add(dir, b"/tasks\0");
    }
    if let Some(dir) = order.unified.filter(|_| with_unified) {
        add(dir, b"/cgroup.procs\0");
    }
    files
}

fn pointers(list: impl Iterator<Item = *const c_char>) -> Vec<*const c_char> {
    list.chain([ptr::null()]).collect()
}

#[repr(C, align(16))]
struct Stack([u8; STACK_BYTES]);

/// The child; runs on its own stack in our memory
extern "C" fn child(arg: *mut c_void) -> c_int {
    let birth: *mut Birth = arg.cast();
    // SAFETY: the pointer is to the parent's `Birth`; the parent stands still, so we are its only user. `_exit` runs nothing of ours.
    unsafe {
        let errno = be_born(birth);
        (*birth).errno = errno;
        libc::_exit(127)
    }
}

/// Does each step of becoming the task; returns only if one fails, with the error
///
/// # Safety
/// To be called in the child alone. Only kernel calls and writes to `birth` are allowed here.
unsafe fn be_born(birth: *mut Birth) -> c_int {
    // SAFETY: as above; every pointer in `birth` is to a NUL-terminated string or a null-terminated list.
    unsafe {
        let b = &mut *birth;
        b.stage = Stage::Parent;
        libc::setsid();
        b.stage = Stage::Cgroup;
        let mut join = b.joins;
        while !(*join).is_null() {
            if !write_to(*join, b"0") {
                return errno();
            }
            join = join.add(1);
        }
        b.stage = Stage::Files;
        if libc::dup2(b.stdin, 0) < 0 || libc::dup2(b.stdout, 1) < 0 || libc::dup2(b.stderr, 2) < 0 {
            return errno();
        }
        b.stage = Stage::Limits;
        if let Some(score) = b.oom_score {
            let text: &[u8] = if score == OOM_SCORE_MAX { b"1000" } else { b"0" };
            if !write_to(c"/proc/self/oom_score_adj".as_ptr(), text) {
                return errno();
            }
        }
        if !limit(libc::RLIMIT_NOFILE as c_int, b.nofile) || !limit(libc::RLIMIT_CORE as c_int, b.core) || !limit(libc::RLIMIT_DATA as c_int, b.data) {
            return errno();
        }
        if let Some((uid, gid)) = b.user {
            b.stage = Stage::User;
            // Bare calls: the C library's would tell the other threads of what it takes for its own process.
            let none: *const libc::gid_t = ptr::null();
            if libc::syscall(libc::SYS_setgroups, 0usize, none) < 0
                || libc::syscall(libc::SYS_setresgid, gid, gid, gid) < 0
                || libc::syscall(libc::SYS_setresuid, uid, uid, uid) < 0
                || libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1usize, 0usize, 0usize, 0usize) < 0
            {
                return errno();
            }
        }
        // After the change of user, which would clear it.
        b.stage = Stage::Parent;
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as usize, 0usize, 0usize, 0usize) < 0 {
            return errno();
        }
        if libc::syscall(libc::SYS_getppid) != libc::c_long::from(b.supervisor) {
            return libc::ESRCH;
        }
        b.stage = Stage::Directory;
        if libc::chdir(b.cwd) < 0 {
            return errno();
        }
        libc::umask(0o022);
        b.stage = Stage::Exec;
        let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(mask.as_mut_ptr());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_SETMASK, mask.as_ptr(), ptr::null_mut());
        // From here the parent, whom we hold up, may take the command as running; a failure takes that back.
        b.stage = Stage::Born;
        let (mut worst, mut candidate) = (libc::ENOENT, b.candidates);
        while !(*candidate).is_null() {
            libc::execve(*candidate, b.argv, b.envp);
            match errno() {
                // Not here: look on.
                libc::ENOENT | libc::ENOTDIR => {}
                // Here but not for us: look on, and say so in the end.
                libc::EACCES => worst = libc::EACCES,
                other => {
                    worst = other;
                    break;
                }
            }
            candidate = candidate.add(1);
        }
        b.stage = Stage::Exec;
        worst
    }
}

/// # Safety
/// `path` is NUL-terminated. Calls the kernel only.
unsafe fn write_to(path: *const c_char, text: &[u8]) -> bool {
    // SAFETY: as said; the buffer's own length is given.
    unsafe {
        let fd = libc::open(path, libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return false;
        }
        let is_written = libc::write(fd, text.as_ptr().cast(), text.len()) == text.len() as isize;
        let why = errno();
        libc::close(fd);
        *libc::__errno_location() = why;
        is_written
    }
}

/// Lowers or raises a limit as far as we may: never above the hard limit we were given ourselves
///
/// # Safety
/// Calls the kernel only.
unsafe fn limit(which: c_int, value: Option<u64>) -> bool {
    let Some(value) = value else { return true };
    // SAFETY: the structs are locals of the right type.
    unsafe {
        let mut now: libc::rlimit64 = std::mem::zeroed();
        if libc::syscall(libc::SYS_prlimit64, 0, which, ptr::null::<c_void>(), &raw mut now) < 0 {
            return false;
        }
        let value = value.min(now.rlim_max);
        let new = libc::rlimit64 { rlim_cur: value, rlim_max: value };
        libc::syscall(libc::SYS_prlimit64, 0, which, &raw const new, ptr::null_mut::<c_void>()) == 0
    }
}

fn errno() -> c_int {
    Errno::last_raw()
}

/// Makes the child; returns its number or a negated error
///
/// # Safety
/// `birth` and all it points to, and `stack`, must live until this returns.
unsafe fn clone(birth: *mut Birth, stack: *mut Stack, into: Option<RawFd>) -> isize {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK;
    let Some(cgroup) = into else {
        // SAFETY: the stack grows down from its end, which is aligned; the child never returns into ours.
        let pid = unsafe { libc::clone(child, stack.add(1).cast(), flags | libc::SIGCHLD, birth.cast()) };
        return if pid < 0 { -(errno() as isize) } else { pid as isize };
    };
    let args = CloneArgs {
        flags: flags as u64 | CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack as u64,
        stack_size: STACK_BYTES as u64,
        cgroup: cgroup as u64,
        ..CloneArgs::default()
    };
    // SAFETY: as above.
    unsafe { clone3(&args, birth) }
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of the kernel
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// # Safety
/// As for `clone`. The C library offers no clone3, and a child on another stack cannot return from a wrapper.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: &CloneArgs, birth: *mut Birth) -> isize {
    let mut answer = libc::SYS_clone3 as isize;
    // SAFETY: in the parent this is one system call. The child wakes on its own stack and never leaves `child`.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") answer,
            in("rdi") ptr::from_ref(args),
            in("rsi") size_of::<CloneArgs>(),
            in("r12") birth,
            in("r13") child as extern "C" fn(*mut c_void) -> c_int,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    answer
}

/// # Safety
/// As for `clone`.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(args: &CloneArgs, birth: *mut Birth) -> isize {
    let answer: isize;
    // SAFETY: as on the other architecture.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            inlateout("x0") ptr::from_ref(args) => answer,
            in("x1") size_of::<CloneArgs>(),
            in("x8") libc::SYS_clone3,
            in("x20") birth,
            in("x21") child as extern "C" fn(*mut c_void) -> c_int,
        );
    }
    answer
}

/// Elsewhere the child joins by `cgroup.procs`.
///
/// # Safety
/// None needed.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone3(_args: &CloneArgs, _birth: *mut Birth) -> isize {
    -(libc::ENOSYS as isize)
}

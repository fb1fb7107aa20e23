//! Real tasks under real supervisors, with cgroups where the machine lets us and without
//!
//! Each test runs twice, once with and once without. It wants the example program `supervisor`, which cargo
//! builds beside the tests.
mod world;
use meso_cage::{CageError, Recovered, Stream, Why};
use std::{
    fs,
    io::Write,
    time::{Duration, Instant},
};
use world::{World, alive, both_ways, patiently};

/// The cage finds the kind of cgroups this machine has, and says so when it may not use them
#[test]
fn isolation_is_as_the_machine_has_it() {
    let world = World::new(meso_cage::CgroupUse::Auto);
    let is_there = |path: &str| std::path::Path::new(path).exists();
    let expected = if !meso_cage::machine::privileged() {
        "processes"
    } else if is_there("/sys/fs/cgroup/cgroup.controllers") {
        "cgroups-v2"
    } else if is_there("/sys/fs/cgroup/unified/cgroup.kill") || is_there("/sys/fs/cgroup/unified/cgroup.procs") {
        "cgroups-hybrid"
    } else {
        return;
    };
    assert_eq!(world.cage.isolation(), expected, "{:?}", world.cage.notices());
    assert_eq!(world.cage.notices().is_empty(), expected != "processes", "{:?}", world.cage.notices());
}

/// The code a command returns is the code recorded, with its time and no signal
#[test]
fn exit_codes_are_kept() {
    both_ways(|world| {
        for code in [0, 1, 3, 123, 124, 126, 127, 128, 255] {
            let exit = world.run(&format!("c{code}"), &["sh", "-c", &format!("exit {code}")]);
            assert_eq!((exit.code, exit.signal, &exit.why), (Some(code), None, &Why::Exited), "{exit:?}");
            assert!(exit.started_ms > 1_600_000_000_000 && exit.ended_ms >= exit.started_ms && !exit.stuck);
        }
    });
}

/// A task that dies by a signal is recorded with that signal, and SIGPIPE is one of them
#[test]
fn signals_are_kept() {
    both_ways(|world| {
        for signal in [1, 2, 9, 13, 15] {
            let exit = world.run(&format!("s{signal}"), &["sh", "-c", &format!("kill -{signal} $$")]);
            assert_eq!((exit.code, exit.signal, &exit.why), (None, Some(signal), &Why::Exited), "{exit:?}");
        }
        let exit = world.run("pipe", &["sh", "-c", "yes | head -1 >/dev/null; exit 7"]);
        assert_eq!(exit.code, Some(7));
        assert_eq!(exit.stderr_bytes, 0, "yes dies in silence, as SIGPIPE has its default action");
    });
}

/// A task starts with an empty signal mask and nothing ignored, in its own session, with three descriptors
#[test]
fn task_starts_clean() {
    both_ways(|world| {
        let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd | wc -l; cut -d' ' -f5,6 /proc/$$/stat; echo $$; umask; cat";
        let (exit, out) = world.run_out("clean", &["sh", "-c", script]);
        assert_eq!(exit.code, Some(0));
        let text = String::from_utf8(out).expect("plain text");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("0000000000000000") && lines[1].ends_with("0000000000000000"), "{text}");
        // Three of its own and the directory it lists.
        assert_eq!(lines[2].trim(), "4", "{text}");
        assert_eq!(lines[3], format!("{0} {0}", lines[4]), "group and session are the task's own: {text}");
        assert_eq!(lines[5], "0022");
    });
}

/// A command that is not there, is no program, or may not be run is told from one that fails
#[test]
fn launch_errors_are_told() {
    both_ways(|world| {
        let text = world.path("text");
        fs::write(&text, "no program").expect("the directory is ours");
        let text = text.to_str().expect("a plain path").to_owned();
        let mut spec = world.spec("cwd", &["true"]);
        spec.cwd = "/does/not/exist".into();
        let cases = [
            (world.spec("enoent", &["no-such-command-anywhere"]), "exec", libc::ENOENT),
            (world.spec("slash", &["/no/such/command"]), "exec", libc::ENOENT),
            (world.spec("eacces", &[&text]), "exec", libc::EACCES),
            (world.spec("dir", &["/tmp"]), "exec", libc::EACCES),
            (spec, "directory", libc::ENOENT),
        ];
        for (spec, at, number) in cases {
            let exit = world.finish(world.launch(&spec));
            assert!(matches!(&exit.why, Why::LaunchError { stage, errno, text } if stage == at && *errno == number && !text.is_empty()), "{}: {exit:?}", spec.id);
        }
        fs::set_permissions(&text, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("the file is ours");
        let exit = world.run("enoexec", &[&text]);
        assert!(matches!(exit.why, Why::LaunchError { errno: libc::ENOEXEC, .. }), "{exit:?}");
    });
}

/// A name without a slash is found in the task's own PATH, not in ours
#[test]
fn path_is_the_tasks_own() {
    both_ways(|world| {
        let bin = world.path("bin");
        fs::create_dir_all(&bin).expect("the directory is ours");
        std::os::unix::fs::symlink("/bin/echo", bin.join("a-command-of-ours")).expect("the directory is ours");
        let mut spec = world.spec("found", &["a-command-of-ours", "hello"]);
        spec.env = vec![("PATH".into(), format!("/nowhere:{}", bin.display()))];
        assert_eq!(world.finish(world.launch(&spec)).code, Some(0));
        assert_eq!(world.read("found", Stream::Stdout), b"hello\n");
    });
}

/// A task that prints and ends at once loses no byte, time after time
#[test]
fn short_output_is_whole() {
    both_ways(|world| {
        for n in 0..200 {
            let id = format!("p{n}");
            let (exit, out) = world.run_out(&id, &["echo", &id]);
            assert_eq!((exit.code, String::from_utf8_lossy(&out).as_ref()), (Some(0), format!("{id}\n").as_str()));
            assert_eq!(exit.stdout_bytes, id.len() as u64 + 1);
            world.cage.remove(&id).expect("it has ended");
        }
    });
}

/// 100 MB come out byte for byte, on both streams, unmerged
#[test]
fn large_output_is_whole() {
    let mut expected = Vec::new();
    for n in 1..=13_000_000 {
        writeln!(expected, "{n}").expect("memory takes all");
    }
    both_ways(|world| {
        let mut spec = world.spec("large", &["sh", "-c", "seq 1 13000000; seq 1 1000 >&2"]);
        spec.log_cap_bytes = 1 << 30;
        let exit = world.finish(world.launch(&spec));
        assert!(exit.stdout_bytes > 100_000_000 && exit.stdout_dropped_bytes == 0, "{exit:?}");
        let mut at = 0;
        world.each_chunk("large", Stream::Stdout, |bytes| {
            assert!(expected[at..].starts_with(bytes), "wrong somewhere in the {} bytes from {at} on", bytes.len());
            at += bytes.len();
        });
        assert_eq!(at, expected.len());
        assert_eq!(world.read("large", Stream::Stderr).iter().filter(|b| **b == b'\n').count(), 1000);
    });
}

/// A full log loses its oldest part, the newest is kept, and what is gone is counted
#[test]
fn rotation_keeps_the_newest() {
    both_ways(|world| {
        let mut spec = world.spec("rotate", &["seq", "1", "200000"]);
        spec.log_cap_bytes = 100_000;
        let exit = world.finish(world.launch(&spec));
        assert_eq!(exit.code, Some(0));
        let kept = exit.stdout_bytes - exit.stdout_dropped_bytes;
        assert!(kept <= 100_000 && kept > 70_000, "{exit:?}");
        let mut reader = world.cage.output("rotate", Stream::Stdout).expect("it is there");
        let first = reader.read_at(0, 1 << 20).expect("readable");
        assert_eq!(first.offset, exit.stdout_dropped_bytes, "the reader is moved on to what is kept");
        let text = String::from_utf8(world.read("rotate", Stream::Stdout)).expect("digits");
        assert!(text.ends_with("199999\n200000\n") && text.len() as u64 == kept);
    });
}

/// A task waits for the reader of its output when the log is full, and goes on as he does; nothing is lost to him
#[test]
fn attached_task_waits_for_its_reader() {
    both_ways(|world| {
        let mut spec = world.spec("attached", &["seq", "1", "300000"]);
        spec.log_cap_bytes = 100_000;
        spec.attached = true;
        let container = world.launch(&spec);
        std::thread::sleep(Duration::from_millis(300));
        assert!(container.exit().expect("readable").is_none(), "it must be waiting: two megabytes do not fit");
        let mut reader = world.cage.output("attached", Stream::Stdout).expect("it is there");
        let watch = world.cage.watch("attached").expect("it is there");
        let (mut offset, mut text) = (0, Vec::new());
        loop {
            let chunk = reader.read_at(offset, 10_000).expect("readable");
            assert_eq!(chunk.offset, offset, "nothing may be missing for a reader who keeps up");
            offset += chunk.bytes.len() as u64;
            text.extend_from_slice(&chunk.bytes);
            if chunk.end {
                break;
            }
            if chunk.bytes.is_empty() {
                world::wait_readable(&watch, 10_000);
                watch.clear().expect("readable");
            } else {
                let _ = container.reader_at(Stream::Stdout, offset);
            }
        }
        assert!(text.ends_with(b"\n300000\n") && text.iter().filter(|b| **b == b'\n').count() == 300_000);
        assert_eq!(world.finish(container).code, Some(0));
    });
}

/// A reader who comes late still gets all that did not fit into the log when the task ended
#[test]
fn end_of_a_task_costs_its_reader_nothing() {
    both_ways(|world| {
        let mut spec = world.spec("tail", &["seq", "1", "10000"]);
        (spec.log_cap_bytes, spec.attached) = (20_000, true);
        let exit = world.finish(world.launch(&spec));
        assert!(exit.stdout_bytes > 2 * spec.log_cap_bytes && exit.stdout_dropped_bytes == 0, "{exit:?}");
        let text = world.read("tail", Stream::Stdout);
        assert!(text.starts_with(b"1\n2\n") && text.len() as u64 == exit.stdout_bytes);
    });
}

/// A daemon that called setsid twice ends with its task, and so does what ignores SIGTERM
#[test]
fn nothing_survives_its_task() {
    both_ways(|world| {
        let script = "setsid setsid sh -c 'trap \"\" TERM HUP; echo $$ >daemon; sleep 1000' & while ! [ -s daemon ]; do sleep 0.01; done; exit 4";
        let exit = world.run("daemon", &["sh", "-c", script]);
        assert_eq!((exit.code, exit.stuck), (Some(4), false), "{exit:?}");
        let pid: i32 = fs::read_to_string(world.path("daemon")).expect("it wrote its number").trim().parse().expect("a number");
        assert!(!alive(pid), "the daemon {pid} must be gone when the end is recorded");
    });
}

/// A task that ignores SIGTERM has its grace, then dies with all it started; one that obeys may say its own code
#[test]
fn kill_has_a_grace() {
    both_ways(|world| {
        let container = world.start("stubborn", &["sh", "-c", "trap '' TERM; sleep 1000 & echo up; while :; do sleep 0.1; done"]);
        let begin = Instant::now();
        world.cage.kill("stubborn", 300).expect("it runs");
        let exit = world.finish(container);
        assert!(begin.elapsed() >= Duration::from_millis(300));
        assert_eq!((exit.signal, &exit.why), (Some(9), &Why::Killed), "{exit:?}");
        let container = world.start("polite", &["sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done"]);
        world.cage.kill("polite", 60_000).expect("it runs");
        let exit = world.finish(container);
        assert_eq!((exit.code, &exit.why), (Some(5), &Why::Killed), "{exit:?}");
        assert!(matches!(world.cage.kill("polite", 0), Err(CageError::Ended { .. })));
        assert!(matches!(world.cage.kill("unknown", 0), Err(CageError::NoContainer { .. })));
    });
}

/// A stopped task can be killed, and a kill right after the launch is not lost
#[test]
fn kill_reaches_everyone() {
    both_ways(|world| {
        let container = world.start("stopped", &["sh", "-c", "echo up; kill -STOP $$"]);
        std::thread::sleep(Duration::from_millis(50));
        world.cage.kill("stopped", 100).expect("it runs");
        assert_eq!(world.finish(container).why, Why::Killed);
        for n in 0..50 {
            let container = world.launch(&world.spec(&format!("early{n}"), &["sleep", "1000"]));
            container.kill(0).expect("it is there");
            assert_eq!(world.finish(container).why, Why::Killed);
        }
    });
}

/// Signals reach the task's whole process group
#[test]
fn signals_are_forwarded() {
    both_ways(|world| {
        let container = world.start("usr1", &["sh", "-c", "trap 'exit 6' USR1; echo up; while :; do sleep 0.01; done"]);
        world.cage.signal("usr1", libc::SIGUSR1).expect("it runs");
        let exit = world.finish(container);
        // The shell's own sleep may have died of the signal before the trap ran: that is what a group means.
        assert_eq!((exit.code, &exit.why), (Some(6), &Why::Exited), "{exit:?}");
    });
}

/// A task that runs too long is killed, and that is what the record says
#[test]
fn timeout_ends_a_task() {
    both_ways(|world| {
        let mut spec = world.spec("slow", &["sleep", "1000"]);
        (spec.timeout_ms, spec.kill_grace_ms) = (Some(200), 100);
        let exit = world.finish(world.launch(&spec));
        assert_eq!((exit.signal, exit.why), (Some(15), Why::Timeout));
        spec.id = "quick".into();
        spec.argv = vec!["true".into()];
        assert_eq!(world.finish(world.launch(&spec)).why, Why::Exited);
    });
}

/// Standard input arrives whole although the task reads slowly, a gap and a repetition do no harm, and the end is the end
#[test]
fn stdin_arrives_whole() {
    both_ways(|world| {
        let mut spec = world.spec("stdin", &["sh", "-c", "sleep 0.3; cat"]);
        spec.stdin = true;
        spec.log_cap_bytes = 64 << 20;
        let container = world.launch(&spec);
        let input: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 % 251) as u8).collect();
        world.feed("stdin", &input);
        let exit = world.finish(container);
        assert_eq!(exit.code, Some(0));
        assert!(world.read("stdin", Stream::Stdout) == input, "what went in must come out");
    });
}

/// What a sender sent last counts although it leaves at once, without a look at the replies
#[test]
fn stdin_of_a_sender_that_leaves() {
    both_ways(|world| {
        for round in 0..6 {
            let id = format!("hasty-{round}");
            let mut spec = world.spec(&id, &["cat"]);
            spec.stdin = true;
            let container = world.launch(&spec);
            let mut socket = None;
            patiently(|| {
                socket = world.cage.stdin(&id).ok();
                socket.is_some()
            });
            let socket = socket.expect("just seen");
            for offset in 0..5 {
                socket.send(offset, b"x").expect("there is room");
            }
            socket.send_eof(5).expect("there is room");
            drop(socket);
            let exit = world.finish(container);
            assert_eq!((exit.code, world.read(&id, Stream::Stdout)), (Some(0), b"xxxxx".to_vec()));
        }
    });
}

/// A task that closes its input ends its sender's work; one without input reads an empty one
#[test]
fn stdin_may_be_closed() {
    both_ways(|world| {
        let mut spec = world.spec("closed", &["sh", "-c", "exec <&-; sleep 0.5; exit 2"]);
        spec.stdin = true;
        let container = world.launch(&spec);
        assert!(world.feed("closed", &vec![1; 2_000_000]), "the sender is told");
        assert_eq!(world.finish(container).code, Some(2));
        let (exit, out) = world.run_out("null", &["cat"]);
        assert_eq!((exit.code, out.len()), (Some(0), 0));
    });
}

/// Two with the same id do not get in each other's way: the second is refused, the first goes on
#[test]
fn ids_are_taken_once() {
    both_ways(|world| {
        let container = world.start("same", &["sh", "-c", "echo up; sleep 0.3; exit 3"]);
        let refused = world.cage.launch(&world.spec("same", &["true"]));
        assert!(matches!(refused, Err(meso_cage::LaunchError::Exists { .. })));
        assert!(matches!(world.cage.remove("same"), Err(CageError::Busy { .. })), "what runs is not removed");
        assert_eq!(world.finish(container).code, Some(3));
        world.cage.remove("same").expect("it has ended");
        assert_eq!(world.run("same", &["true"]).code, Some(0));
    });
}

/// An agent that comes back finds what runs, and later its true end; what ended meanwhile is found ended
#[test]
fn agent_finds_its_containers_again() {
    both_ways(|world| {
        let running = world.start("running", &["sh", "-c", "echo up; while ! [ -e go ]; do sleep 0.01; done; exit 42"]);
        drop(world.start("ended", &["sh", "-c", "echo up; exit 7"]));
        let pid = running.pid();
        drop(running);
        let world2 = world.again();
        match world2.cage.recover("running").expect("it is there") {
            Recovered::Running(container) => {
                assert_eq!(container.pid(), pid);
                fs::write(world.path("go"), "").expect("the directory is ours");
                world::wait_readable(&container.pidfd(), 10_000);
            }
            other => panic!("{other:?}"),
        }
        for (id, code) in [("running", 42), ("ended", 7)] {
            patiently(|| matches!(world2.cage.recover(id), Ok(Recovered::Ended(exit)) if exit.code == Some(code)));
        }
        assert!(matches!(world2.cage.recover("never"), Err(CageError::NoContainer { .. })));
    });
}

/// A grace that has begun goes on without the agent
#[test]
fn kill_outlives_the_agent() {
    both_ways(|world| {
        let container = world.start("doomed", &["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"]);
        container.kill(200).expect("it runs");
        drop(container);
        let again = world.again();
        patiently(|| matches!(again.cage.recover("doomed"), Ok(Recovered::Ended(exit)) if exit.why == Why::Killed));
    });
}

/// When a supervisor is killed its container dies with it, wholly, and is reported lost, to however many ask
#[test]
fn lost_supervisor_takes_its_container_along() {
    both_ways(|world| {
        let script = "setsid sh -c 'echo $$ >orphan; sleep 1000' & while ! [ -s orphan ]; do sleep 0.01; done; echo up; sleep 1000";
        let container = world.start("lost", &["sh", "-c", script]);
        let task = container.task_pid().expect("it has started");
        let orphan: i32 = fs::read_to_string(world.path("orphan")).expect("it wrote its number").trim().parse().expect("a number");
        world::kill_hard(container.pid());
        world::wait_readable(&container.pidfd(), 10_000);
        world.reap(container);
        std::thread::scope(|scope| {
            let ask = || world.cage.recover("lost").expect("it is there");
            let (a, b) = (scope.spawn(ask), scope.spawn(ask));
            for answer in [a.join(), b.join()] {
                assert!(matches!(answer, Ok(Recovered::Lost)), "{answer:?}");
            }
        });
        patiently(|| !alive(task) && !alive(orphan));
        assert_eq!(world.read("lost", Stream::Stdout), b"up\n", "what it printed can be read, and has an end");
        world.cage.remove("lost").expect("nothing lives there");
    });
}

/// The number of a supervisor that died may be another's by now: its container is lost, and the other lives on
#[test]
fn a_number_of_another() {
    both_ways(|world| {
        let container = world.start("renumbered", &["sh", "-c", "echo up; sleep 1000"]);
        let task = container.task_pid().expect("it has started");
        world::kill_hard(container.pid());
        world::wait_readable(&container.pidfd(), 10_000);
        world.reap(container);
        let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().expect("it can be run");
        let number = stranger.id() as i32;
        let mut spec = fs::File::options().write(true).open(world.cage.dir("renumbered").expect("a good id").join("spec")).expect("it is there");
        // As a supervisor writes it: at the head, padded with blanks.
        spec.write_all(format!("{number:<31}").as_bytes()).expect("the directory is ours");
        let answer = world.cage.recover("renumbered");
        let is_spared = alive(number) && stranger.try_wait().expect("it is our child").is_none();
        stranger.kill().expect("it is our child");
        stranger.wait().expect("it is our child");
        assert!(matches!(answer, Ok(Recovered::Lost)), "{answer:?}");
        assert!(is_spared, "what has the number now was ended");
        patiently(|| !alive(task));
        world.cage.remove("renumbered").expect("nothing lives there");
    });
}

/// A supervisor that comes too late, when the agent has given the container up, starts nothing
#[test]
fn late_supervisor_refuses() {
    both_ways(|world| {
        let container = world.start("late", &["sh", "-c", "echo up; exit 0"]);
        world.finish(container);
        let dir = world.cage.dir("late").expect("a good id");
        fs::remove_file(dir.join("exit")).expect("it has ended");
        let held = fs::File::open(dir.join("spec")).expect("it is there");
        held.lock().expect("nobody lives there");
        let spec = fs::File::options().read(true).write(true).open(dir.join("spec")).expect("it is there");
        let status = std::process::Command::new(world::supervisor()).arg("late").current_dir(&dir).stdin(spec).status().expect("it can be run");
        assert!(!status.success() && !dir.join("exit").exists());
    });
}

/// A launch that was cut short is found never started, a spec of another boot is told as such
#[test]
fn half_launches_are_told() {
    both_ways(|world| {
        let dir = world.cage.dir("half").expect("a good id");
        fs::create_dir(&dir).expect("it is new");
        assert!(matches!(world.cage.recover("half"), Ok(Recovered::NeverStarted)));
        fs::write(dir.join("spec"), [b' '; 100]).expect("the directory is ours");
        assert!(matches!(world.cage.recover("half"), Ok(Recovered::NeverStarted)));
        world.finish(world.start("old", &["sh", "-c", "echo up"]));
        let dir = world.cage.dir("old").expect("a good id");
        fs::remove_file(dir.join("exit")).expect("it has ended");
        let spec = fs::read(dir.join("spec")).expect("it is there");
        let text = String::from_utf8_lossy(&spec).replace(&meso_cage::machine::boot_id().expect("a boot id"), "00000000-0000-0000-0000-000000000000");
        fs::write(dir.join("spec"), text.as_bytes()).expect("the directory is ours");
        assert!(matches!(world.cage.recover("old"), Ok(Recovered::Reboot)));
    });
}

/// What nobody knows is ended and removed, what is known stays
#[test]
fn orphans_are_cleared() {
    both_ways(|world| {
        let known = world.start("known", &["sh", "-c", "echo up; sleep 1000"]);
        let unknown = world.start("unknown", &["sh", "-c", "trap '' TERM; echo up; sleep 1000"]);
        let task = unknown.task_pid().expect("it has started");
        drop(unknown);
        assert_eq!(world.again().cage.orphans(&["known"]).expect("it can be done"), ["unknown"]);
        patiently(|| !alive(task));
        assert_eq!(world.cage.list().expect("readable"), ["known"]);
        assert!(known.exit().expect("readable").is_none());
        known.kill(0).expect("it runs");
        world.finish(known);
    });
}

/// A fork bomb is held to its number of processes and dies wholly
#[test]
fn fork_bomb_is_bounded() {
    let world = World::new(meso_cage::CgroupUse::Auto);
    if !world.has_cgroups() {
        return;
    }
    let mut spec = world.spec("bomb", &["sh", "-c", "echo up; f() { f & f & }; f; sleep 1000"]);
    spec.pids_max = Some(50);
    let container = world.launch(&spec);
    std::thread::sleep(Duration::from_millis(500));
    container.kill(0).expect("it runs");
    let exit = world.finish(container);
    assert!(exit.why == Why::Killed && !exit.stuck, "{exit:?}");
    assert!(world.leaves().is_empty(), "{:?}", world.leaves());
}

/// Without cgroups too, a task that forks for ever is outrun
#[test]
fn forking_without_end_is_outrun() {
    let world = World::new(meso_cage::CgroupUse::Off);
    let script = "echo up; i=0; while [ $i -lt 20 ]; do i=$((i+1)); setsid sh -c 'while :; do (sleep 0.02) & sleep 0.01; done' & done; sleep 1000";
    let container = world.start("storm", &["sh", "-c", script]);
    std::thread::sleep(Duration::from_millis(200));
    container.kill(0).expect("it runs");
    let exit = world.finish(container);
    assert!(exit.why == Why::Killed && !exit.stuck, "{exit:?}");
}

/// A task that takes more memory than its limit is killed for that, and the record says how much it had
#[test]
fn memory_limit_is_told() {
    let world = World::new(meso_cage::CgroupUse::Auto);
    if !world.has_cgroups() {
        return;
    }
    let mut spec = world.spec("oom", &["sh", "-c", "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}"]);
    spec.mem_bytes = Some(64 << 20);
    let exit = world.finish(world.launch(&spec));
    assert_eq!(exit.why, Why::MemoryLimit, "{exit:?}");
    assert!(exit.oom_kills >= 1 && exit.mem_limit_bytes == Some(64 << 20), "{exit:?}");
    assert!(exit.mem_peak_bytes.is_none_or(|peak| (60 << 20..=64 << 20).contains(&peak)), "{exit:?}");
}

/// Without a memory cgroup no process of a task may have more memory of its own than the task was given, and what fits runs
#[test]
fn memory_of_a_process_is_limited_without_cgroups() {
    let world = World::new(meso_cage::CgroupUse::Off);
    let script = "ulimit -d; x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo ${#x}; x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}";
    let mut spec = world.spec("big", &["sh", "-c", script]);
    spec.mem_bytes = Some(128 << 20);
    let exit = world.finish(world.launch(&spec));
    assert_eq!(String::from_utf8_lossy(&world.read("big", Stream::Stdout)), "131072\n20000000\n");
    assert!(exit.code.is_some_and(|code| code != 0) || exit.signal.is_some(), "{exit:?}");
}

/// Limits are what the kernel says they are, seen by the task itself
#[test]
fn limits_are_set() {
    let world = World::new(meso_cage::CgroupUse::Auto);
    if !world.has_cgroups() {
        return;
    }
    let container = {
        let mut spec = world.spec("limits", &["sh", "-c", "echo up; sleep 1000"]);
        (spec.cpu_milli, spec.cpu_limit_milli, spec.mem_bytes, spec.pids_max) = (2000, Some(1500), Some(128 << 20), Some(77));
        world.launch(&spec)
    };
    let said = |file: &str| world.leaves().iter().find_map(|dir| fs::read_to_string(dir.join(file)).ok()).map(|t| t.trim().to_owned());
    if world.cage.isolation() == "cgroups-v2" {
        assert_eq!(said("cpu.weight").as_deref(), Some("200"));
        assert_eq!(said("cpu.max").as_deref(), Some("150000 100000"));
        assert_eq!(said("memory.max").as_deref(), Some("134217728"));
    } else {
        assert_eq!(said("cpu.shares").as_deref(), Some("2048"));
        assert_eq!(said("cpu.cfs_quota_us").as_deref(), Some("150000"));
        assert_eq!(said("memory.limit_in_bytes").as_deref(), Some("134217728"));
    }
    assert_eq!(said("pids.max").as_deref(), Some("77"));
    container.kill(0).expect("it runs");
    world.finish(container);
    assert!(world.leaves().is_empty(), "{:?}", world.leaves());
}

/// A task of another user runs as that user, may open its own output anew, and cannot become more
#[test]
fn user_is_changed() {
    if !meso_cage::machine::privileged() {
        return;
    }
    both_ways(|world| {
        let mut spec = world.spec("user", &["sh", "-c", "id -u; id -g; id -G; grep NoNewPrivs /proc/self/status >/proc/self/fd/1"]);
        spec.user = Some((65534, 65533));
        spec.cwd = "/".into();
        assert_eq!(world.finish(world.launch(&spec)).code, Some(0));
        assert_eq!(world.read("user", Stream::Stdout), b"65534\n65533\n65533\nNoNewPrivs:\t1\n");
    });
}

/// One that yields has the least weight there is and is the first to die for want of memory; what it uses is counted while it runs
#[test]
fn yielding_and_counted() {
    let world = World::new(meso_cage::CgroupUse::Auto);
    if !world.has_cgroups() {
        return;
    }
    // Memory of its own, and more that is kept of a file.
    let script = "cat /proc/self/oom_score_adj; x=$(head -c 20000000 /dev/zero | tr '\\0' x); head -c 100000000 /dev/zero >file; stat -f -c %T file; sleep 1000";
    let container = {
        let mut spec = world.spec("lent", &["sh", "-c", script]);
        (spec.cpu_milli, spec.yields) = (2000, true);
        world.launch(&spec)
    };
    let mut reader = world.cage.output("lent", Stream::Stdout).expect("it is there");
    let mut said = String::new();
    patiently(|| {
        said = String::from_utf8_lossy(&reader.read_at(0, 4096).expect("readable").bytes).into_owned();
        said.lines().count() == 2
    });
    assert!(said.starts_with("1000\n"), "{said}");
    let file = if world.cage.isolation() == "cgroups-v2" { "cpu.weight" } else { "cpu.shares" };
    let weight = world.leaves().iter().find_map(|dir| fs::read_to_string(dir.join(file)).ok()).expect("it has a weight");
    assert_eq!(weight.trim(), if file == "cpu.weight" { "1" } else { "2" });
    let used = world.cage.in_use("lent");
    assert_eq!((used.cpu_us.is_some(), used.mem_bytes.is_some()), (true, true), "{used:?}");
    assert!(used.cpu_us.is_some_and(|us| us > 1_000), "{used:?}");
    // What is kept of a file that is nowhere but in memory is its own as well.
    let most = if said.ends_with("tmpfs\n") { 256 } else { 90 };
    assert!(used.mem_bytes.is_some_and(|bytes| (19 << 20..most << 20).contains(&bytes)), "{used:?} {said}");
    assert!(world.cage.counts_use());
    assert_eq!(world.cage.in_use("stranger"), meso_cage::InUse::default());
    container.kill(0).expect("it runs");
    world.finish(container);
    assert_eq!(world.cage.in_use("lent"), meso_cage::InUse::default(), "it is gone");
}

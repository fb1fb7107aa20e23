//! Measures containers: latency from launch to known exit, rate with threads, memory of a supervisor
//!
//! Usage: `measure SUPERVISOR [auto|off] [COUNT] [THREADS]`
use meso_cage::{Cage, CgroupUse, Container, Options, Spec};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use std::{
    error::Error,
    os::fd::AsFd,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let supervisor = args.first().ok_or("usage: measure SUPERVISOR [auto|off] [COUNT] [THREADS]")?;
    let cgroups = if args.get(1).is_some_and(|a| a == "off") { CgroupUse::Off } else { CgroupUse::Auto };
    let count: usize = args.get(2).map_or(Ok(500), |a| a.parse())?;
    let threads: usize = args.get(3).map_or(Ok(16), |a| a.parse())?;
    let run_dir = std::env::temp_dir().join(format!("meso-measure-{}", std::process::id()));
    let cage = Cage::open(Options { run_dir: run_dir.clone(), supervisor: supervisor.into(), cgroups, cgroup_parent: "meso-measure".into() })?;
    let mut times: Vec<Duration> = (0..count.min(500)).map(|n| once(&cage, &format!("a{n}"))).collect::<Result<_, _>>()?;
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    eprintln!("{}: launch to reaped, ms: p50 {:.2} p90 {:.2} p99 {:.2}", cage.isolation(), at(0.5), at(0.9), at(0.99));
    let next = AtomicUsize::new(0);
    let (begin, cpu, faulted) = (Instant::now(), cpu_s(), faults());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    once(&cage, &format!("b{n}")).expect("each task ends with 0");
                }
            });
        }
    });
    let took = begin.elapsed();
    let (cpu, faults) = (cpu_s() - cpu, faults() - faulted);
    eprintln!("{threads} threads: {:.0} tasks/s, {:.2} ms of processor time and {:.0} page faults each", count as f64 / took.as_secs_f64(), cpu * 1e3 / count as f64, faults / count as f64);
    let (begin, cpu, faulted) = (Instant::now(), cpu_s(), self::faults());
    for _ in 0..count {
        std::process::Command::new("/bin/true").env_clear().status()?;
    }
    let (took, cpu, faults) = (begin.elapsed(), cpu_s() - cpu, self::faults() - faulted);
    eprintln!("floor: spawn and wait, one after the other: {:.2} ms, {:.2} ms of processor time, {:.0} page faults each", took.as_secs_f64() * 1e3 / count as f64, cpu * 1e3 / count as f64, faults / count as f64);
    memory(&cage)?;
    output(&cage)?;
    cage.release();
    std::fs::remove_dir_all(run_dir)?;
    Ok(())
}

fn usages() -> impl Iterator<Item = Usage> {
    [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN].into_iter().filter_map(|who| getrusage(who).ok())
}

fn cpu_s() -> f64 {
    usages().flat_map(|u| [u.user_time(), u.system_time()]).map(|t| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6).sum()
}

fn faults() -> f64 {
    usages().map(|u| u.minor_page_faults() as f64).sum()
}

fn spec(id: &str, argv: &[&str]) -> Spec {
    Spec {
        id: id.into(),
        argv: argv.iter().map(|a| a.to_string()).collect(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: "/tmp".into(),
        stdin: false,
        attached: false,
        user: None,
        cpu_milli: 100,
        yields: false,
        cpu_limit_milli: None,
        mem_bytes: Some(128 << 20),
        pids_max: Some(1000),
        timeout_ms: None,
        kill_grace_ms: 3000,
        log_cap_bytes: 10 << 20,
        rlimit_nofile: None,
        rlimit_core: None,
    }
}

fn once(cage: &Cage, id: &str) -> Result<Duration, Box<dyn Error>> {
    let begin = Instant::now();
    let mut container = cage.launch(&spec(id, &["/bin/true"]))?;
    let mut events = std::fs::File::from(container.take_events().ok_or("a new container has events")?);
    let mut said = String::new();
    wait_readable(&events);
    loop {
        match std::io::Read::read_to_string(&mut events, &mut said) {
            Ok(_) => break,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => wait_readable(&events),
            Err(e) => return Err(e.into()),
        }
    }
    let took = begin.elapsed();
    container.reap()?;
    let exit = container.exit()?.ok_or("no exit record")?;
    cage.remove(id)?;
    if exit.code == Some(0) { Ok(took) } else { Err(format!("{exit:?}").into()) }
}

fn wait_readable(fd: &impl AsFd) {
    let mut fds = [nix::poll::PollFd::new(fd.as_fd(), nix::poll::PollFlags::POLLIN)];
    let _ = nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE);
}

fn output(cage: &Cage) -> Result<(), Box<dyn Error>> {
    const BYTES: u64 = 1 << 30;
    let mut spec = spec("output", &["head", "-c", &BYTES.to_string(), "/dev/zero"]);
    spec.log_cap_bytes = 2 * BYTES;
    let begin = Instant::now();
    let mut container = cage.launch(&spec)?;
    container.reap()?;
    let took = begin.elapsed().as_secs_f64();
    let exit = container.exit()?.ok_or("no exit record")?;
    cage.remove("output")?;
    if exit.stdout_bytes != BYTES || exit.stdout_dropped_bytes != 0 {
        return Err(format!("{exit:?}").into());
    }
    eprintln!("1 GiB of output into files: {:.2} GiB/s", 1.0 / took);
    Ok(())
}

fn memory(cage: &Cage) -> Result<(), Box<dyn Error>> {
    const MANY: u64 = 100;
    let mut all: Vec<Container> = (0..MANY).map(|n| cage.launch(&spec(&format!("m{n}"), &["sleep", "60"]))).collect::<Result<_, _>>()?;
    std::thread::sleep(Duration::from_millis(500));
    let pss = |pid: i32| -> Result<u64, Box<dyn Error>> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).ok_or("no Pss")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    let supervisors: u64 = all.iter().map(|c| pss(c.pid())).sum::<Result<u64, _>>()?;
    let tasks: u64 = all.iter().map(|c| pss(c.task_pid().ok_or("not started")?)).sum::<Result<u64, _>>()?;
    eprintln!("{MANY} running: supervisor {} KiB PSS, with its sleep {} KiB", supervisors / MANY, (supervisors + tasks) / MANY);
    for container in &mut all {
        container.kill(0)?;
        container.reap()?;
        cage.remove(container.id())?;
    }
    Ok(())
}

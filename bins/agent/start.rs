//! From a work directory to an agent that serves: identity, recovery, bus, loop, end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use meso_bus::driver::{Clock, drive};
use meso_bus::{Bus, BusEvent, inbox_of};
use meso_cage::{Cage, CgroupUse, Options, WorkLock, machine};
use meso_cli::{Exit, Failure, VERSION, complain, host_name, io_text};
use meso_core::agent::{Agent, Config, Event};
use meso_core::condition::{Attr, parse_attrs};
use meso_core::id::{AgentId, Nonce};
use meso_core::resources::{Milli, Resources, parse_size};
use meso_core::wire::Launch;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Duration;

use crate::containers::{Containers, Settings};
use crate::disk::Disk;
use crate::host::Host;
use crate::io::Io;
use crate::journal::Journal;
use crate::keeper::Keeper;
use crate::retained::{CONTAINERS, Limits, Retained};
use crate::{Args, Recover, cleanup, lending, workdir};

/// How many events may wait for the machine; whoever sends more waits.
const EVENTS_MAX: usize = 4096;
/// How often the wall clock is looked at, for display.
const CLOCK_EVERY: Duration = Duration::from_secs(10);
/// An agent that follows an invitation waits up to so long, so that a crowd does not come at once, milliseconds.
const JITTER_MS_MAX: u64 = 100;
/// How often tasks that are to end with the agent are told so.
const LAST_KILL_AGAIN: Duration = Duration::from_millis(500);
/// How long tasks have to end when the agent is asked to end them, beyond their own grace.
const LAST_KILL_WAIT: Duration = Duration::from_secs(20);

pub async fn run(args: Args) -> Result<Exit, Failure> {
    have_a_thread()?;
    let access = args.bus.access()?;
    let work_dir = workdir::open(args.work_dir.clone())?;
    let lock_path = work_dir.join("lock");
    let _lock = WorkLock::take(&lock_path).map_err(|error| Failure::config(error.to_string()).hint("one agent runs on a work directory; give another --work-dir"))?;
    let host = host_name(args.host.as_deref())?;
    let attrs = attributes(&args.attrs)?;
    let total = crate::facts::total(&work_dir, args.resources.as_deref())?;
    let log_cap_bytes = size_bytes("--log-cap", &args.log_cap)?;
    let limits = Limits { delay: Duration::from_millis(args.gc_delay), headroom: args.gc_disk_headroom, cap_bytes: size_bytes("--gc-cap", &args.gc_cap)? };

    let found = Journal::read(&work_dir)?;
    let boot_id = machine::boot_id().map_err(|error| Failure::config(format!("cannot read the boot id: {}", io_text(&error))))?;
    let before = found.as_ref().map(|found| found.good_bytes);
    let (agent_id, generation, records) = match found {
        Some(found) => {
            if found.torn_bytes > 0 {
                complain(&format!("{} unfinished bytes at the end of the log were cut; nobody had seen them", found.torn_bytes));
            }
            (found.agent, found.generation + 1, found.records)
        }
        None => (AgentId::fresh(random()?), 1, Vec::new()),
    };

    let cage = Arc::new(open_cage(&args, &work_dir, &agent_id)?);
    for notice in cage.notices() {
        complain(notice);
    }
    if args.oversubscribe.is_some() {
        lending::check(&cage)?;
    }
    let config = Config {
        agent: agent_id.clone(),
        incarnation: nonce()?,
        secret: nonce()?,
        generation,
        host: host.clone(),
        attrs,
        total: total.clone(),
        boot_id,
        isolation: cage.isolation().to_owned(),
        version: VERSION.to_owned(),
        jitter_ms: random()? % JITTER_MS_MAX,
    };
    let secret = config.secret.clone();
    let clock = Clock::default();
    let mut machine = Agent::recover(config.clone(), clock.now_ms(), records);
    if args.recover == Recover::Reconnect {
        check_fits(&machine, &total)?;
    }
    let (sender, mut events) = mpsc::channel(EVENTS_MAX);
    let disk = Disk::new(work_dir.clone(), sender.clone());
    let journal = Journal::begin(&work_dir, &machine.snapshot(), before)
        .map_err(|error| Failure::storage(format!("cannot write in {}: {}", work_dir.display(), io_text(&error))).hint("free some space, or give another --work-dir"))?;
    let mut keeper = Keeper::new(journal, Rc::clone(&disk));

    let unsettled: Vec<Launch> = machine.unsettled().cloned().collect();
    let retained = Retained::read(Arc::clone(&cage), work_dir.clone(), limits, &unsettled);
    let settings = Settings { work_dir: work_dir.clone(), agent: agent_id.to_string(), host: host.clone(), log_cap_bytes };
    let containers = Containers::new(Arc::clone(&cage), settings, sender.clone(), Rc::clone(&disk));
    let _ = sender.try_send(Event::Clock { wall_ms: wall_ms(), at_ms: clock.now_ms() });
    if args.recover == Recover::Cleanup {
        cleanup::clean_up(clock, &mut machine, &mut keeper, &containers, &sender, &mut events).await?;
        machine = Agent::recover(config, clock.now_ms(), machine.snapshot());
    }
    let live: Vec<Launch> = machine.live().cloned().collect();

    let mut options = access.options();
    options.inbox = inbox_of(&agent_id);
    options.name = format!("meso-agent {host}");
    options.reconnect = true;
    let bus = Bus::connect_patiently(&options, |error, pause_ms| complain(&format!("{error}; trying again in {pause_ms} ms"))).await?;
    listen(&bus, &agent_id, &secret, &sender, Io::new(bus.clone(), Arc::clone(&cage), Rc::clone(&retained))).await?;
    tell_time(clock, sender.clone());

    let adopted = {
        let containers = Rc::clone(&containers);
        async move { containers.recover(live).await }
    };
    let lending = args.oversubscribe.map(|window_ms| lending::lend(Arc::clone(&cage), Rc::clone(&containers), clock, window_ms, sender.clone()));
    if lending.is_none() && !machine.lent_used().is_empty() {
        // What an agent before this one lent, and this one does not lend, is taken back.
        let _ = sender.try_send(Event::Lent { resources: Resources::default() });
    }
    tokio::task::spawn_local(async move {
        let adopted = adopted.await;
        let running = adopted.values().filter(|word| **word == "running").count();
        let unknown = adopted.values().filter(|word| **word == "unknown").count();
        if !adopted.is_empty() {
            complain(&format!("found {} tasks of before: {running} run on, {} ended meanwhile", adopted.len() - unknown, adopted.len() - running - unknown));
        }
        // Only now: a task that is found later would count as new, and what it lends be taken back.
        if let Some(lending) = lending {
            lending.await;
        }
    });
    tokio::task::spawn_local(disk.watch(Rc::clone(&retained)));
    complain(&format!("agent {agent_id} on {host} gives {total}, tasks in {}", cage.isolation()));

    let mut host = Host::new(agent_id, bus.clone(), keeper, Rc::clone(&containers), retained, sender.clone());
    drive(clock, &mut machine, &mut host, &mut events, asked_to_end()?).await?;
    if args.kill_tasks_on_exit {
        end_tasks(clock, &mut machine, &mut host, &mut events, &containers).await?;
    }
    bus.close().await?;
    // It may not come back; if it does, it makes them again.
    cage.release();
    Ok(Exit::DONE)
}

/// Has the runtime begin its first thread for work that blocks, while it can still be said that there is none to be had.
///
/// As long as there is one, work waits for it when the machine gives no more; the disk's watch keeps it from idling away.
fn have_a_thread() -> Result<(), Failure> {
    std::thread::Builder::new()
        .spawn(|| ())
        .map_err(|error| Failure::not_now(format!("cannot begin a thread: {}", io_text(&error))).hint("raise the limit of processes (ulimit -u, TasksMax=), or end some"))?;
    drop(tokio::task::spawn_blocking(|| ()));
    Ok(())
}

fn attributes(given: &[String]) -> Result<BTreeMap<String, Attr>, Failure> {
    let mut attrs = BTreeMap::new();
    for text in given {
        let some = parse_attrs(text).map_err(|error| Failure::usage(format!("--attr: {error}")).hint("--attr rack=r1,ssd=true"))?;
        attrs.extend(some);
    }
    Ok(attrs)
}

fn size_bytes(flag: &str, text: &str) -> Result<u64, Failure> {
    let mib = parse_size(text).map_err(|error| Failure::usage(format!("{flag}: {error}")))?;
    Ok(mib.as_milli().unsigned_abs().saturating_mul(1 << 20) / 1000)
}

fn open_cage(args: &Args, work_dir: &Path, agent: &AgentId) -> Result<Cage, Failure> {
    let supervisor = supervisor()?;
    let cgroups = if args.cgroups == "off" { CgroupUse::Off } else { CgroupUse::Auto };
    Cage::open(Options { run_dir: work_dir.join(CONTAINERS), supervisor, cgroups, cgroup_parent: format!("meso/{agent}") }).map_err(|error| Failure::config(error.to_string()))
}

/// The supervisor's program stands beside the agent's.
fn supervisor() -> Result<PathBuf, Failure> {
    let here = std::env::current_exe().map_err(|error| Failure::config(format!("cannot find my own program: {}", io_text(&error))))?;
    let path = here.with_file_name("meso-supervisor");
    if path.exists() {
        return Ok(path);
    }
    Err(Failure::config(format!("{} is missing: every task runs under it", path.display())).hint("install meso-supervisor beside meso-agent"))
}

/// Running tasks hold what they were given: less than that cannot be given away.
fn check_fits(machine: &Agent, total: &Resources) -> Result<(), Failure> {
    let misfits = misfits(machine.used(), total);
    if misfits.is_empty() {
        return Ok(());
    }
    let what = format!("the tasks that run here hold {}; that does not fit in what is given: {}", machine.used(), misfits.join(", "));
    Err(Failure::config(what).hint("-R with at least what they hold, or --recover cleanup to end them"))
}

/// Each kind of which more is used than given.
fn misfits(used: &Resources, given: &Resources) -> Vec<String> {
    let amounts = used.scalars().filter(|(name, _)| *name != "ports").filter_map(|(name, used)| {
        let given = given.scalars().find(|(other, _)| *other == name).map_or(Milli::default(), |(_, given)| given);
        (used > given).then(|| format!("{name} {used} used, {given} given"))
    });
    let ports = used.ports.difference(&given.ports);
    let ports = (!ports.is_empty()).then(|| format!("ports {ports} used, not given"));
    amounts.chain(ports).collect()
}

/// Subscribes before anything is said, so that no command is missed.
async fn listen(bus: &Bus, agent: &AgentId, secret: &Nonce, sender: &mpsc::Sender<Event>, io: Rc<Io>) -> Result<(), Failure> {
    let mut commands = bus.subscribe(&bus.subjects().command(agent, secret)).await?;
    let mut lead = bus.subscribe(&bus.subjects().lead()).await?;
    let mut asks = bus.subscribe(&bus.subjects().ios(agent)).await?;
    let to = sender.clone();
    tokio::task::spawn_local(async move {
        while let Some(message) = commands.next().await {
            match serde_json::from_slice(&message.payload) {
                Ok(command) => {
                    if to.send(Event::Command(command)).await.is_err() {
                        return;
                    }
                }
                Err(error) => complain(&format!("a command could not be read: {error}")),
            }
        }
    });
    let to = sender.clone();
    tokio::task::spawn_local(async move {
        while let Some(message) = lead.next().await {
            if let Ok(invitation) = serde_json::from_slice(&message.payload) {
                if to.send(Event::Invitation(invitation)).await.is_err() {
                    return;
                }
            }
        }
    });
    tokio::task::spawn_local(async move {
        while let Some(message) = asks.next().await {
            io.take(message);
        }
    });
    let mut events = bus.events();
    tokio::task::spawn_local(async move {
        while let Some(event) = events.next().await {
            match event {
                BusEvent::Disconnected => complain("the bus is away; tasks run on, statuses wait"),
                BusEvent::Connected => complain("the bus is there"),
                other => complain(&format!("bus: {other:?}")),
            }
        }
    });
    Ok(())
}

fn tell_time(clock: Clock, sender: mpsc::Sender<Event>) {
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(CLOCK_EVERY).await;
            if sender.send(Event::Clock { wall_ms: wall_ms(), at_ms: clock.now_ms() }).await.is_err() {
                return;
            }
        }
    });
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Ready when the process is asked to end.
fn asked_to_end() -> Result<impl Future<Output = ()>, Failure> {
    let cannot = |error: std::io::Error| Failure::failed(format!("cannot listen for signals: {}", io_text(&error)));
    let mut term = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut int = signal(SignalKind::interrupt()).map_err(cannot)?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// Ends what runs, waits for it, and has the statuses stored.
async fn end_tasks(clock: Clock, machine: &mut Agent, host: &mut Host, events: &mut mpsc::Receiver<Event>, containers: &Rc<Containers>) -> Result<(), Failure> {
    let began = tokio::time::Instant::now();
    let grace_of = |launch: &Launch| launch.spec.kill_grace.map_or(meso_core::agent::KILL_GRACE_MS, |span| span.0);
    let longest_ms = machine.live().map(grace_of).max().unwrap_or(0);
    let until = began + LAST_KILL_WAIT + Duration::from_millis(longest_ms);
    let mut again = began;
    while machine.live().next().is_some() && tokio::time::Instant::now() < until {
        if tokio::time::Instant::now() >= again {
            // A container that was only being made did not hear it: said again, with what is left of its grace.
            again += LAST_KILL_AGAIN;
            let gone_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            for launch in machine.live() {
                containers.kill(launch, grace_of(launch).saturating_sub(gone_ms));
            }
        }
        drive(clock, machine, host, events, tokio::time::sleep(Duration::from_millis(20))).await?;
    }
    // One more turn, so that the last statuses are on their way.
    drive(clock, machine, host, events, tokio::time::sleep(Duration::from_millis(200))).await
}

fn random() -> Result<u64, Failure> {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).map_err(|error| Failure::failed(format!("the system gives no random numbers: {error}")))?;
    Ok(u64::from_le_bytes(bytes))
}

fn nonce() -> Result<Nonce, Failure> {
    Ok(Nonce::fresh(random()?, random()?))
}

#[cfg(test)]
mod tests {
    use meso_core::resources::parse_total;

    use super::misfits;

    /// Shows that each kind that does not fit is named with both amounts, and ports by their numbers.
    #[test]
    fn misfits_are_named() {
        let total = |text| parse_total(text).expect("plain resources");
        let used = total("cpus=3,mem=64,ports=[31000-31001],licenses=2");
        assert_eq!(misfits(&used, &total("cpus=3,mem=128,ports=[31000-31005],licenses=2")), Vec::<String>::new());
        let named = misfits(&used, &total("cpus=2,mem=64,ports=[31001-31005]"));
        assert_eq!(named, ["cpus 3 used, 2 given", "licenses 2 used, 0 given", "ports [31000] used, not given"]);
    }
}

//! From flags to a candidate: times, lease, terms of leading, end.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use meso_bus::lease::{Leadership, LeadershipOptions, Standing};
use meso_bus::{Bus, BusEvent, inbox_of};
use meso_cli::{Exit, Failure, VERSION, complain, host_name, io_text};
use meso_core::duration::parse_duration;
use meso_core::id::{MasterId, Nonce};
use meso_core::lease::{Candidate, LeaseTimes};
use meso_core::master::{Config, Presence, RemovalRate};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Duration, Instant, sleep};

use crate::Args;
use crate::lead::{Term, lead};

/// How long at most until the lease is looked at again, should a change go unnoticed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A term that ends so soon, though the lease is held, has failed.
const FAILED_WITHIN: Duration = Duration::from_secs(2);
/// Pause before the next term after one that failed; it doubles with each that follows.
const FAILED_PAUSE: Duration = Duration::from_millis(200);
const FAILED_PAUSE_MAX: Duration = Duration::from_secs(10);
/// What keeps the lease from being written is said once it lasts so long: the servers' own elections are soon over.
const TROUBLE_AFTER: Duration = Duration::from_secs(10);
/// How often a master says that it is there.
const PRESENCE_EVERY: Duration = Duration::from_secs(3);

pub async fn run(args: Args) -> Result<Exit, Failure> {
    let access = args.bus.access()?;
    let host = host_name(args.host.as_deref())?;
    let times = lease_times(&args)?;
    let master = MasterId::fresh(random()?);
    let mut config = Config::new(master.clone(), host.clone(), VERSION.to_owned());
    let span = |flag: &str, text: &str, least_ms: u64| {
        let ms = parse_duration(text).map_err(|error| Failure::usage(format!("{flag}: {error}")))?;
        if ms < least_ms { Err(Failure::usage(format!("{flag} is at least {least_ms} ms"))) } else { Ok(ms) }
    };
    config.offer_timeout_ms = span("--offer-timeout", &args.offer_timeout, 100)?;
    config.agent_beat_ms = span("--agent-beat", &args.agent_beat, 100)?;
    config.agent_timeout_ms = span("--agent-timeout", &args.agent_timeout, 300)?;
    config.session_timeout_ms = span("--session-timeout", &args.session_timeout, 300)?;
    config.session_beat_ms = config.session_timeout_ms / 3;
    if args.allocate.as_deref().is_some_and(|command| command.trim().is_empty()) {
        return Err(Failure::usage("--allocate: the command is empty").hint("--allocate meso-allocate"));
    }
    config.external = args.allocate.is_some();
    if let Some(rule) = args.policy.rule()? {
        config.rule = rule;
    }
    config.revoke_after_ms = if args.revoke_after == "off" { None } else { Some(span("--revoke-after", &args.revoke_after, 100)?) };
    config.revoke_notice_ms = span("--revoke-notice", &args.revoke_notice, 0)?;
    config.agent_removal = match args.agent_removal_rate.as_str() {
        "off" => None,
        text => Some(RemovalRate::parse(text).map_err(|error| Failure::usage(format!("--agent-removal-rate: {error}")).hint("--agent-removal-rate 20/1m, or off"))?),
    };
    if config.agent_timeout_ms < 2 * config.agent_beat_ms {
        return Err(Failure::usage("--agent-timeout is at least twice --agent-beat, or agents that live count as lost"));
    }

    let mut options = access.options();
    options.inbox = inbox_of(&master);
    options.name = format!("meso-master {host}");
    let term = Term { options: options.clone(), config, replicas: args.replicas, allocate: args.allocate };
    let candidate = Candidate { id: master.clone(), nonce: Nonce::fresh(random()?, random()?), host: host.clone(), since_ms: wall_ms() };
    let asked = asked_to_end()?;
    tokio::pin!(asked);
    let standing_for = LeadershipOptions { bus: options, candidate, times, replicas: args.replicas, used_epoch: 0 };
    let leadership = tokio::select! {
        leadership = Leadership::start(standing_for, |error, pause_ms| complain(&format!("{error}; trying again in {pause_ms} ms"))) => leadership?,
        () = &mut asked => return Ok(Exit::DONE),
    };
    complain(&format!("master {master} stands by"));
    tell_presence(leadership.bus().clone(), &master, &host);
    say_absences(leadership.bus());
    say_trouble(&leadership);
    let leading = terms(&term, &leadership);
    tokio::pin!(leading);
    tokio::select! {
        () = &mut leading => {}
        () = asked => {}
    }
    // What a leader knows does nothing from here on, and is dropped only at the end: of a large cluster that takes a while.
    // Whoever stands by leads at once; if the bus cannot be reached, the lease runs out by itself.
    leadership.release().await;
    Ok(Exit::DONE)
}

/// Leads whenever the lease says so. What ends a term burns its epoch: the next one is higher.
async fn terms(term: &Term, leadership: &Leadership) {
    let mut watched = leadership.standing();
    let mut burnt = 0;
    let mut pause = FAILED_PAUSE;
    loop {
        let now = *watched.borrow_and_update();
        match now {
            Standing::Leading { epoch, .. } if epoch > burnt => {
                complain(&format!("leading under epoch {epoch}"));
                let began = Instant::now();
                lead(term, &mut watched.clone(), leadership.raiser()).await;
                burnt = burnt.max(epoch);
                complain(&format!("no longer leading under epoch {epoch}"));
                if began.elapsed() >= FAILED_WITHIN {
                    pause = FAILED_PAUSE;
                } else if matches!(*watched.borrow(), Standing::Leading { .. }) {
                    // It failed at once although the lease is ours, and would again: epochs are not burnt without end.
                    sleep(pause).await;
                    pause = (pause * 2).min(FAILED_PAUSE_MAX);
                }
                leadership.raiser().raise_above(burnt).await;
            }
            Standing::Released => return,
            _ => {}
        }
        if tokio::time::timeout(LOOK_AGAIN, watched.changed()).await.is_ok_and(|changed| changed.is_err()) {
            return;
        }
    }
}

/// Says regularly that this master is there, so that `meso-ps masters` can list standbys.
fn tell_presence(bus: Bus, master: &MasterId, host: &str) {
    let presence = Presence { master: master.clone(), host: host.to_owned(), version: VERSION.to_owned() };
    let subject = bus.subjects().standby(master);
    tokio::task::spawn_local(async move {
        let payload = Bytes::from(serde_json::to_vec(&presence).expect("plain texts are JSON"));
        loop {
            // Nobody waits for it, and the next one comes soon.
            let _ = bus.publish(&subject, payload.clone()).await;
            tokio::time::sleep(PRESENCE_EVERY).await;
        }
    });
}

/// Says when the bus goes away, which is waited for, and when it is back.
fn say_absences(bus: &Bus) {
    let mut events = bus.events();
    tokio::task::spawn_local(async move {
        let mut is_away = false;
        while let Some(event) = events.next().await {
            match event {
                BusEvent::Disconnected if !is_away => complain("the bus is away; tasks run on, and nothing is launched until it is back"),
                BusEvent::Connected if is_away => complain("the bus is back"),
                _ => continue,
            }
            is_away = !is_away;
        }
    });
}

/// Says when the bus is there and does not take the lease: then nobody leads, and nobody else would know why.
fn say_trouble(leadership: &Leadership) {
    let (bus, mut trouble) = (leadership.bus().clone(), leadership.trouble());
    tokio::task::spawn_local(async move {
        while trouble.wait_for(Option::is_some).await.is_ok() {
            if tokio::time::timeout(TROUBLE_AFTER, trouble.wait_for(Option::is_none)).await.is_ok() {
                continue;
            }
            let why = trouble.borrow().as_ref().filter(|_| bus.is_connected()).map(ToString::to_string);
            if let Some(why) = &why {
                complain(&format!("the bus does not take the lease: {why}; if its disk was full, it has to be started again once there is room"));
            }
            if trouble.wait_for(Option::is_none).await.is_ok() && why.is_some() {
                complain("the bus takes the lease again");
            }
        }
    });
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

/// The lease's times: measured ones for one server and for several, or as asked for.
fn lease_times(args: &Args) -> Result<LeaseTimes, Failure> {
    let lease_ms = match &args.lease {
        Some(text) => parse_duration(text).map_err(|error| Failure::usage(format!("--lease: {error}")))?,
        None if args.replicas > 1 => 12_000,
        None => 6_000,
    };
    let stop_ms = lease_ms.saturating_sub(2_000);
    let renew_ms = (stop_ms / 4).clamp(100, 1_000);
    LeaseTimes::new(lease_ms, renew_ms, stop_ms).map_err(|error| Failure::usage(format!("--lease: {error}")).hint("--lease 6s"))
}

pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

pub fn random() -> Result<u64, Failure> {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).map_err(|error| Failure::failed(format!("the system gives no random numbers: {error}")))?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    /// Shows the times of the lease: with one server short ones, with several such as outlast an election among them.
    #[test]
    fn times_of_the_lease() {
        let times = |words: &[&str]| {
            let args = Args::try_parse_from(["meso-master"].iter().chain(words)).expect("they are flags");
            lease_times(&args).expect("they are times")
        };
        assert_eq!(times(&[]), LeaseTimes::new(6_000, 1_000, 4_000).expect("times"));
        assert_eq!(times(&["--replicas", "3"]), LeaseTimes::new(12_000, 1_000, 10_000).expect("times"));
        assert_eq!(times(&["--replicas", "3", "--lease", "4s"]), LeaseTimes::new(4_000, 500, 2_000).expect("times"));
    }
}

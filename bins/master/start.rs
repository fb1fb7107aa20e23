//! From flags to a candidate: times, lease, terms of leading, end.

use std::time::{SystemTime, UNIX_EPOCH};

use meso_bus::inbox_of;
use meso_cli::{Exit, Failure, VERSION, complain, io_text};
use meso_core::duration::parse_duration;
use meso_core::id::MasterId;
use meso_core::lease::LeaseTimes;
use meso_core::master::Config;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Duration;

use crate::Args;
use crate::lead::{Standing, Term, lead};

/// How many raises of the epoch may wait; more say nothing new.
const RAISES_MAX: usize = 64;
/// How long to wait for the lease to move on after a term that ended by itself.
const BURN_WAIT: Duration = Duration::from_secs(5);

pub async fn run(args: Args) -> Result<Exit, Failure> {
    let access = args.bus.access()?;
    let host = match &args.host {
        Some(host) => host.clone(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).map_err(|error| Failure::config(format!("cannot find the host name: {}", io_text(&error))).hint("--host NAME"))?,
    };
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
    if config.agent_timeout_ms < 2 * config.agent_beat_ms {
        return Err(Failure::usage("--agent-timeout is at least twice --agent-beat, or agents that live count as lost"));
    }

    let mut options = access.options();
    options.inbox = inbox_of(&master);
    options.name = format!("meso-master {host}");
    let term = Term { options: options.clone(), config, replicas: args.replicas };
    let (raise, raised) = mpsc::channel(RAISES_MAX);
    let (release, released) = watch::channel(false);
    let (standing, mut watched) = watch::channel(Standing::Standby);
    let candidacy = crate::candidacy::Candidacy { options, master: master.clone(), host, times, replicas: args.replicas };
    let running = tokio::task::spawn_local(candidacy.run(standing, raised, released));
    complain(&format!("master {master} stands by"));
    on_end(release)?;

    let mut burnt = 0;
    loop {
        let now = *watched.borrow_and_update();
        match now {
            Standing::Leading { epoch, .. } if epoch > burnt => {
                complain(&format!("leading under epoch {epoch}"));
                lead(&term, &mut watched.clone(), raise.clone()).await;
                burnt = burnt.max(epoch);
                complain(&format!("no longer leading under epoch {epoch}"));
                // The lease may still be ours: what ended this term burnt its epoch, so it has to be a higher one.
                let _ = raise.try_send(epoch);
            }
            Standing::Released => break,
            _ => {}
        }
        if tokio::time::timeout(BURN_WAIT, watched.changed()).await.is_ok_and(|changed| changed.is_err()) {
            break;
        }
    }
    match running.await {
        Ok(outcome) => outcome.map(|()| Exit::DONE),
        Err(error) => Err(Failure::internal(format!("the lease: {error}"))),
    }
}

/// TERM and INT give the lease back, so that a standby leads at once.
fn on_end(release: watch::Sender<bool>) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| Failure::failed(format!("cannot listen for signals: {}", io_text(&error)));
    let mut term = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut int = signal(SignalKind::interrupt()).map_err(cannot)?;
    tokio::task::spawn_local(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        let _ = release.send(true);
        // The receiver looks when it changes: keep the sender until the process ends.
        std::future::pending::<()>().await;
    });
    Ok(())
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

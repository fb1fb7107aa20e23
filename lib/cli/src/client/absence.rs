//! What a tool does while the bus, or whoever leads, is away: it waits, but not for ever
use crate::client::leader::{Leader, PATIENCE_MS};
use crate::{Failure, complain};
use meso_bus::Bus;
use meso_core::duration::{parse_duration, show_duration};
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Says how long to wait in place of [`PATIENCE_MS`]; a test has no time to wait for that.
const VARIABLE: &str = "MESO_PATIENCE";
/// A person is told of an absence that lasts so long.
const TOLD_AFTER_MS: u64 = 500;

/// How long a tool waits for a bus, or a leader, that is away: [`PATIENCE_MS`], unless the variable `MESO_PATIENCE` says otherwise.
pub fn patience() -> Duration {
    static PATIENCE: OnceLock<Duration> = OnceLock::new();
    *PATIENCE.get_or_init(|| {
        let said = std::env::var(VARIABLE).ok().and_then(|text| parse_duration(&text).ok());
        Duration::from_millis(said.unwrap_or(PATIENCE_MS))
    })
}

/// Watches a connection, and whether calls over it are answered.
pub struct Absence {
    bus: Bus,
    /// Whether a person is told.
    tells: bool,
    told: bool,
    bus_since: Option<Instant>,
    leader_since: Option<Instant>,
}

impl Absence {
    /// Of a leader that is there; a person at a terminal is told of an absence unless `quiet`.
    pub fn of(leader: &Leader, quiet: bool) -> Self {
        Self { bus: leader.bus().clone(), tells: !quiet && std::io::stderr().is_terminal(), told: false, bus_since: None, leader_since: None }
    }

    /// A call was answered: somebody leads.
    pub fn answered(&mut self) {
        self.leader_since = None;
    }

    /// A call was not answered.
    pub fn unanswered(&mut self) {
        self.leader_since.get_or_insert_with(Instant::now);
    }

    /// Whether the last call got no answer.
    pub fn is_silent(&self) -> bool {
        self.leader_since.is_some()
    }

    /// Whether the bus is away, or the last call got no answer.
    pub fn is_away(&self) -> bool {
        self.leader_since.is_some() || !self.bus.is_connected()
    }

    /// Ready once the bus has been away for the patience; and if `needs_leader`, once nobody has answered for as long.
    ///
    /// Can be dropped while it waits: since when who is away is not forgotten.
    pub async fn over(&mut self, needs_leader: bool) -> Failure {
        loop {
            let silent = self.leader_since.filter(|_| needs_leader).map(|since| since + patience());
            let silence = async {
                match silent {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let Some(since) = self.bus_since else {
                tokio::select! {
                    () = self.bus.gone() => self.bus_since = Some(Instant::now()),
                    () = silence => return silent_failure(&self.bus),
                }
                continue;
            };
            let end = since + patience();
            let told_at = since + Duration::from_millis(TOLD_AFTER_MS);
            tokio::select! {
                () = self.bus.back() => {
                    self.bus_since = None;
                    // Whoever leads could not be heard until now.
                    self.leader_since = None;
                    if std::mem::take(&mut self.told) {
                        complain("the bus is back");
                    }
                }
                () = sleep_until(end) => return gone_failure(&self.bus),
                () = sleep_until(told_at), if self.tells && !self.told => {
                    self.told = true;
                    complain(&format!("the bus is away; waiting for it, {} at most", show_duration(patience().as_millis() as u64)));
                }
            }
        }
    }
}

impl Leader {
    /// Does work that a bus which stays away would hold up for ever.
    ///
    /// # Errors
    /// Those of the work, and `Unreachable` once the bus has been away for the patience.
    pub async fn patiently<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let mut absence = Absence::of(self, false);
        tokio::select! {
            biased;
            done = work => done,
            gone = absence.over(false) => Err(gone),
        }
    }
}

fn gone_failure(bus: &Bus) -> Failure {
    match bus.refusal() {
        Some(why) => Failure::denied(format!("the bus refuses our credentials by now: {why}")).hint("--creds FILE with credentials that this bus knows"),
        None => Failure::unreachable(format!("the bus has been away for {} s: {}", patience_s(), bus.options().shown_url())).hint("the same again, once it is back"),
    }
}

fn silent_failure(bus: &Bus) -> Failure {
    Failure::unreachable(format!("no master has answered for {} s on {}", patience_s(), bus.options().shown_url())).hint("meso-ps masters, and the same again once one leads")
}

fn patience_s() -> u64 {
    patience().as_secs().max(1)
}

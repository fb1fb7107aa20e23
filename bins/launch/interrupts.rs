//! What a signal does: it goes to the tasks, or ends them.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use meso_cli::{Exit, Failure};
use meso_core::launcher::Event;
use meso_core::wire::io::What;
use tokio::time::Instant;

use super::Run;
use crate::signals::{HUP, INT, USR1, USR2};

/// A second Ctrl-C within this ends the task.
const TWICE: Duration = Duration::from_secs(2);
/// Between TERM and KILL after a second Ctrl-C, or a TERM that the task does not follow, milliseconds.
const GRACE_MS: u64 = 10_000;
impl Run {
    pub(super) async fn on_signal(&mut self, signal: i32) -> Result<(), Failure> {
        if signal == USR1 || signal == USR2 {
            self.forward(signal);
            return Ok(());
        }
        if signal == HUP && self.args.on_disconnect == "keep" {
            // The terminal is gone and the task is to be kept: leave it to itself.
            self.interrupted_by = Some(signal);
            self.exit = self.exit.max(Exit::signal(1));
            self.jobs.clear();
            self.following = 0;
            return self.step(Event::Leave);
        }
        let twice = signal == INT && self.last_int.is_some_and(|at| at.elapsed() < TWICE);
        if signal == INT {
            self.last_int = Some(Instant::now());
        }
        self.interrupted_by = Some(signal);
        self.step(Event::Cancel)?;
        if twice {
            return self.escalate();
        }
        self.forward(signal);
        if signal == INT {
            if self.launcher.flying() > 0 && !self.args.quiet && stderr().is_terminal() {
                self.progress.println("meso-launch: sent SIGINT; again within 2 s ends the task");
            }
        } else if self.kill_at.is_none() {
            self.kill_at = Some(Instant::now() + Duration::from_millis(self.plan.kill_grace_ms.unwrap_or(GRACE_MS)));
        }
        Ok(())
    }

    /// TERM now, KILL after the grace.
    pub(super) fn escalate(&mut self) -> Result<(), Failure> {
        self.kill_at = None;
        self.step(Event::Kill { grace_ms: Some(self.plan.kill_grace_ms.unwrap_or(GRACE_MS)) })
    }

    fn forward(&self, signal: i32) {
        for io in self.jobs.values().filter_map(|live| live.task.as_ref()).map(|(_, io)| io.clone()) {
            tokio::task::spawn_local(async move {
                let _ = io.ask(&What::Signal { signal }, &[], Duration::from_secs(5)).await;
            });
        }
    }
}

/// What to say when a signal came that reaches nobody.
pub(super) fn interrupted() -> Failure {
    Failure::failed("interrupted while the bus or the master is away")
}

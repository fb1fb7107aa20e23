//! What one may ask the agent of a task about it
use crate::Failure;
use bytes::Bytes;
use meso_bus::{Bus, BusError};
use meso_core::id::{AgentId, Nonce, Principal, TaskId};
use meso_core::wire::io::{Ask, Told, What};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// An agent answers within this, besides the time it is asked to wait.
pub(crate) const REPLY_MS: u64 = 5_000;
/// First and longest pause between two attempts.
const RETRY_MS: u64 = 100;
const RETRY_MS_MAX: u64 = 1_000;
/// So long an agent may not know a task yet that is on its way to it.
const UNKNOWN_MS: u64 = 3_000;
/// Ends the header of a message that has bytes behind it.
const HEADER_END: u8 = b'\n';

/// A task's place: whom to ask about its output and input.
#[derive(Clone)]
pub struct TaskIo {
    pub bus: Bus,
    pub principal: Principal,
    pub agent: AgentId,
    pub task: TaskId,
    /// For who does not own the task.
    pub token: Option<Nonce>,
}

/// An answer taken apart: its header, and the bytes behind it; none if it is none.
pub(crate) fn read_answer(answer: &Bytes) -> Option<(Told, Bytes)> {
    let end = answer.iter().position(|byte| *byte == HEADER_END).unwrap_or(answer.len());
    let told = serde_json::from_slice(&answer[..end]).ok()?;
    Some((told, answer.slice((end + 1).min(answer.len())..)))
}

impl TaskIo {
    /// Asks once; the bytes are those behind the header of the answer.
    ///
    /// # Errors
    /// Those of the bus, and `Protocol` for an answer that is none.
    pub async fn ask_once(&self, what: &What, bytes: &[u8], limit: Duration) -> Result<(Told, Bytes), BusError> {
        let subject = self.bus.subjects().io(&self.agent, &self.principal, "ask");
        let ask = Ask { task: self.task.clone(), token: self.token.clone(), what: what.clone() };
        let mut payload = serde_json::to_vec(&ask).map_err(|_| BusError::Protocol { what: "a question to an agent".into() })?;
        if matches!(what, What::Write { .. }) {
            payload.push(HEADER_END);
            payload.extend_from_slice(bytes);
        }
        let answer = self.bus.request(&subject, payload.into(), limit).await?;
        read_answer(&answer).ok_or_else(|| BusError::Protocol { what: format!("the answer of {}", self.agent) })
    }

    /// Says something that is not answered once: answers go to the inbox, if there is one, as they come.
    ///
    /// # Errors
    /// Those of the bus.
    pub async fn tell(&self, what: &What, inbox: Option<&str>) -> Result<(), BusError> {
        let subject = self.bus.subjects().io(&self.agent, &self.principal, "ask");
        let ask = Ask { task: self.task.clone(), token: self.token.clone(), what: what.clone() };
        let payload = serde_json::to_vec(&ask).map_err(|_| BusError::Protocol { what: "a question to an agent".into() })?;
        match inbox {
            Some(inbox) => self.bus.publish_with_reply(&subject, inbox, payload.into()).await,
            None => self.bus.publish(&subject, payload.into()).await,
        }
    }

    /// Asks until the agent answers, or has not for `patience`: it may be starting again.
    ///
    /// # Errors
    /// `Unreachable` at the end of the patience; what the bus or the agent refuses.
    pub async fn ask(&self, what: &What, bytes: &[u8], patience: Duration) -> Result<(Told, Bytes), Failure> {
        let mut since = Instant::now();
        let mut failures = 0;
        loop {
            let outcome = self.ask_once(what, bytes, Duration::from_millis(REPLY_MS)).await;
            match outcome {
                Ok((Told::No { code, message }, _)) => {
                    if !may_know_later(&code, since) {
                        return Err(self.refused(&code, &message));
                    }
                }
                Ok(answer) => return Ok(answer),
                Err(error) if error.may_pass() => {}
                Err(error) => return Err(error.into()),
            }
            failures += 1;
            if !self.bus.is_connected() {
                // It is not the agent that is silent.
                since = Instant::now();
            }
            if since.elapsed() + pause(failures) >= patience {
                return Err(self.silent());
            }
            sleep(pause(failures)).await;
        }
    }

    /// What to say of an agent that does not answer.
    pub(crate) fn silent(&self) -> Failure {
        Failure::unreachable(format!("{} does not answer for {}", self.agent, self.task)).hint("meso-ps agents")
    }

    /// What to say of an agent's no.
    pub(crate) fn refused(&self, code: &str, message: &str) -> Failure {
        let (agent, task) = (&self.agent, &self.task);
        match code {
            "not_yours" => Failure::denied(format!("{task} belongs to another: {message}")).hint("--principal NAME of its owner"),
            "unknown_task" => Failure::failed(format!("{agent} keeps nothing of {task} any more: {message}")),
            _ => Failure::failed(format!("{agent} on {task}: {message}")),
        }
    }
}

/// Whether an agent that says this may think otherwise a moment later.
pub(crate) fn may_know_later(code: &str, since: Instant) -> bool {
    code == "unknown_task" && since.elapsed() < Duration::from_millis(UNKNOWN_MS)
}

/// The pause before an attempt, after so many that failed in a row.
pub(crate) fn pause(failures: u32) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    Duration::from_millis((RETRY_MS << (failures - 1).min(8)).min(RETRY_MS_MAX))
}

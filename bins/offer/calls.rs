//! `decline`, `suppress`, `revive` and `ack`: one call, and its answer as the exit code.

use meso_cli::client::{Leader, patience};
use meso_cli::{BusArgs, Exit, Failure};
use meso_core::id::OfferId;
use meso_core::wire::call::{Answer, Call};

use crate::OneCall;

/// Makes the call.
pub async fn make(call: &OneCall, bus: &BusArgs) -> Result<Exit, Failure> {
    let call = match call {
        OneCall::Decline { offer, refuse } => {
            let offers = offer.iter().map(|id| OfferId::parse(id)).collect::<Result<_, _>>().map_err(|error| Failure::usage(error.to_string()))?;
            Call::Return { offers, refuse_ms: *refuse }
        }
        OneCall::Suppress { framework } => Call::Suppress { framework: framework.clone(), on: true },
        OneCall::Revive { framework } => Call::Suppress { framework: framework.clone(), on: false },
        OneCall::Ack { ack } => {
            let acks = ack.iter().map(|ack| ack.parse()).collect::<Result<_, _>>().map_err(|error: meso_core::wire::ack::BadAck| Failure::usage(error.to_string()).hint("the \"ack\" of an update line"))?;
            Call::Ack { acks }
        }
    };
    let leader = Leader::connect(&bus.access()?).await?;
    let limit = patience();
    match leader.call(&call, limit).await? {
        Some(Answer::Done {}) => Ok(Exit::DONE),
        Some(Answer::Refused(refusal)) => Err(Failure::failed(refusal.message)),
        Some(_) => Err(Failure::failed("the leader's answer is not understood").hint("the same version of meso everywhere")),
        None => Err(leader.nobody(limit)),
    }
}

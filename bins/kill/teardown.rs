//! A framework that is to end, with all its tasks.

use meso_cli::client::{Leader, patience};
use meso_cli::{Exit, Failure, LineOut};
use meso_core::wire::RefusalCode;
use meso_core::wire::call::{Answer, Call};

use crate::not_understood;

/// Ends it and prints its name.
pub async fn teardown(leader: &Leader, framework: &str, quiet: bool) -> Result<Exit, Failure> {
    let limit = patience();
    match leader.call(&Call::Teardown { framework: framework.to_owned() }, limit).await? {
        None => Err(leader.nobody(limit)),
        Some(Answer::Done {}) => {
            if !quiet {
                let _ = LineOut::stdout()?.bytes(framework.as_bytes())?;
            }
            Ok(Exit::DONE)
        }
        Some(Answer::Refused(refusal)) if refusal.code == RefusalCode::NotYours => Err(Failure::denied(refusal.message).hint("--principal NAME of its owner")),
        Some(Answer::Refused(refusal)) => Err(Failure::failed(refusal.message).hint("meso-ps frameworks")),
        Some(_) => Err(not_understood()),
    }
}

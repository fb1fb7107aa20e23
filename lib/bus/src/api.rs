//! JetStream's own requests and answers, as far as meso uses them
//!
//! Plain JSON over our own requests: each has our limits, works alike on all supported servers, and
//! leaves nothing behind when it times out.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Bus, BusError};

/// How long JetStream may take to answer about streams and consumers
pub(crate) const API_MS: u64 = 5_000;

/// Error codes of JetStream that mean something to us
const MESSAGE_NOT_FOUND: u64 = 10_037;
const STREAM_NOT_FOUND: u64 = 10_059;
const STREAM_DIFFERS: u64 = 10_058;
const SUBJECTS_OVERLAP: u64 = 10_065;
const NOT_ENABLED: [u64; 3] = [10_039, 10_076, 10_035];
const WRONG_REVISION: [u64; 2] = [10_071, 10_164];
/// Servers that are only finding each other, or electing who leads, say these
const NOT_NOW: [u64; 4] = [10_005, 10_008, 10_009, 10_118];

/// An error of JetStream itself
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl ApiError {
    pub fn is_message_not_found(&self) -> bool {
        self.err_code == MESSAGE_NOT_FOUND
    }

    pub fn is_stream_not_found(&self) -> bool {
        self.err_code == STREAM_NOT_FOUND
    }

    pub fn is_stream_differs(&self) -> bool {
        self.err_code == STREAM_DIFFERS
    }

    pub fn is_overlap(&self) -> bool {
        self.err_code == SUBJECTS_OVERLAP
    }

    pub fn is_wrong_revision(&self) -> bool {
        WRONG_REVISION.contains(&self.err_code)
    }

    pub fn into_error(self, bus: &Bus, what: &str) -> BusError {
        if NOT_ENABLED.contains(&self.err_code) {
            BusError::NoJetStream { url: bus.options().shown_url() }
        } else if NOT_NOW.contains(&self.err_code) {
            BusError::Unready { what: what.to_owned(), why: self.description }
        } else {
            BusError::Store { what: what.to_owned(), why: self.description }
        }
    }
}

/// Asks JetStream; its refusal is the inner error.
pub(crate) async fn call(bus: &Bus, endpoint: &str, body: &Value) -> Result<Result<Value, ApiError>, BusError> {
    let subject = format!("$JS.API.{endpoint}");
    let answer = bus.request(&subject, Bytes::from(body.to_string()), Duration::from_millis(API_MS)).await;
    match answer {
        Ok(bytes) => split(&bytes),
        Err(BusError::NoResponders { .. }) => Err(BusError::NoJetStream { url: bus.options().shown_url() }),
        Err(error) => Err(error),
    }
}

/// Tells an answer from a refusal.
pub(crate) fn split(bytes: &[u8]) -> Result<Result<Value, ApiError>, BusError> {
    let mut value: Value = serde_json::from_slice(bytes)
        .map_err(|_| BusError::Protocol { what: "JetStream's answer is not JSON".into() })?;
    match value.get_mut("error").map(Value::take) {
        Some(error) => Ok(Err(serde_json::from_value(error).unwrap_or_default())),
        None => Ok(Ok(value)),
    }
}

/// The last message on a subject, read from the stream's leader: body and sequence
pub(crate) async fn last_message(bus: &Bus, stream: &str, subject: &str) -> Result<Option<(Vec<u8>, u64)>, BusError> {
    use base64::Engine as _;
    let what = format!("read {subject}");
    let wrong = || BusError::Protocol { what: format!("JetStream's answer to {what}") };
    let answer = call(bus, &format!("STREAM.MSG.GET.{stream}"), &json!({ "last_by_subj": subject })).await?;
    let message = match answer {
        Ok(mut answer) => answer.get_mut("message").map(Value::take).ok_or_else(wrong)?,
        Err(error) if error.is_message_not_found() => return Ok(None),
        Err(error) => return Err(error.into_error(bus, &what)),
    };
    let sequence = message.get("seq").and_then(Value::as_u64).ok_or_else(wrong)?;
    // An empty body is left out.
    let data = message.get("data").and_then(Value::as_str).unwrap_or_default();
    let data = base64::engine::general_purpose::STANDARD.decode(data).map_err(|_| wrong())?;
    Ok(Some((data, sequence)))
}

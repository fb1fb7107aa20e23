//! How high the numbers of the wire go.
//!
//! What is read is added to: the next session, the next status, the moment at which a time is over. A number that nobody
//! can have counted to is refused where it comes in, so that no sum behind it runs over, and no single message ends the
//! process that reads it. What is only compared may be of any size.

use crate::duration::DURATION_MS_MAX;
use crate::lease::EPOCH_MAX;

/// The highest number of a status, launch, session or start that is taken from outside: up to here readers of JSON in
/// other languages are exact.
pub const NUMBER_MAX: u64 = 1 << 53;

/// The highest epoch in which a leader believes an agent that is ahead of it. It rises above what it believes, and as many
/// epochs again are left to the leaders after it.
pub const EPOCH_TOLD_MAX: u64 = EPOCH_MAX / 2;

/// Why a number was never counted to, if it was not.
pub fn uncounted(what: &str, number: u64) -> Option<String> {
    (number > NUMBER_MAX).then(|| format!("{what} is {number}, and at most {NUMBER_MAX}"))
}

/// Why a time is none, if it is not: longer than any that can be written.
pub fn too_long(what: &str, ms: u64) -> Option<String> {
    (ms > DURATION_MS_MAX).then(|| format!("{what} is {ms}, and at most {DURATION_MS_MAX}"))
}

/// What a document says, which a release before this one wrote and did not check: a number that was never counted to says
/// nothing.
pub fn counted(number: u64) -> u64 {
    if number > NUMBER_MAX { 0 } else { number }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    /// Where numbers are tried: their ends, and those of their bounds.
    const ENDS: [u64; 7] = [0, 1, u32::MAX as u64, 1_000_000_000_000, 1 << 53, i64::MAX as u64, u64::MAX];

    fn numbers(value: &mut Value) -> Vec<&mut Value> {
        match value {
            Value::Number(_) => vec![value],
            Value::Array(items) => items.iter_mut().flat_map(numbers).collect(),
            Value::Object(fields) => fields.values_mut().flat_map(numbers).collect(),
            _ => Vec::new(),
        }
    }

    /// A message with each of its numbers, and with all of them, at each end; those that cannot be read are left out.
    pub(crate) fn at_their_ends<T: Serialize + DeserializeOwned>(message: &T) -> Vec<T> {
        let whole = serde_json::to_value(message).expect("a message is JSON");
        let count = numbers(&mut whole.clone()).len();
        let mut all = Vec::new();
        for end in ENDS {
            for place in 0..=count {
                let mut changed = whole.clone();
                let of_message = numbers(&mut changed).into_iter().enumerate();
                of_message.filter(|(at, _)| *at == place || place == count).for_each(|(_, number)| *number = json!(end));
                all.extend(serde_json::from_value(changed).ok());
            }
        }
        all
    }
}

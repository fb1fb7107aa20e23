//! A line as the bytes that go out: JSON, or fields with tabs between them.

use meso_cli::{Failure, Format, Listing, Look, Row, json_text};
use meso_core::wire::line::{Line, OUT_BYTES_MAX};
use serde_json::Value;

/// The text of a line with its end; what it had to lose to be short enough goes to `missed`.
///
/// # Errors
/// `Internal`: a line that has no JSON form.
pub fn text_of(mut line: Line, format: &Format, missed: &mut Vec<&'static str>) -> Result<String, Failure> {
    loop {
        let mut text = match format {
            Format::Tsv(_) => fields_of(&line, format)?,
            _ => json_text(&line)?,
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        if text.len() <= OUT_BYTES_MAX {
            return Ok(text);
        }
        match line.shorten() {
            Some(what) => missed.push(what),
            None => return Ok(text),
        }
    }
}

fn fields_of(line: &Line, format: &Format) -> Result<String, Failure> {
    let value = serde_json::to_value(line).map_err(|error| Failure::internal(format!("writing a line: {error}")))?;
    let Value::Object(mut object) = value else { return Err(Failure::internal("a line that is no object")) };
    // Each kind under its bare word, and each thing under one key, so that a shell loop reads all kinds alike.
    let kind = object.get("meso").and_then(Value::as_str).and_then(|meso| meso.split('/').next()).unwrap_or_default().to_owned();
    let thing = ["task", "agent", "framework"].iter().find_map(|key| object.get(*key)).cloned();
    object.entry("id").or_insert(thing.unwrap_or_default());
    object.insert("kind".to_owned(), Value::String(kind));
    let listing = Listing { columns: Vec::new(), rows: vec![Row::from(object)] };
    listing.render(format, Look { width: None, bold: false, now_ms: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use meso_core::id::{AgentId, OfferId};
    use meso_core::wire::line::{FailureLine, RescindLine};

    /// Shows that a shell loop finds kind and id of each line under the same names, and a mark where there is nothing.
    #[test]
    fn fields() {
        let format: Format = "tsv=kind,id,name".parse().expect("a form");
        let rescind = Line::Rescind(RescindLine { meso: "rescind/1", id: OfferId::parse("offer_1").expect("an id"), reason: "x".to_owned() });
        let failure = Line::Failure(FailureLine { meso: "failure/1", agent: AgentId::parse("agent_1").expect("an id"), host: "h".to_owned(), reason: "x".to_owned() });
        assert_eq!(text_of(rescind, &format, &mut Vec::new()).expect("plain data"), "rescind\toffer_1\t-\n");
        assert_eq!(text_of(failure, &format, &mut Vec::new()).expect("plain data"), "failure\tagent_1\t-\n");
    }
}

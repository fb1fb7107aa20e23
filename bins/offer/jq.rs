//! `--jq`: an expression chooses among our own lines, and what it drops is declined at once.
//!
//! It is run by jq itself, which answers each line with one list: so it is known of every line what became of it, which no
//! filter behind a pipe could tell.

use std::io::ErrorKind;
use std::process::Stdio;
use std::time::Duration;

use meso_cli::{Failure, LineIn, LineRead, Until, complain, io_text};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

/// How long an expression may work on one line.
const ANSWER: Duration = Duration::from_secs(10);
/// Under this key jq says what an expression found wrong with a line.
const WRONG: &str = "meso_jq_error";

/// An expression at work.
pub struct Jq {
    /// Ends with us.
    _child: Child,
    to: ChildStdin,
    from: LineIn,
    said: bool,
}

impl Jq {
    /// Starts jq, after a look whether it takes the expression.
    ///
    /// # Errors
    /// `Usage`: there is no jq, or it does not take the expression; what is wrong with that it says itself.
    pub async fn start(expression: &str) -> Result<Self, Failure> {
        let failure = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => Failure::usage("--jq: there is no jq here").hint("apt-get install jq"),
            _ => Failure::failed(format!("cannot run jq: {}", io_text(&error))),
        };
        // A comment in it ends with its line, and not with ours.
        let check = Command::new("jq").args(["-n", &format!("def f: (\n{expression}\n); empty")]).stdin(Stdio::null()).stdout(Stdio::null()).status().await.map_err(failure)?;
        if !check.success() {
            return Err(Failure::usage("--jq: jq does not take the expression").hint("--jq 'select(.cpus >= 4)'"));
        }
        let program = format!("try [\n{expression}\n] catch {{{WRONG}: tostring}}");
        let mut child = Command::new("jq").args(["-c", "--unbuffered", &program]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().map_err(failure)?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else { return Err(Failure::internal("a program without pipes")) };
        Ok(Jq { _child: child, to, from: LineIn::of(Box::new(from), "jq", Until::Newline), said: false })
    }

    /// What the expression makes of a line: lines, or nothing.
    ///
    /// # Errors
    /// `Failed`: jq has ended, or does not answer.
    pub async fn lines(&mut self, line: &str) -> Result<String, Failure> {
        let exchange = async {
            self.to.write_all(line.as_bytes()).await.map_err(|error| Failure::failed(format!("jq has ended: {}", io_text(&error))))?;
            self.from.next().await
        };
        let answer = match timeout(ANSWER, exchange).await {
            Ok(Ok(Some(LineRead::Line { bytes, .. }))) => bytes,
            Ok(Ok(_)) => return Err(Failure::failed("jq has ended").hint("an expression without halt and input")),
            Ok(Err(failure)) => return Err(failure),
            Err(_) => return Err(Failure::failed(format!("jq works on one line for more than {} s", ANSWER.as_secs()))),
        };
        match serde_json::from_slice(&answer) {
            Ok(Value::Array(values)) => Ok(values.iter().map(|value| format!("{value}\n")).collect()),
            Ok(Value::Object(wrong)) if wrong.contains_key(WRONG) => {
                if !self.said {
                    self.said = true;
                    complain(&format!("--jq: {}; a line of which this is so is dropped", wrong[WRONG].as_str().unwrap_or_default()));
                }
                Ok(String::new())
            }
            _ => Err(Failure::failed("the answer of jq is not understood").hint("an expression without input and inputs")),
        }
    }
}

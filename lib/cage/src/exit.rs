//! How a container ended: the record the supervisor leaves and the agent reads
use serde::{Deserialize, Serialize};
use std::{io, path::Path};

/// How a container ended, complete: the task is dead and so is everything it started
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The code the task's main process returned
    pub code: Option<i32>,
    /// The signal that ended the task's main process
    pub signal: Option<i32>,
    /// What made it end
    pub why: Why,
    /// The memory limit, if there was one
    pub mem_limit_bytes: Option<u64>,
    /// The most memory ever used at once, where the kernel counts it
    pub mem_peak_bytes: Option<u64>,
    /// Processes the kernel killed for want of memory
    pub oom_kills: u64,
    /// Processor time, user and system, of all processes of the container that were waited for
    pub cpu_ms: u64,
    /// Unix time
    pub started_ms: u64,
    /// Unix time
    pub ended_ms: u64,
    /// Bytes ever written to standard output; what is kept may be less
    pub stdout_bytes: u64,
    /// Bytes ever written to standard error; what is kept may be less
    pub stderr_bytes: u64,
    /// Bytes that were removed to keep within the cap or could not be stored
    pub stdout_dropped_bytes: u64,
    /// Bytes that were removed to keep within the cap or could not be stored
    pub stderr_dropped_bytes: u64,
    /// Processes were still there after every attempt to end them (stuck inside the kernel)
    pub stuck: bool,
}

/// What made a container end
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Why {
    /// The task's main process ended by itself, or by a signal that was not of our kill
    Exited,
    /// We were asked to kill it
    Killed,
    /// It ran longer than its timeout
    Timeout,
    /// The kernel killed it for exceeding its memory limit
    MemoryLimit,
    /// It never ran: `stage` is what was being done (`exec` is the command itself), `errno` the kernel's answer
    LaunchError { stage: String, errno: i32, text: String },
}

/// The record ends so; a file that does not is not finished, and so not there
const LAST_LINE: &str = "end\n";

impl Exit {
    pub(crate) fn new(started_ms: u64) -> Exit {
        Exit {
            code: None,
            signal: None,
            why: Why::Exited,
            mem_limit_bytes: None,
            mem_peak_bytes: None,
            oom_kills: 0,
            cpu_ms: 0,
            started_ms,
            ended_ms: started_ms,
            stdout_bytes: 0,
            stderr_bytes: 0,
            stdout_dropped_bytes: 0,
            stderr_dropped_bytes: 0,
            stuck: false,
        }
    }

    /// Reads the record in a container's directory; `None` if it is not there or not complete
    pub fn read(dir: &Path) -> io::Result<Option<Exit>> {
        match std::fs::read_to_string(dir.join("exit")) {
            Ok(text) => Ok(Exit::parse(&text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Puts the record as lines of `key value`, for the supervisor, which carries no JSON
    pub(crate) fn print(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(512);
        let mut line = |key: &str, value: i64| {
            text.extend_from_slice(key.as_bytes());
            text.push(b' ');
            push_number(&mut text, value);
            text.push(b'\n');
        };
        let mut optional = |key: &str, value: Option<i64>| {
            if let Some(value) = value {
                line(key, value);
            }
        };
        optional("code", self.code.map(i64::from));
        optional("signal", self.signal.map(i64::from));
        optional("mem_limit_bytes", self.mem_limit_bytes.map(clamped));
        optional("mem_peak_bytes", self.mem_peak_bytes.map(clamped));
        line("oom_kills", clamped(self.oom_kills));
        line("cpu_ms", clamped(self.cpu_ms));
        line("started_ms", clamped(self.started_ms));
        line("ended_ms", clamped(self.ended_ms));
        line("stdout_bytes", clamped(self.stdout_bytes));
        line("stderr_bytes", clamped(self.stderr_bytes));
        line("stdout_dropped_bytes", clamped(self.stdout_dropped_bytes));
        line("stderr_dropped_bytes", clamped(self.stderr_dropped_bytes));
        line("stuck", i64::from(self.stuck));
        if let Why::LaunchError { errno, .. } = &self.why {
            line("errno", i64::from(*errno));
        }
        let why = match &self.why {
            Why::Exited => "exited",
            Why::Killed => "killed",
            Why::Timeout => "timeout",
            Why::MemoryLimit => "memory_limit",
            Why::LaunchError { stage, .. } => stage,
        };
        let key: &[u8] = if matches!(self.why, Why::LaunchError { .. }) { b"launch_error " } else { b"why " };
        text.extend_from_slice(key);
        text.extend_from_slice(why.as_bytes());
        text.push(b'\n');
        text.extend_from_slice(LAST_LINE.as_bytes());
        text
    }

    /// Reads what `print` wrote; keys of a later version are passed over
    pub(crate) fn parse(text: &str) -> Option<Exit> {
        let body = text.strip_suffix(LAST_LINE)?;
        let mut exit = Exit::new(0);
        let (mut errno, mut stage) = (0, None);
        for line in body.lines() {
            let (key, value) = line.split_once(' ')?;
            let number = || value.parse::<u64>().ok();
            match key {
                "code" => exit.code = Some(value.parse().ok()?),
                "signal" => exit.signal = Some(value.parse().ok()?),
                "mem_limit_bytes" => exit.mem_limit_bytes = Some(number()?),
                "mem_peak_bytes" => exit.mem_peak_bytes = Some(number()?),
                "oom_kills" => exit.oom_kills = number()?,
                "cpu_ms" => exit.cpu_ms = number()?,
                "started_ms" => exit.started_ms = number()?,
                "ended_ms" => exit.ended_ms = number()?,
                "stdout_bytes" => exit.stdout_bytes = number()?,
                "stderr_bytes" => exit.stderr_bytes = number()?,
                "stdout_dropped_bytes" => exit.stdout_dropped_bytes = number()?,
                "stderr_dropped_bytes" => exit.stderr_dropped_bytes = number()?,
                "stuck" => exit.stuck = number()? != 0,
                "errno" => errno = value.parse().ok()?,
                "launch_error" => stage = Some(value.to_owned()),
                "why" => {
                    exit.why = match value {
                        "exited" => Why::Exited,
                        "killed" => Why::Killed,
                        "timeout" => Why::Timeout,
                        "memory_limit" => Why::MemoryLimit,
                        _ => return None,
                    }
                }
                _ => {}
            }
        }
        if let Some(stage) = stage {
            exit.why = Why::LaunchError { stage, errno, text: io::Error::from_raw_os_error(errno).to_string() };
        }
        Some(exit)
    }
}

/// Appends a decimal number without the formatting machinery, whose pages the supervisor need not touch
pub(crate) fn push_number(text: &mut Vec<u8>, value: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        text.push(b'-');
    }
    text.extend_from_slice(&digits[at..]);
}

fn clamped(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the supervisor writes is what the agent reads, and a torn record counts as none
    #[test]
    fn record_survives_the_file() {
        let mut exit = Exit::new(1_795_328_191_000);
        exit.code = Some(-7);
        exit.mem_peak_bytes = Some(u64::from(u32::MAX) * 3);
        exit.stuck = true;
        for why in [
            Why::Exited,
            Why::Killed,
            Why::Timeout,
            Why::MemoryLimit,
            Why::LaunchError { stage: "exec".into(), errno: 2, text: io::Error::from_raw_os_error(2).to_string() },
        ] {
            exit.why = why;
            let text = String::from_utf8(exit.print()).expect("the record is text");
            assert_eq!(Exit::parse(&text), Some(exit.clone()));
            for cut in 0..text.len() {
                assert_eq!(Exit::parse(&text[..cut]), None, "cut at {cut}");
            }
        }
    }

    /// Numbers come out as the standard library would print them
    #[test]
    fn numbers_are_decimal() {
        for n in [0, 7, -7, 10, 99, 100, i64::MAX, i64::MIN] {
            let mut text = Vec::new();
            push_number(&mut text, n);
            assert_eq!(text, n.to_string().into_bytes());
        }
    }
}

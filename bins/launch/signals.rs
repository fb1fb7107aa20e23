//! The signals that go through to the task, as one channel of numbers.

use meso_cli::{Failure, io_text};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Hang-up: the terminal is gone.
pub const HUP: i32 = 1;
/// Ctrl-C.
pub const INT: i32 = 2;
/// User-defined: only forwarded.
pub const USR1: i32 = 10;
/// User-defined: only forwarded.
pub const USR2: i32 = 12;

/// How many signals may wait to be handled; more of them say nothing new.
const WAITING_MAX: usize = 16;

/// Listens for INT TERM HUP QUIT USR1 USR2 from here on.
pub fn listen() -> Result<mpsc::Receiver<i32>, Failure> {
    let (to, from) = mpsc::channel(WAITING_MAX);
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit(), SignalKind::user_defined1(), SignalKind::user_defined2()];
    for kind in kinds {
        let mut stream = signal(kind).map_err(|error| Failure::failed(format!("cannot listen for signals: {}", io_text(&error))))?;
        let to = to.clone();
        tokio::task::spawn_local(async move {
            while stream.recv().await.is_some() {
                if to.send(kind.as_raw_value()).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(from)
}

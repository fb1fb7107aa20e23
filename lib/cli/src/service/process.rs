//! A process named so that another one with the same number later is not taken for it
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{fs, str::FromStr};

/// A process: its number, and when it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: u32,
    /// Clock ticks from boot to its start.
    started_ticks: u64,
}

impl Process {
    /// The process that has this number now.
    pub(super) fn of(pid: u32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = after_name(&stat)?.split(' ');
        // A zombie has ended; its parent has just not looked yet.
        let is_over = fields.next().is_none_or(|state| state == "Z" || state == "X");
        let started_ticks = fields.nth(18)?.parse().ok()?;
        (!is_over).then_some(Process { pid, started_ticks })
    }

    pub(super) fn lives(self) -> bool {
        Process::of(self.pid) == Some(self)
    }

    /// Sends a signal, to this process or to nobody.
    pub(super) fn signal(self, signal: Signal) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        // The handle is of whoever has the number now; from here on that cannot change.
        if self.lives() {
            // It may end at this moment, which is what we want.
            let _ = pidfd_send_signal(handle, signal);
        }
    }

    /// What the kernel calls it, for people; its number if it has gone.
    pub(super) fn shown(self) -> String {
        match fs::read_to_string(format!("/proc/{}/comm", self.pid)) {
            Ok(name) => format!("{} (process {})", name.trim(), self.pid),
            Err(_) => format!("process {}", self.pid),
        }
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.pid, self.started_ticks)
    }
}

impl FromStr for Process {
    type Err = ();

    fn from_str(text: &str) -> Result<Process, ()> {
        let (pid, started) = text.trim().split_once(' ').ok_or(())?;
        Ok(Process { pid: pid.parse().map_err(|_| ())?, started_ticks: started.parse().map_err(|_| ())? })
    }
}

/// The fields after the name, which stands in brackets and may hold brackets itself; they begin with the state.
fn after_name(stat: &str) -> Option<&str> {
    stat.rsplit_once(") ").map(|(_, after)| after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, id};

    /// Shows that a process is found again by its text, and that one of another start is not taken for it.
    #[test]
    fn a_number_alone_is_no_name() {
        let me = Process::of(id()).expect("this process lives");
        let again: Process = me.to_string().parse().expect("it was just written");
        assert!(again == me && again.lives());
        let other = Process { started_ticks: me.started_ticks + 1, ..me };
        assert!(!other.lives());
        // Would end this test if it reached it.
        other.signal(Signal::KILL);
        assert!("12".parse::<Process>().is_err() && "a b".parse::<Process>().is_err());
    }

    /// Shows that a signal arrives, and that a process that ended and was not looked at counts as gone.
    #[test]
    fn a_zombie_is_gone() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep is there");
        let process = Process::of(child.id()).expect("it was just started");
        assert!(process.lives());
        process.signal(Signal::KILL);
        let ended = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            !process.lives()
        });
        assert!(ended);
        child.wait().expect("it ended");
    }
}

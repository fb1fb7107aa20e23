//! How several agents share one machine
use meso_core::resources::{BadResources, Milli, Resources, parse_total};
use rustix::fs::statvfs;
use std::{fs, path::Path, thread};

/// Agents on one machine at most; more would get too few ports each, and it has not the processors for more.
pub const AGENTS_MAX: u32 = 64;
/// The ports that the agents of one machine give to tasks, as Mesos's agents do.
const PORTS: (u16, u16) = (31000, 32000);
const MIB: u64 = 1024 * 1024;
/// What is left to the machine itself: so much where there is twice as much, else half.
const MEM_LEFT_MIB: u64 = 1024;
const DISK_LEFT_MIB: u64 = 5 * 1024;
/// An agent below one processor could not run a task that does not say what it needs.
const CPUS_MIN: Milli = Milli::units(1);

/// What there is to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    cpus: u64,
    mem_mib: u64,
    disk_mib: u64,
}

impl Machine {
    /// This machine, with the disk that a path is on; what cannot be found out counts as nothing.
    pub(super) fn here(path: &Path) -> Machine {
        let disk = statvfs(path).map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize) / MIB);
        Machine {
            cpus: thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
            mem_mib: fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total_mib(&text)).unwrap_or(0),
            disk_mib: disk,
        }
    }

    /// What agent `number` of `count`, from 1, says it has: what is wished for, and of each other kind its part of the machine.
    ///
    /// # Errors
    /// The wish is not what an agent can have.
    pub(super) fn share(&self, number: u32, count: u32, wish: Option<&str>) -> Result<Resources, BadResources> {
        let part = parse_total(&self.part(number, count))?;
        let wish = wish.map_or_else(|| Ok(Resources::default()), parse_total)?;
        let or = |wished: Milli, part: Milli| if wished == Milli::default() { part } else { wished };
        Ok(Resources {
            cpus: or(wish.cpus, part.cpus),
            mem: or(wish.mem, part.mem),
            disk: or(wish.disk, part.disk),
            ports: if wish.ports.is_empty() { part.ports } else { wish.ports },
            ..wish
        })
    }

    /// A fair part, and ports that no other has.
    ///
    /// Processors are shares, not walls: where there are fewer than agents, each agent has one all the same.
    fn part(&self, number: u32, count: u32) -> String {
        let thousandths = i64::try_from(self.cpus * 1000 / u64::from(count)).unwrap_or(i64::MAX);
        let cpus = Milli::from_milli(thousandths).unwrap_or(CPUS_MIN).max(CPUS_MIN);
        let part = |mib: u64, left_mib: u64| (if mib >= 2 * left_mib { mib - left_mib } else { mib / 2 }) / u64::from(count);
        let mem = part(self.mem_mib, MEM_LEFT_MIB);
        let disk = part(self.disk_mib, DISK_LEFT_MIB);
        let width = u32::from(PORTS.1 - PORTS.0 + 1) / count;
        let first = u32::from(PORTS.0) + (number - 1) * width;
        format!("cpus={cpus},mem={mem},disk={disk},ports=[{first}-{}]", first + width - 1)
    }
}

fn mem_total_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that the parts are what an agent reads, that ports never overlap, and that memory is never given twice.
    #[test]
    fn parts_of_a_machine() {
        let machine = Machine { cpus: 8, mem_mib: 16 * 1024, disk_mib: 100 * 1024 };
        assert_eq!(machine.part(2, 3), "cpus=2.666,mem=5120,disk=32426,ports=[31333-31665]");
        for count in [1, 2, 3, 7, AGENTS_MAX] {
            let parts: Vec<_> = (1..=count).map(|number| machine.share(number, count, None).expect("an agent reads it")).collect();
            let mem: i64 = parts.iter().map(|part| part.mem.as_milli()).sum();
            assert!(mem <= Milli::units(15 * 1024).as_milli());
            for (at, part) in parts.iter().enumerate() {
                assert!(parts.iter().skip(at + 1).all(|other| part.ports.intersection(&other.ports).is_empty()), "{count}");
            }
        }
    }

    /// Shows that what is wished for replaces its part and leaves the others, ports above all, apart.
    #[test]
    fn a_wish_goes_before_the_part() {
        let machine = Machine { cpus: 8, mem_mib: 16 * 1024, disk_mib: 100 * 1024 };
        let has = machine.share(2, 3, Some("cpus=1,mem=256M,licenses=2")).expect("it can be had");
        assert_eq!(has.to_string(), "cpus=1,mem=256,disk=32426,ports=[31333-31665],licenses=2");
        assert!(machine.share(1, 3, Some("cpus=-1")).is_err());
    }

    /// Shows that on a small machine each agent still has a processor to give, and that half of the memory stays.
    #[test]
    fn a_small_machine() {
        let machine = Machine { cpus: 2, mem_mib: 1500, disk_mib: 4000 };
        assert_eq!(machine.part(3, 3), "cpus=1,mem=250,disk=666,ports=[31666-31998]");
        assert_eq!(mem_total_mib("MemTotal:       16384000 kB\nMemFree: 1 kB\n"), Some(16000));
        assert!(Machine::here(Path::new("/")).mem_mib > 16);
    }
}

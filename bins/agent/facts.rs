//! What this machine has to give (Mesos 1.5), and what of it the operator says otherwise.

use std::path::Path;

use meso_cage::machine;
use meso_cli::Failure;
use meso_core::resources::{Milli, Ports, Resources, parse_total};

/// Mesos keeps 1 GB of memory for the system if there are at least 2, else half.
const MEM_KEPT_MIB: u64 = 1024;
/// Mesos keeps 5 GB of disk for the system if there are at least 10, else half.
const DISK_KEPT_MIB: u64 = 5 * 1024;
/// What counts where the machine does not tell.
const MEM_FALLBACK_MIB: u64 = 1024;
/// See [`MEM_FALLBACK_MIB`].
const DISK_FALLBACK_MIB: u64 = 10 * 1024;
/// Mesos's range of ports.
const PORTS: (u16, u16) = (31_000, 32_000);

fn less_kept(total: u64, kept: u64) -> u64 {
    if total >= 2 * kept { total - kept } else { total / 2 }
}

/// All that the agent gives: found, or as `given` says, kind by kind.
pub fn total(work_dir: &Path, given: Option<&str>) -> Result<Resources, Failure> {
    let found = Resources {
        cpus: Milli::units(machine::cpus() as u64),
        mem: Milli::units(machine::mem_mib().map_or(MEM_FALLBACK_MIB, |mib| less_kept(mib, MEM_KEPT_MIB))),
        disk: Milli::units(machine::disk_mib(work_dir).map_or(DISK_FALLBACK_MIB, |mib| less_kept(mib, DISK_KEPT_MIB))),
        ports: Ports::range(PORTS.0, PORTS.1).unwrap_or_default(),
        ..Resources::default()
    };
    let Some(text) = given else { return Ok(found) };
    let said = parse_total(text).map_err(|error| Failure::usage(error.to_string()).hint("-R cpus=4,mem=8G,disk=100G,ports=[31000-31999]"))?;
    // Flags override what was found by name, as in Mesos.
    let names = |name: &str| text.split([',', ';']).any(|part| part.trim_start().starts_with(&format!("{name}=")) || part.trim_start().starts_with(&format!("{name}:")));
    Ok(Resources {
        cpus: if names("cpus") { said.cpus } else { found.cpus },
        mem: if names("mem") { said.mem } else { found.mem },
        disk: if names("disk") { said.disk } else { found.disk },
        ports: if names("ports") { said.ports } else { found.ports },
        gpus: said.gpus,
        other: said.other,
    })
}

#[cfg(test)]
mod tests {
    use super::{less_kept, total};

    /// Shows Mesos's rule: the system's part is kept if there is twice as much, else half is given.
    #[test]
    fn kept() {
        assert_eq!([less_kept(24_000, 1024), less_kept(2048, 1024), less_kept(2047, 1024), less_kept(0, 1024)], [22_976, 1024, 1023, 0]);
    }

    /// Shows that a flag overrides what was found by name, and only by name.
    #[test]
    fn overridden() {
        let found = total(std::path::Path::new("/"), None).expect("finds");
        let said = total(std::path::Path::new("/"), Some("cpus=7.5,licenses=3")).expect("reads");
        assert_eq!((said.cpus.as_milli(), said.mem), (7500, found.mem));
        assert_eq!(said.other.get("licenses").map(|amount| amount.whole_units()), Some(3));
        assert!(total(std::path::Path::new("/"), Some("cpus=-1")).is_err());
    }
}

//! What a container uses at this moment
use crate::{
    cage::Cage,
    layout::Layout,
    leaf::{Leaf, read_small},
    spec::parse_number,
};
use std::path::Path;

/// What a container uses; `None` where nothing counts it
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InUse {
    /// Processor time of all its processes since it began, also of those that are gone
    pub cpu_us: Option<u64>,
    /// Memory that cannot be taken from it: what is kept of files only for speed is left out
    pub mem_bytes: Option<u64>,
}

impl Cage {
    /// What a container uses; nothing is known of one that is not there
    pub fn in_use(&self, id: &str) -> InUse {
        let Some(layout) = self.layout.as_ref().filter(|_| crate::spec::is_id(id)) else { return InUse::default() };
        let leaf = layout.leaf(id);
        InUse { cpu_us: leaf.cpu_us(), mem_bytes: leaf.mem_bytes() }
    }

    /// Whether this machine counts what a container uses, processors and memory both
    pub fn counts_use(&self) -> bool {
        self.layout.as_ref().is_some_and(Layout::counts_use)
    }
}

impl Layout {
    fn counts_use(&self) -> bool {
        let cpu = self.unified.as_deref().is_some_and(|dir| dir.join("cpu.stat").exists()) || self.cpu.as_deref().is_some_and(|dir| dir.join("cpuacct.usage").exists());
        cpu && self.memory.is_some()
    }
}

impl Leaf {
    fn cpu_us(&self) -> Option<u64> {
        // Version 2 counts it in every cgroup; in version 1 it is another controller's, mostly mounted along with `cpu`.
        let of_v2 = self.unified.as_deref().and_then(|dir| entry(&read_small(&dir.join("cpu.stat"))?, "usage_usec"));
        let of_v1 = || self.v1.iter().find_map(|dir| Some(number(dir, "cpuacct.usage")? / 1000));
        of_v2.or_else(of_v1)
    }

    fn mem_bytes(&self) -> Option<u64> {
        let dir = self.memory.as_deref()?;
        let (all, files, kept) = if self.memory_v2 { ("memory.current", "file", "shmem") } else { ("memory.usage_in_bytes", "total_cache", "total_shmem") };
        let all = number(dir, all)?;
        let stat = read_small(&dir.join("memory.stat")).unwrap_or_default();
        // Files in memory that are nowhere else count as files, but cannot be dropped.
        let droppable = entry(&stat, files).unwrap_or(0).saturating_sub(entry(&stat, kept).unwrap_or(0));
        Some(all.saturating_sub(droppable))
    }
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    parse_number(read_small(&dir.join(file))?.trim_ascii())
}

/// The number of a line `key number`
fn entry(text: &[u8], key: &str) -> Option<u64> {
    text.split(|byte| *byte == b'\n').find_map(|line| parse_number(line.strip_prefix(key.as_bytes())?.strip_prefix(b" ")?))
}

#[cfg(test)]
mod tests {
    use super::entry;

    /// A key is found as a whole, and what is no number is none
    #[test]
    fn entries() {
        let text = b"cache 7\ntotal_cache 12\nshmem -3\ntotal_cache 13\n";
        assert_eq!((entry(text, "cache"), entry(text, "total_cache"), entry(text, "shmem"), entry(text, "total")), (Some(7), Some(12), None, None));
    }
}

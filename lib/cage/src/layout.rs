//! How this machine's cgroups are laid out, and where below them ours live
use crate::{error::CageError, leaf::{Leaf, Limits}, spec::Spec};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

const MOUNT: &str = "/sys/fs/cgroup";
/// The agent moves itself here when it is given a cgroup of its own: a cgroup with children that have
/// controllers may not hold processes itself
const AGENT_LEAF: &str = "meso-agent";
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Which generation of cgroups is here
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generation {
    V1,
    /// Controllers in version 1, and a version 2 tree beside them that tracks and kills
    Hybrid,
    V2,
}

/// The directories below which each container gets a leaf
#[derive(Debug)]
pub(crate) struct Layout {
    pub generation: Generation,
    /// Version 1 parents; in version 2 the same directory for each controller that is granted
    pub cpu: Option<PathBuf>,
    pub memory: Option<PathBuf>,
    pub pids: Option<PathBuf>,
    pub freezer: Option<PathBuf>,
    /// The version 2 parent
    pub unified: Option<PathBuf>,
    /// Version 1 memory can limit swap too
    pub swap_limit: bool,
    /// How many levels of the parents are ours
    depth: usize,
    /// What the operator should know: controllers that are missing
    pub notices: Vec<String>,
}

impl Layout {
    /// Finds the layout and makes the parents
    pub(crate) fn open(parent: &str) -> Result<Layout, CageError> {
        let layout = if is_unified(Path::new(MOUNT)) { Layout::open_v2(parent)? } else { Layout::open_v1(parent)? };
        // The parents were there before us, perhaps: being allowed to make a leaf is what counts.
        for dir in layout.parents() {
            let probe = dir.join(format!("probe_{}", std::process::id()));
            fs::create_dir(&probe).map_err(|e| refused(&probe, &e))?;
            fs::remove_dir(&probe).map_err(|e| refused(&probe, &e))?;
        }
        Ok(layout)
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.generation {
            Generation::V1 => "cgroups-v1",
            Generation::Hybrid => "cgroups-hybrid",
            Generation::V2 => "cgroups-v2",
        }
    }

    /// The paths a container of this id has or would have
    pub(crate) fn leaf(&self, id: &str) -> Leaf {
        let below = |p: &Option<PathBuf>| p.as_ref().map(|p| p.join(id));
        let v1 = match self.generation {
            Generation::V2 => Vec::new(),
            _ => [&self.cpu, &self.memory, &self.pids, &self.freezer].into_iter().filter_map(below).collect(),
        };
        Leaf { unified: below(&self.unified), memory: below(&self.memory), memory_v2: self.generation == Generation::V2, freezer: below(&self.freezer), v1 }
    }

    /// Makes the leaf and sets its limits; on failure nothing of it is left
    pub(crate) fn make(&self, spec: &Spec) -> Result<Leaf, crate::LaunchError> {
        let leaf = self.leaf(&spec.id);
        let below = |p: &Option<PathBuf>| p.as_ref().map(|p| p.join(&spec.id));
        let (cpu, memory, pids) = (below(&self.cpu), below(&self.memory), below(&self.pids));
        let limits = Limits { cpu: cpu.as_deref(), memory: memory.as_deref(), pids: pids.as_deref(), v2: leaf.memory_v2, swap: self.swap_limit };
        leaf.make().and_then(|()| limits.set(spec)).inspect_err(|_| leaf.remove())?;
        Ok(leaf)
    }

    /// The directories that hold leaves, and those above them that are ours, innermost first
    pub(crate) fn own_dirs(&self) -> impl Iterator<Item = &Path> {
        self.parents().into_iter().flat_map(|dir| dir.ancestors().take(self.depth))
    }

    /// Every directory that holds leaves, each once
    pub(crate) fn parents(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = [&self.cpu, &self.memory, &self.pids, &self.freezer, &self.unified].into_iter().flatten().map(PathBuf::as_path).collect();
        all.sort();
        all.dedup();
        all
    }

    fn open_v1(parent: &str) -> Result<Layout, CageError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| CageError::file("read", "/proc/self/mountinfo", e))?;
        let mounts = Mounts::parse(&mounts);
        let mut notices = Vec::new();
        let mut below = |controller: &str| -> Result<Option<PathBuf>, CageError> {
            match mounts.v1(controller) {
                Some(mount) => make_parents(&mount, parent).map(Some),
                None => {
                    notices.push(format!("the {controller} cgroup controller is not mounted: tasks are not held to it"));
                    Ok(None)
                }
            }
        };
        let (cpu, memory, pids) = (below("cpu")?, below("memory")?, below("pids")?);
        let unified = mounts.unified().and_then(|m| make_parents(&m, parent).ok()).filter(|dir| dir.join("cgroup.kill").exists());
        // Without a version 2 tree the freezer is what stops a container from outrunning its end.
        let freezer = if unified.is_none() { below("freezer")? } else { None };
        if cpu.is_none() && memory.is_none() && pids.is_none() && unified.is_none() && freezer.is_none() {
            return Err(CageError::Cgroups { why: "none is mounted".into() });
        }
        let swap_limit = memory.as_ref().is_some_and(|dir| dir.join("memory.memsw.limit_in_bytes").exists());
        if memory.is_some() && !swap_limit {
            notices.push("the kernel does not count swap: memory limits hold for memory alone".into());
        }
        let generation = if unified.is_some() { Generation::Hybrid } else { Generation::V1 };
        Ok(Layout { generation, cpu, memory, pids, freezer, unified, swap_limit, depth: levels(parent).count(), notices })
    }

    fn open_v2(parent: &str) -> Result<Layout, CageError> {
        let mut dir = unified_base()?;
        for level in levels(parent) {
            grant(&dir);
            dir.push(level);
            make_dir(&dir)?;
        }
        grant(&dir);
        let granted = fs::read_to_string(dir.join("cgroup.subtree_control")).map_err(|e| refused(&dir, &e))?;
        let mut notices = Vec::new();
        let mut held = |controller: &str| {
            let is_granted = granted.split_whitespace().any(|c| c == controller);
            if !is_granted {
                notices.push(format!("the {controller} cgroup controller is not granted in {}: tasks are not held to it", dir.display()));
            }
            is_granted.then(|| dir.clone())
        };
        let (cpu, memory, pids) = (held("cpu"), held("memory"), held("pids"));
        Ok(Layout { generation: Generation::V2, cpu, memory, pids, freezer: None, unified: Some(dir), swap_limit: true, depth: levels(parent).count(), notices })
    }
}

/// The version 2 cgroup under which we may build
///
/// If the service manager delegated us a cgroup, that one; the agent then moves into a leaf of it, for
/// the kernel's rule that only leaves hold processes. Otherwise, as root, the root of the tree.
fn unified_base() -> Result<PathBuf, CageError> {
    let own = fs::read_to_string("/proc/self/cgroup").map_err(|e| CageError::file("read", "/proc/self/cgroup", e))?;
    let own = own.lines().find_map(|l| l.strip_prefix("0::/")).unwrap_or_default();
    let dir = Path::new(MOUNT).join(own);
    if own.is_empty() {
        return Ok(dir);
    }
    if let Some(above) = dir.parent().filter(|_| dir.ends_with(AGENT_LEAF)).filter(|above| is_delegated(above)) {
        return Ok(above.to_owned());
    }
    if is_delegated(&dir) {
        let leaf = dir.join(AGENT_LEAF);
        make_dir(&leaf)?;
        fs::write(leaf.join("cgroup.procs"), std::process::id().to_string()).map_err(|e| refused(&leaf, &e))?;
        return Ok(dir);
    }
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from(MOUNT));
    }
    Err(CageError::Cgroups { why: format!("{} is not delegated to us (a service wants Delegate=yes)", dir.display()) })
}

/// Whether somebody above handed this cgroup to us, by the mark systemd leaves or by ownership
fn is_delegated(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let euid = nix::unistd::geteuid();
    if !euid.is_root() {
        return fs::metadata(dir.join("cgroup.subtree_control")).is_ok_and(|m| m.uid() == euid.as_raw());
    }
    ["user.delegate", "trusted.delegate"].iter().any(|name| crate::leaf::attribute_is_one(dir, name))
}

/// Passes on what controllers there are, one by one: a missing one must not hold back the others
fn grant(dir: &Path) {
    for controller in CONTROLLERS {
        // What is not granted is noticed by reading the list back.
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn make_parents(mount: &Path, parent: &str) -> Result<PathBuf, CageError> {
    let mut dir = mount.to_owned();
    for level in levels(parent) {
        dir.push(level);
        make_dir(&dir)?;
    }
    Ok(dir)
}

fn levels(parent: &str) -> impl Iterator<Item = &str> {
    parent.split('/').filter(|l| !l.is_empty())
}

fn make_dir(dir: &Path) -> Result<(), CageError> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(refused(dir, &e)),
        _ => Ok(()),
    }
}

fn refused(dir: &Path, e: &io::Error) -> CageError {
    CageError::Cgroups { why: format!("{}: {e}", dir.display()) }
}

fn is_unified(mount: &Path) -> bool {
    statfs(mount).is_ok_and(|s| s.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// The cgroup mounts of a `mountinfo`
struct Mounts<'a> {
    /// Mount point, type, options of the superblock
    list: Vec<(&'a str, &'a str, &'a str)>,
}

impl<'a> Mounts<'a> {
    fn parse(text: &'a str) -> Mounts<'a> {
        let line = |line: &'a str| {
            let (place, kind) = line.split_once(" - ")?;
            let mut kind = kind.split(' ');
            let point = place.split(' ').nth(4)?;
            Some((point, kind.next()?, kind.nth(1)?))
        };
        Mounts { list: text.lines().filter_map(line).filter(|m| m.1.starts_with("cgroup")).collect() }
    }

    fn v1(&self, controller: &str) -> Option<PathBuf> {
        self.list.iter().find(|m| m.1 == "cgroup" && m.2.split(',').any(|o| o == controller)).map(|m| PathBuf::from(m.0))
    }

    fn unified(&self) -> Option<PathBuf> {
        self.list.iter().find(|m| m.1 == "cgroup2").map(|m| PathBuf::from(m.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Controllers are found by the options of their mount, also when two share one, and `cpu` is not `cpuset`
    #[test]
    fn mounts_are_found() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                    34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
                    32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:10 - cgroup cgroup rw,cpu,cpuacct\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let mounts = Mounts::parse(text);
        assert_eq!(mounts.v1("cpu"), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(mounts.v1("memory"), None);
        assert_eq!(mounts.unified(), Some("/sys/fs/cgroup/unified".into()));
    }
}

//! What cgroups this machine has, whether an agent may use them, and what of them nobody looks after any more.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{Access, access};

use crate::finding::{Finding, few};

const MOUNT: &str = "/sys/fs/cgroup";
/// What holds a task to its resources.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Below this an agent has a directory of its own, and below that each container.
const OURS: &str = "meso";
/// What the kernel calls the process that stands over a task; its working directory is the container's.
const SUPERVISOR: &str = "meso-supervisor";
/// A container that is just made or removed looks like one that was left: only what is there after this too was.
const LOOK_AGAIN: Duration = Duration::from_millis(1_000);

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    /// Mount points of version 1, by controller, as far as they are among [`CONTROLLERS`].
    v1: Vec<(&'static str, PathBuf)>,
    /// Mount point of version 2.
    v2: Option<PathBuf>,
    /// Controllers that version 2 has there.
    v2_controllers: Vec<String>,
    is_root: bool,
    /// The cgroup of version 2 that we are in is ours to divide.
    is_delegated: bool,
    /// Mount points that cannot be written though we are root.
    read_only: Vec<PathBuf>,
}

/// Looks at the cgroups of this machine; takes a second if something seems to be left.
pub fn look() -> Vec<Finding> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let facts = Facts::here(&mounts);
    vec![facts.judged(), of_left(&left(&trees(&mounts)))]
}

impl Facts {
    fn here(mounts: &str) -> Facts {
        let (v1, v2) = (v1(mounts), v2(mounts));
        let controllers = v2.as_ref().and_then(|mount| fs::read_to_string(mount.join("cgroup.controllers")).ok()).unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let euid = rustix::process::geteuid();
        let is_ours = |mount: &PathBuf| fs::metadata(mount.join(own).join("cgroup.subtree_control")).is_ok_and(|facts| facts.uid() == euid.as_raw());
        let is_delegated = !own.is_empty() && v2.as_ref().is_some_and(is_ours);
        let all = v1.iter().map(|(_, mount)| mount).chain(&v2);
        let read_only = if euid.is_root() { all.filter(|mount| access(*mount, Access::WRITE_OK).is_err()).cloned().collect() } else { Vec::new() };
        Facts { v1, v2, v2_controllers: controllers.split_whitespace().map(str::to_owned).collect(), is_root: euid.is_root(), is_delegated, read_only }
    }

    fn name(&self) -> Option<&'static str> {
        match (self.v1.is_empty(), &self.v2) {
            (true, None) => None,
            (true, Some(_)) => Some("version 2"),
            (false, Some(_)) => Some("version 1, with version 2 beside it"),
            (false, None) => Some("version 1"),
        }
    }

    fn judged(&self) -> Finding {
        let processes = "tasks are held to process groups and resource limits only";
        let Some(name) = self.name() else {
            return Finding::warn("cgroups", format!("there are none: {processes}"), format!("mount -t cgroup2 none {MOUNT}, as root"));
        };
        if !self.is_root && !(self.is_delegated && self.v1.is_empty()) {
            return Finding::warn("cgroups", format!("{name}, not for us to use: {processes}"), "meso-agent as root, or systemd-run --user --scope -p Delegate=yes meso-agent");
        }
        if !self.read_only.is_empty() {
            let shown: Vec<String> = self.read_only.iter().map(|mount| mount.display().to_string()).collect();
            return Finding::warn("cgroups", format!("{name}, read-only: {}; {processes}", few(&shown)), format!("mount -o remount,rw {}", shown.join(" ")));
        }
        let has = |controller: &str| self.v1.iter().any(|(name, _)| *name == controller) || (self.v1.is_empty() && self.v2_controllers.iter().any(|name| name == controller));
        let missing: Vec<String> = CONTROLLERS.iter().filter(|controller| !has(controller)).map(ToString::to_string).collect();
        match missing.is_empty() {
            true => Finding::ok("cgroups", format!("{name}, with {}", CONTROLLERS.join(", "))),
            false => Finding::warn("cgroups", format!("{name}, without {}: tasks are not held to it", few(&missing)), "a kernel command line without cgroup_disable, or a container that is given them"),
        }
    }
}

/// Mount point, type and options of each cgroup mount in a `mountinfo`.
fn mounted(mounts: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let of_line = |line| {
        let (place, kind): (&str, &str) = str::split_once(line, " - ")?;
        let mut kind = kind.split(' ');
        Some((place.split(' ').nth(4)?, kind.next()?, kind.nth(1)?))
    };
    mounts.lines().filter_map(of_line).filter(|(_, kind, _)| kind.starts_with("cgroup"))
}

fn v1(mounts: &str) -> Vec<(&'static str, PathBuf)> {
    let of_controller = |controller: &'static str| mounted(mounts).find(|(_, kind, options)| *kind == "cgroup" && options.split(',').any(|option| option == controller)).map(|(mount, ..)| (controller, mount.into()));
    CONTROLLERS.into_iter().filter_map(of_controller).collect()
}

fn v2(mounts: &str) -> Option<PathBuf> {
    mounted(mounts).find(|(_, kind, _)| *kind == "cgroup2").map(|(mount, ..)| mount.into())
}

/// Every hierarchy, as containers are in several.
fn trees(mounts: &str) -> Vec<PathBuf> {
    mounted(mounts).map(|(mount, ..)| mount.into()).collect()
}

/// Containers' cgroups over which nobody stands: seen twice, for one that is just made or removed looks so too.
fn left(trees: &[PathBuf]) -> Vec<PathBuf> {
    let seen = unattended(trees);
    if seen.is_empty() {
        return Vec::new();
    }
    sleep(LOOK_AGAIN);
    let again: BTreeSet<PathBuf> = unattended(trees).into_iter().collect();
    seen.into_iter().filter(|dir| again.contains(dir)).collect()
}

fn unattended(trees: &[PathBuf]) -> Vec<PathBuf> {
    // Listed before the supervisors: one that comes in between stands over what comes in between.
    let all: Vec<PathBuf> = trees.iter().flat_map(|tree| folders(&tree.join(OURS))).flat_map(|agent| folders(&agent)).collect();
    let attended = if all.is_empty() { BTreeSet::new() } else { attended() };
    all.into_iter().filter(|dir| dir.file_name().is_some_and(|name| !attended.contains(&*name.to_string_lossy()))).collect()
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// The containers that have a supervisor.
fn attended() -> BTreeSet<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let supervisors = processes.filter(|process| fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == SUPERVISOR));
    let directory = |process: PathBuf| fs::read_link(process.join("cwd")).ok()?.file_name().map(|name| name.to_string_lossy().trim_end_matches(" (deleted)").to_owned());
    supervisors.filter_map(directory).collect()
}

fn of_left(left: &[PathBuf]) -> Finding {
    let ids: BTreeSet<String> = left.iter().filter_map(|dir| dir.file_name()).map(|name| name.to_string_lossy().into_owned()).collect();
    if ids.is_empty() {
        return Finding::ok("containers", "no cgroup of a task is left without its supervisor");
    }
    let ids: Vec<String> = ids.into_iter().collect();
    let agents: BTreeSet<String> = left.iter().filter_map(|dir| dir.parent()).map(|dir| dir.display().to_string()).collect();
    let dirs: Vec<String> = agents.into_iter().collect();
    let by_hand = format!("for dir in {}; do cat $dir/*/cgroup.procs | xargs -r kill -9; sleep 1; rmdir $dir/*; done", dirs.join(" "));
    let next_step = format!("meso-agent on its own work directory, which clears them; if that is gone: {by_hand}");
    Finding::warn("containers", format!("cgroups of tasks without a supervisor: {}", few(&ids)), next_step).about(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    /// Shows that mounts are found by their options, also when two controllers share one, and `cpu` is not `cpuset`.
    #[test]
    fn mounts() {
        assert_eq!(v1(HYBRID), [("cpu", "/sys/fs/cgroup/cpu,cpuacct".into()), ("memory", "/sys/fs/cgroup/memory".into())]);
        assert_eq!(v2(HYBRID), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(trees(HYBRID).len(), 4);
        assert_eq!((v1(""), v2("no such line")), (vec![], None));
    }

    /// Shows each verdict: all is there, one controller is missing, read-only, not ours, delegated, none.
    #[test]
    fn verdicts() {
        let all = CONTROLLERS.map(|controller| (controller, PathBuf::from("/c").join(controller))).to_vec();
        let root = Facts { is_root: true, ..Facts::default() };
        let v2 = Facts { v2: Some("/c".into()), v2_controllers: CONTROLLERS.map(str::to_owned).to_vec(), ..root.clone() };
        assert_eq!(Facts { v1: all.clone(), ..root.clone() }.judged().state, State::Ok);
        assert_eq!(v2.judged().state, State::Ok);
        let missing = Facts { v1: all[..2].to_vec(), ..v2.clone() }.judged();
        assert!(missing.state == State::Warn && missing.saw.contains("without pids"), "{missing:?}");
        assert!(Facts { read_only: vec!["/c".into()], ..v2.clone() }.judged().next_step.is_some_and(|next| next.ends_with("rw /c")));
        assert_eq!(Facts { is_root: false, ..v2.clone() }.judged().state, State::Warn);
        assert_eq!(Facts { is_root: false, is_delegated: true, ..v2 }.judged().state, State::Ok);
        assert_eq!(root.judged().state, State::Warn);
    }

    /// Shows that what has no supervisor is found in every hierarchy, named once, and told with what removes it.
    #[test]
    fn what_is_left() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let trees: Vec<PathBuf> = ["cpu", "memory"].map(|tree| folder.path().join(tree)).to_vec();
        for tree in &trees {
            fs::create_dir_all(tree.join("meso/agent_1/task_left")).expect("it is ours");
        }
        let found = left(&trees);
        assert_eq!(found.len(), 2);
        let told = of_left(&found);
        assert_eq!((told.state, told.ids.as_slice()), (State::Warn, &["task_left".to_owned()][..]));
        assert!(told.next_step.is_some_and(|next| next.contains(&format!("{}/meso/agent_1", trees[0].display()))));
        assert_eq!(of_left(&left(&[folder.path().join("none")])).state, State::Ok);
    }
}

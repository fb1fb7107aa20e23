//! What to run: the agent's [`Spec`], and the file that carries it to the supervisor
//!
//! The file is a fixed head, into which the supervisor writes who it is, and then fields that each end in a NUL
//! byte. So the supervisor reads it once and hands pointers into that one buffer to `execve`, and a person
//! reads it with `tr '\0' '\n'`.
use crate::{error::LaunchError, exit::push_number, leaf::Leaf};
use serde::{Deserialize, Serialize};
use std::{ffi::CStr, path::Path, path::PathBuf};

/// A task to run
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Name of the container's directory and cgroup
    pub id: String,
    /// The command and its arguments; a name without a slash is looked for in the task's own `PATH`
    pub argv: Vec<String>,
    /// The complete environment
    pub env: Vec<(String, String)>,
    /// Where the command runs; must be there
    pub cwd: PathBuf,
    /// Whether standard input comes through the container's socket; otherwise it is `/dev/null`
    pub stdin: bool,
    /// Whether somebody reads the output as it comes: then a full log makes the task wait for the reader
    pub attached: bool,
    /// User and group to become
    pub user: Option<(u32, u32)>,
    /// Share of processors in thousandths; a weight, not a limit
    pub cpu_milli: u64,
    /// Whether it runs only on what others leave: it has the least weight there is, and dies first when memory runs out
    pub yields: bool,
    /// Hard limit of processors in thousandths
    pub cpu_limit_milli: Option<u64>,
    /// Hard limit of memory; without a memory cgroup a limit of each process's own writable memory (`RLIMIT_DATA`)
    pub mem_bytes: Option<u64>,
    /// Hard limit of processes and threads
    pub pids_max: Option<u64>,
    /// The task is killed when it has run so long
    pub timeout_ms: Option<u64>,
    /// Time between SIGTERM and SIGKILL when nobody says otherwise
    pub kill_grace_ms: u64,
    /// How much of each output stream is kept
    pub log_cap_bytes: u64,
    /// Limit of open files, if not the agent's own
    pub rlimit_nofile: Option<u64>,
    /// Limit of core file size, if not the agent's own
    pub rlimit_core: Option<u64>,
}

/// More than the kernel's own limit for arguments and environment together
pub(crate) const SPEC_BYTES_MAX: usize = 8 << 20;
/// The head: the supervisor's process number in the first half, the task's in the second
pub(crate) const HEAD_BYTES: usize = 64;
pub(crate) const HEAD_TASK_AT: usize = 32;
/// A name without a slash is looked for here when the task's environment has no PATH
const PATH_DEFAULT: &[u8] = b"/usr/local/bin:/usr/bin:/bin";
/// Whoever has it is killed first when the machine runs out of memory
pub(crate) const OOM_SCORE_MAX: u64 = 1000;
const VERSION: &[u8] = b"meso-spec/2";
const LAST_FIELD: &[u8] = b"end";

/// What the agent adds to a spec: facts of this machine and this boot
pub(crate) struct Surroundings<'a> {
    pub boot_id: &'a str,
    pub container_dir: &'a Path,
    pub leaf: &'a Leaf,
    /// Where output goes, if not into the container's directory
    pub output_dir: Option<&'a Path>,
    /// The agent's own oom_score_adj is not 0 and the task must not inherit it
    pub oom_reset: bool,
}

impl Spec {
    /// Refuses what no kernel could run, naming it
    pub(crate) fn check(&self) -> Result<(), LaunchError> {
        let bad = |why: String| Err(LaunchError::BadSpec { why });
        if !is_id(&self.id) {
            return bad(format!("{:?} is not a container id: 1 to 64 of A-Z a-z 0-9 _ -, beginning with a letter or digit", self.id));
        }
        if self.argv.first().is_none_or(String::is_empty) {
            return bad("the command is empty".into());
        }
        if let Some(arg) = self.argv.iter().find(|a| a.contains('\0')) {
            return bad(format!("the argument {:?} holds a NUL byte", shortened(arg)));
        }
        for (key, value) in &self.env {
            if key.is_empty() || key.contains(['\0', '=']) || value.contains('\0') {
                return bad(format!("the environment variable {:?} cannot be passed on", shortened(key)));
            }
        }
        if !self.cwd.is_absolute() || path_bytes(&self.cwd).contains(&0) {
            return bad(format!("the working directory {:?} is not an absolute path", self.cwd));
        }
        Ok(())
    }

    /// Puts the file's bytes; the head is blank
    pub(crate) fn encode(&self, around: &Surroundings<'_>) -> Result<Vec<u8>, LaunchError> {
        let mut file = Vec::with_capacity(4096);
        file.resize(HEAD_BYTES, b' ');
        file[HEAD_TASK_AT - 1] = b'\n';
        file[HEAD_BYTES - 1] = b'\n';
        let mut put = |field: &[u8]| {
            file.extend_from_slice(field);
            file.push(0);
        };
        put(VERSION);
        put(around.boot_id.as_bytes());
        put(path_bytes(&self.cwd));
        put(around.output_dir.map(path_bytes).unwrap_or_default());
        let flag = |on: bool| Some(u64::from(on));
        for number in [
            flag(self.stdin),
            flag(self.attached),
            self.user.map(|u| u64::from(u.0)),
            self.user.map(|u| u64::from(u.1)),
            self.timeout_ms,
            Some(self.kill_grace_ms),
            Some(self.log_cap_bytes),
            self.rlimit_nofile,
            self.rlimit_core,
            self.mem_bytes.filter(|_| around.leaf.memory.is_some()),
            // Nothing counts the memory of the whole: at least no single process may have more than all of it.
            self.mem_bytes.filter(|_| around.leaf.memory.is_none()),
            self.oom_score(around.oom_reset),
            flag(around.leaf.memory_v2),
        ] {
            put_number(&mut put, number);
        }
        let path = |p: &Option<PathBuf>| p.as_deref().map(path_bytes).unwrap_or_default().to_vec();
        put(&path(&around.leaf.unified));
        put(&path(&around.leaf.memory));
        put(&path(&around.leaf.freezer));
        put_number(&mut put, Some(around.leaf.v1.len() as u64));
        for dir in &around.leaf.v1 {
            put(path_bytes(dir));
        }
        put_number(&mut put, Some(self.argv.len() as u64));
        for arg in &self.argv {
            put(arg.as_bytes());
        }
        put_number(&mut put, Some(self.env.len() as u64 + 1));
        for (key, value) in &self.env {
            put(&[key.as_bytes(), b"=", value.as_bytes()].concat());
        }
        // Found again by this, should cgroups be missing and the supervisor die.
        put(&[container_variable().as_bytes(), b"=", path_bytes(around.container_dir)].concat());
        put(LAST_FIELD);
        if file.len() > SPEC_BYTES_MAX {
            return Err(LaunchError::BadSpec { why: format!("command and environment have {} bytes, more than {SPEC_BYTES_MAX}", file.len()) });
        }
        Ok(file)
    }
}

impl Spec {
    /// The `oom_score_adj` of the task, if it is not the agent's.
    fn oom_score(&self, reset: bool) -> Option<u64> {
        if self.yields { Some(OOM_SCORE_MAX) } else { reset.then_some(0) }
    }
}

/// Whether the text may name a directory, a cgroup and a token on the bus
pub(crate) fn is_id(id: &str) -> bool {
    id.len() <= 64
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        && id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

/// The environment variable that marks each process of a container with the container's directory
pub(crate) fn container_variable() -> &'static str {
    "MESO_CONTAINER"
}

pub(crate) fn path_bytes(path: &Path) -> &[u8] {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())
}

/// The supervisor's view of a spec file; everything points into the buffer the file was read into
pub(crate) struct Order<'a> {
    pub boot_id: &'a CStr,
    pub cwd: &'a CStr,
    pub output_dir: Option<&'a CStr>,
    pub stdin: bool,
    pub attached: bool,
    pub user: Option<(u32, u32)>,
    pub timeout_ms: Option<u64>,
    pub kill_grace_ms: u64,
    pub log_cap_bytes: u64,
    pub rlimit_nofile: Option<u64>,
    pub rlimit_core: Option<u64>,
    pub mem_bytes: Option<u64>,
    pub rlimit_data: Option<u64>,
    pub oom_score: Option<u64>,
    pub memory_v2: bool,
    pub unified: Option<&'a CStr>,
    pub memory: Option<&'a CStr>,
    pub freezer: Option<&'a CStr>,
    pub v1: Vec<&'a CStr>,
    pub argv: Vec<&'a CStr>,
    pub env: Vec<&'a CStr>,
}

impl<'a> Order<'a> {
    /// Reads the fields after the head; `None` if the file is cut short or not ours
    pub(crate) fn decode(body: &'a [u8]) -> Option<Order<'a>> {
        let mut fields = Fields { rest: body };
        if fields.text()?.to_bytes() != VERSION {
            return None;
        }
        let boot_id = fields.text()?;
        let cwd = fields.text()?;
        let output_dir = fields.text().map(filled)?;
        let stdin = fields.number()?? != 0;
        let attached = fields.number()?? != 0;
        let (uid, gid) = (fields.number()?, fields.number()?);
        let order = Order {
            boot_id,
            cwd,
            output_dir,
            stdin,
            attached,
            user: uid.zip(gid).map(|(u, g)| (u as u32, g as u32)),
            timeout_ms: fields.number()?,
            kill_grace_ms: fields.number()??,
            log_cap_bytes: fields.number()??,
            rlimit_nofile: fields.number()?,
            rlimit_core: fields.number()?,
            mem_bytes: fields.number()?,
            rlimit_data: fields.number()?,
            oom_score: fields.number()?,
            memory_v2: fields.number()?? != 0,
            unified: fields.text().map(filled)?,
            memory: fields.text().map(filled)?,
            freezer: fields.text().map(filled)?,
            v1: fields.list()?,
            argv: fields.list()?,
            env: fields.list()?,
        };
        (fields.text()?.to_bytes() == LAST_FIELD && fields.rest.is_empty()).then_some(order)
    }

    /// The cgroups it names, as the agent's side knows them
    pub(crate) fn leaf(&self) -> Leaf {
        let path = |text: &CStr| PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(text.to_bytes()));
        Leaf {
            unified: self.unified.map(path),
            memory: self.memory.map(path),
            memory_v2: self.memory_v2,
            freezer: self.freezer.map(path),
            v1: self.v1.iter().map(|d| path(d)).collect(),
        }
    }

    /// Every path to try for the command, each NUL-terminated, one after the other
    pub(crate) fn candidates(&self) -> Vec<u8> {
        let name = self.argv[0].to_bytes();
        let mut paths = Vec::with_capacity(256);
        if name.contains(&b'/') {
            paths.extend_from_slice(name);
            paths.push(0);
            return paths;
        }
        let path = self.env.iter().find_map(|v| v.to_bytes().strip_prefix(b"PATH=")).unwrap_or(PATH_DEFAULT);
        for dir in path.split(|&b| b == b':') {
            // An empty entry has always meant the working directory.
            paths.extend_from_slice(if dir.is_empty() { b"." } else { dir });
            paths.push(b'/');
            paths.extend_from_slice(name);
            paths.push(0);
        }
        paths
    }
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn text(&mut self) -> Option<&'a CStr> {
        let field = CStr::from_bytes_until_nul(self.rest).ok()?;
        self.rest = &self.rest[field.count_bytes() + 1..];
        Some(field)
    }

    /// `Some(None)` is a field that says "not given"
    fn number(&mut self) -> Option<Option<u64>> {
        let text = self.text()?.to_bytes();
        if text == b"-" {
            return Some(None);
        }
        Some(Some(parse_number(text)?))
    }

    fn list(&mut self) -> Option<Vec<&'a CStr>> {
        let length = self.number()?? as usize;
        if length > self.rest.len() {
            return None;
        }
        let mut list = Vec::with_capacity(length);
        for _ in 0..length {
            list.push(self.text()?);
        }
        Some(list)
    }
}

/// Reads decimal digits and nothing else
pub(crate) fn parse_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |n, b| b.is_ascii_digit().then(|| n.checked_mul(10)?.checked_add(u64::from(b - b'0')))?)
}

fn put_number(put: &mut impl FnMut(&[u8]), number: Option<u64>) {
    let mut text = Vec::with_capacity(20);
    match number {
        Some(n) => push_number(&mut text, i64::try_from(n).unwrap_or(i64::MAX)),
        None => text.push(b'-'),
    }
    put(&text);
}

fn filled(text: &CStr) -> Option<&CStr> {
    (!text.is_empty()).then_some(text)
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> Spec {
        Spec {
            id: "task_1".into(),
            argv: vec!["printf".into(), "%s\n".into(), "".into(), "ä\u{1}".into()],
            env: vec![("PATH".into(), "/a::b".into()), ("EMPTY".into(), "".into())],
            cwd: "/tmp".into(),
            stdin: true,
            attached: false,
            user: Some((65534, 65533)),
            cpu_milli: 100,
            yields: false,
            cpu_limit_milli: None,
            mem_bytes: Some(64 << 20),
            pids_max: None,
            timeout_ms: None,
            kill_grace_ms: 3000,
            log_cap_bytes: 1 << 20,
            rlimit_nofile: Some(64),
            rlimit_core: None,
        }
    }

    fn encoded(spec: &Spec) -> Vec<u8> {
        let leaf = Leaf { memory: Some("/m".into()), v1: vec!["/c".into(), "/m".into()], ..Leaf::default() };
        let around = Surroundings { boot_id: "b", container_dir: Path::new("/run/x"), leaf: &leaf, output_dir: None, oom_reset: false };
        spec.encode(&around).expect("the example is small")
    }

    /// What the agent encodes is what the supervisor decodes, and a file cut anywhere is refused
    #[test]
    fn file_carries_the_spec() {
        let file = encoded(&example());
        let order = Order::decode(&file[HEAD_BYTES..]).expect("it is whole");
        assert_eq!(order.argv, [c"printf", c"%s\n", c"", c"\u{e4}\u{1}"]);
        assert_eq!(order.env, [c"PATH=/a::b", c"EMPTY=", c"MESO_CONTAINER=/run/x"]);
        assert_eq!((order.user, order.mem_bytes, order.timeout_ms), (Some((65534, 65533)), Some(64 << 20), None));
        assert_eq!((order.v1.len(), order.unified, order.stdin), (2, None, true));
        assert_eq!(order.candidates(), b"/a/printf\0./printf\0b/printf\0");
        for cut in HEAD_BYTES..file.len() {
            assert!(Order::decode(&file[HEAD_BYTES..cut]).is_none(), "cut at {cut}");
        }
    }

    /// What cannot be passed to a process is refused before anything is made
    #[test]
    fn impossible_specs_are_refused() {
        let spoil: [fn(&mut Spec); 8] = [
            |s| s.id = "../x".into(),
            |s| s.id = "-x".into(),
            |s| s.id = "x".repeat(65),
            |s| s.argv.clear(),
            |s| s.argv[0].clear(),
            |s| s.argv[1] = "a\0b".into(),
            |s| s.env[0].0 = "A=B".into(),
            |s| s.cwd = "relative".into(),
        ];
        for (n, spoil) in spoil.iter().enumerate() {
            let mut spec = example();
            spoil(&mut spec);
            assert!(spec.check().is_err(), "case {n}");
        }
        example().check().expect("the example is fine");
    }
}

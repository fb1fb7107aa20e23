//! What the flags ask for: one template, and the jobs that come of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use meso_cli::{Access, DEFAULT_REQUEST, Failure, Item, LineIn, LineRead, Until, complain, has_placeholder, in_argv, in_shell, read_env_file, setting};
use meso_core::condition::Condition;
use meso_core::duration::parse_duration;
use meso_core::id::Name;
use meso_core::launcher::Job;
use meso_core::resources::{Milli, Request, parse_request, parse_size};
use meso_core::role::Role;
use meso_core::task::OnUnreachable;
use meso_core::wire::{Span, TASK_BYTES_MAX, Task};

use crate::Args;

/// The most copies of -n.
const COPIES_MAX: u64 = 10_000_000;

/// Where jobs come from.
pub enum Source {
    /// So many copies.
    Copies { count: u64, next: u64 },
    /// One for each item.
    Each { lines: LineIn, number: u64, skipped: u64 },
}

/// What is to be run, and how.
pub struct Plan {
    /// How to reach the bus.
    pub access: Access,
    /// What each task needs.
    pub request: Request,
    /// The role.
    pub role: Role,
    /// A durable framework name.
    pub framework: Option<Name>,
    /// No offer by then: 75.
    pub start_deadline_ms: Option<u64>,
    /// Between TERM and KILL when we end the task.
    pub kill_grace_ms: Option<u64>,
    /// Whether there are several tasks: then outputs are printed whole, one after the other.
    pub is_many: bool,
    /// How many tasks there are, if that is known.
    pub count: Option<u64>,
    template: Task,
    words: Vec<String>,
    shell: Option<String>,
    items: Option<(PathBuf, Until)>,
}

impl Plan {
    /// Reads and checks all flags before anything is done.
    pub fn from_args(args: &Args) -> Result<Self, Failure> {
        let access = args.bus.access()?;
        let request = request(args, access.config.resources.as_deref())?;
        let env = environment(args)?;
        let name = args.name.as_deref().map(Name::parse).transpose().map_err(|error| Failure::usage(format!("--name: {error}")))?;
        let framework = args.framework.as_deref().map(Name::parse).transpose().map_err(|error| Failure::usage(format!("--framework: {error}")))?;
        let role = match args.role.clone().or_else(|| access.config.role.clone()) {
            Some(role) => Role::parse(&role).map_err(|error| Failure::usage(format!("--role: {error}")))?,
            None => Role::default(),
        };
        if let Some(text) = &args.condition {
            Condition::parse(text).map_err(|error| Failure::usage(format!("--where: {error}")).hint("--where 'attr.rack == \"r1\" && cpus >= 4'"))?;
        }
        if args.on.as_deref().is_some_and(|on| on.is_empty() || on.chars().any(char::is_control)) {
            return Err(Failure::usage("--on: that is no agent's id or host name"));
        }
        let items = match (&args.each, &args.each0) {
            (Some(path), None) => Some((path.clone(), Until::Newline)),
            (None, Some(path)) => Some((path.clone(), Until::Nul)),
            _ => None,
        };
        if args.command.is_empty() && args.shell.is_none() {
            return Err(Failure::usage("there is no command to run").hint("meso-launch -- CMD [ARG]..., or -c 'SHELL STRING'"));
        }
        let is_many = items.is_some() || args.copies.is_some_and(|copies| copies != 1);
        refuse_combinations(args, is_many)?;
        let span = |flag: &str, text: &Option<String>| -> Result<Option<u64>, Failure> {
            text.as_deref().map(parse_duration).transpose().map_err(|error| Failure::usage(format!("{flag}: {error}")).hint(format!("{flag} 30s, 5m, 1h30m")))
        };
        let timeout_ms = span("--timeout", &args.timeout)?;
        if timeout_ms == Some(0) {
            return Err(Failure::usage("--timeout: no task can end in no time").hint("--timeout 30s"));
        }
        let kill_grace_ms = span("--kill-grace", &args.kill_grace)?;
        let template = Task {
            name,
            env,
            cpus_limit: args.cpus_limit.as_deref().map(Milli::parse).transpose().map_err(|error| Failure::usage(format!("--cpus-limit: {error}")))?,
            workdir: args.workdir.clone(),
            timeout: timeout_ms.map(Span),
            kill_grace: kill_grace_ms.map(Span),
            stdin: args.stdin,
            attached: !args.detach && !is_many,
            keep: args.detach || args.on_disconnect == "keep",
            on_unreachable: args.on_unreachable.as_deref().and_then(OnUnreachable::parse),
            ..Task::default()
        };
        let plan = Plan {
            start_deadline_ms: span("--start-deadline", &args.start_deadline)?,
            kill_grace_ms,
            access,
            request,
            role,
            framework,
            is_many,
            count: if items.is_some() { None } else { Some(args.copies.unwrap_or(1)) },
            template,
            words: args.command.clone(),
            shell: args.shell.clone(),
            items,
        };
        if let Some(fault) = plan.task(None, 1).fault() {
            return Err(Failure::usage(fault));
        }
        if let Some(why) = too_large(&plan.task(None, 1)) {
            return Err(Failure::usage(why).hint("give the task a file to read, or feed it with -i"));
        }
        if plan.items.is_none() && has_placeholder(&plan.words) {
            // {} is left as it stands: without items it is an ordinary argument.
        }
        Ok(plan)
    }

    /// Opens where the jobs come from.
    pub async fn source(&self) -> Result<Source, Failure> {
        Ok(match &self.items {
            Some((path, until)) => Source::Each { lines: LineIn::open(path, *until).await?, number: 0, skipped: 0 },
            None => Source::Copies { count: self.count.unwrap_or(1), next: 1 },
        })
    }

    /// The task of one item, or of one copy.
    pub fn task(&self, item: Option<&Item>, index: u64) -> Task {
        let mut task = self.template.clone();
        task.set_request(&self.request);
        match (&self.shell, item) {
            (Some(string), Some(item)) => task.cmd = Some(in_shell(string, item)),
            (Some(string), None) => task.cmd = Some(string.clone()),
            (None, Some(item)) => task.argv = in_argv(&self.words, item),
            (None, None) => task.argv = self.words.clone(),
        }
        task.env.insert("MESO_INDEX".to_owned(), index.to_string());
        if let Some(count) = self.count {
            task.env.insert("MESO_COUNT".to_owned(), count.to_string());
        }
        if let Some(item) = item {
            task.env.insert("MESO_ITEM".to_owned(), item.text().to_owned());
        }
        task
    }
}

impl Source {
    /// The next job and what it is called; none at the end. An item that cannot be one is said and skipped.
    pub async fn next(&mut self, plan: &Plan) -> Result<Option<(Job, String)>, Failure> {
        match self {
            Source::Copies { count, next } => {
                if *next > *count {
                    return Ok(None);
                }
                let index = *next;
                *next += 1;
                Ok(Some((Job { index, task: plan.task(None, index) }, index.to_string())))
            }
            Source::Each { lines, number, skipped } => loop {
                let (at, bytes) = match lines.next().await? {
                    None => return Ok(None),
                    Some(LineRead::TooLong { number, bytes }) => {
                        complain(&format!("item {number} of {} is skipped: {bytes} bytes are too long for an argument", lines.name()));
                        *skipped += 1;
                        continue;
                    }
                    Some(LineRead::Line { number, bytes }) => (number, bytes),
                };
                let index = *number + 1;
                let item = match Item::new(bytes, index) {
                    Ok(item) => item,
                    Err(why) => {
                        complain(&format!("item {at} of {} is skipped: {why}", lines.name()));
                        *skipped += 1;
                        continue;
                    }
                };
                let task = plan.task(Some(&item), index);
                if let Some(why) = too_large(&task) {
                    complain(&format!("item {at} of {} is skipped: {why}", lines.name()));
                    *skipped += 1;
                    continue;
                }
                *number = index;
                return Ok(Some((Job { index, task }, item.text().to_owned())));
            },
        }
    }

    /// How many items were skipped as unusable.
    pub fn skipped(&self) -> u64 {
        match self {
            Source::Copies { .. } => 0,
            Source::Each { skipped, .. } => *skipped,
        }
    }
}

/// Why a task does not fit a message, if it does not.
fn too_large(task: &Task) -> Option<String> {
    let bytes = serde_json::to_vec(task).map_or(usize::MAX, |text| text.len());
    (bytes > TASK_BYTES_MAX).then(|| format!("the command and its environment have {bytes} bytes as JSON, the limit is {TASK_BYTES_MAX}"))
}

fn refuse_combinations(args: &Args, is_many: bool) -> Result<(), Failure> {
    let no = |what: &str, hint: &str| Err(Failure::usage(what).hint(hint));
    if args.copies == Some(0) || args.copies.is_some_and(|copies| copies > COPIES_MAX) {
        return no(&format!("-n is a number from 1 to {COPIES_MAX}"), "-n 100");
    }
    if args.at_once == Some(0) {
        return no("-j is at least 1", "-j 10");
    }
    if args.stdin && is_many {
        return no("-i feeds one task; there are several", "run one task, or give each its input as an argument");
    }
    if args.stdin && args.offers.as_deref().is_some_and(|path| path.as_os_str() == "-") {
        return no("-i and -O both read standard input", "-OFILE, or --offer ID");
    }
    if args.stdin && args.detach {
        return no("-i and -d exclude one another: a detached task has nobody to feed it", "leave one of them out");
    }
    if args.detach && (args.retries > 0 || args.report.is_some() || args.tag || args.keep_order) {
        return no("--retries, --report, --tag and -k need somebody who waits; -d does not", "leave -d out, or use meso-wait and meso-logs");
    }
    if !is_many && (args.keep_order || args.tag) && args.copies.is_none() {
        return no("-k and --tag are for several tasks", "add -n, --each or --each0");
    }
    Ok(())
}

fn request(args: &Args, configured: Option<&str>) -> Result<Request, Failure> {
    let read = |flag: &str, text: &str| parse_request(text).map_err(|error| Failure::usage(format!("{flag}: {error}")).hint("-R cpus=1,mem=512M,disk=1G,gpus=1,ports=2"));
    let mut request = read("built-in", DEFAULT_REQUEST)?;
    let mut texts: Vec<(&str, &str)> = configured.map(|text| ("resources of the configuration file", text)).into_iter().collect();
    texts.extend(args.resources.iter().map(|text| ("-R", text.as_str())));
    for (flag, text) in texts {
        let said = read(flag, text)?;
        let names = |name: &str| text.split([',', ';']).any(|part| part.trim_start().starts_with(&format!("{name}=")) || part.trim_start().starts_with(&format!("{name}:")));
        if names("cpus") {
            request.cpus = said.cpus;
        }
        if names("mem") {
            request.mem = said.mem;
        }
        if names("disk") {
            request.disk = said.disk;
        }
        if names("gpus") {
            request.gpus = said.gpus;
        }
        if names("ports") {
            request.ports = said.ports;
            request.port_ranges = said.port_ranges.clone();
        }
        request.other.extend(said.other);
    }
    let number = |flag: &str, text: &String| Milli::parse(text).map_err(|error| Failure::usage(format!("{flag}: {error}")));
    let size = |flag: &str, text: &String| parse_size(text).map_err(|error| Failure::usage(format!("{flag}: {error}")).hint(format!("{flag} 512M")));
    if let Some(text) = &args.cpus {
        request.cpus = number("--cpus", text)?;
    }
    if let Some(text) = &args.mem {
        request.mem = size("--mem", text)?;
    }
    if let Some(text) = &args.disk {
        request.disk = size("--disk", text)?;
    }
    if let Some(text) = &args.gpus {
        request.gpus = number("--gpus", text)?;
        if !request.gpus.is_whole() {
            return Err(Failure::usage("--gpus: graphics processors are given whole").hint("--gpus 1"));
        }
    }
    if let Some(text) = &args.ports {
        request.ports = text.parse().ok().filter(|count| *count <= 65_535).ok_or_else(|| Failure::usage("--ports is a number from 0 to 65535").hint("--ports 2"))?;
    }
    Ok(request)
}

fn environment(args: &Args) -> Result<BTreeMap<String, String>, Failure> {
    let here = |name: &str| std::env::var_os(name);
    let mut env = BTreeMap::new();
    for path in &args.env_file {
        env.extend(read_env_file(Path::new(path), here)?);
    }
    for text in &args.env {
        if let Some((key, value)) = setting(text, here).map_err(|error| Failure::usage(format!("-e: {error}")).hint("-e NAME=VALUE"))? {
            env.insert(key, value);
        }
    }
    Ok(env)
}

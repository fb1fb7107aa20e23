//! meso-agent: reports a machine's resources, runs and supervises tasks.

#[path = "agent/cleanup.rs"]
mod cleanup;
#[path = "agent/containers.rs"]
mod containers;
#[path = "agent/disk.rs"]
mod disk;
#[path = "agent/facts.rs"]
mod facts;
#[path = "agent/host.rs"]
mod host;
#[path = "agent/io.rs"]
mod io;
#[path = "agent/journal.rs"]
mod journal;
#[path = "agent/keeper.rs"]
mod keeper;
#[path = "agent/lending.rs"]
mod lending;
#[path = "agent/measure.rs"]
mod measure;
#[path = "agent/ready.rs"]
mod ready;
#[path = "agent/retained.rs"]
mod retained;
#[path = "agent/start.rs"]
mod start;
#[path = "agent/workdir.rs"]
mod workdir;

use std::path::PathBuf;

use meso_cli::{BusArgs, Exit, Failure};
use meso_core::duration::parse_duration;
use meso_core::lend::parse_window;

/// Offer this machine's resources and run tasks
///
/// One meso-agent runs on each machine of the cluster. It tells the master what there is, runs what frameworks launch,
/// each task under a supervisor of its own and, as root, in a cgroup of its own, and serves the tasks' output. Tasks
/// outlive the agent: started again on the same work directory it finds them, and tells truly what ended meanwhile.
#[derive(clap::Parser)]
struct Args {
    #[command(flatten)]
    bus: BusArgs,
    /// Directory of the agent's log, of sandboxes and output
    ///
    /// It belongs to one agent for ever: its identity is kept there.
    #[arg(long, value_name = "DIR", env = "MESO_WORK_DIR")]
    work_dir: Option<PathBuf>,
    /// What to give, in place of what is found
    ///
    /// Kind by kind: cpus=4,mem=8G,disk=100G,gpus=1,ports=[31000-31999],licenses=3. What is not named is found: all
    /// processors, memory less 1 GiB, disk less 5 GiB (half, if there is little), ports 31000 to 32000.
    #[arg(short = 'R', long = "resources", value_name = "RESOURCES")]
    resources: Option<String>,
    /// Attributes for people to choose machines by: rack=r1,ssd=true (can be repeated)
    #[arg(long = "attr", value_name = "K=V,..")]
    attrs: Vec<String>,
    /// The host name that others see
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Contain tasks in cgroups if this machine has them and lets us, or never
    #[arg(long, value_name = "WHEN", env = "MESO_CGROUPS", default_value = "auto", value_parser = ["auto", "off"])]
    cgroups: String,
    /// Lend what tasks hold and have not used for a while to tasks that may be ended at once
    ///
    /// See meso-launch --revocable. It is what they did not use at any moment of the last minute, or of the time given,
    /// less a tenth of what they hold; it is taken back as soon as they use it. Needs cgroups.
    #[arg(long, value_name = "WINDOW", require_equals = true, num_args = 0..=1, default_missing_value = "60s", value_parser = parse_window)]
    oversubscribe: Option<u64>,
    /// How much of each output of a task is kept
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    log_cap: String,
    /// What becomes of tasks that an agent before this one left running: taken on, or ended first
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Recover::Reconnect)]
    recover: Recover,
    /// How long outputs and sandboxes of ended tasks are kept, at most
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_duration)]
    gc_delay: u64,
    /// The part of the disk that is to stay free: the fuller it is, the sooner they go, at once when only so much is left
    #[arg(long, value_name = "PART", default_value_t = 0.1, value_parser = parse_part)]
    gc_disk_headroom: f64,
    /// How much room outputs and sandboxes of ended tasks take together, at most
    #[arg(long, value_name = "SIZE", default_value = "100G")]
    gc_cap: String,
    /// End all tasks when this process is asked to end
    #[arg(long)]
    kill_tasks_on_exit: bool,
}

/// What becomes of tasks of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Recover {
    /// They run on.
    #[value(help = None)]
    Reconnect,
    /// They are ended, and the agent begins anew under its id.
    #[value(help = None)]
    Cleanup,
}

fn parse_part(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(part) if (0.0..=1.0).contains(&part) => Ok(part),
        _ => Err(format!("{text} is not between 0 and 1")),
    }
}

fn main() -> std::process::ExitCode {
    meso_cage::machine::keep_freed_memory();
    meso_cli::main(meso_cli::tool!(Plain), agent)
}

async fn agent(args: Args) -> Result<Exit, Failure> {
    tokio::task::LocalSet::new().run_until(start::run(args)).await
}

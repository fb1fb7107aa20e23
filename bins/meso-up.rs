//! meso-up: a whole cluster on this machine in one command
use clap::{Parser, ValueEnum};
use meso_cli::{
    Exit, Failure, PolicyArgs, Surroundings, Tool, complain,
    service::{Cluster, ClusterSpec, GUARD_FLAG, Signals, StateWish, guard, run_command},
};
use meso_core::{id::Name, lend::parse_window};
use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

/// The port of a bus that stays.
const PORT: u16 = 4222;
const TOOL: Tool = meso_cli::tool!(Plain);

/// Bring up a cluster on this machine
///
/// Starts nats-server, masters and agents as processes of their own, starts again what dies, and ends all of it, with
/// every task, at Ctrl-C. Once the cluster is up, standard output gets the lines that lead a shell to it.
///
/// With a command after --, the cluster is one of its own, on a free port and without a past, and is gone without a
/// trace when the command ends; the exit code is the command's.
#[derive(Parser)]
struct Args {
    /// How many agents
    #[arg(long, value_name = "N", default_value_t = 3)]
    agents: u32,
    /// What each agent has, such as cpus=2,mem=4G
    ///
    /// Without it the agents share the machine.
    #[arg(short = 'R', long, value_name = "RESOURCES")]
    resources: Option<String>,
    /// Have the agents lend what tasks hold and have not used for a while, as for meso-agent
    #[arg(long, value_name = "WINDOW", require_equals = true, num_args = 0..=1, default_missing_value = "60s", value_parser = parse_window)]
    oversubscribe: Option<u64>,
    /// How many servers the bus has: 1, or 3, of which one may be lost
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    bus: usize,
    /// How many masters: one leads, the others stand by
    #[arg(long, value_name = "N", default_value_t = 1)]
    masters: u32,
    /// Program that says who is to be offered what, as for meso-master
    #[arg(long, value_name = "CMD")]
    allocate: Option<String>,
    #[command(flatten)]
    policy: PolicyArgs,
    /// After how long without anything others make room for a framework below its share, as for meso-master
    #[arg(long, value_name = "TIME")]
    revoke_after: Option<String>,
    /// How long before its tasks are ended for others a framework hears of it, as for meso-master
    #[arg(long, value_name = "TIME")]
    revoke_notice: Option<String>,
    /// How many silent agents are marked unreachable in how long a time, as for meso-master
    #[arg(long, value_name = "N/TIME")]
    agent_removal_rate: Option<String>,
    /// Directory for stores, work directories and logs
    ///
    /// Without it: ~/.local/state/meso/up; with a command, one that goes with it.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Port of the bus, on 127.0.0.1; of three servers the second and third have the next ones
    ///
    /// Without it: 4222; with a command, free ones.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Let only those in who know the address that is printed
    ///
    /// With a command it is always so.
    #[arg(long)]
    private: bool,
    /// The nats-server to use
    ///
    /// Without it: $MESO_NATS_SERVER, PATH, the system's folders, ~/.local/share/meso/bin.
    #[arg(long, value_name = "PATH")]
    nats_server: Option<PathBuf>,
    /// Name of the cluster
    #[arg(long, value_name = "NAME", env = "MESO_CLUSTER", default_value = "default")]
    cluster: String,
    /// Say nothing on standard error but failures
    #[arg(short, long)]
    quiet: bool,
    /// Command to bring the cluster up for
    #[arg(value_name = "CMD", last = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    if args.next().as_deref() == Some(OsStr::new(GUARD_FLAG)) {
        return guard(args);
    }
    meso_cli::main(TOOL, up)
}

/// What is handed on to the masters.
fn master_args(args: &Args) -> Result<Vec<OsString>, Failure> {
    args.policy.rule()?;
    let policy = args.policy.policy.and_then(|policy| policy.to_possible_value()).map(|value| value.get_name().to_owned());
    let flags = [("--allocate", &args.allocate), ("--policy", &policy), ("--resource", &args.policy.resource), ("--revoke-after", &args.revoke_after), ("--revoke-notice", &args.revoke_notice), ("--agent-removal-rate", &args.agent_removal_rate)];
    Ok(flags.into_iter().filter_map(|(flag, value)| Some([OsString::from(flag), value.as_ref()?.into()])).flatten().collect())
}

async fn up(args: Args) -> Result<Exit, Failure> {
    let has_command = !args.command.is_empty();
    let spec = ClusterSpec {
        name: Name::parse(&args.cluster).map_err(|e| Failure::usage(format!("--cluster: {e}")).hint("--cluster default"))?,
        bus: args.bus,
        masters: args.masters,
        agents: args.agents,
        master_args: master_args(&args)?,
        resources: args.resources,
        oversubscribe_ms: args.oversubscribe,
        state: if has_command && args.state.is_none() { StateWish::Temporary } else { StateWish::Kept(args.state) },
        port: args.port.or((!has_command).then_some(PORT)),
        nats_server: args.nats_server,
        is_private: args.private || has_command,
    };
    let mut signals = Signals::take()?;
    let mut cluster = Cluster::open(spec, &Surroundings::here())?;
    let outcome = tokio::select! {
        up = cluster.bring_up() => up.map(|()| None),
        number = signals.next() => Ok(Some(signal_exit(number))),
    };
    let outcome = match outcome {
        Ok(None) if has_command => {
            say_all(args.quiet, cluster.remarks());
            let (environment, foreign) = (cluster.environment(), Cluster::foreign_variables());
            let run = async { run_command(&args.command, &environment?, foreign, &mut signals).await };
            tokio::select! {
                exit = run => exit,
                () = cluster.watch() => Ok(Exit::INTERNAL),
            }
        }
        Ok(None) => {
            say_all(args.quiet, cluster.remarks());
            let told = tell(&cluster);
            say_all(args.quiet, [cluster.summary(), "Ctrl-C ends it with all its tasks".to_owned()]);
            tokio::select! {
                // It was asked for and it came: this is how it ends well.
                _ = signals.next() => told.map(|()| Exit::DONE),
                () = cluster.watch() => Ok(Exit::INTERNAL),
            }
        }
        Ok(Some(exit)) => Ok(exit),
        Err(failure) => Err(failure),
    };
    let hurry = async {
        signals.next().await;
    };
    let ended = cluster.take_down(hurry).await;
    let exit = outcome?;
    ended.map(|()| exit)
}

/// Prints what leads a shell to the cluster.
fn tell(cluster: &Cluster) -> Result<(), Failure> {
    let lines: Vec<OsString> = cluster.environment()?.into_iter().map(|(name, value)| assignment(name, &value)).collect();
    let mut out = io::stdout().lock();
    for line in lines {
        match out.write_all(line.as_encoded_bytes()) {
            // Whoever does not read them knows the way.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(|e| Failure::stdout(&e))?,
        }
    }
    out.flush().map_err(|e| Failure::stdout(&e))
}

/// `export NAME='value'` and a newline, as every shell reads it.
fn assignment(name: &str, value: &OsStr) -> OsString {
    let mut quoted = Vec::from(format!("export {name}='").as_bytes());
    for &byte in value.as_encoded_bytes() {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            other => quoted.push(other),
        }
    }
    quoted.extend(b"'\n");
    std::os::unix::ffi::OsStringExt::from_vec(quoted)
}

fn say_all(quiet: bool, lines: impl IntoIterator<Item = String>) {
    if !quiet {
        lines.into_iter().for_each(|line| complain(&line));
    }
}

fn signal_exit(number: i32) -> Exit {
    u8::try_from(number).map_or(Exit::INTERNAL, Exit::signal)
}

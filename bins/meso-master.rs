//! meso-master: keeps the books of the cluster and makes offers, or stands by to.

#[path = "master/allocator.rs"]
mod allocator;
#[path = "master/host.rs"]
mod host;
#[path = "master/lead.rs"]
mod lead;
#[path = "master/record.rs"]
mod record;
#[path = "master/start.rs"]
mod start;

use meso_cli::{BusArgs, Exit, Failure, PolicyArgs};

/// Lead the cluster, or stand by
///
/// A master adds up what the agents report, offers it to frameworks, and passes on what they launch. Any number of
/// masters may run: one leads, by a lease on the bus, the others stand by and take over within seconds. A master keeps
/// nothing on its own disk.
#[derive(clap::Parser)]
struct Args {
    #[command(flatten)]
    bus: BusArgs,
    /// The host name that others see
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// How long the lease lasts without being renewed
    ///
    /// 6s by default, 12s where the bus has several servers: it must outlast their own election.
    #[arg(long, value_name = "TIME")]
    lease: Option<String>,
    /// How many servers of the bus keep what masters store
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=5))]
    replicas: u32,
    #[command(flatten)]
    policy: PolicyArgs,
    /// After how long without anything others make room for a framework below its fair share or guarantee, or off
    ///
    /// Their newest tasks are ended for it, after a notice to their framework, and no more of them than needed.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    revoke_after: String,
    /// How long before its tasks are ended for others a framework hears of it
    #[arg(long, value_name = "TIME", default_value = "5s")]
    revoke_notice: String,
    /// How long an offer lives
    #[arg(long, value_name = "TIME", default_value = "30s")]
    offer_timeout: String,
    /// How often agents say that they live
    #[arg(long, value_name = "TIME", default_value = "15s")]
    agent_beat: String,
    /// After how long without a word an agent is unreachable
    #[arg(long, value_name = "TIME", default_value = "75s")]
    agent_timeout: String,
    /// How many silent agents are marked unreachable in how long a time, or off
    ///
    /// Many that fall silent at once are rather a network: the rest wait for their turn, and are spared if they are heard
    /// of meanwhile.
    #[arg(long, value_name = "N/TIME", default_value = "20/1m")]
    agent_removal_rate: String,
    /// After how long without a word a framework's session ends
    #[arg(long, value_name = "TIME", default_value = "15s")]
    session_timeout: String,
    /// Program that says who is to be offered what, in place of the built-in policy
    ///
    /// A shell command that reads snapshot/1 lines and answers each with grant/1 lines and an allocated/1, as
    /// meso-allocate does. What it grants is checked, and while it fails the built-in policy serves.
    #[arg(long, value_name = "CMD")]
    allocate: Option<String>,
}

fn main() -> std::process::ExitCode {
    meso_cli::main(meso_cli::tool!(Plain), master)
}

async fn master(args: Args) -> Result<Exit, Failure> {
    tokio::task::LocalSet::new().run_until(start::run(args)).await
}

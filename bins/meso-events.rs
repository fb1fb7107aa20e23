//! meso-events: what happens in the cluster, as JSON lines.

use std::cell::Cell;
use std::collections::VecDeque;
use std::process::ExitCode;

use clap::ValueEnum;
use meso_bus::{Item, Start, Store, StoredEvent};
use meso_cli::client::{Absence, Leader, read_status};
use meso_cli::{BusArgs, Exit, Failure, LineOut, Look, Row, Written, complain, json_text};
use meso_core::json::{Limits, read_object};

/// So many of the last lines can be asked for; they are held in memory.
const LAST_MAX: u64 = 100_000;

/// Print the cluster's events as JSON lines
///
/// Prints what is recorded and ends; with -f, goes on with what happens. The key stream_seq of a line, given to --after, goes on behind it.
#[derive(clap::Parser)]
#[command(after_help = "Examples:\n  meso-events -n 20\n  meso-events -f --kind tasks | jq -c --unbuffered 'select(.state == \"failed\")'\n  meso-events --after 1207")]
struct Args {
    /// Go on with what happens
    #[arg(short, long)]
    follow: bool,
    /// Only what was recorded in the last DURATION
    #[arg(long, value_name = "DURATION", value_parser = meso_core::duration::parse_duration)]
    since: Option<u64>,
    /// Only what was recorded behind this stream_seq
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// Only the states of tasks, or only what happens to the cluster itself
    #[arg(long, value_name = "KIND")]
    kind: Option<Kind>,
    /// Only the last LINES of what is recorded
    #[arg(short = 'n', long, value_name = "LINES", value_parser = clap::value_parser!(u64).range(0..=LAST_MAX))]
    last: Option<u64>,
    #[command(flatten)]
    bus: BusArgs,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Lines update/1
    Tasks,
    /// Lines event/1
    Cluster,
}

fn main() -> ExitCode {
    meso_cli::main(meso_cli::tool!(Plain), print)
}

async fn print(args: Args) -> Result<Exit, Failure> {
    let leader = Leader::connect(&args.bus.access()?).await?;
    let mut absence = Absence::of(&leader, false);
    let printed = Cell::new(0);
    tokio::select! {
        biased;
        exit = print_all(&leader, &args, &printed) => exit,
        gone = absence.over(false) => Err(match printed.get() {
            0 => gone,
            seq => gone.hint(format!("--after {seq}, once it is back: nothing is lost that way")),
        }),
    }
}

/// Prints them; `printed` is the place of the last one in the stream.
async fn print_all(leader: &Leader, args: &Args, printed: &Cell<u64>) -> Result<Exit, Failure> {
    let bus = leader.bus();
    let filter = if args.kind == Some(Kind::Cluster) { bus.subjects().events_of_master() } else { bus.subjects().events() };
    let start = args.after.map_or(Start::All, Start::After);
    let since_ms = args.since.map(|ago_ms| Look::of_stdout().now_ms.saturating_sub(ago_ms));
    let mut reader = Store::new(bus).events(start, &filter).await?;
    let mut out = LineOut::stdout()?;
    // The last lines, as long as more may come behind them.
    let mut held: Option<VecDeque<String>> = args.last.map(|_| VecDeque::new());
    loop {
        match reader.next().await? {
            Item::Event(event) => {
                let is_old = since_ms.is_some_and(|since_ms| event.time_ms < since_ms);
                let Some((line, _)) = (if is_old { None } else { line(leader, &event)?.filter(|(_, kind)| args.kind.is_none_or(|wanted| wanted == *kind)) }) else { continue };
                match (&mut held, args.last) {
                    (Some(lines), Some(last)) => {
                        lines.push_back(line);
                        if lines.len() as u64 > last {
                            lines.pop_front();
                        }
                    }
                    _ => {
                        if out.bytes(line.as_bytes())? == Written::ReaderGone {
                            return Ok(Exit::DONE);
                        }
                        printed.set(event.seq);
                    }
                }
            }
            Item::CaughtUp => {
                for line in held.take().into_iter().flatten() {
                    if out.bytes(line.as_bytes())? == Written::ReaderGone {
                        return Ok(Exit::DONE);
                    }
                }
                if !args.follow {
                    return Ok(Exit::DONE);
                }
            }
            Item::Unreadable => complain("a part of the record cannot be read, for its store is damaged; what follows was recorded later"),
            Item::Reset => complain("the record was lost and begins anew: stream_seq counts from 1 again"),
        }
    }
}

/// An event as a line, and its kind; none if it is nothing that we know, or is not believed.
fn line(leader: &Leader, event: &StoredEvent) -> Result<Option<(String, Kind)>, Failure> {
    if let Some(update) = read_status(leader, event) {
        let text = json_text(&update)?;
        // The kind stands first, and the place in the stream behind it.
        let placed = text.replacen(',', &format!(",\"stream_seq\":{},", event.seq), 1);
        return Ok(Some((placed, Kind::Tasks)));
    }
    let Ok(object) = read_object(&event.payload, Limits::default()) else { return Ok(None) };
    let kind = object.get("meso").and_then(|kind| kind.as_str()).unwrap_or_default();
    if kind != "event/1" {
        return Ok(None);
    }
    let row = Row::of(kind).with("stream_seq", event.seq);
    let row = object.iter().filter(|(key, _)| *key != "meso").fold(row, |row, (key, value)| row.with(key, value));
    Ok(Some((json_text(&row)?, Kind::Cluster)))
}

//! What the tools share: flags, lines, tables, errors, exit codes, man pages
//!
//! A tool is a struct of flags and one async function:
//!
//! ```ignore
//! fn main() -> std::process::ExitCode {
//!     meso_cli::main(meso_cli::tool!(Plain), kill)
//! }
//! async fn kill(args: Args) -> Result<Exit, Failure> { .. }
//! ```
mod bus_args;
mod bus_failure;
pub mod client;
mod config;
mod env_file;
mod exit;
mod format;
mod generate;
mod host_name;
mod identity;
mod lines;
mod nats_context;
mod policy_args;
mod progress;
mod run;
mod say;
mod select;
pub mod service;
mod surroundings;
mod table;
mod template;

pub use bus_args::{Access, BusArgs, DEFAULT_URL};
pub use config::{Config, DEFAULT_REQUEST};
pub use env_file::{BadEnv, read_env_file, setting};
pub use exit::{Exit, Failure, FailureKind, ToolKind, io_text};
pub use format::{BadFormat, Column, Format, Listing, OutputArgs, Row, stdout_is_terminal};
pub use host_name::host_name;
pub use identity::{random, who};
pub use lines::{LINE_BYTES_MAX, LineIn, LineOut, LineRead, Until, Written, json_text};
pub use nats_context::NatsContext;
pub use policy_args::{PolicyArgs, PolicyName};
pub use progress::{Progress, aside};
pub use run::{Tool, VERSION, main};
pub use say::{complain, report, tool_name};
pub use select::{Candidate, NotOne, Selector, resolve};
pub use surroundings::Surroundings;
pub use table::{Look, age_text, mib_text};
pub use template::{BadItem, Item, has_placeholder, in_argv, in_shell};

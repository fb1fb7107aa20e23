//! The bus: subjects, connection, lease, streams, the driver loop over NATS
//!
//! This is the only crate that knows how the bus is made. Everything here waits with a limit of its
//! own, and every failure is one of [`BusError`]'s few kinds, so that a tool can tell its user what
//! to do next.

mod api;
mod bus;
mod checkup;
mod creds;
pub mod driver;
mod error;
mod event;
pub mod events;
pub mod lease;
mod options;
mod pending;
mod shared;
pub mod store;
pub mod subjects;
mod subscription;
pub mod testserver;

pub use bus::{Bus, MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX};
pub use checkup::{AccountTold, Kept, ServerTold, StreamTold};
pub use error::BusError;
pub use event::{BusEvent, Denial, Events};
pub use events::{EventReader, Item, Start, StoredEvent};
pub use lease::{EpochRaiser, Leadership, LeadershipOptions, Standing};
pub use options::BusOptions;
pub use store::{Bucket, Store};
pub use subscription::{Message, Subscription};
pub use subjects::{Address, Subjects, inbox_of, own_inbox};

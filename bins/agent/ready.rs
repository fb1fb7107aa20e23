//! Descriptors to wait on.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the runtime.
///
/// Every type handed in here owns its descriptor for as long as it lives, which is what the deprecated constructors
/// cannot know; their successors are `unsafe`, and that has no place outside of the crate for containers.
#[expect(deprecated, reason = "the safe constructor; see above for why it is sound here")]
pub fn register<T: AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, interest)
}

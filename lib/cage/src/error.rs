//! What can go wrong on the agent's side
use std::{io, path::PathBuf};
use thiserror::Error;

/// A failure to open, find or clear containers
#[derive(Debug, Error)]
pub enum CageError {
    /// A file or directory of ours could not be used
    #[error("cannot {what} {}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    /// The id is not a name we give to directories and cgroups
    #[error("{id:?} is not a container id: 1 to 64 of A-Z a-z 0-9 _ -, beginning with a letter or digit")]
    BadId { id: String },
    /// There is no such container
    #[error("no container {id}")]
    NoContainer { id: String },
    /// The supervisor is gone, so there is nobody to signal or feed
    #[error("container {id} has ended")]
    Ended { id: String },
    /// Somebody else works on this container, or it still runs
    #[error("container {id} is in use: {why}")]
    Busy { id: String, why: &'static str },
    /// A file of ours is not what we write
    #[error("{} is damaged: {why}; remove the directory by hand once nothing of it runs", path.display())]
    Damaged { path: PathBuf, why: &'static str },
    /// Cgroups were to be used and cannot be
    #[error("cannot use cgroups: {why}")]
    Cgroups { why: String },
    /// Another process holds the directory
    #[error("{} is held by process {pid}; stop it or use another directory", path.display())]
    Held { path: PathBuf, pid: i32 },
}

/// A failure to bring a container into being; nothing of it is left
///
/// A command that cannot be executed is not one of these: the supervisor says that in [`crate::Exit`].
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The specification cannot be carried out by anybody
    #[error("cannot launch: {why}")]
    BadSpec { why: String },
    /// There is a container of that id, or its remains
    #[error("container {id} is already there")]
    Exists { id: String },
    /// A file or directory of ours could not be made
    #[error("cannot {what} {}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    /// The kernel refused a cgroup or a limit
    #[error("cannot make the cgroup {}: {why}", path.display())]
    Cgroup { path: PathBuf, why: String },
    /// The supervisor could not be started
    #[error("cannot start the supervisor: {source}")]
    Spawn { source: io::Error },
}

impl CageError {
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> CageError {
        CageError::File { what, path: path.into(), source: source.into() }
    }
}

impl LaunchError {
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> LaunchError {
        LaunchError::File { what, path: path.into(), source: source.into() }
    }
}

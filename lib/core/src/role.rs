//! A role: the name under which frameworks share the cluster, a path such as `eng/batch`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::id::Name;

/// The deepest path a role may have, so that a walk up the tree is bounded.
pub const ROLE_DEPTH_MAX: usize = 8;

/// A role path: names joined by `/`, at most [`ROLE_DEPTH_MAX`] of them.
///
/// Mesos 1.23 forbids empty components, `.`, `..`, `*`, a leading `-` and white space; the rule for names covers all of these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Role(String);

/// Why a text is no role.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{text:?} is not a role: names of letters, digits, - and _ joined by /, at most {ROLE_DEPTH_MAX} levels")]
pub struct BadRole {
    text: String,
}

impl Role {
    /// Reads a role path.
    pub fn parse(text: &str) -> Result<Self, BadRole> {
        let bad = || BadRole { text: text.chars().take(60).collect() };
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() > ROLE_DEPTH_MAX || parts.iter().any(|part| Name::parse(part).is_err()) {
            return Err(bad());
        }
        Ok(Role(text.to_owned()))
    }

    /// The whole path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The role just above; none for one of the top.
    pub fn above(&self) -> Option<Role> {
        self.0.rsplit_once('/').map(|(above, _)| Role(above.to_owned()))
    }
}

/// The role of everybody who names none.
impl Default for Role {
    fn default() -> Self {
        Role("default".to_owned())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Role {
    type Err = BadRole;
    fn from_str(text: &str) -> Result<Self, BadRole> {
        Role::parse(text)
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Role::parse(&String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::Role;

    /// Shows which paths are roles; the refused ones are those of Mesos's role rules.
    #[test]
    fn paths() {
        for good in ["default", "eng", "eng/batch", "a/b/c/d/e/f/g/h", "R2-d2_x"] {
            assert_eq!(Role::parse(good).map(|r| r.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "/", "a/", "/a", "a//b", ".", "..", "*", "-a", "a b", "a\tb", "a/b/c/d/e/f/g/h/i"] {
            assert!(Role::parse(bad).is_err(), "{bad:?} was taken for a role");
        }
    }
}

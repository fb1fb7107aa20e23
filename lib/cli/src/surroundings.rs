//! The process's environment as data, so that what is read from it can be tested
use crate::exit::Failure;
use std::{collections::BTreeMap, env, ffi::OsString, path::PathBuf};

/// Where the whole machine's configuration stands.
const SYSTEM_CONFIG: &str = "/etc/meso/config.toml";

/// Environment variables, and the places they lead to.
#[derive(Clone, Debug)]
pub struct Surroundings {
    variables: BTreeMap<OsString, OsString>,
    system_config: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    pub fn here() -> Self {
        Self { variables: env::vars_os().collect(), system_config: SYSTEM_CONFIG.into() }
    }

    /// Made-up ones, for tests.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>, system_config: impl Into<PathBuf>) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, system_config: system_config.into() }
    }

    /// The first of these variables that is set to something; an empty one counts as not set.
    ///
    /// # Errors
    /// A value that is not UTF-8, naming its variable.
    pub fn first(&self, names: &[&str]) -> Result<Option<String>, Failure> {
        for name in names {
            match self.variables.get(&OsString::from(name)) {
                Some(value) if !value.is_empty() => {
                    let text = value.to_str().ok_or_else(|| Failure::config(format!("the variable {name} is not UTF-8")).hint(format!("unset {name}")))?;
                    return Ok(Some(text.to_owned()));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// A variable that may hold any bytes, such as a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(&OsString::from(name)).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// The home directory, if there is one: cron and containers may leave it unset.
    pub fn home(&self) -> Option<PathBuf> {
        self.path("HOME").filter(|home| home.is_absolute())
    }

    /// `$XDG_CONFIG_HOME`, or `~/.config`.
    pub fn config_home(&self) -> Option<PathBuf> {
        self.path("XDG_CONFIG_HOME").filter(|path| path.is_absolute()).or_else(|| self.home().map(|home| home.join(".config")))
    }

    /// The configuration files, the one that wins first; they need not exist.
    pub fn config_files(&self) -> Vec<PathBuf> {
        let own = self.config_home().map(|home| home.join("meso/config.toml"));
        own.into_iter().chain([self.system_config.clone()]).collect()
    }

    /// A path as people write it in files, with `~/` for the home directory.
    pub fn expand_home(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), self.home()) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => path.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that an empty variable counts as unset, and that the first of several wins.
    #[test]
    fn first_of_several() {
        let here = Surroundings::of([("A", ""), ("B", "b"), ("C", "c")], "/x");
        assert_eq!(here.first(&["A", "B", "C"]).expect("all are UTF-8"), Some("b".to_owned()));
        assert_eq!(here.first(&["A", "D"]).expect("all are UTF-8"), None);
    }

    /// Shows that without HOME only the machine's configuration is looked at, and `~` stays as it is.
    #[test]
    fn without_a_home() {
        let cron = Surroundings::of([], "/etc/meso/config.toml");
        assert_eq!(cron.config_files(), [PathBuf::from("/etc/meso/config.toml")]);
        assert_eq!(cron.expand_home("~/x"), PathBuf::from("~/x"));
        let user = Surroundings::of([("HOME", "/home/u")], "/etc/c");
        assert_eq!(user.config_files(), [PathBuf::from("/home/u/.config/meso/config.toml"), "/etc/c".into()]);
        assert_eq!(user.expand_home("~/x"), PathBuf::from("/home/u/x"));
    }
}

//! `-e K=V`, `-e K` and `--env-file`, as docker reads them
use crate::{config::read_small, exit::Failure};
use meso_core::json::quoted;
use std::{error::Error, fmt, path::Path};

/// A larger file of variables is not one; what a task gets at its start is bounded by the system anyway.
const ENV_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A setting that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEnv {
    what: String,
}

impl fmt::Display for BadEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for BadEnv {}

/// Reads one setting: `K=V`, or `K` for the value that it has here; `None` if it has none here.
///
/// Everything behind the first `=` is the value, quotes and blanks too.
///
/// # Errors
/// A name that is empty or has blanks or control characters, a value with a NUL, or an inherited value that is not UTF-8.
pub fn setting(text: &str, here: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<Option<(String, String)>, BadEnv> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let bad = |what: String| Err(BadEnv { what });
    if name.is_empty() {
        return bad(format!("{} has no name before its =", quoted(text)));
    }
    if name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return bad(format!("{} is no name of a variable", quoted(name)));
    }
    if value.is_some_and(|value| value.contains('\0')) {
        return bad(format!("the value of {name} has a NUL"));
    }
    match value {
        Some(value) => Ok(Some((name.to_owned(), value.to_owned()))),
        None => match here(name).map(|value| value.into_string()) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some((name.to_owned(), value))),
            Some(Err(_)) => bad(format!("the value of {name} here is not UTF-8")),
        },
    }
}

/// Reads a file of settings, one a line; empty lines and lines that begin with `#` are skipped.
///
/// # Errors
/// `Usage`, naming file and line.
pub fn read_env_file(path: &Path, here: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<Vec<(String, String)>, Failure> {
    let shown = path.display();
    let text = match read_small(path, ENV_FILE_BYTES_MAX) {
        Ok(Some(text)) => text,
        Ok(None) => return Err(Failure::usage(format!("{shown}: no such file")).hint("--env-file with a file that is there")),
        Err(failure) => return Err(Failure::usage(failure.what()).hint("--env-file with lines of NAME=VALUE")),
    };
    settings_of(&text, here).map_err(|(number, bad)| Failure::usage(format!("{shown} line {number}: {bad}")).hint("lines of NAME=VALUE, or NAME, or # comment"))
}

fn settings_of(text: &str, here: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<Vec<(String, String)>, (usize, BadEnv)> {
    // Editors of another system put a mark before the first line, which is no part of a name.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut settings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        settings.extend(setting(line, &here).map_err(|bad| (index + 1, bad))?);
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn here(name: &str) -> Option<OsString> {
        (name == "HERE").then(|| "value here".into())
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    /// Shows that values are taken as they stand, without shell rules, and that names alone are inherited or left out.
    #[test]
    fn as_docker_reads_them() {
        let text = "\u{feff}# comment\n\nA=1\n  B= two \"quoted\" #not a comment\nC=\nHERE\nNOT_HERE\nD=x=y\r\n";
        let expected = [pair("A", "1"), pair("B", " two \"quoted\" #not a comment"), pair("C", ""), pair("HERE", "value here"), pair("D", "x=y")];
        assert_eq!(settings_of(text, here), Ok(expected.to_vec()));
    }

    /// Shows that each wrong line is named by its number and kept harmless.
    #[test]
    fn wrong_lines_are_named() {
        for (text, number, why) in [("A=1\n=x\n", 2, "no name"), ("A B=1\n", 1, "is no name"), ("\n\nexport A=1", 3, "is no name"), ("A=\0", 1, "NUL"), ("\u{1b}A=1", 1, "is no name")] {
            let (found, bad) = settings_of(text, here).expect_err(text);
            assert!(found == number && bad.to_string().contains(why) && !bad.to_string().contains('\u{1b}'), "{text:?}: {found} {bad}");
        }
    }

    /// Shows that a file that is missing or not text is wrong usage with its name.
    #[test]
    fn files_are_named() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("vars.env");
        let missing = read_env_file(&path, here).expect_err("it is not there");
        assert!(missing.what().ends_with("vars.env: no such file"), "{missing}");
        std::fs::write(&path, b"A=\xff").expect("it is ours");
        let binary = read_env_file(&path, here).expect_err("it is not text");
        assert!(binary.what().contains("not UTF-8") && binary.kind() == crate::FailureKind::Usage, "{binary}");
        std::fs::write(&path, "OK=1\nnot ok=2\n").expect("it is ours");
        let wrong = read_env_file(&path, here).expect_err("line 2 is wrong");
        assert!(wrong.what().contains("vars.env line 2: "), "{wrong}");
    }
}

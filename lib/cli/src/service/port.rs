//! Whether a port is free, and who has it if not
use super::process::Process;
use crate::exit::Failure;
use std::{fs, io, net::TcpListener};

/// The state of a listening socket in /proc/net/tcp.
const LISTENING: &str = "0A";

/// Checks that we could listen on a port of 127.0.0.1.
///
/// # Errors
/// `NotNow`: somebody else does, by name if we may know it. `Config`: it is not for us to use.
pub(super) fn check_free(port: u16) -> Result<(), Failure> {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            let who = holder(port).map_or_else(|| "another program".to_owned(), Process::shown);
            Err(Failure::not_now(format!("port {port} of 127.0.0.1 is in use by {who}")).hint("another one with --port N, or end that program"))
        }
        Err(e) => Err(Failure::config(format!("cannot listen on port {port} of 127.0.0.1: {}", crate::io_text(&e))).hint("another one with --port N, above 1023")),
    }
}

/// So many different ports of 127.0.0.1 that are free at this moment.
///
/// # Errors
/// `Config`: there are none.
pub(super) fn free_ones(count: usize) -> Result<Vec<u16>, Failure> {
    // All are held until the last is found, so that none is given twice.
    let held: io::Result<Vec<TcpListener>> = (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect();
    let ports = held.and_then(|held| held.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect());
    ports.map_err(|e: io::Error| Failure::config(format!("no free ports on 127.0.0.1: {}", crate::io_text(&e))).hint("ip address show lo"))
}

/// The number of the process that listens on a port of this machine; none if nobody does, or it is somebody else's and we may not look.
pub fn holder_of(port: u16) -> Option<u32> {
    holder(port).map(|process| process.pid)
}

/// The process that listens on a port; none if it is somebody else's and we may not look.
fn holder(port: u16) -> Option<Process> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().filter_map(|line| inode_of_listener(line, port)).collect::<Vec<_>>())
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").ok()?;
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
    };
    pids.into_iter().find(holds).and_then(Process::of)
}

/// The inode of a line of /proc/net/tcp, if that socket listens on the port.
fn inode_of_listener(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local = fields.get(1)?.rsplit_once(':')?.1;
    let is_it = u16::from_str_radix(local, 16) == Ok(port) && fields.get(3) == Some(&LISTENING);
    is_it.then(|| fields.get(9).copied().map(str::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ToolKind;

    /// Shows that a port in use is refused as "not now", naming the process that has it, and is free again after it.
    #[test]
    fn the_holder_is_named() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("some port is free");
        let port = listener.local_addr().expect("it listens").port();
        let failure = check_free(port).expect_err("we have it ourselves");
        assert_eq!(failure.exit(ToolKind::Plain).code(), 75);
        assert!(failure.what().contains(&format!("(process {})", std::process::id())), "{failure}");
        drop(listener);
        // A child that another test has just forked may hold it until its exec.
        let is_free = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            check_free(port).is_ok()
        });
        assert!(is_free);
    }

    /// Shows that a socket that does not listen, or on another port, is not taken for the holder.
    #[test]
    fn only_listeners_count() {
        let listening = "   3: 0100007F:107E 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000";
        assert_eq!(inode_of_listener(listening, 4222), Some("12345".to_owned()));
        assert_eq!(inode_of_listener(listening, 4223), None);
        assert_eq!(inode_of_listener(&listening.replace(" 0A ", " 01 "), 4222), None);
        assert_eq!(inode_of_listener("  sl  local_address rem_address   st", 4222), None);
    }
}

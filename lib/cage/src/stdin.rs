//! The task's standard input, over a socket that survives the agent
//!
//! Packets from the agent carry an offset, so that after a lost connection it can send again from where the
//! supervisor is: what is known already is passed over. The supervisor takes packets only as long as it has
//! room; beyond that the socket fills, and the sender waits. So a task that does not read holds up its sender.
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen, recv, send, socket},
    unistd,
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::Path,
};

/// The most data in one packet
const PACKET_BYTES_MAX: usize = 64 << 10;
/// The most the supervisor holds for a task that does not read
const BUFFER_BYTES_MAX: usize = 256 << 10;
/// Agents that may be connected at once: one, and one that is about to be found dead
const CONNECTIONS_MAX: usize = 4;
const HEAD_BYTES: usize = 9;
const KIND_DATA: u8 = b'd';
const KIND_EOF: u8 = b'e';
const KIND_ACCEPTED: u8 = b'a';
const KIND_CLOSED: u8 = b'c';
const SOCKET_NAME: &str = "stdin";

/// What the supervisor says of the input
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StdinReply {
    /// Everything before this offset is safe with the supervisor, and what follows may be sent
    Accepted { offset: u64 },
    /// The task reads no more: it closed its standard input or ended
    Closed,
}

/// The agent's end
#[derive(Debug)]
pub struct StdinSocket {
    socket: OwnedFd,
}

impl StdinSocket {
    /// Connects to the supervisor of the container in that directory; the first reply says where to begin
    pub fn connect(dir: &Path) -> io::Result<StdinSocket> {
        let dir = std::fs::File::open(dir)?;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        // A socket's address holds 108 bytes, a work directory's path may be longer.
        let path = format!("/proc/self/fd/{}/{SOCKET_NAME}", dir.as_raw_fd());
        connect(socket.as_raw_fd(), &UnixAddr::new(path.as_str())?)?;
        Ok(StdinSocket { socket })
    }

    /// Sends bytes that stand at an offset; returns how many were taken
    ///
    /// # Errors
    /// `WouldBlock` while the task does not read: wait until the socket is writable.
    pub fn send(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(PACKET_BYTES_MAX)];
        self.packet(KIND_DATA, offset, bytes)?;
        Ok(bytes.len())
    }

    /// Says that the input ends at this offset
    pub fn send_eof(&self, offset: u64) -> io::Result<()> {
        self.packet(KIND_EOF, offset, &[])
    }

    /// Takes one reply
    ///
    /// # Errors
    /// `WouldBlock` if there is none yet, `UnexpectedEof` if the supervisor is gone.
    pub fn recv(&self) -> io::Result<StdinReply> {
        let mut packet = [0; HEAD_BYTES];
        let length = recv(self.socket.as_raw_fd(), &mut packet, MsgFlags::empty())?;
        match (length, packet[0]) {
            (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
            (_, KIND_CLOSED) => Ok(StdinReply::Closed),
            _ => Ok(StdinReply::Accepted { offset: offset_of(&packet) }),
        }
    }

    fn packet(&self, kind: u8, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut packet = Vec::with_capacity(HEAD_BYTES + bytes.len());
        packet.push(kind);
        packet.extend_from_slice(&offset.to_le_bytes());
        packet.extend_from_slice(bytes);
        send(self.socket.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }
}

impl AsFd for StdinSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for StdinSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The supervisor's end: from connections into the task's pipe
pub(crate) struct Feed {
    listener: OwnedFd,
    connections: Vec<OwnedFd>,
    /// The task's pipe; none once the input has ended or the task has closed it
    pipe: Option<OwnedFd>,
    /// Accepted and not yet in the pipe, from `at` on
    buffer: Vec<u8>,
    at: usize,
    accepted: u64,
    is_ended: bool,
}

impl Feed {
    /// Listens in the working directory, which is the container's
    pub(crate) fn new(pipe: OwnedFd) -> nix::Result<Feed> {
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        bind(listener.as_raw_fd(), &UnixAddr::new(SOCKET_NAME)?)?;
        listen(&listener, Backlog::new(CONNECTIONS_MAX as i32)?)?;
        Ok(Feed { listener, connections: Vec::new(), pipe: Some(pipe), buffer: Vec::new(), at: 0, accepted: 0, is_ended: false })
    }

    /// Adds what it waits for
    pub(crate) fn wants(&self, fds: &mut Vec<libc::pollfd>) {
        let mut want = |fd: RawFd, events: i16| fds.push(libc::pollfd { fd, events, revents: 0 });
        want(self.listener.as_raw_fd(), libc::POLLIN);
        for connection in &self.connections {
            want(connection.as_raw_fd(), if self.has_room() { libc::POLLIN } else { 0 });
        }
        if let Some(pipe) = &self.pipe {
            // Asking for nothing still tells when the reader is gone.
            want(pipe.as_raw_fd(), if self.at < self.buffer.len() { libc::POLLOUT } else { 0 });
        }
    }

    /// Acts on what came; descriptors that are not its own are passed over
    pub(crate) fn turn(&mut self, fds: &[libc::pollfd]) {
        for ready in fds.iter().filter(|f| f.revents != 0) {
            if ready.fd == self.listener.as_raw_fd() {
                self.accept();
            } else if self.pipe.as_ref().is_some_and(|p| p.as_raw_fd() == ready.fd) {
                if ready.revents & libc::POLLERR != 0 { self.close() } else { self.pour() }
            } else if let Some(n) = self.connections.iter().position(|c| c.as_raw_fd() == ready.fd) {
                self.read(n);
            }
        }
    }

    fn accept(&mut self) {
        let Ok(fd) = accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) else { return };
        let connection = crate::sys::own(fd);
        if self.connections.len() == CONNECTIONS_MAX {
            self.connections.remove(0);
        }
        self.connections.push(connection);
        self.reply();
    }

    fn read(&mut self, n: usize) {
        let mut packet = vec![0; HEAD_BYTES + PACKET_BYTES_MAX];
        match recv(self.connections[n].as_raw_fd(), &mut packet, MsgFlags::empty()) {
            Ok(length) if length >= HEAD_BYTES => {
                let offset = offset_of(&packet);
                let bytes = &packet[HEAD_BYTES..length];
                match packet[0] {
                    KIND_DATA => self.take(offset, bytes),
                    KIND_EOF if offset == self.accepted => self.is_ended = true,
                    // An end beyond what we have: bytes are missing, and the reply says from where.
                    _ => {}
                }
                self.pour();
                self.reply();
            }
            // The sender left with replies unread. The kernel says so once, before the packets that it sent; they come next.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNRESET) => {}
            _ => {
                self.connections.remove(n);
            }
        }
    }

    /// Keeps what is new of a packet; one that leaves a gap is not taken
    fn take(&mut self, offset: u64, bytes: &[u8]) {
        let known = self.accepted.checked_sub(offset).and_then(|n| usize::try_from(n).ok());
        if let Some(fresh) = known.and_then(|n| bytes.get(n..)).filter(|_| !self.is_ended) {
            self.accepted += fresh.len() as u64;
            if self.pipe.is_some() {
                self.buffer.extend_from_slice(fresh);
            }
        }
    }

    /// Moves what the pipe will take
    fn pour(&mut self) {
        while let Some(pipe) = self.pipe.as_ref().filter(|_| self.at < self.buffer.len()) {
            match unistd::write(pipe, &self.buffer[self.at..]) {
                Ok(n) => self.at += n,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => return self.close(),
            }
        }
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
            if self.is_ended {
                self.pipe = None;
            }
        } else if self.at > BUFFER_BYTES_MAX / 2 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
    }

    /// The task reads no more
    fn close(&mut self) {
        self.pipe = None;
        self.buffer = Vec::new();
        self.at = 0;
        self.reply();
    }

    fn reply(&self) {
        let kind = if self.pipe.is_some() || self.is_ended { KIND_ACCEPTED } else { KIND_CLOSED };
        let mut packet = vec![kind];
        packet.extend_from_slice(&self.accepted.to_le_bytes());
        for connection in &self.connections {
            // A full socket means that an older reply is still unread; a broken one is noticed when reading.
            let _ = send(connection.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
        }
    }

    fn has_room(&self) -> bool {
        self.buffer.len() - self.at + PACKET_BYTES_MAX <= BUFFER_BYTES_MAX
    }
}

fn offset_of(packet: &[u8]) -> u64 {
    u64::from_le_bytes(packet[1..HEAD_BYTES].try_into().expect("eight bytes make a number"))
}

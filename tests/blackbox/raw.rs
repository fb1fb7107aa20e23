//! The protocol of the bus, spoken by hand: what no program of ours would ever send

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::process::LIMIT;

/// How long one read waits; the loop decides when it is enough.
const READ_WAIT: Duration = Duration::from_millis(50);

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Heard {
    pub subject: String,
    pub reply: Option<String>,
    pub payload: Vec<u8>,
}

/// A connection that hears everything and may say anything.
pub struct Raw {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    subscriptions: u32,
    marks: u32,
}

impl Raw {
    pub fn connect(port: u16) -> Raw {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the bus listens");
        stream.set_read_timeout(Some(READ_WAIT)).expect("a socket can wait");
        let mut raw = Raw { reader: BufReader::new(stream.try_clone().expect("it is open")), stream, subscriptions: 0, marks: 0 };
        raw.write(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":false}\r\n");
        raw
    }

    pub fn subscribe(&mut self, subject: &str) {
        self.subscriptions += 1;
        let line = format!("SUB {subject} {}\r\n", self.subscriptions);
        self.write(line.as_bytes());
    }

    pub fn publish(&mut self, subject: &str, reply: Option<&str>, payload: &[u8]) {
        let reply = reply.map_or_else(String::new, |reply| format!("{reply} "));
        let mut bytes = format!("PUB {subject} {reply}{}\r\n", payload.len()).into_bytes();
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(b"\r\n");
        self.write(&bytes);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the bus reads");
    }

    /// Everything that was heard before the bus had taken all that was said so far.
    pub fn heard(&mut self) -> Vec<Heard> {
        self.marks += 1;
        self.write(b"PING\r\n");
        let mut heard = Vec::new();
        let deadline = Instant::now() + LIMIT;
        loop {
            let Some(line) = self.line(deadline) else { panic!("the bus does not answer") };
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["PONG"] => return heard,
                ["PING"] => self.write(b"PONG\r\n"),
                ["MSG", subject, _, bytes] => {
                    let payload = self.payload(bytes, 0);
                    heard.push(Heard { subject: (*subject).to_owned(), reply: None, payload });
                }
                ["MSG", subject, _, reply, bytes] => {
                    let payload = self.payload(bytes, 0);
                    heard.push(Heard { subject: (*subject).to_owned(), reply: Some((*reply).to_owned()), payload });
                }
                ["HMSG", subject, _, head, bytes] => {
                    let payload = self.payload(bytes, head.parse().expect("a number"));
                    heard.push(Heard { subject: (*subject).to_owned(), reply: None, payload });
                }
                ["HMSG", subject, _, reply, head, bytes] => {
                    let payload = self.payload(bytes, head.parse().expect("a number"));
                    heard.push(Heard { subject: (*subject).to_owned(), reply: Some((*reply).to_owned()), payload });
                }
                ["INFO", ..] | ["+OK"] => {}
                _ => panic!("the bus says {line}"),
            }
        }
    }

    fn line(&mut self, deadline: Instant) -> Option<String> {
        let mut bytes = Vec::new();
        loop {
            match self.reader.read_until(b'\n', &mut bytes) {
                Ok(0) => return None,
                Ok(_) if bytes.ends_with(b"\n") => return Some(String::from_utf8_lossy(&bytes).trim_end().to_owned()),
                Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                _ if Instant::now() > deadline => return None,
                _ => {}
            }
        }
    }

    fn payload(&mut self, bytes: &str, head: usize) -> Vec<u8> {
        let count: usize = bytes.parse().expect("the bus counts");
        let mut payload = vec![0; count + 2];
        let mut at = 0;
        let deadline = Instant::now() + LIMIT;
        while at < payload.len() {
            match self.reader.read(&mut payload[at..]) {
                Ok(0) => panic!("the bus hung up"),
                Ok(more) => at += more,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && Instant::now() < deadline => {}
                Err(error) => panic!("the bus hung up: {error}"),
            }
        }
        payload.truncate(count);
        payload.split_off(head)
    }
}

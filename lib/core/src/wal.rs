//! The write-ahead log as bytes: framing, and recovery of what a crash left
//!
//! A log is a run of frames, the first of which holds the header record. A frame is one line:
//!
//! ```text
//! 8 hex digits of crc32(body) , space , body length in decimal , space , body , '\n'
//! ```
//!
//! A body is one record, or several joined by the separator 0x1E when they were written as a group:
//! a group stands or falls as a whole. A record is JSON text, which never holds a raw control byte,
//! so neither '\n' nor 0x1E needs an escape, and `less` shows the log to a person.
//!
//! Whoever writes syncs one frame at a time. Then a power cut damages the last frame alone, and a
//! damaged frame with a sound one after it can only be a rotten disk: the two are told apart.

use thiserror::Error;

/// The longest body, so that a damaged length is not believed.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// Stands between the records of a group.
const SEPARATOR: u8 = 0x1E;
const END: u8 = b'\n';
const CRC_DIGITS: usize = 8;
/// Digits of [`BODY_BYTES_MAX`].
const LENGTH_DIGITS_MAX: usize = 8;

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered<'a> {
    /// The records in the order in which they were written, the header first.
    pub records: Vec<&'a [u8]>,
    /// Bytes of sound frames: cut the file to this length before appending to it.
    pub good_len: usize,
    /// Whether bytes follow the sound frames: what a crash left of a write that nobody was told of.
    pub torn: bool,
}

/// A log whose middle is damaged: records that somebody relied on are lost.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("damaged at byte {offset}: {why}, yet a sound record follows at byte {sound}")]
pub struct Corrupt {
    /// Where the damaged frame begins.
    pub offset: usize,
    /// Where the next sound frame begins.
    pub sound: usize,
    /// What is wrong with the damaged one.
    pub why: Flaw,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Flaw {
    #[error("no checksum of 8 hexadecimal digits")]
    NoChecksum,
    #[error("no length")]
    NoLength,
    #[error("the length is over {BODY_BYTES_MAX} bytes")]
    TooLong,
    #[error("the end is missing")]
    NoEnd,
    #[error("the checksum does not match")]
    BadChecksum,
}

/// Frames one record.
///
/// The record is JSON text of at most [`BODY_BYTES_MAX`] bytes; anything else is a mistake of the
/// program and panics.
pub fn encode(record: &[u8]) -> Vec<u8> {
    encode_group(&[record])
}

/// Frames several records as one, for a group commit: after a crash all of them are there or none.
///
/// Panics as [`encode`] does. A group of none is no bytes.
pub fn encode_group(records: &[&[u8]]) -> Vec<u8> {
    if records.is_empty() {
        return Vec::new();
    }
    let clean = |record: &&[u8]| !record.is_empty() && !record.iter().any(|&byte| byte == END || byte == SEPARATOR);
    assert!(records.iter().all(clean), "a record of the log is JSON text on one line");
    let body = records.join(&SEPARATOR);
    assert!(body.len() <= BODY_BYTES_MAX, "a group of {} bytes is too long for the log", body.len());
    let mut frame = format!("{:08x} {} ", crc32(&body), body.len()).into_bytes();
    frame.extend_from_slice(&body);
    frame.push(END);
    frame
}

/// Reads a log back.
///
/// A damaged frame with nothing sound after it, zeroes included, is the torn tail of a write that
/// was never confirmed: it is left out. One with a sound frame after it is refused.
pub fn recover(log: &[u8]) -> Result<Recovered<'_>, Corrupt> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < log.len() {
        match frame(&log[at..]) {
            Ok((body, len)) => {
                records.extend(body.split(|&byte| byte == SEPARATOR));
                at += len;
            }
            Err(why) => match next_sound(log, at) {
                Some(sound) => return Err(Corrupt { offset: at, sound, why }),
                None => return Ok(Recovered { records, good_len: at, torn: true }),
            },
        }
    }
    Ok(Recovered { records, good_len: at, torn: false })
}

/// The body of the frame at the start of `bytes`, and the length of the frame.
fn frame(bytes: &[u8]) -> Result<(&[u8], usize), Flaw> {
    let (crc, start, len) = head(bytes)?;
    let body = bytes.get(start..start + len).ok_or(Flaw::NoEnd)?;
    if bytes.get(start + len) != Some(&END) {
        return Err(Flaw::NoEnd);
    }
    // An empty or split line is never written, so a checksum that matches one proves nothing.
    if body.is_empty() || body.contains(&END) || crc32(body) != crc {
        return Err(Flaw::BadChecksum);
    }
    Ok((body, start + len + 1))
}

/// Checksum, start of the body and length of the body.
fn head(bytes: &[u8]) -> Result<(u32, usize, usize), Flaw> {
    let (digits, rest) = bytes.split_at_checked(CRC_DIGITS).ok_or(Flaw::NoChecksum)?;
    let mut crc = 0;
    for &digit in digits {
        // Lower case alone: one frame has one spelling, and no damage goes unseen.
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return Err(Flaw::NoChecksum),
        };
        crc = crc << 4 | u32::from(value);
    }
    let rest = rest.strip_prefix(b" ").ok_or(Flaw::NoChecksum)?;
    let count = rest.iter().take(LENGTH_DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 || rest[0] == b'0' || rest.get(count).is_none_or(|&byte| byte != b' ' && !byte.is_ascii_digit()) {
        return Err(Flaw::NoLength);
    }
    let len = rest[..count].iter().fold(0, |sum, &digit| sum * 10 + usize::from(digit - b'0'));
    if len > BODY_BYTES_MAX {
        return Err(Flaw::TooLong);
    }
    Ok((crc, CRC_DIGITS + 1 + count + 1, len))
}

/// Where a sound frame begins after the damaged one at `bad`.
///
/// A frame follows a line end, or stands where the damaged frame says that it ends, should just
/// that line end be the damaged byte.
fn next_sound(log: &[u8], bad: usize) -> Option<usize> {
    let said = head(&log[bad..]).ok().map(|(_, start, len)| bad + start + len + 1);
    let lines = log[bad..].iter().enumerate().filter(|&(_, &byte)| byte == END).map(|(at, _)| bad + at + 1);
    said.into_iter().chain(lines).find(|&at| log.get(at..).is_some_and(|rest| frame(rest).is_ok()))
}

/// The checksum of zlib and Ethernet (reflected polynomial 0xEDB88320).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| crc >> 8 ^ CRC_TABLE[(crc as u8 ^ byte) as usize])
}

static CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Groups of JSON records, small enough to damage every byte.
    fn groups() -> impl Strategy<Value = Vec<Vec<String>>> {
        let record = "\\{\"k\":\"[a-z0-9 ]{0,12}\"\\}";
        proptest::collection::vec(proptest::collection::vec(record, 1..3), 0..6)
    }

    fn written(groups: &[Vec<String>]) -> Vec<u8> {
        groups.iter().flat_map(|group| encode_group(&group.iter().map(String::as_bytes).collect::<Vec<_>>())).collect()
    }

    /// How many whole groups the records are, or none if they are not a prefix of what was written.
    fn prefix_of(groups: &[Vec<String>], records: &[&[u8]]) -> Option<usize> {
        let mut left = records;
        for (count, group) in groups.iter().enumerate() {
            if left.is_empty() {
                return Some(count);
            }
            let (head, tail) = left.split_at_checked(group.len())?;
            if !head.iter().zip(group).all(|(read, wrote)| *read == wrote.as_bytes()) {
                return None;
            }
            left = tail;
        }
        left.is_empty().then_some(groups.len())
    }

    proptest! {
        /// Shows that a whole log comes back whole, and that every cut of it comes back as the groups
        /// that were complete by then.
        #[test]
        fn every_prefix_recovers(groups in groups()) {
            let log = written(&groups);
            let ends: Vec<usize> = groups.iter().scan(0, |at, group| { *at += written(std::slice::from_ref(group)).len(); Some(*at) }).collect();
            for cut in 0..=log.len() {
                let got = recover(&log[..cut]).expect("a cut log has nothing sound after the cut");
                let whole = ends.iter().filter(|&&end| end <= cut).count();
                prop_assert_eq!(prefix_of(&groups, &got.records), Some(whole));
                prop_assert_eq!(got.good_len, if whole == 0 { 0 } else { ends[whole - 1] });
                prop_assert_eq!(got.torn, got.good_len < cut);
            }
        }

        /// Shows that any one damaged byte anywhere costs the tail or is said, and never gives wrong data;
        /// in a frame that is not the last it is always said.
        #[test]
        fn every_damaged_byte_is_noticed(groups in groups(), mask in 1u8..) {
            let log = written(&groups);
            let last = groups.last().map_or(0, |group| log.len() - written(std::slice::from_ref(group)).len());
            for at in 0..log.len() {
                let mut bad = log.clone();
                bad[at] ^= mask;
                match recover(&bad) {
                    Ok(got) => {
                        prop_assert!(got.torn && got.good_len == last, "byte {} of {} was damaged unseen", at, log.len());
                        prop_assert_eq!(prefix_of(&groups, &got.records), Some(groups.len() - 1));
                    }
                    Err(corrupt) => {
                        prop_assert!(at < last && corrupt.offset <= at && corrupt.sound > at);
                    }
                }
            }
        }

        /// Shows that a tail of zeroes, written over the end or after it, is a torn tail.
        #[test]
        fn a_zeroed_tail_is_cut(groups in groups(), more in 0usize..600) {
            let log = written(&groups);
            for from in 0..=log.len() {
                let mut bad = log.clone();
                bad[from..].fill(0);
                bad.resize(log.len() + more, 0);
                let got = recover(&bad).expect("zeroes are no record");
                prop_assert!(prefix_of(&groups, &got.records).is_some());
                prop_assert!(got.good_len <= from);
            }
        }

        /// Shows that arbitrary bytes neither panic nor yield more than they hold, and that recovery is
        /// idempotent: what is left after the cut reads the same.
        #[test]
        fn arbitrary_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(got) = recover(&bytes) {
                let again = recover(&bytes[..got.good_len]).expect("the sound part is sound");
                prop_assert_eq!(again.records, got.records);
                prop_assert!(!again.torn);
            }
        }
    }

    /// Shows the format itself, which other programs read, and the published check value of crc32.
    #[test]
    fn the_format() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(encode(b"{}"), b"a3a6bf43 2 {}\n".to_vec());
        assert_eq!(encode_group(&[]), b"".to_vec());
        let log = encode_group(&[b"{\"a\":1}", b"{\"b\":2}"]);
        assert_eq!(recover(&log).map(|got| got.records), Ok(vec![&b"{\"a\":1}"[..], b"{\"b\":2}"]));
    }

    /// Shows that the reason for a refusal names the place and the flaw, one row per flaw.
    #[test]
    fn flaws_are_named() {
        let good = encode(b"{}");
        let bodies: [(&[u8], &str); 6] = [
            (b"A3A6BF43 2 {}\n", "no checksum of 8 hexadecimal digits"),
            (b"a3a6bf43 x {}\n", "no length"),
            (b"a3a6bf43 02 {}\n", "no length"),
            (b"a3a6bf43 99999999 {}\n", "the length is over 16777216 bytes"),
            (b"a3a6bf43 3 {}\n", "the end is missing"),
            (b"a3a6bf43 2 []\n", "the checksum does not match"),
        ];
        for (bad, why) in bodies {
            let log = [good.as_slice(), bad, &good].concat();
            let text = recover(&log).expect_err("a damaged middle").to_string();
            let want = format!("damaged at byte {}: {why}, yet a sound record follows at byte {}", good.len(), good.len() + bad.len());
            assert_eq!(text, want);
        }
    }

    /// Shows that a record which is not one line of text is a mistake of the program.
    #[test]
    #[should_panic(expected = "JSON text on one line")]
    fn a_line_break_is_refused() {
        encode(b"{}\n{}");
    }
}

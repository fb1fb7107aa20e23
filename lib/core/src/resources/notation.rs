//! The notation of resources: `cpus=0.5,mem=256M,ports=2`, and Mesos's `cpus:1;mem:128`

use std::collections::{BTreeMap, BTreeSet};

use super::{BadResources, Milli, OTHER_KINDS_MAX, Ports, Request, Resources, is_other_kind};

/// Bytes of a resource text at most
const TEXT_BYTES_MAX: usize = 4096;
/// The first port of an agent that was given a number of ports and not which
const FIRST_PORT: u16 = 31000;
const KIB_PER_MIB: i64 = 1024;

/// Reads what a task asks for: `cpus=0.5,mem=256M,disk=1G,gpus=1,ports=2,licenses=3`.
///
/// `ports=2` is any two, `ports=[31000-31005]` those; to ask for both, the named ones are
/// `port_ranges=[..]`. A name may stand once. The error names the item and the way out.
pub fn parse_request(text: &str) -> Result<Request, BadResources> {
    let mut request = Request::default();
    for item in items(text)? {
        match item.amount {
            Amount::Scalar(Kind::Cpus, amount) => request.cpus = amount,
            Amount::Scalar(Kind::Mem, amount) => request.mem = amount,
            Amount::Scalar(Kind::Disk, amount) => request.disk = amount,
            Amount::Scalar(Kind::Gpus, amount) => request.gpus = amount,
            Amount::PortCount(count) => request.ports = count,
            Amount::PortRanges(ranges) => request.port_ranges = request.port_ranges.union(&ranges),
            Amount::Other(amount) => add_kind(&mut request.other, &item, amount)?,
        }
    }
    Ok(request)
}

/// Reads what an agent has: as [`parse_request`], but ports are concrete.
///
/// `ports=[31000-32000]` are those, and a plain `ports=100` means 31000 to 31099.
pub fn parse_total(text: &str) -> Result<Resources, BadResources> {
    let mut total = Resources::default();
    for item in items(text)? {
        match item.amount {
            Amount::Scalar(Kind::Cpus, amount) => total.cpus = amount,
            Amount::Scalar(Kind::Mem, amount) => total.mem = amount,
            Amount::Scalar(Kind::Disk, amount) => total.disk = amount,
            Amount::Scalar(Kind::Gpus, amount) => total.gpus = amount,
            Amount::PortCount(count) => {
                let all = Ports::range(FIRST_PORT, u16::MAX).expect("31000 to 65535 is a range");
                let some = all.take_lowest(count).ok_or_else(|| {
                    BadResources::new(item.text, format!("there are {} ports from {FIRST_PORT} on; name the ranges, such as ports=[1024-65535]", all.len()))
                })?;
                total.ports = total.ports.union(&some);
            }
            Amount::PortRanges(ranges) => total.ports = total.ports.union(&ranges),
            Amount::Other(amount) => add_kind(&mut total.other, &item, amount)?,
        }
    }
    Ok(total)
}

/// Reads amounts by kind as [`parse_request`] does, but keeps zeros and has no ports.
///
/// For what is said of a sum over agents, such as a limit: `gpus=0` is another limit than none.
pub fn parse_amounts(text: &str) -> Result<BTreeMap<String, Milli>, BadResources> {
    let mut amounts = BTreeMap::new();
    for item in items(text)? {
        match item.amount {
            Amount::Scalar(_, amount) | Amount::Other(amount) => amounts.insert(item.name.to_owned(), amount),
            Amount::PortCount(_) | Amount::PortRanges(_) => return Err(BadResources::new(item.text, "ports can be neither guaranteed nor limited")),
        };
    }
    Ok(amounts)
}

/// Reads an amount of memory or disk and gives it in MiB: `256M`, `1.5G`, `512K`, `2T`, or plain MiB.
pub fn parse_size(text: &str) -> Result<Milli, BadResources> {
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let exponent = unit
        .strip_prefix(['e', 'E'])
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if number.is_empty() || unit.is_empty() || exponent {
        return Milli::parse(text);
    }
    let amount = Milli::parse(number).map_err(|bad| bad.about(text))?;
    let size = match unit {
        "K" if amount.as_milli() % KIB_PER_MIB == 0 => {
            Milli::from_milli(amount.as_milli() / KIB_PER_MIB)
        }
        "K" => {
            return Err(BadResources::new(
                text,
                "K is counted in thousandths of a MiB, so in multiples of 128; write M",
            ));
        }
        "M" => Some(amount),
        "G" => amount.checked_mul(1 << 10),
        "T" => amount.checked_mul(1 << 20),
        _ => return Err(BadResources::new(text, unit_hint(number, unit))),
    };
    size.ok_or_else(|| BadResources::new(text, "more than 1000000000000 MiB, the largest amount"))
}

/// Why a unit is not one of ours, with the spelling that is, where it can be guessed.
fn unit_hint(number: &str, unit: &str) -> String {
    const KNOWN: &str = "K M G T are powers of 1024";
    let number = if number.len() > 16 { "" } else { number };
    match unit.to_ascii_lowercase().as_str() {
        guess @ ("k" | "m" | "g" | "t" | "kb" | "mb" | "gb" | "tb" | "ki" | "mi" | "gi" | "ti"
        | "kib" | "mib" | "gib" | "tib") => {
            let letter = guess[..1].to_ascii_uppercase();
            format!("write {number}{letter} for {letter}iB; {KNOWN}")
        }
        "b" | "byte" | "bytes" => format!("bytes are too small a unit; {KNOWN}"),
        _ => format!("the unit is not known; {KNOWN}, no unit is MiB"),
    }
}

/// One `name=amount`, with the text it was
struct Item<'t> {
    text: &'t str,
    name: &'t str,
    amount: Amount,
}

enum Amount {
    Scalar(Kind, Milli),
    PortCount(u32),
    PortRanges(Ports),
    Other(Milli),
}

#[derive(Clone, Copy)]
enum Kind {
    Cpus,
    Mem,
    Disk,
    Gpus,
}

/// Splits at commas or semicolons outside of brackets and reads each item.
fn items(text: &str) -> Result<Vec<Item<'_>>, BadResources> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(BadResources::new(
            text,
            format!("longer than {TEXT_BYTES_MAX} bytes"),
        ));
    }
    if text.trim().is_empty() {
        return Err(BadResources::new(
            text,
            "no resources; write such as cpus=1,mem=512M",
        ));
    }
    let mut in_brackets = false;
    let pieces = text.split(move |c: char| {
        match c {
            '[' => in_brackets = true,
            ']' => in_brackets = false,
            _ => {}
        }
        !in_brackets && (c == ',' || c == ';')
    });
    let mut seen = BTreeSet::new();
    let mut items = Vec::new();
    for piece in pieces {
        let item = item(piece.trim_matches([' ', '\t']))?;
        if !seen.insert(item.name) {
            return Err(BadResources::new(
                item.text,
                "this name stands twice; write it once",
            ));
        }
        items.push(item);
    }
    Ok(items)
}

fn item(text: &str) -> Result<Item<'_>, BadResources> {
    let refuse = |why: &str| BadResources::new(text, why);
    if text.is_empty() {
        return Err(refuse(
            "nothing stands between two separators; write such as cpus=1,mem=512M",
        ));
    }
    let (name, value) = text
        .split_once(['=', ':'])
        .ok_or_else(|| refuse("neither = nor : in it; write such as cpus=1"))?;
    let (name, value) = (
        name.trim_end_matches([' ', '\t']),
        value.trim_start_matches([' ', '\t']),
    );
    let scalar = |kind, amount: Result<Milli, BadResources>| {
        amount.map(|amount| Amount::Scalar(kind, amount))
    };
    let amount = match name {
        "cpus" => scalar(Kind::Cpus, Milli::parse(value)),
        "mem" => scalar(Kind::Mem, parse_size(value)),
        "disk" => scalar(Kind::Disk, parse_size(value)),
        "gpus" => match Milli::parse(value) {
            Ok(amount) if !amount.is_whole() => {
                Err(refuse("gpus are given whole; write such as gpus=1"))
            }
            amount => scalar(Kind::Gpus, amount),
        },
        "ports" if !value.starts_with('[') => port_count(value).map(Amount::PortCount),
        "ports" | "port_ranges" => Ports::parse(value).map(Amount::PortRanges),
        _ if is_other_kind(name) => match near(name) {
            Some(meant) => return Err(refuse(&format!("did you mean {meant}"))),
            None => Milli::parse(value).map(Amount::Other),
        },
        _ => {
            return Err(refuse(
                "a name is 1 to 64 letters, digits, _ and -; write such as cpus=1,mem=512M",
            ));
        }
    };
    Ok(Item {
        text,
        name,
        amount: amount.map_err(|bad| bad.about(text))?,
    })
}

/// Other spellings of the built-in names, which as names of their own would never be satisfied
fn near(name: &str) -> Option<&'static str> {
    match name.to_ascii_lowercase().as_str() {
        "cpu" | "cpus" | "cores" => Some("cpus"),
        "mem" | "memory" | "ram" => Some("mem"),
        "disk" | "disks" | "storage" => Some("disk"),
        "gpu" | "gpus" => Some("gpus"),
        "port" | "ports" => Some("ports"),
        _ => None,
    }
}

fn port_count(text: &str) -> Result<u32, BadResources> {
    let count = Milli::parse(text)?;
    let fits = count.is_whole() && count.whole_units() <= u64::from(u16::MAX);
    if fits {
        Ok(count.whole_units() as u32)
    } else {
        Err(BadResources::new(
            text,
            "ports are counted whole, up to 65535",
        ))
    }
}

fn add_kind(
    kinds: &mut BTreeMap<String, Milli>,
    item: &Item<'_>,
    amount: Milli,
) -> Result<(), BadResources> {
    if kinds.len() == OTHER_KINDS_MAX {
        return Err(BadResources::new(
            item.text,
            format!("more than {OTHER_KINDS_MAX} kinds of resources"),
        ));
    }
    if !amount.is_zero() {
        kinds.insert(item.name.to_owned(), amount);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Both notations say the same, with spaces or without.
    #[test]
    fn both_notations_are_read() {
        let ours = parse_request("cpus=0.5,mem=256M,disk=1G,gpus=1,ports=2,licenses=3")
            .expect("our notation");
        assert_eq!(
            ours.to_string(),
            "cpus=0.5,mem=256,disk=1024,gpus=1,ports=2,licenses=3"
        );
        let mesos = parse_request("cpus:0.5; mem:256; disk : 1024;gpus:1;ports:2;licenses:3")
            .expect("Mesos's notation");
        assert_eq!(mesos, ours);
        let named = parse_request("cpus:1;ports:[31000-31005, 31010]").expect("port ranges");
        assert_eq!((named.ports, named.port_ranges.len()), (0, 7));
        assert_eq!(parse_request("licenses=0,cpus=0"), Ok(Request::default()));
    }

    /// Amounts by kind keep their zeros, and have no ports.
    #[test]
    fn amounts_keep_zeros() {
        let amounts = parse_amounts("cpus=0.5,mem=1G,gpus=0,licenses=0").expect("amounts");
        let shown: Vec<String> = amounts.iter().map(|(kind, amount)| format!("{kind}={amount}")).collect();
        assert_eq!(shown, ["cpus=0.5", "gpus=0", "licenses=0", "mem=1024"]);
        for (text, why) in [("ports=2", "ports can be neither"), ("cpus=1,port_ranges=[5]", "\"port_ranges=[5]\": ports can be neither"), ("cpus=-1", "never negative"), ("cpu=1", "did you mean cpus"), ("", "no resources")] {
            let refusal = parse_amounts(text).expect_err(text).to_string();
            assert!(refusal.contains(why), "{refusal}");
        }
    }

    /// An agent's ports are concrete: ranges, or so many from 31000 on.
    #[test]
    fn totals_have_concrete_ports() {
        let ports = |text| parse_total(text).map(|total| total.ports.to_string());
        assert_eq!(ports("ports=[5-7]").as_deref(), Ok("[5-7]"));
        assert_eq!(ports("ports=64").as_deref(), Ok("[31000-31063]"));
        assert_eq!(ports("ports=34536").as_deref(), Ok("[31000-65535]"));
        assert_eq!(ports("cpus=1,ports=0").as_deref(), Ok("[]"));
        assert!(
            ports("ports=34537")
                .expect_err("too many")
                .to_string()
                .contains("name the ranges")
        );
    }

    /// Sizes are MiB, and units are powers of 1024 kept exactly.
    #[test]
    fn sizes_are_read() {
        for (text, mib) in [
            ("256", "256"),
            ("256M", "256"),
            ("1G", "1024"),
            ("1.5G", "1536"),
            ("0.001G", "1.024"),
            ("2T", "2097152"),
            ("512K", "0.5"),
            ("128K", "0.125"),
            ("1024K", "1"),
            ("0", "0"),
            (".5G", "512"),
        ] {
            assert_eq!(parse_size(text).expect(text).to_string(), mib, "{text}");
        }
    }

    /// Every wrong item is named, with the reason and the way out.
    #[test]
    fn wrong_items_are_refused() {
        let long = format!("cpus={}", "1".repeat(5000));
        let kinds = (0..65)
            .map(|n| format!("kind{n}=1"))
            .collect::<Vec<_>>()
            .join(",");
        for (text, why) in [
            ("", "no resources"),
            ("  ", "no resources"),
            ("cpus", "\"cpus\": neither = nor :"),
            ("cpus=", "\"cpus=\": an amount is missing"),
            ("=1", "\"=1\": a name is"),
            ("cpus=1,", "\"\": nothing stands"),
            ("cpus=1,,mem=1", "nothing stands"),
            ("cpus=1;;mem=1", "nothing stands"),
            ("cpus=1,cpus=2", "\"cpus=2\": this name stands twice"),
            ("ports=2,ports=[5]", "\"ports=[5]\": this name stands twice"),
            ("cpus=-1", "\"cpus=-1\": an amount is never negative"),
            ("cpus=NaN", "finite"),
            ("mem=inf", "finite"),
            ("cpus=1e3", "exponent"),
            ("mem=1e3", "exponent"),
            ("cpus=0.0001", "3 decimals"),
            ("cpus=1000000000001", "largest amount"),
            ("cpus=1K", "not an amount"),
            ("cpus=1 000", "not an amount"),
            ("cpus==1", "not an amount"),
            (
                "mem=256m",
                "\"mem=256m\": write 256M for MiB; K M G T are powers of 1024",
            ),
            ("mem=1g", "write 1G for GiB"),
            ("mem=1GB", "write 1G for GiB"),
            ("mem=1GiB", "write 1G for GiB"),
            ("disk=5Mi", "write 5M for MiB"),
            ("disk=5tib", "write 5T for TiB"),
            ("mem=100b", "bytes are too small"),
            ("mem=100X", "not known"),
            ("mem=100%", "not known"),
            ("mem=1M2", "not known"),
            ("mem=M", "not an amount"),
            ("mem=1K", "multiples of 128"),
            ("mem=-1G", "negative"),
            ("mem=1000000000000T", "largest amount"),
            ("mem=1.0001G", "3 decimals"),
            ("gpus=0.5", "\"gpus=0.5\": gpus are given whole"),
            ("gpus=-1", "negative"),
            ("ports=1.5", "counted whole"),
            ("ports=65536", "counted whole"),
            ("ports=[9-5]", "\"ports=[9-5]\": a port range runs"),
            ("ports=[5-", "brackets"),
            ("ports=31000-31005", "not an amount"),
            ("port_ranges=5", "brackets"),
            ("cpu=1", "did you mean cpus"),
            ("memory=1G", "did you mean mem"),
            ("CPUS=1", "did you mean cpus"),
            ("cpus(eng):8", "a name is"),
            ("a.b=1", "a name is"),
            ("cpus=1&mem=2", "not an amount"),
            ("\u{1b}[2J=1", "\"\\u{1b}[2J=1\": a name is"),
            (long.as_str(), "longer than 4096"),
            (kinds.as_str(), "more than 64 kinds"),
        ] {
            for refusal in [
                parse_request(text).map(|_| ()),
                parse_total(text).map(|_| ()),
            ] {
                let refusal = refusal.expect_err(text).to_string();
                assert!(refusal.contains(why) && refusal.len() < 240, "{refusal}");
            }
        }
    }

    proptest! {
        /// No text makes the reader panic, and what it refuses it refuses in one short harmless line.
        #[test]
        fn any_text_is_read_or_refused(text in prop_oneof![any::<String>(), "[a-z=:,;0-9.KMGTm\\[\\]-]{0,40}"]) {
            for refusal in [parse_request(&text).map(|_| ()), parse_total(&text).map(|_| ()), parse_size(&text).map(|_| ())] {
                if let Err(refusal) = refusal {
                    let line = refusal.to_string();
                    prop_assert!(line.chars().count() < 240 && !line.chars().any(char::is_control), "{}", line);
                }
            }
        }
    }
}

//! A request: what a task asks for, before it is known which ports that will be

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Milli, Ports, Resources, joined, other_kinds, shown_kinds, shown_scalars, whole};

/// What one task asks for
///
/// `ports` is how many, whichever they are; `port_ranges` are ports it must have besides.
/// In JSON every key has a default of nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    pub cpus: Milli,
    /// MiB
    pub mem: Milli,
    /// MiB
    pub disk: Milli,
    /// Whole.
    #[serde(deserialize_with = "whole")]
    pub gpus: Milli,
    pub ports: u32,
    #[serde(skip_serializing_if = "Ports::is_empty")]
    pub port_ranges: Ports,
    /// Kinds beyond the built-in ones. Never an entry of zero.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "other_kinds"
    )]
    pub other: BTreeMap<String, Milli>,
}

/// One kind of which there is less than was asked for
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortfall {
    pub name: String,
    pub need: Milli,
    pub have: Milli,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.name, self.have, self.need)
    }
}

impl Request {
    pub fn is_empty(&self) -> bool {
        *self == Request::default()
    }

    /// Whether [`Request::take`] would succeed.
    pub fn fits(&self, free: &Resources) -> bool {
        self.cpus <= free.cpus
            && self.mem <= free.mem
            && self.disk <= free.disk
            && self.gpus <= free.gpus
            && self
                .other
                .iter()
                .all(|(name, amount)| *amount <= free.kind(name))
            && self.ports_fit(&free.ports)
    }

    /// Every kind of which `free` has too little; empty exactly if the request fits.
    ///
    /// Ports by number go under `ports`, after the named ones, which go under `port_ranges`.
    pub fn shortfalls(&self, free: &Resources) -> Vec<Shortfall> {
        let count = |ports: &Ports| Milli::units(ports.len().into());
        let kinds = [
            ("cpus", self.cpus, free.cpus),
            ("mem", self.mem, free.mem),
            ("disk", self.disk, free.disk),
            ("gpus", self.gpus, free.gpus),
            (
                "port_ranges",
                count(&self.port_ranges),
                count(&self.port_ranges.intersection(&free.ports)),
            ),
            (
                "ports",
                Milli::units(self.ports.into()),
                count(&free.ports.difference(&self.port_ranges)),
            ),
        ];
        let others = self
            .other
            .iter()
            .map(|(name, amount)| (name.as_str(), *amount, free.kind(name)));
        kinds
            .into_iter()
            .chain(others)
            .filter(|(_, need, have)| have < need)
            .map(|(name, need, have)| Shortfall {
                name: name.to_owned(),
                need,
                have,
            })
            .collect()
    }

    /// The concrete resources for one task out of `free`, with the lowest free ports; none if it does not fit.
    pub fn take(&self, free: &Resources) -> Option<Resources> {
        if !self.fits(free) {
            return None;
        }
        let any = free
            .ports
            .difference(&self.port_ranges)
            .take_lowest(self.ports)?;
        Some(Resources {
            cpus: self.cpus,
            mem: self.mem,
            disk: self.disk,
            gpus: self.gpus,
            ports: any.union(&self.port_ranges),
            other: self.other.clone(),
        })
    }

    /// The request of `count` such tasks at once; none if an amount overflows.
    ///
    /// None also if there are named ports and `count` is above 1: one port cannot be had twice.
    pub fn times(&self, count: u64) -> Option<Request> {
        if count == 0 {
            return Some(Request::default());
        }
        if count > 1 && !self.port_ranges.is_empty() {
            return None;
        }
        let other = self
            .other
            .iter()
            .map(|(name, amount)| Some((name.clone(), amount.checked_mul(count)?)));
        Some(Request {
            cpus: self.cpus.checked_mul(count)?,
            mem: self.mem.checked_mul(count)?,
            disk: self.disk.checked_mul(count)?,
            gpus: self.gpus.checked_mul(count)?,
            ports: self.ports.checked_mul(u32::try_from(count).ok()?)?,
            port_ranges: self.port_ranges.clone(),
            other: other.collect::<Option<_>>()?,
        })
    }

    /// How many such tasks `free` has room for, counting no further than `max`.
    pub fn room_in(&self, free: &Resources, max: u64) -> u64 {
        if !self.fits(free) {
            return 0;
        }
        let max = if self.port_ranges.is_empty() {
            max
        } else {
            max.min(1)
        };
        let ports = Milli::units(free.ports.len().into());
        let kinds = [
            (free.cpus, self.cpus),
            (free.mem, self.mem),
            (free.disk, self.disk),
            (free.gpus, self.gpus),
            (ports, Milli::units(self.ports.into())),
        ];
        let others = self
            .other
            .iter()
            .map(|(name, amount)| (free.kind(name), *amount));
        kinds
            .into_iter()
            .chain(others)
            .filter_map(|(have, need)| have.checked_div(need))
            .fold(max, u64::min)
    }

    fn ports_fit(&self, free: &Ports) -> bool {
        free.contains_all(&self.port_ranges)
            && u64::from(free.len()) >= u64::from(self.ports) + u64::from(self.port_ranges.len())
    }
}

impl fmt::Display for Request {
    /// The notation of `-R`; nothing at all is `cpus=0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scalars = [
            ("cpus", self.cpus),
            ("mem", self.mem),
            ("disk", self.disk),
            ("gpus", self.gpus),
            ("ports", Milli::units(self.ports.into())),
        ];
        let mut items = shown_scalars(&scalars);
        if !self.port_ranges.is_empty() {
            items.push(format!("port_ranges={}", self.port_ranges));
        }
        items.extend(shown_kinds(&self.other));
        f.write_str(&joined(items))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::resources::ports::tests::some_ports;
    use crate::resources::tests::{some_kinds, some_resources};
    use crate::resources::{parse_request, parse_total};

    prop_compose! {
        fn some_request()(
            cpus in 0..3000u64, mem in 0..3000u64, gpus in 0..2u64, ports in 0..6u32,
            port_ranges in prop_oneof![3 => Just(Ports::EMPTY), 1 => some_ports()], other in some_kinds(),
        ) -> Request {
            let tenths = |n: u64| Milli::from_milli(n as i64).expect("a small amount");
            Request { cpus: tenths(cpus), mem: tenths(mem), disk: Milli::ZERO, gpus: Milli::units(gpus), ports, port_ranges, other }
        }
    }

    fn request(text: &str) -> Request {
        parse_request(text).expect(text)
    }

    fn total(text: &str) -> Resources {
        parse_total(text).expect(text)
    }

    /// Taking chooses the named ports and, besides, the lowest free ones.
    #[test]
    fn taking_chooses_ports() {
        let free = total("cpus=4,mem=1G,ports=[31000-31009]");
        let taken = request("cpus=1,mem=256M,ports=3,port_ranges=[31001,31005]").take(&free);
        assert_eq!(
            taken,
            Some(total("cpus=1,mem=256,ports=[31000-31003,31005]"))
        );
        assert_eq!(
            request("ports=9,port_ranges=[31001-31002]").take(&free),
            None
        );
        assert_eq!(request("port_ranges=[31010]").take(&free), None);
        assert_eq!(
            Request::default().take(&Resources::default()),
            Some(Resources::default())
        );
    }

    /// Every kind that is short is named, with what is needed and what is there.
    #[test]
    fn shortfalls_are_named() {
        let free = total("cpus=4,mem=1G,ports=[31000-31003],licenses=1");
        let short =
            request("cpus=5,mem=1G,gpus=1,ports=4,port_ranges=[31000,31009],licenses=2,fpga=1")
                .shortfalls(&free);
        let shown: Vec<String> = short.iter().map(Shortfall::to_string).collect();
        assert_eq!(
            shown,
            [
                "cpus 4 of 5",
                "gpus 0 of 1",
                "port_ranges 1 of 2",
                "ports 3 of 4",
                "fpga 0 of 1",
                "licenses 1 of 2"
            ]
        );
    }

    /// Multiples are exact, and refused where they cannot exist.
    #[test]
    fn multiples() {
        assert_eq!(
            request("cpus=0.1,ports=2,licenses=3").times(10),
            Some(request("cpus=1,ports=20,licenses=30"))
        );
        assert_eq!(request("cpus=0.1").times(0), Some(Request::default()));
        assert_eq!(
            request("port_ranges=[5]").times(1),
            Some(request("port_ranges=[5]"))
        );
        assert_eq!(request("port_ranges=[5]").times(2), None);
        assert_eq!(request("cpus=2").times(u64::MAX), None);
        assert_eq!(request("ports=2").times(1 << 31), None);
    }

    /// Room is the scarcest kind's, and bounded by what was asked.
    #[test]
    fn room() {
        let free = total("cpus=4,mem=1G,ports=[1-10]");
        for (text, room) in [
            ("cpus=0.1", 40),
            ("cpus=1,mem=300M", 3),
            ("ports=3", 3),
            ("port_ranges=[7]", 1),
            ("cpus=5", 0),
            ("gpus=1", 0),
            ("cpus=0", 1000),
        ] {
            assert_eq!(request(text).room_in(&free, 1000), room, "{text}");
        }
        assert_eq!(request("cpus=0.1").room_in(&free, 7), 7);
    }

    /// The JSON form, and that anything but an amount is refused in it.
    #[test]
    fn json_form() {
        let some = request("cpus=0.5,mem=256M,ports=2");
        let json = serde_json::to_string(&some).expect("an object");
        assert_eq!(
            json,
            r#"{"cpus":0.5,"mem":256,"disk":0,"gpus":0,"ports":2}"#
        );
        assert_eq!(
            serde_json::from_str::<Request>(&json).expect("own output"),
            some
        );
        for bad in [
            r#"{"ports":-1}"#,
            r#"{"ports":1.5}"#,
            r#"{"ports":4294967296}"#,
            r#"{"gpus":0.5}"#,
            r#"{"cpus":"x"}"#,
        ] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// To fit, to lack nothing and to be takeable are one and the same; what is taken was there.
        #[test]
        fn fitting_is_taking(request in some_request(), free in some_resources()) {
            prop_assert_eq!(request.fits(&free), request.shortfalls(&free).is_empty());
            prop_assert_eq!(request.fits(&free), request.take(&free).is_some());
            if let Some(taken) = request.take(&free) {
                prop_assert!(free.contains(&taken));
                prop_assert_eq!(taken.ports.len(), request.ports + request.port_ranges.len());
            }
        }

        /// There is room for n exactly if n can be taken one after the other.
        #[test]
        fn room_is_what_can_be_taken(request in some_request(), free in some_resources()) {
            let room = request.room_in(&free, 20);
            let mut rest = free;
            let mut count = 0;
            while count < 20 && let Some(taken) = request.take(&rest) {
                rest = rest.checked_sub(&taken).expect("taken out of it");
                count += 1;
            }
            prop_assert_eq!(count, room);
        }

        /// Showing and reading are inverse, as text and as JSON.
        #[test]
        fn shown_requests_read_back(request in some_request()) {
            prop_assert_eq!(parse_request(&request.to_string()), Ok(request.clone()));
            let json = serde_json::to_string(&request).expect("an object");
            prop_assert_eq!(serde_json::from_str::<Request>(&json).expect("own output"), request);
        }
    }
}

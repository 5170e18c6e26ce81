//! Connections, packets and devices on both sides of what rules about them draw.

use std::collections::BTreeSet;
use std::net::IpAddr;

use policy::{Device, Direction, Packet, Transport};
use proto::rules::object::{self, Endpoint, Flow, Is, Ports};
use proto::rules::{self, Rule};

use super::super::asked::{Peer, What};
use super::STRANGER;

/// Far ends that rules name, and their neighbours.
#[derive(Default)]
struct Ends {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
    transports: BTreeSet<Transport>,
    directions: BTreeSet<Direction>,
}

impl Ends {
    fn range(&mut self, cidr: &str) {
        self.addresses.extend(edges(cidr));
    }

    fn ports(&mut self, all: &[Ports]) {
        for ports in all {
            let number = |port: u32| u16::try_from(port).ok();
            let (first, last) = (ports.first, ports.last);
            let near = [
                first.checked_sub(1),
                Some(first),
                Some(last),
                Some(last + 1),
            ];
            self.ports
                .extend(near.into_iter().flatten().filter_map(number));
            if !ports.protocol.is_empty() {
                self.transports
                    .extend([Transport::Tcp, Transport::Udp, Transport::Sctp]);
            }
        }
    }

    fn direction(&mut self, direction: rules::Direction) {
        match direction {
            rules::Direction::Both => {}
            _ => self
                .directions
                .extend([Direction::Egress, Direction::Ingress]),
        }
    }

    /// Something of each where no rule looks at it.
    fn each(mut self) -> Vec<(Direction, Transport, IpAddr, u16)> {
        if self.addresses.is_empty() {
            self.addresses.insert(IpAddr::from([192, 0, 2, 1])); // RFC 5737
        }
        if self.ports.is_empty() {
            self.ports.insert(443);
        }
        if self.transports.is_empty() {
            self.transports.insert(Transport::Tcp);
        }
        if self.directions.is_empty() {
            self.directions.insert(Direction::Egress);
        }
        let mut all = Vec::new();
        for direction in &self.directions {
            for transport in &self.transports {
                for address in &self.addresses {
                    all.extend(
                        self.ports
                            .iter()
                            .map(|port| (*direction, *transport, *address, *port)),
                    );
                }
            }
        }
        all
    }
}

/// The first and the last address of a range, and those before and behind.
fn edges(cidr: &str) -> Vec<IpAddr> {
    let (address, bits) = cidr.split_once('/').unwrap_or((cidr, ""));
    let bits: Option<u32> = bits.parse().ok();
    match address.parse() {
        Ok(IpAddr::V4(v4)) => {
            let rest = u32::MAX.checked_shr(bits.unwrap_or(32)).unwrap_or(0);
            let (first, last) = (u32::from(v4) & !rest, u32::from(v4) | rest);
            let all = [
                first.checked_sub(1),
                Some(first),
                Some(last),
                last.checked_add(1),
            ];
            all.into_iter()
                .flatten()
                .map(|one| IpAddr::V4(one.into()))
                .collect()
        }
        Ok(IpAddr::V6(v6)) => {
            let rest = u128::MAX.checked_shr(bits.unwrap_or(128)).unwrap_or(0);
            let (first, last) = (u128::from(v6) & !rest, u128::from(v6) | rest);
            let all = [
                first.checked_sub(1),
                Some(first),
                Some(last),
                last.checked_add(1),
            ];
            all.into_iter()
                .flatten()
                .map(|one| IpAddr::V6(one.into()))
                .collect()
        }
        Err(_) => Vec::new(),
    }
}

/// Connections at every edge of these rules.
pub(super) fn connections(rules: &[&Rule]) -> Vec<What> {
    let mut ends = Ends::default();
    let mut names: BTreeSet<Vec<String>> = BTreeSet::from([Vec::new()]);
    for Endpoint {
        cidr,
        domain,
        ports,
        direction,
    } in rules.iter().filter_map(|rule| endpoint(rule))
    {
        ends.range(cidr);
        ends.ports(ports);
        ends.direction(rules::Direction::try_from(*direction).unwrap_or_default());
        if !domain.is_empty() {
            names.insert(vec![domain.clone()]);
            names.insert(vec![format!("{STRANGER}.{domain}")]);
        }
    }
    let peer = |(direction, transport, address, port), names: &Vec<String>| {
        What::Connect(Peer {
            direction,
            transport,
            address,
            port: Some(port),
            names: Some(names.clone()),
        })
    };
    let ends = ends.each();
    let of = |end: &(Direction, Transport, IpAddr, u16)| -> Vec<What> {
        names.iter().map(|names| peer(*end, names)).collect()
    };
    ends.iter().flat_map(of).collect()
}

fn endpoint<'r>(rule: &&'r Rule) -> Option<&'r Endpoint> {
    match rule.object.as_ref()?.is.as_ref()? {
        Is::Endpoint(endpoint) => Some(endpoint),
        _ => None,
    }
}

/// Packets at every edge of these rules.
pub(super) fn packets(rules: &[&Rule]) -> Vec<What> {
    let mut ends = Ends::default();
    let mut interfaces = BTreeSet::new();
    let mut used = BTreeSet::from([0]);
    for Flow {
        direction,
        cidrs,
        interfaces: own,
        ports,
        quota,
    } in rules.iter().filter_map(|rule| flow(rule))
    {
        cidrs.iter().for_each(|cidr| ends.range(cidr));
        ends.ports(ports);
        ends.direction(rules::Direction::try_from(*direction).unwrap_or_default());
        interfaces.extend(own.iter().cloned());
        used.extend(
            quota
                .iter()
                .flat_map(|quota| [quota.bytes, quota.bytes.saturating_add(1)]),
        );
    }
    if !interfaces.is_empty() {
        interfaces.insert(STRANGER.to_owned());
    } else {
        interfaces.insert("eth0".to_owned());
    }
    let mut all = Vec::new();
    for (direction, transport, address, port) in ends.each() {
        for interface in &interfaces {
            all.extend(used.iter().map(|used| {
                What::Packet(Packet {
                    direction,
                    transport,
                    address,
                    port,
                    interface: interface.clone(),
                    used: Some(*used),
                })
            }));
        }
    }
    all
}

fn flow<'r>(rule: &&'r Rule) -> Option<&'r Flow> {
    match rule.object.as_ref()?.is.as_ref()? {
        Is::Flow(flow) => Some(flow),
        _ => None,
    }
}

/// A device that the rule is about, and for each number that it names one with another.
pub(super) fn devices(rule: &object::Device) -> Vec<What> {
    let byte = |number: Option<u32>, else_: u8| {
        number
            .and_then(|own| u8::try_from(own).ok())
            .unwrap_or(else_)
    };
    let own = Device {
        class: byte(rule.class, 3), // HID
        sub_class: byte(rule.sub_class, 0),
        protocol: byte(rule.protocol, 0),
        level: rule.level.unwrap_or(1),
    };
    let near = [
        Device {
            class: own.class.wrapping_add(1),
            ..own
        },
        Device {
            sub_class: own.sub_class.wrapping_add(1),
            ..own
        },
        Device {
            protocol: own.protocol.wrapping_add(1),
            ..own
        },
        Device {
            level: own.level.wrapping_add(1),
            ..own
        },
    ];
    let near = near.into_iter().map(What::Plug);
    std::iter::once(What::Plug(own)).chain(near).collect()
}

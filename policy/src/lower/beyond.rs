//! Devices, endpoints and flows.

use super::{Lower, Written, sources};
use crate::device::{Devices, class};
use crate::endpoint::{Cidr, Direction, Endpoints, Flows, Ports, Quota, Transport};
use crate::model::{self, Attributes, DirectionWord};
use crate::rule::{Object, Section};

/// Ports by the names that the language knows.
pub(crate) const PORT_NAMES: [(&str, u16); 4] =
    [("ssh", 22), ("http", 80), ("https", 443), ("dns", 53)];

impl<'p> Lower<'p> {
    pub(super) fn devices(&mut self, section: &'p model::Device, outer: Attributes<'p>) {
        let outer = section.attributes().within(outer);
        let byte = |number: Option<i32>| number.and_then(|number| u8::try_from(number).ok());
        for (index, item) in section.match_device.iter().enumerate() {
            let devices = Devices {
                class: class(&item.class).ok().flatten(),
                sub_class: byte(item.sub_class),
                protocol: byte(item.protocol),
                level: item.level.and_then(|level| u32::try_from(level).ok()),
            };
            let written = Written::new(Section::Devices, Object::Devices(devices));
            let place = format!("device.matchDevice[{index}]");
            self.add(place, written, item.attributes().within(outer));
        }
    }

    pub(super) fn endpoints(&mut self, section: &'p model::Network, outer: Attributes<'p>) {
        for (index, item) in section.match_endpoints.iter().enumerate() {
            let endpoints = Endpoints {
                cidr: item.cidr.as_deref().and_then(Cidr::parse),
                domain: item.domain.as_deref().map(crate::domain::canonical),
                ports: endpoint_ports(item),
                direction: item.direction.map(|direction| match direction {
                    DirectionWord::Egress => Direction::Egress,
                    DirectionWord::Ingress => Direction::Ingress,
                }),
            };
            let written = Written {
                sources: sources(&item.from_source),
                pts: item.pts,
                ..Written::new(Section::Endpoints, Object::Endpoints(endpoints))
            };
            let place = format!("network.matchEndpoints[{index}]");
            self.add(place, written, item.attributes().within(outer));
        }
    }

    pub(super) fn flows(&mut self, spec: &'p model::NetworkSpec) {
        let outer = spec.attributes();
        let shared = |level: &String| level.eq_ignore_ascii_case("policy");
        let shared = spec.level.as_ref().is_some_and(shared);
        for (index, item) in spec.ingress.iter().enumerate() {
            let flows = flows(
                Direction::Ingress,
                (&item.from, &item.iface, &item.ports),
                quota(item.limit.as_deref(), item.duration.as_deref(), shared),
            );
            let written = Written::new(Section::Flows, Object::Flows(flows));
            self.add(
                format!("ingress[{index}]"),
                written,
                item.attributes().within(outer),
            );
        }
        for (index, item) in spec.egress.iter().enumerate() {
            let flows = flows(
                Direction::Egress,
                (&item.to, &item.iface, &item.ports),
                quota(item.limit.as_deref(), item.duration.as_deref(), shared),
            );
            let written = Written::new(Section::Flows, Object::Flows(flows));
            self.add(
                format!("egress[{index}]"),
                written,
                item.attributes().within(outer),
            );
        }
    }
}

/// A port by number or name; the last of its range; the transport, if it says one.
fn ports(port: &str, end: Option<i32>, transport: Option<Transport>) -> Option<Ports> {
    let named = PORT_NAMES.iter().find(|(name, _)| *name == port);
    let first = match named {
        Some((_, number)) => *number,
        None => port.parse().ok()?,
    };
    let last = end.and_then(|end| u16::try_from(end).ok()).unwrap_or(first);
    Some(Ports {
        first,
        last: last.max(first),
        transport,
    })
}

fn endpoint_ports(item: &model::EndpointMatch) -> Vec<Ports> {
    let outer = item.protocol.as_deref().and_then(Transport::of);
    let all = item.ports.iter().filter_map(|own| {
        let transport = own.protocol.as_deref().and_then(Transport::of).or(outer);
        ports(&own.port, own.end_port, transport)
    });
    let all = sorted(all.collect());
    match (all.is_empty(), outer) {
        (true, Some(transport)) => vec![Ports::all(transport)],
        _ => all,
    }
}

fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort_unstable();
    all.dedup();
    all
}

type Written3<'p> = (&'p [model::Peer], &'p [String], &'p [model::Port]);

fn flows(direction: Direction, (peers, iface, own): Written3<'_>, quota: Option<Quota>) -> Flows {
    let cidrs = peers
        .iter()
        .filter_map(|peer| Cidr::parse(&peer.ip_block.cidr));
    let numbers = own.iter().filter_map(|own| {
        let transport = own.protocol.as_deref().and_then(Transport::of);
        ports(&own.port, own.end_port, transport)
    });
    Flows {
        direction,
        cidrs: sorted(cidrs.collect()),
        interfaces: sorted(iface.to_vec()),
        ports: sorted(numbers.collect()),
        quota,
    }
}

fn quota(limit: Option<&str>, duration: Option<&str>, shared: bool) -> Option<Quota> {
    let bytes = bytes(limit?)?;
    let window = duration.and_then(|text| text.parse::<yaml::Span>().ok());
    let seconds = window.map_or(0, |span| span.0.as_secs());
    Some(Quota {
        bytes,
        seconds,
        shared,
    })
}

/// An amount as in `500MB`; without a unit in GB. Units are powers of 1024, as nftables counts them.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let power = match unit {
        "K" | "KB" => 1,
        "M" | "MB" => 2,
        "" | "G" | "GB" => 3,
        _ => return None,
    };
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(1024u64.checked_pow(power)?)
}

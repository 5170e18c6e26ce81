//! The far end of a connection, and packets: addresses, ports, directions, quotas.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A range of addresses. IPv4 ranges are held in the IPv4-mapped part of IPv6 (RFC 4291, 2.5.5.2), so that one form
/// compares with both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: u128,
    /// 0 to 128, of the mapped form.
    bits: u8,
}

/// Bits that an IPv4 address has in front in its mapped form.
const MAPPED: u8 = 96;

impl Cidr {
    /// `10.0.0.0/8`, `2001:db8::/32`, or an address alone. Host bits are cleared.
    pub fn parse(text: &str) -> Option<Cidr> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let (offset, most) = match address {
            IpAddr::V4(_) => (MAPPED, 32),
            IpAddr::V6(_) => (0, 128),
        };
        let digits = |bits: &&str| !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
        let bits: u8 = match bits {
            Some(bits) => Some(bits).filter(digits)?.parse().ok()?,
            None => most,
        };
        (bits <= most).then(|| Cidr::new(address, offset + bits))
    }

    fn new(address: IpAddr, bits: u8) -> Cidr {
        Cidr {
            network: mapped(address) & mask(bits),
            bits,
        }
    }

    /// Whether the address is in it. `0.0.0.0/0` holds IPv4 addresses only, `::/0` all.
    pub fn holds(self, address: IpAddr) -> bool {
        mapped(address) & mask(self.bits) == self.network
    }

    /// How narrow it is: 0 for everything, 128 for one address, on one scale for both families.
    pub(crate) fn narrowness(self) -> usize {
        usize::from(self.bits)
    }

    /// Whether some address is in both.
    pub(crate) fn meets(self, other: Cidr) -> bool {
        let wider = self.bits.min(other.bits);
        (self.network ^ other.network) & mask(wider) == 0
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn mask(bits: u8) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(bits.min(128)))
        .unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from(self.network);
        match address.to_ipv4_mapped() {
            Some(v4) if self.bits >= MAPPED => write!(f, "{v4}/{}", self.bits - MAPPED),
            _ => write!(f, "{address}/{}", self.bits),
        }
    }
}

/// What carries ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl Transport {
    pub(crate) const NAMES: [(&'static str, Transport); 3] = [
        ("tcp", Transport::Tcp),
        ("udp", Transport::Udp),
        ("sctp", Transport::Sctp),
    ];

    /// The transport of a name in any case.
    pub fn of(name: &str) -> Option<Transport> {
        let name = name.to_ascii_lowercase();
        let mut all = Transport::NAMES.iter();
        all.find(|(known, _)| *known == name).map(|(_, own)| *own)
    }

    /// Its lower-case name.
    pub fn name(self) -> &'static str {
        let mut all = Transport::NAMES.iter();
        all.find(|(_, own)| *own == self)
            .map_or("", |(name, _)| *name)
    }
}

/// Ports of one transport, or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last, not before the first.
    pub last: u16,
    /// `None`: whatever carries them.
    pub transport: Option<Transport>,
}

impl Ports {
    /// Every port of a transport.
    pub const fn all(transport: Transport) -> Ports {
        Ports {
            first: 0,
            last: u16::MAX,
            transport: Some(transport),
        }
    }

    fn hold(self, transport: Transport, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
            && self.transport.is_none_or(|own| own == transport)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = self.transport.map_or("", Transport::name);
        match (self.first, self.last) {
            (0, u16::MAX) => f.write_str(transport),
            (first, last) if first == last => write!(f, "{transport}:{first}"),
            (first, last) => write!(f, "{transport}:{first}-{last}"),
        }
    }
}

pub(crate) fn ports_hold(ports: &[Ports], transport: Transport, port: u16) -> bool {
    ports.is_empty() || ports.iter().any(|own| own.hold(transport, port))
}

/// Who began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// This end: connect, send.
    Egress,
    /// The far end: bind, accept, receive.
    Ingress,
}

/// The far ends that a rule is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoints {
    /// The addresses; with a domain `None`.
    pub cidr: Option<Cidr>,
    /// A name, and all below it; lower case.
    pub domain: Option<String>,
    /// Its ports; empty: all.
    pub ports: Vec<Ports>,
    /// `None`: both ways.
    pub direction: Option<Direction>,
}

/// One connection, as it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Who began it.
    pub direction: Direction,
    /// What carries it.
    pub transport: Transport,
    /// The far end's address; on bind, one's own.
    pub address: IpAddr,
    /// The far end's port; of what comes in, one's own.
    pub port: u16,
    /// Names that the address was looked up by.
    pub names: Vec<String>,
}

impl Endpoints {
    /// How narrow the rule is when it is about the connection.
    pub(crate) fn depth(&self, connection: &Connection) -> Option<usize> {
        let about = self.direction.is_none_or(|own| own == connection.direction)
            && ports_hold(&self.ports, connection.transport, connection.port)
            && self.cidr.is_none_or(|cidr| cidr.holds(connection.address))
            && self.domain.as_ref().is_none_or(|domain| {
                let mut names = connection.names.iter();
                names.any(|name| crate::domain::covers(domain, name))
            });
        about.then(|| self.narrowness())
    }

    /// A name is narrower than any range of addresses, a deeper name than a shallower one.
    pub(crate) fn narrowness(&self) -> usize {
        match (&self.domain, self.cidr) {
            (Some(domain), _) => 129 + crate::domain::labels(domain),
            (None, Some(cidr)) => cidr.narrowness(),
            (None, None) => 0,
        }
    }

    pub(crate) fn meets(&self, other: &Endpoints) -> bool {
        let directions = self.direction.zip(other.direction);
        let ranges = self.cidr.zip(other.cidr);
        directions.is_none_or(|(a, b)| a == b)
            && ranges.is_none_or(|(a, b)| a.meets(b))
            && ports_meet(&self.ports, &other.ports)
    }
}

fn ports_meet(a: &[Ports], b: &[Ports]) -> bool {
    let meet = |a: &Ports, b: &Ports| {
        a.first <= b.last
            && b.first <= a.last
            && a.transport.zip(b.transport).is_none_or(|(a, b)| a == b)
    };
    a.is_empty() || b.is_empty() || a.iter().any(|a| b.iter().any(|b| meet(a, b)))
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.direction {
            Some(Direction::Egress) => f.write_str("to ")?,
            Some(Direction::Ingress) => f.write_str("from ")?,
            None => {}
        }
        match (&self.domain, self.cidr) {
            (Some(domain), _) => f.write_str(domain)?,
            (None, Some(cidr)) => write!(f, "{cidr}")?,
            (None, None) => f.write_str("anywhere")?,
        }
        for ports in &self.ports {
            write!(f, " {ports}")?;
        }
        Ok(())
    }
}

/// The packets that a rule of a network policy is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flows {
    /// Which way they go.
    pub direction: Direction,
    /// The far end's addresses; empty: all.
    pub cidrs: Vec<Cidr>,
    /// Network interfaces; empty: all.
    pub interfaces: Vec<String>,
    /// The ports; empty: all.
    pub ports: Vec<Ports>,
    /// The rule is about what exceeds this; only the direction counts then, as in KubeArmor.
    pub quota: Option<Quota>,
}

/// How much may pass in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quota {
    /// Bytes that may pass.
    pub bytes: u64,
    /// In so many seconds.
    pub seconds: u64,
    /// All workloads of the policy together, instead of each its own.
    pub shared: bool,
}

/// One packet of a node or pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packet {
    /// Which way it goes.
    pub direction: Direction,
    /// What carries it.
    pub transport: Transport,
    /// The far end's address.
    pub address: IpAddr,
    /// The far end's port; of what comes in, one's own.
    pub port: u16,
    /// The interface that it goes through.
    pub interface: String,
    /// Bytes that passed in this window and direction before it; `None`: not known.
    pub used: Option<u64>,
}

impl Flows {
    /// Whether the rule is about the packet, its quota aside.
    pub(crate) fn about(&self, packet: &Packet) -> bool {
        if self.direction != packet.direction || self.quota.is_some() {
            return self.direction == packet.direction;
        }
        let holds = |cidr: &Cidr| cidr.holds(packet.address);
        (self.cidrs.is_empty() || self.cidrs.iter().any(holds))
            && (self.interfaces.is_empty() || self.interfaces.contains(&packet.interface))
            && ports_hold(&self.ports, packet.transport, packet.port)
    }

    /// The narrowest range of addresses that it names.
    pub(crate) fn narrowness(&self) -> usize {
        let all = self.cidrs.iter().map(|cidr| cidr.narrowness());
        all.max().unwrap_or(0)
    }

    pub(crate) fn meets(&self, other: &Flows) -> bool {
        let ranges = self.cidrs.is_empty()
            || other.cidrs.is_empty()
            || (self.cidrs.iter()).any(|a| other.cidrs.iter().any(|b| a.meets(*b)));
        self.direction == other.direction && ranges && ports_meet(&self.ports, &other.ports)
    }
}

impl fmt::Display for Flows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.direction {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        })?;
        for cidr in &self.cidrs {
            write!(f, " {cidr}")?;
        }
        for interface in &self.interfaces {
            write!(f, " {interface}")?;
        }
        for ports in &self.ports {
            write!(f, " {ports}")?;
        }
        if let Some(quota) = &self.quota {
            write!(f, " over {} bytes in {} s", quota.bytes, quota.seconds)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_addresses_and_no_others() {
        let holds = |cidr: &str, address: &str| {
            Cidr::parse(cidr)
                .is_some_and(|cidr| cidr.holds(address.parse().unwrap_or(IpAddr::V4(0.into()))))
        };
        assert!(holds("10.1.0.0/16", "10.1.255.3") && !holds("10.1.0.0/16", "10.2.0.1"));
        assert!(holds("0.0.0.0/0", "1.2.3.4") && !holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("::/0", "2001:db8::1"));
        assert!(holds("192.0.2.7", "192.0.2.7") && !holds("192.0.2.7", "192.0.2.8"));
        assert!(
            holds("10.0.0.0/8", "::ffff:10.2.3.4"),
            "a mapped address is the address"
        );
    }

    #[test]
    fn a_range_has_one_text() {
        let text = |cidr: &str| Cidr::parse(cidr).map(|cidr| cidr.to_string());
        assert_eq!(text("10.1.2.3/8").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(text("2001:DB8::1/32").as_deref(), Some("2001:db8::/32"));
        assert_eq!(text("0.0.0.0/0").as_deref(), Some("0.0.0.0/0"));
        for bad in [
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "x",
        ] {
            assert_eq!(text(bad), None, "{bad}");
        }
    }
}

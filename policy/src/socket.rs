//! What kind of internet socket a program asks for, as one small key that a kernel map can hold.
//!
//! Protocol names mean internet sockets (`AF_INET`, `AF_INET6`), and so do type names; packet sockets (`AF_PACKET`)
//! are `packet` whatever their type. Sockets of other families are not judged.
//!
//! ```text
//! socket(2) type   protocol            key {kind, protocol}     matched by
//! STREAM 1         0, 6, 256, 262      1, 6                     tcp, stream, all
//! STREAM 1         132                 1, 132                   sctp, stream, all
//! DGRAM 2          0, 17               2, 17                    udp, dgram, all
//! DGRAM 2, RAW 3   1                   2 or 3, 1                icmp, dgram or raw, all
//! DGRAM 2, RAW 3   58                  2 or 3, 58               icmpv6, dgram or raw, all
//! SEQPACKET 5      0, 132              5, 132                   sctp, seqpacket, all
//! anything else                        type, 255                its type's name, all
//! AF_PACKET, any type                  10, 255                  packet, all
//! ```
//!
//! 256 is `IPPROTO_SMC` and 262 `IPPROTO_MPTCP` (linux/in.h): both speak TCP on the wire where the far end knows nothing
//! better, so a rule on `tcp` covers them. A RAW socket for protocol 6 is no TCP socket: it is `raw`.

use crate::names::Protocol;

/// The key of a socket: its type and what it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketKey {
    /// `SOCK_*`, without `SOCK_NONBLOCK` and `SOCK_CLOEXEC`.
    pub kind: u8,
    /// 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6, 132 SCTP, 255 anything else. Never 0: the default of a type is resolved.
    pub protocol: u8,
}

const SOCK_STREAM: u8 = 1;
const SOCK_DGRAM: u8 = 2;
const SOCK_RAW: u8 = 3;
const SOCK_RDM: u8 = 4;
const SOCK_SEQPACKET: u8 = 5;
const SOCK_DCCP: u8 = 6;
const SOCK_PACKET: u8 = 10;
/// `SOCK_TYPE_MASK` of linux/net.h.
const SOCK_TYPE_MASK: i32 = 0xf;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const OTHER: u8 = 255;

impl SocketKey {
    /// The key of an `AF_PACKET` socket.
    pub const PACKET: SocketKey = SocketKey {
        kind: SOCK_PACKET,
        protocol: OTHER,
    };

    /// Every key that a rule can match.
    pub const ALL: [SocketKey; 15] = [
        key(SOCK_STREAM, TCP),
        key(SOCK_STREAM, SCTP),
        key(SOCK_STREAM, OTHER),
        key(SOCK_DGRAM, ICMP),
        key(SOCK_DGRAM, UDP),
        key(SOCK_DGRAM, ICMPV6),
        key(SOCK_DGRAM, OTHER),
        key(SOCK_RAW, ICMP),
        key(SOCK_RAW, ICMPV6),
        key(SOCK_RAW, OTHER),
        key(SOCK_RDM, OTHER),
        key(SOCK_SEQPACKET, SCTP),
        key(SOCK_SEQPACKET, OTHER),
        key(SOCK_DCCP, OTHER),
        SocketKey::PACKET,
    ];

    /// The key of an internet socket, from the type and protocol arguments of `socket(2)`. The kernel's programs compute
    /// the same; the table above is the definition.
    pub fn of(kind: i32, protocol: i32) -> SocketKey {
        let kind = (kind & SOCK_TYPE_MASK) as u8; // at most 15
        let protocol = match (kind, protocol) {
            (SOCK_STREAM, 0 | 6 | 256 | 262) => TCP,
            (SOCK_STREAM, 132) | (SOCK_SEQPACKET, 0 | 132) => SCTP,
            (SOCK_DGRAM, 0 | 17) => UDP,
            (SOCK_DGRAM | SOCK_RAW, 1) => ICMP,
            (SOCK_DGRAM | SOCK_RAW, 58) => ICMPV6,
            _ => OTHER,
        };
        SocketKey { kind, protocol }
    }
}

const fn key(kind: u8, protocol: u8) -> SocketKey {
    SocketKey { kind, protocol }
}

impl Protocol {
    /// Whether a rule on this name is about sockets of this key.
    pub fn covers(self, key: SocketKey) -> bool {
        match self {
            Protocol::Tcp => key.protocol == TCP,
            Protocol::Udp => key.protocol == UDP,
            Protocol::Icmp => key.protocol == ICMP,
            Protocol::Icmpv6 => key.protocol == ICMPV6,
            Protocol::Sctp => key.protocol == SCTP,
            Protocol::Stream => key.kind == SOCK_STREAM,
            Protocol::Dgram => key.kind == SOCK_DGRAM,
            Protocol::Raw => key.kind == SOCK_RAW,
            Protocol::Rdm => key.kind == SOCK_RDM,
            Protocol::Seqpacket => key.kind == SOCK_SEQPACKET,
            Protocol::Dccp => key.kind == SOCK_DCCP,
            Protocol::Packet => key.kind == SOCK_PACKET,
            Protocol::All => true,
        }
    }

    /// 0 for a protocol, 1 for a socket type, 2 for `all`: the narrower wins, as a path wins over its directory.
    pub(crate) fn breadth(self) -> u8 {
        match self {
            Protocol::Tcp | Protocol::Udp | Protocol::Icmp | Protocol::Icmpv6 | Protocol::Sctp => 0,
            Protocol::All => 2,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_has_one_of_the_listed_keys_or_no_name_at_all() {
        for kind in 0..64 {
            for protocol in -1..300 {
                let key = SocketKey::of(kind, protocol);
                let named = Protocol::NAMES
                    .iter()
                    .any(|(_, p)| *p != Protocol::All && p.covers(key));
                assert_eq!(
                    named,
                    SocketKey::ALL.contains(&key),
                    "{kind} {protocol} {key:?}"
                );
            }
        }
    }

    #[test]
    fn defaults_flags_and_disguises_are_seen_through() {
        const CLOEXEC: i32 = 0o2000000;
        assert_eq!(
            SocketKey::of(1 | CLOEXEC, 0),
            SocketKey {
                kind: 1,
                protocol: 6
            }
        );
        assert_eq!(
            SocketKey::of(1, 262),
            SocketKey {
                kind: 1,
                protocol: 6
            }
        );
        assert_eq!(
            SocketKey::of(2, 0),
            SocketKey {
                kind: 2,
                protocol: 17
            }
        );
        assert_eq!(
            SocketKey::of(3, 6),
            SocketKey {
                kind: 3,
                protocol: 255
            }
        );
        assert_eq!(
            SocketKey::of(5, 0),
            SocketKey {
                kind: 5,
                protocol: 132
            }
        );
        assert!(!Protocol::Tcp.covers(SocketKey::of(3, 6)));
        assert!(Protocol::Icmp.covers(SocketKey::of(3, 1)));
    }
}

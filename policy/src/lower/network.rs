//! Sockets and names that are looked up. One item may be many rules: a comma list is taken apart.

use super::{Lower, Written, parts, sources};
use crate::domain;
use crate::model::{self, Attributes};
use crate::names::Protocol;
use crate::rule::{Object, Section};

impl<'p> Lower<'p> {
    pub(super) fn network(&mut self, section: &'p model::Network, outer: Attributes<'p>) {
        let outer = section.attributes().within(outer);
        for (index, item) in section.match_protocols.iter().enumerate() {
            for protocol in protocols(&item.protocol) {
                let written = Written {
                    sources: sources(&item.from_source),
                    pts: item.pts,
                    ..Written::new(Section::Network, Object::Protocol(protocol))
                };
                let place = format!("network.matchProtocols[{index}]");
                self.add(place, written, item.attributes().within(outer));
            }
        }
        for (index, item) in section.match_dns_queries.iter().enumerate() {
            for name in parts(&item.domain) {
                let written = Written {
                    sources: sources(&item.from_source),
                    ..Written::new(Section::Dns, Object::Domain(domain::canonical(name)))
                };
                let place = format!("network.matchDNSQueries[{index}]");
                self.add(place, written, item.attributes().within(outer));
            }
        }
        self.endpoints(section, outer);
    }
}

fn protocols(list: &str) -> impl Iterator<Item = Protocol> {
    parts(list).filter_map(|name| Protocol::of(&name.to_ascii_lowercase()))
}

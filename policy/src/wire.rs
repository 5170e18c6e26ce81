//! Rules as they travel, and the door through which they come back: every value is looked at again, because what comes in
//! is judged by a program that runs as root.

use proto::RuleId;
use proto::rules;
use proto::rules::object::{self as wire, Is};

use crate::device::Devices;
use crate::endpoint::{Cidr, Direction, Endpoints, Flows, Ports, Quota, Transport};
use crate::glob::Glob;
use crate::names::{self, Protocol};
use crate::path::{canonical, impossible};
use crate::preset::Preset;
use crate::rule::{Action, Object, Rule, Section};
use crate::syscalls::SYSCALLS;

impl Rule {
    /// A rule off the wire, or what is wrong with it.
    pub fn from_wire(wire: &rules::Rule) -> Result<Rule, String> {
        let section = section(wire.section())?;
        let object = object(wire.object.as_ref())?;
        fits(section, &object)?;
        if wire.severity > 10 {
            return Err(format!(
                "severity {} is not between 0 and 10",
                wire.severity
            ));
        }
        let sources = wire.sources.iter().map(object_of_source);
        Ok(Rule {
            id: RuleId(wire.id),
            section,
            action: action(wire.action())?,
            object,
            sources: sources.collect::<Result<_, _>>()?,
            owner_only: wire.owner_only,
            read_only: wire.read_only,
            pts: wire.pts,
            args: wire.args.clone(),
            severity: wire.severity,
            tags: wire.tags.clone(),
            message: wire.message.clone(),
        })
    }

    /// The rule as it goes over the wire.
    pub fn to_wire(&self) -> rules::Rule {
        rules::Rule {
            id: self.id.0,
            section: wire_section(self.section).into(),
            action: wire_action(self.action).into(),
            object: Some(wire_object(&self.object)),
            sources: self.sources.iter().map(wire_object).collect(),
            owner_only: self.owner_only,
            read_only: self.read_only,
            pts: self.pts,
            args: self.args.clone(),
            severity: self.severity,
            tags: self.tags.clone(),
            message: self.message.clone(),
        }
    }
}

fn section(wire: rules::Section) -> Result<Section, String> {
    Ok(match wire {
        rules::Section::Process => Section::Process,
        rules::Section::File => Section::File,
        rules::Section::Network => Section::Network,
        rules::Section::Dns => Section::Dns,
        rules::Section::Capabilities => Section::Capabilities,
        rules::Section::Syscalls => Section::Syscalls,
        rules::Section::Devices => Section::Devices,
        rules::Section::Presets => Section::Presets,
        rules::Section::Endpoints => Section::Endpoints,
        rules::Section::Flows => Section::Flows,
        rules::Section::Unspecified => return Err("a section that is not known here".to_owned()),
    })
}

fn wire_section(section: Section) -> rules::Section {
    match section {
        Section::Process => rules::Section::Process,
        Section::File => rules::Section::File,
        Section::Network => rules::Section::Network,
        Section::Dns => rules::Section::Dns,
        Section::Capabilities => rules::Section::Capabilities,
        Section::Syscalls => rules::Section::Syscalls,
        Section::Devices => rules::Section::Devices,
        Section::Presets => rules::Section::Presets,
        Section::Endpoints => rules::Section::Endpoints,
        Section::Flows => rules::Section::Flows,
    }
}

fn action(wire: rules::Action) -> Result<Action, String> {
    match wire {
        rules::Action::Allow => Ok(Action::Allow),
        rules::Action::Audit => Ok(Action::Audit),
        rules::Action::Block => Ok(Action::Block),
        rules::Action::Unspecified => Err("an action that is not known here".to_owned()),
    }
}

fn wire_action(action: Action) -> rules::Action {
    match action {
        Action::Allow => rules::Action::Allow,
        Action::Audit => rules::Action::Audit,
        Action::Block => rules::Action::Block,
    }
}

fn fits(section: Section, object: &Object) -> Result<(), String> {
    let good = match object {
        Object::Path(_) | Object::Directory { .. } | Object::Pattern(_) => {
            matches!(section, Section::Process | Section::File)
        }
        Object::Name(_) => section == Section::Process,
        Object::Protocol(_) => section == Section::Network,
        Object::Domain(_) => section == Section::Dns,
        Object::Capability(_) => section == Section::Capabilities,
        Object::Syscall { .. } => section == Section::Syscalls,
        Object::Endpoints(_) => section == Section::Endpoints,
        Object::Devices(_) => section == Section::Devices,
        Object::Preset(_) => section == Section::Presets,
        Object::Flows(_) => section == Section::Flows,
    };
    if good {
        Ok(())
    } else {
        Err(format!("{object:?} does not belong in {section:?}"))
    }
}

// === objects ===

fn object(wire: Option<&rules::Object>) -> Result<Object, String> {
    let is = wire
        .and_then(|object| object.is.as_ref())
        .ok_or("a rule about nothing that is known here")?;
    Ok(match is {
        Is::Path(path) => Object::Path(literal(path, false)?),
        Is::Name(name) if name.is_empty() || name.contains(['/', '\0']) => {
            return Err(format!("`{name}` is not a file name"));
        }
        Is::Name(name) => Object::Name(name.clone()),
        Is::Directory(directory) => Object::Directory {
            path: literal(&directory.path, true)?,
            recursive: directory.recursive,
        },
        Is::Pattern(pattern) => {
            Glob::new(pattern).map_err(|bad| format!("the pattern `{pattern}`: {bad}"))?;
            Object::Pattern(pattern.clone())
        }
        Is::Protocol(name) => Object::Protocol(
            Protocol::of(name).ok_or_else(|| format!("`{name}` is not a protocol"))?,
        ),
        Is::Domain(domain) => Object::Domain(known_domain(domain)?),
        Is::Capability(name) => Object::Capability(
            names::capability(name).ok_or_else(|| format!("`{name}` is not a capability"))?,
        ),
        Is::Syscall(call) => syscall(call)?,
        Is::Endpoint(endpoint) => Object::Endpoints(endpoints(endpoint)?),
        Is::Device(device) => Object::Devices(devices(device)?),
        Is::Preset(name) => {
            Object::Preset(Preset::of(name).ok_or_else(|| format!("`{name}` is not a preset"))?)
        }
        Is::Flow(flow) => Object::Flows(flows(flow)?),
    })
}

impl TryFrom<&rules::Object> for Object {
    type Error = String;

    /// What a rule of a blob is about, or what is wrong with it.
    fn try_from(wire: &rules::Object) -> Result<Object, String> {
        object(Some(wire))
    }
}

fn object_of_source(wire: &rules::Object) -> Result<Object, String> {
    match object(Some(wire))? {
        source @ (Object::Path(_) | Object::Directory { .. }) => Ok(source),
        other => Err(format!("{other:?} cannot be a source")),
    }
}

fn literal(path: &str, directory: bool) -> Result<String, String> {
    let form =
        path.starts_with('/') && path.ends_with('/') == directory && canonical(path) == *path;
    if !form {
        let what = if directory { "a directory" } else { "a path" };
        return Err(format!("`{path}` is not {what} in canonical form"));
    }
    match impossible(path) {
        Some(why) => Err(format!("the path `{path}` {why}")),
        None => Ok(path.to_owned()),
    }
}

fn known_domain(domain: &str) -> Result<String, String> {
    if domain.is_empty() || crate::domain::canonical(domain) != domain {
        return Err(format!("`{domain}` is not a domain in canonical form"));
    }
    Ok(domain.to_owned())
}

fn syscall(call: &wire::Syscall) -> Result<Object, String> {
    let mut names = call.names.iter();
    if let Some(name) = names.find(|name| !SYSCALLS.contains(&name.as_str())) {
        return Err(format!("`{name}` is not a system call"));
    }
    if !call.path.is_empty() {
        literal(&call.path, call.path.ends_with('/'))?;
    }
    Ok(Object::Syscall {
        names: call.names.clone(),
        path: call.path.clone(),
        recursive: call.recursive,
    })
}

fn cidr(text: &str) -> Result<Cidr, String> {
    Cidr::parse(text)
        .filter(|cidr| cidr.to_string() == text)
        .ok_or_else(|| format!("`{text}` is not a range of addresses in canonical form"))
}

fn ports(wire: &[wire::Ports]) -> Result<Vec<Ports>, String> {
    let one = |ports: &wire::Ports| {
        let number = |port: u32| u16::try_from(port).map_err(|_| format!("{port} is not a port"));
        let transport = match ports.protocol.as_str() {
            "" => None,
            name => Some(Transport::of(name).ok_or_else(|| format!("`{name}` has no ports"))?),
        };
        let (first, last) = (number(ports.first)?, number(ports.last)?);
        if last < first {
            return Err(format!("the ports {first} to {last} are none"));
        }
        Ok(Ports {
            first,
            last,
            transport,
        })
    };
    wire.iter().map(one).collect()
}

fn endpoints(wire: &wire::Endpoint) -> Result<Endpoints, String> {
    if !wire.cidr.is_empty() && !wire.domain.is_empty() {
        return Err("an endpoint with both a range and a name".to_owned());
    }
    Ok(Endpoints {
        cidr: some(&wire.cidr).map(cidr).transpose()?,
        domain: some(&wire.domain).map(known_domain).transpose()?,
        ports: ports(&wire.ports)?,
        direction: direction(wire.direction)?,
    })
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn direction(wire: i32) -> Result<Option<Direction>, String> {
    match rules::Direction::try_from(wire) {
        Ok(rules::Direction::Both) => Ok(None),
        Ok(rules::Direction::Egress) => Ok(Some(Direction::Egress)),
        Ok(rules::Direction::Ingress) => Ok(Some(Direction::Ingress)),
        Err(_) => Err(format!("direction {wire} is not known here")),
    }
}

fn devices(wire: &wire::Device) -> Result<Devices, String> {
    let byte = |number: Option<u32>| {
        let narrow =
            |number: u32| u8::try_from(number).map_err(|_| format!("{number} is not a byte"));
        number.map(narrow).transpose()
    };
    Ok(Devices {
        class: byte(wire.class)?,
        sub_class: byte(wire.sub_class)?,
        protocol: byte(wire.protocol)?,
        level: wire.level,
    })
}

fn flows(wire: &wire::Flow) -> Result<Flows, String> {
    let direction = direction(wire.direction)?.ok_or("a flow without a direction")?;
    let cidrs = wire.cidrs.iter().map(|text| cidr(text));
    let quota = wire.quota.as_ref().map(|quota| Quota {
        bytes: quota.bytes,
        seconds: quota.seconds,
        shared: quota.shared,
    });
    Ok(Flows {
        direction,
        cidrs: cidrs.collect::<Result<_, _>>()?,
        interfaces: wire.interfaces.clone(),
        ports: ports(&wire.ports)?,
        quota,
    })
}

// === to the wire ===

fn wire_object(object: &Object) -> rules::Object {
    let is = match object {
        Object::Path(path) => Is::Path(path.clone()),
        Object::Name(name) => Is::Name(name.clone()),
        Object::Directory { path, recursive } => Is::Directory(wire::Directory {
            path: path.clone(),
            recursive: *recursive,
        }),
        Object::Pattern(pattern) => Is::Pattern(pattern.clone()),
        Object::Protocol(protocol) => Is::Protocol(protocol.name().to_owned()),
        Object::Domain(domain) => Is::Domain(domain.clone()),
        Object::Capability(_) => Is::Capability(object.to_string()),
        Object::Syscall {
            names,
            path,
            recursive,
        } => Is::Syscall(wire::Syscall {
            names: names.clone(),
            path: path.clone(),
            recursive: *recursive,
        }),
        Object::Endpoints(endpoints) => Is::Endpoint(wire::Endpoint {
            cidr: endpoints
                .cidr
                .map(|cidr| cidr.to_string())
                .unwrap_or_default(),
            domain: endpoints.domain.clone().unwrap_or_default(),
            ports: wire_ports(&endpoints.ports),
            direction: wire_direction(endpoints.direction).into(),
        }),
        Object::Devices(devices) => Is::Device(wire::Device {
            class: devices.class.map(u32::from),
            sub_class: devices.sub_class.map(u32::from),
            protocol: devices.protocol.map(u32::from),
            level: devices.level,
        }),
        Object::Preset(preset) => Is::Preset(preset.name().to_owned()),
        Object::Flows(flows) => Is::Flow(wire_flows(flows)),
    };
    rules::Object { is: Some(is) }
}

fn wire_ports(ports: &[Ports]) -> Vec<wire::Ports> {
    let one = |ports: &Ports| wire::Ports {
        first: ports.first.into(),
        last: ports.last.into(),
        protocol: ports.transport.map_or("", Transport::name).to_owned(),
    };
    ports.iter().map(one).collect()
}

fn wire_direction(direction: Option<Direction>) -> rules::Direction {
    match direction {
        None => rules::Direction::Both,
        Some(Direction::Egress) => rules::Direction::Egress,
        Some(Direction::Ingress) => rules::Direction::Ingress,
    }
}

fn wire_flows(flows: &Flows) -> wire::Flow {
    wire::Flow {
        direction: wire_direction(Some(flows.direction)).into(),
        cidrs: flows.cidrs.iter().map(ToString::to_string).collect(),
        interfaces: flows.interfaces.clone(),
        ports: wire_ports(&flows.ports),
        quota: flows.quota.map(|quota| wire::Quota {
            bytes: quota.bytes,
            seconds: quota.seconds,
            shared: quota.shared,
        }),
    }
}

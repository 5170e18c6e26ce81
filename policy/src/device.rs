//! USB interfaces, as host policies name them.

use std::fmt;

/// Classes by name and number (usb.org, "Defined Class Codes"; KubeArmor's spellings).
pub const DEVICE_CLASSES: [(&str, u8); 20] = [
    ("AUDIO", 0x01),
    ("CDC", 0x02),
    ("COMM", 0x02),
    ("HID", 0x03),
    ("PHYSICAL", 0x05),
    ("IMAGE", 0x06),
    ("PRINTER", 0x07),
    ("MASS-STORAGE", 0x08),
    ("HUB", 0x09),
    ("CDC-DATA", 0x0a),
    ("SMART-CARD", 0x0b),
    ("CONTENT-SECURITY", 0x0d),
    ("VIDEO", 0x0e),
    ("PERSONAL-HEALTHCARE", 0x0f),
    ("AUDIO-VIDEO", 0x10),
    ("BILLBOARD", 0x11),
    ("WIRELESS-CONTROLLER", 0xe0),
    ("MISCELLANEOUS", 0xef),
    ("APPLICATION-SPECIFIC", 0xfe),
    ("VENDOR-SPECIFIC", 0xff),
];

/// The devices that a rule is about; `None`: whichever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Devices {
    /// Class; `None` is `ALL`.
    pub class: Option<u8>,
    /// Subclass.
    pub sub_class: Option<u8>,
    /// Protocol.
    pub protocol: Option<u8>,
    /// Hubs between it and the machine, 1 at the machine's own.
    pub level: Option<u32>,
}

/// One interface of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "see Devices")]
pub struct Device {
    pub class: u8,
    pub sub_class: u8,
    pub protocol: u8,
    pub level: u32,
}

/// The number of a class: by name, decimal, `0x` hexadecimal. `Ok(None)` is `ALL`, an error is none of these.
pub(crate) fn class(text: &str) -> Result<Option<u8>, ()> {
    if text == "ALL" {
        return Ok(None);
    }
    let named = DEVICE_CLASSES.iter().find(|(name, _)| *name == text);
    let number = match text.strip_prefix("0x") {
        Some(hex) => u8::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    named
        .map(|(_, number)| *number)
        .or(number)
        .map(Some)
        .ok_or(())
}

impl Devices {
    pub(crate) fn about(&self, device: Device) -> bool {
        self.class.is_none_or(|own| own == device.class)
            && self.sub_class.is_none_or(|own| own == device.sub_class)
            && self.protocol.is_none_or(|own| own == device.protocol)
            && self.level.is_none_or(|own| own == device.level)
    }

    /// KubeArmor's weights: class 100, subclass 10, protocol 1, level 100.
    pub(crate) fn narrowness(&self) -> usize {
        let weight = |given: bool, weight: usize| if given { weight } else { 0 };
        weight(self.class.is_some(), 100)
            + weight(self.sub_class.is_some(), 10)
            + weight(self.protocol.is_some(), 1)
            + weight(self.level.is_some(), 100)
    }

    pub(crate) fn meets(&self, other: &Devices) -> bool {
        let meet = |a: Option<u32>, b: Option<u32>| a.zip(b).is_none_or(|(a, b)| a == b);
        let wide = |byte: Option<u8>| byte.map(u32::from);
        meet(wide(self.class), wide(other.class))
            && meet(wide(self.sub_class), wide(other.sub_class))
            && meet(wide(self.protocol), wide(other.protocol))
            && meet(self.level, other.level)
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class {
            None => f.write_str("ALL")?,
            Some(class) => match DEVICE_CLASSES.iter().find(|(_, number)| *number == class) {
                Some((name, _)) => f.write_str(name)?,
                None => write!(f, "0x{class:02x}")?,
            },
        }
        for (word, number) in [("subClass", self.sub_class), ("protocol", self.protocol)] {
            if let Some(number) = number {
                write!(f, " {word} {number}")?;
            }
        }
        self.level
            .map_or(Ok(()), |level| write!(f, " level {level}"))
    }
}

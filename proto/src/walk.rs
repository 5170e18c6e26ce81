//! Goes over the fields of encoded protobuf bytes without building anything.
//!
//! Accepts exactly what the prost decoder accepts (encoding.rs of prost 0.14: keys of at most 32 bits, field number 0
//! refused, 64-bit varints, unknown groups skipped to a depth of 100), so that bytes stored after a walk never fail to
//! decode for a reader.

use crate::check::Malformed;
use crate::fields::{How, Place, Table};
use crate::plain::short;

/// How deep prost follows nested messages and groups.
pub(crate) const RECURSION: u32 = 100;

/// The value of one field as it is on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// Checked and skipped: proto3 has no groups, so only unknown fields may be one.
    Group,
    Fixed32,
}

impl Value<'_> {
    /// The name of the wire type, for errors.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Value::Varint(_) => "varint",
            Value::Fixed64(_) => "64-bit",
            Value::Bytes(_) => "bytes",
            Value::Group => "group",
            Value::Fixed32 => "32-bit",
        }
    }
}

/// A position in encoded fields. Offsets are those of the whole event, nested or not.
pub(crate) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
}

impl<'a> Walk<'a> {
    /// Over a whole event.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Walk {
            bytes,
            at: 0,
            depth: RECURSION,
        }
    }

    /// Over `event[from..to]`, the fields of a message nested `level` deep. Empty if the range is not inside.
    pub(crate) fn inside(event: &'a [u8], from: usize, to: usize, level: u32) -> Self {
        Walk {
            bytes: event.get(..to).unwrap_or_default(),
            at: from,
            depth: RECURSION - level,
        }
    }

    /// The offset of the next unread byte.
    #[inline]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The next field, or none at the end.
    // Into every loop over fields: what the loop does with a field is then decided where its wire type is.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        match self.common() {
            Some(field) => Ok(Some(field)),
            None => self.any(),
        }
    }

    /// The key of the next field that the table has: where the field begins, and what its key says. The walk is then at its
    /// value, which has to be read next. What the table does not have is passed over.
    #[inline(always)]
    pub(crate) fn known(&mut self, table: &Table) -> Result<Option<(usize, Place)>, Malformed> {
        if let Some((key, at)) = short(self.bytes, self.at) {
            let place = table.place(key);
            if place.how != How::Not {
                return Ok(Some((std::mem::replace(&mut self.at, at), place)));
            }
        }
        self.known_behind_others(table)
    }

    /// The same, however its key is written and whatever stands before it.
    #[cold]
    fn known_behind_others(&mut self, table: &Table) -> Result<Option<(usize, Place)>, Malformed> {
        while self.at < self.bytes.len() {
            let start = self.at;
            let (number, wire) = self.key()?;
            let place = table.place((number as usize) << 3 | usize::from(wire));
            if place.how != How::Not {
                return Ok(Some((start, place)));
            }
            let value = self.value(number, wire)?;
            if let Some(field) = table.by_number(number) {
                field.expect(value)?;
            }
        }
        Ok(None)
    }

    /// The next field if it is as almost all are: a number below 2048, and bytes or a varint that needs no more than two
    /// bytes for its length or value. None says nothing, and nothing has moved.
    #[inline(always)]
    fn common(&mut self) -> Option<(u32, Value<'a>)> {
        let (key, at) = short(self.bytes, self.at)?;
        let (second, at) = short(self.bytes, at)?;
        let (value, end) = match key & 7 {
            0 => (Value::Varint(second as u64), at),
            2 => (Value::Bytes(self.bytes.get(at..at + second)?), at + second),
            _ => return None,
        };
        if key < 8 {
            return None;
        }
        self.at = end;
        Some(((key >> 3) as u32, value))
    }

    /// The next field, whatever it is.
    #[cold]
    fn any(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let (number, wire) = self.key()?;
        Ok(Some((number, self.value(number, wire)?)))
    }

    /// The value behind a key.
    fn value(&mut self, number: u32, wire: u8) -> Result<Value<'a>, Malformed> {
        Ok(match wire {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.fixed64()?),
            2 => Value::Bytes(self.length_delimited()?),
            3 => {
                self.skip_group(number, self.depth)?;
                Value::Group
            }
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            _ => return Err(Malformed::Group { at: self.at }),
        })
    }

    #[inline]
    fn key(&mut self) -> Result<(u32, u8), Malformed> {
        let at = self.at;
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed::Key { at })?;
        let wire = (key & 7) as u8;
        if key >> 3 == 0 || wire > 5 {
            return Err(Malformed::Key { at });
        }
        Ok((key >> 3, wire))
    }

    /// A number that is the next value.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        match short(self.bytes, self.at) {
            Some((value, at)) => {
                self.at = at;
                Ok(value as u64)
            }
            None => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let mut value = 0;
        for (n, &byte) in rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * n);
            if byte < 0x80 {
                // The tenth byte holds the 64th bit alone.
                if n == 9 && byte > 1 {
                    break;
                }
                self.at += n + 1;
                return Ok(value);
            }
        }
        if rest.len() < 10 {
            return Err(Malformed::Truncated {
                at: self.bytes.len(),
            });
        }
        Err(Malformed::Varint { at: self.at })
    }

    /// Text, bytes or a message that is the next value.
    #[inline]
    pub(crate) fn length_delimited(&mut self) -> Result<&'a [u8], Malformed> {
        if let Some((length, at)) = short(self.bytes, self.at)
            && let Some(bytes) = self.bytes.get(at..at + length)
        {
            self.at = at + length;
            return Ok(bytes);
        }
        self.long_bytes()
    }

    #[cold]
    fn long_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.varint()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => Err(Malformed::Truncated {
                at: self.bytes.len(),
            }),
        }
    }

    /// A number of eight bytes that is the next value.
    #[inline]
    pub(crate) fn fixed64(&mut self) -> Result<u64, Malformed> {
        let bytes = self.take(8)?.first_chunk();
        Ok(bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(length);
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(bytes) => {
                self.at += length;
                Ok(bytes)
            }
            None => Err(Malformed::Truncated {
                at: self.bytes.len(),
            }),
        }
    }

    /// After the start of group `number`: to its end. `depth` is what prost has left at the group itself.
    fn skip_group(&mut self, number: u32, depth: u32) -> Result<(), Malformed> {
        loop {
            let at = self.at;
            let (inner, wire) = self.key()?;
            if wire == 4 {
                return if inner == number {
                    Ok(())
                } else {
                    Err(Malformed::Group { at })
                };
            }
            let Some(depth) = depth.checked_sub(1).filter(|&depth| depth > 0) else {
                return Err(Malformed::Depth { at });
            };
            match wire {
                0 => self.varint().map(drop)?,
                1 => self.take(8).map(drop)?,
                2 => self.length_delimited().map(drop)?,
                3 => self.skip_group(inner, depth)?,
                _ => self.take(4).map(drop)?,
            }
        }
    }
}

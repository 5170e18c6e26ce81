//! One walk over an event's bytes, remembering where each field's value is. The renderers then take the values in their
//! own order, without decoding anything that they do not print.
//!
//! ```text
//! payload   ▒▒▒▒ key len "shop" ▒▒▒ key 7 ▒▒▒ key len {…} ▒▒▒ key len {…} ▒▒▒
//!                        └────┘          │    └── first ─────── last ───┘
//! raw[slot]           from‖to = text   number      from‖to = span of a repeated field
//! present   one bit a slot: the value is not zero (or is set, for what may be set and zero)
//! ```
//!
//! A field that occurs more than once means what protobuf says: the last number or text wins, messages merge, of a map
//! key the last value wins.

use crate::check::Malformed;
use crate::fields::{Field, How, Table};
use crate::walk::{Value, Walk};

/// The values of one message. `N` bounds the fields of its table.
pub(crate) struct Slots<'a, const N: usize> {
    event: &'a [u8],
    level: u32,
    marks: Marks<N>,
}

/// Where they are, apart from the event's bytes.
#[derive(Debug, Clone)]
pub(crate) struct Marks<const N: usize> {
    present: u64,
    raw: [u64; N],
}

impl<const N: usize> Marks<N> {
    const NONE: Self = Marks {
        present: 0,
        raw: [0; N],
    };
}

/// An event's own fields.
pub(crate) type EventSlots<'a> = Slots<'a, 64>;

/// The fields of a nested message.
pub(crate) type NestedSlots<'a> = Slots<'a, 8>;

impl<'a> EventSlots<'a> {
    /// Finds the fields of an event.
    pub(crate) fn read(table: &'static Table, event: &'a [u8]) -> Result<Self, Malformed> {
        let limit = u32::MAX as usize;
        if event.len() > limit {
            return Err(Malformed::TooLarge {
                size: event.len(),
                limit,
            });
        }
        let mut slots = Self::marked(event, &Marks::NONE);
        slots.fill(table, Walk::new(event))?;
        Ok(slots)
    }

    /// The same again. The marks have to be those of this event.
    pub(crate) fn marked(event: &'a [u8], marks: &Marks<64>) -> Self {
        Slots {
            event,
            level: 0,
            marks: marks.clone(),
        }
    }

    /// Finds the fields of the message in slot `at`, merged from all its occurrences.
    pub(crate) fn nested(
        &self,
        at: usize,
        field: &Field,
        table: &'static Table,
    ) -> Result<NestedSlots<'a>, Malformed> {
        let mut slots = Slots {
            event: self.event,
            level: 1,
            marks: Marks::NONE,
        };
        self.each(at, field, |from, to| {
            slots.fill(table, Walk::inside(self.event, from, to, 1))
        })?;
        Ok(slots)
    }

    /// The elements of the text list in slot `at`, in order.
    pub(crate) fn list(
        &self,
        at: usize,
        field: &Field,
        mut element: impl FnMut(&'a [u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.each(at, field, |from, to| element(&self.event[from..to]))
    }

    /// The entries of the map in slot `at`, sorted by the bytes of their keys, each key once.
    pub(crate) fn entries(
        &self,
        at: usize,
        field: &Field,
        mut entry: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut few = [(&[][..], &[][..]); 16];
        let mut many = Vec::new();
        let mut count = 0;
        self.each(at, field, |from, to| {
            let found = self.entry(from, to, field.name)?;
            match few.get_mut(count) {
                Some(place) => *place = found,
                None if many.is_empty() => many.extend(few.iter().copied().chain([found])),
                None => many.push(found),
            }
            count += 1;
            Ok(())
        })?;
        let all = if many.is_empty() {
            &mut few[..count]
        } else {
            &mut many[..]
        };
        // Stable, so among equal keys the last one on the wire stays last.
        all.sort_by_key(|&(key, _)| key);
        for (n, &(key, value)) in all.iter().enumerate() {
            if all.get(n + 1).is_none_or(|&(next, _)| next != key) {
                entry(key, value)?;
            }
        }
        Ok(())
    }

    /// Key and value of one map entry.
    fn entry(
        &self,
        from: usize,
        to: usize,
        name: &'static str,
    ) -> Result<(&'a [u8], &'a [u8]), Malformed> {
        let (mut key, mut value) = (&[][..], &[][..]);
        let mut walk = Walk::inside(self.event, from, to, 1);
        while let Some(found) = walk.next()? {
            match found {
                (1, Value::Bytes(text)) => key = text,
                (2, Value::Bytes(text)) => value = text,
                (1 | 2, other) => {
                    let found = other.name();
                    return Err(Malformed::WireType {
                        name,
                        expected: "bytes",
                        found,
                    });
                }
                _ => {}
            }
        }
        Ok((key, value))
    }

    /// The range of every occurrence of the field in slot `at`.
    fn each(
        &self,
        at: usize,
        field: &Field,
        mut occurrence: impl FnMut(usize, usize) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if !self.has(at) {
            return Ok(());
        }
        let (from, to) = self.range(at);
        let mut walk = Walk::inside(self.event, from, to, self.level);
        while let Some((number, value)) = walk.next()? {
            if number == field.number
                && let Value::Bytes(bytes) = value
            {
                occurrence(walk.at() - bytes.len(), walk.at())?;
            }
        }
        Ok(())
    }
}

impl<'a, const N: usize> Slots<'a, N> {
    #[inline]
    fn fill(&mut self, table: &'static Table, mut walk: Walk<'a>) -> Result<(), Malformed> {
        while let Some((start, place)) = walk.known(table)? {
            let at = usize::from(place.at);
            // The wire has 64 bits for every number; a 32-bit field means the low half.
            let (raw, set) = match place.how {
                How::Text | How::Bytes => {
                    let (bytes, end) = (walk.length_delimited()?, walk.at());
                    (pack(end - bytes.len(), end), !bytes.is_empty())
                }
                How::TextList | How::TextMap | How::Message => {
                    walk.length_delimited()?;
                    let first = match self.has(at) {
                        true => self.range(at).0,
                        false => start,
                    };
                    (pack(first, walk.at()), true)
                }
                How::Int32 => {
                    let number = walk.varint()? as i32;
                    (i64::from(number) as u64, number != 0)
                }
                How::Uint32 | How::OptionalUint32 => {
                    let number = walk.varint()? as u32;
                    let set = number != 0 || place.how == How::OptionalUint32;
                    (u64::from(number), set)
                }
                How::Whole64 => set_if_not_zero(walk.varint()?),
                How::Fixed64 => set_if_not_zero(walk.fixed64()?),
                // `known` gives none of these.
                How::Not => continue,
            };
            self.marks.raw[at] = raw;
            let bit = 1 << at;
            self.marks.present = match set {
                true => self.marks.present | bit,
                false => self.marks.present & !bit,
            };
        }
        Ok(())
    }

    /// One bit a slot: has a value that is not zero, or is set.
    #[inline]
    pub(crate) fn present(&self) -> u64 {
        self.marks.present
    }

    /// The whole event, also of a nested message.
    pub(crate) fn event(&self) -> &'a [u8] {
        self.event
    }

    /// What was found, to be kept beside the bytes.
    pub(crate) fn marks(&self) -> &Marks<N> {
        &self.marks
    }

    #[inline]
    pub(crate) fn has(&self, at: usize) -> bool {
        self.marks.present >> at & 1 == 1
    }

    /// The number in slot `at`; 0 if absent. Signed ones are sign-extended.
    #[inline]
    pub(crate) fn number(&self, at: usize) -> u64 {
        self.marks.raw[at]
    }

    /// The text or bytes in slot `at`; empty if absent.
    #[inline]
    pub(crate) fn bytes(&self, at: usize) -> &'a [u8] {
        let (from, to) = self.range(at);
        &self.event[from..to]
    }

    #[inline]
    fn range(&self, at: usize) -> (usize, usize) {
        let raw = self.marks.raw[at];
        ((raw >> 32) as usize, raw as u32 as usize)
    }
}

fn set_if_not_zero(number: u64) -> (u64, bool) {
    (number, number != 0)
}

/// Both offsets fit 32 bits: [`EventSlots::read`] refuses larger events.
#[inline]
fn pack(from: usize, to: usize) -> u64 {
    (from as u64) << 32 | to as u64
}

/// The positions of the bits that are set, in order.
pub(crate) fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let at = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(at)
    })
}

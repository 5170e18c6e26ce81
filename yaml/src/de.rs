//! Serde over the tree. Every error comes back with the node that caused it; nodes in `skipped` are not there.

use std::collections::HashSet;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use crate::fault::{Fault, Kind};
use crate::node::{Entry, Node, Value};
use crate::scalar::{self, Scalar};

/// The key by which an enum that is written as a mapping says its variant.
pub(crate) const TAG: &str = "type";

/// Nodes that were found broken, by address; the tree is borrowed for as long as the set lives.
pub(crate) type Skipped = HashSet<*const Node>;

#[derive(Clone, Copy)]
pub(crate) struct De<'t> {
    pub(crate) node: &'t Node,
    pub(crate) skipped: &'t Skipped,
    /// A key that has been read already: the tag of the enum whose variant this is.
    hidden: Option<&'static str>,
}

type Outcome<'t, T> = Result<T, Fault<'t>>;

impl<'t> De<'t> {
    pub(crate) fn new(node: &'t Node, skipped: &'t Skipped) -> De<'t> {
        De {
            node,
            skipped,
            hidden: None,
        }
    }

    fn there(&self, node: &Node) -> bool {
        !self.skipped.contains(&std::ptr::from_ref(node))
    }

    fn entry(&self, key: &str) -> Option<&'t Entry> {
        self.node.map().iter().find(|entry| &*entry.key == key)
    }

    fn map<V: Visitor<'t>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Outcome<'t, V::Value> {
        visitor.visit_map(Entries {
            de: self,
            rest: self.node.map(),
            fields,
            value: None,
        })
    }

    fn seq<V: Visitor<'t>>(self, visitor: V) -> Outcome<'t, V::Value> {
        visitor.visit_seq(Items {
            de: self,
            rest: self.node.items(),
        })
    }

    fn any<V: Visitor<'t>>(self, visitor: V) -> Outcome<'t, V::Value> {
        match &self.node.value {
            Value::List(_) => self.seq(visitor),
            Value::Map(_) => self.map(&[], visitor),
            Value::Scalar { text, plain: false } => visitor.visit_str(text),
            Value::Scalar { text, plain: true } => match scalar::resolve(text) {
                Scalar::Null => visitor.visit_unit(),
                Scalar::Bool(value) => visitor.visit_bool(value),
                Scalar::Unsigned(value) => visitor.visit_u64(value),
                Scalar::Signed(value) => visitor.visit_i64(value),
                Scalar::Float(value) => visitor.visit_f64(value),
                Scalar::Text(text) => visitor.visit_str(text),
            },
        }
    }

    fn text<V: Visitor<'t>>(self, visitor: V) -> Outcome<'t, V::Value> {
        match &self.node.value {
            Value::Scalar { text, .. } if !self.node.is_null() => visitor.visit_str(text),
            _ => self.any(visitor),
        }
    }

    fn boolean<V: Visitor<'t>>(self, visitor: V) -> Outcome<'t, V::Value> {
        match &self.node.value {
            Value::Scalar { text, plain: true } => match scalar::boolean(text) {
                Some(value) => visitor.visit_bool(value),
                None => self.any(visitor),
            },
            _ => self.any(visitor),
        }
    }

    /// A mapping with a fixed set of keys. Nothing at all is the empty mapping.
    fn fields<V: Visitor<'t>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Outcome<'t, V::Value> {
        if self.node.is_map() || self.node.is_null() {
            return self.map(fields, visitor);
        }
        self.mismatch(&visitor)
    }

    fn mismatch<T>(self, expected: &dyn de::Expected) -> Outcome<'t, T> {
        let found = match &self.node.value {
            Value::List(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
            Value::Scalar { .. } if self.node.is_null() => Unexpected::Unit,
            Value::Scalar { text, .. } => Unexpected::Str(text),
        };
        Err(de::Error::invalid_type(found, expected))
    }

    fn variant<V: Visitor<'t>>(
        self,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Outcome<'t, V::Value> {
        if self.node.as_str().is_some() && !self.node.is_null() {
            return visitor.visit_enum(Variant {
                name: Name::Node(self),
                content: None,
            });
        }
        let Value::Map(entries) = &self.node.value else {
            return self.mismatch(&"one word or a mapping with a `type`");
        };
        if let Some(tag) = self.entry(TAG) {
            if !self.there(&tag.value) {
                return Err(Fault::new(Kind::Missing { field: TAG }));
            }
            let name = De {
                node: &tag.value,
                ..self
            };
            let content = De {
                hidden: Some(TAG),
                ..self
            };
            return visitor.visit_enum(Variant {
                name: Name::Node(name),
                content: Some(content),
            });
        }
        match entries.as_slice() {
            [only] if variants.contains(&&*only.key) && self.there(&only.value) => {
                let content = Some(De {
                    node: &only.value,
                    ..self
                });
                visitor.visit_enum(Variant {
                    name: Name::Key(only),
                    content,
                })
            }
            _ => Err(Fault::new(Kind::MissingTag { allowed: variants })),
        }
    }
}

macro_rules! placed {
    ($($method:ident => $inner:ident;)*) => {$(
        fn $method<V: Visitor<'t>>(self, visitor: V) -> Outcome<'t, V::Value> {
            self.$inner(visitor).map_err(|fault| fault.at(self.node))
        }
    )*};
}

impl<'t> de::Deserializer<'t> for De<'t> {
    type Error = Fault<'t>;

    placed! {
        deserialize_any => any;
        deserialize_i8 => any;
        deserialize_i16 => any;
        deserialize_i32 => any;
        deserialize_i64 => any;
        deserialize_u8 => any;
        deserialize_u16 => any;
        deserialize_u32 => any;
        deserialize_u64 => any;
        deserialize_f32 => any;
        deserialize_f64 => any;
        deserialize_bytes => any;
        deserialize_byte_buf => any;
        deserialize_unit => any;
        deserialize_bool => boolean;
        deserialize_char => text;
        deserialize_str => text;
        deserialize_string => text;
        deserialize_identifier => text;
    }

    fn deserialize_option<V: Visitor<'t>>(self, visitor: V) -> Outcome<'t, V::Value> {
        if self.node.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
        .map_err(|fault: Fault<'t>| fault.at(self.node))
    }

    fn deserialize_unit_struct<V: Visitor<'t>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Outcome<'t, V::Value> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'t>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Outcome<'t, V::Value> {
        visitor
            .visit_newtype_struct(self)
            .map_err(|fault| fault.at(self.node))
    }

    fn deserialize_seq<V: Visitor<'t>>(self, visitor: V) -> Outcome<'t, V::Value> {
        if self.node.is_list() || self.node.is_null() {
            self.seq(visitor)
        } else {
            self.mismatch(&visitor)
        }
        .map_err(|fault| fault.at(self.node))
    }

    fn deserialize_tuple<V: Visitor<'t>>(self, _: usize, visitor: V) -> Outcome<'t, V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'t>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Outcome<'t, V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'t>>(self, visitor: V) -> Outcome<'t, V::Value> {
        self.fields(&[], visitor)
            .map_err(|fault| fault.at(self.node))
    }

    fn deserialize_struct<V: Visitor<'t>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Outcome<'t, V::Value> {
        self.fields(fields, visitor)
            .map_err(|fault| fault.at(self.node))
    }

    fn deserialize_enum<V: Visitor<'t>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Outcome<'t, V::Value> {
        self.variant(variants, visitor)
            .map_err(|fault| fault.at(self.node))
    }

    fn deserialize_ignored_any<V: Visitor<'t>>(self, visitor: V) -> Outcome<'t, V::Value> {
        visitor.visit_unit()
    }
}

struct Items<'t> {
    de: De<'t>,
    rest: &'t [Node],
}

impl<'t> de::SeqAccess<'t> for Items<'t> {
    type Error = Fault<'t>;

    fn next_element_seed<T: DeserializeSeed<'t>>(
        &mut self,
        seed: T,
    ) -> Outcome<'t, Option<T::Value>> {
        while let [first, rest @ ..] = self.rest {
            self.rest = rest;
            if self.de.there(first) {
                let item = seed.deserialize(De::new(first, self.de.skipped));
                return item.map(Some).map_err(|fault| fault.at(first));
            }
        }
        Ok(None)
    }
}

struct Entries<'t> {
    de: De<'t>,
    rest: &'t [Entry],
    /// Keys whose empty value means that the key is not there, as Kubernetes has it.
    fields: &'static [&'static str],
    value: Option<&'t Node>,
}

impl<'t> de::MapAccess<'t> for Entries<'t> {
    type Error = Fault<'t>;

    fn next_key_seed<K: DeserializeSeed<'t>>(&mut self, seed: K) -> Outcome<'t, Option<K::Value>> {
        while let [first, rest @ ..] = self.rest {
            self.rest = rest;
            let absent = first.value.is_null() && self.fields.contains(&&*first.key);
            if absent || self.de.hidden == Some(&*first.key) || !self.de.there(&first.value) {
                continue;
            }
            self.value = Some(&first.value);
            let key = StrDeserializer::<Fault<'t>>::new(&first.key);
            let read = seed.deserialize(key);
            return read
                .map(Some)
                .map_err(|fault| fault.at_key(&first.value, (first.line, first.column)));
        }
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'t>>(&mut self, seed: T) -> Outcome<'t, T::Value> {
        match self.value.take() {
            Some(node) => {
                let value = seed.deserialize(De::new(node, self.de.skipped));
                value.map_err(|fault| fault.at(node))
            }
            None => Err(de::Error::custom("a value was asked for before its key")),
        }
    }
}

struct Variant<'t> {
    name: Name<'t>,
    content: Option<De<'t>>,
}

enum Name<'t> {
    Node(De<'t>),
    Key(&'t Entry),
}

impl<'t> de::EnumAccess<'t> for Variant<'t> {
    type Error = Fault<'t>;
    type Variant = Content<'t>;

    fn variant_seed<T: DeserializeSeed<'t>>(self, seed: T) -> Outcome<'t, (T::Value, Content<'t>)> {
        let name = match self.name {
            Name::Node(de) => seed.deserialize(Word(de))?,
            Name::Key(entry) => seed
                .deserialize(StrDeserializer::<Fault<'t>>::new(&entry.key))
                .map_err(|fault| fault.at_key(&entry.value, (entry.line, entry.column)))?,
        };
        Ok((name, Content(self.content)))
    }
}

/// A scalar read as the name of a variant.
struct Word<'t>(De<'t>);

impl<'t> de::Deserializer<'t> for Word<'t> {
    type Error = Fault<'t>;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Outcome<'t, V::Value> {
        let node = self.0.node;
        match node.as_str() {
            Some(text) => visitor.visit_str(text),
            None => self.0.mismatch(&"one word"),
        }
        .map_err(|fault| fault.at(node))
    }

    forward_to_deserialize_any! {
        <W: Visitor<'t>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// What a variant holds; `None` when only its name was written.
struct Content<'t>(Option<De<'t>>);

impl<'t> Content<'t> {
    fn held(self) -> Outcome<'t, De<'t>> {
        self.0.ok_or_else(|| {
            Fault::new(Kind::Other(
                "this needs settings; write a mapping with a `type`".to_owned(),
            ))
        })
    }
}

impl<'t> de::VariantAccess<'t> for Content<'t> {
    type Error = Fault<'t>;

    fn unit_variant(self) -> Outcome<'t, ()> {
        let Some(de) = self.0 else { return Ok(()) };
        let extra = de
            .node
            .map()
            .iter()
            .find(|entry| de.hidden != Some(&*entry.key) && de.there(&entry.value));
        match extra {
            Some(entry) if de.hidden.is_some() => {
                let kind = Kind::UnknownField {
                    field: entry.key.to_string(),
                    allowed: &[TAG],
                };
                Err(Fault::new(kind).at_key(&entry.value, (entry.line, entry.column)))
            }
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'t>>(self, seed: T) -> Outcome<'t, T::Value> {
        seed.deserialize(self.held()?)
    }

    fn tuple_variant<V: Visitor<'t>>(self, _: usize, visitor: V) -> Outcome<'t, V::Value> {
        de::Deserializer::deserialize_seq(self.held()?, visitor)
    }

    fn struct_variant<V: Visitor<'t>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Outcome<'t, V::Value> {
        de::Deserializer::deserialize_struct(self.held()?, "", fields, visitor)
    }
}

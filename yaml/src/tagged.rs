//! Enums that are chosen by a `type` key.

/// Implements `Deserialize` for an enum of newtype variants that a `type` key chooses, with exact positions for
/// every problem inside the variant. Serialisation and schema still come from serde's `tag`:
///
/// ```
/// #[derive(serde::Serialize, schemars::JsonSchema)]
/// #[serde(tag = "type", rename_all = "lowercase")]
/// enum Sink { Stdout(Stdout), File(File) }
/// yaml::tagged! { Sink { "stdout" => Stdout, "file" => File } }
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields, default)]
/// struct Stdout {}
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields, default)]
/// struct File { path: String }
///
/// let (documents, _) = yaml::parse("c.yaml", "type: file\npat: /x\n");
/// let mut problems = Vec::new();
/// documents[0].read::<Sink>(yaml::Severity::Error, &mut problems);
/// assert_eq!(problems[0].to_string(), "c.yaml:2: pat: unknown field `pat`; did you mean `path`?");
/// ```
///
/// A word may stand behind `#[cfg(…)]`. It reads with this crate's reader only: other formats would see an enum written as serde writes it without `tag`.
#[macro_export]
macro_rules! tagged {
    ($name:ident { $($(#[cfg($on:meta)])? $word:literal => $variant:ident),+ $(,)? }) => {
        impl<'de> $crate::__serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::__serde::Deserializer<'de>>(from: D) -> ::core::result::Result<Self, D::Error> {
                const WORDS: &[&str] = &[$($(#[cfg($on)])? $word),+];
                struct Read;
                impl<'de> $crate::__serde::de::Visitor<'de> for Read {
                    type Value = $name;
                    fn expecting(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                        f.write_str("a mapping with a `type`")
                    }
                    fn visit_enum<A: $crate::__serde::de::EnumAccess<'de>>(
                        self,
                        access: A,
                    ) -> ::core::result::Result<$name, A::Error> {
                        let (word, held) = access.variant_seed($crate::__Word(WORDS))?;
                        match WORDS[word] {
                            $($(#[cfg($on)])? $word => $crate::__serde::de::VariantAccess::newtype_variant(held).map($name::$variant),)+
                            other => Err($crate::__serde::de::Error::unknown_variant(other, WORDS)),
                        }
                    }
                }
                from.deserialize_enum(::core::stringify!($name), WORDS, Read)
            }
        }
    };
}

/// Reads a word as its index in a list, so that a wrong word is placed where it stands.
#[doc(hidden)]
pub struct Word(pub &'static [&'static str]);

impl<'de> serde::de::DeserializeSeed<'de> for Word {
    type Value = usize;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<usize, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl serde::de::Visitor<'_> for Word {
    type Value = usize;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("one word")
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<usize, E> {
        let known = self.0.iter().position(|known| *known == word);
        known.ok_or_else(|| E::unknown_variant(word, self.0))
    }
}

//! The `policies.rollout` section.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A new set goes to some sensors first, with its new and changed policies in mode audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Labels (`sensor.labels`) of the sensors that try a set first; all of them must be there.
    pub canary: BTreeMap<String, String>,
    /// How long they try it, from the first that runs it. Then all sensors get it.
    #[serde(default = "default_hold")]
    pub hold: yaml::Span,
    /// What ends it before.
    #[serde(default)]
    pub stop_on: StopOn,
}

fn default_hold() -> yaml::Span {
    yaml::Span(Duration::from_secs(600))
}

/// What stops a new set: `blocked_rate`, or `{blocked_rate: NUMBER}`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StopOn {
    /// The new policies would have stopped more operations a minute, on all canaries together. The first minute counts
    /// as a whole one; 0: the first such operation.
    pub blocked_rate: f64,
}

impl Default for StopOn {
    fn default() -> Self {
        Self { blocked_rate: 1.0 }
    }
}

// Not an untagged enum: its error would hide what is wrong.
impl<'de> Deserialize<'de> for StopOn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StopOnVisitor)
    }
}

struct StopOnVisitor;

impl<'de> Visitor<'de> for StopOnVisitor {
    type Value = StopOn;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("blocked_rate or {blocked_rate: NUMBER}")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<StopOn, E> {
        match text {
            "blocked_rate" => Ok(StopOn::default()),
            other => Err(E::custom(format!(
                "`{other}` is nothing to stop on; write blocked_rate or {{blocked_rate: NUMBER}}"
            ))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StopOn, A::Error> {
        let StopOnMap { blocked_rate } = StopOnMap::deserialize(MapAccessDeserializer::new(map))?;
        Ok(StopOn { blocked_rate })
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StopOnMap {
    blocked_rate: f64,
}

impl JsonSchema for StopOn {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StopOn".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let map = StopOnMap::json_schema(generator);
        schemars::json_schema!({"anyOf": [{"type": "string", "enum": ["blocked_rate"]}, map]})
    }
}

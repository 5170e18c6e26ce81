//! What an index holds: one composable index template a kind of event, from the field table.
//!
//! | in the table | Elasticsearch | OpenSearch |
//! |---|---|---|
//! | date | `date_nanos` (events have microseconds), `date` for seconds | the same |
//! | keyword | `keyword`, whole up to 8191 characters | the same |
//! | words | `keyword`, and `.text` to search in | the same |
//! | decimal text | `keyword`, and `.number` to compare | the same |
//! | flattened | `flattened` | `flat_object` |
//! | object | its own fields | the same |
//!
//! Nothing is guessed from events: what is not in the table stays in the document and gets no column (`dynamic: false`), so no
//! sender can fill an index with columns, or fix a type that the next event does not fit.

use proto::Kind;
use proto::fields::{self, Field, FieldType, IndexType};
use serde_json::{Map, Value, json};

use super::index::{IndexConfig, Indices, Layout};
use super::lifecycle;
use super::request::word;

/// Which product the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Elasticsearch, from 7.12 on.
    Elasticsearch,
    /// OpenSearch, from 2.7 on.
    OpenSearch,
}

/// Lucene takes terms up to 32766 bytes, and a character has at most four.
const WHOLE: u32 = 8191;
/// The same for `flattened`, whose terms begin with the key.
const WHOLE_WITH_KEY: u32 = 7000;
/// Above templates that match everything, and those that come with the server (100 to 200).
pub(super) const PRIORITY: u32 = 250;

/// The template of a kind.
pub(super) fn index_template(indices: &Indices, kind: Kind, flavour: Flavour) -> Value {
    let name = indices.name(kind);
    let mut template = json!({
        "settings": { "index": settings(indices, kind, flavour) },
        "mappings": mappings(indices, kind, flavour),
    });
    if indices.layout == Layout::Daily {
        template["aliases"] = json!({ name: {} });
    }
    let mut whole = json!({
        "index_patterns": [indices.pattern(kind)],
        "priority": PRIORITY,
        "template": template,
        "_meta": { "managed_by": "cresset", "events": word(kind) },
    });
    if indices.layout == Layout::DataStream {
        whole["data_stream"] = json!({});
    }
    whole
}

/// Every value as text, as the server tells it.
fn settings(indices: &Indices, kind: Kind, flavour: Flavour) -> Value {
    let mut settings = json!({
        "codec": "best_compression",
        "refresh_interval": "5s",
    });
    if let Some(shards) = indices.shards {
        settings["number_of_shards"] = json!(shards.to_string());
    }
    match indices.replicas {
        Some(replicas) => settings["number_of_replicas"] = json!(replicas.to_string()),
        None => settings["auto_expand_replicas"] = json!("0-1"),
    }
    if flavour == Flavour::Elasticsearch && lifecycle::is_wanted(indices) {
        settings["lifecycle"] = json!({ "name": indices.name(kind) });
    }
    settings
}

fn mappings(indices: &Indices, kind: Kind, flavour: Flavour) -> Value {
    let mut properties = Map::new();
    // Kibana and OpenSearch Dashboards look for this name.
    let time = match indices.layout {
        Layout::DataStream => json!({ "type": "date_nanos" }),
        Layout::Daily | Layout::Fixed => json!({ "type": "alias", "path": "UpdatedTime" }),
    };
    properties.insert("@timestamp".to_owned(), time);
    properties.extend(columns(fields::of(kind), flavour));
    json!({ "dynamic": "false", "properties": properties })
}

fn columns(fields: &[Field], flavour: Flavour) -> impl Iterator<Item = (String, Value)> {
    fields
        .iter()
        .map(move |field| (field.name.to_owned(), column(field, flavour)))
}

fn column(field: &Field, flavour: Flavour) -> Value {
    match field.index {
        // A text that is no time is kept, and cannot be searched as one.
        IndexType::Date => json!({ "type": "date_nanos", "ignore_malformed": true }),
        IndexType::DateSeconds => {
            json!({ "type": "date", "format": "epoch_second", "ignore_malformed": true })
        }
        IndexType::Keyword => json!({ "type": "keyword", "ignore_above": WHOLE }),
        IndexType::KeywordText => json!({
            "type": "keyword", "ignore_above": WHOLE,
            "fields": { "text": { "type": "text" } },
        }),
        IndexType::KeywordNumber => json!({
            "type": "keyword", "ignore_above": WHOLE,
            "fields": { "number": { "type": "integer", "ignore_malformed": true } },
        }),
        IndexType::Text => json!({
            "type": "text",
            "fields": { "keyword": { "type": "keyword", "ignore_above": 256 } },
        }),
        IndexType::Integer => json!({ "type": "integer" }),
        // `unsigned_long` is not in every server. Counts that do not fit a signed one are kept, and not searched.
        IndexType::Long | IndexType::UnsignedLong => {
            json!({ "type": "long", "ignore_malformed": true })
        }
        IndexType::Flattened => match flavour {
            Flavour::Elasticsearch => {
                json!({ "type": "flattened", "ignore_above": WHOLE_WITH_KEY })
            }
            Flavour::OpenSearch => json!({ "type": "flat_object" }),
        },
        IndexType::Object => {
            let FieldType::Message(table) = field.ty else {
                return json!({ "type": "object", "enabled": false });
            };
            let properties: Map<String, Value> = columns(table.fields(), flavour).collect();
            json!({ "properties": properties })
        }
    }
}

/// What `cresset sink setup` makes with the default settings, as files: path below `elk/`, and content.
#[must_use]
pub fn generated() -> Vec<(String, String)> {
    let indices = Indices::new(&IndexConfig::default());
    let mut files = Vec::new();
    for (flavour, folder) in [
        (Flavour::Elasticsearch, "elasticsearch"),
        (Flavour::OpenSearch, "opensearch"),
    ] {
        for kind in Kind::ALL {
            let mut add = |what: &str, body: &Value| {
                files.push((
                    format!("{folder}/{what}-{}.json", word(kind)),
                    format!("{body:#}\n"),
                ));
            };
            add("lifecycle", &lifecycle::policy(&indices, kind, flavour));
            add("index-template", &index_template(&indices, kind, flavour));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(kind: Kind, flavour: Flavour, layout: Layout) -> Value {
        let config = IndexConfig {
            layout,
            ..IndexConfig::default()
        };
        index_template(&Indices::new(&config), kind, flavour)
    }

    #[test]
    fn every_field_of_every_kind_has_a_column() {
        for kind in Kind::ALL {
            let template = mapping(kind, Flavour::Elasticsearch, Layout::Daily);
            let properties = template["template"]["mappings"]["properties"]
                .as_object()
                .unwrap();
            assert_eq!(properties.len(), fields::of(kind).len() + 1);
            for field in fields::of(kind) {
                assert!(properties.contains_key(field.name), "{}", field.name);
            }
        }
    }

    #[test]
    fn columns_follow_the_table() {
        let template = mapping(Kind::Alert, Flavour::Elasticsearch, Layout::Daily);
        let of = |name: &str| template["template"]["mappings"]["properties"][name].clone();
        assert_eq!(of("EventData")["type"], "flattened");
        assert_eq!(of("UpdatedTime")["type"], "date_nanos");
        assert_eq!(of("Timestamp")["format"], "epoch_second");
        assert_eq!(of("Resource")["fields"]["text"]["type"], "text");
        assert_eq!(of("Severity")["fields"]["number"]["type"], "integer");
        assert_eq!(of("HostPID")["type"], "integer");
        assert_eq!(of("Owner")["properties"]["Name"]["type"], "keyword");
        let open = mapping(Kind::Alert, Flavour::OpenSearch, Layout::Daily);
        assert_eq!(
            open["template"]["mappings"]["properties"]["EventData"],
            json!({ "type": "flat_object" })
        );
    }

    #[test]
    fn the_layout_decides_on_alias_pattern_and_stream() {
        let daily = mapping(Kind::Log, Flavour::Elasticsearch, Layout::Daily);
        assert_eq!(daily["index_patterns"], json!(["kubearmor-logs-*"]));
        assert_eq!(
            daily["template"]["aliases"],
            json!({ "kubearmor-logs": {} })
        );
        assert_eq!(
            daily["template"]["settings"]["index"]["lifecycle"]["name"],
            "kubearmor-logs"
        );
        let fixed = mapping(Kind::Log, Flavour::Elasticsearch, Layout::Fixed);
        assert_eq!(fixed["index_patterns"], json!(["kubearmor-logs"]));
        assert!(fixed["template"].get("aliases").is_none());
        assert!(
            fixed["template"]["settings"]["index"]
                .get("lifecycle")
                .is_none()
        );
        let stream = mapping(Kind::Log, Flavour::Elasticsearch, Layout::DataStream);
        assert_eq!(stream["data_stream"], json!({}));
    }
}

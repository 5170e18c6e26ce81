//! The custom resource definitions, made from the types of the model.
//!
//! They accept every document that KubeArmor's accept and refuse what those refuse; the language's own additions are
//! optional fields. Kubernetes wants a *structural* schema: no references, no `null`, no `additionalProperties: false`, no
//! `default` here either, because every default is the daemon's. Where a pattern is hard to read a rule in CEL says in words
//! what is wrong; the pattern stays, so that both kinds of server judge alike.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::model::{ClusterSpec, HostSpec, Kind, NetworkSpec, WorkloadSpec};
use crate::syscalls::SYSCALLS;

/// Names of a kind's resource.
struct Names {
    plural: &'static str,
    singular: &'static str,
    short: &'static str,
    scope: &'static str,
    /// Where the printer column Selector reads.
    selector: &'static str,
}

fn names(kind: Kind) -> Names {
    match kind {
        Kind::Workload => Names {
            plural: "kubearmorpolicies",
            singular: "kubearmorpolicy",
            short: "ksp",
            scope: "Namespaced",
            selector: ".spec.selector.matchLabels",
        },
        Kind::Cluster => Names {
            plural: "kubearmorclusterpolicies",
            singular: "kubearmorclusterpolicy",
            short: "csp",
            scope: "Cluster",
            selector: ".spec.selector.matchExpressions",
        },
        Kind::Host => Names {
            plural: "kubearmorhostpolicies",
            singular: "kubearmorhostpolicy",
            short: "hsp",
            scope: "Cluster",
            selector: ".spec.nodeSelector.matchLabels",
        },
        Kind::Network => Names {
            plural: "kubearmornetworkpolicies",
            singular: "kubearmornetworkpolicy",
            short: "nsp",
            scope: "Cluster",
            selector: ".spec.nodeSelector.matchLabels",
        },
    }
}

const GROUP: &str = "security.kubearmor.com";

/// The file name of a kind's definition.
pub fn crd_file(kind: Kind) -> String {
    format!("{GROUP}_{}.yaml", names(kind).plural)
}

/// The custom resource definition of a kind.
pub fn crd(kind: Kind) -> Value {
    let Names {
        plural,
        singular,
        short,
        scope,
        selector,
    } = names(kind);
    let column = |name: &str, path: &str, priority: u8| {
        let kind = if name == "Age" { "date" } else { "string" };
        let mut column = json!({"name": name, "type": kind, "jsonPath": path});
        if priority > 0 {
            column["priority"] = priority.into();
        }
        column
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.name(),
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": singular,
                "shortNames": [short],
            },
            "scope": scope,
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    column("Age", ".metadata.creationTimestamp", 0),
                    column("Action", ".spec.action", 10),
                    column("Selector", selector, 10),
                ],
                "schema": {"openAPIV3Schema": document(kind)},
            }],
        },
    })
}

/// The schema of a whole document of a kind.
pub fn document(kind: Kind) -> Value {
    let spec = match kind {
        Kind::Workload => structural::<WorkloadSpec>(kind),
        Kind::Cluster => structural::<ClusterSpec>(kind),
        Kind::Host => structural::<HostSpec>(kind),
        Kind::Network => structural::<NetworkSpec>(kind),
    };
    json!({
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": {
                "type": "object",
                "properties": {"status": {"type": "string"}},
            },
        },
    })
}

fn structural<T: JsonSchema>(kind: Kind) -> Value {
    let mut settings = SchemaSettings::openapi3();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let settings = settings.with_transform(RecursiveTransform(plain));
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    if let Some(map) = schema.as_object_mut() {
        map.remove("title");
    }
    narrow(kind, &mut schema);
    explain(&mut schema, "", 0);
    schema
}

/// Takes out what Kubernetes does not want.
fn plain(schema: &mut Schema) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    unwrap_optional(map);
    for key in ["default", "nullable", "$schema", "title"] {
        map.remove(key);
    }
    if map.get("additionalProperties") == Some(&Value::Bool(false)) {
        map.remove("additionalProperties");
    }
    if let Some(Value::Array(types)) = map.get("type") {
        let kept = types.iter().find(|kind| *kind != "null").cloned();
        map.insert("type".to_owned(), kept.unwrap_or_default());
    }
    if let Some(Value::Array(words)) = map.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
}

/// `anyOf: [T, null]` is an optional T.
fn unwrap_optional(map: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = map.get("anyOf") else {
        return;
    };
    let is_null = |choice: &Value| {
        choice.get("type").is_some_and(|kind| kind == "null")
            || choice
                .get("enum")
                .is_some_and(|words| *words == json!([null]))
            || choice.get("const").is_some_and(Value::is_null)
    };
    let mut kept = choices.iter().filter(|choice| !is_null(choice));
    if let (Some(Value::Object(one)), None) = (kept.next().cloned(), kept.next()) {
        map.remove("anyOf");
        for (key, value) in one {
            map.entry(key).or_insert(value);
        }
    }
}

/// What the kinds demand of parts that they share.
fn narrow(kind: Kind, spec: &mut Value) {
    if kind != Kind::Cluster
        && let Some(key) = spec.pointer_mut(
            "/properties/selector/properties/matchExpressions/items/properties/key/enum",
        )
    {
        *key = json!(["label"]);
    }
    if kind == Kind::Host {
        for place in [
            "/properties/network/properties/matchProtocols/items",
            "/properties/capabilities/properties/matchCapabilities/items",
        ] {
            if let Some(Value::Array(required)) = spec.pointer_mut(&format!("{place}/required")) {
                required.push("fromSource".into());
            }
        }
        if let Some(Value::Object(fields)) =
            spec.pointer_mut("/properties/network/properties/matchProtocols/items/properties")
        {
            fields.remove("pts");
        }
    }
}

/// Says in words what a pattern wants, and which system calls there are, by the name of the field. `lists` is how many
/// lists are around it.
fn explain(schema: &mut Value, field: &str, lists: usize) {
    let has_pattern = schema.get("pattern").is_some();
    if let Some((rule, message)) = words(field).filter(|_| has_pattern && lists < 2)
        && let Some(map) = schema.as_object_mut()
    {
        map.insert(
            "x-kubernetes-validations".to_owned(),
            json!([{"rule": rule, "message": message}]),
        );
    }
    if field == "syscall"
        && let Some(Value::Object(items)) = schema.get_mut("items")
    {
        items.insert("enum".to_owned(), SYSCALLS.map(Value::from).to_vec().into());
    }
    if let Some(Value::Object(fields)) = schema.get_mut("properties") {
        for (name, field) in fields.iter_mut() {
            explain(field, name, lists);
        }
    }
    if let Some(items) = schema.get_mut("items") {
        explain(items, field, lists + 1);
    }
}

/// Cheap rules only: a server multiplies what a rule costs by how often it may run, takes a list without a bound to be as
/// long as a request may be, and refuses a definition that could be too dear. So none inside two lists, and none that
/// looks at the whole of a text without a bound (`contains`, `matches`).
fn words(field: &str) -> Option<(&'static str, &'static str)> {
    match field {
        "path" => Some((
            "self.startsWith('/')",
            "must be an absolute path: begin it with `/`, and name directories (with a closing `/`) in matchDirectories",
        )),
        "dir" => Some((
            "self.startsWith('/') && self.endsWith('/')",
            "must be an absolute directory with its closing `/`, as in /etc/",
        )),
        _ => None,
    }
}

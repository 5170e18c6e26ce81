//! Events of OCSF held to the schema that is published: class, attributes, types, numbers that are allowed, constraints.
//!
//! The document is the export of schema.ocsf.io: `classes`, `objects` and `types` by name; an attribute has a `type`, a
//! `requirement`, and a `profile` if it counts only for events that say they use that one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use regex::Regex;
use serde_json::Value;

use crate::servers::{on_path, skip};

/// How the script says that it cannot be downloaded.
const NO_DOWNLOAD: i32 = 3;

/// The schema of version 1.3.0.
pub(crate) struct Schema(Value);

impl Schema {
    /// None: it cannot be had here, and the suite is counted as skipped.
    pub(crate) fn fetch(suite: &str) -> Option<Schema> {
        if std::env::var_os("CRESSET_QUICK").is_some() {
            skip("full", suite, "make test-quick downloads nothing");
            return None;
        }
        if !on_path("python3") {
            skip("python", suite, "there is no python3; install python3-pip");
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/ocsf/fetch.sh");
        let output = Command::new(script).output().unwrap();
        if output.status.code() == Some(NO_DOWNLOAD) {
            skip(
                "download",
                suite,
                "the schema of OCSF cannot be downloaded with pip",
            );
            return None;
        }
        assert!(output.status.success(), "{output:?}");
        let path = String::from_utf8(output.stdout).unwrap();
        let text = std::fs::read(path.trim()).unwrap();
        Some(Schema(serde_json::from_slice(&text).unwrap()))
    }

    /// Everything that is wrong with an event.
    pub(crate) fn problems(&self, event: &Value) -> Vec<String> {
        let classes = self.0["classes"].as_object().unwrap();
        let Some(class) = classes
            .values()
            .find(|class| class["uid"] == event["class_uid"])
        else {
            return vec![format!("class_uid: {} is no class", event["class_uid"])];
        };
        let profiles = &event["metadata"]["profiles"];
        let profiles: Vec<&str> = profiles
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut found = Found {
            schema: &self.0,
            profiles,
            problems: Vec::new(),
        };
        found.object("", class, event);
        let known: Vec<&str> = class["profiles"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        for profile in found.profiles.clone() {
            if !known.contains(&profile) {
                found.wrong(
                    "metadata.profiles",
                    format!("{profile} is none of {known:?}"),
                );
            }
        }
        let number = |key: &str| event[key].as_u64().unwrap_or_default();
        if number("type_uid") != number("class_uid") * 100 + number("activity_id") {
            found.wrong("type_uid", "is not of this class and activity");
        }
        if event["category_uid"] != class["category_uid"] && number("class_uid") > 0 {
            found.wrong("category_uid", "is not of this class");
        }
        found.problems
    }
}

struct Found<'a> {
    schema: &'a Value,
    profiles: Vec<&'a str>,
    problems: Vec<String>,
}

impl<'a> Found<'a> {
    fn wrong(&mut self, path: &str, why: impl std::fmt::Display) {
        self.problems.push(format!("{path}: {why}"));
    }

    /// `definition` is a class or an object.
    fn object(&mut self, path: &str, definition: &'a Value, value: &Value) {
        let Some(members) = value.as_object() else {
            return self.wrong(path, format!("{value} is no object"));
        };
        let attributes = definition["attributes"].as_object().unwrap();
        for (name, attribute) in attributes {
            if attribute["requirement"] == "required"
                && self.counts(attribute)
                && !members.contains_key(name)
            {
                self.wrong(&format!("{path}.{name}"), "is required");
            }
        }
        for (name, member) in members {
            let path = format!("{path}.{name}");
            match attributes
                .get(name)
                .filter(|attribute| self.counts(attribute))
            {
                None => self.wrong(&path, "is no attribute here"),
                Some(attribute) => self.attribute(&path, attribute, member, value),
            }
        }
        self.constraints(path, definition, value);
    }

    /// Whether an attribute is one of this event, by the profiles that it uses.
    fn counts(&self, attribute: &Value) -> bool {
        let profile = attribute["profile"].as_str();
        profile.is_none_or(|profile| self.profiles.contains(&profile))
    }

    fn constraints(&mut self, path: &str, definition: &Value, value: &Value) {
        let Some(constraints) = definition["constraints"].as_object() else {
            return;
        };
        for (kind, names) in constraints {
            let names: Vec<&str> = names
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_str)
                .collect();
            let there = names
                .iter()
                .filter(|name| value.get(**name).is_some())
                .count();
            if there == 0 || (kind == "just_one" && there > 1) {
                self.wrong(
                    path,
                    format!("has {there} of {names:?}, where {kind} is asked for"),
                );
            }
        }
    }

    fn attribute(&mut self, path: &str, attribute: &'a Value, value: &Value, owner: &Value) {
        if attribute["is_array"] == true {
            let Some(items) = value.as_array() else {
                return self.wrong(path, format!("{value} is no list"));
            };
            for (n, item) in items.iter().enumerate() {
                self.one(&format!("{path}[{n}]"), attribute, item, owner);
            }
        } else {
            self.one(path, attribute, value, owner);
        }
    }

    fn one(&mut self, path: &str, attribute: &'a Value, value: &Value, owner: &Value) {
        match attribute["type"].as_str().unwrap() {
            "object_t" => {
                let name = attribute["object_type"].as_str().unwrap();
                // `unmapped` may hold anything.
                if name != "object" {
                    let definition = &self.schema["objects"][name];
                    self.object(path, definition, value);
                }
            }
            name => self.scalar(path, name, value),
        }
        if let Some(words) = attribute["enum"].as_object() {
            self.word(path, attribute, words, value, owner);
        }
    }

    fn word(
        &mut self,
        path: &str,
        attribute: &Value,
        words: &serde_json::Map<String, Value>,
        value: &Value,
        owner: &Value,
    ) {
        let word = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        if !words.contains_key(&word) {
            self.wrong(path, format!("{word} is none of its values"));
        }
        let sibling = attribute["sibling"].as_str();
        if let Some(sibling) = sibling.filter(|_| word == "99")
            && owner.get(sibling).is_none()
            // The class, with its activity, already says what an event is.
            && sibling != "type_name"
        {
            self.wrong(path, format!("is 99 without {sibling}"));
        }
    }

    fn scalar(&mut self, path: &str, name: &str, value: &Value) {
        let definition = &self.schema["types"][name];
        let base = definition["type"].as_str().unwrap_or(name);
        let fits = match base {
            "string_t" => value.is_string(),
            "integer_t" | "long_t" => value.is_i64() || value.is_u64(),
            "boolean_t" => value.is_boolean(),
            "float_t" => value.is_number(),
            _ => true,
        };
        if !fits {
            return self.wrong(path, format!("{value} is no {name}"));
        }
        if let (Some(text), Some(pattern)) = (value.as_str(), definition["regex"].as_str())
            && !Regex::new(pattern).unwrap().is_match(text)
        {
            self.wrong(path, format!("`{text}` is no {name}"));
        }
        if let (Some(number), Some(range)) = (value.as_i64(), definition["range"].as_array())
            && !(range[0].as_i64()..=range[1].as_i64()).contains(&Some(number))
        {
            self.wrong(path, format!("{number} is out of range"));
        }
    }
}

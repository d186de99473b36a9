//! JSON Schema of the configuration, made from the one list of settings: editors check and complete a TOML file by it.

use serde_json::{Map, Value, json};

use super::knobs::{Knob, KnobKind, Section};
use super::scheme::{Scheme, schemes};
use super::sections::knobs_of;

/// Returns the JSON Schema (2020-12) of a configuration file, for the backends that this program has.
///
/// ```
/// let schema = eventbus::config::schema();
/// assert_eq!(schema["properties"]["subscribe"]["properties"]["concurrency"]["minimum"], 1);
/// ```
#[must_use]
pub fn schema() -> Value {
    let built = schemes().iter().filter(|scheme| scheme.missing.is_none());
    let backends: Vec<Value> = built.map(backend).collect();
    let mut properties = Map::new();
    properties.insert("backend".into(), json!({ "description": Section::Backend.about(), "oneOf": backends }));
    for section in Section::COMMON {
        let settings = knobs_of(section).map(setting).collect();
        properties.insert(section.as_str().into(), table(section.about(), settings, &[]));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "eventbus",
        "description": "A bus as plain data.",
        "type": "object",
        "additionalProperties": false,
        "required": ["backend"],
        "properties": properties,
    })
}

fn backend(scheme: &Scheme) -> Value {
    let mut settings: Map<String, Value> = scheme.knobs.iter().map(setting).collect();
    settings.insert("type".into(), json!({ "const": scheme.name }));
    settings.insert(scheme.place.into(), json!({ "type": "string", "description": scheme.place_about() }));
    let required = if scheme.needs_place() { &["type", scheme.place][..] } else { &["type"] };
    table(&format!("The backend of {}:// URLs.", scheme.name), settings, required)
}

fn table(about: &str, settings: Map<String, Value>, required: &[&str]) -> Value {
    json!({
        "type": "object",
        "description": about,
        "additionalProperties": false,
        "required": required,
        "properties": settings,
    })
}

fn setting(knob: &Knob) -> (String, Value) {
    let mut value = match knob.kind {
        // A TOML integer cannot be higher, so there is nothing to check.
        KnobKind::Number { least, most } if most >= i64::MAX as u64 => json!({ "type": "integer", "minimum": least }),
        KnobKind::Number { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
        KnobKind::Flag => json!({ "type": "boolean" }),
        KnobKind::Word(words) => json!({ "enum": words }),
        KnobKind::Text => json!({ "type": "string" }),
    };
    value["description"] = knob.help.into();
    (knob.name.to_owned(), value)
}

#[cfg(test)]
mod tests {
    use super::super::knobs;
    use super::*;

    /// Checks a value by the part of JSON Schema that is used here.
    fn fits(schema: &Value, value: &Value) -> bool {
        if let Some(ways) = schema["oneOf"].as_array() {
            return ways.iter().filter(|way| fits(way, value)).count() == 1;
        }
        let within = |number: &Value| {
            let number = number.as_i64().unwrap();
            schema["minimum"].as_i64().is_none_or(|least| number >= least)
                && schema["maximum"].as_i64().is_none_or(|most| number <= most)
        };
        match (schema["type"].as_str(), &schema["enum"], value) {
            (Some("object"), _, Value::Object(fields)) => {
                let properties = schema["properties"].as_object().unwrap();
                let known = |(name, value): (&String, &Value)| properties.get(name).is_some_and(|s| fits(s, value));
                let required = |name: &Value| fields.contains_key(name.as_str().unwrap());
                fields.iter().all(known) && schema["required"].as_array().unwrap().iter().all(required)
            }
            (Some("integer"), _, Value::Number(number)) => number.is_i64() && within(value),
            (Some("boolean"), _, Value::Bool(_)) | (Some("string"), _, Value::String(_)) => true,
            (None, Value::Array(words), word) => words.contains(word),
            (None, _, word) => schema["const"] == *word,
            _ => false,
        }
    }

    fn of(toml: &str) -> Value {
        serde_json::to_value(toml.parse::<toml::Table>().unwrap()).unwrap()
    }

    #[test]
    fn what_the_schema_takes_the_reader_takes_too() {
        let schema = schema();
        let memory = "[backend]\ntype = \"memory\"\n";
        for knob in knobs() {
            let values: &[&str] = match knob.kind {
                KnobKind::Number { .. } => &["0", "1", "-1", "5000", "99999999999999", "\"1\"", "1.5", "true"],
                KnobKind::Flag => &["true", "false", "1", "\"true\""],
                KnobKind::Word(_) => &["\"own\"", "\"stop\"", "\"none\"", "\"skip\"", "\"latest\"", "\"memory\"", "1"],
                KnobKind::Text => &["\"a\"", "1"],
            };
            for value in values {
                let toml = format!("{memory}[{}]\n{} = {value}\n", knob.section.as_str(), knob.name);
                let read = match crate::EventBusConfig::from_toml(&toml) {
                    Ok(_) => true,
                    // A schema cannot express combinations that are impossible.
                    Err(error) => error.to_string().contains("which is"),
                };
                assert_eq!(fits(&schema, &of(&toml)), read, "{toml}");
            }
        }
        for toml in [
            "",
            "[backend]\n",
            "[backend]\ntype = \"amqp\"\n",
            "[backend]\ntype = \"memory\"\nname = \"n\"\n",
            "[backend]\ntype = \"memory\"\nnames = \"n\"\n",
            "[backend]\ntype = \"nats\"\n",
            "[backend]\ntype = \"memory\"\n[topics]\n",
        ] {
            assert_eq!(fits(&schema, &of(toml)), crate::EventBusConfig::from_toml(toml).is_ok(), "{toml}");
        }
    }
}

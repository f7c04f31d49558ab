//! The JSON Schema and the reference page, both made from the blocks.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::block::Block;
use super::blocks::File;
use super::read::{Definitions, Read};

/// The JSON Schema (2020-12) of the configuration.
pub fn schema() -> Value {
    let mut definitions = Definitions::new();
    File::schema(&mut definitions);
    let mut root = Map::new();
    root.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    root.insert("title".into(), "bearward configuration".into());
    if let Some(Value::Object(file)) = definitions.remove(File::NAME) {
        root.extend(file.into_iter().filter(|(key, _)| key != "title"));
    }
    definitions.sort_keys();
    root.insert("$defs".into(), Value::Object(definitions));
    Value::Object(root)
}

/// The schema as text, as it stands in `docs/` and as `bearward schema` prints it.
pub fn schema_text() -> String {
    let mut text = serde_json::to_string_pretty(&schema()).expect("a schema is plain JSON");
    text.push('\n');
    text
}

/// The reference of the configuration in Markdown.
pub fn reference() -> String {
    let schema = schema();
    let mut page = String::from(
        "# Configuration\n\n<!-- Generated from the documentation of the fields in `src/config/blocks`; do not edit. -->\n\n",
    );
    section(&mut page, "", &schema);
    let mut order = Vec::new();
    visit(&schema, &schema, &mut order);
    for name in order {
        section(&mut page, &name, &schema["$defs"][&name]);
    }
    page
}

/// The definitions in the order in which a reader meets them; defaults are described by what they default.
fn visit(node: &Value, root: &Value, order: &mut Vec<String>) {
    let mut met = Vec::new();
    references(node, &mut met);
    let fresh: Vec<String> =
        met.into_iter().filter(|name| !name.starts_with("default_") && !order.contains(name)).collect();
    for name in fresh {
        if !order.contains(&name) {
            order.push(name.clone());
            visit(&root["$defs"][&name], root, order);
        }
    }
}

fn references(node: &Value, met: &mut Vec<String>) {
    match node {
        Value::Object(map) => {
            for (key, value) in map {
                if key == "$ref" {
                    met.extend(
                        value.as_str().and_then(|text| text.strip_prefix("#/$defs/")).map(str::to_owned),
                    );
                } else if key != "$defs" {
                    references(value, met);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, met)),
        _ => {}
    }
}

fn section(page: &mut String, name: &str, schema: &Value) {
    if !name.is_empty() {
        let _ = writeln!(page, "## {name}\n");
    }
    let _ = writeln!(page, "{}\n", schema["description"].as_str().unwrap_or_default());
    let Some(properties) = schema["properties"].as_object() else { return };
    page.push_str("| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
    for (key, field) in properties {
        let required = schema["required"].as_array().is_some_and(|keys| keys.contains(&json!(key)));
        let default = match field.get("default") {
            _ if required => "required".to_owned(),
            None => String::new(),
            Some(Value::String(text)) => format!("`{text}`"),
            Some(value) => format!("`{value}`"),
        };
        let meaning = field["description"].as_str().unwrap_or_default().replace('|', "\\|");
        let _ = writeln!(page, "| `{key}` | {} | {default} | {meaning} |", words(field));
    }
    page.push('\n');
}

/// A type in words.
fn words(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|text| text.strip_prefix("#/$defs/")) {
        let shown = name.strip_prefix("default_").unwrap_or(name);
        return format!("[{shown}](#{shown})");
    }
    if let Some(values) = schema["enum"].as_array() {
        let values = values.iter().map(|value| format!("`{}`", value.to_string().replace('"', "")));
        return values.collect::<Vec<_>>().join(", ");
    }
    if let Some(title) = schema["title"].as_str() {
        return title.to_owned();
    }
    if let Some(options) = schema["anyOf"].as_array() {
        return options.iter().map(words).collect::<Vec<_>>().join(" or ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", words(&schema["items"])),
        Some("object") => format!("map of {}", words(&schema["additionalProperties"])),
        Some(other) => other.replace("string", "text"),
        None => String::new(),
    }
}

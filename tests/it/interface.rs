//! The OpenAPI document as a product: limits on every field, an example of every body.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use upload_broker::http::openapi;

/// Lists that are as long as the configuration, or as many principals have it.
const AS_LONG_AS_THEY_ARE: [&str; 4] =
    ["PolicyList.policies", "Policy.content_types", "Policy.regions", "UsageList.rows"];

fn document() -> Value {
    serde_json::from_str(&openapi::document().unwrap()).unwrap()
}

fn entries(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    object.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// All operations, each with its name.
fn operations(document: &Value) -> Vec<(&str, &Value)> {
    let methods = entries(&document["paths"]).flat_map(|(_, methods)| entries(methods));
    methods.map(|(_, operation)| (operation["operationId"].as_str().unwrap(), operation)).collect()
}

/// What in a schema has no limit, where it should have one.
fn unlimited(at: &str, schema: &Value, found: &mut Vec<String>) {
    let has = |field: &str| !schema[field].is_null();
    let is_limited = |of: &Value| match of.as_str() {
        Some("string") => has("maxLength") || has("enum") || has("format"),
        Some("integer" | "number") => has("minimum") && has("maximum"),
        Some("array") => has("maxItems") || AS_LONG_AS_THEY_ARE.contains(&at),
        // A map has as many entries as it likes; an object with fields of its own has those.
        Some("object") => has("maxProperties") || !schema["additionalProperties"].is_object(),
        _ => true,
    };
    let types = schema["type"].as_array().map_or(std::slice::from_ref(&schema["type"]), Vec::as_slice);
    if !types.iter().all(is_limited) {
        found.push(format!("{at}: {}", schema["type"]));
    }
    // Swift's generator writes patterns between slashes, and makes of others an escape that Swift does not have.
    if schema["pattern"].as_str().is_some_and(|pattern| pattern.contains('/')) {
        found.push(format!("{at}: a slash in its pattern"));
    }
    for (name, property) in entries(&schema["properties"]) {
        unlimited(&format!("{at}.{name}"), property, found);
    }
    for inner in ["items", "additionalProperties", "propertyNames"] {
        if schema[inner].is_object() {
            unlimited(&format!("{at}/{inner}"), &schema[inner], found);
        }
    }
}

#[test]
fn what_has_no_limit_is_found() {
    for (name, schema, expected) in [
        ("a text", json!({"type": "string"}), 1),
        ("a text of some length", json!({"type": "string", "maxLength": 3}), 0),
        ("a text that may be null", json!({"type": ["string", "null"]}), 1),
        ("a text of some length that may be null", json!({"type": ["string", "null"], "maxLength": 3}), 0),
        (
            "a number with half a limit, or a text",
            json!({"type": ["string", "integer"], "maxLength": 3, "minimum": 0}),
            1,
        ),
        ("a list", json!({"type": "array", "items": {"type": "boolean"}}), 1),
        ("a list of texts", json!({"type": "array", "maxItems": 3, "items": {"type": "string"}}), 1),
        ("a map", json!({"type": "object", "additionalProperties": {"type": "boolean"}}), 1),
        ("a map that may be null", json!({"type": ["null", "object"], "additionalProperties": {"type": "boolean"}}), 1),
        (
            "a map of some size",
            json!({"type": "object", "maxProperties": 3, "additionalProperties": {"type": "boolean"}}),
            0,
        ),
        ("a map of any names", json!({"type": "object", "maxProperties": 3, "propertyNames": {"type": "string"}}), 1),
        ("fields of its own", json!({"type": "object", "properties": {"it": {"type": "boolean"}}}), 0),
        ("a field of its own", json!({"type": "object", "properties": {"it": {"type": ["integer", "null"]}}}), 1),
    ] {
        let mut found = Vec::new();
        unlimited("Thing", &schema, &mut found);
        assert_eq!(found.len(), expected, "{name}: {found:?}");
    }
}

#[test]
fn every_field_parameter_and_header_has_limits() {
    let document = document();
    let mut found = Vec::new();
    for (name, schema) in entries(&document["components"]["schemas"]) {
        unlimited(name, schema, &mut found);
    }
    for (name, operation) in operations(&document) {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let schema = &parameter["schema"];
            assert!(schema.is_object(), "{name} {}", parameter["name"]);
            unlimited(&format!("{name} {}", parameter["name"]), schema, &mut found);
        }
        for (status, response) in entries(&operation["responses"]) {
            for (header, of) in entries(&response["headers"]) {
                unlimited(&format!("{name} {status} {header}"), &of["schema"], &mut found);
            }
        }
    }
    assert!(found.is_empty(), "without limits:\n{}", found.join("\n"));
}

#[test]
fn every_body_has_an_example() {
    let document = document();
    let mut bodies = 0;
    for (name, operation) in operations(&document) {
        let request = ("request", &operation["requestBody"]);
        for (place, holder) in std::iter::once(request).chain(entries(&operation["responses"])) {
            for (kind, content) in entries(&holder["content"]) {
                bodies += 1;
                let has_example = !content["example"].is_null() || entries(&content["examples"]).next().is_some();
                assert!(has_example, "{name}, {place}, {kind} has no example");
            }
        }
    }
    assert!(bodies > 100, "{bodies}");
}

#[test]
fn every_problem_code_has_an_example_and_stands_where_its_status_does() {
    let document = document();
    let codes = document["components"]["schemas"]["Code"]["enum"].as_array().unwrap();
    let codes: BTreeSet<&str> = codes.iter().map(|code| code.as_str().unwrap()).collect();
    let examples = &document["components"]["examples"];
    assert_eq!(entries(examples).map(|(name, _)| name).collect::<BTreeSet<_>>(), codes);
    for (name, operation) in operations(&document) {
        for (status, response) in entries(&operation["responses"]) {
            for (code, _) in entries(&response["content"]["application/problem+json"]["examples"]) {
                assert_eq!(examples[code]["value"]["status"].to_string(), status, "{name}: {code}");
            }
        }
    }
}

#[test]
fn a_server_is_found_by_its_region_and_whoever_calls_has_a_token() {
    let document = document();
    let server = &document["servers"][0];
    for variable in ["region", "domain"] {
        assert!(server["url"].as_str().unwrap().contains(&format!("{{{variable}}}")), "{variable}");
        assert!(server["variables"][variable]["default"].is_string(), "{variable}");
    }
    let schemes = &document["components"]["securitySchemes"];
    for (name, operation) in operations(&document) {
        let security = if operation["security"].is_null() { &document["security"] } else { &operation["security"] };
        for scheme in security.as_array().unwrap().iter().flat_map(entries).map(|(scheme, _)| scheme) {
            assert!(schemes[scheme].is_object(), "{name}: {scheme}");
        }
    }
}

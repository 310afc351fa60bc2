//! The OpenAPI document breaks no client of the last release: `openapi/CHANGES.md` has the rules.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Value, json};
use upload_broker::http::openapi;

use crate::documents::repository;

/// Who writes what a schema describes. What a client sends may only be taken more widely, what it reads only be more narrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Sent,
    Read,
}

/// Two documents, and what in the new one breaks clients of the old one.
struct Comparison<'a> {
    old: &'a Value,
    new: &'a Value,
    seen: BTreeSet<(String, Side)>,
    breaks: Vec<String>,
}

/// What in `new` breaks clients of `old`, each in a sentence.
fn breaks(old: &Value, new: &Value) -> Vec<String> {
    let mut comparison = Comparison { old, new, seen: BTreeSet::new(), breaks: Vec::new() };
    comparison.paths();
    comparison.breaks
}

impl<'a> Comparison<'a> {
    fn complain(&mut self, at: &str, what: &str) {
        self.breaks.push(format!("{at}: {what}"));
    }

    fn paths(&mut self) {
        for (path, methods) in entries(&self.old["paths"]) {
            for (method, old) in entries(methods) {
                let at = format!("{} {path}", method.to_uppercase());
                match self.new["paths"][path].get(method) {
                    Some(new) => self.operation(&at, old, new),
                    None => self.complain(&at, "the operation is gone"),
                }
            }
        }
    }

    fn operation(&mut self, at: &str, old: &'a Value, new: &'a Value) {
        if old["operationId"] != new["operationId"] {
            self.complain(at, "the operation is called otherwise, and so are the functions of clients");
        }
        self.security(at, old, new);
        self.parameters(at, old, new);
        let (old_body, new_body) = (&old["requestBody"], &new["requestBody"]);
        if is_true(&new_body["required"]) && !is_true(&old_body["required"]) {
            self.complain(at, "a body is needed");
        }
        self.contents(&format!("{at}, body"), old_body, new_body, Side::Sent);
        for (status, old) in entries(&old["responses"]) {
            let at = format!("{at}, {status}");
            match new["responses"].get(status) {
                Some(new) => self.response(&at, old, new),
                // An error that cannot happen any more breaks nobody.
                None if !status.starts_with('2') => {}
                None => self.complain(&at, "this is not answered any more"),
            }
        }
    }

    /// Whoever could call can still do so with what it has: each alternative of before must hold one of now.
    fn security(&mut self, at: &str, old: &Value, new: &Value) {
        let (were, are) = (alternatives(self.old, old), alternatives(self.new, new));
        let is_enough = |has: &&Value| are.iter().any(|asks| asks_no_more(asks, has));
        if let Some(lost) = were.iter().find(|has| !is_enough(has)) {
            let needed =
                if entries(lost).next().is_none() { "credentials are needed" } else { "other credentials are needed" };
            self.complain(at, needed);
        }
        for (name, _) in were.iter().flat_map(|has| entries(has)) {
            let kind = |document: &'a Value| scheme(&document["components"]["securitySchemes"][name]);
            if kind(self.old) != kind(self.new) && self.seen.insert((format!("securitySchemes/{name}"), Side::Sent)) {
                self.complain(name, "these credentials are given otherwise");
            }
        }
    }

    fn response(&mut self, at: &str, old: &'a Value, new: &'a Value) {
        self.contents(at, old, new, Side::Read);
        for (name, old) in entries(&old["headers"]) {
            match new["headers"].get(name) {
                Some(new) => self.schema(&format!("{at}, {name}"), &old["schema"], &new["schema"], Side::Read),
                None => self.complain(at, &format!("the header {name} is gone")),
            }
        }
    }

    fn parameters(&mut self, at: &str, old: &'a Value, new: &'a Value) {
        let named = |operation: &'a Value, wanted: &Value| {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            parameters.into_iter().find(|one| one["name"] == wanted["name"] && one["in"] == wanted["in"])
        };
        for old in old["parameters"].as_array().into_iter().flatten() {
            let at = format!("{at}, parameter {}", text(&old["name"]));
            match named(new, old) {
                Some(new) => self.schema(&at, &old["schema"], &new["schema"], Side::Sent),
                None => self.complain(&at, "it is gone"),
            }
        }
        for new in new["parameters"].as_array().into_iter().flatten() {
            if is_true(&new["required"]) && !named(old, new).is_some_and(|old| is_true(&old["required"])) {
                self.complain(&format!("{at}, parameter {}", text(&new["name"])), "it is needed");
            }
        }
    }

    fn contents(&mut self, at: &str, old: &'a Value, new: &'a Value, side: Side) {
        for (kind, old) in entries(&old["content"]) {
            match new["content"].get(kind) {
                Some(new) => self.schema(at, &old["schema"], &new["schema"], side),
                None => self.complain(at, &format!("{kind} is gone")),
            }
        }
    }

    fn schema(&mut self, at: &str, old: &'a Value, new: &'a Value, side: Side) {
        let at = match old["$ref"].as_str() {
            // What has a name is compared once for each side, under that name.
            Some(reference) if !self.seen.insert((reference.to_owned(), side)) => return,
            Some(reference) => reference.rsplit('/').next().unwrap_or_default().to_owned(),
            None => at.to_owned(),
        };
        let (old, new) = (resolved(self.old, old), resolved(self.new, new));
        for field in ["type", "format", "contentEncoding"] {
            if old[field] != new[field] {
                self.complain(&at, &format!("its {field} was {}, and is {}", old[field], new[field]));
            }
        }
        // Whoever leaves it out counts on what stands for it.
        if !old["default"].is_null() && old["default"] != new["default"] {
            self.complain(&at, &format!("its default was {}, and is {}", old["default"], new["default"]));
        }
        self.values(&at, old, new, side);
        self.limits(&at, old, new, side);
        self.properties(&at, old, new, side);
        if old["items"].is_object() {
            self.schema(&format!("{at}[]"), &old["items"], &new["items"], side);
        }
        if old["additionalProperties"].is_object() {
            self.schema(&format!("{at}{{}}"), &old["additionalProperties"], &new["additionalProperties"], side);
        }
        let (old_names, new_names) = (&old["propertyNames"], &new["propertyNames"]);
        if old_names.is_object() || new_names.is_object() {
            let or_any = |names: &'a Value| if names.is_object() { names } else { &*ANY_NAME };
            self.schema(&format!("{at}, names"), or_any(old_names), or_any(new_names), side);
        }
    }

    fn values(&mut self, at: &str, old: &Value, new: &Value, side: Side) {
        let values = |schema: &Value| schema["enum"].as_array().cloned();
        match (values(old), values(new)) {
            (Some(old), Some(new)) => {
                for value in old.iter().filter(|value| !new.contains(value)) {
                    self.complain(at, &format!("the value {value} is gone"));
                }
            }
            (None, Some(_)) if side == Side::Sent => self.complain(at, "only some values are taken"),
            (Some(_), None) if side == Side::Read => self.complain(at, "any value can come"),
            _ => {}
        }
    }

    fn limits(&mut self, at: &str, old: &Value, new: &Value, side: Side) {
        for (name, upper) in [
            ("maximum", true),
            ("maxLength", true),
            ("maxItems", true),
            ("maxProperties", true),
            ("minimum", false),
            ("minLength", false),
            ("minItems", false),
        ] {
            // A limit that is not there is one that nothing reaches.
            let (none, sign) = if upper { (f64::INFINITY, 1.0) } else { (f64::NEG_INFINITY, -1.0) };
            let limit = |schema: &Value| sign * schema[name].as_f64().unwrap_or(none);
            let (was, is) = (limit(old), limit(new));
            let broken = if side == Side::Sent { is < was } else { is > was };
            if broken {
                self.complain(at, &format!("its {name} was {}, and is {}", old[name], new[name]));
            }
        }
        // Which of two patterns takes more is for people to say.
        let gained = side == Side::Sent && !new["pattern"].is_null();
        let lost = side == Side::Read && !old["pattern"].is_null();
        if old["pattern"] != new["pattern"] && (gained || lost) {
            self.complain(at, &format!("its pattern was {}, and is {}", old["pattern"], new["pattern"]));
        }
    }

    fn properties(&mut self, at: &str, old: &'a Value, new: &'a Value, side: Side) {
        let required = |schema: &Value, name: &str| {
            schema["required"].as_array().into_iter().flatten().any(|required| required == name)
        };
        for (name, old_property) in entries(&old["properties"]) {
            let at = format!("{at}.{name}");
            match new["properties"].get(name) {
                Some(new_property) => self.schema(&at, old_property, new_property, side),
                None => self.complain(&at, "it is gone"),
            }
            if side == Side::Read && required(old, name) && !required(new, name) {
                self.complain(&at, "it may be left out");
            }
        }
        for (name, _) in entries(&new["properties"]) {
            if side == Side::Sent && required(new, name) && !required(old, name) {
                self.complain(&format!("{at}.{name}"), "it is needed");
            }
        }
        if side == Side::Sent && new["additionalProperties"] == false && old["additionalProperties"] != false {
            self.complain(at, "unknown fields are refused");
        }
    }
}

/// A name of which nothing is said.
static ANY_NAME: LazyLock<Value> = LazyLock::new(|| json!({"type": "string"}));

/// What an operation lets callers choose from: its own word, or the document's. Each alternative names the schemes that it
/// takes together, and an empty one takes none.
fn alternatives<'a>(document: &'a Value, operation: &'a Value) -> Vec<&'a Value> {
    static NOTHING: LazyLock<Value> = LazyLock::new(|| json!({}));
    let own = operation.get("security").or_else(|| document.get("security"));
    let several: Vec<&Value> = own.and_then(Value::as_array).into_iter().flatten().collect();
    if several.is_empty() { vec![&NOTHING] } else { several }
}

/// Whether who `has` these credentials, with these scopes, has all that the other alternative asks for.
fn asks_no_more(asks: &Value, has: &Value) -> bool {
    let scopes = |of: &Value| of.as_array().cloned().unwrap_or_default();
    entries(asks).all(|(name, wanted)| {
        has.get(name).is_some_and(|given| scopes(wanted).iter().all(|scope| scopes(given).contains(scope)))
    })
}

/// A scheme without what is said of it to people.
fn scheme(of: &Value) -> Vec<(&str, &Value)> {
    entries(of).filter(|(field, _)| !["description", "bearerFormat"].contains(field)).collect()
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let target = schema["$ref"].as_str().and_then(|reference| document.pointer(reference.trim_start_matches('#')));
    target.unwrap_or(schema)
}

fn entries(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    object.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn is_true(value: &Value) -> bool {
    *value == true
}

/// The document of the last release, and its version.
fn last_release() -> (String, Value) {
    let folder = std::fs::read_dir(repository("openapi/released")).unwrap();
    let version = |name: &str| -> Option<Vec<u32>> {
        name.strip_suffix(".json")?.split('.').map(|part| part.parse().ok()).collect()
    };
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let newest = names.filter(|name| name != "README.md").max_by_key(|name| version(name).unwrap()).unwrap();
    let document = std::fs::read_to_string(repository("openapi/released").join(&newest)).unwrap();
    (newest.trim_end_matches(".json").to_owned(), serde_json::from_str(&document).unwrap())
}

#[test]
fn no_client_of_the_last_release_is_broken() {
    let (version, released) = last_release();
    let now: Value = serde_json::from_str(&openapi::document().unwrap()).unwrap();
    assert_eq!(released["info"]["version"], version, "a file is named after its document");
    let breaks = breaks(&released, &now);
    assert!(breaks.is_empty(), "since {version}, see openapi/released/README.md:\n{}", breaks.join("\n"));
}

#[test]
fn every_version_has_its_changes_written_down() {
    let changes = std::fs::read_to_string(repository("openapi/CHANGES.md")).unwrap();
    let (released, _) = last_release();
    for version in [&released[..], env!("CARGO_PKG_VERSION")] {
        assert!(changes.contains(&format!("\n## {version}\n")), "openapi/CHANGES.md says nothing of {version}");
    }
}

/// A document of two operations, in which a test changes something.
fn small() -> Value {
    json!({
        "security": [{"token": ["make"]}],
        "paths": {"/things": {"post": {
            "operationId": "makeThing",
            "parameters": [{"name": "dry", "in": "query", "schema": {"type": "boolean", "default": false}}],
            "requestBody": {"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Make"}}}},
            "responses": {
                "201": {
                    "headers": {"location": {"schema": {"type": "string", "maxLength": 255}}},
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}},
                },
                "409": {},
            },
        }, "get": {"operationId": "seeThings", "security": [{}], "responses": {}}}},
        "components": {"securitySchemes": {
            "token": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "x-key"},
        }, "schemas": {
            "Make": {"type": "object", "required": ["name"], "additionalProperties": false, "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 10},
                "kind": {"$ref": "#/components/schemas/Kind"},
                "labels": {"type": "object", "maxProperties": 3, "propertyNames": {"type": "string", "maxLength": 5}},
                "notes": {"type": "object"},
                "digest": {"type": "string", "contentEncoding": "base64"},
            }},
            "Thing": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string", "maxLength": 10, "pattern": "^[a-z]+$"},
                "size": {"type": "integer", "format": "int64", "minimum": 0, "maximum": 5},
                "tags": {"type": "array", "maxItems": 3, "items": {"type": "string"}},
                "labels": {"type": "object", "propertyNames": {"type": "string", "maxLength": 5}},
                "notes": {"type": "object"},
            }},
            "Kind": {"type": "string", "enum": ["small", "large"]},
        }},
    })
}

/// The document with a value at a pointer put in, or, where it is null, the field taken out.
fn changed(pointer: &str, value: Value) -> Value {
    let mut document = small();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(field).unwrap();
    } else {
        parent.insert(field.to_owned(), value);
    }
    document
}

const OPERATION: &str = "/paths/~1things/post";
const SCHEMAS: &str = "/components/schemas";

/// Each case changes one thing, which breaks one thing: that is said, with where.
fn each_is_found(cases: impl IntoIterator<Item = (&'static str, String, Value, &'static str)>) {
    for (name, pointer, value, expected) in cases {
        let found = breaks(&small(), &changed(&pointer, value));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{name}: {found:?}");
    }
}

#[test]
fn what_breaks_clients_in_an_operation_is_found_and_said_where() {
    each_is_found([
        ("an operation less", "/paths/~1things/post".to_owned(), Value::Null, "POST /things: the operation is gone"),
        ("another name", format!("{OPERATION}/operationId"), json!("create"), "POST /things: the operation is called"),
        ("other credentials", format!("{OPERATION}/security"), json!([{"key": []}]), "POST /things: other credentials"),
        (
            "credentials more",
            format!("{OPERATION}/security"),
            json!([{"token": ["make"], "key": []}]),
            "POST /things: other credentials",
        ),
        (
            "a scope more",
            format!("{OPERATION}/security"),
            json!([{"token": ["make", "own"]}]),
            "POST /things: other credentials",
        ),
        (
            "credentials where none were needed",
            "/paths/~1things/get/security".to_owned(),
            json!([{"token": []}]),
            "GET /things: credentials are needed",
        ),
        (
            "the document's credentials where none were needed",
            "/paths/~1things/get/security".to_owned(),
            Value::Null,
            "GET /things: credentials are needed",
        ),
        (
            "other credentials of the whole document",
            "/security".to_owned(),
            json!([{"key": []}]),
            "POST /things: other credentials",
        ),
        (
            "the same credentials, given otherwise",
            "/components/securitySchemes/token/scheme".to_owned(),
            json!("basic"),
            "token: these credentials are given otherwise",
        ),
        (
            "another default",
            format!("{OPERATION}/parameters/0/schema/default"),
            json!(true),
            "POST /things, parameter dry: its default was false, and is true",
        ),
        (
            "no default",
            format!("{OPERATION}/parameters/0/schema/default"),
            Value::Null,
            "POST /things, parameter dry: its default was false, and is null",
        ),
        ("a parameter less", format!("{OPERATION}/parameters"), json!([]), "POST /things, parameter dry: it is gone"),
        (
            "a parameter that is needed",
            format!("{OPERATION}/parameters"),
            json!([{"name": "dry", "in": "query", "required": true, "schema": {"type": "boolean", "default": false}}]),
            "POST /things, parameter dry: it is needed",
        ),
        ("no success", format!("{OPERATION}/responses/201"), Value::Null, "POST /things, 201: this is not answered"),
        (
            "no header",
            format!("{OPERATION}/responses/201/headers"),
            json!({}),
            "POST /things, 201: the header location",
        ),
        (
            "no JSON",
            format!("{OPERATION}/responses/201/content"),
            json!({}),
            "POST /things, 201: application/json is gone",
        ),
    ]);
}

#[test]
fn what_breaks_clients_in_a_schema_is_found_and_said_where() {
    each_is_found([
        ("a field to send less", format!("{SCHEMAS}/Make/properties/name"), Value::Null, "Make.name: it is gone"),
        ("a field to read less", format!("{SCHEMAS}/Thing/properties/size"), Value::Null, "Thing.size: it is gone"),
        ("a needed field", format!("{SCHEMAS}/Make/required"), json!(["name", "kind"]), "Make.kind: it is needed"),
        ("a field that may lack", format!("{SCHEMAS}/Thing/required"), json!([]), "Thing.name: it may be left out"),
        ("a value less", format!("{SCHEMAS}/Kind/enum"), json!(["small"]), "Kind: the value \"large\" is gone"),
        ("a shorter name", format!("{SCHEMAS}/Make/properties/name/maxLength"), json!(9), "Make.name: its maxLength"),
        (
            "a longer name needed",
            format!("{SCHEMAS}/Make/properties/name/minLength"),
            json!(2),
            "Make.name: its minLength",
        ),
        ("a pattern", format!("{SCHEMAS}/Make/properties/name/pattern"), json!("^a"), "Make.name: its pattern"),
        (
            "some values only",
            format!("{SCHEMAS}/Make/properties/name/enum"),
            json!(["a"]),
            "Make.name: only some values",
        ),
        ("a larger answer", format!("{SCHEMAS}/Thing/properties/size/maximum"), json!(6), "Thing.size: its maximum"),
        (
            "an unbounded list",
            format!("{SCHEMAS}/Thing/properties/tags/maxItems"),
            Value::Null,
            "Thing.tags: its maxItems",
        ),
        ("no pattern", format!("{SCHEMAS}/Thing/properties/name/pattern"), Value::Null, "Thing.name: its pattern"),
        (
            "another type",
            format!("{SCHEMAS}/Thing/properties/tags/items/type"),
            json!("integer"),
            "Thing.tags[]: its type",
        ),
        ("another format", format!("{SCHEMAS}/Thing/properties/size/format"), json!("int32"), "Thing.size: its format"),
        (
            "another encoding",
            format!("{SCHEMAS}/Make/properties/digest/contentEncoding"),
            json!("base16"),
            "Make.digest: its contentEncoding was \"base64\", and is \"base16\"",
        ),
        (
            "an encoding where there was none",
            format!("{SCHEMAS}/Thing/properties/name/contentEncoding"),
            json!("base64"),
            "Thing.name: its contentEncoding was null",
        ),
        (
            "shorter names of a map to send",
            format!("{SCHEMAS}/Make/properties/labels/propertyNames/maxLength"),
            json!(4),
            "Make.labels, names: its maxLength",
        ),
        (
            "a map to send of fewer entries",
            format!("{SCHEMAS}/Make/properties/labels/maxProperties"),
            json!(2),
            "Make.labels: its maxProperties",
        ),
        (
            "some names only in a map to send",
            format!("{SCHEMAS}/Make/properties/notes/propertyNames"),
            json!({"type": "string", "enum": ["a"]}),
            "Make.notes, names: only some values",
        ),
        (
            "longer names in a map to read",
            format!("{SCHEMAS}/Thing/properties/labels/propertyNames/maxLength"),
            json!(6),
            "Thing.labels, names: its maxLength",
        ),
        (
            "any name in a map to read",
            format!("{SCHEMAS}/Thing/properties/labels/propertyNames"),
            Value::Null,
            "Thing.labels, names: its maxLength",
        ),
    ]);
}

#[test]
fn what_breaks_nobody_passes() {
    for (name, pointer, value) in [
        ("nothing", format!("{OPERATION}/summary"), json!("Make a thing")),
        ("another path", "/paths/~1others".to_owned(), json!({"get": {"operationId": "listOthers", "responses": {}}})),
        (
            "an optional parameter more",
            format!("{OPERATION}/parameters"),
            json!([{"name": "dry", "in": "query", "schema": {"type": "boolean", "default": false}}, {"name": "loud", "in": "query"}]),
        ),
        (
            "other credentials beside the old",
            format!("{OPERATION}/security"),
            json!([{"key": []}, {"token": ["make"]}]),
        ),
        ("the document's credentials, said again", format!("{OPERATION}/security"), json!([{"token": ["make"]}])),
        ("a scope less", format!("{OPERATION}/security"), json!([{"token": []}])),
        ("no credentials", format!("{OPERATION}/security"), json!([])),
        ("credentials that may be left out", format!("{OPERATION}/security"), json!([{"key": []}, {}])),
        ("no credentials, said otherwise", "/paths/~1things/get/security".to_owned(), json!([])),
        ("a word on credentials", "/components/securitySchemes/token/description".to_owned(), json!("Of your issuer")),
        ("a default that was never told", format!("{SCHEMAS}/Make/properties/name/default"), json!("thing")),
        ("a default for what is read", format!("{SCHEMAS}/Thing/properties/size/default"), json!(0)),
        (
            "longer names of a map to send",
            format!("{SCHEMAS}/Make/properties/labels/propertyNames/maxLength"),
            json!(6),
        ),
        ("any name in a map to send", format!("{SCHEMAS}/Make/properties/labels/propertyNames"), Value::Null),
        ("any text as a name", format!("{SCHEMAS}/Make/properties/notes/propertyNames"), json!({"type": "string"})),
        (
            "some names only in a map to read",
            format!("{SCHEMAS}/Thing/properties/notes/propertyNames"),
            json!({"type": "string", "maxLength": 3}),
        ),
        ("an error less", format!("{OPERATION}/responses/409"), Value::Null),
        ("a status more", format!("{OPERATION}/responses/422"), json!({})),
        ("an optional field to send", format!("{SCHEMAS}/Make/properties/size"), json!({"type": "integer"})),
        ("a field to read", format!("{SCHEMAS}/Thing/properties/kind"), json!({"type": "string"})),
        ("a field that need not be sent", format!("{SCHEMAS}/Make/required"), json!([])),
        ("a field that is always there", format!("{SCHEMAS}/Thing/required"), json!(["name", "size"])),
        ("a value more", format!("{SCHEMAS}/Kind/enum"), json!(["small", "large", "huge"])),
        ("a longer name", format!("{SCHEMAS}/Make/properties/name/maxLength"), json!(11)),
        ("no limit to send", format!("{SCHEMAS}/Make/properties/name/maxLength"), Value::Null),
        ("a smaller answer", format!("{SCHEMAS}/Thing/properties/size/maximum"), json!(4)),
        ("a deprecated field", format!("{SCHEMAS}/Thing/properties/size/deprecated"), json!(true)),
    ] {
        assert_eq!(breaks(&small(), &changed(&pointer, value)), [""; 0], "{name}");
    }
}

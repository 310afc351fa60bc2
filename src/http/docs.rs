//! The page to read the OpenAPI document on: made once, complete without scripts or anything from elsewhere.

use std::fmt::Write as _;

use serde_json::Value;
use utoipa::openapi::OpenApi;

/// No script, no frame, no request: the page is text. Its one style sheet stands in it.
pub const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code { font: 0.9em ui-monospace, monospace; }
section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1rem; }
h2 code:first-child { background: var(--soft); border-radius: 4px; margin-right: 0.5rem; padding: 0.1rem 0.4rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; width: 100%; }
td, th { border-bottom: 1px solid var(--line); padding: 0.3rem 0.8rem 0.3rem 0; text-align: left; vertical-align: top; }
";

/// The document as HTML.
pub fn page(document: &OpenApi) -> String {
    let document = serde_json::to_value(document).unwrap_or_default();
    let mut html = String::with_capacity(64 * 1024);
    let title = text(&document["info"]["title"]);
    // Writing to a `String` cannot fail.
    let _ = write!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
<style>{STYLE}</style></head><body><h1>{title} {}</h1><p>{}</p>\
<p>For programs: <a href=\"/openapi.json\"><code>/openapi.json</code></a></p>",
        text(&document["info"]["version"]),
        text(&document["info"]["description"]),
    );
    for (path, methods) in entries(&document["paths"]) {
        for (method, operation) in entries(methods) {
            write_operation(&mut html, path, method, operation);
        }
    }
    for (name, schema) in entries(&document["components"]["schemas"]) {
        write_schema(&mut html, name, schema);
    }
    html.push_str("</body></html>\n");
    html
}

fn write_operation(html: &mut String, path: &str, method: &str, operation: &Value) {
    let _ = write!(
        html,
        "<section id=\"{}\"><h2><code>{}</code><code>{}</code></h2><p><b>{}.</b> {}</p>",
        escape(operation["operationId"].as_str().unwrap_or_default()),
        escape(&method.to_uppercase()),
        escape(path),
        text(&operation["summary"]),
        text(&operation["description"]),
    );
    let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !parameters.is_empty() {
        html.push_str("<table><tr><th>parameter</th><th>in</th><th>type</th><th></th></tr>");
        for parameter in parameters {
            let _ = write!(
                html,
                "<tr><td><code>{}</code></td><td>{}</td><td>{}</td><td>{}</td></tr>",
                text(&parameter["name"]),
                text(&parameter["in"]),
                type_of(&parameter["schema"]),
                text(&parameter["description"]),
            );
        }
        html.push_str("</table>");
    }
    for (_, media) in entries(&operation["requestBody"]["content"]) {
        let _ = write!(html, "<p>Body: {}</p>", type_of(&media["schema"]));
    }
    html.push_str("<table><tr><th>status</th><th></th><th>body</th></tr>");
    for (status, response) in entries(&operation["responses"]) {
        let body = entries(&response["content"]).next().map(|(_, media)| type_of(&media["schema"]));
        let _ = write!(
            html,
            "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
            escape(status),
            text(&response["description"]),
            body.unwrap_or_default(),
        );
    }
    html.push_str("</table></section>");
}

fn write_schema(html: &mut String, name: &str, schema: &Value) {
    let name = escape(name);
    let _ = write!(html, "<section id=\"{name}\"><h2><code>{name}</code></h2><p>{}</p>", text(&schema["description"]));
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if schema["properties"].is_object() {
        html.push_str("<table><tr><th>field</th><th>type</th><th></th><th></th></tr>");
        for (field, property) in entries(&schema["properties"]) {
            let always = if required.contains(&field) { "always" } else { "" };
            let _ = write!(
                html,
                "<tr><td><code>{}</code></td><td>{}</td><td>{always}</td><td>{}</td></tr>",
                escape(field),
                type_of(property),
                text(&property["description"]),
            );
        }
        html.push_str("</table>");
    }
    let values: Vec<String> =
        schema["enum"].as_array().into_iter().flatten().map(|value| format!("<code>{}</code>", text(value))).collect();
    if !values.is_empty() {
        let _ = write!(html, "<p>One of {}.</p>", values.join(", "));
    }
    html.push_str("</section>");
}

/// A schema in a few words, with a link where it has a name.
fn type_of(schema: &Value) -> String {
    let named = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
    let named =
        named.or_else(|| schema["oneOf"].as_array().into_iter().flatten().find_map(|option| option["$ref"].as_str()));
    if let Some(name) = named.and_then(|reference| reference.rsplit('/').next()) {
        let name = escape(name);
        return format!("<a href=\"#{name}\"><code>{name}</code></a>");
    }
    if schema["items"].is_object() {
        return format!("list of {}", type_of(&schema["items"]));
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => {
            kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect::<Vec<_>>().join(" or ")
        }
        kind => kind.as_str().unwrap_or_default().to_owned(),
    };
    match schema["format"].as_str() {
        Some(format) => format!("{} ({})", escape(&kind), escape(format)),
        None => escape(&kind),
    }
}

fn entries(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    object.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// Text for people, in which backticks mark what is code.
fn text(value: &Value) -> String {
    let mut html = String::new();
    for (position, part) in value.as_str().unwrap_or_default().split('`').enumerate() {
        let part = escape(part);
        if position % 2 == 0 {
            html.push_str(&part);
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(html, "<code>{part}</code>");
        }
    }
    html
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_becomes_html_that_says_the_same() {
        for (given, expected) in [
            ("plain", "plain"),
            ("send `PUT` to `uri`", "send <code>PUT</code> to <code>uri</code>"),
            ("a < b & \"c\"", "a &lt; b &amp; &quot;c&quot;"),
            ("`<script>`", "<code>&lt;script&gt;</code>"),
        ] {
            assert_eq!(text(&json!(given)), expected, "{given}");
        }
    }
}

//! Partial responses: the `fields` parameter of Google's JSON APIs (its documentation, "Partial response").

use serde_json::{Map, Value};

/// How deep a selector may nest.
const DEEPEST: usize = 16;

/// What a selector such as `name,items(name,size),metadata/key` leaves of `value`; all of it when there is no selector.
/// `None` when the selector is malformed.
pub(super) fn select(value: Value, selector: Option<&str>) -> Option<Value> {
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else { return Some(value) };
    let mut rest = selector;
    let tree = parse(&mut rest, 0)?;
    if rest.is_empty() { Some(keep(&value, &tree)) } else { None }
}

/// A name and what is wanted below it; nothing named below means everything.
struct Wanted<'a> {
    name: &'a str,
    below: Vec<Wanted<'a>>,
}

fn parse<'a>(rest: &mut &'a str, depth: usize) -> Option<Vec<Wanted<'a>>> {
    let mut wanted = Vec::new();
    loop {
        wanted.push(parse_one(rest, depth)?);
        match rest.strip_prefix(',') {
            Some(after) => *rest = after,
            None => return Some(wanted),
        }
    }
}

fn parse_one<'a>(rest: &mut &'a str, depth: usize) -> Option<Wanted<'a>> {
    let end = rest.find([',', '/', '(', ')']).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    let name = name.trim();
    if name.is_empty() || depth > DEEPEST {
        return None;
    }
    *rest = after;
    if let Some(after) = rest.strip_prefix('/') {
        *rest = after;
        return Some(Wanted { name, below: vec![parse_one(rest, depth + 1)?] });
    }
    if let Some(after) = rest.strip_prefix('(') {
        *rest = after;
        let below = parse(rest, depth + 1)?;
        *rest = rest.strip_prefix(')')?;
        return Some(Wanted { name, below });
    }
    Some(Wanted { name, below: Vec::new() })
}

fn keep(value: &Value, wanted: &[Wanted<'_>]) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(|item| keep(item, wanted)).collect()),
        Value::Object(map) => {
            let mut kept = Map::new();
            for (name, value) in map {
                let Some(found) = wanted.iter().find(|wanted| wanted.name == name || wanted.name == "*") else {
                    continue;
                };
                let value = if found.below.is_empty() { value.clone() } else { keep(value, &found.below) };
                kept.insert(name.clone(), value);
            }
            Value::Object(kept)
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_selector_leaves_what_it_names() {
        let object = json!({"name": "a", "size": "1", "metadata": {"k": "v", "l": "w"}});
        let list = json!({"kind": "storage#objects", "items": [object, object]});
        for (name, value, selector, expected) in [
            ("none", &object, None, Some(object.clone())),
            ("empty", &object, Some(""), Some(object.clone())),
            ("names", &object, Some("name,size,absent"), Some(json!({"name": "a", "size": "1"}))),
            ("a path", &object, Some("metadata/k"), Some(json!({"metadata": {"k": "v"}}))),
            ("a group", &list, Some("items(name)"), Some(json!({"items": [{"name": "a"}, {"name": "a"}]}))),
            ("both", &list, Some("kind,items/metadata(l)"), {
                let item = json!({"metadata": {"l": "w"}});
                Some(json!({"kind": "storage#objects", "items": [item, item]}))
            }),
            ("everything", &object, Some("*"), Some(object.clone())),
            ("open group", &list, Some("items(name"), None),
            ("stray end", &list, Some("items)"), None),
            ("no name", &list, Some("items,,kind"), None),
        ] {
            assert_eq!(select(value.clone(), selector), expected, "{name}");
        }
        assert!(select(object, Some(&"a(".repeat(100_000))).is_none(), "nesting is bounded");
    }
}

//! The variables that replace keys.

use std::sync::Arc;

use toml::{Table, Value};

use super::PREFIX;
use super::document::Origins;

/// A longer value is refused: no key takes one.
const MAX_VALUE_BYTES: usize = 64 * 1024;

/// A variable that replaces a key.
pub(super) struct Variable {
    pub(super) name: Arc<str>,
    text: String,
    steps: Vec<String>,
    /// The key's path, once applied.
    pub(super) path: String,
    /// How its value was put in place.
    pub(super) placed: Placed,
}

/// How a variable's value was put in place.
pub(super) enum Placed {
    /// As the text itself.
    Text,
    /// As the value that the text means in TOML.
    Toml,
    /// As the text, after the TOML value was not taken.
    TextAfter {
        /// Where in it.
        path: String,
        /// Why.
        reason: String,
    },
}

/// Takes the variable if it is one of the configuration's.
///
/// # Errors
/// When it has the prefix, but cannot be the name or the value of a key.
pub(super) fn variable(name: &str, text: String) -> Result<Option<Variable>, &'static str> {
    let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(None) };
    if is_service_link(rest, &text) {
        return Ok(None);
    }
    let steps: Vec<_> = rest.split("__").map(str::to_ascii_lowercase).collect();
    let is_key = |step: &String| {
        !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    if !steps.iter().all(is_key) {
        return Err("is not the name of a key; it should be UPLOAD_BROKER_<SECTION>__<KEY>");
    }
    if text.len() > MAX_VALUE_BYTES {
        return Err("its value is too long");
    }
    Ok(Some(Variable { name: name.into(), text, steps, path: String::new(), placed: Placed::Text }))
}

/// Puts all variables in place: what is above before what is inside it, and the entries of arrays in their order.
/// Gives those that have no place, and why.
pub(super) fn apply(variables: &mut [Variable], table: &mut Table, origins: &mut Origins) -> Vec<(Arc<str>, String)> {
    let order = |step: &String| (step.parse().unwrap_or(usize::MAX), step.clone());
    variables.sort_by_cached_key(|variable| variable.steps.iter().map(order).collect::<Vec<_>>());
    let mut misplaced = Vec::new();
    for variable in variables {
        let value = match variable.text.parse::<Value>() {
            // Text needs no quotes, so quotes belong to it.
            Ok(Value::String(_)) | Err(_) => Value::String(variable.text.clone()),
            Ok(value) => {
                variable.placed = Placed::Toml;
                value
            }
        };
        if let Err(reason) = put(variable, value, table, origins) {
            misplaced.push((Arc::clone(&variable.name), reason));
        }
    }
    misplaced
}

impl Variable {
    /// Puts the text itself in place of what it means in TOML, which was not taken: at `path`, for `reason`.
    pub(super) fn fall_back(&mut self, path: String, reason: String, table: &mut Table, origins: &mut Origins) {
        self.placed = Placed::TextAfter { path, reason };
        let text = Value::String(self.text.clone());
        // It had a place before, so it has one now.
        let _ = put(self, text, table, origins);
    }
}

fn put(variable: &mut Variable, value: Value, table: &mut Table, origins: &mut Origins) -> Result<(), String> {
    let mut path = String::new();
    let mut here = {
        let (first, _) = variable.steps.split_first().ok_or("names no key")?;
        path.push_str(first);
        table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()))
    };
    for step in &variable.steps[1..] {
        origins.add(&path, &variable.name);
        let index = step.parse::<usize>().ok();
        let fresh = match here {
            Value::Array(_) => false,
            Value::Table(table) => index.is_some() && table.is_empty(),
            _ => true,
        };
        if fresh {
            *here = if index.is_some() { Value::Array(Vec::new()) } else { Value::Table(Table::new()) };
        }
        here = match here {
            Value::Array(values) => {
                let count = values.len();
                let index = index
                    .filter(|index| *index <= count)
                    .ok_or_else(|| format!("{path} has {count} entries, so {step} is not one, nor the next"))?;
                if index == count {
                    values.push(Value::Table(Table::new()));
                }
                path = format!("{path}[{index}]");
                &mut values[index]
            }
            Value::Table(table) => {
                path.push('.');
                path.push_str(step);
                table.entry(step.clone()).or_insert_with(|| Value::Table(Table::new()))
            }
            _ => return Err(format!("{path} holds nothing by that name")),
        };
    }
    *here = value;
    origins.replace(&path, &variable.name);
    variable.path = path;
    Ok(())
}

/// Whether Kubernetes sets such a variable in every container, for a service called `upload-broker…`: the address and
/// ports of the service (Kubernetes documentation, "Discovering services", and Docker's links, whose form they have).
fn is_service_link(rest: &str, text: &str) -> bool {
    let named = |name: &str| rest == name || rest.strip_suffix(name).is_some_and(|before| before.ends_with('_'));
    let has_scheme = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme));
    let is_port = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port_of_service = rest.starts_with("SERVICE_PORT_") || rest.contains("_SERVICE_PORT_");
    // PORT_443_TCP, and the same with _PROTO, _PORT or _ADDR.
    let detail = rest.split("PORT_").last().is_some_and(|tail| {
        let mut parts = tail.split('_');
        let number = parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        let protocol = matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"));
        number && protocol && matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR")) && parts.next().is_none()
    });
    !rest.contains("__")
        && (named("SERVICE_HOST")
            || (named("SERVICE_PORT") || port_of_service) && is_port
            || named("PORT") && has_scheme
            || rest.contains("PORT_") && detail)
}

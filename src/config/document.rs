//! The file as plain values, and where each key stands in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::error::{ConfigError, Location};

/// From a key's path to where it was written.
#[derive(Clone, Debug)]
pub(super) struct Origins {
    file: PathBuf,
    known: BTreeMap<String, Location>,
}

impl Origins {
    /// Where the key was written, or the nearest level above it that was.
    pub(super) fn locate(&self, path: &str) -> Location {
        let mut path = path;
        loop {
            if let Some(location) = self.known.get(path) {
                return location.clone();
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return Location::File(self.file.clone()),
            }
        }
    }

    /// Notes that a variable has replaced the key and all below it.
    pub(super) fn replace(&mut self, path: &str, variable: &Arc<str>) {
        self.known.retain(|known, _| !is_at_or_below(known, path));
        self.known.insert(path.to_owned(), Location::Variable(Arc::clone(variable)));
    }

    /// Notes that a variable needed the key to exist.
    pub(super) fn add(&mut self, path: &str, variable: &Arc<str>) {
        self.known.entry(path.to_owned()).or_insert_with(|| Location::Variable(Arc::clone(variable)));
    }
}

/// Whether `path` is the key at `above`, or one inside it.
pub(super) fn is_at_or_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Parses the text.
///
/// # Errors
/// What is not TOML in it. The parser goes on after a mistake, so there can be several.
pub(super) fn parse(text: &str, file: &Path) -> Result<(Table, Origins), Vec<ConfigError>> {
    let lines = Lines { text, file };
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let told = |error: &toml::de::Error| {
            let location = error.span().map_or(Location::File(file.to_owned()), |span| lines.location(span.start));
            // Not its `Display`, which repeats the line with what may be a secret.
            ConfigError::new(location, "", error.message())
        };
        return Err(errors.iter().map(told).collect());
    }
    let mut known = BTreeMap::new();
    let mut errors = Vec::new();
    let table = plain_table(document.get_ref(), "", &lines, &mut known, &mut errors);
    if errors.is_empty() { Ok((table, Origins { file: file.to_owned(), known })) } else { Err(errors) }
}

fn plain_table(
    table: &DeTable<'_>,
    path: &str,
    lines: &Lines<'_>,
    known: &mut BTreeMap<String, Location>,
    errors: &mut Vec<ConfigError>,
) -> Table {
    let separator = if path.is_empty() { "" } else { "." };
    let mut plain = Table::new();
    for (key, value) in table {
        let path = format!("{path}{separator}{}", key.get_ref());
        known.insert(path.clone(), lines.location(key.span().start));
        if let Some(value) = plain_value(value, &path, lines, known, errors) {
            plain.insert(key.get_ref().to_string(), value);
        }
    }
    plain
}

fn plain_value(
    value: &Spanned<DeValue<'_>>,
    path: &str,
    lines: &Lines<'_>,
    known: &mut BTreeMap<String, Location>,
    errors: &mut Vec<ConfigError>,
) -> Option<Value> {
    let plain = match value.get_ref() {
        DeValue::String(text) => Some(Value::String(text.to_string())),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::Integer),
        DeValue::Float(number) => number.as_str().parse().ok().map(Value::Float),
        DeValue::Boolean(truth) => Some(Value::Boolean(*truth)),
        DeValue::Datetime(time) => Some(Value::Datetime(*time)),
        DeValue::Array(values) => {
            let mut array = Vec::new();
            for (index, value) in values.iter().enumerate() {
                let path = format!("{path}[{index}]");
                known.insert(path.clone(), lines.location(value.span().start));
                array.extend(plain_value(value, &path, lines, known, errors));
            }
            Some(Value::Array(array))
        }
        DeValue::Table(table) => Some(Value::Table(plain_table(table, path, lines, known, errors))),
    };
    if plain.is_none() {
        errors.push(ConfigError::new(lines.location(value.span().start), path, "this number is too large"));
    }
    plain
}

/// Finds lines and columns in a text.
struct Lines<'a> {
    text: &'a str,
    file: &'a Path,
}

impl Lines<'_> {
    fn location(&self, offset: usize) -> Location {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        Location::Line {
            file: self.file.to_owned(),
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

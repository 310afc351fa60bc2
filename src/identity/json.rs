//! JSON objects in which every member is named once, at every depth.
//!
//! Where a name stands twice, readers differ in which one they take (RFC 8259, section 4), so two of them can be shown
//! two different tokens under one signature. RFC 7515 (section 4) and RFC 7519 (section 4) let a reader refuse such
//! texts, and this one does.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads `text` as one JSON object, or `None` when it is anything else. Nesting is limited to 128 levels.
pub(super) fn object(text: &[u8]) -> Option<Map<String, Value>> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = deserializer.deserialize_any(Unique).ok()?;
    deserializer.end().ok()?;
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// Builds a [`Value`] and fails at the first name that its object already has.
#[derive(Clone, Copy)]
struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a member that is named twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_whose_members_are_unique_are_read() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        for (name, text, accepted) in [
            ("an empty object", "{}", true),
            ("one name in two objects", r#"{"a":{"b":1},"c":{"b":2}}"#, true),
            ("space around it", " {\"a\": 1}\n", true),
            ("a name twice", r#"{"a":1,"a":1}"#, false),
            ("a name twice, once escaped", r#"{"a":1,"\u0061":2}"#, false),
            ("a name twice, below", r#"{"a":{"b":1,"b":2}}"#, false),
            ("a name twice, in an array", r#"{"a":[{"b":1,"b":2}]}"#, false),
            ("an array", "[]", false),
            ("a text after it", "{} {}", false),
            ("a trailing comma", r#"{"a":1,}"#, false),
            ("a byte order mark", "\u{feff}{}", false),
            ("a number beyond a double", r#"{"a":1e999}"#, false),
            ("half a surrogate pair", r#"{"a":"\ud800"}"#, false),
            ("nesting without end", deep.as_str(), false),
            ("nothing", "", false),
        ] {
            assert_eq!(object(text.as_bytes()).is_some(), accepted, "{name}");
        }
        assert!(object(b"{\"a\":\"\xff\"}").is_none(), "bytes that are not UTF-8");
    }

    #[test]
    fn what_is_read_equals_what_the_plain_reader_reads() {
        let text = r#"{"n":null,"t":true,"u":18446744073709551615,"i":-3,"f":1.5,"s":"é\n","a":[1,{"b":[]}]}"#;
        assert_eq!(object(text.as_bytes()).map(Value::Object), serde_json::from_str(text).ok());
    }
}

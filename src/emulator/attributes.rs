//! What a client may say of an object: the writable fields of the object resource (storage documentation, "Objects").

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::problem::Problem;

/// The writable fields. `None` means that the field is not there.
#[derive(Debug, Default, Clone)]
pub(super) struct Attributes {
    pub(super) content_type: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) kms_key_name: Option<String>,
    content_disposition: Option<String>,
    content_language: Option<String>,
    cache_control: Option<String>,
    custom_time: Option<String>,
    storage_class: Option<String>,
    temporary_hold: Option<bool>,
    event_based_hold: Option<bool>,
    retention: Option<Value>,
    contexts: Option<Value>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Limits of custom metadata (storage documentation, "Quotas and limits").
const KEY_BYTES: usize = 1024;
const VALUE_BYTES: usize = 4096;
const METADATA_BYTES: usize = 8192;

impl Attributes {
    /// Takes over what `resource` says; `null` removes a field. Fields that cannot be written are ignored.
    pub(super) fn apply(&mut self, resource: &Map<String, Value>) -> Result<(), Problem> {
        for (field, value) in resource {
            let place = match field.as_str() {
                "contentType" => &mut self.content_type,
                "contentEncoding" => &mut self.content_encoding,
                "contentDisposition" => &mut self.content_disposition,
                "contentLanguage" => &mut self.content_language,
                "cacheControl" => &mut self.cache_control,
                "customTime" => &mut self.custom_time,
                "storageClass" => &mut self.storage_class,
                other => {
                    self.apply_other(other, value)?;
                    continue;
                }
            };
            *place = match value {
                Value::Null => None,
                Value::String(text) if field != "customTime" || text.parse::<jiff::Timestamp>().is_ok() => {
                    // These come back as header values on a download.
                    if text.bytes().any(|byte| byte.is_ascii_control()) {
                        return Err(Problem::invalid(format!("{field} has control characters.")));
                    }
                    Some(text.clone())
                }
                _ => return Err(Problem::invalid(format!("Invalid value for {field}."))),
            };
        }
        Ok(())
    }

    fn apply_other(&mut self, field: &str, value: &Value) -> Result<(), Problem> {
        let invalid = || Problem::invalid(format!("Invalid value for {field}."));
        let flag = || match value {
            Value::Null => Ok(None),
            Value::Bool(flag) => Ok(Some(*flag)),
            _ => Err(invalid()),
        };
        let structure = || match value {
            Value::Null => Ok(None),
            Value::Object(_) => Ok(Some(value.clone())),
            _ => Err(invalid()),
        };
        match field {
            "temporaryHold" => self.temporary_hold = flag()?,
            "eventBasedHold" => self.event_based_hold = flag()?,
            "retention" => self.retention = structure()?,
            "contexts" => self.contexts = structure()?,
            "metadata" => match value {
                Value::Null => self.metadata.clear(),
                Value::Object(entries) => {
                    for (key, value) in entries {
                        match value {
                            Value::Null => drop(self.metadata.remove(key)),
                            Value::String(text) => drop(self.metadata.insert(key.clone(), text.clone())),
                            _ => return Err(Problem::invalid(format!("The metadata value of {key:?} must be text."))),
                        }
                    }
                    self.check_metadata()?;
                }
                _ => return Err(invalid()),
            },
            _ => {}
        }
        Ok(())
    }

    /// Refuses custom metadata beyond the limits.
    pub(super) fn check_metadata(&self) -> Result<(), Problem> {
        let each =
            self.metadata.iter().all(|(key, value)| (1..=KEY_BYTES).contains(&key.len()) && value.len() <= VALUE_BYTES);
        let total: usize = self.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        if each && total <= METADATA_BYTES {
            return Ok(());
        }
        Err(Problem::invalid("Custom metadata is too large."))
    }

    /// What a download says as `Content-Type`.
    pub(super) fn media_type(&self) -> &str {
        self.content_type.as_deref().unwrap_or("application/octet-stream")
    }

    /// How the bytes are encoded.
    pub(super) fn encoding(&self) -> &str {
        self.content_encoding.as_deref().unwrap_or("identity")
    }

    /// The headers that a download has of these, by their lower-case name.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("content-type", Some(self.media_type())),
            ("content-encoding", self.content_encoding.as_deref()),
            ("content-disposition", self.content_disposition.as_deref()),
            ("content-language", self.content_language.as_deref()),
            ("cache-control", self.cache_control.as_deref()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }

    /// Adds them to a resource.
    pub(super) fn describe(&self, resource: &mut Map<String, Value>) {
        let texts = [
            ("contentType", Some(self.media_type())),
            ("contentEncoding", self.content_encoding.as_deref()),
            ("contentDisposition", self.content_disposition.as_deref()),
            ("contentLanguage", self.content_language.as_deref()),
            ("cacheControl", self.cache_control.as_deref()),
            ("customTime", self.custom_time.as_deref()),
            ("kmsKeyName", self.kms_key_name.as_deref()),
            ("storageClass", Some(self.storage_class.as_deref().unwrap_or("STANDARD"))),
        ];
        let flags = [("temporaryHold", self.temporary_hold), ("eventBasedHold", self.event_based_hold)];
        let structures = [("retention", &self.retention), ("contexts", &self.contexts)];
        resource.extend(texts.into_iter().filter_map(|(field, text)| Some((field.to_owned(), json!(text?)))));
        resource.extend(flags.into_iter().filter_map(|(field, flag)| Some((field.to_owned(), json!(flag?)))));
        resource.extend(structures.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value.clone()?))));
        if !self.metadata.is_empty() {
            resource.insert("metadata".to_owned(), json!(self.metadata));
        }
    }
}

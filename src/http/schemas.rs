//! What the OpenAPI document says of fields that no attribute of theirs can say, and the bounds of all numbers.

use utoipa::Number;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, KnownFormat, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{Array, ArrayBuilder, Object, ObjectBuilder, OpenApi, RefOr, Schema};

/// The largest number that every reader of JSON has exactly (RFC 7493, section 2.2).
const LARGEST_EXACT: usize = (1 << 53) - 1;

/// The largest number of `int32`.
const LARGEST_INT32: usize = i32::MAX as usize;

/// No header of an answer is longer.
const LONGEST_HEADER: usize = 255;

/// The most characters of a sentence for people in an answer.
pub(super) const LONGEST_DETAIL: usize = 1024;

/// The text, cut where it is too long for an answer.
pub(super) fn clipped(text: &str) -> String {
    text.chars().take(LONGEST_DETAIL).collect()
}

fn text(longest: usize) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).max_length(Some(longest))
}

fn map(longest_key: usize, longest_value: usize) -> ObjectBuilder {
    ObjectBuilder::new()
        .property_names(Some(text(longest_key)))
        .additional_properties(Some(RefOr::T(Schema::from(text(longest_value)))))
}

/// `CreateUpload::metadata`.
pub(super) fn metadata() -> Object {
    map(1024, 4096)
        .max_properties(Some(8192))
        .description(Some("Custom metadata of the object: at most 8 KiB in all. The policy's own beats it."))
        .examples([serde_json::json!({"album": "summer"})])
        .build()
}

/// `Transfer::headers`.
pub(super) fn transfer_headers() -> Object {
    // Those of metadata, of which 256 bytes less can travel in headers than storage takes, and a dozen of the broker's.
    map(1024, 8192)
        .max_properties(Some(8192))
        .description(Some(
            "The headers of the first request. With a signed URL exactly these: one more that begins with `x-goog-`, one \
             less, or another value is refused by storage.",
        ))
        .examples([serde_json::json!({"content-type": "video/mp4"})])
        .build()
}

/// `Policy::content_types`.
pub(super) fn accepted_types() -> Array {
    ArrayBuilder::new()
        .items(text(255).min_length(Some(3)))
        .min_items(Some(1))
        .description(Some("The media types accepted: `type/subtype`, `type/*` or `*/*`."))
        .examples([serde_json::json!(["video/*"])])
        .build()
}

/// `Policy::regions`.
pub(super) fn regions() -> Array {
    ArrayBuilder::new()
        .items(text(63).min_length(Some(1)).pattern(Some("^[a-z0-9_-]+$")))
        .min_items(Some(1))
        .description(Some("The regions that take these uploads; left out where all do."))
        .examples([serde_json::json!(["europe-west1"])])
        .build()
}

/// Gives every number the largest value that its readers can have, where it has no smaller bound of its own, and every
/// header of an answer its length.
pub(super) fn bound(document: &mut OpenApi) {
    for schema in document.components.iter_mut().flat_map(|components| components.schemas.values_mut()) {
        bound_numbers(schema);
    }
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
            let parameters = operation.parameters.iter_mut().flatten();
            for parameter in parameters {
                if let RefOr::T(Parameter { schema, .. }) = parameter {
                    schema.iter_mut().for_each(bound_numbers);
                }
            }
            for response in operation.responses.responses.values_mut() {
                let RefOr::T(response) = response else { continue };
                for header in response.headers.values_mut() {
                    let RefOr::T(header) = header else { continue };
                    let Some(schema) = &mut header.schema else { continue };
                    bound_numbers(schema);
                    if let RefOr::T(Schema::Object(object)) = schema
                        && is_text(&object.schema_type)
                    {
                        object.max_length.get_or_insert(LONGEST_HEADER);
                    }
                }
            }
        }
    }
}

fn is_text(schema_type: &SchemaType) -> bool {
    match schema_type {
        SchemaType::Type(one) => *one == Type::String,
        SchemaType::Array(several) => several.contains(&Type::String),
        SchemaType::AnyValue => false,
    }
}

fn bound_numbers(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::T(Schema::Object(object)) => {
            if object.schema_type == SchemaType::Type(Type::Integer) {
                let is_short = matches!(object.format, Some(SchemaFormat::KnownFormat(KnownFormat::Int32)));
                let largest = if is_short { LARGEST_INT32 } else { LARGEST_EXACT };
                object.minimum.get_or_insert(Number::UInt(0));
                object.maximum.get_or_insert(Number::UInt(largest));
            }
            object.properties.values_mut().for_each(bound_numbers);
            if let Some(AdditionalProperties::RefOr(values)) = object.additional_properties.as_deref_mut() {
                bound_numbers(values);
            }
        }
        RefOr::T(Schema::Array(array)) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                bound_numbers(items);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_that_is_too_long_is_cut_between_characters() {
        assert_eq!(clipped("short"), "short");
        let long = "é".repeat(LONGEST_DETAIL + 1);
        assert_eq!(clipped(&long).chars().count(), LONGEST_DETAIL);
    }
}

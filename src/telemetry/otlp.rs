//! Spans as a collector reads them: OTLP 1.x in its JSON form, in which ids are hexadecimal and 64-bit numbers are texts
//! (OTLP specification, "JSON Protobuf Encoding").

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::trace::{Finished, Value};

/// `STATUS_CODE_ERROR`.
const FAILED: u8 = 2;

/// What sends spans.
#[derive(Clone, Debug)]
pub(super) struct Resource(Json);

impl Resource {
    /// One instance of the broker in a region.
    pub(super) fn new(region: &str, instance: u128) -> Self {
        let attributes = [
            ("service.name", env!("CARGO_PKG_NAME").to_owned()),
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id", format!("{instance:032x}")),
            ("upload_broker.region", region.to_owned()),
        ];
        let attributes = attributes.map(|(key, text)| attribute(key, &Value::Text(text.into())));
        Self(json!({"attributes": attributes}))
    }
}

/// The body of one request (`ExportTraceServiceRequest`).
pub(super) fn request(resource: &Resource, spans: &[Finished]) -> Json {
    let scope = json!({"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")});
    let spans: Vec<Json> = spans.iter().map(span).collect();
    json!({"resourceSpans": [{"resource": resource.0, "scopeSpans": [{"scope": scope, "spans": spans}]}]})
}

fn span(span: &Finished) -> Json {
    let attributes: Vec<Json> = span.attributes.iter().map(|(key, value)| attribute(key, value)).collect();
    let mut written = json!({
        "traceId": span.trace.to_string(),
        "spanId": span.id.to_string(),
        "name": span.name,
        "kind": span.kind as u8,
        "startTimeUnixNano": nanoseconds(span.begun),
        "endTimeUnixNano": nanoseconds(span.ended),
        "attributes": attributes,
    });
    if let Some(parent) = span.parent {
        written["parentSpanId"] = json!(parent.to_string());
    }
    if let Some(link) = span.link {
        written["links"] = json!([{"traceId": link.trace.to_string(), "spanId": link.span.to_string()}]);
    }
    if span.has_failed {
        written["status"] = json!({"code": FAILED});
    }
    written
}

fn attribute(key: &str, value: &Value) -> Json {
    let value = match value {
        Value::Text(text) => json!({"stringValue": text}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
    };
    json!({"key": key, "value": value})
}

fn nanoseconds(since_epoch: Duration) -> String {
    since_epoch.as_nanos().to_string()
}

/// How many spans an answer says that the collector did not want (`ExportTracePartialSuccess`).
pub(super) fn rejected(answer: &[u8]) -> usize {
    let answer: Json = serde_json::from_slice(answer).unwrap_or_default();
    let rejected = &answer["partialSuccess"]["rejectedSpans"];
    let count = rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok());
    usize::try_from(count.unwrap_or_default()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::context::{SpanId, TraceId, Traceparent};
    use super::super::trace::Kind;
    use super::*;

    #[test]
    fn a_span_is_written_as_the_specification_has_it() {
        let finished = Finished {
            trace: TraceId(0xA1),
            id: SpanId(0xB2),
            parent: Some(SpanId(0xC3)),
            link: Some(Traceparent { trace: TraceId(1), span: SpanId(2), sampled: true }),
            name: "GET /v1/policies".into(),
            kind: Kind::Server,
            begun: Duration::from_millis(1_800_000_000_001),
            ended: Duration::from_millis(1_800_000_000_002),
            attributes: vec![("http.route", "/v1/policies".into()), ("http.response.status_code", 503_u16.into())],
            has_failed: true,
        };
        let written = request(&Resource::new("europe-west1", 7), &[finished]);
        assert_eq!(
            written["resourceSpans"][0]["resource"]["attributes"][2],
            json!({"key": "service.instance.id", "value": {"stringValue": format!("{:032x}", 7)}})
        );
        assert_eq!(
            written["resourceSpans"][0]["scopeSpans"][0]["spans"],
            json!([{
                "traceId": "000000000000000000000000000000a1",
                "spanId": "00000000000000b2",
                "parentSpanId": "00000000000000c3",
                "links": [{"traceId": "00000000000000000000000000000001", "spanId": "0000000000000002"}],
                "name": "GET /v1/policies",
                "kind": 2,
                "startTimeUnixNano": "1800000000001000000",
                "endTimeUnixNano": "1800000000002000000",
                "attributes": [
                    {"key": "http.route", "value": {"stringValue": "/v1/policies"}},
                    {"key": "http.response.status_code", "value": {"intValue": "503"}},
                ],
                "status": {"code": 2},
            }])
        );
    }

    #[test]
    fn what_a_collector_does_not_want_is_counted() {
        for (answer, expected) in [
            ("{}", 0),
            ("", 0),
            (r#"{"partialSuccess":{}}"#, 0),
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#, 3),
            (r#"{"partialSuccess":{"rejectedSpans":3}}"#, 3),
            (r#"{"partialSuccess":{"rejectedSpans":-3}}"#, 0),
        ] {
            assert_eq!(rejected(answer.as_bytes()), expected, "{answer}");
        }
    }
}

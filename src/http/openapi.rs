//! The OpenAPI document, assembled from the same list as the router.

use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Services, policies, uploads};

/// What the document says beside the operations.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "upload-broker",
        description = "Hands out resumable upload sessions of Google Cloud Storage to authenticated end users, and tells \
what became of each upload. Create an upload, `PUT` the bytes to its `transfer.uri` (which belongs to storage and needs no \
token), then complete it. Clients ignore fields and enum values that they do not know.",
    ),
    servers((
        url = "https://{host}", description = "The broker of a region",
        variables(("host" = (default = "uploads.example.com", description = "The broker's host name"))),
    )),
    tags(
        (name = "uploads", description = "Uploads of the caller"),
        (name = "policies", description = "What the caller may upload"),
    ),
    security(("bearer" = [])),
    modifiers(&Bearer),
)]
struct Document;

/// The security scheme of every operation.
struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some("A token of a configured OpenID issuer."))
            .build();
        document
            .components
            .get_or_insert_default()
            .security_schemes
            .insert("bearer".to_owned(), SecurityScheme::Http(scheme).into());
    }
}

/// The operations of version 1, as routes and as a document.
pub(super) fn operations() -> (axum::Router<Services>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(uploads::create, uploads::list))
        .routes(routes!(uploads::get, uploads::cancel))
        .routes(routes!(uploads::complete))
        .routes(routes!(policies::list))
        .split_for_parts()
}

/// The document as it is served, printed and kept in the repository: indented JSON with a line break at the end.
///
/// # Errors
/// When the document cannot be written as JSON, which a test rules out.
pub fn document() -> Result<String, serde_json::Error> {
    let (_, document) = operations();
    document.to_pretty_json().map(|text| text + "\n")
}

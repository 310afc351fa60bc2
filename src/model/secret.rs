//! Values that must not be seen: no `Display`, no `Serialize`, and a `Debug` that says nothing.

use std::fmt;

use zeroize::Zeroizing;

use super::Invalid;

/// A bearer credential of storage: whoever holds it may write the object until the session ends.
///
/// Kept byte for byte as storage gave it, since the URI is opaque. At most [`SessionUri::MAX_BYTES`] long.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionUri(Zeroizing<String>);

impl SessionUri {
    /// Longer ones are refused. Storage repeats the whole query of the initiation in it, a name of 1024 bytes
    /// percent-encoded included, which comes to about 4 KiB.
    pub const MAX_BYTES: usize = 8192;

    /// Takes an absolute `http` or `https` URI.
    ///
    /// # Errors
    /// When it is too long, is not such a URI, or bears user information or a fragment.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        // The message never holds the text: it may be a secret all the same.
        let refuse = |why: &str| Err(Invalid::new(format!("the session URI {why}")));
        if text.len() > Self::MAX_BYTES {
            return refuse("is longer than 8192 bytes");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refuse("has characters that a URI cannot have");
        }
        let Ok(url) = url::Url::parse(text) else { return refuse("is not a URL") };
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return refuse("is not an HTTP URL");
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return refuse("bears user information or a fragment");
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The secret itself. Search for this name to see every use.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionUri(redacted)")
    }
}

/// Any other secret text: an access token, a password in an address, a key in PEM. Wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself. Search for this name to see every use.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_uri_is_kept_as_given_and_never_printed() {
        let text = "https://storage.example/upload/storage/v1/b/media/o?name=a%2Fb&upload_id=AB-_";
        let uri = SessionUri::parse(text).unwrap();
        assert_eq!(uri.expose(), text);
        assert!(!format!("{uri:?}").contains("upload_id"));
    }

    #[test]
    fn what_is_no_session_uri_is_refused_without_repeating_it() {
        let long = format!("https://storage.example/{}", "a".repeat(SessionUri::MAX_BYTES));
        for (name, text) in [
            ("relative", "/upload?upload_id=s3cret"),
            ("another scheme", "ftp://storage.example/?upload_id=s3cret"),
            ("user information", "https://s3cret@storage.example/"),
            ("a fragment", "https://storage.example/#s3cret"),
            ("a line break", "https://storage.example/\ns3cret"),
            ("too long", &long),
        ] {
            let refusal = SessionUri::parse(text).unwrap_err();
            assert!(!refusal.to_string().contains("s3cret"), "{name}");
        }
    }
}

//! Signs messages by the Standard Webhooks specification: <https://www.standardwebhooks.com>.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::model::Invalid;
use crate::model::time::Timestamp;

/// What every secret begins with (specification, "Signature scheme").
const PREFIX: &str = "whsec_";

/// How many bytes a secret may have (specification, "Signature scheme").
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// How many secrets an endpoint may have: the one in use, and the one before or after it.
const MAX_SECRETS: usize = 2;

/// Two secrets are below 200 bytes. A file beyond this is something else.
const SECRETS_FILE_BYTES: usize = 4096;

/// The secrets that an endpoint shares with us: one, or two while it changes from one to the other.
pub(super) struct Secrets(Vec<hmac::Key>);

/// Says how many there are, and no more.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Reads the secrets in a file.
    ///
    /// # Errors
    /// When it cannot be read, or holds anything but one or two secrets. The reason never holds the text.
    pub(super) fn read(path: &Path) -> Result<Self, Invalid> {
        let refuse = |reason: String| Invalid::new(format!("{} {reason}", path.display()));
        // Large enough not to grow: what grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(2 * SECRETS_FILE_BYTES));
        File::open(path)
            .and_then(|file| file.take(SECRETS_FILE_BYTES as u64).read_to_string(&mut text))
            .map_err(|error| refuse(format!("cannot be read: {error}")))?;
        Self::parse(&text).map_err(|Invalid(reason)| refuse(reason))
    }

    /// Reads the secrets in a text, one on each line. Empty lines are none.
    pub(super) fn parse(text: &str) -> Result<Self, Invalid> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys = lines.map(key).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() || keys.len() > MAX_SECRETS {
            return Err(Invalid::new(format!("holds {} secrets, where one or two belong", keys.len())));
        }
        Ok(Self(keys))
    }

    /// The `webhook-signature` of a message: one signature for each secret, with blanks in between.
    pub(super) fn signature(&self, id: &str, sent_at: Timestamp, body: &[u8]) -> String {
        let sign = |key: &hmac::Key| {
            let mut context = hmac::Context::with_key(key);
            context.update(format!("{id}.{}.", sent_at.as_secs()).as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        };
        self.0.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

fn key(line: &str) -> Result<hmac::Key, Invalid> {
    let encoded = line.strip_prefix(PREFIX);
    let encoded = encoded.ok_or_else(|| Invalid::new("has a line that does not begin with \"whsec_\""))?;
    let secret = STANDARD.decode(encoded).map(Zeroizing::new);
    let secret = secret.map_err(|_| Invalid::new("has a secret that is not in standard base64"))?;
    if !SECRET_BYTES.contains(&secret.len()) {
        return Err(Invalid::new(format!("has a secret of {} bytes, where 24 to 64 belong", secret.len())));
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SECOND: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    fn signature(secrets: &str, id: &str, at: i64, body: &str) -> String {
        Secrets::parse(secrets).unwrap().signature(id, Timestamp::from_secs(at), body.as_bytes())
    }

    #[test]
    fn a_message_is_signed_as_the_published_example_is() {
        // The example of the reference libraries of the specification.
        let signed = signature(FIRST, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_message_is_signed_with_every_secret() {
        // Computed with Python's hmac module over `evt_3f30.1763805600.{"type":"upload.completed"}`.
        let both = signature(
            &format!("{SECOND}\r\n\n{LONGEST}\n"),
            "evt_3f30",
            1_763_805_600,
            r#"{"type":"upload.completed"}"#,
        );
        let expected =
            "v1,2Fb1gHjjAC3YCHOuT98XvJnygYm5P4KeTgZ9oMleN2Q= v1,HWZXmc31SRHJqmmlmlMrC5+bfIuWcY0NYY40APGrUhs=";
        assert_eq!(both, expected);
    }

    /// The bytes from 0 to 63.
    const LONGEST: &str =
        "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==";

    #[test]
    fn what_is_no_secret_is_refused_without_repeating_it() {
        let three = [FIRST; 3].join("\n");
        let short = format!("whsec_{}", STANDARD.encode([1; 23]));
        let long = format!("whsec_{}", STANDARD.encode([1; 65]));
        for (name, text) in [
            ("nothing", "\n"),
            ("three secrets", three.as_str()),
            ("no prefix", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            ("no base64", "whsec_MfKQ9r8GKYqr wjUPD8ILPZIo2LaLaSw"),
            ("too short", &short),
            ("too long", &long),
            ("one good and one bad", &format!("{FIRST}\nMfKQ9r8")),
        ] {
            let Err(refusal) = Secrets::parse(text) else { panic!("{name} was taken") };
            assert!(!refusal.to_string().contains("MfKQ9r8"), "{name}: {refusal}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", Secrets::parse(FIRST).unwrap()), "Secrets(1)");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("absent.secret");
        assert!(Secrets::read(&path).unwrap_err().to_string().contains("absent.secret"));
        std::fs::write(&path, format!("{FIRST}\n")).unwrap();
        assert!(Secrets::read(&path).is_ok());
    }
}

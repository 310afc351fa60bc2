//! Who signs URLs that clients use by themselves, and with what.

use reqwest::Url;

use crate::model::secret::SecretText;

/// Who can sign in the name of the broker's credentials.
pub(super) enum SigningIdentity {
    /// A service account whose private key is at hand.
    Key {
        /// The service account.
        email: String,
        /// Its RSA key: PKCS#8 in PEM.
        private_key: SecretText,
    },
    /// A service account whose key Google holds: IAM Credentials signs for it.
    Remote {
        /// The service account.
        account: RemoteAccount,
        /// Where IAM Credentials is: scheme, host and port.
        iam_credentials: Url,
    },
    /// These credentials are not those of a service account that could sign.
    Nobody {
        /// Whose they are, for a message: "a person's login".
        whose: &'static str,
    },
}

/// A service account whose key Google holds.
pub(super) enum RemoteAccount {
    /// The one of this name.
    Named(String),
    /// The one of the machine: its metadata server knows the name, at this address.
    OfMachine(Url),
}

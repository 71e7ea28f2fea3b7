//! Signatures of Standard Webhooks 1.0.0: HMAC-SHA256 over id, time and body, one for each secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// Bytes that a secret may have.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Why a text is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected whsec_ and 24 to 64 bytes in base64")]
pub struct SecretError;

/// The bytes of a secret.
///
/// # Errors
/// [`SecretError`].
pub fn check_secret(secret: &str) -> Result<Vec<u8>, SecretError> {
    let text = secret.strip_prefix(PREFIX).ok_or(SecretError)?;
    let bytes = STANDARD.decode(text).map_err(|_| SecretError)?;
    BYTES
        .contains(&bytes.len())
        .then_some(bytes)
        .ok_or(SecretError)
}

/// A new secret of 32 random bytes.
#[must_use]
pub fn mint_secret() -> String {
    let random = [
        uuid::Uuid::new_v4(),
        uuid::Uuid::new_v4(),
        uuid::Uuid::new_v4(),
    ];
    let bytes = random.iter().flat_map(|part| *part.as_bytes());
    let seed: Vec<u8> = bytes.collect();
    let digest = ring::digest::digest(&ring::digest::SHA256, &seed);
    format!("{PREFIX}{}", STANDARD.encode(digest.as_ref()))
}

/// The header `webhook-signature`: a signature for each of the secrets that are any.
pub(super) fn sign(secrets: &[String], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    let signatures: Vec<String> = secrets
        .iter()
        .filter_map(|secret| check_secret(secret).ok())
        .map(|bytes| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
            let tag = hmac::sign(&key, &signed);
            format!("v1,{}", STANDARD.encode(tag.as_ref()))
        })
        .collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test states what must hold")]

    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn the_published_example_is_signed_as_published() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned();
        let body = br#"{"test": 2432232314}"#;
        let signature = sign(
            &[secret],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            body,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_minted_secret_is_one_and_each_signs() {
        let secrets = [mint_secret(), mint_secret()];
        assert_eq!(check_secret(&secrets[0]).unwrap().len(), 32);
        assert_ne!(secrets[0], secrets[1]);
        let signatures = sign(&secrets, "msg_1", 1, b"{}");
        assert_eq!(signatures.split(' ').count(), 2);
        for bad in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_AAAA",
            "whsec_%",
        ] {
            assert_eq!(check_secret(bad), Err(SecretError), "{bad}");
        }
    }
}

//! Keeps secrets out of logs, errors and help texts.
//!
//! Which settings are secret is decided by name, on the safe side: a path to a key is masked along
//! with the key.

/// What is shown in place of a secret.
pub(crate) const MASK: &str = "***";

const SECRET_WORDS: [&str; 4] = ["password", "secret", "token", "key"];

pub(crate) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// The value as it may be shown under this name.
pub(crate) fn shown<'a>(name: &str, value: &'a str) -> &'a str {
    if is_secret(name) { MASK } else { value }
}

/// A URL without the password of its user part and without secret query parameters.
///
/// A password may hold an unescaped `@` or `/`, so everything up to the last `@` counts as the
/// user part: rather too much is masked than too little.
pub(crate) fn redact_url(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => match user.split_once(':') {
            Some((name, _)) => (format!("{name}:{MASK}@"), rest),
            None => (format!("{user}@"), rest),
        },
        None => (String::new(), rest),
    };
    let rest = match rest.split_once('?') {
        Some((place, query)) => format!("{place}?{}", redact_query(query)),
        None => rest.to_owned(),
    };
    format!("{scheme}{user}{rest}")
}

fn redact_query(query: &str) -> String {
    let redact = |parameter: &str| match parameter.split_once('=') {
        Some((name, value)) => format!("{name}={}", shown(name, value)),
        None => parameter.to_owned(),
    };
    query.split('&').map(redact).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::{is_secret, redact_url};

    #[test]
    fn what_sounds_like_a_secret_is_one() {
        for name in [
            "sasl.password",
            "ssl.key.pem",
            "sasl.oauthbearer.client.secret",
            "My-TOKEN",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["linger.ms", "sasl.username", "ssl.ca.location"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn a_url_is_shown_without_its_passwords() {
        for (url, shown) in [
            (
                "postgres://me:hunter2@db:5432/app",
                "postgres://me:***@db:5432/app",
            ),
            ("postgres://me@db/app", "postgres://me@db/app"),
            (
                "postgres://db/app?user=me&password=hunter2",
                "postgres://db/app?user=me&password=***",
            ),
            ("postgres://me:hun@ter/2@db/app", "postgres://me:***@db/app"),
            (
                "postgres://me:a:b?c#d@db/app?sslmode=require",
                "postgres://me:***@db/app?sslmode=require",
            ),
            (
                "postgres:///app?host=/run/pg",
                "postgres:///app?host=/run/pg",
            ),
            ("me:hunter2@db", "me:***@db"),
        ] {
            assert_eq!(redact_url(url), shown);
        }
    }
}

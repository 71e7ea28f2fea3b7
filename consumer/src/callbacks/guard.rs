//! Where callbacks may go: not into the network that the worker itself stands in, unless that is allowed.
//!
//! A name is resolved here and the connection goes to the addresses that were looked at, so a name cannot lead
//! elsewhere between the look and the connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A target that nothing is sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0} is no URL: {1}")]
    NoUrl(String, String),
    #[error("a callback goes to http or https, not to {0}")]
    Scheme(String),
    #[error("{0} is an address of a private network: --callbacks-allow-private allows it")]
    Private(String),
}

/// The target as a URL, when it may be posted to as far as can be told without resolving its name.
pub(super) fn url(target: &str, allow_private: bool) -> Result<Url, Refused> {
    let url =
        Url::parse(target).map_err(|error| Refused::NoUrl(target.to_owned(), error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Refused::Scheme(url.scheme().to_owned()));
    }
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    match address {
        Ok(address) if !allow_private && !is_public(address) => {
            Err(Refused::Private(host.to_owned()))
        }
        _ => Ok(url),
    }
}

/// Resolves names to public addresses only.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(Refused::Private(host).into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the public internet (IANA's registries of special-purpose addresses).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || a == 10
        || a == 127
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| {
        let [w, x] = high.to_be_bytes();
        let [y, z] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(w, x, y, z))
    };
    match (a, b, c, d, e, f) {
        // An IPv4 address in other clothes: mapped, compatible, by NAT64, by 6to4.
        (0, 0, 0, 0, 0, 0xffff | 0) => v4(g, h),
        (0x64, 0xff9b, 0, 0, 0, 0) => v4(g, h),
        (0x2002, ..) => v4(b, c),
        _ => {
            // Only 2000::/3 is given out, less what is set aside in it.
            (0x2000..0x4000).contains(&a)
                && !(a == 0x2001 && b < 0x0200)
                && !(a == 0x2001 && b == 0x0db8)
                && !(a == 0x3fff && b < 0x1000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_refused_in_any_clothes() {
        for target in [
            "http://127.0.0.1/",
            "http://10.1.2.3:8080/x",
            "http://192.168.0.1",
            "http://172.31.255.255",
            "http://169.254.169.254/latest/meta-data",
            "http://100.64.0.1",
            "http://0.0.0.0",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http://[fe80::1]/",
            "http://[fc00::1]/",
            // Ways of writing that the URL standard reads as 127.0.0.1.
            "http://2130706433/",
            "http://0x7f.1/",
            "http://017700000001/",
        ] {
            assert!(
                matches!(url(target, false), Err(Refused::Private(_))),
                "{target}"
            );
            assert!(url(target, true).is_ok(), "{target}");
        }
        for target in [
            "https://example.com/hook",
            "http://93.184.216.34/",
            "https://[2606:2800::1]/",
        ] {
            assert!(url(target, false).is_ok(), "{target}");
        }
    }

    #[test]
    fn only_http_is_posted_to() {
        for target in ["ftp://example.com", "file:///etc/passwd", "javascript:1"] {
            assert!(
                matches!(url(target, true), Err(Refused::Scheme(_))),
                "{target}"
            );
        }
        assert!(matches!(url("not a url", true), Err(Refused::NoUrl(..))));
    }
}

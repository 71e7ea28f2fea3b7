//! Who may come in.
//!
//! Keys and limits are read from the database at start, again when somebody changed them, and every half minute
//! besides; a request is checked against what is in memory. While the database is away, what was read last
//! holds.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use millrace_store::api_keys::{Access, Scope};

pub(crate) use super::caller::{Caller, Defaults, Followed, Stay};

use super::caller::Tenant;
use super::refusal::{Kind, Refusal};

/// What keys begin with, so that scanners for leaked secrets can tell one.
const PREFIX: &str = "mr_";
/// Characters of a key's id.
const ID_CHARS: usize = 12;

#[derive(Debug)]
struct Key {
    id: Arc<str>,
    hash: blake3::Hash,
    scopes: Arc<[Scope]>,
    tenant: Arc<Tenant>,
}

#[derive(Debug, Default)]
struct Book {
    keys: HashMap<Box<str>, Key>,
    /// Whoever comes without a key, while no key was ever made.
    anybody: Option<Caller>,
    access: Access,
}

/// The gate of a front door. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    book: Arc<RwLock<Arc<Book>>>,
    defaults: Defaults,
    keyless_tenant: Arc<str>,
}

impl Gate {
    /// `keyless_tenant` is whom everything belongs to while there are no keys.
    pub(crate) fn new(defaults: Defaults, keyless_tenant: &str, access: Access) -> Self {
        let gate = Self {
            book: Arc::default(),
            defaults,
            keyless_tenant: keyless_tenant.into(),
        };
        gate.renew(access);
        gate
    }

    /// Whether a key is needed to come in: as soon as the first was made, and for good.
    pub(crate) fn needs_keys(&self) -> bool {
        self.book().anybody.is_none()
    }

    /// Takes in what the tables say now. What is used of limits that did not change stays counted.
    pub(crate) fn renew(&self, access: Access) {
        let old = self.book();
        if old.access == access && (old.anybody.is_some() || !old.keys.is_empty()) {
            return;
        }
        let mut tenants: HashMap<Box<str>, Arc<Tenant>> = HashMap::new();
        let known = old.keys.values().map(|key| &key.tenant);
        let known = known.chain(old.anybody.as_ref().map(|caller| &caller.tenant));
        for tenant in known {
            let before = old.access.limits.iter().find(|l| *l.tenant == *tenant.name);
            let now = access.limits.iter().find(|l| *l.tenant == *tenant.name);
            if before == now {
                tenants.insert(tenant.name.clone(), tenant.clone());
            }
        }
        let mut tenant = |name: &str| {
            let made = || Arc::new(Tenant::new(name, &access.limits, self.defaults));
            tenants.entry(name.into()).or_insert_with(made).clone()
        };
        let mut book = Book::default();
        for key in access.keys.iter().filter(|key| key.revoked_at.is_none()) {
            let key_of = Key {
                id: key.id.as_str().into(),
                hash: blake3::Hash::from_bytes(key.hash),
                scopes: key.scopes.clone().into(),
                tenant: tenant(&key.tenant),
            };
            book.keys.insert(key.id.as_str().into(), key_of);
        }
        book.anybody = access.keys.is_empty().then(|| Caller {
            tenant: tenant(&self.keyless_tenant),
            scopes: Scope::ALL.into(),
            key: None,
        });
        book.access = access;
        *self.book.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(book);
    }

    fn book(&self) -> Arc<Book> {
        self.book
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whoever presents this key, or nobody in particular while no keys were made.
    pub(crate) fn admit(&self, presented: Option<&str>) -> Result<Caller, Refusal> {
        let book = self.book();
        if let Some(anybody) = &book.anybody {
            return Ok(anybody.clone());
        }
        let presented = presented.ok_or_else(|| {
            Refusal::new(Kind::Unauthorized, "the request carries no API key").at("Authorization")
        })?;
        let known = id_of(presented).and_then(|id| book.keys.get(id));
        match known {
            // Hashes are compared in constant time.
            Some(key) if key.hash == blake3::hash(presented.as_bytes()) => Ok(Caller {
                tenant: key.tenant.clone(),
                scopes: key.scopes.clone(),
                key: Some(key.id.clone()),
            }),
            _ => {
                Err(Refusal::new(Kind::Unauthorized, "the API key is not valid")
                    .at("Authorization"))
            }
        }
    }
}

impl Gate {
    /// Whether a caller who came in may still do this: keys are revoked while streams are open.
    ///
    /// # Errors
    /// The key is not valid any more, or keys are needed by now.
    pub(crate) fn still(&self, caller: &Caller, scope: Scope) -> Result<(), Refusal> {
        let book = self.book();
        let scopes = match &caller.key {
            None => book.anybody.as_ref().map(|anybody| &anybody.scopes),
            Some(id) => book.keys.get(&**id).map(|key| &key.scopes),
        };
        if scopes.is_some_and(|scopes| scopes.contains(&scope)) {
            return Ok(());
        }
        Err(Refusal::new(
            Kind::Unauthorized,
            "the API key is not valid any more",
        ))
    }
}

/// The half of a key that may be shown.
fn id_of(key: &str) -> Option<&str> {
    let rest = key.strip_prefix(PREFIX)?;
    let (id, secret) = rest.split_once('_')?;
    (id.len() == ID_CHARS && !secret.is_empty()).then_some(id)
}

/// A new key: its id, and the whole of it, to be shown once.
pub(crate) fn mint_key() -> (String, String) {
    // Three ids from the operating system's generator hold 366 random bits, more than the hash keeps.
    let seed = [
        uuid::Uuid::new_v4(),
        uuid::Uuid::new_v4(),
        uuid::Uuid::new_v4(),
    ];
    let mut hasher = blake3::Hasher::new();
    for part in seed {
        hasher.update(part.as_bytes());
    }
    let secret = hasher.finalize().to_hex();
    let id = blake3::hash(secret.as_bytes()).to_hex();
    let id = id.as_str().get(..ID_CHARS).unwrap_or_default().to_owned();
    let key = format!("{PREFIX}{id}_{secret}");
    (id, key)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test states what must hold")]

    use std::time::Duration;

    use millrace_store::api_keys::{ApiKey, TenantLimits};

    use super::*;

    fn key(id: &str, whole: &str, tenant: &str, scopes: &[Scope]) -> ApiKey {
        ApiKey {
            id: id.to_owned(),
            hash: *blake3::hash(whole.as_bytes()).as_bytes(),
            tenant: tenant.to_owned(),
            scopes: scopes.to_vec(),
            note: None,
            created_at: String::new(),
            revoked_at: None,
        }
    }

    fn gate(access: Access) -> Gate {
        Gate::new(Defaults::default(), "default", access)
    }

    #[test]
    fn without_keys_anybody_is_the_one_tenant_and_with_the_first_key_nobody_is() {
        let gate = gate(Access::default());
        assert_eq!(gate.admit(None).unwrap().tenant(), "default");
        let (id, whole) = mint_key();
        let keys = vec![key(&id, &whole, "acme", &[Scope::Read])];
        gate.renew(Access {
            keys,
            ..Access::default()
        });
        assert!(gate.needs_keys());
        assert_eq!(gate.admit(None).unwrap_err().kind, Kind::Unauthorized);
        let caller = gate.admit(Some(&whole)).unwrap();
        assert_eq!(caller.tenant(), "acme");
        assert!(caller.needs(Scope::Read).is_ok());
        assert_eq!(
            caller.needs(Scope::Submit).unwrap_err().kind,
            Kind::Forbidden
        );
    }

    #[test]
    fn a_wrong_secret_a_revoked_key_and_no_key_at_all_are_refused_alike() {
        let (id, whole) = mint_key();
        let mut revoked = key(&id, &whole, "acme", &[Scope::Read]);
        revoked.revoked_at = Some("2026-01-01T00:00:00Z".to_owned());
        let (other, other_whole) = mint_key();
        let keys = vec![revoked, key(&other, &other_whole, "acme", &[Scope::Read])];
        let gate = gate(Access {
            keys,
            ..Access::default()
        });
        let wrong = format!("{PREFIX}{other}_{}", "0".repeat(64));
        for presented in [&whole, &wrong, "", "mr_", "mr__", "Bearer"] {
            let refusal = gate.admit(Some(presented)).unwrap_err();
            assert_eq!(refusal.kind, Kind::Unauthorized, "{presented}");
        }
        assert!(gate.admit(Some(&other_whole)).is_ok());
    }

    #[test]
    fn a_burst_is_spent_once_and_says_when_to_come_again() {
        let access = Access::default();
        let defaults = Defaults {
            tasks_per_second: Some(1.0),
            burst: Some(10),
            in_flight: Some(1),
        };
        let gate = Gate::new(defaults, "default", access);
        let caller = gate.admit(None).unwrap();
        caller.spend(10).unwrap();
        let refusal = caller.spend(1).unwrap_err();
        assert_eq!(refusal.kind, Kind::RateLimited);
        let wait = refusal.retry_after.unwrap();
        assert!(wait > Duration::from_millis(500) && wait <= Duration::from_secs(1));
        let too_many = caller.spend(11).unwrap_err();
        assert_eq!(
            (too_many.kind, too_many.retry_after),
            (Kind::RateLimited, None)
        );
        let stay = caller.stay().unwrap();
        assert_eq!(caller.stay().unwrap_err().kind, Kind::RateLimited);
        drop(stay);
        assert!(caller.stay().is_ok());
    }

    #[test]
    fn of_too_many_tasks_the_first_are_taken() {
        let defaults = Defaults {
            tasks_per_second: Some(1.0),
            burst: Some(37),
            in_flight: None,
        };
        let caller = Gate::new(defaults, "default", Access::default())
            .admit(None)
            .unwrap();
        assert!(matches!(caller.spend_some(0), (0, None)));
        assert!(matches!(caller.spend_some(6), (6, None)));
        let (some, why) = caller.spend_some(500);
        assert_eq!(
            (some, why.map(|why| why.kind)),
            (31, Some(Kind::RateLimited))
        );
        assert!(matches!(caller.spend_some(1), (0, Some(why)) if why.retry_after.is_some()));
    }

    #[test]
    fn limits_that_did_not_change_stay_counted() {
        let defaults = Defaults {
            in_flight: Some(1),
            ..Defaults::default()
        };
        let gate = Gate::new(defaults, "default", Access::default());
        let _stay = gate.admit(None).unwrap().stay().unwrap();
        let limits = vec![TenantLimits {
            tenant: "other".to_owned(),
            tasks_per_second: None,
            burst: None,
            in_flight: Some(5),
        }];
        gate.renew(Access {
            limits,
            ..Access::default()
        });
        assert!(gate.admit(None).unwrap().stay().is_err());
    }
}

//! How many callbacks are on their way at once, for whom and whereto.
//!
//! A tenant may hold seven times as many places as are free, so one never takes all, however many hosts it names,
//! and the next always finds some. A host of a tenant may hold as many as the tenant may still take: a single one gets half
//! of the tenant's, two get a third each, and one that does not answer never keeps the others from being told. A
//! host that two tenants name counts for each by itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use millrace_store::callbacks::Full;

/// So many times what is free may be one tenant's.
const SHARE: usize = 7;

#[derive(Debug)]
struct Held {
    free: usize,
    by_tenant: HashMap<Box<str>, Share>,
}

/// What a tenant holds.
#[derive(Debug, Default)]
struct Share {
    places: usize,
    by_host: HashMap<Box<str>, usize>,
}

impl Share {
    /// How many more the tenant may take, with so many free: each makes its share larger and what is free smaller.
    const fn room(&self, free: usize) -> usize {
        (SHARE * free).saturating_sub(self.places) / (SHARE + 1)
    }
}

/// The places of one worker. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Mutex<Held>>);

/// A place on the way to a host; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    tenant: Box<str>,
    host: Box<str>,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Held {
            free: most,
            by_tenant: HashMap::new(),
        })))
    }

    /// Places that nobody holds.
    pub(super) fn free(&self) -> usize {
        self.with(|held| held.free)
    }

    /// A place for this tenant on the way to this host, if it may have another one.
    pub(super) fn enter(&self, tenant: &str, host: &str) -> Option<Place> {
        let entered = self.with(|held| {
            let share = held.by_tenant.entry(tenant.into()).or_default();
            let its = share.by_host.get(host).copied().unwrap_or(0);
            let may = its < share.room(held.free);
            if may {
                share.by_host.insert(host.into(), its + 1);
                share.places += 1;
                held.free -= 1;
            } else if share.places == 0 {
                held.by_tenant.remove(tenant);
            }
            may
        });
        entered.then(|| Place {
            places: self.clone(),
            tenant: tenant.into(),
            host: host.into(),
        })
    }

    /// Whose callbacks there is no place for at present: of all of a tenant's, or of those to some hosts.
    pub(super) fn full(&self) -> Full {
        self.with(|held| {
            let mut full = Full::default();
            for (tenant, share) in &held.by_tenant {
                let room = share.room(held.free);
                if room == 0 {
                    full.tenants.push(tenant.to_string());
                    continue;
                }
                let hosts = share.by_host.iter().filter(|(_, its)| **its >= room);
                full.hosts
                    .extend(hosts.map(|(host, _)| (tenant.to_string(), host.to_string())));
            }
            full
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Held) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.with(|held| {
            held.free += 1;
            let Some(share) = held.by_tenant.get_mut(&self.tenant) else {
                return;
            };
            share.places -= 1;
            if share.places == 0 {
                held.by_tenant.remove(&self.tenant);
            } else if let Some(its) = share.by_host.get_mut(&self.host) {
                *its -= 1;
                if *its == 0 {
                    share.by_host.remove(&self.host);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test states what must hold")]

    use super::*;

    fn fill(places: &Places, tenant: &str, host: &str) -> Vec<Place> {
        std::iter::from_fn(|| places.enter(tenant, host)).collect()
    }

    fn hosts(full: Full) -> Vec<(String, String)> {
        let mut hosts = full.hosts;
        hosts.sort();
        hosts
    }

    #[test]
    fn one_host_gets_half_of_its_tenants_and_the_next_half_of_the_rest() {
        let places = Places::new(256);
        let first = fill(&places, "acme", "a");
        let second = fill(&places, "acme", "b");
        assert_eq!((first.len(), second.len()), (112, 56));
        assert!(
            places.enter("acme", "c").is_some(),
            "there is room for a third"
        );
        let both = ["a", "b"].map(|host| ("acme".to_owned(), host.to_owned()));
        assert_eq!(hosts(places.full()), both);
    }

    #[test]
    fn a_tenant_with_any_number_of_hosts_leaves_places_to_others() {
        let places = Places::new(256);
        let greedy: Vec<Place> = (0..300)
            .filter_map(|host| places.enter("greedy", &host.to_string()))
            .collect();
        assert_eq!((greedy.len(), places.free()), (224, 32));
        assert_eq!(places.full().tenants, ["greedy"]);
        assert_eq!(fill(&places, "acme", "a").len(), 14);
    }

    #[test]
    fn a_host_that_is_full_for_one_tenant_is_not_for_another() {
        let places = Places::new(256);
        let _held = fill(&places, "greedy", "a");
        assert!(places.enter("greedy", "a").is_none());
        assert!(places.enter("acme", "a").is_some());
    }

    #[test]
    fn a_place_that_is_given_back_is_free_again() {
        let places = Places::new(2);
        let place = places.enter("acme", "a").unwrap();
        assert!(places.enter("acme", "a").is_none());
        assert_eq!(places.full().tenants, ["acme"]);
        drop(place);
        assert_eq!((places.free(), places.full()), (2, Full::default()));
        assert!(places.enter("acme", "a").is_some());
    }
}

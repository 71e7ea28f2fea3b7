//! Whoever is behind a request: what their key is for, and how much their tenant asks for at a time.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use millrace_store::api_keys::{Scope, TenantLimits};

use super::refusal::{Kind, Refusal};

/// What a tenant may ask of this front door unless the table says otherwise; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Defaults {
    /// Tasks a second, in the long run.
    pub tasks_per_second: Option<f64>,
    /// Tasks at once after a quiet time; one second's worth when not given.
    pub burst: Option<u32>,
    /// Requests open at a time.
    pub in_flight: Option<usize>,
}

/// A tenant's limits, and how much of them is used.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) name: Box<str>,
    rate: Option<DefaultDirectRateLimiter>,
    in_flight: AtomicUsize,
    most: usize,
    /// Tasks that are followed.
    followed: AtomicUsize,
}

impl Tenant {
    /// A tenant of whom nothing is counted yet, with its own limits or else these.
    pub(super) fn new(name: &str, limits: &[TenantLimits], defaults: Defaults) -> Self {
        let own = limits.iter().find(|limits| limits.tenant == name);
        let rate = own
            .and_then(|own| own.tasks_per_second.map(f64::from))
            .or(defaults.tasks_per_second);
        let burst = own
            .and_then(|own| u32::try_from(own.burst?).ok())
            .or(defaults.burst);
        let most = own
            .and_then(|own| usize::try_from(own.in_flight?).ok())
            .or(defaults.in_flight);
        Self {
            name: name.into(),
            rate: rate
                .and_then(|rate| quota(rate, burst))
                .map(RateLimiter::direct),
            in_flight: AtomicUsize::new(0),
            followed: AtomicUsize::new(0),
            most: most.unwrap_or(usize::MAX),
        }
    }
}

/// Whoever is behind a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(super) tenant: Arc<Tenant>,
    pub(super) scopes: Arc<[Scope]>,
    /// The half of the key that may be shown; none while there are no keys.
    pub(super) key: Option<Arc<str>>,
}

/// A task that counts among those that its tenant follows, until it is dropped.
#[derive(Debug)]
pub(crate) struct Followed(Arc<Tenant>);

impl Drop for Followed {
    fn drop(&mut self) {
        self.0.followed.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that counts among its tenant's until it is dropped.
#[derive(Debug)]
pub(crate) struct Stay(Arc<Tenant>);

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Caller {
    /// On whose behalf.
    pub(crate) fn tenant(&self) -> &str {
        &self.tenant.name
    }

    /// Whether the key is for this.
    pub(crate) fn needs(&self, scope: Scope) -> Result<(), Refusal> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        Err(Refusal::new(
            Kind::Forbidden,
            format!("this needs a key with the scope `{}`", scope.as_str()),
        ))
    }

    /// Counts this request among those that are open.
    pub(crate) fn stay(&self) -> Result<Stay, Refusal> {
        let before = self.tenant.in_flight.fetch_add(1, Ordering::Relaxed);
        let stay = Stay(self.tenant.clone());
        if before >= self.tenant.most {
            return Err(Refusal::new(
                Kind::RateLimited,
                format!("more than {} requests are open", self.tenant.most),
            )
            .after(Duration::from_secs(1)));
        }
        Ok(stay)
    }

    /// Counts one more task that is followed, of at most `most`.
    ///
    /// # Errors
    /// The tenant follows as many already.
    pub(crate) fn follow(&self, most: usize) -> Result<Followed, Refusal> {
        let before = self.tenant.followed.fetch_add(1, Ordering::Relaxed);
        let followed = Followed(self.tenant.clone());
        if before >= most {
            return Err(Refusal::new(
                Kind::RateLimited,
                format!("more than {most} tasks are followed: close some streams, or ask for the status instead"),
            )
            .after(Duration::from_secs(5)));
        }
        Ok(followed)
    }

    /// Counts so many tasks that are to be submitted.
    pub(crate) fn spend(&self, tasks: usize) -> Result<(), Refusal> {
        let (Some(rate), Some(tasks)) = (
            &self.tenant.rate,
            u32::try_from(tasks).ok().and_then(NonZeroU32::new),
        ) else {
            return Ok(());
        };
        match rate.check_n(tasks) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => {
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                Err(Refusal::new(
                    Kind::RateLimited,
                    "more tasks are submitted than the tenant's rate allows",
                )
                .after(wait))
            }
            Err(most) => Err(Refusal::new(
                Kind::RateLimited,
                format!(
                    "{tasks} tasks in one request are more than the {} that the tenant's burst allows: send fewer at a time",
                    most.0
                ),
            )),
        }
    }
}

impl Caller {
    /// Counts as many of so many tasks as the rate allows now, the first ones; why not the others.
    pub(crate) fn spend_some(&self, tasks: usize) -> (usize, Option<Refusal>) {
        let (mut spent, mut step, mut why) = (0, tasks, None);
        while step > 0 && spent < tasks {
            match self.spend(step.min(tasks - spent)) {
                Ok(()) => spent += step.min(tasks - spent),
                Err(refusal) => {
                    why = Some(refusal);
                    step /= 2;
                }
            }
        }
        (spent, why.filter(|_| spent < tasks))
    }
}

fn quota(rate: f64, burst: Option<u32>) -> Option<Quota> {
    let period = Duration::try_from_secs_f64(1.0 / rate).ok()?;
    let second = rate.ceil().clamp(1.0, f64::from(u32::MAX)) as u32;
    let burst = NonZeroU32::new(burst.unwrap_or(second))?;
    Some(Quota::with_period(period.max(Duration::from_nanos(1)))?.allow_burst(burst))
}

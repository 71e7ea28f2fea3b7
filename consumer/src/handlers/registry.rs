//! Which handler works on which task type, settled before the first task is taken.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use millrace_schemas::{Field, limits};

use super::kind::Kind;
use super::task::TypeIndex;
use crate::engine::{KeyHasher, Policy};

/// What becomes of tasks whose type has no handler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unknown {
    /// They become dead letters for `unknown_type`, to be redriven by a worker that knows the type.
    #[default]
    DeadLetter,
    /// Their payload is their result, as in the stock worker.
    Record,
}

/// Who works on a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A registered handler, by an executor.
    Handler(TypeIndex),
    /// [`record`](super::record::record): no executor is needed.
    Record,
    /// Nobody: a dead letter.
    Nobody,
}

/// What is wrong with the registrations.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// A type without a name.
    #[error("a handler was registered under an empty task type")]
    Empty,
    /// No event can have such a type.
    #[error("task type {name:?}: {problem}")]
    Name {
        /// The type, as given.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// One type, two handlers.
    #[error("task type {name:?} was registered twice; each type has one handler")]
    Twice {
        /// The type.
        name: String,
    },
    /// A policy that cannot be.
    #[error("task type {name:?}: policy: {problem}")]
    Policy {
        /// The type.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A policy before any handler.
    #[error("`with` gives a policy to the handler registered just before it, and there is none")]
    PolicyForNobody,
    /// Batches of nothing.
    #[error("task type {name:?}: a batch holds at least 1 task, not 0")]
    EmptyBatch {
        /// The type.
        name: String,
    },
    /// More than an index can tell.
    #[error("{found} task types were registered, at most {most} can be", most = MOST_TYPES)]
    TooMany {
        /// How many.
        found: usize,
    },
}

/// Most types of one worker: each has its own series of metrics.
const MOST_TYPES: usize = 10_000;

/// One type.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    /// What the program says; the policy file has the last word.
    pub(super) policy: Option<Policy>,
}

/// All types of a worker.
#[derive(Debug)]
pub struct Registry {
    types: Vec<Registered>,
    by_name: HashMap<Arc<str>, TypeIndex, BuildHasherDefault<KeyHasher>>,
    unknown: Unknown,
}

impl Registry {
    /// # Errors
    /// The first registration that cannot be.
    pub(super) fn new(types: Vec<Registered>, unknown: Unknown) -> Result<Self, RegistryError> {
        if types.len() > MOST_TYPES {
            return Err(RegistryError::TooMany { found: types.len() });
        }
        // The names in it are the program's own: nobody else can make them meet.
        let mut by_name = HashMap::with_capacity_and_hasher(types.len(), Default::default());
        for (registered, index) in types.iter().zip(0_u16..) {
            let name = registered.name.to_string();
            if name.is_empty() {
                return Err(RegistryError::Empty);
            }
            if let Err(problem) = limits::text(Field::TaskType, &name) {
                let problem = problem.to_string();
                return Err(RegistryError::Name { name, problem });
            }
            if let Some(policy) = &registered.policy
                && let Err(problem) = policy.validate()
            {
                let problem = problem.to_string();
                return Err(RegistryError::Policy { name, problem });
            }
            let before = by_name.insert(Arc::clone(&registered.name), TypeIndex(index));
            if before.is_some() {
                return Err(RegistryError::Twice { name });
            }
        }
        Ok(Self {
            types,
            by_name,
            unknown,
        })
    }

    /// Who works on tasks of this type.
    #[must_use]
    pub fn find(&self, task_type: &str) -> Found {
        match (self.by_name.get(task_type), self.unknown) {
            (Some(index), _) => Found::Handler(*index),
            (None, Unknown::Record) => Found::Record,
            (None, Unknown::DeadLetter) => Found::Nobody,
        }
    }

    /// The registered types; a [`TypeIndex`] is a place in this order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.types.iter().map(|registered| &*registered.name)
    }

    /// The name of a type; empty for an index that was not given by this registry.
    #[must_use]
    pub fn name(&self, index: TypeIndex) -> &str {
        self.get(index).map_or("", |registered| &registered.name)
    }

    pub(super) fn get(&self, index: TypeIndex) -> Option<&Registered> {
        self.types.get(usize::from(index.0))
    }

    pub(super) fn types(&self) -> &[Registered] {
        &self.types
    }
}

//! The books of a scene: what `consumer audit` says of all partitions together.

use serde_json::Value;

use super::scene::{Ended, Scene};

/// Sums over all partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Books {
    pub results: i64,
    pub duplicates: i64,
    pub dead_letters: i64,
    pub gaps: i64,
    pub lost: i64,
    pub lag: i64,
}

impl Scene {
    pub fn audit(&self, flags: &[&str]) -> Ended {
        let mut arguments = vec!["audit", "--format", "json"];
        arguments.extend(flags);
        self.run(&arguments)
    }

    /// The sums, after checking that every partition balances, also against the log itself.
    pub fn balanced_books(&self) -> Books {
        let ended = self.audit(&["--deep"]);
        assert_eq!(ended.code, 0, "{}\n{}", ended.output, ended.words);
        books(&ended)
    }

    /// `position show` of one partition: why it stands still, if it does.
    pub fn stopped(&self, partition: usize) -> Option<String> {
        let ended = self.run(&["position", "show", "--format", "json"]);
        let why = ended.json()[partition]["stopped"].clone();
        match why {
            Value::String(why) => Some(why),
            _ => None,
        }
    }

    /// Moves positions as an operator would.
    pub fn set_position(&self, partition: &str, to: &str) -> Vec<Value> {
        let ended = self.run(&[
            "position",
            "set",
            "--partition",
            partition,
            "--to",
            to,
            "--reason",
            "a test",
            "--format",
            "json",
        ]);
        assert_eq!(ended.code, 0, "{}", ended.words);
        ended.json().as_array().unwrap().clone()
    }
}

pub fn books(audit: &Ended) -> Books {
    let lines = audit.json();
    let sum = |name: &str| -> i64 {
        let lines = lines.as_array().unwrap().iter();
        lines.map(|line| line[name].as_i64().unwrap()).sum()
    };
    Books {
        results: sum("results"),
        duplicates: sum("duplicates"),
        dead_letters: sum("dead_letters"),
        gaps: sum("gaps"),
        lost: sum("lost"),
        lag: sum("lag"),
    }
}

//! Which consumer group.

use clap::Args;

/// The flag that names the consumer group.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Kafka")]
pub struct GroupArgs {
    /// Consumer group that shares the topic's partitions
    ///
    /// One group to a Postgres schema: another group needs another --schema.
    #[arg(long, env = "MILLRACE_GROUP", value_name = "NAME", default_value = "workers",
          value_parser = group_name)]
    pub group: String,
}

fn group_name(name: &str) -> Result<String, String> {
    if name.trim().is_empty() || name.len() > 249 || name.chars().any(char::is_control) {
        Err("expected 1 to 249 bytes of text without control characters".to_owned())
    } else {
        Ok(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::group_name;

    #[test]
    fn a_group_has_a_name_that_can_be_shown() {
        assert!(group_name("workers").is_ok());
        for name in ["", "  ", "a\nb", &"x".repeat(250)] {
            assert!(group_name(name).is_err(), "{name:?}");
        }
    }
}

//! The flags of `producer emit`, and the plan that they make.

use std::path::PathBuf;

use clap::Args;
use millrace_schemas::{Field, limits};
use millrace_settings::{FramingArgs, KafkaArgs, OutputArgs, TelemetryArgs};
use thiserror::Error;

use super::format::FormatChoice;
use super::plan::Plan;
use super::pointer::{Fields, Pointer};
use super::source::Input;

/// Send files of events into Kafka
///
/// Reads NDJSON (one JSON object a line) or CSV with a header, plain or packed with gzip or zstd.
/// Each line becomes one task event whose payload is the line as it stands; a CSV row becomes a
/// JSON object of strings. Blank lines are passed over and do not count. Ends when all in-sync
/// replicas have every event, and says how many; exit code 1 when anything was rejected.
#[derive(Args, Clone, Debug)]
pub struct EmitArgs {
    /// Files to send, one after another; - is standard input
    ///
    /// Without any, standard input is read unless it is a terminal.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Task type of the events: which handler runs them
    #[arg(long = "type", value_name = "NAME")]
    pub task_type: String,

    /// Tenant of the events: on whose behalf they run
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub tenant: String,

    /// Field with the ordering key, as a JSON pointer such as /user
    ///
    /// Events with the same key start one after another. A string is taken as it is, an integer,
    /// true and false by their JSON text; a line where the field is missing or anything else is
    /// rejected. Without the flag events have no key.
    #[arg(long, value_name = "POINTER")]
    pub key_field: Option<Pointer>,

    /// Field with the dedup key, as a JSON pointer such as /id
    ///
    /// Of events with the same dedup key (and tenant and ordering key) only the first one counts.
    /// Values as for --key-field.
    #[arg(long, value_name = "POINTER", conflicts_with = "once")]
    pub dedup_field: Option<Pointer>,

    /// Send each line of a file once, however often the command is run
    ///
    /// The dedup key of a line is the BLAKE3 digest of the unpacked file, a colon and the line's
    /// number, so a run that died half-way can simply be run again. Each file is read twice; not
    /// for standard input or pipes.
    #[arg(long)]
    pub once: bool,

    /// Send at most so many events per second
    #[arg(long, value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,

    /// Begin at this line, counted from 1 with blank lines and a CSV header, of one file
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub from_line: u64,

    /// Write rejected lines to this file and keep going
    ///
    /// NDJSON {file, line, column, reason, raw}; a file of that name is overwritten. Without the
    /// flag the first rejected line ends the sending, after everything before it is acknowledged.
    #[arg(long, value_name = "FILE")]
    pub rejects: Option<PathBuf>,

    /// Reject events that are larger than this when encoded
    #[arg(long, value_name = "BYTES", default_value_t = 1_000_000, value_parser = max_event_bytes)]
    pub max_event_bytes: usize,

    /// What the input is
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub input: FormatChoice,

    /// Kafka's address, topic and properties.
    #[command(flatten)]
    pub kafka: KafkaArgs,

    /// How events are framed.
    #[command(flatten)]
    pub framing: FramingArgs,

    /// Logs and metrics.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,

    /// How the summary is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A use of the flags that makes no sense.
#[derive(Debug, Error)]
pub enum UsageError {
    /// Nothing to read.
    #[error("name a file, or - for standard input (which is a terminal)")]
    NoInput,
    /// A line number without one file that it belongs to.
    #[error("--from-line names a line of one file, and {0} are given")]
    FromLineOfMany(usize),
    /// No digest can be had before the input is read.
    #[error("--once needs a file that can be read twice, which {0} is not")]
    OnceOnStream(Input),
    /// An input that cannot be opened.
    #[error("{input}: {error}")]
    Unreadable {
        /// The input.
        input: Input,
        /// What the operating system says.
        error: std::io::Error,
    },
    /// The rejects would overwrite what is to be read.
    #[error("--rejects {0} is one of the files to be sent")]
    RejectsIsInput(PathBuf),
    /// A name that every consumer would refuse.
    #[error("{flag} {reason}")]
    Name {
        /// The flag.
        flag: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl EmitArgs {
    /// Checks that the flags go together and that the inputs are there. `terminal` says whether
    /// standard input is one.
    pub fn plan(&self, terminal: bool) -> Result<Plan, UsageError> {
        let mut inputs: Vec<_> = self.files.iter().map(|path| input(path)).collect();
        if inputs.is_empty() {
            if terminal {
                return Err(UsageError::NoInput);
            }
            inputs.push(Input::Standard);
        }
        if self.from_line > 1 && inputs.len() > 1 {
            return Err(UsageError::FromLineOfMany(inputs.len()));
        }
        for input in &inputs {
            input.probe().map_err(|error| UsageError::Unreadable {
                input: input.clone(),
                error,
            })?;
            if self.once && input.version().is_none() {
                return Err(UsageError::OnceOnStream(input.clone()));
            }
            if let (Some(rejects), Input::File(path)) = (&self.rejects, input)
                && let (Ok(rejects), Ok(path)) = (rejects.canonicalize(), path.canonicalize())
                && rejects == path
            {
                return Err(UsageError::RejectsIsInput(rejects));
            }
        }
        check_name("--type", Field::TaskType, &self.task_type)?;
        check_name("--tenant", Field::Tenant, &self.tenant)?;
        Ok(Plan {
            inputs,
            format: self.input,
            task_type: self.task_type.clone(),
            tenant: self.tenant.clone(),
            fields: Fields {
                key: self.key_field.clone(),
                dedup: self.dedup_field.clone(),
            },
            once: self.once,
            rate: self.rate,
            from_line: self.from_line,
            rejects: self.rejects.clone(),
            max_event_bytes: self.max_event_bytes,
        })
    }
}

fn input(path: &std::path::Path) -> Input {
    if path.as_os_str() == "-" {
        Input::Standard
    } else {
        Input::File(path.to_owned())
    }
}

fn check_name(flag: &'static str, field: Field, name: &str) -> Result<(), UsageError> {
    if name.is_empty() {
        return Err(UsageError::Name {
            flag,
            reason: "is empty".to_owned(),
        });
    }
    limits::text(field, name).map_err(|error| UsageError::Name {
        flag,
        reason: error.to_string(),
    })
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if rate.is_finite() && rate > 0.0 {
        Ok(rate)
    } else {
        Err("expected a number above 0".to_owned())
    }
}

/// librdkafka's own bound of a message, less what key and headers add.
const LARGEST_EVENT: usize = 1_000_000_000 - 10_000;

fn max_event_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (1..=LARGEST_EVENT).contains(&bytes) => Ok(bytes),
        _ => Err(format!("expected 1 to {LARGEST_EVENT} bytes")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        reason = "a test that cannot set up its case has failed"
    )]

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        emit: EmitArgs,
    }

    fn parse(flags: &[&str]) -> Result<EmitArgs, clap::Error> {
        let all = ["emit"].into_iter().chain(flags.iter().copied());
        Command::try_parse_from(all).map(|command| command.emit)
    }

    fn plan(flags: &[&str]) -> Result<Plan, UsageError> {
        let flags: Vec<_> = ["--type", "t"]
            .into_iter()
            .chain(flags.iter().copied())
            .collect();
        parse(&flags).unwrap().plan(false)
    }

    #[test]
    fn the_type_must_be_given() {
        assert!(
            parse(&["-"])
                .unwrap_err()
                .to_string()
                .contains("--type <NAME>")
        );
    }

    #[test]
    fn without_a_file_standard_input_is_read_unless_it_is_a_terminal() {
        assert_eq!(plan(&[]).unwrap().inputs, [Input::Standard]);
        let args = parse(&["--type", "t"]).unwrap();
        assert!(matches!(args.plan(true), Err(UsageError::NoInput)));
    }

    #[test]
    fn once_is_refused_with_a_dedup_field_and_with_standard_input() {
        assert!(parse(&["--type", "t", "--once", "--dedup-field", "/id", "a"]).is_err());
        assert!(matches!(
            plan(&["--once", "-"]),
            Err(UsageError::OnceOnStream(Input::Standard))
        ));
        assert!(matches!(
            plan(&["--once", "/dev/null"]),
            Err(UsageError::OnceOnStream(_))
        ));
    }

    #[test]
    fn from_line_belongs_to_one_input() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        std::fs::write(&file, "").unwrap();
        let file = file.to_str().unwrap();
        assert!(matches!(
            plan(&["--from-line", "2", file, file]),
            Err(UsageError::FromLineOfMany(2))
        ));
        assert_eq!(plan(&["--from-line", "2", file]).unwrap().from_line, 2);
        assert_eq!(plan(&["--from-line", "2", "-"]).unwrap().from_line, 2);
        assert!(parse(&["--type", "t", "--from-line", "0"]).is_err());
        let rejects = plan(&["--rejects", file, file]);
        assert!(matches!(rejects, Err(UsageError::RejectsIsInput(_))));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert!(matches!(
            plan(&["no such file"]),
            Err(UsageError::Unreadable { .. })
        ));
        assert!(matches!(plan(&["/"]), Err(UsageError::Unreadable { .. })));
        assert!(matches!(
            plan(&["--tenant", "", "-"]),
            Err(UsageError::Name { .. })
        ));
        let missing_slash = parse(&["--type", "t", "--key-field", "id"])
            .unwrap_err()
            .to_string();
        assert!(
            missing_slash.contains("did you mean /id"),
            "{missing_slash}"
        );
        for flags in [
            ["--rate", "0"],
            ["--rate", "fast"],
            ["--max-event-bytes", "0"],
        ] {
            assert!(
                parse(&["--type", "t", flags[0], flags[1]]).is_err(),
                "{flags:?}"
            );
        }
    }
}

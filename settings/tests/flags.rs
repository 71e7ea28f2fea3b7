//! The flags and environment variables by the names that scripts and dashboards stand on.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

use clap::{CommandFactory, Parser};
use millrace_settings::{
    DatabaseArgs, Format, FramingArgs, GroupArgs, KafkaArgs, LogFormat, OutputArgs, TelemetryArgs,
};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    framing: FramingArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

fn parse(flags: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from([&["program"], flags].concat())
}

#[test]
fn the_groups_of_flags_fit_into_one_command() {
    Cli::command().debug_assert();
}

#[test]
fn every_flag_has_its_environment_variable() {
    let command = Cli::command();
    for (flag, env) in [
        ("kafka", Some("KAFKA_BOOTSTRAP_SERVERS")),
        ("topic", Some("MILLRACE_TOPIC")),
        ("allow-unreplicated", Some("MILLRACE_ALLOW_UNREPLICATED")),
        ("database-url", Some("DATABASE_URL")),
        ("schema", Some("MILLRACE_SCHEMA")),
        ("group", Some("MILLRACE_GROUP")),
        ("schema-id", Some("MILLRACE_SCHEMA_ID")),
        ("metrics-listen", Some("MILLRACE_METRICS_LISTEN")),
        ("log", Some("RUST_LOG")),
        ("log-format", Some("MILLRACE_LOG_FORMAT")),
        ("format", None),
    ] {
        let arg = command
            .get_arguments()
            .find(|arg| arg.get_long() == Some(flag))
            .unwrap();
        assert_eq!(
            arg.get_env().map(|env| env.to_str().unwrap()),
            env,
            "--{flag}"
        );
        assert!(arg.get_help().is_some(), "--{flag}");
    }
}

#[test]
fn flags_are_read() {
    let cli = parse(&[
        "--kafka=a:1,b:2",
        "--topic=t",
        "-X",
        "linger.ms=1",
        "-Xclient.rack=r",
        "--allow-unreplicated",
        "--database-url=postgres://db/app",
        "--schema=s",
        "--group=g",
        "--schema-id=7",
        "--metrics-listen=127.0.0.1:0",
        "--log=debug",
        "--log-format=json",
        "--format=json",
    ])
    .unwrap();
    assert_eq!(cli.kafka.bootstrap_servers(), Ok("a:1,b:2"));
    assert_eq!(cli.kafka.topic, "t");
    let properties: Vec<_> = cli
        .kafka
        .properties
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(properties, ["linger.ms=1", "client.rack=r"]);
    assert!(cli.kafka.allow_unreplicated);
    assert_eq!(cli.database.url(), Ok("postgres://db/app"));
    assert_eq!(cli.database.schema.as_str(), "s");
    assert_eq!(cli.group.group, "g");
    assert_eq!(cli.framing.schema_id, Some(7));
    assert_eq!(cli.telemetry.metrics_listen.unwrap().port(), 0);
    assert_eq!(cli.telemetry.log.as_deref(), Some("debug"));
    assert_eq!(cli.telemetry.log_format, LogFormat::Json);
    assert_eq!(cli.output.format, Format::Json);
}

#[test]
fn wrong_values_are_refused_with_exit_code_2() {
    for flags in [
        ["--schema", "Bad-Name"],
        ["--topic", "a b"],
        ["--group", ""],
        ["-X", "no-value"],
        ["--schema-id", "-1"],
        ["--metrics-listen", "9464"],
        ["--format", "xml"],
    ] {
        let error = parse(&flags).unwrap_err();
        assert_eq!(
            error.exit_code(),
            i32::from(millrace_settings::exit::USAGE),
            "{flags:?}"
        );
    }
}

/// Prints what this process's environment says; run by the tests below in a process of its own.
#[test]
#[ignore = "run by other tests with an environment of their own"]
fn child() {
    match parse(&[]) {
        Ok(cli) => println!("parsed {cli:#?}\nurl {:?}", cli.database.url()),
        Err(error) => println!("refused {error}"),
    }
    println!("{}", Cli::command().render_long_help());
}

fn told_with(environment: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture"])
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn without_an_environment_the_documented_defaults_hold() {
    let told = told_with(&[]);
    for line in [
        r#"topic: "tasks""#,
        r#"group: "workers""#,
        r#""millrace""#,
        "kafka: None",
        "allow_unreplicated: false",
        "schema_id: None",
        "metrics_listen: None",
        "log_format: Text",
        "format: Table",
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
}

#[test]
fn the_environment_stands_for_the_flags() {
    let told = told_with(&[
        ("KAFKA_BOOTSTRAP_SERVERS", "broker:9092"),
        ("MILLRACE_TOPIC", "other"),
        ("MILLRACE_GROUP", "crew"),
        ("MILLRACE_SCHEMA", "elsewhere"),
        ("MILLRACE_ALLOW_UNREPLICATED", "1"),
        ("DATABASE_URL", "postgres://db/app"),
    ]);
    for line in [
        r#""broker:9092""#,
        r#"topic: "other""#,
        r#"group: "crew""#,
        r#""elsewhere""#,
        "allow_unreplicated: true",
        r#"url Ok("postgres://db/app")"#,
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
}

#[test]
fn a_boolean_in_the_environment_can_say_no() {
    for no in ["0", "false", "no"] {
        let told = told_with(&[("MILLRACE_ALLOW_UNREPLICATED", no)]);
        assert!(told.contains("allow_unreplicated: false"), "{told}");
    }
}

#[test]
fn the_help_text_does_not_show_the_databases_password() {
    let told = told_with(&[("DATABASE_URL", "postgres://me:hunter2@db/app")]);
    let help = told.split("Usage:").nth(1).unwrap();
    assert!(help.contains("DATABASE_URL"), "{help}");
    assert!(!help.contains("hunter2"), "{help}");
}

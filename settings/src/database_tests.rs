#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::{DatabaseArgs, SchemaName};

fn args(url: &str) -> DatabaseArgs {
    DatabaseArgs::new(url, "millrace".parse().unwrap())
}

#[test]
fn a_missing_url_names_the_flag_and_the_variable() {
    let missing = DatabaseArgs {
        database_url: None,
        ..args("")
    };
    for args in [missing, args(""), args("  ")] {
        let told = args.url().unwrap_err().to_string();
        assert!(told.contains("--database-url is missing"), "{told}");
        assert!(told.contains("DATABASE_URL"), "{told}");
    }
}

#[test]
fn a_url_is_handed_on_with_its_password_and_shown_without() {
    let args = args("postgres://me:hunter2@db:5432/app?sslmode=require");
    assert_eq!(
        args.url(),
        Ok("postgres://me:hunter2@db:5432/app?sslmode=require")
    );
    assert_eq!(
        args.redacted_url(),
        "postgres://me:***@db:5432/app?sslmode=require"
    );
    assert!(!format!("{args:?}").contains("hunter2"));
}

#[test]
fn what_is_no_postgres_url_is_refused_without_its_password() {
    for url in [
        "mysql://me:hunter2@db/app",
        "me:hunter2@db",
        "postgres://me:hunter2@db:port/app",
    ] {
        let told = args(url).url().unwrap_err().to_string();
        assert!(told.contains("postgres://"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_schema_name_needs_no_quoting() {
    let longest = "x".repeat(63);
    for name in ["millrace", "_a", "m_2026", longest.as_str()] {
        assert_eq!(name.parse::<SchemaName>().unwrap().as_str(), name);
    }
    let too_long = "x".repeat(64);
    for name in [
        "",
        "Millrace",
        "2nd",
        "a-b",
        "a b",
        "a;drop",
        "ä",
        "a\"",
        "pg_temp",
        too_long.as_str(),
    ] {
        let told = name.parse::<SchemaName>().unwrap_err().to_string();
        assert!(told.starts_with("--schema="), "{told}");
    }
}

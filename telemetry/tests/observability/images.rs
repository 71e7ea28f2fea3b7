//! The images are small, run as nobody in particular, and know whether they are well.

use crate::read;

const IMAGES: [&str; 2] = ["consumer", "producer"];

fn dockerfile(image: &str) -> String {
    read(&format!("docker/Dockerfile.{image}"))
}

/// The instructions of the last stage, continuation lines joined.
fn runtime_stage(image: &str) -> Vec<String> {
    let text = dockerfile(image).replace("\\\n", "");
    let last = text.rfind("\nFROM ").unwrap();
    text[last..]
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn instruction(image: &str, name: &str) -> String {
    let stage = runtime_stage(image);
    let line = stage.iter().find(|line| line.starts_with(name));
    line.unwrap_or_else(|| panic!("{image}: no {name}")).clone()
}

#[test]
fn an_image_runs_as_a_numeric_user_that_is_not_root() {
    for image in IMAGES {
        let user = instruction(image, "USER");
        let id: u32 = user.split([' ', ':']).nth(1).unwrap().parse().unwrap();
        assert!(
            id > 0,
            "{image}: Kubernetes checks runAsNonRoot only against a number"
        );
    }
}

#[test]
fn nothing_in_an_image_needs_a_shell() {
    for image in IMAGES {
        for line in runtime_stage(image) {
            assert!(!line.starts_with("RUN "), "{image}: {line}");
        }
        for name in ["ENTRYPOINT", "CMD"] {
            let line = instruction(image, name);
            let list: Vec<String> = serde_json::from_str(line[name.len()..].trim()).unwrap();
            assert!(!list.is_empty(), "{image}: {name}");
        }
        let check = instruction(image, "HEALTHCHECK");
        let list: Vec<String> = serde_json::from_str(check.split("CMD").nth(1).unwrap()).unwrap();
        assert_eq!(list[0], format!("/usr/local/bin/{image}"));
        assert_eq!(list[1], "healthcheck");
    }
}

#[test]
fn an_image_listens_where_its_health_check_asks() {
    for image in IMAGES {
        let port = instruction(image, "EXPOSE")["EXPOSE ".len()..].to_owned();
        for name in ["HEALTHCHECK", "CMD"] {
            let line = instruction(image, name);
            assert!(line.contains(&format!(":{port}\"")), "{image}: {line}");
        }
    }
}

#[test]
fn an_image_is_built_from_every_member_of_the_workspace_and_little_else() {
    let manifest = read("Cargo.toml");
    let members = manifest
        .split("members = [")
        .nth(1)
        .unwrap()
        .split(']')
        .next()
        .unwrap();
    let allowed = read(".dockerignore");
    for member in members.split(',').map(|m| m.trim().trim_matches('"')) {
        assert!(
            allowed.contains(&format!("\n!{member}\n")),
            "{member} is kept out"
        );
    }
    assert!(allowed.contains("\n*\n"), "what is not named stays out");
}

#[test]
fn the_compiler_in_the_image_is_at_least_the_one_that_the_workspace_asks_for() {
    let manifest = read("Cargo.toml");
    let wanted = manifest
        .split("rust-version = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    for image in IMAGES {
        assert!(dockerfile(image).contains(&format!("FROM rust:{wanted}-bookworm AS build")));
    }
}

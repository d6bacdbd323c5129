//! The rules between modules that neither the compiler nor clippy knows, as DESIGN and ARCHITECTURE state them.
//!
//! The check reads text, not syntax: comments and inline test modules are cut off, names are compared as whole words.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Lines of code a file may have, tests and comments not counted.
const CODE_LINES_MAX: usize = 600;

/// Words that a part of the tree must not contain.
struct Rule {
    name: &'static str,
    applies: fn(&str) -> bool,
    forbidden: &'static [&'static str],
}

const RULES: [Rule; 7] = [
    Rule {
        name: "a sans-IO module uses no runtime, TLS, socket, file, clock or randomness",
        applies: is_sans_io,
        forbidden: &[
            "mio",
            "tokio",
            "rustls",
            "socket2",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "UnixStream",
            "UnixListener",
            "fs",
            "File",
            "Instant::now",
            "SystemTime::now",
            "Now::read",
            "rand",
            "getrandom",
        ],
    },
    Rule {
        name: "a worker never imports tokio",
        applies: |path| path.starts_with("ingress-user/src/worker/"),
        forbidden: &["tokio"],
    },
    Rule {
        name: "only xdp/ imports aya",
        applies: |path| outside(path, &["xdp/"]),
        forbidden: &["aya"],
    },
    Rule {
        name: "only nic/netlink/ speaks netlink",
        applies: |path| outside(path, &["nic/netlink/"]),
        forbidden: &[
            "netlink_packet_core",
            "netlink_packet_generic",
            "netlink_packet_route",
            "netlink_proto",
        ],
    },
    Rule {
        name: "only sys/ has unsafe code in user space",
        applies: |path| outside(path, &["sys/"]) || is_tool(path),
        forbidden: &["unsafe"],
    },
    Rule {
        name: "only smtp/reply.rs and the trace line write line ends",
        applies: is_silent_smtp,
        forbidden: &[r"\r\n"],
    },
    Rule {
        name: "the whole Config stays in config/, cli/ and the daemon, which takes it apart",
        applies: |path| outside(path, &["config/", "cli/", "daemon.rs", "daemon/"]),
        forbidden: &["Config"],
    },
];

fn is_sans_io(path: &str) -> bool {
    path.starts_with("ingress-user/src/smtp/")
        || path.starts_with("ingress-user/src/policy/")
        || path == "ingress-user/src/delivery/schedule.rs"
        || (path.starts_with("ingress-ebpf/src/") && path != "ingress-ebpf/src/main.rs")
}

/// In `smtp/`, but not one of the two files whose text goes out: replies, and the `Received:` line.
fn is_silent_smtp(path: &str) -> bool {
    path.strip_prefix("ingress-user/src/smtp/")
        .is_some_and(|rest| !["reply.rs", "trace.rs"].contains(&rest))
}

/// In the daemon's source, but in none of `places`.
fn outside(path: &str, places: &[&str]) -> bool {
    path.strip_prefix("ingress-user/src/")
        .is_some_and(|rest| !places.iter().any(|place| rest.starts_with(place)))
}

fn is_tool(path: &str) -> bool {
    // This file names what it forbids.
    let tools = ["xtask/src/", "tests/", "bench/src/"];
    tools.iter().any(|folder| path.starts_with(folder)) && path != "xtask/src/rules.rs"
}

/// Where a rule is broken. Displays as `file:line: rule: what was found`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    file: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.rule)
    }
}

/// Checks every Rust file of the checkout at `root`.
pub(crate) fn check(root: &Path) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for package in ["ingress-ebpf/src", "ingress-user/src", "xtask/src", "tests", "bench/src"] {
        for file in rust_files(&root.join(package))? {
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let path = file.strip_prefix(root)?.to_string_lossy();
            violations.extend(check_file(&path, &text));
        }
    }
    Ok(violations)
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn check_file(path: &str, text: &str) -> Vec<Violation> {
    let violation = |line, rule| Violation { file: path.to_owned(), line, rule };
    if path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let code: Vec<(usize, &str)> = code_lines(text).collect();
    let mut violations: Vec<Violation> = RULES
        .iter()
        .filter(|rule| (rule.applies)(path))
        .flat_map(|rule| code.iter().map(move |line| (rule, line)))
        .filter_map(|(rule, (number, line))| {
            let found = rule.forbidden.iter().find(|word| contains_word(line, word))?;
            Some(violation(*number, format!("{}: {found}", rule.name)))
        })
        .collect();
    if code.len() > CODE_LINES_MAX {
        let rule = format!("{} lines of code, at most {CODE_LINES_MAX}", code.len());
        violations.push(violation(1, rule));
    }
    violations
}

/// Numbered lines that are code, without comments, up to the inline test module, which stands last.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let is_tests = |pair: &[&str]| {
        pair[0] == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].ends_with('{')
    };
    let end = lines.windows(2).position(is_tests).unwrap_or(lines.len());
    let code = lines.into_iter().take(end).enumerate();
    code.map(|(index, line)| (index + 1, without_comment(line).trim()))
        .filter(|(_, l)| !l.is_empty())
}

/// Cuts a `//` comment off, unless it stands in a string.
fn without_comment(line: &str) -> &str {
    let is_comment = |(at, _): &(usize, &str)| line[..*at].matches('"').count().is_multiple_of(2);
    line.match_indices("//").find(is_comment).map_or(line, |(at, _)| &line[..at])
}

/// Whether `word` stands in `line` and is not part of a longer name.
fn contains_word(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_name) && !line[at + word.len()..].starts_with(is_name)
            || word.starts_with('\\')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        check_file(path, text).into_iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn each_rule_finds_its_violation() {
        let table = [
            (
                "ingress-user/src/smtp/session.rs",
                "use std::time::Instant;\nlet a = Instant::now();",
            ),
            ("ingress-user/src/smtp/session.rs", "\nuse mio::Token;"),
            ("ingress-user/src/policy/client.rs", "\nuse std::{fs, io};"),
            ("ingress-user/src/delivery/schedule.rs", "\nuse rand::Rng;"),
            ("ingress-ebpf/src/decode.rs", "\nuse tokio::time;"),
            ("ingress-user/src/worker/mod.rs", "\nuse tokio::sync::mpsc;"),
            ("ingress-user/src/spool/mod.rs", "\nuse aya::Ebpf;"),
            ("ingress-user/src/nic/read.rs", "\nuse netlink_packet_core::Nla;"),
            ("ingress-user/src/spool/mod.rs", "\nunsafe { libc::getpid() }"),
            ("xtask/src/run.rs", "\nunsafe {}"),
            ("ingress-user/src/smtp/session.rs", "\nout.push(b\"ok\\r\\n\");"),
            ("ingress-user/src/worker/mod.rs", "\nuse crate::config::{Config, Limits};"),
        ];
        for (path, text) in table {
            assert_eq!(found(path, text), [2], "{path}: {text}");
        }
    }

    #[test]
    fn what_a_rule_allows_passes() {
        let table = [
            ("ingress-user/src/xdp/mod.rs", "use aya::Ebpf;"),
            ("ingress-user/src/nic/netlink/mod.rs", "use netlink_proto::sys::SocketAddr;"),
            ("ingress-user/src/sys/mod.rs", "unsafe { f() }"),
            ("ingress-user/src/smtp/reply.rs", "out.push(b\"ok\\r\\n\");"),
            (
                "ingress-user/src/smtp/session.rs",
                "// never Instant::now, never tokio\nlet a = 1; // mio",
            ),
            ("ingress-user/src/smtp/session.rs", "use std::net::IpAddr;\nlet operand = offset;"),
            (
                "ingress-user/src/smtp/session.rs",
                "fn f() {}\n#[cfg(test)]\nmod tests {\n let a = b\"\\r\\n\";\n}",
            ),
            ("ingress-user/src/worker/mod.rs", "use crate::config::ListenerConfig;"),
            ("ingress-ebpf/src/main.rs", "unsafe { f() }"),
        ];
        for (path, text) in table {
            assert_eq!(found(path, text), [0; 0], "{path}: {text}");
        }
    }

    #[test]
    fn a_long_file_is_found_and_its_comments_are_not_counted() {
        let path = "ingress-user/src/worker/mod.rs";
        assert_eq!(found(path, &"let a = 1;\n".repeat(CODE_LINES_MAX)), [0; 0]);
        assert_eq!(found(path, &"let a = 1;\n".repeat(CODE_LINES_MAX + 1)), [1]);
        assert_eq!(found(path, &"// a\n\n".repeat(CODE_LINES_MAX + 1)), [0; 0]);
    }

    #[test]
    fn files_below_the_packages_are_read() {
        let root = tempfile::tempdir().unwrap();
        for folder in
            ["ingress-ebpf/src", "ingress-user/src/worker", "xtask/src", "tests", "bench/src"]
        {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("ingress-user/src/worker/mod.rs"), "use tokio::net;").unwrap();
        let violations = check(root.path()).unwrap();
        assert_eq!(
            violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["ingress-user/src/worker/mod.rs:1: a worker never imports tokio: tokio"]
        );
    }
}

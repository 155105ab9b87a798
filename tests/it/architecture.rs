//! The rooms of ARCHITECTURE.md, held against the imports of the code: they point one way.

use std::collections::BTreeSet;
use std::path::Path;

/// From the words to the edge. A room uses those of the lines above its own; the words, which all
/// talk about the same things, use each other as well.
const FLOORS: &[&[&str]] = &[
    &[
        "channel",
        "clock",
        "disconnect",
        "fault",
        "gap",
        "pattern",
        "payload",
        "position",
        "publication",
        "rate",
        "resume",
        "trace_parent",
        "transport_name",
    ],
    &["outgoing", "tls"],
    &["config", "socket"],
    &["metrics", "telemetry", "wire"],
    &["admission", "auth", "broker", "hub"],
    &["gateway"],
    &["drain", "session"],
    &["transport"],
    &["http"],
    &["server"],
    &["app"],
    &["cli"],
];

/// What is below, and yet none of its business.
const NEVER: &[(&str, &str)] = &[("transport", "broker"), ("http", "broker"), ("wire", "config")];

fn floor(room: &str) -> usize {
    let found = FLOORS.iter().position(|rooms| rooms.contains(&room));
    found.unwrap_or_else(|| panic!("{room} has no floor: give it one here and in ARCHITECTURE.md"))
}

/// Every file below a folder, as its path in `src` and its code without comments.
fn files(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.to_str().expect("UTF-8").rsplit_once("/src/").expect("in src").1.to_owned();
            let text = std::fs::read_to_string(&path).expect("a file");
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            found.push((name, code.collect::<Vec<_>>().join("\n")));
        }
    }
}

fn source() -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut found);
    found.retain(|(name, _)| !name.contains("tests"));
    found
}

/// The rooms that a file names after `crate::`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    let mut take = |text: &str| {
        let room: String = text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !room.is_empty() {
            rooms.insert(room);
        }
    };
    for rest in code.split("crate::").skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            take(rest);
            continue;
        };
        let (mut depth, mut begun) = (0, 0);
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    take(&list[begun..at]);
                    begun = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    rooms
}

#[test]
fn imports_are_read_whatever_their_form() {
    let code =
        "use crate::{\n  a, b::{C, D::{E}},\n  c_d as e,\n};\nuse crate::f::g;\nlet x = crate::h::I(1, 2);";
    let expected = ["a", "b", "c_d", "f", "h"].map(str::to_owned);
    assert_eq!(imports(code), BTreeSet::from(expected));
}

#[test]
fn imports_point_one_way() {
    let mut wrong = Vec::new();
    for (name, code) in source() {
        let room = name.split(['/', '.']).next().expect("a room");
        if matches!(room, "lib" | "main") {
            continue;
        }
        let here = floor(room);
        for other in imports(&code).iter().filter(|other| *other != room) {
            let is_word = here == 0 && floor(other) == 0;
            if !(floor(other) < here || is_word) || NEVER.contains(&(room, other)) {
                wrong.push(format!("{name} uses {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn one_fact_has_one_place() {
    for (fact, place) in [
        ("std::env::var", "config.rs"),
        ("StatusCode::UNPROCESSABLE_ENTITY", "http/problem.rs"),
        ("\"tidegate_", "metrics.rs"),
        ("ProcessCollector", "metrics.rs"),
    ] {
        // The functions in Redis are called so too, with the number of their format.
        let says = |code: &str| code.replace("\"tidegate_1_", "").contains(fact);
        let found: Vec<_> =
            source().into_iter().filter(|(_, code)| says(code)).map(|(name, _)| name).collect();
        assert_eq!(found, [place], "{fact}");
    }
}

//! Checks the order of the rooms: the modules at the top of each crate. A room depends only on rooms below it, never on
//! rooms above it.
//!
//! Each crate has one list of its rooms, from the top down. A room that is missing from its list also fails the test,
//! so that the author of a new room has to decide on its position. Test code may import any room.

#![expect(
    clippy::unwrap_used,
    reason = "a file that cannot be read must fail the test, in helpers too"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const REGISTRY: &[&str] = &[
    "command",
    "server",
    "config",
    "grpc",
    "status",
    "control",
    "commit",
    "telemetry",
    "wire",
    "check",
    "feed",
    "fleet",
    "exit",
    "store",
    "pulse",
    "domain",
    "merge",
];

const ROUTER: &[&str] = &[
    "server",
    "config",
    "grpc",
    "telemetry",
    "wire",
    "subscription",
    "status",
    "call",
    "check",
    "probe",
    "relay",
    "upstream",
    "rounds",
    "prompt",
    "live",
    "endpoints",
    "permits",
    "balance",
    "current",
    "catalog",
];

const SHARED: &[&str] = &[
    "service",
    "failpoint",
    "seal",
    "failure",
    "stream",
    "resource",
    "history",
    "digest",
    "pb",
    "encoded",
    "catalogue",
    "capability",
    "duration",
    "endpoint",
    "names",
    "secret",
    "violation",
    "reason",
];

/// An import of one room by another.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    from: String,
    to: String,
    file: PathBuf,
}

#[test]
fn rooms_depend_only_on_rooms_below_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = [("registry/src", REGISTRY), ("router/src", ROUTER), ("src", SHARED)];
    let wrong: Vec<String> = crates
        .iter()
        .flat_map(|(folder, order)| {
            violations(order, &Rooms::read(&root.join(folder)))
                .into_iter()
                .map(move |line| format!("{folder}: {line}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns a message for each violation in a crate, given the order of its rooms from the top down.
fn violations(order: &[&str], rooms: &Rooms) -> Vec<String> {
    let level = |room: &str| order.iter().position(|known| *known == room);
    let unordered = rooms.names.iter().filter(|room| level(room).is_none());
    let unordered = unordered.map(|room| format!("`{room}` is not in the order of the rooms"));
    let gone = order.iter().filter(|room| !rooms.names.contains(**room));
    let gone = gone.map(|room| format!("`{room}` is in the order of the rooms, but there is no such room"));
    let upward = rooms
        .imports
        .iter()
        .filter(|import| level(&import.to) < level(&import.from));
    let upward = upward
        .map(|Import { from, to, file }| format!("`{from}` imports `{to}`, which is above it, in {}", file.display()));
    unordered.chain(gone).chain(upward).collect()
}

/// The rooms of a crate and the imports between them.
#[derive(Debug, Default)]
struct Rooms {
    names: BTreeSet<String>,
    imports: BTreeSet<Import>,
}

impl Rooms {
    /// Reads the rooms from a folder of sources and ignores test code. Files that are not a room, such as `lib.rs`, are
    /// skipped.
    fn read(source: &Path) -> Self {
        let mut files = BTreeSet::new();
        list_sources(source, &mut files);
        let code: Vec<(PathBuf, Code)> = files
            .into_iter()
            .map(|file| {
                let code = Code::read(&fs::read_to_string(source.join(&file)).unwrap());
                (file, code)
            })
            .collect();
        let tests: Vec<PathBuf> = code
            .iter()
            .flat_map(|(file, code)| code.test_modules.iter().map(|name| children(file).join(name)))
            .collect();
        let mut rooms = Self::default();
        for (file, code) in &code {
            let module = file.with_extension("");
            let path: Vec<&str> = module.iter().map(|part| part.to_str().unwrap()).collect();
            let room = path[0];
            if ["lib", "main"].contains(&room) || tests.iter().any(|test| module.starts_with(test)) {
                continue;
            }
            rooms.names.insert(room.to_owned());
            let others = code.roots(path.len()).into_iter().filter(|other| other != room);
            rooms.imports.extend(others.map(|to| Import {
                from: room.to_owned(),
                to,
                file: file.clone(),
            }));
        }
        // Other items at the root of a crate, such as an exported macro, are not rooms.
        rooms.imports.retain(|import| rooms.names.contains(&import.to));
        rooms
    }
}

/// Returns the folder that holds the modules declared in a file.
fn children(file: &Path) -> PathBuf {
    if ["lib.rs", "main.rs"].iter().any(|name| file == Path::new(name)) {
        PathBuf::new()
    } else {
        file.with_extension("")
    }
}

fn list_sources(source: &Path, files: &mut BTreeSet<PathBuf>) {
    let mut folders = vec![source.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.insert(path.strip_prefix(source).unwrap().to_owned());
            }
        }
    }
}

/// A source file as tokens: words and single punctuation characters, without comments, literals and test code.
#[derive(Debug, PartialEq, Eq)]
struct Code {
    tokens: Vec<String>,
    /// Names of the modules that have a file of their own and are declared under `#[cfg(test)]`.
    test_modules: Vec<String>,
}

impl Code {
    fn read(text: &str) -> Self {
        let all = tokens(text);
        let mut code = Self {
            tokens: Vec::new(),
            test_modules: Vec::new(),
        };
        let mut rest = all.as_slice();
        while let [first, tail @ ..] = rest {
            if let Some(item) = strip(rest, &["#", "[", "cfg", "(", "test", ")", "]"]) {
                let (item, after) = item.split_at(item_length(item));
                if let [.., keyword, name, end] = item
                    && (keyword.as_str(), end.as_str()) == ("mod", ";")
                {
                    code.test_modules.push(name.clone());
                }
                rest = after;
            } else {
                code.tokens.push(first.clone());
                rest = tail;
            }
        }
        code
    }

    /// Returns the names at the root of the crate that a file at this depth uses: the names after `crate`, or after
    /// enough `super` segments to reach the root.
    fn roots(&self, depth: usize) -> BTreeSet<String> {
        let mut roots = BTreeSet::new();
        // For each open brace: whether it opens a module, whose content is one level deeper.
        let mut braces = Vec::new();
        let mut before = [""; 2];
        let mut rest = self.tokens.as_slice();
        while let [first, tail @ ..] = rest {
            rest = tail;
            match first.as_str() {
                "{" => braces.push(before[0] == "mod"),
                "}" => drop(braces.pop()),
                "crate" | "super" => {
                    let mut climbed = usize::from(first == "super");
                    while let Some(more) = strip(rest, &[":", ":", "super"]) {
                        climbed += 1;
                        rest = more;
                    }
                    let depth = depth + braces.iter().filter(|is_module| **is_module).count();
                    if (first == "crate" || climbed == depth)
                        && let Some(named) = strip(rest, &[":", ":"])
                    {
                        roots.extend(heads(named));
                    }
                }
                _ => {}
            }
            before = [before[1], first];
        }
        roots
    }
}

/// Returns the tokens after `prefix`, or `None` if the tokens do not begin with it.
fn strip<'a>(tokens: &'a [String], prefix: &[&str]) -> Option<&'a [String]> {
    let (head, tail) = tokens.split_at_checked(prefix.len())?;
    head.iter()
        .zip(prefix)
        .all(|(token, expected)| token == expected)
        .then_some(tail)
}

/// Returns the first name of an import path, or the first names of all members of an import group.
fn heads(named: &[String]) -> Vec<String> {
    let mut depth = 0;
    let mut is_head = true;
    let mut heads = Vec::new();
    for token in named {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," => is_head = depth == 1,
            name => {
                if is_head {
                    heads.push(name.to_owned());
                }
                is_head = false;
            }
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

/// Returns the number of tokens of the item at the beginning: up to its semicolon or its closing brace.
fn item_length(item: &[String]) -> usize {
    let is_import = item
        .iter()
        .take_while(|token| *token != ";")
        .any(|token| token == "use");
    let mut depth = 0;
    for (index, token) in item.iter().enumerate() {
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        let is_end = token == ";" || (token == "}" && !is_import);
        if depth == 0 && is_end {
            return index + 1;
        }
    }
    item.len()
}

/// Splits a source text into words and punctuation characters. Comments are dropped, and a quoted literal becomes one
/// `"`.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = text_length(rest) {
            tokens.push("\"".to_owned());
            length
        } else if is_of_word(first) {
            let length = rest.find(|other| !is_of_word(other)).unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Returns the length of the quoted literal that begins here, or `None` if the code does not begin with one.
fn text_length(code: &str) -> Option<usize> {
    let body = code.trim_start_matches('b');
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let open = code.len() - raw.len() + hashes + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            return Some(open + code[open..].find(&close)? + close.len());
        }
    }
    let quote = body.chars().next()?;
    let open = code.len() - body.len() + 1;
    let mut characters = code[open..].char_indices();
    match quote {
        '"' => {
            while let Some((index, character)) = characters.next() {
                match character {
                    '\\' => drop(characters.next()),
                    '"' => return Some(open + index + 1),
                    _ => {}
                }
            }
            None
        }
        // A character literal. A lifetime has no closing quote.
        '\'' => {
            let (_, character) = characters.next()?;
            if character == '\\' {
                characters.next()?;
                let (index, _) = characters.find(|(_, character)| *character == '\'')?;
                return Some(open + index + 1);
            }
            let (index, close) = characters.next()?;
            (close == '\'').then_some(open + index + 1)
        }
        _ => None,
    }
}

#[test]
fn imports_are_found_in_every_notation() {
    let text = r#"
        //! See [`crate::in_a_comment`].
        use crate::{
            one::{Thing, other_thing},
            two, three::Third as crate_like,
        };
        use crate::four::Fourth;
        use super::five;
        mod inline { use super::own; use super::super::eight; }
        fn f<'a>() -> crate::six::Sixth { let _c = ('"', b'\'', "crate::in_a_text"); super::super::too_high() }
        #[cfg(test)]
        use crate::{only_in_tests};
        #[cfg(test)]
        pub(crate) mod fixture;
        #[cfg(test)]
        fn helper(_: [u8; 2]) -> u8 { crate::only_in_tests::value() }
        const AFTER: u8 = crate::seven::SEVENTH;
        #[cfg(test)]
        mod tests { use crate::only_in_tests; }
    "#;
    let code = Code::read(text);
    let roots: Vec<String> = code.roots(1).into_iter().collect();
    assert_eq!(roots, ["eight", "five", "four", "one", "seven", "six", "three", "two"]);
    assert_eq!(code.test_modules, ["fixture"]);
}

#[test]
fn upward_imports_and_wrong_orders_are_violations() {
    let import = |from: &str, to: &str| Import {
        from: from.to_owned(),
        to: to.to_owned(),
        file: format!("{from}.rs").into(),
    };
    let rooms = Rooms {
        names: ["attic", "bottom", "middle", "top"].map(str::to_owned).into(),
        imports: [import("top", "bottom"), import("bottom", "middle")].into(),
    };
    assert_eq!(
        violations(&["top", "middle", "bottom", "cellar"], &rooms),
        [
            "`attic` is not in the order of the rooms",
            "`cellar` is in the order of the rooms, but there is no such room",
            "`bottom` imports `middle`, which is above it, in bottom.rs",
        ]
    );
}

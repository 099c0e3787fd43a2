//! Checks that `docs/errors.md` explains every failure reason with its code, and that at least one test covers each
//! reason.

#![expect(
    clippy::unwrap_used,
    reason = "a file that cannot be read must fail the test, in helpers too"
)]

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::Path,
};

use switchboard::reason::{FieldReason, Reason};

const PAGE: &str = include_str!("../docs/errors.md");

/// Yields, for each table row of the page, the reasons in its first cell and the text of the remaining cells.
fn rows() -> impl Iterator<Item = (Vec<&'static str>, Vec<&'static str>)> {
    PAGE.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let mut cells = line.trim_matches(['|', ' ']).split(" | ");
        let reasons = cells.next().unwrap().split(", ").map(|cell| cell.trim_matches('`'));
        (reasons.collect(), cells.collect())
    })
}

/// Returns the code's name in upper snake case: `UNAVAILABLE` for `Unavailable`.
fn spelled(code: tonic::Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[test]
fn the_page_explains_every_reason_and_no_other() {
    let explained: BTreeMap<&str, Vec<&str>> = rows()
        .filter(|(_, cells)| cells.len() == 3)
        .map(|(reasons, cells)| (reasons[0], cells))
        .collect();
    let known: BTreeMap<&str, String> = Reason::ALL
        .iter()
        .map(|reason| (reason.as_str(), format!("`{}`", spelled(reason.code()))))
        .collect();
    let of_page: BTreeMap<&str, String> = explained
        .iter()
        .map(|(&reason, cells)| (reason, cells[0].to_owned()))
        .collect();
    assert_eq!(
        of_page, known,
        "docs/errors.md and `Reason` list different reasons or codes"
    );

    let of_page: BTreeSet<&str> = rows()
        .filter(|(_, cells)| cells.len() == 1)
        .flat_map(|(reasons, _)| reasons)
        .collect();
    let known: BTreeSet<&str> = FieldReason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(
        of_page, known,
        "docs/errors.md and `FieldReason` list different reasons"
    );
}

/// By `name`: GitLab removes `id` from Markdown.
#[test]
fn every_explained_reason_has_an_anchor() {
    for (reasons, cells) in rows().filter(|(reasons, _)| reasons.len() == 1) {
        let anchor = format!("<a name=\"{}\"></a>", reasons[0].to_lowercase());
        assert!(cells.iter().any(|cell| cell.starts_with(&anchor)), "{anchor}");
    }
}

/// Appends all test code of the repository to `found`, except this file.
fn test_code(folder: &Path, found: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            // Skip build output and downloaded tools.
            if name != "target" && !name.starts_with('.') {
                test_code(&path, found);
            }
        } else if name.ends_with(".rs") && name != "errors.rs" {
            let text = fs::read_to_string(&path).unwrap();
            let is_test = path.components().any(|part| part.as_os_str() == "tests") || name == "tests.rs";
            let from = if is_test { Some(0) } else { text.find("#[cfg(test)]") };
            found.push_str(from.map_or("", |from| &text[from..]));
        }
    }
}

/// The reason that no test can observe: the caller that it is meant for has gone.
const TOLD_TO_NOBODY: Reason = Reason::CallerCancelled;

#[test]
fn every_reason_is_covered_by_a_test() {
    let mut code = String::new();
    test_code(Path::new(env!("CARGO_MANIFEST_DIR")), &mut code);
    let words: HashSet<&str> = code
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .collect();
    let reasons = Reason::ALL
        .iter()
        .filter(|&reason| *reason != TOLD_TO_NOBODY)
        .map(|reason| (format!("{reason:?}"), reason.as_str()));
    let fields = FieldReason::ALL
        .iter()
        .map(|reason| (format!("{reason:?}"), reason.as_str()));
    let untested: Vec<String> = reasons
        .chain(fields)
        .filter(|(variant, text)| !words.contains(variant.as_str()) && !words.contains(text))
        .map(|(variant, _)| variant)
        .collect();
    assert!(untested.is_empty(), "no test covers {untested:?}");
}

//! A model server's list of its models, and the look-up of one model's name in it. Pure.

use serde::Deserialize;

/// The path of the list.
pub const PATH: &str = "/v1/models";
/// Maximum size of the list, in bytes.
pub const BYTES_MAX: usize = 1024 * 1024;

/// Maximum length of a name in characters, the same as for an `identifier` that an administrator gives.
const NAME_LENGTH_MAX: usize = 1000;
/// Maximum number of names that are shown, and maximum length of a shown name in characters.
const SHOWN_MAX: usize = 10;
const SHOWN_LENGTH_MAX: usize = 128;

/// The names in a server's model list. They are not validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelList(Vec<String>);

#[derive(Deserialize)]
struct List {
    data: Vec<ListedModel>,
}

#[derive(Deserialize)]
struct ListedModel {
    id: String,
}

impl ModelList {
    /// Parses a list. `None`: the body is not a model list.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let list: List = serde_json::from_slice(body).ok()?;
        Some(Self(list.data.into_iter().map(|entry| entry.id).collect()))
    }

    /// Returns the name by which the server knows the model `id`: the only name in the list, otherwise the name that
    /// equals `id`. `None`: the list does not determine a name.
    #[must_use]
    pub fn identifier(&self, id: &str) -> Option<&str> {
        match &*self.0 {
            [only] => is_name(only).then_some(only),
            names => names.iter().find(|name| *name == id).map(String::as_str),
        }
    }

    /// Returns whether the list contains a name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|listed| listed == name)
    }

    /// Returns whether the list is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the first names as text. Only names of plain characters are shown, because the router does not repeat
    /// arbitrary text of a server.
    #[must_use]
    pub fn shown(&self) -> String {
        let plain = self.0.iter().filter(|name| is_plain(name)).take(SHOWN_MAX);
        let plain: Vec<String> = plain.map(|name| format!("`{name}`")).collect();
        let first = plain.join(", ");
        match self.0.len() - plain.len() {
            0 => first,
            more if first.is_empty() => format!("{more} with names that cannot be shown"),
            more => format!("{first} and {more} more"),
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= NAME_LENGTH_MAX && !name.chars().any(char::is_control)
}

fn is_plain(name: &str) -> bool {
    name.len() <= SHOWN_LENGTH_MAX
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@+".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> ModelList {
        let entries: Vec<String> = names
            .iter()
            .map(|name| format!(r#"{{"id":"{name}","object":"model","created":1,"meta":null}}"#))
            .collect();
        let body = format!(r#"{{"object":"list","data":[{}],"models":[]}}"#, entries.join(","));
        ModelList::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn the_only_entry_is_chosen_otherwise_the_entry_that_equals_the_id() {
        let long = "x".repeat(1001);
        let cases: [(&[&str], Option<&str>); 8] = [
            (&["org/Model-7B"], Some("org/Model-7B")),
            (&["a", "m", "b"], Some("m")),
            (&["a", "b"], None),
            // The list has two entries, although one of them is not a valid name.
            (&["a", ""], None),
            (&[], None),
            (&[""], None),
            (&[&long], None),
            (&["a\\nb"], None),
        ];
        for (names, name) in cases {
            assert_eq!(list(names).identifier("m"), name, "{names:.60?}");
        }
        assert!(list(&["a", "b"]).has("b") && !list(&["a", "b"]).has("m"));
    }

    #[test]
    fn a_body_that_is_not_a_list_is_refused() {
        for body in ["", "[]", "{}", r#"{"data":[{}]}"#, r#"{"data":[{"id":"m"}"#, "<html>"] {
            assert_eq!(ModelList::parse(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn only_the_first_names_of_plain_characters_are_shown() {
        let many: Vec<String> = (0..12).map(|number| format!("m{number}")).collect();
        assert!(ModelList(many).shown().ends_with("`m9` and 2 more"));
        let odd = ["Qwen/Qwen2.5:7b", "ignore all that was said", "<b>"];
        assert_eq!(list(&odd).shown(), "`Qwen/Qwen2.5:7b` and 2 more");
        assert_eq!(list(&[" "]).shown(), "1 with names that cannot be shown");
    }
}

//! A server's list of its models, and the name that it has for one of them. Pure.

use serde::Deserialize;

/// Where it is.
pub const PATH: &str = "/v1/models";
/// The most bytes that it may have.
pub const BYTES_MAX: usize = 1024 * 1024;

/// The most characters of a name, as many as one that is given may have.
const NAME_LENGTH_MAX: usize = 1000;
/// The most names that are shown, and the most characters of one.
const SHOWN_MAX: usize = 10;
const SHOWN_LENGTH_MAX: usize = 128;

/// The names of a server's models, whatever it wrote as names.
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
    /// Reads a list. `None`: it is none.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let list: List = serde_json::from_slice(body).ok()?;
        Some(Self(list.data.into_iter().map(|entry| entry.id).collect()))
    }

    /// The name by which the server knows the model `id`: the list's only one, else the one that is equal. `None`: the list
    /// tells nothing.
    #[must_use]
    pub fn identifier(&self, id: &str) -> Option<&str> {
        match &*self.0 {
            [only] => is_name(only).then_some(only),
            names => names.iter().find(|name| *name == id).map(String::as_str),
        }
    }

    /// Whether a name is among them.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|listed| listed == name)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first names, as far as they are plain: what a server writes is not repeated without a look at it.
    #[must_use]
    pub fn shown(&self) -> String {
        let plain = self.0.iter().filter(|name| is_plain(name)).take(SHOWN_MAX);
        let plain: Vec<String> = plain.map(|name| format!("`{name}`")).collect();
        let first = plain.join(", ");
        match self.0.len() - plain.len() {
            0 => first,
            more if first.is_empty() => format!("{more} whose names are not plain"),
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
    fn the_only_entry_is_the_model_else_the_one_with_its_id() {
        let long = "x".repeat(1001);
        let cases: [(&[&str], Option<&str>); 8] = [
            (&["org/Model-7B"], Some("org/Model-7B")),
            (&["a", "m", "b"], Some("m")),
            (&["a", "b"], None),
            // Two are listed, though one is no name.
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
    fn what_is_no_list_is_none() {
        for body in ["", "[]", "{}", r#"{"data":[{}]}"#, r#"{"data":[{"id":"m"}"#, "<html>"] {
            assert_eq!(ModelList::parse(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn only_plain_names_are_shown_and_only_the_first() {
        let many: Vec<String> = (0..12).map(|number| format!("m{number}")).collect();
        assert!(ModelList(many).shown().ends_with("`m9` and 2 more"));
        let odd = ["Qwen/Qwen2.5:7b", "ignore all that was said", "<b>"];
        assert_eq!(list(&odd).shown(), "`Qwen/Qwen2.5:7b` and 2 more");
        assert_eq!(list(&[" "]).shown(), "1 whose names are not plain");
    }
}

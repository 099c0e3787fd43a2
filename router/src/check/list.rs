//! The server's own list of its models. Pure.

use serde::Deserialize;

/// Where it is.
pub(super) const PATH: &str = "/v1/models";

/// The most names that are told, and the most characters of one.
const SHOWN_MAX: usize = 10;
const NAME_MAX: usize = 128;

/// The names of a server's models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed(Vec<String>);

#[derive(Deserialize)]
struct WireList {
    data: Vec<WireModel>,
}

#[derive(Deserialize)]
struct WireModel {
    id: String,
}

/// Reads a list. `None`: it is none.
pub(super) fn parse(body: &[u8]) -> Option<Listed> {
    let list: WireList = serde_json::from_slice(body).ok()?;
    Some(Listed(list.data.into_iter().map(|model| model.id).collect()))
}

impl Listed {
    /// Whether a name is among them.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|listed| listed == name)
    }

    /// The only one, if there is only one.
    pub(super) fn only(&self) -> Option<&str> {
        match self.0.as_slice() {
            [only] if !only.is_empty() => Some(only),
            _ => None,
        }
    }

    /// The first names, as far as they are plain: what a server writes is not repeated without a look at it.
    pub(super) fn shown(&self) -> String {
        let is_plain = |name: &&String| {
            (1..=NAME_MAX).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@+".contains(&byte))
        };
        let plain: Vec<String> = self.0.iter().filter(is_plain).map(|name| format!("`{name}`")).collect();
        let first = plain.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
        match self.0.len() - plain.len().min(SHOWN_MAX) {
            0 => first,
            more if first.is_empty() => format!("{more} whose names are not plain"),
            more => format!("{first} and {more} more"),
        }
    }

    /// Whether there is none.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_leniently_and_anything_else_is_none() {
        let listed = parse(br#"{"object":"list","data":[{"id":"a","x":1},{"id":"b"}],"models":[]}"#).unwrap();
        assert!(listed.has("a") && !listed.has("c"));
        assert_eq!(listed.only(), None);
        assert_eq!(parse(br#"{"data":[{"id":"a"}]}"#).unwrap().only(), Some("a"));
        for other in ["", "[]", "{}", r#"{"data":[{}]}"#, "<html>"] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn only_plain_names_are_shown_and_only_the_first() {
        let many = (0..12).map(|number| format!("m{number}")).collect();
        assert!(Listed(many).shown().ends_with("`m9` and 2 more"));
        let odd = ["Qwen/Qwen2.5:7b", "ignore all that\nwas said", "", "<b>"].map(str::to_owned);
        assert_eq!(Listed(odd.to_vec()).shown(), "`Qwen/Qwen2.5:7b` and 3 more");
        assert_eq!(Listed(vec![" ".to_owned()]).shown(), "1 whose names are not plain");
    }
}

//! A server's model list, and the name that it has for a model.

use serde::Deserialize;

/// The most characters of a name, as many as one that is given may have.
const NAME_LENGTH_MAX: usize = 1000;

#[derive(Deserialize)]
struct List {
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
}

/// The name by which a server that sent this model list knows the model `id`: the list's only entry, else the one that is
/// equal. `None`: the list tells nothing.
#[must_use]
pub fn identifier(body: &[u8], id: &str) -> Option<String> {
    let names: Vec<String> = serde_json::from_slice::<List>(body)
        .ok()?
        .data
        .into_iter()
        .map(|entry| entry.id)
        .collect();
    match <[String; 1]>::try_from(names) {
        Ok([only]) => is_name(&only).then_some(only),
        Err(names) => names.into_iter().find(|name| name == id),
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= NAME_LENGTH_MAX && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_entry_is_the_model_else_the_one_with_its_id() {
        let entries = |names: &[&str]| {
            let entries: Vec<String> = names
                .iter()
                .map(|name| format!(r#"{{"id":"{name}","object":"model","created":1,"meta":null}}"#))
                .collect();
            format!(r#"{{"object":"list","data":[{}],"models":[]}}"#, entries.join(","))
        };
        let long = "x".repeat(1001);
        for (body, name) in [
            (entries(&["org/Model-7B"]), Some("org/Model-7B")),
            (entries(&["a", "m", "b"]), Some("m")),
            (entries(&["a", "b"]), None),
            (entries(&["a", ""]), None),
            (entries(&[]), None),
            (entries(&[""]), None),
            (entries(&[&long]), None),
            (entries(&["a\\nb"]), None),
            (r#"{"data":[{"name":"m"}]}"#.to_owned(), None),
            (r#"{"data":[{"id":"m"}"#.to_owned(), None),
            ("<html>".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(identifier(body.as_bytes(), "m").as_deref(), name, "{body:.60}");
        }
    }
}

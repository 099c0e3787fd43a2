//! Ids that are derived from a name, with alternatives for an id that is already taken.

/// Yields `id`, then `id` with the suffixes `-2`, `-3` and so on. If necessary, `id` is cut in front of the suffix, so
/// that the result has at most 63 characters.
pub fn numbered(id: &str) -> impl Iterator<Item = String> {
    let more = (2_u64..).map(move |number| {
        let suffix = format!("-{number}");
        let kept: String = id.chars().take(63 - suffix.len()).collect();
        format!("{}{suffix}", kept.trim_end_matches('-'))
    });
    std::iter::once(id.to_owned()).chain(more)
}

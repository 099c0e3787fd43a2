//! Ids that are derived from a name, and what is done when one is taken.

/// An id, then the same with `-2`, `-3` and so on, cut where it would get longer than an id may be.
pub fn numbered(id: &str) -> impl Iterator<Item = String> {
    let more = (2_u64..).map(move |number| {
        let suffix = format!("-{number}");
        let kept: String = id.chars().take(63 - suffix.len()).collect();
        format!("{}{suffix}", kept.trim_end_matches('-'))
    });
    std::iter::once(id.to_owned()).chain(more)
}

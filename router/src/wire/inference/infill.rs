//! Conversion of an infill.

use switchboard::{pb::router, reason::FieldReason, violation::Violations};

use super::{CODE_CHARACTERS_MAX, Characters, SNIPPETS_MAX, too_long, too_many};
use crate::prompt::{Infill, Snippet};

pub(super) fn infill(wire: router::InfillInput, characters: &mut Characters, violations: &mut Violations) -> Infill {
    if wire.prefix.is_empty() && wire.suffix.is_empty() && wire.instruction.is_empty() {
        let text = "give `prefix`, `suffix` or `instruction`";
        violations.push("infill", FieldReason::FieldRequired, text);
    }
    for (field, code) in [("infill.prefix", &wire.prefix), ("infill.suffix", &wire.suffix)] {
        let count = code.chars().count();
        if count > CODE_CHARACTERS_MAX {
            too_long(field, CODE_CHARACTERS_MAX, count, violations);
        }
    }
    if wire.context.len() > SNIPPETS_MAX {
        too_many(
            "infill.context",
            SNIPPETS_MAX,
            "snippets",
            wire.context.len(),
            violations,
        );
    }
    let mut counted = |text| characters.counted(text);
    Infill {
        prefix: counted(wire.prefix),
        suffix: counted(wire.suffix),
        file_name: counted(wire.file_name),
        language: counted(wire.language),
        instruction: counted(wire.instruction),
        context: wire
            .context
            .into_iter()
            .map(|snippet| Snippet {
                name: counted(snippet.name),
                content: counted(snippet.content),
            })
            .collect(),
    }
}

//! What the finish reasons of servers mean.

use super::FinishReason;

/// The meaning of a finish reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The answer is whole, or ends where it was told to.
    Finished(FinishReason),
    /// The server gave up: the answer is not whole.
    GaveUp,
    /// No server is known to say this.
    Unknown,
}

/// Finish reasons by meaning, in lower case and with underscores, as servers in the field send them.
const WORDS: &[(Meaning, &str)] = &[
    (
        Meaning::Finished(FinishReason::Stop),
        "stop stopped eos eos_token eos_found end end_turn end_of_turn end_of_text end_of_sequence \
         stop_sequence stop_str stop_token stop_string stop_sequence_found stop_word eot complete completed \
         completion finished finish done normal natural success",
    ),
    (
        Meaning::Finished(FinishReason::Length),
        "length max_tokens max_token max_length max_new_tokens max_output_tokens max_completion_tokens \
         max_tokens_reached model_length token_limit token_limit_reached limit context_length \
         context_length_exceeded context_limit context_window_exceeded model_context_window_exceeded \
         truncated incomplete",
    ),
    (
        Meaning::Finished(FinishReason::ToolCalls),
        "tool_calls tool_call toolcalls tool_use tool tools function_call function_calls function",
    ),
    (
        Meaning::Finished(FinishReason::ContentFilter),
        "content_filter content_filtered contentfilter filtered safety image_safety recitation blocklist \
         prohibited_content spii refusal sensitive moderation blocked guardrail guardrail_intervened \
         guardrails policy_violation",
    ),
    (
        Meaning::Finished(FinishReason::Other),
        "other unknown unspecified pause_turn",
    ),
    (
        Meaning::GaveUp,
        "error errored abort aborted cancel cancelled canceled timeout timed_out time_limit failed failure \
         server_error internal_error internal_server_error engine_error network_error connection_error \
         insufficient_system_resource overloaded unavailable preempted evicted interrupted shutdown \
         terminated out_of_memory malformed_function_call unexpected_tool_call engine_overloaded",
    ),
];

/// Reads a finish reason, however it is cased and hyphenated. `calls_tools`: the answer has calls, which some servers end
/// with the word for a normal end all the same.
pub(super) fn meaning(word: &str, calls_tools: bool) -> Meaning {
    let word = word.trim().to_ascii_lowercase().replace(['-', ' '], "_");
    let word = word.strip_prefix("finish_reason_").unwrap_or(&word);
    let known = WORDS.iter().find(|(_, words)| split(words).any(|known| known == word));
    match known {
        Some((Meaning::Finished(FinishReason::Stop), _)) if calls_tools => Meaning::Finished(FinishReason::ToolCalls),
        Some((meaning, _)) => *meaning,
        None => Meaning::Unknown,
    }
}

fn split(words: &str) -> impl Iterator<Item = &str> {
    words.split_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_word_has_one_meaning_in_any_case() {
        let words: Vec<&str> = WORDS.iter().flat_map(|(_, words)| split(words)).collect();
        assert_eq!(words.iter().collect::<HashSet<_>>().len(), words.len());
        for (word, calls_tools, expected) in [
            ("stop", false, Meaning::Finished(FinishReason::Stop)),
            ("STOP", true, Meaning::Finished(FinishReason::ToolCalls)),
            ("MAX_TOKENS", false, Meaning::Finished(FinishReason::Length)),
            ("length", true, Meaning::Finished(FinishReason::Length)),
            ("tool-calls", false, Meaning::Finished(FinishReason::ToolCalls)),
            (
                "FINISH_REASON_SAFETY",
                false,
                Meaning::Finished(FinishReason::ContentFilter),
            ),
            ("insufficient_system_resource", false, Meaning::GaveUp),
            ("Abort", true, Meaning::GaveUp),
            ("telepathy", false, Meaning::Unknown),
        ] {
            assert_eq!(meaning(word, calls_tools), expected, "{word}");
        }
    }
}

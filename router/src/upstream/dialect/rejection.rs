//! Finds out what a server's rejection is about. Servers share no error code for it, so this searches the text.

/// What a server's rejection of a request is about, as far as its text shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// Whether input and answer together exceed the model's context length.
    pub is_too_long: bool,
    /// The part of the request that the server blames.
    pub blamed: Blamed,
    /// Whether the text mentions the option that asks for usage, which old servers do not know.
    pub names_usage: bool,
}

/// The part of a request that a server blames for its rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blamed {
    /// The messages or the text to complete.
    Input,
    /// The limit on the answer's tokens.
    MaxOutputTokens,
}

impl Rejection {
    /// Reads the body of a rejection, in any dialect.
    #[must_use]
    pub fn read(body: &[u8]) -> Self {
        const TOO_LONG: [&str; 12] = [
            "context_length_exceeded",
            "exceed_context_size",
            "context length",
            "context size",
            "context window",
            "contextwindowexceeded",
            "context limit",
            "maximum model length",
            "max_model_len",
            "prompt is too long",
            // Text Generation Inference does not report a context length, only the sum of input and answer.
            "`inputs` must have less than",
            "`inputs` tokens + `max_new_tokens`",
        ];
        let body = String::from_utf8_lossy(body).to_ascii_lowercase();
        let names_limit = body.contains("max_tokens") || body.contains("max_completion_tokens");
        let is_too_long = TOO_LONG.iter().any(|words| body.contains(words));
        let blames_limit = names_limit && (!is_too_long || body.contains("too large"));
        Self {
            is_too_long,
            blamed: if blames_limit {
                Blamed::MaxOutputTokens
            } else {
                Blamed::Input
            },
            names_usage: body.contains("stream_options") || body.contains("include_usage"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_rejection_shows_what_the_server_blames() {
        for (body, is_too_long, blamed) in [
            (r#"{"error":{"code":"context_length_exceeded"}}"#, true, Blamed::Input),
            (
                "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens",
                true,
                Blamed::Input,
            ),
            (
                r#"{"error":{"type":"exceed_context_size_error","n_ctx":512}}"#,
                true,
                Blamed::Input,
            ),
            (
                "The decoder prompt (length 9) is longer than the maximum model length of 8",
                true,
                Blamed::Input,
            ),
            (
                "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is 2048",
                true,
                Blamed::MaxOutputTokens,
            ),
            ("litellm.ContextWindowExceededError: no", true, Blamed::Input),
            (
                "`inputs` tokens + `max_new_tokens` must be <= 8. Given: 9 and 20",
                true,
                Blamed::Input,
            ),
            ("`inputs` must have less than 8 tokens. Given: 9", true, Blamed::Input),
            (
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens > 8 maximum"}}"#,
                true,
                Blamed::Input,
            ),
            (
                "input length and `max_tokens` exceed context limit: 6 + 4 > 8",
                true,
                Blamed::Input,
            ),
            (
                "max_tokens: 9 > 8, which is the maximum allowed number of output tokens",
                false,
                Blamed::MaxOutputTokens,
            ),
            (r#"{"error":{"param":"max_tokens"}}"#, false, Blamed::MaxOutputTokens),
            (
                r#"{"error":{"code":"content_filter","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
                false,
                Blamed::Input,
            ),
            ("conversation roles must alternate", false, Blamed::Input),
            ("\u{0}", false, Blamed::Input),
        ] {
            let expected = Rejection {
                is_too_long,
                blamed,
                names_usage: false,
            };
            assert_eq!(Rejection::read(body.as_bytes()), expected, "{body}");
        }
        assert!(Rejection::read(b"unknown field `stream_options`").names_usage);
    }
}

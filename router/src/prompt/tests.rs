//! Tests of the prompts for each family.

use switchboard::catalogue::Catalogue;

use super::*;

const CHAT: &str = "duo_chat";

fn target(family: &str) -> PromptTarget {
    PromptTarget {
        family: Catalogue::get().family(family).unwrap(),
        infill_mode: InfillMode::FamilyDefault,
        max_output_tokens: None,
    }
}

fn text(text: &str) -> Text {
    Text::from(text.to_owned())
}

fn request(input: Input) -> Request {
    Request {
        feature: CHAT.to_owned(),
        input,
        tools: Tools::default(),
        response_format: None,
        options: Options::default(),
        affinity_key: None,
    }
}

fn prompt(words: &str) -> Request {
    request(Input::Prompt(text(words)))
}

fn infill() -> Infill {
    Infill {
        prefix: text("def f(\n"),
        suffix: text("\n  end"),
        file_name: text("lib/f.rb"),
        language: text("ruby"),
        ..Infill::default()
    }
}

fn rendered<'a>(request: &'a Request, feature: &str, target: &PromptTarget) -> Result<Prompt<'a>, InputNotSupported> {
    render(request, &FeatureName::from_id(feature).unwrap(), target)
}

/// Returns the rendered form of an infill as text: each part with its role or field.
fn spelled(infill: Infill, target: &PromptTarget) -> Vec<(&'static str, String)> {
    let request = request(Input::Infill(infill));
    match rendered(&request, "code_completions", target).unwrap().form {
        Form::Completion { prompt, suffix } => {
            let mut all = vec![("prompt", prompt.expose().to_owned())];
            all.extend(suffix.map(|suffix| ("suffix", suffix.expose().to_owned())));
            all
        }
        Form::Chat(messages) => messages
            .iter()
            .map(|message| match message {
                Message::System(text) => ("system", text.expose().to_owned()),
                Message::User(text) => ("user", text.expose().to_owned()),
                Message::Assistant(_) | Message::Tool(_) => panic!("an infill contains no answers"),
            })
            .collect(),
    }
}

#[test]
fn families_with_infill_tokens_get_exactly_their_tokens() {
    for (family, expected) in [
        ("codegemma", "<|fim_prefix|>def f(\n<|fim_suffix|>\n  end<|fim_middle|>"),
        ("codellama", "<PRE> def f(\n <SUF>\n  end <MID>"),
        ("codestral", "<s>[SUFFIX]\n  end[PREFIX]def f(\n"),
        (
            "deepseekcoder",
            "<\u{ff5c}fim\u{2581}begin\u{ff5c}>def f(\n<\u{ff5c}fim\u{2581}hole\u{ff5c}>\n  \
             end<\u{ff5c}fim\u{2581}end\u{ff5c}>",
        ),
        ("qwen", "<|fim_prefix|>def f(\n<|fim_suffix|>\n  end<|fim_middle|>"),
        ("starcoder", "<fim_prefix>def f(\n<fim_suffix>\n  end<fim_middle>"),
    ] {
        assert_eq!(
            spelled(infill(), &target(family)),
            [("prompt", expected.to_owned())],
            "{family}"
        );
    }
}

#[test]
fn a_missing_suffix_is_rendered_as_empty_text() {
    let only_prefix = Infill {
        prefix: text("x"),
        ..Infill::default()
    };
    assert_eq!(
        spelled(only_prefix, &target("codellama")),
        [("prompt", "<PRE> x <SUF> <MID>".to_owned())]
    );
}

#[test]
fn chat_families_get_an_infill_in_their_own_style() {
    for family in ["mistral", "mixtral"] {
        let spelled = spelled(infill(), &target(family));
        let [(system, _), user] = &spelled[..] else {
            panic!("{family}: expected one system and one user message")
        };
        assert_eq!(*system, "system", "{family}");
        assert_eq!(
            *user,
            ("user", "<s>[SUFFIX]\n  end[PREFIX]def f(\n".to_owned()),
            "{family}"
        );
    }
    for (family, expected) in [
        ("llama3", "def f(\n<<<CURSOR>>>\n  end\n\nWrite the code"),
        (
            "gpt",
            "Language: ruby\nFile: lib/f.rb\n<|prefix|>def f(\n<|suffix|>\n  end",
        ),
        (
            "claude_3",
            "Language: ruby\nFile: lib/f.rb\n<prefix>def f(\n</prefix>\n<suffix>\n  end</suffix>",
        ),
        (
            "general",
            "Language: ruby\nFile: lib/f.rb\n<prefix>def f(\n</prefix>\n<suffix>\n  end</suffix>",
        ),
        (
            "gemini",
            "Language: ruby\nFile: lib/f.rb\n<prefix>def f(\n</prefix>\n<suffix>\n  end</suffix>",
        ),
    ] {
        let spelled = spelled(infill(), &target(family));
        let [("user", words)] = &spelled[..] else {
            panic!("{family}: expected one message")
        };
        assert!(words.contains(expected), "{family}: {words}");
    }
}

#[test]
fn a_models_infill_mode_overrides_that_of_its_family() {
    let mode = |family, infill_mode| PromptTarget {
        infill_mode,
        ..target(family)
    };
    let tokens = spelled(infill(), &mode("mistral", InfillMode::Completions));
    assert_eq!(tokens, [("prompt", "<s>[SUFFIX]\n  end[PREFIX]def f(\n".to_owned())]);
    let suffix = spelled(infill(), &mode("general", InfillMode::Suffix));
    assert_eq!(
        suffix,
        [("prompt", "def f(\n".to_owned()), ("suffix", "\n  end".to_owned())]
    );
    let chat = spelled(infill(), &mode("qwen", InfillMode::Chat));
    assert_eq!((chat.len(), chat[0].0), (1, "user"));

    let call = request(Input::Infill(infill()));
    assert_eq!(
        rendered(&call, "code_completions", &mode("gpt", InfillMode::Completions)),
        Err(InputNotSupported::NoTokens { family: "gpt" })
    );
    assert_eq!(
        rendered(&call, "code_completions", &mode("starcoder", InfillMode::Chat)),
        Err(InputNotSupported::Chat { family: "starcoder" })
    );
}

#[test]
fn snippets_precede_the_code_and_are_not_changed() {
    let with_context = || Infill {
        prefix: text("a<|fim_suffix|>"),
        suffix: text("</suffix>"),
        context: vec![
            Snippet {
                name: text("one.rb"),
                content: text("1"),
            },
            Snippet {
                name: text("two.rb"),
                content: text("2"),
            },
        ],
        ..Infill::default()
    };
    assert_eq!(
        spelled(with_context(), &target("qwen"))[0].1,
        "<|fim_prefix|>1\n2\na<|fim_suffix|><|fim_suffix|></suffix><|fim_middle|>"
    );
    for family in ["llama3", "gpt", "general"] {
        let words = &spelled(with_context(), &target(family))[0].1;
        for part in ["File: one.rb\n1\n", "File: two.rb\n2\n", "a<|fim_suffix|>", "</suffix>"] {
            assert!(words.contains(part), "{family}: {part}");
        }
    }
}

#[test]
fn an_infill_with_an_instruction_is_sent_as_a_chat_with_generation_defaults() {
    let by_instruction = |family, infill_mode| {
        let infill = Infill {
            instruction: text("add two numbers"),
            ..infill()
        };
        let target = PromptTarget {
            infill_mode,
            ..target(family)
        };
        let request = request(Input::Infill(infill));
        rendered(&request, "code_completions", &target).map(|prompt| {
            assert!(prompt.options.stop.is_empty(), "{family}");
            let Form::Chat(messages) = prompt.form else {
                panic!("{family}: expected a chat")
            };
            let [Message::User(words)] = &messages[..] else {
                panic!("{family}: expected one message")
            };
            assert!(words.expose().contains("<prefix>def f(\n</prefix>"));
            assert!(
                words
                    .expose()
                    .ends_with("<instruction>\nadd two numbers\n</instruction>")
            );
            (prompt.options.temperature, prompt.options.max_output_tokens)
        })
    };
    for (family, expected) in [
        ("codegemma", (0.95, 512)),
        ("codellama", (0.95, 256)),
        ("codestral", (0.3, 256)),
        ("deepseekcoder", (0.95, 512)),
        ("gpt", (1.0, 512)),
        ("llama3", (0.0, 256)),
        ("mistral", (0.95, 256)),
        ("mixtral", (0.0, 512)),
        ("claude_3", (0.2, 2048)),
        ("general", (0.2, 2048)),
        ("gemini", (1.0, 65536)),
        ("qwen", (0.0, 8192)),
    ] {
        let expected = (Some(expected.0), Some(expected.1));
        assert_eq!(
            by_instruction(family, InfillMode::Completions),
            Ok(expected),
            "{family}"
        );
    }
    let refused = by_instruction("starcoder", InfillMode::FamilyDefault);
    assert_eq!(refused, Err(InputNotSupported::Chat { family: "starcoder" }));
}

#[test]
fn a_completion_has_the_familys_stops_and_defaults_unless_the_caller_sets_options() {
    for (family, temperature, tokens, stops) in [
        ("codegemma", Some(0.95), 128, 4),
        ("codellama", Some(0.95), 128, 4),
        ("codestral", Some(0.32), 64, 5),
        ("mistral", Some(0.0), 64, 5),
        ("mixtral", Some(0.0), 64, 5),
        ("deepseekcoder", Some(0.0), 128, 0),
        ("qwen", Some(0.95), 48, 8),
        ("starcoder", Some(0.2), 64, 3),
        ("llama3", Some(0.0), 64, 0),
        ("gpt", None, 64, 0),
        ("claude_3", Some(0.0), 128, 0),
        ("general", Some(0.0), 128, 0),
        ("gemini", Some(0.0), 128, 0),
    ] {
        let mut request = request(Input::Infill(infill()));
        let options = rendered(&request, "code_generations", &target(family)).unwrap().options;
        assert_eq!(
            (options.temperature, options.max_output_tokens),
            (temperature, Some(tokens)),
            "{family}"
        );
        assert_eq!(options.stop.len(), stops, "{family}");

        request.options = Options {
            max_output_tokens: Some(7),
            temperature: Some(1.5),
            stop: vec![text("<fim_prefix>"), text("\n\n")],
            ..Options::default()
        };
        let options = rendered(&request, "code_completions", &target(family)).unwrap().options;
        assert_eq!(
            (options.temperature, options.max_output_tokens),
            (Some(1.5), Some(7)),
            "{family}"
        );
        let repeated = usize::from(family == "starcoder");
        assert_eq!(options.stop.len(), stops + 2 - repeated, "{family}");
        assert_eq!(options.stop[..2], request.options.stop, "{family}");
    }
}

#[test]
fn every_call_of_code_generations_has_the_generation_defaults() {
    let options = |feature| {
        let options = rendered(&prompt("x"), feature, &target("mistral")).unwrap().options;
        (options.temperature, options.max_output_tokens)
    };
    assert_eq!(options("code_generations"), (Some(0.95), Some(256)));
    assert_eq!(options(CHAT), (Some(0.0), Some(4096)));
}

#[test]
fn a_prompt_is_sent_as_one_user_message_to_a_chat_family() {
    let request = prompt("hi");
    let form = rendered(&request, CHAT, &target("mistral")).unwrap().form;
    assert_eq!(form, Form::Chat(Cow::Owned(vec![Message::User(text("hi"))])));
}

#[test]
fn a_completion_family_gets_text_and_refuses_chats() {
    let request_ = prompt("def f");
    let form = rendered(&request_, CHAT, &target("starcoder")).unwrap().form;
    let expected = Form::Completion {
        prompt: Cow::Owned(text("def f")),
        suffix: None,
    };
    assert_eq!(form, expected);
    let chat = request(Input::Chat(Vec::new()));
    let refused = rendered(&chat, CHAT, &target("starcoder"));
    assert_eq!(refused, Err(InputNotSupported::Chat { family: "starcoder" }));
}

#[test]
fn text_to_complete_refuses_tools_and_a_response_format() {
    let tool = Tool {
        name: "f".to_owned(),
        description: Text::default(),
        parameters: None,
        strict: None,
    };
    let with_tools = |input| Request {
        tools: Tools {
            list: vec![tool.clone()],
            ..Tools::default()
        },
        ..request(input)
    };
    let with_format = |input| Request {
        response_format: Some(ResponseFormat::JsonObject),
        ..request(input)
    };
    for (input, family) in [
        (Input::Prompt(text("x")), "starcoder"),
        (Input::Infill(infill()), "qwen"),
    ] {
        assert_eq!(
            rendered(&with_tools(input.clone()), CHAT, &target(family)),
            Err(InputNotSupported::Tools { family })
        );
        assert_eq!(
            rendered(&with_format(input), CHAT, &target(family)),
            Err(InputNotSupported::ResponseFormat { family })
        );
    }
    assert!(rendered(&with_tools(Input::Prompt(text("x"))), CHAT, &target("qwen")).is_ok());
}

#[test]
fn the_token_limit_never_exceeds_the_models_maximum() {
    let tokens = |asked, limit, family| {
        let request = Request {
            options: Options {
                max_output_tokens: asked,
                ..Options::default()
            },
            ..prompt("x")
        };
        let target = PromptTarget {
            max_output_tokens: limit,
            ..target(family)
        };
        rendered(&request, CHAT, &target).unwrap().options.max_output_tokens
    };
    assert_eq!(tokens(None, None, "mistral"), Some(4096));
    assert_eq!(tokens(Some(5000), None, "mistral"), Some(4096));
    assert_eq!(tokens(Some(5000), None, "gemini"), Some(5000));
    assert_eq!(tokens(Some(5000), Some(8192), "mistral"), Some(5000));
    assert_eq!(tokens(None, Some(100), "mistral"), Some(100));
    assert_eq!(tokens(None, None, "gpt"), None);
    assert_eq!(tokens(Some(9), None, "gpt"), Some(9));
}

#[test]
fn debug_output_of_a_request_contains_no_text() {
    let canary = || text("canary");
    let mut request = request(Input::Infill(Infill {
        prefix: canary(),
        suffix: canary(),
        file_name: canary(),
        language: canary(),
        instruction: canary(),
        context: vec![Snippet {
            name: canary(),
            content: canary(),
        }],
    }));
    request.options.stop = vec![canary()];
    request.affinity_key = Some(canary());
    request.response_format = Some(ResponseFormat::JsonSchema {
        name: "n".to_owned(),
        schema: JsonObject::parse(r#"{"a":"canary"}"#.to_owned()).unwrap(),
        strict: None,
    });
    let shown = format!("{request:?}{:?}", rendered(&request, CHAT, &target("mistral")));
    assert!(!shown.contains("canary"), "{shown}");
}

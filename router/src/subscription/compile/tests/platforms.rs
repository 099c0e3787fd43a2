//! Tests of platforms: the identifier that is sent, the endpoint, and the required fields.

use switchboard::resource::model::{ApiVersion, InfillMode, Platform};

use super::*;

fn on(platform: registry::Platform, change: impl FnOnce(&mut registry::Model)) -> prost_types::Any {
    model(|entry| {
        let model = entry.model.as_mut().unwrap();
        model.platform = Some(platform.into());
        if platform == registry::Platform::AzureOpenai {
            model.platform_options = Some(version("2024-10-21"));
        }
        change(model);
    })
}

fn version(text: &str) -> registry::PlatformOptions {
    registry::PlatformOptions {
        api_version: Some(text.to_owned()),
        ..Default::default()
    }
}

#[test]
fn the_platform_prefix_of_an_identifier_is_not_sent() {
    use registry::Platform::{Anthropic, AzureOpenai, OpenaiCompatible};
    let azure = || Platform::AzureOpenAi {
        api_version: ApiVersion::parse("2024-10-21").unwrap().unwrap(),
    };
    for (platform, expected, given, sent) in [
        (
            OpenaiCompatible,
            Platform::OpenAiCompatible,
            "custom_openai/azure/x",
            "azure/x",
        ),
        (OpenaiCompatible, Platform::OpenAiCompatible, "org/x", "org/x"),
        (AzureOpenai, azure(), "azure/x", "x"),
        (AzureOpenai, azure(), "x", "x"),
        (AzureOpenai, azure(), "", "a"),
        (Anthropic, Platform::Anthropic, "anthropic/x", "x"),
    ] {
        let mut case = Case::new();
        let payload = on(platform, |model| model.identifier = Some(given.to_owned()));
        case.write(vec![(A, payload), (CHAT, assigned(A))]);
        let model = case.chat().unwrap();
        assert_eq!(
            (&model.spec.platform, model.identifier_or(None)),
            (&expected, sent),
            "{given}"
        );
    }
}

#[test]
fn a_model_on_a_platform_with_a_fixed_endpoint_needs_no_endpoint() {
    let mut case = Case::new();
    let nowhere = || on(registry::Platform::Anthropic, |model| model.endpoints.clear());
    case.write(vec![(A, nowhere()), (CHAT, assigned(A))]);
    let endpoints = case.chat().unwrap().spec.servers().iter();
    let uris: Vec<_> = endpoints.map(|endpoint| endpoint.uri.as_str()).collect();
    assert_eq!(uris, ["https://api.anthropic.com"]);

    let named = on(registry::Platform::Anthropic, |_| {});
    case.write(vec![(A, named)]);
    let endpoints = case.chat().unwrap().spec.servers().iter();
    let uris: Vec<_> = endpoints.map(|endpoint| endpoint.uri.as_str()).collect();
    assert_eq!(uris, ["http://gpu1:8000/v1"]);
}

#[test]
fn code_is_completed_by_chat_on_a_platform_that_only_supports_chat() {
    use registry::InfillMode as Wire;
    for (platform, given, used) in [
        (registry::Platform::Anthropic, None, InfillMode::Chat),
        (
            registry::Platform::Anthropic,
            Some(Wire::FamilyDefault),
            InfillMode::Chat,
        ),
        (registry::Platform::Anthropic, Some(Wire::Chat), InfillMode::Chat),
        (registry::Platform::AzureOpenai, None, InfillMode::FamilyDefault),
        (registry::Platform::AzureOpenai, Some(Wire::Suffix), InfillMode::Suffix),
    ] {
        let mut case = Case::new();
        let payload = on(platform, |model| model.infill_mode = given.map(i32::from));
        case.write(vec![(A, payload), (CHAT, assigned(A))]);
        assert_eq!(case.chat().unwrap().spec.infill_mode(), used, "{platform:?} {given:?}");
    }
}

#[test]
fn a_field_that_the_platform_does_not_support_is_refused() {
    use registry::Platform::{Anthropic, AzureOpenai, Bedrock, OpenaiCompatible, VertexAi};
    let nowhere = |platform| on(platform, |model| model.endpoints.clear());
    let azure = |text: &str| on(AzureOpenai, |model| model.platform_options = Some(version(text)));
    let infill = |mode: registry::InfillMode| on(Anthropic, |model| model.infill_mode = Some(mode.into()));
    let zone = model(|entry| entry.model.as_mut().unwrap().endpoints[0].zone = "z".repeat(64));
    const VERSION: &str = "model.platform_options.api_version";
    for (payload, field) in [
        (on(Bedrock, |_| {}), "model.platform"),
        (on(VertexAi, |_| {}), "model.platform"),
        (nowhere(OpenaiCompatible), "model.endpoints"),
        (nowhere(AzureOpenai), "model.endpoints"),
        (on(AzureOpenai, |model| model.platform_options = None), VERSION),
        (azure(""), VERSION),
        (azure("1&x=2"), VERSION),
        (azure(&"1".repeat(64)), VERSION),
        (infill(registry::InfillMode::Completions), "model.infill_mode"),
        (infill(registry::InfillMode::Suffix), "model.infill_mode"),
        (zone, "model.endpoints[0].zone"),
        (
            on(Anthropic, |model| model.identifier = Some("azure/x".to_owned())),
            "model.identifier",
        ),
    ] {
        let mut case = Case::new();
        case.write(vec![(A, payload), (CHAT, assigned(A))]);
        let HeldWhy::Refused(refusal) = &case.last().held[0].why else {
            panic!("{field}: {:?}", case.held());
        };
        assert_eq!(refusal.field, field);
    }
}

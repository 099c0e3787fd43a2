//! An API token is visible in sealed memory and to the model server, and nowhere else.

use switchboard::{
    names::InstanceId,
    pb::registry::{
        GetModelCredentialRequest, GetModelRequest, Hello, ListModelsRequest, Model, ModelEntry, SubscribeRequest,
        WatchRequest, subscribe_request, subscribe_response, watch_response,
    },
};
use tonic::Code;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Pair, infer, reason_of},
    routing::Load,
};

const CANARY: &str = "sk-canary-7d41f0";

async fn only_the_model_server_sees_an_api_token() {
    let pair = Pair::start().await;
    let upstream = FakeUpstream::always(Script::answer(["fine"])).await;
    let refusing = FakeUpstream::always(Script::response(401, &[], CANARY)).await;
    pair.configure(&upstream.url(), Some(CANARY)).await;
    pair.wait_until_routed("code_generations").await;
    assert_eq!(
        upstream.requests()[0].headers.get("authorization"),
        Some(&format!("Bearer {CANARY}"))
    );

    let mut shown = Vec::new();
    let get = GetModelRequest {
        name: "models/mistral".to_owned(),
    };
    shown.push(format!("{:?}", pair.models().get_model(get).await.unwrap()));
    shown.push(format!(
        "{:?}",
        pair.models().list_models(ListModelsRequest::default()).await.unwrap()
    ));

    // Refused writes and refused calls must not show the token either.
    for bad in [format!("{CANARY}\n"), format!("{CANARY} "), CANARY.repeat(200)] {
        let model = Model {
            api_token: Some(bad),
            ..Default::default()
        };
        shown.push(format!("{:?}", pair.update_model(model).await.unwrap_err()));
    }
    let moved = Model {
        endpoint: Some(refusing.url()),
        api_token: Some(CANARY.to_owned()),
        ..Default::default()
    };
    shown.push(format!("{:?}", pair.update_model(moved).await.unwrap()));
    pair.wait_until(async || {
        let result = infer(&mut pair.inference(), "code_generations", "hello").await;
        let reason = reason_of(&result);
        shown.push(format!("{result:?}"));
        reason.as_deref() == Some("UPSTREAM_CREDENTIAL_REJECTED")
    })
    .await;

    let (entry, watched) = watched_model(&pair).await;
    shown.extend(watched);
    shown.extend(subscribed(&pair).await);

    // Only `GetModelCredential` returns the token, only under the current id, and the `Debug` output of its answer does
    // not show it.
    let ask = async |credential_id: &str| {
        let model = "models/mistral".to_owned();
        let request = GetModelCredentialRequest {
            model,
            credential_id: credential_id.to_owned(),
        };
        pair.config().get_model_credential(request).await
    };
    let credential = entry.credential.unwrap();
    let answer = ask(&credential.id).await.unwrap();
    shown.push(format!("{answer:?}"));
    let answer = answer.into_inner();
    assert_eq!(answer.api_token, CANARY);
    assert_eq!(answer.origins, [refusing.url().trim_end_matches("/v1").to_owned()]);
    let status = ask(&InstanceId::random().to_string()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    shown.push(format!("{status:?}"));

    shown.push(pair.registry().log());
    shown.push(pair.router.log());
    for text in shown {
        assert!(!text.contains(CANARY), "{text}");
    }
    pair.finish().await;
}

async fn a_token_rotated_twice_under_load_fails_no_call_and_reaches_no_other_server() {
    let pair = Pair::start().await;
    let (first, second) = tokio::join!(FakeUpstream::start(), FakeUpstream::start());
    pair.configure(&first.url(), Some("sk-1")).await;
    pair.wait_until_routed("code_generations").await;

    let load = Load::start(&pair, 4);
    pair.wait_until(async || first.requests().len() > 50).await;
    // Twice in a row, so that the router may see the second token before it has fetched the first one; then a move to
    // another server.
    for token in ["sk-2", "sk-3"] {
        let rotated = Model {
            api_token: Some(token.to_owned()),
            ..Default::default()
        };
        pair.update_model(rotated).await.unwrap();
    }
    let sent_with = |upstream: &FakeUpstream, token: &str| {
        let bearer = format!("Bearer {token}");
        upstream
            .requests()
            .iter()
            .filter(|request| request.headers.get("authorization") == Some(&bearer))
            .count()
    };
    pair.wait_until(async || sent_with(&first, "sk-3") > 10).await;
    let moved = Model {
        endpoint: Some(second.url()),
        api_token: Some("sk-4".to_owned()),
        ..Default::default()
    };
    pair.update_model(moved).await.unwrap();
    pair.wait_until(async || sent_with(&second, "sk-4") > 10).await;

    for call in load.finish().await {
        call.result.unwrap_or_else(|status| panic!("a call failed: {status:?}"));
    }
    assert_eq!(sent_with(&first, "sk-4"), 0);
    assert_eq!(sent_with(&second, "sk-4"), second.requests().len());
    pair.finish().await;
}

async fn a_model_that_moves_loses_its_token_and_takes_no_calls_until_a_token_is_written() {
    let pair = Pair::start().await;
    let (old, new) = tokio::join!(
        FakeUpstream::always(Script::answer(["old"])),
        FakeUpstream::always(Script::answer(["new"]))
    );
    pair.configure(&old.url(), Some(CANARY)).await;
    pair.wait_until_routed("code_generations").await;

    let moved = pair
        .update_model(Model {
            endpoint: Some(new.url()),
            ..Default::default()
        })
        .await
        .unwrap();
    assert!(moved.api_token_dropped && !moved.api_token_set);
    pair.wait_until(async || {
        let result = infer(&mut pair.inference(), "code_generations", "hello").await;
        reason_of(&result).as_deref() == Some("MODEL_CREDENTIAL_MISSING")
    })
    .await;
    assert!(new.requests().is_empty());

    let given = pair
        .update_model(Model {
            api_token: Some(String::new()),
            ..Default::default()
        })
        .await
        .unwrap();
    assert!(!given.api_token_dropped && !given.api_token_set);
    pair.wait_for_revision(given.revision).await;
    assert_eq!(new.requests()[0].headers.get("authorization"), None);
    pair.finish().await;
}

/// Returns the model as `Watch` shows it, and the bytes of everything that `Watch` sends, as text.
async fn watched_model(pair: &Pair) -> (ModelEntry, Vec<String>) {
    let mut stream = pair.config().watch(WatchRequest::default()).await.unwrap().into_inner();
    let (mut entry, mut shown) = (None, Vec::new());
    while let Some(message) = stream.message().await.unwrap() {
        shown.push(raw(&message));
        match message.kind.unwrap() {
            watch_response::Kind::SnapshotPart(part) => {
                for resource in part
                    .resources
                    .iter()
                    .filter(|resource| resource.name == "models/mistral")
                {
                    let payload = resource.payload.as_ref().unwrap();
                    entry = Some(prost::Message::decode(payload.value.as_slice()).unwrap());
                }
            }
            watch_response::Kind::SnapshotEnd(_) => break,
            _ => {}
        }
    }
    (entry.expect("the snapshot has the model"), shown)
}

/// Returns everything that `Subscribe` sends to a router until its snapshot is complete, as text.
async fn subscribed(pair: &Pair) -> Vec<String> {
    let hello = Hello {
        router_id: "canary".to_owned(),
        instance: InstanceId::random().to_string(),
        ..Default::default()
    };
    let first = SubscribeRequest {
        kind: Some(subscribe_request::Kind::Hello(hello)),
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(first).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut stream = pair.config().subscribe(requests).await.unwrap().into_inner();
    let mut shown = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        shown.push(raw(&message));
        if matches!(message.kind, Some(subscribe_response::Kind::SnapshotEnd(_))) {
            break;
        }
    }
    shown
}

fn raw(message: &impl prost::Message) -> String {
    String::from_utf8_lossy(&message.encode_to_vec()).into_owned()
}

tests! {
    only_the_model_server_sees_an_api_token,
    a_token_rotated_twice_under_load_fails_no_call_and_reaches_no_other_server,
    a_model_that_moves_loses_its_token_and_takes_no_calls_until_a_token_is_written,
}

//! Configuration changes that arrive during calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use switchboard::pb::{
    registry::Model,
    router::{FinishReason, SelectionReason},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::Status;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Answer, Pair, infer},
};

/// Callers that continuously call code generation.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    callers: JoinSet<Vec<Call>>,
}

/// One call of a load: when it began, and its result.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) began: Instant,
    pub(crate) result: Result<Answer, Status>,
}

impl Load {
    pub(crate) fn start(pair: &Pair, callers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..callers {
            let (mut client, stop) = (pair.inference(), Arc::clone(&stop));
            tasks.spawn(async move {
                let mut calls = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let result = infer(&mut client, "code_generations", "hello").await;
                    calls.push(Call { began, result });
                    // A real caller has pauses; without this one the load would use the whole machine.
                    sleep(Duration::from_millis(5)).await;
                }
                calls
            });
        }
        Self { stop, callers: tasks }
    }

    /// Stops the load and returns every call that was made.
    pub(crate) async fn finish(self) -> Vec<Call> {
        self.stop.store(true, Ordering::Relaxed);
        self.callers.join_all().await.into_iter().flatten().collect()
    }
}

async fn a_new_endpoint_is_used_within_100_ms_and_no_call_fails() {
    let pair = Pair::start().await;
    let (old, new) = tokio::join!(
        FakeUpstream::always(Script::answer(["old"])),
        FakeUpstream::always(Script::answer(["new"]))
    );
    // The model has a token, so that the move also requires a new credential on the router.
    pair.configure(&old.url(), Some("sk-old")).await;
    pair.wait_until_routed("code_generations").await;

    let load = Load::start(&pair, 4);
    sleep(Duration::from_millis(200)).await;
    let moved = Model {
        endpoint: Some(new.url()),
        api_token: Some("sk-new".to_owned()),
        ..Default::default()
    };
    pair.update_model(moved).await.unwrap();
    let acknowledged = Instant::now();
    sleep(Duration::from_millis(400)).await;
    let calls = load.finish().await;

    let (mut before, mut after) = (0, 0);
    for call in &calls {
        let answer = call
            .result
            .as_ref()
            .unwrap_or_else(|status| panic!("a call failed: {status:?}"));
        match answer.text.as_str() {
            "old" => before += 1,
            "new" => after += 1,
            other => panic!("unexpected answer {other}"),
        }
        let late = call.began.saturating_duration_since(acknowledged);
        assert!(
            answer.text == "new" || late < Duration::from_millis(100),
            "the old endpoint after {late:?}"
        );
    }
    assert!(
        before > 10 && after > 10,
        "{before} calls before and {after} after the change"
    );
    for request in new.requests() {
        assert_eq!(
            request.headers.get("authorization").map(String::as_str),
            Some("Bearer sk-new")
        );
    }
    for request in old.requests() {
        assert_eq!(
            request.headers.get("authorization").map(String::as_str),
            Some("Bearer sk-old")
        );
    }
    pair.finish().await;
}

async fn an_unassigned_feature_uses_the_setting_of_its_parent() {
    let pair = Pair::start().await;
    let upstream = FakeUpstream::always(Script::answer(["because"])).await;
    pair.configure(&upstream.url(), None).await;
    let assigned = pair.assign("duo_chat", "models/mistral").await;
    pair.wait_for_revision(assigned.revision).await;

    for asked in [
        "duo_chat_explain_code",
        "features/duo_chat_explain_code",
        "explain_code",
    ] {
        let answer = infer(&mut pair.inference(), asked, "why?").await.unwrap();
        assert_eq!(answer.text, "because");
        assert_eq!(answer.selection.feature, "features/duo_chat_explain_code");
        assert_eq!(answer.selection.source_feature, "features/duo_chat");
        assert_eq!(answer.selection.model, "models/mistral");
        assert_eq!(answer.selection.family, "mistral");
        assert_eq!(answer.selection.reason(), SelectionReason::ParentFeature);
        assert_eq!(answer.selection.config_revision, assigned.revision);
        assert_eq!(answer.completion.finish_reason(), FinishReason::Stop);
    }
    pair.finish().await;
}

async fn a_disabled_model_takes_no_calls_until_it_is_enabled() {
    let pair = Pair::start().await;
    let upstream = FakeUpstream::always(Script::answer(["here"])).await;
    pair.configure(&upstream.url(), None).await;
    pair.wait_until_routed("code_generations").await;

    for (disabled, reason) in [(true, Some("MODEL_DISABLED")), (false, None)] {
        let model = pair
            .update_model(Model {
                disabled: Some(disabled),
                ..Default::default()
            })
            .await
            .unwrap();
        assert_eq!(model.disabled, Some(disabled));
        pair.wait_until(async || {
            let result = infer(&mut pair.inference(), "code_generations", "hello").await;
            crate::harness::reason_of(&result) == reason.map(str::to_owned)
        })
        .await;
    }
    pair.finish().await;
}

tests! {
    a_new_endpoint_is_used_within_100_ms_and_no_call_fails,
    an_unassigned_feature_uses_the_setting_of_its_parent,
    a_disabled_model_takes_no_calls_until_it_is_enabled,
}

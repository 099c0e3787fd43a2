//! A caller that reads slowly, or not at all, does not occupy the model.

use std::time::Duration;

use switchboard::pb::router::{delta::Kind, stream_infer_response::Event};

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Answer, Setup, Told},
};

/// Many different pieces, in total more than the transport's window holds and less than the router's buffer. Each piece
/// is larger than the frames that a client counts towards a flood of small frames.
fn pieces() -> Vec<String> {
    (0..700)
        .map(|number| format!("piece {number} ä {}", ".".repeat(280)))
        .collect()
}

#[tokio::test]
async fn the_model_is_free_once_the_buffer_has_the_whole_answer() {
    let pieces = pieces();
    let upstream = FakeUpstream::start().await;
    let told = pieces.iter().fold(Script::stream(), |script, piece| script.text(piece));
    upstream.then(told.finish("stop").usage(3, 2).done().hang());
    let router = Setup::at(upstream.url()).start().await.narrow().await;
    let mut stream = router.begin().await;
    // The caller has read nothing, and the router has received the whole answer: only then does it close the
    // connection.
    upstream.closed(0).await;

    let (mut text, mut deltas) = (pieces[0].clone(), 1);
    let completion = loop {
        match crate::harness::event(&mut stream).await {
            Event::Delta(delta) => {
                let Some(Kind::Text(piece)) = delta.kind else {
                    panic!("only text arrives")
                };
                assert!(piece.len() <= 64 * 1024);
                text.push_str(&piece);
                deltas += 1;
            }
            Event::Completion(completion) => break completion,
            Event::Selection(_) => panic!("only one selection arrives"),
        }
    };
    assert!(
        text == pieces.concat(),
        "{} bytes of {}",
        text.len(),
        pieces.concat().len()
    );
    assert!(deltas < pieces.len(), "{deltas} messages: adjacent pieces are merged");
    assert!(completion.usage.is_some());
    router.settled().await;
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_discarded_after_the_timeout() {
    let piece = "x".repeat(40_000);
    let upstream = FakeUpstream::start().await;
    // More than the transport's window holds, less than the router's buffer.
    upstream.then(Script::answer(std::iter::repeat_n(piece.as_str(), 7)).close());
    let router = Setup::at(upstream.url())
        .limits(|limits| limits.patience.slow_caller = Duration::from_millis(300))
        .start()
        .await
        .narrow()
        .await;
    let stream = router.begin().await;
    router.settled().await;

    let mut answer = Answer {
        selection: Some(Default::default()),
        ..Answer::default()
    };
    answer.read(stream).await;
    let told: Told = answer.told();
    assert_eq!(told.reason, "CLIENT_TOO_SLOW");
    let sent: usize = told.metadata["tokens_sent"].parse().unwrap_or_default();
    assert_eq!(sent, answer.deltas + 1, "discarded pieces are not counted");
}

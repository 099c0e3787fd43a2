//! Tests with a scripted resolver, whose answers and their timing the test controls.

use std::collections::VecDeque;

use tokio::{
    sync::oneshot,
    time::{advance, sleep},
};

use super::*;

type Answer = Option<Vec<IpAddr>>;

/// A resolver with queued answers, which it gives in order. A look-up without a queued answer never ends.
#[derive(Clone, Default)]
struct Resolver {
    answers: Arc<Mutex<VecDeque<oneshot::Receiver<Answer>>>>,
    asked: Arc<Mutex<Vec<Box<str>>>>,
}

impl Resolver {
    fn names(&self) -> Names {
        let resolver = self.clone();
        Names::new(Box::new(move |host| {
            resolver.asked.lock().push(host);
            let answer = resolver.answers.lock().pop_front();
            Box::pin(async move {
                let unknown = || io::Error::from(io::ErrorKind::NotFound);
                match answer {
                    Some(answer) => answer.await.ok().flatten().ok_or_else(unknown),
                    None => std::future::pending().await,
                }
            })
        }))
    }

    /// Queues an answer; `None` is a failure.
    fn then(&self, answer: Option<&[&str]>) {
        let addresses = answer.map(|texts| texts.iter().map(|text| text.parse().unwrap()).collect());
        self.pending().send(addresses).unwrap();
    }

    /// Queues an answer whose content is sent later.
    fn pending(&self) -> oneshot::Sender<Answer> {
        let (answer, waiting) = oneshot::channel();
        self.answers.lock().push_back(waiting);
        answer
    }

    fn asked(&self) -> usize {
        self.asked.lock().len()
    }
}

fn texts(outcome: LookupOutcome) -> Vec<String> {
    outcome.unwrap().iter().map(ToString::to_string).collect()
}

fn uri(text: &str) -> EndpointUri {
    EndpointUri::parse(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_kept_answer_is_used_while_the_resolver_fails_and_is_replaced_by_a_new_one() {
    let resolver = Resolver::default();
    let names = resolver.names();
    resolver.then(Some(&["10.0.0.1"]));
    assert_eq!(texts(names.resolve("gpu").await), ["10.0.0.1"]);
    resolver.then(None);
    assert_eq!(texts(names.resolve("gpu").await), ["10.0.0.1"], "the kept answer");
    resolver.then(Some(&["10.0.0.2"]));
    assert_eq!(texts(names.resolve("gpu").await), ["10.0.0.2"], "the new answer");
    advance(KEPT).await;
    resolver.then(None);
    names.resolve("gpu").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_failed_look_up_is_repeated_at_the_next_request() {
    let resolver = Resolver::default();
    let names = resolver.names();
    resolver.then(None);
    names.resolve("gpu").await.unwrap_err();
    resolver.then(Some(&["10.0.0.1"]));
    assert_eq!(texts(names.resolve("gpu").await), ["10.0.0.1"]);
    resolver.then(Some(&[]));
    assert_eq!(
        texts(names.resolve("gpu").await),
        ["10.0.0.1"],
        "an answer without addresses counts as a failure"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_resolver_gets_one_query_and_delays_no_call_that_has_a_kept_answer() {
    let resolver = Resolver::default();
    let names = resolver.names();
    resolver.then(Some(&["10.0.0.1"]));
    names.resolve("gpu").await.unwrap();

    let late = resolver.pending();
    let begun = Instant::now();
    assert_eq!(texts(names.resolve("gpu").await), ["10.0.0.1"]);
    assert_eq!(begun.elapsed(), SLOW);
    for _ in 0..100 {
        assert_eq!(texts(names.resolve("gpu").await), ["10.0.0.1"]);
    }
    assert_eq!(
        begun.elapsed(),
        SLOW,
        "later calls do not wait, because the look-up is already known to be slow"
    );
    assert_eq!(resolver.asked(), 2);
    late.send(Some(vec!["10.0.0.2".parse().unwrap()])).unwrap();
    sleep(Duration::from_millis(1)).await;
    resolver.then(None);
    assert_eq!(
        texts(names.resolve("gpu").await),
        ["10.0.0.2"],
        "the late answer is kept too"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_does_not_stop_a_look_up_that_others_wait_for() {
    let resolver = Resolver::default();
    let names = resolver.names();
    let answer = resolver.pending();
    let second = Duration::from_secs(1);
    timeout(second, names.resolve("gpu")).await.unwrap_err();
    let waiting = tokio::join!(names.resolve("gpu"), names.resolve("gpu"), async {
        answer.send(Some(vec!["10.0.0.1".parse().unwrap()])).unwrap();
    });
    assert_eq!(
        (texts(waiting.0), texts(waiting.1)),
        (vec!["10.0.0.1".into()], vec!["10.0.0.1".into()])
    );
    assert_eq!(resolver.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_with_several_addresses_counts_as_several_servers() {
    let resolver = Resolver::default();
    let names = resolver.names();
    let server = uri("http://gpu:8000/v1");
    assert!(names.of(&server).is_empty(), "not looked up yet");
    resolver.then(Some(&["10.0.0.2", "10.0.0.1", "10.0.0.2"]));
    assert_eq!(texts(names.resolve("gpu").await), ["10.0.0.2", "10.0.0.1", "10.0.0.2"]);
    assert_eq!(texts(Ok(names.of(&server))), ["10.0.0.1", "10.0.0.2"]);
    resolver.then(None);
    names.resolve("gpu").await.unwrap();
    assert_eq!(names.of(&server).len(), 2, "a failure changes nothing");
    let version = names.version();
    resolver.then(Some(&["10.0.0.2", "10.0.0.1"]));
    names.resolve("gpu").await.unwrap();
    assert_eq!(names.version(), version, "the servers are the same");
    advance(KEPT).await;
    resolver.then(None);
    names.resolve("gpu").await.unwrap_err();
    assert!(names.of(&server).is_empty(), "too old");
    assert_ne!(names.version(), version);
    assert!(names.of(&uri("http://10.0.0.1:8000")).is_empty());
}

#[test]
fn ipv4_and_ipv6_addresses_of_one_server_do_not_count_twice() {
    let servers = |texts: &[&str]| {
        let addresses: Vec<IpAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
        servers(&addresses).len()
    };
    assert_eq!(servers(&[]), 0);
    assert_eq!(servers(&["::1", "127.0.0.1"]), 0);
    assert_eq!(servers(&["10.0.0.1", "10.0.0.2", "fd00::1"]), 2);
    assert_eq!(servers(&["fd00::1", "10.0.0.1", "10.0.0.2"]), 0);
}

#[test]
fn an_address_needs_no_look_up() {
    for host in ["127.0.0.1", "[::1]", "::1"] {
        assert!(is_address(host), "{host}");
    }
    for host in ["localhost", "gpu1.example.com", "1.2.3"] {
        assert!(!is_address(host), "{host}");
    }
}

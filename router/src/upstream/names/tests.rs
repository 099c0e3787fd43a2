//! A resolver that answers when and as the test says.

use std::collections::VecDeque;

use tokio::{
    sync::oneshot,
    time::{advance, sleep},
};

use super::*;

type Answer = Option<Vec<IpAddr>>;

/// What the resolver will say, in turn. It hangs when nothing is lined up.
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

    /// Lines up an answer; `None` is a failure.
    fn then(&self, answer: Option<&[&str]>) {
        let addresses = answer.map(|texts| texts.iter().map(|text| text.parse().unwrap()).collect());
        self.pending().send(addresses).unwrap();
    }

    /// Lines up an answer that is given later.
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
async fn the_kept_answer_stands_in_for_a_resolver_that_fails_and_a_new_one_takes_its_place() {
    let resolver = Resolver::default();
    let names = resolver.names();
    resolver.then(Some(&["10.0.0.1"]));
    assert_eq!(texts(names.resolve("gpu").await), ["10.0.0.1"]);
    resolver.then(None);
    assert_eq!(texts(names.resolve("gpu").await), ["10.0.0.1"], "kept");
    resolver.then(Some(&["10.0.0.2"]));
    assert_eq!(texts(names.resolve("gpu").await), ["10.0.0.2"], "looked up anew");
    advance(KEPT).await;
    resolver.then(None);
    names.resolve("gpu").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_name_that_does_not_exist_is_asked_for_again_at_once() {
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
        "no address is no answer"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_resolver_is_asked_once_and_holds_up_nobody_who_knows_an_answer() {
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
    assert_eq!(begun.elapsed(), SLOW, "that it is slow is known by now");
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
async fn whoever_gives_up_takes_nothing_from_those_who_wait_for_the_same_name() {
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
async fn a_name_with_several_addresses_is_several_servers() {
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
    assert_eq!(names.version(), version, "they are the same");
    advance(KEPT).await;
    resolver.then(None);
    names.resolve("gpu").await.unwrap_err();
    assert!(names.of(&server).is_empty(), "too old");
    assert_ne!(names.version(), version);
    assert!(names.of(&uri("http://10.0.0.1:8000")).is_empty());
}

#[test]
fn the_two_families_of_one_server_are_not_two_servers() {
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

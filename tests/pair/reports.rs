//! Cursors that do not fit, routers that violate the protocol, and routers that share an id: the registry answers each
//! one exactly, and no other stream is affected.

use bytes::Bytes;
use prost::Message as _;
use switchboard::{
    encoded::Encoded,
    names::{IncarnationId, InstanceId, StoreId},
    pb::{
        registry::{
            GoodbyeWhy, Held, HeldWhy, Hello, HistoryRefusal, Mode, ModeReason, Report, SubscribeRequest,
            SubscribeResponse, WatchRequest, subscribe_request::Kind as Up, subscribe_response::Kind, watch_response,
        },
        types::{Cursor, Refusal, View},
    },
};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status, Streaming, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use crate::{
    harness::{PATIENCE, Pair},
    network::Truth,
    peer::{Peer, dial, next, write_model, write_models},
};

/// Name, change to a valid cursor, and the welcome that a router and a watcher receive for the changed cursor.
type Row = (&'static str, fn(&mut Cursor), (Mode, ModeReason), (Mode, ModeReason));

async fn the_registry_answers_a_cursor_by_the_first_matching_row_of_the_table() {
    use Mode::{Resumed, Snapshot, Withheld};
    use ModeReason::{
        Ahead, CursorUnreadable, Diverged, Fork, OtherStore, StaleHistory, StateMismatch, Unspecified,
        View as OtherView,
    };
    let rows: [Row; 13] = [
        ("unchanged", |_| {}, (Resumed, Unspecified), (Resumed, Unspecified)),
        (
            "unknown format",
            |c| c.format = 9,
            (Snapshot, CursorUnreadable),
            (Snapshot, CursorUnreadable),
        ),
        (
            "no revision",
            |c| c.revision = 0,
            (Snapshot, CursorUnreadable),
            (Snapshot, CursorUnreadable),
        ),
        (
            "half a digest",
            |c| c.chain_digest.truncate(16),
            (Snapshot, CursorUnreadable),
            (Snapshot, CursorUnreadable),
        ),
        (
            "no store",
            |c| c.store.clear(),
            (Snapshot, CursorUnreadable),
            (Snapshot, CursorUnreadable),
        ),
        (
            "other store",
            |c| c.store = StoreId::random().to_string(),
            (Withheld, OtherStore),
            (Snapshot, Fork),
        ),
        (
            "newer life",
            |c| c.incarnation_number += 1,
            (Withheld, StaleHistory),
            (Snapshot, Fork),
        ),
        (
            "other life of this number",
            |c| c.incarnation = IncarnationId::random().to_string(),
            (Withheld, StaleHistory),
            (Snapshot, Fork),
        ),
        ("ahead", |c| c.revision += 1_000, (Withheld, Ahead), (Snapshot, Ahead)),
        (
            "other chain",
            |c| c.chain_digest[0] ^= 1,
            (Withheld, Diverged),
            (Snapshot, Fork),
        ),
        (
            "chain of another revision",
            |c| c.revision -= 1,
            (Withheld, Diverged),
            (Snapshot, Fork),
        ),
        (
            "other view",
            |c| c.view = 3 - c.view,
            (Snapshot, OtherView),
            (Snapshot, OtherView),
        ),
        (
            "other state",
            |c| c.state_digest[0] ^= 1,
            (Snapshot, StateMismatch),
            (Snapshot, StateMismatch),
        ),
    ];
    let pair = Pair::start().await;
    let head = write_models(&pair, 0..4, 0).await;
    let mut truth = Truth::start(&pair).await;
    truth.read_to(head).await;
    let fits = truth.peer.cursor().clone();

    for (number, (name, change, for_router, for_watcher)) in rows.into_iter().enumerate() {
        let mut cursor = fits.clone();
        change(&mut cursor);
        let mut peer = Peer::new(pair.registry(), format!("row-{number}"));
        peer.hello.resume = Some(cursor);
        let mut open = peer.open().await.unwrap();
        let welcome = &open.welcome;
        assert_eq!((welcome.mode(), welcome.reason()), for_router, "{name}: a router");
        assert_eq!(welcome.head.as_ref(), Some(&fits), "{name}");
        match for_router.0 {
            Snapshot => {
                peer.read_to(&mut open, head).await.unwrap();
                assert_eq!(peer.cursor(), &fits, "{name}");
            }
            // A sign of life without any configuration.
            _ => match open.next().await.unwrap().unwrap() {
                Kind::Bookmark(bookmark) => {
                    assert_eq!(bookmark.at.is_some(), for_router.0 == Resumed, "{name}");
                    assert_eq!(bookmark.head_revision, head, "{name}");
                }
                other => panic!("{name}: {other:?}"),
            },
        }

        let mut cursor = Cursor {
            view: View::Config.into(),
            ..fits.clone()
        };
        change(&mut cursor);
        let request = WatchRequest {
            resume: Some(cursor),
            include_snapshot: None,
        };
        let mut stream = pair.config().watch(request).await.unwrap().into_inner();
        let first = timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap();
        let Some(watch_response::Kind::Welcome(welcome)) = first.kind else {
            panic!("{name}: {first:?}")
        };
        assert_eq!((welcome.mode(), welcome.reason()), for_watcher, "{name}: a watcher");
    }

    let mut peer = Peer::new(pair.registry(), "damaged");
    peer.hello.resume = Some(fits);
    peer.hello.want_snapshot = true;
    let welcome = peer.open().await.unwrap().welcome;
    assert_eq!((welcome.mode(), welcome.reason()), (Snapshot, StateMismatch));
    undisturbed(&pair, &mut truth).await;
    pair.finish().await;
}

/// Messages of a router that violate the protocol. `field` is the invalid field; `None` if another rule is violated.
struct Breach {
    name: &'static str,
    said: Vec<Bytes>,
    field: Option<&'static str>,
    message: &'static str,
}

async fn a_protocol_violation_is_named_and_affects_no_other_stream() {
    let pair = Pair::start().await;
    let head = write_models(&pair, 0..4, 0).await;
    let mut truth = Truth::start(&pair).await;
    truth.read_to(head).await;

    for breach in breaches(truth.peer.cursor()) {
        let Breach {
            name,
            said,
            field,
            message,
        } = breach;
        let status = told(&pair, said).await;
        let details = status.get_error_details();
        let reason = &details
            .error_info()
            .unwrap_or_else(|| panic!("{name}: {status:?}"))
            .reason;
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status:?}");
        assert_eq!(reason, "STREAM_PROTOCOL_VIOLATION", "{name}");
        if let Some(field) = field {
            let violations = &details.bad_request().unwrap().field_violations;
            assert_eq!(violations[0].field, field, "{name}");
        }
        assert!(status.message().contains(message), "{name}: {}", status.message());
        undisturbed(&pair, &mut truth).await;
    }
    pair.finish().await;
}

fn breaches(head: &Cursor) -> Vec<Breach> {
    let hello = || Hello {
        router_id: "rude".to_owned(),
        instance: InstanceId::random().to_string(),
        ..Default::default()
    };
    let rule = |name, said: Vec<Bytes>, message| Breach {
        name,
        said,
        field: None,
        message,
    };
    let field = |name, said: Vec<Bytes>, field| Breach {
        name,
        said,
        field: Some(field),
        message: "",
    };
    let greeted = |then: Up| vec![say(Up::Hello(hello())), say(then)];
    let report = |report: Report| greeted(Up::Report(report));
    let cursor = |change: fn(&mut Cursor)| {
        let mut cursor = head.clone();
        change(&mut cursor);
        Some(cursor)
    };
    let applied = |applied| {
        report(Report {
            applied,
            ..Default::default()
        })
    };
    let held = |count: usize, text: &str, why: HeldWhy| {
        let one = Held {
            item: Some(Refusal {
                resource: text.to_owned(),
                ..Default::default()
            }),
            why: why.into(),
            used_revision: 0,
        };
        report(Report {
            held: vec![one; count],
            held_total: i32::try_from(count).unwrap(),
            ..Default::default()
        })
    };
    vec![
        rule(
            "a report first",
            vec![say(Up::Report(Report::default()))],
            "the first message must be `hello`",
        ),
        rule(
            "hello twice",
            greeted(Up::Hello(hello())),
            "`hello` must be sent only once",
        ),
        rule(
            "an empty message",
            vec![Bytes::new()],
            "must be a `hello`, a `report` or a `check_result`",
        ),
        rule(
            "an unknown kind",
            vec![say(Up::Hello(hello())), Bytes::from_static(&[0xfa, 0x01, 0])],
            "must be a `hello`, a `report` or a `check_result`",
        ),
        rule(
            "an unreadable message",
            vec![say(Up::Hello(hello())), Bytes::from_static(&[0x12, 0xff])],
            "could not be received or decoded",
        ),
        rule(
            "ahead",
            applied(cursor(|c| c.revision += 1)),
            "`report.applied` must be a cursor",
        ),
        rule(
            "other store",
            applied(cursor(|c| c.store = StoreId::random().to_string())),
            "`report.applied`",
        ),
        rule(
            "newer life",
            applied(cursor(|c| c.incarnation_number += 1)),
            "`report.applied`",
        ),
        rule(
            "other chain",
            applied(cursor(|c| c.chain_digest[31] ^= 1)),
            "`report.applied`",
        ),
        rule(
            "received ahead",
            report(Report {
                received: cursor(|c| c.revision += 1),
                ..Default::default()
            }),
            "`report.received`",
        ),
        field(
            "no cursor",
            applied(cursor(|c| c.state_digest.clear())),
            "report.applied",
        ),
        field("a long list", held(257, "models/a", HeldWhy::Refused), "report.held"),
        field(
            "a long resource name",
            held(1, &"x".repeat(256), HeldWhy::Refused),
            "report.held[0].item.resource",
        ),
        field(
            "a resource name with a line break",
            held(1, "a\nb", HeldWhy::Refused),
            "report.held[0].item.resource",
        ),
        field(
            "no reason for a held item",
            held(1, "models/a", HeldWhy::Unspecified),
            "report.held[0].why",
        ),
        field(
            "a negative number",
            report(Report {
                held_total: -1,
                ..Default::default()
            }),
            "report.held_total",
        ),
        field(
            "a history refusal without a reason",
            report(Report {
                history_refusal: Some(HistoryRefusal::default()),
                ..Default::default()
            }),
            "report.history_refusal.why",
        ),
        field(
            "no router id",
            vec![say(Up::Hello(Hello {
                router_id: String::new(),
                ..hello()
            }))],
            "hello.router_id",
        ),
        field(
            "no instance",
            vec![say(Up::Hello(Hello {
                instance: "first".to_owned(),
                ..hello()
            }))],
            "hello.instance",
        ),
    ]
}

fn say(kind: Up) -> Bytes {
    SubscribeRequest { kind: Some(kind) }.encode_to_vec().into()
}

/// Sends these messages on a new stream and returns the status with which the stream ends.
async fn told(pair: &Pair, said: Vec<Bytes>) -> Status {
    let mut client = Grpc::new(pair.registry().channel());
    client.ready().await.unwrap();
    let messages = tokio_stream::iter(said.into_iter().map(Encoded::from)).merge(tokio_stream::pending());
    let method = PathAndQuery::from_static("/switchboard.registry.v1.ConfigService/Subscribe");
    let codec = ProstCodec::<Encoded, SubscribeResponse>::default();
    let answer = client.streaming(tonic::Request::new(messages), method, codec).await;
    match answer {
        Ok(answer) => end(&mut answer.into_inner()).await,
        Err(status) => status,
    }
}

/// Waits for the end of a stream, which must come soon and with an error.
async fn end(down: &mut Streaming<SubscribeResponse>) -> Status {
    loop {
        match next(down).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a stream with a violation must end with an error"),
            Err(status) => return status,
        }
    }
}

async fn a_too_large_or_missing_message_ends_only_its_own_stream() {
    let pair = Pair::start().await;
    let mut truth = Truth::start(&pair).await;
    let silent = dial(pair.registry().listen_addr, None).await.unwrap();

    let hello = Hello {
        router_id: "large".to_owned(),
        instance: InstanceId::random().to_string(),
        ..Default::default()
    };
    let held = Held {
        item: Some(Refusal {
            resource: "x".repeat(5 * 1024 * 1024),
            ..Default::default()
        }),
        ..Default::default()
    };
    let large = Report {
        held: vec![held],
        ..Default::default()
    };
    let status = told(&pair, vec![say(Up::Hello(hello)), say(Up::Report(large))]).await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "each message must have at most 4 MiB")
    );
    undisturbed(&pair, &mut truth).await;

    let (_up, mut down) = silent;
    let status = next(&mut down).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "`hello` must arrive within 5 s");
    pair.finish().await;
}

async fn a_flood_of_small_reports_affects_no_other_stream() {
    let pair = Pair::start().await;
    let mut truth = Truth::start(&pair).await;
    let mut peer = Peer::new(pair.registry(), "chatty");
    let open = peer.open().await.unwrap();
    let flood = async {
        for _ in 0..10_000 {
            open.say(Up::Report(Report::default())).await;
        }
    };
    let others = async {
        for _ in 0..20 {
            undisturbed(&pair, &mut truth).await;
        }
    };
    // The flood's connection may be cut, because HTTP/2 limits its unread data. No other connection is affected.
    tokio::join!(flood, others);
    pair.finish().await;
}

async fn a_newer_stream_ends_the_older_one_of_its_process_but_not_of_its_router_id() {
    let pair = Pair::start().await;
    let mut truth = Truth::start(&pair).await;
    let mut older = Peer::new(pair.registry(), "same");
    let mut newer = Peer::new(pair.registry(), "same");
    let mut twin = Peer::new(pair.registry(), "same");
    newer.hello.instance.clone_from(&older.hello.instance);

    let mut first = older.open().await.unwrap();
    older.read_to(&mut first, 1).await.unwrap();
    let mut second = newer.open().await.unwrap();
    let mut third = twin.open().await.unwrap();
    let goodbye = loop {
        match first.next().await.unwrap() {
            Some(Kind::Goodbye(goodbye)) => break goodbye,
            Some(_) => {}
            None => panic!("a goodbye must precede the end"),
        }
    };
    assert_eq!(goodbye.why(), GoodbyeWhy::Rotation);
    assert_eq!(first.next().await.unwrap(), None);

    undisturbed(&pair, &mut truth).await;
    let head = truth.peer.cursor().revision;
    newer.read_to(&mut second, head).await.unwrap();
    twin.read_to(&mut third, head).await.unwrap();
    assert_eq!(
        (newer.cursor(), twin.cursor()),
        (truth.peer.cursor(), truth.peer.cursor())
    );
    assert!(
        pair.registry()
            .log()
            .contains("is in use by two processes at the same time")
    );
    pair.finish().await;
}

/// Makes a write and checks that a follower which has followed from the start receives it.
async fn undisturbed(pair: &Pair, truth: &mut Truth) {
    let revision = write_model(pair.models(), fastrand::usize(1_000..), 0).await.unwrap();
    truth.read_to(revision).await;
}

tests! {
    the_registry_answers_a_cursor_by_the_first_matching_row_of_the_table,
    a_protocol_violation_is_named_and_affects_no_other_stream,
    a_too_large_or_missing_message_ends_only_its_own_stream,
    a_flood_of_small_reports_affects_no_other_stream,
    a_newer_stream_ends_the_older_one_of_its_process_but_not_of_its_router_id,
}

//! Cursors that do not fit, routers that break the rules, and two that are the same: each is answered exactly, and nobody
//! else notices.

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

/// What is done to a cursor that fits, and what a router and a watcher are answered then.
type Row = (&'static str, fn(&mut Cursor), (Mode, ModeReason), (Mode, ModeReason));

async fn a_cursor_is_answered_by_the_first_row_of_the_table_that_fits() {
    use Mode::{Resumed, Snapshot, Withheld};
    use ModeReason::{
        Ahead, CursorUnreadable, Diverged, Fork, OtherStore, StaleHistory, StateMismatch, Unspecified,
        View as OtherView,
    };
    let rows: [Row; 13] = [
        ("as it is", |_| {}, (Resumed, Unspecified), (Resumed, Unspecified)),
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
            // A sign of life, and no configuration.
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

/// What a router says, and the field at fault; none: the rule that it broke.
struct Breach {
    name: &'static str,
    said: Vec<Bytes>,
    field: Option<&'static str>,
    message: &'static str,
}

async fn a_router_that_breaks_a_rule_is_told_which_and_nobody_else_notices() {
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
            "nothing said at all",
            vec![Bytes::new()],
            "must be a `hello`, a `report` or a `check_result`",
        ),
        rule(
            "an unknown kind",
            vec![say(Up::Hello(hello())), Bytes::from_static(&[0xfa, 0x01, 0])],
            "must be a `hello`, a `report` or a `check_result`",
        ),
        rule(
            "no message",
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
            "a long text",
            held(1, &"x".repeat(256), HeldWhy::Refused),
            "report.held[0].item.resource",
        ),
        field(
            "a forged line",
            held(1, "a\nb", HeldWhy::Refused),
            "report.held[0].item.resource",
        ),
        field(
            "no cause",
            held(1, "models/a", HeldWhy::Unspecified),
            "report.held[0].why",
        ),
        field(
            "fewer than none",
            report(Report {
                held_total: -1,
                ..Default::default()
            }),
            "report.held_total",
        ),
        field(
            "a refusal without a cause",
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

/// Says this on a stream of its own, and returns how it ended.
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

/// How a stream ends, which must be soon and not in order.
async fn end(down: &mut Streaming<SubscribeResponse>) -> Status {
    loop {
        match next(down).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a broken rule is no end in order"),
            Err(status) => return status,
        }
    }
}

async fn a_message_that_is_too_large_or_never_comes_ends_its_stream_only() {
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

async fn a_flood_of_tiny_reports_disturbs_nobody() {
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
    // The flood's connection may be cut: HTTP/2 bounds what lies unread of it. No other is touched.
    tokio::join!(flood, others);
    pair.finish().await;
}

async fn of_one_process_the_newer_stream_stays_and_of_one_router_id_both() {
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
            None => panic!("an end in order is told"),
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

/// A write is made and read by one who has followed all the time.
async fn undisturbed(pair: &Pair, truth: &mut Truth) {
    let revision = write_model(pair.models(), fastrand::usize(1_000..), 0).await.unwrap();
    truth.read_to(revision).await;
}

tests! {
    a_cursor_is_answered_by_the_first_row_of_the_table_that_fits,
    a_router_that_breaks_a_rule_is_told_which_and_nobody_else_notices,
    a_message_that_is_too_large_or_never_comes_ends_its_stream_only,
    a_flood_of_tiny_reports_disturbs_nobody,
    of_one_process_the_newer_stream_stays_and_of_one_router_id_both,
}

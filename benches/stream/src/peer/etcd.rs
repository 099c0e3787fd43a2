//! etcd's part of the work, with the messages of its API that it needs.

use std::{net::SocketAddr, path::Path};

use bytes::Bytes;
use prost::Message;

use super::{Place, Seen};
use crate::{
    call::Call,
    scan::{Value, bytes, fields, number},
};

/// The prefix of all keys, and the end of their range.
const PREFIX: &[u8] = b"/models/";
const END: &[u8] = b"/models0";

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create_request: Option<WatchCreateRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    start_revision: i64,
}

pub(super) fn arguments(addr: SocketAddr, peer: SocketAddr, folder: &Path) -> Vec<String> {
    vec![
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls=http://{addr}"),
        format!("--advertise-client-urls=http://{addr}"),
        format!("--listen-peer-urls=http://{peer}"),
        format!("--initial-advertise-peer-urls=http://{peer}"),
        format!("--initial-cluster=default=http://{peer}"),
        "--logger=zap".to_owned(),
        "--log-level=error".to_owned(),
    ]
}

pub(super) fn put(key: usize, serial: usize, bytes: usize) -> Call {
    let request = PutRequest {
        key: [PREFIX, format!("m{key}").as_bytes()].concat(),
        value: format!("{serial:0>bytes$}").into_bytes(),
    };
    Call {
        path: "/etcdserverpb.KV/Put",
        message: request.encode_to_vec(),
    }
}

pub(super) fn range() -> Call {
    let request = RangeRequest {
        key: PREFIX.to_vec(),
        range_end: END.to_vec(),
    };
    Call {
        path: "/etcdserverpb.KV/Range",
        message: request.encode_to_vec(),
    }
}

pub(super) fn revision_of_range(answer: &[u8]) -> i64 {
    bytes(answer, 1).map_or(0, |header| number(header, 3))
}

pub(super) fn watch(after: i64) -> Call {
    let create = WatchCreateRequest {
        key: PREFIX.to_vec(),
        range_end: END.to_vec(),
        start_revision: after + 1,
    };
    let request = WatchRequest {
        create_request: Some(create),
    };
    Call {
        path: "/etcdserverpb.Watch/Watch",
        message: request.encode_to_vec(),
    }
}

/// Reads a `WatchResponse` by its field numbers.
pub(super) fn see(message: &Bytes) -> Seen {
    let events = fields(message).filter_map(|(number, value)| match value {
        Value::Bytes(event) if number == 11 => Some(event),
        Value::Bytes(_) | Value::Number(_) => None,
    });
    let last = events.last().and_then(|event| bytes(event, 2));
    Seen {
        place: last.map(|key_value| Place {
            revision: number(key_value, 3),
            cursor: Bytes::new(),
        }),
        // The response confirms the creation of the watch.
        is_caught_up: number(message, 3) != 0,
        reply: None,
    }
}

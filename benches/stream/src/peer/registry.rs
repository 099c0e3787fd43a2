//! The registry's part of the work.

use std::{net::SocketAddr, path::Path};

use bytes::Bytes;
use prost::Message as _;
use switchboard::pb::{
    registry::{self, subscribe_request::Kind},
    types,
};

use super::{From, Place, Seen};
use crate::{
    call::Call,
    scan::{bytes, number},
};

/// The size of one label with its key, in bytes.
const LABEL_BYTES: usize = 75;

pub(super) fn arguments(addr: SocketAddr, admin: SocketAddr, folder: &Path) -> Vec<String> {
    vec![
        format!("--listen-addr={addr}"),
        format!("--admin-addr={admin}"),
        format!("--database-url=sqlite://{}", folder.join("registry.db").display()),
    ]
}

pub(super) fn create(key: usize, bytes: usize) -> Call {
    let padding = bytes.saturating_sub(DISPLAY_NAME_BYTES) / LABEL_BYTES;
    let model = registry::Model {
        display_name: Some(display_name(key, 0)),
        family: Some("mistral".to_owned()),
        endpoint: Some("http://127.0.0.1:8000/v1".to_owned()),
        labels: (0..padding)
            .map(|label| (format!("label-{label:02}"), "x".repeat(60)))
            .collect(),
        ..Default::default()
    };
    let request = registry::CreateModelRequest {
        model: Some(model),
        model_id: format!("m{key}"),
        ..Default::default()
    };
    Call {
        path: "/switchboard.registry.v1.ModelService/CreateModel",
        message: request.encode_to_vec(),
    }
}

pub(super) fn change(key: usize, serial: usize) -> Call {
    let model = registry::Model {
        name: format!("models/m{key}"),
        display_name: Some(display_name(key, serial)),
        ..Default::default()
    };
    let request = registry::UpdateModelRequest {
        model: Some(model),
        ..Default::default()
    };
    Call {
        path: "/switchboard.registry.v1.ModelService/UpdateModel",
        message: request.encode_to_vec(),
    }
}

const DISPLAY_NAME_BYTES: usize = 240;

/// Returns a display name that makes the model as large as the values of etcd.
fn display_name(key: usize, serial: usize) -> String {
    format!("{:<DISPLAY_NAME_BYTES$}.", format!("Model {key}, change {serial}"))
}

pub(super) fn subscribe(index: usize, from: &From) -> Call {
    let resume = match from {
        From::Nothing => None,
        From::Place(place) => types::Cursor::decode(&*place.cursor).ok(),
    };
    let hello = registry::Hello {
        router_id: format!("router-{index}"),
        instance: format!("{index:032x}"),
        build: "1".to_owned(),
        resume,
        ..Default::default()
    };
    Call {
        path: "/switchboard.registry.v1.ConfigService/Subscribe",
        message: said(Kind::Hello(hello)),
    }
}

/// Reads a `SubscribeResponse` by its field numbers.
pub(super) fn see(message: &Bytes) -> Seen {
    let place = |cursor: &[u8]| Place {
        revision: number(cursor, 2),
        cursor: message.slice_ref(cursor),
    };
    if let Some(delta) = bytes(message, 5) {
        let is_whole = number(delta, 6) == 0;
        return Seen {
            place: bytes(delta, 2).filter(|_| is_whole).map(place),
            ..Seen::default()
        };
    }
    let Some(bookmark) = bytes(message, 6) else {
        return Seen::default();
    };
    let at = bytes(bookmark, 1).map(place);
    let report = registry::Report {
        probe: number(bookmark, 3),
        ..Default::default()
    };
    Seen {
        is_caught_up: at.as_ref().is_some_and(|at| at.revision == number(bookmark, 2)),
        place: at,
        reply: Some(said(Kind::Report(report))),
    }
}

fn said(kind: Kind) -> Vec<u8> {
    registry::SubscribeRequest { kind: Some(kind) }.encode_to_vec()
}

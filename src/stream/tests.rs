mod downward;
mod upward;

use std::time::Duration;

use super::*;
use crate::{
    capability,
    digest::{ChainDigest, StateDigest},
    history::Incarnation,
    names::{CheckId, IncarnationId, InstanceId, Revision, StoreId},
    pb::types,
    reason::FieldReason,
};

fn revision(number: i64) -> Revision {
    Revision::new(number).unwrap()
}

/// A cursor of the router view.
fn cursor(number: i64) -> Cursor {
    Cursor {
        store: StoreId::parse(&"5".repeat(32)).unwrap(),
        incarnation: Incarnation {
            number: 1,
            id: IncarnationId::parse(&"1".repeat(32)).unwrap(),
        },
        revision: revision(number),
        chain: ChainDigest::NONE,
        view: View::Router,
        state: StateDigest::EMPTY,
    }
}

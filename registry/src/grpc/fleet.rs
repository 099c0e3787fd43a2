//! What `ConfigService` tells of the connected routers.

use std::sync::Arc;

use switchboard::{
    failure::Failure,
    pb::registry,
    service::{deadline, request_id::RequestId},
};
use tonic::{Request, Response, Status};

use super::invalid;
use crate::{
    feed::Feed,
    wire::{self, page::Page},
};

/// Lists the routers that follow `feed`.
pub(super) fn list_routers(
    feed: &Feed,
    request: &Request<registry::ListRoutersRequest>,
) -> Result<Response<registry::ListRoutersResponse>, Status> {
    let id = RequestId::of(request);
    let list = || {
        let registry::ListRoutersRequest { page_size, page_token } = request.get_ref();
        let page = Page::parse("ListRouters", *page_size, page_token)?;
        let after = wire::fleet::after(&page)?;
        // One more than the page holds tells that another follows.
        let seen = feed.fleet().routers(after.as_ref(), page.size() + 1);
        // Not older than what the routers have reported.
        let state = feed.state();
        let (routers, next_page_token) = wire::fleet::routers(&page, seen, &state.items);
        Ok(registry::ListRoutersResponse {
            routers,
            next_page_token,
            total_size: wire::count(feed.fleet().size()),
            revision: state.items.revision().get(),
            incarnation: state.items.incarnation().id.to_string(),
        })
    };
    list()
        .map(Response::new)
        .map_err(|violations| invalid(violations).into_status(id.as_str()))
}

/// Waits until a revision is in force on the routers that follow `feed`.
pub(super) async fn wait_for_revision(
    feed: &Feed,
    request: Request<registry::WaitForRevisionRequest>,
) -> Result<Response<registry::WaitForRevisionResponse>, Status> {
    let id = RequestId::of(&request);
    let waited = async {
        let allowed = deadline::of(request.metadata()).map_err(invalid)?;
        let asked = wire::fleet::wait(request.get_ref(), allowed.map(deadline::less_margin));
        let (wanted, timeout) = asked.map_err(invalid)?;
        let fleet = Arc::clone(feed.fleet());
        let shutdown = feed.shutdown().clone();
        let waited = fleet.wait(wanted, timeout, feed.published(), shutdown).await;
        waited.map_err(Failure::from)
    };
    waited
        .await
        .map(|done| Response::new(wire::fleet::in_force(&done)))
        .map_err(|failure| failure.into_status(id.as_str()))
}

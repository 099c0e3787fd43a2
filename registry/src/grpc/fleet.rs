//! The part of `ConfigService` that is about the connected routers.

use std::sync::Arc;

use switchboard::{failure::Failure, pb::registry, service::deadline};
use tonic::Request;

use crate::{
    feed::Feed,
    wire::{self, page::Page},
};

/// Lists the routers that follow `feed`.
pub(super) fn list_routers(
    feed: &Feed,
    request: &registry::ListRoutersRequest,
) -> Result<registry::ListRoutersResponse, Failure> {
    let page = Page::parse("ListRouters", request.page_size, &request.page_token)?;
    let after = wire::fleet::after(&page)?;
    // One router more than fits on the page is read, to find out whether another page follows.
    let seen = feed.fleet().routers(after.as_ref(), page.size() + 1);
    // The state is read after the routers, so that it is not older than their reports.
    let state = feed.state();
    let (routers, next_page_token) = wire::fleet::routers(&page, seen, &state.items);
    Ok(registry::ListRoutersResponse {
        routers,
        next_page_token,
        total_size: wire::count(feed.fleet().size()),
        revision: state.items.revision().get(),
        incarnation: state.items.incarnation().id.to_string(),
    })
}

/// Waits until a revision is in force on the routers that follow `feed`.
pub(super) async fn wait_for_revision(
    feed: &Feed,
    request: Request<registry::WaitForRevisionRequest>,
) -> Result<registry::WaitForRevisionResponse, Failure> {
    let allowed = deadline::of(request.metadata())?;
    let (wanted, timeout) = wire::fleet::wait(request.get_ref(), allowed.map(deadline::less_margin))?;
    let fleet = Arc::clone(feed.fleet());
    let shutdown = feed.shutdown().clone();
    let done = fleet.wait(wanted, timeout, feed.published(), shutdown).await?;
    Ok(wire::fleet::in_force(&done))
}

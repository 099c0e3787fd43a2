//! Past changes and restores in the contract.

use prost::Message as _;
use prost_types::Any;
use switchboard::{
    names::{ResourceName, Revision},
    pb::registry,
    reason::FieldReason,
    violation::Violations,
};

use super::{page::Page, stored, timestamp};
use crate::{
    domain::{
        actor::Actor,
        items::Items,
        state::type_url,
        write::{DiffView, RestoreRevision},
    },
    merge::differing,
    store::{PastChange, PastChanges, Query},
};

/// Maximum size in bytes of the changes in one answer, unless a single change is larger.
const BYTES_MAX: usize = 1024 * 1024;

/// The requested page of the history.
#[derive(Debug)]
pub struct Listing {
    /// The query for the page.
    pub query: Query,
    page: Page,
}

/// Reads a request for a page of the history. `items` is the newest state.
///
/// # Errors
///
/// All violations. A page token is invalid with other filters or in another incarnation.
pub fn list(request: &registry::ListChangesRequest, items: &Items) -> Result<Listing, Violations> {
    let mut violations = Violations::new();
    let page = Page::parse("ListChanges", request.page_size, &request.page_token);
    let resource = Some(request.resource.as_str()).filter(|text| !text.is_empty());
    let parsed = resource.and_then(ResourceName::parse);
    if resource.is_some() && parsed.is_none() {
        let description = "must be `models/{id}`, `features/{machine_name}` or `settings`, or be left out";
        violations.push("resource", FieldReason::ValueMalformed, description);
    }
    let page = match page {
        Ok(page) if violations.is_empty() => page,
        Ok(_) => return Err(violations),
        Err(found) => {
            violations.append(found);
            return Err(violations);
        }
    };
    let end = match page.after() {
        None => None,
        Some(key) => Some(PageEnd::read(key, request, items).ok_or_else(Page::unknown_token)?),
    };
    let head = end.as_ref().map_or_else(|| items.revision(), |end| end.head);
    let query = Query {
        head,
        after: end.map(|end| (end.revision, end.name)),
        resource: parsed,
        actor: Some(request.actor.clone()).filter(|text| !text.is_empty()),
        count: page.size(),
        bytes: BYTES_MAX,
    };
    Ok(Listing { query, page })
}

/// The last change of a page, and the head that the list began with.
struct PageEnd {
    head: Revision,
    revision: Revision,
    name: ResourceName,
}

impl PageEnd {
    fn write(&self, resource: &str, actor: &str, items: &Items) -> String {
        let (incarnation, head, revision, name) = (items.incarnation().id, self.head, self.revision, &self.name);
        format!("{incarnation}\n{head}\n{revision}\n{name}\n{resource}\n{actor}")
    }

    /// Reads the key of a page token. `None`: the key belongs to another list.
    fn read(key: &str, request: &registry::ListChangesRequest, items: &Items) -> Option<Self> {
        let mut parts = key.splitn(6, '\n');
        let incarnation = parts.next()?;
        let mut revision = || Revision::new(parts.next()?.parse().ok()?);
        let (head, revision) = (revision()?, revision()?);
        let name = ResourceName::parse(parts.next()?)?;
        let is_same = incarnation == items.incarnation().id.to_string()
            && head <= items.revision()
            && parts.next()? == request.resource
            && parts.next()? == request.actor;
        is_same.then_some(Self { head, revision, name })
    }
}

/// Returns a page of the history as the answer contains it.
#[must_use]
pub fn page(listing: &Listing, read: PastChanges, items: &Items) -> registry::ListChangesResponse {
    let query = &listing.query;
    let count = read.changes.len();
    let ends: Vec<_> = read
        .changes
        .iter()
        .map(|past| (past.revision, past.name.clone()))
        .collect();
    let changes = within_limit(read.changes.into_iter().map(past_change));
    let is_cut = read.is_cut || changes.len() < count;
    let last = changes
        .len()
        .checked_sub(1)
        .and_then(|last| ends.get(last))
        .filter(|_| is_cut);
    let next_page_token = last.map(|(revision, name)| {
        let end = PageEnd {
            head: query.head,
            revision: *revision,
            name: name.clone(),
        };
        let resource = query.resource.as_ref().map(ToString::to_string).unwrap_or_default();
        let key = end.write(&resource, query.actor.as_deref().unwrap_or_default(), items);
        listing.page.token(&key)
    });
    registry::ListChangesResponse {
        changes,
        next_page_token: next_page_token.unwrap_or_default(),
        oldest_revision: read.oldest.unwrap_or(Revision::ZERO).get(),
        revision: query.head.get(),
        incarnation: items.incarnation().id.to_string(),
    }
}

/// Takes as many changes as fit into an answer, but at least one.
fn within_limit(changes: impl Iterator<Item = registry::Change>) -> Vec<registry::Change> {
    let mut bytes = 0;
    let mut taken = Vec::new();
    for change in changes {
        bytes += change.encoded_len() + 8;
        if bytes > BYTES_MAX && !taken.is_empty() {
            break;
        }
        taken.push(change);
    }
    taken
}

fn past_change(past: PastChange) -> registry::Change {
    registry::Change {
        revision: past.revision.get(),
        commit_time: Some(timestamp(past.commit_time)),
        actor: past.actor,
        resource: past.name.to_string(),
        fields: fields(&past.name, past.before.as_deref(), past.after.as_deref()),
        before: past.before.map(|value| payload(&past.name, value.into())),
        after: past.after.map(|value| payload(&past.name, value.into())),
    }
}

fn payload(name: &ResourceName, value: Vec<u8>) -> Any {
    Any {
        type_url: type_url(name).to_owned(),
        value,
    }
}

/// Reads a request to restore a revision.
#[must_use]
pub fn restore(request: registry::RestoreRevisionRequest) -> RestoreRevision {
    let mut violations = Violations::new();
    let revision = revision_of(request.revision, &mut violations);
    if request.revision == 0 {
        violations.push("revision", FieldReason::FieldRequired, "must be given");
    }
    RestoreRevision {
        revision: revision.filter(|revision| *revision > Revision::ZERO),
        since: Vec::new(),
        violations,
    }
}

/// Reads a revision. `None`: it is negative, and a violation was added.
fn revision_of(number: i64, violations: &mut Violations) -> Option<Revision> {
    let revision = Revision::new(number);
    if revision.is_none() {
        violations.push("revision", FieldReason::ValueOutOfRange, "must not be negative");
    }
    revision
}

/// Returns the answer to a restore.
#[must_use]
pub fn restored(view: &DiffView) -> registry::RestoreRevisionResponse {
    registry::RestoreRevisionResponse {
        revision: view.revision.get(),
        changes: changes(view),
        api_tokens_dropped: view.diff.tokens_dropped.iter().map(ToString::to_string).collect(),
        changes_total: super::count(view.diff.changes.len()),
    }
}

/// Returns the changes of a write of the whole configuration, as many as fit into an answer.
pub(super) fn changes(view: &DiffView) -> Vec<registry::Change> {
    within_limit(view.diff.changes.iter().map(|changed| {
        let after = changed.after.as_ref().map(stored::encode);
        registry::Change {
            revision: view.revision.get(),
            commit_time: Some(timestamp(view.commit_time)),
            actor: Actor::Anonymous.as_str().to_owned(),
            resource: changed.name.to_string(),
            fields: fields(&changed.name, changed.before.as_deref(), after.as_deref()),
            before: changed
                .before
                .as_ref()
                .map(|value| payload(&changed.name, value.to_vec())),
            after: after.map(|value| payload(&changed.name, value.into())),
        }
    }))
}

/// Returns the changes of a write that was only checked: without revision and commit time.
pub(super) fn tried(changes: Vec<registry::Change>) -> Vec<registry::Change> {
    let tried = changes.into_iter().map(|change| registry::Change {
        revision: 0,
        commit_time: None,
        ..change
    });
    tried.collect()
}

/// Returns the sorted paths of the leaves that differ between two values of a resource. Empty if one of them is
/// missing.
fn fields(name: &ResourceName, before: Option<&[u8]>, after: Option<&[u8]>) -> Vec<String> {
    let (Some(before), Some(after)) = (before, after) else {
        return Vec::new();
    };
    match name {
        ResourceName::Model(_) => {
            let (before, after): (registry::ModelEntry, registry::ModelEntry) = (decode(before), decode(after));
            let is_token_touched = before.credential != after.credential;
            let mut paths = differing(&before.model.unwrap_or_default(), &after.model.unwrap_or_default());
            // A changed token is only visible as a changed credential.
            paths.extend(is_token_touched.then(|| "api_token".to_owned()));
            paths.sort_unstable();
            paths
        }
        ResourceName::Feature(_) => differing::<registry::Feature>(&decode(before), &decode(after)),
        ResourceName::Settings => differing::<registry::Settings>(&decode(before), &decode(after)),
    }
}

/// Decodes a stored value. Stored values are always readable.
fn decode<M: prost::Message + Default>(value: &[u8]) -> M {
    M::decode(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;

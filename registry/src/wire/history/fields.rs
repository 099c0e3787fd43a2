//! Which fields of a resource differ, as the paths that a mask would have.

use switchboard::{
    names::ResourceName,
    pb::registry::{Feature, FeatureLimits, Model, ModelEntry, ModelLimits, PlatformOptions, Settings, Tls},
};

/// The leaves that differ between two values of a resource, sorted. None where one of them is missing.
pub(super) fn fields(name: &ResourceName, before: Option<&[u8]>, after: Option<&[u8]>) -> Vec<String> {
    let (Some(before), Some(after)) = (before, after) else {
        return Vec::new();
    };
    let mut paths = match name {
        ResourceName::Model(_) => both(before, after, model),
        ResourceName::Feature(_) => both(before, after, feature),
        ResourceName::Settings => both(before, after, settings),
    };
    paths.sort_unstable();
    paths.into_iter().map(str::to_owned).collect()
}

/// Values that were stored can be read.
fn both<M: prost::Message + Default>(
    before: &[u8],
    after: &[u8],
    differing: impl FnOnce(M, M) -> Vec<&'static str>,
) -> Vec<&'static str> {
    differing(
        M::decode(before).unwrap_or_default(),
        M::decode(after).unwrap_or_default(),
    )
}

macro_rules! differing {
    ($before:expr, $after:expr; $($path:literal: $field:ident),* $(,)?) => {{
        let (before, after) = (&$before, &$after);
        [$((before.$field != after.$field).then_some($path)),*].into_iter().flatten()
    }};
}

fn model(before: ModelEntry, after: ModelEntry) -> Vec<&'static str> {
    // The credential is the trace that a token leaves.
    let token = differing!(before, after; "api_token": credential);
    let (before, after): (Model, Model) = (before.model.unwrap_or_default(), after.model.unwrap_or_default());
    let own = differing!(before, after;
        "display_name": display_name,
        "family": family,
        "platform": platform,
        "endpoints": endpoints,
        "identifier": identifier,
        "infill_mode": infill_mode,
        "disabled": disabled,
        "labels": labels,
    );
    let limits: (ModelLimits, ModelLimits) = (before.limits.unwrap_or_default(), after.limits.unwrap_or_default());
    let limits = differing!(limits.0, limits.1;
        "limits.max_concurrency": max_concurrency,
        "limits.max_queue": max_queue,
        "limits.queue_timeout": queue_timeout,
        "limits.connect_timeout": connect_timeout,
        "limits.first_token_timeout": first_token_timeout,
        "limits.idle_timeout": idle_timeout,
        "limits.total_timeout": total_timeout,
        "limits.max_output_tokens": max_output_tokens,
        "limits.context_tokens": context_tokens,
    );
    let tls: (Tls, Tls) = (before.tls.unwrap_or_default(), after.tls.unwrap_or_default());
    let tls = differing!(tls.0, tls.1; "tls.ca_pem": ca_pem, "tls.server_name": server_name);
    let options: (PlatformOptions, PlatformOptions) = (
        before.platform_options.unwrap_or_default(),
        after.platform_options.unwrap_or_default(),
    );
    let options = differing!(options.0, options.1;
        "platform_options.api_version": api_version,
        "platform_options.region": region,
        "platform_options.project": project,
    );
    token.chain(own).chain(limits).chain(tls).chain(options).collect()
}

fn feature(before: Feature, after: Feature) -> Vec<&'static str> {
    let paths = differing!(before, after;
        "provider": provider,
        "model": model,
        "fallback_models": fallback_models,
        "rules": rules,
        "hedge_delay": hedge_delay,
    );
    let limits: (FeatureLimits, FeatureLimits) = (before.limits.unwrap_or_default(), after.limits.unwrap_or_default());
    let limits = differing!(limits.0, limits.1;
        "limits.max_concurrency": max_concurrency,
        "limits.reserved_concurrency": reserved_concurrency,
    );
    paths.chain(limits).collect()
}

fn settings(before: Settings, after: Settings) -> Vec<&'static str> {
    let paths = differing!(before, after; "beta_enabled": beta_enabled, "inference_paused": inference_paused);
    paths.collect()
}

//! Reads an engine's load from its own metrics. Pure.

use crate::endpoints::EngineLoad;

/// The metric names of one kind of engine.
struct MetricNames {
    running: &'static str,
    waiting: &'static str,
    cache: &'static str,
}

const ENGINES: [MetricNames; 2] = [
    MetricNames {
        running: "vllm:num_requests_running",
        waiting: "vllm:num_requests_waiting",
        cache: "vllm:kv_cache_usage_perc",
    },
    MetricNames {
        running: "llamacpp:requests_processing",
        waiting: "llamacpp:requests_deferred",
        cache: "llamacpp:kv_cache_usage_ratio",
    },
];

/// Reads a page of metrics. `None`: it does not show both the running and the waiting requests under the names of a
/// known engine; then the load is unknown, not zero.
#[must_use]
pub fn load(page: &str) -> Option<EngineLoad> {
    ENGINES.iter().find_map(|names| {
        let running = values(page, names.running).reduce(|sum, value| sum + value)?;
        let waiting = values(page, names.waiting).reduce(|sum, value| sum + value)?;
        Some(EngineLoad {
            // The sum of two finite numbers may be infinite.
            requests: Some(running + waiting).filter(|sum| sum.is_finite())?,
            // If several engines share the port, the fullest cache counts.
            cache_used: values(page, names.cache).reduce(f64::max),
        })
    })
}

/// Returns the values of a metric, one for each engine behind the port.
fn values<'a>(page: &'a str, name: &'a str) -> impl Iterator<Item = f64> + 'a {
    page.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let rest = match rest.strip_prefix('{') {
            // A label may contain a brace, a value cannot.
            Some(labelled) => labelled.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
        (value.is_finite() && value >= 0.0).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metrics as vLLM writes them, shortened.
    const VLLM: &str = r#"# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 12873.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="org/Model-{7B}"} 3.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="org/Model-{7B}"} 2.0
# HELP vllm:num_requests_waiting_by_reason Number of requests waiting, by why.
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 100.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="org/Model-{7B}"} 0.25
vllm:prompt_tokens_total{engine="0",model_name="org/Model-{7B}"} 1.0e+06
"#;

    /// Metrics as llama.cpp's server writes them, shortened.
    const LLAMACPP: &str = "# HELP llamacpp:requests_processing Number of requests processing.\n\
        # TYPE llamacpp:requests_processing gauge\n\
        llamacpp:requests_processing 1\n\
        # HELP llamacpp:requests_deferred Number of requests deferred.\n\
        # TYPE llamacpp:requests_deferred gauge\n\
        llamacpp:requests_deferred 4\n";

    fn of(requests: f64, cache_used: Option<f64>) -> Option<EngineLoad> {
        Some(EngineLoad { requests, cache_used })
    }

    #[test]
    fn each_kind_of_engine_is_read_by_its_own_metric_names() {
        assert_eq!(load(VLLM), of(5.0, Some(0.25)));
        assert_eq!(load(LLAMACPP), of(5.0, None));
    }

    #[test]
    fn the_loads_of_several_engines_behind_one_port_are_added() {
        let second = VLLM.replace("engine=\"0\"", "engine=\"1\"").replace(" 0.25", " 0.75");
        assert_eq!(load(&format!("{VLLM}{second}")), of(10.0, Some(0.75)));
    }

    #[test]
    fn a_missing_or_invalid_value_is_unknown_and_never_zero() {
        for (page, expected) in [
            (String::new(), None),
            ("<html>".to_owned(), None),
            (VLLM.replace("_running{", "_{"), None),
            (VLLM.replace("} 2.0", "} NaN"), None),
            (VLLM.replace("} 2.0", "} -1"), None),
            (VLLM.replace("} 2.0", "} +Inf"), None),
            (VLLM.replace("} 2.0", "}"), None),
            (VLLM.replace("} 2.0", ""), None),
            (VLLM.replace("} 2.0", "} 1e308").replace("} 3.0", "} 1e308"), None),
            (VLLM.replace("kv_cache", "cache"), of(5.0, None)),
            // With the time of the sample, which some exporters add.
            (VLLM.replace("} 2.0", "} 2 1395066363000"), of(5.0, Some(0.25))),
        ] {
            assert_eq!(load(&page), expected, "{page}");
        }
    }
}

//! Which of a model's endpoints takes a call.
//!
//! Pure: chance is an argument. It knows nothing of connections.

use crate::catalog::Endpoint;

/// Picks by weight one of the endpoints that were not tried yet, and tells its place. `chance` is uniform from 0 up to, not
/// including, 1; an endpoint of weight 0 is never picked.
///
/// `None` when none is left that has a weight.
#[must_use]
pub fn pick(endpoints: &[Endpoint], tried: &[usize], chance: f64) -> Option<usize> {
    let mut left_to_try = endpoints
        .iter()
        .enumerate()
        .filter(|(place, endpoint)| endpoint.weight > 0 && !tried.contains(place))
        .map(|(place, endpoint)| (place, f64::from(endpoint.weight)));
    let total: f64 = left_to_try.clone().map(|(_, weight)| weight).sum();
    let last = left_to_try.clone().next_back();
    let mut left = chance * total;
    left_to_try
        .find(|(_, weight)| {
            left -= weight;
            left < 0.0
        })
        // Rounding may leave a sliver behind the last one.
        .or(last)
        .map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use switchboard::endpoint::EndpointUri;

    use super::*;

    fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
        weights
            .iter()
            .enumerate()
            .map(|(place, &weight)| Endpoint {
                uri: EndpointUri::parse(&format!("http://gpu{place}:8000")).unwrap(),
                weight,
                zone: "".into(),
            })
            .collect()
    }

    #[test]
    fn each_endpoint_gets_its_share_of_the_calls() {
        let endpoints = endpoints(&[1, 0, 3]);
        let mut picked = [0; 3];
        for step in 0..400 {
            picked[pick(&endpoints, &[], f64::from(step) / 400.0).unwrap()] += 1;
        }
        assert_eq!(picked, [100, 0, 300]);
    }

    #[test]
    fn an_endpoint_without_weight_is_never_picked() {
        assert_eq!(pick(&endpoints(&[0, 0]), &[], 0.5), None);
        assert_eq!(pick(&[], &[], 0.0), None);
        let one = endpoints(&[0, 5]);
        assert_eq!(pick(&one, &[], 0.0), Some(1));
        assert_eq!(pick(&one, &[], 1.0), Some(1));
    }

    #[test]
    fn an_endpoint_that_was_tried_leaves_its_share_to_the_others() {
        let endpoints = endpoints(&[2, 5, 2]);
        let mut picked = [0; 3];
        for step in 0..400 {
            picked[pick(&endpoints, &[1], f64::from(step) / 400.0).unwrap()] += 1;
        }
        assert_eq!(picked, [200, 0, 200]);
        assert_eq!(pick(&endpoints, &[0, 1, 2], 0.5), None);
    }
}

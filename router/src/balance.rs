//! Which of a model's endpoints takes a call.
//!
//! Pure: chance is an argument. It knows nothing of connections.

use crate::catalog::Endpoint;

/// Picks an endpoint by weight. `chance` is uniform from 0 up to, not including, 1; an endpoint of weight 0 is never picked.
///
/// `None` when no endpoint has a weight.
#[must_use]
pub fn pick(endpoints: &[Endpoint], chance: f64) -> Option<&Endpoint> {
    let total: f64 = endpoints.iter().map(|endpoint| f64::from(endpoint.weight)).sum();
    let mut left = chance * total;
    let mut weighted = endpoints.iter().filter(|endpoint| endpoint.weight > 0);
    let last = weighted.clone().next_back();
    weighted
        .find(|endpoint| {
            left -= f64::from(endpoint.weight);
            left < 0.0
        })
        // Rounding may leave a sliver behind the last one.
        .or(last)
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
            })
            .collect()
    }

    #[test]
    fn each_endpoint_gets_its_share_of_the_calls() {
        let endpoints = endpoints(&[1, 0, 3]);
        let mut picked = [0; 3];
        for step in 0..400 {
            let chosen = pick(&endpoints, f64::from(step) / 400.0).unwrap();
            let place = endpoints.iter().position(|endpoint| endpoint == chosen).unwrap();
            picked[place] += 1;
        }
        assert_eq!(picked, [100, 0, 300]);
    }

    #[test]
    fn an_endpoint_without_weight_is_never_picked() {
        assert_eq!(pick(&endpoints(&[0, 0]), 0.5), None);
        assert_eq!(pick(&[], 0.0), None);
        let one = endpoints(&[0, 5]);
        assert_eq!(pick(&one, 0.0), Some(&one[1]));
        assert_eq!(pick(&one, 1.0), Some(&one[1]));
    }
}
